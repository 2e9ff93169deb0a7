"""What searches of one study must share while they run at the same time."""

import pytest

from autocut.errors import StudyError
from autocut.execution.company import check_shares_stages, others, seed_offset
from autocut.execution.leftovers import sweep_study
from autocut.pipeline import signing
from autocut.study import create_study


@pytest.fixture
def search(tmp_path):
    """Begin a search of the study, up to its first job."""
    opened = []

    def begin():
        study = create_study(
            tmp_path / "study", name="digits", task_fingerprint="t", space_json="{}", objectives={"accuracy": "maximize"}, seed=0
        )
        opened.append(study)
        try:
            check_shares_stages(study)
        except StudyError:
            opened.pop().close()
            raise
        study.begin_session("autocut search", {})
        study.lock.end_turn()
        return study

    yield begin
    for study in opened:
        study.close()


def test_searches_in_one_folder_with_one_key_share_a_study(search):
    """They see each other, and draw other random numbers; a search alone draws what it always drew."""
    first, second = search(), search()

    assert others(first) == {second.lock.session}
    assert seed_offset(first, first.lock.session) != seed_offset(second, second.lock.session)
    first.close()
    assert seed_offset(second, second.lock.session) == 0


def test_a_search_with_another_key_is_refused_beside_others(search, tmp_path, monkeypatch):
    """It would find none of their stages, and train again what they have trained. Alone it may go on: the study warns of that."""
    first = search()
    monkeypatch.setenv(signing.KEY_FILE, str(tmp_path / "other.key"))
    with pytest.raises(StudyError, match=r"one key that signs its stages .* got another one in .*other.key") as refusal:
        search()
    assert "AUTOCUT_KEY_FILE" in refusal.value.hint
    assert "process" in refusal.value.message

    first.close()


def test_a_search_in_another_folder_is_refused_beside_others(search, monkeypatch):
    """On a database server two folders may belong to one study. Stages of its own would be trained again."""
    search()
    monkeypatch.setattr("autocut.study.lock.SearchLock.others_elsewhere", lambda lock: lock.others())
    with pytest.raises(StudyError, match="must keep its stages where all of its searches find them") as refusal:
        search()
    assert "--stages" in refusal.value.hint


def test_what_another_search_writes_right_now_is_not_swept(search):
    """The draft of its bundle looks like one that a killed search has left."""
    first, second = search(), search()
    draft = first.folder / "bundles" / ".trial-0001.unverified"
    draft.mkdir()

    sweep_study(second, 10**9)
    assert draft.exists()
    first.close()
    sweep_study(second, 10**9)
    assert not draft.exists()
