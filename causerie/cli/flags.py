"""Flags from frozen dataclasses: one configuration class per command, its fields become the command's flags."""

from __future__ import annotations

import ast
import contextlib
import inspect
import itertools
import json
import sys
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Annotated, Any, get_origin, get_type_hints

from cyclopts import Parameter, Token

from causerie.core import Artifact, Finding, plain, workspace_path

WORKSPACE = Annotated[Path | None, Parameter(help="Where artifacts and the database live (CAUSERIE_WORKSPACE).")]
JSON = Annotated[bool, Parameter(help="Print one JSON object as the last line of stdout.", negative="")]

_DASH = "./-"


def hide_dash(word: str) -> str:
    """A lone `-` (standard input) spelt so that the parser does not take it for a flag; see `show_dash`."""
    return _DASH if word == "-" else word


def show_dash(value: Any) -> Any:
    """The value as the user wrote it."""
    if isinstance(value, tuple):
        return tuple(show_dash(item) for item in value)
    return "-" if value == _DASH else value


def field_docs(config_class: type) -> dict[str, str]:
    """The docstring below each field of a dataclass, by field name; bases are read too."""
    found: dict[str, str] = {}
    for base in reversed(config_class.__mro__[:-1]):
        tree = ast.parse(textwrap.dedent(inspect.getsource(base)))
        body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
        for statement, after in itertools.pairwise(body):
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                text = _string(after)
                if text:
                    found[statement.target.id] = " ".join(text.split())
    return found


def _string(node: ast.stmt) -> str:
    is_string = (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    )
    return node.value.value if is_string else ""  # type: ignore[attr-defined]


def command_for(
    config_class: type,
    function: Callable[[Any, Path], Any],
    doc: str,
    *,
    positional: tuple[str, ...] = (),
    say: Callable[[Any], str] | None = None,
    finding: Callable[[Any], str] | None = None,
    then: Callable[[Any, Path, Any], None] | None = None,
) -> Callable[..., Any]:
    """A command whose flags are the fields of `config_class` and whose work is `function(config, workspace)`.

    Args:
        doc: the command's help text.
        positional: fields that may be given without their flag, in order.
        say: turns the result into the text for people; default is the artifact's folder and metrics.
        finding: says in words why the answer is "no" (exit status 1), or "" when it is not.
        then: what follows when the result was shown, `then(config, workspace, result)`.
    """
    hints, docs = get_type_hints(config_class), field_docs(config_class)
    ordered = sorted(fields(config_class), key=lambda f: positional.index(f.name) if f.name in positional else 99)
    parameters = []
    for item in ordered:
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD if item.name in positional else inspect.Parameter.KEYWORD_ONLY
        default = inspect.Parameter.empty if item.default is MISSING else item.default
        flag = _flag(hints[item.name], item.default, docs.get(item.name, ""))
        note = Annotated.__class_getitem__((hints[item.name], flag))  # type: ignore[attr-defined]
        parameters.append(inspect.Parameter(item.name, kind, default=default, annotation=note))
    parameters.sort(key=lambda p: p.kind)
    for name, note, default in (("workspace", WORKSPACE, None), ("json", JSON, False)):
        parameters.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=note))

    def run(*args: Any, **given: Any) -> None:
        bound = inspect.Signature(parameters).bind(*args, **given)
        bound.apply_defaults()
        values = dict(bound.arguments)
        workspace, as_json = workspace_path(values.pop("workspace")), values.pop("json")
        config = config_class(**{name: show_dash(value) for name, value in values.items()})
        result = function(config, workspace)
        show(result, as_json, say)
        if then is not None:
            then(config, workspace, result)
        if finding is not None and (words := finding(result)):
            raise Finding(words)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    run.__doc__ = doc
    run.__name__ = function.__name__
    return run


def _flag(hint: Any, default: Any, text: str) -> Parameter:
    """How a field is read: a tuple takes several words or its flag again; `--empty-NAME` clears one that has values."""
    if get_origin(hint) is tuple:
        return Parameter(help=text, consume_multiple=1, negative_iterable="empty-" if default else ())
    if hint is int:
        return Parameter(help=text, converter=whole_number)
    if hint == int | None:
        return Parameter(help=text, converter=whole_number_or_none)
    return Parameter(help=text)


def whole_number(_hint: Any, tokens: Sequence[Token]) -> int:
    """An integer as people write it: `4096`, `1_000`, `0x10`, `1e6`; 1.5 is none, and is not made one.

    Raises:
        ValueError: the text is no integer.
    """
    text = tokens[0].value
    with contextlib.suppress(ValueError):
        return int(text, 0)
    with contextlib.suppress(ValueError):
        number = float(text)
        if number.is_integer():
            return int(text) if text.isdecimal() else int(number)
    raise ValueError(f"{text} is no whole number")


def whole_number_or_none(hint: Any, tokens: Sequence[Token]) -> int | None:
    """The same, or `none`: the parser does not say to a converter that a field may be None."""
    return None if tokens[0].value.lower() in ("none", "null") else whole_number(hint, tokens)


WHOLE = Annotated[int, Parameter(converter=whole_number)]
WHOLE_OR_NONE = Annotated[int | None, Parameter(converter=whole_number_or_none)]


def show(result: Any, as_json: bool, say: Callable[[Any], str] | None = None) -> None:
    """Print a command's result on stdout: text for people, or one JSON object."""
    if as_json:
        sys.stdout.write(json.dumps(as_object(result), ensure_ascii=False, default=str) + "\n")
    else:
        text = (say or describe)(result)
        if text:
            sys.stdout.write(text + "\n")
    sys.stdout.flush()


def as_object(result: Any) -> dict[str, Any]:
    """A result as a JSON object: artifacts become their path, kind, name, key and metrics."""
    if isinstance(result, Artifact):
        manifest = result.manifest
        head = {"path": str(result.path), "kind": manifest.kind, "name": manifest.name, "key": manifest.key}
        return {**head, "metrics": manifest.metrics, "inputs": manifest.inputs}
    values = plain(result)
    return values if isinstance(values, dict) else {"result": values}


def describe(result: Any) -> str:
    """A result for people: the folder first, then its figures, one a line."""
    values = as_object(result)
    lines = [str(values["path"])] if "path" in values else []
    for name, value in (values.get("metrics") or {k: v for k, v in values.items() if k != "path"}).items():
        lines.append(f"  {name}: {_figure(value)}")
    return "\n".join(lines)


def _figure(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{k} {_figure(v)}" for k, v in value.items())
    return str(value)
