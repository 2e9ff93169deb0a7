"""The conditions of a study, which each of its searches keeps: numbers that were made under others are not compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autocut.config import LARGEST_DROP, SearchConfig
from autocut.errors import StudyError, shortened
from autocut.measure import allocator
from autocut.measurement import COUNTED_CALL, EARLIER_COUNTED_CALL
from autocut.pipeline.signing import sign_task
from autocut.precision import CONTIGUOUS, FULL, PLAIN, TrainingWay
from autocut.study import Study


def max_drop(begun: Mapping[str, Any], config: SearchConfig) -> float | None:
    """Return the largest accuracy drop of a study: what it was begun with, for a new one what the user asks for.

    Args:
        begun: The facts of the study; a study of an older version has none about this, and goes on without a limit.
        config: What was asked for.

    Raises:
        StudyError: the study was begun with another one.
    """
    asked = config.max_accuracy_drop
    if "limits" not in begun:
        return LARGEST_DROP if asked is None else asked
    known: float | None = begun.get("max_accuracy_drop")
    if asked not in (None, known):
        told = "without --max-accuracy-drop" if known is None else f"with --max-accuracy-drop {100 * known:g}%"
        raise StudyError(
            f"study was begun {told}, got {100 * asked:g}%", "leave it as it was, or search into another folder: --out"
        )
    return known


def check_same_conditions(
    study: Study, known: Mapping[str, Any], price: dict[str, object], config: SearchConfig, training: TrainingWay = PLAIN
) -> None:
    """Refuse to mix numbers: a study has one price, one number of threads, one seed, one set of limits.

    It has one device that trains, in one way (`training`), and one that serves too, one way to treat the memory of timed models
    (`measure/allocator.py`), and one call of a turn that counts (`measure/latency.py`).
    `known` are its facts. A study without a result has none that count: a start has failed.

    Raises:
        StudyError: it was begun with others.
    """
    asked = {"price": price, "threads": config.threads, "seed": config.seed, "limits": list(config.limits)}
    if "threads" in known:
        # An earlier autocut used nothing else, and said nothing.
        earlier = {"timed_memory": allocator.GIVEN_BACK, "counted_call": EARLIER_COUNTED_CALL}
        known = {
            "train_on": "cpu",
            "train_precision": FULL,
            "train_memory_format": CONTIGUOUS,
            "serve_on": "cpu",
            **earlier,
            **known,
        }
    asked |= {"train_on": config.train_on, "train_precision": training.precision, "train_memory_format": training.memory_format}
    asked |= {"serve_on": config.serve_on}
    asked |= {"timed_memory": allocator.KEPT, "counted_call": COUNTED_CALL}
    for name, value in asked.items():
        if name in known and known[name] != value:
            raise StudyError(
                f"study {study.folder} was begun with {name} {shortened(str(known[name]))}, got {shortened(str(value))}",
                "leave it as it was, or search into another folder: --out",
            )
    # `autocut export` keeps to it too.
    signature = sign_task(config.task_path, study.task_fingerprint)
    task = {"task_path": config.task_path, "task_signature": signature}
    study.describe({**asked, **task, "space": config.space, "share_examples": config.examples})
