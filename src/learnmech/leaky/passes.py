"""The discretised flow of several leaky ResNets at once, forward and backward, by hand: the engine of training and of momenta."""

import torch
from torch import Tensor


class StackedPasses:
    r"""Forward and backward passes of M leaky ResNets of one shape.

    .. math::
        A_l = (1 - \rho_l \tilde L) A_{l-1} + \rho_l W_l \sigma(A_{l-1}), \qquad
        G_{l-1} = (1 - \rho_l \tilde L) G_l + \rho_l\, \dot\sigma(A_{l-1}) \odot (V_l^T G_l), \qquad
        \partial C/\partial W_l = \rho_l\, G_l\, \sigma(A_{l-1})^T,

    with :math:`G_l = \partial C/\partial A_l`, :math:`W = [V\,|\,b]` and :math:`\dot\sigma(0) = 0`, as torch has it.

    Source: Jacot and Kaiser, "Hamiltonian mechanics of feature learning", the discretisation of its section on leaky ResNets;
    the backward pass is the chain rule.

    Memory is allocated once, for paths of one size: that of the features and their activations at every depth.

    Args:
        steps: step sizes (members, layers).
        effective_depths: effective depths (members,).
        width: neurons.
        samples: columns of the representations.
        bias: whether a row of ones is appended to the activations.
        dtype: of the passes.
        device: where they run.
    """

    def __init__(
        self,
        steps: Tensor,
        effective_depths: Tensor,
        *,
        width: int,
        samples: int,
        bias: bool,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        members, layers = steps.shape
        self._width, self._bias = width, bias
        self._dtype, self._device = dtype, device
        self._effective_depths = effective_depths.to(device, torch.float64)
        rows = width + int(bias)
        self.path = torch.empty(layers + 1, members, width, samples, dtype=dtype, device=device)
        self.activations = torch.ones(layers, members, rows, samples, dtype=dtype, device=device)
        self._gradient = torch.empty(members, width, samples, dtype=dtype, device=device)
        self._scaled = torch.empty(layers, members, width, samples, dtype=dtype, device=device)
        self.set_steps(steps)

    def set_steps(self, steps: Tensor) -> None:
        """Change the step sizes.

        Args:
            steps: step sizes (members, layers).
        """
        steps = steps.to(self._device, torch.float64)
        skips = 1 - steps * self._effective_depths[:, None]
        self._steps = steps.to(self._dtype)[:, :, None, None]
        self._skips: list[float | Tensor] = []
        for layer in range(steps.shape[1]):
            column = skips[:, layer]
            alike = bool((column == column[0]).all())
            self._skips.append(float(column[0]) if alike else column.to(self._dtype)[:, None, None])

    def forward(self, weights: Tensor, start: Tensor) -> Tensor:
        """Compute the path.

        Args:
            weights: weights (members, layers, width, width + bias).
            start: representations of the input (members or 1, width, samples).

        Returns:
            The last representation (members, width, samples); all are in ``path`` (layers + 1, members, width, samples).
        """
        scaled = weights * self._steps
        self.path[0].copy_(start.expand_as(self.path[0]))
        for layer, skip in enumerate(self._skips):
            before, after, active = self.path[layer], self.path[layer + 1], self.activations[layer]
            torch.clamp(before, min=0, out=active[:, : self._width])
            if isinstance(skip, float):
                torch.baddbmm(before, scaled[:, layer], active, beta=skip, out=after)
            else:
                torch.mul(before, skip, out=after)
                after.baddbmm_(scaled[:, layer], active)
        return self.path[-1]

    def backward(
        self, weights: Tensor, end: Tensor, *, into: Tensor | None = None, record: Tensor | None = None
    ) -> Tensor:
        """Carry a gradient on the last representation back to the first, after :meth:`forward` with the same weights.

        Args:
            weights: weights (members, layers, width, width + bias).
            end: gradient on the last representation (members, width, samples).
            into: where the gradient on the weights shall be written, of their shape.
            record: where the gradients on all representations shall be written (layers + 1, members, width, samples).

        Returns:
            The gradient on the first representation (members, width, samples).
        """
        scaled = weights * self._steps
        gradient = self._gradient.copy_(end)
        for layer in range(len(self._skips) - 1, -1, -1):
            if record is not None:
                record[layer + 1].copy_(gradient)
            if into is not None:
                self._scaled[layer].copy_(gradient)
            skip, active = self._skips[layer], self.activations[layer][:, : self._width]
            inner = torch.bmm(scaled[:, layer, :, : self._width].transpose(1, 2), gradient)
            inner = torch.ops.aten.threshold_backward(inner, active, 0)
            gradient = torch.add(inner, gradient.mul_(skip), out=gradient)
        if record is not None:
            record[0].copy_(gradient)
        if into is not None:
            for member in range(into.shape[0]):
                torch.bmm(self._scaled[:, member], self.activations[:, member].transpose(1, 2), out=into[member])
            into.mul_(self._steps)
        return gradient
