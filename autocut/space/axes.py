"""A space: the axes that a search explores, read from TOML.

A space file gives for each axis its choices or its range, and the condition under which it is active::

    schema_version = 1
    [objectives]
    accuracy = "maximize"
    usd_per_million = "minimize"
    [axes."prune.method"]
    choices = ["none", "structured"]
    [axes."prune.ratio"]
    range = [0.1, 0.8]
    step = 0.1
    when."prune.method" = ["structured"]
    [[anchors]]                      # recipes that are tried first
    "prune.method" = "structured"
    "prune.ratio" = 0.5

`Axis` is plain data and knows no sampler; `search/` turns it into suggestions. `reading.py` reads and checks the TOML.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from autocut.errors import SpaceError, listed, quoted
from autocut.recipe import (
    AFTER_TRAINING,
    AVERAGING,
    DECAY,
    FEATURES,
    IDENTITY,
    INPUT_GROWTH,
    KEEP_FLOAT,
    LABEL_SMOOTHING,
    LEFT_OUT,
    PARENT_RATIO,
    PRUNE_WHEN,
    QUANTIZATION_AWARE,
    STUDENT,
    SWITCHES,
    Recipe,
    Value,
    with_kept,
)

GRID_TOLERANCE = 1e-9
_CUT_AND_TRAINED = (SWITCHES["prune"], SWITCHES["train"])


@dataclass(frozen=True)
class AxisRule:
    """The rule for one axis in every space.

    Method axes take registered names, word axes one of `words`. Number axes have a legal interval; each end is open or closed.
    Each of `switches` is an axis that switches this one off by the untouched model's value. So a space must make this axis
    conditional on each of them.
    """

    kind: str
    low: float | None = None
    high: float | None = None
    low_open: bool = False
    high_open: bool = False
    switches: tuple[str, ...] = ()
    words: tuple[str, ...] = ()

    @property
    def takes_names(self) -> bool:
        """Whether the values are names, not numbers."""
        return self.kind in ("method", "word")

    def allows(self, value: float) -> bool:
        """Whether a number lies in the legal interval."""
        above = self.low is None or value > self.low or (value == self.low and not self.low_open)
        below = self.high is None or value < self.high or (value == self.high and not self.high_open)
        return above and below

    def describe(self) -> str:
        """Return the rule in words, such as ``a number with 0 <= x < 1``."""
        noun = "an integer" if self.kind == "integer" else "a number"
        low = "" if self.low is None else f"{self.low:g} {'<' if self.low_open else '<='} "
        high = "" if self.high is None else f" {'<' if self.high_open else '<='} {self.high:g}"
        return f"{noun} with {low}x{high}"


RULES: Mapping[str, AxisRule] = MappingProxyType(
    {
        STUDENT: AxisRule("method", switches=(SWITCHES["train"],)),
        "prune.method": AxisRule("method"),
        "prune.ratio": AxisRule("number", 0, 1, high_open=True, switches=(SWITCHES["prune"],)),
        PARENT_RATIO: AxisRule("number", 0, 1, low_open=True, high_open=True, switches=_CUT_AND_TRAINED),
        PRUNE_WHEN: AxisRule("word", switches=_CUT_AND_TRAINED, words=("before_training", AFTER_TRAINING)),
        "train.epochs": AxisRule("integer", 0),
        "train.start": AxisRule("word", switches=(SWITCHES["train"],), words=("trained", "scratch")),
        "train.lr_scale": AxisRule("number", 0, low_open=True, switches=(SWITCHES["train"],)),
        QUANTIZATION_AWARE: AxisRule("method", switches=(SWITCHES["train"],)),
        INPUT_GROWTH: AxisRule("method", switches=(SWITCHES["train"],)),
        AVERAGING: AxisRule("number", 0, 1, high_open=True, switches=(SWITCHES["train"],)),
        LABEL_SMOOTHING: AxisRule("number", 0, 1, high_open=True, switches=(SWITCHES["train"],)),
        "curriculum.schedule": AxisRule("method", switches=(SWITCHES["train"],)),
        "curriculum.order": AxisRule("method", switches=(SWITCHES["curriculum"],)),
        "curriculum.start": AxisRule("number", 0, 1, low_open=True, switches=(SWITCHES["curriculum"],)),
        "distill.loss": AxisRule("method", switches=(SWITCHES["train"],)),
        "distill.temperature": AxisRule("number", 0, low_open=True, switches=(SWITCHES["distill"],)),
        "distill.alpha": AxisRule("number", 0, 1, switches=(SWITCHES["distill"],)),
        DECAY: AxisRule("word", switches=(SWITCHES["distill"],), words=("none", "linear")),
        FEATURES: AxisRule("method", switches=(SWITCHES["distill"],)),
        "quantize.dtype": AxisRule("method"),
        "quantize.keep_float": AxisRule("integer", 0, switches=(SWITCHES["quantize"],)),
        "compile.mode": AxisRule("method"),
    }
)
"""The rule of every axis."""


@dataclass(frozen=True)
class Axis:
    """One axis: either `choices`, or the numbers from `low` to `high`, both included.

    `step` is the grid of a range (None: continuous). `log` samples it on a logarithmic scale. `integer` allows whole numbers only.
    The axis is active only if every axis in `when` has one of its listed values.
    """

    name: str
    choices: tuple[Value, ...] = ()
    low: float | None = None
    high: float | None = None
    step: float | None = None
    log: bool = False
    integer: bool = False
    when: Mapping[str, tuple[Value, ...]] = field(default_factory=lambda: MappingProxyType({}))

    def takes(self, value: object) -> bool:
        """Whether `value` is one of the choices, or lies in the range and on its grid."""
        if self.choices:
            return any(_same(value, choice) for choice in self.choices)
        if self.low is None or self.high is None or isinstance(value, bool) or not isinstance(value, int | float):
            return False
        if not self.low - GRID_TOLERANCE <= value <= self.high + GRID_TOLERANCE:
            return False
        step = self.step or (1 if self.integer else None)
        return step is None or abs((value - self.low) / step - round((value - self.low) / step)) < 1e-6

    def example(self) -> Value:
        """Return one value of the axis: its first choice or the low end of its range."""
        if self.choices:
            return self.choices[0]
        low = self.low or 0.0
        return int(low) if self.integer else low

    def describe(self) -> str:
        """Return the domain in words, such as ``one of none, structured`` or ``0.1 to 0.8 in steps of 0.1``."""
        if self.choices:
            return f"one of {listed(self.choices)}"
        words = f"{self.low:g} to {self.high:g}"
        return words + (f" in steps of {self.step:g}" if self.step else "") + (", log scale" if self.log else "")


@dataclass(frozen=True)
class Space:
    """A checked space. In `axes`, every axis comes after the axes in its condition."""

    name: str
    objectives: Mapping[str, str]
    axes: tuple[Axis, ...]
    anchors: tuple[Recipe, ...] = ()
    description: str = ""
    device: str = "cpu"

    def __iter__(self) -> Iterator[Axis]:
        """Iterate over the axes; each comes after the axes in its condition."""
        return iter(self.axes)

    def axis(self, name: str) -> Axis | None:
        """Return the axis `name`, or None if this space keeps it at the untouched model's value."""
        return next((axis for axis in self.axes if axis.name == name), None)

    def methods(self, axis_name: str) -> tuple[str, ...]:
        """Return the names on a method axis; the untouched model's name if the space has no such axis."""
        axis = self.axis(axis_name)
        return tuple(map(str, axis.choices)) if axis else (str(IDENTITY[axis_name]),)

    def dtypes(self) -> tuple[str, ...]:
        """Return the dtypes as lowerings spell them: each as it is, then with the layers that the space keeps in float."""
        plain, kept = self.methods("quantize.dtype"), self.axis(KEEP_FLOAT)
        if kept is None:
            return plain
        counts = [int(value) for value in axis_values(kept) if value]
        keeping = [dtype for dtype in plain if self.is_active(kept, {"quantize.dtype": dtype})]
        return (*plain, *(with_kept(dtype, count) for dtype in keeping for count in counts))

    def is_active(self, axis: Axis, settings: Mapping[str, Value]) -> bool:
        """Whether `axis` is active: `settings` has a listed value for every axis in its condition, or leaves out what it lists."""
        given = {parent: settings.get(parent, LEFT_OUT.get(parent)) for parent in axis.when}
        return all(any(_same(given[parent], value) for value in values) for parent, values in axis.when.items())

    def contains(self, recipe: Recipe) -> bool:
        """Whether a search of this space can propose `recipe`."""
        return self.why_not(recipe) is None

    def why_not(self, recipe: Recipe) -> str | None:
        """Return why `recipe` lies outside this space, or None if it lies inside."""
        for axis in self.axes:
            if reason := self._why_not_axis(axis, recipe):
                return reason
        for name, value in recipe.items():
            if self.axis(name) is None and IDENTITY.get(name) != value:
                return f"{name} is no axis of this space, got {quoted(value)}"
        return None

    def _why_not_axis(self, axis: Axis, recipe: Recipe) -> str | None:
        value = recipe.get(axis.name)
        if not self.is_active(axis, recipe):
            if value is None or value == IDENTITY.get(axis.name):
                return None
            needed = " and ".join(f"{parent} {listed(values, ' or ')}" for parent, values in axis.when.items())
            return f"{axis.name} counts only with {needed}, got {quoted(value)}"
        # The recipe dropped a setting without effect, so any value of it is allowed.
        if axis.takes(value) or Recipe({**recipe, axis.name: axis.example()}) == recipe:
            return None
        return f"{axis.name} must be {axis.describe()}, got {'nothing' if value is None else quoted(value)}"


def fit_space(space: Space, unfit: Mapping[str, Collection[Value]]) -> Space:
    """Return `space` without the choices in `unfit` (axis -> names): else each worker would find out what the task cannot do.

    Axes that are active only with these choices go too, and so do anchors that use them.
    """
    kept: dict[str, Axis] = {}
    for axis in space.axes:  # each comes after the axes in its condition
        choices = tuple(choice for choice in axis.choices if choice not in unfit.get(axis.name, ()))
        when = {parent: _taken(kept.get(parent), space.axis(parent), values) for parent, values in axis.when.items()}
        if (axis.choices and not choices) or not all(when.values()):
            continue
        kept[axis.name] = replace(axis, choices=choices, when=MappingProxyType(when))
    fitted = replace(space, axes=tuple(kept.values()))
    return replace(fitted, anchors=tuple(anchor for anchor in space.anchors if fitted.contains(anchor)))


def every_recipe(space: Space) -> tuple[Recipe, ...]:
    """Return every recipe of `space` once, in the order of its axes.

    Raises:
        SpaceError: An axis is continuous, so the space is infinite.
    """
    return tuple(dict.fromkeys(Recipe(settings) for settings in _walk(space, 0, {})))


def axis_values(axis: Axis) -> tuple[Value, ...]:
    """Return every value of `axis`.

    Raises:
        SpaceError: The axis is continuous.
    """
    if axis.choices:
        return axis.choices
    step = axis.step or (1 if axis.integer else None)
    if axis.low is None or axis.high is None or step is None:
        raise SpaceError(f"{axis.name} must have choices or a step to be counted, got {axis.describe()}", "give it choices")
    count = round((axis.high - axis.low) / step) + 1
    return tuple(int(axis.low + at * step) if axis.integer else axis.low + at * step for at in range(count))


def _taken(parent: Axis | None, before: Axis | None, values: tuple[Value, ...]) -> tuple[Value, ...]:
    """Return the values of a condition that its axis still takes."""
    if parent is None:
        return () if before is not None else values
    return tuple(value for value in values if parent.takes(value))


def _walk(space: Space, at: int, chosen: dict[str, Value]) -> Iterator[dict[str, Value]]:
    if at == len(space.axes):
        yield chosen
        return
    axis = space.axes[at]
    if not space.is_active(axis, chosen):
        yield from _walk(space, at + 1, chosen)
        return
    for value in axis_values(axis):
        yield from _walk(space, at + 1, {**chosen, axis.name: value})


def _same(left: object, right: object) -> bool:
    """Whether both are equal and of one kind: neither the string "1" nor true is 1."""
    if isinstance(left, str | bool) or isinstance(right, str | bool):
        return type(left) is type(right) and left == right
    return left == right
