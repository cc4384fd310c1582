"""The rights to a version: recorded at registration, passed on to every derivative, shown on request."""

from __future__ import annotations

from dataclasses import dataclass

from causerie.hub.registry import Version


@dataclass(frozen=True)
class Rights:
    """Under what terms a version may be used: a licence expression and the texts that travel with it."""

    ref: str
    licence: str
    notices: tuple[str, ...]

    def text(self) -> str:
        """The content of a NOTICE file."""
        lines = [f"{self.ref}", f"Licence: {self.licence}", *(f"\n{notice}" for notice in self.notices)]
        return "\n".join(lines) + "\n"


def rights_of(version: Version) -> Rights:
    """The rights of a registered version."""
    return Rights(version.ref, version.licence, version.notices)
