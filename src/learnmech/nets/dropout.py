"""Dropout that costs a quarter of torch's on a CPU, where drawing the mask takes longer than the layer it follows."""

import torch
from torch import Tensor, nn

_LEVELS = 1 << 16  # a 64-bit draw is cut into four 16-bit numbers


class Dropout(nn.Dropout):
    r"""Zero each entry with probability p in training and multiply the others by 1 / (1 - p); the identity otherwise.

    On a CPU one 64-bit draw decides four entries, which makes a mask about four times as fast as that of
    :class:`torch.nn.Dropout`; p is rounded to the next multiple of :math:`2^{-16}` (but not to 0 or 1), and the factor
    uses the rounded p, so the mean is kept exactly. Elsewhere it is :class:`torch.nn.Dropout`. Draws come from torch's
    global generator.

    Source: Srivastava et al., "Dropout", JMLR 15 (2014), in the inverted form that torch uses.

    Example:
        >>> layer = Dropout(0.5)
        >>> sorted(set(layer(torch.ones(100)).tolist()))
        [0.0, 2.0]
        >>> layer.eval()(torch.ones(2)).tolist()
        [1.0, 1.0]
    """

    def forward(self, input: Tensor) -> Tensor:
        """Apply the mask.

        Args:
            input: any floating-point tensor.

        Returns:
            A tensor of the same shape; in evaluation mode the input itself.
        """
        exact = self.p in (0.0, 1.0) or self.inplace or not input.is_floating_point() or input.device.type != "cpu"
        if exact or not self.training:
            return super().forward(input)
        dropped = min(max(round(self.p * _LEVELS), 1), _LEVELS - 1)
        words = torch.randint(-(2**63), 2**63 - 1, ((input.numel() + 3) // 4,), dtype=torch.int64)
        levels = words.view(torch.int16)[: input.numel()].view(input.shape)  # uniform on -32768 .. 32767
        keep = levels >= dropped - _LEVELS // 2
        return input * keep.to(input.dtype).mul_(_LEVELS / (_LEVELS - dropped))
