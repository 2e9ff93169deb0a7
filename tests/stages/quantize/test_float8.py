"""Float8: what is stored, what the kernel of a GPU asks for, and why the CPU does not serve it."""

import pytest
import torch
from torch import nn

from autocut.errors import InfeasibleRecipeError
from autocut.stages import lowering
from autocut.stages.device import Device
from autocut.stages.graph import export_model
from autocut.stages.quantize import quantizers

quantize = quantizers["float8_dynamic"]


@pytest.fixture
def network():
    """Widths that are no multiples of 16, and one layer that is used twice."""
    torch.manual_seed(0)
    shared = nn.Linear(40, 40)
    return nn.Sequential(nn.Linear(24, 40), nn.ReLU(), shared, nn.ReLU(), shared, nn.Linear(40, 10)).eval()


def test_weights_are_stored_once_in_float8_and_padded_for_the_kernel(network):
    """Its products take multiples of 16. Biases are bfloat16; nothing else is left of the float weights."""
    state = export_model(quantize(network, [torch.randn(8, 24)]), torch.randn(8, 24)).state_dict
    stored = sorted((str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape)) for tensor in state.values())

    assert stored == [
        *[("bfloat16", (10,)), ("bfloat16", (40,)), ("bfloat16", (40,))],
        *[("float32", ()) for _ in range(3)],
        *[("float8_e4m3fn", (16, 48)), ("float8_e4m3fn", (48, 32)), ("float8_e4m3fn", (48, 48))],
    ]


def test_answers_keep_their_form_at_every_batch_size(network):
    """Of inputs with more dimensions too, and of zeros, which have no range."""
    inputs = torch.randn(4, 6, 24)
    served = export_model(quantize(network, [inputs]), inputs).module()

    with torch.no_grad():
        for size in (4, 1):
            similarity = torch.cosine_similarity(served(inputs[:size]).flatten(), network(inputs[:size]).flatten(), dim=0)
            assert similarity > 0.99
        torch.testing.assert_close(served(torch.zeros(2, 6, 24)), network(torch.zeros(2, 6, 24)), rtol=0.1, atol=0.02)


def test_a_model_without_linear_layers_is_infeasible():
    """It would be a model in bf16 under another name."""
    with pytest.raises(InfeasibleRecipeError, match=r"float8_dynamic must change at least one nn\.Linear") as caught:
        quantize(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten()).eval(), [torch.randn(4, 1, 8, 8)])

    assert caught.value.hint == "use bf16"


def test_the_cpu_and_older_gpus_have_no_products_of_it(monkeypatch):
    """They are told apart by their compute capability."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "NVIDIA A100")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (8, 0))
    told = "NVIDIA A100 has compute capability 8.0, float8 products from 8.9 on"

    assert lowering.infeasible_reason("float8_dynamic", "eager") == "CPUs have no float8 instructions and only simulate them"
    assert lowering.infeasible_reason("float8_dynamic", "eager", Device("cuda")) == told
    assert lowering.infeasible_reason("bf16", "eager", Device("cuda")) is None
