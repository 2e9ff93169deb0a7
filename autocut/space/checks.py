"""Checks for the axes of a space. A check collects its faults and goes on."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Any

from autocut.errors import listed, name_hint, nearest_hint, quoted, shortened
from autocut.recipe import (
    AFTER_TRAINING,
    IDENTITY,
    LEFT_OUT,
    PARENT_RATIO,
    PRUNE_WHEN,
    QUANTIZATION_AWARE,
    STUDENT,
    SWITCHES,
    Value,
)
from autocut.space.axes import RULES, Axis, AxisRule
from autocut.toml_lines import FaultList, Place

LARGEST = 1e300
"""No setting is larger. TOML and JSON have whole numbers that no float can hold."""

Known = Mapping[str, Collection[str]]
"""Axis -> names of its registered methods."""


def check_value(name: str, value: Any, known: Known, place: Place, faults: FaultList) -> None:
    """Check one value of the axis `name`: its type, its legal interval, its registered name."""
    rule = RULES[name]
    if rule.takes_names:
        names = rule.words or tuple(known.get(name, ()))
        if value not in names:
            faults.add(place, f"{name} must be one of {', '.join(names)}, got {quoted(value)}", name_hint(str(value), names), value)
    elif not is_number(value, rule) or not rule.allows(value):
        faults.add(place, f"{name} must be {rule.describe()}, got {quoted(value)}", None, value)


def check_axis(axis: Axis, known: Known, faults: FaultList) -> None:
    """Check the choices or the range of one axis."""
    if axis.low is not None and axis.high is not None:
        _check_range(axis, axis.low, axis.high, faults)
        return
    place = ("axes", axis.name, "choices")
    if not axis.choices:
        faults.add(place, f"{axis.name} choices must not be empty", "name at least one, or leave the axis out")
    if axis.step is not None or axis.log:
        faults.add(place, f"{axis.name} must have a range to take step or log, got choices", "write range = [low, high]")
    for index, value in enumerate(axis.choices):
        if value in axis.choices[:index]:
            faults.add(place, f"{axis.name} choices must differ, got {quoted(value)} twice", "leave one out", value)
        else:
            check_value(axis.name, value, known, place, faults)


def check_conditions(axes: Sequence[Axis], named: Collection[str], faults: FaultList) -> None:
    """Check that every condition can be met, that none is circular, and that none is missing.

    Args:
        axes: The axes that could be read.
        named: Every axis name in the file, so that an axis with a fault is not reported as missing too.
        faults: Collects the faults.
    """
    by_name = {axis.name: axis for axis in axes}
    for axis in axes:
        for parent, values in axis.when.items():
            _check_condition(axis, parent, values, by_name, named, faults)
        _check_switches(axis, by_name, named, faults)
    try:
        _sorter(axes).prepare()
    except CycleError as error:
        circle = [str(name) for name in error.args[1]]
        message = f"conditions must not go round in a circle, got {listed(circle, ' -> ')}"
        faults.add(("axes", circle[0], "when"), message, "drop one of them")


def check_ratio(axes: Sequence[Axis], named: Collection[str], known: Known, faults: FaultList) -> None:
    """Check that a pruning method has a ratio."""
    methods = next((axis for axis in axes if axis.name == "prune.method"), None)
    if methods is None or "prune.ratio" in named:
        return
    names = [name for name in known.get(methods.name, ()) if name != IDENTITY[methods.name]]
    if cutting := [choice for choice in methods.choices if choice in names]:
        hint = f'add [axes."prune.ratio"] with a range and when."prune.method" = {_toml_list(cutting)}'
        faults.add(("axes", "prune.method"), f"prune.method {cutting[0]} must have the axis prune.ratio", hint)


def check_student(axes: Sequence[Axis], faults: FaultList) -> None:
    """Check that no student is pruned: its weights say nothing before it is trained."""
    by_name = {axis.name: axis for axis in axes}
    switch, off = SWITCHES["prune"], IDENTITY[SWITCHES["prune"]]
    student, methods = by_name.get(STUDENT), by_name.get(switch)
    if student is not None and methods is not None and any(taken != off for taken in student.when.get(switch, methods.choices)):
        hint = f'write when."{switch}" = {_toml_list([off])}'
        faults.add(("axes", STUDENT), f"{STUDENT} must be conditional on {switch} {quoted(off)}: a student is not pruned", hint)


def check_awareness(axes: Sequence[Axis], faults: FaultList) -> None:
    """Check that the space has a dtype for each quantization-aware training."""
    by_name = {axis.name: axis for axis in axes}
    aware, dtypes = (by_name[name].choices if name in by_name else () for name in (QUANTIZATION_AWARE, "quantize.dtype"))
    for choice in aware:
        if choice != LEFT_OUT[QUANTIZATION_AWARE] and not any(str(dtype).startswith(str(choice)) for dtype in dtypes):
            named = shortened(str(choice))
            wanted = f"a dtype in quantize.dtype that begins with {named}"
            message = f"{QUANTIZATION_AWARE} {named} must have {wanted}, got {listed(dtypes) or 'none'}"
            faults.add(("axes", QUANTIZATION_AWARE, "choices"), message, f"add {wanted}, or leave {named} out", choice)


def check_order(axes: Sequence[Axis], faults: FaultList) -> None:
    """Check that what is pruned after its training is trained plainly, and pruned once."""
    by_name = {axis.name: axis for axis in axes}
    order, aware, parent = (by_name.get(name) for name in (PRUNE_WHEN, QUANTIZATION_AWARE, PARENT_RATIO))
    if order is None or AFTER_TRAINING not in order.choices:
        return
    if aware is not None:
        why = "a training that is aware of a dtype comes after the cut"
        _check_only(order, aware, str(LEFT_OUT[QUANTIZATION_AWARE]), why, faults)
    if parent is not None:
        why = "nothing is trained between two cuts after the training"
        _check_only(parent, order, str(LEFT_OUT[PRUNE_WHEN]), why, faults)


def _check_only(axis: Axis, other: Axis, value: str, why: str, faults: FaultList) -> None:
    """Check that `axis` counts only where `other` has `value`."""
    if any(taken != value for taken in axis.when.get(other.name, other.choices)):
        hint = f'write when."{other.name}" = {_toml_list([value])}'
        faults.add(("axes", axis.name), f"{axis.name} must be conditional on {other.name} {quoted(value)}: {why}", hint)


def in_order(axes: Sequence[Axis]) -> tuple[Axis, ...]:
    """Sort `axes` so that each comes after the axes in its condition, otherwise in file order. No condition may be circular."""
    by_name = {axis.name: axis for axis in axes}
    return tuple(by_name[name] for name in _sorter(axes).static_order())


def _sorter(axes: Sequence[Axis]) -> TopologicalSorter[str]:
    names = {axis.name for axis in axes}
    return TopologicalSorter({axis.name: [parent for parent in axis.when if parent in names] for axis in axes})


def is_number(value: object, rule: AxisRule) -> bool:
    """Whether `value` is a finite number of the kind of `rule`, in its interval or not."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= LARGEST:
        return False
    return rule.kind != "integer" or isinstance(value, int)


def _check_range(axis: Axis, low: float, high: float, faults: FaultList) -> None:
    place = ("axes", axis.name, "range")
    rule = RULES[axis.name]
    if rule.takes_names:
        faults.add(place, f"{axis.name} takes names, not numbers, got a range", "write choices = [...]")
        return
    for value in (low, high):
        check_value(axis.name, value, {}, place, faults)
    if not all(is_number(value, AxisRule("number")) for value in (low, high)):
        return
    if not low < high:
        faults.add(
            place,
            f"{axis.name} range must go from low to high, got [{low:g}, {high:g}]",
            f"write range = [{high:g}, {low:g}]" if low > high else None,
        )
    if axis.integer and not (float(low).is_integer() and float(high).is_integer()):
        faults.add(place, f"{axis.name} range must be whole numbers, got [{low:g}, {high:g}]")
    if axis.log and low <= 0:
        faults.add(
            place,
            f"{axis.name} range must be above zero on a log scale, got [{low:g}, {high:g}]",
            "start it above 0, or leave log out",
        )
    if axis.log and axis.step is not None:
        faults.add(("axes", axis.name, "step"), f"{axis.name} must have either log or step, got both", "leave one out")
    if axis.step is not None and low < high and not (axis.step > 0 and _divides(axis.step, high - low)):
        faults.add(("axes", axis.name, "step"), f"{axis.name} step must divide the range {low:g} to {high:g}, got {axis.step}")


def _divides(step: float, span: float) -> bool:
    if not is_number(step, AxisRule("number")) or not math.isfinite(count := span / step):
        return False
    return round(count) >= 1 and abs(count - round(count)) < 1e-6


def _check_condition(
    axis: Axis, parent: str, values: tuple[Value, ...], by_name: Mapping[str, Axis], named: Collection[str], faults: FaultList
) -> None:
    place = ("axes", axis.name, "when", parent)
    if parent not in named:
        wrong = "an axis of this space" if parent in RULES else "an axis"
        faults.add(place, f"condition of {axis.name} must name {wrong}, got {quoted(parent)}", nearest_hint(parent, named))
        return
    if not values:
        faults.add(
            place, f"condition of {axis.name} must list values of {parent}, got none", "list the values with which it counts"
        )
    if parent not in by_name:
        return
    for value in values:
        if not by_name[parent].takes(value):
            near = nearest_hint(str(value), [str(choice) for choice in by_name[parent].choices])
            message = (
                f"condition of {axis.name} must list values that {parent} takes ({by_name[parent].describe()}), got {quoted(value)}"
            )
            faults.add(place, message, near, value)


def _check_switches(axis: Axis, by_name: Mapping[str, Axis], named: Collection[str], faults: FaultList) -> None:
    """Check that an axis is conditional on its switches: from a setting without effect the sampler would learn nonsense."""
    place = ("axes", axis.name)
    for parent in RULES[axis.name].switches:
        off = IDENTITY[parent]
        if parent not in named:
            faults.add(
                place, f"{axis.name} has no effect without the axis {parent}", f'add [axes."{parent}"], or leave {axis.name} out'
            )
        elif parent in by_name and by_name[parent].takes(off) and off in axis.when.get(parent, (off,)):
            effective = [choice for choice in by_name[parent].choices if choice != off]
            hint = f'write when."{parent}" = {_toml_list(effective)}'
            faults.add(place, f"{axis.name} has no effect with {parent} {quoted(off)}, so it must be conditional", hint)


def _toml_list(values: Sequence[Value]) -> str:
    return "[" + listed(f'"{value}"' if isinstance(value, str) else value for value in values) + "]"
