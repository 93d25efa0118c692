"""Shrinking images, as the spring-block paper does (28 x 28 to 10 x 10)."""

from torch import Tensor
from torch.nn import functional

from learnmech.data.checks import require_integer
from learnmech.errors import InputError


def resize(images: Tensor, size: int, antialias: bool = True) -> Tensor:
    """Resize images to squares of ``size`` x ``size`` pixels by bilinear interpolation.

    Pixels are areas: output pixel i of an axis of n pixels reads around the source position (i + 1/2) n / size - 1/2
    (``align_corners=False``). Without antialiasing that is a blend of its two neighbours on each axis, so shrinking by
    more than 2 skips pixels. With it, a triangle of half-width n / size is averaged over all pixels it covers.

    The trap: torchvision once resized tensors without antialiasing by default, and now does so with it. Measured for the
    spring-block paper (Shi, Pan, Dokmanic, arXiv 2407.19353), MNIST at 10 x 10: Fig. 1(a) has the accuracies that come
    without antialiasing, Fig. 1(c) those with it. Load curves keep their shape; accuracy moves by 2 to 3 points. So state
    which one was used.

    Args:
        images: (samples, channels, height, width), float.
        size: height and width of the result; the paper takes 10.
        antialias: whether to average over all pixels that an output pixel covers.

    Returns:
        (samples, channels, size, size), of the same type and on the same device.

    Raises:
        InputError: if the images are not floats with 4 axes, or ``size`` is not a positive integer.

    Example:
        >>> import torch
        >>> checkers = torch.tensor([[[[0.0, 1.0], [1.0, 0.0]]]])
        >>> resize(checkers, 1, antialias=False).item()
        0.5
    """
    require_integer("size", size, 1)
    if images.ndim != 4 or not images.is_floating_point():
        raise InputError(
            f"images: expected floats of shape (samples, channels, height, width), got {images.dtype} of shape "
            f"{tuple(images.shape)}. Convert with images.float() / 255, and add the axis of channels with images[:, None]."
        )
    return functional.interpolate(images, size=(size, size), mode="bilinear", align_corners=False, antialias=antialias)
