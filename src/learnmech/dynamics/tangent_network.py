"""A network as a tangent kernel sees it: a function of some parameters, in evaluation mode, that leaves no trace."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from learnmech.dynamics.tangent_outputs import output_rows
from learnmech.dynamics.tangent_rates import rates_by_name
from learnmech.errors import InputError
from learnmech.monitor.layers import device_of
from learnmech.monitor.probe import arguments_of
from learnmech.monitor.tangent import no_checkpoints
from learnmech.monitor.tensors import cut, describe_tensors, samples_in, tensors_in
from learnmech.monitor.untouched import untouched
from learnmech.monitor.unwrap import eager_modules, unwrap

SEED = 0
"""Of the random numbers that a model may draw in evaluation mode: the same in every pass."""
_SAME = 1e-5
"""By how much a sample's output may change, relatively, with another sample beside it: rounding."""


class Network:
    """A model and its moving parameters. Tensors are those of the model, seen through leaves of their own.

    Args:
        model: any module; wrappers are taken off.
        learning_rates: see :func:`learnmech.dynamics.tangent_rates.rates_by_name`.
        wrapped: whether there may be wrappers to take off.

    Attributes:
        model: the eager model.
        rates: learning rate of each moving parameter, by name.
        modules: sub-modules by name.
    """

    def __init__(
        self, model: nn.Module, learning_rates: float | Mapping[str, float] = 1.0, *, wrapped: bool = True
    ) -> None:
        if not isinstance(model, nn.Module):
            raise InputError(f"a tangent kernel needs a torch.nn.Module, but a {type(model).__name__} came.")
        self.model = unwrap(model) if wrapped else model
        self.rates = rates_by_name(self.model, learning_rates)
        self.modules = eager_modules(self.model)
        self.device = device_of(self.model)
        self._names = {id(tensor): name for name, tensor in self.model.named_parameters()}
        renormed = any(
            isinstance(part, nn.Embedding | nn.EmbeddingBag) and part.max_norm for part in self.model.modules()
        )
        with torch.inference_mode(False):
            self._values = {
                name: tensor.detach().clone() if renormed or tensor.is_inference() else tensor.detach()
                for name, tensor in self.model.named_parameters()
            }
            for name, value in self._values.items():
                if not bool(torch.isfinite(value).all()):
                    raise InputError(f"parameter {name!r} holds NaN or infinite entries.")

    def parameters_of(self, module: str) -> dict[str, str]:
        """List a module's own parameters. Tensors count, not names: a compiled part has its parameters under longer names.

        Args:
            module: its name.

        Returns:
            Own name to the name in the model.
        """
        own = self.modules[module]._parameters
        return {name: self._names[id(tensor)] for name, tensor in own.items() if tensor is not None}

    def leaves(self) -> dict[str, Tensor]:
        """Make leaves in the place of all parameters; those that move require a gradient.

        Returns:
            Leaves by name.
        """
        with torch.inference_mode(False):
            return {name: value.detach().requires_grad_(name in self.rates) for name, value in self._values.items()}

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Run passes inside: evaluation mode, gradients on, everything put back afterwards.

        Yields:
            Nothing.
        """
        with untouched(self.model, self.device), no_checkpoints(), torch.enable_grad():
            yield

    def batch(self, inputs: Any, start: int, stop: int, samples: int) -> Any:
        """Cut some samples out of a batch.

        Args:
            inputs: the batch.
            start: first sample.
            stop: one past the last.
            samples: of the batch.

        Returns:
            A copy on the model's device.
        """
        return cut(inputs, start, stop, samples, self.device)

    def outputs(self, parameters: Mapping[str, Tensor], inputs: Any, samples: int) -> Tensor:
        """Run the model with other tensors in the place of parameters. To be called while :meth:`running`.

        Args:
            parameters: by name; those not named are the model's own values.
            inputs: what the model takes.
            samples: how many.

        Returns:
            The output, one row a sample.
        """
        torch.default_generator.manual_seed(SEED)  # put back by :meth:`running`
        if self.device.type == "cuda":
            torch.cuda.manual_seed(SEED)
        args, kwargs = arguments_of(inputs)
        given = {**self._values, **parameters}
        return output_rows(torch.func.functional_call(self.model, given, args, kwargs), samples)

    def check(self, inputs: Any, *, independent: bool = True) -> int:
        """Check a batch, and that the samples in it do not influence one another.

        Args:
            inputs: the batch.
            independent: whether to check that samples do not influence one another, with two passes over two samples.

        Returns:
            How many samples it has.

        Raises:
            InputError: for no sample, NaN or infinite entries, or a sample whose output changes with the one beside it.
        """
        samples = samples_in(inputs)
        if not samples:
            raise InputError(f"inputs must hold a tensor with at least one sample, but are {describe_tensors(inputs)}.")
        for path, tensor in tensors_in(inputs):
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                bad = int((~torch.isfinite(tensor)).sum())
                raise InputError(f"inputs{path} hold {bad} NaN or infinite entries of {tensor.numel()}.")
        if independent and samples > 1:
            with self.running(), torch.no_grad():
                self._check_independence(inputs, samples)
        return samples

    def _check_independence(self, inputs: Any, samples: int) -> None:
        originals = dict(tensors_in(inputs))
        rows = []
        for beside in (1, 0, min(2, samples - 1)):  # another sample, a copy, one more
            pair = self.batch(inputs, 0, 2, samples)
            for path, tensor in tensors_in(pair):
                original = originals[path].detach()
                if original.ndim > 0 and len(original) == samples:
                    tensor.detach()[1] = original[beside]
            rows.append(self.outputs({}, pair, 2)[0].double())
        size = float(rows[0].abs().amax())
        if max(float((row - rows[0]).abs().amax()) for row in rows[1:]) > _SAME * size + 1e-30:
            raise InputError(
                "the model's output for a sample changes with the sample beside it, also in evaluation mode, so that a kernel "
                "between samples is not defined. Samples must lie along the first dimension of inputs and outputs, and batch "
                "normalisation must keep running statistics."
            )
