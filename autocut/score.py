"""The values of a trial, computed from its measurement, and limits on them. Arithmetic only, no torch."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from autocut.errors import InputError, StudyError, UnknownNameError, name_hint, quoted
from autocut.measurement import Cost, Interval, Latency, Measurement
from autocut.price import Price, usd_for, usd_per_million


@dataclass(frozen=True)
class Metric:
    """One value of a trial: its better direction, and one line about its meaning."""

    name: str
    direction: str
    meaning: str

    @property
    def is_maximized(self) -> bool:
        """Whether higher is better."""
        return self.direction == "maximize"


METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        metric.name: metric
        for metric in (
            Metric("accuracy", "maximize", "the task's metric on the split that the measurement names"),
            Metric("usd_per_million", "minimize", "price of a million predictions at the largest serving batch size"),
            Metric("latency_ms", "minimize", "median of one call at the first serving batch size"),
            Metric("size_bytes", "minimize", "the exported model on disk"),
            Metric("compressed_size_bytes", "minimize", "the exported model in a zip archive"),
            Metric("train_usd", "minimize", "price of training this recipe once by its CPU seconds, nothing cached"),
            Metric("speedup", "maximize", "throughput against the untouched model at the largest serving batch size"),
        )
    }
)
"""Every value that `values_of` returns."""

ALIASES: Mapping[str, str] = MappingProxyType(
    {"cost": "usd_per_million", "latency": "latency_ms", "size": "size_bytes", "training": "train_usd"}
)
"""Short names for people."""

_FLOOR = 0.5
"""A model that keeps less than this share of the untouched model's metric is no alternative to it, whatever the user allows."""

_MAY_BE_0 = "train_usd"
"""A model that was not trained costs no training. All other values but the metric are above 0."""

_LIMIT = re.compile(r"\s*(?P<name>[A-Za-z_][\w.]*)\s*(?P<operator><=|>=)\s*(?P<bound>[-+.\w]+)\s*")


def values_of(measurement: Measurement, reference: Cost, price: Price, train_seconds: float) -> dict[str, float]:
    """Return every value of a trial by its name in `METRICS`.

    Times are corrected for drift, so that trials of different hours can be compared: a latency is the untouched model's reference
    latency, measured once a study, divided by the trial's speed-up. `speedup` is at the largest batch size, as `usd_per_million`.
    It compares one process with one process. So do dollars, until the capacity of the whole machine is known (`dollars_of`).

    Args:
        measurement: Measurement of the trial.
        reference: Cost of the untouched model of the same study.
        price: Price of the machine that serves.
        train_seconds: CPU seconds by thread to train the recipe with an empty cache.

    Raises:
        StudyError: `reference` was measured at other batch sizes.
    """
    return {
        "accuracy": measurement.accuracy.metric.value,
        **costs_of(measurement.cost, reference, price),
        "usd_per_million": dollars_of(measurement, reference, price)[0],
        "train_usd": usd_for(price, train_seconds),
    }


def dollars_of(measurement: Measurement, reference: Cost, price: Price) -> tuple[float, float]:
    """Return dollars of a million predictions, by this model and by the untouched one, on the same terms.

    Where the capacity of the whole machine is known, each of the two is charged by its own best layout. Otherwise one process of
    either is charged with the whole machine.

    Raises:
        StudyError: `reference` was measured at other batch sizes.
    """
    capacity = measurement.capacity
    if capacity is None:
        usd = costs_of(measurement.cost, reference, price)["usd_per_million"]
        return usd, usd * measurement.cost.busiest.speedup.value
    own, untouched = (
        usd_per_million(price.usd_per_hour, layout.per_s.value, price.utilization)
        for layout in (capacity.best, capacity.best_untouched)
    )
    return own, untouched


def costs_of(cost: Cost, reference: Cost, price: Price) -> dict[str, float]:
    """Return the values of `values_of` that need no trained weights.

    Raises:
        StudyError: `reference` was measured at other batch sizes.
    """
    busiest = cost.busiest
    throughput_per_s = busiest.batch_size / (corrected_ms(busiest, reference) / 1e3)
    return {
        "usd_per_million": usd_per_million(price.usd_per_hour, throughput_per_s, price.utilization),
        "latency_ms": corrected_ms(cost.latencies[0], reference),
        "size_bytes": float(cost.size_bytes),
        "compressed_size_bytes": float(cost.compressed_size_bytes),
        "speedup": busiest.speedup.value,
    }


def interval_of(name: str, values: Mapping[str, float], measurement: Measurement) -> Interval:
    """Return the value `name` with its 95% interval. A value without a spread, such as a size, has an interval of no width.

    Latency is computed from a speed-up and has its spread. So has the price, but where it is that of the whole machine: there it
    has the spread of what the best layout serves.
    """
    value, cost = values[name], measurement.cost
    if name == "accuracy":
        return measurement.accuracy.metric
    if name == "usd_per_million" and measurement.capacity is not None:
        per_s = measurement.capacity.best.per_s
        return Interval(value, value * per_s.value / per_s.high, value * per_s.value / per_s.low)
    if not cost.latencies or name not in ("latency_ms", "usd_per_million", "speedup"):
        return Interval(value, value, value)
    speedup = (cost.latencies[0] if name == "latency_ms" else cost.busiest).speedup
    if name == "speedup":
        return speedup
    return Interval(value, value * speedup.value / speedup.high, value * speedup.value / speedup.low)


def corrected_ms(latency: Latency, reference: Cost) -> float:
    """Return the median latency, corrected to the time at which the reference was measured."""
    try:
        return reference.latency(latency.batch_size).p50_ms.value / latency.speedup.value
    except KeyError:
        sizes = ", ".join(str(other.batch_size) for other in reference.latencies)
        raise StudyError(
            f"the untouched model must have been measured at batch size {latency.batch_size}, got {sizes}",
            "start a new study with --out",
        ) from None


def metric_name(name: str, subject: str) -> str:
    """Return the name of the value that `name` means: `name` itself, or what it is an alias of.

    Raises:
        UnknownNameError: `name` is neither a value nor an alias.
    """
    canonical = ALIASES.get(name, name)
    if canonical not in METRICS:
        raise UnknownNameError(
            f"{subject} must be one of {', '.join(METRICS)}, got {quoted(name)}", name_hint(name, [*METRICS, *ALIASES])
        )
    return canonical


@dataclass(frozen=True)
class Limit:
    """A bound that a trial must meet, such as ``latency_ms<=5``."""

    name: str
    operator: str
    bound: float

    @property
    def text(self) -> str:
        """The limit in canonical spelling."""
        return f"{self.name}{self.operator}{self.bound:.12g}"

    def __str__(self) -> str:
        """The limit in canonical spelling."""
        return self.text

    def violation(self, values: Mapping[str, float]) -> float:
        """Return how far `values` exceed the limit, in the value's unit: 0 or less if they meet it, infinity for NaN."""
        value = values[self.name]
        if math.isnan(value):
            return math.inf
        return value - self.bound if self.operator == "<=" else self.bound - value


def allowed_drop(share: float, untouched: float) -> float:
    """Return what a point may lose of a metric whose value is `untouched` for the untouched model.

    A metric between 0 and 1 may lose `share` itself: 0.05 are 5 points. Any other metric may lose this share of its size: with
    0.05 an error of 20 may grow to 21.
    """
    return share if 0 <= untouched <= 1 else share * abs(untouched)


def accuracy_limit(untouched: float, max_drop: float | None) -> Limit | None:
    """Return the lowest metric that counts, if the untouched model has `untouched`; None where nothing limits it.

    Args:
        untouched: Metric of the untouched model, on the split of the values that the limit is for.
        max_drop: Largest loss, as `allowed_drop` takes it; None: only half of the metric must be kept, if it is above 0.
    """
    floors = [_FLOOR * untouched] if untouched > 0 else []
    if max_drop is not None:
        floors.append(untouched - allowed_drop(max_drop, untouched))
    return Limit("accuracy", ">=", max(floors)) if floors else None


def parse_limit(text: str) -> Limit:
    """Read a limit: a value's name or alias, ``<=`` or ``>=``, and a number.

    Raises:
        InputError: The text has another form, it forbids the better values, such as accuracy<=0.9, or it holds for every model or
            for none, such as latency_ms<=-5.
        UnknownNameError: No value has this name; the hint gives the nearest one.
    """
    found = _LIMIT.fullmatch(text)
    if found is None:
        raise InputError(f"limit must be a name, <= or >=, and a number, got {quoted(text)}", "write it like 'latency_ms<=5'")
    name = metric_name(found["name"], "limit")
    operator = found["operator"]
    bound = _number(found["bound"], text)
    wanted = ">=" if METRICS[name].is_maximized else "<="
    if operator != wanted:
        better = "higher" if METRICS[name].is_maximized else "lower"
        raise InputError(
            f"limit on {name} must use {wanted}, {better} is better, got {quoted(text)}",
            f"did you mean {quoted(name + wanted + found['bound'])}?",
        )
    _check_bound(name, bound, text)
    return Limit(name, operator, bound)


def _check_bound(name: str, bound: float, text: str) -> None:
    """Refuse a bound that every model keeps, or none. Only the range of a metric depends on the task (`check_shares`)."""
    if name == "accuracy" or bound > 0 or (name == _MAY_BE_0 and bound == 0):
        return
    rule = "of at least 0" if name == _MAY_BE_0 else "above 0"
    why = "every model keeps this one" if METRICS[name].is_maximized else "no model keeps this one"
    example = Limit(name, ">=" if METRICS[name].is_maximized else "<=", abs(bound) or 1.0)
    raise InputError(
        f"limit on {name} must have a bound {rule}, got {quoted(text)}: {why}", f"did you mean {quoted(example.text)}?"
    )


def check_shares(limits: Iterable[Limit], *, from_0: bool = False) -> None:
    """Refuse a percentage where the metric is a share; where it is never below 0, also a bound that every model keeps.

    Raises:
        InputError: A limit asks more than 1 of such a metric, or nothing.
    """
    for limit in limits:
        if limit.name == "accuracy" and from_0 and limit.bound <= 0:
            raise InputError(
                f"limit on accuracy must be above 0, got {quoted(limit.text)}: every model keeps this one",
                "write it like 'accuracy>=0.95'",
            )
        if limit.name == "accuracy" and limit.bound > 1:
            share = limit.bound / 100 if limit.bound <= 100 else 1.0
            raise InputError(
                f"limit on accuracy must be at most 1, as a share is, got {quoted(limit.text)}",
                f"did you mean 'accuracy>={share:g}'?",
            )


def check_errors(limits: Iterable[Limit]) -> None:
    """Refuse a limit without its minus where the metric is minus an error, and so never above 0.

    Raises:
        InputError: A limit asks more than 0 of such a metric.
    """
    for limit in limits:
        if limit.name == "accuracy" and limit.bound > 0:
            raise InputError(
                f"limit on accuracy must be at most 0 where the metric is minus an error, got {quoted(limit.text)}: "
                "no model keeps this",
                f"did you mean {quoted(Limit('accuracy', '>=', -limit.bound).text)}?",
            )


def _number(written: str, text: str) -> float:
    try:
        number = float(written)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InputError(
            f"limit must end in a number, got {quoted(text)}", "write it like 'latency_ms<=5', in the unit of the name"
        )
    return number
