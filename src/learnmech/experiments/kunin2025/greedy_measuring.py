"""What greedy training costs and reaches beside Adam, on a regression task of real data."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from learnmech import data as datasets
from learnmech import history as histories
from learnmech.bars import terminal_bar
from learnmech.data.folders import named_folder
from learnmech.dynamics.agf.greedy_activation import read_activation
from learnmech.dynamics.agf.greedy_cost import Cost, minimise_cost
from learnmech.dynamics.agf.greedy_training import Greedy

METHODS = ("greedy", "adam", "adam_short", "random_start")
FULL: dict[str, Any] = {
    "widths": (4, 8, 16, 32, 64),
    "greedy_width": 32,
    "rates": (3e-3, 1e-2, 3e-2),
    "epochs": 100,
    "batch": 256,
    "held_out": 2000,
    "seeds": (0,),
    "random_start_steps": 60,
}
QUICK: dict[str, Any] = {
    "widths": (2, 4),
    "greedy_width": 4,
    "rates": (1e-2, 3e-2),
    "epochs": 8,
    "batch": 32,
    "held_out": 60,
    "seeds": (0,),
    "random_start_steps": 5,
}
_CALIFORNIA = "california_housing/cal_housing.data.gz"


@dataclass(frozen=True)
class Task:
    """A regression task, standardised by its training samples.

    Attributes:
        name: of the data.
        train: inputs and targets.
        held: those that choose among learning rates.
        test: those that nothing was chosen by.
    """

    name: str
    train: tuple[Tensor, Tensor]
    held: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Outcome:
    """A trained network.

    Attributes:
        loss: half the mean squared error of the training samples.
        held: root mean squared error of the held-out samples.
        test: root mean squared error of the test samples.
        seconds: CPU time of the training; wall time on one free core.
    """

    loss: float
    held: float
    test: float
    seconds: float


def load_task(name: str, held_out: int) -> Task:
    """Load California housing, or scikit-learn's diabetes data, which are always there.

    Args:
        name: "california" (from the folder that ``LEARNMECH_DATA`` names), "diabetes", or "any" for the first of them that is there.
        held_out: how many training samples are set aside, the last of the split.

    Returns:
        float32 samples, a fixed split into training and 20 % test.
    """
    root = named_folder(None)
    there = root is not None and (root / _CALIFORNIA).is_file()
    if name == "california" or (name == "any" and there):
        whole = datasets.load("csv:" + _CALIFORNIA, folder=root)
        parts = whole.train_inputs, whole.train_targets, whole.test_inputs, whole.test_targets
        name = "california housing"
    else:
        from sklearn.datasets import load_diabetes

        inputs, targets = (torch.from_numpy(part).float() for part in load_diabetes(return_X_y=True))
        order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(1))
        inputs, targets = inputs[order], targets[order, None]
        cut = len(inputs) - len(inputs) // 5
        inputs = (inputs - inputs[:cut].mean(0)) / inputs[:cut].std(0, correction=0)
        targets = (targets - targets[:cut].mean()) / targets[:cut].std(correction=0)
        parts, name = (inputs[:cut], targets[:cut], inputs[cut:], targets[cut:]), "diabetes"
    cut = len(parts[0]) - held_out
    return Task(name, (parts[0][:cut], parts[1][:cut]), (parts[0][cut:], parts[1][cut:]), (parts[2], parts[3]))


def train_adam(task: Task, width: int, rate: float, epochs: int, batch: int, seed: int) -> Outcome:
    """Train Linear, ReLU, Linear with minibatches, Adam and a cosine schedule, from torch's own initialisation.

    Args:
        task: the data.
        width: of the hidden layer.
        rate: learning rate at the start.
        epochs: how many; the incomplete last batch of each is left out.
        batch: samples of a batch.
        seed: of the start and the order of samples.

    Returns:
        What came out.
    """
    inputs, targets = task.train
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(inputs.shape[1], width), nn.ReLU(), nn.Linear(width, targets.shape[1]))
        started = time.process_time()
        optimizer = torch.optim.Adam(net.parameters(), lr=rate, fused=True)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * (len(inputs) // batch))
        for _ in range(epochs):
            order = torch.randperm(len(inputs))
            for chosen in torch.split(order, batch)[: len(inputs) // batch]:
                optimizer.zero_grad()
                loss = (net(inputs[chosen]) - targets[chosen]).square().mean() / 2
                loss.backward()
                optimizer.step()
                schedule.step()
        return _judge(task, net, time.process_time() - started)


def train_from_random(task: Task, width: int, steps: int, seed: int) -> Outcome:
    """Minimise the cost as greedy training does, but once and from random neurons: what its minimiser alone is worth.

    Args:
        task: the data.
        width: of the hidden layer.
        steps: of Levenberg-Marquardt.
        seed: of the start: He's.

    Returns:
        What came out.
    """
    inputs, targets = task.train
    activation, _ = read_activation("relu")
    generator = torch.Generator().manual_seed(seed)
    started = time.process_time()
    columns = torch.cat([inputs, torch.ones(len(inputs), 1)], 1)
    weights = torch.randn(width, columns.shape[1], generator=generator) * (2 / columns.shape[1]) ** 0.5
    outputs = torch.randn(width, targets.shape[1], generator=generator) * width**-0.5
    weights, outputs, _ = minimise_cost(Cost(columns, targets, activation), weights, outputs, steps=steps)
    spent = time.process_time() - started

    def network(raw: Tensor) -> Tensor:
        return activation.value(torch.cat([raw, torch.ones(len(raw), 1)], 1) @ weights.T) @ outputs

    return _judge(task, network, spent)


def train_greedy(task: Task, widths: Sequence[int], seed: int) -> list[Outcome]:
    """Grow one network, and look at it at every width.

    Args:
        task: the data.
        widths: increasing.
        seed: of the search.

    Returns:
        An outcome for each width, with the time since the start, without that of looking.

    Raises:
        KeyboardInterrupt: after Ctrl-C.
    """
    greedy = Greedy(max(widths), seed=seed)
    outcomes, spent = [], 0.0
    for width in widths:
        started = time.process_time()
        run = greedy.fit(*task.train, width=width)
        spent += time.process_time() - started
        if run.attrs["reason"] == "interrupted":
            raise KeyboardInterrupt
        outcomes.append(_judge(task, greedy.predict, spent))
    return outcomes


def measure_greedy(settings: Mapping[str, Any], data: str = "any") -> xr.Dataset:
    """Measure test error over neurons and over time: greedy training, Adam, Adam with a quarter of the epochs, and a random start.

    How to read it: ``seconds`` of greedy training is that of one run up to the width, so all smaller networks come with it. That of
    Adam is one training at the learning rate that was best on the held-out samples; finding it cost ``search_seconds`` more.
    Greedy training has nothing to choose here. All run in float32, one after the other; times are CPU time, so call ``torch.set_num_threads(1)`` before.

    Args:
        settings: :data:`FULL`, :data:`QUICK`, or as these.
        data: see :func:`load_task`.

    Returns:
        A history over ``training``, ``seed`` and ``neurons`` (NaN where one was not run: greedy and random starts beyond
        ``greedy_width``): ``test_rmse`` and ``loss`` in standard deviations of the targets, ``seconds``, ``search_seconds``, ``rate``.
        ``curve_rmse`` and ``curve_seconds`` over ``seed`` and ``width`` show greedy training at every width.

    Raises:
        KeyboardInterrupt: after Ctrl-C.
    """
    task = load_task(data, settings["held_out"])
    widths, seeds, most = settings["widths"], settings["seeds"], settings["greedy_width"]
    shape = (len(METHODS), len(seeds), len(widths))
    found = {name: np.full(shape, np.nan) for name in ("test_rmse", "loss", "seconds", "search_seconds", "rate")}
    curve = {name: np.full((len(seeds), most), np.nan) for name in ("curve_rmse", "curve_seconds")}

    _warm_up(settings["batch"])

    def note(method: str, place: int, position: int, outcome: Outcome, search: float, rate: float) -> None:
        values = (outcome.test, outcome.loss, outcome.seconds, search, rate)
        for name, value in zip(found, values, strict=True):
            found[name][METHODS.index(method), place, position] = value

    with terminal_bar("greedy training and Adam", len(seeds) * (len(widths) + 1)) as advance:
        for place, seed in enumerate(seeds):
            grown = train_greedy(task, range(1, most + 1), seed)
            curve["curve_rmse"][place] = [outcome.test for outcome in grown]
            curve["curve_seconds"][place] = [outcome.seconds for outcome in grown]
            advance(1)
            for position, width in enumerate(widths):
                if width <= most:
                    note("greedy", place, position, grown[width - 1], 0.0, np.nan)
                    started = train_from_random(task, width, settings["random_start_steps"], seed)
                    note("random_start", place, position, started, 0.0, np.nan)
                for method, epochs in (("adam", settings["epochs"]), ("adam_short", -(-settings["epochs"] // 4))):
                    runs = [
                        (train_adam(task, width, rate, epochs, settings["batch"], seed), rate)
                        for rate in settings["rates"]
                    ]
                    best, rate = min(runs, key=lambda run: run[0].held)
                    spent = sum(outcome.seconds for outcome, _ in runs)
                    note(method, place, position, best, spent - best.seconds, rate)
                advance(1)
    return _history(task, settings, found, curve)


def _warm_up(batch: int) -> None:
    """Make both ways once on made-up data: the first optimizer of a process imports for seconds."""
    inputs = torch.randn(2 * batch, 3, generator=torch.Generator().manual_seed(0))
    task = Task("made up", *[(inputs, inputs[:, :1].abs())] * 3)
    train_adam(task, 2, 1e-2, 1, batch, 0)
    train_greedy(task, [1], 0)


def _judge(task: Task, network: Any, seconds: float) -> Outcome:
    with torch.no_grad():
        errors = [
            float((network(inputs) - targets).square().mean()) for inputs, targets in (task.train, task.held, task.test)
        ]
    return Outcome(errors[0] / 2, errors[1] ** 0.5, errors[2] ** 0.5, seconds)


def _history(
    task: Task, settings: Mapping[str, Any], found: dict[str, np.ndarray], curve: dict[str, np.ndarray]
) -> xr.Dataset:
    titles = {
        "test_rmse": ("root mean squared error of the test samples", "standard deviations of the target"),
        "loss": ("half the mean squared error of the training samples", "variance of the target"),
        "seconds": ("CPU time of the training", "s"),
        "search_seconds": ("CPU time of the trainings at other learning rates", "s"),
        "rate": ("learning rate at the start, best on held-out samples", "1"),
        "curve_rmse": (
            "root mean squared error of the test samples, greedy training",
            "standard deviations of the target",
        ),
        "curve_seconds": ("CPU time of greedy training so far", "s"),
    }
    variables = {
        name: (
            ("seed", "width") if name in curve else ("training", "seed", "neurons"),
            values,
            {"long_name": titles[name][0], "units": titles[name][1], "source": "measured; greedy training is ours"},
        )
        for name, values in {**found, **curve}.items()
    }
    return histories.build(
        variables,
        {
            "training": list(METHODS),
            "seed": list(settings["seeds"]),
            "neurons": list(settings["widths"]),
            "width": np.arange(1, settings["greedy_width"] + 1),
        },
        config={
            **{name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()},
            "data": task.name,
        },
        attributes={"data": task.name, "samples": len(task.train[0])},
    )
