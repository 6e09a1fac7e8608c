"""Workers that read videos: processes of this machine, or of a cluster."""

import logging
import os
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from importlib import import_module
from typing import Any

import joblib
from joblib.externals.loky import get_reusable_executor

from tlee.errors import UserError

CHECK_EVERY = 1.0  # seconds
TASKS = "tlee.extraction.parts"  #: module of what workers do

_RETRIES = {"max_restarts": -1, "max_task_retries": 3}  # of ray's workers that die; as many tries as dask's


class Workers:
    """Open workers: their number, and a function that runs tasks on them.

    ``streams`` tells that results arrive one by one, as opposed to all at the end.
    """

    def __init__(self, jobs: int, streams: bool = True, **settings: Any):
        self.count = joblib.effective_n_jobs(jobs)
        kind = "generator_unordered" if streams else "list"
        self._parallel = joblib.Parallel(jobs, return_as=kind, batch_size=1, **settings)

    def run(self, function: Callable, tasks: Iterable[tuple]) -> Iterator[Any]:
        """Yield the results of ``function(*task)`` as they arrive, in any order."""
        results = self._parallel(joblib.delayed(function)(*task) for task in tasks)
        if isinstance(results, Generator):
            with closing(results):
                yield from results
        else:
            yield from results


@contextmanager
def open_workers(jobs: int | str) -> Iterator[Workers]:
    """Open the workers of ``compute.jobs``: a number of processes here, or the address of a cluster.

    Raises ``UserError`` if the cluster cannot be reached, or the package that speaks to it is not installed.
    """
    if isinstance(jobs, int):
        with _local_workers(jobs) as workers:
            yield workers
    elif jobs.startswith("dask://"):
        with _dask_workers(jobs) as workers:
            yield workers
    else:
        with _ray_workers(jobs) as workers:
            yield workers


@contextmanager
def _local_workers(jobs: int) -> Iterator[Workers]:
    workers_may_finish = False
    try:
        yield Workers(jobs, initializer=end_with, initargs=[os.getpid()])
        workers_may_finish = True
    finally:  # joblib keeps its worker processes otherwise
        get_reusable_executor().shutdown(kill_workers=not workers_may_finish)


@contextmanager
def _dask_workers(address: str) -> Iterator[Workers]:
    try:
        from distributed import Client
    except ImportError:
        raise _not_installed(address, "dask") from None
    try:
        client = Client(address.replace("dask://", "tcp://"), set_as_default=False)
    except (OSError, TimeoutError):
        raise _unreachable(address, "no scheduler answers") from None
    with client, joblib.parallel_config("dask", client=client):
        try:
            workers = Workers(-1)
            client.run(import_module, TASKS)  # a task that cannot be imported would end its worker, not the run
        except TimeoutError:
            raise _unreachable(address, "the scheduler has no workers") from None
        except ImportError as error:
            raise _without_kit(address, str(error)) from None
        yield workers


@contextmanager
def _ray_workers(address: str) -> Iterator[Workers]:
    try:
        import ray
        from ray.util.joblib import register_ray
    except ImportError:
        raise _not_installed(address, "ray") from None

    def import_error() -> str:  # local: a worker without this module can run it too
        try:
            import_module(TASKS)
        except ImportError as error:
            return str(error)
        return ""

    register_ray()
    try:
        connection = ray.init(address=address, logging_level=logging.ERROR)
    except ConnectionError:
        raise _unreachable(address, "no cluster answers") from None
    with connection, joblib.parallel_config("ray", ray_remote_args=_RETRIES):
        if reason := ray.get(ray.remote(import_error).remote()):
            raise _without_kit(address, reason)
        yield Workers(-1, streams=False)


def _unreachable(address: str, reason: str) -> UserError:
    return UserError(f"`compute.jobs` is {address}, but {reason}: start the cluster, or set -1 for this machine")


def _without_kit(address: str, reason: str) -> UserError:
    return UserError(f"`compute.jobs` is {address}, but a worker says: {reason}: install the kit there")


def _not_installed(address: str, name: str) -> UserError:
    wanted = {"dask": "-e '.[cluster]'", "ray": "'ray[client]'"}[name]
    return UserError(f"`compute.jobs` is {address}, but {name} is not installed: run `pip install {wanted}`")


def end_with(parent: int) -> None:
    """Let this worker end soon after the process ``parent`` has been killed; joblib's would wait for minutes."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(CHECK_EVERY)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
