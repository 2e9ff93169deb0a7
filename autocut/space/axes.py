"""A space: the axes that a search explores, read from TOML.

A space file says for each axis its choices or its range, and when it counts::

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

Nothing here knows a sampler: `Axis` is neutral data, `search/` turns it into suggestions. `reading.py` reads and checks the TOML.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from autocut.recipe import IDENTITY, Recipe, Value

GRID_TOLERANCE = 1e-9


@dataclass(frozen=True)
class AxisRule:
    """What every space must obey for one axis, whatever its file says.

    Method axes take registered names, word axes one of `words`. Number axes have a legal interval, each end of it open or closed.
    `switch` names the axis and the value of it that switch this one off: a space must make this axis conditional on it.
    """

    kind: str
    low: float | None = None
    high: float | None = None
    low_open: bool = False
    high_open: bool = False
    switch: tuple[str, Value] | None = None
    words: tuple[str, ...] = ()

    @property
    def takes_names(self) -> bool:
        """Whether its values are names, not numbers."""
        return self.kind in ("method", "word")

    def allows(self, value: float) -> bool:
        """Whether a number lies in the legal interval."""
        above = self.low is None or value > self.low or (value == self.low and not self.low_open)
        below = self.high is None or value < self.high or (value == self.high and not self.high_open)
        return above and below

    def describe(self) -> str:
        """The rule in words, such as ``a number with 0 <= x < 1``."""
        noun = "an integer" if self.kind == "integer" else "a number"
        low = "" if self.low is None else f"{self.low:g} {'<' if self.low_open else '<='} "
        high = "" if self.high is None else f" {'<' if self.high_open else '<='} {self.high:g}"
        return f"{noun} with {low}x{high}"


RULES: Mapping[str, AxisRule] = MappingProxyType(
    {
        "prune.method": AxisRule("method"),
        "prune.ratio": AxisRule("number", 0, 1, high_open=True, switch=("prune.method", "none")),
        "prune.parent_ratio": AxisRule("number", 0, 1, low_open=True, high_open=True, switch=("prune.method", "none")),
        "train.epochs": AxisRule("integer", 0),
        "train.start": AxisRule("word", switch=("train.epochs", 0), words=("trained", "scratch")),
        "train.lr_scale": AxisRule("number", 0, low_open=True, switch=("train.epochs", 0)),
        "curriculum.schedule": AxisRule("method", switch=("train.epochs", 0)),
        "curriculum.order": AxisRule("method", switch=("curriculum.schedule", "none")),
        "curriculum.start": AxisRule("number", 0, 1, low_open=True, switch=("curriculum.schedule", "none")),
        "distill.loss": AxisRule("method", switch=("train.epochs", 0)),
        "distill.temperature": AxisRule("number", 0, low_open=True, switch=("distill.loss", "none")),
        "distill.alpha": AxisRule("number", 0, 1, switch=("distill.loss", "none")),
        "quantize.dtype": AxisRule("method"),
        "compile.mode": AxisRule("method"),
    }
)
"""Every axis there is."""


@dataclass(frozen=True)
class Axis:
    """One axis: either `choices`, or the numbers from `low` to `high`, both included.

    `step` is the grid of a range (None: continuous), `log` samples it on a logarithmic scale, `integer` makes it whole numbers. The
    axis counts only where every axis named in `when` has one of the values listed for it.
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
        """Whether `value` is one of the choices, or lies in the range (and on its grid)."""
        if self.choices:
            return any(_same(value, choice) for choice in self.choices)
        if self.low is None or self.high is None or isinstance(value, bool) or not isinstance(value, int | float):
            return False
        if not self.low - GRID_TOLERANCE <= value <= self.high + GRID_TOLERANCE:
            return False
        step = self.step or (1 if self.integer else None)
        return step is None or abs((value - self.low) / step - round((value - self.low) / step)) < 1e-6

    def example(self) -> Value:
        """Some value that the axis takes: its first choice or the low end of its range."""
        if self.choices:
            return self.choices[0]
        low = self.low or 0.0
        return int(low) if self.integer else low

    def describe(self) -> str:
        """The domain in words, such as ``one of none, structured`` or ``0.1 to 0.8 in steps of 0.1``."""
        if self.choices:
            return f"one of {', '.join(map(str, self.choices))}"
        words = f"{self.low:g} to {self.high:g}"
        return words + (f" in steps of {self.step:g}" if self.step else "") + (", log scale" if self.log else "")


@dataclass(frozen=True)
class Space:
    """A checked space. `axes` are in an order in which every axis comes after those that its condition names."""

    name: str
    objectives: Mapping[str, str]
    axes: tuple[Axis, ...]
    anchors: tuple[Recipe, ...] = ()
    description: str = ""
    device: str = "cpu"

    def __iter__(self) -> Iterator[Axis]:
        """Iterate over the axes, conditions before what they decide."""
        return iter(self.axes)

    def axis(self, name: str) -> Axis | None:
        """Return the axis `name`, or None where this space leaves it at what the untouched model does."""
        return next((axis for axis in self.axes if axis.name == name), None)

    @property
    def conditions(self) -> dict[str, Mapping[str, tuple[Value, ...]]]:
        """The condition of each axis that has one."""
        return {axis.name: axis.when for axis in self.axes if axis.when}

    def methods(self, axis_name: str) -> tuple[str, ...]:
        """Names that the space offers on a method axis; the untouched model's own where it leaves the axis out."""
        axis = self.axis(axis_name)
        return tuple(map(str, axis.choices)) if axis else (str(IDENTITY[axis_name]),)

    def is_active(self, axis: Axis, settings: Mapping[str, Value]) -> bool:
        """Whether `axis` counts beside the other settings: every axis of its condition is set to one of the listed values."""
        return all(
            parent in settings and any(_same(settings[parent], value) for value in values) for parent, values in axis.when.items()
        )

    def contains(self, recipe: Recipe) -> bool:
        """Whether a search of this space can propose `recipe`."""
        return self.why_not(recipe) is None

    def why_not(self, recipe: Recipe) -> str | None:
        """Return why `recipe` lies outside this space, or None where it lies inside."""
        for axis in self.axes:
            if reason := self._why_not_axis(axis, recipe):
                return reason
        for name, value in recipe.items():
            if self.axis(name) is None and IDENTITY.get(name) != value:
                return f"{name} is no axis of this space, got {value!r}"
        return None

    def _why_not_axis(self, axis: Axis, recipe: Recipe) -> str | None:
        value = recipe.get(axis.name)
        if not self.is_active(axis, recipe):
            if value is None or value == IDENTITY.get(axis.name):
                return None
            return f"{axis.name} does not count beside the other settings, got {value!r}"
        # A setting that the recipe dropped because it has no effect may take any value.
        if axis.takes(value) or Recipe({**recipe, axis.name: axis.example()}) == recipe:
            return None
        return f"{axis.name} must be {axis.describe()}, got {'nothing' if value is None else repr(value)}"


def _same(left: object, right: object) -> bool:
    """Equal and of one kind: the string "1" is not 1, and true is not 1."""
    if isinstance(left, str | bool) or isinstance(right, str | bool):
        return type(left) is type(right) and left == right
    return left == right
