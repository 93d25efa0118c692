"""The regularised cost of several leaky ResNets, with its gradient, as a function of one flat vector each."""

from collections.abc import Sequence

import torch
from torch import Tensor

from learnmech.errors import InputError
from learnmech.leaky.data_costs import prepare_targets, stacked_cost
from learnmech.leaky.network import LeakyResNet
from learnmech.leaky.passes import StackedPasses

_CACHED = 150_000  # entries of a representation, of all members of a group together


class StackedObjective:
    r"""Cost J and gradient of M nets of one shape on the same data, computed by hand.

    .. math:: \partial J/\partial W_l = \rho_l\,(\tfrac{\lambda}{\tilde L} W_l + G_l\,\sigma(A_{l-1})^T).

    Effective depths, step sizes and penalties may differ between members. The nets are read when this is made and never written;
    :meth:`store` writes them.

    Args:
        nets: the nets.
        inputs: inputs (samples, d_in).
        targets: targets, as the nets' cost expects them.
        dtype: of the computation.
        device: where it runs; by default where the first net is.

    Raises:
        InputError: if there is no net, the nets differ in shape, or the data do not fit.
    """

    def __init__(
        self,
        nets: Sequence[LeakyResNet],
        inputs: Tensor,
        targets: Tensor,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | None = None,
    ) -> None:
        first = require_alike(nets)
        self._device = first.steps.device if device is None else device
        self._dtype = dtype
        self._nets, self._name = tuple(nets), first.loss
        self.set_data(inputs, targets)
        self._shape = (first.layers, first.width, first.width + int(first.bias))
        self._learned = first.embeddings == "learned"
        self._effective_depths = torch.tensor([net.effective_depth for net in nets], dtype=torch.float64)
        self._penalties = torch.tensor([net.penalty for net in nets], dtype=torch.float64)
        self._embedding = torch.stack([net.embedding.weight.detach() for net in nets]).to(self._device, dtype)
        self._readout = torch.stack([net.readout.weight.detach() for net in nets]).to(self._device, dtype)
        samples = self._inputs.shape[1]
        steps = torch.stack([net.steps for net in nets])
        self._groups = [
            (
                rows,
                StackedPasses(
                    steps[rows],
                    self._effective_depths[rows],
                    width=first.width,
                    samples=samples,
                    bias=first.bias,
                    dtype=dtype,
                    device=self._device,
                ),
            )
            for rows in _groups(len(nets), first.width * samples, self._device)
        ]
        self.set_steps(steps)

    @property
    def path(self) -> Tensor:
        """Representations (layers + 1, members, width, samples) of the latest evaluation."""
        paths = [passes.path for _, passes in self._groups]
        return paths[0] if len(paths) == 1 else torch.cat(paths, dim=1)

    def step_norms(self) -> tuple[Tensor, Tensor]:
        """Measure the steps of the latest evaluation, infinite or NaN where it was.

        Returns:
            Norms of the changes, and of the representations after them, each (members, layers) in float64.
        """
        changes = [torch.linalg.vector_norm(passes.path.diff(dim=0), dim=(2, 3)) for _, passes in self._groups]
        norms = [torch.linalg.vector_norm(passes.path[1:], dim=(2, 3)) for _, passes in self._groups]
        return torch.cat(changes, dim=1).T.double(), torch.cat(norms, dim=1).T.double()

    @property
    def steps(self) -> Tensor:
        """Step sizes (members, layers) in float64."""
        return self._steps

    @property
    def effective_depths(self) -> Tensor:
        """Effective depths (members,) in float64."""
        return self._effective_depths

    @property
    def weight_scales(self) -> Tensor:
        r"""The factors :math:`\rho_l \lambda / \tilde L` (members, layers) by which the penalty multiplies weights in the gradient."""
        return self._factors[:, :, 0, 0].double()

    def weights_of(self, values: Tensor) -> Tensor:
        """Give the weights in flat vectors.

        Args:
            values: vectors (members, numbers).

        Returns:
            A view of them (members, layers, width, width + bias).
        """
        return self._split(values)[0]

    def set_steps(self, steps: Tensor) -> None:
        """Change the step sizes.

        Args:
            steps: step sizes (members, layers).
        """
        self._steps = steps.detach().to(self._device, torch.float64)
        for rows, passes in self._groups:
            passes.set_steps(self._steps[rows])
        factors = self._steps * (self._penalties / self._effective_depths).to(self._device)[:, None]
        self._factors = factors.to(self._dtype)[:, :, None, None]

    def set_data(self, inputs: Tensor, targets: Tensor) -> None:
        """Change the data, for others of the same number of samples.

        Args:
            inputs: inputs (samples, d_in).
            targets: their targets. What does not fit raises :class:`~learnmech.errors.InputError`.
        """
        first = self._nets[0]
        inputs = require_inputs(first, inputs)
        prepared = prepare_targets(self._name, targets.detach(), len(inputs), first.readout.out_features)
        self._inputs = inputs.detach().to(self._device, self._dtype).mT
        self._targets = prepared.to(self._device, self._dtype if prepared.is_floating_point() else None)

    def values(self) -> Tensor:
        """Read what is trained from the nets.

        Returns:
            One flat vector a member (members, numbers): weights, then learned embeddings.
        """
        rows = []
        for net in self._nets:
            parts = [net.weights.flatten()]
            if self._learned:
                parts += [net.embedding.weight.detach().flatten(), net.readout.weight.detach().flatten()]
            rows.append(torch.cat(parts))
        return torch.stack(rows).to(self._device, self._dtype)

    def store(self, values: Tensor, members: Sequence[int] | None = None) -> None:
        """Write vectors and step sizes into the nets.

        Args:
            values: vectors (members, numbers).
            members: which nets to write; all by default.
        """
        weights, embedding, readout = self._split(values.detach())
        for member in range(len(self._nets)) if members is None else members:
            net = self._nets[member]
            net.set_weights(weights[member])
            net.steps.copy_(self._steps[member])
            if embedding is not None and readout is not None:
                with torch.no_grad():
                    net.embedding.weight.copy_(embedding[member])
                    net.readout.weight.copy_(readout[member])

    def cost_and_gradient(self, values: Tensor, into: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Evaluate J and its gradient.

        Args:
            values: vectors (members, numbers).
            into: where the gradient shall be written.

        Returns:
            Costs (members,) in float64, and gradients (members, numbers).
        """
        gradient = torch.empty_like(values) if into is None else into
        costs = self._penalty(values)
        for rows, passes in self._groups:
            costs[rows] += self._evaluate(passes, values[rows], gradient[rows], rows)
        return costs, gradient

    def _evaluate(self, passes: StackedPasses, values: Tensor, gradient: Tensor, rows: slice) -> Tensor:
        """Write the gradient of some members, and give their data costs."""
        weights, embedding, readout = self._split(values)
        weight_gradient, embedding_gradient, readout_gradient = self._split(gradient)
        data_costs, slope, end, back = self._pass(passes, values, rows)
        start_slope = passes.backward(weights, back, into=weight_gradient)
        weight_gradient.addcmul_(weights, self._factors[rows])
        if embedding is not None and readout is not None:
            assert embedding_gradient is not None
            assert readout_gradient is not None
            decay = self._penalties[rows].to(self._device, self._dtype)[:, None, None]
            embedding_gradient.copy_(torch.matmul(start_slope, self._inputs.mT))
            embedding_gradient.addcmul_(embedding, decay)
            readout_gradient.copy_(torch.bmm(slope, end.mT))
            readout_gradient.addcmul_(readout, decay)
        return data_costs

    def _pass(self, passes: StackedPasses, values: Tensor, rows: slice) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Run forward: data costs, their gradient on the outputs, the last representations, and the gradient on these."""
        weights, embedding, readout = self._split(values)
        readout = self._readout[rows] if readout is None else readout
        end = passes.forward(
            weights, torch.matmul(self._embedding[rows] if embedding is None else embedding, self._inputs)
        )
        data_costs, slope = stacked_cost(self._name, torch.bmm(readout, end), self._targets)
        return data_costs, slope, end, torch.bmm(readout.mT, slope)

    def data_costs(self, values: Tensor) -> Tensor:
        """Evaluate C alone.

        Args:
            values: vectors (members, numbers).

        Returns:
            Costs (members,) in float64.
        """
        return torch.cat([self._pass(passes, values[rows], rows)[0] for rows, passes in self._groups])

    def end_gradients(self, values: Tensor) -> Tensor:
        """Evaluate the gradients of C on all representations.

        Args:
            values: vectors (members, numbers).

        Returns:
            Gradients (layers + 1, members, width, samples).
        """
        records = []
        for rows, passes in self._groups:
            back = self._pass(passes, values[rows], rows)[-1]
            record = torch.empty_like(passes.path)
            passes.backward(self._split(values[rows])[0], back, record=record)
            records.append(record)
        return torch.cat(records, dim=1)

    def _penalty(self, values: Tensor) -> Tensor:
        weights, embedding, readout = self._split(values)
        squares = weights.square().sum((2, 3), dtype=torch.float64)
        scale = (self._penalties / (2 * self._effective_depths)).to(self._device)
        total = (squares * self._steps).sum(1) * scale
        if embedding is not None and readout is not None:
            both = embedding.square().sum((1, 2), dtype=torch.float64) + readout.square().sum(
                (1, 2), dtype=torch.float64
            )
            total = total + both * self._penalties.to(self._device) / 2
        return total

    def _split(self, values: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        layers, rows, columns = self._shape
        size = layers * rows * columns
        weights = values[:, :size].reshape(-1, *self._shape)
        if not self._learned:
            return weights, None, None
        inner = self._embedding[0].numel()
        return (
            weights,
            values[:, size : size + inner].reshape(-1, *self._embedding.shape[1:]),
            values[:, size + inner :].reshape(-1, *self._readout.shape[1:]),
        )


def _groups(members: int, entries: int, device: torch.device) -> list[slice]:
    """Cut members into groups whose representations at one depth stay in a processor's cache; a GPU takes all at once."""
    size = members if device.type != "cpu" else max(1, _CACHED // entries)
    return [slice(start, min(start + size, members)) for start in range(0, members, size)]


def require_alike(nets: Sequence[LeakyResNet]) -> LeakyResNet:
    """Check that nets can be stacked.

    Args:
        nets: the nets.

    Returns:
        The first.

    Raises:
        InputError: if there is none, one is no leaky ResNet, or they differ in more than effective depth, steps and penalty.
    """
    if not nets:
        raise InputError("expected at least one LeakyResNet, got none.")
    for net in nets:
        if not isinstance(net, LeakyResNet):
            raise InputError(
                f"expected a LeakyResNet, got {type(net).__name__}; for other nets use lm.watch(model, measures='full')."
            )
    first = _form(nets[0])
    for position, net in enumerate(nets):
        if _form(net) != first:
            raise InputError(
                f"stacked nets must agree in (d_in, d_out, width, layers, bias, embeddings, loss); net 0 has {first}, net "
                f"{position} has {_form(net)}. Train them apart."
            )
    return nets[0]


def require_inputs(net: LeakyResNet, inputs: Tensor) -> Tensor:
    """Check inputs and flatten them.

    Args:
        net: the net that they are for.
        inputs: inputs (samples, ...).

    Returns:
        Inputs (samples, d_in).

    Raises:
        InputError: if there are none, the shape does not fit, or they are not finite real numbers.
    """
    flat = inputs.flatten(1) if inputs.ndim > 1 else inputs
    if flat.ndim != 2 or flat.shape[1] != net.embedding.in_features or len(flat) == 0:
        raise InputError(
            f"inputs must have the shape (samples, {net.embedding.in_features}) with at least one sample, got "
            f"{tuple(inputs.shape)}."
        )
    if not flat.is_floating_point() or not bool(torch.isfinite(flat).all()):
        raise InputError("inputs must be finite floating-point numbers, but hold NaN, infinity or another type.")
    return flat


def _form(net: LeakyResNet) -> tuple[int, int, int, int, bool, str, str]:
    return (
        net.embedding.in_features,
        net.readout.out_features,
        net.width,
        net.layers,
        net.bias,
        net.embeddings,
        net.loss,
    )
