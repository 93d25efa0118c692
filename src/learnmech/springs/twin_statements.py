"""What to say about a fitted twin: what the curves cannot tell, and where the chain does not explain them."""

from collections.abc import Mapping

import numpy as np

from learnmech.springs.twin_model import TwinModel
from learnmech.springs.twin_result import Estimate, Goodness
from learnmech.springs.twin_uncertainty import Noise


def statements(
    model: TwinModel,
    parameters: Mapping[str, Estimate],
    combinations: Mapping[str, Estimate],
    goodness: Goodness,
    noise: Noise,
) -> tuple[str, ...]:
    """Say what a reader of the numbers must know.

    Args:
        model: the model.
        parameters: its parameters.
        combinations: combinations of them.
        goodness: how well it fits.
        noise: errors of the fit.

    Returns:
        One sentence or two each.
    """
    return (
        *model.curves.notes,
        *_on_identification(parameters, combinations),
        *_on_goodness(model, goodness, noise),
    )


def _on_identification(parameters: Mapping[str, Estimate], combinations: Mapping[str, Estimate]) -> list[str]:
    forward, backward, noise = (parameters[name] for name in ("friction_forward", "friction_backward", "noise"))
    bias = combinations["bias"]
    said = []
    if forward.identified and not backward.identified and np.isinf(backward.high):
        said.append(
            "friction backward is not identified: no backward motion is seen, so that any value "
            + (f"from {backward.low:.2g} up fits" if backward.low > 0 else "fits")
        )
    elif not (forward.identified and backward.identified) and bias.identified:
        said.append(
            f"the two frictions cannot be told apart: only their difference shows, (mu+ - mu-)/2 = {bias.value:.2g}, as it "
            "does where noise is stronger than friction"
        )
    elif not (forward.identified or backward.identified or bias.identified):
        said.append(
            "neither friction is identified: compare runs by the effective friction at the end, not by the parameters"
            if combinations["effective_friction"].identified
            else "nothing is identified: the curves do not show how the layers share the work"
        )
    if not noise.identified:
        if np.isinf(noise.high):
            fits = (
                f"any level from {noise.low:.2g} up fits" if noise.low > 0 else "any level fits, none and very much too"
            )
        else:
            fits = f"{'no noise' if noise.low == 0 else f'{noise.low:.2g}'} to {noise.high:.2g} fits"
        said.append(f"noise is not identified: {fits}")
    elif noise.low == 0:
        said.append(f"no noise is needed; at most {noise.high:.2g} fits")
    if not parameters["time_scale"].identified:
        said.append(
            "the time scale is not identified: friction and noise can be traded for it"
            + ("; the mobility is" if combinations["mobility"].identified else "")
        )
    return said


def _on_goodness(model: TwinModel, goodness: Goodness, noise: Noise) -> list[str]:
    said = []
    if goodness.r_squared < goodness.constant_shares:
        said.append(
            f"the chain explains less ({100 * goodness.r_squared:.0f} %) than shares of the layers that are constant in time "
            f"({100 * goodness.constant_shares:.0f} %): its motion is not the network's"
        )
    elif goodness.r_squared < 0.8:
        said.append(
            f"the chain explains {100 * goodness.r_squared:.0f} % of the contributions only: read its parameters with caution"
        )
    errors = model.curves.errors[1:]
    if model.curves.axis == "step" and np.isfinite(errors).any():
        ratio = goodness.rms_contribution / float(np.sqrt(np.nanmean(errors**2)))
        if ratio > 2:
            said.append(
                f"the residuals are {ratio:.0f} times the measurement errors: the chain is a caricature of the network, and "
                f"the intervals take its misfit for random noise ({noise.effective:.0f} independent observations)"
            )
    if noise.misfit > 2:
        said.append(
            f"the mean curve misses the chains by {np.sqrt(noise.misfit):.1f} times what their spread explains; the intervals "
            "are wider by that"
        )
    return said
