"""Estimating the bottleneck rank of a task from a few trained leaky ResNets."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import xarray as xr
from torch import Tensor

from learnmech import history
from learnmech.errors import InputError
from learnmech.leaky.depth_expansion import DepthExpansion, fit_depth_expansion
from learnmech.leaky.network import LeakyResNet
from learnmech.leaky.profiles import profile
from learnmech.leaky.training import OnProgress, train_members
from learnmech.leaky.training_result import LeakyTraining
from learnmech.leaky.training_settings import LeakySettings
from learnmech.training.seeds import build_seeded


@dataclasses.dataclass(frozen=True, eq=False)
class RankEstimate:
    """A task's bottleneck rank, as several readings of the same trained nets.

    Attributes:
        expansion: fit of (2 / penalty) times the lowest cost over seeds, at each effective depth; its ``k`` is the estimate from
            costs alone.
        profiles: profiles of the best net of each effective depth, over ``effective_depth``.
        trainings: how each training ended, by effective depth, then seed.
        nets: the trained nets, in the same order.
    """

    expansion: DepthExpansion
    profiles: xr.Dataset
    trainings: tuple[tuple[LeakyTraining, ...], ...]
    nets: tuple[tuple[LeakyResNet, ...], ...]

    @property
    def kept_directions(self) -> int:
        """Singular values above half the largest, of the weights of the deepest net, where they are fewest."""
        return int(np.nanmin(self.profiles["kept_directions"].isel(effective_depth=-1).values))

    @property
    def varying_directions(self) -> int:
        """Directions in which samples differ, where the deepest net's identity cost is least."""
        return int(self.table()[-1]["varying_directions"])

    def table(self) -> list[dict[str, float]]:
        """List what was measured at each effective depth.

        Returns:
            One row an effective depth: cost, fitted cost, least identity cost at the largest ridge and where it lies, effective
            dimension (mean of the pre-Hamiltonian's), slope of the fit there, directions kept by the weights, directions in which
            representations vary at the bottleneck, median stationarity residual.
        """
        rows = []
        for depth, run in zip(self.profiles["effective_depth"].values, self._each(), strict=True):
            costs = run["identity_cost"].isel(ridge=int(np.argmax(run["ridge"].values)))
            where = int(np.argmin(costs.values))
            rows.append(
                {
                    "effective_depth": float(depth),
                    "cost": float(run["cost"]),
                    "identity_cost": float(costs[where]),
                    "bottleneck_depth": float(run["depth"][where]),
                    "effective_dimension": float(run["mean_pre_effective_dimension"]),
                    "slope_of_fit": float(self.expansion.slope(float(depth))),
                    "kept_directions": float(np.nanmin(run["kept_directions"].values)),
                    "varying_directions": float(run["varying_directions"][where]),
                    "stationarity": float(np.nanmedian(run["stationarity"].values)),
                }
            )
        return rows

    def __str__(self) -> str:
        """Say the estimates, and what they rest on."""
        lines = [
            f"bottleneck rank: {self.expansion.k:.2f} from the costs, {self.kept_directions} directions kept by the weights, "
            f"{self.varying_directions} in which the narrowest representation varies"
        ]
        lines.extend(
            f"  effective depth {row['effective_depth']:g}: identity cost {row['identity_cost']:.2f} at depth "
            f"{row['bottleneck_depth']:.2f}, effective dimension {row['effective_dimension']:.2f}, "
            f"{row['kept_directions']:.0f} directions, residual {row['stationarity']:.2g}"
            for row in self.table()
        )
        return "\n".join(lines)

    def _each(self) -> list[xr.Dataset]:
        return [self.profiles.isel(effective_depth=number) for number in range(self.profiles.sizes["effective_depth"])]


def estimate_bottleneck_rank(
    inputs: Tensor,
    targets: Tensor,
    *,
    effective_depths: Sequence[float] = (2.0, 4.0, 8.0),
    seeds: Sequence[int] = (0,),
    width: int | None = None,
    layers: int = 24,
    penalty: float = 0.02,
    settings: LeakySettings | None = None,
    ridges: Sequence[float] = (1e-2, 1e-3),
    on_progress: OnProgress | None = None,
) -> RankEstimate:
    r"""Train leaky ResNets at a few effective depths, and read how many dimensions the task needs.

    .. math:: \frac2\lambda J^*(\tilde L) \approx k\,\tilde L + R_1 + \frac{R_2}{\tilde L}.

    All nets train as one stack, see :func:`learnmech.leaky.train_members`. J* is the least cost there is, so the best of the seeds
    counts at each effective depth.

    **How to read it.** k from the fit should agree with the directions in which the narrowest representation varies, and the least
    identity cost comes down to it. Weights often keep one direction more: features without negative entries have a mean, which a
    bias gives back at little cost. **Not valid** where a net collapsed (an error
    says so), where stationarity residuals are near 1, or where effective depths are so small that no bottleneck has formed:
    then the identity cost is far above k.

    Source: the expansion is that of Jacot (arXiv 2305.19008) for fully connected nets, for leaky ResNets derived here; the
    estimate from few trainings is ours.

    Args:
        inputs: inputs (samples, d_in).
        targets: numbers (samples, d_out).
        effective_depths: at least three.
        seeds: seeds of starts and embeddings; a net trains for every seed and effective depth.
        width: neurons; by default twice the larger of d_in and d_out, and at least 40.
        layers: steps, of uniform size.
        penalty: :math:`\lambda`.
        settings: how to train.
        ridges: of the identity cost.
        on_progress: called with the steps done and their total.

    Returns:
        The estimates.

    Raises:
        InputError: for fewer than three effective depths, no seeds, data that do not fit, or if every net of an effective depth
            collapsed to zero or diverged.
    """
    if len(set(effective_depths)) < 3 or len(set(effective_depths)) != len(effective_depths) or not seeds:
        raise InputError(
            f"expected at least three different effective depths and a seed, got {list(effective_depths)} and {list(seeds)}."
        )
    if inputs.ndim != 2 or targets.ndim != 2:
        raise InputError(
            f"expected inputs (samples, d_in) and targets (samples, d_out), got {tuple(inputs.shape)} and {tuple(targets.shape)}."
        )
    d_in, d_out = inputs.shape[1], targets.shape[1]
    neurons = max(2 * d_in, 2 * d_out, 40) if width is None else width
    nets = tuple(
        tuple(
            build_seeded(
                lambda depth=depth: LeakyResNet(d_in, d_out, neurons, depth, layers, penalty=penalty),  # type: ignore[misc]
                seed,
            ).double()
            for seed in seeds
        )
        for depth in sorted(effective_depths)
    )
    results = train_members([net for row in nets for net in row], inputs, targets, settings, on_progress=on_progress)
    trainings = tuple(tuple(results[start : start + len(seeds)]) for start in range(0, len(results), len(seeds)))
    runs, costs = [], []
    for row, ends in zip(nets, trainings, strict=True):
        fine = [number for number, end in enumerate(ends) if not end.collapsed and end.stopped_because != "diverged"]
        if not fine:
            raise InputError(
                f"at effective depth {row[0].effective_depth:g} every net collapsed to zero or diverged; lower penalty "
                f"(now {penalty:g}), the effective depth or the learning rate."
            )
        best = min(fine, key=lambda number: ends[number].cost)
        costs.append(ends[best].cost)
        runs.append(profile(row[best], inputs, targets, ridges=ridges))
    depths = [row[0].effective_depth for row in nets]
    expansion = fit_depth_expansion(depths, costs, penalty=penalty)
    return RankEstimate(expansion, history.concat(runs, "effective_depth", depths), trainings, nets)
