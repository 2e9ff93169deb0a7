"""`.ci/versions`: what it takes from pyproject.toml, and how it judges what it finds. It installs nothing here."""

from __future__ import annotations

import runpy
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
COMMAND = ROOT / ".ci" / "versions"
REPORT = '<testsuites><testsuite tests="{tests}" failures="{failures}" errors="{errors}" skipped="2"/></testsuites>'


@pytest.fixture(scope="module")
def command():
    """What the command consists of, by name."""
    return SimpleNamespace(**runpy.run_path(str(COMMAND)))


def test_every_range_has_an_oldest_version(command):
    """Also those of the extras that users install; each pin lies in its own range."""
    document = tomllib.loads((ROOT / "pyproject.toml").read_text())
    requirements = command.declared(document)
    pins = [Requirement(pin) for pin in command.oldest(requirements)]

    assert {"torch", "ray", "cryptography"} <= {pin.name for pin in pins}
    for requirement, pin in zip(requirements, pins, strict=True):
        (bound,) = pin.specifier
        assert requirement.specifier.contains(bound.version), str(requirement)


def test_a_range_without_a_beginning_is_refused(command):
    """Nobody could say what was tested."""
    with pytest.raises(ValueError, match=r"numpy must have one lower bound in pyproject.toml, such as >=1.2, got 'numpy<3'"):
        command.oldest([Requirement("numpy<3")])


def test_what_another_machine_needs_is_left_out(command):
    """Its wheels cannot be installed here."""
    document = {"project": {"dependencies": ["numpy>=2", "nncf>=3; sys_platform == 'none'"], "optional-dependencies": {}}}

    assert [requirement.name for requirement in command.declared(document, ())] == ["numpy"]


@pytest.mark.parametrize(
    ("counts", "told", "passed"),
    [
        ((12, 0, 0), "10 passed, 0 failed, 2 skipped", True),
        ((12, 1, 2), "7 passed, 3 failed, 2 skipped", False),
        ((2, 0, 0), "0 passed, 0 failed, 2 skipped", False),
    ],
)
def test_an_environment_passes_where_tests_ran_and_none_failed(command, tmp_path, counts, told, passed):
    """Of several reports together."""
    report = tmp_path / "report.xml"
    report.write_text(REPORT.format(**dict(zip(("tests", "failures", "errors"), counts, strict=True))))

    assert command.verdict([report]) == (told, passed)
    assert command.verdict([report, tmp_path / "none.xml"]) == ("pytest gave no report", False)


def test_the_table_has_a_line_for_each_package_and_one_for_the_tests(command):
    """Names as pip compares them: a dot, a dash and an underscore are one."""
    outcome = command.Outcome({"torch-pruning": "1.6.1"}, "10 passed, 0 failed, 0 skipped", passed=True)

    assert command.table([Requirement("torch_pruning>=1.6,<2"), Requirement("ray>=2")], {"newest": outcome}).splitlines() == [
        "| package | declared | newest |",
        "| --- | --- | --- |",
        "| torch_pruning | <2,>=1.6 | 1.6.1 |",
        "| ray | >=2 | none |",
        "| tests |  | 10 passed, 0 failed, 0 skipped |",
    ]


def test_without_a_registry_it_is_skipped_with_the_reason(tmp_path):
    """A check that cannot look says nothing."""
    nowhere = {"PATH": "/usr/bin:/bin", "PIP_CONFIG_FILE": "/dev/null", "PIP_NO_INDEX": "1", "AUTOCUT_VERSIONS": str(tmp_path)}
    done = subprocess.run([sys.executable, COMMAND, "oldest"], env=nowhere, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "versions skipped: no package registry answers\n"
    assert not (tmp_path / "oldest").exists()


@pytest.mark.parametrize("name", ["eldest", "torch"])
def test_an_environment_that_is_none_is_refused(name):
    """It says what there is."""
    done = subprocess.run([sys.executable, COMMAND, name], capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert f"an environment must be oldest, newest or PACKAGE==VERSION, got '{name}'" in done.stderr
