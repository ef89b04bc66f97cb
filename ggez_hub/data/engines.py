"""Engines: the same work on unit after unit of rows, in several processes of this machine or on Ray.

Units stream: few are in memory at once, whatever their number. Work is a function of a unit alone, so results are the
same on every engine; they come in any order, with their unit's number.
"""

import functools
import itertools
import logging
import multiprocessing
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ggez_hub.data.parts import Unit
from ggez_hub.errors import DependencyError, GgezError, InputError

if TYPE_CHECKING:
    from concurrent.futures import Future

    import pyarrow as pa

PATIENCE = 10.0  # seconds; a job that is done by then starts no process
QUIET = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}  # unless told otherwise
AHEAD = 2  # units under way for each process: one at work, one waiting
Work = Callable[[Unit], Unit]


class Step(NamedTuple):
    """Work that every unit goes through.

    Attributes:
        setup: A function of a module: called once in each worker, it returns the work.
        given: What it is given: plain data.
        model: Whether the work has a model in memory, which wants a GPU where there is one.
    """

    setup: Callable[[Any], Work]
    given: Any
    model: bool = False


class WorkerLost(InputError):
    """A worker was killed; units that were done have been handed on."""


def run(
    engine: str, units: Callable[[], Iterator[Unit]], steps: Sequence[Step], workers: int | None = None
) -> Iterator[Unit]:
    """Takes every unit through the steps.

    Args:
        engine: ``processes``: one for each core of this machine, models in this process. ``ray``: Ray Data, on the
            cluster at RAY_ADDRESS, or else on this machine; each model has a GPU to itself where the cluster has any.
        units: Makes the units. On Ray it is called on the cluster, where the files have to be under the same names.
        steps: What is done with each, in order.
        workers: Processes at most; None = as many as there are cores. Of `processes`.

    Yields:
        Every unit once, after its last step, in any order.

    Raises:
        WorkerLost: A worker was killed, and on Ray could not be replaced.
        DependencyError: Ray is not installed.
        GgezError: What `units` or the work raise.
    """
    if engine == "ray":
        yield from _on_ray(units, steps)
        return
    found = units()
    for step in steps:
        found = _in_processes(found, step, workers or len(os.sched_getaffinity(0)))
    yield from found


# ------------------------------------------------------------------------------------------------------------ processes
def _in_processes(units: Iterator[Unit], step: Step, workers: int) -> Iterator[Unit]:
    from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
    from concurrent.futures.process import BrokenProcessPool

    work, until = step.setup(step.given), time.monotonic() + PATIENCE
    alone = step.model or workers == 1
    for unit in units:
        if not alone and time.monotonic() >= until:
            units = itertools.chain([unit], units)
            break
        yield work(unit)
    else:
        return
    # A fresh interpreter for each: threads and open files of this one cannot hold it up.
    executor = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start, (step,))
    waiting: set[Future[Unit]] = set()
    try:
        for unit in units:
            with _no_interrupts():
                waiting.add(executor.submit(_work, unit))
            if len(waiting) >= AHEAD * workers:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from _results(done)
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            yield from _results(done)
    except BrokenProcessPool as err:
        yield from (future.result() for future in waiting if future.done() and not future.exception())
        raise WorkerLost(
            "a worker process was killed, most often because the memory does not do",
            "close other programs; in a script of your own, call this below `if __name__ == '__main__':`",
        ) from err
    finally:
        executor.shutdown(wait=not waiting, cancel_futures=True)


def _results(done: "set[Future[Unit]]") -> Iterator[Unit]:
    """What was done, then what went wrong."""
    yield from (future.result() for future in done if not future.exception())
    for future in done:
        future.result()


class _no_interrupts:  # noqa: N801 -- used as a function is
    """Processes that are started meanwhile never see Ctrl-C, which is for the one that started them."""

    def __enter__(self) -> None:
        self.before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})

    def __exit__(self, *_: object) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self.before)


_steps: list[Step] = []  # of this worker: one


def _start(step: Step) -> None:
    """Begins a worker: one whose parent is killed leaves, too."""
    _steps.append(step)

    def leave() -> None:
        if parent := multiprocessing.parent_process():
            parent.join()
            os._exit(1)

    threading.Thread(target=leave, daemon=True).start()


@functools.cache
def _own_work() -> Work:
    """Set up with the first unit, so that an error is an answer."""
    return _steps[0].setup(_steps[0].given)


def _work(unit: Unit) -> Unit:
    return _own_work()(unit)


# ------------------------------------------------------------------------------------------------------------------ Ray
def _on_ray(units: Callable[[], Iterator[Unit]], steps: Sequence[Step]) -> Iterator[Unit]:
    ray = _ray()
    started = not ray.is_initialized()
    if started:
        _connect(ray)
    context = ray.data.DataContext.get_current()
    before = context.target_max_block_size, context.enable_progress_bars
    # A block for each unit, or many small ones would wait for each other in one task.
    context.target_max_block_size, context.enable_progress_bars = 1, False
    try:
        for table in _dataset(ray, units, steps).iter_batches(batch_size=None, batch_format="pyarrow"):
            yield from _units(table)
    except (ray.exceptions.RayError, ConnectionError) as err:
        own = _own_error(err)
        if own is None:
            raise WorkerLost(f"Ray gave up: {str(err).strip().splitlines()[-1]}", "see its logs, in /tmp/ray") from err
        raise own from err
    finally:
        context.target_max_block_size, context.enable_progress_bars = before
        if started:
            ray.shutdown()


def _ray() -> Any:
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.data
    except ImportError as err:
        raise DependencyError("engine ray needs the library ray", 'pip install "ggez_hub[ray]"') from err
    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            handler.setLevel(logging.ERROR)
    return ray


def _connect(ray: Any) -> None:
    """Joins the cluster at RAY_ADDRESS, or starts one on this machine."""
    address = os.environ.get("RAY_ADDRESS") or "local"
    local = {"include_dashboard": False, "num_cpus": len(os.sched_getaffinity(0))} if address == "local" else {}
    try:
        if found := re.fullmatch(r"(?:\w+://)?(.+):(\d+)", address):  # Ray itself would try for many minutes
            socket.create_connection((found[1], int(found[2])), timeout=10).close()
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", **local)
    except (OSError, ValueError, RuntimeError) as err:  # ConnectionError is an OSError
        raise InputError(
            f"RAY_ADDRESS={address}: no Ray answers there: {str(err).strip().splitlines()[0]}",
            "ray start --head starts one; without RAY_ADDRESS this machine is used",
        ) from err


def _dataset(ray: Any, units: Callable[[], Iterator[Unit]], steps: Sequence[Step]) -> Any:
    """The whole job as Ray Data sees it: one task reads, actors work, each as many as there is room for."""
    from ray.data.block import BlockMetadata
    from ray.data.datasource import Datasource, ReadTask

    here = os.getcwd()

    def blocks() -> Iterator["pa.Table"]:
        os.chdir(here)  # what is given names files as this process does
        return map(_table, units())

    class Units(Datasource):
        def get_name(self) -> str:
            return "Units"

        def estimate_inmemory_data_size(self) -> None:
            return None

        def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[Any]:
            return [ReadTask(blocks, BlockMetadata(None, None, None, None))]

    room = ray.cluster_resources()
    # With no core to itself, reading is a step of its own: Ray would do it in the same process as the first step.
    found = ray.data.read_datasource(Units(), override_num_blocks=1, num_cpus=0)  # type: ignore[no-untyped-call]
    for step in steps:
        gpu = step.model and room.get("GPU", 0) >= 1
        most = int(room["GPU" if gpu else "CPU"])
        found = found.map_batches(
            _Worker,
            fn_constructor_args=(step, here),
            batch_size=None,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=max(most, 1)),
            num_cpus=1,
            num_gpus=1 if gpu else None,
        )
    return found


class _Worker:
    """What Ray starts, and starts again on another machine if it is lost."""

    def __init__(self, step: Step, folder: str) -> None:
        os.chdir(folder)
        self.step = step
        self.work: Work | None = None

    def __call__(self, table: "pa.Table") -> Iterator["pa.Table"]:
        work = self.work = self.work or self.step.setup(self.step.given)  # here an error of ours ends the job at once
        return (_table(work(unit)) for unit in _units(table))


def _table(unit: Unit) -> "pa.Table":
    """A unit as one row of Ray Data."""
    import pyarrow as pa

    kinds = (pa.int64(), pa.large_binary(), pa.large_binary())
    values = (pa.array([value], kind) for value, kind in zip(unit, kinds, strict=True))
    return pa.table(dict(zip(Unit._fields, values, strict=True)))


def _units(table: "pa.Table") -> Iterator[Unit]:
    return (Unit(**row) for row in table.to_pylist())


def _own_error(err: BaseException | None) -> BaseException | None:
    """The error that work raised, inside what Ray makes of it; None if it was Ray's own."""
    import ray

    while err is not None:
        if isinstance(err, GgezError | OSError):
            return err
        inner = err.__cause__ or getattr(err, "cause", None)
        if isinstance(err, ray.exceptions.UserCodeException) or inner is None:
            return None
        err = inner
    return None
