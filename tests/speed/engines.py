"""The filter on one worker against two: pictures decoded, hashed and looked for in benchmarks; captions alone.

python tests/speed/engines.py     about two minutes; two cores, and nothing else to do
"""

import io
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import common
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from ggez_hub.data import engines
from ggez_hub.data.engines import Step
from ggez_hub.data.parts import unpacked
from ggez_hub.recipes import load_recipe
from ggez_hub.registry import load_region, parse_overrides
from ggez_hub.stages import filter as stage

PHOTOS, CAPTIONS = 10_000, 400_000
REPEATS = 1


def photo(seed: int) -> bytes:
    """A JPEG of 640 x 480 with something at every scale, about 90 kB."""
    rng = np.random.default_rng(seed)
    layers = (rng.integers(0, 255, (size * 3 // 4, size, 3), np.uint8) for size in (8, 40, 200, 640))
    scaled = (np.asarray(Image.fromarray(layer).resize((640, 480)), np.float32) for layer in layers)
    weights = (0.5, 0.25, 0.15, 0.1)
    mixed = sum(weight * layer for weight, layer in zip(weights, scaled, strict=True))
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(mixed).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def corpus(path: Path, rows: int, pictures: list[bytes]) -> Path:
    """A parquet file whose rows show one of the pictures each, which lie beside it."""
    for i, data in enumerate(pictures):
        (path.parent / f"{i}.jpg").write_bytes(data)
    image = pa.array([{"bytes": None, "path": f"{i % len(pictures)}.jpg"} for i in range(rows)])
    text = pa.array([f"a market in the rain, with {i} baskets of fruit and a cook" for i in range(rows)])
    country = pa.array(["Thailand", "France", "Indonesia", "Viet Nam"] * (rows // 4))
    pq.write_table(pa.table({"image": image, "text": text, "country": country}), path)
    return path


def filtered(path: Path, workers: int, *overrides: str) -> int:
    """The first and largest part of the stage, on so many workers; returns how many rows are kept."""
    given = [f"data={{reader: parquet, path: {path}}}", "filter.contamination=keep", *overrides]
    recipe = load_recipe("pocket-sea-embedding", parse_overrides(given))
    step = Step(stage._examiner, stage._given(recipe, load_region("sea"), path.parent))
    units = partial(stage._units, recipe, stage.UNIT_ROWS, done=frozenset())
    done = engines.run("processes", units, [step], workers)
    return sum(batch.num_rows for unit in done for batch in unpacked(unit.rows))


def main() -> None:
    engines.PATIENCE = 0  # or the first seconds are one worker's in both
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        jobs = {
            f"{PHOTOS:,} photos of 640 x 480, decoded and hashed": (
                corpus(Path(scratch) / "photos.parquet", PHOTOS, [photo(seed) for seed in range(40)]),
                ("filter.region=false", "filter.min_side=64"),
            ),
            f"{CAPTIONS:,} captions, by country": (
                corpus(Path(scratch) / "captions.parquet", CAPTIONS, [photo(0)]),
                ("filter.min_text=100",),
            ),
        }
        for name, (path, overrides) in jobs.items():
            kept = {workers: filtered(path, workers, *overrides) for workers in (1, 2)}
            ways = {str(workers): partial(filtered, path, workers, *overrides) for workers in (1, 2)}
            times = common.paired(ways, REPEATS)
            rows.append(
                {
                    "measure": f"the filter on two workers against one: {name}",
                    "goal": "as near 2x as the machine allows" if "photos" in name else "",
                    "value": f"{times['1']['median'] / times['2']['median']:.2f}x as fast",
                    "note": f"{times['1']['median']:.1f} s and {times['2']['median']:.1f} s, starting the workers "
                    f"included; the same {kept[1]:,} rows kept: {kept[1] == kept[2]}",
                }
            )
    common.report("engines", rows)


if __name__ == "__main__":
    begun = time.monotonic()
    main()
    print(f"{time.monotonic() - begun:.0f} s")
