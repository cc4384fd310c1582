"""v1/fine_tuning/alpha/graders: a grader checked, or tried on one sample."""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from causerie.serve.body import read_shape
from causerie.serve.fine_tuning.shapes import GraderCheck, GraderRun
from causerie.serve.graders.grade import grade
from causerie.serve.keys import Principal
from causerie.serve.routes import ApiRoute, Office

FAULTS: Final = (
    "formula_parse_error",
    "invalid_variable_error",
    "model_grader_parse_error",
    "model_grader_refusal_error",
    "model_grader_server_error",
    "other_error",
    "python_grader_runtime_error",
    "python_grader_server_error",
    "sample_parse_error",
    "truncated_observation_error",
    "unresponsive_reward_error",
)


async def run_grader(office: Office, request: Request, principal: Principal) -> Response:
    """What one sample is worth."""
    asked = await read_shape(request, GraderRun)
    sample: dict[str, Any] = {"output_text": asked.model_sample}
    with contextlib.suppress(ValueError, RecursionError):
        sample["output_json"] = json.loads(asked.model_sample)
    begun = time.monotonic()
    found = await grade(office, principal.owner, asked.grader, {"item": asked.item or {}, "sample": sample})
    model_fault = bool(found.error) and found.type in ("score_model", "label_model")
    faults: dict[str, Any] = dict.fromkeys(FAULTS, False)
    faults |= {
        "model_grader_server_error": model_fault,
        "model_grader_server_error_details": found.error if model_fault else None,
        "other_error": bool(found.error) and not model_fault,
        "python_grader_runtime_error_details": None,
        "python_grader_server_error_type": None,
    }
    scores = dict(found.details.get("scores", {found.name: found.score}))
    metadata = {
        "errors": faults,
        "execution_time": time.monotonic() - begun,
        "name": found.name,
        "sampled_model_name": getattr(asked.grader, "model", None),
        "scores": scores,
        "token_usage": None,
        "type": found.type,
    }
    body = {"metadata": metadata, "model_grader_token_usage_per_model": {}, "reward": found.score}
    return JSONResponse(body | {"sub_rewards": scores})


async def validate_grader(office: Office, request: Request, principal: Principal) -> Response:
    """Whether a grader is one: an answer of 400 says why not."""
    asked = await read_shape(request, GraderCheck)
    return JSONResponse({"grader": asked.grader.model_dump(exclude_none=True)})


ROUTES: Final = (
    ApiRoute("POST", "fine_tuning/alpha/graders/run", run_grader, "fine_tuning", "read", body=GraderRun),
    ApiRoute("POST", "fine_tuning/alpha/graders/validate", validate_grader, "fine_tuning", "read", body=GraderCheck),
)
