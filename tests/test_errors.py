"""Errors: their messages, and their way from a worker to the driver."""

import pickle

import pytest

from autocut import errors
from autocut.errors import AutocutError, Fault, FaultsError, InputError, NoResultError, TrialError, nearest_hint, unknown_name

CLASSES = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, AutocutError)]


@pytest.mark.parametrize("kind", [kind for kind in CLASSES if kind is not FaultsError])
def test_an_error_comes_back_whole_from_a_worker_process(kind):
    """Message, hint and class."""
    found = pickle.loads(pickle.dumps(kind("ratio must be below 1, got 2", "try 0.5")))
    assert type(found) is kind
    assert (found.message, found.hint, str(found)) == ("ratio must be below 1, got 2", "try 0.5", "ratio must be below 1, got 2")


def test_faults_come_back_whole_from_a_worker_process():
    """Every fault is kept."""
    faults = (Fault("a", "b", "c"), Fault("d"))
    found = pickle.loads(pickle.dumps(FaultsError("space x", faults)))
    assert (found.message, found.faults, found.exit_code) == ("space x has 2 faults", faults, 2)
    assert FaultsError("space x", faults[:1]).message == "space x has 1 fault"


@pytest.mark.parametrize("kind", CLASSES)
def test_every_class_is_drawn_in_the_tree_with_its_exit_code(kind):
    """People read the module's docstring first."""
    assert f"-- {kind.__name__} " in errors.__doc__ or kind is AutocutError
    expected = 2 if issubclass(kind, InputError) else 1 if issubclass(kind, NoResultError) else 3
    assert kind.exit_code == expected


def test_what_ends_one_trial_is_no_input_error():
    """The search goes on after a trial error and stops at any other."""
    assert not issubclass(TrialError, InputError | NoResultError)


def test_a_fault_says_where():
    """File and line come at the end of the line."""
    assert str(Fault("ratio must be below 1, got 2", where="cnn.toml, line 3")) == "ratio must be below 1, got 2 (cnn.toml, line 3)"
    assert str(Fault("no file")) == "no file"


def test_an_unknown_name_is_reported_with_all_known_ones_and_the_nearest():
    """The message has subject, rule and value; the hint says what to type."""
    error = unknown_name("quantize.dtype", "int8_statc", ["int8_static", "fp32"])
    assert error.message == "quantize.dtype must be one of fp32, int8_static, got 'int8_statc'"
    assert error.hint == "did you mean 'int8_static'?"


def test_nothing_near_means_no_hint():
    """A wrong hint is worse than none."""
    assert nearest_hint("zzz", ["fp32"]) is None
