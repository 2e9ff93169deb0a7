"""The plan of a search in words: what a person should know before it begins."""

from __future__ import annotations

from autocut.budget import Budget, format_duration
from autocut.search.knowledge import Knowledge


def plan_lines(known: Knowledge, budget: Budget) -> list[str]:
    """Return what is tried, in which order, what is left out and why, and what time is kept for."""
    planner = known.planner
    lowerings = sorted(known.affordable_lowerings(), key=planner.lowering_s)
    lines = [
        f"budget {format_duration(budget.total_s)}, {format_duration(budget.left())} left, "
        f"at least {format_duration(budget.reserve_s)} of it kept for finalization; {known.workers} workers",
        "1. baselines: the untouched model, then "
        + ", ".join(f"{dtype}/{mode}" for dtype, mode in lowerings if (dtype, mode) != ("fp32", "eager")),
        "2. cost first: each pruning method without training, whether it saves anything here",
        f"3. learn: {len(known.space.anchors)} anchors, more ratios of what saves something, then proposals; each with its "
        "promising lowerings",
        "4. finalize: export, test split, verify in fresh processes",
    ]
    if ladder := ladder_line(known):
        lines.append(ladder)
    if slow := {mode: seconds for (_, mode), seconds in known.unaffordable_lowerings().items()}:
        told = ", ".join(f"{mode} ({seconds:.0f} s)" for mode, seconds in slow.items())
        lines.append(f"left out, too slow to make for this budget: {told}")
    return lines


def ladder_line(known: Knowledge) -> str:
    """Say which numbers of epochs fit the budget; nothing where the space trains nothing."""
    ladder, planner = known.ladder(), known.planner
    if not ladder:
        return ""
    told = f"epochs: {', '.join(map(str, ladder))} ({format_duration(planner.epochs_s(ladder[-1]))} at most)"
    longer = ", ".join(f"{epochs} ({format_duration(planner.epochs_s(epochs))})" for epochs in known.too_long())
    return told + (f"; left out, too long for this budget: {longer}" if longer else "")
