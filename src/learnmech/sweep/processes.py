"""Worker processes on this machine: joblib's loky, which survives a worker that is killed."""

from typing import Any

from joblib.externals.loky import ProcessPoolExecutor
from joblib.externals.loky.process_executor import BrokenProcessPool

from learnmech.sweep.executors import Backend


def open_processes(workers: int, threads: int) -> Backend:
    """Start worker processes, each with its own torch on a fixed number of threads.

    Args:
        workers: processes.
        threads: threads of each, set before torch is imported there.

    Returns:
        The backend. As many jobs as processes are submitted, so that a dying worker takes few others with it.
    """
    environment = {f"{name}_NUM_THREADS": str(threads) for name in ("OMP", "MKL", "OPENBLAS")}

    def start(count: int) -> Any:
        return ProcessPoolExecutor(max_workers=min(count, workers), env=environment)

    pool = [start(workers)]

    def remake(count: int) -> None:
        pool[0].shutdown(wait=True, kill_workers=True)
        pool[0] = start(count)

    return Backend(
        submit=lambda function, *arguments: pool[0].submit(function, *arguments),
        at_once=workers,
        died=(BrokenProcessPool,),
        remake=remake,
        close=lambda broken_off: pool[0].shutdown(wait=True, kill_workers=broken_off),
    )
