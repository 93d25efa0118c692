"""Dispersion of the Jacobian between neighbouring layers of a network, whatever its code: from backward passes alone."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from learnmech.monitor.layers import Layer, device_of
from learnmech.monitor.probe import Probe
from learnmech.monitor.reader import LayerReader
from learnmech.monitor.snapshot import ProbePass
from learnmech.monitor.tensors import begins_with
from learnmech.monitor.untouched import untouched
from learnmech.monitor.unwrap import eager_modules

SAMPLES, DRAWS = 16, 96
"""Samples that are looked at, and backward passes over all of them together: at least six a sample, at most 24."""
_SEED = 20231118


def segment_dispersions(
    source: ProbePass, probe: Probe, layers: Sequence[str], values: Mapping[str, Tensor] | None = None
) -> dict[str, float]:
    r"""Estimate the dispersion of each layer's Jacobian with respect to the layer before, averaged over samples.

    With J the Jacobian of one sample's features at a layer with respect to those at the layer before (N entries), and
    independent normal u, u',

    .. math::
        v = \frac{N\, E\langle J^T u, J^T u' \rangle^2}{(E \|J^T u\|^2)^2} - 1,

    which is :math:`\tau((J^T J)^2) / \tau(J^T J)^2 - 1`. Pairs of different draws make both means unbiased.

    Source: derived here for :func:`learnmech.speed.predict_cosine`; the dispersion is that of arXiv 2311.18718's setting in the
    limit of large width.

    Args:
        source: the passes of the model.
        probe: the batch; its first few samples are used.
        layers: names of cut nodes, in order.
        values: parameters in the place of the model's own.

    Returns:
        Layer name to dispersion, from the second of the layers on; those without a value are left out.
    """
    features = _features(source, probe, layers, values)
    generator = torch.Generator().manual_seed(_SEED)
    found: dict[str, float] = {}
    for before, name in itertools.pairwise(layers):
        if before in features and name in features:
            value = _dispersion(features[before], features[name], generator)
            if value is not None:
                found[name] = value
    return found


def _features(
    source: ProbePass, probe: Probe, layers: Sequence[str], values: Mapping[str, Tensor] | None
) -> dict[str, Tensor]:
    device, wanted, kept = device_of(source.model), set(layers), {}
    samples = min(SAMPLES, probe.samples)

    def keep(layer: Layer, tensor: Tensor) -> None:
        if layer.name in wanted and tensor.requires_grad and begins_with(tensor.shape, samples):
            kept[layer.name] = tensor

    with untouched(source.model, device, evaluate=source.evaluate), torch.enable_grad():
        inputs, _, _ = probe.chunk(0, samples, device)
        reader = LayerReader(source.layers.layers, eager_modules(source.model), keep)
        with reader.attached():
            source.call(source.aliases(values), inputs)
    return kept


def _dispersion(before: Tensor, after: Tensor, generator: torch.Generator) -> float | None:
    pulled = []
    probes = min(24, max(6, DRAWS // len(before)))
    for _ in range(probes):
        direction = torch.randn(after.shape, generator=generator).to(after)
        gradient: Any = torch.autograd.grad(after, before, direction, retain_graph=True, allow_unused=True)[0]
        if gradient is None:
            return None
        pulled.append(gradient.reshape(len(before), -1).double())
    rows = torch.stack(pulled)
    products = torch.einsum("pne,qne->npq", rows, rows).cpu().numpy()
    squares = np.einsum("npp->np", products)
    other = ~np.eye(probes, dtype=bool)
    fourth = np.mean(products[:, other] ** 2, axis=1)
    # The square of the mean from pairs of different draws, as the mean of squares would be too large.
    second = np.mean((squares[:, :, None] * squares[:, None, :])[:, other], axis=1)
    if not (np.isfinite(fourth).all() and (second > 0).all()):
        return None
    return max(0.0, float(np.mean(rows.shape[2] * fourth / second)) - 1)
