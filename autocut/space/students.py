"""The students of a task as an axis of the space: smaller models of the user's own that are trained in the untouched model's place.

A space file names no student, because each task has others. So every space that prunes and trains gets the axis ``model.student``
where the task has students, unless its file has that axis itself. A student starts from nothing: it is not pruned, it is always
trained, and ``train.epochs`` gains the number of epochs that the task gives the untouched model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from autocut.recipe import IDENTITY, NO_STUDENT, STUDENT, SWITCHES, Recipe, Value
from autocut.space.axes import Axis, Space, axis_values

_PRUNE, _TRAIN = SWITCHES["prune"], SWITCHES["train"]
_PREFERRED: Mapping[str, Value] = MappingProxyType({"train.lr_scale": 1.0, "distill.temperature": 4.0, "distill.alpha": 0.9})
"""How a student is trained first: at the task's learning rate, and mostly by its teacher."""


def with_students(space: Space, students: Sequence[str], epochs: int) -> Space:
    """Return `space` with the axis of the task's `students`, and with a recipe among its anchors that trains each of them once.

    The space is returned as it is where the task has no students, or where it does not prune and train.

    Args:
        space: What is explored.
        students: Names of the task's students.
        epochs: For how many epochs the task trains the untouched model.
    """
    trains = space.axis(_TRAIN)
    if not students or trains is None or space.axis(_PRUNE) is None:
        return space
    if space.axis(STUDENT) is None:
        space = _with_axis(_with_epochs(space, epochs), students)
    own = [_anchor(space, str(name), epochs) for name in _choices(space.axis(STUDENT)) if name != NO_STUDENT]
    # Cuts that need no training come first. A student needs the longest training, but is the user's own idea.
    anchors = [*space.anchors, *(anchor for anchor in own if space.contains(anchor))]
    return replace(space, anchors=tuple(sorted(anchors, key=lambda anchor: (anchor.is_trained, anchor.student is None))))


def _with_axis(space: Space, students: Sequence[str]) -> Space:
    trains = space.axis(_TRAIN)
    trained = tuple(value for value in axis_values(trains) if value) if trains is not None else ()
    when = {_PRUNE: (IDENTITY[_PRUNE],), _TRAIN: trained}
    axis = Axis(STUDENT, (NO_STUDENT, *students), when=MappingProxyType(when))
    last = max(at for at, other in enumerate(space.axes) if other.name in when)
    return replace(space, axes=(*space.axes[: last + 1], axis, *space.axes[last + 1 :]))


def _with_epochs(space: Space, epochs: int) -> Space:
    """Add `epochs` to the choices of ``train.epochs``, and to the conditions that hold for every number of epochs."""
    trains = space.axis(_TRAIN)
    if trains is None or not trains.choices or trains.takes(epochs):
        return space
    every = {value for value in trains.choices if value}

    def widened(axis: Axis) -> Axis:
        if axis.name == _TRAIN:
            return replace(axis, choices=(*axis.choices, epochs))
        if not every <= set(axis.when.get(_TRAIN, ())):
            return axis
        return replace(axis, when=MappingProxyType({**axis.when, _TRAIN: (*axis.when[_TRAIN], epochs)}))

    return replace(space, axes=tuple(map(widened, space.axes)))


def _anchor(space: Space, student: str, epochs: int) -> Recipe:
    """Return the recipe that trains `student` from the teacher as long as the untouched model, as far as the space allows."""
    settings: dict[str, Value] = {}
    wanted: dict[str, Value] = {**IDENTITY, **_PREFERRED, STUDENT: student, _TRAIN: epochs}
    if (losses := space.axis("distill.loss")) is not None:
        wanted["distill.loss"] = next((loss for loss in losses.choices if loss != IDENTITY["distill.loss"]), losses.choices[0])
    for axis in space.axes:
        if space.is_active(axis, settings):
            value = wanted.get(axis.name)
            if axis.name == _TRAIN and not axis.takes(epochs):
                value = max(axis_values(axis))
            settings[axis.name] = value if value is not None and axis.takes(value) else axis.example()
    return Recipe(settings)


def _choices(axis: Axis | None) -> Sequence[Value]:
    return () if axis is None else axis.choices
