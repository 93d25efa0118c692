"""Running many chains for many steps: chunks that fit the cache, noise, recording, stopping."""

import dataclasses
import math
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike
from torch import Tensor

from learnmech.bars import terminal_bar
from learnmech.errors import InputError
from learnmech.springs.friction import NoiseKind, check_noise_kind
from learnmech.springs.langevin import Langevin
from learnmech.springs.overdamped import Overdamped
from learnmech.springs.spring_noise import SpringNoise
from learnmech.springs.stability import Dynamics
from learnmech.springs.stepping import ChainStepper
from learnmech.springs.stick_slip import StickSlip

STEPPERS: dict[Dynamics, type[ChainStepper]] = {"overdamped": Overdamped, "stick_slip": StickSlip, "langevin": Langevin}

BLOCKS_AT_ONCE = 7 * 4096
"""Blocks that move together: enough to hide the cost of a call, few enough that their state stays in the cache."""

LONG = 3e8
"""Block steps, some seconds' worth, from which on a terminal shows progress."""


@dataclasses.dataclass(frozen=True)
class Run:
    """What to simulate.

    Attributes:
        dynamics: equation of motion.
        steps: number of time steps.
        dt: time step.
        noise_kind: distribution of the noise.
        common_noise: whether all blocks of a chain feel the same noise.
        seed: seed of the noise.
        record_every: steps between records.
        stop_tolerance: relative change between two records below which the run ends, or None.
        dtype: precision of the positions.
    """

    dynamics: Dynamics
    steps: int
    dt: float
    noise_kind: NoiseKind
    common_noise: bool
    seed: int
    record_every: int
    stop_tolerance: float | None
    dtype: torch.dtype

    def __post_init__(self) -> None:
        check_noise_kind(self.noise_kind)
        if self.dynamics not in STEPPERS:
            raise InputError(f"dynamics must be one of {', '.join(map(repr, STEPPERS))}, but is {self.dynamics!r}.")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int | np.integer) or self.seed < 0:
            raise InputError(f"seed must be a whole number of at least 0, but is {self.seed!r}.")
        if self.dtype not in (torch.float64, torch.float32):
            raise InputError(f"dtype must be torch.float64 or torch.float32, but is {self.dtype}.")
        if self.stop_tolerance is not None and not 0 <= self.stop_tolerance < 1:
            raise InputError(f"stop_tolerance must lie in [0, 1), but is {self.stop_tolerance!r}.")

    def describe(self) -> dict[str, Any]:
        """Describe the run in plain values, for the configuration of a history.

        Returns:
            Name to value.
        """
        return {**dataclasses.asdict(self), "seed": int(self.seed), "dtype": str(self.dtype)}

    def record_steps(self) -> list[int]:
        """Give the steps to record: the start, every so many, and the end.

        Returns:
            Increasing step numbers.
        """
        return sorted({*range(0, self.steps, self.record_every), self.steps})


def lay_out_start(
    initial: ArrayLike | None, shape: tuple[int, ...], chains: int, blocks: int
) -> Float[np.ndarray, "*cells chains blocks"]:
    """Lay the positions at the start out over parameters, chains and blocks.

    Args:
        initial: positions of shape (..., blocks) over the parameters, or over parameters and chains; None for zero.
        shape: shape of the grid of parameters.
        chains: number of chains for each set of parameters.
        blocks: number of blocks.

    Returns:
        Positions for every chain.

    Raises:
        InputError: for a wrong number of chains, and for shapes that do not fit or values that are not finite.

    Example:
        >>> lay_out_start([0.1, 0.2], (3,), 4, 2).shape
        (3, 4, 2)
    """
    if isinstance(chains, bool) or not isinstance(chains, int | np.integer) or chains < 1:
        raise InputError(f"chains must be a whole number of at least 1, but is {chains!r}.")
    whole = (*shape, chains, blocks)
    positions = np.zeros(blocks) if initial is None else np.asarray(initial, dtype=np.float64)
    if positions.shape[-1:] == (blocks,):
        wide = positions if positions.ndim == len(whole) else positions[..., None, :]
        if _fits(wide.shape, whole):
            if np.isfinite(wide).all():
                return np.broadcast_to(wide, whole)
            raise InputError("initial positions must be finite, but some are not.")
    raise InputError(
        f"initial positions must have the shape {(*shape, blocks)} or {whole}, or broadcast to it, but have "
        f"{positions.shape}."
    )


def _fits(shape: tuple[int, ...], whole: tuple[int, ...]) -> bool:
    """Tell whether a shape broadcasts to another one."""
    ends = zip(reversed(shape), reversed(whole), strict=False)
    return len(shape) <= len(whole) and all(length in (1, full) for length, full in ends)


@torch.inference_mode()
def run_chains(
    run: Run,
    initial: Float[np.ndarray, "blocks chains"],
    parameters: dict[str, Float[np.ndarray, " chains"]],
) -> tuple[Float[np.ndarray, "records blocks chains"], list[int]]:
    """Simulate chains side by side.

    Chains go in chunks that fit the cache, each with its own stream of draws. The same call gives the same numbers on the
    same version of PyTorch, whatever is recorded; what a single chain draws depends on how many chains there are.

    Args:
        run: what to simulate.
        initial: positions of the blocks at the start.
        parameters: ``stiffness``, ``target``, ``friction_forward``, ``friction_backward``, ``damping``, ``noise`` and
            ``noise_decay`` of each chain.

    Returns:
        Positions at each record, and the step of each.

    Raises:
        InputError: if positions become infinite.
    """
    blocks, chains = initial.shape
    moments = run.record_steps()
    records = np.empty((len(moments), blocks, chains), dtype=str(run.dtype).removeprefix("torch."))
    records[0] = initial
    width = max(1, BLOCKS_AT_ONCE // blocks)
    parts = [slice(first, min(first + width, chains)) for first in range(0, chains, width)]
    # A chunk runs from start to end while it is in the cache; only a joint decision to stop needs all at every record.
    groups = [[part] for part in parts] if run.stop_tolerance is None else [parts]
    kept = len(moments)
    with terminal_bar("simulating", run.steps * blocks * chains, least=int(LONG)) as advance:
        for group in groups:
            members = [_Chunk(run, initial[:, part], _select(parameters, part), parts.index(part)) for part in group]
            for record in range(1, len(moments)):
                steps = moments[record] - moments[record - 1]
                for part, member in zip(group, members, strict=True):
                    member.advance(steps)
                    records[record][:, part] = member.positions()
                    advance(steps * blocks * (part.stop - part.start))
                now = records[record][:, group[0].start : group[-1].stop]
                if not np.isfinite(now).all():
                    raise InputError(
                        f"positions became infinite by step {moments[record]}; take a smaller dt than {run.dt:g}, or less "
                        "noise or load."
                    )
                if run.stop_tolerance is not None:
                    change = np.abs(now - records[record - 1]).max(initial=0.0)
                    if change <= run.stop_tolerance * np.abs(now).max(initial=0.0):
                        kept = record + 1
                        break
    return records[:kept], moments[:kept]


def _select(parameters: dict[str, np.ndarray], part: slice) -> dict[str, float | Tensor]:
    """Take the parameters of some chains; a plain number, which is faster, where all are equal."""
    chosen: dict[str, float | Tensor] = {}
    for name, values in parameters.items():
        values = values[part]
        same = len(values) > 0 and (values == values[0]).all()
        chosen[name] = float(values[0]) if same else torch.from_numpy(np.ascontiguousarray(values))
    return chosen


class _Chunk:
    """Some chains and their noise."""

    def __init__(self, run: Run, initial: np.ndarray, parameters: dict[str, float | Tensor], number: int):
        level, decay = parameters.pop("noise"), parameters.pop("noise_decay")
        start = torch.from_numpy(np.array(initial, order="C")).to(run.dtype)
        self._stepper = STEPPERS[run.dynamics](start, dt=run.dt, **parameters)
        self._level, self._decay = level / parameters["stiffness"], -run.dt * decay
        self._waiting: deque[tuple[Tensor, float | Tensor]] = deque()
        self._drawn = 0
        self._noise: SpringNoise | None = None
        self._wide: Tensor | None = None
        if isinstance(level, Tensor) or level != 0:
            rows = 1 if run.common_noise else start.shape[0]
            self._noise = SpringNoise(run.noise_kind, rows, start.shape[1], (run.seed, number))

    def advance(self, steps: int) -> None:
        move, waiting = self._stepper.step, self._waiting
        if self._noise is None:
            for _ in range(steps):
                move()
            return
        for _ in range(steps):
            if not waiting:
                waiting.extend(self._draw(self._noise))
            move(*waiting.popleft())

    def _draw(self, noise: SpringNoise) -> Iterator[tuple[Tensor, float | Tensor]]:
        """Draw for the next steps; give each step's draws, in the precision of the positions, and its level."""
        draws = noise.draw()
        # Widened into memory that is used again: fresh pages cost more than the copy.
        if draws.dtype != self._stepper.positions.dtype:
            if self._wide is None:
                self._wide = torch.empty_like(draws, dtype=self._stepper.positions.dtype)
            draws = self._wide.copy_(draws)
        first, self._drawn = self._drawn, self._drawn + len(draws)
        if isinstance(self._decay, Tensor):
            times = torch.arange(first, self._drawn, dtype=torch.float64)
            levels = (self._level * torch.exp(times[:, None] * self._decay)).to(draws.dtype)
            return zip(draws.unbind(), levels.unbind(), strict=True)
        if isinstance(self._level, Tensor):
            level = self._level.to(draws.dtype)
            return (
                (draw, level * math.exp(step * self._decay) if self._decay else level)
                for step, draw in enumerate(draws.unbind(), first)
            )
        return zip(
            draws.unbind(),
            [self._level * math.exp(step * self._decay) for step in range(first, self._drawn)],
            strict=True,
        )

    def positions(self) -> np.ndarray:
        return self._stepper.positions.numpy()
