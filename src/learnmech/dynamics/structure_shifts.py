"""Translations: what can be added to all outputs of a linear map because all that reads them subtracts it again."""

from collections.abc import Callable

from learnmech.dynamics.charge_views import View
from learnmech.dynamics.structure_flow import Flow
from learnmech.dynamics.structure_records import Part, Step, Writer
from learnmech.dynamics.symmetries import Symmetry

_CHAINS = frozenset(["contiguous", "clone", "identity", "dropout", "alias", "float", "double", "to"])
_RESHAPES = frozenset(["view", "reshape", "unflatten"])
_SUMS = frozenset(["add", "sub", "subtract", "__add__", "__radd__", "__sub__", "__rsub__", "__iadd__", "__isub__"])


def shifts_of(flow: Flow, outputs: set[int], class_axis: Callable[[int, int], bool]) -> list[Symmetry]:
    """Find translations after a pass.

    Args:
        flow: the pass.
        outputs: keys of the model's outputs.
        class_axis: class_axis(key, axis) tells whether the loss stays the same if all entries of an output along an axis (from
            the end) are shifted alike.

    Returns:
        Symmetries: of a softmax or LayerNorm behind a linear map, and of a bias before a normalisation of channels.
    """
    readers: dict[int, list[Step]] = {}
    for step in flow.steps:
        for source in step.sources:
            readers.setdefault(source, []).append(step)
    found: list[Symmetry] = []
    for key, writer in flow.writers.items():
        shape = _shape(flow, key)
        axis = len(shape) + writer.axis
        if axis < 0:
            continue
        kinds = _readers(key, axis, len(shape), shape[axis], readers, outputs, class_axis)
        if kinds == {"whole"}:
            found += _whole(flow, writer)
        elif kinds == {"channels"}:
            found += _bias(flow, writer)
        elif kinds == {"whole", "channels"}:
            found += _bias(flow, writer, together=True)
    return found


def _shape(flow: Flow, key: int) -> tuple[int, ...]:
    return next(step.shape for step in flow.steps if key in step.results)


def _readers(
    key: int,
    axis: int,
    size: int,
    width: int,
    readers: dict[int, list[Step]],
    outputs: set[int],
    class_axis: Callable[[int, int], bool],
) -> set[str]:
    """Say what takes a shift away: ``whole`` one that all entries share, ``channels`` one for each; ``kept`` if nothing does."""
    kinds: set[str] = set()
    if key in outputs:
        kinds.add("whole" if class_axis(key, axis - size) else "kept")
    for step in readers.get(key, []):
        if step.name in ("softmax", "log_softmax"):
            along = step.argument(1, "dim")
            kinds.add("whole" if isinstance(along, int) and along % size == axis else "kept")
        elif step.name == "layer_norm":
            kinds.add("whole" if axis == size - 1 and len(tuple(step.argument(1, "normalized_shape"))) == 1 else "kept")
        elif step.name in ("batch_norm", "instance_norm"):
            kinds.add(
                "channels"
                if axis == 1 and step.argument(5, "training", step.argument(5, "use_input_stats"))
                else "kept"
            )
        elif _passes(step, key, axis, size):
            for result in step.results:
                kinds |= _readers(result, axis, size, width, readers, outputs, class_axis)
        elif step.name in _RESHAPES and axis == size - 1 and step.shape[-1] == width:
            for result in step.results:
                kinds |= _readers(result, len(step.shape) - 1, len(step.shape), width, readers, outputs, class_axis)
        else:
            kinds.add("kept")
    return kinds or {"kept"}


def _passes(step: Step, key: int, axis: int, size: int) -> bool:
    if len(step.shape) != size:
        return False
    if step.name == "dropout":
        return not step.argument(2, "training", True) or step.argument(1, "p", 0.5) == 0
    if step.name == "transpose":
        dims = [step.argument(1, "dim0"), step.argument(2, "dim1")]
        return all(isinstance(dim, int) and dim % size != axis for dim in dims)
    if step.name in _SUMS:
        return step.sources.count(key) == 1 and len(step.results) == 1
    return step.name in _CHAINS


def _free(flow: Flow, part: Part | None) -> bool:
    return part is not None and flow.uses[part.name] == 1 and flow.parameters[part.name].requires_grad


def _whole(flow: Flow, writer: Writer) -> list[Symmetry]:
    found = []
    if writer.weight is not None and _free(flow, writer.weight) and writer.weight.stop is None:
        weight = writer.weight
        rows = weight.order[0]
        split = tuple(flow.parameters[weight.name].shape)
        units = tuple(axis for axis in range(len(split)) if axis != rows)
        found.append(_translation(View(weight.name, split, units)))
    return found + _bias(flow, writer, together=True)


def _bias(flow: Flow, writer: Writer, *, together: bool = False) -> list[Symmetry]:
    if writer.bias is None or not _free(flow, writer.bias) or writer.bias.stop is not None:
        return []
    split = tuple(flow.parameters[writer.bias.name].shape)
    return [_translation(View(writer.bias.name, split, () if together else (0,)))] if len(split) == 1 else []


def _translation(view: View) -> Symmetry:
    return Symmetry("translation", (view,), layers=(view.parameter.rpartition(".")[0],))
