"""Every operation of the API, family by family, and the work that goes on when the server starts again."""

from __future__ import annotations

from typing import Final

from causerie.serve import (
    chat_completions,
    completions,
    embeddings,
    files,
    models,
    stored_completions,
    uploads,
)
from causerie.serve.fine_tuning import graders as grader_routes
from causerie.serve.fine_tuning import jobs, permissions, running
from causerie.serve.routes import ApiRoute, Office

TABLE: Final[tuple[ApiRoute, ...]] = (
    *chat_completions.ROUTES,
    *stored_completions.ROUTES,
    *completions.ROUTES,
    *embeddings.ROUTES,
    *models.ROUTES,
    *files.ROUTES,
    *uploads.ROUTES,
    *jobs.ROUTES,
    *grader_routes.ROUTES,
    *permissions.ROUTES,
)
"""All operations."""


async def resume_work(office: Office) -> None:
    """Go on with what was under way when the server ended."""
    if office.store is None or office.workspace is None:
        return
    await running.resume_jobs(office)
    await permissions.restore_permissions(office)
