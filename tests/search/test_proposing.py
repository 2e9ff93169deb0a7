"""When a space counts as explored, and what is never proposed."""


def test_no_recipe_is_ever_run_twice(start):
    """Duplicates burn budget."""
    machine = start(budget_s=1200.0)
    machine.run()
    measured = [recipe for what, recipe in machine.log if what == "measure"]

    assert len(measured) == len(set(measured)) > 20


def test_two_workers_never_train_the_same_prefix(start):
    """The second one would wait for the first, doing nothing."""
    machine = start(budget_s=1800.0, workers=2)
    doubles, side_by_side = [], 0
    run = machine.searcher.next_job

    def next_job():
        nonlocal side_by_side
        job = run()
        if job is not None and job.kind == "measure":
            trained = {recipe.prefix for recipe in job.recipes if recipe.is_trained} - machine.searcher.state.trained
            others = {recipe.prefix for other in machine._running for recipe in other.job.recipes}
            doubles.extend(trained & others)
            side_by_side += bool(trained) and any(prefix.is_trained for prefix in others)
        return job

    machine.searcher.next_job = next_job
    machine.run()
    assert not doubles
    assert side_by_side > 5


def test_with_time_left_it_expects_more_than_the_best_accuracy_seen(start):
    """A space that counts as explored is looked at once more, before the search ends early."""
    machine = start(budget_s=100_000.0, space_name="deploy-only")
    machine.run()

    assert machine.searcher.state.is_relaxed
    assert machine.searcher.budget.left() > 1000
    assert [line for line in machine.searcher.progress.lines if "counts as explored" in line and "of its time left" in line]


def test_a_space_is_not_explored_where_anything_worth_running_only_lacks_the_time(start, monkeypatch):
    """However many other ideas are beaten: the search goes on with it when finalizing gives time back."""
    machine = start()
    machine.run(most_jobs=30)
    agent, fan_out = machine.searcher, machine.searcher.choice.fan_out
    monkeypatch.setattr(agent.choice, "fan_out", lambda recipe: fan_out(recipe) if int(recipe.fingerprint, 16) % 5 == 0 else ())

    assert agent.proposing.next_job(0.5) is None
    assert agent.proposing.is_dry
    assert agent.proposing.is_short_of_time
    assert agent.proposing.next_job(600.0) is not None
    assert not agent.proposing.is_dry


def test_a_search_whose_time_is_up_does_not_say_that_the_space_is_explored(start):
    """That nothing fits any more says nothing of what is left."""
    machine = start(budget_s=300.0)
    machine.run()

    assert not machine.searcher.state.is_relaxed
    assert not [line for line in machine.searcher.progress.lines if "explored" in line]
