"""What a person who watches a search reads: the plan before it begins, then a line a trial, counts and the best so far."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from autocut.budget import TRAINING_SHARE, Budget, budget_for_training, format_duration, format_usd
from autocut.front import FrontPoint
from autocut.recipe import UNTOUCHED, Recipe
from autocut.search.estimates import ladder, too_long
from autocut.search.jobs import TrainingPlanned
from autocut.search.lowerings import lowerings_by_seconds, unaffordable_lowerings
from autocut.search.state import SearchState

_CLOSE = 0.01
"""A point may lose this much of the metric to be the best so far: the drop in the examples of `autocut select`."""

_SHORT_S = 20.0


@dataclass
class Progress:
    """Counts and lines for the user; `stopped` are trainings that could not reach the front any more."""

    done: int = 0
    stopped: int = 0
    failed: int = 0
    bugs: int = 0
    stage: str = "starting"
    lines: deque[str] = field(default_factory=deque)


def headline(values: Mapping[str, float]) -> str:
    """Return the numbers of one measured model in one phrase."""
    cost = f"{format_usd(values['usd_per_million'])} per million"
    return f"accuracy {values['accuracy']:.4f}, {cost}, {values['speedup']:.2f}x faster"


def cost_line(recipe: Recipe, costs: Mapping[str, float]) -> str:
    """Say what a structure costs that was timed before the untouched model was trained."""
    cost = f"{format_usd(costs['usd_per_million'])} per million, {costs['speedup']:.2f}x faster"
    return f"cost, while the untouched model trains: {recipe.describe()}: {cost}"


def training_line(plan: TrainingPlanned) -> str:
    """Say how long the untouched model trains; where the budget is too short for all its epochs, also what would help.

    Empty where it takes seconds.
    """
    if plan.epochs == plan.asked:
        is_short = plan.seconds < _SHORT_S
        return "" if is_short else f"plan: training the untouched model takes about {format_duration(plan.seconds)}"
    taken, all_of_them = format_duration(plan.seconds), format_duration(plan.asked_s)
    return (
        f"plan: the untouched model is trained for {plan.epochs} of its {plan.asked} epochs, about {taken}: "
        f"all of them would take {all_of_them}, more than {TRAINING_SHARE:.0%} of the time left; for all of them: "
        f"--budget {budget_for_training(plan.asked_s)} and a new folder (--out), or trained weights (pretrained=True)"
    )


def best_so_far(front: Iterable[FrontPoint]) -> str:
    """Return one phrase about the cheapest point that loses at most a point of the metric; empty where there is none."""
    close = [point for point in front if (gap := point.measurement.accuracy.difference) is None or gap.value >= -_CLOSE]
    cheapest = min(close, key=lambda point: point.values["usd_per_million"], default=None)
    if cheapest is None:
        return ""
    values = cheapest.values
    return f"{format_usd(values['usd_per_million'])}/M ({values['speedup']:.1f}x) at {values['accuracy']:.4f}"


def plan_lines(state: SearchState, budget: Budget) -> list[str]:
    """Return what is tried, in which order, what is left out and why, and what time is kept for finalization."""
    forms = [f"{dtype}/{mode}" for dtype, mode in lowerings_by_seconds(state) if (dtype, mode) != UNTOUCHED.lowering]
    lines = [
        f"budget {format_duration(budget.total_s)}, {format_duration(budget.left())} left, "
        f"at least {format_duration(budget.reserve_s)} of it kept for finalization; {state.settings.workers} workers",
        f"1. baselines: the untouched model, then {', '.join(forms)}",
        "2. cost first: each pruning method without training, whether it saves anything here",
        f"3. learn: {len(state.settings.space.anchors)} anchors, more ratios of what saves something, then proposals; "
        "each with its promising lowerings",
        "4. finalize: export, test split, verify in fresh processes",
    ]
    if epochs := ladder_line(state):
        lines.append(epochs)
    if slow := {mode: seconds for (_, mode), seconds in unaffordable_lowerings(state).items()}:
        told = ", ".join(f"{mode} ({seconds:.0f} s)" for mode, seconds in slow.items())
        lines.append(f"left out, too slow to make for this budget: {told}")
    return lines


def ladder_line(state: SearchState) -> str:
    """Say which numbers of epochs fit the budget; empty where the space trains nothing."""
    fitting, planner = ladder(state), state.planner
    if not fitting:
        return ""
    told = f"epochs: {', '.join(map(str, fitting))} ({format_duration(planner.epochs_s(fitting[-1]))} at most)"
    longer = ", ".join(f"{epochs} ({format_duration(planner.epochs_s(epochs))})" for epochs in too_long(state))
    return told + (f"; left out, too long for this budget: {longer}" if longer else "")
