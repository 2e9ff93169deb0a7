"""What a model is called with, in its three forms."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from autocut.task.batches import batch_length, call, from_numpy, pad, take, tensor_bytes, tensor_identity, to_numpy

FORMS = {
    "tensor": torch.arange(6.0).reshape(3, 2),
    "tuple": (torch.arange(3), torch.arange(6.0).reshape(3, 2)),
    "dict": {"ids": torch.arange(3), "mask": torch.ones(3, 2, dtype=torch.bool)},
}


class Scaled(nn.Module):
    """Takes two arguments by name or by position and answers like a transformers model."""

    def forward(self, ids, mask):
        """(n,), (n, 2) -> (n, 2)."""
        return {"loss": None, "logits": ids[:, None] * mask}


@pytest.fixture(params=FORMS, name="inputs")
def _inputs(request):
    """Each form, three examples."""
    return FORMS[request.param]


def test_a_model_is_called_the_way_its_inputs_ask_for():
    """A tuple is spread over positions, a dict over names, and logits are found in the answer."""
    ids, mask = torch.arange(3), torch.ones(3, 2)

    assert torch.equal(call(nn.Identity(), mask), mask)
    assert torch.equal(call(Scaled(), (ids, mask)), call(Scaled(), {"mask": mask, "ids": ids}))


def test_length_counts_examples(inputs):
    """The first dimension is the batch in every form."""
    assert batch_length(inputs) == 3
    assert batch_length(take(inputs, 2)) == 2
    assert batch_length(take(inputs, 9)) == 3


def test_padding_repeats_real_rows(inputs):
    """Zeros could divide by zero; repeated rows cannot."""
    padded = pad(inputs, 7)

    assert batch_length(padded) == 7
    assert to_numpy(take(padded, 3)).keys() == to_numpy(inputs).keys()
    for name, array in to_numpy(padded).items():
        assert (array[[3, 4, 5, 6]] == array[[0, 1, 2, 0]]).all(), name


def test_a_batch_is_not_padded_to_less_than_it_holds(inputs):
    """That would silently drop examples."""
    with pytest.raises(ValueError, match="got 3"):
        pad(inputs, 2)


def test_bytes_of_a_tensor_tell_values_of_every_dtype():
    """Of bfloat16 too, which numpy does not know; strides do not matter."""
    values = torch.arange(6).reshape(2, 3)

    for dtype in (torch.bfloat16, torch.float32, torch.int8):
        assert tensor_bytes(values.to(dtype)) == tensor_bytes(values.T.contiguous().to(dtype).T)
        assert tensor_bytes(values.to(dtype)) != tensor_bytes(values.to(dtype).flip(0))


def test_the_identity_of_a_tensor_depends_on_name_dtype_shape_and_values():
    """Equal bytes under another name, dtype or shape are another tensor."""
    values = torch.arange(6)
    others = [("b", values), ("a", values.double().view(torch.int64)), ("a", values.view(2, 3)), ("a", values.view(torch.float64))]

    assert tensor_identity("a", values) == tensor_identity("a", values.clone())
    assert tensor_identity("a", values) not in {tensor_identity(name, tensor) for name, tensor in others}


def test_numpy_and_back_keeps_form_names_and_values(inputs):
    """Artifacts save their example inputs this way."""
    again = from_numpy(to_numpy(inputs))

    assert type(again) is type(inputs)
    torch.testing.assert_close(again, inputs, rtol=0, atol=0)
