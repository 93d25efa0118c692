"""The residual multilayer perceptron on which the feature speed formula was studied, and the plain one as its special case."""

import math
from collections import OrderedDict

from torch import Tensor, nn

from learnmech.errors import InputError
from learnmech.nets.initialisation import activation_gain, require_finite_slope
from learnmech.nets.parts import make_activation, require_positive


class ResidualBlock(nn.Module):
    r"""One block of a :class:`ResidualMLP`.

    .. math::
        f \mapsto a\,f + \beta\,V_p\,\sigma(\cdots V_1\,\sigma(f)),

    with ``skip`` = a, ``branch`` = :math:`\beta` and p = ``layers``. Both factors are plain numbers that are not trained;
    they can be set after the net is made. The module ``body`` holds ``activation1``, ``linear1``, ``activation2`` and so on.

    Args:
        width: features that come in and go out.
        skip: factor a of what is passed on unchanged; 0 leaves it out.
        branch: factor of what the block adds.
        layers: Linear layers p of the block.
        slope: negative slope of the LeakyReLU; 0 is ReLU, 1 is linear.
        bias: whether Linear layers have a bias.

    Raises:
        InputError: if a size is not positive or a factor is not finite.
    """

    def __init__(
        self,
        width: int,
        *,
        skip: float = 1.0,
        branch: float = 1.0,
        layers: int = 1,
        slope: float = 0.0,
        bias: bool = False,
    ) -> None:
        super().__init__()
        require_positive(width=width, layers=layers)
        require_finite_slope(slope)
        _require_finite(skip=skip, branch=branch)
        self.skip = float(skip)
        self.branch = float(branch)
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        for number in range(1, layers + 1):
            parts[f"activation{number}"] = make_activation(slope)
            parts[f"linear{number}"] = nn.Linear(width, width, bias=bias)
        self.body = nn.Sequential(parts)

    def forward(self, features: Tensor) -> Tensor:
        """Pass features through the block.

        Args:
            features: features (n, width) before the block.

        Returns:
            Features (n, width) after it.
        """
        added: Tensor = self.branch * self.body(features)
        return added if self.skip == 0 else self.skip * features + added

    def extra_repr(self) -> str:
        """Give the two factors for the text that names the module.

        Returns:
            ``skip=..., branch=...``.
        """
        return f"skip={self.skip:g}, branch={self.branch:g}"


class ResidualMLP(nn.Module):
    r"""An embedding, equal residual blocks without normalisation, and a linear read-out.

    .. math::
        f_0 = W_0\,x, \quad
        f_l = a\,f_{l-1} + \beta\,V_l\,\sigma_\alpha(f_{l-1}), \quad
        y = W_\mathrm{out}\,f_L, \qquad l = 1, \ldots, L.

    It is for the study of feature speed (:mod:`learnmech.speed`): the features f_l are linear in the weights of their own
    block, every f_l is a cut of the network, and ``branch`` alone moves it between the regimes of depth. ``depth`` = L
    counts blocks. ``skip=0, branch=1`` is a plain MLP whose features are pre-activations, the last of which the read-out
    sees as they are; with :math:`a^2 + \beta^2 = 1` the features keep the size that f_0 has. ``block_layers=2`` makes the branch
    :math:`\beta\,V_{l,2}\,\sigma(V_{l,1}\,\sigma(f_{l-1}))`.

    Weights are drawn from torch's global generator as independent normal numbers of mean zero; biases start at zero:

    ============  ============  ========================================================================================
    layer         option        standard deviation if the option is None
    ============  ============  ========================================================================================
    embedding     input_std     1/sqrt(inputs): f_0 has mean square 1 for inputs of mean square 1
    blocks        hidden_std    rho/sqrt(width), rho = :func:`learnmech.nets.activation_gain` of ``slope`` (ReLU: sqrt 2)
    read-out      output_std    1/sqrt(width)
    ============  ============  ========================================================================================

    Source: the residual nets and MLPs in the public notebooks of Chizat and Netrapalli, "The feature speed formula",
    arXiv 2311.18718 (lchizat/2023-BAFU). Their depth counts the embedding and the read-out too, so ``depth`` is theirs
    minus 2; their skip is :math:`\sqrt{1-\beta^2}`, their inputs have norm near 1 and ``input_std=1``, and they train
    neither embedding nor read-out. Blocks of several layers, other slopes and biases are ours.

    The modules are ``flatten``, ``embedding``, ``blocks`` (a list of :class:`ResidualBlock`) and ``readout``.

    Args:
        inputs: features of a sample once it is flattened.
        outputs: outputs, such as the number of classes.
        width: features of the residual stream.
        depth: blocks.
        skip: factor a of what a block passes on unchanged.
        branch: factor :math:`\beta` of what a block adds.
        block_layers: Linear layers in a block.
        slope: negative slope of the LeakyReLU; 0 gives ReLU, 1 gives a linear net.
        bias: whether Linear layers have a bias.
        input_std: standard deviation of the embedding's initial weights.
        hidden_std: standard deviation of the blocks' initial weights.
        output_std: standard deviation of the read-out's initial weights; 0 makes the first output zero.

    Raises:
        InputError: if a size is not positive, a factor is not finite, or a standard deviation is negative.

    Example:
        >>> import torch
        >>> ResidualMLP(100, 10, width=32, depth=4, branch=0.5)(torch.zeros(4, 1, 10, 10)).shape
        torch.Size([4, 10])
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        width: int = 200,
        depth: int = 10,
        skip: float = 1.0,
        branch: float = 1.0,
        block_layers: int = 1,
        slope: float = 0.0,
        bias: bool = False,
        input_std: float | None = None,
        hidden_std: float | None = None,
        output_std: float | None = None,
    ) -> None:
        super().__init__()
        require_positive(inputs=inputs, outputs=outputs, width=width, depth=depth, block_layers=block_layers)
        require_finite_slope(slope)
        _require_finite(skip=skip, branch=branch)
        deviations = {
            "input_std": 1.0 / math.sqrt(inputs) if input_std is None else input_std,
            "hidden_std": activation_gain(slope) / math.sqrt(width) if hidden_std is None else hidden_std,
            "output_std": 1.0 / math.sqrt(width) if output_std is None else output_std,
        }
        for name, deviation in deviations.items():
            if not (math.isfinite(deviation) and deviation >= 0):
                raise InputError(f"{name} must be a number of at least 0, got {deviation!r}; None takes the usual one.")
        self.flatten = nn.Flatten()
        self.embedding = nn.Linear(inputs, width, bias=bias)
        self.blocks = nn.ModuleList(
            ResidualBlock(width, skip=skip, branch=branch, layers=block_layers, slope=slope, bias=bias)
            for _ in range(depth)
        )
        self.readout = nn.Linear(width, outputs, bias=bias)
        _draw(self.embedding, deviations["input_std"])
        _draw(self.blocks, deviations["hidden_std"])
        _draw(self.readout, deviations["output_std"])

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute the outputs.

        Args:
            inputs: samples of any shape (n, ...) with ``inputs`` features each.

        Returns:
            Outputs (n, outputs), not passed through a softmax.
        """
        features: Tensor = self.embedding(self.flatten(inputs))
        for block in self.blocks:
            features = block(features)
        outputs: Tensor = self.readout(features)
        return outputs


def _draw(part: nn.Module, deviation: float) -> None:
    for layer in part.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, 0.0, deviation)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def _require_finite(**factors: float) -> None:
    for name, factor in factors.items():
        if not math.isfinite(factor):
            raise InputError(f"{name} must be a finite number, got {factor!r}.")
