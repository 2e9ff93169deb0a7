"""The bill: what serving costs before and after a search, when the search has paid for itself, and the CO2 of serving. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autocut.budget import format_usd
from autocut.errors import InputError
from autocut.front import FrontPoint
from autocut.price import Price, break_even_predictions, fit, host_of, usd_for, usd_per_million

WORLD_G_PER_KWH = 481.0
"""Electricity of the world made so much CO2 on average in 2023 (Ember, as published by Statista on 2024-07-03). Countries differ:
from 30 g in Norway to 713 g in India."""
WORLD_SOURCE = "world average of 2023, Ember, 2024-07-03"

_HOURS_PER_MONTH = 730.0
_DAYS_PER_MONTH = _HOURS_PER_MONTH / 24
_J_PER_KWH = 3.6e6


@dataclass(frozen=True)
class Serving:
    """How a model will be served, as the user tells it. No measured number depends on it, so it may change later.

    `requests_per_month` are predictions; None: not told. `grid_g_per_kwh` are grams of CO2 for each kWh of electricity.
    """

    requests_per_month: float | None = None
    grid_g_per_kwh: float = WORLD_G_PER_KWH
    grid_source: str = WORLD_SOURCE

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        requests = self.requests_per_month
        if requests is not None and not (math.isfinite(requests) and requests > 0):
            raise InputError(
                f"--requests-per-month must be above 0, got {requests}",
                "give the predictions of a month: --requests-per-month 3e6",
            )
        if not (math.isfinite(self.grid_g_per_kwh) and self.grid_g_per_kwh >= 0):
            raise InputError(
                f"--grid-intensity must be 0 or more, got {self.grid_g_per_kwh}", "give grams of CO2 per kWh: --grid-intensity 481"
            )

    def told(self, requests_per_month: float | None, grid_g_per_kwh: float | None) -> Serving:
        """Return this with what the user tells now; None leaves it as it is.

        Raises:
            InputError: A number is impossible.
        """
        requests = self.requests_per_month if requests_per_month is None else requests_per_month
        if grid_g_per_kwh is None:
            return Serving(requests, self.grid_g_per_kwh, self.grid_source)
        return Serving(requests, grid_g_per_kwh, "as given")

    def grams_per_million(self, energy_j_per_prediction: float) -> float:
        """Return the grams of CO2 of a million predictions."""
        return energy_j_per_prediction * 1e6 / _J_PER_KWH * self.grid_g_per_kwh


UNTOLD = Serving()
"""The user tells nothing."""


def serving_of(facts: Mapping[str, Any]) -> Serving:
    """Return what a study's facts say about serving; a study of an older version says nothing."""
    return Serving(**facts.get("serving", {}))


@dataclass(frozen=True)
class Bill:
    """What serving costs with the untouched model and with another one, and what finding that one cost.

    Serving is charged by the busy hour, divided by the utilization. `search_usd` is what the search has spent until now, all its
    trainings included, whatever its budget is; `train_usd` is training this recipe once, None where it is not known. Amounts of a
    month are None where nobody told its requests.
    """

    price: Price
    untouched_usd_per_million: float
    usd_per_million: float
    search_usd: float
    train_usd: float | None
    requests_per_month: float | None = None

    @property
    def untouched_usd_per_month(self) -> float | None:
        """Serving a month with the untouched model."""
        return self._monthly(self.untouched_usd_per_million)

    @property
    def usd_per_month(self) -> float | None:
        """Serving a month with this model."""
        return self._monthly(self.usd_per_million)

    @property
    def saved_usd_per_month(self) -> float | None:
        """What this model saves a month; below 0 where it costs more."""
        return self._monthly(self.untouched_usd_per_million - self.usd_per_million)

    @property
    def always_on_usd_per_month(self) -> float:
        """One machine that runs the whole month, busy or not."""
        return self.price.usd_per_hour * _HOURS_PER_MONTH

    @property
    def break_even_predictions(self) -> float | None:
        """Predictions after which the search has paid for itself; None if it never does."""
        return break_even_predictions(self.search_usd, self.untouched_usd_per_million, self.usd_per_million)

    @property
    def break_even_days(self) -> float | None:
        """Days after which the search has paid for itself; None if it never does, or nobody told the requests of a month."""
        predictions, requests = self.break_even_predictions, self.requests_per_month
        return None if predictions is None or requests is None else predictions / requests * _DAYS_PER_MONTH

    def untouched_total_usd(self, predictions: float) -> float:
        """What `predictions` cost with the untouched model."""
        return predictions / 1e6 * self.untouched_usd_per_million

    def total_usd(self, predictions: float) -> float:
        """What `predictions` cost with this model, and the search."""
        return self.search_usd + predictions / 1e6 * self.usd_per_million

    @property
    def lines(self) -> tuple[str, ...]:
        """The bill for a person: a sentence or two a line."""
        per_million = (
            f"{format_usd(self.usd_per_million)} per million predictions, {format_usd(self.untouched_usd_per_million)} untouched"
        )
        training = "" if self.train_usd is None else f", training this recipe once {format_usd(self.train_usd)} in CPU time"
        return (
            f"{per_million}; the search cost {format_usd(self.search_usd)}{training}",
            *self._month_lines(),
            self._break_even_line(),
        )

    @property
    def document(self) -> dict[str, float | str | None]:
        """The bill for programs."""
        return {
            "instance": self.price.instance,
            "usd_per_hour": self.price.usd_per_hour,
            "untouched_usd_per_million": self.untouched_usd_per_million,
            "usd_per_million": self.usd_per_million,
            "requests_per_month": self.requests_per_month,
            "untouched_usd_per_month": self.untouched_usd_per_month,
            "usd_per_month": self.usd_per_month,
            "saved_usd_per_month": self.saved_usd_per_month,
            "search_usd": self.search_usd,
            "train_usd": self.train_usd,
            "break_even_predictions": self.break_even_predictions,
            "break_even_days": self.break_even_days,
        }

    def _monthly(self, usd_per_million: float) -> float | None:
        return None if self.requests_per_month is None else self.requests_per_month / 1e6 * usd_per_million

    def _month_lines(self) -> tuple[str, ...]:
        before, after, requests = self.untouched_usd_per_month, self.usd_per_month, self.requests_per_month
        if before is None or after is None or requests is None:
            return ()
        change = f"{format_usd(before - after)} less" if after < before else f"{format_usd(after - before)} more"
        line = f"a month of {requests:,.0f} requests: {format_usd(after)}, untouched {format_usd(before)}: {change}"
        if max(before, after) > self.always_on_usd_per_month:
            return (line,)
        always_on = format_usd(self.always_on_usd_per_month)
        return (line, f"these are busy hours alone: one machine that is always on costs {always_on} a month with either model")

    def _break_even_line(self) -> str:
        predictions, days = self.break_even_predictions, self.break_even_days
        if predictions is None:
            return "the search never pays for itself: this model is not cheaper than the untouched one"
        after = f"the search has paid for itself after {predictions:,.0f} predictions"
        if days is None:
            return after
        return f"{after}, {days:,.1f} days" if days >= 1 else f"{after}, in less than a day"


def price_note(facts: Mapping[str, Any]) -> str | None:
    """Return why dollars of a study may not hold on its machine (`price.fit`); None where they do.

    A study of an older version was never compared with its price. It is now, by the machine that it describes.
    """
    if "price_fit" not in facts and "price" in facts and "machine" in facts:
        return fit(Price(**facts["price"]), host_of(facts["machine"]))
    note: str | None = facts.get("price_fit")
    return note


def point_bill(facts: Mapping[str, Any], spent_s: float, untouched: FrontPoint | None, point: FrontPoint) -> Bill | None:
    """Return the bill of a point, by its final timing where it has one; None before the untouched model is measured.

    Every timing of a study is corrected by that of the untouched model, so its cost is the one of the search. Where the point was
    measured on the whole machine, the untouched model is charged by what it serves there too.

    Args:
        facts: The facts of the study.
        spent_s: Seconds for which machines worked on the study.
        untouched: The point of the untouched model.
        point: Any point of the study.
    """
    values = point.values if point.final is None else point.final.values
    if untouched is None or "price" not in facts:
        return None
    price = Price(**facts["price"])
    capacity = None if point.final is None else point.final.measurement.capacity
    untouched_usd = untouched.values["usd_per_million"]
    if capacity is not None:
        untouched_usd = usd_per_million(price.usd_per_hour, capacity.best_untouched.per_s.value, price.utilization)
    return Bill(
        price,
        untouched_usd,
        values["usd_per_million"],
        usd_for(price, spent_s),
        values.get("train_usd"),
        serving_of(facts).requests_per_month,
    )


def bill_lines(facts: Mapping[str, Any], spent_s: float, untouched: FrontPoint | None, point: FrontPoint) -> list[str]:
    """Return the bill of a point for a person; empty for the untouched model itself.

    The arguments are those of `point_bill`.
    """
    bill = point_bill(facts, spent_s, untouched, point)
    if bill is None or point == untouched:
        return []
    timing = "the timing of the search" if point.final is None else "the final timing"
    charged = [] if point.final is None else [f"money: {point.final.measurement.charged_by}"]
    first, *others = bill.lines
    return [f"money by {timing}: {first}", *charged, *others]
