"""Several searches of one study at the same time: what they must share, and what only one of them does.

They find each other's stages: in one folder, signed with one key. What else a study has one of (task, space, objectives, price,
limits, threads, seed, versions of libraries) each search checks by itself. The budget is the own one of each search.
"""

from __future__ import annotations

from autocut.errors import StudyError, quoted
from autocut.pipeline.signing import KEY_FILE, Signer, key_file, own_secret
from autocut.study import Study

_KEY_FACT = "stage_key"
_SEEDS_APART = 1_000_003
"""No search of a study has so many trials: sessions that begin at the same moment draw other numbers."""


def others(study: Study) -> frozenset[int]:
    """Return the sessions of the other searches of `study` that are alive."""
    return frozenset() if study.lock is None else study.lock.others()


def check_shares_stages(study: Study) -> None:
    """Refuse to search beside others that this search would share no stages with; it would train again what they have trained.

    Raises:
        StudyError: they keep their stages in another folder, or sign them with another key.
    """
    mark = Signer(own_secret()).sign("stage key of", study.name)
    beside = others(study)
    if beside:
        named = _named(study, beside)
        if study.stages_root == study.folder and study.lock is not None and study.lock.others_elsewhere():
            raise StudyError(
                f"study {quoted(study.name)} must keep its stages where all of its searches find them, but {named} searches it "
                f"from another folder than {study.folder}",
                "search from that folder, or begin a study in a shared folder: --stages FOLDER --out FOLDER",
            )
        if study.facts.get(_KEY_FACT, mark) != mark:
            raise StudyError(
                f"study {quoted(study.name)} must have one key that signs its stages while several searches work on it, "
                f"got another one in {key_file()} than that of {named}",
                f"copy the key file of the other search to this machine, and name it: {KEY_FILE}=FILE",
            )
    study.describe({_KEY_FACT: mark})


def seed_offset(study: Study, session: int) -> int:
    """Return by how much the random numbers of this search move on: beside others it must not propose what they propose."""
    return session * _SEEDS_APART if others(study) else 0


def _named(study: Study, sessions: frozenset[int]) -> str:
    return " and ".join(name for _, name in sorted(study.bookings.searchers(sessions).items()))
