"""Where models are trained and served: the processor, or a GPU. All that is placed, moved or waited for passes through a `Device`.

A training begins and ends on the CPU: it gets a model there and returns one there, and its checkpoints hold CPU tensors alone. So
nothing on a disk knows where it was trained, and models are scored and timed where they are served. Exported graphs are of the CPU
too: what serves one on a GPU moves it there (`place_graph`). Only machine code, a GPU's memory, and the last bits of what was
computed there are its own.

A process that others are forked from must open no GPU: a fork cannot use one that its parent has opened. `Device` opens it when a
training or a model asks, in the worker's own process.
"""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.passes import move_to_device_pass

from autocut.errors import InfeasibleRecipeError, InputError, OutOfMemoryError
from autocut.precision import CHANNELS_LAST, CONTIGUOUS, FULL, MemoryFormat, Precision
from autocut.task.batches import Inputs, transform

_MIXED = "Expected all tensors to be on the same device"
"""How torch begins to tell that an operator got tensors of two devices (2.13)."""
_DONE = {"training": "trained", "serving": "served"}
_OF_EVERY_MODULE = frozenset(vars(nn.Module()))
"""What torch keeps in each module: parameters, buffers, hooks."""
_NO_MEMORY = "{} needs more memory than there is: {}"


@dataclass(frozen=True)
class Device:
    """A place to train or serve, by torch's name for its kind: "cpu" or "cuda". Of several GPUs it is the first visible one.

    `precision` is what a training multiplies in there, `memory_format` how its images lie in memory.
    """

    kind: str = "cpu"
    precision: Precision = FULL
    memory_format: MemoryFormat = CONTIGUOUS

    @property
    def is_cpu(self) -> bool:
        """Whether this is the processor, where models are and stay."""
        return self.kind == "cpu"

    @property
    def identity(self) -> str:
        """Name the GPU, the same in each process whatever CUDA_VISIBLE_DEVICES says there."""
        return str(torch.cuda.get_device_properties(0).uuid) if self.kind == "cuda" else self.kind

    def missing(self) -> str | None:
        """Say why this process has no such device, or return None. It opens nothing."""
        if self.kind != "cuda" or torch.cuda.is_available():
            return None
        is_built = torch.version.cuda or torch.version.hip
        return "torch finds no GPU here" if is_built else f"torch {torch.__version__} is a CPU build (install one for CUDA)"

    def below(self, capability: tuple[int, int], what: str) -> str | None:
        """Say that the GPU cannot run `what`, because its compute capability is below `capability`; None where it can."""
        if self.kind != "cuda" or torch.cuda.get_device_capability() >= capability:
            return None
        return f"{self.name} has compute capability {self.capability}, {what} from {'.'.join(map(str, capability))} on"

    def open(self, *, serves: bool = False) -> None:
        """Open the GPU in this process; a second call does nothing.

        A process that begins with training gets sums in one order from cuBLAS, which costs it a part of its workspace. One that
        begins with serving gets what cuBLAS has for everybody: it is timed.

        Raises:
            InputError: there is none, or this process cannot use it.
        """
        if self.is_cpu:
            return
        if not serves and not self._module.is_initialized():
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts
        reason = None
        try:
            self._module.init()
        except (RuntimeError, AssertionError) as error:  # torch asserts that it was built for CUDA
            reason = _first_line(error)
        if reason is not None:
            raise InputError(
                f"device must be one that this process can open, got {self.kind}: {reason}",
                "look at nvidia-smi and CUDA_VISIBLE_DEVICES, or search with --train-on cpu --serve-on cpu",
            )

    def place(self, model: nn.Module) -> nn.Module:
        """Move `model` here, in place, and return it, with the tensors that its modules keep beside parameters and buffers.

        Those are moved because a module that computes something once and keeps it, such as positions, would otherwise bring it from
        one device to the other. They are found in attributes, and in lists, tuples and dicts there.
        """
        if self._has(model):
            return model
        model.to(self.kind)
        for module in model.modules():
            for name, value in list(vars(module).items()):
                if name not in _OF_EVERY_MODULE and any(not self._is_here(tensor) for tensor in _tensors_in(value)):
                    setattr(module, name, _changed(value, lambda tensor: tensor if self._is_here(tensor) else self.move(tensor)))
        return model

    def placed_copy(self, model: nn.Module) -> nn.Module:
        """Return `model` itself where it is here already, else a copy that is. Not for what will be changed."""
        return model if self._has(model) else self.place(copy.deepcopy(model))

    def place_for_training(self, model: nn.Module) -> nn.Module:
        """Move `model` here, in place, its convolutions laid out as this device trains them, and return it.

        A convolution whose weights have the channels innermost answers in that layout, and what follows keeps to it.

        References:
            https://docs.pytorch.org/tutorials/intermediate/memory_format_tutorial.html
        """
        self.place(model)
        if self.memory_format == CHANNELS_LAST:
            for layer in convolutions(model):
                layer.weight.data = layer.weight.data.contiguous(memory_format=torch.channels_last)
        return model

    def finish_training(self, model: nn.Module) -> nn.Module:
        """Move a model that was trained here to the CPU, in place, its weights laid out as a model is built, and return it."""
        CPU.place(model)
        if self.memory_format == CHANNELS_LAST:
            for layer in convolutions(model):
                # `contiguous()` would leave the strides of a kernel of one pixel, which are true in both layouts.
                plain = torch.empty_like(layer.weight, memory_format=torch.contiguous_format)
                layer.weight.data = plain.copy_(layer.weight.data)
        return model

    def move(self, tensor: Tensor) -> Tensor:
        """Return `tensor` here. On its way to a GPU it passes through pinned memory, so that this process need not wait for it."""
        if tensor.device.type == self.kind:
            return tensor
        if self.kind == "cuda" and tensor.layout is torch.strided:
            tensor = tensor.pin_memory()
        return tensor.to(self.kind, non_blocking=True)

    def move_inputs(self, inputs: Inputs) -> Inputs:
        """Return every tensor of `inputs` here."""
        return transform(inputs, self.move)

    def place_graph(self, program: ExportedProgram) -> ExportedProgram:
        """Move an exported graph here: its weights, its constants, and the devices that are written into its operators.

        It is changed in place, and returned.
        """
        return program if self.is_cpu else move_to_device_pass(program, self.kind)

    def answer(self, output: Tensor, inputs: Iterable[Tensor]) -> Tensor:
        """Return `output`, computed here, where the `inputs` of its call lie: what comes from the CPU is answered there."""
        return output if self.is_cpu or all(map(self._is_here, inputs)) else output.cpu()

    def wait(self) -> None:
        """Wait until all that was asked of the device is computed. A clock that is read before tells nothing."""
        if not self.is_cpu:
            self._module.synchronize()

    def release(self) -> None:
        """Give memory that is not in use back to the device, for other processes."""
        if not self.is_cpu:
            self._module.empty_cache()

    def used_bytes(self) -> int:
        """Return the memory of a GPU that is in use, by this process and all others; 0 for the CPU, and where nobody counts it."""
        if self.kind != "cuda":
            return 0
        free, total = torch.cuda.mem_get_info()
        return int(total - free)

    @property
    def capability(self) -> str | None:
        """Compute capability of the GPU, such as "9.0": machine code for one does not run on another. None for other kinds."""
        return ".".join(map(str, torch.cuda.get_device_capability())) if self.kind == "cuda" else None

    @property
    def name(self) -> str:
        """The model of the GPU, as its driver calls it; the kind for what is none."""
        return torch.cuda.get_device_name(0) if self.kind == "cuda" else self.kind

    @property
    def described(self) -> str:
        """Kind, model and compute capability, as far as they are known here: what decides which kernels run."""
        return f"{self.kind} ({self.name}, {self.capability})" if self.kind == "cuda" and not self.missing() else self.kind

    @contextlib.contextmanager
    def exact(self) -> Iterator[None]:
        """Compute float32 as float32, and the same each time, within the block.

        On a GPU that leaves out TF32, and takes algorithms that add up in a fixed order where CUDA has one. What has none runs all
        the same: two trainings then differ in their last bits. Nothing changes on the CPU.
        """
        if self.kind != "cuda":
            yield
            return
        backends: Any = torch.backends
        determinism: Any = torch.utils.deterministic
        units = (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn)
        precisions, mode = [unit.fp32_precision for unit in units], torch.get_deterministic_debug_mode()
        fills = determinism.fill_uninitialized_memory
        try:
            for unit in units:
                unit.fp32_precision = "ieee"
            torch.set_deterministic_debug_mode(max(mode, 1))  # 1: warn where there is no such algorithm
            determinism.fill_uninitialized_memory = False  # it only looks for bugs, and writes every tensor twice
            yield
        finally:
            determinism.fill_uninitialized_memory = fills
            torch.set_deterministic_debug_mode(mode)
            for unit, precision in zip(units, precisions, strict=True):
                unit.fp32_precision = precision

    def mixed(self) -> AbstractContextManager[object]:
        """Compute within the block as a training does.

        In mixed precision the factors of products are bfloat16; norms, losses, weights and their gradients stay float32.

        References:
            Micikevicius et al. 2018, https://arxiv.org/abs/1710.03740
            Kalamkar et al. 2019 (bfloat16 needs no loss scaling), https://arxiv.org/abs/1905.12322
        """
        return contextlib.nullcontext() if self.precision == FULL else torch.autocast(self.kind, torch.bfloat16)

    def unmixed(self, outputs: Tensor) -> Tensor:
        """Return what was computed within `mixed` in float32, for a loss."""
        return outputs if self.precision == FULL else outputs.float()

    @contextlib.contextmanager
    def errors_translated(self, work: str = "training") -> Iterator[None]:
        """Say within the block what torch's errors mean for `work`, which is training or serving.

        Raises:
            OutOfMemoryError: memory ran out, here or on the CPU.
            InfeasibleRecipeError: the task's own code has left a tensor on the CPU.
        """
        try:
            yield
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise OutOfMemoryError(_NO_MEMORY.format(work, _first_line(error))) from error
        except RuntimeError as error:
            # torch 2.13 has an error class for neither.
            if "can't allocate memory" in str(error):
                raise OutOfMemoryError(_NO_MEMORY.format(work, _first_line(error))) from error
            if self.is_cpu or _MIXED not in str(error):
                raise
            raise InfeasibleRecipeError(
                f"task must compute on the device of its inputs to be {_DONE[work]} on {self.kind}, got: {_first_line(error)} "
                "(what forward() or the loss makes needs device=inputs.device; what they take from elsewhere, .to(inputs.device))"
            ) from error

    def _has(self, model: nn.Module) -> bool:
        return all(map(self._is_here, (*model.parameters(), *model.buffers())))

    def _is_here(self, tensor: Tensor) -> bool:
        return tensor.device.type == self.kind

    @property
    def _module(self) -> Any:
        return torch.get_device_module(self.kind)


CPU = Device()


def convolutions(model: nn.Module) -> list[nn.Conv2d | nn.ConvTranspose2d]:
    """Return the layers of `model` that compute in the layout of their weights."""
    return [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)]


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]


def on_cpu(state: Any) -> Any:
    """Return `state`, nested dicts, lists and tuples, with every tensor on the CPU. What is there already is not copied."""
    return _changed(state, Tensor.cpu)


def _changed(state: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(state, Tensor):
        return change(state)
    if isinstance(state, dict):
        copied: Any = copy.copy(state)  # a model's state has its version as an attribute
        for name, value in state.items():
            copied[name] = _changed(value, change)
        return copied
    if type(state) in (list, tuple):
        return type(state)(_changed(value, change) for value in state)
    return state


def _tensors_in(state: Any) -> Iterator[Tensor]:
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, dict) or type(state) in (list, tuple):
        for value in state.values() if isinstance(state, dict) else state:
            yield from _tensors_in(value)
