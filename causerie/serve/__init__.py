"""The server: OpenAI and Azure shapes over engines in their own processes. No torch here."""

from causerie.serve.answer import AnswerParams, ChatDelta, Usage, chat_stream
from causerie.serve.app import create_app
from causerie.serve.errors import ERRORS, ApiError, as_api_error
from causerie.serve.gate import Asking, Gate
from causerie.serve.graders.local import local_judge
from causerie.serve.keys import Principal, create_key, revoke_key
from causerie.serve.metering import Meter, tokens_since
from causerie.serve.pool import EngineLike, EnginePool, Served, ServedVersion
from causerie.serve.quota import Limits
from causerie.serve.scopes import is_scope, role_scopes
from causerie.serve.server import Server, run_server
from causerie.serve.vector_stores.ranking import Chunk, chunks_of
from causerie.serve.vector_stores.ranking import Index as WordIndex

__all__ = [
    "ERRORS",
    "AnswerParams",
    "ApiError",
    "Asking",
    "ChatDelta",
    "Chunk",
    "EngineLike",
    "EnginePool",
    "Gate",
    "Limits",
    "Meter",
    "Principal",
    "Served",
    "ServedVersion",
    "Server",
    "Usage",
    "WordIndex",
    "as_api_error",
    "chat_stream",
    "chunks_of",
    "create_app",
    "create_key",
    "is_scope",
    "local_judge",
    "revoke_key",
    "role_scopes",
    "run_server",
    "tokens_since",
]
