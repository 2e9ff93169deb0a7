"""Versions of the libraries that made a study's stages. Numbers of two versions are not mixed.

A speed-up refers to the untouched model's latency, which a study measures once: under another torch it is another one. And the key
of every stage names these libraries, so a study would make all of its stages again, and hand out models that it has not measured.
"""

from __future__ import annotations

from collections.abc import Mapping

from autocut.errors import StudyError
from autocut.study.study import Study

_FACT = "libraries"


def keep_to_libraries(study: Study, installed: Mapping[str, str]) -> None:
    """Check the `installed` versions, as `check_libraries` does, and write them down where the study does not know them yet."""
    check_libraries(study, installed, "or search into another folder: --out")
    study.describe({_FACT: {**installed, **_known(study)}})


def check_libraries(study: Study, installed: Mapping[str, str], otherwise: str) -> None:
    """Refuse to work on a study whose stages other versions have made.

    A library that the study does not know is none of its conditions: a method that needs it was not there.

    Args:
        study: The study. One of an earlier autocut has the versions of its last run.
        installed: Version by distribution, of the libraries that the key of every stage names.
        otherwise: What else the user may do, for the hint.

    Raises:
        StudyError: a version differs.
    """
    known = _known(study)
    changed = [name for name, version in installed.items() if known.get(name, version) != version]
    if changed:
        made, here = (", ".join(f"{name} {versions[name]}" for name in changed) for versions in (known, installed))
        wanted = " ".join(f"{name}=={known[name].partition('+')[0]}" for name in changed)
        raise StudyError(f"study {study.folder} was made with {made}, got {here}", f"pip install {wanted}, {otherwise}")


def _known(study: Study) -> Mapping[str, str]:
    if _FACT in study.facts:
        return dict(study.facts[_FACT])
    sessions = study.ledger()["sessions"]
    return dict(sessions[-1]["versions"]) if sessions else {}
