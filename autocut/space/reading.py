"""Read a space file: find it, check it, and report all faults, each with its line and the nearest valid name."""

from __future__ import annotations

import importlib.resources
import json
import tomllib
from dataclasses import dataclass
from functools import cached_property
from importlib.resources.abc import Traversable
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, StrictBool, StrictFloat, StrictInt, StrictStr, ValidationError

from autocut.errors import SpaceError, name_hint, nearest_hint, quoted, unknown_name
from autocut.recipe import Recipe
from autocut.score import METRICS
from autocut.space.axes import RULES, Axis, Space
from autocut.space.checks import (
    Known,
    check_awareness,
    check_axis,
    check_conditions,
    check_order,
    check_ratio,
    check_student,
    check_value,
    in_order,
)
from autocut.space.outside import why_no_setting
from autocut.toml_lines import FaultList, LineMap, Place

SCHEMA_VERSION = 1
_RECIPE_HINT = 'write prune.method = "structured" and prune.ratio = 0.5'


class _SpaceTable(BaseModel):
    """The top level of a space file. Axes, objectives and anchors are checked one by one, so that no fault hides another."""

    model_config = ConfigDict(extra="forbid")
    schema_version: StrictInt
    description: StrictStr = ""
    device: Literal["cpu", "cuda"] = "cpu"
    objectives: dict[str, Any] = {}
    axes: dict[str, Any] = {}
    anchors: list[dict[str, Any]] = []


class _AxisTable(BaseModel):
    """One `[axes."name"]` table. `checks.py` checks the values."""

    model_config = ConfigDict(extra="forbid")
    choices: list[Any] | None = None
    range: list[StrictInt | StrictFloat] | None = None
    step: StrictInt | StrictFloat | None = None
    log: StrictBool = False
    integer: StrictBool = False
    when: dict[str, list[Any]] = {}


Table = TypeVar("Table", _SpaceTable, _AxisTable)


def shipped_spaces() -> dict[str, Traversable]:
    """Return the space files that come with autocut, by name.

    A wheel has them inside the package. An editable install has them beside the package, in the repository.
    """
    package = importlib.resources.files("autocut")
    for folder in (package / "search_spaces", Path(str(package)).parent / "search_spaces"):
        if folder.is_dir():
            files = sorted((file for file in folder.iterdir() if file.name.endswith(".toml")), key=lambda file: file.name)
            return {file.name.removesuffix(".toml"): file for file in files}
    raise SpaceError("the shipped search spaces are missing from this installation", "reinstall autocut")


def load_space(name_or_path: str, known: Known) -> Space:
    """Load a shipped space by its name, or a space file by its path.

    Args:
        name_or_path: Such as ``quick`` or ``spaces/mine.toml``.
        known: Method names by axis, as from `autocut.stages.methods.known_methods`.

    Raises:
        UnknownNameError: No shipped space has this name.
        SpaceError: The file cannot be read, or is not TOML.
        FaultsError: The file has faults; all of them are listed.
    """
    return parse_space(read_space_file(name_or_path), known)


@dataclass(frozen=True)
class SpaceFile:
    """The text of a space file and its TOML document. Faults name the file by `source`."""

    name: str
    text: str
    source: str

    @cached_property
    def document(self) -> dict[str, Any]:
        """The TOML document, not checked yet.

        Raises:
            SpaceError: The text is not TOML.
        """
        try:
            return tomllib.loads(self.text)
        except tomllib.TOMLDecodeError as error:
            raise SpaceError(
                f"space file must be TOML, got {quoted(self.source)}: {error}", "strings and axis names need quotes"
            ) from error

    @property
    def trains(self) -> bool:
        """Whether recipes of the space may train. A file that cannot be read says it later, when it is checked."""
        axes = self.document.get("axes")
        return not isinstance(axes, dict) or "train.epochs" in axes


def read_space_file(name_or_path: str) -> SpaceFile:
    """Find and read a space file. It does not need the methods.

    Raises:
        UnknownNameError: No shipped space has this name.
        SpaceError: The file cannot be read.
    """
    path = Path(name_or_path)
    if path.suffix != ".toml" and len(path.parts) == 1:
        shipped = shipped_spaces()
        if name_or_path not in shipped:
            error = unknown_name("space", name_or_path, shipped)
            error.hint = error.hint or "give the path of a space file with its ending: mine.toml"
            raise error
        return SpaceFile(name_or_path, shipped[name_or_path].read_text(encoding="utf-8"), f"{name_or_path}.toml")
    try:
        return SpaceFile(path.stem, path.read_text(encoding="utf-8"), name_or_path)
    except OSError as error:
        hint = f"the shipped spaces are {', '.join(shipped_spaces())}"
        raise SpaceError(f"space file must be readable, got {quoted(name_or_path)}: {error.strerror}", hint) from error
    except UnicodeDecodeError as error:
        raise SpaceError(f"space file must be UTF-8 text, got {quoted(name_or_path)}: {error.reason}") from error


def parse_space(file: SpaceFile, known: Known) -> Space:
    """Check a space file and build the space.

    Raises:
        SpaceError: The text is not TOML.
        FaultsError: The file has faults; all of them are listed.
    """
    document = file.document
    faults = FaultList(LineMap(file.text, file.source))
    table = _checked(_SpaceTable, document, (), faults)
    version = document.get("schema_version", SCHEMA_VERSION)
    if version != SCHEMA_VERSION and isinstance(version, int):
        faults.add(
            ("schema_version",), f"schema_version must be {SCHEMA_VERSION}, got {quoted(version)}", "this autocut reads no other"
        )
    objectives = _objectives(_table(document, "objectives"), faults)
    axes = _axes(_table(document, "axes"), known, faults)
    anchors = _anchors(document.get("anchors"), known, faults)
    faults.raise_any("space file")
    facts = {"description": table.description, "device": table.device} if table else {}
    space = Space(file.name, MappingProxyType(objectives), in_order(axes), tuple(anchors), **facts)
    for index, anchor in enumerate(anchors):
        if reason := space.why_not(anchor):
            faults.add(("anchors", index), f"anchor must lie in the space: {reason}")
    faults.raise_any("space file")
    return space


def read_recipe(path: Path, space: Space) -> Recipe:
    """Read a recipe of the user: TOML (``.toml``) or JSON, with dotted names or one table for each stage.

    A point of `autocut front --json` works too: its ``recipe`` is read.

    Raises:
        SpaceError: The file cannot be read, or has no table of settings.
        FaultsError: A name is no recipe setting (all are listed), or a setting lies outside `space` (the first is listed).
    """
    try:
        text = path.read_text(encoding="utf-8")
        document = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except (OSError, ValueError) as error:
        raise SpaceError(f"recipe file must be readable TOML or JSON, got {quoted(str(path))}: {error}", _RECIPE_HINT) from error
    settings = document.get("recipe", document) if isinstance(document, dict) else None
    if not isinstance(settings, dict):
        raise SpaceError(f"recipe file must hold one table of settings, got {quoted(str(path))}", _RECIPE_HINT)
    settings = _flat(settings)
    faults = FaultList(LineMap(text if path.suffix == ".toml" else "", str(path)))
    for name, value in settings.items():
        if name not in RULES:
            faults.add((name,), f"recipe setting must be one of {', '.join(RULES)}, got {quoted(name)}", name_hint(name, RULES))
        elif reason := why_no_setting(name, value):
            faults.add((name,), reason)
    faults.raise_any("recipe file")
    recipe = Recipe(settings)
    if reason := space.why_not(recipe):
        faults.add((), f"recipe must lie in space {space.name}: {reason}", "change the recipe, or widen a space file of your own")
    faults.raise_any("recipe file")
    return recipe


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def _table(document: dict[str, Any], key: str) -> dict[str, Any]:
    table = document.get(key)
    return table if isinstance(table, dict) else {}


def _objectives(table: dict[str, Any], faults: FaultList) -> dict[str, str]:
    if not table:
        faults.add(("objectives",), "objectives must name at least one value", 'write [objectives] and accuracy = "maximize"')
    for name, direction in table.items():
        place = ("objectives", name)
        if name not in METRICS:
            faults.add(place, f"objective must be one of {', '.join(METRICS)}, got {quoted(name)}", name_hint(name, METRICS))
        elif name == "speedup":
            hint = 'write usd_per_million = "minimize": it is the same order, as an amount'
            faults.add(place, "objectives.speedup must be a cost or the accuracy, got a ratio of costs", hint)
        elif direction != METRICS[name].direction:
            hint = f'write {name} = "{METRICS[name].direction}"'
            faults.add(place, f"objectives.{name} must be {quoted(METRICS[name].direction)}, got {quoted(direction)}", hint)
    return table


def _axes(tables: dict[str, Any], known: Known, faults: FaultList) -> list[Axis]:
    if not tables:
        faults.add(("axes",), "axes must name at least one axis", 'write [axes."quantize.dtype"] and its choices')
    axes = [axis for name, table in tables.items() if (axis := _axis(name, table, faults)) is not None]
    for axis in axes:
        check_axis(axis, known, faults)
    check_conditions(axes, tables, faults)
    check_ratio(axes, tables, known, faults)
    check_student(axes, faults)
    check_awareness(axes, faults)
    check_order(axes, faults)
    return axes


def _axis(name: str, table: object, faults: FaultList) -> Axis | None:
    """Build the axis from its table; return None if the table has a fault."""
    place = ("axes", name)
    if name not in RULES:
        faults.add(place, f"axis must be one of {', '.join(RULES)}, got {quoted(name)}", name_hint(name, RULES))
        return None
    checked = _checked(_AxisTable, table, place, faults)
    if checked is None:
        return None
    if (checked.choices is None) == (checked.range is None):
        got = "neither" if checked.choices is None else "both"
        faults.add(place, f"{name} must have either choices or a range, got {got}", "write choices = [...] or range = [low, high]")
        return None
    if checked.range is not None and len(checked.range) != 2:
        faults.add((*place, "range"), f"{name} range must be [low, high], got {quoted(checked.range)}")
        return None
    low, high = checked.range or (None, None)
    when = MappingProxyType({parent: tuple(values) for parent, values in checked.when.items()})
    integer = checked.integer or RULES[name].kind == "integer"
    return Axis(name, tuple(checked.choices or ()), low, high, checked.step, checked.log, integer, when)


def _anchors(tables: object, known: Known, faults: FaultList) -> list[Recipe]:
    anchors = []
    for index, table in enumerate(tables if isinstance(tables, list) else []):
        if isinstance(table, dict) and _check_settings(table, known, ("anchors", index), faults):
            anchors.append(Recipe(table))
    return anchors


def _check_settings(settings: dict[str, Any], known: Known, place: Place, faults: FaultList) -> bool:
    """Check every setting of a recipe; return whether the file has no fault so far."""
    for name, value in settings.items():
        if name in RULES:
            check_value(name, value, known, (*place, name), faults)
        else:
            message = f"recipe setting must be one of {', '.join(RULES)}, got {quoted(name)}"
            faults.add((*place, name), message, name_hint(name, RULES))
    return not faults


def _checked(model: type[Table], table: object, place: Place, faults: FaultList) -> Table | None:
    """Let pydantic check the types and keys of a table; its errors become faults with lines."""
    try:
        return model.model_validate(table)
    except ValidationError as error:
        seen: set[Place] = set()
        for detail in error.errors():
            # pydantic reports each member of a union at its own location; only the first key is in the file.
            key: Place = detail["loc"][:1]
            if key in seen:
                continue
            seen.add(key)
            _add_shape_fault(model, (*place, *key), detail["type"], detail["msg"], faults)
        return None


def _add_shape_fault(model: type[BaseModel], place: Place, kind: str, words: str, faults: FaultList) -> None:
    subject = f"{place[1]} {place[-1]}" if len(place) > 2 else str(place[-1])
    if kind == "missing":
        faults.add(place, f"{subject} is missing", "write schema_version = 1" if place == ("schema_version",) else None)
    elif kind == "extra_forbidden":
        fields = tuple(model.model_fields)
        near = nearest_hint(str(place[-1]), fields)
        faults.add(place, f"key must be one of {', '.join(fields)}, got {quoted(str(place[-1]))}", near)
    else:
        faults.add(place, f"{subject} has the wrong type: {words[:1].lower()}{words[1:]}")
