"""Signatures of bundles: ed25519 keys, as `openssl genpkey -algorithm ed25519 -out key.pem` makes them.

The hashes of a manifest find damage. A signature also tells who made the bundle: without the private key, nobody can write another
manifest with a signature that fits. It is the file `manifest.sig` beside the manifest: the signature of the manifest's bytes, in
base64. The manifest holds the hash of every other file, so all of the bundle is signed.

A signature says nothing of whether the signer can be trusted. The public key must come by another way than the bundle.
"""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from autocut.deploy.manifest import MANIFEST, SIGNATURE
from autocut.errors import BundleError, InputError, MissingDependencyError, VerificationError, quoted

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

_MAKE_A_KEY = "openssl genpkey -algorithm ed25519 -out key.pem; openssl pkey -in key.pem -pubout -out key.pub"
_MOST_BYTES = 10_000


def read_private_key(path: Path) -> Ed25519PrivateKey:
    """Read the key that signs: PEM, without a passphrase.

    Raises:
        InputError: The file is no such key.
    """
    serialization, ed25519 = _library()
    try:
        key = serialization.load_pem_private_key(_read(path), password=None)
    except (ValueError, TypeError) as error:  # TypeError: it has a passphrase
        raise _no_key("a private ed25519 key in PEM without a passphrase", path) from error
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise _no_key("a private ed25519 key in PEM without a passphrase", path)
    return cast("Ed25519PrivateKey", key)


def read_public_key(path: Path) -> Ed25519PublicKey:
    """Read the key that checks.

    Raises:
        InputError: The file is no such key.
    """
    serialization, ed25519 = _library()
    try:
        key = serialization.load_pem_public_key(_read(path))
    except ValueError as error:
        raise _no_key("a public ed25519 key in PEM", path) from error
    if not isinstance(key, ed25519.Ed25519PublicKey):
        raise _no_key("a public ed25519 key in PEM", path)
    return cast("Ed25519PublicKey", key)


def sign(folder: Path, key: Ed25519PrivateKey) -> None:
    """Sign the bundle in `folder`; a signature that it has is replaced."""
    signature = key.sign((folder / MANIFEST).read_bytes())
    (folder / SIGNATURE).write_text(base64.b64encode(signature).decode() + "\n", encoding="ascii")


def require_signature(folder: Path, key: Ed25519PublicKey) -> None:
    """Refuse a bundle that the owner of `key` has not signed. The files are not compared with the manifest here.

    Raises:
        BundleError: There is no manifest.
        VerificationError: There is no signature, or another key or another manifest made it.
    """
    from cryptography.exceptions import InvalidSignature

    file = folder / SIGNATURE
    hint = "get the bundle again from its maker, or the public key of its maker"
    if file.is_symlink() or not file.is_file():
        raise VerificationError(f"bundle {folder} must have a signature, got no {SIGNATURE}", hint)
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise ValueError("too large")
        signature = base64.b64decode(file.read_bytes().strip(), validate=True)
        key.verify(signature, (folder / MANIFEST).read_bytes())
    except OSError as error:
        raise BundleError(f"bundle {folder} must hold {MANIFEST}, got: {error.strerror}", hint) from error
    except (InvalidSignature, binascii.Error, ValueError) as error:
        raise VerificationError(
            f"bundle {folder} must be signed by the given key, got a signature that does not fit", hint
        ) from error


def _library() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise MissingDependencyError(
            "signatures need the library cryptography, which is not installed", "pip install 'autocut[signing]'"
        ) from error
    return serialization, ed25519


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(f"key must be a small file, got {quoted(str(path))}", _MAKE_A_KEY)
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"key must be a readable file, got {quoted(str(path))}: {error.strerror}", _MAKE_A_KEY) from error


def _no_key(rule: str, path: Path) -> InputError:
    return InputError(f"key must be {rule}, got {quoted(str(path))}", _MAKE_A_KEY)
