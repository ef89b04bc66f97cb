"""Mixing: caps and shares hold, and the rows that are drawn are the same everywhere."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from ggez_hub.data.mixing import chosen, counts
from ggez_hub.schema import Corpus

available = st.dictionaries(st.sampled_from(["a", "b", "c"]), st.integers(1, 60), min_size=1)


def corpus(cap: int | None = None, share: float | None = None) -> Corpus:
    return Corpus(reader="pocket", cap=cap, share=share)


def rows(sizes: dict[str, int]) -> tuple[list[str], list[str]]:
    """Sources and ids of so many rows of each source."""
    pairs = [(name, f"{name}/{i}") for name, size in sizes.items() for i in range(size)]
    return [name for name, _ in pairs], [row_id for _, row_id in pairs]


def taken(sizes: dict[str, int], corpora: dict[str, Corpus], seed: int = 0) -> set[str]:
    sources, ids = rows(sizes)
    return {ids[i] for i in np.flatnonzero(chosen(sources, ids, corpora, seed))}


@given(available, st.integers(0, 9))
def test_without_caps_and_shares_every_row_is_taken(sizes: dict[str, int], seed: int) -> None:
    assert taken(sizes, {name: corpus() for name in sizes}, seed) == set(rows(sizes)[1])


@given(available, st.integers(1, 70), st.integers(0, 9))
def test_a_cap_is_the_most_and_a_smaller_one_takes_of_the_same_rows(sizes: dict[str, int], cap: int, seed: int) -> None:
    small, large = (taken(sizes, {name: corpus(most) for name in sizes}, seed) for most in (cap, cap + 7))
    for name, size in sizes.items():
        assert sum(row.startswith(name) for row in small) == min(size, cap)
    assert small <= large


@given(available, st.permutations(range(60)), st.integers(0, 9))
def test_the_order_of_the_rows_changes_nothing(sizes: dict[str, int], order: list[int], seed: int) -> None:
    corpora = {name: corpus(5) for name in sizes}
    sources, ids = rows(sizes)
    mixed = [i for i in order if i < len(ids)] + list(range(60, len(ids)))
    there = chosen([sources[i] for i in mixed], [ids[i] for i in mixed], corpora, seed)
    assert {ids[i] for i, kept in zip(mixed, there, strict=True) if kept} == taken(sizes, corpora, seed)


@given(st.integers(1, 500), st.integers(1, 500), st.integers(1, 99), st.none() | st.integers(1, 99))
def test_shares_hold_for_as_many_rows_as_the_scarcest_source_allows(a: int, b: int, hundredths: int, cap: int) -> None:
    share = hundredths / 100
    corpora = {"a": corpus(cap, share), "b": corpus(None, (100 - hundredths) / 100)}
    found = counts({"a": a, "b": b}, corpora)
    most = {"a": min(a, cap or a), "b": b}
    total = sum(found.values())
    assert all(found[name] <= most[name] for name in found)
    assert all(abs(found[name] - total * (corpora[name].share or 0)) <= 2 for name in found)
    assert any(found[name] == most[name] for name in found)  # or there could be more of all


def test_shares_are_counted_without_rounding_errors() -> None:
    thirds = {"a": corpus(share=0.1), "b": corpus(share=0.2), "c": corpus(share=0.7)}
    assert counts({"a": 10, "b": 20, "c": 70}, thirds) == {"a": 10, "b": 20, "c": 70}
    assert counts({"a": 10, "b": 20, "c": 7}, thirds) == {"a": 1, "b": 2, "c": 7}


def test_a_source_with_a_share_of_which_nothing_is_left_leaves_nothing_of_the_others() -> None:
    assert not chosen(["a"], ["1"], {"a": corpus(share=0.5), "b": corpus(share=0.5)}, 0).any()


def test_a_source_with_a_cap_of_which_nothing_is_left_is_none() -> None:
    assert chosen(["a"], ["1"], {"a": corpus(), "b": corpus(3)}, 0).tolist() == [True]
    assert chosen(pa.array([], pa.string()), pa.array([], pa.string()), {"a": corpus(3)}, 0).tolist() == []


def test_the_draw_is_the_same_on_every_machine_and_in_every_version() -> None:
    """A change of these rows would train every recipe with a cap on others."""
    sources = pa.chunked_array([["a"] * 6, ["a"] * 4]).dictionary_encode()
    assert np.flatnonzero(chosen(sources, pa.array(range(10)), {"a": corpus(3)}, 0)).tolist() == [7, 8, 9]
    assert np.flatnonzero(chosen(sources, pa.array(range(10)), {"a": corpus(3)}, 1)).tolist() == [0, 1, 6]


def test_sources_are_drawn_apart_and_seeds_differ() -> None:
    sizes, corpora = {"a": 200, "b": 200}, {"a": corpus(50), "b": corpus(50)}
    found = taken(sizes, corpora)
    numbers = {name: {row.partition("/")[2] for row in found if row.startswith(name)} for name in sizes}
    assert numbers["a"] != numbers["b"]
    assert found != taken(sizes, corpora, seed=1)


def test_rows_of_one_id_are_taken_in_their_order() -> None:
    assert chosen(["a"] * 4, ["x"] * 4, {"a": corpus(2)}, 0).tolist() == [True, True, False, False]
