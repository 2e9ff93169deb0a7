"""Money of one search: the facts that the study keeps about it, and what the user reads before it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict

from autocut.bill import serving_of
from autocut.config import SearchConfig
from autocut.measure.processor import this_host
from autocut.price import OWN_PRICE, fit, fit_hint, price_for
from autocut.study import Study

_KINDS = "training_kinds"
_ELSEWHERE = "ratios hold, dollars may not: prices are of {instance}, and the machines of the cluster were not compared with it"
_OTHER_KINDS = "dollars of training may not hold: some models were trained on {kinds}, whose seconds count as much as those here"
_GPU = "dollars of training do not hold: a second on the GPU is counted at the price of {instance}"


def describe_money(study: Study, config: SearchConfig, training_kinds: Collection[str] = ()) -> None:
    """Keep in the study what the user tells about serving, and whether the price fits this machine. Both may change later.

    `training_kinds` are the kinds of node that only train in this search. Those of earlier searches count too.

    Raises:
        InputError: What the user tells is impossible.
    """
    serving = serving_of(study.facts).told(config.requests_per_month, config.grid_intensity)
    if kinds := sorted({*study.facts.get(_KINDS, ()), *training_kinds}):
        study.describe({_KINDS: kinds})
    study.describe({"serving": asdict(serving), "price_fit": price_fit(config, kinds)})


def price_fit(config: SearchConfig, training_kinds: Collection[str] = ()) -> str | None:
    """Say why dollars of this search may not hold, where models are also trained on `training_kinds`; None where they do."""
    price = price_for(config.instance, config.price_per_hour, config.utilization)
    elsewhere = _OTHER_KINDS.format(kinds=" and ".join(training_kinds)) if training_kinds else None
    if price.instance == OWN_PRICE:
        return "; ".join(filter(None, (fit(price, this_host()), elsewhere))) or None
    why = fit(price, this_host()) if config.ray_address is None else _ELSEWHERE.format(instance=price.instance)
    of_gpu = None if config.train_on == "cpu" or config.serve_on != "cpu" else _GPU.format(instance=price.instance)
    return "; ".join(filter(None, (why, of_gpu, elsewhere))) or None


def plan_lines(note: str | None) -> list[str]:
    """Return what the user should know about money before the search begins: `note` of `price_fit`, and what to type."""
    return [] if note is None else [f"{note} ({fit_hint(this_host())})"]
