"""Where a study of a cluster keeps its stages, and how its bundles come home."""

from types import SimpleNamespace

import pytest

from autocut.config import SearchConfig
from autocut.errors import StudyError
from autocut.execution.executor import WorkerGone
from autocut.execution.shared_stages import brought_home, stages_fact
from autocut.recipe import UNTOUCHED
from autocut.search.jobs import RecipeFinalized, WorkerUp
from autocut.study import create_study, open_study


def begun(folder, **facts):
    """A study of the task `digits`, begun with these facts."""
    study = create_study(
        folder, name="digits", task_fingerprint="t", space_json="{}", objectives={"accuracy": "maximize"}, seed=0, description=facts
    )
    study.close()
    return folder


def fact(folder, stages):
    """What a search with `--stages` finds of the study."""
    return stages_fact(folder, "digits", SearchConfig(task=None, budget_s=1.0, stages=stages))


def test_a_study_without_the_flag_keeps_its_stages_itself(tmp_path):
    """As ever."""
    assert fact(tmp_path / "new", None) == {}
    assert open_study(begun(tmp_path / "study")).stages_dir == tmp_path / "study" / "stages"


def test_each_study_has_a_folder_of_its_own_in_the_shared_one_and_remembers_it(tmp_path):
    """Two studies of one task must not find each other's bundles."""
    shared = tmp_path / "shared"
    first, second = (fact(tmp_path / name, shared) for name in ("first", "second"))
    folder = begun(tmp_path / "first", **first)

    assert first != second
    assert open_study(folder).stages_dir.parent.parent == shared
    assert fact(folder, shared) == first
    assert fact(folder, None) == {}


@pytest.mark.parametrize("known", [{}, {"stages_root": "/elsewhere/digits-1"}])
def test_a_study_does_not_change_its_folder(tmp_path, known):
    """Its stages would count as missing."""
    with pytest.raises(StudyError, match="keeps its stages in"):
        fact(begun(tmp_path / "study", **known), tmp_path / "shared")


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    """Before anything runs."""
    (tmp_path / "file").touch()
    with pytest.raises(StudyError, match="--stages must be a folder that can be written"):
        fact(tmp_path / "study", tmp_path / "file")


def finalized(bundle):
    """What a worker reports of a bundle."""
    return RecipeFinalized(UNTOUCHED, SimpleNamespace(), bundle and str(bundle), "digest", None)


def test_a_bundle_comes_home(tmp_path):
    """From the shared folder into the study's, in place of an older one of this trial."""
    home, made = tmp_path / "study" / "bundles", tmp_path / "shared" / "bundles" / "trial-0007"
    for folder, text in ((home / "trial-0007", "old"), (made, "new")):
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text(text)
    event = brought_home(finalized(made), tmp_path / "study")

    assert event == finalized(home / "trial-0007")
    assert (home / "trial-0007" / "manifest.json").read_text() == "new"
    assert [path.name for path in home.iterdir()] == ["trial-0007"]
    assert not made.exists()


def test_what_is_at_home_stays(tmp_path):
    """So does every other event."""
    events = [finalized(tmp_path / "bundles" / "trial-0007"), finalized(None), WorkerUp(), WorkerGone(None)]

    assert [brought_home(event, tmp_path) for event in events] == events
