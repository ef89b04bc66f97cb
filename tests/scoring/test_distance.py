"""The distance of drawings from real pictures."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ggez_hub.scoring.distance import distance, replicates


def sets(seed: int, shift: float = 0, pictures: int = 30, features: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Real and drawn features, the latter further along every axis by `shift`."""
    rng = np.random.default_rng(seed)
    real, drawn = (rng.normal(size=(pictures, features)).astype(np.float32) for _ in range(2))
    return real, drawn + np.float32(shift)


def plainly(real: np.ndarray, drawn: np.ndarray) -> float:
    """Gretton et al. 2012, equation 3, pair by pair."""
    apart = [float(((a - b) ** 2).sum()) for i, a in enumerate(real) for j, b in enumerate(real) if i != j]
    width = np.median(apart)

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.exp(-((a - b) ** 2).sum() / width))

    def within(side: np.ndarray) -> float:
        pairs = [kernel(a, b) for i, a in enumerate(side) for j, b in enumerate(side) if i != j]
        return sum(pairs) / (len(side) * (len(side) - 1))

    across = sum(kernel(a, b) for a in real for b in drawn) / (len(real) * len(drawn))
    return within(real) + within(drawn) - 2 * across


@pytest.mark.parametrize(("pictures", "shift"), [(2, 0.0), (3, 1.0), (12, 0.0), (12, 0.7)])
def test_it_agrees_with_a_double_loop(pictures: int, shift: float) -> None:
    real, drawn = (side.astype(np.float64) for side in sets(1, shift, pictures))
    assert distance(real, drawn) == pytest.approx(plainly(real, drawn), abs=1e-12)
    assert distance(real, drawn[:2]) == pytest.approx(plainly(real, drawn[:2]), abs=1e-12), "sizes may differ"


def test_it_is_zero_on_average_where_both_are_alike() -> None:
    found = [distance(*sets(seed)) for seed in range(60)]
    assert abs(np.mean(found)) < 3 * np.std(found) / 60**0.5
    assert min(found) < 0 < max(found), "no bias: it may be negative"
    assert max(np.abs(found)) < 0.1


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.floats(1, 3), st.floats(0.5, 3))
def test_it_grows_as_drawings_move_away(seed: int, near: float, further: float) -> None:
    one, two = distance(*sets(seed, near)), distance(*sets(seed, near + further))
    assert 0 < one < two <= 2


def test_it_sees_drawings_that_are_all_the_same() -> None:
    real, drawn = sets(2)
    assert distance(real, np.repeat(real[:1], 30, axis=0)) > 0.2 > distance(real, drawn)


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.floats(1e-3, 1e3), st.floats(-100, 100))
def test_units_and_origin_of_the_features_do_not_matter(seed: int, unit: float, origin: float) -> None:
    real, drawn = (side.astype(np.float64) for side in sets(seed, 0.5))
    expected = distance(real, drawn)
    assert distance(unit * (real + origin), unit * (drawn + origin)) == pytest.approx(expected, abs=1e-6)


# ------------------------------------------------------------------------------------------------------------ resamples
@settings(max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 4))
def test_drawings_that_count_alike_give_the_value(seed: int, times: int) -> None:
    real, drawn = sets(seed, 0.3)
    found = replicates(real, drawn, np.stack([np.ones(30), np.full(30, times)]))
    np.testing.assert_allclose(found, distance(real, drawn), rtol=0, atol=1e-12)


def test_a_drawing_that_does_not_count_is_not_there() -> None:
    real, drawn = sets(3, 0.3)
    weights = (np.arange(30) < 20)[None].astype(float)
    assert replicates(real, drawn, weights)[0] == pytest.approx(distance(real, drawn[:20]), abs=1e-12)


def test_a_drawing_that_counts_twice_is_not_compared_with_itself() -> None:
    real, drawn = (side.astype(np.float64) for side in sets(4, 0.3, 6))
    counts = np.array([2, 2, 1, 1, 0, 0])
    copies = np.repeat(np.arange(6), counts)
    squared = ((real[:, None] - real) ** 2).sum(-1)
    width = np.median(squared[~np.eye(6, dtype=bool)])
    within_real = np.exp(-squared / width)[~np.eye(6, dtype=bool)].mean()
    pairs = [np.exp(-((drawn[i] - drawn[j]) ** 2).sum() / width) for i in copies for j in copies if i != j]
    across = np.exp(-((real[:, None] - drawn[copies]) ** 2).sum(-1) / width).mean()
    expected = within_real + np.mean(pairs) - 2 * across
    assert replicates(real, drawn, counts[None].astype(float))[0] == pytest.approx(expected, abs=1e-12)


def test_resamples_have_the_mean_of_the_value() -> None:
    real, drawn = sets(5, 0.5, 40)
    weights = np.random.default_rng(0).multinomial(40, np.full(40, 1 / 40), size=2000).astype(float)
    found = replicates(real, drawn, weights)
    assert found.shape == (2000,)
    assert found.mean() == pytest.approx(distance(real, drawn), abs=4 * found.std() / 2000**0.5)
