"""What members that are trained together must agree in, checked before anything is trained."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from learnmech.data.dataset import Dataset
from learnmech.data.noise import noisy_batch
from learnmech.errors import InputError
from learnmech.training.batches import batch_bounds
from learnmech.training.config import TrainConfig
from learnmech.training.evaluation import evaluate
from learnmech.training.losses import make_loss
from learnmech.training.seeds import private_rng

SHARED_SETTINGS = ("batch_size", "optimizer", "loss", "epochs")


def require_members(models: Sequence[nn.Module], dataset: Dataset, configs: Sequence[TrainConfig]) -> None:
    """Check that members can be trained in one call: as many settings as models, one shape, one kind of run.

    Args:
        models: the models.
        dataset: the data.
        configs: the settings, one a member.

    Raises:
        InputError: if there are none, a model is given twice, something differs that must not, a weight is not finite,
            or the data do not fit the models.
    """
    if not models:
        raise InputError("expected at least one model, got an empty list.")
    if len(models) != len(configs):
        raise InputError(
            f"expected one TrainConfig for each model, got {len(models)} models and {len(configs)} configs."
        )
    for position, model in enumerate(models):
        if not isinstance(model, nn.Module):
            raise InputError(f"models[{position}]: expected a torch.nn.Module, got {type(model).__name__}.")
    _require_separate(models)
    _require_same_settings(configs)
    _require_same_shape(models)
    for position, model in enumerate(models):
        for name, values in model.state_dict().items():
            if values.is_floating_point() and not bool(torch.isfinite(values).all()):
                raise InputError(
                    f"models[{position}]: {name} holds nan or infinity before training; build the model anew."
                )
    normalised = any(isinstance(module, _BatchNorm) for module in models[0].modules())
    bounds = batch_bounds(len(dataset.train_inputs), configs[0].batch_size, allow_single=not normalised)
    _require_noise(dataset, configs, min(stop - start for start, stop in bounds))
    _require_fitting_data(models[0], dataset, configs[0])


def _require_separate(models: Sequence[nn.Module]) -> None:
    owners: dict[int, int] = {}
    for position, model in enumerate(models):
        tensors = [*model.parameters(), *model.buffers()]
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise InputError(
                f"models[{position}] has no parameter that needs a gradient, so there is nothing to train."
            )
        for tensor in tensors:
            if owners.setdefault(tensor.data_ptr() or id(tensor), position) != position:
                first = owners[tensor.data_ptr() or id(tensor)]
                raise InputError(
                    f"models[{first}] and models[{position}] share weights or buffers; members are trained separately, so "
                    "give each a model of its own, such as build_seeded(factory, seed) for every member."
                )


def _require_same_settings(configs: Sequence[TrainConfig]) -> None:
    for name in SHARED_SETTINGS:
        values = [getattr(config, name) for config in configs]
        for position, value in enumerate(values):
            if value != values[0]:
                raise InputError(
                    f"members trained together must agree in {name}, but configs[0] has {values[0]!r} and "
                    f"configs[{position}] {value!r}; call train_members once for each {name}."
                )


def _require_same_shape(models: Sequence[nn.Module]) -> None:
    first = _describe(models[0])
    for position, model in enumerate(models):
        other = _describe(model)
        for name in first | other:
            if first.get(name) != other.get(name):
                raise InputError(
                    f"members trained together must have one shape, but {name} is {first.get(name, 'missing')} in "
                    f"models[0] and {other.get(name, 'missing')} in models[{position}]; call train_members once for each "
                    "shape."
                )


def _describe(model: nn.Module) -> dict[str, str]:
    trained = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    return {
        name: f"{tuple(values.shape)} {values.dtype} on {values.device}{'' if trained.get(name, True) else ' (frozen)'}"
        for name, values in model.state_dict().items()
    }


def _require_noise(dataset: Dataset, configs: Sequence[TrainConfig], samples: int) -> None:
    # The smallest batch decides whether a standard deviation can be taken.
    for label_noise, data_noise in {(config.label_noise, config.data_noise) for config in configs}:
        noisy_batch(
            dataset.train_inputs[:samples],
            dataset.train_targets[:samples],
            label_noise=label_noise,
            data_noise=data_noise,
            classes=dataset.classes,
            generator=torch.Generator().manual_seed(0),
        )


def _require_fitting_data(model: nn.Module, dataset: Dataset, config: TrainConfig) -> None:
    first = next(model.parameters())
    loss = make_loss(config.loss, dataset.classes)
    inputs = dataset.train_inputs[:2].to(first.device, first.dtype)
    targets = dataset.train_targets[:2].to(first.device)
    try:
        with private_rng(first.device):
            evaluate(model, loss, inputs, targets, classes=dataset.classes)
    except InputError:
        raise
    except (RuntimeError, IndexError, ValueError, TypeError) as error:
        raise InputError(
            f"the models cannot be evaluated on data set {dataset.name!r} with inputs of shape {dataset.input_shape} and "
            f"{dataset.outputs} outputs; expected models that fit the data. torch says: {error}"
        ) from error
