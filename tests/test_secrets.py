"""A password in the address of a database is shown nowhere and stored nowhere."""

from __future__ import annotations

import pytest

from autocut import cli
from autocut.study import create_study
from autocut.task import check

SECRET = "geheim"
ADDRESS = f"postgresql://me:{SECRET}@h/d"


@pytest.fixture(autouse=True)
def _quick_check(monkeypatch, tmp_path):
    monkeypatch.setattr(check, "check_task", lambda *_, **__: [])
    monkeypatch.chdir(tmp_path)


def _interrupt(words, console):
    raise KeyboardInterrupt


@pytest.mark.parametrize("form", [["--storage", ADDRESS], [f"--storage={ADDRESS}"]])
@pytest.mark.parametrize("form_of_output", [[], ["--json"]])
def test_neither_a_dry_run_nor_the_command_that_resumes_shows_it(monkeypatch, capsys, form, form_of_output):
    """People paste both into tickets."""
    words = ["search", "--budget", "8h", *form, *form_of_output]
    assert cli.main([*words, "--dry-run"]) == 0
    assert "postgresql://me@h/d" in capsys.readouterr().out
    monkeypatch.setattr(cli, "_run", _interrupt)
    cli.main(words)

    shown = "".join(capsys.readouterr())
    assert "postgresql://me@h/d" in shown
    assert SECRET not in shown


@pytest.mark.parametrize("place", ["variable", "file"])
def test_it_is_not_shown_wherever_it_comes_from(monkeypatch, capsys, tmp_path, place):
    """A dry run names the source of each value, and shows it."""
    if place == "variable":
        monkeypatch.setenv("AUTOCUT_SEARCH_STORAGE", ADDRESS)
    else:
        (tmp_path / "autocut.toml").write_text(f'[search]\nstorage = "{ADDRESS}"\n')
    assert cli.main(["search", "--budget", "8h", "--dry-run"]) == 0

    shown = "".join(capsys.readouterr())
    assert "postgresql://me@h/d" in shown
    assert SECRET not in shown


@pytest.mark.parametrize(
    "address",
    ["nosuchdb://me:geheim@h/d", "x://me:geheim@h:port/d", "mysql://h/d?passwd=geheim", "postgresql://me:ge@geheim@[::1/d"],
)
def test_an_address_that_cannot_be_used_is_told_without_it(tmp_path, address):
    """The message, its cause for a bug report, and the folder of the study."""
    with pytest.raises(Exception, match="storage") as refusal:
        create_study(
            tmp_path / "s", name="t", task_fingerprint="f", space_json="{}", objectives={"accuracy": "maximize"}, seed=0,
            storage_url=address,
        )  # fmt: skip

    assert SECRET not in f"{refusal.value} {refusal.value.hint}"
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and SECRET in path.read_text(errors="replace")]


def test_it_is_not_written_to_the_study(tmp_path):
    """The study names its server in a file, so that readers need only the folder."""
    address = f"sqlite:///{tmp_path / 'server.db'}?password={SECRET}"
    with pytest.raises(Exception, match=r"storage|password"):  # SQLite's driver refuses the option
        create_study(
            tmp_path / "s", name="t", task_fingerprint="f", space_json="{}", objectives={"accuracy": "maximize"}, seed=0,
            storage_url=address,
        )  # fmt: skip

    assert not [path for path in tmp_path.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
