"""What a person who watches a search reads: the plan, then a line a trial, counts and the best so far."""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from autocut.budget import TRAINING_SHARE, Budget, budget_for_training, format_duration, format_usd
from autocut.counting import format_count
from autocut.front import FrontPoint
from autocut.picks import USUAL_DROP
from autocut.recipe import STUDENT, UNTOUCHED, Recipe
from autocut.score import allowed_drop
from autocut.search.estimates import ladder, too_long
from autocut.search.jobs import TrainingPlanned
from autocut.search.lowerings import lowerings_by_seconds, unaffordable_lowerings
from autocut.search.state import SearchState

_SHORT_S = 20.0
"""The training of the untouched model is told where it takes longer."""
_MOST_COUNTED = 999
"""Finalizations that the plan counts at most."""


@dataclass
class Progress:
    """Counts and lines for the user; `stopped` are trainings that could not reach the front any more."""

    done: int = 0
    stopped: int = 0
    failed: int = 0
    bugs: int = 0
    lines: deque[str] = field(default_factory=deque)


def headline(values: Mapping[str, float], charged_as: str = "as one process") -> str:
    """Return the numbers of one measured model in one phrase. Other dollars than those of one process say whose they are.

    Args:
        values: The values of the model. The speed is that of one process in any case.
        charged_as: Whose dollars these are (`Measurement.charged_as`).
    """
    cost, speed = f"{format_usd(values['usd_per_million'])} per million", _speed(values["speedup"])
    if charged_as != "as one process":
        cost, speed = f"{cost} {charged_as}", f"{speed} as one process"
    return f"accuracy {values['accuracy']:.4f}, {cost}, {speed}"


def cost_line(recipe: Recipe, costs: Mapping[str, float]) -> str:
    """Say what a structure costs that was timed before its model was trained."""
    cost = f"{format_usd(costs['usd_per_million'])} per million, {_speed(costs['speedup'])}"
    return f"cost, before any training: {recipe.describe()}: {cost}"


def _speed(speedup: float) -> str:
    """Return such as ``2.31x faster``; "0.43x faster" and "1.00x faster" would not say what they mean."""
    if f"{speedup:.2f}" == "1.00":
        return "no faster"
    return f"{speedup:.2f}x faster" if speedup >= 1 or speedup <= 0 else f"{1 / speedup:.2f}x slower"


def training_line(plan: TrainingPlanned) -> str:
    """Say how long the untouched model trains; where the budget is too short for all its epochs, also what would help.

    Empty where it takes seconds.
    """
    if plan.epochs == plan.asked:
        is_short = plan.seconds < _SHORT_S
        return "" if is_short else f"plan: training the untouched model takes about {format_duration(plan.seconds)}"
    taken, all_of_them = format_duration(plan.seconds), format_duration(plan.asked_s)
    return (
        f"plan: the untouched model is trained for {plan.epochs} of its {format_count(plan.asked, 'epoch')}, about {taken}: "
        f"all of them would take {all_of_them}, more than {TRAINING_SHARE:.0%} of the time left; for all of them: "
        f"--budget {budget_for_training(plan.asked_s)} and a new folder (--out), or trained weights (pretrained=True)"
    )


def best_so_far(front: Iterable[FrontPoint]) -> str:
    """Return one phrase about the cheapest point that loses at most a point of the metric; empty where there is none."""
    close = [point for point in front if _is_close(point)]
    cheapest = min(close, key=lambda point: point.values["usd_per_million"], default=None)
    if cheapest is None:
        return ""
    values = cheapest.values
    return f"{format_usd(values['usd_per_million'])}/M ({values['speedup']:.1f}x) at {values['accuracy']:.4f}"


def _is_close(point: FrontPoint) -> bool:
    """Whether a point loses no more than the pick that most people should take (`autocut.picks`)."""
    gap = point.measurement.accuracy.difference
    return gap is None or -gap.value <= allowed_drop(USUAL_DROP, point.values["accuracy"] - gap.value)


def plan_lines(state: SearchState, budget: Budget) -> list[str]:
    """Return what is tried, in which order, what is left out and why, and what is not known before the first measurement."""
    forms = [f"{dtype}/{mode}" for dtype, mode in lowerings_by_seconds(state) if (dtype, mode) != UNTOUCHED.lowering]
    is_known = state.reference is not None
    kept = f"about {format_duration(budget.reserve_s)} of it kept for finalization"
    lines = [
        f"budget {format_duration(budget.total_s)}, {format_duration(budget.left())} left, {kept}"
        f"{'' if is_known else ' (known once the untouched model is measured)'}; {format_count(state.settings.workers, 'worker')}",
        *(f"{number}. {phase}" for number, phase in enumerate(_phases(state, forms), 1)),
    ]
    if epochs := ladder_line(state):
        lines.append(epochs)
    if slow := {mode: seconds for (_, mode), seconds in unaffordable_lowerings(state).items()}:
        told = ", ".join(f"{mode} ({'' if is_known else 'usually '}{seconds:.0f} s)" for mode, seconds in slow.items())
        lines.append(f"left out, too slow to make for this budget: {told}")
    return [*lines, fits_line(state, budget)] if is_known else lines


def _phases(state: SearchState, forms: Iterable[str]) -> Iterator[str]:
    """Say what is done, in its order; only what there is in the space."""
    space = state.settings.space
    prunes = space.axis("prune.method") is not None
    told = ", ".join(forms)
    yield "baselines: the untouched model" + (f", then the most promising of {told}" if told else "")
    if prunes:
        beside = "" if space.axis(STUDENT) is None else ", and what each student costs"
        yield f"cost first: each pruning method without training, whether it saves anything here{beside}"
    ratios = "more ratios of what saves something, " if prunes else ""
    trained = "the most promising cuts trained, " if prunes and space.axis("train.epochs") is not None else ""
    yield f"learn: {format_count(len(space.anchors), 'anchor')}, {ratios}{trained}then proposals; each with its promising lowerings"
    yield "finalize: export, test split, verify in fresh processes"


def ladder_line(state: SearchState) -> str:
    """Say which numbers of epochs fit the budget, or that this is not known yet; empty where the space trains nothing."""
    fitting, planner = ladder(state), state.planner
    if not fitting:
        return ""
    if not planner.knows_training:
        every = ", ".join(map(str, sorted({*fitting, *too_long(state)})))
        return f"epochs: those of {every} that fit the budget; how long they take is known after the first training"
    told = f"epochs: {', '.join(map(str, fitting))} (about {format_duration(planner.epochs_s(fitting[-1]))} at most)"
    longer = ", ".join(f"{epochs} ({format_duration(planner.epochs_s(epochs))})" for epochs in too_long(state))
    faster = "" if state.settings.space.axis("prune.ratio") is None else "; a cut that trains faster may have more"
    but = faster if state.settings.space.axis(STUDENT) is None else f"{faster}; a student as many as the untouched model"
    return told + (f"; left out, too long for this budget: {longer}{but}" if longer else "")


def measured_plan_lines(state: SearchState, budget: Budget) -> list[str]:
    """Return what the measured untouched model says of the plan: how long things take, and how many of them fit."""
    return [f"plan: {line}" for line in (fits_line(state, budget), ladder_line(state)) if line]


def fits_line(state: SearchState, budget: Budget) -> str:
    """Say how long a lowering and a finalization will take by what is known, and how many of each fit what is left."""
    planner, workers = state.planner, state.settings.workers
    told = []
    if seconds := sorted(planner.lowering_s(pair) for pair in state.settings.graphs if pair != UNTOUCHED.lowering):
        search_s = max(0.0, budget.search_left())
        fit = sum(end <= workers * search_s for end in itertools.accumulate(seconds))
        span = " to ".join(dict.fromkeys(format_duration(each) for each in (seconds[0], seconds[-1])))
        told.append(f"a lowering takes about {span}: {fit} of {len(seconds)} fit the {format_duration(search_s)} of the search")
    kept_s = max(0.0, min(budget.reserve_s, budget.left()))
    points = sum(planner.reserve_s(number, workers, math.inf) <= kept_s for number in range(1, _MOST_COUNTED + 1))
    each, kept = format_duration(planner.finalize_more_s()), format_duration(kept_s)
    if points:
        told.append(f"a finalization takes about {each}: {points} fit the {kept} kept for it")
    else:
        first = format_duration(planner.finalize_s())
        told.append(f"the first finalization takes about {first}, others {each}; {kept} are kept for it")
    return "; ".join(told)


def nothing_tried_line(left_s: float, reserve_s: float) -> str:
    """Say why a search has ended without a new trial: `left_s` seconds were left at its start, `reserve_s` of them kept."""
    left, kept = format_duration(left_s), format_duration(min(left_s, reserve_s))
    return (
        f"no new trial was finished: when the search could begin, {left} of the budget was left, and {kept} of it is kept for "
        "finalization; a longer --budget goes on from here"
    )


def examples_line(*, by_task: bool, by_flag: bool) -> str:
    """Say whose data leaves with a bundle."""
    if by_task and by_flag:
        return "bundles carry real examples of the test split with their targets; --no-examples gives them synthetic ones"
    return f"bundles carry synthetic examples, no real ones ({'--no-examples' if by_task else 'share_examples=False in the task'})"
