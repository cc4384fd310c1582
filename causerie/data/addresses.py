"""Addresses of pages: their site, and the form in which they are compared."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from causerie.data.errors import data_error


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


def listed(path: Path) -> list[str]:
    """Addresses of a file, one a line, as they are written.

    Raises:
        CauserieError: CAU-2015 when it cannot be read, or is no UTF-8.
    """
    try:
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        cause = getattr(error, "strerror", None) or str(error)
        raise data_error("CAU-2015", cause, where=str(path), fix="give a text file, one address a line") from error
    return [line.strip() for line in lines if line.strip()]


def listed_urls(path: Path) -> frozenset[str]:
    """Addresses of a file, one a line, in the form in which they are compared.

    Raises:
        CauserieError: CAU-2015 when it cannot be read.
    """
    return frozenset(map(normal_url, listed(path)))
