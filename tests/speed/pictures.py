"""Decoding and hashing pictures: the filter's rule against a plain loop of Pillow and imagehash, on one core.

python tests/speed/pictures.py       made-up pictures; about a minute
"""

import io
import os
from functools import partial

import common
import imagehash
import numpy as np
import pyarrow as pa
from PIL import Image

from ggez_hub.data import filters, readers

COUNT = 32
KINDS = {  # how corpora hold pictures: format, size
    "JPEG, 1600 x 1200": ("JPEG", 1600, 1200),
    "JPEG, 640 x 480": ("JPEG", 640, 480),
    "PNG, 640 x 480": ("PNG", 640, 480),
    "WebP, 640 x 480": ("WEBP", 640, 480),
}
GOAL = "more than 1"


def photo(kind: str, width: int, height: int, seed: int) -> bytes:
    """Something with large and small structure, as a photograph has."""
    rng = np.random.default_rng(seed)
    pixels = np.zeros((height, width, 3))
    for cells in (6, 24, 96, 384):
        noise = Image.fromarray(rng.integers(0, 256, (cells * height // width, cells, 3), np.uint8))
        pixels += np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC)) * (4 / cells) ** 0.5
    buffer = io.BytesIO()
    scaled = (pixels - pixels.min()) / (pixels.max() - pixels.min()) * 255
    Image.fromarray(scaled.astype(np.uint8)).save(buffer, kind, quality=85)
    return buffer.getvalue()


def plain(pictures: list[bytes]) -> list[tuple[int, int, str]]:
    """What anybody would write."""
    found = []
    for data in pictures:
        image = Image.open(io.BytesIO(data)).convert("RGB")
        found.append((*image.size, str(imagehash.phash(image))))
    return found


def main() -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    rule, rows = filters.pictures(None), []
    for name, of in KINDS.items():
        pictures = [photo(*of, seed) for seed in range(COUNT)]
        images = [{"image": {"bytes": data, "path": None}} for data in pictures]
        batch = pa.RecordBatch.from_pylist(images, readers.row_schema())
        hashes = rule(batch).batch["_hash"].to_pylist()
        apart = [
            (int(theirs, 16) ^ ours).bit_count() for (*_, theirs), ours in zip(plain(pictures), hashes, strict=True)
        ]
        time = common.paired({"ours": partial(rule, batch), "plain": partial(plain, pictures)})
        ours, theirs = time["ours"]["median"] / COUNT * 1000, time["plain"]["median"] / COUNT * 1000
        size = sum(map(len, pictures)) / COUNT / 1000
        rows.append(
            {
                "measure": f"pictures decoded, checked and hashed against a plain loop: {name}, {size:.0f} kB",
                "goal": GOAL,
                "value": f"{theirs / ours:.1f}x as fast",
                "note": f"{ours:.1f} ms a picture against {theirs:.1f} ms; hashes differ in {max(apart)} bits at most",
            }
        )
    common.report("pictures", rows)


if __name__ == "__main__":
    main()
