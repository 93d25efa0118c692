"""The kernel that the regime instrument follows: a few samples, a few fixed combinations of outputs."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from learnmech.dynamics.kernel_matrix import layer_kernel
from learnmech.dynamics.regime_reference import StartingParameters
from learnmech.dynamics.regime_samples import choose_samples
from learnmech.dynamics.tangent_capture import Cover, catching, cover
from learnmech.dynamics.tangent_jacobians import Jacobians, replaced
from learnmech.dynamics.tangent_network import Network
from learnmech.dynamics.tangent_outputs import random_combinations
from learnmech.errors import LearnmechWarning
from learnmech.monitor.probe import Probe
from learnmech.monitor.snapshot import Snapshot
from learnmech.monitor.tensors import samples_in, tensors_in

EXACT = 10
"""Up to this many outputs the kernel of a net on vectors is the trace over all of them."""
EXACT_ELSEWHERE = 3
"""The same where layers work on images or tokens, and a backward pass costs more."""
COMBINATIONS = 4
"""Fixed random combinations of more outputs, one backward pass each. Two made lazy MLPs on digits look less so: centred distances of
0.067 and 0.043 where the trace had 0.024 and 0.018."""
COMBINATIONS_OF_SEQUENCES = 2
"""The same above 64 outputs a sample."""
_ENOUGH = 0.5
"""Share of the moving parameters from which the layers with a formula are taken for the whole network."""
_FEW = 16
"""Samples where formulas cover less, since Jacobians cost more."""


class FollowedKernel:
    """What is found once for a probe and kept between its measurements.

    Args:
        probe: the batch.
    """

    def __init__(self, probe: Probe) -> None:
        labels = probe.labels if probe.labels_per_sample == 1 else None
        self.rows = choose_samples(probe.inputs, probe.samples, labels if probe.classification else None)
        self.first: np.ndarray | None = None
        self._latest: tuple[int, np.ndarray] | None = None
        self._before: np.ndarray | None = None
        self.parameters: StartingParameters | None = None
        self.reason = ""
        self.covered = 1.0
        self._rates: dict[str, float] = {}
        self._cover: Cover | None = None
        self._combined: Tensor | None = None
        self._jacobians_in_loop = False

    @property
    def combinations(self) -> int:
        """How many combinations of outputs there are; 0 before the first measurement."""
        return 0 if self._combined is None else len(self._combined)

    def before(self, step: int, matrix: np.ndarray) -> np.ndarray | None:
        """Take the kernel of a probe, and give that of the probe before; one that was made again counts once.

        Args:
            step: optimizer step of the probe.
            matrix: its kernel.

        Returns:
            The kernel before; None at the first probe.
        """
        if self._latest is not None and self._latest[0] != step:
            self._before = self._latest[1]
        self._latest = (step, matrix)
        return self._before

    def state_dict(self) -> dict[str, Any]:
        """Give what later probes are compared with.

        Returns:
            Tensors and numbers by name; empty before the first kernel.
        """
        if self.first is None or self._latest is None or self.parameters is None:
            return {}
        step, latest = self._latest
        matrices = {"first": self.first, "latest": latest} | ({} if self._before is None else {"before": self._before})
        return {
            "step": step,
            "rows": torch.from_numpy(self.rows),
            "parameters": self.parameters.state_dict(),
            **{name: torch.from_numpy(matrix) for name, matrix in matrices.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Compare from now on with what :meth:`state_dict` gave, if it is of the same samples.

        Args:
            state: the state; another probe's has no effect, and distances are then from this watch's own start.
        """
        if not state or not np.array_equal(state["rows"].numpy(), self.rows[: len(state["rows"])]):
            return
        self.first = state["first"].numpy()
        self._latest = (int(state["step"]), state["latest"].numpy())
        self._before = state["before"].numpy() if "before" in state else None
        self.parameters = StartingParameters.of_state(state["parameters"])

    def measure(self, snapshot: Snapshot) -> np.ndarray:
        """Compute the kernel of the chosen samples.

        Args:
            snapshot: the probe.

        Returns:
            The matrix, float64. Raises what the model raises, and InputError for what has no kernel.
        """
        if self.parameters is None:
            self.parameters = StartingParameters(snapshot.model)
        network = Network(snapshot.model, self._rates or 1.0, wrapped=False)
        if self._cover is None:
            network.check(self._batch(snapshot.probe))
            self._rates = network.rates
            self._look(network, snapshot.probe)
        assert self._cover is not None
        assert self._combined is not None
        batch, combined = self._batch(snapshot.probe), self._combined.to(network.device)
        n, size = len(self.rows), snapshot.chunk_size
        with network.running():
            matrix = layer_kernel(network, self._cover.layers, (batch, None), (n, n), combined, chunk_size=size)
            if self.covered < _ENOUGH:
                jacobians = Jacobians(network, "loop" if self._jacobians_in_loop else "vectorised")
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", LearnmechWarning)  # it is not the user who chose this route
                    matrix = matrix + jacobians.gram(
                        self._cover.rest, batch, None, (n, n), combined, chunk_size=size, full=False
                    )
                self._jacobians_in_loop = jacobians.route == "loop"
        result: np.ndarray = matrix.cpu().numpy()
        return result

    def _look(self, network: Network, probe: Probe) -> None:
        """Find which layers have formulas, and draw the combinations of outputs."""
        samples = len(self.rows)
        with network.running():
            found = cover(network, self._batch(probe), samples)
            with torch.no_grad():
                row = network.outputs({}, network.batch(self._batch(probe), 0, 1, samples), 1)
        sizes = {name: tensor.numel() for name, tensor in network.leaves().items() if name in network.rates}
        missing = sum(sizes[name] for name in found.rest)
        self.covered = 1 - missing / sum(sizes.values())
        if self.covered < _ENOUGH:
            self.rows = self.rows[:_FEW]
        precise = torch.promote_types(row.dtype, torch.float32)
        self._combined = _combinations(row.shape[1], vectors=self._on_vectors(network, found, probe)).to(precise)
        self._cover = found

    def _on_vectors(self, network: Network, found: Cover, probe: Probe) -> bool:
        """Tell whether all layers with a formula work on vectors, one a sample."""
        batch = network.batch(self._batch(probe), 0, 1, len(self.rows))
        with network.running(), catching({name: network.modules[name] for name in found.layers}) as calls:
            network.outputs(network.leaves(), batch, 1)
        return all(call.inputs.ndim == 2 and call.length == 1 for made in calls.values() for call in made)

    def _batch(self, probe: Probe) -> Any:
        return chosen_rows(probe.inputs, self.rows, probe.samples)


def _combinations(outputs: int, *, vectors: bool) -> Tensor:
    if outputs <= (EXACT if vectors else EXACT_ELSEWHERE):
        return torch.eye(outputs, dtype=torch.float64)
    return random_combinations(COMBINATIONS if outputs <= 64 else COMBINATIONS_OF_SEQUENCES, outputs)


def chosen_rows(inputs: Any, rows: np.ndarray, samples: int) -> Any:
    """Take some samples of a batch.

    Args:
        inputs: the batch.
        rows: which.
        samples: how many it has.

    Returns:
        The same structure.
    """
    index = torch.from_numpy(rows)
    assert samples_in(inputs) == samples
    assert next(tensors_in(inputs), None) is not None

    def take(tensor: Tensor) -> Tensor:
        given = tensor.detach()
        return given[index.to(given.device)] if given.ndim > 0 and len(given) == samples else given

    return replaced(inputs, take)
