"""`autocut remeasure` and `autocut compare`: measure bundles once more, and set two bundles or two studies side by side."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from autocut.commands.verb import JSON, FiniteNumber, verb
from autocut.console import Console
from autocut.counting import format_count
from autocut.errors import ExitCode, InputError, quoted

if TYPE_CHECKING:
    from autocut.deploy.remeasure import Conditions, Remeasured

_THREADS = click.option("--threads", type=click.IntRange(1), help="Threads of a call.  [default: as each bundle was measured]")
_MANIFEST = "manifest.json"


@verb(
    "remeasure",
    "Measure bundles again: another machine, other threads.",
    "autocut remeasure out/",
    "autocut remeasure studies/digits --threads 2",
    "autocut remeasure out/ --price-per-hour 0.04 --json",
)
@click.argument("target", metavar="STUDY|BUNDLE", type=click.Path(path_type=Path))
@_THREADS
@click.option("--instance", help="Instance of the price sheet whose price this machine has.")
@click.option("--price-per-hour", type=FiniteNumber(0, min_open=True), help="US dollars per hour of this machine.")
@JSON
@click.pass_obj
def remeasure(
    console: Console, target: Path, threads: int | None, instance: str | None, price_per_hour: float | None, as_json: bool
) -> int:
    """Measure a BUNDLE, or every verified bundle of a STUDY, on this machine, each in a fresh process.

    Both are shown: what the bundle claims, and what it gives here. Nothing is searched, and no claim is overwritten; a study keeps
    what was found in a table of its own. Dollars beside a claim have the price of the claim. Where this machine has another price,
    it also tells dollars at that price: of --instance or --price-per-hour, else of the cheapest instance that fits this machine.

    The exit code is 1 if a bundle does not run here, or answers otherwise than where it was made.
    """
    from autocut.deploy.remeasure import Conditions
    from autocut.measure.quiet import QuietLock

    _check_threads(threads)
    lock = QuietLock()  # a search on this machine measures times too: one waits for the other
    conditions = Conditions(threads, instance, price_per_hour, lock.exclusive, lock.shared)
    found = list(_remeasured(target, conditions, console))
    if as_json:
        from autocut.commands.again_documents import remeasure_document

        console.document(remeasure_document(str(target), found).plain())
    else:
        from autocut.commands.again_tables import print_remeasured

        print_remeasured(found, console)
    return ExitCode.NO_RESULT if any(one.failure for one in found) else ExitCode.DONE


@verb(
    "compare",
    "Set two bundles or two studies side by side.",
    "autocut compare out/ studies/digits/bundles/trial-0007",
    "autocut compare studies/digits studies/digits-again --json",
)
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@_THREADS
@JSON
@click.pass_obj
def compare(console: Console, a: Path, b: Path, threads: int | None, as_json: bool) -> int:
    """Compare A with B: two bundles or two studies.

    Two bundles are measured now, head to head: their calls take turns in one fresh process, and accuracies are compared in pairs on
    the examples that both carry. Two studies are compared by what they have measured: the hypervolumes of their fronts from a
    common reference on, and the points that most people should take. A tie is called a tie, and what does not compare is named.
    """
    kinds = [_kind("A", a), _kind("B", b)]
    if kinds[0] != kinds[1]:
        raise InputError(
            f"A and B must be two bundles or two studies, got a {kinds[0]} and a {kinds[1]}",
            "the bundles of a study lie in its folder bundles/",
        )
    if kinds[0] == "bundle":
        _check_threads(threads)
        return _compare_bundles(console, a, b, threads, as_json)
    if threads is not None:
        raise InputError(f"--threads must be left out for two studies, got {threads}", "a study has the threads of its search")
    return _compare_studies(console, a, b, as_json)


def _compare_bundles(console: Console, a: Path, b: Path, threads: int | None, as_json: bool) -> int:
    from autocut.deploy.compare import compare_bundles
    from autocut.measure.quiet import QuietLock

    lock = QuietLock()
    with console.busy(f"comparing {a} with {b}"):
        compared = compare_bundles(a, b, threads, alone=lock.exclusive, working=lock.shared)
    if as_json:
        from autocut.commands.again_documents import bundles_document

        console.document(bundles_document((str(a), str(b)), compared).plain())
    else:
        from autocut.commands.again_tables import print_bundles

        print_bundles((str(a), str(b)), compared, console)
    return ExitCode.DONE


def _compare_studies(console: Console, a: Path, b: Path, as_json: bool) -> int:
    from autocut.deploy.compare_studies import compare_studies
    from autocut.deploy.select import select_from_study
    from autocut.study import open_study

    with contextlib.closing(open_study(a)) as first, contextlib.closing(open_study(b)) as second:
        picks = [select_from_study(study).point if study.front() else None for study in (first, second)]
        compared = compare_studies(first, second, (picks[0], picks[1]))
    if as_json:
        from autocut.commands.again_documents import studies_document

        console.document(studies_document((str(a), str(b)), compared).plain())
    else:
        from autocut.commands.again_tables import print_studies

        print_studies((str(a), str(b)), compared, console)
    return ExitCode.DONE


def _remeasured(target: Path, conditions: Conditions, console: Console) -> Iterator[Remeasured]:
    from autocut.deploy.remeasure import remeasure_bundle, untouched_artifact
    from autocut.study import open_study

    if _kind("target", target) == "study":
        yield from _remeasured_study(target, conditions, console)
        return
    with contextlib.ExitStack() as stack, console.busy(f"measuring {target}"):
        around = _study_around(target)
        study = None if around is None else stack.enter_context(contextlib.closing(open_study(around)))
        found = remeasure_bundle(target, conditions, None if study is None else untouched_artifact(study))
    yield found


def _remeasured_study(target: Path, conditions: Conditions, console: Console) -> Iterator[Remeasured]:
    from autocut.commands.again_documents import remeasured_part
    from autocut.deploy.remeasure import remeasure_study
    from autocut.study import open_study, remeasurements

    with contextlib.closing(open_study(target)) as study, console.busy(f"measuring the bundles of {target}") as now_doing:
        remeasurements.prepare(study)
        for found in remeasure_study(study, conditions):
            part = remeasured_part(found).model_dump(mode="json")
            remeasurements.record(study, found.manifest.digest, found.found.machine, found.threads, part)
            now_doing(f"measuring the bundles of {target}: {found.folder.name} is done")
            yield found


def _check_threads(threads: int | None) -> None:
    """Refuse more threads than processors, as a search does."""
    from autocut.measure.audit import audit_machine

    processors = audit_machine().processors
    if threads is not None and threads > processors:
        raise InputError(
            f"--threads must be at most the {format_count(processors, 'processor')} here, got {threads}", f"--threads {processors}"
        )


def _study_around(bundle: Path) -> Path | None:
    """Return the study in whose folder a bundle lies: its stages have the untouched model."""
    folder = bundle.resolve().parent.parent
    return folder if bundle.resolve().parent.name == "bundles" and (folder / "stages").is_dir() else None


def _kind(subject: str, path: Path) -> str:
    """Return "bundle" or "study".

    Raises:
        InputError: `path` is neither.
    """
    if (path / _MANIFEST).is_file():
        return "bundle"
    from autocut.study import is_study, where_studies_are

    if is_study(path):
        return "study"
    found = (
        f"the {'folder' if path.is_dir() else 'file'} {quoted(str(path))}" if path.exists() else f"no folder {quoted(str(path))}"
    )
    raise InputError(f"{subject} must be a bundle or a study, got {found}", where_studies_are(path))
