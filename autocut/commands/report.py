"""`autocut report`: a study as one HTML file, the answer first."""

from __future__ import annotations

import contextlib
import shlex
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING

import click

from autocut import __version__
from autocut.commands.front import STUDY
from autocut.commands.verb import JSON, verb
from autocut.console import Console
from autocut.errors import InputError, NoResultError, quoted, shortened
from autocut.recipe import UNTOUCHED

if TYPE_CHECKING:
    from autocut.report.page import Recommendation, Section
    from autocut.study import Study

FILE_NAME = "report.html"
_ENDINGS = (".html", ".htm")
_NO_VALUE = "–"


@verb(
    "report",
    "Write a study as one HTML file.",
    "autocut report studies/digits",
    "autocut report studies/digits --to digits.html --open",
)
@STUDY
@click.option("--to", type=click.Path(path_type=Path), help=f"HTML file to write.  [default: {FILE_NAME} in the study's folder]")
@click.option("--open", "is_opened", is_flag=True, help="Show the file in the web browser.")
@JSON
@click.pass_obj
def report(console: Console, study: Path, to: Path | None, is_opened: bool, as_json: bool) -> int:
    """Write STUDY as one HTML file that needs no network, and print the file's path.

    It begins with the model that most people should take: the pick `balanced`. The front, every trial, where the time went and what
    failed follow.
    """
    target = _target(study / FILE_NAME if to is None else to)
    from autocut.report.page import render
    from autocut.study import open_study

    opened = open_study(study)
    try:
        recommended, missing = recommend(opened)
        html = render(opened, recommended, [_knobs(opened, recommended)], version=__version__, no_answer=missing)
    finally:
        opened.close()
    _write(target, html)
    if as_json:
        trial = recommended.point.trial if recommended else None
        console.document(
            {"schema_version": 1, "study": opened.name, "report": str(target), "bytes": target.stat().st_size, "recommended": trial}
        )
    else:
        console.data(str(target))
    if is_opened and not webbrowser.open(target.resolve().as_uri()):
        console.warning("no web browser was found", f"open it yourself: {target}")
    return 0


def recommend(study: Study) -> tuple[Recommendation | None, str]:
    """Return the model that most people should take, or None and the reason why there is none."""
    from autocut.deploy.select import picks_of_study, select_from_study
    from autocut.report.page import Recommendation

    try:
        selection = select_from_study(study)
    except NoResultError as error:
        return None, f"{error.message[:1].upper()}{error.message[1:]}. {error.hint or ''}".strip()
    return Recommendation(selection.point, selection.reason, picks_of_study(study), selection.doubt), ""


def _knobs(study: Study, recommended: Recommendation | None) -> Section:
    """Say which knob of the recommended model bought what, from what is measured already."""
    from autocut.attribution.evidence import read_evidence
    from autocut.attribution.explanation import explain_recipe
    from autocut.attribution.table import LADDER_COLUMNS, ladder_rows
    from autocut.attribution.weak_axes import weak_axes_sentence
    from autocut.report.page import Section

    title, evidence = "Which knob bought what", read_evidence(study)
    if recommended is None or UNTOUCHED not in evidence.known:
        return Section(title)
    trial, recipe = recommended.point.trial, recommended.point.recipe
    explanation = explain_recipe(study.name, trial, recipe, evidence)
    weak = weak_axes_sentence(evidence)
    sentences = (*explanation.sentences, *([f"{weak[:1].upper()}{weak[1:]}."] if weak else []))
    if not explanation.ladder.steps:
        return Section(title, sentences)
    more = f"Not every step was measured. This measures what is missing: autocut explain {shlex.quote(str(study.folder))} {trial}"
    rows = [tuple(cell or _NO_VALUE for cell in row) for row in ladder_rows(explanation)]
    return Section(title, (*sentences, *([more] if explanation.missing else [])), LADDER_COLUMNS, tuple(rows))


def _target(file: Path) -> Path:
    if file.suffix.lower() not in _ENDINGS:
        raise InputError(
            f"--to must name an HTML file, got {quoted(str(file))}", f"--to {shortened(str(file.with_suffix('.html')))}"
        )
    if file.is_dir():
        raise InputError(f"--to must be a file, got the folder {quoted(str(file))}", f"--to {shortened(str(file / FILE_NAME))}")
    return file


def _write(target: Path, html: str) -> None:
    """Write the file in one step, so that a browser never reads half of it."""
    draft = target.with_name(f".{target.name}.draft")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(html, encoding="utf-8")
        draft.replace(target)
    except OSError as error:
        raise InputError(
            f"report {quoted(str(target))} could not be written: {error.strerror}", "choose another file with --to"
        ) from None
    finally:
        with contextlib.suppress(OSError):  # its folder may be no folder
            draft.unlink()
