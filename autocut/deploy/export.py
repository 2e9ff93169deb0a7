"""Export: hand out the bundle of a trial. One that the search made is copied; any other is made now, from the trial's stages."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from statistics import median

from autocut.bill import serving_of
from autocut.budget import format_duration
from autocut.deploy.bundle import copy_bundle, hand_out, told_as_bundle_error
from autocut.deploy.finalize import FinalizationRequest, finalize
from autocut.deploy.manifest import read_manifest
from autocut.errors import InputError, NoResultError, TrialError, VerificationError, quoted
from autocut.pipeline.opened_pipeline import open_pipeline
from autocut.pipeline.signing import key_file
from autocut.pipeline.stage_cache import StageCache
from autocut.price import Price
from autocut.search.jobs import TEST_SCORING, StageStarted
from autocut.study import Study, TrialRecord, open_study
from autocut.study.trials import measured_trial


def export_trial(
    folder: Path, trial: int, to: Path, command: str = "autocut export", *, examples: bool | None = None, retrain: bool = False
) -> Path:
    """Write the bundle of `trial` of the study in `folder` to `to`, verified.

    A trial that was never finalized is exported from its cached stages, measured on the locked test split and verified, as at
    the end of a search. This needs the task's own code. So is one whose bundle has other examples than `examples` asks for: real
    ones of the test split, or synthetic ones; None leaves them as they are, and for a new bundle as the search was told.

    A model whose trained weights are gone from the stages is trained again only with `retrain`: that takes long, and the new
    weights are not those that the search has measured.

    Returns:
        `to`.

    Raises:
        StudyError: no such study or trial, the trial has no measurement, or other library versions made its stages.
        NoResultError: its trained weights are gone, or it cannot be exported any more.
        BundleError: `to` holds something else.
        InputError: real examples are asked for, but the task keeps them to itself.
        VerificationError: the bundle does not give what it claims.
    """
    study = open_study(folder)
    try:
        record = measured_trial(study.trials(), trial, "--trial", study.folder)
        final = study.finals().get(trial)
        made = study.folder / final.bundle if final is not None and final.verified and final.bundle is not None else None
        if made is not None and (examples is None or examples != bool(read_manifest(made).verification.synthetic)):
            hand_out(to, partial(_copy, made, to))
        else:
            hand_out(to, partial(_make, study, record, command, examples, retrain))
    finally:
        study.close()
    return to


def _copy(source: Path, to: Path, draft: Path) -> None:
    with told_as_bundle_error(to):
        copy_bundle(source, draft)


def _make(study: Study, record: TrialRecord, command: str, examples: bool | None, retrain: bool, to: Path) -> None:
    reference = study.reference
    pipeline = open_pipeline(study, [record], partial(_watch, study, record.trial, retrain))
    task, facts = pipeline.runner.context.task, study.facts
    if record.recipe is None or reference is None:
        raise ValueError(f"trial {record.trial} was found without a recipe, or the study without a reference")
    if examples and not task.share_examples:
        raise InputError(
            f"--examples must not be given for task {quoted(task.name)}, which has share_examples=False", "leave --examples out"
        )
    shares = bool(facts.get("share_examples", True)) if examples is None else examples
    price = Price(**facts["price"])
    validation = None if record.measured is None else record.measured.measurement.accuracy
    request = FinalizationRequest(
        to, record.trial, price, reference, study.spent_s(), command,
        share_examples=shares, serving=serving_of(facts), validation=validation, spent_s=study.paid_s(),
    )  # fmt: skip
    try:
        done = finalize(pipeline, record.recipe, request)
    except TrialError as error:
        raise NoResultError(f"trial {record.trial} must be exportable, but is not any more: {error.message}", error.hint) from error
    if done.refusal is not None:
        raise VerificationError(
            f"trial {record.trial} must give in a bundle what it gave in the search, but does not: {done.refusal}",
            f"choose another one: autocut front {study.folder}",
        )


def _watch(study: Study, trial: int, retrain: bool, event: object) -> None:
    """Count the look at the locked test split when it begins, and let nothing be trained unless it is to."""
    if isinstance(event, StageStarted) and event.stage == TEST_SCORING:
        study.record_look(trial, "export")
    if not retrain:
        _refuse_training(study, trial, event)


def _refuse_training(study: Study, trial: int, event: object) -> None:
    """Stop before a training begins: the weights that the search has measured are gone."""
    if isinstance(event, StageStarted) and (event.stage == "train" or (event.stage, event.method) == ("baseline", "train")):
        what = "the untouched model" if event.stage == "baseline" else "its trained model"
        if StageCache(study.stages_dir, sys.maxsize).unsigned():
            raise NoResultError(
                f"trial {trial} needs {what} in the stages of {study.folder}, but stages there are not signed with {key_file()}",
                "if only you can write to this folder, run its search command once more with --adopt-stages",
            )
        took = [
            run.seconds for run in study.stage_runs() if (run.stage, run.method) == (event.stage, event.method) and not run.cached
        ]
        takes = f" (about {format_duration(median(took))})" if took else ""
        raise NoResultError(
            f"trial {trial} needs {what} in the stages of {study.folder}, but it is gone from there",
            f"--retrain trains it again{takes}; the new weights differ from those that were measured",
        )
