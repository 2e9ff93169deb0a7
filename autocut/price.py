"""Money: the price of an hour of a machine, and from it the price of predictions and of training. Arithmetic only, no torch."""

from __future__ import annotations

import datetime as dt
import math
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from autocut.errors import Fault, FaultsError, InputError, unknown_name

SHIPPED_SHEET = Path(__file__).with_name("prices.toml")
OWN_PRICE = "a machine of your own"
"""Takes the place of the instance's name when the user gives the price."""

_HOUR_S = 3600.0

Usd = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class Price:
    """Price of the whole machine for an hour, and the share of that hour in which it serves predictions.

    Throughput is measured with one process and the stated threads, but the whole machine is charged. So on a machine with more
    processors the result is an upper bound. `date` is the day of the price sheet, or "as given".
    """

    instance: str
    usd_per_hour: float
    date: str
    utilization: float = 1.0

    def __post_init__(self) -> None:
        """Refuse an impossible price or utilization."""
        if not (math.isfinite(self.usd_per_hour) and self.usd_per_hour > 0):
            raise InputError(
                f"--price-per-hour must be above 0, got {self.usd_per_hour}", "give US dollars per hour: --price-per-hour 0.09"
            )
        if not 0 < self.utilization <= 1:
            raise InputError(
                f"--utilization must be above 0 and at most 1, got {self.utilization}", "half of the time busy is --utilization 0.5"
            )


class PriceSheet(BaseModel):
    """Dated prices by instance name, read from TOML."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1]
    date: dt.date
    region: str
    terms: str
    currency: Literal["USD"]
    source: str
    usd_per_hour: dict[str, Usd] = Field(min_length=1)

    def price(self, instance: str, utilization: float = 1.0) -> Price:
        """Return the price of `instance`.

        Raises:
            UnknownNameError: The sheet has no such instance; the hint gives the nearest one.
        """
        if instance not in self.usd_per_hour:
            raise unknown_name("--instance", instance, self.usd_per_hour)
        return Price(instance, self.usd_per_hour[instance], self.date.isoformat(), utilization)


@cache
def load_prices(path: Path = SHIPPED_SHEET) -> PriceSheet:
    """Read a price sheet.

    Raises:
        FaultsError: The file has faults; all of them are listed.
    """
    try:
        return PriceSheet.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise FaultsError(f"price sheet {path.name}", [Fault(f"it must be a readable TOML file, got: {error}")]) from None
    except ValidationError as error:
        faults = [Fault(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}", where=path.name) for fault in error.errors()]
        raise FaultsError(f"price sheet {path.name}", faults) from None


def price_for(instance: str, price_per_hour: float | None = None, utilization: float = 1.0) -> Price:
    """Return the price that the user gave, else the price of `instance` in the shipped sheet.

    Raises:
        UnknownNameError: The price sheet has no such instance.
        InputError: The price or the utilization is impossible.
    """
    if price_per_hour is not None:
        return Price(OWN_PRICE, price_per_hour, "as given", utilization)
    return load_prices().price(instance, utilization)


def usd_per_million(price_per_hour: float, throughput_per_s: float, utilization: float = 1.0) -> float:
    """Return the price of a million predictions on a machine that makes `throughput_per_s` predictions a second while busy."""
    return price_per_hour / (_HOUR_S * throughput_per_s * utilization) * 1e6


def usd_for(price: Price, seconds: float) -> float:
    """Return the price of `seconds` of training or searching. A machine that trains is busy, so utilization does not count."""
    return price.usd_per_hour * seconds / _HOUR_S


def break_even_predictions(search_usd: float, baseline_usd_per_million: float, candidate_usd_per_million: float) -> float | None:
    """Return the number of predictions that pay for the search, or None if the candidate is not cheaper than the baseline."""
    saved = baseline_usd_per_million - candidate_usd_per_million
    return search_usd / saved * 1e6 if saved > 0 else None
