"""The paper's formulas: its printed numbers, digit by digit, and what must hold for any numbers."""

import csv
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ggez_hub.errors import InputError
from ggez_hub.method import choose_alpha, gain, grp, interpolate, retention

PAPER_GLOBALIZATION = 0.43  # Southeast Asia 2023, as the paper rounds it

fractions = st.floats(0, 1)
weights = st.floats(-100, 100, width=32)


def table(shared: Path, name: str) -> list[dict[str, Any]]:
    with open(shared / "paper" / name, encoding="utf-8") as file:
        return [{k: v if k == "model" else float(v) for k, v in row.items()} for row in csv.DictReader(file)]


def mean(row: dict[str, Any], *names: str) -> float:
    return float(sum(row[name] for name in names) / len(names))


def vlm_points(shared: Path) -> list[dict[str, Any]]:
    """Table 1 from its single benchmarks."""
    rows = table(shared, "table1_vlm.csv")
    return [point(r, mean(r, "global_wc", "global_cvqa"), mean(r, "sea_seavqa", "sea_wc", "sea_cvqa")) for r in rows]


def embedding_points(shared: Path) -> list[dict[str, Any]]:
    """Table 5 from its single benchmarks."""
    rows = table(shared, "table5_embedding.csv")
    return [point(r, r["cvqa_global"], mean(r, "cvqa_sea", "seavqa_sea")) for r in rows]


def point(row: dict[str, Any], global_: float, regional: float) -> dict[str, Any]:
    value = grp(global_, regional, PAPER_GLOBALIZATION)
    return {"alpha": row["beta"], "global": global_, "regional": regional, "grp": value, "printed": row["grp"]}


# ------------------------------------------------------------------------------------------------------------ the paper
def test_table_1_grp_to_the_printed_digit(shared: Path) -> None:
    points = vlm_points(shared)
    assert len(points) == 6
    assert [f"{p['grp']:.1f}" for p in points] == [f"{p['printed']:.1f}" for p in points]


def test_table_5_grp_to_the_printed_digit(shared: Path) -> None:
    points = embedding_points(shared)
    assert len(points) == 5
    assert [f"{p['grp']:.2f}" for p in points] == [f"{p['printed']:.2f}" for p in points]


def test_the_papers_own_choices(shared: Path) -> None:
    for points, alpha in ((vlm_points(shared), 0.10), (embedding_points(shared), 0.75)):
        chosen, plain = choose_alpha(points)
        assert chosen["alpha"] == plain["alpha"] == alpha
        base = points[0]
        change, kept = gain(chosen["regional"], base["regional"]), retention(chosen["global"], base["global"])
        assert 0.05 < (change or 0) < 0.15  # the headline claims
        assert (kept or 0) > 0.98


# ------------------------------------------------------------------------------------------------------------- measures
@given(fractions, fractions, fractions)
def test_grp_lies_between_its_two_qualities(global_: float, regional: float, globalization: float) -> None:
    low, high = sorted((global_, regional))
    assert low - 1e-12 <= grp(global_, regional, globalization) <= high + 1e-12


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_grp_at_its_ends_is_one_quality_alone(global_: float, regional: float) -> None:
    assert grp(global_, regional, 1) == global_
    assert grp(global_, regional, 0) == regional


@pytest.mark.parametrize("globalization", [43.4, -0.1, float("nan"), float("inf")])
def test_grp_refuses_a_globalization_that_is_no_fraction(globalization: float) -> None:
    with pytest.raises(InputError, match=r"globalization .* from 0 to 1"):
        grp(0.5, 0.5, globalization)


def test_gain_and_retention() -> None:
    assert gain(0.55, 0.5) == pytest.approx(0.1)
    assert gain(0.45, 0.5) == pytest.approx(-0.1)
    assert retention(0.49, 0.5) == pytest.approx(0.98)
    assert gain(0.5, 0.0) is None
    assert retention(0.5, 0.0) is None


# ---------------------------------------------------------------------------------------------------------- interpolate
@given(weights, weights, fractions)
def test_interpolate_is_the_formula(base: float, regional: float, alpha: float) -> None:
    expected = alpha * regional + (1 - alpha) * base
    assert interpolate(base, regional, alpha) == pytest.approx(expected, rel=1e-12, abs=1e-12)


@given(st.lists(st.tuples(weights, weights), min_size=1, max_size=8), fractions)
def test_arrays_and_tensors_follow_the_floats(pairs: list[tuple[float, float]], alpha: float) -> None:
    base, regional = np.array(pairs).T
    expected = [interpolate(b, r, alpha) for b, r in pairs]
    array = interpolate(base, regional, alpha)
    tensor = interpolate(torch.tensor(base), torch.tensor(regional), alpha)
    np.testing.assert_array_equal(array, expected)
    # torch.lerp may end in another last bit, counted from the larger of the two values.
    assert (np.abs(tensor.numpy() - expected) <= 2 * np.spacing(np.maximum(np.abs(base), np.abs(regional)))).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_ends_return_every_bit(dtype: torch.dtype) -> None:
    base = torch.tensor([0.0, -0.0, float("nan"), float("inf"), 1.1, 60000.0], dtype=dtype)
    regional = torch.tensor([-0.0, 0.0, 1.0, -float("inf"), float("nan"), -60000.0], dtype=dtype)
    for alpha, expected in ((0, base), (0.0, base), (1, regional), (1.0, regional)):
        result = interpolate(base, regional, alpha)
        assert result.dtype == dtype
        assert torch.equal(result.view(torch.uint8), expected.view(torch.uint8))


@given(st.lists(weights, min_size=1, max_size=8), fractions)
def test_untouched_weights_stay_as_they_are(values: list[float], alpha: float) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        tensor = torch.tensor(values, dtype=dtype)
        assert torch.equal(interpolate(tensor, tensor.clone(), alpha), tensor)


@settings(max_examples=50)
@given(st.lists(st.tuples(weights, weights), min_size=1, max_size=32), fractions)
def test_low_precision_is_rounded_once(pairs: list[tuple[float, float]], alpha: float) -> None:
    for dtype in (torch.bfloat16, torch.float16):
        base, regional = torch.tensor(pairs).to(dtype).T
        result = interpolate(base, regional, alpha)
        assert result.dtype == dtype
        assert torch.equal(result, interpolate(base.float(), regional.float(), alpha).to(dtype))


def test_half_precision_arrays_are_rounded_once_too() -> None:
    base, regional = np.array([1.0, 1000.0], dtype=np.float16), np.array([1.001, 3.0], dtype=np.float16)
    result = interpolate(base, regional, 0.3)
    assert result.dtype == np.float16
    exact = 0.3 * regional.astype(np.float64) + 0.7 * base.astype(np.float64)
    np.testing.assert_array_equal(result, exact.astype(np.float16))


def test_inputs_are_left_alone() -> None:
    base, regional = torch.zeros(3), torch.ones(3)
    interpolate(base, regional, 0.5)
    assert torch.equal(base, torch.zeros(3))
    assert torch.equal(regional, torch.ones(3))


def test_whole_checkpoints() -> None:
    base = {"a": torch.zeros(2, 2), "b": torch.ones(3), "position_ids": torch.arange(4)}
    regional = {"b": torch.full((3,), 3.0), "a": torch.ones(2, 2), "position_ids": torch.arange(4)}
    merged = interpolate(base, regional, 0.25)
    assert list(merged) == list(base)
    assert torch.equal(merged["a"], torch.full((2, 2), 0.25))
    assert torch.equal(merged["b"], torch.full((3,), 1.5))
    assert torch.equal(merged["position_ids"], torch.arange(4))


def test_different_names_are_all_listed() -> None:
    with pytest.raises(InputError, match=r"only in base: head, tail; only in regional: lora"):
        interpolate({"a": 1.0, "tail": 1.0, "head": 2.0}, {"a": 1.0, "lora": 1.0}, 0)


@pytest.mark.parametrize(
    ("base", "regional", "message"),
    [
        # torch would broadcast these two
        (torch.zeros(2, 3), torch.zeros(3), r"head: shape .*\[2, 3\].* in base, .*\[3\].* in regional"),
        (torch.zeros(2), torch.zeros(2, dtype=torch.bfloat16), "head: dtype torch.float32 in base, torch.bfloat16"),
        (torch.tensor([1, 2]), torch.tensor([1, 3]), "head: torch.int64 values differ"),
        (np.array([True]), np.array([False]), "head: bool values differ"),
        (torch.zeros(2), 0.0, "head: shape"),
    ],
)
def test_tensors_that_do_not_fit_are_named(base: Any, regional: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        interpolate({"head": base}, {"head": regional}, 0.5)


@pytest.mark.parametrize("alpha", [-0.01, 1.01, float("nan")])
def test_alpha_outside_0_to_1_is_refused(alpha: float) -> None:
    with pytest.raises(InputError, match=r"alpha .* from 0 to 1"):
        interpolate(0.0, 1.0, alpha)


# --------------------------------------------------------------------------------------------------------- choose_alpha
def measured(*rows: tuple[float, float, float], globalization: float = 0.43) -> list[dict[str, float]]:
    keys = ("alpha", "global", "regional", "grp")
    return [dict(zip(keys, (a, g, r, grp(g, r, globalization)), strict=True)) for a, g, r in rows]


@given(st.lists(st.tuples(fractions, fractions, fractions), max_size=8), st.tuples(fractions, fractions), fractions)
def test_choice_is_the_best_of_those_that_keep_the_world(
    rows: list[tuple[float, float, float]], base: tuple[float, float], min_retention: float
) -> None:
    points = measured((0.0, *base), *((max(a, 1e-3), g, r) for a, g, r in rows))
    chosen, plain = choose_alpha(points, min_retention)
    kept = [p for p in points if p["alpha"] == 0 or p["global"] >= min_retention * base[0] - 1e-9]
    assert chosen in kept
    assert all(chosen["grp"] >= p["grp"] for p in kept if p["global"] >= min_retention * base[0] + 1e-9)
    assert plain["grp"] == max(p["grp"] for p in points)
    assert chosen["grp"] <= plain["grp"]
    assert choose_alpha(points, None) == (plain, plain)
    assert choose_alpha(points[::-1], min_retention)[0]["grp"] == chosen["grp"]


def test_a_specialist_that_forgets_the_world_wins_only_the_plain_rule() -> None:
    points = measured((0, 0.60, 0.40), (0.25, 0.595, 0.50), (1, 0.49, 0.80))
    chosen, plain = choose_alpha(points)
    assert (chosen["alpha"], plain["alpha"]) == (0.25, 1)


def test_base_is_chosen_where_nothing_else_keeps_the_world() -> None:
    points = measured((0, 0.60, 0.40), (0.5, 0.5, 0.9), (1, 0.4, 0.9))
    assert choose_alpha(points)[0]["alpha"] == 0
    # Also where qualities are below zero (log-likelihoods), where 98% of the base is more than the base.
    assert choose_alpha(measured((0, -2.0, -2.0), (1, -3.0, -1.0)))[0]["alpha"] == 0


def test_ties_go_to_the_smaller_alpha() -> None:
    points = measured((1, 0.6, 0.5), (0.5, 0.6, 0.5), (0, 0.6, 0.4), (0.75, 0.6, 0.5))
    assert [p["alpha"] for p in choose_alpha(points)] == [0.5, 0.5]


def test_exactly_98_percent_is_enough() -> None:
    points = measured((0, 50 / 85, 0.4), (0.5, 49 / 85, 0.9))  # 49/85 < 0.98 * (50/85) in floating point
    assert choose_alpha(points)[0]["alpha"] == 0.5


def test_points_that_cannot_be_judged_are_refused() -> None:
    with pytest.raises(InputError, match="no point at alpha 0"):
        choose_alpha(measured((0.5, 0.5, 0.5)))
    with pytest.raises(InputError, match="no point at alpha 0"):
        choose_alpha([])
    with pytest.raises(InputError, match=r"regional is nan at alpha 0\.5"):
        choose_alpha(measured((0, 0.5, 0.5), (0.5, 0.5, float("nan"))))


def test_formulas_load_no_torch() -> None:
    code = "import sys, ggez_hub.method, ggez_hub.kof; print({'torch', 'numpy', 'pandas'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
