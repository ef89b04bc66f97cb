"""Pictures of rows: from a reference {bytes, path} to bytes, and from bytes to pixels."""

import io
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ggez_hub.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

MAX_PIXELS = 64_000_000


class BrokenImage(InputError):
    """A picture that cannot be had or decoded; the row is skipped and counted."""


def fetch(image: dict[str, Any] | None, root: Path | None = None) -> bytes:
    """The bytes of a referenced picture.

    Args:
        image: ``{"bytes": ..., "path": ...}``; a path is drawn (pocket), or a file below `root`.
        root: Folder that paths are relative to. A path may not leave it.

    Raises:
        BrokenImage: Nothing there.
    """
    from ggez_hub.pocket import atlas

    if image and image["bytes"]:
        data: bytes = image["bytes"]
        return data
    path = (image or {}).get("path")
    if not path:
        raise BrokenImage("no picture in the row")
    try:
        if atlas.is_picture_path(path):
            return atlas.picture(path)
        if root is None:
            raise BrokenImage(f"{path}: the picture is not in the file")
        file: Path = (root / path).resolve()
        if not file.is_relative_to(root.resolve()) or not file.is_file():
            raise BrokenImage(f"{path}: no such picture below {root}")
        return file.read_bytes()
    except (OSError, ValueError, RuntimeError) as err:  # unreadable, impossible names, links that lead to themselves
        raise BrokenImage(f"{path}: cannot be read: {err}") from err


def decode(data: bytes) -> "Image":
    """Decodes a picture to RGB.

    Raises:
        BrokenImage: Not a picture, truncated, empty or far too large.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.format == "EPS":  # a program: Pillow would have Ghostscript run it
                raise BrokenImage("cannot be decoded: PostScript is no picture")
            if image.width * image.height > MAX_PIXELS:
                raise BrokenImage(f"{image.width} x {image.height} pixels are more than {MAX_PIXELS}")
            return _rgb(image)
    except UnidentifiedImageError as err:
        raise BrokenImage("cannot be decoded: not a picture of a known kind") from err
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as err:
        raise BrokenImage(f"cannot be decoded: {err}") from err


def opened(image: "str | Path | bytes | Image") -> "Image":
    """A picture in RGB, from a path, encoded bytes, or a PIL image. Raises BrokenImage."""
    if isinstance(image, bytes):
        return decode(image)
    if isinstance(image, str | Path):
        try:
            return decode(Path(image).read_bytes())
        except OSError as err:
            raise BrokenImage(f"{image}: cannot be read: {err.strerror or err}") from err
    return _rgb(image)


def _rgb(image: "Image") -> "Image":
    from PIL import ImageOps

    if 0 in image.size:
        raise BrokenImage(f"{image.width} x {image.height} pixels: nothing to see")
    if image.mode.startswith("I;16"):  # Pillow would clip 16 bits at 255, which leaves white
        image = image.convert("I").point(lambda value: value / 256)
    return ImageOps.exif_transpose(image).convert("RGB")


def jitter(image: "Image", rng: "np.random.Generator") -> "Image":
    """A small random affine change: turn up to 17 degrees, scale and shear up to 20%, shift up to 10%."""
    from PIL import Image

    angle, shear = math.radians(rng.uniform(-17, 17)), rng.uniform(-0.2, 0.2)
    scale = rng.uniform(0.8, 1.2, 2)
    shift = rng.uniform(-0.1, 0.1, 2) * image.size
    cos, sin = math.cos(angle), math.sin(angle)
    a, b, d, e = cos / scale[0], (sin + shear) / scale[0], -sin / scale[1], (cos + shear * sin) / scale[1]
    cx, cy = image.width / 2, image.height / 2
    matrix = (
        a,
        b,
        cx - a * (cx + shift[0]) - b * (cy + shift[1]),
        d,
        e,
        cy - d * (cx + shift[0]) - e * (cy + shift[1]),
    )
    corner = image.getpixel((0, 0))
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=corner)
