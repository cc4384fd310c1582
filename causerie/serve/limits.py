"""Every bound of the API in one place."""

from __future__ import annotations

from typing import Final

MAX_BODY: Final = 4 * 2**20
"""Bytes of a request's body."""
MAX_TEXT: Final = 2**20
"""Characters of one text."""
MAX_MESSAGES: Final = 2_048
MAX_PROMPTS: Final = 64
MAX_CHOICES: Final = 128
"""Answers drawn for one request (`n` times prompts)."""
MAX_BEST_OF: Final = 20
MAX_TOKENS: Final = 2**20
MAX_STOPS: Final = 4
MAX_STOP_LENGTH: Final = 256
MAX_BIASES: Final = 300
MAX_NAME: Final = 256
MAX_TOP_LOGPROBS: Final = 20
MAX_TOOLS: Final = 128
MAX_SCHEMA: Final = 64 * 1024
"""Characters of a JSON schema, as JSON text."""
MAX_METADATA: Final = 16
"""Pairs of an object's metadata; keys up to 64, values up to 512 characters."""
PAGE: Final = 20
"""Objects of a list when the request names no limit."""
MAX_PAGE: Final = 100
MAX_FILE: Final = 512 * 2**20
"""Bytes of one uploaded file."""
MAX_UPLOAD: Final = 8 * 2**30
"""Bytes of a file uploaded in parts."""
MAX_PART: Final = 64 * 2**20
MAX_PARTS: Final = 1_024
MAX_BATCH_ROWS: Final = 50_000
MAX_BATCH_FILE: Final = 200 * 2**20
BATCH_AT_ONCE: Final = 8
"""Requests of one batch under way at the same time."""
MAX_EMBEDDINGS: Final = 2_048
MAX_ITEMS: Final = 2_048
"""Items of a response's input or of a conversation in one request."""
MAX_CRITERIA: Final = 32
MAX_CHUNKS: Final = 20_000
"""Chunks of one vector store's file."""
HEARTBEAT_SECONDS: Final = 10.0
"""An idle event stream gets a comment this often, so that nothing between takes it for dead."""
SEND_SECONDS: Final = 30.0
"""A reader that takes longer than this for one piece is taken for gone."""
HEADER_SECONDS: Final = 10.0
"""From a request's first byte its headers must come within this time."""
BODY_SECONDS: Final = 60.0
"""From one piece of a body to the next at most."""
REQUEST_SECONDS: Final = 1_800.0
"""A whole request, a large upload too, must be sent within this time."""
SWEEP_SECONDS: Final = 1.0
"""How often connections are looked at for that."""
MAX_CONNECTIONS: Final = 4_096
"""Connections open at the same time."""
