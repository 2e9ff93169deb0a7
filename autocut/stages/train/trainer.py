"""Trains a model: a task's baseline from scratch, or the recovery of a pruned one.

An epoch depends on (settings, seed, epoch) alone, so a training that was killed goes on from its checkpoint to the same weights.
"""

from __future__ import annotations

import contextlib
import copy
import json
import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autocut.counting import format_count
from autocut.errors import DeadlineError, DivergedError
from autocut.recipe import Value
from autocut.stages.cpu_time import cpu_seconds
from autocut.stages.device import CPU, Device, on_cpu
from autocut.stages.train.averaging import averaged_weights
from autocut.stages.train.checkpoint import read_checkpoint, write_checkpoint
from autocut.stages.train.checks import CheckedTraining, check_training
from autocut.stages.train.current_losses import CurrentLosses, current_losses
from autocut.stages.train.fake_quantization import fake_quantization, is_quantization_aware
from autocut.stages.train.features import FeatureDistillation
from autocut.stages.train.loss import TrainingLoss, weighted
from autocut.stages.train.ordering import planned_order
from autocut.stages.train.plan import DEFAULTS, draw_epoch, learning_rate_factor, planned_sizes
from autocut.stages.train.speed import LONG_S, CoreLoan, Speed
from autocut.stages.train.teacher import Gate, Teacher
from autocut.task.batches import Batch, call
from autocut.task.splits import length
from autocut.task.task import Task, seeded

_TIMED_BATCHES, _TIMED_S = 4, 1.0
"""A prediction takes this many batches, and up to `_MOST_TIMED_BATCHES` until they have taken this many seconds."""
_MOST_TIMED_BATCHES = 20


@dataclass(frozen=True)
class EpochRecord:
    """One finished epoch.

    `samples_seen`, `seconds` and `cpu_seconds` count from the start of the training, without time spent waiting or in callbacks.
    """

    number: int
    epochs: int
    train_loss: float
    samples_seen: int
    seconds: float
    cpu_seconds: float


@dataclass(frozen=True)
class Epoch(EpochRecord):
    """What `on_epoch` gets: the record, and the model in eval mode, where it trains.

    The model trains on afterwards: copy what you want to keep.
    """

    model: nn.Module = field(repr=False, compare=False)


@dataclass(frozen=True)
class Trained:
    """A trained copy in eval mode on the CPU, and its cost. An earlier process saw `resumed_samples` of the samples.

    `borrowed_s` are the seconds that borrowed cores worked for this process, added up over the cores. `saved_s` is by how much they
    shortened the training.
    """

    model: nn.Module
    samples_seen: int
    seconds: float
    cpu_seconds: float
    history: tuple[EpochRecord, ...]
    resumed_samples: int = 0
    borrowed_s: float = 0.0
    saved_s: float = 0.0


def train_model(
    model: nn.Module,
    task: Task,
    settings: Mapping[str, Value],
    *,
    masks: Mapping[str, Tensor] | None = None,
    teacher: Teacher | None = None,
    difficulty: NDArray[np.float64] | None = None,
    seed: int = 0,
    checkpoint: Path | None = None,
    on_epoch: Callable[[Epoch], None] = lambda _: None,
    gate: Gate = contextlib.nullcontext,
    stop: Callable[[], bool] = lambda: False,
    speed: Speed | None = None,
    device: Device = CPU,
) -> Trained:
    """Train a copy of `model` on the task's training split.

    The optimizer is the task's. Its learning rates, times ``train.lr_scale``, rise over 5% of the samples and fall along a cosine.

    Args:
        model: Not modified.
        task: Data, loss, optimizer and batch size.
        settings: ``train.*``, ``curriculum.*`` and ``distill.*`` of a recipe; missing ones come from `plan.DEFAULTS`.
        masks: By parameter name; weights where a mask is False are zero after every step.
        teacher: Needed by a distillation loss.
        difficulty: Loss of the teacher on each training example, shape (n,); needed by an order that ranks by it.
        seed: Decides shuffling, dropout and random augmentation. The global random state is left as it was.
        checkpoint: File written (atomically) after every epoch. If it exists, training goes on from it. It stays at the end.
        on_epoch: Called after every epoch, and after a resume again for the last finished one.
        gate: Makes a context that is entered around every batch. Waiting for it is not counted as training.
        stop: Called before every batch.
        speed: Watches the batches, and lends cores to a long training. Default: one that lends none.
        device: Where the training computes; all else is given and returned on the CPU.

    Returns:
        The trained copy, or the average of its weights; `samples_seen` counts each example each time, over resumes too.

    Raises:
        InfeasibleRecipeError: `check_training` refuses it, or the task leaves tensors on the CPU.
        DivergedError: A loss is not finite.
        DeadlineError: `stop()` was true; the checkpoint of the last whole epoch stays.
        OutOfMemoryError: Memory ran out.
        StudyError: The checkpoint was written for other settings.
    """
    merged = {**DEFAULTS, **settings}
    sizes = planned_sizes(merged, length(task.train_data), task.batch_size)
    checked = check_training(merged, model, task, teacher, sizes, gate)
    order = planned_order(merged, length(task.train_data), difficulty, seed)
    losses = current_losses(merged, length(task.train_data), difficulty, task.metric_kind)
    run = _Run(_placed(model, masks or {}, teacher, device), task, merged, seed, sizes, speed or Speed(), losses, checked)
    run.restore(checkpoint, on_epoch)
    with run.speed.watching(run.growth.cost_left(run.resumed_samples, sum(sizes))):
        for number in range(len(run.history) + 1, len(sizes) + 1):
            with device.errors_translated(), seeded(_epoch_seed(seed, number)):
                run.train_epoch(number, order, gate, stop)
            run.save(checkpoint)
            on_epoch(run.epoch_for_callback())
    return run.trained()


def sample_seconds(
    model: nn.Module,
    task: Task,
    *,
    loan: CoreLoan | None = None,
    gate: Gate = contextlib.nullcontext,
    stop: Callable[[], bool] = lambda: False,
    device: Device = CPU,
) -> float:
    """Predict the seconds that one sample of the training of `model` takes: a few batches train a copy that is thrown away.

    They compute on `device`, as the training will. Where a training of `task.epochs` would be long, the free cores of `loan` are
    used, as the training itself will use them.

    Raises:
        DivergedError: A loss is not finite.
        DeadlineError: `stop()` was true.
        OutOfMemoryError: Memory ran out.
    """
    sizes = planned_sizes({"train.epochs": task.epochs}, length(task.train_data), task.batch_size)
    order = np.random.default_rng(0).permutation(length(task.train_data))[: sizes[0]]  # long examples may stand together
    run = _Run(_placed(model, {}, None, device), task, {**DEFAULTS, "train.epochs": task.epochs}, 0, sizes, Speed())
    with device.errors_translated(), seeded(_epoch_seed(0, 1)):
        seconds = run.time_batches(order, gate, stop)
        if loan is not None and seconds * sum(sizes) > LONG_S:
            with contextlib.closing(loan):
                loan.renew()
                seconds = min(seconds, run.time_batches(order, gate, stop))
    return seconds


@dataclass(frozen=True)
class _Placed:
    """What a training computes with, all of it on `device`: a copy of the model, and the masks of its parameters."""

    model: nn.Module
    masked: list[tuple[nn.Parameter, Tensor]]
    teacher: Teacher | None
    device: Device


def _placed(model: nn.Module, masks: Mapping[str, Tensor], teacher: Teacher | None, device: Device) -> _Placed:
    with device.errors_translated():
        copied = device.place_for_training(copy.deepcopy(model))
        masked = [(copied.get_parameter(name), device.move(mask)) for name, mask in masks.items()]
        return _Placed(copied, masked, teacher and teacher.placed_on(device), device)


class _Run:
    """The state of one training, which a checkpoint holds."""

    def __init__(
        self, placed: _Placed, task: Task, settings: Mapping[str, Value], seed: int, sizes: tuple[int, ...], speed: Speed,
        losses: CurrentLosses | None = None, checked: CheckedTraining | None = None,
    ) -> None:  # fmt: skip
        self.model = model = placed.model
        self.masked = placed.masked
        self.fake_quantization = fake_quantization(settings)
        # Rounded to integers is rounded enough: bfloat16 would move numbers off the grid that the training learns to bear.
        self.mixed = contextlib.nullcontext() if is_quantization_aware(settings) else placed.device.mixed()
        self.teacher = placed.teacher
        checked = checked or CheckedTraining()
        self.growth = checked.growth
        self.features = FeatureDistillation(checked.features, settings, model, placed.teacher, placed.device, seed)
        self.device = placed.device
        self.task = task
        self.settings = settings
        self.seed = seed
        self.sizes = sizes
        parameters = [*model.parameters(), *self.features.adapters.parameters()]
        self.optimizer = task.build_optimizer([parameter for parameter in parameters if parameter.requires_grad])
        self.base_rates = [float(group["lr"]) * float(settings["train.lr_scale"]) for group in self.optimizer.param_groups]
        self.loss = TrainingLoss(task.metric_kind, settings)
        self.history: list[EpochRecord] = []
        self.samples_seen = self.resumed_samples = 0
        self.seconds = self.cpu_seconds = 0.0
        self.speed = speed
        self.losses = losses
        self.average = averaged_weights(settings, model)

    def train_epoch(self, number: int, order: NDArray[np.int64], gate: Gate, stop: Callable[[], bool]) -> None:
        """Train on the examples that the plan draws from `order` for this epoch."""
        size = self.sizes[number - 1]
        indices, weights = self._draw_epoch(number, order)
        batches = iter(self.task.loader(self.task.train_data, self.task.batch_size, indices=indices))
        self.model.train()
        summed, done = 0.0, 0
        while done < size:
            if stop():
                raise DeadlineError(
                    f"the time granted to the trial is up in epoch {number} of {len(self.sizes)}, "
                    f"after {done:,} of {format_count(size, 'sample')}"
                )
            self.speed.before_batch()
            with gate():
                started, cpu_started = time.perf_counter(), cpu_seconds()
                batch = next(batches)
                count = len(batch[1])
                part = slice(done, done + count)
                summed += count * self._step(batch, indices[part], None if weights is None else weights[part])
                done += count
                self.samples_seen += count
                seconds = time.perf_counter() - started
                self.seconds += seconds
                self.cpu_seconds += cpu_seconds() - cpu_started
            self.speed.after_batch(count * self.growth.cost(self.samples_seen / sum(self.sizes)), seconds)
        self._wait()
        self.history.append(EpochRecord(number, len(self.sizes), summed / done, self.samples_seen, self.seconds, self.cpu_seconds))

    def _draw_epoch(self, number: int, order: NDArray[np.int64]) -> tuple[Tensor, Tensor | None]:
        """Return the examples of an epoch and, where they differ, their weights."""
        generator = np.random.default_rng([self.seed, number])
        if self.losses is None:
            return torch.from_numpy(draw_epoch(number, self.settings, order, self.sizes, self.task.batch_size, generator)), None
        drawn, weights = self.losses.draw_epoch(self.sizes[number - 1], generator)
        return torch.from_numpy(drawn), None if weights is None else torch.from_numpy(weights)

    def time_batches(self, order: NDArray[np.int64], gate: Gate, stop: Callable[[], bool]) -> float:
        """Return the median seconds a sample of a few batches; the first batch, which is slow, counts only where it is alone."""
        seen: list[float] = []
        loader = self.task.loader(self.task.train_data, self.task.batch_size, indices=torch.from_numpy(order))
        batches = iter(loader)
        self.model.train()
        began, samples = time.perf_counter(), sum(self.sizes)
        for _ in range(min(_MOST_TIMED_BATCHES, len(loader))):
            if stop():
                raise DeadlineError("the time granted to the trial is up while its training is timed")
            with gate():
                started = time.perf_counter()
                batch = next(batches)
                self._step(batch, torch.from_numpy(order[: len(batch[1])]))
                self.device.wait()
                seen.append((time.perf_counter() - started) / len(batch[1]))
            is_short = statistics.median(seen) * samples < LONG_S / 2
            if len(seen) >= _TIMED_BATCHES and (is_short or time.perf_counter() - began > _TIMED_S):
                break
        return statistics.median(seen[1:] or seen)

    def epoch_for_callback(self) -> Epoch:
        """Return the last finished epoch with the model in eval mode."""
        return Epoch(**asdict(self.history[-1]), model=self._result())

    def _result(self) -> nn.Module:
        return self.model.eval() if self.average is None else self.average.model

    def save(self, path: Path | None) -> None:
        """Write the state, if `path` is given."""
        if path is None:
            return
        state = {
            "identity": self._identity(),
            "model": on_cpu(self.model.state_dict()),
            "optimizer": on_cpu(self.optimizer.state_dict()),
            "history": [asdict(record) for record in self.history],
        }
        if self.average is not None:
            state["average"] = self.average.state()
        if adapters := self.features.state():
            state["adapters"] = adapters
        if self.losses is not None:
            state["losses"] = self.losses.state()
        write_checkpoint(path, state)

    def restore(self, path: Path | None, on_epoch: Callable[[Epoch], None]) -> None:
        """Go on from `path`, if it is given and there, and call `on_epoch` for the last epoch in it.

        Raises:
            StudyError: it cannot be read, or was written for other settings, data or seed.
        """
        state = None if path is None else read_checkpoint(path, self._identity())
        if state is None:
            return
        self.model.load_state_dict(state["model"])
        self.features.adapters.load_state_dict(state.get("adapters", {}))
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.restore(state["average"])
        if self.losses is not None:
            self.losses.restore(state["losses"])
        # A checkpoint of an earlier autocut has no CPU seconds.
        self.history = [EpochRecord(**{"cpu_seconds": record["seconds"], **record}) for record in state["history"]]
        last = self.history[-1]
        self.samples_seen = self.resumed_samples = last.samples_seen
        self.seconds, self.cpu_seconds = last.seconds, last.cpu_seconds
        on_epoch(self.epoch_for_callback())

    def trained(self) -> Trained:
        """Return what has been trained."""
        history, speed = tuple(self.history), self.speed
        model = self.device.finish_training(self._result())
        return Trained(
            model, self.samples_seen, self.seconds, self.cpu_seconds, history, self.resumed_samples, speed.borrowed_s, speed.saved_s
        )

    def _wait(self) -> None:
        """Wait for the last step of an epoch: a GPU may still compute it."""
        started = time.perf_counter()
        self.device.wait()
        self.seconds += time.perf_counter() - started

    def _identity(self) -> str:
        masked = sum(int(mask.numel() - mask.sum()) for _, mask in self.masked)
        return json.dumps(
            {"settings": dict(self.settings), "seed": self.seed, "sizes": self.sizes, "masked": masked}, sort_keys=True
        )

    def _step(self, batch: Batch, indices: Tensor, weights: Tensor | None = None) -> float:
        inputs, targets = self.device.move_inputs(batch[0]), self.device.move(batch[1])
        factor = learning_rate_factor(self.samples_seen + len(targets) // 2, sum(self.sizes))
        for group, rate in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = rate * factor
        shown = self.growth.shown(inputs, (self.samples_seen + len(targets)) / sum(self.sizes))
        with self.mixed, self.fake_quantization, self.features.watching():
            outputs = self.device.unmixed(call(self.model, shown))
        targets = self.growth.answered(targets, outputs)
        teacher = self.teacher if self.loss.needs_teacher else None
        with self.mixed:
            taught = None if teacher is None else self.device.unmixed(self.device.move(teacher.logits_for(inputs, indices)))
        logits = None if taught is None else self.growth.answered(taught, outputs)
        loss = weighted(self.loss, outputs, targets, logits, self.samples_seen / sum(self.sizes), weights)
        loss = loss + self.features.loss(shown)
        if self.losses is not None:
            self.losses.record(indices, outputs, targets)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise DivergedError(f"the training loss must be finite, got {value} after {format_count(self.samples_seen, 'sample')}")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        with torch.no_grad():
            for parameter, mask in self.masked:
                parameter.mul_(mask)
        if self.average is not None:
            self.average.update(self.model)
        return value


def _epoch_seed(seed: int, number: int) -> int:
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
