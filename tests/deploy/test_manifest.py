"""The manifest tells damage apart from a lie, and names nothing outside its folder."""

import json
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from autocut.deploy.bundle import load
from autocut.deploy.manifest import MANIFEST, BundleFile, check_files, read_manifest, render
from autocut.deploy.readme import readme
from autocut.errors import AutocutError, BundleError, VerificationError


def flip(path, position):
    """Flip the lowest bit of one byte."""
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def test_a_flipped_byte_in_any_file_is_refused(bundle):
    """First, middle and last byte of every file, the manifest included."""
    for path in sorted(path for path in bundle.rglob("*") if path.is_file()):
        size = path.stat().st_size
        for position in {0, size // 2, size - 1}:
            flip(path, position)
            with pytest.raises(AutocutError) as caught:
                load(bundle)
            assert isinstance(caught.value, (BundleError, VerificationError)), path
            assert caught.value.hint
            flip(path, position)
    load(bundle)


def test_the_device_that_trained_a_model_is_told_where_it_was_not_the_cpu(bundle):
    """So that older versions read all other bundles."""
    assert "trained_on" not in read_manifest(bundle).content
    manifest = read_manifest(bundle).model_copy(update={"trained_on": "cuda"})

    (bundle / MANIFEST).write_text(render(manifest), encoding="utf-8")
    assert read_manifest(bundle).trained_on == "cuda"
    assert "Trained on cuda. Latencies are those of one process with 1 thread on" in readme(bundle / "model", manifest)


@pytest.mark.parametrize(("device", "told"), [(None, "Trained in"), ("cuda", "Trained on cuda in")])
def test_the_precision_of_a_training_is_told_where_it_was_not_fp32(bundle, device, told):
    """Older bundles name none, and load: they were trained in fp32."""
    assert "train_precision" not in read_manifest(bundle).content
    manifest = read_manifest(bundle).model_copy(update={"train_precision": "bf16", "trained_on": device})

    (bundle / MANIFEST).write_text(render(manifest), encoding="utf-8")
    assert read_manifest(bundle).train_precision == "bf16"
    assert f"{told} mixed precision (bf16). Latencies" in readme(bundle / "model", manifest)


@given(data=st.data())
def test_any_flipped_byte_of_the_manifest_is_refused(made, tmp_path_factory, data):
    """Also where the change is white space or still valid JSON."""
    folder = tmp_path_factory.mktemp("flipped")
    text = (made / "manifest.json").read_bytes()
    position = data.draw(st.integers(0, len(text) - 1))
    changed = bytearray(text)
    changed[position] ^= 1 << data.draw(st.integers(0, 7))
    (folder / "manifest.json").write_bytes(changed)

    with pytest.raises((BundleError, VerificationError)):
        read_manifest(folder)


def test_a_changed_model_file_is_a_failed_verification(bundle):
    """Exit code 1: it is a bundle, only not the one that it claims to be."""
    flip(next(path for path in (bundle / "model").rglob("*") if path.is_file()), 0)

    with pytest.raises(VerificationError, match="SHA-256") as caught:
        load(bundle)
    assert caught.value.exit_code == 1


def test_a_claim_changed_by_hand_is_a_failed_verification(bundle):
    """The manifest carries the hash of its own content."""
    path = bundle / "manifest.json"
    document = json.loads(path.read_text())
    document["measurement"]["accuracy"]["metric"]["value"] = 1.0
    path.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n")

    with pytest.raises(VerificationError, match="changed manifest"):
        read_manifest(bundle)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"schema_version": NaN}', '{"schema_version": 1, "seed": 1e999}', "[" * 100_000, "\ud800"]
)
def test_a_damaged_manifest_is_no_bundle(tmp_path, text):
    """Exit code 2 and a hint, never a traceback."""
    (tmp_path / "manifest.json").write_bytes(text.encode("utf-8", "surrogatepass"))

    with pytest.raises(BundleError) as caught:
        read_manifest(tmp_path)
    assert caught.value.exit_code == 2
    assert caught.value.hint


@pytest.mark.parametrize("version", [0, 2, "1", True, None])
def test_another_schema_version_is_told(bundle, version):
    """A newer autocut may mean something else by the same words."""
    path = bundle / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": version}))

    with pytest.raises(BundleError, match=r"schema_version must be 1, got"):
        read_manifest(bundle)


def test_a_missing_folder_or_manifest_is_no_bundle(tmp_path):
    """Both name the folder and say how a bundle is made."""
    for folder in (tmp_path / "none", tmp_path):
        with pytest.raises(BundleError, match=str(folder)) as caught:
            read_manifest(folder)
        assert "autocut export" in caught.value.hint


def test_a_sealed_manifest_with_a_wrong_field_is_told_by_its_name(bundle, claim):
    """The hash is right, the content is not."""
    claim.reseal(bundle, {**read_manifest(bundle).content, "seed": "seven"})

    with pytest.raises(BundleError, match=r"seed: .*got 'seven'"):
        read_manifest(bundle)


def test_extra_and_missing_files_are_refused(bundle):
    """A file that the manifest does not know could be anything."""
    manifest = read_manifest(bundle)
    (bundle / "model" / "extra.bin").write_bytes(b"x")
    with pytest.raises(VerificationError, match=r"extra\.bin"):
        check_files(bundle, manifest)

    (bundle / "model" / "extra.bin").unlink()
    (bundle / "README.md").unlink()
    with pytest.raises(VerificationError, match=r"README\.md"):
        check_files(bundle, manifest)


def test_a_link_is_refused(bundle):
    """A link could lead out of the bundle, and be another file tomorrow."""
    readme = bundle / "README.md"
    shutil.move(readme, bundle.parent / "elsewhere.md")
    readme.symlink_to(bundle.parent / "elsewhere.md")

    with pytest.raises(VerificationError, match="plain files"):
        check_files(bundle, read_manifest(bundle))


@pytest.mark.parametrize(
    "path", ["../x", "/etc/passwd", "model/../../x", "model//x", "./x", "", "C:\\x", "model\\..\\x", "a\x00b", "model/"]
)
def test_a_path_out_of_the_bundle_is_refused(path):
    """On any system, and in its one spelling only."""
    with pytest.raises(ValidationError, match="inside the bundle"):
        BundleFile(path=path, sha256="0" * 64, size_bytes=1)


def test_path_traversal_in_a_sealed_manifest_is_refused(bundle, claim):
    """A resealed manifest still cannot name a file elsewhere."""
    manifest = read_manifest(bundle)
    evil = manifest.files[0].model_copy(update={"path": "../../secret"})
    claim.rewrite(bundle, files=(*manifest.files, evil))

    with pytest.raises(BundleError, match="inside the bundle"):
        load(bundle)


def test_rendering_a_read_manifest_gives_the_same_bytes(made):
    """One spelling: floats to the last digit, keys in order."""
    assert render(read_manifest(made)) == (made / "manifest.json").read_text(encoding="utf-8")
