"""What is measured for one gamma, one trained network, or one start: the cells of the sweeps."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from learnmech import history as histories
from learnmech.dynamics.linear_network_runs import deep_linear
from learnmech.dynamics.silent_kernels import silent_alignment
from learnmech.dynamics.width_measures import measure_width_exponents
from learnmech.training import derive_seed

_PATH = ("loss", "singular_value", "kernel_norm", "kernel_cosine")


def measure_gamma(config: Mapping[str, Any]) -> xr.Dataset:
    """Measure width exponents at one gamma: a cell of a sweep.

    Args:
        config: ``gamma``, ``depth``, ``widths`` and ``draws``.

    Returns:
        Sizes over width and draw, and exponents.
    """
    gamma = float(config["gamma"])
    found = measure_width_exponents(
        config["depth"],
        [gamma],
        config["widths"],
        draws=config["draws"],
        seed=derive_seed(0, f"widths at gamma {gamma!r}"),
    )
    return histories.validate(found.isel(gamma=0, drop=True))


def follow_path(config: Mapping[str, Any]) -> xr.Dataset:
    """Train one deep linear network by gradient flow: a cell of a sweep.

    Args:
        config: ``gamma``, ``draw``, ``values`` (singular values of the target, which is diagonal), ``depth``, ``width``
            and ``records``.

    Returns:
        Its path over ``record``, with the time of each as ``moment``.
    """
    run = deep_linear(
        np.diag(np.asarray(config["values"], dtype=np.float64)),
        depth=config["depth"],
        width=config["width"],
        gamma=float(config["gamma"]),
        seed=derive_seed(config["draw"], "path"),
        records=config["records"],
    )
    return _over_records(run, config)


def follow_silent(config: Mapping[str, Any]) -> xr.Dataset:
    """Train a network with one output and two layers: a cell of a sweep.

    Args:
        config: ``scale`` of the start, ``draw``, ``inputs``, ``width`` and ``records``. The target is a random vector of
            length 3.

    Returns:
        Its path over ``record``; cosine and size of the kernel, against the last one, when the loss is 90 % of its start.
    """
    generator = np.random.default_rng(derive_seed(config["draw"], "silent target"))
    direction = generator.standard_normal((1, config["inputs"]))
    run = deep_linear(
        3 * direction / np.linalg.norm(direction),
        width=config["width"],
        scale=config["scale"],
        seed=derive_seed(config["draw"], "silent start"),
        records=config["records"],
        stop=1e-8,
    )
    early = silent_alignment(run["kernel"].values, run["loss"].values)
    path = _over_records(run, config)
    source = "Atanasov, Bordelon and Pehlevan 2021 (arXiv 2111.00034)"
    for name, value, title in (
        ("silent_cosine", early.cosine, "cosine of the kernel to the last one when the loss is at 90 %"),
        ("silent_size", early.scale, "size of the kernel over that of the last one when the loss is at 90 %"),
    ):
        path[name] = ((), value, {"long_name": title, "units": "1", "source": source})
    return histories.validate(path)


def _over_records(run: xr.Dataset, config: Mapping[str, Any]) -> xr.Dataset:
    """Number the times, which differ between cells, and put them into a variable; a missing end repeats the last record."""
    count = config["records"]
    take = np.minimum(np.arange(count), run.sizes["time"] - 1)
    variables: dict[str, Any] = {}
    for name in _PATH:
        values = run[name].isel(time=take)
        dims = tuple("record" if dim == "time" else str(dim) for dim in values.dims)
        variables[name] = (dims, values.values, dict(run[name].attrs))
    meaning = {"long_name": "time of the gradient flow", "units": "1", "source": "the integrator"}
    variables["moment"] = (("record",), run["time"].values[take], meaning)
    return histories.build(variables, {"record": np.arange(count), "mode": run["mode"].values}, config=dict(config))
