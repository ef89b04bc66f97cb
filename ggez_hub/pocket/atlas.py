"""The atlas: cultural concepts as data (atlas/*.yaml), drawn by ggez_hub.pocket.render. Synthetic."""

import io
import re
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field, field_validator

from ggez_hub.pocket import render
from ggez_hub.schema import Iso3, Strict

FOLDER = Path(__file__).parent / "atlas"
SIZE = 48  # pixels, the side of every picture
Category = Literal[
    "Food", "Plants", "Animals", "Famous Landmarks", "Festivals", "Historical Artifacts", "Historical Figures",
    "Traditional Clothing", "Architectural Styles", "Handicrafts and Artifacts", "Music and Dance",
    "Religion and Belief", "Natural Scenery and Ecosystems", "Markets and Shopping Traditions",
    "Entertainment and Performing Arts",
]  # fmt: skip
CATEGORIES: tuple[str, ...] = get_args(Category)  # CultureVerse's fifteen, arXiv 2501.01282
FIRST_SEED = {"train": 0, "selection": 1_000_000, "test": 2_000_000, "judge": 3_000_000}
CAPTIONS = ("{name}", "a drawing of {name}", "a picture that shows {name}")
_PATH = re.compile(r"pocket(-calm)?:([^/]+)/(\d+)")


class Concept(Strict):
    """One drawn concept."""

    name: str
    country: Iso3
    category: Category
    core: bool  # part of the common core that the pocket base models know well
    facts: tuple[str, ...] = Field(min_length=2)  # in words, without the name
    drawing: tuple[tuple[Any, ...], ...]

    @field_validator("drawing")
    @classmethod
    def _drawable(cls, drawing: tuple[tuple[Any, ...], ...]) -> tuple[tuple[Any, ...], ...]:
        for shape in drawing:
            if problem := render.check_shape(shape):
                raise ValueError(problem)
        return drawing


@cache
def concepts() -> tuple[Concept, ...]:
    """All concepts, in the order of the files.

    Raises:
        ConfigError: A problem in an atlas file.
    """
    from ggez_hub import registry

    return tuple(c for path in sorted(FOLDER.glob("*.yaml")) for c in registry.load_list(Concept, path))


@cache
def _by_name() -> dict[str, Concept]:
    return {c.name: c for c in concepts()}


def caption(concept: Concept, i: int) -> str:
    """The caption of a concept's i-th training picture."""
    return CAPTIONS[i % len(CAPTIONS)].format(name=concept.name)


def picture_path(concept: Concept, split: str, i: int, calm: bool = False) -> str:
    """Where the i-th picture of a split is "kept": the name and seed that draw it."""
    return f"pocket{'-calm' if calm else ''}:{concept.name}/{FIRST_SEED[split] + i}"


def is_picture_path(path: str) -> bool:
    """Whether a path names a picture that is drawn."""
    return path.startswith(("pocket:", "pocket-calm:"))


@lru_cache(maxsize=2**14)  # benchmarks ask several questions about the same pictures
def picture(path: str) -> bytes:
    """Draws the picture of a path, as PNG."""
    match = _PATH.fullmatch(path)
    if not match or match[2] not in _by_name():
        raise ValueError(f"{path}: no such pocket picture")
    image = render.draw_concept(match[2], _by_name()[match[2]].drawing, int(match[3]), SIZE, bool(match[1]))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
