"""Chains of blocks and springs with dry friction: the theory's model of how layers share the work."""

import warnings
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from numpy.typing import ArrayLike

from learnmech.errors import InputError, LearnmechWarning
from learnmech.springs.chain_history import chain_history
from learnmech.springs.drift import mean_positions
from learnmech.springs.equilibrium import (
    Regime,
    bounded_noise_chain,
    elastic_energy,
    resting_chain,
    resting_chain_from_start,
)
from learnmech.springs.friction import NoiseKind, check_noise_kind, effective_friction, mean_drift, noise_bound
from learnmech.springs.parameter_grid import Parameter, ParameterGrid, broadcast
from learnmech.springs.recording import record_spacing, whole_steps
from learnmech.springs.simulation import Run, lay_out_start, run_chains
from learnmech.springs.stability import Dynamics, check_step, critical_damping

SOURCES: dict[Dynamics, str] = {"overdamped": "Eq. 5", "stick_slip": "Eqs. 10-11", "langevin": "Eqs. 12-13"}


class SpringChain:
    r"""A chain of L blocks joined by L + 1 springs between a fixed end at 0 and a wall, with dry friction on each block.

    The position of block l stands for how far the first l layers of a network have brought the load (the data separation)
    down: :math:`D_l = y - x_l`; the elongation :math:`d_l = x_l - x_{l-1}` is what layer l contributes. Friction stands for
    the nonlinearity, noise for whatever is random in training. Source: Shi, Pan, Dokmanić 2024 (arXiv 2407.19353), Eq. 5.

    Every parameter but ``blocks`` may be a number, an array or a data array: one object then holds a whole phase diagram.
    Data arrays broadcast by name; plain arrays by NumPy's rules, see :func:`~learnmech.springs.parameter_grid.broadcast`.

    Args:
        blocks: number L of blocks, for the hidden layers but the last one; there are L + 1 layers.
        stiffness: spring constant k > 0.
        target: position y >= 0 of the wall, the load at the start.
        friction_forward: :math:`\mu_+ \ge 0`, against motion towards the wall, in units of force.
        friction_backward: :math:`\mu_- \ge 0`, against motion away from it.

    Raises:
        InputError: for values out of range, or shapes that do not fit.

    Example:
        Friction lets the springs near the wall do the work:

        >>> SpringChain(blocks=3, friction_forward=0.1).equilibrium().round(6).tolist()
        [0.1, 0.2, 0.3, 0.4]
    """

    def __init__(
        self,
        blocks: int = 7,
        stiffness: Parameter = 1.0,
        target: Parameter = 1.0,
        friction_forward: Parameter = 0.0,
        friction_backward: Parameter = 0.0,
    ):
        if isinstance(blocks, bool) or not isinstance(blocks, int | np.integer) or blocks < 1:
            raise InputError(f"blocks must be a whole number of at least 1, but is {blocks!r}.")
        self.blocks = int(blocks)
        self.stiffness = stiffness
        self.target = target
        self.friction_forward = friction_forward
        self.friction_backward = friction_backward
        self._grid()

    def __repr__(self) -> str:
        shape = "x".join(f"{name} {size}" for name, size in zip(self.dims, self._grid().shape, strict=True))
        return f"SpringChain(blocks={self.blocks}{', grid: ' + shape if shape else ''})"

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of the axes that the parameters span."""
        return self._grid().dims

    def _grid(self, **further: Parameter) -> ParameterGrid:
        """Broadcast the parameters of the chain and further ones, and check all of them."""
        grid = broadcast(
            {
                "stiffness": self.stiffness,
                "target": self.target,
                "friction_forward": self.friction_forward,
                "friction_backward": self.friction_backward,
                **further,
            }
        )
        for name, values in grid.values.items():
            if values.size == 0:
                raise InputError(
                    f"the parameters have no entries: their shape is {grid.shape}; give at least one of each."
                )
            if not np.isfinite(values).all():
                raise InputError(f"{name} must be finite, but holds {values[~np.isfinite(values)].flat[0]}.")
            if name == "stiffness" and (values <= 0).any():
                raise InputError(f"stiffness must be above 0, but holds {values.min():g}.")
            if name != "force" and (values < 0).any():
                raise InputError(f"{name} must be at least 0, but holds {values.min():g}.")
        return grid

    def equilibrium(
        self, regime: Regime = "noiseless", bound: Parameter | None = None
    ) -> Float[np.ndarray, "*cells springs"]:
        r"""Give the elongations at which the chain comes to rest, from all blocks at 0.

        Args:
            regime: ``noiseless``: Eq. 7 of the paper, and the case that only the blocks near the wall move
                (:func:`~learnmech.springs.equilibrium.resting_chain_from_start` with :math:`\mu_+`); ``high_noise``: Eq. 8,
                the stationary mean under any unbounded symmetric noise
                (:func:`~learnmech.springs.equilibrium.resting_chain` with :math:`(\mu_+ - \mu_-)/2`); ``bounded``: the mean
                under noise of size at most ``bound`` (:func:`~learnmech.springs.equilibrium.bounded_noise_chain`).
            bound: largest random force, needed for ``bounded`` only.

        Returns:
            Elongations :math:`d_1, \dots, d_{L+1}`, which sum to the target. NaN, with a warning, where the bounded noise
            pushes unloaded blocks back and there is no closed form.

        Raises:
            InputError: for an unknown regime, or a bound that is missing or not wanted.

        Example:
            >>> chain = SpringChain(blocks=3, friction_forward=0.1, friction_backward=0.3)
            >>> chain.equilibrium("high_noise").round(6).tolist()
            [0.4, 0.3, 0.2, 0.1]
        """
        if (bound is not None) != (regime == "bounded"):
            raise InputError(f"bound belongs to the regime 'bounded' and only there, but the regime is {regime!r}.")
        grid = self._grid() if bound is None else self._grid(bound=bound)
        stiffness, target, forward, backward = (
            grid.values[name] for name in ("stiffness", "target", "friction_forward", "friction_backward")
        )
        if regime == "noiseless":
            return resting_chain_from_start(self.blocks, stiffness, target, forward)
        if regime == "high_noise":
            return resting_chain(self.blocks, stiffness, target, (forward - backward) / 2)
        if regime != "bounded":
            raise InputError(f"regime must be 'noiseless', 'high_noise' or 'bounded', but is {regime!r}.")
        resting = bounded_noise_chain(self.blocks, stiffness, target, forward, backward, grid.values["bound"])
        unknown = int(np.isnan(resting[..., 0]).sum())
        if unknown:
            warnings.warn(
                f"{unknown} of {resting[..., 0].size} chains have no closed form under bounded noise and are NaN: their "
                "noise exceeds friction_backward and pushes unloaded blocks back. Use .drift() or .simulate() there.",
                LearnmechWarning,
                stacklevel=2,
            )
        return resting

    def effective_friction(
        self, force: Parameter, noise: Parameter, noise_kind: NoiseKind = "gaussian"
    ) -> Float[np.ndarray, "*cells"]:
        """Give the friction that a block under a force feels on average over the noise.

        Args:
            force: elastic force on the block; broadcasts with the parameters.
            noise: level of the noise.
            noise_kind: its distribution, see :func:`~learnmech.springs.friction.mean_drift`.

        Returns:
            Effective friction, see :func:`~learnmech.springs.friction.effective_friction`.

        Raises:
            InputError: for values out of range.
        """
        check_noise_kind(noise_kind)
        values = self._grid(force=force, noise=noise).values
        return effective_friction(
            values["force"], values["noise"], values["friction_forward"], values["friction_backward"], noise_kind
        )

    def mean_drift(
        self, force: Parameter, noise: Parameter, noise_kind: NoiseKind = "gaussian"
    ) -> Float[np.ndarray, "*cells"]:
        """Give the mean velocity of a block under a force and noise.

        Args:
            force: elastic force on the block; broadcasts with the parameters.
            noise: level of the noise.
            noise_kind: its distribution.

        Returns:
            Mean velocity, see :func:`~learnmech.springs.friction.mean_drift`.

        Raises:
            InputError: for values out of range.
        """
        check_noise_kind(noise_kind)
        values = self._grid(force=force, noise=noise).values
        return mean_drift(
            values["force"], values["noise"], values["friction_forward"], values["friction_backward"], noise_kind
        )

    def energy(self, elongations: Any, *, above_uniform: bool = False) -> Any:
        """Give the elastic energy of elongations, see :func:`~learnmech.springs.equilibrium.elastic_energy`.

        Args:
            elongations: elongations, springs last: an array whose leading axes broadcast with the parameters, or a data
                array of a history, whose dimensions go by name.
            above_uniform: only what exceeds the chain of equal elongations.

        Returns:
            Energy: an array, or a data array for a data array.

        Raises:
            InputError: if there are not L + 1 springs.

        Example:
            >>> float(SpringChain(blocks=1, stiffness=2.0).energy([1.0, 3.0]))
            10.0
        """
        stiffness = self._grid().labelled("stiffness")
        if isinstance(elongations, xr.DataArray):
            self._check_springs(elongations.transpose(..., "layer").values)
            if above_uniform:
                elongations = elongations - elongations.mean("layer")
            return 0.5 * stiffness * (elongations**2).sum("layer")
        return elastic_energy(self._check_springs(elongations), stiffness.values, above_uniform=above_uniform)

    def load_curve(self, elongations: Any) -> Float[np.ndarray, "*cells layers+1"]:
        r"""Give the load curve :math:`D_l = \sum_{i>l} d_i` of elongations, from :math:`D_0` at the input to 0 at the wall.

        Args:
            elongations: elongations, springs last (the dimension ``layer`` of a data array, wherever it stands).

        Returns:
            Loads :math:`D_0, \dots, D_{L+1}`, layers last; what :func:`learnmech.springs.curvature` and the like take.

        Raises:
            InputError: if there are not L + 1 springs.

        Example:
            >>> SpringChain(blocks=2).load_curve([0.5, 0.25, 0.25]).tolist()
            [1.0, 0.5, 0.25, 0.0]
        """
        if isinstance(elongations, xr.DataArray):
            elongations = elongations.transpose(..., "layer").values
        elongations = self._check_springs(elongations)
        loads = np.zeros((*elongations.shape[:-1], self.blocks + 2))
        loads[..., :-1] = np.cumsum(elongations[..., ::-1], axis=-1)[..., ::-1]
        return loads

    def _check_springs(self, elongations: Any) -> Float[np.ndarray, "*cells springs"]:
        array = np.asarray(elongations, dtype=np.float64)
        if array.ndim == 0 or array.shape[-1] != self.blocks + 1:
            raise InputError(
                f"a chain of {self.blocks} blocks has {self.blocks + 1} elongations along the last axis, but the shape is "
                f"{array.shape}."
            )
        return array

    def drift(
        self,
        times: ArrayLike,
        noise: Parameter = 0.0,
        *,
        noise_kind: NoiseKind = "gaussian",
        noise_decay: Parameter = 0.0,
        initial: ArrayLike | None = None,
    ) -> xr.Dataset:
        """Compute the mean motion under noise without sampling, see :func:`~learnmech.springs.drift.mean_positions`.

        Args:
            times: increasing times, none below 0.
            noise: level of the noise; broadcasts with the parameters.
            noise_kind: its distribution.
            noise_decay: rate at which the level falls.
            initial: positions of the blocks at time 0, shape (..., L); zero if not given.

        Returns:
            A history with ``position``, ``elongation`` and ``load`` over (parameters..., time, layer).

        Raises:
            InputError: for values out of range.

        Example:
            >>> chain = SpringChain(blocks=3, friction_forward=[0.0, 0.1])
            >>> history = chain.drift([0.0, 200.0])
            >>> history.elongation.sel(friction_forward=0.1, time=200).values.round(6).tolist()
            [0.1, 0.2, 0.3, 0.4]
        """
        grid = self._grid(noise=noise, noise_decay=noise_decay)
        parameters: dict[str, Any] = dict(grid.values)
        positions = mean_positions(times, blocks=self.blocks, noise_kind=noise_kind, initial=initial, **parameters)
        config = {"model": "spring chain", "dynamics": "drift", "noise_kind": noise_kind, **self._describe(grid)}
        return chain_history(
            positions,
            np.atleast_1d(np.asarray(times, dtype=np.float64)),
            grid,
            chains=None,
            source="mean over the noise of Eq. 5 of Shi, Pan, Dokmanić 2024 (arXiv 2407.19353)",
            config=config,
            attributes={"dynamics": "drift"},
        )

    def simulate(
        self,
        duration: float | None = None,
        *,
        steps: int | None = None,
        dt: float = 0.01,
        noise: Parameter = 0.0,
        dynamics: Dynamics = "overdamped",
        noise_kind: NoiseKind = "gaussian",
        common_noise: bool = False,
        noise_decay: Parameter = 0.0,
        damping: Parameter | None = None,
        chains: int = 1,
        seed: int = 0,
        record_every: int | None = None,
        stop_tolerance: float | None = None,
        initial: ArrayLike | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> xr.Dataset:
        r"""Simulate chains from rest under random forces.

        The random force is :math:`\bar\epsilon e^{-\lambda t}\xi`, drawn anew for every step and held for its length: the
        level ``noise`` is the force over the correlation window ``dt``, in all three dynamics. The paper writes
        :math:`\epsilon = \bar\epsilon\sqrt{\Delta t}` for the strength of the white noise. As the force must exceed the
        friction at once, results at a fixed :math:`\epsilon` depend on the step; at a fixed :math:`\bar\epsilon` the mean
        does not for small steps.

        Args:
            duration: time to simulate; give this or ``steps``. It is rounded to whole steps.
            steps: number of time steps.
            dt: time step.
            noise: level :math:`\bar\epsilon` of the noise, in units of force; broadcasts with the parameters.
            dynamics: ``overdamped``: :class:`~learnmech.springs.overdamped.Overdamped`, Eq. 5; ``stick_slip``:
                :class:`~learnmech.springs.stick_slip.StickSlip`, Eqs. 10-11; ``langevin``:
                :class:`~learnmech.springs.langevin.Langevin`, Eqs. 12-13. The last two have unit mass.
            noise_kind: distribution of :math:`\xi`: ``gaussian``, ``truncated`` (at two standard deviations), ``uniform``
                on [-1, 1] or ``two_point``.
            common_noise: give all blocks of a chain the same :math:`\xi`, each at full strength.
            noise_decay: rate :math:`\lambda` at which the level falls.
            damping: viscous damping of the dynamics with inertia; :math:`4\sqrt k` if not given, which prevents oscillation.
            chains: number of independent chains for each set of parameters.
            seed: seed of the noise. The same call gives the same numbers, whatever is recorded; the draws of one chain
                depend on how many chains and parameters there are.
            record_every: steps between records; about 100 records if not given. Start and end are always recorded.
            stop_tolerance: end the run when no position of any chain changes between two records by more than this share of
                the largest position.
            initial: positions of the blocks at the start, shape (..., L) over the parameters, or over parameters and
                chains; zero if not given.
            dtype: precision of the positions. Single precision saves memory, not time.

        Returns:
            A history with ``position``, ``elongation`` and ``load`` over (parameters..., time, chain, layer). The attribute
            ``noise_bound`` is the largest random force possible.

        Raises:
            InputError: for values out of range, an unstable time step, more records than memory should hold, or positions
                that become infinite.

        Example:
            >>> chain = SpringChain(blocks=3, friction_forward=0.1)
            >>> history = chain.simulate(400, dt=0.1)
            >>> history.elongation.isel(time=-1, chain=0).values.round(6).tolist()
            [0.1, 0.2, 0.3, 0.4]
        """
        if damping is not None and dynamics == "overdamped":
            raise InputError("damping is for 'stick_slip' and 'langevin'; 'overdamped' chains have no inertia.")
        further = {} if damping is None else {"damping": damping}
        grid = self._grid(noise=noise, noise_decay=noise_decay, **further)
        if damping is None:
            grid.values["damping"] = critical_damping(grid.values["stiffness"])
        steps = whole_steps(duration, steps, dt)
        start = lay_out_start(initial, grid.shape, chains, self.blocks)
        run = Run(
            dynamics=dynamics,
            steps=steps,
            dt=float(dt),
            noise_kind=noise_kind,
            common_noise=common_noise,
            seed=seed,
            record_every=record_spacing(record_every, steps, start.size, dtype),
            stop_tolerance=stop_tolerance,
            dtype=dtype,
        )
        check_step(dynamics, self.blocks, grid.values["stiffness"], grid.values["damping"], run.dt)
        path, moments = run_chains(
            run,
            start.reshape(-1, self.blocks).T,
            {name: np.repeat(values.reshape(-1), chains) for name, values in grid.values.items()},
        )
        positions = path.transpose(2, 0, 1).reshape(*grid.shape, chains, len(moments), self.blocks)
        largest = float(grid.values["noise"].max())
        return chain_history(
            np.swapaxes(positions, -3, -2),
            np.array(moments) * run.dt,
            grid,
            chains=chains,
            source=f"{SOURCES[dynamics]} of Shi, Pan, Dokmanić 2024 (arXiv 2407.19353)",
            config={"model": "spring chain", "chains": int(chains), **run.describe(), **self._describe(grid)},
            attributes={
                "dynamics": dynamics,
                "seed": int(seed),
                "noise_bound": noise_bound(noise_kind) * largest if largest else 0.0,
            },
        )

    def _describe(self, grid: ParameterGrid) -> dict[str, Any]:
        return {"blocks": self.blocks, "dims": list(grid.dims), **grid.describe()}
