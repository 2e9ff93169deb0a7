"""What a user hands in by mistake may be a whole file: no message gives it back."""

from __future__ import annotations

import pytest
from click import Option

from autocut import cli
from autocut.errors import listed, quoted, shortened

LONG = 20_000
LONGEST_LINE = 1_500
QUICK = ["ledger", "front", "select", "explain", "export", "verify", "remeasure", "compare", "report", "schema", "methods"]
"""Verbs that end soon whatever they are given."""
CONTENTS = [
    "{x}", "{x} = 1", "[search]\n{x} = 1", "[search]\nbudget = '{x}'", "schema_version = '{x}'", "prune.ratio = '{x}'",
    '"prune.method" = "{x}"', '[axes."{x}"]\nchoices = ["{x}"]',
    '[axes."distill.loss"]\nchoices = ["none", "{x}"]\n[axes."distill.temperature"]\nwhen."distill.loss" = ["kl"]\nrange = [1, 2]',
    '[axes."train.quantization_aware"]\nchoices = ["none", "{x}"]\n[axes."quantize.dtype"]\nchoices = ["fp32", "{x}y"]',
]  # fmt: skip
VALUES = {"letters": "x" * LONG, "digits": "9" * LONG, "signs": "-<=,:/" * (LONG // 6), "names": "accuracy<=" + "1" * LONG}


def flags_of(verb):
    """The flags of a verb that take a value."""
    return [max(one.opts, key=len) for one in cli.cli.commands[verb].params if isinstance(one, Option) and not one.is_flag]


def longest_line(capfd, words):
    """Run a command, and return the longest line that it tells, which must be an error and no bug."""
    code = cli.main(words)
    err = capfd.readouterr().err

    assert code in (0, 1, 2), [word[:80] for word in words]
    return max(map(len, err.splitlines()), default=0)


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
@pytest.mark.parametrize("verb", QUICK)
def test_a_long_value_of_a_flag_is_quoted_in_short(verb, value, finished_study, capfd):
    """Of each flag, of each word, and of a surplus word."""
    places = [[verb, value], [verb, str(finished_study), value, value]]
    places += [[verb, str(finished_study), flag, value] for flag in flags_of(verb)]
    for words in places:
        assert longest_line(capfd, words) < LONGEST_LINE, [word[:80] for word in words]


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_a_long_value_of_a_search_is_quoted_in_short(value, searches, capfd):
    """Nothing of the search starts."""
    for flag in set(flags_of("search")) - {"--learn-from"}:
        words = ["search", "--budget", "5m", flag, value]
        assert longest_line(capfd, words) < LONGEST_LINE, flag


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_a_long_name_of_an_earlier_study_is_quoted_in_short(value, capfd):
    """It is looked for before anything starts."""
    assert longest_line(capfd, ["search", "--budget", "5m", "--learn-from", value]) < LONGEST_LINE


@pytest.mark.parametrize("flag", ["--config", "--space", "--try"])
@pytest.mark.parametrize("content", CONTENTS)
def test_a_long_value_in_a_file_is_quoted_in_short(flag, content, searches, tmp_path, capfd):
    """Keys and values alike."""
    file = tmp_path / "given.toml"
    file.write_text(content.format(x="x" * LONG))
    words = ["search", *([] if flag == "--config" else ["--budget", "5m"]), flag, str(file)]

    assert longest_line(capfd, words) < LONGEST_LINE


def test_the_beginning_of_a_long_value_is_told_and_how_much_more_there_is():
    """An error quotes a short value whole."""
    assert quoted("8") == "'8'"
    assert quoted("x" * 160) == f"'{'x' * 79}… (82 more characters)"
    assert shortened("x" * 160) == "x" * 160
    assert shortened("x" * LONG) == f"{'x' * 80}… (19,920 more characters)"


def test_a_list_of_the_users_own_values_is_told_in_short():
    """As many as a person reads, each shortened."""
    assert listed(["none", 4, 0.5]) == "none, 4, 0.5"
    assert listed(["x" * LONG, "y"], " or ") == f"{'x' * 80}… (19,920 more characters) or y"
    assert listed(range(2000)).endswith("18, 19, 1,980 more")
