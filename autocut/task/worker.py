"""Loads a task as a worker does, in another process and another folder than the check of that task.

    python -m autocut.task.worker FOLDER [TASK]

FOLDER holds the pickled model in `MODEL`. The answer is written there as JSON, in `ANSWER`.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
from pathlib import Path

import torch

from autocut.errors import AutocutError
from autocut.task.loading import load_task

MODEL, ANSWER = "model.pickle", "answer.json"


def load_as_worker(folder: Path, path: str | None) -> dict[str, str]:
    """Change to `folder`, load the task file `path` (None: the embedded digits task), and load the pickled model in `folder`.

    Returns:
        The ``fingerprint`` of the task, or the ``error`` with which a worker would end.
    """
    os.chdir(folder)
    torch.set_num_threads(1)  # as in every process that loads a task: the last bits of its data may depend on the threads
    try:
        fingerprint = load_task(path).fingerprint
        pickle.loads(Path(MODEL).read_bytes())
    except AutocutError as error:
        return {"error": error.message}
    except Exception as error:
        # Loading runs the user's code, which may raise anything.
        return {"error": f"{type(error).__name__}: {error}"}
    return {"fingerprint": fingerprint}


def main(folder: str, path: str | None = None) -> None:
    """Load, and write the answer."""
    found = load_as_worker(Path(folder), path)
    Path(folder, ANSWER).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
