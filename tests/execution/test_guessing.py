"""What a search guesses before it has measured anything depends on what this processor can do."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from autocut.execution.guessing import guesses_of
from autocut.execution.preflight import LoweringProbe
from autocut.search.first_guesses import ModelTraits
from autocut.stages import lowering

TRAITS = ModelTraits(1.0, attention=False, embeddings=False, causal=False, parameters=25_000_000)


@pytest.mark.parametrize("has_vnni", [True, False])
def test_a_dtype_that_the_processor_has_no_instructions_for_promises_no_speed(monkeypatch, has_vnni):
    """Layers in float are the same dtype. Half precision without instructions does not run at all, so nothing is guessed of it."""
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx512_vnni": has_vnni})
    pairs = [("fp32", "openvino"), ("int8_static", "openvino"), ("int8_static:4", "openvino"), ("int8_weight_only", "openvino")]
    probes = {(dtype, mode): LoweringProbe(None, "", 1.0, is_accelerated=lowering.is_accelerated(dtype)) for dtype, mode in pairs}

    guesses = guesses_of(SimpleNamespace(task=SimpleNamespace(traits=TRAITS), lowerings=probes), None)

    assert guesses.not_accelerated == (frozenset() if has_vnni else {"int8_static"})
    assert (guesses.lowering(pairs[1]).speedup > guesses.lowering(pairs[0]).speedup) is has_vnni
