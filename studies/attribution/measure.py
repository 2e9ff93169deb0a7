"""Does the ladder of `autocut explain` tell the truth? Explains trials of studies, and compares the knobs with the whole.

    python studies/attribution/measure.py STUDY... --trials 3 --budget 5m

Of each study, the cheapest points of the front are explained, one for each set of knobs; those that turn most knobs come first. The
lines of a ladder say what its steps make together, what was measured of the whole, what the knobs make alone, and which knobs do
something else alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from autocut.attribution.effects import agree, combined
from autocut.attribution.explanation import Explanation, explain_trial
from autocut.attribution.turned import knobs_of
from autocut.attribution.words import say_accuracy, say_factor
from autocut.budget import parse_duration
from autocut.front import FrontPoint
from autocut.study import open_study


def main() -> None:
    """Explain trials of every study that is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("studies", nargs="+", type=Path)
    parser.add_argument("--trials", type=int, default=3)
    parser.add_argument("--budget", type=parse_duration, default=300.0)
    asked = parser.parse_args()
    kept, ladders = 0, 0
    for folder in asked.studies:
        for point in chosen_points(folder, asked.trials):
            explanation = explain_trial(folder, point.trial, budget_s=asked.budget)
            ladders += 1
            kept += report(explanation)
    print(f"\nthe ladder makes the whole, and either the knobs multiply or the interaction is named: {kept} of {ladders}")


def chosen_points(folder: Path, count: int) -> Sequence[FrontPoint]:
    """Return points of the front with different knobs, those with the most knobs first, the cheapest of each."""
    study = open_study(folder)
    front = sorted(study.front(), key=lambda point: point.values["usd_per_million"])
    study.close()
    kinds: dict[tuple[str, ...], FrontPoint] = {}
    for point in front:
        kinds.setdefault(tuple(knob.stage for knob in knobs_of(point.recipe)), point)
    ordered = sorted(kinds.items(), key=lambda item: -len(item[0]))
    return [point for knobs, point in ordered if knobs][:count]


def report(explanation: Explanation) -> bool:
    """Print one ladder in a few lines. Return whether it keeps what `explain` promises."""
    ladder = explanation.ladder
    steps = combined(step.effect for step in ladder.steps)
    is_share = 0 <= explanation.untouched.values["accuracy"] <= 1
    makes_whole = agree(steps, ladder.whole)
    interacting = [step.name for step in ladder.interacting]
    print(f"\n{explanation.study}, trial {explanation.trial}: {ladder.recipe.describe()}")
    for name, effect in (("steps", steps), ("whole", ladder.whole), ("alone", ladder.apart)):
        if effect is not None:
            print(f"  {name}  {say_factor(effect.speedup):<26} {say_accuracy(effect.accuracy, is_share=is_share)}")
    verdict = {None: "not all knobs were measured alone", True: "the knobs multiply", False: "the knobs do not multiply"}
    print(f"  {verdict[ladder.knobs_multiply]}; interact: {', '.join(interacting) or 'none'}; missing: {len(explanation.missing)}")
    return makes_whole and (ladder.knobs_multiply is True or bool(interacting))


if __name__ == "__main__":
    main()
