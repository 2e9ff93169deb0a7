"""One `autocut search`: from configuration to a finished, finalized study."""

from __future__ import annotations

import contextlib
import platform
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import autocut
from autocut.bill import price_note, serving_of
from autocut.budget import Budget, format_duration
from autocut.clock import SteadyClock
from autocut.config import SearchConfig
from autocut.console import Console, SearchProgress
from autocut.counting import format_count
from autocut.errors import DeadlineError, InputError
from autocut.execution import money
from autocut.execution.accounting import AccountedExecutor
from autocut.execution.company import check_shares_stages, others, seed_offset
from autocut.execution.conclusion import conclude
from autocut.execution.conditions import check_same_conditions, max_drop
from autocut.execution.executor import run_jobs
from autocut.execution.guessing import expected_seconds, guesses_of
from autocut.execution.leftovers import sweep_study
from autocut.execution.preflight import Preflight, with_kept_layers
from autocut.execution.ray_tune import TuneExecutor
from autocut.execution.resumed_space import left_out, space_document, space_of_study
from autocut.execution.shared_stages import open_nodes, stages_fact
from autocut.execution.worker_pool import WorkerPool
from autocut.measure.audit import Audit
from autocut.measure.memory import MachineMemory
from autocut.measure.quiet import QuietLock
from autocut.node import lock_reach
from autocut.pipeline.signing import key_file, own_secret
from autocut.pipeline.stage_cache import StageCache
from autocut.price import price_for
from autocut.report.publish import Publisher
from autocut.score import check_errors, check_shares, parse_limit
from autocut.search.activity import doing
from autocut.search.agent import Agent
from autocut.search.companions import StudyCompanions
from autocut.search.estimates import is_worth_training_elsewhere
from autocut.search.jobs import KnownTask, Setting
from autocut.search.learned import Lessons, learn_from
from autocut.search.planner import Planner
from autocut.search.progress import best_so_far, examples_line, nothing_tried_line
from autocut.search.proposals import Proposer
from autocut.search.recall import recall
from autocut.search.settings import SearchSettings
from autocut.search.state import SearchState
from autocut.search.timesheet import Timesheet
from autocut.search.trial_store import StudyTrialStore
from autocut.space import Space, read_recipe
from autocut.study import Study, create_study, is_empty, stored_space, without_passwords
from autocut.study.database import database_reach
from autocut.study.lock import SearchLock
from autocut.study.versions import keep_to_libraries

_BEAT_EVERY_S = 1.0
_LAST_WORDS_S = 1.0
"""What the end of a search waits for a quiet moment before it brings the dashboard up to date anyway."""


def run_search(
    config: SearchConfig, space: Space, found: Preflight, console: Console, started: float, pool: WorkerPool,
    audit: Audit | None = None,
) -> int:  # fmt: skip
    """Search until the budget is spent, then leave a finalized front.

    Args:
        config: What was asked for.
        space: What is explored.
        found: What preflight found of the task and the lowerings.
        console: Told on stderr alone.
        started: Reading of `time.time()` from which the budget counts.
        pool: Where the jobs run, with its Ray started.
        audit: What may spoil timings on this machine, for the study's record.

    Returns:
        0: a spent budget is done; 1: the search ran, but left no verified bundle.

    Raises:
        InputError: task, space or study cannot be used; nothing was changed.
        KeyboardInterrupt: everything finished is kept.
    """
    clock = SteadyClock.start()
    console = console.bound()
    folder = config.folder(found.task.name)
    found = with_kept_layers(found, space := _space_of_study(space, folder, console))
    lessons = None if config.learn_from is None else learn_from(config.learn_from, space)
    settings = _settings(config, space, found, lessons)
    if found.task.is_share:
        check_shares(settings.limits, from_0=True)
    if found.task.is_error:
        check_errors(settings.limits)
    study = _open(folder, config, space, found)
    try:
        if config.ray_address is not None:
            for line in open_nodes(pool, study, found, config):
                console.info(line)
            config = replace(config, workers=pool.workers)
            settings = replace(settings, workers=pool.workers)
        keep_to_libraries(study, found.stage_libraries, found.mode_libraries)
        begun = {} if is_empty(study) else study.facts
        settings = replace(settings, max_drop=max_drop(begun, config))
        # Before the limits: a study that has limits and no such fact is of an older version.
        study.describe({"max_accuracy_drop": settings.max_drop, "machine_audit": _all_warnings(study, audit)})
        check_same_conditions(study, begun, asdict(settings.price), config, found.training)
        check_shares_stages(study)
        money.describe_money(study, config, pool.nodes.training_kinds if pool.nodes else ())
        if lessons is not None:
            console.info(lessons.line)
            study.describe({"learned_from": lessons.source})
        sweep_study(study, config.cache_bytes)
        _tell_unsigned(StageCache(study.stages_dir, config.cache_bytes), console, adopt=config.adopt_stages)
        budget = Budget(config.budget_s, study.spent_s(without=others(study)), clock=clock, started=started)
        if budget.left() <= 0:
            console.info(f"the budget of {format_duration(config.budget_s)} is spent; a longer --budget goes on from here")
        else:
            _Search(config, settings, study, found, budget).run(console, pool)
        return conclude(study, console)
    finally:
        study.close()


def _settings(config: SearchConfig, space: Space, found: Preflight, lessons: Lessons | None) -> SearchSettings:
    return SearchSettings(
        space,
        graphs={lowering: made.graph for lowering, made in found.lowerings.items() if made.reason is None},
        impossible={lowering: made.reason for lowering, made in found.lowerings.items() if made.reason is not None},
        budget_s=config.budget_s,
        price=price_for(config.instance, config.price_per_hour, config.utilization),
        limits=tuple(parse_limit(text) for text in config.limits),
        user_recipes=tuple(read_recipe(path, space) for path in config.try_recipes),
        workers=config.workers,
        first_guesses=guesses_of(found, lessons),
        learned=lessons.jobs if lessons else (),
        registered_speedups={one: made.speedup for one, made in found.lowerings.items() if made.speedup is not None},
    )


def _open(folder: Path, config: SearchConfig, space: Space, found: Preflight) -> Study:
    return create_study(
        folder,
        name=found.task.name,
        task_fingerprint=found.task.fingerprint,
        space_json=space_document(space),
        objectives=space.objectives,
        seed=config.seed,
        storage_url=config.storage,
        description={**found.task.data_facts, **stages_fact(folder, found.task.name, config)},
    )


class _Search:
    """One session of a search on an open study."""

    def __init__(self, config: SearchConfig, settings: SearchSettings, study: Study, found: Preflight, budget: Budget) -> None:
        self.config = config
        self.study = study
        self.budget = budget
        self.command = told_command()
        self.session = study.begin_session(self.command, versions(found.libraries))
        lock = _lock_of(study)
        known = len(study.trials()) + seed_offset(study, lock.session)
        proposer = Proposer(settings.space, config.sampler, config.seed, known_trials=known)
        self.store = StudyTrialStore(study, proposer)
        self.timesheet = Timesheet(config.workers, budget.started)
        alive = lock.others()
        interrupted = self.store.close_interrupted(alive)
        study.bookings.keep_those_of(alive)
        settings = replace(settings, user_recipes=(*interrupted, *settings.user_recipes))
        expected_s = expected_seconds(found, settings.first_guesses)
        of_large = {one: made.seconds_per_100mb for one, made in found.lowerings.items() if made.seconds_per_100mb is not None}
        state = SearchState(settings, Planner(found.task.train_samples, expected_s, of_large, found.training.sample_s))
        recall(study, state, proposer)
        memory = None if config.ray_address else MachineMemory()  # a cluster's jobs run on other machines too
        self.companions = StudyCompanions(self.store, state, proposer, lock)
        self.agent = Agent(
            state=state, store=self.store, proposer=proposer, budget=budget, memory=memory, companions=self.companions
        )
        self.setting = Setting(
            task_path=config.task_path,
            folder=str(study.stages_root.resolve()),
            seed=config.seed,
            threads=config.threads,
            train_on=config.train_on,
            train_precision=found.training.precision,
            train_memory_format=found.training.memory_format,
            serve_on=config.serve_on,
            cache_bytes=config.cache_bytes,
            worker_bytes=config.worker_bytes,
            price=settings.price,
            command=self.command,
            share_examples=config.examples,
            serving=serving_of(study.facts),
            data_hash=found.task.data_hash,
            known_task=KnownTask(found.task.fingerprint, found.task.source_sha256, found.task.is_pretrained),
            clock=budget.clock,
            secret=own_secret(),
        )
        self.publisher = Publisher(study)
        self.examples_line = examples_line(by_task=found.task.shares_examples, by_flag=config.examples)
        self._next_beat = 0.0
        lock.end_turn()

    def run(self, console: Console, pool: WorkerPool) -> None:
        """Run jobs until the agent has no more; what is finished is kept however this ends."""
        console.plan(
            [
                *self.agent.plan_lines(),
                *money.plan_lines(price_note(self.study.facts)),
                self.examples_line,
                *filter(None, [lock_reach(), database_reach(self.study.folder, self.config.storage)]),
            ]
        )
        known, left_s = len(self.study.trials()), self.budget.left()
        with console.search_progress(self.config.budget_s, self.budget.spent()) as progress, self._session():
            trains = partial(is_worth_training_elsewhere, self.agent.state)
            executor = TuneExecutor(self.setting, pool, self.agent.progress.lines.append, self.study.folder, trains)
            accounted = AccountedExecutor(executor, self.timesheet, self.budget.clock)
            run_jobs(self.agent, accounted, on_tick=lambda: self._tick(progress))
            self._tick(progress)
        sweep_study(self.study, self.config.cache_bytes)  # of workers that were killed, for whatever reason
        if bugs := self.agent.progress.bugs:
            console.warning(
                f"{format_count(bugs, 'trial')} ended by an exception that autocut did not expect",
                "please report it: their pages on the dashboard have the tracebacks",
            )
        if self.agent.fault is not None:
            raise InputError(self.agent.fault.message, self.agent.fault.hint)
        if len(self.study.trials()) == known and not self.agent.proposing.is_explored:
            console.info(nothing_tried_line(left_s, self.agent.budget.reserve_s))

    @contextlib.contextmanager
    def _session(self) -> Iterator[None]:
        try:
            yield
        finally:
            self.agent.close()
            self._beat()
            self.study.describe({"budget_left_s": round(self.budget.left(), 1)})
            self._publish(force=True)

    def _tick(self, progress: SearchProgress) -> None:
        now = self.budget.clock()
        state = self.agent.progress
        while state.lines:
            progress.trial_line(state.lines.popleft())
        while self.companions.news:
            progress.trial_line(self.companions.news.pop(0))
        if now >= self._next_beat:
            self._next_beat = now + _BEAT_EVERY_S
            self._beat()
            front = self.store.front()
            best = best_so_far(front)
            progress.update(
                spent_s=self.budget.spent(), done=state.done, stopped=state.stopped, failed=state.failed, front=len(front),
                best=best, stage=doing(self.agent.state, self.timesheet, now),
            )  # fmt: skip
        self._publish()

    def _publish(self, *, force: bool = False) -> None:
        """Bring the dashboard up to date, while no process times. A plot that fails must not end the search.

        Of several searches the first one does it.
        """
        if not self.companions.is_first:
            return
        try:
            with contextlib.ExitStack() as held:
                try:
                    held.enter_context(QuietLock().shared(timeout_s=_LAST_WORDS_S if force else 0.002))
                except DeadlineError:
                    if not force:
                        return
                self.publisher.publish(force=force)
        except (ValueError, TypeError, KeyError) as error:
            self.agent.progress.lines.append(f"dashboard: not updated: {type(error).__name__}: {error}")

    def _beat(self) -> None:
        now = self.budget.clock()
        self.session.beat(now - self.budget.started, self.timesheet.ledger(now))
        if self.study.lock is not None:
            self.study.lock.keep()


def _lock_of(study: Study) -> SearchLock:
    if study.lock is None:
        raise RuntimeError("a study that is searched has a lock")
    return study.lock


def _tell_unsigned(cache: StageCache, console: Console, *, adopt: bool) -> None:
    """Sign the stages that another key or an older version has left, if the user wants it; else say that they do not count."""
    if adopt:
        if adopted := cache.adopt():
            console.info(f"adopted, and signed with {key_file()} now: {format_count(adopted, 'stage')} of another key or version")
    elif unsigned := cache.unsigned():
        told = (
            f"not signed with {key_file()}, and made again where needed: {format_count(len(unsigned), 'stage')} in {cache.folder}"
        )
        console.warning(told, "if only you can write to this folder, use them: --adopt-stages")


def _all_warnings(study: Study, audit: Audit | None) -> list[str]:
    """Return what the audits of all sessions have found: numbers of every session are in the study."""
    return list(dict.fromkeys([*study.facts.get("machine_audit", ()), *(audit.warnings if audit else ())]))


def _space_of_study(space: Space, folder: Path, console: Console) -> Space:
    """Return `space` without the choices that it has gained since the study in `folder` was begun, and name them."""
    stored = stored_space(folder)
    known = space if stored is None else space_of_study(space, stored)
    for choice in left_out(space, known):
        console.info(f"left out: {choice}: the study was begun without it; --out FOLDER starts one with it")
    return known


def told_command() -> str:
    """The command as it was typed, for the readers of a bundle: without the password of a database."""
    return shlex.join(["autocut", *without_passwords(sys.argv[1:])])


def versions(modules: Sequence[str]) -> dict[str, str]:
    """Versions that every result names: of the `modules` that methods require, and of what runs the search."""
    found = {"autocut": autocut.__version__, "python": platform.python_version()}
    for module in (*modules, "optuna", "ray"):
        with contextlib.suppress(PackageNotFoundError):  # it is missing, or comes from a package of another name
            library = distribution(module)
            found[library.name] = library.version
    return found
