"""The convolutional net of the spring-block paper's Fig. S2: every block keeps the shape of its features."""

import math
from collections import OrderedDict

from torch import Tensor, nn

from learnmech.errors import InputError
from learnmech.nets.dropout import Dropout
from learnmech.nets.initialisation import Scheme, require_finite_slope, require_scheme
from learnmech.nets.parts import make_activation, require_dropout, require_positive, start


class CNN(nn.Module):
    r"""Blocks of convolution, BatchNorm, LeakyReLU, pooling and upsampling, and a linear read-out.

    .. math::
        h_l = \mathrm{maxpool}_2(\sigma_\alpha(\mathrm{BN}(\mathrm{conv}_{3\times3}(g_{l-1})))), \quad
        g_l = \mathrm{drop}(\mathrm{up}(h_l)), \quad g_0 = x, \quad f = W\,\mathrm{vec}(g_{L-1}) + b.

    Pooling halves the image (rounding down) and nearest-neighbour upsampling brings it back to the size of the input.
    ``depth`` = L counts convolutions and the read-out.

    Source: Shi, Pan and Dokmanić, arXiv 2407.19353, Fig. S2 and its code (20 channels on 3 x 10 x 10 images; the text
    says 16). Different from it: any number of input channels and any image size of at least 2 x 2.

    The modules are ``hidden`` (a list of blocks with the parts ``conv``, ``norm``, ``activation``, ``pool``,
    ``upsample``, ``dropout``), ``flatten`` and ``readout``. The paper's features h_l are the outputs of every
    ``hidden[l].pool``.

    Args:
        input_shape: channels, height and width of an image.
        outputs: outputs, such as the number of classes.
        channels: channels of every convolution.
        depth: convolutions and the read-out together; 1 is a linear model.
        slope: negative slope of the LeakyReLU; 0 gives ReLU, 1 gives no non-linearity but the pooling.
        dropout: probability p with which an entry is dropped; 0 leaves the module out.
        batch_norm: whether to normalise the pre-activations.
        bias: whether the convolutions and the read-out have a bias.
        init: scheme of the initial weights, see :func:`learnmech.nets.initialise`.
        init_scale: a constant that multiplies the initial weights.

    Raises:
        InputError: if a size is not positive, the image is smaller than 2 x 2, the dropout is outside [0, 1), or the
            initialisation is unknown.

    Example:
        >>> import torch
        >>> CNN((1, 7, 10), 10, channels=4, depth=3)(torch.zeros(2, 1, 7, 10)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        outputs: int,
        *,
        channels: int = 20,
        depth: int = 8,
        slope: float = 0.0,
        dropout: float = 0.0,
        batch_norm: bool = True,
        bias: bool = True,
        init: Scheme = "torch",
        init_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.input_shape = _require_image_shape(input_shape)
        require_positive(outputs=outputs, channels=channels, depth=depth)
        require_finite_slope(slope)
        require_dropout(dropout)
        require_scheme(init)
        size = self.input_shape[1:]
        fans = [self.input_shape[0], *[channels] * (depth - 1)]
        self.hidden = nn.ModuleList()
        for fan_in in fans[:-1]:
            parts: OrderedDict[str, nn.Module] = OrderedDict(conv=nn.Conv2d(fan_in, channels, 3, padding=1, bias=bias))
            if batch_norm:
                parts["norm"] = nn.BatchNorm2d(channels)
            parts["activation"] = make_activation(slope)
            parts["pool"] = nn.MaxPool2d(2)
            parts["upsample"] = nn.Upsample(size=size, mode="nearest")
            if dropout > 0:
                parts["dropout"] = Dropout(dropout)
            self.hidden.append(nn.Sequential(parts))
        self.flatten = nn.Flatten()
        self.readout = nn.Linear(fans[-1] * math.prod(size), outputs, bias=bias)
        start(self, init, slope=slope, scale=init_scale)

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute the outputs.

        Args:
            inputs: images (n, channels, height, width).

        Returns:
            Outputs (n, outputs), not passed through a softmax.

        Raises:
            InputError: if the images have another shape than ``input_shape``.
        """
        if tuple(inputs.shape[1:]) != self.input_shape:
            raise InputError(
                f"this CNN was made for images of shape {self.input_shape} (channels, height, width), "
                f"got a batch of shape {tuple(inputs.shape)}."
            )
        features = inputs
        for block in self.hidden:
            features = block(features)
        outputs: Tensor = self.readout(self.flatten(features))
        return outputs


def _require_image_shape(shape: tuple[int, int, int]) -> tuple[int, int, int]:
    sizes = tuple(shape)
    if len(sizes) != 3 or not all(isinstance(size, int) for size in sizes) or sizes[0] < 1 or min(sizes[1:]) < 2:
        raise InputError(
            f"input_shape must be (channels, height, width) with at least 1 channel and 2 x 2 pixels, got {sizes!r}."
        )
    return sizes[0], sizes[1], sizes[2]
