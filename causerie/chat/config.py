"""Configuration of `causerie serve`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ServeConfig:
    """What `causerie serve` serves, and where."""

    models: tuple[str, ...] = ()
    """Registry names, versions (`name@2`) or folders; none serves every registered name that has a promoted version."""
    host: str = "127.0.0.1"
    """Address to listen on; elsewhere than on the loopback address the page needs `sign_in`."""
    port: int = 8000
    """Port to listen on; 0 takes a free one."""
    require_keys: bool = False
    """Refuse API requests without a key; needed for addresses that others can reach."""
    threads: int = 0
    """Processor threads of each engine; 0 lets the engine choose by the size of its model."""
    cache_mb: int = 512
    """Memory of each engine for its key-value cache, in MiB."""
    quantize: Literal["none", "int8-head", "int8"] = "none"
    """8-bit integers in each engine: faster, at a cost per token that `docs/decisions/0015` gives."""
    notice: int = 0
    """Seconds after SIGTERM in which work is still taken while /health says 503, for load balancers to notice."""
    grace: int = 10
    """Seconds that answers under way may go on when the server is asked to stop; then they are cut."""
    sign_in: bool = False
    """Ask people to sign in; without it the page is for the one person on this computer."""
    oidc_issuer: str = ""
    """Address of an OpenID Connect provider that people may sign in with, beside passwords."""
    oidc_client: str = ""
    """This server's client id there; its secret is read from CAUSERIE_OIDC_SECRET."""
