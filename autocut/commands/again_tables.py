"""What people see of `autocut remeasure` and `autocut compare`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from autocut.budget import format_size, format_usd
from autocut.commands.again_sentences import bundle_sentences, shown, study_sentences
from autocut.console import Console
from autocut.deploy.compare import BundleComparison
from autocut.deploy.compare_studies import StudyComparison, values_on
from autocut.deploy.remeasure import Remeasured
from autocut.measurement import Interval, Latency, Layout, per_second
from autocut.price import Price
from autocut.recipe import Recipe

Row = tuple[str, str, str]
"""What it is, what is claimed, and what was found."""


def print_remeasured(found: Sequence[Remeasured], console: Console) -> None:
    """Print one bundle in full; several of them with a line each."""
    if len(found) == 1:
        one = found[0]
        console.data(f"{one.folder}: {_described(one)}\n")
        console.table(["", "claimed", "found here"], _rows(one))
    else:
        console.table(
            ["trial", "ms claimed", "here", "speed-up claimed", "here", "per million claimed", "here", "accuracy of its examples",
             "here", "recipe"],
            map(_line, found),
        )  # fmt: skip
    for note in _notes(found):
        console.data(f"\n{note}")


def print_bundles(names: tuple[str, str], compared: BundleComparison, console: Console) -> None:
    """Print two bundles side by side, then what it means."""
    a, b = compared.a, compared.b
    threads = "1 thread" if compared.threads == 1 else f"{compared.threads} threads"
    rows = [("recipe", *(Recipe(manifest.recipe).describe() for manifest in compared.manifests))]
    rows += [
        (f"p50 latency, batch {one.batch_size}", _ms(one.p50_ms), _ms(other.p50_ms))
        for one, other in zip(a.latencies, b.latencies, strict=True)
    ]
    if compared.shared is not None:
        rows.append(("accuracy of shared examples", *(_value(accuracy.metric) for accuracy in compared.shared)))
    rows += [
        ("size", format_size(a.size_bytes), format_size(b.size_bytes)),
        ("cold start", *(_cold(side.cold_start_ms) for side in (a, b))),
    ]
    console.data(f"{threads} of {compared.machine}, calls by turns in one process\n")
    console.table(["", f"A: {names[0]}", f"B: {names[1]}"], rows)
    _print_findings(bundle_sentences(compared), compared.not_comparable, console)


def print_studies(names: tuple[str, str], compared: StudyComparison, console: Console) -> None:
    """Print two studies side by side, then what it means."""
    sides = (compared.a, compared.b)
    rows = [("models on the front", *(str(len(side.front)) for side in sides))]
    if compared.reference is not None:
        rows.append(("hypervolume", *(f"{side.hypervolume:.4g}" for side in sides)))
        rows.append(("share of both together", *(f"{side.share:.1%}" for side in sides)))
    picks = [side.pick for side in sides]
    rows.append(("pick", *("none" if pick is None else f"trial {pick.trial}: {pick.recipe.describe()}" for pick in picks)))
    values = [{} if pick is None else values_on(pick, compared.split) for pick in picks]
    rows += [(f"its {name} ({compared.split})", *(_number(name, of_pick) for of_pick in values)) for name in compared.objectives]
    console.table(["", f"A: {names[0]}", f"B: {names[1]}"], rows)
    _print_findings(study_sentences(compared), compared.not_comparable, console)
    if compared.reference is not None:
        corner = ", ".join(f"{name} {shown(name, value)}" for name, value in compared.reference.items())
        console.data(f"\nhypervolumes count from {corner} on, on the validation split")


def _print_findings(sentences: Sequence[str], not_comparable: Sequence[str], console: Console) -> None:
    console.data("\n" + "\n".join(sentences))
    if not_comparable:
        console.data("\nnot comparable:\n" + "\n".join(f"  {line}" for line in not_comparable))


def _described(one: Remeasured) -> str:
    trial = "" if one.manifest.trial is None else f"trial {one.manifest.trial}, "
    return f"{trial}{Recipe(one.manifest.recipe).describe()}"


def _rows(one: Remeasured) -> list[Row]:
    manifest, found = one.manifest, one.found
    cost, side = manifest.measurement.cost, found.side
    rows = [("machine", cost.machine, found.machine or "-"), ("threads", str(cost.threads), str(one.threads))]
    here = {latency.batch_size: latency for latency in side.latencies} if side else {}
    rows += [
        (f"p50 latency, batch {claim.batch_size}", _ms(claim.p50_ms), _ms_of(here.get(claim.batch_size)))
        for claim in cost.latencies
    ]
    rows += [
        (f"speed-up, batch {claim.batch_size}", _times(claim.speedup), _speedup(one, claim.batch_size)) for claim in cost.latencies
    ]
    accuracy = manifest.verification.accuracy
    examples = f"accuracy of its {manifest.verification.examples} examples"
    rows.append((examples, _plain(accuracy), _accuracy(one)))
    rows.append(("outputs against the stored ones", f"within {side.output_tolerance:g}" if side else "-", _deviation(one)))
    rows.append(("size", format_size(cost.size_bytes), format_size(side.size_bytes) if side else "-"))
    rows.append(("cold start (here: no compiler cache)", _cold(cost.cold_start_ms), _cold(side.cold_start_ms if side else None)))
    economics, capacity = manifest.economics, manifest.measurement.capacity
    if capacity is not None:
        rows.append(("whole machine", _served(capacity.best_as_measured), _served(one.served)))
    claimed = "-" if economics is None else f"{format_usd(economics.usd_per_million)} on {economics.instance}"
    return [*rows, ("a million predictions", claimed, _usd(one))]


def _line(one: Remeasured) -> tuple[str, ...]:
    manifest = one.manifest
    cost, economics, side = manifest.measurement.cost, manifest.economics, one.found.side
    first, busiest = cost.latencies[0], cost.busiest
    here = {latency.batch_size: latency for latency in side.latencies} if side else {}
    ms, speed = here.get(first.batch_size), here.get(busiest.batch_size)
    usd = one.usd_per_million
    marks = f" (cannot be used here: {one.failure})" if one.failure else ""
    return (
        "-" if manifest.trial is None else str(manifest.trial),
        _short(first.p50_ms),
        "-" if ms is None else _short(ms.p50_ms),
        _short(busiest.speedup),
        _short(speed.speedup) if speed and one.has_untouched else "-",
        "-" if economics is None else format_usd(economics.usd_per_million),
        "-" if usd is None else format_usd(usd.value),
        _plain(manifest.verification.accuracy),
        "-" if side is None or side.accuracy is None else f"{side.accuracy.metric.value:.4f}",
        f"{Recipe(manifest.recipe).describe()}{marks}",
    )


def _notes(found: Sequence[Remeasured]) -> list[str]:
    """Return what a reader must know: where it was measured, failures, and each note once with its trials."""
    notes: dict[str, list[str]] = {}
    for one in found:
        for note in one.notes:
            notes.setdefault(note, []).append(str(one.manifest.trial))
    told = [note if len(trials) == len(found) else f"trial {', '.join(trials)}: {note}" for note, trials in notes.items()]
    if len(found) > 1:
        return [*_where(found), *told]
    return [*([f"it cannot be used here: {found[0].failure}"] if found[0].failure else []), *told]


def _where(found: Sequence[Remeasured]) -> list[str]:
    """Return the machines and threads of all claims and of all findings, and the price."""
    claimed = {(one.manifest.measurement.cost.machine, one.manifest.measurement.cost.threads) for one in found}
    here = {(one.found.machine, one.threads) for one in found if one.found.side}
    before = {one.manifest.economics.bill.price for one in found if one.manifest.economics}
    now = {one.price for one in found if one.price}
    lines = [f"claimed: {_places(claimed)}{_prices(before)}", f"here:    {_places(here)}{_prices(now)}"]
    return ["\n".join([*lines, "milliseconds are those at the first batch size, speed-ups and dollars those at the largest"])]


def _places(places: set[tuple[str, int]]) -> str:
    return "; ".join(f"{threads} thread{'s' if threads > 1 else ''} of {machine}" for machine, threads in sorted(places)) or "-"


def _prices(prices: set[Price]) -> str:
    listed = sorted(f"{price.instance} at ${price.usd_per_hour:g} per hour" for price in prices)
    return f"; dollars of {', '.join(listed)}" if listed else ""


def _speedup(one: Remeasured, batch_size: int) -> str:
    side = one.found.side
    if side is None or not one.has_untouched:
        return "-"
    return next((_times(latency.speedup) for latency in side.latencies if latency.batch_size == batch_size), "-")


def _accuracy(one: Remeasured) -> str:
    side = one.found.side
    return "-" if side is None or side.accuracy is None else _value(side.accuracy.metric)


def _deviation(one: Remeasured) -> str:
    side = one.found.side
    return "-" if side is None else f"deviate by {side.output_deviation:.2g}"


def _served(layout: Layout | None) -> str:
    if layout is None:
        return "-"
    value, low, high = (per_second(number) for number in (layout.per_s.value, layout.per_s.low, layout.per_s.high))
    return f"{value} [{low}, {high}] as {layout}"


def _usd(one: Remeasured) -> str:
    usd, price = one.usd_per_million, one.price
    if usd is None or price is None:
        return "-"
    return (
        f"{format_usd(usd.value)} [{format_usd(usd.low)}, {format_usd(usd.high)}] on {price.instance} (${price.usd_per_hour:g}/h)"
    )


def _number(name: str, values: Mapping[str, float]) -> str:
    return shown(name, values[name]) if name in values else "-"


def _ms(interval: Interval) -> str:
    return f"{interval.value:.4g} ms [{interval.low:.4g}, {interval.high:.4g}]"


def _ms_of(latency: Latency | None) -> str:
    return "-" if latency is None else _ms(latency.p50_ms)


def _times(interval: Interval) -> str:
    return f"{interval.value:.3g}x [{interval.low:.3g}, {interval.high:.3g}]"


def _value(interval: Interval) -> str:
    return f"{interval.value:.4f} [{interval.low:.4f}, {interval.high:.4f}]"


def _short(interval: Interval) -> str:
    return f"{interval.value:.3g} [{interval.low:.3g}, {interval.high:.3g}]"


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _cold(milliseconds: float | None) -> str:
    return "-" if milliseconds is None else f"{milliseconds:.0f} ms"
