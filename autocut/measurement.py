"""Records of what a model gave and cost. They need no torch, so that arithmetic and storage can share them.

Units stand in the names. Intervals are 95% intervals unless a field says otherwise.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pydantic import TypeAdapter

from autocut.counting import format_count

UNDISTURBED = 1.2
"""Differences up to this factor are usual on a shared machine. A busy neighbour causes larger ones."""

COUNTED_CALL, EARLIER_COUNTED_CALL = "after a millisecond", "the second"
"""Which call of a fast model's turn counts (`measure.latency`), a condition of a study. Before December 2026 it was the second."""

UNTOUCHED_TEST = "untouched/test"
"""Method of the stage that scores the untouched model on the test split: once a study, within the first finalization."""
SIGNIFICANT = 0.05
"""Two accuracies differ where the p-value of "no difference" is at most this."""

LOADED = 0.5
"""Processors that other programs use beside a busy neighbour. The search itself needs a part of one."""


@dataclass(frozen=True)
class Interval:
    """A value with its 95% interval, ``low <= value <= high``."""

    value: float
    low: float
    high: float

    @property
    def standard_error(self) -> float:
        """Of the value, if its error is normal."""
        return (self.high - self.low) / (2 * 1.96)


@dataclass(frozen=True)
class Latency:
    """Latency at one batch size. Calls of the candidate and of the untouched baseline alternate in one process.

    The untouched model itself is timed without a second copy of it: its speed-up is 1 by definition, without spread.
    `speedup` is the ratio of the medians, baseline / candidate: above 1 is faster. `yardstick_ms` is the median of the reference
    workload, a fixed computation that is timed in the same loop. Divided by it, numbers of one machine from different hours can be
    compared. A percentile is None where it has too few samples: p90 needs 64 calls, p99 needs 662 (MLPerf early-stopping rule at
    99% confidence).

    `disturbance` is a factor, 1 or more. It says by how much the untouched model was slower here than in the study's reference; for
    the reference itself, how far apart the ends of its interval are. The speed-up of a disturbed timing is the smallest that the
    disturbance allows, so it never looks better than it is; its interval reaches up to what was measured. `load` is the work of
    other programs meanwhile, in processors; None where it is not known.
    """

    batch_size: int
    samples: int
    p50_ms: Interval
    p90_ms: float | None
    p99_ms: float | None
    baseline_p50_ms: float
    speedup: Interval
    yardstick_ms: float
    disturbance: float = 1.0
    load: float | None = None

    @property
    def is_disturbed(self) -> bool:
        """Whether other work on the machine has changed these numbers by more than is usual."""
        return self.disturbance > UNDISTURBED


@dataclass(frozen=True)
class Cost:
    """What a runnable model costs on this machine. Its weights do not matter."""

    latencies: tuple[Latency, ...]
    size_bytes: int
    compressed_size_bytes: int
    threads: int
    cold_start_ms: float
    machine: str

    @property
    def disturbance(self) -> float:
        """The largest disturbance at a batch size."""
        return max((latency.disturbance for latency in self.latencies), default=1.0)

    @property
    def is_disturbed(self) -> bool:
        """Whether other work on the machine has disturbed the timing at some batch size."""
        return self.disturbance > UNDISTURBED

    @property
    def load(self) -> float | None:
        """The most work of other programs during a timing, in processors; None where it is not known."""
        return max((latency.load for latency in self.latencies if latency.load is not None), default=None)

    @property
    def busiest(self) -> Latency:
        """The latency at the largest batch size; throughput and price come from it."""
        return max(self.latencies, key=lambda latency: latency.batch_size)

    def latency(self, batch_size: int) -> Latency:
        """Return the latency at `batch_size`.

        Raises:
            KeyError: This batch size was not measured.
        """
        for latency in self.latencies:
            if latency.batch_size == batch_size:
                return latency
        raise KeyError(batch_size)


@dataclass(frozen=True)
class Accuracy:
    """The task's metric on one split (higher is better), and the paired difference to the untouched baseline on the same examples.

    `difference` is candidate minus baseline. `p_value` tests the hypothesis "no difference": by McNemar's exact test for 0/1
    scores, otherwise by a paired bootstrap. `batch_size` is set where the model's answers depend on the batch: it is the serving
    batch size with the lowest metric, at which this one was taken.
    """

    split: str
    examples: int
    metric: Interval
    difference: Interval | None = None
    p_value: float | None = None
    batch_size: int | None = None


@dataclass(frozen=True)
class Layout:
    """What a machine serves while `copies` processes with `threads` threads each answer at once.

    `per_s` are predictions a second of all copies together, as measured. `yardstick_per_s` are the runs a second of the reference
    workload just before and after: in one process a processor where the layout fills the machine (`fills`), else in one process.
    Divided by it, the same layout can be compared with that of another hour. `load` are the processors that other programs took
    from it meanwhile.
    """

    copies: int
    threads: int
    per_s: Interval
    yardstick_per_s: float
    load: float = 0.0

    def __str__(self) -> str:
        """The layout in words, without its numbers."""
        return words_of(self.copies, self.threads)


def per_second(value: float) -> str:
    """Return a throughput for a person."""
    return f"{value:,.0f}/s" if value >= 100 else f"{value:.3g}/s"


def words_of(copies: int, threads: int) -> str:
    """Return a layout in words."""
    return f"{format_count(copies, 'copy', 'copies')} x {format_count(threads, 'thread')}"


def fills(copies: int, threads: int, processors: int) -> bool:
    """Whether a layout needs more than half of the processors."""
    return 2 * copies * threads > processors


@dataclass(frozen=True)
class Capacity:
    """What the whole machine serves at `batch_size`: this model in `layouts`, and the `untouched` model in its own.

    All numbers are as measured, so a bundle can be held to them; `pace` says whether the machine was as fast for both. The
    untouched model's own capacity has the same layouts twice. `left_out` are layouts that were not measured, a reason each.
    """

    batch_size: int
    processors: int
    layouts: tuple[Layout, ...]
    untouched: tuple[Layout, ...]
    left_out: tuple[str, ...] = ()

    def checked(self) -> Capacity:
        """Return this capacity, which may come from outside.

        Raises:
            ValueError: it has no layout, or one that serves nothing.
        """
        if not (self.layouts and self.untouched):
            raise ValueError("a capacity must have layouts of this model and of the untouched one")
        for layout in (*self.layouts, *self.untouched):
            if min(layout.copies, layout.threads) < 1 or min(layout.per_s.low, layout.per_s.value, layout.yardstick_per_s) <= 0:
                raise ValueError(f"every layout must serve something, got {layout}")
        return self

    @property
    def best(self) -> Layout:
        """The layout to serve this model in."""
        return best_of(self.layouts)

    @property
    def best_untouched(self) -> Layout:
        """The layout to serve the untouched model in."""
        return best_of(self.untouched)

    @property
    def sentence(self) -> str:
        """What the whole machine serves, of this model and of the untouched one."""
        own, untouched = (f"{per_second(layout.per_s.value)} as {layout}" for layout in (self.best, self.best_untouched))
        return f"the machine serves {own}, the untouched model {untouched}"

    @property
    def pace(self) -> float:
        """How many times as fast the machine was for this model's best layout as for the untouched model's; 1 where it is unknown.

        The reference workload tells, where it ran in as many processes beside a layout of either.
        """
        own = self.best
        is_full = fills(own.copies, own.threads, self.processors)
        alike = [one.yardstick_per_s for one in self.untouched if fills(one.copies, one.threads, self.processors) == is_full]
        return own.yardstick_per_s * len(alike) / sum(alike) if alike else 1.0

    @property
    def load(self) -> float:
        """The most processors that other programs used beside a layout of this model."""
        return max(layout.load for layout in self.layouts)


def best_of(layouts: tuple[Layout, ...]) -> Layout:
    """Return the layout that surely serves most. One whose throughput lies in its interval ties with it: fewer copies win a tie."""
    most = max(layouts, key=lambda layout: layout.per_s.low)
    return min((layout for layout in layouts if layout.per_s.value >= most.per_s.low), key=lambda layout: layout.copies)


@dataclass(frozen=True)
class Caveat:
    """What a reader must know of a model's numbers, in a sentence. Of one `kind`, the caveat of most `weight` is the worst."""

    kind: str
    weight: float
    sentence: str

    def __str__(self) -> str:
        """The sentence."""
        return self.sentence


def told_together(caveats: Iterable[tuple[int, Caveat]]) -> list[str]:
    """Return a line for each kind of caveat, from pairs of a trial and a caveat: it counts the trials, and quotes the worst."""
    kinds: dict[str, list[tuple[int, Caveat]]] = defaultdict(list)
    for trial, caveat in caveats:
        kinds[caveat.kind].append((trial, caveat))
    lines = []
    for found in kinds.values():
        trial, worst = max(found, key=lambda one: one[1].weight)
        count = len({number for number, _ in found})
        lines.append(
            f"trial {trial}: {worst}" if count == 1 else f"{format_count(count, 'trial')}, the worst is trial {trial}: {worst}"
        )
    return lines


@dataclass(frozen=True)
class Measurement:
    """Accuracy and cost of one trial.

    `capacity` is known of finalized models alone; `capacity_note` says why it is not known of one. Then dollars are those of one
    process (`charged_by`).
    """

    accuracy: Accuracy
    cost: Cost
    peak_memory_bytes: int | None = None
    energy_j_per_prediction: float | None = None
    energy_source: str | None = None
    capacity: Capacity | None = None
    capacity_note: str | None = None

    @property
    def charged_as(self) -> Literal["on the whole machine", "as one process"]:
        """Whose dollars these are: what the whole machine serves pays for it, or one process is charged with all of it."""
        return "as one process" if self.capacity is None else "on the whole machine"

    @property
    def cheaper(self) -> float:
        """How many times as much the untouched model costs, charged alike."""
        if self.capacity is None:
            return self.cost.busiest.speedup.value
        return self.capacity.best.per_s.value / self.capacity.best_untouched.per_s.value

    @property
    def charged_by(self) -> str:
        """What dollars are charged by, in words."""
        if self.capacity is not None:
            return self.capacity.sentence
        note = f": {self.capacity_note}" if self.capacity_note else ""
        return f"one process is charged with the whole machine{note}"

    @property
    def caveats(self) -> tuple[Caveat, ...]:
        """What a reader must know of these numbers; nothing as a rule."""
        told = [
            Caveat(
                f"disturbed at batch size {latency.batch_size}",
                latency.disturbance,
                f"Other work disturbed the timing at batch size {latency.batch_size}, by a factor of {latency.disturbance:.1f}. "
                "The speed-up is the smallest that this allows.",
            )
            for latency in self.cost.latencies
            if latency.is_disturbed
        ]
        if (load := self.cost.load) is not None and load > LOADED:
            told.append(Caveat("loaded", load, f"Other programs used {load:.1f} processors during the timing."))
        if (capacity := self.capacity) is not None and capacity.load > LOADED:
            used = f"Other programs used {capacity.load:.1f} processors while the whole machine was measured."
            told.append(Caveat("loaded as a whole", capacity.load, used))
        if capacity is not None and not 1 / UNDISTURBED <= (pace := capacity.pace) <= UNDISTURBED:
            faster = f"The whole machine was {pace:.1f} times as fast for this model as for the untouched one: "
            told.append(
                Caveat("pace", max(pace, 1 / pace), f"{faster}dollars of the whole machine compare the two no better than that.")
            )
        if (size := self.accuracy.batch_size) is not None:
            depends = f"The answers depend on the batch: this is the accuracy at batch size {size}, the worst that is served."
            told.append(Caveat("depends on the batch", 0.0, depends))
        return tuple(told)


@dataclass(frozen=True)
class Measured:
    """What a recipe gave and cost on the validation split. `lineage` has the keys of the stages that made the model.

    `train_seconds` is what training this recipe with an empty cache takes one process alone: CPU seconds, divided by its threads.
    `structure` identifies what the latency depends on.
    """

    measurement: Measurement
    train_seconds: float
    samples_seen: int
    lineage: tuple[str, ...]
    structure: str


@dataclass(frozen=True)
class Rung:
    """Validation metric after `epoch` of `epochs` epochs."""

    epoch: int
    epochs: int
    metric: float


_ADAPTER = TypeAdapter(Measurement)
_COST_ADAPTER = TypeAdapter(Cost)


def to_json(measurement: Measurement) -> dict[str, Any]:
    """Return `measurement` as a plain dictionary for JSON."""
    return asdict(measurement)


def from_json(document: dict[str, Any]) -> Measurement:
    """Read what `to_json` wrote; pydantic checks every field."""
    return _ADAPTER.validate_python(document)


def cost_from_json(document: dict[str, Any]) -> Cost:
    """Read a `Cost` written by `dataclasses.asdict`; pydantic checks every field."""
    return _COST_ADAPTER.validate_python(document)
