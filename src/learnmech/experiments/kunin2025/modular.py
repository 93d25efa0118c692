"""Modular addition: a quadratic network learns the frequencies of its template one after the other."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from learnmech import history as histories
from learnmech.dynamics.agf.modular_neurons import six_neurons
from learnmech.dynamics.agf.modular_spectra import neuron_power
from learnmech.errors import InputError
from learnmech.experiments.kunin2025.modular_animation import animate
from learnmech.experiments.kunin2025.modular_cells import (
    ONE_HOT,
    SOURCE,
    best_fractions,
    brute_utility,
    follow_start,
    make_template,
    six_neuron_residual,
)
from learnmech.experiments.kunin2025.modular_claims import check
from learnmech.experiments.kunin2025.modular_drawing import draw
from learnmech.experiments.reproduction import Context, Reproduction, Scale
from learnmech.sweep import Sweep

_BASE: Mapping[str, Any] = {
    "p": 20,
    "templates": {
        "correlated": {"1": 10.0, "3": 5.0, "5": 2.5},
        "without resonance": {"1": 10.0, "4": 5.0, "7": 2.5},
    },
    "width": 18,
    "one_hot_p": 11,
    "one_hot_width": 36,
    "scale": 1e-2,
    "seeds": 5,
    "jumps": 2,
    "later": 2.0,
    "patience": 10.0,
    "records": 400,
    "starts": 12,
    "few": 4,
    "few_starts": 16,
}
SETTINGS: Mapping[Scale, Mapping[str, Any]] = {
    "smoke": {
        **_BASE,
        "p": 8,
        "templates": {"correlated": {"1": 5.0, "3": 2.5}, "without resonance": {"1": 5.0, "2": 2.5}},
        "width": 12,
        "one_hot_p": 5,
        "one_hot_width": 12,
        "scale": 1e-1,
        "seeds": 1,
        "jumps": 1,
        "later": 1.5,
        "patience": 4.0,
        "records": 80,
        "starts": 4,
        "few": 2,
        "few_starts": 2,
    },
    "reduced": _BASE,
    "paper": {**_BASE, "seeds": 10, "jumps": 3, "later": 1.5, "records": 800, "few_starts": 40},
}


def run(context: Context) -> xr.Dataset:
    """Train networks from small starts, and search for the best neurons.

    Args:
        context: where and how to run.

    Returns:
        The networks over ``encoding`` and ``seed``; over ``encoding`` what a search finds for one neuron, and what six neurons a frequency leave;
        over ``few`` what few neurons leave.

    Raises:
        InputError: if a replaced setting is unknown, or a number is not a positive integer.
    """
    known = {"seeds": 1, "records": 50, "starts": 1, "few_starts": 1}
    context.require_overrides(*known)
    settings = {**SETTINGS[context.scale], **context.overrides}
    for name, least in known.items():
        value = settings[name]
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise InputError(f"{name} must be an integer of at least {least}, got {value!r}.")
    cell = {name: settings[name] for name in settings if name not in ("seeds", "starts", "few", "few_starts")}
    encodings = [*settings["templates"], ONE_HOT]
    whole = context.run(Sweep(follow_start, {"encoding": encodings, "seed": range(settings["seeds"])}, fixed=cell))
    for name, (names, values, text) in _search(settings, encodings).items():
        whole[name] = (names, values, {"long_name": text, "units": "1", "source": SOURCE})
    counted = {name: np.arange(1, whole.sizes[name] + 1) for name in ("few", "sixth", "weight")}
    return histories.validate(whole.assign_coords(counted))


def _search(settings: Mapping[str, Any], encodings: list[str]) -> dict[str, tuple[tuple[str, ...], Any, str]]:
    utilities, purities, losses, errors = [], [], [], []
    for encoding in encodings:
        template = make_template({**settings, "encoding": encoding})
        utility, neuron = brute_utility(template, settings["starts"])
        residual, error = six_neuron_residual(template)
        utilities.append(utility)
        purities.append(float(neuron_power(neuron[None], template).max()))
        losses.append(residual)
        errors.append(error)
    first = make_template({**settings, "encoding": encodings[0]})
    frequency = int(min(settings["templates"][encodings[0]], key=int))
    fractions = best_fractions(settings["few"], settings["few_starts"])
    over = ("encoding",)
    return {
        "searched_utility": (over, utilities, "largest utility found by search"),
        "searched_purity": (over, purities, "share of the neuron found that lies at its largest frequency"),
        "six_loss": (over, losses, "loss that six neurons a frequency leave, over that of the start"),
        "level_error": (over, errors, "largest difference of a level and the loss of six neurons a frequency learned"),
        "few_fraction": (("few",), fractions, "share of a frequency's loss that 1, 2, ... neurons leave"),
        "six": (("sixth", "weight"), six_neurons(first, frequency), "weights u, v, w of six neurons"),
    }


MODULAR = Reproduction(
    name="kunin2025/modular",
    title="a network learns addition modulo p one frequency at a time, the strongest of the encoding first",
    caption="f(a, b) = Σ (u·x_a + v·x_b)² w, with number a shown as a template rolled by a; target x_(a+b). (a) The paper's template, |x̂| = 10, 5, 2.5 "
    "at k = 1, 3, 5: loss of gradient flow from seed 0 (red; other seeds grey), the staircase predicted from that start (dashed), and the same with "
    "a step for each neuron that activates (blue). (b) The same amplitudes at k = 1, 4, 7. (c) Measured over predicted time minus 1, one dot a seed; "
    "the band is the bound of the claims. The first jump is predicted well, the second not in all seeds. In (a) there is a resonance, "
    "3 = 3·1: the neurons of frequency 1 still relax when frequency 3 is learned, and help or hinder it. (b), without one, was chosen after (a) had "
    "failed, and is better but not good in all seeds: a frequency is learned in several steps, and where one of them ends just above the middle of "
    "two levels a hair decides which counts as the jump. "
    "(d) Power of the output at each frequency; dotted: of the target. (e) One-hot numbers have equal |x̂| everywhere: all frequencies are learned "
    "together, and no staircase is predicted. (f) How much of what is learned belongs to the frequency that leads. (g) Squared norm of each neuron by "
    "frequency at the end. (h) A neuron with the largest utility has phases s_u + s_v = s_w + s_x, on the line: dots show each neuron when its norm "
    "first reaches 1/2; afterwards it may leave the line again, as neurons share a frequency; stars: six that learn a frequency. "
    "(i) What 1 to 6 neurons leave of the loss of one frequency. Differs from the paper: the flow is integrated, not 1e6 steps of SGD "
    "(rate 0.01, momentum 0.9), and the times for a given start, the best fractions and the six neurons in closed form are derived here. "
    "The animation follows the run of (a): each neuron in the colour of its largest frequency, dots as large as its norm.",
    settings=SETTINGS,
    run=run,
    check=check,
    draw=draw,
    page=animate,
    citations=("kunin2025",),
)
