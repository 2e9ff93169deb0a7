"""Distillation from what goes into the last layer: the student answers as the teacher does for the same reasons.

These features may have other widths in a pruned student. So a method compares how they relate the examples of a batch, and not the
numbers themselves. The teacher runs beside the student: what its features say depends on which examples share a batch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

from torch import Tensor, nn
from torch.nn import functional

from autocut.errors import InfeasibleRecipeError
from autocut.recipe import FEATURES, LEFT_OUT, Value
from autocut.stages.device import Device
from autocut.stages.train.registries import feature_losses
from autocut.stages.train.teacher import Gate, Teacher, run_teacher, sample_examples
from autocut.task.batches import Inputs, take, tensors
from autocut.task.task import Task

_WEIGHT = 3.0
"""Of the loss of `similarity`. The paper has 3000 for a mean over all pairs, which is 12 for a batch of 256. Beside `kl`, 10 cost
accuracy on the digits, where 1 and 3 tied with `kl` alone (`studies/training_axes`)."""
_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


class FeatureDistillation:
    """Compares what goes into the last layers of a student and a teacher, as `settings` say.

    Without ``distill.features``, `watching` watches nothing and `loss` is 0.
    """

    def __init__(self, settings: Mapping[str, Value], student: nn.Module, teacher: Teacher | None, device: Device) -> None:
        name = str(settings.get(FEATURES, LEFT_OUT[FEATURES]))
        self._compare = feature_losses[name] if name != LEFT_OUT[FEATURES] and teacher is not None else None
        self._student = student
        self._teacher = None if self._compare is None or teacher is None else device.placed_copy(teacher.model)
        self._layers: tuple[str, str] | None = None
        self._seen: list[Tensor] = []

    @contextlib.contextmanager
    def watching(self, inputs: Inputs) -> Iterator[None]:
        """Within it, the student answers a batch of `inputs`, and its features are kept for `loss`."""
        if self._teacher is None:
            yield
            return
        if self._layers is None:
            few = take(inputs, min(2, len(next(iter(tensors(inputs).values())))))
            self._layers = last_layer(self._student, few), last_layer(self._teacher, few)
        with _inputs_of(self._student.get_submodule(self._layers[0])) as self._seen:
            yield

    def loss(self, inputs: Inputs) -> Tensor | float:
        """Return the loss of the features of the batch `inputs`, which the student has just answered."""
        if self._compare is None or self._teacher is None or self._layers is None:
            return 0.0
        with _inputs_of(self._teacher.get_submodule(self._layers[1])) as taught:
            run_teacher(self._teacher, inputs)
        return self._compare(self._seen[-1], taught[-1])


def check_features(settings: Mapping[str, Value], model: nn.Module, task: Task, teacher: Teacher | None, gate: Gate) -> None:
    """Let student and teacher answer two training examples, where `settings` ask to compare their features.

    Raises:
        InfeasibleRecipeError: one of them has no last layer, or its inputs do not have the examples first.
    """
    if settings.get(FEATURES, LEFT_OUT[FEATURES]) == LEFT_OUT[FEATURES] or teacher is None:
        return
    with gate():
        inputs, targets = sample_examples(task, 2)
        for name, asked in (("the model", model), ("its teacher", teacher.model)):
            with _inputs_of(asked.get_submodule(last_layer(asked, inputs))) as seen:
                run_teacher(asked, inputs)
            if seen[-1].dim() < 2 or len(seen[-1]) != len(targets):
                raise InfeasibleRecipeError(
                    f"{FEATURES} needs the {len(targets)} examples first in what goes into the last layer of {name}, "
                    f"got the shape {tuple(seen[-1].shape)}"
                )


def last_layer(model: nn.Module, inputs: Inputs) -> str:
    """Return the name of the linear or convolutional layer that `model` calls last when it answers `inputs`.

    Raises:
        InfeasibleRecipeError: it calls none.
    """
    called: list[str] = []
    names: dict[nn.Module, str] = {layer: name for name, layer in model.named_modules() if isinstance(layer, _LAYERS)}

    def note(layer: nn.Module, _: object) -> None:
        called.append(names[layer])

    with contextlib.ExitStack() as hooks:
        for layer in names:
            hooks.callback(layer.register_forward_pre_hook(note).remove)
        run_teacher(model, inputs)
    if not called:
        raise InfeasibleRecipeError(f"{FEATURES} needs a linear or convolutional layer at the end of the model, got none")
    return called[-1]


@contextlib.contextmanager
def _inputs_of(layer: nn.Module) -> Iterator[list[Tensor]]:
    """Within it, what goes into `layer` is appended to the list."""
    seen: list[Tensor] = []

    def keep(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        seen.append(arguments[0])

    hook = layer.register_forward_pre_hook(keep)
    try:
        yield seen
    finally:
        hook.remove()


@feature_losses.register("none")
def compare_nothing(student: Tensor, teacher: Tensor) -> Tensor:  # noqa: ARG001
    """Compare outputs alone."""
    return student.new_zeros(())


@feature_losses.register("similarity")
def compare_similarity(student: Tensor, teacher: Tensor) -> Tensor:
    """Compare how alike each two examples of a batch are in what goes into the last layer.

    Similarities are the products of all pairs of features, each row scaled to length 1. Their widths need not agree.

    Args:
        student: Shape (n, ...).
        teacher: Shape (n, ...), the same examples.

    References:
        Tung and Mori 2019, https://arxiv.org/abs/1907.09682
    """
    of_student, of_teacher = (
        functional.normalize((features := given.flatten(1)) @ features.T, dim=1) for given in (student, teacher)
    )
    return _WEIGHT * (of_student - of_teacher).square().sum(dim=1).mean()
