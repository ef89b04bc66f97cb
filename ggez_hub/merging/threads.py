"""Work in small pieces, a few at a time."""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

MOST = 8


def in_threads(pieces: Iterator[Callable[[], int]], done: Callable[[int], object]) -> None:
    """Runs all pieces, each on one thread, and stops at the first error.

    Args:
        pieces: Calls that return how much they did.
        done: Told so, by one thread at a time.
    """
    import torch

    lock, stop = threading.Lock(), threading.Event()

    def work() -> None:
        torch.set_num_threads(1)  # of this thread: pieces are too small to share
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

    before = torch.get_num_threads()
    workers = min(MOST, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:
        try:
            for future in [pool.submit(work) for _ in range(workers)]:
                future.result()
        finally:
            stop.set()
            torch.set_num_threads(before)  # what threads that start later get
