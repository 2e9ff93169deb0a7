"""Two bundles head to head: a tie is called a tie, and what does not compare is named."""

import dataclasses
import shutil
from pathlib import Path

import pytest

from autocut.commands.again_sentences import bundle_sentences
from autocut.deploy import compare as room
from autocut.deploy.compare import BundleComparison, compare_bundles, is_tie
from autocut.deploy.manifest import read_manifest
from autocut.deploy.rerun import Rerun, RerunSide
from autocut.errors import InputError, NoResultError, VerificationError
from autocut.measurement import Accuracy, Interval, Latency

TWICE = Interval(2.0, 1.9, 2.1)


@pytest.fixture
def pair(bundle, tmp_path):
    """A bundle and its copy."""
    return bundle, Path(shutil.copytree(bundle, tmp_path / "copy"))


def side(speedup, size=1000):
    """What a bundle gave that is `speedup` times as fast as the other one."""
    latency = Latency(1, 64, Interval(1.0, 0.9, 1.1), None, None, 1.0, speedup, 1.0)
    return RerunSide((latency,), None, 0.0, 1e-3, size, 5.0)


def compared(made, *, speedup=TWICE, sizes=(1000, 500), shared=None):
    """A comparison with these results."""
    manifest = read_manifest(made)
    a, b = (side(ratio, size) for ratio, size in zip((Interval(1, 1, 1), speedup), sizes, strict=True))
    return BundleComparison((manifest, manifest), 1, "here", a, b, shared, ())


def accuracy(value, difference=None, p_value=None):
    """An accuracy on 100 examples."""
    return Accuracy("examples", 100, Interval(value, value - 0.1, value + 0.1), difference, p_value)


def test_a_bundle_is_as_accurate_and_as_large_as_its_copy(pair):
    """Both run in fresh processes; each has a cold start of its own."""
    found = compare_bundles(*pair)

    assert (found.is_accuracy_tie, found.is_size_tie, found.not_comparable) == (True, True, ())
    assert list(found.speedups) == [1, 16]
    assert found.a.cold_start_ms > 0
    assert found.b.cold_start_ms > 0
    assert found.shared[1].examples == 48


@pytest.mark.parametrize(
    ("speedup", "told"),
    [
        (TWICE, "batch 1: B is 2 times as fast as A (1.9 to 2.1)"),
        (Interval(0.5, 0.4, 0.625), "batch 1: A is 2 times as fast as B (1.6 to 2.5)"),
        (Interval(1.02, 0.99, 1.05), "batch 1: a tie; B is 1.02 times as fast as A (0.99 to 1.05), which may be chance"),
    ],
)
def test_the_faster_one_is_named_or_a_tie(made, speedup, told):
    """A ratio whose interval has 1 in it may be chance."""
    assert bundle_sentences(compared(made, speedup=speedup))[0] == told
    assert is_tie(speedup) is ("a tie" in told)


@pytest.mark.parametrize(
    ("difference", "p_value", "begins"),
    [
        (Interval(0.01, -0.02, 0.04), 0.4, "accuracy: a tie; A 0.9, B 0.91 on 100 shared examples"),
        (Interval(0.2, 0.1, 0.3), 0.001, "accuracy: B is better; A 0.9, B 1.1 on 100 shared examples"),
        (Interval(-0.2, -0.3, -0.1), 0.001, "accuracy: A is better; A 0.9, B 0.7 on 100 shared examples"),
    ],
)
def test_the_paired_test_decides_which_is_more_accurate(made, difference, p_value, begins):
    """Not two intervals side by side."""
    shared = accuracy(0.9), accuracy(0.9 + difference.value, difference, p_value)
    found = compared(made, shared=shared)

    assert bundle_sentences(found)[1].startswith(begins)
    assert found.is_accuracy_tie is ("tie" in begins)


def test_without_shared_examples_accuracy_is_not_compared(made):
    """It says why."""
    found = compared(made)

    assert found.is_accuracy_tie is None
    assert bundle_sentences(found)[1].startswith("accuracy: not compared")


@pytest.mark.parametrize(
    ("sizes", "told"),
    [
        ((1000, 500), "size: B is 50.00% smaller than A; A 1.00KB, B 500B"),
        ((500, 1000), "size: A is 50.00% smaller than B; A 500B, B 1.00KB"),
        ((1000, 1000), "size: a tie; 1.00KB each"),
    ],
)
def test_the_smaller_one_is_named_or_a_tie(made, sizes, told):
    """Bytes have no spread."""
    assert bundle_sentences(compared(made, sizes=sizes))[2] == told


def test_bundles_that_take_other_inputs_are_refused(pair, claim):
    """No input fits both."""
    inputs = read_manifest(pair[1]).inputs
    claim.rewrite(pair[1], inputs=tuple(one.model_copy(update={"shape": (None, 64)}) for one in inputs))

    with pytest.raises(InputError, match=r"must take the same inputs to be compared, got tensor input_0: float32\[n, 32\]"):
        compare_bundles(*pair)


def test_bundles_need_a_common_number_of_threads(pair, claim):
    """Or the user says which."""
    claim.cost(pair[1], threads=2)

    with pytest.raises(InputError, match="claims for 1 and 2") as error:
        compare_bundles(*pair)
    assert error.value.hint == "--threads 2"


def test_bundles_need_a_common_batch_size(pair, claim):
    """Code may be compiled for its own sizes alone."""
    latencies = read_manifest(pair[1]).measurement.cost.latencies
    claim.cost(pair[1], latencies=tuple(dataclasses.replace(one, batch_size=one.batch_size + 1) for one in latencies))

    with pytest.raises(InputError, match=r"must have a batch size in common, got \[1, 16\] and \[2, 17\]"):
        compare_bundles(*pair)


def test_other_tasks_and_metrics_are_named(pair, claim, monkeypatch):
    """Latencies still compare."""
    claim.rewrite(pair[1], task="other", metric="f1")
    both = Rerun(None, "here", side(Interval(1, 1, 1)), side(Interval(1, 1, 1)))
    monkeypatch.setattr(room, "rerun", lambda *_, **__: both)

    assert compare_bundles(*pair).not_comparable == ("other tasks: tiny and other", "other metrics: accuracy and f1")


def test_a_bundle_that_does_not_run_is_named(pair, monkeypatch):
    """Exit code 1: which of the two, and why."""
    runs = {pair[0].name: Rerun(None, "here", side(Interval(1, 1, 1))), pair[1].name: Rerun(failure="killed by SIGILL")}
    monkeypatch.setattr(room, "rerun", lambda bundle, threads, **_: runs[bundle.name])

    with pytest.raises(NoResultError, match="copy must run on this machine, but does not: killed by SIGILL"):
        compare_bundles(*pair)


def test_a_damaged_bundle_is_refused(pair):
    """Before anything runs."""
    (pair[1] / "README.md").write_text("other")

    with pytest.raises(VerificationError):
        compare_bundles(*pair)
