"""The untouched model's lowerings: how many of them come before anything is pruned."""

import math
from dataclasses import replace
from functools import partial

import pytest
from simulation import Stage

from autocut.recipe import UNTOUCHED, Recipe
from autocut.search import opening
from autocut.search.first_guesses import FirstGuesses, MethodEffect, own_family
from autocut.search.jobs import Job, JobKind, PlannedJob, Purpose
from autocut.search.lowerings import (
    LoweringChoice,
    by_promise,
    first_lowering,
    guessed,
    is_cheap,
    keeps_float_in_vain,
    promising_most,
    waits_for_its_simpler,
)
from autocut.search.opening import SlowLowerings
from autocut.search.planner import Planner
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

    assert forms_before_pruning(machine) >= cheap


def test_what_the_baselines_had_no_time_for_is_tried_later(search):
    """It waits with the slow lowerings, and has its turn before them."""
    machine = search(budget_s=900.0, slower=4.0)
    machine.run()
    tried = {recipe.lowering for what, recipe in machine.log if what == "measure" and recipe.prefix == Recipe()}

    assert forms_before_pruning(machine) < tried


def test_what_promises_most_is_tried_first_though_it_is_not_quick(search):
    """Seconds are guesses, and what comes after the baselines needs the best form. What promises less waits."""
    best, as_slow = ("int8_static", "onnxruntime"), ("int8_dynamic", "onnxruntime")
    effects = {"/".join(one): MethodEffect(1.2, 1.2, 0.9, 1.0, 4.0) for one in MANY}
    effects |= {
        "/".join(best): MethodEffect(20.0, 20.0, 0.25, 1.0, 17.0),
        "/".join(as_slow): MethodEffect(1.3, 1.3, 0.9, 1.0, 17.0),
    }
    machine = search(budget_s=3600.0, slower=1.0)
    state = machine.searcher.state
    state.settings = replace(state.settings, first_guesses=FirstGuesses().with_family(own_family(effects, {})))
    state.planner = Planner(1000, {one: 17.0 if one in (best, as_slow) else 4.0 for one in MANY})
    assert not is_cheap(state, best)
    machine.run(most_jobs=30)

    assert best in forms_before_pruning(machine)
    assert as_slow not in forms_before_pruning(machine)


def test_a_form_that_promises_more_speed_is_promising_though_its_file_looks_larger(search):
    """Guesses of sizes come from small models. A ResNet-18 with int8 by ONNX Runtime never saw OpenVINO, three times as fast."""
    measured, faster, slower = ("int8_static", "onnxruntime"), ("int8_static", "openvino"), ("int8_dynamic", "openvino")
    effects = {
        "/".join(measured): MethodEffect(3.0, 3.0, 0.25, 1.0, 4.0),
        "/".join(faster): MethodEffect(3.2, 3.2, 0.6, 1.0, 4.0),
        "/".join(slower): MethodEffect(1.5, 1.5, 0.5, 1.0, 4.0),
    }
    state = search(budget_s=3600.0, slower=1.0).searcher.state
    state.settings = replace(state.settings, first_guesses=FirstGuesses().with_family(own_family(effects, {})))
    untouched = {"accuracy": 0.98, "speedup": 1.0, "usd_per_million": 1.0, "size_bytes": 4e6, "train_usd": 0.0}
    state.finish(UNTOUCHED, untouched)
    state.finish(UNTOUCHED.with_lowering(*measured), {**untouched, "speedup": 3.0, "size_bytes": 1e6})

    assert promising_most(state, [faster, slower]) == {faster}


def test_whether_a_form_is_promising_is_asked_as_if_this_processor_were_as_good_as_others(search):
    """Half of a guess from another processor is less than what int8 has brought here in one mode; the whole of it is more."""
    measured, faster, slower = ("int8_static", "onnxruntime"), ("int8_static", "openvino"), ("bf16", "openvino")
    effects = {
        "/".join(one): MethodEffect(speedup, speedup, 1.0, 1.0, 4.0)
        for one, speedup in ((measured, 3.4), (faster, 3.6), (slower, 2.0))
    }
    other = replace(own_family(effects, {}), name="another model")
    state = search(budget_s=3600.0, slower=1.0).searcher.state
    state.settings = replace(state.settings, first_guesses=replace(FirstGuesses().with_family(other), trust=0.5))
    untouched = {"accuracy": 0.98, "speedup": 1.0, "usd_per_million": 1.0, "size_bytes": 4e6, "train_usd": 0.0}
    state.finish(UNTOUCHED, untouched)
    state.finish(UNTOUCHED.with_lowering(*measured), {**untouched, "speedup": 3.7})
    usual = guessed(state, [faster, slower])

    assert usual[slower].speedup < usual[faster].speedup < 3.7
    assert promising_most(state, [faster, slower]) == {faster}


def test_no_form_keeps_layers_in_float_before_it_is_known_what_the_dtype_loses(search):
    """In one job, or side by side, it would be made though it may have nothing to win."""
    plain, kept = ("int8_static", "openvino"), ("int8_static:4", "openvino")
    machine = search(budget_s=3600.0, slower=1.0)
    state = machine.searcher.state
    state.settings = replace(state.settings, graphs={**state.settings.graphs, kept: "int8 with float"})
    assert waits_for_its_simpler(state, kept)
    assert not waits_for_its_simpler(state, plain)
    machine.run(most_jobs=30)
    untouched = [{recipe.lowering for recipe in job.recipes if recipe.prefix == Recipe()} for job in machine.jobs]

    assert not any({plain, kept} <= forms for forms in untouched)
    assert plain in forms_before_pruning(machine)
    assert not waits_for_its_simpler(state, kept)


def test_the_baselines_wait_until_it_is_known_whether_layers_must_stay_float(start):
    """With two workers the second one asks while the plain form is still measured; it must not end the phase."""
    plain, kept = ("int8_static", "onnxruntime"), ("int8_static:4", "onnxruntime")
    graphs = {UNTOUCHED.lowering: "fp32", plain: "int8", kept: "int8 with float"}
    state = start(budget_s=3600.0, workers=2, graphs=graphs).searcher.state
    state.finish(UNTOUCHED, {"accuracy": 0.9, "speedup": 1.0, "size_bytes": 1e6, "usd_per_million": 1.0, "latency_ms": 1.0})
    steps = opening.baselines(state, LoweringChoice(state))
    first = next(steps)
    state.start(Job(1, JobKind.MEASURE, first.recipes, 1e9, "test"), Purpose.QUICK_LOWERINGS, 0.0)

    assert [recipe.lowering for recipe in first.recipes] == [plain]
    assert next(steps) is None
    values = {"accuracy": 0.88, "speedup": 3.0, "size_bytes": 3e5, "usd_per_million": 0.3, "latency_ms": 0.3}
    state.finish(UNTOUCHED.with_lowering(*plain), values)
    state.running.clear()
    assert [recipe.lowering for recipe in next(steps).recipes] == [kept]


def test_layers_stay_float_only_where_the_dtype_without_that_has_lost_accuracy(search):
    """Else the lowering costs more and can win nothing. It is tried after the dtype without it in any case."""
    machine = search(budget_s=3600.0, slower=1.0)
    machine.run(most_jobs=1)
    state = machine.searcher.state
    plain, kept = (("int8_static", "onnxruntime"), ("int8_static:4", "onnxruntime"))
    state.settings = replace(state.settings, graphs={**state.settings.graphs, kept: "int8 with float"})
    values = dict(state.finished[Recipe()])
    assert by_promise(state, [kept, plain]) == [plain, kept]
    assert not keeps_float_in_vain(state, kept)

    state.finish(Recipe().with_lowering(*plain), {**values, "accuracy": values["accuracy"] - 0.01})
    assert not keeps_float_in_vain(state, kept)
    assert not keeps_float_in_vain(state, plain)
    state.finish(Recipe().with_lowering(*plain), values)
    assert keeps_float_in_vain(state, kept)


def test_where_little_is_promised_the_first_lowering_gives_the_most_speed_per_second(search):
    """Not the smallest, which is no faster; nor the fastest, which takes minutes to make."""
    machine = search(budget_s=3600.0, slower=1.0)
    machine.run(most_jobs=1)
    state, quick = machine.searcher.state, ("fp32", "onnxruntime")
    small, slow = ("int4_weight_only", "openvino"), ("int8_static", "aot_inductor")
    guesses = {
        "fp32/onnxruntime": MethodEffect(1.3, 1.3, 1.0, 1.0, 20.0),
        "int4_weight_only/openvino": MethodEffect(1.0, 1.0, 0.1, 1.0, 4.0),
        "int8_static/aot_inductor": MethodEffect(1.4, 1.4, 0.3, 1.0, 300.0),
    }
    state.settings = replace(state.settings, first_guesses=FirstGuesses().with_family(own_family(guesses, {})))

    assert first_lowering(state, [small, slow, quick]) == quick


def test_what_was_made_while_the_untouched_model_was_measured_is_measured_next(search):
    """It only needs a score and a timing."""
    machine = search(budget_s=3600.0, slower=1.0)
    machine.run(most_jobs=1)
    state, lowerings = machine.searcher.state, [("fp32", "onnxruntime"), ("int8_static", "onnxruntime"), ("bf16", "eager")]
    for prepared in lowerings:
        state.prepared = prepared
        assert by_promise(state, lowerings)[0] == prepared


def test_an_anchor_that_keeps_layers_in_float_runs_though_the_untouched_model_needs_none(search, monkeypatch):
    """A space asks for it, and a pruned model may need what the untouched one does not."""
    machine = search(budget_s=3600.0, slower=1.0)
    machine.run(most_jobs=1)
    state, kept = machine.searcher.state, ("int8_static:4", "onnxruntime")
    state.settings = replace(state.settings, graphs={**state.settings.graphs, kept: "int8 with float"})
    state.finish(Recipe().with_lowering("int8_static", "onnxruntime"), dict(state.finished[Recipe()]))
    anchor = PlannedJob(
        (Recipe({"prune.method": "structured", "prune.ratio": 0.5}).with_lowering(*kept),), Purpose.ANCHOR, "anchor"
    )
    monkeypatch.setattr(opening, "anchors", lambda *_: [anchor])
    monkeypatch.setattr(opening, "is_cheap", lambda *_: False)
    waiting = iter(partial(SlowLowerings(state, LoweringChoice(state)).next, math.inf), None)
    planned = list(waiting)

    assert keeps_float_in_vain(state, kept)
    assert anchor in planned
    assert Recipe().with_lowering(*kept) not in [one.recipes[0] for one in planned]
