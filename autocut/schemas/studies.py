"""Documents about studies: fronts, choices, ledgers, and the address of a dashboard."""

from __future__ import annotations

from typing import Literal

from autocut.measurement import Layout, Measurement
from autocut.recipe import Value
from autocut.schemas.document import Document, Part


class FinalPart(Part):
    """What finalization found of a trial.

    `values` and `measurement` are those of the locked test split if `is_tested`. `refusal` says why a bundle is not `verified`.
    The whole machine serves most in the layout `served`, and the untouched model in `served_untouched`; dollars of `values` are
    charged by the first of them. Both are null where that was not measured: then one process is charged with the whole machine.
    `charged_as` says which of the two it is. Dollars of two points compare only where it is the same.
    """

    values: dict[str, float]
    measurement: Measurement
    is_tested: bool
    verified: bool
    refusal: str | None
    served: Layout | None = None
    served_untouched: Layout | None = None
    charged_as: Literal["on the whole machine", "as one process"] = "as one process"


class PointPart(Part):
    """One completed trial.

    `values` and `measurement` are what the search chose by: the validation split, timed during the search as one process. `final`
    has the numbers of the locked test split; null until the trial is finalized. `shrinkage` is the test accuracy minus the
    validation accuracy. `ties` are trials that cannot be told apart from this one, `accuracy_ties` those whose accuracy cannot,
    whatever they cost. `bundle` is the folder of the verified bundle inside the study.
    """

    trial: int
    recipe: dict[str, Value]
    values: dict[str, float]
    measurement: Measurement
    is_baseline: bool
    bundle: str | None
    ties: tuple[int, ...]
    shrinkage: float | None
    final: FinalPart | None
    accuracy_ties: tuple[int, ...] = ()


class NamedPickPart(Part):
    """A choice with a name (quality, balanced or compact): the number of its trial, and the reason in one sentence."""

    name: str
    trial: int
    reason: str


class FrontDocument(Document):
    """`autocut front --json`.

    `objectives` gives the direction of each objective. `baseline` is the untouched model, even if it is beaten; null before it is
    measured. `price_note` says why the prices may not be those of this machine; null where they are. `picks` are three choices with
    names. `untested` are trials whose ties go by intervals, because their scores are not stored any more.
    `looks` counts how often a model was scored on the locked test split. `trained_on` is the kind of device that trains the models,
    cpu or cuda; `served_on` is the one that scores and times them.
    """

    study: str
    objectives: dict[str, Literal["maximize", "minimize"]]
    points: tuple[PointPart, ...]
    baseline: PointPart | None
    price_note: str | None = None
    picks: tuple[NamedPickPart, ...] = ()
    untested: tuple[int, ...] = ()
    looks: int = 0
    trained_on: str = "cpu"
    served_on: str = "cpu"


class SearchDocument(FrontDocument):
    """`autocut search --json`: the front, and the folder of the study. The exit code is 1 if no bundle was verified."""

    folder: str


class SelectDocument(Document):
    """`autocut select --json`: the chosen point, why, and what its knobs bought, each in one sentence.

    `doubt` says where the locked test split or the final timing contradicts the choice; null where neither does.
    `bill` has dollars, by month where the study knows the requests of a month, and the predictions and days to break-even.
    """

    study: str
    reason: str
    knobs: str
    point: PointPart
    bill: dict[str, float | str | None] | None = None
    price_note: str | None = None
    doubt: str | None = None
    looks: int = 0


class SessionPart(Part):
    """One run of `autocut search`. Times are ISO 8601 in UTC; `by_category` has seconds."""

    command: str
    versions: dict[str, str]
    host: str
    pid: int
    started: str
    last_beat: str
    worked_s: float
    by_category: dict[str, float]
    is_estimated: bool


class LedgerDocument(Document):
    """`autocut ledger --json`: seconds of the budget by category, which add up to `spent_s`, over all runs."""

    study: str
    spent_s: float
    by_category: dict[str, float]
    borrowed_s: float
    cores_busy: float | None
    sessions: tuple[SessionPart, ...]


class DashboardDocument(Document):
    """`autocut dashboard --json`, printed as soon as the page answers. The program then serves until it is interrupted."""

    study: str
    address: str
