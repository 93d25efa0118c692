"""On a GPU: the same numbers as on a CPU, and the device's random state as it was. Skipped where there is none."""

import numpy as np
import pytest
import torch
import zoo

from learnmech.monitor import watch

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("preset", ["light", "standard", "full"])
@pytest.mark.parametrize("name", ["mlp", "cnn", "gpt"])
def test_numbers_and_random_state(name, preset):
    case, twin = zoo.make(name), zoo.make(name)
    case.model.double()
    twin.model.double()
    inputs, targets = case.probe
    inputs = inputs.double() if isinstance(inputs, torch.Tensor) and inputs.is_floating_point() else inputs
    on_cpu = watch(case.model, (inputs, targets), case.loss, measures=preset).history
    twin.model.load_state_dict(case.model.state_dict())
    twin.model.cuda()
    before = torch.cuda.get_rng_state()
    on_gpu = watch(twin.model, (inputs, targets), case.loss, measures=preset, chunk_size=7).history
    assert torch.equal(torch.cuda.get_rng_state(), before)
    for variable in on_cpu.data_vars:
        np.testing.assert_allclose(on_gpu[variable], on_cpu[variable], rtol=1e-6, atol=1e-8, err_msg=str(variable))
