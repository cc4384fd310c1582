"""`causerie serve`: opens the store, loads the models, answers on the page and the API until it is asked to stop."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette

from causerie.chat.accounts import Accounts
from causerie.chat.app import Lifespan, create_chat_app
from causerie.chat.config import ServeConfig
from causerie.chat.errors import invalid
from causerie.chat.guard import LOOPBACK
from causerie.chat.signin import Door
from causerie.core import CauserieError, say
from causerie.hub import ResolvedModel, list_versions, resolve
from causerie.infer import EngineConfig
from causerie.serve import EnginePool, create_app, run_server
from causerie.store import Store, open_store


def serve_page(config: ServeConfig, workspace: Path) -> None:
    """Serve the page and the API; returns when the server was asked to stop.

    Raises:
        CauserieError: CAU-6111 when there is nothing to serve, CAU-5001 for an unknown model, CAU-6001 or CAU-6002
            for the address, CAU-6101 for seconds below 0, CAU-31xx when an engine does not start.
    """
    for field in ("grace", "notice"):
        if getattr(config, field) < 0:
            raise invalid(f"--{field} is below 0", field)
    with open_store(workspace) as store:
        found = models_to_serve(config, workspace, store)
        quantize = None if config.quantize == "none" else config.quantize
        engine = EngineConfig(threads=config.threads or None, cache_mb=config.cache_mb, quantize=quantize)
        pool = EnginePool(config=engine)
        load = [_loading(pool, found)]
        door = make_door(config, store)
        if config.host in LOOPBACK or door.accounts is not None:
            app = create_chat_app(workspace, store, pool, keys_required=config.require_keys, lifespans=load, door=door)
        else:
            app = create_app(pool, store=store, keys_required=config.require_keys, lifespans=load, workspace=workspace)
        run_server(
            app,
            config.host,
            config.port,
            on_ready=lambda url: _announce(url, found, config, door),
            grace=config.grace,
            notice=config.notice,
        )


def make_door(config: ServeConfig, store: Store) -> Door:
    """How people sign in, by the configuration.

    Raises:
        CauserieError: CAU-6101 when an identity provider is named without its client, or without `sign_in`.
    """
    if not config.sign_in:
        if config.oidc_issuer:
            raise invalid("--oidc-issuer needs --sign-in", "oidc_issuer")
        return Door(None)
    accounts = Accounts(store)
    if not config.oidc_issuer:
        return Door(accounts)
    from causerie.chat.oidc import Provider

    if not config.oidc_client:
        raise invalid("--oidc-issuer needs --oidc-client", "oidc_client")
    return Door(accounts, Provider(config.oidc_issuer, config.oidc_client, os.environ.get("CAUSERIE_OIDC_SECRET", "")))


def models_to_serve(config: ServeConfig, workspace: Path, store: Store) -> list[ResolvedModel]:
    """The models named in the configuration, or every promoted one.

    Raises:
        CauserieError: CAU-6111 when none is named and none is promoted.
    """
    names = config.models or tuple(version.name for version in list_versions(store, status="promoted"))
    if not names:
        raise CauserieError(
            "CAU-6111",
            "no model is named, and none is promoted in the registry",
            where="MODEL",
            fix="run `causerie demo` first, or name a model: causerie serve NAME_OR_FOLDER",
        )
    return [resolve(store, workspace, name) for name in names]


def _loading(pool: EnginePool, found: list[ResolvedModel]) -> Lifespan:
    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        for model in found:
            say(f"loading {model.name}")
            number = model.version.number if model.version else None
            await pool.load(_served_name(model, found), model.path, number)
        yield

    return lifespan


def _served_name(model: ResolvedModel, found: list[ResolvedModel]) -> str:
    """`name` for a version, so that a promotion can replace it; `name@N` when several versions of it are served."""
    if model.version is None:
        return model.name
    versions = [other for other in found if other.version and other.version.name == model.version.name]
    alone = len(versions) == 1 or model.version.status == "promoted"
    return model.version.name if alone else model.version.ref


def _announce(url: str, found: list[ResolvedModel], config: ServeConfig, door: Door) -> None:
    say(f"serving {', '.join(model.name for model in found)}")
    if config.host in LOOPBACK or door.accounts is not None:
        say(f"page: {url}/")
    if door.accounts is not None and door.accounts.code:
        say(f"make the first admin's account at {url}/#/first/{door.accounts.code}")
    say(f"OpenAI-shaped API: {url}/v1")
