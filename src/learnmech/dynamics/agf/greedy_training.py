"""Training by alternating utility maximisation and cost minimisation, in place of gradient descent."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor, nn

from learnmech.bars import terminal_bar
from learnmech.dynamics.agf.greedy_activation import read_activation
from learnmech.dynamics.agf.greedy_cost import Cost, minimise_cost
from learnmech.dynamics.agf.greedy_records import Record, Records, require_settings
from learnmech.dynamics.agf.greedy_rounds import grow, prune
from learnmech.dynamics.agf.greedy_scaling import Scaling, measure_scaling, read_inputs, read_pair, set_aside
from learnmech.errors import InputError
from learnmech.training.interrupt import InterruptFlag

_PATIENT = 1e-4


class Greedy:
    r"""Train a two-layer network :math:`f(x) = \sum_j a_j\,\sigma(w_j\cdot x + b_j)` neuron by neuron.

    A round takes the two steps that gradient flow from a vanishing start alternates between:

    1. *Utility maximisation.* The direction w in which a unit neuron has most utility
       :math:`\hat U = \max_{|w|^2+|a|^2=1} \frac1n\sum_i a\cdot r_i\,\sigma(w\cdot x_i)` on the frozen residual r, over the whole sphere and
       not only where some initial neuron happens to point. It is added with the amplitude of an exact line search, which lowers the loss by
       :math:`g^2/2|\sigma|^2`, where g is the pull and :math:`|\sigma|^2` the mean square of the neuron's feature (without weight decay).
    2. *Cost minimisation.* The output weights exactly (a linear least squares problem), then all weights of all neurons, by
       Levenberg-Marquardt (up to 1600 weights) or L-BFGS. The cost never rises. Neurons that it shrinks to nothing leave.

    Source: derived here from the two steps of Kunin et al. 2025 (arXiv 2506.06489), which proposes no such training. Kin:
    orthogonal greedy algorithms, Frank-Wolfe for convex neural networks (Bach 2017), cascade correlation (Fahlman and Lebiere
    1990). It is not gradient flow: it is told where the best direction is, so it never waits, and its minimisation is no flow, so it
    may end in another valley.

    How to read it: the history's ``loss`` over ``neurons`` is a staircase, one step a round. Without weight decay the loss of
    the training samples falls until the width is reached; give ``validation`` so that it ends in time. With weight decay
    :math:`\lambda` and an activation of degree 1, a round that finds no :math:`\hat U > \lambda/2` ends the training with the
    reason "no utility": if the search over the sphere found the best neuron, then no network of any width has a lower cost. Biases are
    input weights of a constant input 1, and decay with the others.

    Not for: deeper networks, losses other than the squared error, data that do not fit in memory (each step uses all samples).

    Args:
        width: largest number of neurons.
        activation: "relu", "leaky_relu", "abs", "linear", "square", a layer, or a function of a tensor that is homogeneous of a
            degree of at least 1.
        bias: whether neurons have a bias.
        standardize: whether inputs are centred and scaled one by one, and targets centred and scaled by one common factor, by
            the samples of the first ``fit``. The scaling is built into the weights of :meth:`module`, so that it takes raw inputs; weight decay acts
            on scaled ones. If False, nothing is scaled and there is no output bias.
        per_round: how many neurons a round adds; more are faster, and need some more neurons for the same loss.
        starts: climbs of each utility maximisation.
        weight_decay: :math:`\lambda`, of the cost :math:`\frac1{2n}\sum_i|r_i|^2 + \frac\lambda2\sum_j(|w_j|^2+|a_j|^2)`.
        steps: of each cost minimisation, at most; L-BFGS makes five times as many.
        tolerance: training ends when the loss is this share of that without neurons, or a round lowers the cost by less than that.
        patience: with validation, training ends after so many rounds without a new best.
        seed: of the starts of climbs, and of a validation split.

    Raises:
        InputError: if an argument is out of range.

    Example:
        The absolute value is the sum of two ReLUs.

        >>> inputs = np.linspace(-1, 1, 41)[:, None]
        >>> greedy = Greedy(8, bias=False, standardize=False)
        >>> run = greedy.fit(inputs, np.abs(inputs[:, 0]))
        >>> run["neurons"].values.tolist(), bool(run["loss"][-1] < 1e-12), run.attrs["reason"]
        ([0, 1, 2], True, 'tolerance')
        >>> greedy.module()
        Sequential(
          (0): Linear(in_features=1, out_features=2, bias=True)
          (1): ReLU()
          (2): Linear(in_features=2, out_features=1, bias=True)
        )
    """

    def __init__(
        self,
        width: int = 64,
        *,
        activation: str | Callable[[Tensor], Tensor] = "relu",
        bias: bool = True,
        standardize: bool = True,
        per_round: int = 1,
        starts: int = 64,
        weight_decay: float = 0.0,
        steps: int = 20,
        tolerance: float = 1e-6,
        patience: int = 5,
        seed: int = 0,
    ) -> None:
        require_settings(width, per_round, starts, weight_decay, steps, tolerance, patience, seed)
        self._activation, self._make_layer = read_activation(activation)
        self.width, self.bias, self.standardize = width, bias, standardize
        self.per_round, self.starts, self.weight_decay = per_round, starts, weight_decay
        self.steps, self.tolerance, self.patience, self.seed = steps, tolerance, patience, seed
        self.reset()

    def reset(self) -> None:
        """Forget what has been fitted."""
        self._scaling: Scaling | None = None
        self._weights, self._outputs = torch.zeros(0, 0), torch.zeros(0, 0)
        self._flat = False
        self._records = Records()

    @property
    def neurons(self) -> int:
        """How many neurons there are."""
        return len(self._weights)

    @property
    def history(self) -> xr.Dataset:
        """What :meth:`fit` returned last.

        Raises:
            InputError: if nothing has been fitted.
        """
        self._fitted()
        return self._records.to_history(self._config())

    def fit(
        self, X: Any, y: Any, *, validation: tuple[Any, Any] | float | None = None, width: int | None = None
    ) -> xr.Dataset:
        """Add neurons until the width is reached or no more pay; a further call goes on with the neurons that the last one kept.

        Ctrl-C ends the training after the step that it is in: what has been fitted stays, and the history's reason is
        "interrupted"; a second Ctrl-C raises KeyboardInterrupt.

        Args:
            X: inputs (samples, inputs), a tensor of any device or what converts to an array. float64 stays float64.
            y: targets (samples,) or (samples, outputs).
            validation: samples (X, y) to watch, or the share of the given ones to set aside. If given, the neurons kept are those
                of the round with the least validation loss.
            width: a new largest number of neurons.

        Returns:
            A history over ``round`` 0, 1, ... (0 is the network without neurons): ``neurons``, ``loss`` and ``validation_loss``
            (half the mean squared error summed over outputs, in the units of y squared; NaN without validation), ``cost`` with
            weight decay (of the scaled problem), ``utility`` of the round's best neuron when it was found (scaled
            problem), ``seconds`` since the first fit began, its pauses left out. Attributes: ``reason`` (why it ended: "width", "tolerance",
            "no utility", "no gain", "validation", "interrupted", "nothing to learn"), ``kept_round``, ``last_utility``.

        Raises:
            InputError: if shapes do not fit together or with an earlier fit, or a number is not finite.
        """
        started = time.perf_counter()
        inputs, targets, flat = read_pair(X, y)
        if width is not None:
            require_settings(width, self.per_round, self.starts, self.weight_decay, 1, 0.5, 1, 0)
            self.width = width
        inputs, targets, held = set_aside(inputs, targets, validation, self.seed)
        if self._scaling is None:
            self._scaling = measure_scaling(inputs, targets, self.standardize)
            columns = inputs.shape[1] + self.bias
            self._weights, self._outputs = inputs.new_zeros(0, columns), targets.new_zeros(0, targets.shape[1])
            self._flat = flat
        scaling = self._same_as_before(inputs, targets)
        with torch.no_grad():
            cost = Cost(
                scaling.inputs(inputs, self.bias), scaling.targets(targets), self._activation, self.weight_decay
            )
            watched = None
            if held is not None:
                watched = Cost(scaling.inputs(held[0], self.bias), scaling.targets(held[1]), self._activation)
            with InterruptFlag() as interrupt:
                self._train(cost, watched, started, lambda: interrupt.requested)
        return self.history

    def predict(self, X: Any) -> Float[Tensor, "samples outputs"]:
        """Give the network's outputs.

        Args:
            X: inputs (samples, inputs), not scaled.

        Returns:
            Of the shape of the targets: (samples,) if y had one dimension.

        Raises:
            InputError: if nothing has been fitted, or the inputs do not fit.
        """
        scaling = self._fitted()
        inputs = scaling.inputs(read_inputs(X, len(scaling.input_mean), scaling.input_mean), self.bias)
        found = self._activation.value(inputs @ self._weights.T) @ self._outputs
        found = found * scaling.target_scale + scaling.target_mean
        return found[:, 0] if self._flat else found

    def module(self) -> nn.Sequential:
        """Give the network as layers, ready to use or to train on: Linear, activation, Linear.

        The scaling is built in, so it takes inputs as ``fit`` did, and it always has biases. Without neurons it has one that is 0.

        Returns:
            A new network of the data's dtype and device; its outputs have shape (samples, outputs).

        Raises:
            InputError: if nothing has been fitted.
        """
        scaling = self._fitted()
        size, width = len(scaling.input_mean), max(self.neurons, 1)
        with torch.random.fork_rng(devices=[]):
            first = nn.Linear(size, width).to(self._weights)
            last = nn.Linear(width, len(scaling.target_mean)).to(self._weights)
        with torch.no_grad():
            for parameter in (first.weight, first.bias, last.weight):
                parameter.zero_()
            if self.neurons:
                weights = self._weights[:, :size] / scaling.input_scale
                first.weight.copy_(weights)
                first.bias.copy_(-weights @ scaling.input_mean)
                if self.bias:
                    first.bias.add_(self._weights[:, -1])
                last.weight.copy_(scaling.target_scale * self._outputs.T)
            last.bias.copy_(scaling.target_mean)
        return nn.Sequential(first, self._make_layer().to(self._weights), last)

    def _train(self, cost: Cost, watched: Cost | None, started: float, stop: Callable[[], bool]) -> None:
        records = self._records
        before = records.seconds
        none = cost.value(self._weights[:0], self._outputs[:0])
        value, gained, utility = cost.value(self._weights, self._outputs), np.inf, np.nan
        best, best_round, kept = np.inf, records.kept_round, (self._weights, self._outputs)
        best_moment = len(records) - 1  # patience is counted from here: a further fit has it anew
        records.last_utility = np.nan
        plain = Cost(cost.inputs, cost.targets, cost.activation)
        with terminal_bar("greedy training", max(self.width - self.neurons, 0), least=2) as advance:
            while True:
                loss = plain.value(self._weights, self._outputs)
                held = np.nan if watched is None else watched.value(self._weights, self._outputs)
                if not records or gained < np.inf:  # a further fit begins with a round that is noted already
                    square = self._fitted().target_scale ** 2
                    seconds = before + time.perf_counter() - started
                    records.append(Record(self.neurons, loss * square, held * square, value, utility, seconds))
                if held < best:
                    if gained < np.inf or best_moment < 0:
                        best_round = len(records) - 1
                    best, best_moment, kept = held, len(records) - 1, (self._weights, self._outputs)
                stale = watched is not None and len(records) - 1 - best_moment >= self.patience
                reason = self._end(none, loss, gained, stale, stop())
                if reason:
                    break
                weights, outputs, utility = grow(
                    cost,
                    self._weights,
                    self._outputs,
                    most=min(self.per_round, self.width - self.neurons),
                    starts=self.starts,
                    seed=self.seed * 1_000_003 + len(records),
                )
                records.last_utility, had = utility, self.neurons
                if len(weights) == had:
                    reason = "no utility"
                    break
                moved = minimise_cost(cost, weights, outputs, steps=self.steps, tolerance=_PATIENT, stop=stop)
                self._weights, self._outputs, reached = prune(cost, *moved, none)
                gained, value = value - reached, reached
                advance(max(self.neurons - had, 0))
        if watched is None:
            records.kept_round = len(records) - 1
        else:
            (self._weights, self._outputs), records.kept_round = kept, best_round
        records.reason = reason

    def _end(self, none: float, loss: float, gained: float, stale: bool, interrupted: bool) -> str:
        """Say why to end; nothing if there is no reason."""
        reasons = {
            "nothing to learn": none == 0,
            "interrupted": interrupted,
            "tolerance": loss <= self.tolerance * none,
            "validation": stale,
            "width": self.neurons >= self.width,
            "no gain": gained < self.tolerance * none,
        }
        return next((reason for reason, holds in reasons.items() if holds), "")

    def _same_as_before(self, inputs: Tensor, targets: Tensor) -> Scaling:
        scaling = self._fitted()
        was, now = (
            (len(scaling.input_mean), len(scaling.target_mean), scaling.input_mean.dtype, scaling.input_mean.device),
            (inputs.shape[1], targets.shape[1], inputs.dtype, inputs.device),
        )
        if was != now:
            raise InputError(
                f"a further fit needs inputs, outputs, dtype and device as before, {was}, got {now}. Call reset() to begin anew."
            )
        return scaling

    def _fitted(self) -> Scaling:
        if self._scaling is None:
            raise InputError("nothing has been fitted yet: call fit(X, y) first.")
        return self._scaling

    def _config(self) -> dict[str, Any]:
        return {
            "model": "greedy two-layer network",
            "activation": self._activation.name,
            "degree": self._activation.degree,
            "width": self.width,
            "bias": self.bias,
            "standardize": self.standardize,
            "per_round": self.per_round,
            "starts": self.starts,
            "weight_decay": self.weight_decay,
            "steps": self.steps,
            "tolerance": self.tolerance,
            "patience": self.patience,
            "seed": self.seed,
        }
