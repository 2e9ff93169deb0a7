"""How few rounds of slow models are enough? Rounds are recorded once, and the rules are replayed on them.

A form of a task's untouched model takes turns with the model itself, many rounds. Then each rule measures from every round on, as
if a timing had begun there: "six" takes six rounds, "three" ends after three, four or five where Student's interval is narrow.
The truth is the median of all rounds. `--made-up` replays the rules on random numbers instead, where the truth is known.

    python studies/timing/few_rounds.py studies/large_models/resnet50.py int8_static onnxruntime --batch 32 --rounds 40
    python studies/timing/few_rounds.py --made-up
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from autocut.measure.allocator import keep_memory
from autocut.measure.latency import ratio_of_medians, relative_width
from autocut.measure.turns import Times, time_interleaved
from autocut.pipeline.measuring_stages import run_eagerly
from autocut.pipeline.samples import Samples
from autocut.stages import lowering
from autocut.task.loading import load_task

NARROW, SIX = 0.05, 6
_DRAWS = 20_000
_MADE_UP = {
    "normal, 0.5%": lambda rng, shape: rng.normal(0, 0.005, shape),
    "normal, 1%": lambda rng, shape: rng.normal(0, 0.01, shape),
    "normal, 2%": lambda rng, shape: rng.normal(0, 0.02, shape),
    "normal, 4%": lambda rng, shape: rng.normal(0, 0.04, shape),
    "0.3%, one in ten 5% slower": lambda rng, shape: rng.normal(0, 0.003, shape) + 0.05 * (rng.random(shape) < 0.1),
}


def record(task_file: Path, pair: tuple[str, str], batch: int, rounds: int) -> dict[str, Times]:
    """Time `rounds` rounds of the untouched model and of its form in `pair`, each called once a round."""
    task = load_task(task_file)
    samples, model = Samples(task, 0), task.model().eval()
    with tempfile.TemporaryDirectory() as folder:
        lowering.lower(model, *pair, samples.calibration, Path(folder), batch_sizes=(batch,), dynamic=task.dynamic)
        candidate, baseline = lowering.load(Path(folder), pair[1]), run_eagerly(model)
    keep_memory()
    inputs = samples.serving_inputs(batch)
    calls = {"candidate": lambda: candidate(inputs), "baseline": lambda: baseline(inputs)}
    for call in calls.values():
        call()
    return time_interleaved(calls, rounds, np.random.default_rng(0), once=calls)


def windows(times: dict[str, Times]) -> Iterator[tuple[Times, Times]]:
    """Yield six rounds from each round on, baseline and candidate."""
    for start in range(len(times["baseline"]) - SIX + 1):
        yield times["baseline"][start : start + SIX], times["candidate"][start : start + SIX]


def replay(measurements: Iterator[tuple[Times, Times]], fewest: int, truth: float) -> str:
    """Measure each of `measurements` by the rule: rounds end where the interval is narrow, from `fewest` on, or at six."""
    rounds, held, errors = [], [], []
    for baseline, candidate in measurements:
        for n in range(fewest, SIX + 1):
            found = ratio_of_medians(baseline[:n], candidate[:n])
            if n == SIX or relative_width(found) <= NARROW:
                break
        rounds.append(n)
        held.append(found.low <= truth <= found.high)
        errors.append(abs(np.log(found.value / truth)))
    held_share, error = float(np.mean(held)), float(np.quantile(errors, 0.95))
    return f"{np.mean(rounds):.2f} rounds, holds the truth in {held_share:.1%}, 95% are off by {error:.2%} at most"


def made_up(noise: NDArray[np.float64]) -> Iterator[tuple[Times, Times]]:
    """Yield measurements of two equal models whose ratios have `noise`, of shape (measurements, six), around one."""
    for row in np.exp(noise):
        yield row, np.ones_like(row)


def main() -> None:
    """Print a line for each rule."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", type=Path, nargs="?")
    parser.add_argument("pair", nargs="*", help="dtype and mode")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--made-up", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.made_up:
        for name, draw in _MADE_UP.items():
            noise = draw(np.random.default_rng(0), (_DRAWS, SIX))
            truth = float(np.exp(np.median(draw(np.random.default_rng(1), 10**6))))
            for rule, fewest in (("six", SIX), ("three", 3)):
                print(f"{name:<28} {rule:<6} {replay(made_up(noise), fewest, truth)}", flush=True)
        return
    times = record(asked.task, (asked.pair[0], asked.pair[1]), asked.batch, asked.rounds)
    ratios = times["baseline"] / times["candidate"]
    spread, round_s = float(np.log(ratios).std(ddof=1)), sum(map(np.median, times.values())) / 1e3
    print(f"a round takes {round_s:.2f} s; ratio {np.median(ratios):.3f}, rounds differ by {spread:.2%}")
    for rule, fewest in (("six", SIX), ("three", 3)):
        print(f"{rule:<6} {replay(windows(times), fewest, float(np.median(ratios)))}")


if __name__ == "__main__":
    main()
