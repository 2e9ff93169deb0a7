"""Runs a search among methods that fail, and compares what the study says of each with what must be said.

A `Fault` is a kind: the recipe that has it, and how its record must begin. A recipe that fails for any other reason than its own
faults is an innocent one that was blamed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import autocut
from autocut.recipe import Recipe
from autocut.study import open_study

HERE = Path(__file__).parent
_WORKER_MEMORY = "6GB"
_SLACK_S = 5.0


@dataclass(frozen=True)
class Fault:
    """A kind of fault: what has it, and what the study must say of it (a pattern that the reason matches from its begin).

    `is_blameless` says that the recipe must be tried again and measured. The pattern is then that of the search's line about it.
    `other` is what the study may say of other recipes with the same method.
    """

    kind: str
    settings: Mapping[str, Any]
    reason: str
    is_blameless: bool = False
    other: str | None = None

    def has(self, recipe: Recipe) -> bool:
        """Whether `recipe` has all of its settings."""
        return all(recipe.get(name) == value for name, value in self.settings.items())

    def explains(self, recipe: Recipe, reason: str) -> bool:
        """Whether `recipe` has what fails, and `reason` is what may be said of it."""
        causes = {(name, value) for name, value in self.settings.items() if str(value).startswith("faulty_")}
        causes |= _PLAIN_CAUSES & self.settings.items()
        if not causes & recipe.items():
            return False
        patterns = filter(None, [None if self.is_blameless else self.reason, self.other])
        return any(re.match(pattern, reason, re.DOTALL) for pattern in patterns)


_PLAIN_CAUSES = {("train.epochs", 30), ("compile.mode", "aot_inductor")}
"""Settings of good methods that fail here: a training that reads too many samples, and the compiler that is missing."""
_FAILS = r"(failed: (?!the task's own)|infeasible: )"


def _pruned(method: str, **more: Any) -> dict[str, Any]:
    return {"prune.method": method, "prune.ratio": 0.5, **more}


FAULTS = (
    Fault("segfault in native code", _pruned("faulty_segfault"), r"failed: the worker process crashed: .*SIGSEGV"),
    Fault("abort in native code", _pruned("faulty_abort"), r"failed: the worker process crashed: .*SIGABRT"),
    Fault("a mapped file that is cut short", _pruned("faulty_bus"), r"failed: the worker process crashed: .*SIGBUS"),
    Fault(
        "killed by somebody, once",
        _pruned("faulty_killed_once"),
        r"again: .*: the worker process was killed \(SIGKILL\)$",
        is_blameless=True,
    ),
    Fault(
        "killed by a guard of the memory, each time",
        _pruned("faulty_killed"),
        r"failed: the worker process was killed \(SIGKILL\)$",
    ),
    Fault("a library ends the process", _pruned("faulty_exit"), r"failed: the worker process ended with exit code 7$"),
    Fault("out of memory", _pruned("faulty_memory"), r"failed: OutOfMemoryError: .*--worker-memory"),
    Fault("an error that nobody expects", _pruned("faulty_bug"), r"bug: KeyError: .*\n.*Traceback"),
    Fault(
        "an export that fails",
        _pruned("faulty_export", **{"compile.mode": "onnxruntime"}),
        r"failed: CompilerError: .*export",
        other=_FAILS,
    ),
    Fault(
        "answers that are no numbers", _pruned("faulty_numbers"), r"failed: DivergedError: outputs must be numbers", other=_FAILS
    ),
    Fault("a loss that is no number", {"train.epochs": 1, "distill.loss": "faulty_nan"}, r"failed: DivergedError: "),
    Fault(
        "a dataset that raises at sample 5,000",
        {"train.epochs": 30},
        r"failed: the task's own code failed: .* sample 5001 .*task.py",
    ),
    Fault("SIGFPE in a runtime", {"compile.mode": "faulty_runtime"}, r"failed: the worker process crashed: .*SIGFPE"),
    Fault(
        "a compiler that hangs",
        {"compile.mode": "faulty_compiler"},
        r"failed: it hung: ",
        other=r"failed: CompilerError: faulty_compiler has hung before",
    ),
    Fault("no C++ compiler", {"compile.mode": "aot_inductor"}, r"infeasible: .*no C\+\+ compiler found"),
    Fault(
        "a bundle that does not verify",
        {"compile.mode": "faulty_bundle"},
        r"outputs deviate .*accuracy on examples is ",
        other=r"infeasible: faulty_bundle takes one model",
    ),
)
"""In the order in which the search is asked for them. The last one fails after it was measured."""
_ASKED = {Recipe(fault.settings): fault for fault in FAULTS}


@dataclass
class Outcome:
    """What came of a search: what was recorded of each fault, and sentences about what should not have happened."""

    recorded: dict[str, str] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    told: str = ""


def search(folder: Path, budget_s: int) -> Outcome:
    """Search in `folder` for `budget_s` seconds among all faults, and look at what the study says of them."""
    began = time.monotonic()
    done = subprocess.run(
        [
            sys.executable, "-m", "autocut", "search", str(HERE / "task.py"), "--space", str(HERE / "space.toml"),
            "--budget", f"{budget_s}s", "--workers", "2", "--out", str(folder / "study"), "--worker-memory", _WORKER_MEMORY,
            *(word for path in _recipes(folder) for word in ("--try", str(path))),
        ],
        env=_environment(folder), text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False,
    )  # fmt: skip
    took_s = time.monotonic() - began
    (folder / "told.txt").write_text(done.stderr, encoding="utf-8")
    outcome = Outcome(told=done.stderr)
    if done.returncode != 0:
        outcome.wrong.append(f"the search ended with exit code {done.returncode}: {done.stderr[-600:]}")
    if took_s > budget_s * 1.01 + _SLACK_S:
        outcome.wrong.append(f"the search took {took_s:.1f} s of {budget_s} s")
    with contextlib.closing(open_study(folder / "study")) as study:
        _look(study, outcome)
    if "switched off for this study: prune.method faulty_segfault" not in done.stderr:
        outcome.wrong.append("a method that died three times was not switched off")
    return outcome


def _look(study: Any, outcome: Outcome) -> None:
    refusals = {number: final.refusal or "" for number, final in study.finals().items()}
    for trial in study.trials():
        if trial.recipe is None or trial.retry:
            continue
        if trial.state == "COMPLETE" and trial.recipe in _ASKED and _ASKED[trial.recipe].is_blameless:
            outcome.recorded[_ASKED[trial.recipe].kind] = _line_about(trial.recipe, outcome.told)
        if trial.state != "FAIL":
            continue
        reason = trial.reason or ""
        if trial.recipe in _ASKED:
            outcome.recorded.setdefault(_ASKED[trial.recipe].kind, reason)
        elif not _is_explained(trial.recipe, reason):
            outcome.wrong.append(f"an innocent recipe was blamed: {trial.recipe.describe()}: {reason[:200]}")
    for number, refusal in refusals.items():
        recipe = next(trial.recipe for trial in study.trials() if trial.trial == number)
        if not refusal or recipe is None:
            continue
        if FAULTS[-1].has(recipe) and not refusal.startswith("infeasible"):
            outcome.recorded.setdefault(FAULTS[-1].kind, refusal)
        elif not _is_explained(recipe, refusal):
            outcome.wrong.append(f"an innocent bundle was refused: {number}: {refusal}")
    for fault in FAULTS:
        if fault.kind not in outcome.recorded:
            outcome.wrong.append(f"not recorded: {fault.kind}")
        elif not re.match(fault.reason, outcome.recorded[fault.kind], re.DOTALL):
            outcome.wrong.append(f"{fault.kind} has another reason: {outcome.recorded[fault.kind][:300]}")
    if not any(point.bundle for point in study.front()):
        outcome.wrong.append("no verified bundle is on the front")


def _line_about(recipe: Recipe, told: str) -> str:
    """Return what the search has told of a second try of `recipe`, without what stands before it in the line."""
    # Its worker may have made the model for another lowering when it was killed.
    found = re.search(rf"again: {re.escape(recipe.prefix.describe())}.*", told)
    return found[0] if found else "nothing was told of a second try"


def _is_explained(recipe: Recipe, reason: str) -> bool:
    """Whether one of the faults that `recipe` has is the reason: otherwise it is blamed for another recipe's."""
    return any(fault.explains(recipe, reason) for fault in FAULTS)


def _recipes(folder: Path) -> Iterator[Path]:
    """Write the recipe of each fault to a file. The segfault comes three times, for what switches a method off."""
    wanted = [dict(fault.settings) for fault in FAULTS]
    wanted += [{**_pruned("faulty_segfault"), "prune.ratio": ratio} for ratio in (0.25, 0.75)]
    for number, settings in enumerate(wanted):
        path = folder / f"recipe-{number:02d}.json"
        path.write_text(json.dumps(settings), encoding="utf-8")
        yield path


def _environment(folder: Path) -> dict[str, str]:
    """Return the environment of a Python in which the faulty methods are installed, and that finds no C++ compiler."""
    record = folder / "installed" / "faulty_methods-1.0.dist-info"
    record.mkdir(parents=True)
    shutil.copy(HERE / "faulty_methods.py", record.parent)  # a bundle is verified without the folder of its task
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty-methods\nVersion: 1.0\n", encoding="utf-8")
    (record / "entry_points.txt").write_text("[autocut.methods]\nfaulty = faulty_methods\n", encoding="utf-8")
    paths = [str(record.parent), str(Path(autocut.__file__).parents[1])]
    return {
        **os.environ, "PYTHONPATH": os.pathsep.join(paths), "CXX": str(folder / "no-compiler"), "FAULTS_SCRATCH": str(folder),
        "AUTOCUT_LOCK_DIR": str((folder / "locks").absolute()),
    }  # fmt: skip
