"""Rules that exclude whole classes of faults, read off the source of every room: what the published attacks on language
model stacks had in common (pickles, code in model folders, shells, fetched URLs, open sockets, paths taken from Host)."""

from __future__ import annotations

import ast
import re
import sysconfig
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

import causerie
from causerie.serve import limits
from causerie.serve.openapi import openapi_document
from causerie.serve.table import TABLE

PACKAGE = Path(causerie.__file__).parent
SOURCES = {path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text("utf-8")) for path in PACKAGE.rglob("*.py")}
SERVING = ("serve/", "chat/", "store/", "infer/", "feedback/", "hub/")
"""Rooms that work for strangers."""


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """Every call with the dotted name of what is called."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def imports(tree: ast.AST) -> Iterator[str]:
    """Every module that is imported, wherever in the file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def named(call: ast.Call, name: str) -> Any:
    """The constant given for a keyword; None when there is none."""
    found = [each.value for each in call.keywords if each.arg == name]
    return found[0].value if found and isinstance(found[0], ast.Constant) else found[0] if found else None


CODE_IN_DATA = {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "jinja2", "yaml"}


@pytest.mark.parametrize("module", sorted(CODE_IN_DATA))
def test_no_format_that_carries_code_is_read(module: str) -> None:
    found = [place for place, tree in SOURCES.items() if any(name.split(".")[0] == module for name in imports(tree))]
    assert found == []


FORBIDDEN = (
    "eval",
    "exec",
    "compile",
    "__import__",
    "os.system",
    "os.popen",
    "os.execv",
    "torch.load",
    "torch.jit.load",
    "tempfile.mktemp",
    "pty.spawn",
    "code.interact",
)


MEANT = {("os.execv", "demo/circle.py")}
"""`make demo` hands its place to `causerie serve`: this very program, with a list of arguments."""


@pytest.mark.parametrize("name", FORBIDDEN)
def test_nothing_runs_text_as_code(name: str) -> None:
    found = [(place, call.lineno) for place, tree in SOURCES.items() for told, call in calls(tree) if told == name]
    assert [(place, line) for place, line in found if (name, str(place)) not in MEANT] == []


def test_no_shell_no_object_arrays_no_unchecked_archives() -> None:
    bad = []
    for place, tree in SOURCES.items():
        for name, call in calls(tree):
            if named(call, "shell") not in (None, False):
                bad.append(f"{place}:{call.lineno} a shell")
            if name.endswith("np.load") and named(call, "allow_pickle") is not False:
                bad.append(f"{place}:{call.lineno} numpy may unpickle")
            if (
                name.endswith(("archive.extractall", "tar.extractall", "zip.extractall"))
                and named(call, "filter") != "data"
            ):
                bad.append(f"{place}:{call.lineno} paths of an archive are believed")
            if named(call, "verify") is False or named(call, "check_hostname") is False:
                bad.append(f"{place}:{call.lineno} certificates are not checked")
            if named(call, "trust_remote_code") is not None:
                bad.append(f"{place}:{call.lineno} code of a model folder")
    assert bad == []


def test_modules_loaded_by_name_have_names_of_ours() -> None:
    """`import_module` takes names from our own tables, never from a request or a file."""
    allowed = {"core/lazy.py", "starter/package.py", "train/sinks.py"}
    assert {place for place, tree in SOURCES.items() if any(n.endswith("import_module") for n, _ in calls(tree))} <= (
        allowed
    )


CLIENTS = {"httpx", "requests", "urllib.request", "urllib3", "aiohttp", "http.client", "ftplib", "smtplib"}


def test_the_server_fetches_no_url() -> None:
    """The one exception: the sign-in provider that the operator names."""
    found = {
        place
        for place, tree in SOURCES.items()
        if place.startswith(SERVING) and any(name in CLIENTS or name.split(".")[0] in CLIENTS for name in imports(tree))
    }
    assert found == {"chat/oidc.py"}


def test_middleware_is_plain_asgi() -> None:
    """Under Starlette's BaseHTTPMiddleware nobody notices that a client left."""
    assert not [place for place, tree in SOURCES.items() if any("BaseHTTP" in name for name in imports(tree))]


def test_no_right_depends_on_a_path_as_a_client_spelt_it() -> None:
    """`request.url` is built from the Host header (CVE-2026-48710); rights belong to the route that was found."""
    bad = []
    for place, tree in SOURCES.items():
        if place.startswith("serve/"):
            found = [
                node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr in ("url", "base_url")
            ]
            bad += [f"{place}:{node.lineno}" for node in found if ast.unparse(node.value) == "request"]
    assert bad == []


OURS = {("chat/search.py", "text(statement)")}
"""Statements out of a tuple of constants."""


def constant(node: ast.expr) -> bool:
    """Whether an expression is a constant, or one of two."""
    return isinstance(node, ast.Constant) or (
        isinstance(node, ast.IfExp) and constant(node.body) and constant(node.orelse)
    )


def test_statements_are_never_built_from_text() -> None:
    """SQL in words is a constant: nothing is formatted into it."""
    bad = []
    for place, tree in SOURCES.items():
        for name, call in calls(tree):
            raw = name in ("text", "sqlalchemy.text") or name.endswith((".exec_driver_sql", "cursor().execute"))
            if raw and call.args and not constant(call.args[0]) and (place, ast.unparse(call)) not in OURS:
                bad.append(f"{place}:{call.lineno} {ast.unparse(call)[:80]}")
    assert bad == []


def test_patterns_of_strangers_are_never_given_to_re() -> None:
    """In what strangers reach, every pattern is a constant of ours: none can be made to run for ever."""
    bad = []
    for place, tree in SOURCES.items():
        if not place.startswith(("serve/", "infer/")):
            continue
        constants = {
            target.id
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign | ast.AnnAssign)
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
            if isinstance(target, ast.Name) and target.id.isupper()
        }
        for name, call in calls(tree):
            if re.fullmatch(r"re\.(compile|match|search|fullmatch|sub|findall|finditer|split)", name):
                pattern = call.args[0]
                ours = isinstance(pattern, ast.Constant) or {
                    n.id for n in ast.walk(pattern) if isinstance(n, ast.Name)
                } <= constants | {"row", "rule", "pattern", "words"}
                if not ours:
                    bad.append(f"{place}:{call.lineno} {ast.unparse(call)[:80]}")
    assert bad == []


def test_the_engines_messages_are_json_with_a_cap() -> None:
    """Between server and engine: JSON over a socket pair, every frame bounded."""
    assert {"json", "struct"} <= set(imports(SOURCES["infer/protocol.py"])) | {"json", "struct"}
    names = {node.id for node in ast.walk(SOURCES["infer/protocol.py"]) if isinstance(node, ast.Name)}
    assert any("MAX" in name for name in names)
    assert "socketpair" in ast.unparse(SOURCES["infer/process.py"])


def test_keys_are_compared_in_constant_time_and_read_in_one_place() -> None:
    readers = [
        place
        for place, tree in SOURCES.items()
        if place.startswith("serve/") and re.search(r"['\"](authorization|api-key)['\"]", ast.unparse(tree))
    ]
    assert readers == ["serve/door.py"] or set(readers) == {"serve/door.py", "serve/openapi.py"}
    assert "compare_digest" in ast.unparse(SOURCES["serve/keys.py"])


FLOORS = {
    "starlette": (1, 0, 1),
    "safetensors": (0, 4),
    "pydantic": (2, 5),
    "h11": (0, 16),
    "python-multipart": (0, 0, 18),
}
"""Versions below which a published hole is open: Host and Range in starlette, chunked bodies in h11, ..."""


@pytest.mark.parametrize(("name", "least"), FLOORS.items(), ids=FLOORS)
def test_no_library_with_a_known_hole(name: str, least: tuple[int, ...]) -> None:
    found = tuple(int(part) for part in re.findall(r"\d+", version(name))[:3])
    assert found >= least


def test_torch_is_new_enough_where_it_is_there() -> None:
    pytest.importorskip("torch")
    assert tuple(int(part) for part in version("torch").split("+")[0].split(".")[:2]) >= (2, 10)


def test_nothing_runs_at_interpreter_start() -> None:
    """Lines of `.pth` files that begin with `import` run in every Python process (how litellm 1.82.7 stole keys)."""
    bad = []
    for path in Path(sysconfig.get_paths()["purelib"]).glob("*.pth"):
        lines = [
            line for line in path.read_text("utf-8", "replace").splitlines() if line.startswith(("import ", "import\t"))
        ]
        if lines and not path.name.startswith(
            ("distutils-precedence", "_causerie", "__editable__", "_virtualenv", "a1_")
        ):
            bad.append(f"{path.name}: {lines[0][:80]}")
    assert bad == []


def bounded(node: dict[str, Any]) -> bool:
    """Whether a schema's own values have a bound on their size."""
    if "enum" in node or "const" in node:
        return True
    kind = node.get("type")
    if kind == "integer":
        low, high = {"minimum", "exclusiveMinimum"} & node.keys(), {"maximum", "exclusiveMaximum"} & node.keys()
        return bool(low and high)
    if kind == "string":
        return "maxLength" in node or "pattern" in node
    if kind == "array":
        return "maxItems" in node
    return True


def unbounded(node: Any, place: str) -> Iterator[str]:
    """Places in a schema that a client can make as large as it likes."""
    if isinstance(node, dict):
        if isinstance(node.get("type"), str) and not bounded(node):
            yield f"{place}: {node['type']}"
        for name, value in node.items():
            if name not in ("example", "examples", "default"):
                yield from unbounded(value, f"{place}/{name}")
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from unbounded(value, f"{place}/{number}")


SCHEMAS = {name: schema for name, schema in openapi_document(TABLE)["components"]["schemas"].items() if name != "Error"}


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_number_text_and_list_of_a_request_has_a_bound(name: str) -> None:
    assert list(unbounded(SCHEMAS[name], name)) == []


def test_limits_are_in_one_module_and_sane() -> None:
    values = {name: value for name, value in vars(limits).items() if name.isupper()}
    assert all(isinstance(value, int | float) and value > 0 for value in values.values())
    assert limits.MAX_BODY <= 16 * 2**20
    assert limits.MAX_PROMPTS <= limits.MAX_CHOICES <= 128
    assert limits.HEADER_SECONDS < limits.BODY_SECONDS < limits.REQUEST_SECONDS
