"""The study of a small transformer that is trained from scratch."""

from __future__ import annotations

import gzip
import json

import pytest
import torch

from autocut.errors import TaskError


def test_the_task_reads_texts_as_padded_word_ids(tmp_path, monkeypatch, study_task):
    """Common words have an id of their own, unknown words share one, and padding changes no answer."""
    texts = [[f"please play song{number} now", f"intent{number % 3}"] for number in range(30)]
    splits = {"train": texts[:20], "val": [["please play nothing", "intent0"]], "test": texts[20:]}
    (tmp_path / "data_full.json.gz").write_bytes(gzip.compress(json.dumps(splits).encode()))
    monkeypatch.setenv("AUTOCUT_DATA", str(tmp_path))
    task = study_task("small_transformer")
    tokens, intent = task.validation_data[0]
    model = task.build_model().eval()

    assert (len(task.train_data), len(task.locked_test)) == (20, 10)
    assert (tokens[2], tokens[3:].unique().tolist(), int(intent)) == (1, [0], 0)
    assert model(tokens.unsqueeze(0)).shape == (1, 150)
    assert round(sum(parameter.numel() for parameter in model.parameters()) / 1e6, 1) == 1.4
    more_padding = torch.cat([tokens[:6].unsqueeze(0), torch.zeros(1, 26, dtype=tokens.dtype)], dim=1)
    torch.testing.assert_close(model(tokens.unsqueeze(0)), model(more_padding))


def test_a_folder_without_the_texts_is_refused(tmp_path, monkeypatch, study_task):
    """Made-up texts are never taken in place of the file that was named."""
    monkeypatch.setenv("AUTOCUT_DATA", str(tmp_path))
    with pytest.raises(TaskError, match="data_full"):
        _ = study_task("small_transformer").train_data


def test_without_a_folder_the_texts_are_made_up_and_it_is_said(monkeypatch, study_task, capsys):
    """As many texts as the real data has, and no text in two splits."""
    monkeypatch.delenv("AUTOCUT_DATA", raising=False)
    task = study_task("small_transformer")
    train, validation = ({tuple(row) for row in part.tensors[0].tolist()} for part in (task.train_data, task.validation_data))

    assert (len(task.train_data), len(task.validation_data), len(task.locked_test)) == (15_000, 3_000, 4_500)
    assert len(train & validation) < 10
    assert "made up" in capsys.readouterr().err
