"""Training rows that stand in a benchmark as well: the same picture, the same text, or nearly so.

A picture is a hit with the same bytes, or if its perceptual hash is near and a finer look confirms it: small and in
colour, laid over the benchmark's picture with a little cut off its sides, brightness and contrast aside. Copies with
up to 3% cut off every side are found, most with 5%; those turned, mirrored, or with a tenth cut off are not.

A text is a hit if it is, or has nearly all of, a benchmark's caption, or its question with the options, in order. What
many texts of the benchmarks share (templates such as "What dish is this?") does not count, nor does a text that stands
in many rows, and what is left has to be long enough to be no chance. A question without options is none: to be asked
the same of another picture gives nothing away. Words in another order, or in another language, are not found.

The drawings and questions of synthetic benchmarks are made of the same parts as the training rows, so of these only
pictures that are the same, pixel for pixel or nearly so, are hits.
"""

import re
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ggez_hub.data import benchmarks as published
from ggez_hub.data import conversations, duplicates, images, readers
from ggez_hub.data.filters import Outcome, Rule
from ggez_hub.runs import read_json, write_json
from ggez_hub.schema import Benchmark

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from PIL.Image import Image as Picture

DISTANCE = 12  # bits of 64 in which the hashes of a picture and its copy may differ
DRAWN = 2  # ... where the picture is a drawing of a synthetic benchmark
SIDE, LOOK = 48, 32  # pixels of a benchmark's picture that are kept, and that are compared
WORTH = 0.8  # correlation below which two pictures are not laid over each other in other ways
ALIKE, EQUAL = 0.99, 0.9995  # correlation of a picture and its copy; of such a drawing and its copy
GAINS = (1.0, 1.1, 1.2, 1.3, 1.4, 1.5)  # by which a copy may be brighter
STEPS, MOST = (0.04, 0.02, 0.01, 0.005), 0.12  # shares of a side that are cut off

LETTERS = 6  # of a piece of a text
COMMON = 50  # a piece that more texts have tells none of them
LEAST = 30  # pieces that tell a text; one of a wide letter, such as a Chinese one, counts double
WIDE = 0x2E80  # code points from here on are wide letters
CANDIDATE = 0.5  # share of these pieces that a row has to have, somewhere
TRIED = 8  # texts of which it has the most that are looked at for order
SAME = 0.9  # share of their letters that it has to have, in order; from 0.75 to here are other texts of like subjects
WHOLE = 30  # letters of a text that is a hit where it is all that is said, wide ones double; names have fewer
OFTEN = 3  # rows of a benchmark in which a text may stand; one of more is a template
DRIFT = 12  # letters that may be there in addition, or be missing, before what follows is out of order
TABLE = 16  # places in a table, for each piece, by which most that no benchmark has are told
_MARK = re.compile(r"^\s*[(\[]?(?:\w|\d+)[.):\]]\s+", re.MULTILINE)  # of an option in a list


@dataclass(frozen=True)
class Index:
    """What the questions of benchmarks look like and say.

    Attributes:
        pictures: Of every picture the question that it belongs to, "cvqa 5919991144272485961_0".
        texts: ... of every text.
        digests: uint64 [p], of the bytes of every picture.
        hashes: uint64 [p], perceptual.
        looks: uint8 [p, SIDE, SIDE, 3].
        alike: float32 [p], the correlation from which on another picture is its copy.
        letters: uint32 [l], code points of all texts, one after the other.
        starts: int64 [t + 1], where each text begins.
        pieces: uint64 [k], hashes of what tells texts, sorted.
        places: int32 [k + 1], where the texts of each piece begin in `holders`.
        holders: int32 [h], places of texts.
        sizes: int32 [t], how many pieces tell each text.
        known: bool [2**b], whether there is a piece whose hash begins with these b bits.
        wholes: uint64 [w], digests of the letters of those texts that are long enough to be hits as they are, sorted.
        whole: int32 [w], places of these texts.
    """

    pictures: Sequence[str]
    texts: Sequence[str]
    digests: "np.ndarray"
    hashes: "np.ndarray"
    looks: "np.ndarray"
    alike: "np.ndarray"
    letters: "np.ndarray"
    starts: "np.ndarray"
    pieces: "np.ndarray"
    places: "np.ndarray"
    holders: "np.ndarray"
    sizes: "np.ndarray"
    known: "np.ndarray"
    wholes: "np.ndarray"
    whole: "np.ndarray"

    def save(self, folder: Path) -> None:
        """Writes it to a new folder, for `Index.load` in other processes: plain arrays and JSON, no pickle."""
        import numpy as np

        folder.mkdir(parents=True)
        for name in _arrays():
            np.save(folder / f"{name}.npy", getattr(self, name), allow_pickle=False)
        write_json(folder / "questions.json", {"pictures": self.pictures, "texts": self.texts})

    @classmethod
    def load(cls, folder: Path) -> "Index":
        """The index in a folder; its arrays stay in the files until they are needed, one copy for all processes."""
        import numpy as np

        def array(name: str) -> "np.ndarray":
            path = folder / f"{name}.npy"
            found: np.ndarray = np.load(path, "r", allow_pickle=False)
            return found

        told: dict[str, Any] = read_json(folder / "questions.json")
        return cls(**told | {name: array(name) for name in _arrays()})


def _arrays() -> list[str]:
    return [field.name for field in fields(Index) if field.name not in ("pictures", "texts")]


def index(
    benchmarks: Mapping[str, Benchmark],
    on_side: Callable[["pa.RecordBatch", Benchmark], "pa.RecordBatch"],
    data_path: str | None = None,
) -> Index:
    """Indexes the test and selection rows of benchmarks.

    Pictures that cannot be had are left out, and told of.

    Args:
        benchmarks: By name.
        on_side: Those rows of a batch that a benchmark asks about: ggez_hub.scoring.questions.on_side for a region.
        data_path: The file of a source that names none.

    Raises:
        InputError: The rows of a benchmark cannot be read.
    """
    import numpy as np
    from tqdm import tqdm

    pictures: dict[int, tuple[str, int, np.ndarray, float]] = {}  # by the digest of their bytes
    texts: dict[str, dict[str, None]] = {}  # letters: the questions that have them
    seen: set[Any] = set()
    missing = 0
    with tqdm(desc="benchmarks against contamination", unit=" rows", leave=False, delay=2) as progress:
        for name, benchmark in benchmarks.items():
            source = benchmark.source
            place = readers.place(source, data_path) if readers.needs_path(source.reader) else None
            root, download = readers.root(place), source.reader in published.LINKED
            for row in _rows(benchmark, on_side, place):
                progress.update()
                question = f"{name} {row['id'] or row['label'] or ''}".strip()
                for text in () if benchmark.synthetic else _asked(row, benchmark):
                    texts.setdefault(letters(text), {})[question] = None
                reference = (root, (row["image"] or {}).get("path"))
                if reference in seen and not row["image"]["bytes"]:
                    continue
                seen.add(reference)
                try:
                    data = images.fetch(row["image"], root, download)
                    if (digest := duplicates.digest(data)) not in pictures:
                        small, _, _ = images.glance(data, grey=False)
                        alike = EQUAL if benchmark.synthetic else ALIKE
                        pictures[digest] = (question, duplicates.picture_hash(small), _look(small), alike)
                except images.BrokenImage:
                    missing += 1
    if missing:
        tqdm.write(f"contamination: {missing} pictures of benchmarks cannot be had, and are not compared", sys.stderr)
    each = list(pictures.values())
    return Index(
        pictures=[question for question, *_ in each],
        digests=np.array(list(pictures), np.uint64),
        hashes=np.array([value for _, value, _, _ in each], np.uint64),
        looks=np.array([look for *_, look, _ in each], np.uint8).reshape(-1, SIDE, SIDE, 3),
        alike=np.array([alike for *_, alike in each], np.float32),
        **_told(texts),
    )


def _rows(
    benchmark: Benchmark,
    on_side: Callable[["pa.RecordBatch", Benchmark], "pa.RecordBatch"],
    place: Path | None,
) -> Iterator[dict[str, Any]]:
    for batch in readers.read(benchmark.source, str(place) if place else None):
        for which in (benchmark.test, *([benchmark.selection] if benchmark.selection else [])):
            yield from on_side(readers.select(batch, which), benchmark).to_pylist()


def _asked(row: Mapping[str, Any], benchmark: Benchmark) -> Iterator[str]:
    """The texts of a row that should not have been trained on. The labels of pictures to be named are none."""
    if benchmark.task == "question":
        if row["question"] and row["options"]:
            yield "\n".join((row["question"], *row["options"]))
        if row["text"]:
            yield row["text"]
        if benchmark.answer == "caption":
            yield from (row["answer"] or "").split("|")


def uncontaminated(found: Index) -> Rule:
    """Drops rows whose picture or text stands in a benchmark; `why` names it: "picture of cvqa 5919991144272485961_0".

    Needs the bytes, `_hash` and `_digest` of ggez_hub.data.filters.pictures.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    def rule(batch: "pa.RecordBatch") -> Outcome:
        pictures = batch.select(["image", "_hash", "_digest"]).to_pylist()
        by_text = _same_texts(found, batch.select(duplicates.SAYS).to_pylist())
        why = [
            (_same_picture(found, row) if row["_hash"] is not None else None) or text
            for row, text in zip(pictures, by_text, strict=True)
        ]
        told = pa.array(why, pa.string())
        return Outcome(batch, pc.is_null(told), told)

    return rule


# ------------------------------------------------------------------------------------------------------------- pictures
def _same_picture(found: Index, row: Mapping[str, Any]) -> str | None:
    """Which picture of a benchmark this is, in words, or None."""
    import numpy as np

    distances = np.bitwise_count(found.hashes ^ np.uint64(row["_hash"]))
    near = np.flatnonzero(distances <= DISTANCE)
    near = near[(distances[near] <= DRAWN) | (found.alike[near] < EQUAL)]
    if not len(near):
        return None
    for place in near:
        if found.digests[place] == np.uint64(row["_digest"]):
            return f"picture of {found.pictures[place]}"
    small, _, _ = images.glance(row["image"]["bytes"], grey=False)
    ours = _look(small)
    for place in near:
        if _is_copy(found.looks[place], ours, float(found.alike[place])):
            return f"picture like that of {found.pictures[place]}"
    return None


def _look(image: "Picture") -> "np.ndarray":
    """What is kept of a picture: uint8 [SIDE, SIDE, 3]."""
    import numpy as np

    pixels: np.ndarray = np.array(image.resize((SIDE, SIDE)))
    return pixels


def _is_copy(theirs: "np.ndarray", ours: "np.ndarray", alike: float) -> bool:
    """Whether one picture correlates with another once its sides are cut off in the best way.

    Args:
        theirs: uint8 [SIDE, SIDE, 3].
        ours: The same, of what may be a copy of it.
        alike: From which correlation on.
    """
    import numpy as np
    from PIL import Image

    def seen(image: "Picture", cut: tuple[float, ...]) -> "np.ndarray":
        left, top, right, bottom = cut
        box = (left * SIDE, top * SIDE, SIDE - right * SIDE, SIDE - bottom * SIDE)
        pixels = np.array(image.resize((LOOK, LOOK), Image.Resampling.BILINEAR, box), np.float32)
        pixels -= pixels.mean()
        pixels /= max(float(np.linalg.norm(pixels)), 1e-6)
        return pixels  # the product of two such arrays is their correlation

    # Brightening leaves white what was bright before, which no correlation makes up for.
    brighter = [np.minimum(theirs * gain, 255) for gain in GAINS]
    nearest = int(np.argmin([abs(pixels.mean() - ours.mean()) for pixels in brighter]))
    image = Image.fromarray(brighter[nearest].astype(np.uint8))
    cut: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)
    wanted = seen(Image.fromarray(ours), cut)

    def likeness(cut: tuple[float, ...]) -> float:
        return float(np.vdot(seen(image, cut), wanted))

    best = likeness(cut)
    if best < WORTH or alike >= EQUAL:
        return best >= alike
    for step in STEPS:
        moved = True
        while moved and best < alike:
            moved = False
            for side in range(4):
                for change in (step, -step):
                    other = (*cut[:side], min(max(cut[side] + change, 0.0), MOST), *cut[side + 1 :])
                    if other != cut and (value := likeness(other)) > best:
                        best, cut, moved = value, other, True
    return best >= alike


# ---------------------------------------------------------------------------------------------------------------- texts
def letters(text: str) -> str:
    """The letters of a text: without spaces, punctuation, case and the marks of options."""
    return conversations.normalised(_MARK.sub("", text.replace(conversations.IMAGE, " "))).replace(" ", "")


def _said(row: Mapping[str, Any]) -> list[str]:
    """All that a row says, as letters, field by field."""
    said = [row["text"], *(message["content"] for message in row["messages"] or ())]
    if row["question"]:
        said.append("\n".join((row["question"], *(row["options"] or ()))))
    return [told for text in dict.fromkeys(said) if text and (told := letters(text))]


def _codes(texts: Iterable[str]) -> "tuple[np.ndarray, np.ndarray]":
    """The code points of texts, one after the other, and where each text begins."""
    import numpy as np

    texts = list(texts)
    starts = np.concatenate([[0], np.cumsum([len(text) for text in texts], dtype=np.int64)]).astype(np.int64)
    return np.frombuffer("".join(texts).encode("utf-32-le"), np.uint32), starts


def _pieces(codes: "np.ndarray", starts: "np.ndarray") -> "tuple[np.ndarray, np.ndarray, np.ndarray]":
    """Every piece of texts: its hash, the text that it is in, and its place in all letters."""
    import numpy as np

    count = max(len(codes) - LETTERS + 1, 0)
    text = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    hashes = np.zeros(count, np.uint64)
    inside = np.ones(count, bool)
    for i in range(LETTERS):
        hashes = hashes * np.uint64(0x9E3779B97F4A7C15) + codes[i : i + count]
        inside &= codes[i : i + count] != 0  # what stands in different fields is apart
    hashes = (hashes ^ (hashes >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes ^= hashes >> np.uint64(32)
    place = np.flatnonzero(inside & (text[:count] == text[LETTERS - 1 :]))
    return hashes[place], text[place], place


def _told(texts: Mapping[str, Collection[str]]) -> dict[str, Any]:
    """The fields of an index that are about texts, letters: the questions that have them."""
    import numpy as np

    told = {text: next(iter(questions)) for text, questions in texts.items() if len(questions) <= OFTEN}
    codes, starts = _codes(told)
    hashes, text, place = _pieces(codes, starts)
    order = np.lexsort((text, hashes))
    hashes, text, wide = hashes[order], text[order], codes[place[order]] >= WIDE
    new = np.ones(len(hashes), bool)  # a piece counts once for a text
    new[1:] = (hashes[1:] != hashes[:-1]) | (text[1:] != text[:-1])
    hashes, text, wide = hashes[new], text[new], wide[new]
    _, group, holders = np.unique(hashes, return_inverse=True, return_counts=True)
    tells = holders[group] <= COMMON
    weight = np.bincount(text[tells], 1 + wide[tells], minlength=len(told))
    tells &= weight[text] >= LEAST
    hashes, text = hashes[tells], text[tells]
    pieces, begin = np.unique(hashes, return_index=True)
    known = np.zeros(1 << (TABLE * len(pieces) + 1).bit_length(), bool)
    known[_beginning(pieces, known)] = True
    long = [len(text) + sum(ord(letter) >= WIDE for letter in text) >= WHOLE for text in told]
    wholes = np.array([duplicates.digest(text.encode()) for text in told], np.uint64)
    whole = np.flatnonzero(long)
    whole = whole[np.argsort(wholes[whole])]
    return {
        "texts": list(told.values()),
        "letters": codes,
        "starts": starts,
        "pieces": pieces,
        "places": np.append(begin, len(hashes)).astype(np.int32),
        "holders": text.astype(np.int32),
        "sizes": np.bincount(text, minlength=len(told)).astype(np.int32),
        "known": known,
        "wholes": wholes[whole],
        "whole": whole.astype(np.int32),
    }


def _beginning(hashes: "np.ndarray", known: "np.ndarray") -> "np.ndarray":
    """The first bits of hashes, which are places in a table."""
    import numpy as np

    return hashes >> np.uint64(65 - len(known).bit_length())


def _find(found: Index, hashes: "np.ndarray") -> "tuple[np.ndarray, np.ndarray]":
    """Which hashes are of pieces that tell texts: their places, and those of the pieces."""
    import numpy as np

    maybe = np.flatnonzero(found.known[_beginning(hashes, found.known)])
    piece = np.searchsorted(found.pieces, hashes[maybe])
    piece[piece == len(found.pieces)] = 0
    there = found.pieces[piece] == hashes[maybe] if len(found.pieces) else np.zeros(0, bool)
    return maybe[there], piece[there]


def _same_texts(found: Index, rows: Iterable[Mapping[str, Any]]) -> list[str | None]:
    """Which text of a benchmark each of these rows has, in words, or None."""
    said = [_said(row) for row in rows]
    nearly = _nearly(found, ["\0".join(told) for told in said])  # what stands in different fields is apart
    return [_whole(found, told) or near for told, near in zip(said, nearly, strict=True)]


def _whole(found: Index, said: Iterable[str]) -> str | None:
    """Which text of a benchmark is one of these."""
    import numpy as np

    digests = np.array([duplicates.digest(text.encode()) for text in said], np.uint64)
    places = np.searchsorted(found.wholes, digests)
    for place, digest in zip(places, digests, strict=True):
        if place < len(found.wholes) and found.wholes[place] == digest:
            return f"text of {found.texts[found.whole[place]]}"
    return None


def _nearly(found: Index, said: Sequence[str]) -> list[str | None]:
    """Which text of a benchmark each of these has as a part, or nearly, in words, or None."""
    import numpy as np
    from scipy.sparse import csr_array

    codes, starts = _codes(said)
    hashes, row, place = _pieces(codes, starts)
    which, piece = _find(found, hashes)
    result: list[str | None] = [None] * len(said)
    if not len(which):
        return result
    once = np.unique(row[which] * len(found.pieces) + piece)
    of_row, of_piece = np.divmod(once, len(found.pieces))
    ones, begin = np.ones(len(once), np.int32), np.searchsorted(of_row, np.arange(len(said) + 1))
    ours = csr_array((ones, of_piece, begin), (len(said), len(found.pieces)))
    ones = np.broadcast_to(np.int32(1), found.holders.shape)
    theirs = csr_array((ones, found.holders, found.places), (len(found.pieces), len(found.texts)))
    shared = ours @ theirs  # how many pieces of each text each of ours has
    share = shared.data / found.sizes[shared.indices]
    likely = np.flatnonzero(share >= CANDIDATE)
    numbers = np.searchsorted(shared.indptr, likely, "right") - 1
    tried: Counter[int] = Counter()
    first = np.argsort(-share[likely], kind="stable")
    for pair, number in zip(likely[first], numbers[first], strict=True):
        if result[number] is None and tried[number] < TRIED:
            tried[number] += 1
            mine = slice(*np.searchsorted(row[which], (number, number + 1)))
            text = int(shared.indices[pair])
            same = _in_order(found, text, hashes[which[mine]], place[which[mine]])
            if same >= SAME:
                result[number] = f"{'text' if same == 1 else 'text like that'} of {found.texts[text]}"
    return result


def _in_order(found: Index, text: int, hashes: "np.ndarray", places: "np.ndarray") -> float:
    """The share of a text's telling letters that pieces at these places, in about the same order, have."""
    import numpy as np

    codes = np.asarray(found.letters[found.starts[text] : found.starts[text + 1]])
    theirs, _, _ = _pieces(codes, np.array([0, len(codes)]))
    telling, _ = _find(found, theirs)
    order = np.argsort(hashes, kind="stable")
    low, high = (np.searchsorted(hashes[order], theirs[telling], side) for side in ("left", "right"))
    lengths = high - low
    at = np.repeat(telling, lengths)
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    shift = places[order[np.repeat(low, lengths) + within]] - at
    by_shift = np.argsort(shift, kind="stable")
    shift, at = shift[by_shift], at[by_shift]
    until = np.searchsorted(shift, shift + DRIFT, "right")
    first = int(np.argmax(until - np.arange(len(shift))))  # where most pieces are shifted alike
    return float(_covered(at[first : until[first]], len(codes)) / _covered(telling, len(codes)))


def _covered(starts: "np.ndarray", length: int) -> int:
    """How many letters pieces that start at these places have."""
    import numpy as np

    edges = np.zeros(length + 1, np.int64)
    begin = np.unique(starts)
    edges[begin] += 1
    edges[begin + LETTERS] -= 1
    return int((np.cumsum(edges)[:length] > 0).sum())
