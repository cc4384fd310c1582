"""Bodies of the organization's requests, and what its objects look like."""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from causerie.serve.objects import Body
from causerie.serve.quota import MOST, Limits
from causerie.serve.scopes import INFERENCE, is_scope

Name = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f]*$")]
Id = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_.:|@-]*$")]
Role = Literal["owner", "member", "reader"]
Quota = Annotated[int, Field(ge=0, le=MOST)]
Amount = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]


class Strict(BaseModel):
    """Takes no field that it does not know, and no number for a text."""

    model_config = ConfigDict(extra="forbid", strict=True)


class LimitsShape(Strict):
    """Quotas; what is absent or null is not limited."""

    tokens_per_minute: Quota | None = None
    tokens_per_day: Quota | None = None
    requests_per_minute: Quota | None = None
    tier: Literal["standard", "free"] = "standard"

    def limits(self) -> Limits:
        """As the gate takes them."""
        return Limits(**self.model_dump())


class NewProject(Strict):
    """POST organization/projects."""

    name: Name
    limits: LimitsShape | None = None


class ChangedProject(Strict):
    """POST organization/projects/{project_id}."""

    name: Name | None = None
    limits: LimitsShape | None = None


class NewMember(Strict):
    """POST organization/projects/{project_id}/users."""

    user_id: Id
    role: Role = "member"


class ChangedRole(Strict):
    """POST of a user, of the organization or of a project."""

    role: Role


class NewKey(Strict):
    """POST organization/projects/{project_id}/api_keys."""

    name: Name
    scopes: Annotated[list[Name], Field(min_length=1, max_length=64)] = [INFERENCE]
    user_id: Id | None = None
    expires_at: Annotated[int, Field(ge=1, le=2**40)] | None = None
    expires_in_days: Annotated[int, Field(ge=1, le=3650)] | None = None
    limits: LimitsShape | None = None

    @field_validator("scopes")
    @classmethod
    def _known(cls, scopes: list[str]) -> list[str]:
        for scope in scopes:
            if not is_scope(scope):
                raise ValueError(f"{scope[:64]!r} is no scope")
        return scopes

    @model_validator(mode="after")
    def _one_end(self) -> NewKey:
        if self.expires_at is not None and self.expires_in_days is not None:
            raise ValueError("give expires_at or expires_in_days, not both")
        return self

    @property
    def expires(self) -> float | None:
        """Unix time of its end."""
        if self.expires_in_days is not None:
            return time.time() + 86_400 * self.expires_in_days
        return self.expires_at


class ChangedKey(Strict):
    """POST organization/projects/{project_id}/api_keys/{key_id}."""

    name: Name | None = None
    limits: LimitsShape | None = None


class NewAdminKey(Strict):
    """POST organization/admin_api_keys."""

    name: Name
    expires_in_days: Annotated[int, Field(ge=1, le=3650)] | None = None
    expires_in_seconds: Annotated[int, Field(ge=1, le=3650 * 86_400)] | None = None

    @model_validator(mode="after")
    def _one_end(self) -> NewAdminKey:
        if self.expires_in_seconds is not None and self.expires_in_days is not None:
            raise ValueError("give expires_in_seconds or expires_in_days, not both")
        return self

    @property
    def expires(self) -> float | None:
        """Unix time of its end."""
        if self.expires_in_days is not None:
            return time.time() + 86_400 * self.expires_in_days
        return None if self.expires_in_seconds is None else time.time() + self.expires_in_seconds


class NewServiceAccount(Strict):
    """POST organization/projects/{project_id}/service_accounts."""

    name: Name


class ChangedRateLimit(Strict):
    """POST organization/projects/{project_id}/rate_limits/{rate_limit_id}."""

    max_tokens_per_1_minute: Quota | None = None
    max_requests_per_1_minute: Quota | None = None
    max_tokens_per_1_day: Quota | None = None


class NewPrice(Strict):
    """POST organization/prices: units of the currency for a million tokens."""

    model: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    currency: Annotated[str, StringConstraints(pattern=r"^[a-z]{3}$")] = "usd"
    input: Amount
    output: Amount
    cached_input: Amount | None = None
    from_: Annotated[int, Field(ge=0, le=2**40)] | None = Field(None, alias="from")


def key_body(row: Any, owner: Body) -> Body:
    """A key as the API shows it: never the key itself."""
    return {
        "object": "organization.project.api_key",
        "id": row.id,
        "name": row.name,
        "redacted_value": f"{row.prefix}…",
        "created_at": int(row.created),
        "last_used_at": whole(row.used),
        "expires_at": whole(row.expires),
        "revoked_at": whole(row.revoked),
        "scopes": list(row.scopes),
        "limits": row.limits or {},
        "project_id": row.project,
        "owner_project_access": "active" if row.revoked is None else "inactive",
        "owner": owner,
    }


def whole(moment: float | None) -> int | None:
    """Whole seconds."""
    return None if moment is None else int(moment)
