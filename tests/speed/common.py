"""What the speed scripts share: paired timing, memory of this process, and where results are kept.

These are scripts, not tests: they take minutes, want a quiet machine, and assert nothing. Each prints its figures and
keeps them in results.json beside it; `python tests/speed/table.py` writes the last ones into docs/speed.md.
"""

import json
import os
import platform
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results.json"
REPEATS = 5
MB = 1e6


def paired(
    ways: dict[str, Callable[[], object]], repeats: int = REPEATS, inner: int = 1
) -> dict[str, dict[str, float]]:
    """Times several ways of doing one thing in turn, after one warm-up each.

    Args:
        ways: Name: call.
        repeats: Rounds; every round times every way once, so that a busy moment hits all of them.
        inner: Calls per timing.

    Returns:
        Per way the median, smallest and largest seconds of a call, and the median of its CPU seconds.
    """
    for call in ways.values():
        call()
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, call in ways.items():
            wall, cpu = time.perf_counter(), time.process_time()
            for _ in range(inner):
                call()
            taken[name].append(((time.perf_counter() - wall) / inner, (time.process_time() - cpu) / inner))
    return {
        name: {
            "median": statistics.median(wall for wall, _ in times),
            "min": min(wall for wall, _ in times),
            "max": max(wall for wall, _ in times),
            "cpu": statistics.median(cpu for _, cpu in times),
        }
        for name, times in taken.items()
    }


@contextmanager
def memory() -> Iterator[dict[str, float]]:
    """Peak memory of this process above where it stood, in MB: `anonymous`, and `mapped` (files and shared memory)."""
    peak = {"anonymous": 0.0, "mapped": 0.0}
    before, done = _resident(), threading.Event()

    def watch() -> None:
        while not done.is_set():
            now = _resident()
            for key in peak:
                peak[key] = max(peak[key], now[key] - before[key])
            done.wait(0.005)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()


def _resident() -> dict[str, float]:
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("Rss"))
    kilobytes = {line[0]: int(line[1]) for line in lines}
    mapped = kilobytes["RssFile:"] + kilobytes["RssShmem:"]
    return {"anonymous": kilobytes["RssAnon:"] * 1024 / MB, "mapped": mapped * 1024 / MB}


def report(script: str, rows: list[dict[str, Any]]) -> None:
    """Prints rows of a script (`measure`, `value`, `goal`, `note`) and keeps them as its last results.

    Args:
        script: Its name.
        rows: One per measure; texts as they stand in the table.
    """
    for row in rows:
        print(f"{row['measure']}: {row['value']}   (goal: {row['goal'] or 'none'})  {row.get('note', '')}")
    kept = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    kept[script] = {"date": time.strftime("%Y-%m-%d"), "machine": machine(), "rows": rows}
    RESULTS.write_text(json.dumps(kept, indent=1, ensure_ascii=False, sort_keys=True) + "\n")


def machine() -> str:
    """What it ran on, and how busy that was."""
    import torch

    model = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), platform.processor())  # fmt: skip
    return (
        f"{os.cpu_count()} cores of {model}, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}, "
        f"Python {sys.version.split()[0]}, torch {torch.__version__.split('+')[0]}"
    )
