"""What the page's API accepts: strict pydantic models, size caps, no NUL characters."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator
from starlette.requests import Request

from causerie.chat.errors import invalid
from causerie.core import CauserieError

BODY_BYTES: Final = 1 << 20
"""Largest request body."""


def _clean(text: str) -> str:
    if "\0" in text:
        raise ValueError("the NUL character is not accepted")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError("half of a surrogate pair is not a character") from error
    return text


Id = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_-]+$")]
Name = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_clean)]
Registered = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Title = Annotated[str, StringConstraints(max_length=200, strip_whitespace=True), AfterValidator(_clean)]
Prose = Annotated[str, StringConstraints(min_length=1, max_length=100_000), AfterValidator(_clean)]
System = Annotated[str, StringConstraints(max_length=20_000), AfterValidator(_clean)]
Comment = Annotated[str, StringConstraints(max_length=4_000), AfterValidator(_clean)]
Reason = Annotated[str, StringConstraints(min_length=1, max_length=40, pattern=r"^[a-z_]+$")]


class Strict(BaseModel):
    """No unknown fields, no silent conversions."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class NewConversation(Strict):
    """POST /api/conversations."""

    title: Title = ""
    model: Name | None = None


class SamplingParams(Strict):
    """How answers are drawn; the engine's limits apply on top. The penalty keeps small models from going in circles."""

    temperature: float = Field(default=0.7, ge=0.0, le=2.0)
    top_p: float = Field(default=0.95, gt=0.0, le=1.0)
    frequency_penalty: float = Field(default=0.3, ge=-2.0, le=2.0)
    max_tokens: int = Field(default=384, ge=1, le=8_192)
    seed: int | None = Field(default=None, ge=0, lt=2**31)
    """None draws a fresh one for every answer."""


class Settings(Strict):
    """What a conversation is held with: the page sends it with each question, and keeps it here."""

    system: System = ""
    params: SamplingParams = SamplingParams()


class ChangedConversation(Strict):
    """PATCH /api/conversations/{id}; only what is given changes."""

    title: Annotated[Title, Field(min_length=1)] = ""
    pinned: bool = False
    folder: Annotated[Title, Field(max_length=60)] | None = None
    settings: Settings | None = None


class AttachedFile(Strict):
    """The text of a file that goes with a question, as POST /api/files read it."""

    name: Name
    text: Prose


class ChatRequest(Strict):
    """POST /api/chat: a new question (`content`), another answer to an old one (`parent` alone), or more of an answer
    that was cut (`continues`).

    Args:
        conversation: the conversation's id.
        parent: the message that the question follows; the question itself when `content` is None.
        content: the question, or None to answer `parent` again.
        continues: an answer to go on with; its question is the parent.
        system: what the model is told before the conversation.
        attachments: texts of files that go with the question.
        files_of: an earlier question whose files go with this one, which says it in other words.
        model: name or `name@version` of the model to answer.
        other: the second draft's model; None draws both from `model`.
        drafts: 1, or 2 to compare.
        learn: whether what is said about the answer may be learnt from.
    """

    conversation: Id
    parent: Id | None = None
    content: Prose | None = None
    continues: Id | None = None
    system: System = ""
    files_of: Id | None = None
    attachments: Annotated[list[AttachedFile], Field(max_length=8)] = []
    model: Name
    other: Name | None = None
    drafts: Literal[1, 2] = 1
    learn: bool = True
    params: SamplingParams = SamplingParams()

    @model_validator(mode="after")
    def _has_a_question(self) -> ChatRequest:
        if self.content is None and self.parent is None and self.continues is None:
            raise ValueError("either content, parent or continues is needed")
        if self.continues is not None and (self.content is not None or self.parent is not None or self.drafts != 1):
            raise ValueError("continues stands alone")
        if self.attachments and self.content is None:
            raise ValueError("attachments need content")
        if self.other is not None and self.drafts != 2:
            raise ValueError("other needs drafts = 2")
        return self


class Thumb(Strict):
    """POST /api/feedback: a thumb on one answer."""

    kind: Literal["thumb"]
    id: Id
    message: Id
    value: Literal["up", "down"]
    reasons: Annotated[list[Reason], Field(max_length=10)] = []
    comment: Comment = ""


class Choice(Strict):
    """POST /api/feedback: which of two drafts is better; `message` names either of the two."""

    kind: Literal["choice"]
    id: Id
    message: Id
    value: Literal["left", "right", "tie"]
    reasons: Annotated[list[Reason], Field(max_length=10)] = []
    comment: Comment = ""


class Edit(Strict):
    """POST /api/feedback: what the answer should have been."""

    kind: Literal["edit"]
    id: Id
    message: Id
    text: Prose
    comment: Comment = ""


class FeedbackRequest(Strict):
    """POST /api/feedback: one of the three kinds, told apart by `kind`."""

    signal: Annotated[Thumb | Choice | Edit, Field(discriminator="kind")]


class ImproveRequest(Strict):
    """POST /api/improve: the registry name (without `@N`) to improve."""

    model: Registered


class RollbackRequest(Strict):
    """POST /api/rollback: make `version` (`name@N`) the one that answers."""

    version: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}@[1-9][0-9]{0,8}$")]


Shape = TypeVar("Shape", bound=BaseModel)


async def read_shape(request: Request, shape: type[Shape]) -> Shape:
    """The request's body as `shape`.

    Raises:
        CauserieError: CAU-6104 when the body is too large, CAU-6101 naming the first field that does not fit.
    """
    body = await read_body(request, BODY_BYTES)
    try:
        return shape.model_validate_json(body)
    except ValidationError as error:
        first: Any = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "body"
        raise invalid(first["msg"], place) from error


async def read_body(request: Request, limit: int) -> bytes:
    """The request's body.

    Raises:
        CauserieError: CAU-6104 when it is over `limit` bytes.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise CauserieError(
                "CAU-6104", f"the body is over {limit:,} bytes", where=request.url.path, fix="send less"
            )
    return bytes(body)
