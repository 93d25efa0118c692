"""Feature speed on a CUDA device: the same numbers as on the CPU. Skipped where there is none."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import learnmech as lm

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_numbers_are_those_of_the_cpu(optimizer):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 3)).double()
    batch = torch.randn(40, 6).double(), torch.arange(40) % 3
    twin = copy.deepcopy(net).cuda()
    here = lm.speed.measure(net, batch, F.cross_entropy, optimizer(net.parameters(), lr=1e-2))
    there = lm.speed.measure(twin, batch, F.cross_entropy, optimizer(twin.parameters(), lr=1e-2))
    for name in ("speed", "backward_norm", "cosine", "loss_decay", "share", "sensitivity", "real_speed_rms"):
        np.testing.assert_allclose(there[name], here[name], rtol=1e-9, err_msg=name)


def test_fused_attention_falls_back_to_plain_products():
    torch.manual_seed(0)
    net = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, dropout=0.0).cuda()
    model = nn.Sequential(net, nn.Flatten(), nn.Linear(80, 3)).cuda()
    batch = torch.randn(12, 5, 16), torch.arange(12) % 3
    result = lm.speed.measure(model, batch, F.cross_entropy, 0.1)
    assert result.attrs["method"].startswith("forward-mode")
    assert float(result.identity_error.max()) < 1e-5
