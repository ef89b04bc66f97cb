"""What twins of data sets are made of: rows of a region and of elsewhere, pictures, files."""

import gzip
import io
import json
import re
import tarfile
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from ggez_hub.data.codes import iso3, iso639
from ggez_hub.data.tables import Row, nested
from ggez_hub.errors import InputError
from ggez_hub.rehearsal.words import drawn, name_in, spoken_in
from ggez_hub.runs import whole, write_text
from ggez_hub.schema import Filter, HubSource, Region, Scalar

if TYPE_CHECKING:
    import pyarrow as pa

SIDE = 256  # pixels of a picture, where no rule asks for more
SMALL = 24  # ... of one that is too small
ROOM = 48  # ... by which a picture is larger than a rule asks for
ELSEWHERE = ("JPN", "BRA", "FRA", "KEN", "IND", "MEX", "EGY", "AUS", "DEU", "USA", "NGA", "KOR", "POL", "PER", "FJI")
SEEN = "synthetic"  # said in every twin, wherever its layout has room for it

Selection = Mapping[str, Sequence[Scalar]]  # field: values, as `where` has them
Value = TypeVar("Value")


@dataclass(frozen=True)
class Twin:
    """A data set to be made.

    Attributes:
        source: Whose data.
        region: Whose rows are regional.
        at: The folder of a data set by its Hub id.
        seed: Of words and pictures.
        rows: Of the region, and of elsewhere, about.
        holds: Selections of which there have to be rows: the source's own, those of benchmarks.
        rules: What rows have to pass.
        odd: Whether rows that common rules drop are among them: of corpora, not of questions.
    """

    source: HubSource
    region: Region
    at: Callable[[str], Path]
    seed: int
    rows: int
    holds: tuple[Selection, ...]
    rules: Filter
    odd: bool

    @property
    def name(self) -> str:
        """What the data set is called."""
        return self.source.id or self.source.reader

    @property
    def folder(self) -> Path:
        """Where it goes."""
        return self.at(self.name)

    def wanted(self, field: str) -> list[Scalar]:
        """The values of a field that selections ask for."""
        return list(dict.fromkeys(value for held in self.holds for value in held.get(field, ())))

    def option(self, name: str, default: Scalar = "") -> Scalar:
        """An option of the reader."""
        return self.source.options.get(name, default)

    @property
    def side(self) -> int:
        """Pixels of a picture."""
        return max(SIDE, (self.rules.min_side or 0) + ROOM)

    def picture(self, *key: object, small: bool = False) -> bytes:
        """A picture of this data set as JPEG; no two are alike."""
        return picture(SMALL if small else self.side, self.seed, self.name, *key)

    def broken(self) -> int:
        """How many rows may have a broken picture: fewer than one in twenty, whichever rows are selected."""
        return self.rows // 20 if all(set(held) <= {"media"} for held in self.holds) else 0


class Made(NamedTuple):
    """What a synthetic row is about."""

    number: int
    country: str  # ISO 3166
    inside: bool  # of the region
    language: str  # of the country, ISO 639-3


# ---------------------------------------------------------------------------------------------------------------- about
def about(
    twin: Twin, count: int, held: Collection[str] | None = None, fits: Callable[[str], bool] = lambda country: True
) -> list[Made]:
    """What rows are about: so many of the region, then as many of elsewhere, as far as a layout can hold these.

    Args:
        twin: The data set.
        count: Of each side.
        held: The countries that the real data set has; None = any.
        fits: Further, whether a country can stand in it.
    """
    wanted = {iso3(str(value)) or str(value) for value in twin.wanted("country")}
    known = [country for country in dict.fromkeys((*ELSEWHERE, *sorted({*wanted, *(held or ())}))) if len(country) == 3]
    own = set(twin.region.countries)
    made: list[Made] = []
    for inside, countries in ((True, twin.region.countries), (False, [c for c in known if c not in own])):
        there = [country for country in countries if (held is None or country in held) and fits(country)]
        asked = [country for country in there if country in wanted]
        if asked:  # of elsewhere also others, for selections to drop
            there = asked if inside else [*asked, *(country for country in there if country not in asked)]
        for i, country in enumerate(islice(cycle(spread(there, count)), count if there else 0)):
            spoken = languages_in(country, twin.region)
            made.append(Made(len(made), country, inside, spoken[i // len(there) % len(spoken)]))
    return made


class Shown(NamedTuple):
    """A row with a picture, as filters keep or drop it."""

    name: str
    about: Made
    image: bytes
    odd: str  # why common rules drop it: broken, small, empty (it has no text), twice (the first stands there again)

    @property
    def key(self) -> int:
        """What its text is made of."""
        return self.about.number


def shown(twin: Twin, made: Sequence[Made]) -> list[Shown]:
    """Rows with a picture each, and then odd ones, each about what one of the first is about."""
    rows = [Shown(f"{SEEN}-{one.number}", one, twin.picture(one.number), "") for one in made]
    kinds = (["broken"] * twin.broken() + ["small", "empty", "twice"]) if twin.odd and rows else []
    for i, kind in enumerate(kinds):
        name, first = f"{SEEN}-{kind}-{i}", rows[0 if kind == "twice" else i % len(rows)]
        image = first.image if kind == "twice" else twin.picture(name, small=kind == "small")
        about = first.about if kind == "twice" else first.about._replace(number=len(made) + i)
        rows.append(Shown(name, about, cut(image) if kind == "broken" else image, kind))
    return rows


def spread(values: Sequence[Value], count: int) -> list[Value]:
    """So many of the values, evenly spread, or all where they are fewer."""
    return [values[i * len(values) // count] for i in range(count)] if len(values) > count else list(values)


def languages_in(country: str, region: Region) -> list[str]:
    """Languages of a country: those of the region that many speak there, then official ones."""
    people = _speakers(country)
    regional = sorted((code for code in region.languages if code in people), key=lambda code: -people[code])
    return list(dict.fromkeys((*regional, *spoken_in(country))))


@cache
def _speakers(country: str) -> dict[str, float]:
    """How many people speak each of the languages of a country, those of one in a hundred or more."""
    from ggez_hub.data import gazetteer

    least = 0.01 * gazetteer.inhabitants().get(country, 0)
    found = {iso639(name) or name: there.get(country, 0) for name, there in gazetteer.speakers().items()}
    return {code: people for code, people in found.items() if people > least}


@cache
def spelled(country: str) -> str:
    """What data call a country: in English, without brackets, so that it is known again."""
    import pycountry

    known = pycountry.countries.get(alpha_3=country)
    usual = re.sub(r"\s*\(.*", "", name_in(country, "eng")).replace("’", "'")
    ways = (usual, getattr(known, "common_name", ""), getattr(known, "name", ""))
    return next((name for name in ways if name and "," not in name and iso3(name) == country), country)


# ------------------------------------------------------------------------------------------------------------- pictures
def picture(side: int, *key: object) -> bytes:
    """A picture of random colours and shapes, as JPEG. The same key gives the same bytes."""
    import numpy as np
    from PIL import Image, ImageDraw

    own = np.random.default_rng(drawn("picture", *key).getrandbits(64))
    ground = Image.fromarray(own.integers(0, 256, (6, 6, 3), np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(ground)
    for shape in (pen.ellipse, pen.rectangle, pen.ellipse):
        left, top = own.integers(0, side * 3 // 4, 2)
        width, height = own.integers(side // 8, side // 3, 2)
        box = (int(left), int(top), int(left + width), int(top + height))
        shape(box, fill=tuple(map(int, own.integers(0, 256, 3))))
    held = io.BytesIO()
    ground.save(held, "JPEG", quality=80)
    return held.getvalue()


def cut(data: bytes) -> bytes:
    """A picture that is broken: its file ends too early."""
    return data[: len(data) // 3]


# ---------------------------------------------------------------------------------------------------------------- files
def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file completely or not at all."""
    with whole(path) as temporary:
        temporary.write_bytes(data)


def write_jsonl(path: Path, rows: Iterable[Row]) -> None:
    """Writes rows, one JSON object a line."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def write_parquet(path: Path, rows: Sequence[Row], types: "Mapping[str, pa.DataType] | None" = None) -> None:
    """Writes rows as parquet; texts where nothing else is said and nothing else stands there.

    Raises:
        InputError: There are none.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not rows:
        raise InputError(f"{path}: a twin without rows", "give more rows")
    known = dict(types or {})
    table = pa.table({name: pa.array([row.get(name) for row in rows], known.get(name)) for name in rows[0]})
    for place, field in enumerate(table.schema):
        if pa.types.is_null(field.type):
            table = table.set_column(place, field.name, table.column(place).cast(pa.string()))
    with whole(path) as temporary:
        pq.write_table(table, temporary)


def image_type() -> "pa.DataType":
    """The type of a column of pictures."""
    return nested()["image"]


def write_archive(path: Path, members: Mapping[str, bytes]) -> None:
    """Writes a .tar or .tar.gz whose bytes depend on its members alone."""
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as tar:
        for name, data in members.items():
            told = tarfile.TarInfo(name)
            told.size = len(data)
            tar.addfile(told, io.BytesIO(data))
    plain = held.getvalue()
    write_bytes(path, gzip.compress(plain, mtime=0) if path.name.endswith("gz") else plain)
