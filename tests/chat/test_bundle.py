"""The committed bundle: small, from no other host, and what the sources in `page/` build."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from causerie.chat import page_folder

PAGE = Path(__file__).parents[2] / "page"


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_bundle_is_small_and_loads_nothing_from_elsewhere() -> None:
    built = files(page_folder())
    assert sum(map(len, built.values())) < 1_000_000
    assert set(re.findall(rb'(?:src|href)="([^"]+)"', built["index.html"])) <= {
        b"./icon.svg",
        b"./assets/app.js",
        b"./assets/rolldown-runtime.js",
        b"./assets/index.css",
    }
    for name, content in built.items():
        assert not re.search(rb"(?:@import|url\()\s*['\"]?https?:", content), name
        assert str(PAGE.parent).encode() not in content, name


@pytest.mark.slow
def test_the_sources_build_exactly_the_committed_bundle(tmp_path: Path) -> None:
    """Slow: runs the front end's own build."""
    if shutil.which("node") is None or not (PAGE / "node_modules").is_dir():
        pytest.skip("node and page/node_modules are not here (npm --prefix page ci)")
    out = tmp_path / "page"
    vite = PAGE / "node_modules" / "vite" / "bin" / "vite.js"
    command = ["node", str(vite), "build", "--logLevel", "error"]
    subprocess.run(command, cwd=PAGE, env={**os.environ, "CAUSERIE_PAGE_OUT": str(out)}, check=True, timeout=120)
    assert files(out) == files(page_folder())


def test_the_lock_file_names_no_registry() -> None:
    if not PAGE.is_dir():
        pytest.skip("the page's sources are not beside this package")
    lock = (PAGE / "package-lock.json").read_text(encoding="utf-8")
    assert "resolved" not in lock
    assert "integrity" in lock


@pytest.mark.slow
def test_the_pages_own_tests_pass() -> None:
    """Slow: builds what needs no browser, and runs it in node (npm test)."""
    if shutil.which("node") is None or not (PAGE / "node_modules").is_dir():
        pytest.skip("node and page/node_modules are not here (npm --prefix page ci)")
    vite = PAGE / "node_modules" / "vite" / "bin" / "vite.js"
    command = ["node", str(vite), "build", "--config", "vite.test.config.ts", "--logLevel", "error"]
    subprocess.run(command, cwd=PAGE, check=True, timeout=120)
    tests = subprocess.run(
        ["node", "--test", "node_modules/.tests/"], cwd=PAGE, capture_output=True, text=True, timeout=120
    )
    assert tests.returncode == 0, tests.stdout
    assert "# fail 0" in tests.stdout
