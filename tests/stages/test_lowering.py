"""Every feasible pair of dtype and mode is saved, loaded without code and answers like the float model."""

from __future__ import annotations

import copy
import zipfile
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn
from torch._inductor import config as inductor_config

from autocut.errors import BundleError, CompilerError, InfeasibleRecipeError, UnknownNameError
from autocut.stages import compilers, lowering, processor
from autocut.stages.compile import aot_inductor, modes
from autocut.stages.graph import SIGNATURE_FILE, Signature
from autocut.task.batches import Inputs

COMPILED = ("torch_compile", "torch_compile_max_autotune", "aot_inductor")
FEASIBLE = [pair for pair in lowering.pairs() if lowering.infeasible_reason(*pair) is None]
CONVERTED = [pair for pair in FEASIBLE if lowering.converts(pair[1])]
PAIRS = [pytest.param(*pair, marks=pytest.mark.slow if pair[1] in COMPILED else ()) for pair in FEASIBLE]


@pytest.fixture(autouse=True)
def _own_compile_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled code of the tests stays out of the user's cache, and is shared between them."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "inductor"))


@pytest.mark.parametrize("network", ["mlp", "cnn"])
@pytest.mark.parametrize(("dtype", "mode"), PAIRS)
def test_artifact_answers_like_the_float_model(dtype: str, mode: str, network: str, tmp_path: Path, request: pytest.FixtureRequest):
    """One batch, an odd one, a serving batch and one in pieces: all come back in order and close to the float model's answer."""
    model, inputs = request.getfixturevalue(f"tiny_{network}"), request.getfixturevalue(f"{network}_inputs")
    before = copy.deepcopy(model.state_dict())

    lowering.lower(model, dtype, mode, [inputs], tmp_path)
    predict = lowering.load(tmp_path, mode)

    assert {*tmp_path.iterdir()} == {tmp_path / SIGNATURE_FILE, *tmp_path.glob(modes.method(mode).options.files)}
    for size in (1, 5, 32, 70):
        batch = inputs[torch.randint(len(inputs), (size,))]
        answer = predict(batch)
        assert answer.shape == (size, 3)
        assert torch.cosine_similarity(answer, model(batch)).min() > 0.97
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", sorted({dtype for dtype, _ in FEASIBLE}))
@pytest.mark.slow
def test_pairs_of_one_numerics_give_one_answer(dtype: str, tiny_cnn: nn.Module, cnn_inputs: Tensor, tmp_path: Path):
    """Their accuracy is measured once, so their answers must not differ by more than rounding."""
    answers: dict[str, list[Tensor]] = {}
    for mode in [mode for other, mode in FEASIBLE if other == dtype]:
        folder = tmp_path / mode
        folder.mkdir()
        lowering.lower(tiny_cnn, dtype, mode, [cnn_inputs], folder)
        answers.setdefault(lowering.numerics(dtype, mode), []).append(lowering.load(folder, mode)(cnn_inputs))

    for first, *others in answers.values():
        for other in others:
            assert torch.cosine_similarity(first, other).min() > 0.999


@pytest.mark.parametrize(("dtype", "mode"), CONVERTED)
def test_what_a_mode_makes_of_a_graph_serves_again(dtype: str, mode: str, tiny_cnn: nn.Module, cnn_inputs: Tensor, tmp_path: Path):
    """It gives what the model itself would give, as often as it is used: nothing in it is moved or changed."""
    graph, start, alone, *others = (tmp_path / name for name in ("graph", "start", "alone", "first", "second"))
    for folder in (graph, start, alone, *others):
        folder.mkdir()
    lowering.lower_graph(tiny_cnn, lowering.graph_dtype(dtype, mode), [cnn_inputs], graph)
    lowering.convert_graph(graph, mode, start)
    before = {path.name: path.read_bytes() for path in start.iterdir()}

    lowering.lower(tiny_cnn, dtype, mode, [cnn_inputs], alone)
    expected = lowering.load(alone, mode)(cnn_inputs)
    for folder in others:
        lowering.compile_graph(start, dtype, mode, [cnn_inputs], folder)
        torch.testing.assert_close(lowering.load(folder, mode)(cnn_inputs), expected, rtol=0, atol=0)

    assert {path.name: path.read_bytes() for path in start.iterdir()} == before


def test_graph_is_quantized_once_for_all_modes_that_start_from_it(tiny_mlp: nn.Module, mlp_inputs: Tensor, tmp_path: Path):
    """A mode that is given the graph does not read the model again."""
    graph, artifact = tmp_path / "graph", tmp_path / "artifact"
    graph.mkdir()
    artifact.mkdir()
    lowering.lower_graph(tiny_mlp, lowering.graph_dtype("int8_dynamic", "onnxruntime"), [mlp_inputs], graph)

    lowering.lower(nn.Identity(), "int8_dynamic", "onnxruntime", [mlp_inputs], artifact, graph=graph)

    assert torch.cosine_similarity(lowering.load(artifact, "onnxruntime")(mlp_inputs), tiny_mlp(mlp_inputs)).min() > 0.97


def test_ahead_of_time_code_runs(tiny_mlp: nn.Module, mlp_inputs: Tensor, tmp_path: Path):
    """The one compilation in the default suite."""
    if reason := lowering.infeasible_reason("fp32", "aot_inductor"):
        pytest.skip(reason)
    # Headers compiled beforehand pay off from the second compilation on.
    with inductor_config.patch({"cpp_cache_precompile_headers": False, "aot_inductor.precompile_headers": False}):
        lowering.lower(tiny_mlp, "fp32", "aot_inductor", [mlp_inputs], tmp_path)

    torch.testing.assert_close(lowering.load(tmp_path, "aot_inductor")(mlp_inputs), tiny_mlp(mlp_inputs), rtol=1e-4, atol=1e-5)


def test_a_package_keeps_the_names_of_its_sources_and_not_what_they_say(tmp_path: Path):
    """By the name of the source, torch 2.12 finds the metadata, without which it loads no package."""
    written = {"model/data/aotinductor/model/c.wrapper.cpp": b"code" * 1000, "model/data/aotinductor/model/c.json": b"{}"}
    with zipfile.ZipFile(tmp_path / "model.pt2", "w") as package:
        for name, content in written.items():
            package.writestr(name, content)

    aot_inductor._slim(tmp_path / "model.pt2")

    with zipfile.ZipFile(tmp_path / "model.pt2") as package:
        assert [(record.filename, record.file_size) for record in package.infolist()] == list(zip(written, (0, 2), strict=True))


@pytest.mark.parametrize("mode", ["eager", "onnxruntime"])
@pytest.mark.parametrize("form", ["tuple", "dict"])
def test_inputs_keep_their_form(form: str, mode: str, tmp_path: Path):
    """A model of several inputs is called as the task calls it; a dict may come in any order."""

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 3)

        def forward(self, features: Tensor, scale: Tensor) -> dict[str, Tensor]:
            return {"logits": self.linear(features) * scale}

    model = Scaled().eval()
    features, scale = torch.randn(6, 8), torch.rand(6, 1)
    given: Inputs = (features, scale) if form == "tuple" else {"features": features, "scale": scale}
    later: Inputs = given if form == "tuple" else {"scale": scale, "features": features}

    lowering.lower(model, "fp32", mode, [given], tmp_path)

    torch.testing.assert_close(lowering.load(tmp_path, mode)(later), model(features, scale)["logits"], rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_compiled_model_is_not_compiled_again(tiny_cnn: nn.Module, cnn_inputs: Tensor, tmp_path: Path):
    """A second compilation would stop production for seconds, and would not freeze the weights."""
    lowering.lower(tiny_cnn, "fp32", "torch_compile", [cnn_inputs], tmp_path)
    predict = lowering.load(tmp_path, "torch_compile")
    with torch.inference_mode():
        inference_tensor = torch.randn(5, 1, 8, 8)

    with torch._dynamo.config.patch(error_on_recompile=True):
        for batch in (
            cnn_inputs[:1],
            cnn_inputs,
            torch.randn(40, 1, 8, 8),
            torch.randn(32, 8, 8, 1).permute(0, 3, 1, 2),
            inference_tensor,
        ):
            predict(batch)
        with torch.inference_mode():
            predict(cnn_inputs)


@pytest.mark.parametrize("mode", ["eager", "onnxruntime"])
def test_inputs_of_any_layout_are_taken(mode: str, tiny_cnn: nn.Module, cnn_inputs: Tensor, tmp_path: Path):
    """A view is copied where the runtime would read its memory as if it were contiguous."""
    lowering.lower(tiny_cnn, "fp32", mode, [cnn_inputs], tmp_path)
    view = torch.randn(6, 8, 8, 1).permute(0, 3, 2, 1)

    torch.testing.assert_close(lowering.load(tmp_path, mode)(view), tiny_cnn(view), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("wrong", [torch.randn(2, 9), torch.randn(8), torch.randn(2, 8, dtype=torch.float64)])
def test_input_of_another_shape_or_dtype_is_refused(wrong: Tensor, tiny_mlp: nn.Module, mlp_inputs: Tensor, tmp_path: Path):
    """Machine code would read past the end of it."""
    lowering.lower(tiny_mlp, "fp32", "eager", [mlp_inputs], tmp_path)

    with pytest.raises(ValueError, match=r"input_0 must be float32 of shape \(n, 8\)"):
        lowering.load(tmp_path, "eager")(wrong)


def test_missing_input_is_named(tiny_mlp: nn.Module, mlp_inputs: Tensor, tmp_path: Path):
    """The caller sees which inputs the model takes."""
    lowering.lower(tiny_mlp, "fp32", "eager", [mlp_inputs], tmp_path)

    with pytest.raises(ValueError, match="takes the inputs input_0, got pixels"):
        lowering.load(tmp_path, "eager")({"pixels": mlp_inputs})


def test_calibration_of_one_example_still_serves_batches(tiny_mlp: nn.Module, tmp_path: Path):
    """Torch takes a batch of 1 for a constant, so the export example is never one."""
    lowering.lower(tiny_mlp, "fp32", "eager", [torch.randn(1, 8)], tmp_path)

    assert lowering.load(tmp_path, "eager")(torch.randn(7, 8)).shape == (7, 3)


@pytest.mark.parametrize(("dtype", "mode"), [pair for pair in lowering.pairs() if pair not in FEASIBLE])
def test_infeasible_pair_says_why(dtype: str, mode: str, tiny_mlp: nn.Module, mlp_inputs: Tensor, tmp_path: Path):
    """A pair without a kernel is refused before any work, with its reason."""
    reason = lowering.infeasible_reason(dtype, mode)

    with pytest.raises(InfeasibleRecipeError) as raised:
        lowering.lower(tiny_mlp, dtype, mode, [mlp_inputs], tmp_path)
    assert reason is not None
    assert reason in str(raised.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("mode", COMPILED)
def test_machine_without_a_compiler_says_what_to_install(mode: str, monkeypatch: pytest.MonkeyPatch):
    """Inductor writes C++."""
    monkeypatch.setattr(compilers.shutil, "which", lambda name: None)
    compilers.missing_compiler.cache_clear()
    try:
        assert "install g++" in str(lowering.infeasible_reason("fp32", mode))
    finally:
        compilers.missing_compiler.cache_clear()


def test_int8_by_its_own_runtime_counts_as_its_own_numerics():
    """ONNX Runtime quantizes by itself; only its float model computes what torch computes."""
    assert lowering.numerics("fp32", "onnxruntime") == lowering.numerics("fp32", "eager")
    assert lowering.numerics("int8_static", "onnxruntime") != lowering.numerics("int8_static", "aot_inductor")
    assert lowering.numerics("int8_static", "torch_compile") == lowering.numerics("int8_static", "aot_inductor")


@pytest.mark.parametrize("mode", ["torch_compile", "aot_inductor", "onnxruntime"])
def test_static_int8_of_a_machine_without_vnni_counts_as_another(mode: str, monkeypatch: pytest.MonkeyPatch):
    """Its numbers are kept to 7 bits: neither accuracy nor files may be shared with a machine that uses 8."""
    told = []
    for supported in (True, False):
        monkeypatch.setattr(processor, "sums_int8_in_32_bits", lambda supported=supported: supported)
        told.append((lowering.numerics("int8_static", mode), lowering.method_versions("int8_static", mode)))

    (numerics, versions), (others_numerics, others_versions) = told
    assert numerics != others_numerics
    assert versions != others_versions


def test_the_key_of_a_quantized_graph_tells_vnni(monkeypatch: pytest.MonkeyPatch):
    """The pipeline names a graph by its pair with eager, which is infeasible itself."""
    monkeypatch.setattr(processor, "sums_int8_in_32_bits", lambda: True)
    with_vnni = lowering.method_versions("int8_static", "eager"), lowering.method_versions("fp32", "eager")
    monkeypatch.setattr(processor, "sums_int8_in_32_bits", lambda: False)

    assert lowering.method_versions("int8_static", "eager") != with_vnni[0]
    assert lowering.method_versions("fp32", "eager") == with_vnni[1]


def test_machine_code_names_its_instruction_sets(monkeypatch: pytest.MonkeyPatch):
    """Two machines of one torch capability (AVX512) may differ in what the compiler used."""
    monkeypatch.setattr(aot_inductor, "missing_compiler", lambda python_headers: None)
    here = lowering.method_versions("fp32", "aot_inductor")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_f": True, "amx_tile": False})
    processor.instruction_sets.cache_clear()
    try:
        there = lowering.method_versions("fp32", "aot_inductor")
    finally:
        processor.instruction_sets.cache_clear()

    assert here != there
    assert "avx512_f" in there
    assert "amx" not in there


@pytest.mark.parametrize(("dtype", "mode"), lowering.pairs())
def test_every_pair_names_its_numerics(dtype: str, mode: str):
    """Feasible or not: a list of all pairs need not ask first."""
    assert lowering.numerics(dtype, mode).startswith(dtype)


def test_unknown_name_gets_the_nearest_one():
    """A misspelt mode is never replaced by a default."""
    with pytest.raises(UnknownNameError) as raised:
        lowering.infeasible_reason("fp32", "onnxruntim")
    assert raised.value.hint == "did you mean 'onnxruntime'?"


@pytest.mark.parametrize("dtype", ["int8_dynamic", "int8_static"])
def test_onnxruntime_refuses_a_dtype_that_changes_nothing(dtype: str, tmp_path: Path):
    """Its quantizers, too, would return the model as it was."""
    model = nn.Sequential(nn.Flatten(), nn.Softmax(1))

    with pytest.raises(InfeasibleRecipeError, match="must change at least one layer"):
        lowering.lower(model, dtype, "onnxruntime", [torch.randn(4, 8)], tmp_path)


def test_model_that_no_exporter_takes_ends_one_trial(tmp_path: Path):
    """The first line of the library's message is the reason."""

    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.reshape(4, 2, 4).sum(1)

    with pytest.raises(CompilerError, match=r"torch\.export failed"):
        lowering.lower(Fixed(), "fp32", "eager", [torch.randn(4, 8)], tmp_path)


@pytest.mark.parametrize("mode", ["eager", "onnxruntime", "aot_inductor"])
def test_folder_without_its_model_is_told(mode: str, tmp_path: Path):
    """A damaged bundle is the user's to replace, not a traceback."""
    Signature.of(torch.randn(2, 8)).write(tmp_path)

    with pytest.raises(BundleError):
        lowering.load(tmp_path, mode)


@pytest.mark.parametrize(("dtype", "mode"), [("fp32", "eager"), ("fp32", "onnxruntime"), ("int8_dynamic", "onnxruntime")])
def test_an_artifact_does_not_say_where_its_source_was(
    dtype: str, mode: str, tiny_mlp: nn.Module, mlp_inputs: Tensor, tmp_path: Path
) -> None:
    """Exporters note file and line of every operation: half of a small file, and none of its user's business."""
    lowering.lower(tiny_mlp, dtype, mode, [mlp_inputs], tmp_path)
    written = b"".join(_content(path) for path in tmp_path.iterdir())

    assert b"stack_trace" not in written
    assert b'File "' not in written
    assert str(Path(torch.__file__).parent).encode() not in written


def test_a_float_onnx_graph_leaves_inner_shapes_to_its_reader(tiny_mlp: nn.Module, mlp_inputs: Tensor, tmp_path: Path) -> None:
    """The exporter's own stand in the way of some versions' dynamic quantizer (1.30: "existing shape differ")."""
    lowering.lower(tiny_mlp, "fp32", "onnxruntime", [mlp_inputs], tmp_path)
    graph = onnx.load(next(tmp_path.glob("*.onnx"))).graph

    assert len(graph.node) > 1
    assert not graph.value_info


def _content(path: Path) -> bytes:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return b"".join(archive.read(name) for name in archive.namelist())
    return path.read_bytes()
