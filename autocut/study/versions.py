"""Versions of the libraries that made a study's stages. Numbers of two versions are not mixed.

A speed-up refers to the untouched model's latency, which a study measures once: under another torch it is another one. And the key
of every stage names these libraries, present or not. So where one of them changes, comes or goes, a study would make all of its
stages again, and hand out models that it has not measured. What a compile mode needs for itself alone is in the keys of its own
stages: it is a condition of the trials of that mode, and of no other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version

from autocut.counting import format_count
from autocut.errors import StudyError
from autocut.study.emptiness import is_empty
from autocut.study.study import Study
from autocut.study.trials import TrialRecord

_FACT, _FACT_OF_MODES = "libraries", "mode_libraries"
_RUN_THE_SEARCH = {"autocut", "python", "optuna", "ray"}
"""What the ledger names too, but no stage depends on."""

Versions = Mapping[str, str | None]
"""By the name of a distribution; None where it is not installed."""


def keep_to_libraries(study: Study, installed: Mapping[str, str], of_modes: Mapping[str, Versions]) -> None:
    """Check the versions that are installed, as `check_libraries` does, and write them down; any fit a study without a result."""
    if not is_empty(study):
        check_libraries(study, installed, of_modes, study.trials(), "or search into another folder: --out")
    study.describe({_FACT: dict(installed), _FACT_OF_MODES: {mode: dict(versions) for mode, versions in of_modes.items()}})


def check_libraries(
    study: Study,
    installed: Mapping[str, str],
    of_modes: Mapping[str, Versions],
    trials: Iterable[TrialRecord],
    otherwise: str,
) -> None:
    """Refuse to work on a study whose stages other versions have made.

    A study of an earlier autocut wrote down the versions of its runs alone, and not of every library.

    Args:
        study: The study.
        installed: The libraries that the key of every stage names.
        of_modes: By compile mode, the libraries that the keys of its stages alone name.
        trials: The trials whose models will be worked with. Each needs the libraries of its compile mode.
        otherwise: What else the user may do, for the hint.

    Raises:
        StudyError: a version differs, a library has come or gone, or the runs of an earlier autocut had several versions.
    """
    facts = study.facts
    if _FACT in facts:
        _require_same(study, facts[_FACT], installed, "", otherwise)
    else:
        own = {name for versions in of_modes.values() for name in versions}
        known = _of_sessions(study, lambda name: name in installed or (name not in own and _is_gone(name)))
        _require_same(study, known, _only(known, installed), "", otherwise)
    used = Counter(trial.recipe.lowering[1] for trial in trials if trial.recipe is not None and trial.measured is not None)
    for mode in of_modes.keys() & used.keys():
        subject = f"for its {format_count(used[mode], 'trial') if used[mode] > 1 else 'trial'} by {mode} "
        if mode in facts.get(_FACT_OF_MODES, {}):
            _require_same(study, facts[_FACT_OF_MODES][mode], of_modes[mode], subject, otherwise)
        else:
            known = _of_sessions(study, of_modes[mode].__contains__)
            _require_same(study, known, _only(known, of_modes[mode]), subject, otherwise)


def _only(known: Versions, here: Versions) -> Versions:
    """Leave out what the runs of an earlier autocut did not name: it may have been there, but no method required it then."""
    return {name: here.get(name) for name in known}


def _require_same(study: Study, known: Versions, here: Versions, subject: str, otherwise: str) -> None:
    changed = [name for name in dict.fromkeys([*here, *known]) if known.get(name) != here.get(name)]
    if not changed:
        return
    made, got = (", ".join(_named(name, versions.get(name)) for name in changed) for versions in (known, here))
    wanted = [f"{name}=={before.partition('+')[0]}" for name in changed if (before := known.get(name))]
    come = [name for name in changed if not known.get(name)]
    steps = [*([f"pip install {' '.join(wanted)}"] if wanted else []), *([f"pip uninstall {' '.join(come)}"] if come else [])]
    raise StudyError(
        f"study {study.folder} was made {subject}with {made}, got {got}",
        f"{' and '.join(steps)}, {otherwise}",
    )


def _of_sessions(study: Study, counts: Callable[[str], bool]) -> dict[str, str]:
    """Return the versions that the runs of the study agree on, of the libraries that count.

    Raises:
        StudyError: two runs had different versions of one of them.
    """
    sessions = [session["versions"] for session in study.ledger()["sessions"]]
    found: dict[str, list[str]] = {}
    for name, made in dict.fromkeys(item for versions in sessions for item in versions.items()):
        if name not in _RUN_THE_SEARCH and counts(name):
            found.setdefault(name, []).append(made)
    mixed = [f"{name} {' and '.join(versions)}" for name, versions in found.items() if len(versions) > 1]
    if mixed:
        raise StudyError(
            f"study {study.folder} must have one version of each library in all of its runs, got {', '.join(mixed)}",
            "its numbers cannot be compared with one another: search into another folder: --out",
        )
    return {name: versions[0] for name, versions in found.items()}


def _is_gone(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return True
    return False


def _named(name: str, made: str | None) -> str:
    return f"no {name}" if made is None else f"{name} {made}"
