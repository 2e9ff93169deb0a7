"""An archive that would run code while it is read is refused before torch sees it."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from autocut.errors import BundleError
from autocut.stages.archive import read_archive, refuse_graphs
from autocut.stages.graph import Signature, export_model, save_graph


class Malicious:
    """Creates a file when it is unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        """What a pickle runs on loading."""
        return Path.touch, (self.proof,)


@pytest.fixture
def archive(tmp_path: Path, tiny_mlp: nn.Module) -> Path:
    """A saved graph."""
    inputs = torch.randn(4, 8)
    save_graph(export_model(tiny_mlp, inputs), Signature.of(inputs), tmp_path)
    return tmp_path / "graph.pt2"


def rewrite(path: Path, change: dict[str, bytes]) -> None:
    """Replace or add records of an archive."""
    with zipfile.ZipFile(path) as source:
        records = {name: source.read(name) for name in source.namelist()}
    root = next(iter(records)).partition("/")[0]
    records |= {f"{root}/{name}": payload for name, payload in change.items()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as target:
        for name, payload in records.items():
            target.writestr(name, payload)


def torch_pickle(proof: Path) -> bytes:
    """A malicious object in the form that torch.load reads."""
    buffer = io.BytesIO()
    torch.save((Malicious(proof),), buffer)
    return buffer.getvalue()


def test_saved_graph_is_read_back(archive: Path, tiny_mlp: nn.Module):
    """The refusal does not refuse what autocut itself writes."""
    inputs = torch.randn(5, 8)

    torch.testing.assert_close(read_archive(archive).module()(inputs), tiny_mlp(inputs))


@pytest.mark.parametrize(
    "record", ["data/sample_inputs/model.pt", "data/weights/model.pt", "data/constants/model.pt", "extra/x.pkl"]
)
def test_pickled_record_is_refused_and_not_run(archive: Path, tmp_path: Path, record: str):
    """torch.export.load falls back to unrestricted pickle for each of these."""
    proof = tmp_path / "ran"
    rewrite(archive, {record: torch_pickle(proof)})

    with pytest.raises(BundleError, match="must hold"):
        read_archive(archive)
    assert not proof.exists()


@pytest.mark.parametrize(
    ("record", "use_pickle"), [("custom_obj_0", True), ("opaque_obj_0", True), ("tensor_0", True), ("opaque_obj_0", False)]
)
def test_pickled_constant_is_refused_and_not_run(archive: Path, tmp_path: Path, record: str, use_pickle: bool):
    """A constant may be declared a pickle in the archive's own index."""
    proof = tmp_path / "ran"
    index = {"config": {"c": {"path_name": record, "is_param": False, "use_pickle": use_pickle, "tensor_meta": None}}}
    payload = pickle.dumps(Malicious(proof))
    rewrite(
        archive, {"data/constants/model_constants_config.json": json.dumps(index).encode(), f"data/constants/{record}": payload}
    )

    with pytest.raises(BundleError, match="must hold"):
        read_archive(archive)
    assert not proof.exists()


def test_older_format_with_a_pickle_is_refused_and_not_run(tmp_path: Path):
    """torch.export.load falls back to a format of pickles when the new one cannot be read."""
    proof, path = tmp_path / "ran", tmp_path / "graph.pt2"
    with zipfile.ZipFile(path, "w") as target:
        target.writestr("version", "8.7")
        for name in (
            "serialized_exported_program.json",
            "serialized_state_dict.pt",
            "serialized_constants.pt",
            "serialized_example_inputs.pt",
        ):
            target.writestr(name, torch_pickle(proof))

    with pytest.raises(BundleError):
        read_archive(path)
    assert not proof.exists()


@pytest.mark.parametrize("payload", [b"", b"not an archive"])
def test_damaged_archive_is_told_as_one(tmp_path: Path, payload: bytes):
    """A cut-off file is the user's to replace, not a traceback."""
    path = tmp_path / "graph.pt2"
    path.write_bytes(payload)

    with pytest.raises(BundleError, match="must be a whole exported graph"):
        read_archive(path)
    with pytest.raises(BundleError, match="must be a whole package"):
        refuse_graphs(path)


def test_graph_does_not_pass_for_compiled_code(archive: Path):
    """Torch's loader of packages reads graphs beside the code, pickles included."""
    with pytest.raises(BundleError, match="compiled code alone"):
        refuse_graphs(archive)
