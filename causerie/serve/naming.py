"""What an answer says about who gave it: model names, fingerprint, headers."""

from __future__ import annotations

from starlette.requests import Request

from causerie.serve.errors import ApiError
from causerie.serve.metering import Meter
from causerie.serve.pool import Served


def asked_model(request: Request, named: str | None) -> str:
    """The model asked for: the deployment in an Azure path, else the body's `model`.

    Raises:
        ApiError: 400 when neither names one.
    """
    model = request.path_params.get("deployment") or named
    if not model:
        raise ApiError(400, "the field model is missing", code="missing_required_parameter", param="model")
    return str(model)


def fingerprint(served: Served) -> str:
    """The weights' key in short, as `system_fingerprint`."""
    return f"fp_{served.version.key[:12]}"


def answer_headers(meter: Meter, served: Served) -> dict[str, str]:
    """Headers by which an answer can be found in the usage log and traced to its version."""
    label = served.version.label.encode("ascii", "replace").decode()
    return {
        "x-request-id": meter.request_id,
        "x-causerie-version": label,
        "x-causerie-key": served.version.key,
    } | meter.headers
