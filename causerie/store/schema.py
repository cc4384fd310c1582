"""The tables: what the server and the loop remember, in plain SQL that SQLite and PostgreSQL both take.

Ids are texts (`new_id`), times are seconds since 1970 UTC, structured values are JSON. A change here needs a
migration in `migrations/versions/`; a test compares the two.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import JSON, BigInteger, Boolean, Column, Double, ForeignKey, Index, Integer, MetaData, Table, Text
from sqlalchemy import UniqueConstraint as Unique

HEAD: Final = "0005"
"""The migration that this schema corresponds to."""

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)
"""All tables of the database."""

users = Table(
    "users",
    metadata,
    Column("id", Text, primary_key=True),
    Column("pseudonym", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("created", Double, nullable=False),
    Column("erased", Double),
)
"""People: a pseudonym and a role, nothing else about them. `erased` is the tombstone of an erasure."""

accounts = Table(
    "accounts",
    metadata,
    Column("user", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("password", Text),
    Column("subject", Text, unique=True),
    Column("daily_tokens", BigInteger),
    Column("disabled", Double),
    Column("created", Double, nullable=False),
)
"""How people sign in: a name with an argon2 hash, or the subject of an identity provider (`issuer|sub`)."""

sessions = Table(
    "sessions",
    metadata,
    Column("sha256", Text, primary_key=True),
    Column("user", Text, nullable=False),
    Column("created", Double, nullable=False),
    Column("expires", Double, nullable=False),
    Index(None, "user"),
)
"""Signed-in browsers, by digest of their cookie."""

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("prefix", Text, nullable=False),
    Column("sha256", Text, nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("user", Text),
    Column("scopes", JSON, nullable=False),
    Column("project", Text),
    Column("created", Double, nullable=False),
    Column("revoked", Double),
    Column("expires", Double),
    Column("used", Double),
    Column("limits", JSON(none_as_null=True)),
    Index(None, "project"),
)
"""API keys, by digest: the key itself is shown once and never stored. `used` is the last use, to the minute; `limits`
the key's quotas."""

conversations = Table(
    "conversations",
    metadata,
    Column("id", Text, primary_key=True),
    Column("user", Text, nullable=False),
    Column("title", Text, nullable=False),
    Column("model", Text),
    Column("created", Double, nullable=False),
    Column("updated", Double, nullable=False),
    Column("deleted", Double),
    Column("pinned", Double),
    Column("folder", Text),
    Column("settings", JSON(none_as_null=True)),
    Index(None, "user"),
)
"""Conversations of the page; `model` is the registry name last used, `settings` the system prompt and sampling."""

messages = Table(
    "messages",
    metadata,
    Column("id", Text, primary_key=True),
    Column("conversation", Text, ForeignKey("conversations.id"), nullable=False),
    Column("parent", Text),
    Column("role", Text, nullable=False),
    Column("content", Text, nullable=False),
    Column("exposure_id", Text),
    Column("created", Double, nullable=False),
    Column("attachments", JSON(none_as_null=True)),
    Index(None, "conversation"),
)
"""Messages form a tree by `parent`: a regenerated answer or an edited question begins a branch.

`attachments` are the texts of files sent with a question: `[{"name", "text"}]`.
"""

exposures = Table(
    "exposures",
    metadata,
    Column("id", Text, primary_key=True),
    Column("conversation", Text),
    Column("message", Text),
    Column("user", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("version", Integer),
    Column("version_key", Text, nullable=False),
    Column("chat_format", Text, nullable=False),
    Column("sampling", JSON, nullable=False),
    Column("prompt", JSON, nullable=False),
    Column("prompt_key", Text, nullable=False),
    Column("token_ids", JSON, nullable=False),
    Column("log_probs", JSON, nullable=False),
    Column("text", Text, nullable=False),
    Column("finish", Text),
    Column("group_id", Text),
    Column("position", Integer, nullable=False),
    Column("consent", Boolean, nullable=False),
    Column("source", Text, nullable=False),
    Column("licence", Text, nullable=False),
    Column("lang", Text),
    Column("created", Double, nullable=False),
    Index(None, "user"),
    Index(None, "group_id"),
    Index(None, "prompt_key"),
    Index(None, "version_key"),
)
"""Answers that somebody saw: by which weights, template and sampling, with token ids and log-probs at that moment.

Answers shown together share `group_id`; `position` is their (randomised) order on the screen.
`prompt` is a list of messages and `prompt_key` its digest, which also decides the held-out split.
"""

signals = Table(
    "signals",
    metadata,
    Column("id", Text, primary_key=True),
    Column("exposure_id", Text, ForeignKey("exposures.id"), nullable=False),
    Column("user", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("value", JSON, nullable=False),
    Column("reasons", JSON, nullable=False),
    Column("comment", Text, nullable=False),
    Column("created", Double, nullable=False),
    Column("withdrawn", Double),
    Index(None, "exposure_id"),
    Index(None, "user"),
)
"""What people said about answers: thumb, choice, edit, regenerate, imported_pair, imported_label."""

versions = Table(
    "versions",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("number", Integer, nullable=False),
    Column("artifact", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("parents", JSON, nullable=False),
    Column("licence", Text, nullable=False),
    Column("notices", JSON, nullable=False),
    Column("card", JSON, nullable=False),
    Column("status", Text, nullable=False),
    Column("promoted", Double),
    Column("created", Double, nullable=False),
    Unique("name", "number"),
    Index(None, "key"),
)
"""Registered model versions; `artifact` is a path relative to the workspace; at most one is promoted per name."""

canaries = Table(
    "canaries",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("incumbent", Text, nullable=False),
    Column("candidate", Text, nullable=False),
    Column("settings", JSON, nullable=False),
    Column("status", Text, nullable=False),
    Column("why", Text, nullable=False),
    Column("figures", JSON, nullable=False),
    Column("started", Double, nullable=False),
    Column("ended", Double),
    Index(None, "name"),
    Index(None, "status"),
)
"""Candidates on trial with a share of the conversations; at most one runs per name (see `loop.canary`)."""

audit = Table(
    "audit",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("prev_hash", Text, nullable=False),
    Column("hash", Text, nullable=False, unique=True),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("detail", JSON, nullable=False),
    Column("created", Double, nullable=False),
)
"""The append-only log: each row holds the digest of the one before it."""

usage = Table(
    "usage",
    metadata,
    Column("request_id", Text, primary_key=True),
    Column("time", Double, nullable=False),
    Column("key_id", Text),
    Column("route", Text, nullable=False),
    Column("model", Text),
    Column("version_key", Text),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("latency", Double),
    Column("ttft", Double),
    Column("finish", Text),
    Column("status", Integer, nullable=False),
    Column("project", Text),
    Column("cached_tokens", BigInteger),
    Column("price", Text),
    Index(None, "time"),
)
"""One row per request served: tokens, seconds to the first token (`ttft`) and to the last (`latency`), and the id of
the price version it is charged by."""

objects = Table(
    "objects",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("parent", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("rank", BigInteger, nullable=False),
    Column("created", Double, nullable=False),
    Column("status", Text),
    Column("body", JSON, nullable=False),
    Index("ix_objects_list", "kind", "owner", "parent", "rank"),
    Index("ix_objects_status", "kind", "status"),
)
"""What the API keeps (files, jobs, batches, responses, ...): OpenAI-shaped JSON documents, each a project's own.

`parent` is the id of the object that it belongs to ("" for none), `owner` the project, `rank` the order of creation.
"""
