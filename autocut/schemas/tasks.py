"""Documents about a task, a configuration, and autocut itself."""

from __future__ import annotations

from typing import Any

from autocut.schemas.document import Document, FaultPart, Part


class CheckDocument(Document):
    """`autocut check --json`. `task` is the path, null for the embedded digits task. The exit code is 2 if there are faults."""

    task: str | None
    ok: bool
    faults: tuple[FaultPart, ...]
    notes: tuple[str, ...]


class SettingPart(Part):
    """A value of the merged configuration. `source` is "flag", "default", the name of a variable, or a configuration file."""

    value: Any
    source: str


class DryRunDocument(Document):
    """`autocut search --dry-run --json`: the merged configuration by flag, and all faults. The exit code is 2 if there are any."""

    configuration: dict[str, SettingPart]
    ok: bool
    faults: tuple[FaultPart, ...]


class MethodPart(Part):
    """One method of an axis. `missing` names packages that are not installed; `available` says whether it has all it requires."""

    axis: str
    name: str
    summary: str
    requires: tuple[str, ...]
    missing: tuple[str, ...]
    available: bool


class PairPart(Part):
    """A dtype with a compile mode; `reason` says why the `device` of this machine cannot run the pair, null where it can."""

    dtype: str
    mode: str
    reason: str | None
    device: str
    feasible: bool


class MethodsDocument(Document):
    """`autocut methods --json`."""

    methods: tuple[MethodPart, ...]
    pairs: tuple[PairPart, ...]
