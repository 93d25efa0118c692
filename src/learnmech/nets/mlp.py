"""The multilayer perceptron on which the spring-block paper measures load curves."""

from collections import OrderedDict

from torch import Tensor, nn

from learnmech.nets.dropout import Dropout
from learnmech.nets.initialisation import Scheme, require_finite_slope, require_scheme
from learnmech.nets.parts import make_activation, require_dropout, require_positive, start


class MLP(nn.Module):
    r"""Input BatchNorm, depth - 1 equal hidden blocks, and a linear read-out.

    .. math::
        h_0 = \mathrm{BN}(x), \quad
        h_l = \sigma_\alpha(\mathrm{BN}(W_l\,\mathrm{drop}(h_{l-1}) + b_l)), \quad
        f = W_L\,\mathrm{drop}(h_{L-1}) + b_L,

    with no dropout on :math:`h_0`. ``depth`` = L counts Linear layers.

    Source: Shi, Pan and Dokmanić, arXiv 2407.19353, the network of Fig. 1 and its code (model.py). Different from it:
    ``inputs`` may differ from ``width``.

    The modules are ``flatten``, ``input_norm`` (only with ``batch_norm``), ``hidden`` (a list of blocks with the parts
    ``linear``, ``norm``, ``activation``, ``dropout``) and ``readout``. The paper's features h_l are the outputs of
    ``input_norm``, of every ``hidden[l].activation``, and of ``readout``.

    Weights are drawn from torch's global generator; with ``init="torch"`` and ``init_scale=1`` they are the ones that
    the same layers made by hand in the same order would have.

    Args:
        inputs: features of a sample once it is flattened.
        outputs: outputs, such as the number of classes.
        width: units of a hidden layer.
        depth: Linear layers, the read-out included; 1 is a linear model.
        slope: negative slope of the LeakyReLU; 0 gives ReLU, 1 gives no non-linearity (Identity).
        dropout: probability p with which a hidden unit is dropped; 0 leaves the module out.
        batch_norm: whether to normalise the input and the pre-activations.
        bias: whether Linear layers have a bias.
        init: scheme of the initial weights, see :func:`learnmech.nets.initialise`.
        init_scale: a constant that multiplies the initial weights.

    Raises:
        InputError: if a size is not positive, the dropout is outside [0, 1), or the initialisation is unknown.

    Example:
        >>> import torch
        >>> MLP(100, 10)(torch.zeros(4, 1, 10, 10)).shape
        torch.Size([4, 10])
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        width: int = 100,
        depth: int = 8,
        slope: float = 0.0,
        dropout: float = 0.0,
        batch_norm: bool = True,
        bias: bool = True,
        init: Scheme = "torch",
        init_scale: float = 1.0,
    ) -> None:
        super().__init__()
        require_positive(inputs=inputs, outputs=outputs, width=width, depth=depth)
        require_finite_slope(slope)
        require_dropout(dropout)
        require_scheme(init)
        self.flatten = nn.Flatten()
        self.input_norm: nn.BatchNorm1d | None = nn.BatchNorm1d(inputs) if batch_norm else None
        fans = [inputs, *[width] * (depth - 1)]
        self.hidden = nn.ModuleList()
        for fan_in in fans[:-1]:
            parts: OrderedDict[str, nn.Module] = OrderedDict(linear=nn.Linear(fan_in, width, bias=bias))
            if batch_norm:
                parts["norm"] = nn.BatchNorm1d(width)
            parts["activation"] = make_activation(slope)
            if dropout > 0:
                parts["dropout"] = Dropout(dropout)
            self.hidden.append(nn.Sequential(parts))
        self.readout = nn.Linear(fans[-1], outputs, bias=bias)
        start(self, init, slope=slope, scale=init_scale)

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute the outputs.

        Args:
            inputs: samples of any shape (n, ...) with ``inputs`` features each.

        Returns:
            Outputs (n, outputs), not passed through a softmax.
        """
        features: Tensor = self.flatten(inputs)
        if self.input_norm is not None:
            features = self.input_norm(features)
        for block in self.hidden:
            features = block(features)
        outputs: Tensor = self.readout(features)
        return outputs
