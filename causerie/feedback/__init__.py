"""What people said: exposures, votes, choices and edits; import, export, caps, erasure, training sets. No torch."""

from causerie.feedback.config import JUDGED, FeedbackExportConfig, FeedbackImportConfig, TrainingSetConfig
from causerie.feedback.dataset import training_set
from causerie.feedback.derive import is_held_out
from causerie.feedback.erase import Erasure, erase_user
from causerie.feedback.errors import ERRORS
from causerie.feedback.exports import ExportResult, export_feedback
from causerie.feedback.imports import BadRow, ImportResult, import_feedback
from causerie.feedback.record import get_exposure, record_exposure, record_signal, signals_of, withdraw_signal
from causerie.feedback.records import REASONS, Exposure, Kind, Message, Signal, prompt_key
from causerie.feedback.stats import FeedbackStats, feedback_stats, pairs_needed

__all__ = [
    "ERRORS",
    "JUDGED",
    "REASONS",
    "BadRow",
    "Erasure",
    "ExportResult",
    "Exposure",
    "FeedbackExportConfig",
    "FeedbackImportConfig",
    "FeedbackStats",
    "ImportResult",
    "Kind",
    "Message",
    "Signal",
    "TrainingSetConfig",
    "erase_user",
    "export_feedback",
    "feedback_stats",
    "get_exposure",
    "import_feedback",
    "is_held_out",
    "pairs_needed",
    "prompt_key",
    "record_exposure",
    "record_signal",
    "signals_of",
    "training_set",
    "withdraw_signal",
]
