"""What people see of `autocut remeasure` and `autocut compare`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from autocut.budget import format_size, format_usd
from autocut.commands.again_sentences import bundle_sentences, shown, study_sentences
from autocut.commands.terminal_plot import table_in
from autocut.console import Console
from autocut.counting import format_count
from autocut.deploy.compare import BundleComparison
from autocut.deploy.compare_studies import StudyComparison, values_on
from autocut.deploy.remeasure import Remeasured
from autocut.measurement import Interval, Latency, Layout, per_second
from autocut.price import Price
from autocut.recipe import Recipe

Row = tuple[str, str, str]
"""What it is, what is claimed, and what was found."""
_SEVERAL = ("trial", "", "ms", "speed-up", "per million", "accuracy", "recipe")


def print_remeasured(found: Sequence[Remeasured], console: Console) -> None:
    """Print one bundle in full; several of them with two lines each, the claim above what was found."""
    width = console.terminal_width()
    if len(found) == 1:
        one = found[0]
        console.prose(f"{one.folder}: {_described(one)}\n")
        console.table(["", "claimed", "found here"], _rows(one))
    elif width is None:
        console.table(_SEVERAL, [row for one in found for row in _lines(one)])
    else:
        console.data("\n".join(table_in(_SEVERAL, [row for one in found for row in _lines(one)], width)))
    for note in _notes(found):
        console.prose(f"\n{note}")


def print_bundles(names: tuple[str, str], compared: BundleComparison, console: Console) -> None:
    """Print two bundles side by side, then what it means."""
    a, b = compared.a, compared.b
    threads = format_count(compared.threads, "thread")
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
    console.prose(f"{threads} of {compared.machine}, calls by turns in one process\n")
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
        console.prose(f"\nhypervolumes are measured from {corner}, on the validation split")


def _print_findings(sentences: Sequence[str], not_comparable: Sequence[str], console: Console) -> None:
    console.prose("\n" + "\n".join(sentences))
    if not_comparable:
        console.prose("\nnot comparable:\n" + "\n".join(f"  {line}" for line in not_comparable))


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
    examples = f"accuracy of its {format_count(manifest.verification.examples, 'example')}"
    rows.append((examples, _plain(accuracy), _accuracy(one)))
    rows.append(("outputs against the stored ones", f"within {side.output_tolerance:g}" if side else "-", _deviation(one)))
    rows.append(("size", format_size(cost.size_bytes), format_size(side.size_bytes) if side else "-"))
    rows.append(("cold start (here: no compiler cache)", _cold(cost.cold_start_ms), _cold(side.cold_start_ms if side else None)))
    capacity = manifest.measurement.capacity
    if capacity is not None:
        rows.append(("whole machine", _served(capacity.best), _served(one.served)))
    return [*rows, *_usd_rows(one)]


def _usd_rows(one: Remeasured) -> list[Row]:
    """Return the dollars at the price of the claim, on both sides, and those at this machine's price where that is another one."""
    economics, before, now = one.manifest.economics, one.claimed_price, one.price
    predictions, rows = f"a million predictions, {one.manifest.measurement.charged_as}", []
    if economics is not None and before is not None:
        claimed = f"{format_usd(economics.usd_per_million)} on {_priced(before)}"
        rows.append((predictions, claimed, _usd(one.usd_at_claimed_price, before)))
    if now is not None and now != before:
        rows.append(("at this machine's price" if rows else predictions, "-", _usd(one.usd_per_million, now)))
    return rows or [(predictions, "-", "-")]


def _lines(one: Remeasured) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the claim and what was found, with dollars at the price of the claim."""
    manifest = one.manifest
    cost, economics, side = manifest.measurement.cost, manifest.economics, one.found.side
    first, busiest = cost.latencies[0], cost.busiest
    here = {latency.batch_size: latency for latency in side.latencies} if side else {}
    ms, speed, usd = here.get(first.batch_size), here.get(busiest.batch_size), one.usd_at_claimed_price
    trial = "-" if manifest.trial is None else str(manifest.trial)
    claimed = (
        _short(first.p50_ms),
        _short(busiest.speedup),
        "-" if economics is None else format_usd(economics.usd_per_million),
        _plain(manifest.verification.accuracy),
        Recipe(manifest.recipe).describe(),
    )
    found = (
        "-" if ms is None else _short(ms.p50_ms),
        _short(speed.speedup) if speed and one.has_untouched else "-",
        "-" if usd is None else format_usd(usd.value),
        "-" if side is None or side.accuracy is None else f"{side.accuracy.metric.value:.4f}",
        f"cannot be used here: {one.failure}" if one.failure else "",
    )
    return (trial, "claimed", *claimed), (trial, "here", *found)


def _notes(found: Sequence[Remeasured]) -> list[str]:
    """Return what a reader must know: where it was measured, failures, and each note once with its trials."""
    notes: dict[str, list[str]] = {}
    for one in found:
        charged = (f"dollars of a million predictions {one.manifest.measurement.charged_as}",) if len(found) > 1 else ()
        for note in (*charged, *one.notes):
            notes.setdefault(note, []).append(str(one.manifest.trial))
    told = [note if len(trials) == len(found) else f"trial {', '.join(trials)}: {note}" for note, trials in notes.items()]
    if len(found) > 1:
        return [*_where(found), *told]
    return [*([f"it cannot be used here: {found[0].failure}"] if found[0].failure else []), *told]


def _where(found: Sequence[Remeasured]) -> list[str]:
    """Return the machines and threads of all claims and of all findings, and the prices."""
    claimed = {(one.manifest.measurement.cost.machine, one.manifest.measurement.cost.threads) for one in found}
    here = {(one.found.machine, one.threads) for one in found if one.found.side}
    lines = [f"claimed: {_places(claimed)}", f"here:    {_places(here)}"]
    prices = dict.fromkeys((one.claimed_price, one.price) for one in found if one.claimed_price)
    lines += [line for before, now in prices if before is not None for line in _dollars(before, now)]
    return ["\n".join([*lines, "milliseconds are those at the first batch size, speed-ups and dollars those at the largest"])]


def _dollars(before: Price, now: Price | None) -> list[str]:
    """Say which price the dollars have, and what to multiply them with for the price of this machine."""
    told = f"dollars, claimed and here, are those of {_priced(before)}"
    if now is None or now == before:
        return [told]
    factor = (now.usd_per_hour / now.utilization) / (before.usd_per_hour / before.utilization)
    return [f"{told}; at {_priced(now)}, the price of this machine, they are {factor:.3g} times as many"]


def _places(places: set[tuple[str, int]]) -> str:
    return "; ".join(f"{format_count(threads, 'thread')} of {machine}" for machine, threads in sorted(places)) or "-"


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


def _usd(usd: Interval | None, price: Price) -> str:
    return "-" if usd is None else f"{format_usd(usd.value)} [{format_usd(usd.low)}, {format_usd(usd.high)}] on {_priced(price)}"


def _priced(price: Price) -> str:
    return f"{price.instance} (${price.usd_per_hour:g}/h)"


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
