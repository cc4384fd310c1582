"""Model cards: what a version is, what it was made from, how it was measured and under which terms it stands."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from causerie.core import CauserieError, read_manifest, write_atomic
from causerie.hub.lineage import Lineage, lineage, render_lineage
from causerie.hub.registry import Version, get_version
from causerie.store import Store


def model_card(store: Store, workspace: Path, ref: str, evaluation: Mapping[str, Any] | None = None) -> str:
    """The card of a version as Markdown with Hugging Face's metadata block.

    Args:
        store: the store.
        workspace: the workspace.
        ref: `name@number`, or a name for its promoted version.
        evaluation: results to show; those in the version's card (`card["evaluation"]`) when not given.

    Raises:
        CauserieError: CAU-5001 when it is not registered.
    """
    version = get_version(store, ref)
    tree = lineage(store, workspace, version.ref)
    results = evaluation if evaluation is not None else version.card.get("evaluation")
    parts = [
        _metadata(version, tree),
        f"# {version.ref}\n",
        _summary(version, tree),
        *_section("Evaluation", _table(results) if results else "No evaluation was recorded.\n"),
        *_section("Training", _training(version, workspace)),
        *_section("Lineage", f"```\n{render_lineage(tree)}```\n"),
        *_section("Votes", _votes(tree)),
        *_section("Licence and notices", _terms(version)),
        *(part for title, text in _own_sections(version) for part in _section(title, text)),
    ]
    return "\n".join(parts)


def write_card(
    store: Store, workspace: Path, ref: str, out: Path | None = None, evaluation: Mapping[str, Any] | None = None
) -> Path:
    """Write a version's card to `out`, by default `<workspace>/cards/name@number.md`; returns the path."""
    version = get_version(store, ref)
    path = out or workspace / "cards" / f"{version.ref}.md"
    write_atomic(path, model_card(store, workspace, version.ref, evaluation))
    return path


def _metadata(version: Version, tree: Lineage) -> str:
    """The YAML block; values are written as JSON, which YAML reads."""
    base = next((node.name for node in tree.parents if node.role == "base"), None)
    fields: dict[str, Any] = {"license": "other", "license_name": version.licence, "library_name": "transformers"}
    fields |= {"base_model": base} if base else {}
    fields["tags"] = ["causerie", version.kind]
    lines = [f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in fields.items()]
    return "\n".join(["---", *lines, "---", ""])


def _summary(version: Version, tree: Lineage) -> str:
    about = version.card.get("summary")
    kind = "An adapter" if version.kind == "adapter" else "A model"
    facts = (
        f"{kind} made with Causerie. Status: {version.status}. Key: `{version.key}`. Made: {tree.created or 'unknown'}."
    )
    return (f"{about}\n\n" if about else "") + facts + "\n"


def _section(title: str, text: str) -> tuple[str, str]:
    return f"## {title}\n", text


def _own_sections(version: Version) -> Iterator[tuple[str, str]]:
    """Sections from the version's own card: texts as they are, anything else as a table."""
    for name, value in version.card.items():
        if name not in ("summary", "evaluation"):
            title = name.replace("_", " ").capitalize()
            yield title, f"{value}\n" if isinstance(value, str) else _table(value)


def _training(version: Version, workspace: Path) -> str:
    try:
        manifest = read_manifest(version.path(workspace))
    except CauserieError:
        return "The artifact is not in this workspace.\n"
    rows = {name: value for name, value in manifest.config.items() if not isinstance(value, list | dict)}
    rows |= {f"result: {name}": value for name, value in manifest.metrics.items() if not isinstance(value, list | dict)}
    rows |= {f"seed: {name}": value for name, value in manifest.seeds.items()}
    rows |= {f"version: {name}": value for name, value in manifest.versions.items()}
    return _table(rows)


def _votes(tree: Lineage) -> str:
    count = len(tree.signal_ids())
    if not count:
        return "No human feedback was used.\n"
    people = max((node.detail.get("people", 0) for node in tree.walk() if node.kind == "preferences"), default=0)
    return f"{count} recorded signals of {people} people or sources shaped this model; the lineage holds their ids.\n"


def _terms(version: Version) -> str:
    notices = "".join(f"\n> {line}\n" for notice in version.notices for line in [notice.replace("\n", "\n> ")])
    return f"Licence: {version.licence}\n{notices}"


def _table(value: Any) -> str:
    if not isinstance(value, Mapping):
        return f"```json\n{json.dumps(value, indent=2, ensure_ascii=False, default=str)}\n```\n"
    rows = [f"| {_cell(name)} | {_cell(item)} |" for name, item in value.items()]
    return "\n".join(["| | |", "|---|---|", *rows]) + "\n"


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text.replace("|", "\\|").replace("\n", " ")
