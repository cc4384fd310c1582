"""Every operation of the API, family by family, and the work that goes on when the server starts again."""

from __future__ import annotations

from typing import Final

from causerie.serve import (
    chat_completions,
    completions,
    conversations,
    embeddings,
    files,
    models,
    moderations,
    stored_completions,
    uploads,
    usage,
)
from causerie.serve.batches import routes as batches
from causerie.serve.batches.running import resume_batches
from causerie.serve.evals import routes as evals
from causerie.serve.evals.running import resume_runs
from causerie.serve.fine_tuning import graders as grader_routes
from causerie.serve.fine_tuning import jobs, permissions, running
from causerie.serve.organization import credentials, people, projects, records
from causerie.serve.responses import routes as responses
from causerie.serve.routes import ApiRoute, Office
from causerie.serve.vector_stores import routes as vector_stores

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
    *batches.ROUTES,
    *responses.ROUTES,
    *conversations.ROUTES,
    *moderations.ROUTES,
    *evals.ROUTES,
    *vector_stores.ROUTES,
    *usage.ROUTES,
    *projects.ROUTES,
    *people.ROUTES,
    *credentials.ROUTES,
    *records.ROUTES,
)
"""All operations."""


async def resume_work(office: Office) -> None:
    """Go on with what was under way when the server ended."""
    if office.store is None:
        return
    await responses.end_broken_responses(office)
    if office.workspace is None:
        return
    await resume_batches(office)
    await resume_runs(office)
    await running.resume_jobs(office)
    await permissions.restore_permissions(office)
