"""A second device for tests: it computes on the CPU, and refuses as a GPU does to mix its tensors with those of the CPU.

torch knows it by the name `KIND`, by the key that it keeps for devices from outside. Importing this registers it in the process.
What is computed there is the same to the last bit as on the CPU, random numbers too.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch.utils._pytree import tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from autocut.registry import Registry
from autocut.stages import compile as compile_modes
from autocut.stages.compile import ModeOptions
from autocut.stages.compile.eager import load_eager
from autocut.stages.compile.eager_cuda import compile_eager_cuda, cuda_graph_lines
from autocut.stages.device import Device
from autocut.stages.graph import GRAPH_FILE

KIND = "madeup"
_aten = torch.ops.aten
_MAY_MIX = (_aten.copy_.default, _aten._to_copy.default, _aten.index.Tensor)
"""Operators that take tensors of both devices, on a GPU too."""
_MOVES = (_aten._to_copy, _aten.to)
"""What brings a tensor elsewhere; the second one is what arrives under `torch.inference_mode`."""


class _Module:
    """What torch asks of the module of a device, and what `Device` calls: `calls` has the names of those."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def init(self) -> None:
        self.calls.append("init")

    def synchronize(self) -> None:
        self.calls.append("synchronize")

    def empty_cache(self) -> None:
        self.calls.append("empty_cache")

    def is_available(self) -> bool:
        return True

    def is_initialized(self) -> bool:
        return True

    def device_count(self) -> int:
        return 1

    def current_device(self) -> int:
        return 0

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None:
        """Nothing: its random numbers are those of the CPU."""


class OnSecond(torch.Tensor):
    """A tensor there; `inner` holds its values."""

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> OnSecond:
        """Make one that has the values `inner`, of shape and dtype like it."""
        made = torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            device=torch.device(KIND, 0),
        )  # fmt: skip
        made.inner = inner
        return made

    def __repr__(self) -> str:
        """Return its values, for a test that fails."""
        return f"OnSecond({self.inner})"

    @classmethod
    def __torch_dispatch__(cls, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run every operator that gets such a tensor, below autograd."""
        return _run(operator, *args, **(kwargs or {}))


def _run(operator: Any, *args: Any, **kwargs: Any) -> Any:
    """Run `operator` on the values of its tensors; what comes out is on the second device, unless it was asked for elsewhere."""
    known: dict[int, OnSecond] = {}
    others: list[torch.Tensor] = []

    def values(given: Any) -> Any:
        if isinstance(given, OnSecond):
            known[id(given.inner)] = given
            return given.inner
        if isinstance(given, torch.Tensor) and given.dim() > 0:
            others.append(given)
        return given

    asked = kwargs.get("device")
    plain_args, plain_kwargs = tree_map(values, (args, kwargs))
    if others and known and operator not in _MAY_MIX:
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found at least two devices, {KIND}:0 and cpu! ({operator})"
        )
    if asked is not None:
        plain_kwargs["device"] = torch.device("cpu")
    out = operator(*plain_args, **plain_kwargs)
    if operator is _aten.copy_.default:
        return args[0]
    if operator.overloadpacket in _MOVES and asked is not None and torch.device(asked).type == "cpu":
        return out

    def there(made: Any) -> Any:
        if not isinstance(made, torch.Tensor):
            return made
        return known[id(made)] if id(made) in known else OnSecond(made)

    return tree_map(there, out)


class _Hook(torch._C._acc.PrivateUse1Hooks):
    def is_available(self) -> bool:
        return True

    def has_primary_context(self, dev_id: int) -> bool:
        return True

    def is_built(self) -> bool:
        return True


module = _Module()
_setup_privateuseone_for_python_backend(rename=KIND, backend_module=module, hook=_Hook())
_library = torch.library.Library("_", "IMPL")
_library.fallback(_run, "PrivateUse1")  # for operators without a tensor there, such as torch.zeros(device=KIND)


def serve(monkeypatch: Any) -> None:
    """Let models be served there: eager is the one mode that it has."""
    modes: Registry[Any, ModeOptions] = Registry(f"compile.mode on {KIND}", ModeOptions)
    load = partial(load_eager, device=Device(KIND))
    modes.register("eager", load=load, files=GRAPH_FILE, run_lines=cuda_graph_lines, seconds=1)(compile_eager_cuda)
    monkeypatch.setitem(compile_modes.BY_DEVICE, KIND, modes)
