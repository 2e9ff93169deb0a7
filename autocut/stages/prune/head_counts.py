"""Numbers in a model's code that follow its heads: `self.num_heads`, `self.split_size`, `self.config.num_attention_heads`.

Code that reshapes by such a number needs another one when heads are gone, and code that asks the shape of its tensors does not.
Which of them must change is found by trying: few first, those of the configuration last. Numbers that only tell how many heads
there are follow too.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from autocut.stages.prune.parts import Hidden

_TRIES = 128


@dataclass(frozen=True)
class Number:
    """An integer `name` of the module at `path`, or of the object that this module calls `holder` where that is not empty."""

    path: str
    holder: str
    name: str

    def read(self, module: nn.Module) -> int:
        """Return the integer."""
        return int(getattr(getattr(module, self.holder) if self.holder else module, self.name))

    def write(self, module: nn.Module, value: int) -> None:
        """Set the integer. What other modules call by the same name stays as it is."""
        if not self.holder:
            setattr(module, self.name, value)
            return
        own = copy.copy(getattr(module, self.holder))
        setattr(own, self.name, value)
        setattr(module, self.holder, own)


class HeadCounts:
    """The numbers that may have to follow when a hidden layer of a model keeps `left` of its parts."""

    def __init__(self, model: nn.Module, hidden: Hidden, left: int) -> None:
        split = [name.split(".")[:-1] for name in (hidden.reader, *hidden.writers)]
        depth = sum(1 for _ in itertools.takewhile(lambda names: len(set(names)) == 1, zip(*split, strict=False)))
        self._owner = model.get_submodule(".".join(split[0][:depth]))
        within = {".".join(parents[depth:end]) for parents in split for end in range(depth, len(parents) + 1)}
        self._modules = {path: self._owner.get_submodule(path) for path in sorted(within)}
        self._parts, self._left = hidden.parts, left
        self._read = hidden.parts * hidden.width
        self._written = {table.numel() for table in hidden.writers.values()}

    def follow(self, is_right: Callable[[], bool], known: dict[type[nn.Module], tuple[Number, ...]]) -> bool:
        """Change the numbers until `is_right`; return False, with everything as it was, where no change is.

        `known` has what was right in other owners of the same class; what is right here is put into it.
        """
        kind = type(self._owner)
        if kind in known and self._all_there(known[kind]) and self._try(known[kind], is_right):
            return True
        for numbers in itertools.islice(self._choices(), _TRIES):
            if self._try(numbers, is_right):
                told = [number for number in self._own() if number not in numbers and self._tells_heads(number)]
                known[kind] = (*numbers, *(number for number in told if self._try((number,), is_right)))
                return True
        return False

    def _try(self, numbers: tuple[Number, ...], is_right: Callable[[], bool]) -> bool:
        before = [getattr(self._modules[number.path], number.holder or number.name) for number in numbers]
        for number in numbers:
            module = self._modules[number.path]
            number.write(module, number.read(module) // self._parts * self._left)
        if is_right():
            return True
        for number, value in zip(reversed(numbers), reversed(before), strict=True):
            setattr(self._modules[number.path], number.holder or number.name, value)
        return False

    def _choices(self) -> Iterator[tuple[Number, ...]]:
        own, held = self._own(), self._held()
        for count in range(len(own) + 1):
            yield from itertools.combinations(own, count)
        for count in range(1, len(own) + len(held) + 1):
            for numbers in itertools.combinations((*own, *held), count):
                if any(number.holder for number in numbers):
                    yield numbers

    def _own(self) -> list[Number]:
        found = [Number(path, "", name) for path, module in self._modules.items() for name in vars(module)]
        return [number for number in found if self._may_follow(number)]

    def _held(self) -> list[Number]:
        """Numbers of configurations, of which a module makes itself a copy."""
        found = []
        for path, module in self._modules.items():
            for holder, value in vars(module).items():
                if hasattr(value, "__dict__") and not isinstance(value, nn.Module | type) and not callable(value):
                    found += [Number(path, holder, name) for name in vars(value) if "head" in name]
        return [number for number in found if self._may_follow(number)]

    def _may_follow(self, number: Number) -> bool:
        module = self._modules[number.path]
        value: Any = getattr(getattr(module, number.holder) if number.holder else module, number.name, None)
        if not isinstance(value, int) or isinstance(value, bool) or value <= 0 or value % self._parts:
            return False
        return self._read % value == 0 or value in self._written

    def _tells_heads(self, number: Number) -> bool:
        """Whether the name says that it counts heads, or all that they are wide."""
        is_width = "dim" in number.name or "size" in number.name
        return "head" in number.name and (not is_width or number.read(self._modules[number.path]) == self._read)

    def _all_there(self, numbers: tuple[Number, ...]) -> bool:
        return all(number.path in self._modules and self._may_follow(number) for number in numbers)
