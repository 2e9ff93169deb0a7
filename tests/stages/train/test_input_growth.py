"""Inputs that grow: what is shown when, what goes with it, and what cannot be smaller."""

from __future__ import annotations

import contextlib
import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from autocut.errors import InfeasibleRecipeError
from autocut.recipe import Recipe
from autocut.stages.methods import unfit_methods
from autocut.stages.train import Speed, Teacher, input_growths, teacher_logits, train_model
from autocut.stages.train.input_growth import FULL_SIZE_AT, SHARES, InputGrowth
from autocut.task.batches import tensors
from autocut.task.task import Task

RESIZING, LENGTH = {"train.input_growth": "progressive_resizing"}, {"train.input_growth": "sequence_length_warmup"}
INPUTS = {
    "pictures": torch.randn(3, 2, 8, 6),
    "tokens": {"input_ids": torch.arange(24).view(3, 8), "attention_mask": torch.ones(3, 8, dtype=torch.long)},
}
seen: list[tuple[int, ...]] = []
"""Shapes of what the models below were given while they trained."""


class Pooled(nn.Module):
    """Images (n, 1, 8, 8) of any size -> (n, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.head = nn.Linear(6, 3)

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        if self.training:
            seen.append(tuple(images.shape))
        return self.head(self.layers(images).flatten(1))


class Language(nn.Module):
    """Tokens (n, t) -> (n, t, 5)."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(5, 6), nn.Linear(6, 5)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits of the next tokens."""
        if self.training:
            seen.append(tuple(input_ids.shape))
        return self.head(self.table(input_ids) * attention_mask[..., None])


@pytest.fixture(autouse=True)
def nothing_seen():
    """Each test begins without shapes."""
    seen.clear()


def pictures(make_task, model: type[nn.Module] | None = None, **changes) -> Task:
    """A task of 96 images of three classes."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(0, 3, (160,), generator=generator)
    images = torch.randn(160, 1, 8, 8, generator=generator) + labels[:, None, None, None]
    splits = {name: (images[part], labels[part]) for name, part in zip(("train", "validation", "test"), PARTS, strict=True)}
    return make_task(**{"model": model or Pooled, **splits, **changes})


PARTS = (slice(0, 96), slice(96, 128), slice(128, 160))


def sentences(make_task, loss=None, padded: str = "right") -> Task:
    """A task of 96 sequences of 8 tokens, of which the last (or first) three may be padding."""
    tokens = torch.randint(0, 5, (160, 9), generator=torch.Generator().manual_seed(1))
    mask = (torch.arange(8) < 3 + torch.arange(160)[:, None] % 6).long()
    mask = mask if padded == "right" else mask.flip(1)
    rows = [({"input_ids": row[:-1], "attention_mask": keep}, row[1:]) for row, keep in zip(tokens, mask, strict=True)]
    splits = {name: rows[part] for name, part in zip(("train", "validation", "test"), PARTS, strict=True)}
    return make_task(model=Language, kind="language_modeling", loss=loss, **splits)


@pytest.mark.parametrize("name", input_growths.names())
def test_a_growth_gives_smaller_inputs_and_leaves_its_own_alone(name):
    """Of the same form, the same number of examples and the same dtypes; the whole input at share 1."""
    grow, taken = input_growths[name], 0
    for inputs in INPUTS.values():
        before = copy.deepcopy(inputs)
        with contextlib.suppress(InfeasibleRecipeError):
            smaller, whole = grow(inputs, 0.5), grow(inputs, 1.0)
            taken += 1
            pairs = [(new, tensors(inputs)[key]) for key, new in tensors(smaller).items()]
            assert all((new.dtype, len(new)) == (old.dtype, len(old)) for new, old in pairs)
            assert all(new.numel() < old.numel() for new, old in pairs) == (name != "none")
            torch.testing.assert_close(whole, inputs)
            torch.testing.assert_close(inputs, before, rtol=0, atol=0)
    assert taken


def test_images_are_scaled_with_a_filter_and_keep_their_dtype():
    """A checkerboard becomes gray, which picking every second pixel would not give; what is no image stays as it is."""
    board = ((torch.arange(8)[:, None] + torch.arange(8)) % 2).float().expand(2, 3, 8, 8)
    extra = torch.randn(2, 8)

    scaled, same = input_growths["progressive_resizing"]((board, extra), 0.5)
    as_bytes = input_growths["progressive_resizing"]((255 * board).to(torch.uint8), 0.5)

    torch.testing.assert_close(scaled, torch.full((2, 3, 4, 4), 0.5), atol=0.02, rtol=0)
    assert same is extra
    assert (as_bytes.dtype, as_bytes.shape) == (torch.uint8, (2, 3, 4, 4))
    torch.testing.assert_close(as_bytes.float() / 255, scaled, atol=0.01, rtol=0)


def test_masks_are_cut_with_their_tokens():
    """Square ones on both sides; features of another length are none of them."""
    tokens, square, features = torch.arange(16).view(2, 8), torch.randn(2, 1, 8, 8), torch.randn(2, 5)
    inputs = {"ids": tokens, "bias": square, "features": features}

    cut = input_growths["sequence_length_warmup"](inputs, 0.625)

    torch.testing.assert_close(cut, {"ids": tokens[:, :5], "bias": square[:, :, :5, :5], "features": features}, rtol=0, atol=0)
    assert cut["ids"].is_contiguous()


@pytest.mark.parametrize("epochs", [1, 3])
def test_inputs_grow_in_five_steps_and_the_last_third_is_whole(make_task, epochs):
    """The same samples are counted as without it, and the data is left as it was."""
    task = pictures(make_task, batch_size=4)
    before = task.train_data[:][0].clone()
    trained = train_model(task.build_model(), task, {"train.epochs": epochs, **RESIZING})
    sides = [shape[-1] for shape in seen]
    plain = train_model(task.build_model(), task, {"train.epochs": epochs})

    assert sides == sorted(sides)
    assert sorted(set(sides)) == [4, 5, 6, 7, 8]
    assert sum(side == 8 for side in sides) >= len(sides) / 3
    assert [sides.count(side) for side in (4, 5, 6, 7)] == pytest.approx([len(sides) / 6] * 4, abs=1)
    assert trained.samples_seen == plain.samples_seen == 96 * epochs
    torch.testing.assert_close(task.train_data[:][0], before, rtol=0, atol=0)
    assert not torch.equal(trained.model.head.weight, plain.model.head.weight)


def test_targets_of_each_position_are_cut_with_the_tokens(make_task):
    """The loss sees the next tokens of those that the model has read, of the teacher too."""
    pairs: list[tuple[Tensor, Tensor]] = []

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        pairs.append((outputs.detach(), targets))
        return functional.cross_entropy(outputs.flatten(0, 1), targets.flatten())

    task = sentences(make_task, loss)
    model = task.build_model()
    teacher = Teacher(model, teacher_logits(model, task))
    pairs.clear()
    train_model(model, task, {"train.epochs": 2, **LENGTH, "distill.loss": "kl", "distill.alpha": 0.5}, teacher=teacher)

    assert [targets.shape[1] for _, targets in pairs] == [shape[1] for shape in seen]
    assert {shape[1] for shape in seen} == {4, 5, 6, 7, 8}
    every = {tuple(targets[:4].tolist()) for _, targets in task.train_data}
    assert {tuple(row[:4].tolist()) for _, targets in pairs for row in targets} <= every
    assert all(outputs.shape[:2] == targets.shape for outputs, targets in pairs)


@given(st.lists(st.floats(0.01, 1), min_size=4, max_size=4), st.integers(0, 500), st.integers(1, 500))
def test_what_is_left_costs_what_its_samples_cost(costs, seen, planned):
    """The oracle asks for the cost of each sample; a sample in which inputs grow may count either way."""
    growth = InputGrowth(costs=tuple(costs))
    expected = sum(growth.cost((sample + 0.5) / planned) for sample in range(seen, planned))

    assert growth.cost_left(seen, planned) == pytest.approx(expected, abs=len(SHARES))
    assert growth.cost(FULL_SIZE_AT) == growth.cost(1.0) == 1.0


def test_a_training_tells_its_speed_in_samples_of_full_size(make_task):
    """Else a training that begins with small images would seem to be done sooner than it is."""

    class Watched(Speed):
        told, left = 0.0, 0.0

        def watching(self, samples):
            self.left = samples
            return super().watching(samples)

        def after_batch(self, samples, seconds):
            self.told += samples
            super().after_batch(samples, seconds)

    task, speed = pictures(make_task, batch_size=4), Watched()
    train_model(task.build_model(), task, {"train.epochs": 2, **RESIZING}, speed=speed)
    sizes = [shape[2] * shape[3] / 64 for shape in seen]

    assert speed.told == pytest.approx(4 * sum(sizes))
    assert speed.left == pytest.approx(speed.told, rel=0.03)
    assert speed.left < 0.7 * 2 * 96


def test_a_training_that_was_killed_goes_on_to_the_same_weights(make_task, tmp_path):
    """The size follows from the samples seen, which the checkpoint holds."""
    task, path, settings = pictures(make_task), tmp_path / "checkpoint.pt", {"train.epochs": 3, **RESIZING}
    through = train_model(task.build_model(), task, settings).model

    def die(epoch) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_model(task.build_model(), task, settings, checkpoint=path, on_epoch=die)
    resumed = train_model(task.build_model(), task, settings, checkpoint=path).model
    torch.testing.assert_close(resumed.state_dict(), through.state_dict(), rtol=0, atol=0)


class Flat(nn.Sequential):
    """Images to classes through a linear layer of a fixed width."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(1, 2, 3, padding=1), nn.Flatten(), nn.Linear(2 * 8 * 8, 3))


class Pixels(nn.Conv2d):
    """An answer for each pixel."""

    def __init__(self) -> None:
        super().__init__(1, 3, 3, padding=1)


def refused(task: Task, settings, match: str) -> None:
    """The training is infeasible for this reason, before its first batch."""
    with pytest.raises(InfeasibleRecipeError, match=match):
        train_model(task.build_model(), task, {"train.epochs": 2, **settings}, stop=lambda: pytest.fail("it trains"))


def test_what_cannot_be_smaller_is_infeasible_before_the_first_step(make_task):
    """With what the model said, and with the shapes."""
    resizing = "train.input_growth 'progressive_resizing' needs "
    refused(
        pictures(make_task, Flat), RESIZING, rf"^{resizing}a model that takes inputs \(n, 1, 4, 4\), got RuntimeError: mat1 and"
    )
    refused(make_task(), RESIZING, rf"^{resizing}images of shape \(channels, height, width\), got \(8,\)")
    refused(pictures(make_task), LENGTH, r"needs integer tokens of shape \(length,\), got \(1, 8, 8\) float32")
    refused(sentences(make_task, padded="left"), LENGTH, "needs padding after the tokens, got 4 first places without a token")
    refused(
        pictures(make_task, batch_size=96, epochs=1), {**RESIZING, "train.epochs": 1}, "must have a batch before the last third"
    )

    points = {name: (torch.randn(20, 1, 1, 1), torch.arange(20) % 3) for name in ("train", "validation", "test")}
    refused(make_task(model=Pooled, **points), RESIZING, rf"{resizing}inputs that can be smaller, got \(n, 1, 1, 1\)")


def test_outputs_of_the_size_of_images_are_infeasible(make_task):
    """A class of a pixel says nothing of the mean of four: known by the kind, or by the outputs where the kind tells nothing."""
    pixels = {name: (torch.randn(20, 1, 8, 8), torch.randint(0, 3, (20, 8, 8))) for name in ("train", "validation", "test")}
    own = {"loss": functional.cross_entropy, "metric": lambda outputs, targets: (outputs.argmax(1) == targets).float().mean((1, 2))}
    got = r"got outputs \(2, 3, 4, 4\) beside \(2, 3, 8, 8\) at full size, with targets \(16, 8, 8\)"

    refused(make_task(model=Pixels, **pixels, **own), RESIZING, rf"same targets at every size of the inputs, {got}")
    unfit = {
        kind: unfit_methods(kind, is_pretrained=False).get("train.input_growth", {}) for kind in ("segmentation", "perplexity")
    }
    assert {kind: set(names) for kind, names in unfit.items()} == {
        "segmentation": {"progressive_resizing", "sequence_length_warmup"},
        "perplexity": {"progressive_resizing"},
    }


def test_a_growth_is_told_and_is_no_training_by_hand():
    """What training alone brings is the same training at full size; recipes without it stay the same."""
    recipe = Recipe({"train.epochs": 4, "train.lr_scale": 0.3, **RESIZING})

    assert recipe.describe() == "4 epochs with progressive_resizing lr x0.3"
    assert recipe.untouched_trained_alike == Recipe({"train.epochs": 4, "train.lr_scale": 0.3, "train.input_growth": "none"})
    assert not recipe.only_trains_on
