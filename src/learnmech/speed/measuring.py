"""Measuring feature speed: the formula's numbers for one model, one batch and one step."""

import math
import warnings
from collections.abc import Mapping
from typing import Any, Literal

import torch
import xarray as xr
from torch import Tensor, nn
from torch.optim import Optimizer

from learnmech.errors import InputError, LearnmechWarning
from learnmech.monitor.choice import choose_layers
from learnmech.monitor.criterion import Criterion
from learnmech.monitor.describe import describe_loss, describe_model, describe_optimizer
from learnmech.monitor.layers import LayerChoice, LayerSpec
from learnmech.monitor.paths import Paths, PathTracer
from learnmech.monitor.probe import Loss, Probe
from learnmech.monitor.snapshot import ProbePass, RestartProbe, Snapshot
from learnmech.monitor.unwrap import unwrap
from learnmech.speed.displacement import Update, check_update, resolve_update
from learnmech.speed.products import all_finite
from learnmech.speed.readings import layer_numbers, read_parameters
from learnmech.speed.speed_history import build_history
from learnmech.speed.step_reading import Keeper, Method, Step, read_step

Mode = Literal["eval", "current"]


def measure(
    model: nn.Module,
    batch: tuple[Any, Any],
    loss: Loss,
    update: Update,
    *,
    nodes: LayerSpec = "auto",
    mode: Mode = "eval",
    chunk_size: int | None = None,
    real_step: bool = True,
) -> xr.Dataset:
    r"""Measure how fast every layer's features move in a step, and why.

    With :math:`b_l = \partial L / \partial f_l`, the displacements :math:`dw_k` of a step, and
    :math:`df_l = \sum_k (\partial f_l / \partial w_k)[dw_k]`, the feature speed formula says at every cut node

    .. math::
        \|df_l\| = \frac{C_{\le l}}{\|b_l\| \cos\theta_l}, \qquad
        \cos\theta_l = \frac{-\langle b_l, df_l \rangle}{\|b_l\| \|df_l\|}, \qquad
        C_{\le l} = -\sum_{k \le l} \langle g_k, dw_k \rangle .

    Norms and inner products go over all samples and entries of the layer. It is exact, for any optimizer and at any time: one
    backward pass, one forward-mode pass; the real step is evaluated beside it. The model and the optimizer are not changed.

    Source: Chizat and Netrapalli 2023, arXiv 2311.18718, the feature speed formula and the backward-feature angle; sensitivity
    as in the authors' code. Nodes that are no cuts, tied parameters: derived.

    Args:
        model: any ``nn.Module``; compiled and data-parallel ones are unwrapped.
        batch: ``(inputs, targets)``, on any device.
        loss: ``loss(outputs, targets)``, a scalar.
        update: the step: an optimizer (its next step, previewed on a copy of its state, with gradients as they are: not
            clipped), a learning rate (gradient descent), or displacements by parameter name (a parameter that is not named
            does not move).
        nodes: ``auto``: blocks, read after their activation; ``weights``: the output of every module that owns a weight
            matrix, before activations and inside branches; or names, globs or a callable as in :func:`learnmech.watch`.
        mode: ``eval`` measures in evaluation mode; ``current`` with the train/eval flags that the model has, the same
            dropout masks in all passes, and batch statistics put back afterwards.
        chunk_size: samples in one pass, to save memory; None for all at once. One more backward pass is then needed.
        real_step: whether to evaluate the real step too; without, ``linearity``, ``real_speed_rms`` and ``real_decay`` are NaN.

    Returns:
        A history. Over ``layer``, with the coordinates ``place`` (``cut``, ``branch`` or ``unknown``) and ``sharing`` (``no``,
        ``reused module``, ``tied parameters``): ``speed`` :math:`\|df_l\|`; ``speed_rms``, per entry; ``backward_norm``
        :math:`\|b_l\|`; ``cosine``; ``loss_decay``, :math:`C_{\le l}` from the parameters at cuts, and
        :math:`-\langle b_l, df_l \rangle` elsewhere, the decay that passes through the node; ``share``, the part of the whole
        decay that the layer's own parameters bring; ``sensitivity``, speed_rms per unit of loss decay; ``linearity``
        :math:`\|Df - df\| / \|df\|` of the real change Df; ``real_speed_rms``; ``activation_rms``; ``is_cut``; ``is_finite``;
        ``identity_error``, by how much the formula misses, relative to the decays. Over ``parameter``: ``parameter_decay``,
        ``parameter_norm``, ``gradient_norm``, ``update_norm``, ``effective_learning_rate``. And ``loss``, ``total_decay``,
        ``real_decay``. The attribute ``method`` says how df was found, ``notes`` what to know.

        A cosine of a batch is not comparable with values for one input: see :func:`learnmech.speed.data_cosine`. Negative
        decays are reported as they are: momentum and weight decay can bring them.

    Raises:
        InputError: if the update does not fit the model, moves nothing, or the loss or a gradient is not finite.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 8, bias=False), torch.nn.Linear(8, 1, bias=False)).double()
        >>> x, y = torch.randn(1, 3).double(), torch.randn(1, 1).double()
        >>> result = measure(net, (x, y), torch.nn.functional.mse_loss, 0.1)
        >>> formula = result.loss_decay / (result.backward_norm * result.cosine)
        >>> bool(abs(formula - result.speed).sel(layer="0") < 1e-12)
        True
    """
    return SpeedMeasurement(model, batch, loss, nodes=nodes, mode=mode, chunk_size=chunk_size).measure(
        update, real_step=real_step
    )


class SpeedMeasurement:
    """The same measurement many times: layers and the method are found once.

    Args:
        model: see :func:`measure`, as all others.
        batch: the batch.
        loss: the loss.
        nodes: what to read.
        mode: evaluation mode or the flags as they are.
        chunk_size: samples in one pass.

    Attributes:
        model: the eager model inside wrappers.
        probe: the batch.
        layers: the layers that are read and the modules that are not, with reasons; print it.
        source: the passes that it runs.

    Raises:
        InputError: if the model cannot run on the batch, or no layer can be read.
    """

    layers: LayerChoice

    def __init__(
        self,
        model: nn.Module,
        batch: tuple[Any, Any],
        loss: Loss,
        *,
        nodes: LayerSpec = "auto",
        mode: Mode = "eval",
        chunk_size: int | None = None,
    ) -> None:
        if mode not in ("eval", "current"):
            raise InputError(f"mode must be 'eval' or 'current', got {mode!r}.")
        if chunk_size is not None and (
            isinstance(chunk_size, bool) or not isinstance(chunk_size, int) or chunk_size < 1
        ):
            raise InputError(f"chunk_size must be a whole number of samples, at least 1, but is {chunk_size!r}.")
        if not isinstance(batch, list | tuple) or len(batch) != 2:
            raise InputError(f"batch must be a pair (inputs, targets), but a {type(batch).__name__} came.")
        if not callable(loss):
            raise InputError(f"loss must be a callable (outputs, targets), but is {loss!r}.")
        self.model = unwrap(model)
        criterion = Criterion(loss)
        self.probe = Probe(batch[0], batch[1], ignored=criterion.ignored)
        self.layers = choose_layers(self.model, self.probe, _owns_weights if nodes == "weights" else nodes)
        self.source = ProbePass(self.model, self.layers, criterion, evaluate=mode == "eval")
        self._mode, self._chunk_size = mode, chunk_size
        self._method: Method = "forward-mode"

    def measure(self, update: Update, *, real_step: bool = True) -> xr.Dataset:
        """Measure one step from where the model now is, see :func:`measure`.

        Args:
            update: the step.
            real_step: whether to evaluate the real step too.

        Returns:
            The history.

        Raises:
            InputError: as :func:`measure`.
        """
        parameters = dict(self.model.named_parameters())
        check_update(update, parameters)
        before = self._values(update, parameters)
        while True:
            try:
                return self._measure(update, parameters, before, real_step)
            except RestartProbe:
                continue

    def _measure(
        self, update: Update, parameters: dict[str, nn.Parameter], before: dict[str, Tensor], real_step: bool
    ) -> xr.Dataset:
        snapshot, backward, paths = self._gradients(before)
        self._check(snapshot)
        displacements = resolve_update(update, parameters, snapshot.gradients, snapshot.unused)
        numbers = read_parameters(parameters, snapshot.gradients, displacements)
        loss, unused, accuracy = snapshot.loss, snapshot.unused, snapshot.accuracy
        del snapshot  # the gradients are not needed any longer
        after = (
            {name: parameters[name].detach() + change for name, change in displacements.items()} if real_step else {}
        )
        step = Step(before, {**before, **after}, displacements)
        sums = read_step(
            self.source,
            self.probe,
            step,
            chunk_size=self._chunk_size,
            known_backward=backward,
            real=real_step,
            method=self._method,
        )
        if sums.method == "central difference" and self._method != sums.method:
            warnings.warn(
                "an operation of this model has no forward mode, so feature speeds are central finite differences: accurate "
                "to about 1e-3 in float32 (1e-2 with ReLUs; a linearity below 0.02 is not resolved).",
                LearnmechWarning,
                stacklevel=4,
            )
        self._method = sums.method
        decays = {name: item.decay for name, item in numbers.items()}
        values = layer_numbers(self.layers.names, sums.layers, decays, paths, self.source.parameters)
        if not real_step:
            for name in ("linearity", "real_speed_rms"):
                values[name] = values[name] * math.nan
        return build_history(
            self.layers,
            values,
            numbers,
            paths,
            scalars={
                "loss": loss,
                "total_decay": sum(decays.values()),
                "real_decay": loss - sums.loss_after if real_step else math.nan,
                "accuracy": math.nan if accuracy is None else accuracy,
            },
            config={
                "model": describe_model(self.model),
                "loss": describe_loss(self.source.criterion.loss),
                "update": _describe(update),
                "mode": self._mode,
                "samples": self.probe.samples,
            },
            method=sums.method,
            unused=unused,
            data_fingerprint=self.probe.fingerprint(),
        )

    def gradients(self) -> Snapshot:
        """Differentiate the loss where the model now is, without measuring a step.

        Returns:
            The snapshot with loss and gradients, all finite.

        Raises:
            InputError: if the loss or a gradient is not finite, or nothing requires a gradient.
        """
        while True:
            try:
                snapshot = self.source.run(self.probe, [], step=0, backward=True, chunk_size=self._chunk_size)
            except RestartProbe:
                continue
            self._check(snapshot)
            return snapshot

    def _values(self, update: Update, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Let frozen parameters that are displaced by name be differentiated by, without touching them."""
        if not isinstance(update, Mapping):
            return {}
        with torch.inference_mode(False):
            return {
                name: parameters[name].detach().requires_grad_()
                for name in update
                if not parameters[name].requires_grad and parameters[name].is_floating_point()
            }

    def _gradients(
        self, before: Mapping[str, Tensor]
    ) -> tuple[Snapshot, dict[str, Tensor] | None, dict[str, Paths] | None]:
        """Differentiate: gradients, backward signals unless in chunks, and paths unless they cannot be seen."""
        chunks = self.probe.chunk_bounds(self._chunk_size)
        keeper, tracer = Keeper(backward=len(chunks) == 1), PathTracer(self.layers.layers)
        snapshot = self.source.run(
            self.probe, [keeper], step=0, backward=True, chunk_size=self._chunk_size, values=before, tracer=tracer
        )
        return snapshot, keeper.kept if len(chunks) == 1 else None, None if self.source.reentrant else tracer.paths

    def _check(self, snapshot: Snapshot) -> None:
        if not math.isfinite(snapshot.loss):
            raise InputError(
                f"the loss on this batch is {snapshot.loss}, so that no step can be measured: look for NaN in the parameters, "
                "for an overflow (too large a learning rate), or for a batch without a single counted target."
            )
        if not snapshot.gradients:
            raise InputError("no parameter of the model requires a gradient: nothing can move.")
        for name, gradient in snapshot.gradients.items():
            if not all_finite(gradient):
                raise InputError(
                    f"the gradient of {name!r} holds NaN or infinite entries although the loss is {snapshot.loss:.6g}."
                )


def _owns_weights(name: str, module: nn.Module) -> bool:
    return any(parameter.ndim >= 2 for parameter in module.parameters(recurse=False))


def _describe(update: Update) -> Any:
    if isinstance(update, Optimizer):
        return describe_optimizer(update)
    if isinstance(update, Mapping):
        return {"displacements": len(update)}
    return {"learning_rate": float(update)}
