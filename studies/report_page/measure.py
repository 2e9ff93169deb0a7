"""How large the report of a long study is, how long it takes to write, and how long a browser takes to open it.

The study is made through the study's own functions with made-up measurements, because a thousand real trials take a night.

    python studies/report_page/measure.py --trials 1000

It needs Chromium and playwright (`pip install 'autocut[test]'`).
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from playwright.sync_api import sync_playwright

import autocut
from autocut.commands.report import recommend
from autocut.measurement import Accuracy, Cost, Interval, Latency, Measurement
from autocut.recipe import UNTOUCHED, Recipe
from autocut.report.page import render
from autocut.study import Study, create_study

OBJECTIVES = {"accuracy": "maximize", "usd_per_million": "minimize", "size_bytes": "minimize"}
SPEEDS = {"fp32": 1.0, "bf16": 1.3, "int8_static": 2.8, "eager": 1.0, "onnxruntime": 1.6, "openvino": 1.8}
EXAMPLES = 2000
BASELINE_MS = 4.0
OPENINGS = 7


def main() -> None:
    """Make the study, write its report, open it, and print a table."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--trials", type=int, default=1000)
    arguments.add_argument("--keep", type=Path, help="copy the report to this file")
    asked = arguments.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        study = made_study(Path(scratch) / "made", asked.trials)
        started = time.perf_counter()
        recommended, _ = recommend(study)
        html = render(study, recommended, version=autocut.__version__)
        seconds = time.perf_counter() - started
        file = Path(scratch) / "report.html"
        file.write_text(html, encoding="utf-8")
        print(f"trials {len(study.trials())}, on the front {len(study.front())}")
        print(f"written in {seconds:.2f} s, {len(html.encode()) / 1e6:.2f} MB")
        for name, found in opened(file.as_uri()).items():
            print(f"{name:<28}{statistics.median(found):5.2f} s  (median of {len(found)}, at most {max(found):.2f})")
        if asked.keep:
            shutil.copy(file, asked.keep)
        study.close()


def opened(address: str) -> dict[str, list[float]]:
    """Return seconds from the start of the navigation to three moments, for each of several openings in fresh contexts."""
    moments: dict[str, list[float]] = {"answer and table readable": [], "first paint": [], "plots drawn": []}
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for _ in range(OPENINGS):
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            started = time.perf_counter()
            page.goto(address, wait_until="commit")
            page.wait_for_selector("html.drawn", state="attached")
            moments["plots drawn"].append(time.perf_counter() - started)
            paint = page.evaluate("performance.getEntriesByType('paint').map(entry => entry.startTime)[0]")
            ready = page.evaluate("performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd")
            moments["first paint"].append(paint / 1e3)
            moments["answer and table readable"].append(ready / 1e3)
            page.close()
        browser.close()
    return moments


def made_study(folder: Path, count: int, seed: int = 0) -> Study:
    """Return a study of `count` trials: a tenth ended early, and the front is finalized."""
    rng = np.random.default_rng(seed)
    study = create_study(folder, name="made", task_fingerprint="made", space_json="{}", objectives=OBJECTIVES, seed=seed)
    session = study.begin_session("autocut search task.py --budget 8h", {"autocut": autocut.__version__})
    for step in range(count):
        recipe = UNTOUCHED if step == 0 else made_recipe(rng)
        if step and rng.uniform() < 0.1:
            study.fail(None, recipe, {}, {}, f"beaten at epoch {step % 7 + 1} of 8: 0.{step} against 0.93", "PRUNED")
        else:
            values, measurement = made_measurement(recipe, rng, "validation")
            study.complete(
                None, recipe, {}, {}, values, measurement, {"accuracy>=0.85": 0.85 - values["accuracy"]}, is_baseline=not step
            )
        session.beat((step + 1) * 28.0, {"training": step * 18.0, "measuring": step * 8.0, "starting": 9.0})
    for point in [*study.front(), study.points()[0]]:
        values, measurement = made_measurement(point.recipe, rng, "test")
        study.record_final(point.trial, measurement, values, bundle=None, bundle_sha256=None, verified=True)
    return study


def made_recipe(rng: np.random.Generator) -> Recipe:
    """Return a recipe with every kind of knob, so that its description is as long as real ones are."""
    return Recipe(
        {
            "prune.method": "structured",
            "prune.ratio": round(float(rng.uniform(0.05, 0.9)), 3),
            "train.epochs": int(rng.integers(1, 9)),
            "train.lr_scale": round(float(rng.uniform(0.2, 2)), 2),
            "distill.loss": "kl",
            "distill.temperature": round(float(rng.uniform(1, 8)), 1),
            "distill.alpha": round(float(rng.uniform(0.1, 1)), 2),
            "quantize.dtype": str(rng.choice(["fp32", "bf16", "int8_static"])),
            "compile.mode": str(rng.choice(["eager", "onnxruntime", "openvino"])),
        }
    )


def made_measurement(recipe: Recipe, rng: np.random.Generator, split: str) -> tuple[dict[str, float], Measurement]:
    """Return values like real ones: pruning loses accuracy, and a dtype and a mode multiply the speed."""
    ratio = float(recipe.get("prune.ratio", 0.0))
    accuracy = float(np.clip(0.94 - 0.12 * ratio**3 + rng.normal(0, 0.004), 0, 1))
    speed = float((1 + 3 * ratio) * SPEEDS[recipe.lowering[0]] * SPEEDS[recipe.lowering[1]] * np.exp(rng.normal(0, 0.02)))
    half = 1.96 * (accuracy * (1 - accuracy) / EXAMPLES) ** 0.5
    spread = Interval(speed, 0.97 * speed, 1.03 * speed)
    p50 = Interval(BASELINE_MS / speed, BASELINE_MS / speed / 1.03, BASELINE_MS / speed / 0.97)
    latency = Latency(1, 64, p50, None, None, BASELINE_MS, spread, 0.8)
    size = 1_000_000 * (1 - ratio) / (3.5 if recipe.lowering[0] == "int8_static" else 1)
    metric = Interval(accuracy, max(0.0, accuracy - half), min(1.0, accuracy + half))
    measured = Accuracy(split, EXAMPLES, metric, Interval(accuracy - 0.94, accuracy - 0.94 - half, accuracy - 0.94 + half), 0.2)
    values = {
        "accuracy": accuracy,
        "usd_per_million": 0.1 / speed,
        "latency_ms": p50.value,
        "size_bytes": size,
        "train_usd": 0.0003 * int(recipe["train.epochs"]),
        "speedup": speed,
    }
    return values, Measurement(measured, Cost((latency,), int(size), int(size), 1, 20.0, "made up"))


if __name__ == "__main__":
    main()
