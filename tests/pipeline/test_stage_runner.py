"""The stage runner: it finds or makes a stage, charges it for its own work alone, and reports one event."""

import threading
import time
import types

import pytest

from autocut.errors import CompilerError
from autocut.measure.quiet import QuietLock
from autocut.pipeline.stage_cache import Entry, StageCache
from autocut.pipeline.stage_runner import Stage, StageContext, StageRunner, charged_s
from autocut.search.jobs import StageBroke, StageRan, StageStarted, Waited
from autocut.stages.calibration import in_steps


@pytest.fixture
def context(tmp_path):
    """What workers share, without a model."""
    task = types.SimpleNamespace(fingerprint="task")
    return StageContext(task, StageCache(tmp_path / "stages"), QuietLock(tmp_path / "locks"))


def stage(runner, prepare=lambda: "start", make=lambda folder, start: {"start": start}, name="prune"):
    """A stage that keeps what it started from as a fact."""
    return Stage(name, "method", "training", runner.key("", name, {}), prepare, make)


def test_a_stage_is_made_from_what_it_prepares_and_found_after(context):
    """One event tells that it ends, another before it that it must be made; a stage that is found prepares nothing."""
    events, prepared = [], []
    runner = StageRunner(context, events.append)
    made = runner.run(stage(runner, prepare=lambda: prepared.append("once") or "start"))
    found = runner.run(stage(runner, prepare=lambda: pytest.fail("prepared again")))

    assert made.facts == found.facts
    assert made.facts["start"] == "start"
    assert [(type(event), event.stage, event.category) for event in events] == [
        (StageStarted, "prune", "training"),
        (StageRan, "prune", "training"),
        (StageRan, "prune", "training"),
    ]
    assert [event.cached for event in events[1:]] == [False, True]
    assert prepared == ["once"]


def test_a_training_is_charged_for_what_it_computes(context):
    """Wall seconds beside other workers are more than the untouched model's alone; here the stage computes next to nothing."""
    runner = StageRunner(context)
    entry = runner.run(stage(runner, make=lambda *_: time.sleep(0.2)))

    assert charged_s(entry, threads=1) < entry.seconds / 2
    assert charged_s(entry, threads=2) == entry.facts["cpu_seconds"] / 2


def test_a_stage_of_an_earlier_autocut_is_charged_for_its_wall_seconds(tmp_path):
    """It wrote no others down, and they are of the same kind: those of one process."""
    assert charged_s(Entry("key", "prune", "magnitude", 3.0, tmp_path, cached=True, facts={}), threads=2) == 3.0


def test_a_stage_that_makes_no_weights_notes_nothing(context):
    """Its seconds are no part of what a training costs."""
    runner = StageRunner(context)
    one = Stage("cost", "eager", "measuring", runner.key("", "cost", {}), lambda: None, lambda *_: {"ms": 1})

    assert runner.run(one).facts == {"ms": 1}


def test_what_a_stage_starts_from_is_a_stage_of_its_own_and_ends_before_it(context):
    """So no second is counted twice, and no process holds two locks."""
    at_work, events = [], []
    runner = StageRunner(context, events.append)

    def make(folder, start):
        at_work.append(len(list((runner.cache.folder / "building").iterdir())))

    first = stage(runner, make=make, name="quantize")
    runner.run(stage(runner, prepare=lambda: runner.run(first), make=make, name="compile"))

    assert [(event.stage, type(event)) for event in events] == [
        ("quantize", StageStarted),
        ("quantize", StageRan),
        ("compile", StageStarted),
        ("compile", StageRan),
    ]
    assert at_work == [1, 1]


def test_a_stage_that_breaks_is_reported_with_its_seconds(context):
    """They were worked all the same; what it starts from was made, and is kept."""
    events = []
    runner = StageRunner(context, events.append)

    def refuse(folder, start):
        raise CompilerError("refused")

    with pytest.raises(CompilerError):
        runner.run(stage(runner, prepare=lambda: runner.run(stage(runner, name="quantize")), make=refuse))

    assert [type(event) for event in events] == [StageStarted, StageRan, StageStarted, StageBroke]
    assert events[-1].seconds > 0
    assert events[-1].category == "training"


def test_a_checkpoint_is_dropped_when_the_output_is_safe(context):
    """Also one that a killed process left behind after the output was there."""
    runner = StageRunner(context)
    checkpoint = runner.cache.checkpoint(stage(runner).key)
    for _ in range(2):
        checkpoint.write_text("epoch 1")
        runner.run(stage(runner))
        assert not checkpoint.exists()


def test_no_stage_is_charged_for_waiting(context):
    """While another process times, a stage waits for the machine; the ledger counts that as waiting."""
    events = []
    runner, is_alone, may_end = StageRunner(context, events.append), threading.Event(), threading.Event()

    def time_something():
        with StageRunner(context).alone():
            is_alone.set()
            may_end.wait(30)

    def make(folder, start):
        threading.Timer(0.3, may_end.set).start()
        with runner.working():
            pass

    timing = threading.Thread(target=time_something)
    timing.start()
    is_alone.wait(30)
    entry = runner.run(stage(runner, make=make))
    timing.join()

    assert runner.waited_s > 0.2 > entry.seconds
    assert sum(event.seconds for event in events if isinstance(event, Waited)) == pytest.approx(runner.waited_s, abs=0.1)


def test_long_work_lets_who_waits_time_between_its_steps_and_is_not_charged_for_it(context):
    """A calibration holds the machine for a minute; a timing need not wait for its end."""
    events, log = [], []
    runner = StageRunner(context, events.append)

    def time_something():
        with StageRunner(context).alone():
            log.append("alone")
            time.sleep(0.3)

    def make(folder, start):
        timing = threading.Thread(target=time_something)
        with runner.working_in_steps():
            timing.start()
            for step in in_steps(range(1000)):
                log.append(step)
                if "alone" in log:
                    break
                time.sleep(0.001)
        timing.join()

    entry = runner.run(stage(runner, make=make))

    assert "alone" in log
    assert 999 not in log  # else it would have waited for the end of the work
    assert runner.waited_s > 0.25 > entry.seconds
    assert sum(event.seconds for event in events if isinstance(event, Waited)) == pytest.approx(runner.waited_s, abs=0.1)
