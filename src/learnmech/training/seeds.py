"""One seed for a run, a stream of its own for each purpose, and the caller's generator left as it was."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

Built = TypeVar("Built")


def derive_seed(seed: int, purpose: str) -> int:
    """Derive the seed of one purpose, such as "init" or "order", from the seed of a run.

    The first 63 bits of the SHA-256 of both: the same on any machine, and without relation between purposes or between
    neighbouring seeds. torch's CPU generator uses 32 of these bits.

    Args:
        seed: the seed of the run.
        purpose: what the random numbers are for.

    Returns:
        An integer in [0, 2^63).

    Example:
        >>> derive_seed(0, "init")
        3598610026517748695
    """
    digest = hashlib.sha256(f"{seed}:{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def build_seeded(factory: Callable[[], Built], seed: int) -> Built:
    """Build a model whose initial weights depend on the seed only, and leave the caller's random state unchanged.

    Args:
        factory: builds the model, best on the CPU; a trainer moves it where it shall run.
        seed: the seed of the run; weights are drawn under ``derive_seed(seed, "init")``.

    Returns:
        What the factory returns.

    Example:
        >>> first, second = (build_seeded(lambda: torch.nn.Linear(2, 2), seed=1) for _ in range(2))
        >>> bool((first.weight == second.weight).all())
        True
    """
    initialized = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = list(range(torch.cuda.device_count())) if initialized else []
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(derive_seed(seed, "init"))
        if devices:
            torch.cuda.manual_seed_all(derive_seed(seed, "init"))
        return factory()


def make_generator(seed: int, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
    """Make a generator for one purpose.

    Args:
        seed: the seed of the run.
        purpose: what the random numbers are for.
        device: where they are drawn.

    Returns:
        A generator seeded with :func:`derive_seed`.
    """
    return torch.Generator(device).manual_seed(derive_seed(seed, purpose))


@contextmanager
def private_rng(device: torch.device) -> Iterator[None]:
    """Let what runs inside draw from torch's global generators without the caller noticing.

    Args:
        device: where the training runs; the generator of the CPU and the one of this device are put back at the end.

    Yields:
        Nothing.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


def seed_global_rng(seed: int, device: torch.device) -> None:
    """Seed torch's global generators of the CPU and of one device, and of no other.

    Args:
        seed: the seed itself, not that of a run.
        device: the device.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


def get_global_rng(device: torch.device) -> dict[str, torch.Tensor]:
    """Read the state of torch's global generators of the CPU and of one device.

    Args:
        device: the device.

    Returns:
        States by the type of the device.
    """
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_global_rng(states: dict[str, torch.Tensor], device: torch.device) -> None:
    """Put torch's global generators into the states that :func:`get_global_rng` read.

    Args:
        states: the states.
        device: the device.
    """
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)
