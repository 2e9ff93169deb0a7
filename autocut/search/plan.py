"""The plan of a search in words: what the user should know before it begins."""

from __future__ import annotations

from autocut.budget import Budget, format_duration
from autocut.recipe import UNTOUCHED
from autocut.search.durations import ladder, too_long
from autocut.search.lowerings import lowerings_by_seconds, unaffordable_lowerings
from autocut.search.state import SearchState


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
