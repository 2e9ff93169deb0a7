"""A study keeps to the versions of the libraries that made its stages."""

import pytest

from autocut.errors import StudyError
from autocut.study import create_study
from autocut.study.versions import check_libraries, keep_to_libraries


@pytest.fixture(name="study")
def _study(tmp_path):
    opened = create_study(
        tmp_path / "study", name="tiny", task_fingerprint="t", space_json="{}", objectives={"accuracy": "maximize"}, seed=0
    )
    yield opened
    opened.close()


def test_a_study_goes_on_with_the_versions_that_it_was_begun_with(study):
    """A library that was not there at first is no condition until it is."""
    keep_to_libraries(study, {"torch": "2.13.0+cpu"})
    keep_to_libraries(study, {"torch": "2.13.0+cpu", "mine": "1.0"})

    with pytest.raises(StudyError, match=r"was made with mine 1\.0, got mine 2\.0"):
        keep_to_libraries(study, {"torch": "2.13.0+cpu", "mine": "2.0"})


def test_an_upgrade_is_refused_with_both_versions(study):
    """Old latencies of the untouched model must not be divided by new speed-ups."""
    keep_to_libraries(study, {"torch": "2.12.1+cpu", "onnxruntime": "1.31.0", "torchao": "0.18.0"})

    with pytest.raises(StudyError) as caught:
        keep_to_libraries(study, {"torch": "2.13.0+cpu", "onnxruntime": "1.32.0", "torchao": "0.18.0"})

    assert "made with torch 2.12.1+cpu, onnxruntime 1.31.0, got torch 2.13.0+cpu, onnxruntime 1.32.0" in caught.value.message
    assert caught.value.hint == "pip install torch==2.12.1 onnxruntime==1.31.0, or search into another folder: --out"


def test_a_study_of_an_earlier_version_has_those_of_its_last_run(study):
    """It wrote them into the ledger; what stages do not depend on is no condition."""
    study.begin_session("autocut search", {"autocut": "0.1", "torch": "2.11.0"})
    study.begin_session("autocut search", {"autocut": "0.2", "torch": "2.12.1"})

    check_libraries(study, {"torch": "2.12.1"}, "")
    with pytest.raises(StudyError, match=r"2\.12\.1, got torch 2\.13\.0"):
        check_libraries(study, {"torch": "2.13.0"}, "")
