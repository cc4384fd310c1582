"""The one SQL database: schema, migrations, and a writer that acknowledges only what is on the disk. No torch."""

from causerie.store.errors import ERRORS
from causerie.store.ids import check_text, new_id, now
from causerie.store.row_log import RowLog
from causerie.store.schema import (
    accounts,
    api_keys,
    audit,
    canaries,
    conversations,
    exposures,
    messages,
    metadata,
    objects,
    sessions,
    signals,
    usage,
    users,
    versions,
)
from causerie.store.store import Store, open_store

__all__ = [
    "ERRORS",
    "RowLog",
    "Store",
    "accounts",
    "api_keys",
    "audit",
    "canaries",
    "check_text",
    "conversations",
    "exposures",
    "messages",
    "metadata",
    "new_id",
    "now",
    "objects",
    "open_store",
    "sessions",
    "signals",
    "usage",
    "users",
    "versions",
]
