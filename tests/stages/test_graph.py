"""The file that says how a model is called may come from a stranger: it is checked before anything is done by it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from autocut.errors import BundleError
from autocut.stages.graph import SIGNATURE_FILE, Signature

SOUND = Signature(
    "dict",
    ("ids", "mask"),
    ((None, "length"), (None, "length", 3)),
    ("int64", "float32"),
    (1, 32),
    limits={"length": (1, None)},
    output=(None, "2*length"),
)


@pytest.mark.parametrize("signature", [SOUND, Signature.of(torch.zeros(2, 8)), Signature.of((torch.zeros(2, 8), torch.zeros(2)))])
def test_a_signature_survives_its_file(tmp_path: Path, signature: Signature):
    """In every form of inputs."""
    signature.write(tmp_path)

    assert Signature.read(tmp_path) == signature


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("form", "list"),
        ("form", "tensor"),
        ("names", "ab"),
        ("names", ["ids", "ids"]),
        ("names", ["ids"]),
        ("shapes", [[None, 8], [2, 8]]),
        ("shapes", [[None, 8], [None, -1]]),
        ("shapes", [[None, "length"], []]),
        ("dtypes", ["int64", "load"]),
        ("dtypes", ["int64", 3]),
        ("batch_sizes", []),
        ("batch_sizes", [0]),
        ("batch_sizes", [32, 1]),
        ("batch_sizes", ["/../../../tmp/package"]),
        ("limits", {"height": [1, 2]}),
        ("limits", {"length": [0, 2]}),
        ("output", [3]),
    ],
)
def test_a_signature_that_does_not_fit_together_is_refused(tmp_path: Path, field: str, value: Any):
    """Batch sizes name files, shapes and dtypes the memory that machine code reads."""
    SOUND.write(tmp_path)
    file = tmp_path / SIGNATURE_FILE
    file.write_text(json.dumps({**json.loads(file.read_text()), field: value}))

    with pytest.raises(BundleError, match="must be a readable signature"):
        Signature.read(tmp_path)
