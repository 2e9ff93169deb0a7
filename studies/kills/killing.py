"""Kills a running search at a chosen moment, runs the same command again, and looks whether anything was lost.

A `Victim` is one study. `Victim.kill` starts the command if it does not run, waits for the moment, and kills. A driver that has
survived goes on, one that has not is started again by the next kill. `Victim.finish` lets the command end. Every `Fault` that is
found is a sentence in `faults`.

A search has a temporary folder of its own, so that its locks are its own too.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from outside import began_at, changes, command_of, descendants, is_quiet, sha256_of, targets_of

from autocut.study import open_study

HERE = Path(__file__).parent
_LOOK_S = 0.002
_ALL_GONE_S = 60.0
"""Processes of a killed search must have ended by then."""
_TO_THE_END_S = 35
"""What the last session gets: enough for one verified bundle."""
_LATE_S = 45
"""What a session gets that is to be killed in a late phase: it finalizes at once what is on the front."""
_EXTENSIONS = 3
_GOES_ON_S = 2.5
"""A driver that survives is looked at for so long."""


@dataclass(frozen=True)
class Moment:
    """When to kill: `delay_s` after `phase` has begun, or when it has not begun after `at_most_s`."""

    phase: str
    target: str
    delay_s: float
    at_most_s: float = 60.0


@dataclass(frozen=True)
class Seen:
    """What there is of a search at one moment: the folder of its study, and its processes where they matter."""

    study: Path
    pids: list[int]


PHASES: dict[str, Callable[[Seen], object]] = {
    "start": lambda _: True,
    "study": lambda seen: (seen.study / "study.db").exists(),
    "training": lambda seen: any((seen.study / "stages" / "checkpoints").glob("*")),
    "stage write": lambda seen: any((seen.study / "stages" / "building").glob("*/output/*")),
    "database write": lambda seen: (seen.study / "study.db-journal").exists() or changes(seen.study / "study.db-wal"),
    "measurement": lambda seen: is_quiet(seen.study),
    "export": lambda seen: any((seen.study / "bundles").glob(".*")),
    "verification": lambda seen: any(b"verify_process" in command_of(pid) for pid in seen.pids),
    "dashboard write": lambda seen: changes(seen.study / "artifacts"),
}
"""What is seen from outside while a search is in a phase. A number counts where it changes."""

LATE = ("export", "verification", "dashboard write")
"""Phases that come once in minutes where much of the budget is left, and within seconds where little is."""
TARGETS = ("driver", "worker", "fork server", "relay", "group", "all at once")
SURVIVABLE = ("worker", "fork server", "relay")


def moments(count: int, seed: int, of_phases: Sequence[str] = tuple(PHASES)) -> list[Moment]:
    """Return `count` moments that take each of `of_phases` and every target in turn, in a seeded order."""
    order = random.Random(seed)
    phases = [of_phases[number % len(of_phases)] for number in range(count)]
    targets = [TARGETS[number % len(TARGETS)] for number in range(count)]
    order.shuffle(phases)
    order.shuffle(targets)
    return [
        Moment(phase, target, order.uniform(0, 6) if phase == "start" else order.expovariate(10))
        for phase, target in zip(phases, targets, strict=True)
    ]


@dataclass
class Victim:
    """A study in `folder` that is killed again and again."""

    folder: Path
    budget_s: int
    log: IO[str]
    faults: list[str] = field(default_factory=list)
    kills: Counter[str] = field(default_factory=Counter)
    process: subprocess.Popen[bytes] | None = None
    phases: Counter[str] = field(default_factory=Counter)
    wall_s: list[float] = field(default_factory=list)
    _began: float = 0.0
    _is_late: bool = False
    _trials: dict[int, Any] = field(default_factory=dict)
    _finals: dict[int, Any] = field(default_factory=dict)
    _seen: set[int] = field(default_factory=set)
    _orphans: dict[int, str] = field(default_factory=dict)

    @property
    def study(self) -> Path:
        """Folder of the study."""
        return self.folder / "study"

    def kill(self, moment: Moment) -> None:
        """Kill `moment.target` at the moment, and look at the study if the driver is gone."""
        is_late = moment.phase in LATE and self._has_trials()
        if is_late or self._is_late:
            self._stop()
        self._is_late = is_late
        process = self._running(int(self._spent_s()) + _LATE_S if is_late else self.budget_s)
        came, pids = self._wait_for(moment, process)
        victims = targets_of(moment.target, process.pid, pids)
        if not victims and moment.target in SURVIVABLE:  # it does not run now: the driver always does
            victims = [process.pid]
        self.phases[moment.phase if came else f"no {moment.phase}"] += 1
        told = f"{moment.phase if came else 'no ' + moment.phase} + {moment.delay_s:.3f} s: kill {moment.target} {victims}"
        print(told, file=self.log, flush=True)
        self._seen |= set(pids)
        for pid in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.kills[f"{moment.target}"] += 1
        if moment.target in SURVIVABLE and process.pid not in victims:
            self._must_go_on(moment, process)
        else:
            process.wait(15)
            self._ended(process)

    def finish(self) -> None:
        """Let the same command run to its end, with some seconds more of budget, and look whether the front verifies.

        A machine that others use too may need more of them, as the command says then: "give it more time".
        """
        self._stop()
        for extension in range(_EXTENSIONS):
            self.budget_s = int(self._spent_s()) + _TO_THE_END_S * 2**extension
            process = self._running(self.budget_s)
            code = process.wait(self.budget_s + 90)
            self._ended(process)
            if code != 1:
                break
        if code != 0:
            self.faults.append(f"the last session ended with exit code {code}: {self._last_words()}")
        self._check_orphans()
        self._check_no_leftovers()
        with contextlib.closing(open_study(self.study)) as study:
            bundles = [point.bundle for point in study.front() if point.bundle]
            if running := study.running():
                self.faults.append(f"trials are left running: {[trial.number for trial in running]}")
        if not bundles:
            self.faults.append("no verified bundle is on the front")
        for bundle in bundles:
            done = subprocess.run([sys.executable, "-m", "autocut", "verify", bundle], capture_output=True, text=True, check=False)
            if done.returncode != 0:
                self.faults.append(f"{bundle} does not verify: {done.stdout}{done.stderr}")

    def _stop(self) -> None:
        """End a session that goes on, so that the next one has another budget."""
        if self.process is not None and self.process.poll() is None:
            self._seen |= set(descendants(self.process.pid))
            self.process.kill()
            self.process.wait()
            self._ended(self.process)

    def _has_trials(self) -> bool:
        """Whether something was measured, which can be finalized."""
        return any(trial.measured is not None for trial in self._trials.values())

    def _spent_s(self) -> float:
        if not (self.study / "study.db").exists():
            return 0.0
        with sqlite3.connect(self.study / "study.db") as database:
            if not database.execute("select count(*) from sqlite_master where name = 'autocut_session'").fetchone()[0]:
                return 0.0
            return float(database.execute("select coalesce(sum(worked_s), 0) from autocut_session").fetchone()[0])

    # ---- one session ----------------------------------------

    def _running(self, budget_s: int) -> subprocess.Popen[bytes]:
        if self.process is not None and self.process.poll() is None:
            return self.process
        if self.process is not None:
            self.faults.append(f"the search ended by itself with exit code {self.process.returncode}: {self._last_words()}")
            self._ended(self.process)
        scratch = self.folder / "tmp"
        scratch.mkdir(parents=True, exist_ok=True)
        words = [str(HERE / "task.py"), "--space", str(HERE / "space.toml"), "--budget", f"{budget_s}s", "--workers", "2"]
        environment = os.environ | {"TMPDIR": str(scratch), "AUTOCUT_LOCK_DIR": str((self.folder / "locks").absolute())}
        self._began = time.monotonic()
        with (self.folder / "stderr.txt").open("ab") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "autocut", "search", *words, "--out", str(self.study)],
                stdout=subprocess.DEVNULL, stderr=errors, env=environment, start_new_session=True,
            )  # fmt: skip
        return self.process

    def _wait_for(self, moment: Moment, process: subprocess.Popen[bytes]) -> tuple[bool, list[int]]:
        """Wait for the moment; return whether its phase was seen, and the processes of the search then."""
        until = time.monotonic() + moment.at_most_s
        before = PHASES[moment.phase](Seen(self.study, []))
        came = False
        pids: list[int] = []
        while not came and time.monotonic() < until and process.poll() is None:
            pids = descendants(process.pid) if moment.phase == "verification" else pids
            with contextlib.suppress(OSError):
                seen = PHASES[moment.phase](Seen(self.study, pids))
                came = seen != before if isinstance(seen, int) and not isinstance(seen, bool) else bool(seen)
            time.sleep(_LOOK_S)
        time.sleep(moment.delay_s)
        return came, descendants(process.pid)

    def _must_go_on(self, moment: Moment, process: subprocess.Popen[bytes]) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            if (code := process.wait(_GOES_ON_S)) not in (0, 1):
                told = f"the driver must survive the death of a {moment.target}, but ended with {code}"
                self.faults.append(f"{told}: {self._last_words()}")
            self._ended(process)

    def _last_words(self) -> str:
        lines = (self.folder / "stderr.txt").read_text(errors="replace").splitlines()
        return " | ".join(lines[-3:])

    def _ended(self, process: subprocess.Popen[bytes]) -> None:
        """Look at what an ended session has left."""
        self.wall_s.append(time.monotonic() - self._began)
        self.process = None
        self._orphans |= {pid: began for pid in self._seen - {process.pid} if (began := began_at(pid))}
        self._seen.clear()
        if "Traceback" in (self.folder / "stderr.txt").read_text(errors="replace"):
            self.faults.append(f"a traceback reached the user: {self._last_words()}")
        if (self.study / "study.db").exists():
            self._check_study()

    # ---- what must be true after every session ----------------------------------------

    def _check_study(self) -> None:
        with sqlite3.connect(self.study / "study.db") as database:
            told = database.execute("pragma integrity_check").fetchone()[0]
            tables = database.execute("select count(*) from sqlite_master where name = 'autocut_study'").fetchone()[0]
            studies = tables and database.execute("select count(*) from autocut_study").fetchone()[0]
        if told != "ok":
            self.faults.append(f"the database is damaged: {told}")
        if not studies:
            return
        with contextlib.closing(open_study(self.study)) as study:
            self._check_trials({trial.trial: trial for trial in study.trials()}, study.finals())
            made = Counter(run.key for run in study.stage_runs() if not run.cached)
            self._check_ledger(study.ledger())
        if again := [key[:12] for key, count in made.items() if count > 1]:
            self.faults.append(f"finished stages were made again: {again}")
        self._check_entries()

    def _check_trials(self, trials: dict[int, Any], finals: dict[int, Any]) -> None:
        if lost := [number for number in self._trials if trials.get(number) != self._trials[number]]:
            self.faults.append(f"finished trials are lost or changed: {lost}")
        if lost := [number for number in self._finals if finals.get(number) != self._finals[number]]:
            self.faults.append(f"finalized trials are lost or changed: {lost}")
        measured = Counter(trial.recipe for trial in trials.values() if trial.measured is not None)
        if twice := [recipe.describe() for recipe, count in measured.items() if count > 1]:
            self.faults.append(f"recipes were measured twice: {twice}")
        new = [trial for number, trial in trials.items() if number not in self._trials]
        failed = [trial for trial in new if trial.state == "FAIL" and not trial.retry]
        # No kill makes a recipe infeasible: a ratio may be too small to remove anything.
        if blamed := [f"{one.trial}: {one.reason}" for one in failed if not (one.reason or "").startswith("infeasible: ")]:
            self.faults.append(f"innocent recipes were blamed: {blamed}")
        if refused := [f"{number}: {final.refusal}" for number, final in finals.items() if "died" in (final.refusal or "")]:
            self.faults.append(f"innocent bundles were refused: {refused}")
        self._trials, self._finals = trials, finals

    def _check_ledger(self, ledger: dict[str, Any]) -> None:
        sessions = ledger["sessions"]
        if ledger["spent_s"] > sum(self.wall_s) + 0.01:
            self.faults.append(f"the ledger has {ledger['spent_s']:.1f} s, more than the {sum(self.wall_s):.1f} s that have passed")
        for session in sessions:
            total = sum(session["by_category"].values())
            if abs(total - session["worked_s"]) > 0.02 * session["worked_s"] + 0.2:
                self.faults.append(f"a session's rows add up to {total:.1f} of its {session['worked_s']:.1f} s")

    def _check_entries(self) -> None:
        for entry in (self.study / "stages" / "entries").iterdir():
            try:
                record = json.loads((entry / "entry.json").read_text())
                whole = all(sha256_of(entry / "output" / name) == known for name, known in record["files"].items())
            except (OSError, ValueError):
                whole = False
            if not whole:
                self.faults.append(f"stage entry {entry.name[:12]} is half-written")

    def _check_orphans(self) -> None:
        """Ray's own agents look for their parent now and then, and do nothing meanwhile."""
        until = time.monotonic() + _ALL_GONE_S
        while (left := [pid for pid, began in self._orphans.items() if began_at(pid) == began]) and time.monotonic() < until:
            time.sleep(0.1)
        if left:
            told = [f"{pid} {command_of(pid).replace(bytes(1), b' ').decode(errors='replace')[:80]}" for pid in left]
            self.faults.append(f"processes outlive the search by more than {_ALL_GONE_S:g} s: {told}")

    def _check_no_leftovers(self) -> None:
        stages = self.study / "stages"
        left = [*(stages / "building").iterdir(), *(stages / "checkpoints").glob("*.tmp"), *(self.study / "bundles").glob(".*")]
        with sqlite3.connect(self.study / "study.db") as database:
            known = json.dumps(database.execute("select value_json from study_system_attributes").fetchall())
        left += [path for path in (self.study / "artifacts").iterdir() if path.name not in known]
        left += (self.folder / "tmp").glob("autocut-*")  # libraries leave caches of their own beside them
        if left:
            self.faults.append(f"killed processes have left: {sorted(path.relative_to(self.folder).as_posix() for path in left)}")


@contextlib.contextmanager
def victim(folder: Path, budget_s: int) -> Iterator[Victim]:
    """A study that no process searches any more afterwards."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "kills.txt").open("a") as log:
        found = Victim(folder, budget_s, log)
        try:
            yield found
        finally:
            if found.process is not None:
                for pid in (found.process.pid, *descendants(found.process.pid)):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                found.process.wait()
