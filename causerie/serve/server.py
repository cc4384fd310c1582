"""Running the application: uvicorn with h11, an address that is known before the first request, an orderly end."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any, Final, cast

import uvicorn
from starlette.applications import Starlette

from causerie.core import CauserieError
from causerie.serve import limits
from causerie.serve.connections import GuardedProtocol
from causerie.serve.routes import Office

GRACE_SECONDS: Final = 10
"""How long answers under way may go on after a request to stop; then streams end with an error event."""
LAST_WORDS_SECONDS: Final = 2
"""How long the endings of cut streams may take to be sent."""
HEADER_BYTES: Final = 64 * 1024
BACKLOG: Final = 512


class Server:
    """A server for an application; the address is taken at once, requests are answered while `run` runs.

    Args:
        app: made by `create_app`.
        host, port: where to listen; port 0 takes a free one.
        grace: seconds that answers may go on after `stop` or SIGTERM.
        notice: seconds before that in which work is still taken, while `/health` says 503 already: what a load
            balancer needs to send nobody here any more.
        on_ready: called with the URL once requests are answered.

    A stop has three parts: the notice; then new requests get 503 (on an open address, so that they are refused in
    words) while those in hand go on, at most for the grace; then the address is closed and what is left is cut.

    Raises:
        CauserieError: CAU-6001 when others could reach a server without API keys, CAU-6002 when the address is taken.
    """

    def __init__(
        self,
        app: Starlette,
        host: str = "127.0.0.1",
        port: int = 8000,
        *,
        grace: float = GRACE_SECONDS,
        notice: float = 0,
        on_ready: Callable[[str], None] | None = None,
    ) -> None:
        self._app = app
        self._office: Office = app.state.office
        if not is_loopback(host) and not self._office.door.required:
            raise CauserieError(
                "CAU-6001",
                f"on {host} others can reach this server, and it asks for no API keys",
                where="--host",
                fix="use --host 127.0.0.1, or require keys",
            )
        self._socket = _listen(host, port)
        self.port: Final[int] = self._socket.getsockname()[1]
        self.url: Final = f"http://{f'[{host}]' if ':' in host else host}:{self.port}"
        self._grace = grace
        self._notice = notice
        config = uvicorn.Config(
            app,
            http=cast(Any, partial(GuardedProtocol, gate=self._office.pool.gate)),
            ws="none",
            lifespan="off",
            log_level="warning",
            access_log=False,
            server_header=False,
            h11_max_incomplete_event_size=HEADER_BYTES,
            timeout_graceful_shutdown=LAST_WORDS_SECONDS,
            backlog=BACKLOG,
        )
        self._uvicorn = _Uvicorn(config, self._begin_stop, lambda: on_ready(self.url) if on_ready else None)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._leaving: asyncio.Future[None] | None = None

    def run(self) -> None:
        """Answer requests until SIGTERM, SIGINT or `stop`; returns when the last answer has ended.

        What a lifespan raises at the start, such as a model that cannot be loaded, is raised here.
        """
        asyncio.run(self.serve())

    async def serve(self) -> None:
        """The same inside a running event loop."""
        self._loop = asyncio.get_running_loop()
        try:
            async with self._app.router.lifespan_context(self._app):
                sweep = asyncio.create_task(self._sweep())
                try:
                    await self._uvicorn.serve(sockets=[self._socket])
                finally:
                    sweep.cancel()
        finally:
            self._socket.close()

    async def _sweep(self) -> None:
        """End connections whose requests are overdue."""
        while True:
            await asyncio.sleep(limits.SWEEP_SECONDS)
            now = asyncio.get_running_loop().time()
            for connection in list(self._uvicorn.server_state.connections):
                if isinstance(connection, GuardedProtocol):
                    connection.check(now)

    def stop(self) -> None:
        """Ask the server to end; may be called from any thread."""
        if self._loop is None:
            self._uvicorn.should_exit = True
        else:
            self._begin_stop()

    def _begin_stop(self) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._leave)

    def _leave(self) -> None:
        if self._leaving is None:
            self._office.drain.announce()
            self._leaving = asyncio.ensure_future(self._drain())

    async def _drain(self) -> None:
        """Give notice, finish what is in hand, refuse what is new; when the grace is over, cut."""
        await asyncio.sleep(self._notice)
        self._office.drain.begin()
        in_hand = set(self._uvicorn.server_state.tasks)
        if in_hand:
            await asyncio.wait(in_hand, timeout=self._grace)
        self._office.pool.gate.give_up()
        self._office.drain.cut()
        self._uvicorn.should_exit = True


class _Uvicorn(uvicorn.Server):
    """uvicorn's server, telling when it is ready and when it is asked to stop."""

    def __init__(self, config: uvicorn.Config, on_stop: Callable[[], None], on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_stop = on_stop
        self._on_ready = on_ready
        self._signalled = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then tell."""
        await super().startup(sockets)
        if self.started:
            self._on_ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal to stop: the first ends the server in order, a second one at once.

        uvicorn would raise the signal again afterwards, and SIGTERM would then kill the process before its engines and
        its store are closed.
        """
        self._on_stop()
        self.force_exit = self.should_exit = self._signalled
        self._signalled = True


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise CauserieError(
            "CAU-6002",
            f"cannot listen on {host}:{port}: {error.strerror or error}",
            where="--port",
            fix="choose another --port (0 takes a free one) or end the program that uses it",
        ) from error
    return listener


def run_server(
    app: Starlette,
    host: str = "127.0.0.1",
    port: int = 8000,
    on_ready: Callable[[str], None] | None = None,
    *,
    grace: float = GRACE_SECONDS,
    notice: float = 0,
) -> None:
    """Serve an application until it is asked to stop; see `Server`."""
    Server(app, host, port, grace=grace, notice=notice, on_ready=on_ready).run()
