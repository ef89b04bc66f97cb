"""Filtering five million rows by country, against `datasets.filter` with a Python function.

python tests/speed/filter.py       about five minutes; half a gigabyte in a temporary folder
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
import numpy as np

from ggez_hub.data import filter_region, gazetteer, regions
from ggez_hub.registry import load_region

ROWS = 5_000_000
REPEATS = 3
FEW = 50_000  # rows of text
INSIDE = ("Indonesia", "IDN", "Viet Nam", "Lao PDR")  # one row in ten
OUTSIDE = ("United States", "USA", "France", "Germany", "JP", "China", "Brazil", "Atlantis", "Nigeria") * 4
PLACES = ("Bangkok", "Paris", "Hanoi", "a market", "the kitchen", "Texas", "the beach", "Java", "a bus", "Rome")


def write(folder: Path, rows: int, file: str) -> Path:
    """A parquet file of synthetic rows, written piece by piece."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = ("id", "text", "country", "language", "source", "license")
    schema = pa.schema([(name, pa.string()) for name in texts] + [("reward", pa.float32())])
    with pq.ParquetWriter(folder / file, schema) as writer:
        for start in range(0, rows, 250_000):
            count, random = min(250_000, rows - start), np.random.default_rng(start)
            countries = pa.array(INSIDE + OUTSIDE).take(pa.array(random.integers(0, 40, count)))
            languages = pa.array(["en", "id", "fr"]).take(pa.array(random.integers(0, 3, count)))
            ids = [f"row-{start + i}" for i in range(count)]
            told = [f"A plate of rice and a cup of tea in {PLACES[i % 10]}, number {i}" for i in range(count)]
            rest = [["a corpus"] * count, ["cc-by-4.0"] * count, random.random(count, np.float32)]
            writer.write_table(pa.table([ids, told, countries, languages, *rest], schema=schema))
    return folder / file


def count(file: Path, **arguments: Any) -> int:
    return sum(batch.num_rows for batch in filter_region(file, "sea", **arguments))


def peak(file: Path) -> float:
    """The peak memory of a process of its own that filters a file, above what it holds before, in MB."""
    code = (
        "import json, sys, common; from pathlib import Path; import filter as f; import pyarrow.parquet\n"
        "f.count(Path(sys.argv[2]), evidence=('country',))\n"  # libraries, tables of countries
        "with common.memory() as peak: f.count(Path(sys.argv[1]), evidence=('country',))\n"
        "print(json.dumps(peak['anonymous']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, file, file.parent / "small.parquet"],
        cwd=Path(__file__).parent, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return float(json.loads(done.stdout))


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["HF_DATASETS_CACHE"] = str(folder / "cache")
        import datasets

        datasets.disable_progress_bars()
        file, fifth = write(folder, ROWS, "rows.parquet"), write(folder, ROWS // 5, "fifth.parquet")
        few = write(folder, FEW, "small.parquet")
        rule = regions.in_region(load_region("sea"), ("country",))

        def loaded() -> Any:
            cache = str(folder / f"cache{time.monotonic_ns()}")
            return datasets.load_dataset("parquet", data_files=str(file), split="train", cache_dir=cache)

        def filtered(table: Any) -> Any:
            return table.filter(lambda row: row["country"] in INSIDE, load_from_cache_file=False)

        def from_file() -> int:
            return sum(part.num_rows for part in filtered(loaded()).with_format("arrow").iter(regions.ROWS))

        table = loaded()

        def decided() -> int:
            read = table.data.table.select(["country"]).combine_chunks()
            return sum(rule(part).kept.true_count for part in read.to_batches(regions.ROWS))

        ways: dict[str, Callable[[], int]] = {
            "rule": decided,
            "filter": lambda: len(filtered(table)),
            "file": lambda: count(file, evidence=("country",)),
            "their file": from_file,
        }
        took: dict[str, list[float]] = {way: [] for way in ways}
        kept = set()
        for _ in range(REPEATS):
            for way, call in ways.items():
                start = time.perf_counter()
                kept.add(call())
                took[way].append(time.perf_counter() - start)
        assert len(kept) == 1
        gazetteer.gazetteer()
        text = common.paired({"text": lambda: count(few, evidence=("text",))})["text"]
        memory = {rows: peak(path) for rows, path in ((ROWS // 5, fifth), (ROWS, file))}

    def compared(measure: str, ours: str, theirs: str) -> dict[str, str]:
        ratios = sorted(their / our for our, their in zip(took[ours], took[theirs], strict=True))
        middle = [statistics.median(took[way]) for way in (ours, theirs)]
        return {
            "measure": measure,
            "goal": "20x",
            "value": f"{statistics.median(ratios):.0f}x ({ratios[0]:.0f}x to {ratios[-1]:.0f}x)",
            "note": f"{middle[0]:.2f} s against {middle[1]:.0f} s",
        }

    common.report(
        "filter",
        [
            compared(
                f"{ROWS:,} rows by country, read already: times as fast as `datasets.filter` with a Python function",
                "rule", "filter",
            ),
            compared(
                "the same from a parquet file to the rows kept: times as fast as `load_dataset`, `filter`, iterating",
                "file", "their file",
            ),
            {
                "measure": f"the same, peak memory above the start, with {ROWS // 5:,} and with {ROWS:,} rows",
                "goal": "flat",
                "value": " and ".join(f"{megabytes:.0f} MB" for megabytes in memory.values()),
                "note": "of processes of their own",
            },
            {
                "measure": f"{FEW:,} rows by the place names in their text",
                "goal": "",
                "value": f"{text['median']:.2f} s ({text['min']:.2f} to {text['max']:.2f})",
                "note": f"{len(gazetteer.names()):,} names",
            },
        ],
    )  # fmt: skip


if __name__ == "__main__":
    main()
