"""A method that fails again and again for the same reason is switched off."""

from autocut.recipe import Recipe
from autocut.search.switched_off import SwitchedOff


def pruned(ratio, method="structured", lowering=("fp32", "eager")):
    """A recipe with a pruner."""
    return Recipe({"prune.method": method, "prune.ratio": ratio}).with_lowering(*lowering)


def begun():
    """A study in which the untouched model runs."""
    off = SwitchedOff()
    off.learn_success(Recipe())
    return off


def test_the_third_failure_for_the_same_reason_switches_a_method_off():
    """It says so once. Numbers in the reason do not make it another one."""
    off = begun()
    for ratio in (0.2, 0.4):
        off.learn_failure(pruned(ratio), f"no room for {ratio} of it")
    assert not off.covers(pruned(0.6))
    off.learn_failure(pruned(0.6), "no room for 0.6 of it")
    off.learn_failure(pruned(0.7), "no room for 0.7 of it")

    assert off.covers(pruned(0.8))
    assert not off.covers(pruned(0.8, "l1_unstructured"))
    (told,) = off.take_news()
    assert told == "switched off for this study: prune.method structured failed 3 times and never worked: no room for 0.6 of it"
    assert off.take_news() == []


def test_what_worked_once_is_not_to_blame():
    """The three have something else in common."""
    off = begun()
    off.learn_success(pruned(0.1))
    for ratio in (0.2, 0.4, 0.6):
        off.learn_failure(pruned(ratio, lowering=("int8_static", "onnxruntime")), "it crashed")

    assert not off.covers(pruned(0.8))
    assert off.covers(pruned(0.8, lowering=("int8_static", "onnxruntime")))


def test_other_reasons_do_not_add_up():
    """Three bad days are no bad method."""
    off = begun()
    for ratio, reason in ((0.2, "it crashed"), (0.4, "it hung"), (0.6, "out of memory")):
        off.learn_failure(pruned(ratio), reason)

    assert not off.covers(pruned(0.2))


def test_lowerings_that_fail_with_their_training_count_once():
    """They share it."""
    off = begun()
    for mode in ("eager", "onnxruntime", "aot_inductor"):
        off.learn_failure(pruned(0.2, lowering=("fp32", mode)), "it crashed")

    assert not off.covers(pruned(0.4))


def test_a_combination_is_switched_off_though_both_of_its_parts_work():
    """Each with another partner."""
    off = begun()
    off.learn_success(pruned(0.1, lowering=("int8_static", "eager")))
    off.learn_success(pruned(0.1, lowering=("fp32", "onnxruntime")))
    for ratio in (0.2, 0.4, 0.6):
        off.learn_failure(pruned(ratio, lowering=("int8_static", "onnxruntime")), "it crashed")

    assert off.covers(pruned(0.8, lowering=("int8_static", "onnxruntime")))
    assert not off.covers(pruned(0.8, lowering=("int8_static", "eager")))
    assert not off.covers(pruned(0.8, lowering=("fp32", "onnxruntime")))


def test_what_a_method_needs_and_the_model_lacks_switches_it_off_at_once():
    """No ratio gives a model blocks; but a ratio that removes nothing is no fault of the method."""
    off = begun()
    off.learn_infeasible(pruned(0.1), "prune.ratio 0.1 removes no channel after rounding")
    assert not off.covers(pruned(0.5))
    off.learn_infeasible(pruned(0.5, "depth"), "prune.method 'depth' needs at least two blocks, got 0")

    assert off.covers(pruned(0.9, "depth"))
    assert not off.covers(pruned(0.9))
    assert off.take_news() == ["switched off for this study: prune.method 'depth' needs at least two blocks, got 0"]
