"""Addresses of pages: their site, and the form in which they are compared."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit


def host_of(url: str) -> str:
    """The site of an address, in lower case without `www.`, or ""."""
    try:
        return (urlsplit(url).hostname or "").removeprefix("www.")
    except ValueError:
        return ""


def normal_url(url: str) -> str:
    """An address as it is compared: without scheme, `www.`, fragment and last slash, the host in lower case."""
    try:
        parts = urlsplit(url if "://" in url else f"//{url}")
        host = (parts.hostname or "").removeprefix("www.")
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return url
    return f"{host}{port}{parts.path.rstrip('/')}{'?' + parts.query if parts.query else ''}"


def listed_urls(path: Path) -> frozenset[str]:
    """Addresses of a file, one a line, in the form in which they are compared."""
    lines = path.read_text(encoding="utf-8").split("\n")
    return frozenset(normal_url(line.strip()) for line in lines if line.strip())
