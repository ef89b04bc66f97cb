"""Work in small pieces, a few at a time."""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

MOST = 8
STARTING = threading.Lock()


def in_threads(pieces: Iterator[Callable[[], int]], done: Callable[[int], object]) -> None:
    """Runs all pieces, each on one thread, and stops at the first error.

    Args:
        pieces: Calls that return how much they did.
        done: Told so, by one thread at a time.
    """
    import torch

    lock, stop = threading.Lock(), threading.Event()

    def work() -> None:
        torch.set_num_threads(1)  # pieces are too small to share
        ready.wait()
        try:
            while not stop.is_set():
                with lock:
                    piece = next(pieces, None)
                if piece is None:
                    return
                count = piece()
                with lock:
                    done(count)
        except BaseException:
            stop.set()
            raise

    workers = min(MOST, os.cpu_count() or 1)
    ready = threading.Barrier(workers + 1)
    with ThreadPoolExecutor(workers) as pool:
        with STARTING:
            before = torch.get_num_threads()
            futures = [pool.submit(work) for _ in range(workers)]
            ready.wait()
            torch.set_num_threads(before)  # else threads of others that start later would have one, too
        try:
            for future in futures:
                future.result()
        finally:
            stop.set()
