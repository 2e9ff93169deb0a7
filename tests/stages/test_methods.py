"""The methods of every axis, as they are registered."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autocut.execution.preflight import preflight
from autocut.recipe import IDENTITY
from autocut.stages.methods import REGISTRIES, known_methods, method_rows, pair_rows, unfit_methods
from autocut.stages.prune import pruners
from autocut.task.kinds import Meaning, kinds


def test_every_axis_knows_what_the_untouched_model_does():
    """A space can always leave a knob alone."""
    known = known_methods()
    assert all(IDENTITY[axis] in known[axis] for axis in REGISTRIES if axis in IDENTITY)


def test_every_method_says_what_it_does():
    """`autocut methods` shows the first line of its docstring."""
    assert all(row.summary.endswith(".") for row in method_rows())


def test_eager_fp32_can_always_be_run():
    """The baseline has no reason against it."""
    reasons = {(row.dtype, row.mode): row.reason for row in pair_rows()}
    assert reasons["fp32", "eager"] is None


def test_kinds_of_task_are_listed_too():
    """Last, because no space has an axis of them."""
    assert [row.name for row in method_rows() if row.axis == "task.kind"] == list(kinds.names())
    assert "task.kind" not in known_methods()


def test_a_method_that_names_its_kinds_is_unfit_for_others(monkeypatch: pytest.MonkeyPatch):
    """And a loss on logits for a kind without logits, whether or not it names any."""
    monkeypatch.setattr(pruners, "_methods", dict(pruners._methods))
    pruners.register("mine", kinds=("regression",))(lambda model, ratio, data: model)

    unfit = unfit_methods("classification", is_pretrained=False)
    assert unfit["prune.method"] == {"mine": "fits regression, not classification"}
    assert unfit["distill.loss"].keys() == {"kl_sigmoid", "mse"}
    unfit = unfit_methods("regression", is_pretrained=False)
    assert unfit.keys() == {"distill.loss"}
    assert unfit["distill.loss"].keys() == {"kl", "kl_zscore", "mse_logits", "dkd", "kl_sigmoid"}
    assert unfit["distill.loss"]["kl_sigmoid"] == "fits multilabel, not regression"


def test_what_outputs_mean_decides_more_than_the_name_of_the_kind():
    """A task with a loss and a metric of its own may keep the default kind."""
    used = replace(kinds["classification"](), meaning=Meaning.LABELS)
    unfit = unfit_methods("classification", is_pretrained=False, kind=used)["distill.loss"]

    assert unfit.keys() == {"kl", "kl_zscore", "mse_logits", "dkd", "mse"}
    assert unfit["mse"].endswith("not outputs that are logits of labels, each true or false by itself")


def test_preflight_finds_the_same_names_in_another_process():
    """And the embedded task, and which pairs of dtype and mode run here."""
    found = preflight(None)
    assert found.methods == known_methods()
    assert (found.task.name, found.task.is_pretrained) == ("digits", False)
    assert {pair: lowering.reason for pair, lowering in found.lowerings.items()} == {
        (row.dtype, row.mode): row.reason for row in pair_rows()
    }
