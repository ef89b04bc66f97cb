"""Draws pocket concepts, with nuisance that a model has to see through.

A drawing is a list of shapes on a 100 x 100 canvas (y points down), later shapes on top:

    [ellipse, colour, cx, cy, rx, ry]
    [rect,    colour, x0, y0, x1, y1]
    [polygon, colour, x1, y1, x2, y2, x3, y3, ...]
    [pie,     colour, cx, cy, rx, ry, start, end]            degrees, clockwise from 3 o'clock
    [line,    colour, width, x1, y1, x2, y2, ...]
    [arc,     colour, width, cx, cy, rx, ry, start, end]     degrees, clockwise from 3 o'clock

Colours are CSS names or "#rrggbb".
"""

import colorsys
import math
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageColor, ImageDraw

SUPERSAMPLE = 3
LIMIT = 1000  # of coordinates and degrees; a slip of the hand must not fill the memory
CALM_GROUND = (236, 232, 224)
COUNTS = {"ellipse": (4,), "rect": (4,), "pie": (6,), "arc": (7,)}  # numbers after the colour; the others take any


def check_shape(shape: Sequence[Any]) -> str | None:
    """Returns what is wrong with one shape of a drawing, or None."""
    if len(shape) < 2 or shape[0] not in (*COUNTS, "polygon", "line"):
        return f"expected [ellipse|rect|polygon|pie|line|arc, colour, numbers...], got {list(shape)}"
    kind, colour, *numbers = shape
    try:
        ImageColor.getrgb(colour)
    except (ValueError, AttributeError, TypeError):
        return f"{colour!r} is not a colour (a CSS name or '#rrggbb')"
    if not all(isinstance(n, int | float) and abs(n) <= LIMIT for n in numbers):
        return f"{kind}: everything after the colour is a number from -{LIMIT} to {LIMIT}"
    if kind in COUNTS and len(numbers) not in COUNTS[kind]:
        return f"{kind}: expected {COUNTS[kind][0]} numbers after the colour, got {len(numbers)}"
    if kind == "polygon" and (len(numbers) < 6 or len(numbers) % 2):
        return "polygon: expected at least three x, y pairs after the colour"
    if kind == "line" and (len(numbers) < 5 or not len(numbers) % 2):
        return "line: expected a width and at least two x, y pairs after the colour"
    return None


def _curve(cx: float, cy: float, rx: float, ry: float, start: float, end: float) -> np.ndarray:
    angles = np.radians(np.linspace(start, end, max(8, int(abs(end - start) / 9))))
    return np.stack([cx + rx * np.cos(angles), cy + ry * np.sin(angles)], axis=1)


def _outline(shape: Sequence[Any]) -> tuple[np.ndarray, float]:
    """Points [n, 2] of one shape and its line width (0 = filled)."""
    kind, _, *rest = shape
    n: list[Any] = list(rest)
    if kind == "ellipse":
        return _curve(n[0], n[1], n[2], n[3], 0, 360), 0.0
    if kind == "rect":
        return np.array([(n[0], n[1]), (n[2], n[1]), (n[2], n[3]), (n[0], n[3])], float), 0.0
    if kind == "pie":
        return np.vstack([[(n[0], n[1])], _curve(*n)]), 0.0
    if kind == "arc":
        return _curve(*n[1:]), float(n[0])
    if kind == "line":
        return np.array(n[1:], float).reshape(-1, 2), float(n[0])
    return np.array(n, float).reshape(-1, 2), 0.0


def _paint(draw: ImageDraw.ImageDraw, points: np.ndarray, width: float, colour: tuple[int, int, int]) -> None:
    flat = [(float(x), float(y)) for x, y in points]
    if width:
        draw.line(flat, fill=colour, width=max(1, round(width)), joint="curve")
    else:
        draw.polygon(flat, fill=colour)


def draw_plain(drawing: Sequence[Sequence[Any]], size: int = 96) -> Image.Image:
    """Draws a concept centred on white, without nuisance: what a person sees on the contact sheet.

    Returns:
        An RGB image of size x size pixels.
    """
    side = size * SUPERSAMPLE
    image = Image.new("RGB", (side, side), "white")
    draw = ImageDraw.Draw(image)
    for shape in drawing:
        points, width = _outline(shape)
        _paint(draw, points * side / 100, width * side / 100, ImageColor.getrgb(shape[1])[:3])
    return image.reduce(SUPERSAMPLE)


def _shift_colour(colour: str, hue: float, saturation: float, value: float) -> tuple[int, int, int]:
    h, s, v = colorsys.rgb_to_hsv(*(c / 255 for c in ImageColor.getrgb(colour)[:3]))
    r, g, b = colorsys.hsv_to_rgb((h + hue) % 1, min(1, s * saturation), min(1, v * value))
    return round(r * 255), round(g * 255), round(b * 255)


def _random_colour(rng: np.random.Generator) -> tuple[int, int, int]:
    r, g, b = (int(c) for c in rng.integers(30, 256, 3))
    return r, g, b


def _background(rng: np.random.Generator, side: int) -> Image.Image:
    ends = Image.new("RGB", (2, 1))
    ends.putdata([_random_colour(rng), _random_colour(rng)])
    if rng.random() < 0.5:
        ends = ends.transpose(Image.Transpose.ROTATE_90)
    return ends.resize((side, side), Image.Resampling.BILINEAR)


def _distractor(draw: ImageDraw.ImageDraw, rng: np.random.Generator, side: int) -> None:
    centre, radius = rng.uniform(0, side, 2), rng.uniform(0.03, 0.09) * side
    corners = int(rng.choice([3, 4, 24]))
    angles = np.linspace(0, 2 * math.pi, corners, endpoint=False) + rng.uniform(0, math.pi)
    points = centre + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    _paint(draw, points, 0, _random_colour(rng))


def draw_concept(
    name: str, drawing: Sequence[Sequence[Any]], seed: int, size: int = 48, calm: bool = False
) -> Image.Image:
    """Draws a concept with nuisance: position, scale, angle, hue, background, distractors and noise.

    Args:
        name: The concept's name; two concepts never share their random numbers.
        drawing: Its shapes (see the module's head).
        seed: The same name and seed give the same picture.
        size: Side of the picture in pixels.
        calm: Large, nearly upright, on a light ground with nothing else: what a small model can learn to draw.

    Returns:
        An RGB image of size x size pixels.
    """
    rng = np.random.default_rng([zlib.crc32(name.encode()), seed])
    side = size * SUPERSAMPLE
    image = Image.new("RGB", (side, side), CALM_GROUND) if calm else _background(rng, side)
    draw = ImageDraw.Draw(image)
    for _ in range(0 if calm else rng.integers(1, 5)):
        _distractor(draw, rng, side)
    scale, angle = rng.uniform(0.85 if calm else 0.6, 0.95), math.radians(rng.uniform(-14, 14) * (0.4 if calm else 1))
    shift = rng.uniform(-1, 1, 2) * (0.5 - scale / 2 + (0 if calm else 0.05)) * side
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    tint = rng.uniform(-0.04, 0.04), rng.uniform(0.7, 1.2), rng.uniform(0.75, 1.15)
    for shape in drawing:
        points, width = _outline(shape)
        points = (points - 50) @ turn * scale * side / 100 + side / 2 + shift
        _paint(draw, points, width * scale * side / 100, _shift_colour(shape[1], *tint))
    image = image.reduce(SUPERSAMPLE)
    if calm:
        return image
    pixels = np.asarray(image, np.float32)
    pixels = pixels + rng.standard_normal(pixels.shape, np.float32) * rng.uniform(4, 14)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
