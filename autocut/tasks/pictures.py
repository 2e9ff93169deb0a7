"""A task of a folder of pictures, laid out for torchvision's ``ImageFolder``. Pillow reads the files; torchvision is not needed.

    FOLDER/train/CLASS/picture.jpg
    FOLDER/val/CLASS/picture.jpg      also "valid" or "validation"; left out, validation is split off train
    FOLDER/test/CLASS/picture.jpg     locked until models are finalized

References:
    https://docs.pytorch.org/vision/stable/generated/torchvision.datasets.ImageFolder.html
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from autocut.errors import MissingDependencyError, TaskError, quoted
from autocut.task.task import Task

Transform = Callable[[Any], Tensor]
"""(a picture of Pillow, in RGB) -> the model's input for one example, such as (3, size, size)."""

_ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm"})
_VALIDATION = ("val", "valid", "validation")
_RESIZED = 256 / 224
"""A picture is resized to this many times `size` before its middle is cut out."""
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's pictures, by channel."""


def from_torchvision_folder(
    model: Callable[[], nn.Module],
    folder: str | Path,
    *,
    name: str,
    size: int = 224,
    transform: Transform | None = None,
    train_transform: Transform | None = None,
    **settings: Any,
) -> Task:
    """Return the task of telling the class of a picture, from a folder for each split and each class.

    Classes are numbered in the order of their sorted names, as torchvision numbers them. Every split must have the classes of
    train, or some of them.

    Args:
        model: Builds the model: (n, 3, size, size) to (n, classes).
        folder: The folder with ``train`` and ``test``.
        name: The task's name.
        size: Height and width of the model's input in pixels, where `transform` is not given.
        transform: Makes an input of a picture, such as ``ResNet50_Weights.DEFAULT.transforms()``. Default: the shorter side is
            resized to 256/224 of `size`, the middle is cut out, and the channels are scaled as those of ImageNet.
        train_transform: What training uses instead; it may augment at random. Validation is never augmented.
        settings: Other fields of `Task`, such as `epochs` or `pretrained`.

    Raises:
        MissingDependencyError: Pillow is not installed.
        TaskError: a split or its pictures are missing, or a split has a class that train has not.
    """
    _require_pillow()
    root = Path(folder).expanduser()
    classes = _classes(root / "train")
    plain = Prepared(size) if transform is None else transform
    augmented = plain if train_transform is None else train_transform
    validation = next((root / split for split in _VALIDATION if (root / split).is_dir()), None)
    splits: dict[str, Any] = {
        "train": partial(_read, root / "train", classes, augmented),
        "test": partial(_read, root / "test", classes, plain),
    }
    if not (root / "test").is_dir():
        raise TaskError(
            f"folder must have a folder test beside train, got none in {root}", f"mkdir {root / 'test'}: a folder a class"
        )
    if validation is not None:
        splits["validation"] = partial(_read, validation, classes, plain)
    elif augmented is not plain:
        splits["train_eval"] = partial(_read, root / "train", classes, plain)
    return Task(name=name, model=model, **{**splits, **settings})


@dataclass(frozen=True)
class Prepared:
    """The transform of torchvision's classifiers for evaluation: a picture to (3, size, size), float32."""

    size: int

    def __call__(self, picture: Any) -> Tensor:
        """Resize, cut out the middle, scale the channels."""
        from PIL import Image

        scale = round(self.size * _RESIZED) / min(picture.size)
        width, height = (max(self.size, round(side * scale)) for side in picture.size)
        resized = picture.resize((width, height), Image.Resampling.BILINEAR)
        left, top = (width - self.size) // 2, (height - self.size) // 2
        cut = np.asarray(resized.crop((left, top, left + self.size, top + self.size)), dtype=np.float32)
        return ((torch.from_numpy(cut) / 255 - torch.tensor(_MEAN)) / torch.tensor(_DEVIATION)).permute(2, 0, 1).contiguous()


class Pictures(Dataset[tuple[Tensor, int]]):
    """The pictures of one split. A file is opened when its example is asked for, and closed again."""

    def __init__(self, files: Sequence[tuple[Path, int]], transform: Transform) -> None:
        self.files = files
        self._transform = transform

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return one picture as an input, and the number of its class."""
        from PIL import Image

        path, number = self.files[index]
        try:
            with Image.open(path) as picture:
                return self._transform(picture.convert("RGB")), number
        except OSError as error:
            raise TaskError(
                f"pictures must be readable, got {type(error).__name__} in {path}: {error}", "replace or remove it"
            ) from error


def _require_pillow() -> None:
    try:
        import PIL.Image  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError("a folder of pictures needs Pillow, got none", "pip install pillow") from error


def _classes(folder: Path) -> dict[str, int]:
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else []
    if len(names) < 2:
        raise TaskError(
            f"folder must have train with a folder for each of at least 2 classes, got {len(names)} in {folder}",
            "train/CLASS/picture.jpg",
        )
    return {name: number for number, name in enumerate(names)}


def _read(folder: Path, classes: dict[str, int], transform: Transform) -> Pictures:
    if unknown := sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name not in classes):
        raise TaskError(
            f"a split must have the classes of train, got {quoted(unknown[0])} in {folder}", f"train has {', '.join(classes)}"
        )
    files = [
        (path, number)
        for name, number in classes.items()
        for path in sorted((folder / name).rglob("*"))
        if path.suffix.lower() in _ENDINGS
    ]
    if not files:
        raise TaskError(f"a split must have pictures, got none in {folder}", f"files end in {', '.join(sorted(_ENDINGS))}")
    return Pictures(files, transform)
