"""Filter rules: which rows they keep, and in which order they are asked."""

from typing import Any

import pyarrow as pa
import pytest

from ggez_hub.data import filters, readers
from ggez_hub.registry import load_region
from ggez_hub.schema import Filter

SEA = load_region("sea")


def batch(field: str, values: list[Any]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([{field: value} for value in values], readers.row_schema())


@pytest.mark.parametrize(
    ("rule", "field", "kept", "dropped"),
    [
        (filters.in_region(SEA), "country", [*SEA.countries], ["USA", "CHN", "Indonesia", "idn", "", None]),
        (filters.has_text(), "text", ["pho", " a ", "ก", "0"], ["", " ", "\n\t", "\u3000", None]),
        (filters.rewarded(3), "reward", [3.0, 3.5, 5.0, float("inf")], [2.9999, 0.0, -1.0, float("nan"), None]),
        (filters.rewarded(0), "reward", [0.0, 1.0], [-0.5, None]),
        (filters.rewarded(3.3), "reward", [3.3, 3.4], [3.2]),  # rewards are 32 bits, the limit is written in decimals
    ],
    ids=["region", "text", "reward", "reward of zero", "reward in decimals"],
)
def test_a_rule_keeps_what_it_says(rule: filters.Rule, field: str, kept: list[Any], dropped: list[Any]) -> None:
    assert rule(batch(field, [*kept, *dropped])).to_pylist() == [True] * len(kept) + [False] * len(dropped)


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        (Filter(), ["region", "text"]),
        (Filter(region=False), ["text"]),
        (Filter(min_reward=3), ["region", "text", "reward"]),
        (Filter(region=False, min_reward=0), ["text", "reward"]),
    ],
)
def test_a_recipe_gets_the_rules_it_asks_for_in_order(settings: Filter, names: list[str]) -> None:
    assert list(filters.rules(settings, SEA)) == names


def test_without_any_country_no_row_is_regional() -> None:
    assert filters.in_region(SEA)(batch("country", [None, None])).to_pylist() == [False, False]


def test_rules_one_after_the_other_leave_rows_that_meet_all() -> None:
    rows = pa.RecordBatch.from_pylist(
        [
            {"id": "good", "country": "VNM", "text": "pho", "reward": 4.0},
            {"id": "elsewhere", "country": "FRA", "text": "pho", "reward": 4.0},
            {"id": "silent", "country": "VNM", "text": " ", "reward": 4.0},
            {"id": "poor", "country": "VNM", "text": "pho", "reward": 2.0},
            {"id": "unrated", "country": "VNM", "text": "pho", "reward": None},
        ],
        readers.row_schema(),
    )
    for rule in filters.rules(Filter(min_reward=3), SEA).values():
        rows = rows.filter(rule(rows))
    assert rows["id"].to_pylist() == ["good"]
