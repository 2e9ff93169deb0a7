"""A task of a transformers model: the library is not needed, what it gave is called."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from autocut.errors import TaskError
from autocut.task.check import faults_of
from autocut.task.kinds import IGNORED
from autocut.tasks import from_transformers

WORDS = ["the", "a", "cat", "dog", "sat", "ran", "on", "under", "mat", "tree"]


class StubTokenizer:
    """Knows ten words; 0 is padding, 1 an unknown word."""

    pad_token_id: int | None = 0
    model_max_length = 10**30  # as transformers says where there is no limit

    def __call__(self, texts, truncation=False, max_length=None):
        """Numbers and a mask for each text."""
        ids = [[WORDS.index(word) + 2 if word in WORDS else 1 for word in text.split()] for text in texts]
        ids = [row[:max_length] if truncation else row for row in ids]
        return {"input_ids": ids, "attention_mask": [[1] * len(row) for row in ids]}


class Reader(nn.Module):
    """A mean of word vectors, or one answer for each word."""

    def __init__(self, outputs: int, each: bool = False) -> None:
        super().__init__()
        self.words, self.out, self.each = nn.Embedding(12, 8), nn.Linear(8, outputs), each

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        """Logits in a mapping, as transformers gives them."""
        states, mask = self.words(input_ids), attention_mask[..., None]
        return {"logits": self.out(states if self.each else (states * mask).sum(1) / mask.sum(1))}


def rows_of(seed: int, count: int = 40) -> list[dict[str, object]]:
    """Texts of 6 to 12 words about cats or dogs."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(6, 13, (count,), generator=generator).tolist()
    texts = [[WORDS[index] for index in torch.randint(0, 10, (length,), generator=generator).tolist()] for length in lengths]
    return [{"text": " ".join(words), "label": number % 2} for number, words in enumerate(texts)]


def splits() -> dict[str, object]:
    """Three splits, one of them as a function."""
    return {"train": rows_of(0, 80), "validation": lambda: rows_of(1), "test": rows_of(2)}


def test_a_classifier_becomes_a_task_without_faults():
    """Each batch is padded to its own longest text, and the length is free."""
    task = from_transformers(Reader(2), StubTokenizer(), splits(), name="pets", pretrained=False)
    batches = [inputs["input_ids"] for inputs, _ in task.loader(task.train_data, 4)]

    assert faults_of(task) == []
    assert len({ids.shape[1] for ids in batches}) > 1
    assert all((ids > 0).sum(1).max() == ids.shape[1] for ids in batches)
    assert task.dynamic == {"input_ids": {1: "length"}, "attention_mask": {1: "length"}}


def test_a_given_model_is_copied_for_each_build():
    """A training must not change the model that the user gave."""
    model = Reader(2)
    built = from_transformers(model, StubTokenizer(), splits(), name="pets").build_model()

    assert built is not model
    assert torch.equal(built.words.weight, model.words.weight)


def test_a_language_model_predicts_the_next_token():
    """Targets are the tokens one step later, and padding does not count."""
    task = from_transformers(
        lambda: Reader(12, each=True), StubTokenizer(), splits(), name="words", kind="language_modeling", pretrained=False
    )
    inputs, targets = next(iter(task.loader(task.train_data, 8)))
    padded = inputs["attention_mask"] == 0

    assert faults_of(task) == []
    assert torch.equal(targets[:, :-1][~padded[:, 1:]], inputs["input_ids"][:, 1:][~padded[:, 1:]])
    assert (targets[padded] == IGNORED).all()


def test_an_untrained_language_model_is_told_whatever_the_lengths():
    """Batches differ in length, so their targets are joined with padding."""
    model = Reader(12, each=True)
    model.out.bias.data[0] = 100.0  # it always answers with padding
    (fault,) = faults_of(from_transformers(model, StubTokenizer(), splits(), name="words", kind="language_modeling"))

    assert "must be trained, got token_accuracy 0.000" in fault.message


def test_long_texts_are_cut():
    """To the length that the caller asks for."""
    task = from_transformers(Reader(2), StubTokenizer(), splits(), name="pets", max_length=4)

    assert max(inputs["input_ids"].shape[1] for inputs, _ in task.loader(task.train_data, 8)) == 4


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ([], "must map 'train' and 'test' to rows, got list"),
        ({"train": []}, "must map 'train' and 'test' to rows, got train"),
        ({"train": [{"sentence": "a"}], "test": []}, "must have the column 'text', got sentence"),
        ({"train": [("a", "cat")], "test": []}, "a label of train must be a number, got 'cat'"),
        ({"train": [3], "test": []}, "must be a pair"),
        ({"train": [("a", 0), ("", 1)], "test": []}, "text of train must have at least one token, got none in row 1"),
        ({"train": [(["a"], 0)], "test": []}, "must have a text, got list"),
    ],
)
def test_rows_of_another_form_are_told(dataset, message):
    """With the split that holds them."""
    with pytest.raises(TaskError, match=message):
        _ = from_transformers(Reader(2), StubTokenizer(), dataset, name="pets").train_data


def test_a_tokenizer_without_padding_is_told():
    """As that of GPT-2, which needs one line."""
    tokenizer = StubTokenizer()
    tokenizer.pad_token_id = None
    with pytest.raises(TaskError, match="pad_token_id") as caught:
        from_transformers(Reader(2), tokenizer, splits(), name="pets")
    assert caught.value.hint == "tokenizer.pad_token = tokenizer.eos_token"
