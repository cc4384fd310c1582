"""What can be allowed: actions on resources, and the scopes of API keys that contain them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

INFERENCE: Final = "inference"
"""Scope of drawing answers and looking at models."""
PLATFORM: Final = "platform"
"""Scope of stored objects: files, jobs, batches, evals, vector stores."""
MANAGE: Final = "manage"
"""Scope of the affairs of the key's own project: its members, keys and limits."""
ADMIN: Final = "admin"
"""Scope of the organization's affairs: all projects, users, prices, usage and costs, the audit log."""
READING: Final = "*.read"
"""Scope of looking at everything that a project has."""

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
    "project_user": MANAGE,
    "project_key": MANAGE,
    "service_account": MANAGE,
    "rate_limit": MANAGE,
    "project": ADMIN,
    "user": ADMIN,
    "admin_key": ADMIN,
    "audit_log": ADMIN,
    "price": ADMIN,
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
        """Whether a key's scopes contain it: `*`, a group such as `platform`, `file`, `file.read`, or `*.read`."""
        return not _SATISFIES[self.resource, self.action].isdisjoint(scopes)


def _satisfying(resource: str, action: str) -> frozenset[str]:
    group = RESOURCES[resource]
    scopes = {"*", group, resource, f"{resource}.{action}"}
    if group == MANAGE:
        scopes.add(ADMIN)
    if action == "read" and group in (INFERENCE, PLATFORM):
        scopes.add(READING)
    return frozenset(scopes)


_SATISFIES: Final = {(resource, action): _satisfying(resource, action) for resource in RESOURCES for action in ACTIONS}
"""For each action the scopes that contain it."""

GROUPS: Final = (INFERENCE, PLATFORM, MANAGE, ADMIN, READING, "*")
"""Scopes that contain several resources."""


def is_scope(text: str) -> bool:
    """Whether a text is a scope that some action needs."""
    resource, dot, action = text.partition(".")
    return text in GROUPS or (resource in RESOURCES and (action in ACTIONS or not dot))


def covers(scopes: tuple[str, ...], wanted: str) -> bool:
    """Whether a holder of `scopes` may give the scope `wanted` to a key: nobody gives what they do not have."""
    needs = [Need(resource, action) for resource in RESOURCES for action in ACTIONS]
    return all(need.within(scopes) for need in needs if need.within((wanted,)))


ROLES: Final = ("owner", "member", "reader")
"""What a person can be in a project, and in the organization."""


def role_scopes(role: str, project_role: str | None = None) -> tuple[str, ...]:
    """The scopes that a person's keys and sessions can have at most.

    Args:
        role: in the organization; an owner (or admin) may do everything.
        project_role: in the project of the key; None where the project has no members of its own.
    """
    if role in ("owner", "admin"):
        return ("*",)
    standing = "reader" if role == "reader" else project_role or "member"
    if standing == "reader":
        return (READING,)
    return (INFERENCE, PLATFORM, MANAGE) if standing == "owner" else (INFERENCE, PLATFORM)
