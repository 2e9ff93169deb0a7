"""A study keeps to the versions of the libraries that made its stages."""

import pytest

from autocut.errors import StudyError
from autocut.recipe import UNTOUCHED
from autocut.study.versions import check_libraries, keep_to_libraries

TORCH = {"torch": "2.13.0+cpu"}
ALL = {"torch": "2.12.1+cpu", "onnxruntime": "1.31.0", "torchao": "0.18.0"}


@pytest.fixture(name="study")
def _study(make_study, make_measurement):
    made = make_study()
    made.set_reference(make_measurement(0.9, 1.0).cost)  # without a result, any versions would do
    return made


@pytest.fixture
def record(make_measurement):
    """Add an untouched model that runs by a mode."""

    def add(study, mode, of_modes):
        keep_to_libraries(study, TORCH, of_modes)
        recipe, values = UNTOUCHED.with_lowering("fp32", mode), {"accuracy": 0.9, "usd_per_million": 1.0}
        study.complete(None, recipe, {}, {}, values, make_measurement(0.9, 1.0))

    return add


def begin(study, **versions):
    """Leave in the ledger what a run of an earlier autocut left."""
    study.begin_session("autocut search", {"autocut": "0.1", "ray": "2.50", **versions})


def test_a_study_goes_on_with_the_versions_that_it_was_begun_with(study):
    """The same command again is no mistake."""
    keep_to_libraries(study, ALL, {})

    keep_to_libraries(study, dict(reversed(ALL.items())), {})


def test_an_upgrade_is_refused_with_both_versions(study):
    """Old latencies of the untouched model must not be divided by new speed-ups."""
    keep_to_libraries(study, ALL, {})

    with pytest.raises(StudyError) as caught:
        keep_to_libraries(study, ALL | {"torch": "2.13.0+cpu", "onnxruntime": "1.32.0"}, {})

    assert "made with torch 2.12.1+cpu, onnxruntime 1.31.0, got torch 2.13.0+cpu, onnxruntime 1.32.0" in caught.value.message
    assert caught.value.hint == "pip install torch==2.12.1 onnxruntime==1.31.0, or search into another folder: --out"


def test_a_library_that_has_come_is_refused(study):
    """Every stage key names it, so all stages would be made again."""
    keep_to_libraries(study, TORCH, {})

    with pytest.raises(StudyError, match=r"was made with no mine, got mine 2\.0") as caught:
        keep_to_libraries(study, TORCH | {"mine": "2.0"}, {})

    assert caught.value.hint.startswith("pip uninstall mine, or")


def test_a_library_that_has_gone_is_refused(study):
    """Every stage key named it. An upgrade beside it is told too."""
    keep_to_libraries(study, TORCH | {"mine": "2.0"}, {})

    with pytest.raises(StudyError, match=r"was made with torch 2\.13\.0\+cpu, mine 2\.0, got torch 2\.14\.0, no mine") as caught:
        keep_to_libraries(study, {"torch": "2.14.0"}, {})

    assert caught.value.hint.startswith("pip install torch==2.13.0 mine==2.0, or")


@pytest.mark.parametrize(("now", "got"), [("2026.1", "got openvino 2026.1"), (None, "got no openvino")])
def test_the_library_of_one_mode_is_a_condition_of_its_trials(study, record, now, got):
    """OpenVINO is in the keys of its own stages alone, so a new one would mix its numbers with those of the old one."""
    record(study, "openvino", {"openvino": {"openvino": "2025.3"}})

    with pytest.raises(StudyError, match=rf"made for its trial by openvino with openvino 2025\.3, {got}"):
        keep_to_libraries(study, TORCH, {"openvino": {"openvino": now}})


def test_the_library_of_a_mode_that_no_trial_used_may_change(study, record):
    """From then on it is the new one that counts."""
    record(study, "eager", {"openvino": {"openvino": "2025.3"}})
    record(study, "openvino", {"openvino": {"openvino": "2026.1"}})

    with pytest.raises(StudyError, match=r"openvino 2026\.1, got openvino 2026\.2"):
        keep_to_libraries(study, TORCH, {"openvino": {"openvino": "2026.2"}})


def test_an_export_asks_for_the_libraries_of_its_trial_alone(study, record):
    """A model that runs eagerly does not need the OpenVINO that other trials ran by."""
    record(study, "openvino", {"openvino": {"openvino": "2025.3"}})
    record(study, "eager", {"openvino": {"openvino": "2025.3"}})
    by_openvino, eager = study.trials()

    check_libraries(study, TORCH, {"openvino": {"openvino": "2026.1"}}, [eager], "")
    with pytest.raises(StudyError, match="by openvino"):
        check_libraries(study, TORCH, {"openvino": {"openvino": "2026.1"}}, [by_openvino], "")


def test_a_study_of_an_earlier_version_has_those_of_its_runs(study):
    """It wrote them into the ledger; what stages do not depend on is no condition, and what no run named is not known."""
    begin(study, torch="2.12.1")
    begin(study, torch="2.12.1", ray="2.51", pytest="0.1")

    check_libraries(study, {"torch": "2.12.1", "onnxruntime": "1.31.0"}, {}, [], "")
    with pytest.raises(StudyError, match=r"2\.12\.1, got torch 2\.13\.0"):
        check_libraries(study, {"torch": "2.13.0"}, {}, [], "")


def test_a_study_of_an_earlier_version_is_refused_where_its_runs_disagree(study):
    """Its numbers are of two versions already."""
    begin(study, torch="2.11.0")
    begin(study, torch="2.12.1")

    with pytest.raises(StudyError, match=r"one version of each library in all of its runs, got torch 2\.11\.0 and 2\.12\.1"):
        check_libraries(study, {"torch": "2.12.1"}, {}, [], "")


def test_a_study_of_an_earlier_version_misses_what_has_gone(study):
    """Its runs named a library that is not installed any more."""
    begin(study, torch="2.12.1", **{"no-such-library": "1.0"})

    with pytest.raises(StudyError, match=r"no-such-library 1\.0, got no no-such-library"):
        check_libraries(study, {"torch": "2.12.1"}, {}, [], "")


def test_a_study_of_an_earlier_version_knows_the_library_of_a_mode_from_its_runs(study, record):
    """Its facts say nothing about the modes."""
    begin(study, torch="2.13.0+cpu", openvino="2025.3")
    record(study, "openvino", {})

    with pytest.raises(StudyError, match=r"by openvino with openvino 2025\.3, got openvino 2026\.1"):
        check_libraries(study, TORCH, {"openvino": {"openvino": "2026.1", "nncf": "3.0"}}, study.trials(), "")
