"""The study of a small GPT on Shakespeare's letters."""

from __future__ import annotations

import sys

import pytest
import torch

from autocut.errors import TaskError
from autocut.task.check import faults_of

FILE = "lm_tinyshakespeare/input.txt.gz"


@pytest.fixture(name="small")
def _small(tmp_path, monkeypatch, study_task):
    """The task on 12,000 letters of its own."""
    task = study_task("tiny_shakespeare")
    letters = sys.modules["data"].LETTERS
    choice = torch.randint(len(letters), (12_000,), generator=torch.Generator().manual_seed(0))
    (tmp_path / "input.txt").write_text("".join(letters[number] for number in choice.tolist()))
    monkeypatch.setenv("AUTOCUT_DATA", str(tmp_path))
    sys.modules["data"]._text.cache_clear()
    return task


def test_windows_follow_one_another_and_the_targets_are_one_letter_later(small):
    """No letter of a split is left out but those of a last window that is not full."""
    inputs, targets = small.train_data.tensors

    assert inputs.shape == targets.shape == (74, 128)
    assert torch.equal(inputs.flatten()[1:], targets.flatten()[:-1])
    assert len(small.validation_data) == len(small.locked_test) == 9


def test_an_answer_depends_on_the_letters_before_it_alone(small):
    """No letter sees a later one, and the model has the size that its README says."""
    model = small.build_model().eval()
    letters = small.train_data.tensors[0][:1]
    changed = letters.clone()
    changed[0, 64] = (changed[0, 64] + 1) % len(sys.modules["data"].LETTERS)
    with torch.no_grad():
        before, after = model(letters), model(changed)

    torch.testing.assert_close(before[:, :64], after[:, :64])
    assert not torch.allclose(before[:, 64:], after[:, 64:])
    assert sum(parameter.numel() for parameter in model.parameters()) == 826_368


def test_the_task_has_no_faults(small):
    """Perplexity of 65 letters, a batch size that export leaves free."""
    assert faults_of(small) == []


def test_a_letter_that_shakespeare_has_not_is_told(small):
    """Another file under the same name."""
    with pytest.raises(TaskError, match="got 'é'"):
        sys.modules["data"].encode("café")


def test_the_published_text_has_these_letters(need_data, study_task):
    """1,115,394 letters, of which 80% are for training."""
    need_data(FILE)
    task = study_task("tiny_shakespeare")
    data = sys.modules["data"]

    assert len(data._text()) == 1_115_394
    assert "".join(data.LETTERS[number] for number in task.train_data.tensors[0][0, :14]) == "First Citizen:"
