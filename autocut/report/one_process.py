"""Final timings in dollars of one process, so that a column or an axis has one kind of dollars.

Finalization charges a model by what the whole machine serves, where that was measured (`Measurement.charged_as`). The search always
charges one process. Numbers of the two kinds do not compare.
"""

from __future__ import annotations

from dataclasses import replace

from autocut.price import Price
from autocut.score import costs_of
from autocut.study import Final, Study


def as_one_process(study: Study, final: Final) -> Final:
    """Return `final` with the dollars of one process, as the search has them; without dollars where these are not known."""
    if final.measurement.capacity is None:
        return final
    values = {name: value for name, value in final.values.items() if name != "usd_per_million"}
    price, reference = study.facts.get("price"), study.reference
    if price is not None and reference is not None:
        values["usd_per_million"] = costs_of(final.measurement.cost, reference, Price(**price))["usd_per_million"]
    return replace(final, values=values, measurement=replace(final.measurement, capacity=None))
