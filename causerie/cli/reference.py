"""The command tree as Markdown, for docs/reference/commands.md."""

from __future__ import annotations

from cyclopts import App


def command_lines(app: App, path: tuple[str, ...] = ("causerie",)) -> list[str]:
    """Markdown lines for a command and everything below it: help text, then a row per flag with its default."""
    lines: list[str] = []
    names = [name for name in app if not name.startswith("-")]
    if app.default_command is not None:
        lines += [f"## {' '.join(path)}", "", _first_line(app.default_command.__doc__), ""]
        lines += ["| flag | default | what it is |", "|---|---|---|"]
        for argument in app.assemble_argument_collection(parse_docstring=False):
            flag = ", ".join(f"`{n}`" for n in argument.names if not n.startswith("--no-"))
            default = argument.field_info.default
            shown = "required" if argument.required else _shown(default)
            lines.append(f"| {flag} | {shown} | {(argument.parameter.help or '').replace('|', '/')} |")
        lines.append("")
    for name in sorted(names):
        lines += command_lines(app[name], (*path, name))
    return lines


def _first_line(text: str | None) -> str:
    return (text or "").strip().split("\n")[0]


def _shown(default: object) -> str:
    return "" if default is None or default == () else f"`{default}`"
