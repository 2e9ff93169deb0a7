"""The README of a bundle, for a reader who has only the folder."""

from __future__ import annotations

import json
import re
from pathlib import Path

from autocut.counting import format_count
from autocut.deploy.devices import device_named
from autocut.deploy.manifest import Manifest, TensorSignature
from autocut.deploy.serving import PORT, SERVE, runtime_lines, serving_code
from autocut.measure import allocator
from autocut.measurement import Accuracy, Latency, per_second
from autocut.recipe import Recipe

_KEEPING = " ".join(f"{name}={value}" for name, value in allocator.ENVIRONMENT.items())


def readme(model: Path, manifest: Manifest) -> str:
    """Return the README's Markdown for the model files in folder `model`."""
    parts = [
        _head(manifest),
        _how_to_run(model, manifest),
        _how_to_serve(model, manifest),
        _numbers(manifest),
        _price(manifest),
        _files(manifest),
    ]
    return "\n\n".join(parts) + "\n"


def _head(manifest: Manifest) -> str:
    trial = "" if manifest.trial is None else f", trial {manifest.trial}"
    return (
        f"# {manifest.task}: {Recipe(manifest.recipe).describe()}\n\n"
        f"A deployable model made by autocut{trial}: {manifest.dtype}, run by {manifest.mode}. "
        "Load it only if you trust who made it: a model is a program."
    )


def _how_to_run(model: Path, manifest: Manifest) -> str:
    names = ", ".join(f"`{_spelled(signature)}`" for signature in manifest.inputs)
    threads = manifest.measurement.cost.threads
    return (
        f"## Run it\n\nInputs: {names} ({_form(manifest)}); output: `{_spelled(manifest.output)}`; `n` is the batch"
        f"{_free(manifest)}.\n\n"
        "With autocut, which checks every hash first and does not need the code that trained the model:\n\n"
        f"```python\nimport autocut, torch\ntorch.set_num_threads({threads})\nmodel = autocut.load('.', threads={threads})\n"
        f"output = model({_autocut_inputs(manifest)})\n```\n\n"
        f"With the format's own runtime alone (versions it was made with: {_versions(manifest)}):\n\n"
        f"```python\n{runtime_lines(model, manifest, tuple(_zeros(manifest).values()), _arrays(manifest))}\n```\n\n"
        "Check it: `autocut verify .`"
    )


def _how_to_serve(model: Path, manifest: Manifest) -> str:
    code = serving_code(model, manifest)
    if code is None:
        return f"## Serve it\n\nThis bundle has no server: the code of {manifest.mode} above cannot be called again and again."
    one = len(manifest.inputs) == 1
    body = json.dumps({"inputs": "..." if one else {signature.name: "..." for signature in manifest.inputs}})
    gpus = "" if device_named(manifest).is_cpu else "--gpus all "
    tag = re.sub(r"[^a-z0-9]+", "-", manifest.task.lower()).strip("-") or "model"
    return (
        f"## Serve it\n\n`serve.py` answers HTTP with JSON, {_as_served(manifest)}, by the runtime alone. It checks neither hashes "
        "nor callers: put a server in front of it that does.\n\n"
        f"```bash\npip install {' '.join(code.requirements)}\npython {SERVE} --port {PORT}\n```\n\n"
        "Or in a container:\n\n"
        f"```bash\ndocker build -t {tag} .\ndocker run {gpus}-p {PORT}:{PORT} {tag}\n```\n\n"
        f'`GET /health` answers `{{"status": "ok"}}`; `POST /predict` takes `{body}` with nested lists, the batch first, and '
        'gives `{"output": ...}`.'
    )


def _as_served(manifest: Manifest) -> str:
    copies, threads = manifest.served_as
    if manifest.copies is None or copies == 1:
        return "one call at a time" + (
            "" if manifest.threads is None else f" with {format_count(threads, 'thread')}, which served most"
        )
    return (
        f"one call at a time in each of {copies} processes with {format_count(threads, 'thread')} (`--copies {copies}`), "
        "which served most on the machine below"
    )


def _numbers(manifest: Manifest) -> str:
    measurement = manifest.measurement
    accuracy, chosen_by = measurement.accuracy, manifest.validation
    whole = manifest.verification.split_examples
    examples = f"{accuracy.examples} of {format_count(whole, 'example')}" if whole else format_count(accuracy.examples, "example")
    rows = _accuracy_rows(manifest.metric, accuracy, examples)
    if chosen_by is not None:
        rows += _accuracy_rows(manifest.metric, chosen_by, format_count(chosen_by.examples, "example"), "; the search chose by it")
    for latency in measurement.cost.latencies:
        rows += _latency_rows(latency)
    rows += _capacity_rows(manifest)
    rows.append(
        f"| size | {measurement.cost.size_bytes / 1e6:.3f} MB | gzip: {measurement.cost.compressed_size_bytes / 1e6:.3f} MB |"
    )
    rows.append(
        f"| cold start (load and first call; compiled code may come from a cache) | {measurement.cost.cold_start_ms:.0f} ms | |"
    )
    if measurement.peak_memory_bytes is not None:
        of_what = "peak memory" if device_named(manifest).is_cpu else "peak memory of the GPU"
        rows.append(f"| {of_what} | {measurement.peak_memory_bytes / 2**20:.1f} MiB | |")
    rows += _energy_rows(manifest)
    trained = _trained(manifest)
    return (
        "## Its numbers\n\n| what | value | 95% interval |\n|---|---|---|\n"
        + "\n".join(rows)
        + f"\n\n{trained}Latencies are those of one process with {format_count(measurement.cost.threads, 'thread')} "
        f"on `{manifest.environment.machine}`{_on_gpu(manifest)}, seed {manifest.seed}. "
        "Another machine gives other latencies: `autocut remeasure .` measures them there. Processes kept the memory that they "
        f"freed, as with `autocut.load` and `serve.py`; in other programs, `{_KEEPING}` does that."
        + "".join(f"\n\n**Note:** {caveat.sentence}" for caveat in measurement.caveats)
    )


def _trained(manifest: Manifest) -> str:
    """Say how the model was trained, where that is not float32 on the CPU."""
    device = "" if manifest.trained_on is None else f" on {manifest.trained_on}"
    precision = "" if manifest.train_precision is None else f" in mixed precision ({manifest.train_precision})"
    return f"Trained{device}{precision}. " if device or precision else ""


def _on_gpu(manifest: Manifest) -> str:
    """Say which GPU was timed, and what a call is there."""
    gpu = manifest.served_on
    if gpu is None:
        return ""
    capability = "" if gpu.capability is None else f", compute capability {gpu.capability}"
    return f", on its GPU (`{gpu.name}`{capability}), with inputs that lie there and outputs that stay there"


def _accuracy_rows(metric: str, accuracy: Accuracy, examples: str, note: str = "") -> list[str]:
    value = accuracy.metric
    split = f"{accuracy.split}, {examples}{note}"
    rows = [f"| {metric} ({split}) | {value.value:.4f} | {value.low:.4f} to {value.high:.4f} |"]
    if (gap := accuracy.difference) is not None:
        rows.append(
            f"| its difference to the untouched model ({accuracy.split}) | {gap.value:+.4f} | {gap.low:+.4f} to {gap.high:+.4f} |"
        )
    return rows


def _energy_rows(manifest: Manifest) -> list[str]:
    joules, source = manifest.measurement.energy_j_per_prediction, manifest.measurement.energy_source
    if joules is None:
        return []
    rows = [f"| energy of a prediction ({source}) | {joules:.3g} J | |"]
    economics = manifest.economics
    if economics is not None and economics.co2_g_per_million is not None:
        grid = f"{economics.grid_g_per_kwh:g} g per kWh: {economics.grid_source}"
        rows.append(f"| CO2 of a million predictions ({grid}) | {economics.co2_g_per_million:.3g} g | |")
    return rows


def _latency_rows(latency: Latency) -> list[str]:
    batch, speedup = f"batch {latency.batch_size}", latency.speedup
    return [
        f"| p50 latency, {batch} | {latency.p50_ms.value:.4g} ms | {latency.p50_ms.low:.4g} to {latency.p50_ms.high:.4g} |",
        f"| speed against the untouched model, {batch} | {speedup.value:.2f}x | {speedup.low:.2f} to {speedup.high:.2f} |",
    ]


def _capacity_rows(manifest: Manifest) -> list[str]:
    capacity = manifest.measurement.capacity
    if capacity is None:
        return []
    rows = []
    for known, whose in ((capacity.layouts, ""), (capacity.untouched, ", untouched model")):
        for layout in known:
            per_s, name = layout.per_s, f"whole machine, batch {capacity.batch_size}, {layout}{whose}"
            rows.append(f"| {name} | {per_second(per_s.value)} | {per_second(per_s.low)} to {per_second(per_s.high)} |")
    return rows


def _price(manifest: Manifest) -> str:
    economics = manifest.economics
    if economics is None:
        return "## Its price\n\nNo price was given when it was exported."
    charged = manifest.measurement.charged_by
    told = [*economics.bill.lines, *([economics.price_fit] if economics.price_fit else [])]
    return (
        f"## Its price\n\nOn {economics.instance} at ${economics.price_per_hour:g} per hour (price of {economics.price_date}, "
        f"utilization {economics.utilization:.0%}). {charged[0].upper()}{charged[1:]}. "
        "What the search cost is what it had spent when this bundle was made.\n\n"
        + "\n".join(f"- {line[0].upper()}{line[1:]}." for line in told)
    )


def _files(manifest: Manifest) -> str:
    claim, split = manifest.verification, manifest.measurement.accuracy.split
    examples = format_count(claim.examples, "example")
    step = claim.outputs_step
    large = (
        "" if step is None else f" The outputs are large, so it keeps one value in {step}: `output.reshape(n, -1)[:, ::{step}]`."
    )
    data = (
        f"**`examples.npz` holds real data**: {examples} of the {split} split with their targets. Who gets this folder gets them."
    )
    if claim.synthetic:
        data = f"`examples.npz` holds no real data: the inputs of its {examples} are synthetic, their targets are zero."
    return (
        "## Its files\n\n`manifest.json` holds the recipe, the measurement, the machine, the command and the SHA-256 of every "
        "file; `examples.npz` inputs, targets and this model's outputs; `model/` what the runtime loads; "
        "`serve.py` and `Dockerfile`, if there, what serves it.\n\n"
        f"{data}{large}"
    )


def _form(manifest: Manifest) -> str:
    return {"tensor": "one tensor", "tuple": "a tuple of tensors", "dict": "a dict of tensors"}[manifest.structure]


def _spelled(signature: TensorSignature) -> str:
    return f"{signature.name}: {signature.dtype}[{', '.join('n' if size is None else str(size) for size in signature.shape)}]"


def _free(manifest: Manifest) -> str:
    """Say which dimensions may differ from call to call, and at which sizes the latency was measured."""
    names = dict.fromkeys(size for signature in manifest.inputs for size in signature.shape if isinstance(size, str))
    if not names:
        return ""
    listed = ", ".join(f"`{name}`" for name in names)
    timed = "; ".join(
        f"batch {batch} at {', '.join(f'{name} {size}' for name, size in sizes.items())}"
        for batch, sizes in (manifest.timed_sizes or {}).items()
    )
    return f". Free from call to call: {listed}" + (f" (latency is that of a median length: {timed})" if timed else "")


def _shape(signature: TensorSignature, manifest: Manifest) -> str:
    sizes = next(iter((manifest.timed_sizes or {}).values()), {})
    return repr(tuple(size if isinstance(size, int) else sizes.get(size or "", 1) for size in signature.shape))


def _arrays(manifest: Manifest) -> tuple[str, ...]:
    return tuple(f"np.zeros({_shape(signature, manifest)}, np.{signature.dtype})" for signature in manifest.inputs)


def _zeros(manifest: Manifest) -> dict[str, str]:
    return {
        signature.name: f"torch.zeros({_shape(signature, manifest)}, dtype=torch.{signature.dtype})"
        for signature in manifest.inputs
    }


def _autocut_inputs(manifest: Manifest) -> str:
    zeros = _zeros(manifest)
    if manifest.structure == "dict":
        return "{" + ", ".join(f"{name!r}: {zero}" for name, zero in zeros.items()) + "}"
    return next(iter(zeros.values())) if manifest.structure == "tensor" else f"({', '.join(zeros.values())},)"


def _versions(manifest: Manifest) -> str:
    return ", ".join(f"{name} {version}" for name, version in manifest.environment.libraries.items())
