"""Images that grow."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from autocut.errors import InfeasibleRecipeError
from autocut.recipe import INPUT_GROWTH
from autocut.stages.train.registries import input_growths
from autocut.task.batches import Inputs, tensors, transform

_NAME = "progressive_resizing"


@input_growths.register(_NAME, logits_dimensions=2)
def resize_images(inputs: Inputs, share: float) -> Inputs:
    """Begin with images of half the height and width, and end with a third of the samples at full size.

    Images are the inputs of shape (n, channels, height, width); other inputs stay as they are. They are scaled down bilinearly,
    with a filter that is as wide as a pixel of the result.

    Raises:
        InfeasibleRecipeError: no input is an image.

    References:
        Howard 2018 (fast.ai's DAWNBench entry), https://www.fast.ai/posts/2018-04-30-dawnbench-fastai.html
        Tan and Le 2021 (EfficientNetV2), https://arxiv.org/abs/2104.00298
    """
    if not any(map(_is_image, tensors(inputs).values())):
        shapes = ", ".join(f"{tuple(tensor.shape[1:])}" for tensor in tensors(inputs).values())
        raise InfeasibleRecipeError(f"{INPUT_GROWTH} {_NAME!r} needs images of shape (channels, height, width), got {shapes}")

    def scale(tensor: Tensor) -> Tensor:
        if not _is_image(tensor):
            return tensor
        size = [max(1, round(share * side)) for side in tensor.shape[2:]]
        pixels = tensor if tensor.is_floating_point() else tensor.float()
        scaled = functional.interpolate(pixels, size, mode="bilinear", antialias=True)
        return scaled if tensor.is_floating_point() else scaled.round().to(tensor.dtype)

    return transform(inputs, scale)


def _is_image(tensor: Tensor) -> bool:
    return tensor.dim() == 4 and not tensor.is_complex()
