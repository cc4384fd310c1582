"""Make the demo's page archive, `causerie/demo/assets/pages.warc.gz`, from documentation packages of Debian 12.

    python scripts/make_demo_pages.py [--work /tmp/pages]

Needs a Debian system with `apt-get` and `dpkg-deb`. The pages' bytes are the packages' own, unchanged; each is
stored under the public address where its project publishes it. Equal package versions give an equal archive.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

ASSETS = Path(__file__).resolve().parents[1] / "causerie" / "demo" / "assets"
NAMESPACE = uuid.UUID("6f1d5b0e-6f5d-4a0e-9b0a-0c2c3f1a7d11")
GIMP_PAGES = ("gimp-concepts*", "gimp-imag*", "gimp-tool*", "gimp-using*", "gimp-introduction*", "glossary*")


@dataclass(frozen=True)
class Source:
    """Pages of one package: which files, in which language, under which public address and licence."""

    package: str
    version: str
    license: str
    language: str
    folder: str
    address: str
    patterns: tuple[str, ...] = ("*.html",)
    every: int = 1

    def url(self, path: Path) -> str:
        """Public address of a file; `{name}` is its name, `{stem}` its name without `.html`."""
        return self.address.format(name=path.name, stem=path.name.removesuffix(".html"))


GPL2, GPL3, GFDL12, GFDL11, MPL = (
    "GPL-2.0-or-later",
    "GPL-3.0-or-later",
    "GFDL-1.2-no-invariants-or-later",
    "GFDL-1.1-no-invariants-or-later",
    "MPL-2.0",
)
FAQ = "LicenseRef-Debian-FAQ"
HANDBOOK = ("debian-handbook", "11.20220922", "CC-BY-SA-3.0 OR GPL-2.0-or-later")
DEBIAN = "https://www.debian.org/doc/manuals"
LIVE = "https://live-team.pages.debian.net/live-manual/html/live-manual/{name}"
LIVE_FOLDER = "usr/share/doc/live-manual/html/live-manual"
OFFICE = "4:7.4.7-1+deb12u14"
GNUCASH = "https://www.gnucash.org/docs/v4/C"
PAINT = "https://tuxpaint.org/docs"


def handbook(folder: str, language: str, every: int = 1) -> Source:
    """The Debian Administrator's Handbook in one language."""
    place = f"usr/share/doc/debian-handbook/html/{folder}"
    return Source(*HANDBOOK, language, place, f"{DEBIAN}/debian-handbook/{{stem}}.{language}.html", every=every)


def gnucash(book: str) -> Source:
    """One of GnuCash's two English books."""
    folder = f"usr/share/doc/gnucash-docs/{book}-en"
    return Source("gnucash-docs", "4.13-1", GFDL11, "en", folder, f"{GNUCASH}/{book}/{{name}}")


def gimp(language: str) -> Source:
    """The concept, tool and tutorial pages of the GIMP manual."""
    folder = f"usr/share/gimp/2.0/help/{language}"
    address = f"https://docs.gimp.org/2.10/{language}/{{name}}"
    return Source(f"gimp-help-{language}", "2.10.34-2", GFDL12, language, folder, address, GIMP_PAGES)


def paint(folder: str, language: str, part: str, every: int = 1) -> Source:
    """Tux Paint's manual, or its short pages on each magic tool."""
    place = f"usr/share/doc/tuxpaint-data/{folder}/{part}"
    return Source(
        "tuxpaint-data", "1:0.9.28-sdl2-1", GPL2, language, place, f"{PAINT}/{folder}/{part}/{{name}}", every=every
    )


def live(language: str, every: int = 1) -> Source:
    """The Debian Live manual."""
    pattern = (f"*.{language}.html",)
    return Source("live-manual-html", "2:20151217.2", GPL3, language, LIVE_FOLDER, LIVE, pattern, every)


def office(package: str, folder: str, language: str) -> Source:
    """Every third of LibreOffice's how-to pages for Writer."""
    place = f"usr/share/libreoffice/help/{folder}/text/swriter/guide"
    address = f"https://help.libreoffice.org/7.4/{folder}/text/swriter/guide/{{name}}"
    return Source(package, OFFICE, MPL, language, place, address, every=3)


SOURCES = (
    handbook("en-US", "en"),
    gnucash("gnucash-guide"),
    gnucash("gnucash-help"),
    gimp("en"),
    paint("en", "en", "html"),
    paint("en", "en", "magic-docs/html", every=2),
    live("en"),
    office("libreoffice-help-en-us", "en-US", "en"),
    Source(
        "debian-faq", "11.1", FAQ, "en", "usr/share/doc/debian/FAQ", f"{DEBIAN}/debian-faq/{{name}}", ("*.en.html",)
    ),
    handbook("fr-FR", "fr"),
    Source(
        "harden-doc", "3.19+nmu1", GPL2, "fr", "usr/share/doc/harden-doc/html/fr-FR",
        f"{DEBIAN}/securing-debian-manual/{{stem}}.fr.html",
    ),
    gimp("fr"),
    paint("fr_FR.UTF-8", "fr", "html"),
    paint("fr_FR.UTF-8", "fr", "magic-docs/html", every=4),
    live("fr"),
    office("libreoffice-help-fr", "fr", "fr"),
    Source(
        "debian-faq-fr", "11.1", FAQ, "fr", "usr/share/doc/debian/FAQ/fr", f"{DEBIAN}/debian-faq/{{name}}"
    ),
    Source(
        "claws-mail-doc", "4.1.1-2", GPL3, "fr", "usr/share/doc/claws-mail/manual/fr",
        "https://www.claws-mail.org/manual/fr/{name}",
    ),
    handbook("de-DE", "de", every=24),
    handbook("es-ES", "es", every=32),
    live("es", every=6),
)  # fmt: skip


def unpack(source: Source, work: Path) -> Path:
    """Download (once) and unpack a package of exactly the stated version; its folder."""
    folder = work / source.package
    if not folder.is_dir():
        work.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", f"{source.package}={source.version}"], cwd=work, check=True)
        name = f"{source.package}_{source.version.replace(':', '%3a')}_*.deb"
        (archive,) = work.glob(name)
        subprocess.run(["dpkg-deb", "-x", str(archive), str(folder)], check=True)
    return folder


def pages(source: Source, work: Path) -> Iterator[Path]:
    """The source's files, in the order of their names."""
    folder = unpack(source, work) / source.folder
    found = sorted({path for pattern in source.patterns for path in folder.glob(pattern) if path.is_file()})
    yield from (path for path in found[:: source.every] if not path.is_symlink())


def record(kind: str, content: bytes, fields: dict[str, str]) -> bytes:
    """One WARC/1.1 record as its own gzip member."""
    digest = hashlib.sha256(content).hexdigest()
    identity = uuid.uuid5(NAMESPACE, fields.get("WARC-Target-URI", kind) + digest)
    head = {"WARC-Type": kind, "WARC-Record-ID": f"<urn:uuid:{identity}>", **fields}
    head |= {"WARC-Block-Digest": f"sha256:{digest}", "Content-Length": str(len(content))}
    lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
    return gzip.compress(f"WARC/1.1\r\n{lines}\r\n".encode() + content + b"\r\n\r\n", 9, mtime=0)


def response(source: Source, path: Path) -> bytes:
    """The page as an HTTP response record."""
    when = datetime.fromtimestamp(int(path.stat().st_mtime), UTC)
    body = path.read_bytes()
    http = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nLast-Modified: {format_datetime(when, usegmt=True)}\r\n"
    fields = {
        "WARC-Target-URI": source.url(path),
        "WARC-Date": when.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "Content-Type": "application/http; msgtype=response",
        "License": source.license,
    }
    return record("response", f"{http}Content-Length: {len(body)}\r\n\r\n".encode() + body, fields)


def main() -> None:
    """Write the archive and print the table of sources for the README."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("/tmp/causerie-pages"))
    work: Path = parser.parse_args().work
    info = b"software: scripts/make_demo_pages.py\r\nformat: WARC File Format 1.1\r\n"
    head = {"WARC-Date": "2023-06-10T00:00:00Z", "Content-Type": "application/warc-fields"}
    target = ASSETS / "pages.warc.gz"
    pages_in: dict[tuple[str, ...], int] = {}
    with open(target, "wb") as out:
        out.write(record("warcinfo", info, head))
        for source in SOURCES:
            row = (source.package, source.version, source.language, source.license, source.address.split("{")[0])
            for path in pages(source, work):
                out.write(response(source, path))
                pages_in[row] = pages_in.get(row, 0) + 1
    for row, count in pages_in.items():
        print(f"| {' | '.join((*row[:3], str(count), *row[3:]))} |")
    print(f"{target.stat().st_size:,} bytes, sha256 {hashlib.sha256(target.read_bytes()).hexdigest()}")


if __name__ == "__main__":
    main()
