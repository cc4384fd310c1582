"""Signing in at an OpenID Connect provider: the authorization code flow with PKCE, state and nonce.

The flow is Authlib's, the token's signature is checked with joserfc against the provider's published keys; here stands
what ties the two to a browser. Nothing of the provider is asked for but who the person is.
"""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from causerie.chat.signin import let_in
from causerie.core import CauserieError

STATE_COOKIE: Final = "causerie_oidc"
SECONDS: Final = 600.0
"""How long somebody may take at the provider."""
PENDING: Final = 1_000
SCOPE: Final = "openid profile email"
ALGORITHMS: Final = ["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"]


@dataclass(frozen=True)
class Visit:
    """Somebody who is at the provider now."""

    verifier: str
    nonce: str
    until: float


@dataclass
class Provider:
    """One provider, by its issuer's address; `secret` may be empty for a public client."""

    issuer: str
    client: str
    secret: str = ""
    _visits: OrderedDict[str, Visit] = field(default_factory=OrderedDict)
    _told: dict[str, Any] = field(default_factory=dict)

    def routes(self) -> list[Route]:
        """Below `/api`."""
        return [
            Route("/session/oidc", self.leave, methods=["GET"]),
            Route("/session/oidc/return", self.come_back, methods=["GET"]),
        ]

    async def leave(self, request: Request) -> Response:
        """Send the browser to the provider."""
        told, visit = await self._metadata(), Visit(secrets.token_urlsafe(48), secrets.token_urlsafe(16), _soon())
        async with self._client(request) as client:
            url, state = client.create_authorization_url(
                told["authorization_endpoint"], code_verifier=visit.verifier, nonce=visit.nonce
            )
        self._visits[state] = visit
        while len(self._visits) > PENDING:
            self._visits.popitem(last=False)
        response = RedirectResponse(url, 303, headers={"cache-control": "no-store"})
        secure = request.url.scheme == "https"
        response.set_cookie(
            STATE_COOKIE,
            state,
            max_age=int(SECONDS),
            path="/api/session/oidc",
            httponly=True,
            samesite="lax",
            secure=secure,
        )
        return response

    async def come_back(self, request: Request) -> Response:
        """Let in whom the provider sends back.

        Raises:
            CauserieError: CAU-6116 when anything does not fit.
        """
        query = request.query_params
        state, code = query.get("state", ""), query.get("code", "")
        visit = self._visits.pop(state, None)
        same_browser = secrets.compare_digest(request.cookies.get(STATE_COOKIE, "").encode(), state.encode())
        if visit is None or not same_browser or visit.until < time.monotonic():
            raise refused("the answer belongs to no sign-in that was begun here")
        if not code:
            raise refused(f"it said: {query.get('error', 'nothing')[:100]}")
        claims = await self._claims(request, code, visit)
        name = str(claims.get("preferred_username") or claims.get("email") or claims.get("name") or claims["sub"])
        accounts = request.app.state.chat.door.accounts
        person = await run_in_threadpool(accounts.by_subject, f"{self.issuer}|{claims['sub']}", name[:80])
        response = await let_in(request, person, RedirectResponse("/", 303, headers={"cache-control": "no-store"}))
        response.delete_cookie(STATE_COOKIE, path="/api/session/oidc", httponly=True, samesite="lax")
        return response

    async def _claims(self, request: Request, code: str, visit: Visit) -> dict[str, Any]:
        """Who came, as the provider signed it."""
        from joserfc import jwt
        from joserfc.errors import JoseError
        from joserfc.jwk import KeySet

        told = await self._metadata()
        try:
            async with self._client(request) as client:
                token = await client.fetch_token(told["token_endpoint"], code=code, code_verifier=visit.verifier)
            keys = KeySet.import_key_set(await self._fetch(told["jwks_uri"]))  # type: ignore[arg-type]
            claims: dict[str, Any] = jwt.decode(token["id_token"], keys, algorithms=ALGORITHMS).claims
            rules = jwt.JWTClaimsRegistry(
                leeway=60,
                iss={"essential": True, "value": self.issuer},
                aud={"essential": True, "value": self.client},
                sub={"essential": True},
                exp={"essential": True},
                nonce={"essential": True, "value": visit.nonce},
            )
            rules.validate(claims)
        except (httpx.HTTPError, JoseError, KeyError, ValueError) as error:
            raise refused(f"its answer does not hold ({type(error).__name__})") from error
        except Exception as error:  # Authlib's own errors share no base with the above
            raise refused(f"it gave no token ({type(error).__name__})") from error
        return claims

    def _client(self, request: Request) -> Any:
        from authlib.integrations.httpx_client import AsyncOAuth2Client

        back = f"{request.url.scheme}://{request.headers.get('host', '')}/api/session/oidc/return"
        kind = "client_secret_basic" if self.secret else "none"
        return AsyncOAuth2Client(
            self.client,
            self.secret or None,
            token_endpoint_auth_method=kind,
            redirect_uri=back,
            scope=SCOPE,
            code_challenge_method="S256",
            timeout=15,
        )

    async def _metadata(self) -> dict[str, Any]:
        if not self._told:
            told = await self._fetch(self.issuer.rstrip("/") + "/.well-known/openid-configuration")
            if told.get("issuer") != self.issuer:
                raise refused("it calls itself by another address")
            self._told = told
        return self._told

    async def _fetch(self, url: str) -> dict[str, Any]:
        try:
            async with httpx.AsyncClient(timeout=15) as client:
                response = await client.get(url)
                response.raise_for_status()
                found: dict[str, Any] = response.json()
        except (httpx.HTTPError, ValueError) as error:
            raise refused(f"it does not answer ({type(error).__name__})") from error
        return found


def _soon() -> float:
    return time.monotonic() + SECONDS


def refused(cause: str) -> CauserieError:
    """CAU-6116: the provider's part did not work."""
    return CauserieError("CAU-6116", f"the identity provider: {cause}", where="sign-in", fix="sign in again")
