"""What the spring instrument says where the theory was not tried, and for targets that are no classes."""

import torch
from torch import nn
from torch.nn import functional

from learnmech.monitor import Probe, watch
from learnmech.monitor.layers import Layer, LayerChoice
from learnmech.springs.instrument import SpringInstrument


def regime_of(monitor):
    return next(finding for finding in monitor.verdict().findings if finding.code.startswith("springs.regime."))


def convex_features(layer: int, centre: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Most of the separation happens in the first layer."""
    return centre + noise * (1.0, 0.2, 0.15, 0.12)[layer]


class Staged(nn.Module):
    """A net whose layers give prescribed features, made of blocks of a given class."""

    def __init__(self, kind):
        super().__init__()
        self.blocks = nn.ModuleList(kind(layer) for layer in (1, 2, 3))
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def probe():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(240) % 3
    centre = nn.functional.one_hot(labels, 6).float()
    noise = torch.randn(240, 6, generator=generator)
    return convex_features(0, centre, noise), labels, centre, noise


def staged(composite: bool) -> Staged:
    *_, centre, noise = probe()
    before = [convex_features(layer, centre, noise) for layer in range(4)]

    class Block(nn.Module):
        def __init__(self, layer):
            super().__init__()
            self.inner = nn.Linear(6, 6)
            self.layer = layer

        def forward(self, x):
            change = before[self.layer] - before[self.layer - 1]
            return x + change[: len(x)] + 0 * self.inner(x)

    class Linear(nn.Linear):
        def __init__(self, layer):
            super().__init__(6, 6)
            self.layer = layer

        def forward(self, x):
            change = before[self.layer] - before[self.layer - 1]
            return x + change[: len(x)]

    net = Staged(Block if composite else Linear)
    with torch.no_grad():
        net.head.weight.copy_(torch.eye(3, 6))
        net.head.bias.zero_()
    return net


def test_advice_is_soft_for_networks_that_the_theory_was_not_tried_on():
    x, labels, *_ = probe()
    chain = regime_of(watch(staged(composite=False), (x, labels), functional.cross_entropy, measures="light"))
    blocks = regime_of(watch(staged(composite=True), (x, labels), functional.cross_entropy, measures="light"))
    assert chain.title == blocks.title == "active/convex"
    assert (chain.severity, chain.confidence) == ("warning", "sure")
    assert (blocks.severity, blocks.confidence) == ("note", "weak")
    assert "it is a guess" in blocks.message
    assert "guess" not in chain.message


def test_regression_does_not_speak_of_classes():
    x, *_ = probe()
    net = nn.Sequential(*[nn.Linear(6, 6) for _ in range(4)], nn.Linear(6, 1))
    found = regime_of(watch(net, (x, x[:, :1] ** 2), functional.mse_loss, measures="light"))
    assert "class" not in found.message.replace("classifiers", "")


def test_tokens_of_one_sequence_share_a_fold():
    labels = torch.randint(0, 3, (20, 7), generator=torch.Generator().manual_seed(0))
    instrument = SpringInstrument()
    meter = instrument.start(Probe(torch.randn(20, 7, 4), labels), LayerChoice((Layer("a", "a"),), ()))
    fold = meter._groups.group.reshape(20, 7) // 3
    assert (fold == fold[:, :1]).all()
    assert sorted(set(fold[:, 0].tolist())) == [0, 1, 2, 3]
