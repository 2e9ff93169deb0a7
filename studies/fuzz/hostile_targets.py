"""What is fuzzed: each target draws one hostile input, hands it to a verb, and looks that nothing of the user's is lost.

`TARGETS` has them all. A target gets Hypothesis' data and a `Home` with a finished study, whose files it copies before it changes
them.
"""

from __future__ import annotations

import contextlib
import importlib.resources
import json
import os
import shutil
import sqlite3
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from hostile_bundles import bundle_elsewhere, bundle_examples, bundle_manifest, bundle_model, http_request
from hostile_inputs import changed, changed_bytes, json_files, texts, toml_files, values
from hostile_runs import FaultFound, run
from hypothesis import strategies as st

from autocut import cli
from autocut.commands.verb import Verb
from autocut.deploy.rerun import Rerun
from autocut.deploy.verify_process import find
from autocut.errors import InputError
from autocut.node import LOCK_DIR, node_folder
from autocut.pipeline.signing import KEY_FILE, own_secret
from autocut.task import check as task_check

DRY_RUN = ("search", "--dry-run", "--budget", "1m")
_RECIPE = {
    "prune.method": "structured", "prune.ratio": 0.5, "prune.parent_ratio": 0.2, "train.epochs": 4, "train.start": "trained",
    "train.lr_scale": 0.5, "curriculum.schedule": "linear", "curriculum.order": "random", "curriculum.start": 0.5,
    "distill.loss": "kl", "distill.temperature": 2.0, "distill.alpha": 0.5, "quantize.dtype": "fp32", "compile.mode": "eager",
}  # fmt: skip
_NEWER_RECIPE = {
    "prune.method": "low_rank", "prune.ratio": 0.5, "train.epochs": 2, "train.lr_scale": 1.0, "train.ema": 0.99,
    "train.input_growth": "progressive_resizing", "distill.loss": "dkd", "distill.temperature": 2.0, "distill.alpha": 0.5,
    "distill.features": "hint", "distill.decay": "linear", "quantize.dtype": "int8_static", "quantize.keep_float": 4,
    "compile.mode": "openvino",
}  # fmt: skip
_OWN_VARIABLES = (LOCK_DIR, KEY_FILE, "AUTOCUT_DATA")
"""Variables that belong to no flag."""
_URLS = (
    "sqlite:///server.db", "sqlite://", "sqlite:///", "postgresql://me:geheim@127.0.0.1:1/db", "postgresql+psycopg://h/d",
    "mysql://me:geheim@h/d", "nosuchdb://me:geheim@h/d?password=geheim", "://", "postgresql://[::1/d", "sqlite:///server.db?x=1",
    "postgresql://me:geheim@h:port/d", "http://me:geheim@h/", "sqlite+pysqlcipher://:geheim@/server.db", "file:server.db",
)  # fmt: skip
_READERS = (
    ("front",), ("front", "--json"), ("front", "--all", "--json"), ("front", "--csv", "--all"), ("select",), ("select", "--json"),
    ("select", "--knee", "--max-accuracy-drop", "1%"), ("ledger",), ("ledger", "--json"), ("dashboard", "--port", "0"),
    ("report", "--to", "report.html"), ("report", "--to", "report.html", "--json"), ("export", "--trial", "7", "--to", "out"),
    ("explain", "7", "--no-measure"), ("explain", "7", "--no-measure", "--json"),
)  # fmt: skip


@dataclass(frozen=True)
class Home:
    """A finished study without its stages, one of its bundles, and an empty folder in which one input may write."""

    study: Path
    bundle: Path
    scratch: Path


@dataclass
class _InThisProcess:
    """Takes the place of the fresh process of `autocut verify`, which takes seconds to start."""

    threads: int = 1

    def __enter__(self) -> _InThisProcess:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def ask(self, question: Mapping[str, Any], **_: object) -> str | None:
        from dataclasses import asdict

        try:
            found = find(Path(question["bundle"]), None, question["latency_tolerance"])
        except Exception as error:  # the real process ends by it, and its last line is the finding
            return f"exit code 1: {error}"
        Path(question["report"]).write_text(json.dumps(asdict(found)), encoding="utf-8")
        return None


@contextlib.contextmanager
def quick() -> Iterator[None]:
    """Leave out what takes seconds and reads no input: the embedded task's check, fresh processes, timing, serving for ever."""
    check, not_run = task_check.check_task, Rerun(failure="a fuzzer measures nothing")

    def checked(task: str | None, **more: Any) -> list[Any]:
        return [] if task is None else check(task, **more)

    with (
        mock.patch.object(task_check, "check_task", checked),
        mock.patch.object(task_check, "notes_of", return_value=[]),
        mock.patch("autocut.deploy.verify.FreshProcess", _InThisProcess),
        mock.patch("autocut.deploy.remeasure.rerun", return_value=not_run),
        mock.patch("autocut.deploy.compare.rerun", return_value=not_run),
        mock.patch("socketserver.BaseServer.serve_forever"),
    ):
        yield


@contextlib.contextmanager
def home(study: Path, bundle: Path) -> Iterator[Home]:
    """Make a working folder for one input, deep enough that no '..' leaves the temporary folder."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="autocut-fuzz-") as folder:
        scratch = Path(folder) / "a/b/c/d"
        scratch.mkdir(parents=True)
        os.chdir(scratch)
        try:
            yield Home(study, bundle, scratch)
        finally:
            os.chdir(before)


def space_file(data: st.DataObject, at: Home) -> None:
    """A space file with changes."""
    shipped = importlib.resources.files("autocut").joinpath("../search_spaces")
    files = sorted(file.name for file in shipped.iterdir() if file.name.endswith(".toml"))
    document = tomllib.loads(shipped.joinpath(data.draw(st.sampled_from(files), "space")).read_text(encoding="utf-8"))
    (at.scratch / "mine.toml").write_bytes(data.draw(toml_files(document), "file"))
    run([*DRY_RUN, "--space", "mine.toml"])


def recipe_file(data: st.DataObject, at: Home) -> None:
    """A recipe of the user, TOML or JSON."""
    name = data.draw(st.sampled_from(("mine.toml", "mine.json")), "name")
    files = toml_files if name.endswith("toml") else json_files
    forms = (_RECIPE, _NEWER_RECIPE, {"recipe": _RECIPE}, {"prune": {"method": "structured", "ratio": 0.5}})
    document = data.draw(st.sampled_from(forms))
    (at.scratch / name).write_bytes(data.draw(files(document), "file"))
    run([*DRY_RUN, "--try", name])


def config_file(data: st.DataObject, at: Home) -> None:
    """A configuration file for any verb."""
    known = (DRY_RUN[:2], ("front", str(at.study)), ("select", str(at.study)), ("verify", "none"))
    words = data.draw(st.sampled_from(known), "words")
    document = {
        "search": {
            "budget": "8h",
            "space": "quick",
            "limit": ["latency_ms<=5"],
            "price-per-hour": 0.1,
            "workers": 1,
            "threads": 1,
            "serve-on": "cpu",
            "train-on": "auto",
            "requests-per-month": 3e6,
            "grid-intensity": 400,
            "worker-memory": "8GB",
            "measure-on": "EPYC",
            "stages": "stages",
            "learn-from": "none",
            "rehash": True,
        },
        "select": {"max-accuracy-drop": "1%", "minimize": "cost", "knee": True},
        "front": {"all": True, "json": True},
    }
    (at.scratch / "autocut.toml").write_bytes(data.draw(toml_files(document), "file"))
    run(words)


def environment(data: st.DataObject, at: Home) -> None:
    """A variable of a flag."""
    verb = data.draw(st.sampled_from(("search", "front", "select", "ledger", "verify", "methods")), "verb")
    words = {"search": [*DRY_RUN], "verify": ["verify", "none"], "methods": ["methods"]}.get(verb, [verb, str(at.study)])
    options = [flag.envvar for flag in cli.cli.commands[verb].options if flag.name != "dry_run"]
    name = data.draw(st.sampled_from([*options, f"AUTOCUT_{verb.upper()}_BUGDET"]), "variable")
    raw = st.binary(max_size=8).map(os.fsdecode)
    value = data.draw(st.one_of(texts(), raw, st.sampled_from(_URLS)).filter(lambda text: "\0" not in text), "value")
    run(words, {str(name): value})


def own_variable(data: st.DataObject, at: Home) -> None:
    """A variable that belongs to no flag: it names a file or a folder. All that is tried lies in the input's own folder."""
    known = (["verify", str(bundle_elsewhere(at, data))], ["front", str(at.study)], [*DRY_RUN])
    verb = data.draw(st.sampled_from(known), "words")
    raw = st.binary(max_size=8).map(os.fsdecode)
    text = data.draw(st.one_of(texts(), raw).filter(lambda text: "\0" not in text), "value").lstrip("/")
    value = f"{at.scratch}/{text}" if data.draw(st.booleans(), "from the root") else text
    run(verb, {data.draw(st.sampled_from(_OWN_VARIABLES), "variable"): value, "HOME": str(at.scratch)})
    with contextlib.suppress(InputError), mock.patch.dict(os.environ, {LOCK_DIR: value, "HOME": str(at.scratch)}):
        node_folder()
    with contextlib.suppress(InputError), mock.patch.dict(os.environ, {KEY_FILE: value, "HOME": str(at.scratch)}):
        own_secret()


def command_line(data: st.DataObject, at: Home) -> None:
    """Any words after a verb."""
    verb = data.draw(st.sampled_from([*(name for name in cli.cli.commands if name != "search"), "search", "serach"]), "verb")
    command = cli.cli.commands.get(verb)
    names = [name for flag in command.options for name in flag.opts] if isinstance(command, Verb) else ["--help"]
    raw = st.binary(max_size=8).map(os.fsdecode)
    known = st.sampled_from((str(at.study), str(at.bundle), "none", "report.html", "front"))
    word = st.one_of(texts(), raw, known, st.sampled_from(_URLS), st.integers().map(str), st.floats().map(str))
    words = data.draw(st.lists(st.one_of(st.sampled_from(names), word, known), max_size=5), "words")
    inside = [text.replace("\0", "").lstrip("/") if text not in (str(at.study), str(at.bundle)) else text for text in words]
    if set(inside) & {"--no-dry-run", "--retrain"}:
        return
    run([*(DRY_RUN if verb == "search" else [verb]), *inside])


def storage_url(data: st.DataObject, at: Home) -> None:
    """The address of a database, in the folder of a study."""
    other = st.tuples(st.sampled_from(("postgresql", "mysql", "sqlite", "", "x")), texts()).map("://".join)
    url = data.draw(st.one_of(st.sampled_from(_URLS), other.filter(lambda url: "////" not in url and "\0" not in url)), "url")
    address = {"storage": url, "name": data.draw(st.sampled_from(("digits", "", "x")), "name")}
    study = at.scratch / "study"
    study.mkdir()
    (study / "study.json").write_bytes(data.draw(st.one_of(st.just(json.dumps(address).encode()), json_files(address)), "file"))
    ended = run([*data.draw(st.sampled_from(_READERS[:9]), "verb"), str(study)])
    if "geheim" in ended.told + ended.printed:
        raise FaultFound("a password on the terminal", ["front", url], ended.told)


def study_database(data: st.DataObject, at: Home) -> None:
    """A study's database with changed bytes, or with rows that autocut never wrote."""
    study = at.scratch / "study"
    shutil.copytree(at.study, study, ignore=shutil.ignore_patterns("stages", "artifacts"))
    database = study / "study.db"
    if data.draw(st.booleans(), "in its bytes"):
        database.write_bytes(data.draw(changed_bytes(database.read_bytes()), "database"))
    else:
        for _ in range(data.draw(st.integers(1, 3))):
            _change_rows(data, database)
    before = database.read_bytes()
    verb = data.draw(st.sampled_from(_READERS), "verb")
    ended = run([verb[0], str(study), *verb[1:]])
    if ended.code == 2 and database.read_bytes()[100:] != before[100:]:  # the header has counters
        kept = sum(one == other for one, other in zip(before, database.read_bytes(), strict=False))
        sizes = f"{len(before)} bytes became {database.stat().st_size}, {kept} are the same"
        raise FaultFound("a damaged database was overwritten", verb, f"{ended.told}\n{sizes}")


TARGETS: Mapping[str, Callable[[st.DataObject, Home], None]] = {
    target.__name__: target
    for target in (
        space_file, recipe_file, config_file, environment, own_variable, command_line, storage_url, study_database,
        bundle_manifest, bundle_examples, bundle_model, http_request,
    )
}  # fmt: skip


def _change_rows(data: st.DataObject, file: Path) -> None:
    with contextlib.closing(sqlite3.connect(file)) as database, database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
        read = [name for name in tables if name.startswith("autocut") or "attributes" in name]
        table = data.draw(st.sampled_from([*tables, *read, *read]), "table")
        columns = [row[1] for row in database.execute(f'PRAGMA table_info("{table}")')]
        column = data.draw(st.sampled_from(columns), "column")
        kind = data.draw(st.sampled_from(("update", "update", "update", "delete", "drop", "rename")), "change")
        row = f'rowid IN (SELECT rowid FROM "{table}" ORDER BY random() LIMIT 2)' if data.draw(st.booleans(), "some rows") else "1"
        cell = data.draw(_cells(database, table, column), "cell")
        with contextlib.suppress(sqlite3.Error):  # SQLite refuses some: the next change is another one
            database.execute("PRAGMA foreign_keys = OFF")
            match kind:
                case "update":
                    database.execute(f'UPDATE "{table}" SET "{column}" = ? WHERE {row}', [cell])
                case "delete":
                    database.execute(f'DELETE FROM "{table}" WHERE {row}')
                case "drop":
                    database.execute(f'DROP TABLE "{table}"')
                case _:
                    database.execute(f'ALTER TABLE "{table}" RENAME COLUMN "{column}" TO stranger')


def _cells(database: sqlite3.Connection, table: str, column: str) -> st.SearchStrategy[Any]:
    """Values for one cell: any, and JSON like the one that stands there."""
    numbers = st.one_of(st.integers(-(2**63), 2**63 - 1), st.floats(), st.none())
    cells = [numbers, texts(), st.binary(max_size=10), values().map(json.dumps)]
    found = database.execute(f'SELECT "{column}" FROM "{table}" WHERE "{column}" IS NOT NULL LIMIT 1').fetchone()
    with contextlib.suppress(ValueError, TypeError):
        if isinstance(document := json.loads(found[0]), dict | list):
            cells += [changed(document).map(json.dumps)] * 3
    return st.one_of(cells)
