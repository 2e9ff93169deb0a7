"""The study of a BERT that is trained from scratch on SNIPS."""

from __future__ import annotations

import gzip
import sys

import pytest

from autocut.errors import TaskError
from autocut.task.batches import call

pytest.importorskip("transformers")


def write_table(folder, rows):
    """Write the table as the study reads it."""
    lines = ["split\tintent\ttext", *("\t".join(row) for row in rows)]
    (folder / "snips7.tsv.gz").write_bytes(gzip.compress("\n".join(lines).encode()))


@pytest.fixture(name="small")
def _small(tmp_path, monkeypatch, study_task):
    """The task on made-up requests."""
    rows = [("train", f"Intent{number % 7}", f'play song {number} "now"') for number in range(1600)]
    write_table(tmp_path, [*rows, rows[0], ("validate", "Intent3", "Play nothing")])
    monkeypatch.setenv("AUTOCUT_DATA", str(tmp_path))
    return study_task("snips")


def test_the_task_reads_requests_as_words(small):
    """1,500 of train are validation, a text that occurs twice counts once, and marks are words."""
    inputs, targets = next(iter(small.loader(small.train_data, 4)))

    assert (len(small.train_data), len(small.validation_data), len(small.locked_test)) == (100, 1500, 1)
    assert sorted(inputs) == ["attention_mask", "input_ids"]
    assert inputs["input_ids"].shape == (4, 6)
    assert call(small.build_model(), inputs).shape == (4, 7)
    assert set(targets.tolist()) <= set(range(7))
    assert sys.modules["data"].words_of('Play "it"') == ["play", '"', "it", '"']


def test_a_folder_without_the_requests_is_refused(tmp_path, monkeypatch, study_task):
    """The message says which file it must be, and the hint where it comes from."""
    monkeypatch.setenv("AUTOCUT_DATA", str(tmp_path))
    with pytest.raises(TaskError, match=r"text_snips/snips7\.tsv\.gz"):
        study_task("snips")
