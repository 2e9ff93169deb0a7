"""The parts of the page below the table: how the front grew, where the time went, what failed, and what made the numbers."""

from __future__ import annotations

import datetime as dt
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from autocut.budget import format_duration, format_size, format_usd
from autocut.counting import format_count, inflected
from autocut.report.page.contents import Section
from autocut.report.page.trials import one_line
from autocut.study import Study
from autocut.study.remeasurements import remeasurements

GROWTH_PLOT = "growth"
_NUMBER = re.compile(r"\d[\d.,]*(?:e[-+]?\d+)?")
_TRIALS_NAMED = 5
_MEANINGS: Mapping[str, str] = {
    "starting": "checks of the task, start of Ray",
    "training": "training models, the untouched one too",
    "compiling": "quantizing, exporting, compiling, loading",
    "measuring": "scoring and timing",
    "finalizing": "the locked test split, bundles, their verification",
    "waiting": "until the machine was quiet, or another worker had made the stage",
    "idle": "no job for the worker",
    "overhead": "processes that start, between two jobs",
    "killed": "work of processes that were killed",
    "unrecorded": "an earlier version of autocut did not write it down",
}
_FACTS: Mapping[str, str] = {
    "seed": "seed",
    "threads": "threads of a model",
    "train_on": "device that trained the models",
    "train_precision": "precision of the trainings",
    "train_memory_format": "memory layout of the trainings",
    "serve_on": "device that scored and timed the models",
    "timed_memory": "memory that a timed model frees",
    "counted_call": "call of a model's turn that counts",
    "limits": "limits",
    "max_accuracy_drop": "largest accuracy drop of the search",
    "space": "space",
    "price": "price",
}


def closing_sections(study: Study) -> list[Section]:
    """Return the sections that every study has; empty ones are for the template to leave out."""
    document = study.ledger()
    return [
        growth(),
        time_ledger(document),
        what_failed((trial.state, trial.reason, trial.trial) for trial in study.trials() if trial.reason),
        machine(study.facts),
        measured_again(remeasurements(study)),
        environment(study, document),
    ]


def growth() -> Section:
    """How the hypervolume grew. The script draws it."""
    told = "Hypervolume of the front, on the validation split, as a share of its present value. Where the line is flat, more time "
    return Section("How the front grew", (f"{told}improved nothing.",), plot=GROWTH_PLOT)


def time_ledger(document: Mapping[str, Any]) -> Section:
    """Where the seconds of the budget went."""
    seconds = {name: spent for name, spent in document["by_category"].items() if spent > 0}
    total = sum(seconds.values())
    if not total:
        return Section("Where the time went")
    ordered = sorted(seconds.items(), key=lambda item: -item[1])
    busy = document["cores_busy"]
    runs = len(document["sessions"])
    told = f"{format_duration(document['spent_s'])} worked in {format_count(runs, 'run')}"
    return Section(
        "Where the time went",
        (f"{told}." if busy is None else f"{told}; the cores were busy for {busy:.0%} of it.",),
        ("category", "time", "share", "what it is"),
        tuple((name, format_duration(spent), f"{spent / total:.0%}", _MEANINGS.get(name, "")) for name, spent in ordered),
        tuple(spent / total for _, spent in ordered),
    )


def what_failed(ended: Iterable[tuple[str, str | None, int]]) -> Section:
    """Trials that ended without a measurement, grouped by a reason that differs in its numbers alone.

    Args:
        ended: State, reason and number of each such trial.
    """
    groups: dict[tuple[str, str], list[tuple[str, int]]] = defaultdict(list)
    for state, reason, trial in ended:
        told = one_line(reason or "no reason given").removeprefix("stopped: ")
        groups[state, _NUMBER.sub("#", told)].append((told, trial))
    ordered = sorted(groups.items(), key=lambda item: -len(item[1]))
    rows = [
        (
            f"{len(found)} {'stopped early' if state == 'PRUNED' else 'failed'}",
            f"{found[0][0]} ({_some(trial for _, trial in found)})",
        )
        for (state, _), found in ordered
    ]
    return Section("What ended early, and why", (), ("how many", "reason, that of the first"), tuple(rows))


def machine(facts: Mapping[str, Any]) -> Section:
    """The machine that timed the models."""
    known = facts.get("machine")
    described = known if isinstance(known, dict) else {"machine": known} if known else {}
    rows = [(name.removesuffix("_bytes").replace("_", " "), _plain(name, value)) for name, value in described.items() if value]
    return Section("The machine", _warnings(facts), ("what", "found"), tuple(rows))


def measured_again(records: Iterable[tuple[dt.datetime, Mapping[str, Any]]]) -> Section:
    """What `autocut remeasure` found of the bundles, later or on other machines: the latest of each bundle, machine and threads.

    Args:
        records: From `study.remeasurements`, the oldest first.
    """
    latest: dict[tuple[object, ...], tuple[str, ...]] = {}
    for at, one in records:
        found = one["found"]
        where = (found["machine"], found["threads"]) if found else ("", one["failure"])
        trial = "-" if one["trial"] is None else str(one["trial"])
        calls = [f"batch {call['batch_size']}: {call['p50_ms']['value']:.3g} ms" for call in found["latencies"]] if found else []
        usd = one["usd_per_million"]
        charged = "on the whole machine" if one.get("served") else "as one process"
        dollars = [f"{format_usd(usd['value'])} per million {charged} ({one['instance']})"] if usd else []
        place = f"{found['machine']}, {format_count(found['threads'], 'thread')}" if found else "-"
        told = "; ".join([*calls, *dollars, *([f"cannot be used there: {one['failure']}"] if one["failure"] else [])])
        latest[one["sha256"], *where] = (f"trial {trial}", f"{at:%d %B %Y}", place, told)
    told = "The claims of the bundles stay what they were. This is what autocut remeasure found."
    return Section("Measured again", (told,) if latest else (), ("bundle", "when", "where", "found"), tuple(latest.values()))


def _warnings(facts: Mapping[str, Any]) -> tuple[str, ...]:
    """What the audit of the machine found, and why dollars may not hold here, in the study's own words."""
    fit = facts.get("price_fit")
    told = (*map(str, facts.get("machine_audit") or ()), *([str(fit)] if fit else []))
    return tuple(f"{line[:1].upper()}{line[1:].rstrip('.')}." for line in told)


def environment(study: Study, document: Mapping[str, Any]) -> Section:
    """The commands, the settings and the versions of the libraries that made the study."""
    facts, runs = study.facts, document["sessions"]
    rows = [("task", study.name), ("objectives", ", ".join(f"{way} {name}" for name, way in study.objectives.items()))]
    rows += [(told, _plain(name, facts[name])) for name, told in _FACTS.items() if facts.get(name) not in (None, [], {})]
    rows += [(f"run of {_day(run['started'])}", f"{run['command']} ({format_duration(run['worked_s'])})") for run in runs]
    versions: dict[str, list[str]] = defaultdict(list)
    for run in runs:
        for name, version in run["versions"].items():
            if version not in versions[name]:
                versions[name].append(version)
    rows.append(("versions", ", ".join(f"{name} {' then '.join(found)}" for name, found in versions.items())))
    return Section("What made these numbers", (), ("what", "value"), tuple(rows))


def _day(written: str) -> str:
    return dt.datetime.fromisoformat(written).astimezone(dt.UTC).strftime("%d %B %Y, %H:%M UTC")


def _some(trials: Iterable[int]) -> str:
    """Name a few trials: ``trials 2, 3, 4``."""
    numbers = list(trials)
    shown = ", ".join(map(str, numbers[:_TRIALS_NAMED]))
    return f"{inflected(len(numbers), 'trial')} {shown}{', …' if len(numbers) > _TRIALS_NAMED else ''}"


def _plain(name: str, value: object) -> str:
    if name == "price" and isinstance(value, dict):
        return (
            f"{value['instance']} at ${value['usd_per_hour']:g} per hour ({value['date']}), busy {value['utilization']:.0%} of it"
        )
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(key, one)}" for key, one in value.items())
    if isinstance(value, list):
        return ", ".join(_plain(name, one) for one in value)
    return format_size(value) if name.endswith("_bytes") and isinstance(value, int) else str(value)
