"""A signature tells who made a bundle: a stranger who may write the folder cannot make one."""

from __future__ import annotations

import json
import shutil

import pytest

from autocut import cli
from autocut.deploy.bundle import load
from autocut.deploy.manifest import MANIFEST, SIGNATURE
from autocut.deploy.signing import read_private_key, sign
from autocut.errors import InputError, VerificationError

pytest.importorskip("cryptography", reason="signatures need cryptography: pip install 'autocut[signing]'")

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, x25519


@pytest.fixture
def keys(tmp_path):
    """Files of a private key and of its public one."""

    def make(name, private=None, passphrase=None):
        private = private or ed25519.Ed25519PrivateKey.generate()
        locked = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
        pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        (tmp_path / f"{name}.pem").write_bytes(private.private_bytes(pem, pkcs8, locked))
        public = private.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
        (tmp_path / f"{name}.pub").write_bytes(public)
        return tmp_path / f"{name}.pem", tmp_path / f"{name}.pub"

    return make


def test_a_signed_bundle_loads_with_the_key_of_its_maker(bundle, keys):
    """With and without the key."""
    private, public = keys("mine")
    sign(bundle, read_private_key(private))

    assert load(bundle, trusted=public).manifest == load(bundle).manifest


def test_a_bundle_of_somebody_else_is_refused(bundle, keys):
    """Their signature is a good one, of another key."""
    private, _ = keys("theirs")
    sign(bundle, read_private_key(private))

    with pytest.raises(VerificationError, match="must be signed by the given key"):
        load(bundle, trusted=keys("mine")[1])


def test_an_unsigned_bundle_is_refused_where_a_key_is_given(bundle, keys):
    """Who drops the signature must not get around it."""
    with pytest.raises(VerificationError, match=r"must have a signature, got no manifest\.sig"):
        load(bundle, trusted=keys("mine")[1])


def test_a_claim_that_was_changed_and_sealed_again_is_refused(bundle, keys, claim):
    """The hashes fit, the signature does not."""
    private, public = keys("mine")
    sign(bundle, read_private_key(private))
    claim.rewrite(bundle, task="another")
    load(bundle)

    with pytest.raises(VerificationError, match="does not fit"):
        load(bundle, trusted=public)


@pytest.mark.parametrize("content", ["", "no base64!", "AAAA", "A" * 20_000])
def test_a_damaged_signature_is_refused(bundle, keys, content):
    """Whatever stands in the file."""
    (bundle / SIGNATURE).write_text(content)

    with pytest.raises(VerificationError, match="does not fit"):
        load(bundle, trusted=keys("mine")[1])


def test_a_signature_that_is_a_link_is_refused(bundle, keys, tmp_path):
    """It may be another one tomorrow."""
    private, public = keys("mine")
    sign(bundle, read_private_key(private))
    shutil.move(bundle / SIGNATURE, tmp_path / "elsewhere")
    (bundle / SIGNATURE).symlink_to(tmp_path / "elsewhere")

    with pytest.raises(VerificationError):
        load(bundle, trusted=public)


def test_what_is_no_key_is_told(bundle, keys, tmp_path):
    """A missing file, the wrong half, another kind, a passphrase."""
    private, public = keys("mine")
    locked, _ = keys("locked", passphrase=b"geheim")
    other, other_public = keys("other", x25519.X25519PrivateKey.generate())
    for file in (tmp_path / "none", public, locked, other, bundle / "README.md"):
        with pytest.raises(InputError, match="key must be") as refusal:
            read_private_key(file)
        assert "openssl genpkey" in refusal.value.hint
    for file in (tmp_path / "none", private, other_public):
        with pytest.raises(InputError, match="key must be"):
            load(bundle, trusted=file)


def test_export_signs_and_verify_checks(finished_study, keys, tmp_path, capsys):
    """From the study to the user of the bundle."""
    private, public = keys("mine")
    words = ["export", str(finished_study), "--trial", "7", "--to", str(tmp_path / "out")]
    assert cli.main([*words, "--sign-key", str(tmp_path / "none.pem")]) == 2
    assert not (tmp_path / "out").exists()
    assert cli.main([*words, "--sign-key", str(private)]) == 0
    load(tmp_path / "out", trusted=public)

    assert cli.main(["verify", str(tmp_path / "out"), "--key", str(keys("theirs")[1])]) == 1
    document = json.loads((tmp_path / "out" / MANIFEST).read_text())
    assert SIGNATURE not in [file["path"] for file in document["files"]]
    assert "must be signed by the given key" in capsys.readouterr().err
