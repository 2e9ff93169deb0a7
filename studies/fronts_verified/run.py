"""Does every bundle keep its claims? Verifies the bundles of studies, each in a fresh process: of the front, and beaten ones.

    python studies/fronts_verified/run.py STUDY...

`autocut verify` judges: it replays the examples of a bundle, compares outputs and accuracy with the claim, and times the model.
This adds what it does not ask: how far an accuracy is from the claimed one, in the digits that are printed, and whether the
interval of the latency found here overlaps with the claimed one, although other work may lie between them.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Claim = Mapping[str, str | bool]
_WORD = re.compile(r"was claimed: (as|faster|slower) ")
_DEVIATION = re.compile(r"deviate by ([\d.e+-]+)")


@dataclass(frozen=True)
class Verified:
    """What `autocut verify` said of one bundle.

    `deviation` is the largest distance of an accuracy from its claim, `outputs` the largest deviation of an output relative to the
    largest one. `latencies` has a word for each batch size: "overlaps" where the interval found overlaps with the claimed one, as
    measured or corrected by the reference workload that is timed beside it; else "faster" or "slower".
    """

    trial: int
    ok: bool
    deviation: float
    outputs: float
    latencies: tuple[str, ...]
    failed: tuple[str, ...]


def main() -> None:
    """Verify the bundles of every study that is named, and print a line a study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="+", type=Path)
    bundles = [report(folder) for folder in parser.parse_args().studies]
    every = [one for of_study in bundles for one in of_study]
    print(f"all: {count(every)} bundles verify in fresh processes")
    sys.exit(0 if every and all(one.ok for one in every) else 1)


def report(folder: Path) -> Sequence[Verified]:
    """Verify the bundles of one study, and print what was found."""
    points = [point for point in autocut("front", str(folder), "--all", "--json")["points"] if point["bundle"]]
    front = {point["trial"] for point in autocut("front", str(folder), "--json")["points"]}
    found = [read(point["trial"], autocut("verify", str(point["bundle"]), "--json")) for point in points]
    for one in found:
        for message in one.failed:
            print(f"{folder.name}, trial {one.trial}: {message}")
    latencies = Counter(word for one in found for word in one.latencies)
    accuracy, outputs = (max((getattr(one, name) for one in found), default=0.0) for name in ("deviation", "outputs"))
    on_front = [one for one in found if one.trial in front]
    print(f"{folder.name}: {count(on_front)} bundles of the front verify, {count(found)} of all")
    print(f"  largest deviation of an accuracy {accuracy:.1g}, of an output {outputs:.1g}")
    words = f"{latencies['overlaps']} of {latencies.total()} overlap with the claim"
    print(f"  latency intervals: {words}, {latencies['faster']} are faster, {latencies['slower']} slower")
    return found


def count(found: Sequence[Verified]) -> str:
    """Say how many verify."""
    return f"{sum(one.ok for one in found)} of {len(found)}"


def read(trial: int, document: Mapping[str, Any]) -> Verified:
    """Read the document of `autocut verify --json`."""
    checks: Sequence[Claim] = document["checks"]
    accuracies = [
        abs(float(check["found"]) - float(check["claim"]))
        for check in checks
        if str(check["name"]).startswith("accuracy") and check["claim"] != "not claimed"
    ]
    outputs = [float(found[1]) for check in checks if (found := _DEVIATION.search(str(check["message"])))]
    latencies = [
        latency_word(str(check["message"]))
        for check in checks
        if str(check["name"]).startswith("latency") and "[" in str(check["found"])
    ]
    return Verified(
        trial,
        bool(document["ok"]),
        max(accuracies, default=0.0),
        max(outputs, default=0.0),
        tuple(latencies),
        tuple(str(check["message"]) for check in checks if not check["ok"]),
    )


def latency_word(message: str) -> str:
    """Say how the interval of a latency relates to the claimed one, in the way of `Verified.latencies`; `verify` has judged it."""
    found = _WORD.search(message)
    if found is None:
        raise ValueError(f"no verdict in {message!r}")
    return "overlaps" if found[1] == "as" else found[1]


def autocut(*words: str) -> dict[str, Any]:
    """Run a command of autocut in a process of its own, and return its document."""
    done = subprocess.run([sys.executable, "-m", "autocut", *words], stdout=subprocess.PIPE, text=True, check=False)
    document: dict[str, Any] = json.loads(done.stdout)
    return document


if __name__ == "__main__":
    main()
