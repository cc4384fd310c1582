"""Codes of this room, and errors in the shape that OpenAI clients read."""

from __future__ import annotations

from typing import Any, Final

from starlette.responses import JSONResponse

from causerie.core import CauserieError

ERRORS: Final = {
    "CAU-6001": "A server that others can reach was asked for without API keys.",
    "CAU-6002": "The address cannot be listened on.",
    "CAU-6003": "No model of this name is being served.",
    "CAU-6004": "The engine could not give an answer.",
    "CAU-6005": "The model cannot be served: its folder has no chat format.",
    "CAU-6006": "The server has as much work as it takes; try again later.",
    "CAU-6007": "A route of the API does not say what its caller must be allowed to do, or is there twice.",
    "CAU-6008": "A job's grader failed.",
    "CAU-6009": "A key's scope or id is unknown.",
    "CAU-6010": "A prompt is longer than what the model can take in.",
}
"""Codes raised by this room."""

_STATUS: Final = {
    "CAU-6003": 404,
    "CAU-6004": 502,
    "CAU-6006": 503,
    "CAU-3106": 503,
    "CAU-3107": 503,
    "CAU-3105": 500,
    "CAU-1101": 503,
    "CAU-1102": 503,
    "CAU-1103": 503,
    "CAU-1104": 503,
    "CAU-1105": 503,
    "CAU-1108": 503,
    "CAU-1109": 409,
    "CAU-1111": 503,
}
"""HTTP status of codes that are not the caller's fault; every other code becomes 400."""

_OPENAI: Final = {"CAU-6003": "model_not_found", "CAU-6010": "context_length_exceeded"}
"""Codes for which OpenAI's clients have a word of their own."""

RETRY_SECONDS: Final = 2
"""What `Retry-After` says when the server is full."""


class ApiError(Exception):
    """An error answer of the API.

    Args:
        status: HTTP status.
        message: what was wrong, and what to do.
        type: OpenAI's class of errors, such as `invalid_request_error`.
        code: machine-readable code, such as `model_not_found`.
        param: the field at fault.
        retry_after: seconds for the `Retry-After` header.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.type = type
        self.code = code
        self.param = param
        self.retry_after = retry_after

    def body(self) -> dict[str, Any]:
        """`{"error": {message, type, param, code}}`."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """The whole HTTP answer."""
        headers = {"retry-after": str(self.retry_after)} if self.retry_after is not None else {}
        if self.status == 401:
            headers["www-authenticate"] = "Bearer"
        return JSONResponse(self.body(), self.status, headers=headers)


def as_api_error(error: Exception) -> ApiError:
    """Any error as an answer: ours with its cause and fix, an unknown one as a 500 that tells nothing inward."""
    if isinstance(error, ApiError):
        return error
    if not isinstance(error, CauserieError):
        return ApiError(500, "the server failed on this request", type="server_error", code="internal_error")
    message = f"{error.cause}; {error.fix}" if error.fix else error.cause
    status = _STATUS.get(error.code, 400)
    kind = "invalid_request_error" if status < 500 else "server_error"
    code = _OPENAI.get(error.code, error.code)
    param = "model" if error.code == "CAU-6003" else error.where or None
    if status >= 500:
        param = None  # it names a place of ours, such as the database's file
    retry = RETRY_SECONDS if status == 503 else None
    return ApiError(status, message, type=kind, code=code, param=param, retry_after=retry)


def model_not_found(name: str) -> CauserieError:
    """CAU-6003: nothing is served under this name."""
    return CauserieError("CAU-6003", f"the model {name!r} is not being served", where="model", fix="see v1/models")


def engine_failed(cause: str) -> CauserieError:
    """CAU-6004: the engine ended a request with an error."""
    return CauserieError("CAU-6004", f"the engine failed: {cause}", where="engine", fix="send the request again")
