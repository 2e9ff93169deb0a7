"""The part of `autocut check` that trains: two steps on a copy of the model, with the task's loss and its optimizer.

Only a step shows what fails in train mode, in the backward pass or in the optimizer. The second step shows what a model keeps from
the first one.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from autocut.counting import format_count
from autocut.errors import Fault
from autocut.task.batch_check import changed_inputs_fault
from autocut.task.batches import Batch, call, copied
from autocut.task.file import describe_error
from autocut.task.task import Task, seeded

_BIG_MODEL = 20_000_000
"""Parameters. The optimizer of a bigger model steps on a few small gradients only, because its state would fill the memory."""
_SMALL_GRADIENT = 100_000


class _StepError(Exception):
    """A step that failed, as a fault."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


def training_faults(task: Task, model: nn.Module, batch: Batch) -> Iterator[Fault]:
    """The first reason why `model` cannot be trained on `batch`, a few examples of train. The model itself is not trained."""
    try:
        trained = copy.deepcopy(model)
    except Exception as error:
        # Copying runs the user's __deepcopy__ and __getstate__.
        yield Fault(
            f"task.model must be copyable, got {describe_error(error, task.folder)}",
            "keep no tensors that were computed by forward() as attributes; x.detach() cuts them off",
        )
        return
    if not any(parameter.requires_grad for parameter in trained.parameters()):
        return  # the check of the parameters reports it
    try:
        with seeded(task.seed):
            optimizer = _optimizer(task, trained)
            trained.train()
            for is_first in (True, False):
                _step(task, trained, optimizer, batch, is_first=is_first)
    except _StepError as error:
        yield error.fault


def _optimizer(task: Task, model: nn.Module) -> Optimizer:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    hint = "optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1)"
    try:
        optimizer = task.build_optimizer(parameters)
    except Exception as error:
        raise _StepError(
            Fault(f"task.optimizer must take the model's parameters, got {describe_error(error, task.folder)}", hint)
        ) from error
    if not isinstance(optimizer, Optimizer):
        raise _StepError(Fault(f"task.optimizer must return a torch.optim.Optimizer, got {type(optimizer).__name__}", hint))
    own = {id(parameter) for parameter in parameters}
    if not any(id(parameter) in own for group in optimizer.param_groups for parameter in group["params"]):
        raise _StepError(Fault("task.optimizer must train the parameters that it is given, got an optimizer of others", hint))
    return optimizer


def _step(task: Task, model: nn.Module, optimizer: Optimizer, batch: Batch, *, is_first: bool) -> None:
    """Take one step as the trainer does.

    Raises:
        _StepError: it fails.
    """
    loss = _loss(task, model, batch)
    optimizer.zero_grad(set_to_none=True)
    try:
        loss.backward()  # type: ignore[no-untyped-call]
    except Exception as error:
        # torch raises RuntimeError; a user's autograd function may raise anything.
        raise _StepError(_backward_fault(task, error, is_first=is_first)) from error
    if fault := _gradient_fault(model):
        raise _StepError(fault)
    _leave_few_gradients(model)
    try:
        optimizer.step()
    except Exception as error:
        # torch raises RuntimeError or TypeError; a user's optimizer may raise anything.
        raise _StepError(_optimizer_fault(task, model, error)) from error


def _loss(task: Task, model: nn.Module, batch: Batch) -> Tensor:
    inputs, targets = batch
    given = copied(inputs)
    try:
        outputs = call(model, given)
    except Exception as error:
        raise _StepError(
            Fault(
                f"task.model must run in train mode on {format_count(len(targets), 'example')} of train, "
                f"got {describe_error(error, task.folder)}",
                "look at what forward() does only where self.training is true, or call model.train() and run it by hand",
            )
        ) from error
    if fault := changed_inputs_fault(given, inputs):
        raise _StepError(fault)
    try:
        loss = task.metric_kind.loss(outputs, targets)
    except Exception as error:
        raise _StepError(
            Fault(
                f"task's loss must take the outputs of train mode, shape {tuple(outputs.shape)}, "
                f"got {describe_error(error, task.folder)}",
                "the model must answer in train mode in the shape that it has in eval mode",
            )
        ) from error
    if not loss.isfinite().all():
        raise _StepError(
            Fault(
                f"task's loss must be finite in train mode, got {loss.detach().flatten()[0].item()}",
                "look for a division by zero or a logarithm of zero in forward() and loss=, or lower the learning rate",
            )
        )
    return loss


def _backward_fault(task: Task, error: Exception, *, is_first: bool) -> Fault:
    text = str(error)
    if "does not require grad" in text:
        return Fault(
            "task's loss must depend on the model's parameters, got a loss without a gradient",
            "use no argmax, .item(), .detach(), numpy or torch.no_grad() between the parameters and the loss",
        )
    if "second time" in text and not is_first:
        return Fault(
            "task.model must not keep tensors of an earlier forward(), got a backward pass through the graph of the step before",
            "cut off what is kept: self.state = state.detach()",
        )
    return Fault(
        f"task.model must have a backward pass, got {describe_error(error, task.folder)}",
        "change no tensor in place that a gradient needs: write x = x + y instead of x += y",
    )


def _gradient_fault(model: nn.Module) -> Fault | None:
    gradients = [(name, parameter.grad) for name, parameter in model.named_parameters() if parameter.grad is not None]
    if not gradients:
        return Fault(
            "task.model must have gradients after a backward pass, got none for any parameter that requires grad",
            "compute the output from the parameters themselves, not from copies of them such as weight.data or weight.detach()",
        )
    for name, gradient in gradients:
        values = gradient.coalesce().values() if gradient.is_sparse else gradient
        if not values.isfinite().all():
            return Fault(
                f"task.model must have finite gradients, got NaN or infinity in that of {name}",
                "look for the square root or norm of zero in forward() and loss=: add a small number inside, such as 1e-8",
            )
    return None


def _leave_few_gradients(model: nn.Module) -> None:
    """Drop the large dense gradients of a big model: an optimizer passes over parameters without one."""
    parameters: Sequence[nn.Parameter] = [parameter for parameter in model.parameters() if parameter.grad is not None]
    if sum(parameter.numel() for parameter in parameters) <= _BIG_MODEL:
        return
    small = [parameter for parameter in parameters if parameter.numel() <= _SMALL_GRADIENT] or [min(parameters, key=torch.numel)]
    kept = {id(parameter) for parameter in small}
    for parameter in parameters:
        if id(parameter) not in kept and not (parameter.grad is not None and parameter.grad.is_sparse):
            parameter.grad = None


def _optimizer_fault(task: Task, model: nn.Module, error: Exception) -> Fault:
    default = "" if task.optimizer else ", which is AdamW by default,"
    subject = f"task.optimizer{default} must take the model's gradients"
    if sparse := [name for name, parameter in model.named_parameters() if parameter.grad is not None and parameter.grad.is_sparse]:
        return Fault(
            f"{subject}, got {describe_error(error, task.folder)} (those of {sparse[0]} are sparse)",
            "optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1), or build the embedding with sparse=False",
        )
    return Fault(
        f"{subject} in a plain step(), got {describe_error(error, task.folder)}",
        "the trainer calls optimizer.step() without a closure: torch.optim.AdamW and torch.optim.SGD take that",
    )
