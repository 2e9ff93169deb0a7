"""What is fuzzed: each target draws one hostile input, hands it to a verb, and looks that nothing of the user's is lost.

`TARGETS` has them all. A target gets Hypothesis' data and a `Home` with a finished study, whose files it copies before it changes
them.
"""

from __future__ import annotations

import contextlib
import importlib.resources
import io
import json
import os
import shutil
import sqlite3
import tempfile
import tomllib
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from hostile_inputs import changed, changed_bytes, json_files, reseal, texts, toml_files, values
from hostile_runs import FaultFound, run
from hypothesis import strategies as st

from autocut import cli
from autocut.commands.verb import Verb
from autocut.deploy.manifest import hash_file
from autocut.deploy.rerun import Rerun
from autocut.deploy.verify_process import find
from autocut.task import check as task_check

DRY_RUN = ("search", "--dry-run", "--budget", "1m")
_RECIPE = {
    "prune.method": "structured", "prune.ratio": 0.5, "prune.parent_ratio": 0.2, "train.epochs": 4, "train.start": "trained",
    "train.lr_scale": 0.5, "curriculum.schedule": "linear", "curriculum.order": "random", "curriculum.start": 0.5,
    "distill.loss": "kl", "distill.temperature": 2.0, "distill.alpha": 0.5, "quantize.dtype": "fp32", "compile.mode": "eager",
}  # fmt: skip
_URLS = (
    "sqlite:///server.db", "sqlite://", "sqlite:///", "postgresql://me:geheim@127.0.0.1:1/db", "postgresql+psycopg://h/d",
    "mysql://me:geheim@h/d", "nosuchdb://me:geheim@h/d?password=geheim", "://", "postgresql://[::1/d", "sqlite:///server.db?x=1",
    "postgresql://me:geheim@h:port/d", "http://me:geheim@h/", "sqlite+pysqlcipher://:geheim@/server.db", "file:server.db",
)  # fmt: skip
_READERS = (
    ("front",), ("front", "--json"), ("front", "--all", "--json"), ("front", "--csv", "--all"), ("select",), ("select", "--json"),
    ("select", "--knee", "--max-accuracy-drop", "1%"), ("ledger",), ("ledger", "--json"), ("dashboard", "--port", "0"),
    ("report", "--to", "report.html"), ("report", "--to", "report.html", "--json"), ("export", "--trial", "7", "--to", "out"),
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
    name = data.draw(st.sampled_from(("quick", "default", "training-only")), "space")
    document = tomllib.loads(shipped.joinpath(f"{name}.toml").read_text(encoding="utf-8"))
    (at.scratch / "mine.toml").write_bytes(data.draw(toml_files(document), "file"))
    run([*DRY_RUN, "--space", "mine.toml"])


def recipe_file(data: st.DataObject, at: Home) -> None:
    """A recipe of the user, TOML or JSON."""
    name = data.draw(st.sampled_from(("mine.toml", "mine.json")), "name")
    files = toml_files if name.endswith("toml") else json_files
    document = data.draw(st.sampled_from((_RECIPE, {"recipe": _RECIPE}, {"prune": {"method": "structured", "ratio": 0.5}})))
    (at.scratch / name).write_bytes(data.draw(files(document), "file"))
    run([*DRY_RUN, "--try", name])


def config_file(data: st.DataObject, at: Home) -> None:
    """A configuration file for any verb."""
    known = (DRY_RUN[:2], ("front", str(at.study)), ("select", str(at.study)), ("verify", "none"))
    words = data.draw(st.sampled_from(known), "words")
    document = {
        "search": {"budget": "8h", "space": "quick", "limit": ["latency_ms<=5"], "price-per-hour": 0.1, "workers": 1},
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


def bundle_manifest(data: st.DataObject, at: Home) -> None:
    """A manifest with changes, sealed again."""
    bundle = _bundle(at)
    manifest = bundle / "manifest.json"
    document = json.loads(manifest.read_text(encoding="utf-8"))
    if data.draw(st.booleans(), "in its bytes"):
        manifest.write_bytes(data.draw(changed_bytes(manifest.read_bytes()), "file"))
    else:
        reseal(bundle, data.draw(changed(document), "manifest"))
    run(data.draw(st.sampled_from((["verify", str(bundle)], ["verify", str(bundle), "--json"])), "words"))


def bundle_examples(data: st.DataObject, at: Home) -> None:
    """An examples file of other arrays or bytes, sealed again."""
    bundle = _bundle(at)
    examples = bundle / "examples.npz"
    if data.draw(st.booleans(), "in its bytes"):
        examples.write_bytes(data.draw(changed_bytes(examples.read_bytes()), "file"))
    else:
        _change_arrays(data, examples)
    document = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    sealed = hash_file(bundle, examples).model_dump()
    reseal(bundle, {**document, "files": [sealed if file["path"] == sealed["path"] else file for file in document["files"]]})
    run(["verify", str(bundle)])


TARGETS: Mapping[str, Callable[[st.DataObject, Home], None]] = {
    target.__name__: target
    for target in (
        space_file, recipe_file, config_file, environment, command_line, storage_url, study_database, bundle_manifest,
        bundle_examples,
    )
}  # fmt: skip


def _bundle(at: Home) -> Path:
    """Copy the bundle, and let it be measured elsewhere, so that verifying it times nothing."""
    bundle = Path(shutil.copytree(at.bundle, at.scratch / "bundle"))
    document = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    document["measurement"]["cost"]["machine"] = "elsewhere"
    reseal(bundle, document)
    return bundle


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


def _change_arrays(data: st.DataObject, file: Path) -> None:
    with np.load(file) as saved:
        arrays = {name: saved[name] for name in saved.files}
    name = data.draw(st.sampled_from(sorted(arrays)), "array")
    shape = data.draw(st.lists(st.integers(0, 20), max_size=4).map(tuple), "shape")
    dtype = data.draw(st.sampled_from(("float32", "float64", "float16", "int64", "int8", "bool", "complex64", "U3", "M8[s]")))
    match data.draw(st.sampled_from(("shape", "dtype", "fill", "remove", "rename", "add"))):
        case "shape":
            arrays[name] = np.zeros(shape, arrays[name].dtype)
        case "dtype":
            arrays[name] = np.zeros(arrays[name].shape, dtype)
        case "fill":
            arrays[name] = np.full_like(arrays[name], data.draw(st.sampled_from((0, 1, -1, 99))))
        case "remove":
            del arrays[name]
        case "rename":
            arrays[data.draw(st.sampled_from(("00000/inputs/x", "x", "00009/targets", "00000/outputs_step")))] = arrays.pop(name)
        case _:
            arrays["00000/outputs_step"], arrays["00000/outputs_shape"] = np.zeros(shape, dtype), np.zeros(shape, "int64")
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for key, array in arrays.items():
            one = io.BytesIO()
            np.save(one, array, allow_pickle=False)
            archive.writestr(f"{key}.npy", one.getvalue())
    file.write_bytes(written.getvalue())
