"""What the search for a geodesic gives."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from learnmech.leaky.geodesic_history import Variables, path_history
from learnmech.leaky.hamilton_equations import plain_hamiltonian
from learnmech.leaky.representations import activated


@dataclass(frozen=True)
class Geodesic:
    """A path of least action between two representations, in a net of L layers; tensors are in float64.

    Attributes:
        path: representations A_0 to A_L (layers + 1, width, samples).
        momenta: momenta B_0 to B_L (layers + 1, width, samples); the energy of layer l is that of A_(l-1) and B_l.
        weights: weights W_1 to W_L (layers, width, width + 1), the bias in the last column; (layers, width, width) without.
        steps: step sizes (layers,).
        effective_depth: the leak.
        bias: whether there are biases.
        action: the action, half the sum of step times squared weights over the effective depth.
        hamiltonian: energy of each layer (layers,), constant up to O(1/layers).
        effective_dimension: -2 H over the effective depth, averaged over layers with the steps as weights: the slope of twice
            the least action in the effective depth (derived in learnmech).
        end_error: how far A_L is from the end asked for, relative to the size of the ends.
        stationarity: residual of each layer (layers,), the norm of W_l - Lt B_l sigma(A_(l-1))^T relative to the
            root-mean-square norm of the weights.
        kinks: entries of inner nodes that the path holds at 0. There the slope of the activation in the recursion of B is one in
            [0, 1] that the minimum determines, instead of 0.
        converged: whether end and stationarity were met.
        iterations: steps that the search took.
    """

    path: Float[Tensor, "nodes width samples"]
    momenta: Float[Tensor, "nodes width samples"]
    weights: Float[Tensor, "layers width rows"]
    steps: Float[Tensor, " layers"]
    effective_depth: float
    bias: bool
    action: float
    hamiltonian: Float[Tensor, " layers"]
    effective_dimension: float
    end_error: float
    stationarity: Float[Tensor, " layers"]
    kinks: int
    converged: bool
    iterations: int

    @classmethod
    def from_arrays(
        cls,
        *,
        path: Float[np.ndarray, "nodes width samples"],
        momenta: Float[np.ndarray, "nodes width samples"],
        weights: Float[np.ndarray, "layers width rows"],
        steps: Float[np.ndarray, " layers"],
        effective_depth: float,
        bias: bool,
        kinks: int,
        end_error: float,
        converged: bool,
        iterations: int,
        device: torch.device,
    ) -> "Geodesic":
        """Derive what follows from path, momenta and weights.

        Args:
            path: representations.
            momenta: momenta.
            weights: weights.
            steps: step sizes.
            effective_depth: the leak.
            bias: whether there are biases.
            kinks: entries held at 0.
            end_error: distance from the end asked for.
            converged: whether the search succeeded.
            iterations: steps that it took.
            device: where the tensors shall be.

        Returns:
            The geodesic.
        """
        A, B, W, sizes = (torch.from_numpy(np.array(array)).to(device) for array in (path, momenta, weights, steps))
        energies = plain_hamiltonian(A[:-1], B[1:], effective_depth, bias=bias)
        residual = torch.linalg.matrix_norm(W - effective_depth * (B[1:] @ activated(A[:-1], bias=bias).mT))
        norms = torch.linalg.matrix_norm(W)
        scale = float(norms.square().mean().sqrt())
        return cls(
            path=A,
            momenta=B,
            weights=W,
            steps=sizes,
            effective_depth=effective_depth,
            bias=bias,
            action=float(sizes @ norms.square()) / (2 * effective_depth),
            hamiltonian=energies,
            effective_dimension=-2 / effective_depth * float(sizes @ energies),
            end_error=end_error,
            stationarity=residual / scale if scale else residual,
            kinks=kinks,
            converged=converged,
            iterations=iterations,
        )

    def to_history(self, *, ridges: Sequence[float] = ()) -> xr.Dataset:
        """Make a history over depth.

        Args:
            ridges: for which ridges the cost of identity is taken.

        Returns:
            A history over ``layer`` (nodes "0" to "L", with their ``depth``) with the variables of
            :func:`learnmech.leaky.flow`, and ``weights`` over (layer, neuron, input) and ``stationarity``. What belongs to a
            layer stands at the node that it leaves, NaN at the last.
        """
        end = torch.full_like(self.path[:1], torch.nan)
        depths = np.concatenate([[0.0], np.cumsum(self.steps.cpu().numpy())])
        source = "derived in learnmech"
        further: Variables = {
            "weights": (
                ("layer", "neuron", "input"),
                torch.cat([self.weights, torch.full_like(self.weights[:1], torch.nan)]),
                {"long_name": "weights of the layer that follows, the bias last", "units": "1", "source": source},
            ),
            "stationarity": (
                ("layer",),
                torch.cat([self.stationarity, torch.full_like(self.stationarity[:1], torch.nan)]),
                {"long_name": "what of the weights the momenta do not explain", "units": "1", "source": source},
            ),
        }
        history = path_history(
            self.path,
            self.momenta,
            torch.cat([self.momenta[1:], end]),
            depths=depths,
            names=[str(node) for node in range(len(depths))],
            effective_depth=self.effective_depth,
            bias=self.bias,
            ridges=ridges,
            further=further,
            coordinates={"input": np.arange(self.weights.shape[2])},
            config={
                "effective_depth": self.effective_depth,
                "steps": self.steps.tolist(),
                "method": "boundary values",
                "bias": self.bias,
            },
        )
        history.attrs["action"] = self.action
        history.attrs["end_error"] = self.end_error
        history.attrs["converged"] = int(self.converged)
        return history
