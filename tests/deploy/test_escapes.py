"""Nothing in a bundle leads out of it: no path, no link, no record of an archive, no file that a model names."""

from __future__ import annotations

import os
import shutil
import zipfile

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from autocut.deploy.bundle import load
from autocut.deploy.manifest import check_files, hash_files, read_manifest
from autocut.deploy.pickles import refuse_pickles
from autocut.errors import BundleError, VerificationError
from autocut.stages.archive import refuse_graphs
from autocut.stages.compile.onnxruntime import load_onnxruntime


@pytest.fixture
def secret(tmp_path):
    """A file of the user beside the bundle."""
    file = tmp_path / "secret.bin"
    file.write_bytes(np.arange(4, dtype=np.float32).tobytes())
    return file


def test_a_link_to_a_folder_is_refused(bundle, tmp_path):
    """The whole folder of the model may be one."""
    shutil.move(bundle / "model", tmp_path / "model")
    (bundle / "model").symlink_to(tmp_path / "model")

    with pytest.raises(VerificationError, match="plain files"):
        load(bundle)


def test_a_manifest_that_is_a_link_is_refused(bundle, tmp_path):
    """It would be another file tomorrow."""
    shutil.move(bundle / "manifest.json", tmp_path / "manifest.json")
    (bundle / "manifest.json").symlink_to(tmp_path / "manifest.json")

    with pytest.raises(BundleError, match=r"must hold manifest\.json"):
        load(bundle)


def test_a_pipe_is_refused_and_not_read(bundle):
    """To read it would wait for ever."""
    (bundle / "README.md").unlink()
    os.mkfifo(bundle / "README.md")

    with pytest.raises(VerificationError, match="plain files"):
        check_files(bundle, read_manifest(bundle))


def test_a_hard_link_counts_by_its_content(bundle, secret, tmp_path):
    """No system tells which of two names is the real one, and copies with hard links are usual. The hash decides."""
    readme = bundle / "README.md"
    os.link(readme, tmp_path / "copy.md")
    check_files(bundle, read_manifest(bundle))
    readme.unlink()
    os.link(secret, readme)

    with pytest.raises(VerificationError, match="SHA-256"):
        check_files(bundle, read_manifest(bundle))


@pytest.mark.parametrize(
    "record", ["../evil.so", "/etc/evil", "model/../../evil", "model//x", "model\\..\\..\\evil", "C:/evil", ".."]
)
def test_a_record_that_leads_out_of_its_archive_is_refused(tmp_path, record):
    """The loader of compiled packages unpacks them into a temporary folder."""
    with zipfile.ZipFile(tmp_path / "model.pt2", "w") as archive:
        archive.writestr("model/data/ok", b"1")
        archive.writestr(zipfile.ZipInfo("placeholder"), b"2")
        archive.filelist[-1].filename = archive.filelist[-1].orig_filename = record

    with pytest.raises(BundleError, match="must unpack into its own folder"):
        refuse_pickles(tmp_path)


@pytest.mark.parametrize("record", ["model/data/aotinductor/../evil.so", "model/data/aotinductor/model/.."])
def test_compiled_code_lies_in_the_folder_of_its_model(tmp_path, record):
    """The same is refused by torch's own reader, which sees the names without their first part."""
    path = tmp_path / "model.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        frame = {".data/version": b"3", "byteorder": b"little", "archive_format": b"pt2", "archive_version": b"0"}
        for name, content in ({f"model/{name}": content for name, content in frame.items()} | {record: b"code"}).items():
            archive.writestr(name, content)

    with pytest.raises(BundleError, match="must hold compiled code alone"):
        refuse_graphs(path)


@pytest.mark.parametrize("damage", ["password", "compression", "cut"])
def test_an_archive_that_cannot_be_read_is_told(tmp_path, damage):
    """Python's reader raises something else for each."""
    path = tmp_path / "model.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data", b"x" * 100)
    content = bytearray(path.read_bytes())
    central = content.index(b"PK\x01\x02")
    match damage:
        case "password":
            content[central + 8] |= 1
        case "compression":
            content[central + 10] = 77
        case _:
            content[:4] = b"cut!"
    path.write_bytes(content)

    with pytest.raises(BundleError, match="must be a whole archive without a password"):
        refuse_pickles(tmp_path)


def test_an_archive_that_unpacks_to_hours_of_work_is_refused(tmp_path):
    """Every record is read to its end, where a pickle has its mark: a file of a megabyte could take a terabyte to read."""
    path = tmp_path / "model.pt2"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model/data", bytes(65 * 2**20))

    with pytest.raises(BundleError, match="must unpack to at most 50 times its size"):
        refuse_pickles(tmp_path)


def test_a_model_may_keep_its_weights_beside_itself(tmp_path, secret):
    """What the next test refuses is the place, not the model."""
    onnx.save(_model_with_weights_in("secret.bin"), tmp_path / "model.onnx")

    load_onnxruntime(tmp_path, None, 1)


@pytest.mark.parametrize("way", ["..", "absolute", "link"])
def test_a_model_cannot_name_a_file_elsewhere_as_its_weights(tmp_path, secret, way):
    """ONNX keeps large weights in other files, and names them. ONNX Runtime refuses those outside of the model's folder."""
    folder = tmp_path / "model"
    folder.mkdir()
    location = {"..": "../secret.bin", "absolute": str(secret), "link": "weights.bin"}[way]
    if way == "link":
        (folder / location).symlink_to(secret)
    onnx.save(_model_with_weights_in(location), folder / "model.onnx")

    with pytest.raises(BundleError, match="must be a model for ONNX Runtime"):
        load_onnxruntime(folder, None, 1)


def test_the_files_of_a_model_are_named_by_the_manifest(bundle):
    """So that a runtime opens no file that was not checked."""
    manifest = read_manifest(bundle)
    assert hash_files(bundle) == manifest.files


def _model_with_weights_in(location):
    weights = helper.make_tensor("w", TensorProto.FLOAT, [4], np.zeros(4, np.float32).tobytes(), raw=True)
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": "0", "length": "16"}.items():
        entry = weights.external_data.add()
        entry.key, entry.value = key, value
    add = helper.make_node("Add", ["x", "w"], ["output"])
    shape = (
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [4]),
        helper.make_tensor_value_info("output", TensorProto.FLOAT, [4]),
    )
    graph = helper.make_graph([add], "g", [shape[0]], [shape[1]], [weights])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
