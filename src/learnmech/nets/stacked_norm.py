"""BatchNorm of several members at once: few passes over the features, and running statistics as torch keeps them."""

import torch
from jaxtyping import Float
from torch import Tensor

from learnmech.nets.stacked_state import StackedState, Workspace


class StackedNorm:
    r"""One BatchNorm layer of each member, in training mode.

    .. math::
        c = z - \bar z, \quad y = s\,c + \beta, \quad s = \gamma r, \quad r = (\overline{c^2} + \epsilon)^{-1/2},

    and for the gradient :math:`\delta` on y, over n samples,

    .. math::
        \partial_\beta = \textstyle\sum\delta, \quad \partial_\gamma = r\sum\delta c, \quad
        \partial_z = s\,(\delta - \partial_\beta / n - c\,r\,\partial_\gamma / n).

    Source: Ioffe and Szegedy, "Batch normalization", arXiv 1502.03167; the running variance is the unbiased one, as in
    torch.

    Args:
        state: weights, gradients and buffers of the members.
        name: name of the layer, such as "hidden.0.norm".
        epsilon: what is added to the variance.
        momentum: weight of the newest batch in the running statistics.
    """

    def __init__(self, state: StackedState, name: str, epsilon: float, momentum: float) -> None:
        self.weight, self.bias = state.parameters[f"{name}.weight"], state.parameters[f"{name}.bias"]
        self.weight_slope, self.bias_slope = state.slopes[f"{name}.weight"], state.slopes[f"{name}.bias"]
        self._mean, self._variance = state.buffers[f"{name}.running_mean"], state.buffers[f"{name}.running_var"]
        self._batches = state.buffers[f"{name}.num_batches_tracked"]
        self._epsilon, self._momentum = epsilon, momentum
        self._scale, self._rate = self.weight, self.weight

    def centre_(
        self, values: Float[Tensor, "stack samples units"], squares: Tensor, shift: Tensor | None
    ) -> Float[Tensor, "stack 1 units"]:
        """Take the mean of the batch away, in place, and update the running statistics.

        Args:
            values: pre-activations; stack is 1 if all members see the same ones.
            squares: memory of the same shape, overwritten.
            shift: a constant (members, units) that belongs to the values but was left out of them.

        Returns:
            One over the standard deviation of the batch.
        """
        samples = values.shape[1]
        mean = values.mean(dim=1, keepdim=True)
        values.sub_(mean)
        variance = torch.mul(values, values, out=squares).mean(dim=1, keepdim=True)
        new_mean = mean[:, 0] if shift is None else mean[:, 0] + shift
        self._mean.lerp_(new_mean.expand_as(self._mean), self._momentum)
        unbiased = variance[:, 0] * (samples / (samples - 1))
        self._variance.lerp_(unbiased.expand_as(self._variance), self._momentum)
        self._batches += 1
        return variance.add_(self._epsilon).rsqrt_()

    def forward(
        self, values: Float[Tensor, "members samples units"], out: Tensor, shift: Tensor | None
    ) -> Float[Tensor, "members samples units"]:
        """Normalise.

        Args:
            values: pre-activations; centred in place, and wanted again by :meth:`backward_`.
            out: memory for the result.
            shift: see :meth:`centre_`.

        Returns:
            The normalised values, in ``out``.
        """
        self._rate = self.centre_(values, out, shift)
        self._scale = self._rate * self.weight[:, None]
        return torch.addcmul(self.bias[:, None], values, self._scale, out=out)

    def backward_(
        self, gradient: Float[Tensor, "members samples units"], centred: Tensor, workspace: Workspace
    ) -> Tensor:
        """Turn the gradient on the result into that on the pre-activations, in place, and keep those of the weights.

        Args:
            gradient: the gradient.
            centred: the values that :meth:`forward` left centred.
            workspace: memory.

        Returns:
            The gradient on the pre-activations.
        """
        samples = gradient.shape[1]
        product = torch.mul(gradient, centred, out=workspace.take("product", tuple(gradient.shape), gradient))
        torch.sum(gradient, dim=1, out=self.bias_slope)
        torch.mul(product.sum(dim=1), self._rate[:, 0], out=self.weight_slope)
        constant = self._scale * self.bias_slope[:, None] / -samples
        linear = self._scale * self._rate * self.weight_slope[:, None] / -samples
        torch.addcmul(constant, gradient, self._scale, out=gradient)
        return gradient.addcmul_(centred, linear)
