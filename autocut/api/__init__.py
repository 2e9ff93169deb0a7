"""autocut from Python: search, check, choose, export and verify in a few typed calls.

    import autocut

    if __name__ == "__main__":
        study = autocut.search("task.py", budget="8h")
        chosen = study.select(max_accuracy_drop=0.01)
        study.explain(chosen.point)
        study.report("report.html")
        study.export(chosen.point, "out/")
    model = autocut.load("out/")

What computes runs as a command of autocut in a process of its own (`command`), by the JSON documents of `autocut.schemas`. So a
notebook keeps its threads, its signal handlers and its memory, and a study names a command that a shell can repeat. What only reads
a study runs in the calling process. Options that are left out come from `AUTOCUT_*` and `autocut.toml`, as on the command line.
"""

from __future__ import annotations

from autocut.api.calls import check, compare, remeasure, search, verify
from autocut.api.opened_study import OpenedStudy, open_study

__all__ = ["OpenedStudy", "check", "compare", "open_study", "remeasure", "search", "verify"]
