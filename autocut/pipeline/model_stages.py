"""The stages that make a model's weights: build or train the untouched model, prune, train."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from autocut.measure.cores import Loan
from autocut.measurement import Rung
from autocut.pipeline.measuring_stages import run_eagerly
from autocut.pipeline.scoring import score
from autocut.pipeline.stage_cache import Entry
from autocut.pipeline.stage_runner import Facts, Stage, StageRunner, charged_s
from autocut.pipeline.teacher_outputs import TeacherOutputs, TeacherStages, order_of
from autocut.recipe import FEATURES, INPUT_GROWTH, QUANTIZATION_AWARE, STUDENT, Recipe, Value
from autocut.search.jobs import TrainingPaced
from autocut.stages.model_files import Prefix, restore_model, save_model, structure_of
from autocut.stages.prune import PruneData, pruners
from autocut.stages.train import (
    Epoch,
    Speed,
    curricula,
    distillations,
    fake_quantizers,
    feature_losses,
    input_growths,
    train_model,
)
from autocut.stages.train.plan import TRAINER_VERSION
from autocut.task.batches import take

_PRUNE = "prune"
_PRUNE_BATCHES = 8
_FILL = 0.02


def untouched_stage(runner: StageRunner) -> Stage[None]:
    """Return the stage that makes the untouched model: with the task's own weights, or trained where the task brings none."""
    task = runner.context.task
    trains = not task.is_pretrained
    epochs = runner.context.untouched_epochs or task.epochs
    settings: dict[str, Value] = {"train.epochs": epochs} if trains else {}
    key = untouched_key(runner, epochs)

    def make(folder: Path, _: None) -> Facts:
        model = task.build_model()
        masks = task.folded.masks
        if trains:
            return _train(runner, key, model, masks, settings, TeacherOutputs(), folder)
        save_model(folder, model, masks)
        return {"samples_seen": 0, "train_seconds": 0.0}

    return Stage("baseline", "train" if trains else "build", "training", key, _nothing, make)


def untouched_key(runner: StageRunner, epochs: int) -> str:
    """Return the key of the untouched model, which is trained for `epochs` where the task brings no weights."""
    if runner.context.task.is_pretrained:
        return runner.key("", "baseline", {}, method=0)
    return runner.key("", "baseline", {"train.epochs": epochs}, method=TRAINER_VERSION, **runner.trained_on)


def untrained_stage(runner: StageRunner) -> Stage[None]:
    """Return the stage that makes a model of the untouched model's structure without training it, to time what needs no weights.

    A matrix that begins with zeros alone gets random numbers: training would fill it, and zeros are part of a structure.
    """

    def make(folder: Path, _: None) -> None:
        model = runner.context.task.build_model()
        generator = torch.Generator().manual_seed(runner.context.seed)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1 and parameter.is_floating_point() and not parameter.any():
                    parameter.copy_(_FILL * torch.randn(parameter.shape, generator=generator))
        save_model(folder, model, {})

    return Stage("untrained", "build", "training", runner.key("", "untrained", {}), _nothing, make)


def scratch_stage(runner: StageRunner) -> Stage[None]:
    """Return the stage that builds the task's model before any training."""

    def make(folder: Path, _: None) -> None:
        task = runner.context.task
        save_model(folder, task.build_model(), task.folded.masks)

    return Stage("scratch", "build", "training", runner.key("", "scratch", {}), _nothing, make)


def student_stage(runner: StageRunner, name: str) -> Stage[None]:
    """Return the stage that builds the task's student `name` before any training."""
    task = runner.context.task
    with runner.working():
        key = runner.key("", "student", {STUDENT: name}, student=task.student_hash(name))

    def make(folder: Path, _: None) -> None:
        save_model(folder, task.build_student(name), {})

    return Stage("student", name, "training", key, _nothing, make)


def prune_stage(runner: StageRunner, parent: Prefix, recipe: Recipe, original: nn.Module) -> Stage[None]:
    """Return the stage that prunes `parent` as `recipe` says; its ratio counts from the model `original`."""
    settings = {name: recipe[name] for name in ("prune.method", "prune.ratio")}
    method = pruners.method(str(recipe["prune.method"]))

    def make(folder: Path, _: None) -> None:
        task = runner.context.task
        with runner.working():
            batches = runner.context.samples.batches(_PRUNE_BATCHES, task.batch_size)
            data = PruneData(take(batches[0][0], 2), batches, task.metric_kind.loss, original)
            pruned = pruners[method.name](parent.model, float(recipe["prune.ratio"]), data)
            save_model(folder, pruned.model, pruned.masks)

    key = runner.key(parent.key, _PRUNE, settings, method=method.version)
    return Stage(_PRUNE, method.name, "training", key, _nothing, make)


def train_stage(runner: StageRunner, teacher: TeacherStages, parent: Prefix, recipe: Recipe) -> Stage[TeacherOutputs]:
    """Return the stage that trains `parent` as `recipe` says, with what it needs from `teacher`."""
    settings = recipe.settings("train", "curriculum", "distill")
    schedule = curricula.method(str(recipe["curriculum.schedule"]))
    loss = distillations.method(str(recipe["distill.loss"]))
    versions = [TRAINER_VERSION, schedule.version, order_of(recipe).version, loss.version]
    if QUANTIZATION_AWARE in recipe:
        versions.append(fake_quantizers.method(str(recipe[QUANTIZATION_AWARE])).version)
    if INPUT_GROWTH in recipe:
        versions.append(input_growths.method(str(recipe[INPUT_GROWTH])).version)
    if FEATURES in recipe:
        versions.append(feature_losses.method(str(recipe[FEATURES])).version)
    own_teacher = teacher.own_teacher_of(recipe)
    key = runner.key(parent.key, "train", settings, method=versions, teacher=own_teacher, **runner.trained_on)

    def make(folder: Path, outputs: TeacherOutputs) -> Facts:
        return _train(runner, key, parent.model, parent.masks, settings, outputs, folder)

    prepare = partial(teacher.outputs_for, recipe, parent.model)
    return Stage("train", f"{schedule.name}/{loss.name}", "training", key, prepare, make)


def read_model(runner: StageRunner, entry: Entry, parent: Prefix | None = None) -> Prefix:
    """Read the model of a finished stage of this file; `parent` is the model that the stage started from."""
    lineage, seconds, samples = (parent.lineage, parent.train_seconds, parent.samples_seen) if parent else ((), 0.0, 0)
    # Pruning counts as training, and its own seconds are all that it takes.
    threads = runner.context.threads
    seconds += charged_s(entry, threads) if entry.stage == _PRUNE else entry.facts.get("train_seconds", 0.0)
    samples += entry.facts.get("samples_seen", 0)
    with runner.working():
        model, masks = restore_model(entry.folder)
        return Prefix(model, masks, (*lineage, entry.key), seconds, samples, structure_of(model))


def _train(
    runner: StageRunner, key: str, model: nn.Module, masks: Mapping[str, Tensor], settings: Mapping[str, Value],
    outputs: TeacherOutputs, folder: Path,
) -> Facts:  # fmt: skip
    context = runner.context
    with runner.training() as device:
        loan = Loan(context.quiet.folder) if device.is_cpu else None
        speed = Speed(loan, lambda seconds_left: runner.report(TrainingPaced(seconds_left)))
        trained = train_model(
            model, context.task, settings, masks=masks, teacher=outputs.teacher, difficulty=outputs.difficulty, seed=context.seed,
            checkpoint=runner.cache.checkpoint(key), on_epoch=partial(_report_rung, runner), gate=runner.working,
            stop=context.stop, speed=speed, device=device,
        )  # fmt: skip
    save_model(folder, trained.model, masks)
    own_s = trained.cpu_seconds / context.threads if device.is_cpu else trained.seconds
    return {
        **runner.trained_on,
        "samples_seen": trained.samples_seen,
        # Of the same kind as `charged_s`. A stage of an earlier autocut has wall seconds here.
        "train_seconds": own_s + outputs.seconds,
        "cpu_seconds": trained.cpu_seconds,
        "wall_seconds": trained.seconds,
        "fresh_samples": trained.samples_seen - trained.resumed_samples,
        "borrowed_s": trained.borrowed_s,
        "saved_s": trained.saved_s,
    }


def _report_rung(runner: StageRunner, epoch: Epoch) -> None:
    """Score the model after an epoch where it trains. The scores that count are taken later, where models are served."""
    task, device, predict = runner.context.task, runner.context.device, run_eagerly(epoch.model)
    scores = score(runner, lambda inputs: predict(device.move_inputs(inputs)).cpu(), task.validation_data)
    runner.report(Rung(epoch.number, epoch.epochs, float(task.metric_kind.summarize(scores.scores, scores.targets))))


def _nothing() -> None:
    """Prepare nothing: the stage starts from what is in memory."""
