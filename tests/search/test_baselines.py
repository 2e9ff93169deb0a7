"""The untouched model's lowerings: how many of them come before anything is pruned."""

import pytest
from simulation import Stage

from autocut.recipe import Recipe
from autocut.search.lowerings import is_cheap
from tests.search.conftest import GRAPHS, SECONDS, MadeUp

DTYPES = ("bf16", "fp16", "int8_dynamic", "int8_static", "int8_weight_only", "int4_weight_only")
MANY = {**GRAPHS, **{(dtype, mode): f"{dtype} by {mode}" for dtype in DTYPES for mode in ("onnxruntime", "openvino")}}
"""Twelve more lowerings, of which each is guessed to be quick."""


class SlowProcessor(MadeUp):
    """Lowering takes `slower` times as long as it was guessed from other machines."""

    slower = 4.0

    def lowering(self, recipe):
        """An artifact, then its timing."""
        method = "/".join(recipe.lowering)
        compile_s = self.slower * SECONDS.get(recipe.lowering[1], SECONDS["onnxruntime"])
        artifact = Stage(f"compile {recipe.fingerprint}", "compile", method, compile_s, "compiling")
        return artifact, Stage(f"cost {recipe.fingerprint}", "cost", method, 0.5, "measuring", (artifact,), alone=True)

    def measured(self, recipe):
        """All lowerings cost the same."""
        return super().measured(Recipe({**recipe, "quantize.dtype": "int8_static", "compile.mode": "onnxruntime"}))


@pytest.fixture
def search(start, monkeypatch):
    """Make a search over many lowerings: `search(budget_s, slower)`."""
    monkeypatch.setitem(SECONDS, "openvino", SECONDS["onnxruntime"])

    def make(budget_s, slower):
        machine = start(budget_s=budget_s, graphs=MANY)
        machine.world = SlowProcessor()
        machine.world.slower = slower
        return machine

    return make


def forms_before_pruning(machine):
    """Lowerings of the untouched model that were measured before anything was pruned."""
    measured = [recipe for what, recipe in machine.log if what == "measure"]
    first_cut = next((at for at, recipe in enumerate(measured) if recipe.prefix != Recipe()), len(measured))
    return {recipe.lowering for recipe in measured[:first_cut]}


def test_a_short_search_prunes_before_it_has_tried_every_form_of_the_untouched_model(search):
    """However slow the processor is: a tenth of the time goes into them first, and a job more at most."""
    machine = search(budget_s=500.0, slower=4.0)
    machine.run()
    pruned_at = next(at for at, (_, recipe) in zip(machine.times, machine.log, strict=True) if recipe.prefix != Recipe())

    assert any(recipe.is_trained for _, recipe in machine.log)
    assert 2 <= len(forms_before_pruning(machine)) < len(MANY) / 2
    assert pruned_at - machine.times[0] < 0.3 * 500


def test_with_time_enough_every_quick_form_of_the_untouched_model_comes_first(search):
    """From a budget of an hour up nothing is put off."""
    machine = search(budget_s=3600.0, slower=1.0)
    machine.run(most_jobs=30)
    cheap = {lowering for lowering in MANY if is_cheap(machine.searcher.state, lowering)}

    assert forms_before_pruning(machine) == cheap


def test_what_the_baselines_had_no_time_for_is_tried_later(search):
    """It waits with the slow lowerings, and has its turn before them."""
    machine = search(budget_s=900.0, slower=4.0)
    machine.run()
    tried = {recipe.lowering for what, recipe in machine.log if what == "measure" and recipe.prefix == Recipe()}

    assert forms_before_pruning(machine) < tried
