"""What a process finds that loads a task as a worker does: in another process and folder than the check of that task.

    python -m autocut.task.worker FOLDER [TASK]

FOLDER has the pickled model in `MODEL`; what was found is written there as JSON into `ANSWER`.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
from pathlib import Path

import torch

from autocut.errors import AutocutError
from autocut.task.task import load_task

MODEL, ANSWER = "model.pickle", "answer.json"


def load_as_worker(folder: Path, path: str | None) -> dict[str, str]:
    """Work in `folder`, load the task file `path` (None: the embedded digits task) and the pickled model that lies there.

    Returns:
        The task's ``fingerprint``, or the ``error`` that a worker would end with.
    """
    os.chdir(folder)
    torch.set_num_threads(1)  # as wherever a task is loaded: the last bits of what it computes may depend on it
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
