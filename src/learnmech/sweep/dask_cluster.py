"""Dask distributed: a cluster started here, a running one joined by its address, or a client of the caller."""

import logging
from typing import Any

from learnmech.errors import InputError
from learnmech.sweep.executors import Backend

_RETRIES = 2
_CONNECT_SECONDS = 20


def _import_distributed() -> Any:
    try:
        import distributed
    except ImportError as error:
        raise InputError(
            "Dask distributed is not installed, and this executor needs it: pip install 'learnmech[cluster]'."
        ) from error
    return distributed


def start_cluster(workers: int, threads: int) -> Backend:
    """Start a scheduler and worker processes on this machine.

    Args:
        workers: processes.
        threads: threads for torch in each.

    Returns:
        The backend; closing it stops the cluster.
    """
    distributed = _import_distributed()
    cluster = distributed.LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=True,
        dashboard_address="127.0.0.1:0",  # any free port: the scheduler serves its health there even without a dashboard
        scheduler_kwargs={"dashboard": False},
        silence_logs=logging.ERROR,
        env={f"{name}_NUM_THREADS": str(threads) for name in ("OMP", "MKL", "OPENBLAS")},
    )
    client = distributed.Client(cluster, set_as_default=False)

    def close(broken_off: bool) -> None:
        client.close()
        cluster.close()

    backend = use_client(client)
    backend.close = close
    return backend


def join_cluster(address: str) -> Backend:
    """Join a running scheduler.

    Args:
        address: such as ``tcp://host:8786``.

    Returns:
        The backend; closing it leaves the cluster running.

    Raises:
        InputError: if nobody answers there.
    """
    distributed = _import_distributed()
    try:
        client = distributed.Client(address, timeout=_CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise InputError(
            f"no Dask scheduler answers at {address!r} ({error or type(error).__name__}); start one with "
            "'dask scheduler', and workers with 'dask worker ADDRESS --nthreads 1'."
        ) from error
    backend = use_client(client)
    backend.close = lambda broken_off: client.close()
    return backend


def use_client(client: Any) -> Backend:
    """Use a client that is connected already.

    Args:
        client: a ``distributed.Client``.

    Returns:
        The backend. Dask itself repeats jobs whose worker was lost.
    """
    distributed = _import_distributed()
    return Backend(
        submit=lambda function, *arguments: client.submit(function, *arguments, pure=False, retries=_RETRIES),
        died=(distributed.KilledWorker,),
        attempts=2,  # in each, Dask itself tries on several workers (distributed.scheduler.allowed-failures)
    )
