"""Counts the trials per hour of one, two and four simulated nodes, and looks whether two workers of a node ever timed at once.

Trials count until the first bundle is finalized.

python studies/nodes/run.py --nodes 1 2 4 --budget 3m
python studies/nodes/run.py --nodes 1 2 4 --budget 5m --space space.toml
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from simulated import intervals, overlaps, simulated_cluster
from trial_rate import ends_of, rate

HERE = Path(__file__).parent


def search(address: str, folder: Path, budget: str, space: str) -> Path:
    """Search, and return the study's folder."""
    study = folder / "study"
    command = [
        sys.executable, "-m", "autocut", "search", str(HERE / "task.py"), "--budget", budget, "--space", str(HERE / space),
        "--out", str(study), "--ray-address", address, "--stages", str(folder / "shared"), "--price-per-hour", "0.1",
    ]  # fmt: skip
    subprocess.run(command, check=False, stdout=subprocess.DEVNULL)
    return study


def measure(nodes: int, budget: str, epoch_s: float, space: str) -> dict[str, float]:
    """Search on `nodes` nodes, and say what came of it."""
    with tempfile.TemporaryDirectory(prefix="nodes-") as name:
        folder = Path(name)
        with simulated_cluster(nodes, folder, environment={"NODES_EPOCH_S": str(epoch_s)}) as cluster:
            study = search(cluster.address, folder, budget, space)
        ends, finalized = ends_of(study)
        per_hour, trials = rate(ends, finalized)
        found = [intervals(folder / f"locks-{number}") for number in range(nodes)]
        alone = sum(map(len, found))
        return {
            "nodes": nodes,
            "trials": trials,
            "later": len(ends) - trials,
            "per_hour": round(per_hour),
            "alone": alone,
            "overlaps": sum(map(len, map(overlaps, found))),
        }


def main() -> None:
    """Print one line for each number of nodes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--budget", default="3m")
    parser.add_argument("--space", default="rates.toml", help="a file beside this one")
    parser.add_argument("--epoch-s", type=float, default=8.0)
    options = parser.parse_args()
    first = None
    for nodes in options.nodes:
        row = measure(nodes, options.budget, options.epoch_s, options.space)
        first = first or row["per_hour"]
        print(json.dumps({**row, "times_the_first": round(row["per_hour"] / first, 2) if first else None}), flush=True)


if __name__ == "__main__":
    main()
