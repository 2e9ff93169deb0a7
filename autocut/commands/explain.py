"""`autocut explain`: which knob of a trial bought what, measured."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from autocut.commands.front import STUDY
from autocut.commands.verb import DURATION, JSON, verb
from autocut.console import Console

if TYPE_CHECKING:
    from autocut.attribution.effects import Effect
    from autocut.attribution.explanation import Explanation
    from autocut.schemas.attribution import EffectPart, ExplainDocument


@verb(
    "explain",
    "Say which knob of a trial bought what.",
    "autocut explain studies/digits 7",
    "autocut explain studies/digits 7 --budget 10m",
    "autocut explain studies/digits 7 --no-measure --json",
)
@STUDY
@click.argument("trial", type=click.IntRange(0))
@click.option("--measure/--no-measure", default=True, show_default=True, help="Measure the steps that the search did not measure.")
@click.option("--budget", type=DURATION, default="5m", show_default=True,
              help="Time for measuring. A training is begun only if it fits.")  # fmt: skip
@JSON
@click.pass_obj
def explain(console: Console, study: Path, trial: int, measure: bool, budget: float, as_json: bool) -> int:
    """Explain TRIAL of STUDY: the ladder from the untouched model to its recipe, one knob at a time.

    Each step is measured: what the search did not measure is measured now, from its stored stages, and stored for the next time.
    Each knob is also measured alone on the untouched model, because gains do not always multiply. All numbers are of the
    validation split.
    """
    from autocut.attribution.explanation import explain_trial
    from autocut.attribution.table import LADDER_COLUMNS, ladder_rows

    with console.busy(f"explaining trial {trial}") as now_doing:
        explanation = explain_trial(study, trial, budget_s=budget if measure else None, tell=now_doing)
    if as_json:
        console.document(_document(explanation).plain())
        return 0
    if explanation.ladder.steps:
        console.table(LADDER_COLUMNS, ladder_rows(explanation))
        console.data("")
    console.prose("\n".join(explanation.sentences))
    if explanation.missing:
        console.data("\nNot measured:")
        console.table(["recipe", "why"], [(recipe.describe(), reason) for recipe, reason in explanation.missing.items()])
        if hint := _hint(study, trial, explanation.missing.values(), measure=measure):
            console.info(hint)
    _print_importance(console, explanation)
    return 0


def _print_importance(console: Console, explanation: Explanation) -> None:
    """Print what separates the best trials of the whole study from the others."""
    from autocut.attribution.sentences import importance_sentence

    if explanation.importance_refused:
        console.remark(explanation.importance_refused)
        return
    console.data("\nOver the whole study:")
    for importance in explanation.importance:
        console.prose(importance_sentence(importance))


def _hint(study: Path, trial: int, reasons: Iterable[str], *, measure: bool) -> str | None:
    """Return what to type for the steps that were not measured; None where more time does not help, by their reasons."""
    command = f"autocut explain {study} {trial}"
    if not measure:
        return f"measure it: {command}"
    return f"with more time: {command} --budget 1h" if any("--budget" in reason for reason in reasons) else None


def _document(explanation: Explanation) -> ExplainDocument:
    from autocut.schemas.attribution import ExplainDocument, ImportancePart, MissingPart, StepPart

    ladder = explanation.ladder
    steps = tuple(
        StepPart(
            name=step.name,
            recipe=dict(step.rung.recipe),
            values=dict(step.rung.values),
            effect=_part(step.effect),
            apart=None if step.apart is None else _part(step.apart),
            bought_nothing=step.bought_nothing,
            interacts=step.interacts,
        )
        for step in ladder.steps
    )
    return ExplainDocument(
        study=explanation.study,
        trial=explanation.trial,
        recipe=dict(ladder.recipe),
        split="validation",
        steps=steps,
        whole=_part(ladder.whole) if steps else None,
        apart=_part(ladder.apart) if steps and ladder.apart else None,
        knobs_multiply=ladder.knobs_multiply if steps else None,
        longer_training=_part(ladder.longer_training) if ladder.longer_training else None,
        sentences=explanation.sentences,
        missing=tuple(MissingPart(recipe=dict(recipe), reason=reason) for recipe, reason in explanation.missing.items()),
        importance=tuple(
            ImportancePart(value=one.value, trials=one.trials, shares=dict(one.shares)) for one in explanation.importance
        ),
        importance_refused=explanation.importance_refused,
    )


def _part(effect: Effect) -> EffectPart:
    from autocut.schemas.attribution import EffectPart

    numbers: dict[str, Any] = {name: getattr(effect, name) for name in EffectPart.model_fields}
    return EffectPart(**numbers)
