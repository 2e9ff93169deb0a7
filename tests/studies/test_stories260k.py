"""The study of the published language model stories260K."""

from __future__ import annotations

import struct
import sys

import pytest
import torch

from autocut.errors import TaskError

PUBLISHED = (
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw a big, red ball."
)
FILES = [
    "weights_stories260k/stories260K.bin",
    "weights_stories260k/tok512.bin",
    "lm_tinystories_sample/tinystories.txt.gz",
]


@pytest.fixture(name="modules")
def _modules(study_task):
    """The study's own modules."""
    study_task("stories260k")
    return sys.modules["data"], sys.modules["llama"]


def write_tokenizer(path, pieces):
    """Write (piece, score) pairs as llama2.c does."""
    content = struct.pack("<i", 8) + b"".join(struct.pack("<fi", score, len(piece)) + piece for piece, score in pieces)
    path.write_bytes(content)


def test_neighbours_merge_by_the_best_score_and_unknown_letters_become_bytes(tmp_path, modules):
    """Words merge by themselves, and a text comes back as it was."""
    data, _ = modules
    bytes_ = [(f"<0x{number:02X}>".encode(), 0.0) for number in range(256)]
    pieces = [
        (b"?", 0.0),
        (b"s", 0.0),
        (b"e", 0.0),
        *bytes_,
        (b" ", -9.0),
        (b"a", -9.0),
        (b"b", -9.0),
        (b"ab", -2.0),
        (b" a", -1.0),
    ]
    write_tokenizer(tmp_path / "tok", pieces)
    tokenizer = data.Tokenizer.read(tmp_path / "tok")
    space, a, b, ab, space_a = range(259, 264)

    assert tokenizer.encode("ab bab") == [1, space_a, b, space, b, ab]
    assert a not in tokenizer.encode("ab bab")
    assert tokenizer.encode("é") == [1, space, 3 + 0xC3, 3 + 0xA9]
    assert tokenizer.decode(tokenizer.encode("ab é bab")) == "ab é bab"


def test_a_story_begins_where_its_first_words_say_so(modules):
    """An empty line alone may be the end of a paragraph."""
    data, _ = modules
    text = "One day, a cat sat.\n\nIt was red.\n\nOnce upon a time, a dog ran.\n\nOne day, it sat."

    assert data.split_stories(text) == [
        ["One day, a cat sat.", "It was red."],
        ["Once upon a time, a dog ran.", "One day, it sat."],
    ]


def test_weights_come_from_a_file_of_llama2c(tmp_path, modules):
    """Each sort of weight of all layers lies together; a file of another size is refused with its path."""
    _, llama = modules
    shape = llama.Shape(width=8, hidden=12, layers=2, heads=4, key_heads=2, vocabulary=16, length=6)
    count = llama.numbers_in(shape)
    path = tmp_path / "model.bin"
    path.write_bytes(struct.pack("<7i", 8, 12, 2, 4, 2, 16, 6) + struct.pack(f"<{count}f", *range(count)))
    model = llama.read_llama(path)

    assert model.embedding.weight.flatten().tolist() == list(range(128))
    assert model.out.weight is model.embedding.weight
    assert [block.attention_norm.weight[0].item() for block in model.blocks] == [128, 136]
    assert [block.attention.query.weight[0, 0].item() for block in model.blocks] == [144, 208]
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(TaskError, match=r"model\.bin must hold the weights of"):
        llama.read_llama(path)


def test_an_answer_depends_on_the_tokens_before_it_alone(modules):
    """Several query heads share a key head, and no token sees a later one."""
    _, llama = modules
    torch.manual_seed(0)
    model = llama.Llama(llama.Shape(width=8, hidden=12, layers=2, heads=4, key_heads=2, vocabulary=16, length=6)).eval()
    tokens = torch.tensor([[1, 2, 3, 4, 5, 6]])
    changed = torch.tensor([[1, 2, 3, 4, 9, 6]])
    with torch.no_grad():
        before, after = model(tokens), model(changed)

    torch.testing.assert_close(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4:], after[:, 4:])


def test_the_published_weights_tell_the_published_story(need_data, study_task):
    """Greedy text, token by token; the perplexity is that of a model which knows such stories."""
    need_data(*FILES)
    task = study_task("stories260k")
    tokenizer = sys.modules["data"].Tokenizer.read(sys.modules["data"].TOKENS.fetch())
    model, tokens = task.build_model(), [1]
    with torch.inference_mode():
        for _ in range(60):
            tokens.append(int(model(torch.tensor([tokens]))[0, -1].argmax()))
        inputs, targets = next(iter(task.loader(task.validation_data, 64)))
        loss = float(task.metric_kind.loss(model(inputs), targets))

    assert sum(parameter.numel() for parameter in model.parameters()) == 260_032
    assert tokenizer.decode(tokens).startswith(PUBLISHED)
    assert 1.2 < loss < 2  # a model that knows nothing has log(512) = 6.2
