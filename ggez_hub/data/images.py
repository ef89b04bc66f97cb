"""Pictures of rows: from a reference {bytes, path} to bytes, and from bytes to pixels."""

import contextlib
import hashlib
import io
import ipaddress
import math
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ggez_hub import hub
from ggez_hub.errors import InputError
from ggez_hub.runs import whole

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

MAX_PIXELS = 64_000_000
MAX_BYTES = 20_000_000  # of a picture that is downloaded
MAX_SECONDS = 60  # that a download takes
MAX_REDIRECTS = 5
NONE = "no picture in the row"


class BrokenImage(InputError):
    """A picture that cannot be had or decoded; the row is skipped and counted."""


def fetch(image: dict[str, Any] | None, root: Path | None = None, download: bool = False) -> bytes:
    """The bytes of a referenced picture.

    Args:
        image: ``{"bytes": ..., "path": ...}``; a path is drawn (pocket), a file below `root`, or an address.
        root: Folder that paths are relative to. A path may not leave it.
        download: Whether a path may be an http(s) address. For data whose addresses are meant to be visited only.

    Raises:
        BrokenImage: Nothing there.
    """
    from ggez_hub.pocket import atlas

    if image and image["bytes"]:
        data: bytes = image["bytes"]
        return data
    path = (image or {}).get("path")
    if not path:
        raise BrokenImage(NONE)
    try:
        if atlas.is_picture_path(path):
            return atlas.picture(path)
        if download and re.match("https?://", path, re.IGNORECASE):
            return _downloaded(path)
        if root is None:
            raise BrokenImage(f"{path}: the picture is not in the file")
        file: Path = root / path
        if not hub.holds(root, file) or not file.is_file():
            raise BrokenImage(f"{path}: no such picture below {root}")
        return file.read_bytes()
    except (OSError, ValueError, RuntimeError) as err:  # unreadable, impossible names, links that lead to themselves
        raise BrokenImage(f"{path}: cannot be read: {err}") from err


def _downloaded(url: str) -> bytes:
    """The picture at an address, which is kept in the user's cache of Hugging Face files."""
    from huggingface_hub import cached_assets_path

    kept = cached_assets_path("ggez_hub", "pictures") / hashlib.sha256(url.encode()).hexdigest()
    if kept.is_file():
        return kept.read_bytes()
    data = _get(url)
    decode(data)  # what is no picture, such as a page of excuses, is not kept
    with whole(kept) as temporary:
        temporary.write_bytes(data)
    return data


def _get(url: str) -> bytes:
    """What is at an http(s) address, with limits on time and size. Raises BrokenImage."""
    from importlib.metadata import version

    import httpx2

    headers = {"User-Agent": f"ggez_hub/{version('ggez_hub')}", "Accept-Encoding": "identity"}
    until = time.monotonic() + MAX_SECONDS
    try:
        target = named = httpx2.URL(url)
        with httpx2.Client(timeout=20, headers=headers) as client:
            for _ in range(MAX_REDIRECTS + 1):
                with client.stream("GET", target) as answer:
                    if answer.has_redirect_location:
                        target = target.join(answer.headers["Location"])
                        web = target.scheme in ("http", "https")
                        if not web or (_is_private(target.host) and not _is_private(named.host)):
                            raise BrokenImage(f"{url}: leads to {str(target)[:200]}, where no picture is taken from")
                        continue
                    if answer.status_code != 200:
                        raise BrokenImage(f"{url}: answered {answer.status_code} {answer.reason_phrase}")
                    data = bytearray()
                    for part in answer.iter_bytes():
                        data += part
                        if len(data) > MAX_BYTES:
                            raise BrokenImage(f"{url}: more than {MAX_BYTES} bytes")
                        if time.monotonic() > until:
                            raise BrokenImage(f"{url}: took more than {MAX_SECONDS} seconds")
                    return bytes(data)
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as err:
        raise BrokenImage(f"{url}: cannot be downloaded: {err or type(err).__name__}") from err
    raise BrokenImage(f"{url}: more than {MAX_REDIRECTS} redirects")


def _is_private(host: str) -> bool:
    """Whether a host is on this machine or network. Raises OSError for one that has no address."""
    found = {ipaddress.ip_address(str(a[4][0]).partition("%")[0]) for a in socket.getaddrinfo(host, None)}
    return not all((getattr(address, "ipv4_mapped", None) or address).is_global for address in found)


def decode(data: bytes) -> "Image":
    """Decodes a picture to RGB.

    Raises:
        BrokenImage: Not a picture, truncated, empty or far too large.
    """
    with _readable(data) as image:
        return _rgb(image)


def glance(data: bytes, side: int = 64, grey: bool = True) -> "tuple[Image, int, int]":
    """Decodes a picture, a JPEG no finer than it takes to see what it looks like; all of its data are read.

    At a half, a quarter or an eighth of its size a JPEG takes a fraction of the time.

    Args:
        data: The encoded picture.
        side: Pixels that both sides of what is decoded have at least, where the picture has as many.
        grey: Whether brightness is enough.

    Returns:
        The picture, L or RGB, and its full width and height as it is seen, turned as its camera was.

    Raises:
        BrokenImage: As for `decode`.
    """
    from PIL import ExifTags

    mode = "L" if grey else "RGB"
    with _readable(data) as image:
        width, height = image.size
        image.draft(mode, (side, side))
        small = _rgb(image, mode)
        if image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8):  # it lies on its side
            width, height = height, width
        return small, width, height


@contextlib.contextmanager
def _readable(data: bytes) -> "Iterator[Image]":
    """An encoded picture, opened. Whatever goes wrong with it is a BrokenImage."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.format == "EPS":  # a program: Pillow would have Ghostscript run it
                raise BrokenImage("cannot be decoded: PostScript is no picture")
            if image.width * image.height > MAX_PIXELS:
                raise BrokenImage(f"{image.width} x {image.height} pixels are more than {MAX_PIXELS}")
            yield image
    except UnidentifiedImageError as err:
        raise BrokenImage("cannot be decoded: not a picture of a known kind") from err
    except BrokenImage:
        raise
    except Exception as err:  # on damaged files Pillow's plugins raise anything: IndexError, RuntimeError, struct.error
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


def _rgb(image: "Image", mode: str = "RGB") -> "Image":
    """A picture as it is seen, in RGB or another mode of 8 bits."""
    from PIL import ImageOps

    if 0 in image.size:
        raise BrokenImage(f"{image.width} x {image.height} pixels: nothing to see")
    if image.mode.startswith("I;16"):  # Pillow would clip 16 bits at 255, which leaves white
        image = image.convert("I").point(lambda value: value / 256)
    return ImageOps.exif_transpose(image).convert(mode)


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
