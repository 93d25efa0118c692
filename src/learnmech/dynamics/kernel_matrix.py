"""The tangent kernel of any module on a batch, as a matrix."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from learnmech.dynamics.tangent_capture import cover, layer_parts
from learnmech.dynamics.tangent_jacobians import Jacobians
from learnmech.dynamics.tangent_layers import BUDGET, LayerPart
from learnmech.dynamics.tangent_network import Network
from learnmech.dynamics.tangent_outputs import OutputChoice, combinations
from learnmech.errors import InputError

_FEW_OUTPUTS = 4
"""Up to this many outputs all are differentiated at once: gradients take no more than that many times the activations."""
Method = Literal["auto", "layers", "jacobian", "loop"]


def kernel(
    model: nn.Module,
    inputs: Any,
    *,
    other: Any = None,
    outputs: OutputChoice = "trace",
    learning_rates: float | Mapping[str, float] = 1.0,
    method: Method = "auto",
    chunk_size: int | None = None,
) -> Float[Tensor, "n m"] | Float[Tensor, "n c m c"]:
    r"""Compute the empirical neural tangent kernel of a module on a batch.

    .. math:: \Theta_{ij} = \sum_c\sum_p \eta_p\,\frac{\partial f_c(x_i)}{\partial\theta_p}
        \frac{\partial f_c(x_j)}{\partial\theta_p}

    Under gradient flow :math:`\theta_p' = -\eta_p\partial_p L` the outputs move by
    :math:`f(x_i)' = -\sum_j\Theta(x_i, x_j)\,\partial L/\partial f(x_j)`. A kernel that stays what it was at the start means that
    the network trains like a linear model of fixed features (lazy); one that turns means that features are learned (rich), see
    :func:`learnmech.dynamics.kernel_distance`. Source: Jacot, Gabriel and Hongler, arXiv 1806.07572, for the kernel.

    **How.** The part of a linear layer with inputs :math:`A` (n, in) and :math:`B_c` (n, out), the gradient of
    :math:`\sum_i f_c(x_i)` with respect to what the layer gives out, is :math:`\eta\,(AA^T)\circ\sum_c B_cB_c^T`, and its bias's
    :math:`\eta\sum_cB_cB_c^T`: one backward pass an output instead of a Jacobian (derived here). Convolutions, linear layers on
    tokens, embeddings and norms have formulas of the same kind, with sums over positions. Parameters of other modules, tied
    ones, and those of modules called several times or used from outside take per-sample Jacobians, whose products are added up
    one tensor after the other.

    Args:
        model: any module; it runs in evaluation mode (no dropout, running statistics in batch norm) and is left as it is.
        inputs: what it takes: a tensor, a tuple of positional or a mapping of keyword arguments, n samples along the first
            dimension.
        other: a second batch of m samples; None for ``inputs`` itself.
        outputs: ``"trace"`` adds up all outputs; an index or a list of indices adds up those; a tensor (k, c) adds up k fixed
            combinations of outputs; ``"full"`` keeps all pairs of outputs. The outputs of a sample are flattened: logits of all
            tokens of a sequence count as one row of c = tokens * classes numbers, and the trace goes over all.
        learning_rates: :math:`\eta`, one for every parameter that requires a gradient, or by name; those not named do not move.
        method: ``auto``; ``layers`` (refuses if a parameter needs a Jacobian); ``jacobian`` (per-sample Jacobians throughout,
            vectorised over samples); ``loop`` (one sample and one output at a time). All give the same numbers.
        chunk_size: samples in one pass, for less memory; None for all at once.

    Returns:
        (n, m) in float64 on the model's device; (n, c, m, c) for ``"full"``. Units: output squared per parameter squared, times
        the learning rate. The passes run in the model's precision.

    Raises:
        InputError: for something other than a module, a batch without samples or with NaN, outputs that are no tensor with
            the samples first or not finite, samples that influence one another (such as batch norm without running
            statistics), bad rates or choices, or ``layers`` where it is not enough.

    Example:
        A linear layer with bias has :math:`\Theta = c\,(XX^T + 1)`:

        >>> layer = nn.Linear(3, 2)
        >>> kernel(layer, torch.tensor([[0.0, 1.0, 2.0], [1.0, 1.0, 0.0]])).tolist()
        [[12.0, 4.0], [4.0, 6.0]]
    """
    if method not in ("auto", "layers", "jacobian", "loop"):
        raise InputError(f"method must be 'auto', 'layers', 'jacobian' or 'loop', but is {method!r}.")
    if chunk_size is not None and (isinstance(chunk_size, bool) or not isinstance(chunk_size, int) or chunk_size < 1):
        raise InputError(f"chunk_size must be a whole number of samples, at least 1, but is {chunk_size!r}.")
    network = Network(model, learning_rates)
    n = network.check(inputs)
    m = n if other is None else network.check(other)
    with network.running():
        combined = _combined(network, outputs, inputs, n)
        full = isinstance(outputs, str) and outputs == "full"
        covered = cover(network, inputs, n, formulas=method in ("auto", "layers"))
        layers, rest = covered.layers, covered.rest
        if rest and method == "layers":
            raise InputError(f"no exact layer formula covers {', '.join(rest)}; use method='auto'.")
        total = layer_kernel(network, layers, (inputs, other), (n, m), combined, chunk_size=chunk_size, full=full)
        if rest:
            jacobians = Jacobians(network, "loop" if method == "loop" else "vectorised")
            total = total + jacobians.gram(rest, inputs, other, (n, m), combined, chunk_size=chunk_size, full=full)
    if not bool(torch.isfinite(total).all()):
        raise InputError("the kernel is not finite: the model's outputs or their gradients overflow in its precision.")
    return total


def layer_kernel(
    network: Network,
    layers: tuple[str, ...],
    batches: tuple[Any, Any],
    counts: tuple[int, int],
    combined: Tensor,
    *,
    chunk_size: int | None = None,
    full: bool = False,
) -> Tensor:
    """Add up the parts of the kernel that layers with a formula give.

    Args:
        network: the network, which must be running.
        layers: their names.
        batches: both batches; None for the second if it is the same.
        counts: samples of both.
        combined: (combinations, outputs).
        chunk_size: samples in one pass.
        full: whether to keep pairs of outputs apart.

    Returns:
        (n, m), or (n, r, m, r), float64.
    """
    n, m = counts
    outputs = len(combined)
    shape = (n, outputs, m, outputs) if full else (n, m)
    total = torch.zeros(shape, dtype=torch.float64, device=combined.device)
    if not layers:
        return total
    size = outputs if full else _outputs_at_once(network, layers, batches[0], n, outputs)
    for start in range(0, outputs, size):
        rows = _chunks(network, layers, batches[0], n, combined[start : start + size], chunk_size)
        columns = rows
        if batches[1] is not None:
            columns = _chunks(network, layers, batches[1], m, combined[start : start + size], chunk_size)
        for index, (parts, begin, end) in enumerate(rows):
            for position, (others, left, right) in enumerate(columns):
                if columns is rows and position < index:
                    continue
                block = torch.stack([parts[name].gram(others[name], full=full) for name in layers]).sum(0)
                first, second = slice(begin, end), slice(left, right)
                if full:
                    total[first, :, second] += block
                else:
                    total[first, second] += block
                if columns is rows and position > index:
                    if full:
                        total[second, :, first] += block.permute(2, 3, 0, 1)
                    else:
                        total[second, first] += block.T
    return total


def _chunks(
    network: Network, layers: tuple[str, ...], inputs: Any, samples: int, combined: Tensor, chunk_size: int | None
) -> list[tuple[dict[str, LayerPart], int, int]]:
    step = chunk_size or samples
    chunks = []
    for start in range(0, samples, step):
        stop = min(start + step, samples)
        parts = layer_parts(network, layers, inputs, (start, stop, samples), combined)
        chunks.append((parts, start, stop))
    return chunks


def _outputs_at_once(network: Network, layers: tuple[str, ...], inputs: Any, samples: int, outputs: int) -> int:
    """Find for how many outputs the gradients of all layers fit into the budget, from a pass over one sample."""
    if outputs <= _FEW_OUTPUTS:
        return outputs
    sizes: list[int] = []

    def note(module: nn.Module, args: Any, output: Any) -> None:
        sizes.append(output.numel())

    handles = [network.modules[name].register_forward_hook(note) for name in layers]
    try:
        with torch.no_grad():
            network.outputs({}, network.batch(inputs, 0, 1, samples), 1)
    finally:
        for handle in handles:
            handle.remove()
    return max(1, min(outputs, 2 * BUDGET // max(1, samples * sum(sizes))))


def _combined(network: Network, choice: OutputChoice, inputs: Any, samples: int) -> Tensor:
    with torch.no_grad():
        row = network.outputs({}, network.batch(inputs, 0, 1, samples), 1)
    if not bool(torch.isfinite(row).all()):
        raise InputError("the model's output holds NaN or infinite entries for these inputs.")
    precise = torch.promote_types(row.dtype, torch.float32)
    return combinations(choice, row.shape[1], precise, row.device)
