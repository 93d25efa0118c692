"""Which axis of a layer's features is its width: channels of images, entries of tokens."""

from collections.abc import Mapping

from torch import nn

from learnmech.monitor.layers import Layer, LayerChoice
from learnmech.monitor.unwrap import eager_modules


def usual_axis(dimensions: int) -> int:
    """Say which axis is the width if nothing else is known.

    Args:
        dimensions: of the features, samples first.

    Returns:
        1 for four and more (samples, channels, height, width), else the last one: (samples, width), (samples, tokens, width).
    """
    return 1 if dimensions >= 4 else -1


def width_axes(model: nn.Module, layers: LayerChoice, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Find the width of every layer's features, from the modules that make them.

    The width is the axis that convolutions and linear layers of the block act on: axis 1 if its length is the number of
    channels of a convolution in the block, the last one if it is the width of a linear layer, an embedding, a recurrent or
    a LayerNorm layer there. If both or none fit, :func:`usual_axis` decides. The input of a network goes by the layer after it.

    Args:
        model: the eager model.
        layers: the layers that were read.
        shapes: shape of the features of each layer, by name.

    Returns:
        Layer name to axis, 1 or -1.
    """
    modules = eager_modules(model)
    axes = {}
    for position, layer in enumerate(layers.layers):
        shape = shapes.get(layer.name)
        if shape is None:
            continue
        axes[layer.name] = usual_axis(len(shape))
        if len(shape) < 3:
            continue
        source = layers.layers[position + 1] if layer.role == "input" and position + 1 < len(layers.layers) else layer
        channels, widths = _widths(source, modules)
        first, last = shape[1] in channels, shape[-1] in widths
        if first != last:
            axes[layer.name] = 1 if first else -1
    return axes


def _widths(layer: Layer, modules: Mapping[str, nn.Module]) -> tuple[set[int], set[int]]:
    """Widths of the convolutions and of the layers that act on the last axis."""
    channels: set[int] = set()
    widths: set[int] = set()
    for member in layer.members or (layer.module,):
        for module in modules[member].modules():
            kind = type(module).__name__
            if "Conv" in kind:
                lengths = (getattr(module, "in_channels", None), getattr(module, "out_channels", None))
                channels |= {length for length in lengths if isinstance(length, int)}
            elif isinstance(module, nn.Linear):
                widths |= {module.in_features, module.out_features}
            elif isinstance(module, nn.Embedding):
                widths.add(module.embedding_dim)
            elif isinstance(module, nn.MultiheadAttention):
                widths.add(module.embed_dim)
            elif isinstance(module, nn.RNNBase):
                widths |= {module.input_size, module.hidden_size * (2 if module.bidirectional else 1)}
            elif isinstance(module, nn.LayerNorm):
                widths.add(int(module.normalized_shape[-1]))
    return channels, widths
