"""What can be allowed: actions on resources, and the scopes of API keys that contain them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

INFERENCE: Final = "inference"
"""Scope of drawing answers and looking at models."""
PLATFORM: Final = "platform"
"""Scope of stored objects: files, jobs, batches, evals, vector stores."""
ADMIN: Final = "admin"
"""Scope of the organization's own affairs: usage and costs of every project."""

RESOURCES: Final = {
    "model": INFERENCE,
    "chat": INFERENCE,
    "completion": INFERENCE,
    "embedding": INFERENCE,
    "moderation": INFERENCE,
    "response": INFERENCE,
    "conversation": INFERENCE,
    "stored_completion": PLATFORM,
    "fine_tuned_model": PLATFORM,
    "file": PLATFORM,
    "upload": PLATFORM,
    "fine_tuning": PLATFORM,
    "batch": PLATFORM,
    "eval": PLATFORM,
    "vector_store": PLATFORM,
    "usage": ADMIN,
}
"""Resources, and the scope that each belongs to."""

ACTIONS: Final = ("read", "create", "update", "delete")


@dataclass(frozen=True)
class Need:
    """An action on a resource."""

    resource: str
    action: str

    def within(self, scopes: tuple[str, ...]) -> bool:
        """Whether a key's scopes contain it: `*`, a group such as `platform`, `file`, or `file.read`."""
        return not {"*", RESOURCES[self.resource], self.resource, f"{self.resource}.{self.action}"}.isdisjoint(scopes)
