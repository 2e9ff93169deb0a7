"""`autocut search`: merge the configuration, check what can be checked, and hand over to the search."""

from __future__ import annotations

import importlib
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from autocut.budget import format_duration, format_size
from autocut.commands.verb import DURATION, JSON, LIMIT_NAMES, PERCENT, SIZE, FiniteNumber, flag, source, verb
from autocut.config import DEFAULT_CACHE_BYTES, LARGEST_DROP, SearchConfig, cpu_count
from autocut.console import Console
from autocut.errors import AutocutError, ExitCode, Fault, FaultsError, InputError, quoted, unknown_name
from autocut.execution.training_device import CHOICES, SERVING_CHOICES, placed, refuse_idle
from autocut.precision import ASKED_PRECISIONS
from autocut.recipe import STUDENT

if TYPE_CHECKING:
    from autocut.execution.worker_pool import WorkerPool
    from autocut.measure.audit import Audit
    from autocut.measure.load import LoadMeter
    from autocut.space import Space

_LEAST_WORKER_BYTES = 100 * 10**6
"""With less, not even a small model can be read."""
_LARGEST_SEED = 2**31 - 1
"""Every library takes it, and what is derived from it: numpy refuses 2**32."""
_DEFAULTS = SearchConfig(task=None, budget_s=0)
_LOOK_S = 0.2
"""The work of other programs is watched for so long, while autocut imports what it needs."""
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:/")
_NOT_CONFIGURATION = ("dry_run", "as_json", "config_file")


@verb(
    "search",
    "Search for cheaper models within a budget.",
    "autocut search --budget 5m --space quick",
    "autocut search task.py --budget 8h",
    "autocut search task.py --budget 8h --limit 'latency_ms<=5' --instance c7i.large",
    "autocut search task.py --budget 8h --price-per-hour 0.09 --requests-per-month 3e6",
    "autocut search task.py --budget 8h --max-accuracy-drop 1%",
    "autocut search task.py --budget 8h --train-on auto",
    "autocut search task.py --budget 8h --learn-from studies/digits",
    "autocut search task.py --budget 30m --dry-run",
)
@click.argument("task", required=False, metavar="[TASK]")
@click.option("--budget", type=DURATION, required=True, help="Wall-clock time for everything, with its unit: 8h, 30m, 1h30m.")
@click.option("--space", default=_DEFAULTS.space, show_default=True,
              help="A shipped space (default, quick, training-only, ...) or a TOML file.")  # fmt: skip
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Study folder.  [default: studies/<task name>]")
@click.option("--storage", metavar="URL",
              help="Database of the study, such as postgresql://...  [default: SQLite in the study folder]")  # fmt: skip
@click.option("--ray-address", metavar="ADDRESS", help="An existing Ray cluster.  [default: a local Ray of its own]")
@click.option("--stages", type=click.Path(file_okay=False, path_type=Path), metavar="FOLDER",
              help="Folder that every node of the cluster sees, for stage outputs.  [default: the study folder]")  # fmt: skip
@click.option("--measure-on", metavar="KIND",
              help="Part of the name of the kind of node that a cluster measures on.  [default: the most common kind]")  # fmt: skip
@click.option("--workers", type=click.IntRange(1), default=cpu_count, show_default="processors here / threads",
              help="Trials at a time.")  # fmt: skip
@click.option("--threads", type=click.IntRange(1), default=_DEFAULTS.threads, show_default=True, help="Threads of a served model.")
@click.option("--train-on", type=click.Choice(CHOICES), default=_DEFAULTS.train_on, show_default=True,
              help="Where models are trained. auto: a GPU where one is.")  # fmt: skip
@click.option("--train-precision", type=click.Choice(ASKED_PRECISIONS), default=_DEFAULTS.train_precision,
              show_default=True, help="What trainings multiply in. auto: bf16 where it trains clearly faster here.")  # fmt: skip
@click.option("--serve-on", type=click.Choice(SERVING_CHOICES), default=_DEFAULTS.serve_on, show_default=True,
              help="Where models are scored and timed, and their bundles run. cuda: --space gpu unless you name one.")  # fmt: skip
@click.option("--sampler", default=_DEFAULTS.sampler, show_default=True, help="Optuna sampler that proposes recipes.")
@click.option("--seed", type=click.IntRange(0, _LARGEST_SEED), default=_DEFAULTS.seed, show_default=True,
              help="Seed of everything random.")  # fmt: skip
@click.option("--instance", default=_DEFAULTS.instance, show_default=True,
              help="Instance of the price sheet that the money is counted for.")  # fmt: skip
@click.option("--price-per-hour", type=FiniteNumber(0, min_open=True), metavar="USD",
              help="Price of this machine, instead of --instance.")  # fmt: skip
@click.option("--utilization", type=FiniteNumber(0, 1, min_open=True), default=_DEFAULTS.utilization, show_default=True,
              help="Share of the paid hour that serves predictions.")  # fmt: skip
@click.option("--requests-per-month", type=FiniteNumber(0, min_open=True), metavar="N", show_default="as told last",
              help="Predictions of a month, for the monthly bill. May change later.")  # fmt: skip
@click.option("--grid-intensity", type=FiniteNumber(0), metavar="G_PER_KWH", show_default="as told last, else of the world",
              help="Grams of CO2 for each kWh of electricity. May change later.")  # fmt: skip
@click.option("--limit", "limits", multiple=True, metavar="LIMIT",
              help=f"A bound that a point must keep: 'latency_ms<=5'. {LIMIT_NAMES} Repeatable.")  # fmt: skip
@click.option("--max-accuracy-drop", type=PERCENT, show_default=f"{LARGEST_DROP:.0%}",
              help="Points of the metric that may be lost against the untouched model; of a metric that is not between 0 and 1, "
              "this share of it. Half of a metric above 0 must be kept in any case.")  # fmt: skip
@click.option("--try", "try_recipes", multiple=True, type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="A recipe (TOML or JSON) to try first. Repeatable.")  # fmt: skip
@click.option("--learn-from", type=click.Path(file_okay=False, path_type=Path), metavar="STUDY",
              help="An earlier study of a similar task: its front is tried first, its effects are the first guesses.")  # fmt: skip
@click.option("--cache-size", "cache_bytes", type=SIZE, default=DEFAULT_CACHE_BYTES, show_default="10GiB",
              help="Disk for stage outputs.")  # fmt: skip
@click.option("--worker-memory", "worker_bytes", type=SIZE, show_default="what the machine has",
              help="Memory that one worker may ask for; a recipe that needs more fails, and no other one. Linux.")  # fmt: skip
@click.option("--examples/--no-examples", default=_DEFAULTS.examples, show_default=True,
              help="Whether bundles carry real test inputs with their targets, or synthetic ones.")  # fmt: skip
@click.option("--rehash/--no-rehash", default=_DEFAULTS.rehash, show_default=True,
              help="Whether a new study hashes all data, not only targets and validation: each start reads them.")  # fmt: skip
@click.option("--adopt-stages/--no-adopt-stages", default=False,
              help="Use the stages that the study folder holds though another key or an older version has left them. "
              "They run code: use this only if nobody else can write to the folder.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Show the merged configuration, check task and space, run nothing.")
@JSON
@click.pass_context
def search(ctx: click.Context, /, task: str | None, budget: float, dry_run: bool, as_json: bool, **options: Any) -> int:
    """Search for cheaper models of TASK until the budget is spent, and print the front.

    TASK is a Python file that defines `task`; without it, the embedded digits task runs. The same command again resumes the
    study, a longer budget extends it.
    """
    console: Console = ctx.obj
    if ctx.get_parameter_source("workers") is ParameterSource.DEFAULT:
        on_cluster = options["ray_address"] is not None
        alone = 1 if options["serve_on"] == "cuda" else None
        options["workers"] = ctx.params["workers"] = 0 if on_cluster else alone or _fitting_workers(options["threads"])
    if options["serve_on"] == "cuda" and ctx.get_parameter_source("space") is ParameterSource.DEFAULT:
        options["space"] = ctx.params["space"] = "gpu"
    config = SearchConfig(task=task, budget_s=budget, **options)
    if dry_run:
        return _dry_run(ctx, config, console, as_json=as_json)
    config, code = _run(config, console, time.time())
    _print_front(config, console, as_json=as_json)
    return code


def _check_learn_from(config: SearchConfig) -> None:
    """Refuse a folder without a study, and the study itself, before anything is made."""
    if config.learn_from is None:
        return
    from autocut.search.learned import require_another_study
    from autocut.study import open_study

    if config.out is not None:
        require_another_study(config.learn_from, config.out)
    open_study(config.learn_from).close()


def _fitting_workers(threads: int) -> int:
    """Return how many workers with `threads` threads the processors here have room for: one at least, which may be refused."""
    from autocut.measure.audit import audit_machine

    return max(1, audit_machine().processors // threads)


def _run(config: SearchConfig, console: Console, started: float) -> tuple[SearchConfig, int]:
    """Check and search. Return the configuration with its study folder, and the exit code."""
    from autocut.measure.load import LoadMeter

    meter = LoadMeter()  # before anything starts that works for this search
    from autocut.execution.preflight import preflight
    from autocut.execution.tried_devices import asked_training
    from autocut.execution.worker_pool import WorkerPool
    from autocut.space import fit_space, read_space_file, with_students
    from autocut.task.file import compile_task_file

    # Faults that can be found at once are reported before anything slow starts.
    _check_options(config)
    asked_device = config.train_on
    config, device_lines = placed(config)
    if config.task_path is not None:
        compile_task_file(Path(config.task_path))
    audit = _audit(config, meter)
    for warning in audit.warnings:
        console.warning(warning)
    for line in device_lines:
        console.info(line)
    pool = WorkerPool(
        config.task_path,
        threads=config.threads,
        workers=config.workers,
        ray_address=config.ray_address,
        shared=config.stages and config.stages.expanduser().resolve(),
    )
    trains = read_space_file(config.space).trains
    with pool:
        # What starts slowly starts while the task is looked at.
        with console.busy("starting: checking the task, starting Ray") as now_doing:
            found = preflight(
                config.task, pool.ask, lambda: _make_ready(config, pool, now_doing), trains=trains, serve_on=config.serve_on,
                training=asked_training(config), begun=partial(_begun, config),
            )  # fmt: skip
        if not trains and found.task.is_pretrained:
            refuse_idle({"--train-on": asked_device, "--train-precision": config.train_precision}, config.space)
        config = replace(config, out=config.folder(found.task.name))
        _check_learn_from(config)
        asked = _checked_space(config, found.methods, found.task.students, found.task.epochs)
        # A student is first trained with a distillation that fits the task.
        space = with_students(fit_space(asked, found.unfit), found.task.students, found.task.epochs)
        for note in (*found.task.notes, *found.training.notes):
            console.info(note)
        _tell_unfit(asked, found.unfit, console)
        _tell_students(space, found.task.students, console)

        from autocut.execution.session import run_search

        return config, run_search(config, space, found, console, started, pool, audit)


def _begun(config: SearchConfig, task_name: str) -> tuple[Path, Mapping[str, Any] | None, bool]:
    """Return the study folder of the task, the facts of the study where it was begun, and whether all data are to be hashed."""
    folder = config.folder(task_name)
    if config.storage is None and not folder.is_dir():
        return folder, None, config.rehash  # without the imports that a study needs
    from autocut.study import stored_facts

    return folder, stored_facts(folder, task_name, config.storage), config.rehash


def _audit(config: SearchConfig, meter: LoadMeter) -> Audit:
    """Look at the machine that times; on a cluster that is another one."""
    from autocut.measure.audit import Audit, audit_machine

    return Audit(0) if config.ray_address else audit_machine(meter.read(at_least_s=_LOOK_S))


def _make_ready(config: SearchConfig, pool: WorkerPool, now_doing: Callable[[str], None]) -> None:
    """Import what the search itself needs while Ray starts, and both while the task is checked in another process."""
    from concurrent.futures import ThreadPoolExecutor

    _check_sampler(config)
    with ThreadPoolExecutor(1) as beside:
        # Ray takes seconds to start its own processes, for which this one only waits (2.60).
        beside.submit(importlib.import_module, "autocut.execution.session")  # if this fails, the import below fails again
        pool.start_ray()
    now_doing("starting: checking the task")


def _tell_unfit(space: Space, unfit: Mapping[str, Mapping[str, str]], console: Console) -> None:
    """Name the choices of the space that do not fit this task, and why."""
    for axis in space:
        for name in map(str, axis.choices):
            if reason := unfit.get(axis.name, {}).get(name):
                console.info(f"left out: {axis.name} {name}: {reason}")


def _tell_students(space: Space, students: Sequence[str], console: Console) -> None:
    """Say what becomes of the task's students."""
    axis = space.axis(STUDENT)
    tried = [] if axis is None else [name for name in students if name in axis.choices]
    if tried:
        console.info(f"students: {', '.join(tried)}: each is trained in the model's place, from the teacher's answers")
    if left := [name for name in students if name not in tried]:
        reason = "has no axis prune.method or no train.epochs" if axis is None else f"names others for {STUDENT}"
        console.info(f"left out: students {', '.join(left)}: space {space.name} {reason}")


def _checked_space(config: SearchConfig, known: Mapping[str, tuple[str, ...]], students: Sequence[str], epochs: int) -> Space:
    """Load the space, and check the recipes of `--try` against it, with the task's students."""
    from autocut.space import load_space, read_recipe, with_students

    space = load_space(config.space, known)
    for recipe in config.try_recipes:
        read_recipe(recipe, with_students(space, students, epochs))
    return space


def _students_of(config: SearchConfig) -> tuple[tuple[str, ...], int]:
    """Return the names of the task's students, and the task's epochs; none where it does not load, which its check tells."""
    from autocut.task.library_noise import quietly
    from autocut.task.loading import load_task

    try:
        with quietly():
            task = load_task(config.task)
    except AutocutError:
        return (), 0
    return task.student_names, task.epochs


def _check_sampler(config: SearchConfig) -> None:
    from autocut.search.proposals import sampler_names

    if config.sampler not in sampler_names():
        raise unknown_name("--sampler", config.sampler, sampler_names())


def _check_options(config: SearchConfig) -> None:
    """Check what needs neither task nor methods, and no slow import."""
    from autocut.bill import Serving
    from autocut.measure.audit import audit_machine, require_processors
    from autocut.price import price_for
    from autocut.score import parse_limit
    from autocut.space import read_space_file

    if config.worker_bytes is not None and config.worker_bytes < _LEAST_WORKER_BYTES:
        least, got = format_size(_LEAST_WORKER_BYTES), format_size(config.worker_bytes)
        raise InputError(f"--worker-memory must be at least {least}, got {got}", "leave it out for what the machine has")
    if config.stages is not None and _ADDRESS.match(str(config.stages)):
        address = quoted(str(config.stages))
        raise InputError(
            f"--stages must be a folder with locks and renaming, got the address {address}: a bucket has neither",
            "mount a file system that all nodes share, such as NFS 4, EFS, Filestore or CephFS, and name its folder",
        )
    if config.ray_address is None:
        if config.measure_on is not None:
            raise InputError(
                f"--measure-on is for the nodes of a cluster, got {quoted(config.measure_on)}", "name it: --ray-address HOST:PORT"
            )
        require_processors(config.threads, config.workers, audit_machine().processors)
    space = read_space_file(config.space)
    if space.document.get("device") == "cuda" and config.serve_on == "cpu":
        raise InputError(
            f"--space must be for the CPU, which serves, got {space.name} for cuda",
            "--serve-on cuda where there is a GPU, or choose default, quick, deploy-only or training-only",
        )
    price_for(config.instance, config.price_per_hour, config.utilization)
    Serving().told(config.requests_per_month, config.grid_intensity)
    for limit in config.limits:
        parse_limit(limit)
    _check_learn_from(config)


def _dry_run(ctx: click.Context, config: SearchConfig, console: Console, *, as_json: bool) -> int:
    from autocut.execution import money
    from autocut.space import read_space_file
    from autocut.stages.methods import known_methods
    from autocut.task.check import check_task

    rows = [(flag(param), value, source(param, ctx)) for param, value in _merged(ctx)]
    if not as_json:
        console.table(["setting", "source", "value"], [(name, origin, _written(name, value)) for name, value, origin in rows])
    faults: list[Fault] = []
    device_lines: list[str] = []
    try:
        _check_options(config)
        config, device_lines = placed(config)
        _check_sampler(config)
        students, epochs = _students_of(config)
        _checked_space(config, known_methods(students), students, epochs)
    except FaultsError as error:
        faults += error.faults
    except InputError as error:
        faults.append(Fault(error.message, error.hint))
    with console.busy("checking the task"):
        faults += check_task(config.task, trains=read_space_file(config.space).trains)
    if as_json:
        settings = {name: {"value": value, "source": origin} for name, value, origin in rows}
        described = [asdict(fault) for fault in faults]
        console.document({"schema_version": 1, "configuration": settings, "ok": not faults, "faults": described})
    if not faults:
        for line in [*device_lines, *money.plan_lines(money.price_fit(config))]:
            console.info(line)
        console.info("task and space are sound; nothing was run")
        return ExitCode.DONE
    told = FaultsError("configuration", faults)
    if not as_json:
        raise told
    console.error(told)
    return told.exit_code


def _merged(ctx: click.Context) -> list[tuple[click.Parameter, Any]]:
    return [
        (param, _without_password(param, ctx.params[str(param.name)]))
        for param in ctx.command.params
        if str(param.name) in ctx.params and param.name not in _NOT_CONFIGURATION
    ]


def _without_password(param: click.Parameter, value: Any) -> Any:
    if param.name != "storage" or not value:
        return value
    from autocut.study import public_address

    return public_address(value)


def _written(name: str, value: Any) -> str:
    """Write a value as a user would type it."""
    if value is None:
        return "-"
    if name == "budget":
        return format_duration(value)
    if name == "cache-size":
        return format_size(value)
    if name == "workers" and not value:
        return "as many as the nodes have room for"
    if name == "max-accuracy-drop":
        return f"{100 * value:g}%"
    return " ".join(map(str, value)) or "-" if isinstance(value, tuple) else str(value)


def _print_front(config: SearchConfig, console: Console, *, as_json: bool) -> None:
    from autocut.commands.front import front_document, print_front
    from autocut.study import open_study

    folder = config.out or Path()
    study = open_study(folder)
    if as_json:
        console.document({**front_document(study, study.front()), "folder": str(folder)})
    elif study.front():
        print_front(study, console)
