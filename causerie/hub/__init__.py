"""The registry: named versions, lineage down to single votes, licences and notices, the audit chain. No torch."""

from causerie.hub.audit import AuditReport, AuditRow, append_audit, audited, list_audit, record_audit, verify_audit
from causerie.hub.card import model_card, write_card
from causerie.hub.errors import ERRORS
from causerie.hub.lineage import AnswerTrace, Lineage, lineage, render_lineage, trace_answer
from causerie.hub.registry import (
    Status,
    Version,
    get_version,
    list_versions,
    promote,
    refuse,
    register,
    retire,
    rollback,
    set_card,
    version_by_key,
)
from causerie.hub.resolve import ResolvedModel, folder_kind, resolve, weights_key
from causerie.hub.rights import Rights, rights_of
from causerie.hub.suggest import unknown_model
from causerie.hub.terms import combine_licences
from causerie.hub.transfer import export_model, import_model
from causerie.hub.verify import Verification, verify_version

__all__ = [
    "ERRORS",
    "AnswerTrace",
    "AuditReport",
    "AuditRow",
    "Lineage",
    "ResolvedModel",
    "Rights",
    "Status",
    "Verification",
    "Version",
    "append_audit",
    "audited",
    "combine_licences",
    "export_model",
    "folder_kind",
    "get_version",
    "import_model",
    "lineage",
    "list_audit",
    "list_versions",
    "model_card",
    "promote",
    "record_audit",
    "refuse",
    "register",
    "render_lineage",
    "resolve",
    "retire",
    "rights_of",
    "rollback",
    "set_card",
    "trace_answer",
    "unknown_model",
    "verify_audit",
    "verify_version",
    "version_by_key",
    "weights_key",
    "write_card",
]
