"""The first trainings of cuts: those that promise the most by what they cost and what they have kept."""

from __future__ import annotations

from autocut.recipe import Recipe


def recovered(machine):
    """Jobs that recover a cut, and what is proposed, in their order."""
    return [job for job in machine.jobs if job.why.startswith(("recover: ", "proposed: "))]


def test_the_cut_that_promises_the_most_is_trained_as_its_nearest_anchor_before_anything_is_proposed(start):
    """Of structured 0.25, 0.5, 0.75 and 0.95 without training, only the first has kept enough to come back."""
    machine = start(budget_s=1500.0)
    machine.run()
    first = recovered(machine)[0]
    trained = first.recipes[0]

    assert first.why.startswith("recover: structured 0.25 + 2 epochs")
    assert Recipe({"prune.method": "structured", "prune.ratio": 0.25}) in {one.prefix for one in machine.searcher.state.finished}
    assert trained.settings("train") == {"train.epochs": 2, "train.lr_scale": 0.3, "train.start": "trained"}
    assert trained.prefix in machine.searcher.state.trained


def test_no_cut_is_recovered_twice(start):
    """The second one counts what the first one is expected to reach."""
    machine = start(budget_s=1500.0)
    machine.run()
    prefixes = [job.recipes[0].prefix for job in recovered(machine) if job.why.startswith("recover: ")]

    assert prefixes
    assert len(set(prefixes)) == len(prefixes)


def test_a_space_that_trains_nothing_recovers_nothing(start):
    """There is no anchor with a training."""
    machine = start(budget_s=1500.0, space_name="deploy-only")
    machine.run()

    assert not [job for job in machine.jobs if job.why.startswith("recover: ")]


def test_where_the_noise_of_the_split_is_larger_than_every_loss_nothing_is_recovered(start):
    """Nothing says that such a cut has lost anything."""
    machine = start(budget_s=1500.0)
    state = machine.searcher.state
    set_baseline = state.set_baseline

    def with_much_noise(metric):
        set_baseline(metric)
        state.metric_noise = 1.0

    state.set_baseline = with_much_noise
    machine.run()

    assert not [job for job in machine.jobs if job.why.startswith("recover: ")]
