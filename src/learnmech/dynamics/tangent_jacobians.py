"""Per-sample Jacobians of the parameters that no layer formula covers, tensor by tensor and some samples at a time."""

import dataclasses
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from learnmech.dynamics.tangent_layers import BUDGET, inner_products
from learnmech.dynamics.tangent_network import Network
from learnmech.errors import LearnmechWarning
from learnmech.monitor.criterion import out_of_memory
from learnmech.monitor.tangent import plain_kernels_only
from learnmech.monitor.tensors import tensors_in

Route = Literal["vectorised", "loop"]


class Jacobians:
    """Per-sample Jacobians of some parameters, vectorised over samples where torch can, else one sample after the other.

    Args:
        network: the network, which must be running whenever this is called.
        route: ``vectorised`` (falls back, with a warning), or ``loop``.
    """

    def __init__(self, network: Network, route: Route = "vectorised") -> None:
        self._network, self.route = network, route

    def gram(
        self,
        names: Sequence[str],
        inputs: Any,
        other: Any,
        counts: tuple[int, int],
        combined: Tensor,
        *,
        chunk_size: int | None,
        full: bool,
    ) -> Tensor:
        """Give the part of the kernel that some parameters make.

        Args:
            names: of the parameters.
            inputs: the one batch.
            other: the other; None for the same.
            counts: samples of both.
            combined: (combinations, outputs).
            chunk_size: samples in one pass; None for as many as fit into the budget.
            full: whether to keep pairs of outputs apart.

        Returns:
            (n, m), or (n, r, m, r), float64.
        """
        n, m = counts
        outputs = len(combined)
        shape = (n, outputs, m, outputs) if full else (n, m)
        total = torch.zeros(shape, dtype=torch.float64, device=combined.device)
        for group in self._groups(names, min(n, chunk_size or n) * outputs):
            entries = sum(self._network.leaves()[name].numel() for name in group)
            step = min(chunk_size or n, max(1, BUDGET // max(1, entries * outputs)))
            for start, stop in _bounds(n, step):
                rows = self._rows(group, inputs, (start, stop, n), combined)
                for begin, end in _bounds(m, step):
                    if other is None and end <= start:
                        continue  # symmetric: filled in below
                    same = other is None and begin == start
                    columns = (
                        rows
                        if same
                        else self._rows(group, inputs if other is None else other, (begin, end, m), combined)
                    )
                    block = sum(
                        self._network.rates[name] * inner_products(rows[name], columns[name], full=full)
                        for name in group
                    )
                    place = (
                        (slice(start, stop), slice(None), slice(begin, end))
                        if full
                        else (slice(start, stop), slice(begin, end))
                    )
                    total[place] += block
                    if other is None and not same:
                        mirror = (
                            (slice(begin, end), slice(None), slice(start, stop))
                            if full
                            else (slice(begin, end), slice(start, stop))
                        )
                        assert isinstance(block, Tensor)
                        total[mirror] += block.permute(2, 3, 0, 1) if full else block.T
        return total

    def _groups(self, names: Sequence[str], rows: int) -> Iterator[list[str]]:
        """Put parameters together until their Jacobians fill the budget."""
        group: list[str] = []
        filled, leaves = 0, self._network.leaves()
        for name in names:
            size = leaves[name].numel() * rows
            if group and filled + size > BUDGET:
                yield group
                group, filled = [], 0
            group.append(name)
            filled += size
        if group:
            yield group

    def _rows(
        self, names: Sequence[str], inputs: Any, bounds: tuple[int, int, int], combined: Tensor
    ) -> dict[str, Tensor]:
        start, stop, samples = bounds
        batch = self._network.batch(inputs, start, stop, samples)
        if self.route == "vectorised":
            try:
                return self._vectorised(names, batch, stop - start, combined)
            except Exception as error:  # whatever torch.func cannot run: it raises many kinds
                if out_of_memory(error):
                    raise
                self.route = "loop"
                warnings.warn(
                    f"per-sample Jacobians of {', '.join(names[:3])}{' ...' if len(names) > 3 else ''} cannot be vectorised and "
                    f"are computed one sample at a time, which is slow. {type(error).__name__}: {str(error)[:200]}",
                    LearnmechWarning,
                    stacklevel=4,
                )
        return self._looped(names, batch, stop - start, combined)

    def _vectorised(self, names: Sequence[str], batch: Any, samples: int, combined: Tensor) -> dict[str, Tensor]:
        leaves = [tensor.detach() for _, tensor in tensors_in(batch) if tensor.ndim > 0 and len(tensor) == samples]
        parameters = {name: tensor.detach() for name, tensor in self._network.leaves().items()}

        def outputs(moving: Mapping[str, Tensor], *own: Tensor) -> Tensor:
            remaining = iter(own)
            single = replaced(batch, lambda tensor: _next_row(tensor, samples, remaining))
            row = self._network.outputs({**parameters, **moving}, single, 1)[0]
            return combined.to(row.dtype) @ row

        moving = {name: parameters[name] for name in names}
        with plain_kernels_only(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*batching rule.*")
            jacobian = torch.func.vmap(
                torch.func.jacrev(outputs), in_dims=(None, *([0] * len(leaves))), randomness="same"
            )(moving, *leaves)
        return {
            name: _precise(tensor.flatten(2) if tensor.ndim > 2 else tensor[..., None])
            for name, tensor in jacobian.items()
        }

    def _looped(self, names: Sequence[str], batch: Any, samples: int, combined: Tensor) -> dict[str, Tensor]:
        found: dict[str, list[Tensor]] = {name: [] for name in names}
        for index in range(samples):
            leaves = self._network.leaves()
            single = self._network.batch(batch, index, index + 1, samples)
            row = self._network.outputs(leaves, single, 1)[0]
            values = combined.to(row.dtype) @ row
            moving = [leaves[name] for name in names]
            each = [
                torch.autograd.grad(value, moving, retain_graph=position + 1 < len(values), allow_unused=True)
                if value.requires_grad
                else [None] * len(moving)
                for position, value in enumerate(values)
            ]
            for name, leaf, *gradients in zip(names, moving, *each, strict=True):
                found[name].append(torch.stack([_dense(gradient, leaf) for gradient in gradients]))
        return {name: _precise(torch.stack(rows)) for name, rows in found.items()}


def replaced(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Build a batch anew with other tensors.

    Args:
        value: nested tuples, lists, mappings and dataclasses.
        change: called for each tensor in the order of :func:`learnmech.monitor.tensors.tensors_in`.

    Returns:
        The same structure.
    """
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        items = {key: replaced(item, change) for key, item in value.items()}
        return items if type(value) is dict else type(value)(items)  # type: ignore[call-arg]
    if isinstance(value, list | tuple):
        parts = [replaced(item, change) for item in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: replaced(getattr(value, field.name), change) for field in dataclasses.fields(value)}
        return dataclasses.replace(value, **fields)
    return value


def _next_row(tensor: Tensor, samples: int, remaining: Iterator[Tensor]) -> Tensor:
    return next(remaining).unsqueeze(0) if tensor.ndim > 0 and len(tensor) == samples else tensor


def _dense(gradient: Tensor | None, leaf: Tensor) -> Tensor:
    if gradient is None:
        return torch.zeros(leaf.numel(), dtype=leaf.dtype, device=leaf.device)
    return (gradient.to_dense() if gradient.is_sparse else gradient).flatten()


def _precise(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _bounds(count: int, step: int) -> list[tuple[int, int]]:
    return [(start, min(start + step, count)) for start in range(0, count, step)]
