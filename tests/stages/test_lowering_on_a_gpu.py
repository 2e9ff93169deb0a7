"""Lowerings for a GPU: the graph is the CPU's, it is moved when it is loaded, and where there is no GPU each has its reason."""

import pytest
import torch
from torch import nn

from autocut.errors import InfeasibleRecipeError, InputError
from autocut.stages import lowering
from autocut.stages.compile import CompileJob, aot_inductor_cuda, cuda_modes, mode_names, modes, torch_compile_cuda
from autocut.stages.device import CPU, Device
from autocut.stages.graph import Signature
from autocut.stages.methods import known_methods, pair_rows
from tests import second_device

SECOND, CUDA = Device(second_device.KIND), Device("cuda")
without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


class Net(nn.Module):
    """A convolution, a normalization, linear layers, and a tensor that `forward` makes by itself."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Linear(8, 4)

    def forward(self, images):
        """Class scores."""
        return self.head(self.features(images).mean((2, 3))) + torch.arange(4, device=images.device)


@pytest.fixture
def network():
    """A network that two lowerings must agree on."""
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture
def images():
    """A batch of calibration inputs."""
    return torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_a_graph_of_the_cpu_answers_on_another_device_as_on_its_own(dtype, network, images, tmp_path, monkeypatch):
    """To the last bit here. The answer lies where the inputs lie, so who has them on the CPU sees no difference."""
    second_device.serve(monkeypatch)
    lowering.lower(network, dtype, "eager", [images], tmp_path, device=SECOND)
    here, there = lowering.load(tmp_path, "eager"), lowering.load(tmp_path, "eager", device=SECOND)

    torch.testing.assert_close(there(images), here(images), rtol=0, atol=0)
    answer = there(SECOND.move(images))
    assert answer.device.type == second_device.KIND
    torch.testing.assert_close(answer.cpu(), here(images), rtol=0, atol=0)


def test_two_devices_have_other_keys_and_no_key_of_the_cpu_has_changed(monkeypatch):
    """`tests/pipeline/test_stage_keys.py` has the keys of the CPU."""
    second_device.serve(monkeypatch)

    assert lowering.method_versions("fp32", "eager", SECOND) == f"{lowering.method_versions('fp32', 'eager')}, on madeup"
    assert lowering.numerics("fp32", "eager", SECOND) == f"{lowering.numerics('fp32', 'eager')}, on madeup"


@without_gpu
def test_no_pair_runs_on_a_gpu_that_is_not_there():
    """It is told before anything is compiled, with what is missing."""
    rows = pair_rows("cuda")

    assert {row.mode for row in rows} == set(cuda_modes.names())
    assert all("CPU build" in row.reason or "torch finds no GPU here" in row.reason for row in rows)
    with pytest.raises(InfeasibleRecipeError, match="bf16 with aot_inductor cannot run: "):
        lowering.require_feasible("bf16", "aot_inductor", CUDA)


@without_gpu
def test_an_artifact_for_a_gpu_is_not_loaded_without_one(network, images, tmp_path):
    """The files are a graph, which the CPU could run: but it would not be what was measured."""
    lowering.lower(network, "fp32", "eager", [images], tmp_path)
    with pytest.raises(InputError, match="device must be one that this process can open, got cuda"):
        lowering.load(tmp_path, "eager", device=CUDA)


def test_a_mode_of_another_device_has_a_reason():
    """A space may name modes of both: the search leaves out what does not run where it serves."""
    only_there = "torch_compile_reduce_overhead"

    assert lowering.infeasible_reason("fp32", only_there) == f"{only_there} runs on cuda, not on cpu"
    assert lowering.infeasible_reason("fp32", "openvino", CUDA) == "openvino runs on cpu, not on cuda"
    assert lowering.elsewhere_reason("eager", CPU) is None
    assert set(known_methods()["compile.mode"]) == set(mode_names()) == {*modes.names(), *cuda_modes.names()}


def test_a_dtype_without_a_kernel_for_gpus_says_so(monkeypatch):
    """Its file has to say that there is one."""
    second_device.serve(monkeypatch)

    assert lowering.infeasible_reason("int4_weight_only", "eager", SECOND) == "autocut has no kernel of this dtype for madeup"
    assert lowering.infeasible_reason("bf16", "eager", SECOND) is None


def test_machine_code_is_for_one_kind_of_gpu_and_a_graph_for_all():
    """A bundle of the first is refused elsewhere."""
    assert [mode for mode in cuda_modes.names() if lowering.is_compiled_ahead(mode, CUDA)] == ["aot_inductor"]


@pytest.mark.slow
@pytest.mark.parametrize("mode", [name for name in cuda_modes.names() if name != "eager"])
def test_what_compiles_for_a_gpu_would_compile_for_the_cpu_too(mode, network, images, tmp_path, monkeypatch):
    """All of a mode but its kernels: the files, the sizes, the calls until a graph is recorded, answers that nobody overwrites."""
    for module in (aot_inductor_cuda, torch_compile_cuda):
        monkeypatch.setattr(module, "_CUDA", CPU)
    graph, folder = tmp_path / "graph", tmp_path / "artifact"
    for made in (graph, folder):
        made.mkdir()
    lowering.lower_graph(network, "fp32", [images], graph)
    method = cuda_modes.method(mode)
    signature = method.function(CompileJob(graph, Signature.read(graph), "fp32", [images], (2, 4)), folder)
    run = method.options.load(folder, signature, 1)

    assert signature.batch_sizes == (2, 4)
    for size in (2, 4):
        torch.testing.assert_close(run(images[:size]), network(images[:size]), rtol=1e-4, atol=1e-4)
    first, _ = run(images[:4]), run(images[4:])
    torch.testing.assert_close(first, network(images[:4]), rtol=1e-4, atol=1e-4)
