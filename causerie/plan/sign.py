"""Signatures under predictions: an Ed25519 key in the workspace, made when first needed.

A signature shows that a prediction's text is what the key's holder wrote; its date is the holder's word. Who must be
convinced of the date publishes the digest (a commit, a mail) before the run.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from causerie.core import CauserieError, sha256_json

KEY_FILE: Final = Path("keys") / "plan-ed25519.pem"
SEAL: Final = ("digest", "public_key", "signature", "scores")
"""What is not part of the signed content; scores come later, each with a seal of its own."""


def signing_key(workspace: Path) -> Ed25519PrivateKey:
    """The workspace's key; made, readable by its owner only, when there is none.

    Raises:
        CauserieError: CAU-4303 when the file is no Ed25519 key.
    """
    path = workspace / KEY_FILE
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
        pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            out.write(pem)
        with contextlib.suppress(FileExistsError):  # another process was quicker: its key is everybody's
            os.link(beside, path)
        beside.unlink()
    return _read(path)


def _read(path: Path) -> Ed25519PrivateKey:
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except ValueError as error:
        fix = "restore it, or move it away to have one made"
        raise CauserieError("CAU-4303", "not a private key", where=str(path), fix=fix) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise CauserieError("CAU-4303", "not an Ed25519 key", where=str(path), fix="move it away to have one made")
    return key


def signed(content: Mapping[str, Any], workspace: Path) -> dict[str, Any]:
    """The content with `digest` (SHA-256 of its canonical JSON), `public_key` and `signature` of the digest, hex."""
    key = signing_key(workspace)
    digest = sha256_json(dict(content))
    public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()
    return {**content, "digest": digest, "public_key": public, "signature": key.sign(digest.encode()).hex()}


def verified(stored: Any, where: str, *, kind: str) -> dict[str, Any]:
    """The content of a signed object, without its seal.

    Raises:
        CauserieError: CAU-4303 when it is not of this kind, was changed, or its signature is not by its key.
    """
    value: dict[str, Any] = stored if isinstance(stored, dict) else {}
    content = {name: item for name, item in value.items() if name not in SEAL}
    if content.get("kind") != kind or value.get("digest") != sha256_json(content):
        cause = f"not a {kind}, or changed since it was written"
        raise CauserieError("CAU-4303", cause, where=where, fix="use the file as it was written")
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(value["public_key"]))
        key.verify(bytes.fromhex(value["signature"]), value["digest"].encode())
    except (KeyError, TypeError, ValueError, InvalidSignature) as error:
        cause = "the signature is missing or not by the key that is named"
        raise CauserieError("CAU-4303", cause, where=where, fix="use the file as it was written") from error
    return content
