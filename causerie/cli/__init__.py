"""The command line: thin, lazy, one contract for exit statuses, `--json` and errors."""

from causerie.cli.app import main

__all__ = ["main"]
