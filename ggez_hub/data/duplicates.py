"""Rows that stand in a corpus twice, and pictures that do: by their looks, and by their embeddings.

Of pictures that are the same the first is kept. What is like a dropped one, but like no kept one, is kept. Several rows
of the very same file that say different things, such as captions in several languages, are no duplicates of each other.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from itertools import combinations, pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

    Table = tuple[int, int, list[int], np.ndarray, np.ndarray]

BITS = 64
ROWS = 2**15  # that are looked up at once
PAIRS = 2**22  # that are compared at once
SAYS = ("text", "messages", "question", "options", "answer")  # fields of a row


def digest(data: bytes) -> int:
    """64 bits that stand for these bytes."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")


def said(row: Mapping[str, Any], picture: int) -> int:
    """64 bits that stand for what a row says, and the `digest` of the picture that it says it of."""
    return digest(json.dumps([picture, *map(row.get, SAYS)]).encode())


def same_rows(said: "np.ndarray") -> "np.ndarray":
    """Which rows say what an earlier one says of the same picture.

    Args:
        said: See `said`, uint64 [n], in the order of the rows.

    Returns:
        int64 [n], the place of the first such row, or -1: it is kept.
    """
    import numpy as np

    _, first, which = np.unique(said, return_index=True, return_inverse=True)
    return np.where(first[which] == np.arange(len(said)), -1, first[which]).astype(np.int64)


def same_files(pictures: "np.ndarray", same: "Callable[[np.ndarray], np.ndarray]") -> "np.ndarray":
    """Which rows have a picture that is like another file, one of an earlier kept row. Rows of a file go together.

    Args:
        pictures: `digest` of every row's picture, uint64 [n], in the order of the rows.
        same: Compares the pictures at these places, as `same_pictures` and `same_embeddings` do.

    Returns:
        int64 [n], the place of the first row with the file that is kept, or -1.
    """
    import numpy as np

    _, first, which = np.unique(pictures, return_index=True, return_inverse=True)
    order = np.argsort(first)
    like = same(first[order])
    of = np.empty(len(first), np.int64)
    of[order] = np.where(like < 0, -1, first[order][like])
    return of[which]


def picture_hash(image: "Image") -> int:
    """The perceptual hash of a picture, 64 bits: pictures that look the same differ in few of them.

    It is `imagehash.phash`: which of the 8 x 8 lowest frequencies are above their median. Most copies, resized, encoded
    anew, brightened or with 2% cut off each side, differ in at most 6 bits; other pictures in 20 and more.
    """
    import imagehash
    import numpy as np

    return int.from_bytes(np.packbits(imagehash.phash(image).hash).tobytes(), "big")


def same_pictures(hashes: "np.ndarray", distance: int) -> "np.ndarray":
    """Which pictures look like an earlier one that is kept.

    Exact, without comparing all with all: two hashes of few different bits have a band of bits in which they differ
    in fewer still, and the hashes of such a band are looked up in a table.

    Args:
        hashes: uint64 [n], in the order of the rows.
        distance: Bits that may differ.

    Returns:
        int64 [n], the place of the first kept row that a row repeats, or -1: it is kept.
    """
    import numpy as np

    distinct, firsts, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    order = np.argsort(firsts)  # from here on hashes stand in the order of their first rows
    first_rows, distinct = firsts[order], distinct[order]
    tables = _tables(distinct, distance)
    like = np.full(len(distinct), -1)
    start, size = 0, 64
    while start < len(distinct):  # small steps first: what repeats one of these is never looked up itself
        some = np.flatnonzero(like[start : start + size] < 0) + start
        ours, theirs = _pairs(distinct, some, tables, distance, like)
        begin = np.searchsorted(ours, some)
        for row, low, high in zip(some, begin, [*begin[1:], len(ours)], strict=True):
            if like[row] < 0 and high > low:
                later = theirs[low:high]
                like[later[like[later] < 0]] = row
        start, size = start + size, min(2 * size, ROWS)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    places = rank[inverse]  # of every row: its hash
    kept = np.where(like < 0, np.arange(len(like)), like)
    found = first_rows[kept[places]]
    return np.where(found == np.arange(len(hashes)), -1, found).astype(np.int64)


def _tables(hashes: "np.ndarray", distance: int) -> "list[Table]":
    """Tables to look up hashes by a band of their bits.

    Returns:
        Of each band: where it begins, its bits, all the differences to look for, the hashes' places sorted by the band,
        and where each of its values begins among these.
    """
    import numpy as np

    count = max(3, -(-(distance + 1) // 3))  # at most two bits of a band differ
    edges = [BITS * i // count for i in range(count + 1)]
    tables = []
    for low, high in pairwise(edges):
        width = high - low
        values = (hashes >> np.uint64(low)) & np.uint64(2**width - 1)
        order = np.argsort(values, kind="stable")
        starts = np.concatenate([[0], np.cumsum(np.bincount(values.astype(np.int64), minlength=2**width))])
        differences = [
            sum(1 << bit for bit in bits)
            for n in range(distance // count + 1)
            for bits in combinations(range(width), n)
        ]
        tables.append((low, width, differences, order, starts))
    return tables


def _pairs(
    hashes: "np.ndarray", some: "np.ndarray", tables: "list[Table]", distance: int, like: "np.ndarray"
) -> "tuple[np.ndarray, np.ndarray]":
    """Pairs of one of some hashes and a later one, not yet like another, that differ in few bits; sorted."""
    import numpy as np

    found = [np.empty((0, 2), np.int64)]
    for low, width, differences, order, starts in tables:
        bands = ((hashes[some] >> np.uint64(low)) & np.uint64(2**width - 1)).astype(np.int64)
        for difference in differences:
            begin, end = starts[bands ^ difference], starts[(bands ^ difference) + 1]
            for part in _parts(end - begin):
                lengths = (end - begin)[part]
                ours = np.repeat(some[part], lengths)
                within = np.arange(len(ours)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
                theirs = order[np.repeat(begin[part], lengths) + within]
                near = np.bitwise_count(hashes[ours] ^ hashes[theirs]) <= distance
                near &= (theirs > ours) & (like[theirs] < 0)
                found.append(np.stack([ours[near], theirs[near]], axis=1))
    pairs = np.unique(np.concatenate(found), axis=0)
    return pairs[:, 0], pairs[:, 1]


def _parts(lengths: "np.ndarray") -> "list[slice]":
    """Slices of lengths whose sums are about PAIRS at most."""
    import numpy as np

    cuts = np.flatnonzero(np.diff(np.cumsum(lengths) // PAIRS)) + 1
    return [slice(low, high) for low, high in zip([0, *cuts], [*cuts, len(lengths)], strict=True)]


def same_embeddings(vectors: "np.ndarray", most: float) -> "np.ndarray":
    """Which embeddings are like an earlier one that is kept. Exact: all are compared, in blocks.

    Args:
        vectors: Floats [n, d] of unit length, in the order of the rows.
        most: Cosine above which two are the same.

    Returns:
        int64 [n], the place of the first kept row that a row repeats, or -1: it is kept.
    """
    import numpy as np

    block = 1024
    like = np.full(len(vectors), -1, np.int64)
    kept = np.empty(0, np.int64)
    for start in range(0, len(vectors), block):
        ours = np.arange(start, min(start + block, len(vectors)))
        for low in range(0, len(kept), 16 * block):
            theirs = kept[low : low + 16 * block]
            left = ours[like[ours] < 0]
            above = vectors[left] @ vectors[theirs].T > most
            hit = above.any(axis=1)
            like[left[hit]] = theirs[above[hit].argmax(axis=1)]
        left = ours[like[ours] < 0]
        above = np.triu(vectors[left] @ vectors[left].T > most, 1)
        for i, row in enumerate(left):
            if like[row] < 0:
                later = left[above[i]]
                like[later[like[later] < 0]] = row
        kept = np.concatenate([kept, left[like[left] < 0]])
    return like
