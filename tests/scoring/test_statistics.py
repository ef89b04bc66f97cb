"""Intervals: that they hold what they promise, on data whose truth is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ggez_hub.scoring.statistics import Answers, interval, quality, resample

RNG = np.random.default_rng


def answers(correct: np.ndarray | list[list[bool]], clusters: list[str] | None = None, name: str = "a") -> Answers:
    correct = np.asarray(correct, bool)
    return Answers(name, clusters or [f"{name}{i}" for i in range(correct.shape[1])], correct)


def drawn(rng: np.random.Generator, share: float, count: int, name: str = "a") -> Answers:
    return answers([rng.random(count) < share], name=name)


def width(bounds: list[float] | None) -> float:
    assert bounds is not None
    return bounds[1] - bounds[0]


# -------------------------------------------------------------------------------------------------------------- quality
def test_quality_is_the_mean_over_benchmarks_however_large_they_are() -> None:
    small = answers([[True, False], [True, True]])
    large = answers([[True] * 9 + [False], [False] * 10], name="b")
    np.testing.assert_allclose(quality([small, large]), [(0.5 + 0.9) / 2, (1.0 + 0.0) / 2])
    np.testing.assert_allclose(quality([small]), [0.5, 1.0])


@given(st.lists(arrays(bool, st.tuples(st.just(3), st.integers(1, 8))), min_size=1, max_size=4))
def test_quality_lies_between_its_benchmarks(parts: list[np.ndarray]) -> None:
    means = np.array([part.mean(axis=1) for part in parts])
    found = quality([answers(part) for part in parts])
    assert (found >= means.min(axis=0) - 1e-12).all()
    assert (found <= means.max(axis=0) + 1e-12).all()


# ----------------------------------------------------------------------------------------------------------- replicates
def test_replicates_gather_around_the_value_and_follow_their_seed() -> None:
    side = [answers([[True] * 210 + [False] * 90]), answers([[True] * 40 + [False] * 60], name="b")]
    found = resample(side, 500, seed=3)
    assert found.shape == (2, 500, 1)
    assert found.min() >= 0
    assert found.max() <= 1
    np.testing.assert_allclose(found.mean(axis=(1, 2)), [0.7, 0.4], atol=0.01)
    np.testing.assert_allclose(found.mean(), quality(side)[0], atol=0.01)
    np.testing.assert_array_equal(found, resample(side, 500, seed=3))
    assert (found != resample(side, 500, seed=4)).any()


def test_the_spread_is_that_of_the_mean() -> None:
    side = [answers([[True] * 100 + [False] * 300])]
    assert resample(side, 4000, 0).std() == pytest.approx(np.sqrt(0.25 * 0.75 / 400), rel=0.05)


def test_equal_answers_at_two_alphas_differ_by_exactly_nothing() -> None:
    right = RNG(0).random(200) < 0.6
    replicates = resample([answers([right, right, ~right])], 300, 0)[0]
    assert interval(replicates[:, 0] - replicates[:, 1]) == [0, 0]
    assert interval(replicates[:, 1] / replicates[:, 0]) == [1, 1]
    assert width(interval(replicates[:, 0] - replicates[:, 2])) > 0


def test_a_difference_is_surer_than_its_two_sides() -> None:
    """Two alphas that differ in few questions: paired resampling knows that the rest is the same."""
    before = RNG(0).random(300) < 0.5
    after = before.copy()
    after[:10] = True
    replicates = resample([answers([before, after])], 1000, 0)[0]
    assert width(interval(replicates[:, 1] - replicates[:, 0])) < 0.4 * width(interval(replicates[:, 0]))


def test_questions_about_the_same_picture_are_drawn_together_in_all_benchmarks() -> None:
    right, names = [RNG(0).random(100) < 0.5], [str(i) for i in range(100)]
    first, second = resample([answers(right, names), answers(right, names, "b")], 200, 0)
    np.testing.assert_array_equal(first, second)
    first, second = resample([answers(right, names), answers(right, name="b")], 200, 0)
    assert abs(np.corrcoef(first[:, 0], second[:, 0])[0, 1]) < 0.3


def test_duplicated_questions_do_not_make_the_interval_narrower() -> None:
    right = RNG(0).random(100) < 0.5
    names = [str(i) for i in range(100)]
    once = width(interval(resample([answers([right], names)], 2000, 0)[0, :, 0]))
    clustered = width(interval(resample([answers([np.tile(right, 4)], names * 4)], 2000, 0)[0, :, 0]))
    apart = width(interval(resample([answers([np.tile(right, 4)])], 2000, 0)[0, :, 0]))
    assert clustered == pytest.approx(once, rel=0.05)
    assert apart == pytest.approx(once / 2, rel=0.15)


# ------------------------------------------------------------------------------------------------------------- coverage
def share_held(truth: float, sides: list[list[Answers]], resamples: int = 250) -> float:
    bounds = [interval(resample(side, resamples, seed).mean(axis=0)[:, 0]) for seed, side in enumerate(sides)]
    return float(np.mean([b is not None and b[0] <= truth <= b[1] for b in bounds]))


def test_about_95_of_100_intervals_hold_the_truth() -> None:
    rng = RNG(0)
    assert 0.90 <= share_held(0.7, [[drawn(rng, 0.7, 150)] for _ in range(200)]) <= 0.985


def test_about_95_of_100_intervals_of_a_mean_of_benchmarks_hold_the_truth() -> None:
    rng = RNG(0)
    sides = [[drawn(rng, 0.8, 60), drawn(rng, 0.3, 120, "b")] for _ in range(200)]
    assert 0.90 <= share_held(0.55, sides) <= 0.985


def test_clusters_keep_the_promise_that_single_questions_would_break() -> None:
    rng = RNG(0)
    names = [str(i) for i in range(60)]
    rights = [np.tile(rng.random(60) < 0.6, 4) for _ in range(200)]
    assert 0.90 <= share_held(0.6, [[answers([right], names * 4)] for right in rights]) <= 0.985
    assert share_held(0.6, [[answers([right])] for right in rights]) < 0.8


# ------------------------------------------------------------------------------------------------------------- interval
def test_the_interval_is_the_middle_95_of_100() -> None:
    assert interval(RNG(0).permutation(np.arange(1001) / 10)) == pytest.approx([2.5, 97.5])


def test_a_ratio_to_zero_has_no_interval() -> None:
    replicates = resample([answers([[False] * 20, [True] * 10 + [False] * 10])], 100, 0)[0]
    with np.errstate(divide="ignore", invalid="ignore"):
        assert interval(replicates[:, 1] / replicates[:, 0]) is None
        assert interval(replicates[:, 0] / replicates[:, 0]) is None
    assert interval(np.full(10, np.nan)) is None


def test_a_few_replicates_that_say_nothing_are_left_out_and_many_are_not() -> None:
    values = np.linspace(0, 1, 100)
    values[:4] = np.nan
    assert interval(values) == pytest.approx([0.04 / 0.99 + 0.025 * 0.96, 1 - 0.025 * 0.96], abs=0.01)
    values[:6] = np.inf
    assert interval(values) is None


def test_a_benchmark_that_resamples_can_miss_has_an_interval_only_if_they_rarely_do() -> None:
    large = answers([RNG(0).random(200) < 0.5])
    single, several = answers([[True]], name="b"), answers([[True, False] * 4], name="b")
    assert interval(resample([large, single], 300, 0)[1, :, 0]) is None
    assert interval(resample([large, several], 300, 0)[1, :, 0]) is not None


@given(arrays(np.float64, st.integers(1, 40), elements=st.floats(-1e6, 1e6) | st.just(float("nan"))))
def test_an_interval_is_ordered_and_within_its_replicates(replicates: np.ndarray) -> None:
    bounds = interval(replicates)
    if bounds is not None:
        low, high = bounds
        assert np.nanmin(replicates) <= low <= high <= np.nanmax(replicates)


@given(arrays(bool, st.tuples(st.integers(1, 3), st.integers(1, 12))), st.integers(0, 5), st.data())
def test_replicates_of_any_answers_are_fractions(correct: np.ndarray, seed: int, data: st.DataObject) -> None:
    clusters = [str(data.draw(st.integers(0, 3))) for _ in range(correct.shape[1])]
    found = resample([answers(correct, clusters)], 20, seed)
    assert found.shape == (1, 20, correct.shape[0])
    assert ((found >= 0) & (found <= 1)).all()
    constant = correct.all(axis=1)
    assert (found[0, :, constant] == 1).all()
