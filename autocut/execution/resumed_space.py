"""The space of a study that goes on. Choices that the space has gained since then are left out: the study keeps its parameters."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, replace
from typing import Any

from autocut.recipe import LEFT_OUT, STUDENT
from autocut.space import Space, fit_space


def space_document(space: Space) -> str:
    """One spelling of a space, to tell whether a study was made for it."""
    axes = [
        {**asdict(replace(axis, when={})), "when": {name: list(values) for name, values in axis.when.items()}}
        for axis in space.axes
    ]
    return json.dumps({"name": space.name, "objectives": dict(space.objectives), "axes": axes}, sort_keys=True)


def space_of_study(space: Space, stored: str) -> Space:
    """Return `space` as the study with the document `stored` knows it, or `space` itself where more than new choices differ.

    A new version of autocut may give a shipped space new methods. In Optuna a parameter cannot change its choices. New numbers on
    an axis stay a difference.
    """
    known: Mapping[str, Any] = {axis["name"]: axis["choices"] for axis in json.loads(stored).get("axes", [])}
    gained: dict[str, Collection[Any]] = {
        axis.name: [str(choice) for choice in axis.choices if choice not in known[axis.name]]
        for axis in space
        if axis.name in known
    }
    for name, value in LEFT_OUT.items():
        axis = space.axis(name)
        if name != STUDENT and name not in known and axis is not None and value in axis.choices:
            gained[name] = axis.choices  # recipes of before did not have it
    reduced = fit_space(space, gained)
    return reduced if space_document(reduced) == stored else space


def left_out(space: Space, reduced: Space) -> list[str]:
    """Name the choices of `space` that `reduced` does not have, such as ``distill.loss mse``."""
    return [
        f"{axis.name} {choice}"
        for axis in space
        for choice in axis.choices
        if (kept := reduced.axis(axis.name)) is None or choice not in kept.choices
    ]
