"""Who may talk to the page's own API: only the page itself, from the host it is served on.

The default is one person on the loopback address, without a login. What protects that person is that other web
pages in the same browser are refused: by the Host header (a foreign name that resolves to 127.0.0.1), by Origin and
Sec-Fetch-Site (a form or script on another page), and by accepting only bodies that a form cannot send. The same rules
protect signed-in people from forged requests, beside their cookie being `SameSite=Lax`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from causerie.chat.errors import status_of
from causerie.core import CauserieError

LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
BODIES: Final = ("application/json", "application/octet-stream")
"""Kinds of bodies that are taken; a browser asks before it sends one of these to another site."""
PAGE_HEADERS: Final = {
    "content-security-policy": (
        "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
"""Headers of every response of the page and its API that does not set them itself."""


class SameOrigin:
    """ASGI middleware that refuses what does not come from the page itself, and adds the page's headers.

    Args:
        app: the application to guard.
        hosts: host names (without port) that the server is reached by; empty accepts any.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str] = LOOPBACK) -> None:
        self.app = app
        self.hosts = frozenset(host.lower() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check one request; a refused one gets 403 and an error object."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = {name.lower() for name, _ in message["headers"]}
                extra = [
                    (name.encode(), value.encode()) for name, value in PAGE_HEADERS.items() if name.encode() not in own
                ]
                message["headers"] = [*message["headers"], *extra]
            await send(message)

        cause = refusal(scope["method"], Headers(scope=scope), self.hosts)
        if cause is None:
            await self.app(scope, receive, send_with_headers)
            return
        error = CauserieError(
            "CAU-6103", cause, where=scope["path"], fix="use the page at the address that serve printed"
        )
        response = JSONResponse({"error": error.as_dict()}, status_code=status_of(error))
        await response(scope, receive, send_with_headers)


def refusal(method: str, headers: Headers, hosts: frozenset[str]) -> str | None:
    """Why a request is refused, or None when it may pass."""
    host = headers.get("host", "")
    name = _host_name(host)
    if hosts and name not in hosts:
        return f"the host {name!r} is not one this server answers to"
    if method in SAFE_METHODS:
        return None
    site = headers.get("sec-fetch-site")
    if site is not None and site != "same-origin":
        return f"the request came from another page ({site})"
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != host:
        return f"the request came from another origin ({origin})"
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
    if has_body and kind not in BODIES:
        return f"the body must be application/json, not {kind or 'unnamed'}"
    return None


def _host_name(host: str) -> str:
    """The Host header without its port, in lower case; empty when it cannot be read."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
