"""Draw hypervolume over time, all strategies in one picture with quartile bands, from what `replay.py` kept.

python studies/search_efficiency/plot.py digits --budget 10m
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib as mpl
import numpy as np
from replay import GRID, TABLES, Setting

from autocut.budget import parse_duration

mpl.use("Agg")
from matplotlib import pyplot as plt

HERE = Path(__file__).parent


def main() -> None:
    """Read the runs, draw, write the PNG beside this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=TABLES)
    parser.add_argument("--budget", default="10m")
    arguments = parser.parse_args()
    by_name: dict[str, list[list[float]]] = {}
    for run in json.loads(Setting(arguments.task, arguments.budget).kept.read_text()):
        by_name.setdefault(run["strategy"], []).append(run["volumes"])
    minutes = np.linspace(0, parse_duration(arguments.budget) / 60, GRID + 1)[1:]
    figure, axes = plt.subplots(figsize=(10, 6))
    styles = ["-", "--", "-.", ":"]
    for number, (name, volumes) in enumerate(by_name.items()):
        low, middle, high = np.percentile(100 * np.array(volumes), [25, 50, 75], axis=0)
        color = f"C{number % 10}"
        axes.plot(minutes, middle, styles[number // 10], color=color, label=name, linewidth=2.4 if name == "autocut" else 1.3)
        axes.fill_between(minutes, low, high, color=color, alpha=0.15, linewidth=0)
    seeds = " or ".join(str(count) for count in sorted({len(volumes) for volumes in by_name.values()}))
    axes.set_xlabel("minutes of the budget (simulated, two workers)")
    axes.set_ylabel("hypervolume, % of the whole table's")
    axes.set_title(f"{arguments.task}: medians and quartiles of {seeds} seeds")
    axes.set_xlim(0, minutes[-1])
    axes.set_ylim(0, 102)
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize=8, loc="lower right")
    figure.tight_layout()
    target = HERE / f"{arguments.task}-{arguments.budget}.png"
    figure.savefig(target, dpi=110)
    print(target.name)


if __name__ == "__main__":
    main()
