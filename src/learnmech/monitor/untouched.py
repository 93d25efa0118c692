"""Leaving the watched model exactly as it was: modes, buffers, attributes, random state, autocast."""

import contextlib
import random
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


@contextlib.contextmanager
def untouched(model: nn.Module, device: torch.device, *, evaluate: bool = True) -> Iterator[None]:
    """Run the model in evaluation mode, in full precision and eagerly, and put everything back afterwards.

    Put back, also after an error or Ctrl-C: the train/eval flag and every other attribute of every module, every buffer
    (those replaced or added too), and the random state of torch (CPU and CUDA), NumPy and Python. Parameters and ``.grad``
    are not touched in the first place: the probe differentiates with respect to aliases of the parameters.
    Autocast is off inside, fused inference kernels that bypass sub-modules are off, and compiled parts run eagerly.

    Args:
        model: the eager, unwrapped model.
        device: where it lives.
        evaluate: whether to run in evaluation mode, or else with the flags that the modules have.

    Yields:
        Nothing.
    """
    modules = list(model.modules())
    # Attributes matter beyond the flags: models count calls and keep caches, and torch's RNNs a list of their weights.
    tables = [
        (table, dict(table))
        for module in modules
        for table in (vars(module), module._parameters, module._buffers, module._modules)
    ]
    buffers = [
        (buffer, buffer._version, buffer.detach().clone())
        for buffer in {id(buffer): buffer for buffer in model.buffers()}.values()
        if not buffer.is_inference()  # those cannot be written to outside inference mode
    ]
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002 (the global state is meant)
    cuda_states = torch.cuda.get_rng_state_all() if device.type == "cuda" else []
    try:
        for module in modules if evaluate else ():
            module.training = False  # not .eval(): a model's own train() may do more than set the flag
        with contextlib.ExitStack() as stack:
            for kind in {"cpu", device.type}:
                stack.enter_context(torch.autocast(kind, enabled=False))
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(_no_fused_attention_layers())
            stack.enter_context(_eager())
            yield
    finally:
        for table, before in tables:
            _put_back(table, before)
        for buffer, version, content in buffers:
            # Batch normalisation writes to its statistics without raising their version.
            if buffer._version != version or not torch.equal(buffer, content):
                _restore(buffer, content)
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])
        if cuda_states:
            torch.cuda.set_rng_state_all(cuda_states)


def _put_back(table: dict[str, Any], before: dict[str, Any]) -> None:
    if list(table) != list(before):
        table.clear()
        table.update(before)
    else:
        for key, value in before.items():
            if table[key] is not value:
                table[key] = value


def _restore(buffer: Tensor, content: Tensor) -> None:
    with torch.inference_mode(False), torch.no_grad():
        buffer.copy_(content)


@contextlib.contextmanager
def _no_fused_attention_layers() -> Iterator[None]:
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextlib.contextmanager
def _eager() -> Iterator[None]:
    """Run what is compiled eagerly. Nothing can be compiled, and nothing needs importing, where dynamo is not loaded."""
    if "torch._dynamo" in sys.modules and hasattr(torch.compiler, "set_stance"):
        with torch.compiler.set_stance("force_eager"):
            yield
    else:
        yield
