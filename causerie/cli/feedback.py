"""`causerie feedback ...`"""

from __future__ import annotations

from cyclopts import App

from causerie.cli.flags import JSON, WORKSPACE, command_for, show
from causerie.core import workspace_path
from causerie.feedback import (
    FeedbackExportConfig,
    FeedbackImportConfig,
    TrainingSetConfig,
    erase_user,
    export_feedback,
    feedback_stats,
    import_feedback,
    training_set,
)
from causerie.store import open_store

app = App(name="feedback", help="What people said about answers.", result_action="return_value")
app.command(
    command_for(FeedbackImportConfig, import_feedback, "Import votes and choices.", positional=("sources",)),
    name="import",
)
app.command(
    command_for(FeedbackExportConfig, export_feedback, "Export votes and choices.", positional=("out",)), name="export"
)
app.command(
    command_for(TrainingSetConfig, training_set, "Make the training set of a round from the votes."), name="dataset"
)


@app.command
def stats(*, workspace: WORKSPACE = None, json: JSON = False) -> None:
    """Count what was collected, and what is missing before a round can tell anything."""
    folder = workspace_path(workspace)
    with open_store(folder) as store:
        show(feedback_stats(store, folder), json)


@app.command
def erase(user: str, *, workspace: WORKSPACE = None, json: JSON = False) -> None:
    """Erase everything a user (pseudonym) said; training sets that held it are emptied of it and named."""
    folder = workspace_path(workspace)
    with open_store(folder) as store:
        show(erase_user(store, user, folder), json)
