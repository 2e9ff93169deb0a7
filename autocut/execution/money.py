"""Money of one search: the facts that the study keeps about it, and what the user reads before it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from autocut.bill import price_note, serving_of
from autocut.config import SearchConfig
from autocut.measure.processor import this_host
from autocut.price import OWN_PRICE, Price, fit, fit_hint
from autocut.study import Study

_ELSEWHERE = "ratios hold, dollars may not: prices are of {instance}, and nobody compared it with the machines of the cluster"


def describe_money(study: Study, config: SearchConfig, price: Price) -> None:
    """Keep in the study what the user tells about serving, and whether the price fits this machine. Both may change later.

    Raises:
        InputError: What the user tells is impossible.
    """
    serving = serving_of(study.facts).told(config.requests_per_month, config.grid_intensity)
    study.describe({"serving": asdict(serving), "price_fit": _fit(price, on_cluster=config.ray_address is not None)})


def plan_lines(facts: Mapping[str, Any]) -> list[str]:
    """Return what the user should know about money before the search begins."""
    note = price_note(facts)
    return [] if note is None else [f"{note} ({fit_hint(this_host())})"]


def _fit(price: Price, *, on_cluster: bool) -> str | None:
    if not on_cluster or price.instance == OWN_PRICE:
        return fit(price, this_host())
    return _ELSEWHERE.format(instance=price.instance)
