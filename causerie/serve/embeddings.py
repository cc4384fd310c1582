"""POST v1/embeddings: texts or token ids as vectors of length 1."""

from __future__ import annotations

import base64
import math
import struct
from typing import Annotated, Any, Final, Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from causerie.serve.answer import off_loop
from causerie.serve.body import read_shape
from causerie.serve.errors import ApiError
from causerie.serve.events import until_gone
from causerie.serve.keys import Principal
from causerie.serve.limits import MAX_EMBEDDINGS
from causerie.serve.metering import Meter
from causerie.serve.naming import answer_headers, asked_model
from causerie.serve.pool import Served
from causerie.serve.routes import ApiRoute, Office
from causerie.serve.shapes import Name, Short, Strict, Text, TokenId

Ids = Annotated[list[TokenId], Field(min_length=1, max_length=2**17)]


class EmbeddingRequest(Strict):
    """POST v1/embeddings."""

    input: (
        Text
        | Annotated[list[Text], Field(min_length=1, max_length=MAX_EMBEDDINGS)]
        | Ids
        | Annotated[list[Ids], Field(min_length=1, max_length=MAX_EMBEDDINGS)]
    )
    model: Name | None = None
    dimensions: Annotated[int, Field(ge=1, le=2**20)] | None = None
    """Keep the first so many numbers and bring the vector back to length 1."""
    encoding_format: Literal["float", "base64"] | None = None
    user: Short | None = None

    def inputs(self) -> list[str | list[int]]:
        """The inputs as a list, each a text or token ids."""
        given: Any = self.input
        return [given] if isinstance(given, str) or isinstance(given[0], int) else list(given)


async def create_embedding(office: Office, request: Request, principal: Principal) -> Response:
    """Vectors of texts."""
    asked = await read_shape(request, EmbeddingRequest)
    model = asked_model(request, asked.model)
    return await until_gone(request.receive, _embed(office, principal, asked, model, request.scope["route"].path))


async def _embed(office: Office, principal: Principal, asked: EmbeddingRequest, model: str, route: str) -> Response:
    async with office.pool.lease(model, principal.owner) as served:
        batch = [await _ids(served, given) for given in asked.inputs()]
        tokens = sum(map(len, batch))
        meter = Meter(office.store, route, principal.key_id, project=principal.owner, tally=office.tally)
        async with office.pool.gate.admit(principal.asking, 1, tokens, served.lane, meter):
            with meter:
                meter.version, meter.prompt_tokens = served.version, tokens
                vectors = await embed(served, batch)
        if asked.dimensions is not None:
            vectors = [shortened(vector, asked.dimensions) for vector in vectors]
        encode = _base64 if asked.encoding_format == "base64" else list
        rows = [{"object": "embedding", "index": n, "embedding": encode(vector)} for n, vector in enumerate(vectors)]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        body = {"object": "list", "data": rows, "model": served.version.label, "usage": usage}
        return JSONResponse(body, headers=answer_headers(meter, served))


async def embed(served: Served, batch: list[list[int]]) -> list[list[float]]:
    """Vectors of length 1 of some token lists.

    Raises:
        ApiError: 400 for an engine that gives none.
    """
    if not hasattr(served.engine, "embed"):
        raise ApiError(400, "this model gives no embeddings", code="unsupported_model", param="model")
    vectors: list[list[float]] = await served.engine.embed(batch, pooling="mean", adapter=served.adapter)
    return vectors


async def _ids(served: Served, given: str | list[int]) -> list[int]:
    if not isinstance(given, str):
        if max(given) >= served.tokenizer.vocab_size:
            raise ApiError(400, f"{max(given)} is not a token id of this model", code="invalid_value", param="input")
        return given
    if not given:
        raise ApiError(400, "an empty text has no embedding", code="invalid_value", param="input")
    ids: list[int] = await off_loop(served.tokenizer.encode, given, size=len(given))
    return [served.tokenizer.eot_id, *ids]


def shortened(vector: list[float], dimensions: int) -> list[float]:
    """The first numbers of a vector, at length 1 again.

    Raises:
        ApiError: 400 when it has not so many.
    """
    if dimensions > len(vector):
        message = f"this model's embeddings have {len(vector)} dimensions"
        raise ApiError(400, message, code="invalid_value", param="dimensions")
    kept = vector[:dimensions]
    length = math.sqrt(sum(value * value for value in kept)) or 1.0
    return [value / length for value in kept]


def _base64(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode("ascii")


ROUTES: Final = (
    ApiRoute("POST", "embeddings", create_embedding, "embedding", "create", deployment=True, body=EmbeddingRequest),
)
