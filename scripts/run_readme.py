"""Run the commands of a Markdown file: every line that starts with `$ ` inside a ```console block, in order.

    python scripts/run_readme.py README.md

A block preceded by `<!-- not run: reason -->` is counted as left out, with its reason. Commands run from the
checkout with `.venv/bin` first on the PATH and a workspace of their own. Ends with 'N passed, N failed'.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"(?:<!-- not run: (?P<reason>[^>]+) -->\s*)?```console\n(?P<body>.*?)```", re.DOTALL)


def commands(text: str) -> list[tuple[str, str]]:
    """(command, reason it is left out or "") of every console line."""
    found = []
    for block in BLOCK.finditer(text):
        lines = re.findall(r"^\$ (.+)$", block["body"], re.MULTILINE)
        found += [(line, block["reason"] or "") for line in lines]
    return found


def main() -> int:
    passed, failed, left_out = 0, [], 0
    with tempfile.TemporaryDirectory() as workspace:
        path = f"{ROOT / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "CAUSERIE_WORKSPACE": workspace, "NO_COLOR": "1"}
        for name in sys.argv[1:]:
            for command, reason in commands((ROOT / name).read_text(encoding="utf-8")):
                if reason:
                    left_out += 1
                    print(f"left out: {command}  ({reason})")
                    continue
                started = time.monotonic()
                done = subprocess.run(["bash", "-c", command], cwd=ROOT, env=environment)
                print(
                    f"{'ok' if done.returncode == 0 else 'FAILED'} ({time.monotonic() - started:.0f} s): {command}",
                    flush=True,
                )
                passed += done.returncode == 0
                failed += [command] if done.returncode else []
    print(f"{passed} passed, {len(failed)} failed, {left_out} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
