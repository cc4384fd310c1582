"""Make `.venv` and install the package with the extras named as arguments; does nothing when that is done already.

    python3 scripts/bootstrap.py train test

An extra followed by `?` is wanted but not needed: when its packages cannot be had, that is said and the rest goes on.
Uses only the standard library. Environment: PIP_ARGS goes to pip (say, another index for torch).
"""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"


def say(text: str) -> None:
    print(f"causerie: {text}", file=sys.stderr, flush=True)


def stop(cause: str, hint: str) -> None:
    say(f"{cause}\nhint: {hint}")
    sys.exit(2)


def check_python() -> None:
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        stop(
            "the venv module is missing",
            f"on Debian or Ubuntu: sudo apt install python3-venv (or python{version}-venv)",
        )


def make_venv() -> None:
    if PYTHON.exists() and subprocess.run([PYTHON, "-c", "import pip"], capture_output=True).returncode == 0:
        return
    say("making .venv")
    made = subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)])
    if made.returncode != 0:
        stop("python3 -m venv failed", "on Debian or Ubuntu: sudo apt install python3-venv")


def pip(*arguments: str) -> bool:
    extra = shlex.split(os.environ.get("PIP_ARGS", ""))
    command = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *extra, *arguments]
    return subprocess.run(command, cwd=ROOT).returncode == 0


def stamp(extras: str) -> Path:
    parts = [(ROOT / name).read_bytes() for name in ("pyproject.toml", "constraints.txt")]
    digest = hashlib.sha256(b"\0".join([*parts, extras.encode(), str(ROOT).encode()])).hexdigest()[:12]
    return VENV / f".causerie-{extras.replace(',', '-')}-{digest}"


def install(extras: str) -> bool:
    done = stamp(extras)
    if done.exists():
        return True
    say(f"installing {extras} into .venv (the first time takes a minute or two)")
    started = time.monotonic()
    if not pip("-c", "constraints.txt", "-e", f".[{extras}]"):
        return False
    done.touch()
    say(f"installed {extras} in {time.monotonic() - started:.0f} s")
    return True


def main() -> None:
    wanted = [name for name in sys.argv[1:] if not name.endswith("?")]
    optional = [name.rstrip("?") for name in sys.argv[1:] if name.endswith("?")]
    check_python()
    make_venv()
    if not install(",".join(wanted)):
        stop(
            "pip could not install the package",
            "see the lines above; behind a proxy or for another torch build set PIP_ARGS (docs/guides/install.md)",
        )
    for name in optional:
        if not install(name):
            say(f"the packages of the extra {name!r} cannot be had here; going on without them")


if __name__ == "__main__":
    main()
