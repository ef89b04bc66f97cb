"""How many rows of each source train the model, and which: caps, shares, and a draw that any machine repeats."""

import hashlib
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

from ggez_hub.schema import Corpus

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

BATCH = 65536  # rows whose ids are Python objects at a time


def counts(available: Mapping[str, int], corpora: Mapping[str, Corpus]) -> dict[str, int]:
    """How many rows of each source are taken.

    A cap is the most; shares hold strictly: of all sources as many rows as the scarcest one allows, each rounded down.
    So where no row is left of one that is to have a share, there is none of the others.

    Args:
        available: Rows of each source that the filter left.
        corpora: The sources, by name.
    """
    most = {name: min(available.get(name, 0), corpus.cap or available.get(name, 0)) for name, corpus in corpora.items()}
    shares = {name: Fraction(str(corpus.share)) for name, corpus in corpora.items() if corpus.share is not None}
    if not shares:
        return most
    total = min(most[name] / share for name, share in shares.items())
    return {name: int(total * share) for name, share in shares.items()}


def chosen(
    sources: "Sequence[str] | pa.Array | pa.ChunkedArray",
    ids: "Sequence[str | int] | pa.Array | pa.ChunkedArray",
    corpora: Mapping[str, Corpus],
    seed: int,
) -> "np.ndarray":
    """Which rows train the model.

    A row's place in the draw depends on the seed, its source and its id alone. So the rows are the same in whatever
    order they come (but for rows of one source with one id, of which the first comes first), and those of a smaller
    cap are among those of a larger one.

    Args:
        sources: Of every row the name of its source, [rows].
        ids: Of every row its id, or its number within the source, [rows]; not null.
        corpora: The sources, by name; their caps and shares.
        seed: Of the draw.

    Returns:
        Booleans, [rows].
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    names, numbers = (
        values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values) for values in (sources, ids)
    )
    kept = np.zeros(len(names), bool)
    found = {str(each["values"]): each["counts"] for each in pc.value_counts(names).to_pylist()}
    for name, count in counts(found, corpora).items():
        if not count:
            continue
        rows = np.flatnonzero(pc.equal(names, name).to_numpy(zero_copy_only=False))
        if count < len(rows):
            places = _places(f"{seed}\0{name}\0", numbers.take(pa.array(rows)))
            rows = rows[np.argsort(places, kind="stable")[:count]]
        kept[rows] = True
    return kept


def _places(prefix: str, ids: "pa.Array | pa.ChunkedArray") -> "np.ndarray":
    """The places of rows in a draw: 64 bits of a hash of the prefix and the row's id, [rows]."""
    import numpy as np

    start = hashlib.blake2b(prefix.encode(), digest_size=8)
    places = np.empty(len(ids), np.dtype(">u8"))
    for begin in range(0, len(ids), BATCH):
        digests = []
        for row_id in ids.slice(begin, BATCH).to_pylist():
            digest = start.copy()
            digest.update(str(row_id).encode(errors="surrogatepass"))
            digests.append(digest.digest())
        places[begin : begin + BATCH] = np.frombuffer(b"".join(digests), places.dtype)
    return places
