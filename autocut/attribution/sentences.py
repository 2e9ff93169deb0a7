"""The sentences below a ladder: what the whole is, which knob bought what, and which knobs depend on others. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from autocut.attribution.effects import LadderRung
from autocut.attribution.ladder import Ladder, LadderStep
from autocut.attribution.words import say_accuracy, say_briefly, say_effect, say_factor, say_smaller, say_speed
from autocut.counting import format_count
from autocut.gains import decimals
from autocut.study.importance import ValueImportance

_TOLD_SHARE = 0.05


def sentences_of(ladder: Ladder, trial: int, untouched: LadderRung) -> tuple[str, ...]:
    """Return the sentences about the ladder to `trial`."""
    is_share = 0 <= untouched.values["accuracy"] <= 1
    whole = say_effect(ladder.whole, is_share=is_share)
    first = f"Trial {trial} ({ladder.recipe.describe()}), compared with the untouched model, as one process: {whole}."
    return (
        first,
        *_about_steps(ladder.steps, is_share=is_share),
        *_about_apart(ladder, is_share=is_share),
        *_about_training(ladder, is_share=is_share),
        *_about_pairs(ladder.steps),
    )


def importance_sentence(importance: ValueImportance) -> str:
    """Return such as ``accuracy: the best 5 of 46 trials differ from the others in prune.ratio (35%), train.epochs (11%)``."""
    told = [f"{name} ({share:.0%})" for name, share in importance.shares.items() if share >= _TOLD_SHARE]
    of_all = f"{importance.best} of {format_count(importance.trials, 'trial')}"
    return f"{importance.value}: the best {of_all} differ from the others in {', '.join(told)}"


def _about_steps(steps: Sequence[LadderStep], *, is_share: bool) -> Iterator[str]:
    """Say who bought speed, who costs or brings accuracy, and who bought nothing."""
    if len(steps) < 2:
        return
    faster = [step for step in steps if step.effect.speedup.low > 1]
    if faster:
        most = max(faster, key=lambda step: step.effect.speedup.value)
        others = [step for step in steps if step is not most and step in faster]
        beside = f"; {', '.join(f'{step.name} adds {say_factor(step.effect.speedup)}' for step in others)}" if others else ""
        yield f"The most speed comes from {most.name}: {say_factor(most.effect.speedup)}{beside}."
    slower = [f"{step.name} is {say_speed(step.effect)}" for step in steps if step.effect.speedup.high < 1]
    if slower:
        yield f"{', '.join(slower)}."
    costs = [step for step in steps if step.effect.accuracy.high < 0]
    brings = [step for step in steps if step.effect.accuracy.low > 0]
    told = [f"{step.name} costs {_unsigned(step, is_share=is_share)}" for step in costs]
    told += [f"{step.name} brings {_unsigned(step, is_share=is_share)}" for step in brings]
    yield f"Of the accuracy, {', '.join(told)}." if told else "No single step changes the accuracy for sure."
    if smaller := [f"{step.name} ({' '.join(say_smaller(step.effect))})" for step in steps if step.effect.is_smaller]:
        yield f"Smaller files come from {', '.join(smaller)}."
    if nothing := [step.name for step in steps if step.bought_nothing]:
        yield f"Bought nothing: {', '.join(nothing)}. Neither accuracy nor speed nor size became better for sure."


def _about_apart(ladder: Ladder, *, is_share: bool) -> Iterator[str]:
    """Say whether the knobs multiply, and name those that do something else alone."""
    if len(ladder.steps) > 1 and ladder.apart is not None:
        apart, whole = (
            f"{say_factor(effect.speedup)} and {say_accuracy(effect.accuracy, is_share=is_share)}"
            for effect in (ladder.apart, ladder.whole)
        )
        if ladder.knobs_multiply:
            yield f"The knobs multiply: alone they make {apart} together, and measured together {whole}."
        else:
            yield f"The knobs do not multiply: alone they would make {apart}, but measured together {whole}."
    for step in ladder.interacting:
        if step.apart is not None:
            here, alone = (say_briefly(effect, is_share=is_share) for effect in (step.effect, step.apart))
            depends = "depends on the knobs before it" if step.interacts else "differs most, but may do so by chance"
            yield f"{step.name} {depends}: here {here}; alone {alone}."


def _about_training(ladder: Ladder, *, is_share: bool) -> Iterator[str]:
    """Separate what longer training would have given the untouched model too."""
    if ladder.longer_training is None or ladder.beyond_training is None:
        return
    trained = say_effect(ladder.longer_training, is_share=is_share)
    beyond = say_effect(ladder.beyond_training, is_share=is_share)
    epochs = ladder.recipe.all_epochs
    long = format_count(epochs, "epoch")
    yield f"The untouched model trained as long ({long}), compared with the untouched one: {trained}."
    yield f"The recipe, compared with that longer training: {beyond}."


def _about_pairs(steps: Sequence[LadderStep]) -> Iterator[str]:
    """Name the steps whose two accuracies were not compared example by example."""
    if unpaired := [step.name for step in steps if not step.effect.is_paired]:
        yield f"Not compared on the same examples, so with a wider interval: the accuracy of {', '.join(unpaired)}."


def _unsigned(step: LadderStep, *, is_share: bool) -> str:
    difference = step.effect.accuracy
    if not is_share:
        return f"{abs(difference.value):.3g}"
    low, high = sorted((abs(100 * difference.low), abs(100 * difference.high)))
    digits = f".{decimals(100 * difference.value, least=1)}f"
    return f"{abs(100 * difference.value):{digits}} points ({low:{digits}} to {high:{digits}})"
