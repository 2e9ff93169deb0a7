"""A study as a Python program sees it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autocut.api.command import Amount, duration, flags, run
from autocut.budget import parse_percent
from autocut.errors import InputError, quoted

if TYPE_CHECKING:
    import pandas as pd

    from autocut.deploy.select import Selection
    from autocut.front import FrontPoint
    from autocut.schemas.attribution import ExplainDocument
    from autocut.study import Study


@dataclass(frozen=True)
class OpenedStudy:
    """A study on disk. Every call reads it anew, so a search of it may run at the same time.

    `objectives` gives "maximize" or "minimize" for each objective.
    """

    folder: Path
    name: str
    objectives: Mapping[str, str]

    def front(self) -> list[FrontPoint]:
        """Return the points that none other beats on the validation split. `point.final` has the numbers of the locked test split.

        Raises:
            StudyError: The study cannot be read any more.
        """
        with self._read() as study:
            return study.front()

    def points(self) -> list[FrontPoint]:
        """Return every completed trial, the untouched model among them."""
        with self._read() as study:
            return study.points()

    def baseline(self) -> FrontPoint | None:
        """Return the untouched model; None before it is measured."""
        from autocut.deploy.select import untouched

        return untouched(self.points())

    def select(
        self,
        *,
        max_accuracy_drop: Amount | None = None,
        max_latency_ms: float | None = None,
        max_size_bytes: int | None = None,
        limits: Sequence[str] = (),
        minimize: str | None = None,
        knee: bool = False,
        pick: str | None = None,
        confident: bool = False,
    ) -> Selection:
        """Choose one point of the front, and say why: `Selection.point`, `Selection.reason` and `Selection.doubt`.

        `doubt` says where the locked test split or the final timing contradicts the choice; else None. Without an argument, the
        choice is the model that most people should take: the pick "balanced".

        Args:
            max_accuracy_drop: Points of the metric that may be lost against the untouched model: 0.01 lets 0.978 become 0.968. Of a
                metric that is not between 0 and 1 it is a share: 0.01 lets an error of 20 become 20.2. It may also be text: "1%".
            max_latency_ms: Bound on the median call at the first serving batch size, in milliseconds.
            max_size_bytes: Bound on the exported files, in bytes.
            limits: Other bounds, such as "usd_per_million<=0.1".
            minimize: "cost", "latency", "size", "training", or the name of a value. None: what the study minimizes first.
            knee: Choose the point beyond which savings cost much more accuracy.
            pick: "quality", "balanced" or "compact": one of the three picks that `autocut front` names.
            confident: Whether the worse end of the interval of the accuracy difference must keep `max_accuracy_drop`.

        Raises:
            NoResultError: No point meets the limits; the message names the closest.
            InputError: A limit or a name cannot be used.
        """
        from autocut.deploy.select import select_from_study

        bounds = [*limits]
        bounds += [] if max_latency_ms is None else [f"latency_ms<={max_latency_ms}"]
        bounds += [] if max_size_bytes is None else [f"size_bytes<={max_size_bytes}"]
        asked: dict[str, Any] = {"minimize": minimize, "knee": knee, "pick": pick, "confident": confident}
        if isinstance(max_accuracy_drop, str):
            max_accuracy_drop = parse_percent(max_accuracy_drop, "max_accuracy_drop")
        with self._read() as study:
            return select_from_study(study, limits=bounds, max_accuracy_drop=max_accuracy_drop, **asked)

    def export(self, trial: int | FrontPoint, to: str | Path, *, examples: bool | None = None, quiet: bool = False) -> Path:
        """Write the model of one trial as a bundle, and return its folder.

        A trial without a bundle is built from the stored stages, which needs the task's file and may take minutes.

        Args:
            trial: Number of a trial, or a point of the front.
            to: Folder that becomes the bundle; missing or empty.
            examples: Real test inputs with their targets in the bundle, or synthetic ones; None: as the search was told.
            quiet: Whether to keep what is being done off stderr.

        Raises:
            InputError: There is no such trial, or `to` holds something else.
            NoResultError: The bundle does not give what the search measured.
        """
        number = _number(trial)
        words = ["export", str(self.folder), *flags({"trial": number, "to": to, "examples": examples})]
        return Path(run(words, quiet=quiet)["bundle"])

    def explain(
        self, trial: int | FrontPoint, *, measure: bool = True, budget: Amount = "5m", quiet: bool = False
    ) -> ExplainDocument:
        """Say which knob of a trial bought what: the ladder from the untouched model to its recipe, one knob a step.

        Args:
            trial: Number of a measured trial, or a point.
            measure: Whether steps that the search did not measure are measured now, which needs the task's file. The study keeps
                what was found.
            budget: Time for measuring: "10m", or seconds. A training is begun only if it fits.
            quiet: Whether to keep what is being done off stderr.

        Raises:
            StudyError: There is no such trial, it was not measured, or the stages of the study cannot be used.
        """
        from autocut.schemas.attribution import ExplainDocument

        options = flags({"measure": measure, "budget": duration(budget)})
        return ExplainDocument.model_validate(run(["explain", str(self.folder), str(_number(trial)), *options], quiet=quiet))

    def report(self, to: str | Path | None = None) -> Path:
        """Write the study as one HTML file that needs no network, and return its path.

        Args:
            to: File to write; None: report.html in the study's folder.

        Raises:
            InputError: `to` is no HTML file, or cannot be written.
        """
        return Path(run(["report", str(self.folder), *flags({"to": to})], quiet=True)["report"])

    def to_frame(self) -> pd.DataFrame:
        """Return one row for each finished trial: settings, values, and why it failed."""
        with self._read() as study:
            return study.to_frame()

    def ledger(self) -> dict[str, Any]:
        """Return where the time went, as `autocut.schemas.studies.LedgerDocument` describes it."""
        with self._read() as study:
            return study.ledger()

    @contextlib.contextmanager
    def _read(self) -> Iterator[Study]:
        from autocut.study import open_study as open_for_reading

        with contextlib.closing(open_for_reading(self.folder)) as study:
            yield study


def _number(trial: int | FrontPoint) -> int:
    number = getattr(trial, "trial", trial)
    if not isinstance(number, int):
        raise InputError(
            f"trial must be the number of a trial or a point of the front, got {quoted(trial)}", "see: study.to_frame()"
        )
    return number


def open_study(folder: str | Path) -> OpenedStudy:
    """Open the study that a search wrote, to read it. The search may still run.

    Raises:
        StudyError: The folder has no study, or one that this version cannot read.
    """
    from autocut.study import open_study as open_for_reading

    with contextlib.closing(open_for_reading(Path(folder))) as study:
        return OpenedStudy(study.folder, study.name, dict(study.objectives))
