"""The verbs: flags, sources, streams and exit codes. The rooms below them are fakes here."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import shlex
import signal
import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path

import pytest

from autocut import cli
from autocut.commands.verb import Verb
from autocut.errors import BundleError, CompilerError, Fault, FaultsError, NoResultError, StudyError
from autocut.execution import money
from autocut.execution.preflight import Preflight, TaskFacts
from autocut.execution.training_device import FoundGpu
from autocut.front import Final, FrontPoint
from autocut.measure.audit import AuditedMachine
from autocut.measurement import Accuracy, Cost, Interval, Latency, Measurement
from autocut.price import Host
from autocut.recipe import Recipe

KNOWN = {
    "prune.method": ("none", "l1_unstructured", "structured", "structured_taylor", "low_rank", "depth"),
    "curriculum.schedule": ("none", "linear", "sqrt", "quadratic", "exponential", "logarithmic", "step"),
    "curriculum.order": ("easy_first", "random"),
    "distill.loss": ("none", "kl", "kl_zscore", "mse_logits", "kl_sigmoid", "mse"),
    "quantize.dtype": ("fp32", "bf16", "fp16", "int8_dynamic", "int8_static", "int8_weight_only", "int4_weight_only"),
    "compile.mode": ("eager", "torch_compile", "torch_compile_max_autotune", "aot_inductor", "onnxruntime", "openvino"),
}
SAME = Interval(1.0, 1.0, 1.0)
COST = Cost((Latency(1, 64, SAME, None, None, 1.0, SAME, 1.0),), 1000, 900, 1, 12.0, "m")
MEASUREMENT = Measurement(Accuracy("validation", 360, Interval(0.97, 0.95, 0.98)), COST)
TESTED = replace(MEASUREMENT, accuracy=replace(MEASUREMENT.accuracy, split="test"))


def point(trial, accuracy, usd, settings=(), **fields):
    """A front point with plausible values."""
    values = {
        "accuracy": accuracy,
        "usd_per_million": usd,
        "latency_ms": usd,
        "size_bytes": 1000.0,
        "train_usd": 0.0,
        "speedup": 1 / usd,
    }
    base = FrontPoint(trial, Recipe(dict(settings)), values, MEASUREMENT, is_baseline=not settings, bundle=None, ties=())
    return replace(base, **fields)


POINTS = [
    point(0, 0.98, 1.0),
    point(7, 0.975, 0.25, {"quantize.dtype": "int8_static", "compile.mode": "onnxruntime"}, ties=(8,), bundle="bundles/7"),
    point(9, 0.90, 0.1, {"prune.method": "structured", "prune.ratio": 0.8}),
]


class FakeStudy:
    """An open study with three points; the untouched model is beaten."""

    name = "digits"
    objectives = types.MappingProxyType({"accuracy": "maximize", "usd_per_million": "minimize"})
    facts = types.MappingProxyType(
        {
            "price": {"instance": "c7i.large", "usd_per_hour": 0.09, "date": "2026-07-20", "utilization": 1.0},
            "price_fit": "ratios hold, dollars may not: prices are of another machine",
        }
    )

    def __init__(self, points=POINTS):
        self._points = points

    def spent_s(self):
        """An hour."""
        return 3600.0

    def points(self):
        """All."""
        return self._points

    def front(self):
        """All but the untouched model."""
        return self._points[1:]

    rungs = types.SimpleNamespace(all=list, pairs=dict)
    """Nothing was measured to explain a trial."""

    def results(self):
        """No trial has failed."""
        return {}

    def looks(self):
        """Two."""
        return ["finalization", "export"]

    def untested(self):
        """Not one."""
        return ()

    def ledger(self):
        """Twice as much training as compiling."""
        return {
            "spent_s": 100.0,
            "by_category": {"train": 60.0, "compile": 30.0, "idle": 0.0},
            "borrowed_s": 0.0,
            "cores_busy": 0.9,
            "sessions": [{"command": "autocut search"}],
        }

    def to_frame(self):
        """One row a trial."""
        import pandas as pd

        return pd.DataFrame(
            {"trial": [each.trial for each in self._points], "accuracy": [each.values["accuracy"] for each in self._points]}
        )


class FakePool(contextlib.nullcontext):
    """Starts nothing."""

    ask = None

    def __init__(self, *arguments, **settings):
        super().__init__(self)

    def start_ray(self):
        """There is none."""


@pytest.fixture
def room(monkeypatch):
    """Replace the functions of a module, which need not exist."""

    def put(name, **functions):
        module = types.ModuleType(name)
        vars(module).update(functions)
        monkeypatch.setitem(sys.modules, name, module)

    return put


@pytest.fixture
def searches(room, monkeypatch, tmp_path):
    """The configurations that reach the search, in an empty directory."""
    seen = []
    monkeypatch.chdir(tmp_path)
    digits = TaskFacts("digits", "fingerprint", train_samples=1000, epochs=10, is_pretrained=False)
    monkeypatch.setattr(
        "autocut.execution.preflight.preflight", lambda task, ask, meanwhile, **more: meanwhile() or Preflight(KNOWN, {}, digits)
    )
    monkeypatch.setattr("autocut.stages.methods.known_methods", lambda: KNOWN)
    monkeypatch.setattr("autocut.task.file.compile_task_file", lambda path: None)
    monkeypatch.setattr("autocut.measure.audit._allowed", lambda: range(8))
    monkeypatch.setattr(AuditedMachine, "quota", lambda self: None)
    monkeypatch.setattr("autocut.commands.search._LOOK_S", 0.0)
    room("autocut.execution.worker_pool", WorkerPool=FakePool)
    room("autocut.execution.session", run_search=lambda config, space, *others: seen.append((config, space)) or 0)
    room("autocut.study", open_study=lambda folder: FakeStudy())
    room("autocut.task.check", check_task=lambda path, **more: [])
    return seen


def test_help_lists_every_verb_and_is_data(capsys):
    """`autocut --help | less` works, with exit code 0."""
    assert cli.main(["--help"]) == 0
    shown = capsys.readouterr()
    assert all(
        verb in shown.out for verb in ("search", "check", "methods", "front", "select", "export", "verify", "ledger", "dashboard")
    )
    assert shown.err == ""
    assert cli.main([]) == 2


def test_help_imports_nothing_heavy():
    """`autocut --help` is instant: only click and autocut's own light modules."""
    heavy = ("torch", "numpy", "optuna", "ray", "pydantic", "rich", "pandas", "sqlalchemy")
    code = "import sys; from autocut.cli import main; main(['search', '--help']); "
    code += f"sys.exit(str([name for name in {heavy} if name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize("verb", sorted(cli.cli.commands))
def test_help_examples_are_accepted_by_the_parser(verb, searches, monkeypatch, capsys):
    """Every example in a verb's help has only flags that exist, with values that they take."""
    command = cli.cli.commands[verb]
    assert isinstance(command, Verb)
    assert cli.main([verb, "--help"]) == 0
    shown = capsys.readouterr().out
    for example in command.examples:
        assert example in shown
        words = shlex.split(example)
        assert words[:2] == ["autocut", verb]
        with command.make_context(verb, words[2:], parent=cli.cli.make_context("autocut", [verb])) as ctx:
            assert ctx.params is not None


def test_search_hands_over_its_configuration_and_prints_the_front(searches, capsys):
    """Units are parsed, the space is loaded, the study folder is named after the task."""
    words = (
        "search task.py --budget 1h30m --space deploy-only --workers 3 --limit latency_ms<=5 --cache-size 2GB --price-per-hour 0.5"
    )
    assert cli.main(shlex.split(words.replace("<=", "'<='"))) == 0
    config, space = searches[0]

    assert (config.task, config.budget_s, config.workers, config.cache_bytes) == ("task.py", 5400, 3, 2 * 10**9)
    assert (config.limits, config.price_per_hour, config.out) == (("latency_ms<=5",), 0.5, Path("studies/digits"))
    assert space.name == "deploy-only"
    assert "int8_static" in capsys.readouterr().out


def test_flag_beats_variable_beats_file_beats_default(searches, monkeypatch):
    """The order: flag > AUTOCUT_* > file > default."""
    Path("autocut.toml").write_text('[search]\nbudget = "1m"\nseed = 1\nthreads = 4\nspace = "quick"\n')
    monkeypatch.setenv("AUTOCUT_SEARCH_SEED", "2")
    monkeypatch.setenv("AUTOCUT_SEARCH_BUDGET", "2m")
    assert cli.main(["search", "--budget", "3m"]) == 0

    config, space = searches[0]
    assert (config.budget_s, config.seed, config.threads, config.workers >= 1) == (180, 2, 4, True)
    assert space.name == "quick"


def test_workers_fill_the_processors_with_their_threads(searches):
    """Eight processors: two workers of three threads, which leaves two processors idle."""
    assert cli.main(["search", "--budget", "3m", "--threads", "3"]) == 0
    assert searches[0][0].workers == 2


@pytest.mark.parametrize(
    ("asked", "hint"),
    [(("--threads", "3", "--workers", "3"), "write --workers 2"), (("--threads", "9"), "write --threads 8 --workers 1")],
)
@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_more_threads_than_processors_are_refused(searches, capsys, asked, hint, more):
    """They would take turns on the processors, and every number would be that of an overloaded machine."""
    assert cli.main(["search", "--budget", "3m", *asked, *more]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "--threads times --workers must be at most the 8 processors here, got" in told
    assert hint in told
    assert searches == []


def test_what_may_spoil_timings_is_said_once_and_ends_nothing(searches, monkeypatch, capsys):
    """The search goes on: a person decides whether to stop it."""
    monkeypatch.setattr(AuditedMachine, "governors", lambda self: ["powersave"])
    assert cli.main(["search", "--budget", "3m"]) == 0
    assert capsys.readouterr().err.count("frequency governor is powersave") == 1


def test_the_largest_drop_comes_from_flag_variable_or_file(searches, monkeypatch):
    """Without any of them the search decides: five points for a new study."""
    assert cli.main(["search", "--budget", "3m"]) == 0
    Path("autocut.toml").write_text('[search]\nmax-accuracy-drop = "3%"\n')
    assert cli.main(["search", "--budget", "3m"]) == 0
    monkeypatch.setenv("AUTOCUT_SEARCH_MAX_ACCURACY_DROP", "2%")
    assert cli.main(["search", "--budget", "3m"]) == 0
    assert cli.main(["search", "--budget", "3m", "--max-accuracy-drop", "0%"]) == 0

    assert [config.max_accuracy_drop for config, _ in searches] == [None, 0.03, 0.02, 0.0]


def test_dry_run_shows_each_value_with_its_source_and_runs_nothing(searches, monkeypatch, capsys):
    """The output shows what would run, and the origin of each value."""
    Path("mine.toml").write_text("[search]\nthreads = 4\n")
    monkeypatch.setenv("AUTOCUT_SEARCH_SEED", "2")
    assert cli.main(["search", "--config", "mine.toml", "--budget", "90m", "--dry-run", "--json"]) == 0
    settings = json.loads(capsys.readouterr().out)["configuration"]

    assert settings["budget"] == {"value": 5400.0, "source": "flag"}
    assert settings["seed"] == {"value": 2, "source": "AUTOCUT_SEARCH_SEED"}
    assert settings["threads"] == {"value": 4, "source": "mine.toml"}
    assert settings["utilization"] == {"value": 1.0, "source": "default"}
    assert searches == []


def test_dry_run_says_whose_price_it_is(searches, monkeypatch, capsys):
    """Before hours are spent, the user reads that the price is of another machine."""
    monkeypatch.setattr(money, "this_host", lambda: Host("Apple M3", "", "aarch64", 8))

    assert cli.main(["search", "--budget", "5m", "--dry-run"]) == 0
    assert "this machine is Apple M3, 8 cores (--price-per-hour takes the price of this machine)" in capsys.readouterr().err
    assert cli.main(["search", "--budget", "5m", "--price-per-hour", "0.1", "--dry-run"]) == 0
    assert "dollars may not" not in capsys.readouterr().err


def test_requests_and_grid_are_checked_before_anything_starts(searches, capsys):
    """An impossible number ends with exit code 2 and says what to type."""
    assert cli.main(["search", "--budget", "5m", "--requests-per-month", "nan"]) == 2
    assert "--requests-per-month" in capsys.readouterr().err
    assert cli.main(["search", "--budget", "5m", "--grid-intensity", "inf"]) == 2
    assert "--grid-intensity must be 0 or more, got inf" in capsys.readouterr().err
    assert searches == []


def test_dry_run_reports_the_faults_of_space_and_task_together(searches, room, capsys):
    """One run reports every fault."""
    Path("bad.toml").write_text('schema_version = 1\n[objectives]\nacc = "maximize"\n[axes."compile.mode"]\nchoices = ["eagre"]\n')
    room("autocut.task.check", check_task=lambda path, **more: [Fault("loss must be finite, got nan", "lower the learning rate")])
    assert cli.main(["search", "--budget", "5m", "--space", "bad.toml", "--dry-run"]) == 2

    told = capsys.readouterr().err
    assert "configuration has 3 faults" in told
    assert "bad.toml, line 3" in told
    assert "did you mean 'eager'?" in told
    assert "3. loss must be finite" in told


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        ("search --budget 8", "--budget must have a unit, got '8'", "write 8h, 8m or 8s"),
        ("search", "--budget is missing", "as in: autocut search --budget 5m"),
        ("search --budgt 8h", "autocut search has no flag '--budgt'", "did you mean '--budget'?"),
        ("serch --budget 8h", "verb must be one of", "did you mean 'search'?"),
        ("search --budget 8h --workers 0", "--workers is wrong: 0 is not in the range x>=1", "see autocut search --help"),
        ("search --budget 8h --space quik", "space must be one of", "did you mean 'quick'?"),
        ("search --budget 8h --sampler tp", "--sampler must be one of", "did you mean 'tpe'?"),
        ("search --budget 8h --instance c7i.larg", "c7i.larg", "did you mean 'c7i.large'?"),
        ("search --budget 8h --limit latncy<=5", "limit must be one of", "did you mean"),
        ("search --budget 8h --config nowhere.toml", "configuration file must be readable", ""),
        ("search --budget 8h --max-accuracy-drop 2", "--max-accuracy-drop must have a percent sign, got '2'", "write 2%"),
        ("select studies/x --max-accuracy-drop 1", "--max-accuracy-drop must have a percent sign, got '1'", "write 1%"),
        ("front", "STUDY is missing", "as in: autocut front studies/digits"),
        ("front studies/x --json --csv", "output must be either --json or --csv, got both", "leave one out"),
        ("export studies/x --trial x --to out", "--trial is wrong: 'x' is not a valid integer", "see autocut export --help"),
        ("explain studies/x x", "TRIAL is wrong: 'x' is not a valid integer\n", "see autocut explain --help"),
    ],
)
def test_wrong_use_exits_with_two_and_says_what_to_type(searches, capsys, words, message, hint):
    """error, hint, nothing on stdout (but the error's document, where one is asked for), and no search."""
    assert cli.main(words.split()) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("error: ")
    assert message in shown.err
    assert hint in shown.err
    assert "Traceback" not in shown.err
    assert (shown.out == "") is ("--json" not in words)
    assert searches == []


@pytest.mark.parametrize(
    "words", ["--space quik", "--space nowhere.toml", "--space gpu", "--limit latncy<=5", "--instance c7i.larg"]
)
def test_what_needs_no_task_is_told_before_anything_starts(searches, room, words):
    """A slip of the keyboard costs no waiting for processes and imports."""
    room("autocut.execution.worker_pool", WorkerPool=lambda *_, **__: pytest.fail("something was started"))
    assert cli.main(["search", "--budget", "8h", *words.split()]) == 2


def test_a_gpu_that_is_not_there_is_told_before_anything_starts(searches, room, monkeypatch, capsys):
    """In a dry run too."""
    monkeypatch.setattr("autocut.execution.training_device.find_gpu", lambda: FoundGpu(reason="no driver"))
    room("autocut.execution.worker_pool", WorkerPool=lambda *_, **__: pytest.fail("something was started"))
    assert cli.main(["search", "--budget", "8h", "--train-on", "cuda"]) == 2
    assert "--train-on cuda must find a GPU that torch can use, got none: no driver" in capsys.readouterr().err
    assert cli.main(["search", "--budget", "8h", "--train-on", "cuda", "--dry-run"]) == 2
    assert "got none: no driver" in capsys.readouterr().err


def test_the_device_that_trains_comes_from_flag_or_file(searches, monkeypatch, capsys):
    """The search gets what was found, and the user reads it first."""
    monkeypatch.setattr("autocut.execution.training_device.find_gpu", lambda: FoundGpu(name="NVIDIA L4"))
    Path("autocut.toml").write_text('[search]\nbudget = "1m"\ntrain-on = "auto"\n')
    assert cli.main(["search"]) == 0
    assert searches[0][0].train_on == "cuda"
    assert "training: on NVIDIA L4 (cuda)" in capsys.readouterr().err
    assert cli.main(["search", "--train-on", "cpu"]) == 0
    assert searches[1][0].train_on == "cpu"


def test_a_gpu_without_anything_to_train_is_refused(searches, monkeypatch, capsys):
    """The knob would change nothing."""
    monkeypatch.setattr("autocut.execution.training_device.find_gpu", lambda: FoundGpu(name="NVIDIA L4"))
    weights = TaskFacts("digits", "fingerprint", train_samples=1000, epochs=10, is_pretrained=True)
    monkeypatch.setattr("autocut.execution.preflight.preflight", lambda *_, **__: Preflight(KNOWN, {}, weights))
    assert cli.main(["search", "--budget", "1m", "--space", "deploy-only", "--train-on", "cuda"]) == 2
    assert "--train-on cuda must have a model to train, got none" in capsys.readouterr().err
    assert cli.main(["search", "--budget", "1m", "--space", "deploy-only", "--train-on", "auto"]) == 0


def test_an_unknown_sampler_is_told_before_ray_starts(searches, monkeypatch):
    """Its names need Optuna, not Ray."""
    monkeypatch.setattr(FakePool, "start_ray", lambda self: pytest.fail("Ray was started"))
    assert cli.main(["search", "--budget", "8h", "--sampler", "tp"]) == 2


def test_mistyped_variable_is_refused(searches, monkeypatch, capsys):
    """Ignored, it would be a silent fallback."""
    monkeypatch.setenv("AUTOCUT_SEARCH_BUDGTE", "8h")
    assert cli.main(["search", "--budget", "3m"]) == 2
    assert "did you mean 'AUTOCUT_SEARCH_BUDGET'?" in capsys.readouterr().err


def test_bad_value_is_named_by_where_it_stands(searches, monkeypatch, capsys):
    """The user looks for it in the file or in the environment, not on the command line."""
    Path("autocut.toml").write_text("[search]\nbudget = 8\n")
    assert cli.main(["search"]) == 2
    assert "budget in autocut.toml must have a unit" in capsys.readouterr().err
    monkeypatch.setenv("AUTOCUT_SEARCH_BUDGET", "9")
    assert cli.main(["search"]) == 2
    assert "AUTOCUT_SEARCH_BUDGET must have a unit" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (StudyError("study must be a folder that autocut search made", "ls studies"), 2),
        (BundleError("bundle is empty"), 2),
        (NoResultError("no point meets the limits"), 1),
        (CompilerError("the compiler refused"), 3),
        (FaultsError("task.py", [Fault("a"), Fault("b")]), 2),
        (OSError(errno.ENOSPC, "No space left on device", "study.db"), 2),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "afile/x/stages"), 2),
        (FileExistsError(errno.EEXIST, "File exists", "afile/x"), 2),
        (KeyboardInterrupt(), 130),
    ],
)
def test_errors_end_with_their_exit_code_and_without_traceback(searches, room, capsys, error, code):
    """Every error that a room raises on purpose has its exit code."""

    def fail(*arguments):
        raise error

    room("autocut.execution.session", run_search=fail)
    assert cli.main(["search", "--budget", "5m"]) == code
    assert "Traceback" not in capsys.readouterr().err


def test_an_unexpected_exception_is_called_a_bug(searches, room, capsys):
    """The message has the traceback, and the exit code is 3."""
    room("autocut.execution.session", run_search=lambda *_: 1 / 0)
    assert cli.main(["search", "--budget", "5m"]) == 3
    told = capsys.readouterr().err
    assert "Traceback" in told
    assert "this is a bug in autocut: ZeroDivisionError" in told


def test_ctrl_c_prints_the_command_that_resumes(searches, room, capsys):
    """The command is quoted for the shell."""

    def interrupt(*arguments):
        raise KeyboardInterrupt

    room("autocut.execution.session", run_search=interrupt)
    assert cli.main(["search", "my task.py", "--budget", "5m"]) == 130
    assert "autocut search 'my task.py' --budget 5m" in capsys.readouterr().err


def test_sigterm_ends_a_search_like_ctrl_c(searches, room, capsys):
    """A scheduler that stops the machine sends it; what is finished is kept, and 143 tells which signal it was."""
    before = signal.getsignal(signal.SIGTERM)

    def terminate(*arguments):
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGTERM)  # the second one does not stop the end of the search

    room("autocut.execution.session", run_search=terminate)
    assert cli.main(["search", "task.py", "--budget", "5m"]) == 143
    assert capsys.readouterr().err.endswith("finished work is kept. Resume with:\n  autocut search task.py --budget 5m\n")
    assert signal.getsignal(signal.SIGTERM) is before


def test_bundles_carry_examples_unless_the_user_says_otherwise(searches, monkeypatch):
    """By flag, variable or file, as every setting."""
    assert cli.main(["search", "--budget", "5m"]) == 0
    assert cli.main(["search", "--budget", "5m", "--no-examples"]) == 0
    monkeypatch.setenv("AUTOCUT_SEARCH_EXAMPLES", "false")
    assert cli.main(["search", "--budget", "5m"]) == 0

    assert [config.examples for config, _ in searches] == [True, False, False]


def test_front_is_a_table_with_the_untouched_model_for_comparison(searches, capsys):
    """Baselines, ties and beaten points are marked."""
    assert cli.main(["front", "studies/digits"]) == 0
    lines = capsys.readouterr().out.splitlines()

    assert "untouched (baseline; beaten)" in " ".join(" ".join(lines).split())
    assert "ties with 8" in " ".join(" ".join(lines).split())


def test_each_split_has_a_column_of_its_own(searches, room, capsys):
    """0.98 on validation and 0.97 on test never stand in one column; what was not tested has none."""
    final = Final(7, {**POINTS[1].values, "accuracy": 0.97}, TESTED, None, None, verified=True, refusal=None)
    room("autocut.study", open_study=lambda folder: FakeStudy([POINTS[0], replace(POINTS[1], final=final), POINTS[2]]))

    assert cli.main(["front", "studies/digits"]) == 0
    shown = capsys.readouterr()
    lines = shown.out.splitlines()

    assert "2 looks at the locked test split so far; it chose nothing" in shown.err
    assert lines[0].split()[1:6] == ["accuracy", "(validation)", "accuracy", "(test)", "shrinkage"]
    assert [line.split()[:4] for line in lines[2:]] == [
        ["0", "0.98", "-", "-"],
        ["7", "0.975", "0.97", "-0.0050"],
        ["9", "0.9", "-", "-"],
    ]


def test_front_json_is_one_document_of_the_agreed_shape(searches, capsys):
    """Other programs rely on this shape."""
    assert cli.main(["front", "studies/digits", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)

    assert document["schema_version"] == 1
    assert document["objectives"] == {"accuracy": "maximize", "usd_per_million": "minimize"}
    assert [each["trial"] for each in document["points"]] == [7, 9]
    fields = {"trial", "recipe", "values", "measurement", "is_baseline", "bundle", "ties", "accuracy_ties"}
    assert set(document["points"][0]) == fields | {"final", "shrinkage"}
    assert document["points"][0]["measurement"]["accuracy"]["metric"] == {"value": 0.97, "low": 0.95, "high": 0.98}
    assert document["baseline"]["trial"] == 0


def test_front_csv_has_one_row_a_point(searches, capsys):
    """--all adds what is beaten."""
    assert cli.main(["front", "studies/digits", "--csv"]) == 0
    assert capsys.readouterr().out == "trial,accuracy\n7,0.975\n9,0.9\n"
    assert cli.main(["front", "studies/digits", "--csv", "--all"]) == 0
    assert capsys.readouterr().out.splitlines()[1] == "0,0.98"


def test_empty_front_is_no_result(searches, room, capsys):
    """The exit code is 1: the command ran, but there is no result yet."""
    room("autocut.study", open_study=lambda folder: FakeStudy([]))
    assert cli.main(["front", "studies/digits"]) == 1
    assert "no trial has completed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "trial"),
    [("--max-accuracy-drop 1%", 7), ("--max-accuracy-drop 10%", 9), ("--max-latency-ms 0.2", 9), ("--max-accuracy-drop 0%", 0)],
)
def test_select_takes_the_cheapest_that_keeps_the_limits(searches, capsys, words, trial):
    """The untouched model is a candidate too."""
    assert cli.main(["select", "studies/digits", *words.split(), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["point"]["trial"] == trial
    assert document["reason"]


def test_select_says_why_and_how_to_take_it(searches, capsys):
    """Reason on stdout, the next command on stderr."""
    assert cli.main(["select", "studies/digits", "--max-accuracy-drop", "1%"]) == 0
    shown = capsys.readouterr()
    assert "cheapest" in shown.out
    assert "trial 7 turns int8_static + onnxruntime: " in shown.out
    assert "autocut export studies/digits --trial 7 --to out/" in shown.err


def test_select_tells_the_bill_and_that_dollars_may_not_hold(searches, capsys):
    """As text and as JSON: what the search cost, when it has paid for itself, and whose price it is."""
    assert cli.main(["select", "studies/digits", "--max-accuracy-drop", "1%"]) == 0
    shown = capsys.readouterr().out
    assert "$0.250 per million predictions, $1.00 untouched; the search cost $0.0900" in shown
    assert "the search has paid for itself after 120,000 predictions" in shown
    assert "ratios hold, dollars may not" in shown

    assert cli.main(["select", "studies/digits", "--max-accuracy-drop", "1%", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["bill"]["break_even_predictions"] == pytest.approx(120_000)
    assert document["price_note"].startswith("ratios hold")


def test_front_says_that_dollars_may_not_hold(searches, capsys):
    """Beside the table, and in its document."""
    assert cli.main(["front", "studies/digits"]) == 0
    assert "ratios hold, dollars may not" in capsys.readouterr().err
    assert cli.main(["front", "studies/digits", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["price_note"].startswith("ratios hold")


def test_front_says_what_trained_its_models(searches, monkeypatch, capsys):
    """A study of an earlier autocut had no choice."""
    assert cli.main(["front", "studies/digits", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["trained_on"] == "cpu"
    monkeypatch.setattr(FakeStudy, "facts", {**FakeStudy.facts, "train_on": "cuda"})
    assert cli.main(["front", "studies/digits"]) == 0
    assert "models were trained on cuda; the CPU scored and timed them" in capsys.readouterr().err


def test_select_with_limits_that_nothing_meets_exits_with_one(searches, capsys):
    """The error names the closest point."""
    assert cli.main(["select", "studies/digits", "--max-size", "10B"]) == 1
    assert "error:" in capsys.readouterr().err


def test_export_prints_where_the_bundle_is(room, capsys):
    """A script can use the path."""
    room("autocut.deploy.export", export_trial=lambda folder, trial, to, **more: to / "bundle")
    assert cli.main(["export", "studies/digits", "--trial", "7", "--to", "out"]) == 0
    assert capsys.readouterr().out == "out/bundle\n"


@pytest.mark.parametrize("ok", [True, False])
def test_verify_shows_each_check_and_fails_with_one(room, capsys, ok):
    """If a claim does not hold, the exit code is 1, for the table and for the document."""
    check = types.SimpleNamespace(name="size", claim="1000", found="1001", ok=ok, message="1001 bytes, claimed 1000")
    room("autocut.deploy.verify", verify_bundle=lambda folder, **holds: types.SimpleNamespace(checks=(check,), ok=ok))

    assert cli.main(["verify", "out"]) == (0 if ok else 1)
    assert ("FAILED" in capsys.readouterr().out) is not ok
    assert cli.main(["verify", "out", "--json"]) == (0 if ok else 1)
    assert json.loads(capsys.readouterr().out)["ok"] is ok


def test_check_reports_every_fault_or_none(room, capsys):
    """Exit code 2 with a numbered list, or 0."""
    room(
        "autocut.task.check",
        check_task=lambda path, **more: [Fault("a is wrong", "write b"), Fault("c is wrong")],
        notes_of=lambda path: [],
    )
    assert cli.main(["check", "task.py"]) == 2
    assert "2. c is wrong" in capsys.readouterr().err
    room("autocut.task.check", check_task=lambda path, **more: [], notes_of=lambda path: ["weights are folded"])
    assert cli.main(["check", "task.py"]) == 0
    assert capsys.readouterr().out == "task.py: no faults\n"


def test_methods_shows_pairs_as_a_matrix_with_reasons(monkeypatch, capsys):
    """A dtype works only together with a mode."""
    from autocut.stages.methods import MethodRow, PairRow

    rows = [
        MethodRow("quantize.dtype", "bf16", "Store weights as bfloat16.", ("torchao",), ()),
        MethodRow("compile.mode", "x", "X.", ("x",), ("x",)),
    ]
    pairs = [
        PairRow("bf16", "eager", None),
        PairRow("bf16", "onnxruntime", "no kernel"),
        PairRow("fp32", "eager", None),
        PairRow("fp32", "onnxruntime", None),
    ]
    monkeypatch.setattr("autocut.stages.methods.method_rows", lambda: rows)
    monkeypatch.setattr("autocut.stages.methods.pair_rows", lambda: pairs)

    assert cli.main(["methods"]) == 0
    shown = capsys.readouterr().out
    assert "pip install x" in shown
    assert "no (1)" in shown
    assert "no kernel" in shown
    assert cli.main(["methods", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["pairs"][1] == {"dtype": "bf16", "mode": "onnxruntime", "reason": "no kernel", "feasible": False}
    assert document["methods"][1]["available"] is False


def test_ledger_shows_where_the_time_went(searches, capsys):
    """The largest share comes first; categories without time are left out."""
    assert cli.main(["ledger", "studies/digits"]) == 0
    shown = capsys.readouterr().out
    assert shown.index("train") < shown.index("compile")
    assert "67%" in shown
    assert "idle" not in shown
    assert "1m40s in 1 run" in shown
    assert "cores busy: 90%" in shown
    assert cli.main(["ledger", "studies/digits", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["spent_s"] == 100.0
    assert (document["schema_version"], document["cores_busy"]) == (1, 0.9)


def test_dashboard_prints_its_address(room, capsys):
    """The address is data, so a script can open it."""
    room("autocut.report.dashboard", serve=lambda folder, port, on_ready: on_ready(f"http://127.0.0.1:{port}"))
    assert cli.main(["dashboard", "studies/digits", "--port", "9000"]) == 0
    assert capsys.readouterr().out == "http://127.0.0.1:9000\n"


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self):
        """Yes."""
        return True


@pytest.mark.parametrize(
    ("words", "on_terminal", "is_drawn"),
    [("", True, True), ("", False, False), ("--no-plot", True, False), ("--plot", False, True)],
)
def test_front_is_drawn_on_a_terminal_or_where_it_is_asked_for(searches, monkeypatch, words, on_terminal, is_drawn):
    """A program that reads the table gets the table alone."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stdout", shown := Terminal() if on_terminal else io.StringIO())

    assert cli.main(["front", "studies/digits", *words.split()]) == 0
    assert ("u untouched model" in shown.getvalue()) == is_drawn


def test_front_names_three_picks_and_select_takes_one(searches, capsys):
    """The same trials in words, in the document, and as a choice."""
    assert cli.main(["front", "studies/digits"]) == 0
    shown = capsys.readouterr().err
    assert "balanced  trial 7: the knee of the front" in shown
    assert "test split" not in shown  # nothing here was tested
    assert cli.main(["front", "studies/digits", "--json"]) == 0
    picks = {pick["name"]: pick["trial"] for pick in json.loads(capsys.readouterr().out)["picks"]}

    assert list(picks) == ["quality", "balanced", "compact"]
    for name, trial in picks.items():
        assert cli.main(["select", "studies/digits", "--pick", name, "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert (document["point"]["trial"], document["reason"].split()[0]) == (trial, name)


def test_front_says_once_where_ties_go_by_intervals(searches, room, capsys):
    """Then fewer points are told apart than could be."""
    study = FakeStudy()
    study.untested = lambda: (7, 9)
    room("autocut.study", open_study=lambda folder: study)

    assert cli.main(["front", "studies/digits"]) == 0
    assert capsys.readouterr().err.count("ties in accuracy with trials 7, 9 go by intervals") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--pick balanced --knee", "--pick must stand without --knee and --minimize, got --pick balanced --knee"),
        ("--pick balanced --minimize size", "got --pick balanced --minimize size"),
        ("--pick balance", "pick must be one of balanced, compact, quality, got 'balance'"),
    ],
)
def test_a_pick_that_contradicts_another_flag_is_refused(searches, capsys, words, message):
    """One answer a question."""
    assert cli.main(["select", "studies/digits", *words.split()]) == 2
    assert message in capsys.readouterr().err
