"""The configuration file and the configuration of a search."""

from __future__ import annotations

from pathlib import Path

import pytest

from autocut.config import SearchConfig, cpu_count, read_config_file
from autocut.errors import FaultsError, InputError

OPTIONS = {
    "search": {"budget": "budget", "limit": "limits", "price-per-hour": "price_per_hour", "dry-run": "dry_run"},
    "front": {"json": "as_json"},
}


def read(tmp_path, text):
    """Read a configuration file with `text`."""
    path = tmp_path / "autocut.toml"
    path.write_text(text)
    return read_config_file(path, OPTIONS, repeatable={"limits"}, switches={"dry_run", "as_json"})


def test_keys_are_the_names_of_the_flags(tmp_path):
    """Values stay text for the flags' own parsers, so a budget of 8 is refused and 8h is not."""
    text = '[search]\nbudget = 8\nprice-per-hour = 0.1\nlimit = ["latency_ms<=5"]\ndry-run = true\n'
    assert read(tmp_path, text) == {
        "search": {"budget": "8", "price_per_hour": "0.1", "limits": ["latency_ms<=5"], "dry_run": True}
    }


def test_true_is_a_value_of_switches_alone(tmp_path):
    """Python counts it as 1: a price of `true` would be a dollar an hour."""
    text = "[search]\nbudget = true\nprice-per-hour = false\nlimit = [true]\ndry-run = false\n"

    assert read(tmp_path, text) == {"search": {"budget": "true", "price_per_hour": "false", "limits": ["true"], "dry_run": False}}


@pytest.mark.parametrize("text", ["dry-run = [true]", 'budget = ["8h"]', "budget = []"])
def test_a_list_where_one_value_belongs_is_refused(tmp_path, text):
    """Click would end with an error of Python's (found by `studies/fuzz`)."""
    with pytest.raises(FaultsError) as refused:
        read(tmp_path, f"[search]\n{text}\n")

    assert "must be one value, got a list" in refused.value.faults[0].message


def test_one_value_stands_for_a_list_of_one(tmp_path):
    """`limit = "latency_ms<=5"` is what a person writes who has one limit."""
    assert read(tmp_path, '[search]\nlimit = "latency_ms<=5"\n') == {"search": {"limits": ["latency_ms<=5"]}}


def test_every_unknown_key_is_reported_with_line_and_nearest_name(tmp_path):
    """A mistyped key that is ignored would be a silent fallback."""
    with pytest.raises(FaultsError) as caught:
        read(tmp_path, '[search]\nbudgt = "8h"\n\n[frnt]\njson = true\n')

    first, second = caught.value.faults
    assert (first.where, first.hint) == (f"{tmp_path}/autocut.toml, line 2", "did you mean 'budget'?")
    assert (second.where, second.hint) == (f"{tmp_path}/autocut.toml, line 4", "did you mean 'front'?")


def test_key_without_a_verb_is_refused(tmp_path):
    """Its verb would be unknown."""
    with pytest.raises(FaultsError) as caught:
        read(tmp_path, 'budget = "8h"\n')
    assert "[search]" in caught.value.faults[0].hint


def test_unreadable_file_is_one_error(tmp_path):
    """There is no traceback."""
    with pytest.raises(InputError, match="must be readable TOML"):
        read(tmp_path, "[search\n")
    with pytest.raises(InputError, match="No such file"):
        read_config_file(tmp_path / "nowhere.toml", OPTIONS)


def test_study_folder_is_named_after_the_task_unless_given():
    """`studies/<task name>`."""
    assert SearchConfig(None, 60).folder("digits") == Path("studies/digits")
    assert SearchConfig(None, 60, out=Path("here")).folder("digits") == Path("here")


def test_there_is_at_least_one_processor():
    """The default number of workers."""
    assert cpu_count() >= 1
