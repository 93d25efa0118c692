"""The load for regression: what the best linear read-out of a layer still gets wrong."""

from typing import Literal, Self

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from learnmech.errors import InputError

Kind = Literal["mse", "rmse"]


def regression_load(
    features: Shaped[Tensor, "samples *features"], targets: Shaped[Tensor, "samples *targets"], kind: Kind = "mse"
) -> Float[Tensor, ""]:
    r"""Measure the error of the best linear regressor, with intercept, from ``features`` to ``targets``.

    .. math:: D = \min_{W, b} \frac{1}{N p} \sum_i |W h_i + b - y_i|^2

    over N samples and p target components (``mse``), or its square root (``rmse``). Source: Shi, Pan, Dokmanić 2024
    (arXiv 2407.19353), supplement on regression (Fig. S12); no logarithm is taken. The reference code divides the rmse by
    the root mean square of y: standardise the targets and both are the same number.

    Args:
        features: one entry a sample along the first dimension; further dimensions are flattened.
        targets: real-valued (or one-hot) targets, one entry a sample.
        kind: which error.

    Returns:
        D at least 0, in units of the targets (squared for ``mse``), a float64 scalar. With as many features as samples it
        is 0 whatever the features are: use several times more samples than features.

    Raises:
        InputError: shapes that do not fit, fewer than two samples, NaN or infinite entries, an unknown kind.

    Example:
        y = x^2 on -1, 0, 1 has no linear part; the best fit is the mean 2/3, with error 2/9.

        >>> import torch
        >>> x = torch.tensor([-1.0, 0.0, 1.0])
        >>> regression_load(x, x**2)
        tensor(0.2222, dtype=torch.float64)
    """
    return RegressionAccumulator(kind).update(features, targets).compute()


class RegressionAccumulator:
    r"""Gather :func:`regression_load` from a stream of batches, or from several workers, exactly.

    The state is a factor :math:`R` of the centred second moments of features and targets together,
    :math:`R^T R = \sum_i (z_i - \bar z)(z_i - \bar z)^T` with :math:`z = (h, y)`: the centred samples themselves while they
    are few, a triangular factor from then on. Nothing is squared, so near-collinear features do no harm.

    Args:
        kind: ``mse`` or ``rmse``.

    Raises:
        InputError: for an unknown kind.
    """

    def __init__(self, kind: Kind = "mse") -> None:
        if kind not in ("mse", "rmse"):
            raise InputError(f"unknown kind of regression load {kind!r}: expected 'mse' or 'rmse'.")
        self.kind: Kind = kind
        self.samples = 0
        self._features = 0
        self._mean: Tensor | None = None
        self._factor: Tensor | None = None

    def update(
        self, features: Shaped[Tensor, "samples *features"], targets: Shaped[Tensor, "samples *targets"]
    ) -> Self:
        """Add a batch.

        Args:
            features: as in :func:`regression_load`.
            targets: as in :func:`regression_load`.

        Returns:
            This accumulator.

        Raises:
            InputError: for shapes that do not fit, NaN or infinite entries.
        """
        if features.ndim == 0 or targets.ndim == 0 or len(features) != len(targets):
            raise InputError(
                f"features and targets do not fit: shapes {tuple(features.shape)} and {tuple(targets.shape)}; "
                "both need one entry a sample along the first dimension."
            )
        if len(features) == 0:
            return self
        rows = [
            part.detach().reshape(len(part), -1).to(torch.float64) for part in (features, targets.to(features.device))
        ]
        joint = torch.cat(rows, dim=1)
        if not bool(torch.isfinite(joint).all()):
            raise InputError(
                f"features hold {int((~torch.isfinite(rows[0])).sum())} and targets "
                f"{int((~torch.isfinite(rows[1])).sum())} NaN or infinite entries."
            )
        mean = joint[0] + (joint - joint[0]).mean(dim=0)
        self._absorb(len(joint), rows[0].shape[1], mean, joint - mean)
        return self

    def merge(self, other: "RegressionAccumulator") -> Self:
        """Add everything that another accumulator has seen; the other is left as it is.

        Args:
            other: an accumulator over other samples.

        Returns:
            This accumulator.
        """
        if other._mean is not None and other._factor is not None:
            self._absorb(other.samples, other._features, other._mean, other._factor)
        return self

    def compute(self) -> Float[Tensor, ""]:
        """Compute the load of everything seen so far.

        Returns:
            D, see :func:`regression_load`.

        Raises:
            InputError: for fewer than two samples.
        """
        if self._factor is None or self.samples < 2:
            raise InputError(f"the regression load needs at least two samples, but {self.samples} came.")
        features, targets = self._factor[:, : self._features], self._factor[:, self._features :]
        basis, singular, _ = torch.linalg.svd(features, full_matrices=False)
        tolerance = max(self.samples, self._features) * torch.finfo(torch.float64).eps * singular.max()
        basis = basis[:, singular > tolerance]
        residual = targets - basis @ (basis.T @ targets)
        error: Tensor = residual.square().sum() / (self.samples * targets.shape[1])
        return error if self.kind == "mse" else error.sqrt()

    def _absorb(self, samples: int, features: int, mean: Tensor, factor: Tensor) -> None:
        if self._mean is not None and self._factor is not None:
            if features != self._features or len(mean) != len(self._mean):
                raise InputError(
                    f"this batch has {features} features and {len(mean) - features} targets, earlier ones had "
                    f"{self._features} and {len(self._mean) - self._features}."
                )
            total = self.samples + samples
            difference = mean - self._mean
            shift = difference * (self.samples * samples / total) ** 0.5
            factor = torch.cat([self._factor, factor, shift[None]])
            mean = self._mean + difference * (samples / total)
            samples = total
        if len(factor) > 2 * factor.shape[1]:
            factor = torch.linalg.qr(factor, mode="r").R
        self.samples, self._features, self._mean, self._factor = samples, features, mean, factor
