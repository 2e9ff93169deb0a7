"""The part of `autocut check` that looks at targets over whole splits: one target everywhere, classes that train never has.

Files are often sorted by class. Cut without shuffling, they give splits that lack classes, and every number of the search would be
wrong without a word: a constant answer is right on a split of one class.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from autocut.counting import format_count
from autocut.errors import AutocutError, Fault
from autocut.task.kinds import Meaning, kinds
from autocut.task.splits import Overview
from autocut.task.task import Task

_NEW = 0.01
"""Share of validation that may have classes that train lacks. Rare classes do so by chance."""
_NAMED = 5


def target_faults(task: Task, views: Mapping[str, Overview]) -> Iterator[Fault]:
    """A split whose targets are all the same; a validation split with many examples of classes that train lacks."""
    if task.kind not in kinds or not _is_read(task):
        return
    constant = [name for name, view in views.items() if view.is_constant and len(view.inputs) > 1]
    for name in constant:
        view = views[name]
        yield Fault(
            f"task.{name} must hold more than one target, got {_constant(view)} in all {format_count(len(view.inputs), 'example')}",
            "a constant answer is right everywhere there: shuffle before you split; files are often sorted by class",
        )
    new, share = _new_classes(task, views)
    if new and not constant and share > _NEW and task.validation is not None and not _is_pretrained(task):
        examples = format_count(sum(new.values()), "example")
        yield Fault(
            f"task.validation must hold the classes of task.train, got {examples} of {_some(new)}",
            "shuffle before you split; files are often sorted by class",
        )


def class_remarks(task: Task, views: Mapping[str, Overview]) -> Iterator[str]:
    """Classes of validation that train lacks, where that is no fault."""
    new, _ = _new_classes(task, views)
    if new:
        told = format_count(sum(new.values()), "example")
        yield f"task.validation has {told} of {_some(new)}, which task.train never has: training can only forget them"


def _is_read(task: Task) -> bool:
    """Whether the kind's own loss or metric reads the targets. Functions of one's own may need none."""
    known = (Meaning.CLASSES, Meaning.LABELS, Meaning.NUMBERS)
    return task.metric_kind.meaning in known and (task.loss is None or task.metric is None)


def _constant(view: Overview) -> str:
    """Name the target that all examples have, where it is short and not of the locked split."""
    target = view.first_target
    return "the same one" if target is None or target.numel() != 1 else f"{target.item():g}"


def _new_classes(task: Task, views: Mapping[str, Overview]) -> tuple[dict[int, int], float]:
    """Count the examples of validation by class, those of classes that train lacks, and return their share."""
    kind = kinds[task.kind]() if task.kind in kinds else None  # its name is checked elsewhere
    has_one_class = kind is not None and kind.meaning is Meaning.CLASSES and len(kind.logits_shape or ()) == 2
    if not has_one_class or not {"train", "validation"} <= views.keys():
        return {}, 0.0
    known, asked = views["train"].classes, views["validation"].classes
    new = {name: count for name, count in sorted(asked.items()) if name not in known} if known else {}
    return new, sum(new.values()) / max(1, sum(asked.values()))


def _is_pretrained(task: Task) -> bool:
    """Whether the model brings its weights: train may then be a part of what it was trained with."""
    try:
        return task.is_pretrained
    except AutocutError:
        return False  # the check of the model reports it


def _some(new: Mapping[int, int]) -> str:
    """Name the classes, the first few of many."""
    named = ", ".join(map(str, list(new)[:_NAMED]))
    return f"{'class' if len(new) == 1 else 'classes'} {named}" + (" and others" if len(new) > _NAMED else "")
