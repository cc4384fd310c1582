"""The tree of commands, and what happens at its edge: configuration order, errors, exit statuses."""

from __future__ import annotations

import errno
import io
import json
import os
import sys
import tomllib
from pathlib import Path
from typing import Annotated

from cyclopts import App, CycloptsError, Parameter
from cyclopts.config import Env, Toml

from causerie import __version__
from causerie.cli.flags import hide_dash
from causerie.core import CauserieError, Finding, Stopped, need_package, stderr_console

GROUPS = (
    # name, module, help
    ("data", "causerie.cli.data", "Web pages in, curated token shards out."),
    ("tokenizer", "causerie.cli.tokenizer", "Train the byte-level BPE."),
    ("train", "causerie.cli.train", "Pretraining, SFT, DPO, KTO."),
    ("feedback", "causerie.cli.feedback", "What people said about answers."),
    ("canary", "causerie.cli.canary", "Candidates on trial with a share of the conversations."),
    ("models", "causerie.cli.models", "Versions: list, show, import, export, promote, roll back, verify."),
    ("keys", "causerie.cli.keys", "API keys: create, list, revoke."),
    ("plan", "causerie.cli.plan", "Count, fit, predict before paying."),
    ("runs", "causerie.cli.runs", "What long work is doing or did."),
    ("doctor", "causerie.cli.doctor", "Check this machine, and the closed-form invariants of alignment."),
)
SINGLE = (
    # name, target, help
    ("demo", "causerie.cli.circle:demo", "The whole circle, small and offline, then the page."),
    ("eval", "causerie.cli.evals:run", "Measure a model, or two side by side, with intervals."),
    ("generate", "causerie.cli.talk:generate", "Continue a prompt or answer it."),
    ("chat", "causerie.cli.talk:chat", "Talk to a model in the terminal."),
    ("serve", "causerie.cli.circle:serve", "The page and the OpenAI-shaped API on loopback."),
    ("improve", "causerie.cli.circle:improve", "One turn of the loop: feedback, candidate, gate, verdict."),
)

OPTIONAL = {"torch": "train", "matplotlib": "train"}
"""Packages that only some commands need, and the extra that brings each."""


def build_app() -> App:
    """The command tree; groups are imported only when one of their commands is asked for."""
    app = App(
        name="causerie",
        version=__version__,
        help="Own your ChatGPT: web pages go in, an assistant that people talk to comes out.",
        result_action="return_value",
    )
    for name, module, text in GROUPS:
        app.command(f"{module}:app", name=name, help=text)
    for name, target, text in SINGLE:
        app.command(target, name=name, help=text)
    return app


def dispatch(tokens: list[str]) -> None:
    """Run one command line; raises what goes wrong.

    Values come in the order defaults < `--config FILE.toml` < environment < flags.
    """
    app = build_app()

    @app.meta.default
    def meta(
        *rest: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
        config: Annotated[Path | None, Parameter(help="TOML file with the command's values.")] = None,
    ) -> None:
        sources: list[object] = [Env("CAUSERIE_", command=True)]
        if config is not None:
            _check_toml(config)
            sources.append(Toml(config, must_exist=True, use_commands_as_keys=False))
        app.config = sources
        app(rest, exit_on_error=False, print_error=False)

    app.meta([hide_dash(token) for token in tokens], exit_on_error=False, print_error=False)


def _check_toml(path: Path) -> None:
    """Refuse a file that is there and no TOML.

    Raises:
        CauserieError: CAU-7004.
    """
    if not path.exists():
        return  # the parser says so itself
    fix = "give --config FILE.toml"
    if not path.is_file():
        raise CauserieError("CAU-7004", "not a file", where=str(path), fix=fix)
    try:
        tomllib.loads(path.read_bytes().decode("utf-8"))
    except ValueError as error:
        raise CauserieError("CAU-7004", f"not TOML: {error}", where=str(path), fix=fix) from error


def _check_words(tokens: list[str]) -> None:
    """Refuse words that are no UTF-8: most of what would hold them (JSON, Parquet, the database) cannot.

    Raises:
        CauserieError: CAU-7001.
    """
    for token in tokens:
        try:
            token.encode()
        except UnicodeEncodeError as error:
            shown = token.encode("utf-8", "backslashreplace").decode()
            fix = "rename it, or give the folder that it lies in"
            raise CauserieError("CAU-7001", f"the word is no UTF-8: {error.reason}", where=shown, fix=fix) from error


def main(arguments: list[str] | None = None) -> None:
    """Entry point: runs the command line and exits with the status that scripts may rely on.

    0 done; 1 a finding or a failed gate; 2 wrong usage or bad input; 75 stopped with its state saved;
    130 interrupted.
    """
    tokens = sys.argv[1:] if arguments is None else arguments
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # waiting threads that spin ruin everything on a busy machine
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal without é gets \\xe9, not a traceback
    try:
        _check_words(tokens)
        dispatch(tokens)
    except Finding as finding:
        stderr_console().print(str(finding), markup=False, highlight=False)
        sys.exit(Finding.exit_status)
    except Stopped as stopped:
        stderr_console().print(f"stopped: {stopped}\nhint: run the same command again to go on", markup=False)
        sys.exit(Stopped.exit_status)
    except CauserieError as error:
        _fail(error, tokens)
    except CycloptsError as error:
        wrong = CauserieError(
            "CAU-7001", str(error), where="causerie " + " ".join(tokens), fix="see causerie COMMAND --help"
        )
        _fail(wrong, tokens)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # the reader has seen enough
        _drop_stdout()
        sys.exit(0)
    except OSError as error:
        _fail(_unusable(error, tokens), tokens)
    except ModuleNotFoundError as error:
        if error.name not in OPTIONAL:
            raise
        _fail(need_package(error.name, OPTIONAL[error.name]), tokens)
    sys.exit(0)


def _unusable(error: OSError, tokens: list[str]) -> CauserieError:
    """The error for a path, or a full disk, that the system would not let us use."""
    where = str(error.filename or "causerie " + " ".join(tokens))
    if isinstance(error, FileNotFoundError):
        return CauserieError("CAU-1001", "no such file", where=str(error.filename or error), fix="check the path")
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    fix = "free some space, then run the same command again" if full else "check the path and its rights"
    return CauserieError("CAU-7004", error.strerror or str(error), where=where, fix=fix)


def _fail(error: CauserieError, tokens: list[str]) -> None:
    stderr_console().print(str(error), markup=False, highlight=False)
    try:
        if "--json" in tokens:
            sys.stdout.write(json.dumps({"error": error.as_dict()}, ensure_ascii=False) + "\n")
        sys.stdout.flush()
    except OSError:
        _drop_stdout()
    sys.exit(error.exit_status)


def _drop_stdout() -> None:
    """Send what stdout still holds nowhere: Python would complain once more when it flushes at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
