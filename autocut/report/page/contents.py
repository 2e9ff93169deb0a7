"""The records that the page shows. The command fills what other rooms know: the recommendation, and further sections."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from autocut.front import FrontPoint
from autocut.measurement import Interval
from autocut.picks import NamedPick


@dataclass(frozen=True)
class Recommendation:
    """The model that most people should take, why, and all choices with a name; `doubt` is what the test split contradicts."""

    point: FrontPoint
    reason: str
    picks: tuple[NamedPick, ...] = ()
    doubt: str | None = None


@dataclass(frozen=True)
class Section:
    """One part of the page: a heading, paragraphs, and a table of words.

    `shares` draws a bar from 0 to 1 in front of each row. `plot` is the name of a plot that the page's script draws there. A
    section without anything is left out.
    """

    title: str
    text: tuple[str, ...] = ()
    header: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    shares: tuple[float, ...] = ()
    plot: str | None = None

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to show."""
        return not (self.text or self.rows or self.plot)


@dataclass(frozen=True)
class Tile:
    """One value of the recommended model beside the untouched model's: ``$0.0012 -> $0.0001``, and the change in words."""

    label: str
    before: str
    after: str
    change: str
    spread: str


@dataclass(frozen=True)
class Answer:
    """The first thing on the page: what to take, what it saves, how to take it away.

    `notes` say why it is the one to take, `money` what it costs, and `remarks` what a reader must know of its numbers. `picks` are
    the choices with a name, each with its trial and reason in words.
    """

    headline: str
    lead: str
    notes: tuple[str, ...]
    money: tuple[str, ...]
    remarks: tuple[str, ...]
    tiles: tuple[Tile, ...]
    picks: tuple[tuple[str, str], ...]
    commands: str
    code: str


@dataclass(frozen=True)
class TrialLine:
    """One trial in the table and in the plot.

    `validation` has the numbers that the search chose by, `test` those of the locked test split and the final timing. Both are
    empty for a trial that was not measured. `usd_per_million` of both is of one process; `test` has that of the whole machine
    beside it, where it was measured. `notes` say what the trial is or why it ended, `remarks` what disturbed its numbers and how
    the whole machine served it.
    """

    trial: int
    recipe: str
    group: str
    validation: Mapping[str, Interval]
    test: Mapping[str, Interval]
    notes: tuple[str, ...]
    remarks: tuple[str, ...] = ()
