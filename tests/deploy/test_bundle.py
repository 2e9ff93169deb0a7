"""Writing is all or nothing, loading needs no user code and never unpickles."""

import errno
import io
import os
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from autocut.deploy import bundle as bundle_module
from autocut.deploy.bundle import Claims, load, write_bundle
from autocut.deploy.examples import ExampleCollector, collect_examples, read_examples, write_examples
from autocut.deploy.manifest import read_manifest
from autocut.deploy.pickles import refuse_pickles
from autocut.deploy.verify_process import find
from autocut.errors import BundleError
from autocut.recipe import Recipe
from autocut.task.batches import from_numpy


def claims_of(folder):
    """The claims that made the bundle in `folder`."""
    manifest = read_manifest(folder)
    return Claims(
        manifest.task, Recipe(manifest.recipe), manifest.measurement, manifest.values, manifest.verification.kind, manifest.metric,
        "another command", manifest.seed, manifest.trial, manifest.lineage,
    )  # fmt: skip


def test_a_loaded_bundle_gives_the_outputs_of_the_model_that_went_in(made):
    """To the last bit on the machine that wrote it."""
    deployed = load(made)

    for batch in read_examples(made / "examples.npz"):
        np.testing.assert_array_equal(deployed(batch.inputs).numpy(), batch.outputs)
    assert deployed.manifest.trial == 3
    assert "tiny" in repr(deployed)


def test_wrong_inputs_are_told_with_the_signature(made):
    """Dtype and number of dimensions, before the runtime says something stranger."""
    with pytest.raises(BundleError, match=r"input_0: float32 with 2 dimensions, got input_0: int64 with 1 dimension"):
        load(made)(torch.zeros(3, dtype=torch.int64))


def test_writing_the_same_bundle_again_leaves_it_alone(bundle):
    """The command that wrote it may differ; nothing else may."""
    before = (bundle / "manifest.json").read_bytes()
    examples = read_examples(bundle / "examples.npz")

    manifest = write_bundle(bundle / "model", bundle, claims_of(bundle), examples)

    assert (bundle / "manifest.json").read_bytes() == before
    assert manifest.created.command == "autocut export"
    assert [path.name for path in bundle.parent.iterdir()] == ["bundle"]


def test_a_folder_with_other_things_is_never_overwritten(bundle, tmp_path):
    """Not with another bundle either."""
    occupied = tmp_path / "occupied"
    occupied.mkdir()
    (occupied / "thesis.tex").write_text("years of work")
    examples = read_examples(bundle / "examples.npz")

    with pytest.raises(BundleError, match="other things"):
        write_bundle(bundle / "model", occupied, claims_of(bundle), examples)
    with pytest.raises(BundleError, match="another bundle"):
        write_bundle(bundle / "model", bundle, claims_of(bundle), examples[:1])
    assert [path.name for path in occupied.iterdir()] == ["thesis.tex"]


def test_a_full_disk_leaves_nothing_behind(made, tmp_path, monkeypatch):
    """And is told as what it is."""

    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(bundle_module, "write_examples", full)
    with pytest.raises(BundleError, match="No space left on device"):
        write_bundle(made / "model", tmp_path / "new" / "bundle", claims_of(made), read_examples(made / "examples.npz"))
    assert list((tmp_path / "new").iterdir()) == []


def test_a_claim_that_is_no_number_is_refused(made, tmp_path):
    """NaN is no JSON and no claim."""
    claims = claims_of(made)
    broken = Claims(claims.task, claims.recipe, claims.measurement, {"accuracy": float("nan")}, claims.kind, "accuracy", "c", 0)

    with pytest.raises(BundleError, match="finite"):
        write_bundle(made / "model", tmp_path / "bundle", broken, read_examples(made / "examples.npz"))


class Evil:
    """What a pickle can do."""

    def __reduce__(self):
        """Make a folder when loaded."""
        return os.mkdir, (os.environ["AUTOCUT_EVIL"],)


@pytest.fixture
def evil_folder(tmp_path, monkeypatch):
    """Exists after the test if a pickle was loaded."""
    monkeypatch.setenv("AUTOCUT_EVIL", str(tmp_path / "evil"))
    return tmp_path / "evil"


def torch_bytes(value):
    """What `torch.save` writes: an archive with a pickle in it."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("record", ["m/data/sample_inputs/model.pt", "m/data/weights/weight_0", "m/data/constants/opaque_obj_0"])
@pytest.mark.parametrize("dump", [pickle.dumps, torch_bytes])
def test_a_pickle_inside_an_archive_is_refused_unloaded(tmp_path, evil_folder, record, dump):
    """`torch.export.load` would run it: its restricted unpickler falls back to the unrestricted one."""
    with zipfile.ZipFile(tmp_path / "model.pt2", "w") as file:
        file.writestr(record, dump(Evil()))

    with pytest.raises(BundleError, match="no pickle"):
        refuse_pickles(tmp_path)
    assert not evil_folder.exists()


@pytest.mark.parametrize("name", ["model.pt", "model.pkl", "innocent.bin"])
def test_a_plain_pickle_is_refused_whatever_its_name(tmp_path, name):
    """By suffix and by content."""
    (tmp_path / name).write_bytes(pickle.dumps({"a": 1}))

    with pytest.raises(BundleError, match="no pickle"):
        refuse_pickles(tmp_path)


def test_examples_with_pickled_objects_are_refused(tmp_path, evil_folder):
    """`allow_pickle=False` on the way in."""
    np.savez(tmp_path / "examples.npz", **{"00000/targets": np.array([Evil()], dtype=object)})

    with pytest.raises(BundleError, match="verification examples"):
        read_examples(tmp_path / "examples.npz")
    assert not evil_folder.exists()


@pytest.mark.parametrize("form", ["tensor", "tuple", "dict"])
def test_examples_survive_the_file_in_every_form_of_inputs(tmp_path, form):
    """Batch by batch, so that a dynamic scale sees the batch that it saw before."""
    arrays = {"x": np.ones((5, 2), np.float32), "mask": np.ones((5, 1), np.int64)}
    inputs = {"tensor": torch.ones(5, 2), "tuple": (torch.ones(5, 2), torch.ones(5, 1)), "dict": from_numpy(arrays)}[form]
    examples = collect_examples(lambda given: torch.zeros(5, 3), [(inputs, torch.arange(5))])

    write_examples(tmp_path / "e.npz", examples)
    (read,) = read_examples(tmp_path / "e.npz")

    assert type(read.inputs) is type(inputs)
    torch.testing.assert_close(read.inputs, inputs)
    np.testing.assert_array_equal(read.targets, np.arange(5))
    np.testing.assert_array_equal(read.outputs, np.zeros((5, 3)))


def test_examples_keep_to_their_limits():
    """256 examples or 16 MiB, whichever comes first, and one example in any case."""
    batches = [(torch.zeros(100, 256), torch.zeros(100)) for _ in range(4)]

    def total(**limits):
        return sum(len(batch) for batch in collect_examples(lambda x: x[:, :1], batches, **limits))

    assert total() == 256
    assert total(max_examples=400) == 400
    assert total(max_bytes=50 * (256 * 4 + 8)) == 50
    assert total(max_bytes=10) == 1


def test_large_outputs_are_kept_in_part(tmp_path):
    """Every step-th value, so that an example of a language model fits. Shape, step and part survive the file."""
    outputs = torch.arange(4 * 100 * 300, dtype=torch.float32).reshape(4, 100, 300)
    batches = [(torch.zeros(4, 100, dtype=torch.int64), torch.zeros(4, 100, dtype=torch.int64))]

    examples = collect_examples(lambda given: outputs[: len(given)], batches, kind="language_modeling", max_bytes=64 * 10_000)
    write_examples(tmp_path / "e.npz", examples)
    (read,) = read_examples(tmp_path / "e.npz")

    assert read.shape == (4, 100, 300)
    assert read.step == 13  # 12 values would fit, and would leave out most columns of rows of 300
    assert len(read) == 4
    np.testing.assert_array_equal(read.outputs, outputs.numpy().reshape(4, -1)[:, ::13])
    np.testing.assert_array_equal(read.kept_part(outputs.numpy()), read.outputs)
    assert read.kept_part(outputs.numpy()[:, :50]).shape == (4, 50, 300)
    assert examples[0].scores.shape == (4,)


def test_one_pass_gives_the_bundles_examples_and_the_verifiers_replay():
    """The model is called once a batch, and once more for the part of a batch that the bundle keeps."""
    calls = []

    def model(inputs):
        calls.append(len(inputs))
        return inputs[:, :1]

    batches = [(torch.full((10, 4), float(index)), torch.zeros(10)) for index in range(4)]
    collector = ExampleCollector(model, max_examples=25, replay_bytes=31 * (4 * 4 + 4 + 4))
    for inputs, _ in collector.watch(batches):
        collector.predict(inputs)

    assert calls == [10, 10, 10, 5, 10]
    assert [len(batch) for batch in collector.own] == [10, 10, 5]
    assert [len(batch) for batch in collector.replay] == [10, 10, 10]
    assert all(own.outputs is replayed.outputs for own, replayed in zip(collector.own[:2], collector.replay, strict=False))


def test_the_readme_says_that_the_examples_are_real_data(made):
    """Someone may hand the folder on."""
    assert "48 examples of the test split with their targets" in (made / "README.md").read_text(encoding="utf-8")


def test_the_readme_tells_numbers_and_both_ways_to_run_it(made):
    """For someone who has the folder and nothing else."""
    text = (made / "README.md").read_text(encoding="utf-8")

    for expected in ("autocut.load('.'", "torch.export.load(", "p50 latency, batch 16", "autocut verify .", "seed 0"):
        assert expected in text


@pytest.mark.parametrize(
    ("dtype", "mode"), [("fp32", "eager"), ("fp32", "onnxruntime"), ("fp32", "openvino"), ("bf16", "openvino")]
)
def test_the_code_in_the_readme_runs_as_printed(new_bundle, monkeypatch, dtype, mode):
    """With autocut, and with the format's own runtime alone: both give the same, in the precision that was measured."""
    bundle = new_bundle(dtype=dtype, mode=mode)
    text = (bundle / "README.md").read_text(encoding="utf-8")
    monkeypatch.chdir(bundle)
    outputs = []
    for block in text.split("```python\n")[1:3]:
        names: dict = {}
        exec(block.partition("```")[0], names)
        outputs.append(torch.as_tensor(names["output"]))
        assert ("autocut" in names) == (len(outputs) == 1)

    assert outputs[0].shape == (1, 4)
    torch.testing.assert_close(outputs[0], outputs[1], rtol=0, atol=0)


def test_a_bundle_of_a_model_with_several_inputs_takes_a_dict(new_bundle_of_two_inputs):
    """The names are the ones of the manifest."""
    deployed = load(new_bundle_of_two_inputs)

    assert deployed({"x": torch.ones(3, 2), "y": torch.ones(3, 2)}).shape == (3, 2)
    assert deployed.manifest.structure == "dict"
    assert [signature.name for signature in deployed.manifest.inputs] == ["x", "y"]


class Sum(nn.Module):
    """Two named inputs."""

    def forward(self, x, y):
        """Weigh the second twice."""
        return x + 2 * y


@pytest.fixture
def new_bundle_of_two_inputs(made, tmp_path):
    """A bundle of `Sum`, with the claims of another one: nothing here measures."""
    from autocut.stages import lowering

    inputs = {"x": torch.randn(8, 2), "y": torch.randn(8, 2)}
    (tmp_path / "artifact").mkdir()
    lowering.lower(Sum().eval(), "fp32", "eager", [inputs], tmp_path / "artifact")
    examples = collect_examples(lowering.load(tmp_path / "artifact", "eager"), [(inputs, torch.zeros(8, dtype=torch.int64))])
    write_bundle(tmp_path / "artifact", tmp_path / "bundle", claims_of(made), examples)
    return Path(tmp_path / "bundle")


@pytest.fixture
def bundle_of_free_length(made, tmp_path):
    """A bundle of a layer over sequences (n, length, 4), with the claims of another one."""
    from autocut.stages import lowering

    data = [(torch.randn(16, length, 4), torch.zeros(16, length, dtype=torch.long)) for length in (7, 3, 9)]
    (tmp_path / "artifact").mkdir()
    dynamic = {"input_0": {1: "length"}}
    lowering.lower(nn.Linear(4, 3), "fp32", "eager", [data[0][0]], tmp_path / "artifact", dynamic=dynamic)
    examples = collect_examples(lowering.load(tmp_path / "artifact", "eager"), data)
    claims = replace(claims_of(made), kind=None, timed_sizes={1: {"length": 5}, 16: {"length": 8}})
    write_bundle(tmp_path / "artifact", tmp_path / "bundle", claims, examples)
    return tmp_path / "bundle"


def test_a_bundle_says_which_dimensions_are_free(bundle_of_free_length):
    """In its manifest, its README and from Python; and its latency belongs to the lengths that it names."""
    deployed, text = load(bundle_of_free_length), (bundle_of_free_length / "README.md").read_text()

    assert [signature.shape for signature in deployed.manifest.inputs] == [(None, "length", 4)]
    assert deployed.manifest.output.shape == (None, "length", 3)
    assert deployed.free_dimensions == {"input_0": ("length",)}
    assert deployed.manifest.timed_sizes == {1: {"length": 5}, 16: {"length": 8}}
    assert "`length` (latency is that of a median length: batch 1 at length 5; batch 16 at length 8)" in text
    assert "torch.zeros((1, 5, 4), dtype=torch.float32)" in text
    assert deployed(torch.randn(2, 11, 4)).shape == (2, 11, 3)


def test_a_bundle_of_free_length_is_replayed_batch_by_batch(bundle_of_free_length):
    """Batches differ in length, and the latency is looked for at the claimed one."""
    findings = find(bundle_of_free_length, None, 0.5)

    assert findings.failure is None
    assert findings.output_deviation == 0
    assert [latency.batch_size for latency in findings.latencies] == [1, 16]


def test_a_manifest_without_free_dimensions_does_not_name_them(made):
    """Older versions read it, and older bundles keep their hash."""
    assert "timed_sizes" not in (made / "manifest.json").read_text()
