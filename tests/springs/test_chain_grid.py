"""Parameters on one grid: names of axes, coordinates, agreement of a grid with its cells, bad values."""

import math

import numpy as np
import pytest
import torch
import xarray as xr

from learnmech.errors import InputError
from learnmech.springs import SpringChain
from learnmech.springs.parameter_grid import broadcast


def test_plain_arrays_name_their_axes():
    chain = SpringChain(friction_forward=np.array([[0.0], [0.1], [0.2]]), friction_backward=0.1)
    run = chain.simulate(steps=2, noise=[0.1, 0.2])
    assert run.position.dims == ("friction_forward", "noise", "time", "chain", "layer")
    assert run.friction_forward.values.tolist() == [0.0, 0.1, 0.2]
    assert run.noise.values.tolist() == [0.1, 0.2]
    assert SpringChain(target=torch.tensor([1.0, 2.0])).dims == ("target",)


def test_shared_axes_are_numbered():
    run = SpringChain(friction_forward=[0.0, 0.1], friction_backward=[0.2, 0.3]).drift([1.0])
    assert run.position.dims == ("parameter_0", "time", "layer")
    assert run.parameter_0.values.tolist() == [0, 1]
    assert SpringChain(friction_forward=np.zeros((2, 3))).dims == ("parameter_0", "parameter_1")
    assert SpringChain(friction_forward=np.zeros((1, 3))).dims == ("parameter_0", "friction_forward")


def test_data_arrays_go_by_name():
    forward = xr.DataArray([0.0, 0.1], dims="friction", coords={"friction": [0.0, 0.1]})
    backward = xr.DataArray(
        [[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]], dims=("friction", "back"), coords={"friction": [0.0, 0.1]}
    )
    chain = SpringChain(2, friction_forward=forward, friction_backward=backward.T)
    run = chain.drift([1.0], noise=xr.DataArray([0.1, 0.2], dims="level"))
    assert run.position.dims == ("friction", "back", "level", "time", "layer")
    assert run.back.values.tolist() == [0, 1, 2]
    assert chain.equilibrium("high_noise")[1, 2, 0] == pytest.approx(1 / 3 + (0.6 - 0.1) / 2)
    mixed = SpringChain(friction_forward=forward, target=[1.0, 2.0]).drift([1.0])
    assert mixed.position.dims == ("friction", "target", "time", "layer")


def test_a_grid_is_its_cells():
    rng = np.random.default_rng(0)
    stiffness, target, forward, backward = (rng.uniform(0.01, 0.5, 4) for _ in range(4))
    noise = rng.uniform(0, 0.3, (3, 1))
    chain = SpringChain(3, stiffness, target, forward, backward)
    grid = chain.drift([2.0, 30.0], noise)
    for row in range(3):
        for column in range(4):
            cell = SpringChain(3, stiffness[column], target[column], forward[column], backward[column])
            alone = cell.drift([2.0, 30.0], float(noise[row, 0])).position.values
            assert np.abs(grid.position.values[row, column] - alone).max() < 1e-6
            assert chain.equilibrium()[column] == pytest.approx(cell.equilibrium(), abs=1e-15)
    for dynamics in ("overdamped", "stick_slip", "langevin"):
        whole = chain.simulate(steps=300, dt=0.1, dynamics=dynamics).position.values
        for column in range(4):
            cell = SpringChain(3, stiffness[column], target[column], forward[column], backward[column])
            alone = cell.simulate(steps=300, dt=0.1, dynamics=dynamics).position.values
            assert whole[column] == pytest.approx(alone, abs=1e-14)


def test_values_out_of_range():
    for arguments, message in [
        ({"blocks": 0}, "blocks must be a whole number of at least 1"),
        ({"blocks": 2.5}, "blocks must be a whole number"),
        ({"blocks": True}, "blocks must be a whole number"),
        ({"stiffness": 0.0}, "stiffness must be above 0"),
        ({"stiffness": [1.0, -1.0]}, "stiffness must be above 0, but holds -1"),
        ({"target": -1.0}, "target must be at least 0"),
        ({"friction_forward": -0.1}, "friction_forward must be at least 0"),
        ({"friction_backward": math.inf}, "friction_backward must be finite, but holds inf"),
        ({"target": "one"}, "target must be a number"),
        ({"friction_forward": [0.1, 0.2], "friction_backward": [0.1, 0.2, 0.3]}, "broadcast by NumPy's rules"),
    ]:
        with pytest.raises(InputError, match=message):
            SpringChain(**arguments)


def test_axes_that_do_not_fit():
    one, other = (xr.DataArray([0.1, 0.2], dims="a", coords={"a": [shift, 1.0]}) for shift in (0.0, 0.5))
    with pytest.raises(InputError, match="do not fit together"):
        SpringChain(friction_forward=one, friction_backward=other)
    with pytest.raises(InputError, match="must not have a dimension called 'time'"):
        SpringChain(target=xr.DataArray([1.0], dims="time"))
    with pytest.raises(InputError, match="comes both from a data array and from the plain array 'noise'"):
        SpringChain(target=xr.DataArray([1.0, 2.0], dims="noise")).drift([1.0], noise=[0.1, 0.2, 0.3])


def test_repr_and_broadcast():
    assert repr(SpringChain()) == "SpringChain(blocks=7)"
    assert repr(SpringChain(3, target=[1.0, 2.0])) == "SpringChain(blocks=3, grid: target 2)"
    scalar = broadcast({"noise": 0.1})
    assert (scalar.dims, scalar.shape) == ((), ())
    with pytest.raises(InputError, match="have no entries"):
        SpringChain(friction_forward=np.zeros(0))
