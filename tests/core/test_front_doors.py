"""What one room imports from another is there: the front doors are lazy, so the type checker cannot tell."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import causerie

PACKAGE = Path(causerie.__file__).parent


def imported_names() -> set[tuple[str, str]]:
    """(module, name) of every `from causerie.… import …` in the package."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("causerie."):
                found |= {(str(node.module), alias.name) for alias in node.names}
    return found


def is_there(module: str, name: str) -> bool:
    try:
        if hasattr(importlib.import_module(module), name):
            return True
    except ModuleNotFoundError as error:  # a package of an extra: what the file defines is read instead
        if str(error.name).startswith("causerie"):
            raise
        source = ast.parse((PACKAGE.parent / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))
        return name in {getattr(node, "name", None) for node in source.body}
    return importlib.util.find_spec(f"{module}.{name}") is not None


def test_every_imported_name_exists() -> None:
    names = imported_names()
    assert len(names) > 300
    assert [f"{module}.{name}" for module, name in sorted(names) if not is_there(module, name)] == []


def test_front_doors_keep_what_they_promise() -> None:
    for room in sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py")):
        door = importlib.import_module(f"causerie.{room}")
        assert [name for name in getattr(door, "__all__", ()) if not hasattr(door, name)] == [], room


def test_rooms_use_each_others_front_doors_only() -> None:
    wrong = []
    for path in PACKAGE.glob("*/**/*.py"):
        room = path.relative_to(PACKAGE).parts[0]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            parts = (node.module or "").split(".") if isinstance(node, ast.ImportFrom) else []
            if parts[:1] == ["causerie"] and len(parts) > 2 and parts[1] != room:
                wrong.append(f"{path.relative_to(PACKAGE)}:{node.lineno} {node.module}")
    assert wrong == []
