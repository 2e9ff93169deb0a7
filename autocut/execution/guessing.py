"""What a search may guess before it has measured anything: by similar models on this processor, or by an earlier study."""

from __future__ import annotations

from dataclasses import replace

from autocut.execution.preflight import Preflight
from autocut.measure.machine import describe_machine
from autocut.recipe import Lowering, without_kept
from autocut.search.first_guesses import NO_GUESSES, FirstGuesses, known_families
from autocut.search.learned import Lessons


def guesses_of(found: Preflight, lessons: Lessons | None) -> FirstGuesses:
    """Return the guesses for the task that preflight has `found`, with what an earlier study teaches."""
    traits = found.task.traits
    guesses = NO_GUESSES
    if traits is not None:
        guesses = known_families().guesses(traits, describe_machine().instructions)
        slow = {without_kept(dtype)[0] for (dtype, _), probe in found.lowerings.items() if not probe.is_accelerated}
        guesses = replace(guesses, not_accelerated=frozenset(slow))
    return guesses if lessons is None else guesses.with_family(lessons.family)


def expected_seconds(found: Preflight, guesses: FirstGuesses) -> dict[Lowering, float]:
    """Return the seconds that each lowering of a small model will take: as similar models took, else as its mode says."""
    known = {lowering: guesses.lowering(lowering) for lowering in found.lowerings}
    return {
        lowering: made.seconds if (guess := known[lowering]) is None else guess.seconds
        for lowering, made in found.lowerings.items()
    }
