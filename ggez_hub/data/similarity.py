"""What an embedding model says of pictures: which part of the world they are like, and which are like each other."""

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Protocol

from ggez_hub.data.filters import Outcome, Rule
from ggez_hub.data.images import BrokenImage
from ggez_hub.errors import InputError
from ggez_hub.schema import Region

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

COLUMN = "_embedding"  # of a picture: list<float>, a unit vector
NO_PICTURE = "no picture that the model can read"
BATCH = 256  # pictures that are embedded together
PROMPTS = (  # of a country: what pictures of it are like. Their mean stands for it
    "a photo taken in {country}",
    "a street in {country}",
    "{demonym} food",
    "{demonym} traditional clothing",
    "{demonym} architecture",
)
NOWHERE = (  # what is of no country at all
    "a studio photo of a product on a white background",
    "a chart with numbers",
    "a screenshot of an app",
    "a page of text",
    "a logo",
    "a blurred picture in which nothing can be seen",
    "a close-up of an everyday object",
    "a computer rendering",
)


class Embedder(Protocol):
    """A model that puts pictures and texts into one space; ``ggez_hub.families.embedder`` loads one."""

    def pictures(self, pictures: Sequence[bytes]) -> "np.ndarray":
        """Unit vectors of encoded pictures, float32 [pictures, dim]. Raises BrokenImage."""

    def texts(self, texts: Sequence[str]) -> "np.ndarray":
        """Unit vectors of texts, float32 [texts, dim]."""


def by_image(embed: Embedder, region: Region, least: float) -> Rule:
    """Keeps rows whose picture is like the region rather than anything else.

    Its score is the cosine of the picture to the nearest country of the region, less that to the nearest of all other
    countries and of what is of no country: above 0 the region is nearest of all. Fills `_embedding`, where that is not
    there already. Rows without a picture that can be decoded are dropped.

    Args:
        embed: The embedding model.
        region: The region.
        least: The score of a row that is kept.
    """
    import numpy as np

    known = _prompts()
    codes = [code for code in known if code in region.countries]
    if not codes:
        raise InputError(f"region {region.title}: none of {', '.join(region.countries)} is a country with a name")
    named = [known[code] for code in [*codes, *(code for code in known if code not in region.countries)]]
    anchors = embed.texts([text for _, prompts in named for text in prompts]).reshape(len(named), len(PROMPTS), -1)
    anchors = anchors.mean(axis=1)  # [countries, dim]
    anchors /= np.linalg.norm(anchors, axis=1, keepdims=True)
    anchors = np.concatenate([anchors, embed.texts(NOWHERE)])
    names = [*(name for name, _ in named), *NOWHERE]

    def rule(batch: "pa.RecordBatch") -> Outcome:
        import pyarrow as pa

        batch = _filled(embed, batch)
        found = vectors(batch.column(COLUMN), anchors.shape[1]) @ anchors.T  # [rows, anchors]
        scores = found[:, : len(codes)].max(axis=1) - found[:, len(codes) :].max(axis=1)  # NaN without a picture
        kept = scores >= least
        why = [
            f"like {names[place]}: {score:+.3f} {'>=' if good else '<'} {least:g}" if score == score else NO_PICTURE
            for score, place, good in zip(scores.tolist(), found.argmax(axis=1), kept, strict=True)
        ]
        return Outcome(batch, pa.array(kept), pa.array(why, pa.string()))

    return rule


def embedded(embed: Embedder) -> Rule:
    """Keeps every row and fills `_embedding`, where that is not there already; null where there is no picture."""

    def rule(batch: "pa.RecordBatch") -> Outcome:
        import pyarrow as pa

        return Outcome(_filled(embed, batch), pa.repeat(True, batch.num_rows), pa.nulls(batch.num_rows, pa.string()))

    return rule


def vectors(column: "pa.Array | pa.ChunkedArray", dim: int | None = None) -> "np.ndarray":
    """The column `_embedding` as float32 [rows, dim], with NaN in the rows where it is null.

    Args:
        column: It.
        dim: Numbers of a vector; None = as many as there are in the first.
    """
    import numpy as np
    import pyarrow.compute as pc

    there = np.asarray(column.is_valid())
    flat = pc.list_flatten(column).to_numpy(zero_copy_only=False)
    dim = dim or len(flat) // max(1, int(there.sum()))
    found = np.full((len(column), dim), np.nan, np.float32)
    found[there] = flat.reshape(-1, dim) if len(flat) else np.nan
    return found


def _filled(embed: Embedder, batch: "pa.RecordBatch") -> "pa.RecordBatch":
    """The batch with the embeddings that it lacks."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    place, kind = batch.schema.get_field_index(COLUMN), pa.list_(pa.float32())
    there = batch.column(place) if place >= 0 else pa.nulls(batch.num_rows, kind)
    images = pc.struct_field(batch.column("image"), "bytes")
    lacking = pc.and_(there.is_null(), pc.fill_null(pc.greater(pc.binary_length(images), 0), False))
    wanted, found = images.filter(lacking), list[np.ndarray | None]()
    for start in range(0, len(wanted), BATCH):
        found += embedded_pictures(embed, wanted.slice(start, BATCH).to_pylist())
    rows = np.arange(batch.num_rows)
    rows[np.asarray(lacking)] = batch.num_rows + np.arange(len(found))
    column = pa.concat_arrays([there.cast(kind), pa.array(found, kind)]).take(pa.array(rows))
    return batch.set_column(place, COLUMN, column) if place >= 0 else batch.append_column(COLUMN, column)


def embedded_pictures(embed: Embedder, pictures: Sequence[bytes]) -> "list[np.ndarray | None]":
    """The vector of each picture; None for one that cannot be decoded, or of which the model makes no numbers."""
    import numpy as np

    try:
        return [vector if np.isfinite(vector).all() else None for vector in embed.pictures(pictures)]
    except BrokenImage:
        half = len(pictures) // 2
        parts = (pictures[:half], pictures[half:])
        return [vector for part in parts for vector in embedded_pictures(embed, part)] if half else [None]


@cache
def _prompts() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Of each country, by its ISO3 code, the name and what its pictures are like."""
    import pycountry
    from babel import Locale
    from countryinfo import CountryInfo

    names, found = Locale("en").territories, {}
    for country in pycountry.countries:
        name = names[country.alpha_2].partition(" (")[0].partition(" SAR ")[0]  # Myanmar (Burma), Hong Kong SAR China
        demonym = CountryInfo(country.alpha_3).demonym() or name
        found[country.alpha_3] = (name, tuple(text.format(country=name, demonym=demonym) for text in PROMPTS))
    return found
