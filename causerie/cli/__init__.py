"""The command line: thin, lazy, one contract for exit statuses, `--json` and errors."""

from __future__ import annotations

import sys


def main(arguments: list[str] | None = None) -> None:
    """Run one command line and exit, see `causerie.cli.app.main`; Ctrl-C while the program loads is one, too."""
    try:
        from causerie.cli.app import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    run(arguments)


__all__ = ["main"]
