"""A curve over alpha: close to true passes where it says so, and honest where it is not."""

import json
import shutil
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ggez_hub import RegionalModel
from ggez_hub.errors import InputError
from ggez_hub.scoring.curve import CHANGED, ERROR, NODES, Curve, Scores, fit

GRID = np.linspace(0, 1, 101)
counts = st.sampled_from(range(3, len(NODES) + 1, 2))
fractions = st.floats(0, 1)
coefficients = st.floats(-1, 1, width=32)


class Passes:
    """True passes of one query per function, with as many options as the function has values; counts what is asked."""

    def __init__(self, *scores: Callable[[float], Sequence[float]]) -> None:
        self.scores, self.asked = scores, []

    def __call__(self, alphas: Sequence[float]) -> Scores:
        self.asked += alphas
        return self.at(alphas)

    def at(self, alphas: Sequence[float]) -> Scores:
        return [np.array([one(alpha) for alpha in alphas], np.float32) for one in self.scores]


def through(count: int, scores: Callable[[float], Sequence[float]]) -> Curve:
    return Curve(NODES[:count], Passes(scores).at(NODES[:count]), 0.0, 0.0)


def error(curve: Curve, passes: Passes) -> float:
    """The true error on a fine grid, in the unit of the curve's own."""
    known = np.concatenate([scores.ravel() for scores in curve.scores])
    pairs = zip(curve.at(GRID), passes.at(GRID), strict=True)
    return max(float(np.abs(found - true).max()) for found, true in pairs) / (float(np.ptp(known)) / 2)


def wave(speed: float) -> Callable[[float], list[float]]:
    return lambda alpha: [np.sin(speed * alpha), np.cos(speed * alpha) - 3]


# ---------------------------------------------------------------------------------------------------------------- curve
@given(counts, st.data())
def test_polynomials_of_a_lower_degree_than_nodes_are_exact(count: int, data: st.DataObject) -> None:
    degree = st.lists(coefficients, min_size=1, max_size=count)
    parts = [np.polynomial.Polynomial(data.draw(degree)) for _ in range(2)]
    found = through(count, lambda alpha: [part(alpha) for part in parts]).at(GRID)[0]
    np.testing.assert_allclose(found, np.stack([part(GRID) for part in parts], axis=1), rtol=0, atol=1e-5)


@given(counts, fractions, coefficients)
def test_nodes_give_the_true_pass_to_the_last_bit(count: int, start: float, slope: float) -> None:
    curve = through(count, lambda alpha: [np.exp(start + slope * alpha), slope / (1 + alpha)])
    np.testing.assert_array_equal(curve.at(curve.nodes)[0], curve.scores[0])


@given(counts, st.lists(fractions, max_size=5))
def test_every_alpha_gets_a_finite_score_in_the_shape_that_predict_gives(count: int, alphas: list[float]) -> None:
    passes = Passes(wave(3), lambda alpha: [alpha])
    curve = Curve(NODES[:count], passes.at(NODES[:count]), 0.0, 0.0)
    found = curve.at(alphas)
    assert [(part.shape, part.dtype) for part in found] == [((len(alphas), n), np.float32) for n in (2, 1)]
    assert all(np.isfinite(part).all() for part in found)


@pytest.mark.parametrize("alpha", [-0.001, 1.001, float("nan")])
def test_a_curve_does_not_go_beyond_its_ends(alpha: float) -> None:
    with pytest.raises(InputError, match="alphas"):
        through(5, wave(1)).at([0.5, alpha])


def test_each_pair_of_nodes_stands_where_those_before_it_leave_the_largest_error() -> None:
    fine = np.linspace(0, 1, 2001)
    for count in range(3, len(NODES), 2):
        size = np.abs(np.prod(fine[:, None] - np.array(NODES[:count]), axis=1))
        for node in NODES[count : count + 2]:
            assert np.abs(np.prod(node - np.array(NODES[:count]))) > 0.98 * size.max()
        assert sum(NODES[count : count + 2]) == pytest.approx(1)


# ------------------------------------------------------------------------------------------------------------------ fit
@given(st.floats(0.1, 5), st.floats(0.1, 5))
def test_the_stated_error_is_no_less_than_the_true_one_where_scores_are_smooth(first: float, second: float) -> None:
    passes = Passes(wave(first), wave(second))
    curve = fit(passes)
    assert curve.reliable
    assert curve.error <= ERROR
    assert error(curve, passes) <= max(curve.error, 1e-6)  # float32


def test_smoother_scores_need_fewer_passes_and_none_is_made_twice() -> None:
    needed = []
    for speed in (0.1, 1, 3, 5):
        passes = Passes(wave(speed))
        curve = fit(passes)
        assert curve.reliable
        assert tuple(passes.asked) == curve.nodes == NODES[: len(curve.nodes)]
        needed.append(len(curve.nodes))
    assert needed == sorted(needed)
    assert (needed[0], needed[-1]) == (5, 11)


def test_every_two_passes_lower_the_error() -> None:
    passes = Passes(wave(4))
    errors = [error(Curve(NODES[:count], passes.at(NODES[:count]), 0.0, 0.0), passes) for count in (3, 5, 7, 9, 11)]
    assert all(later < earlier / 5 for earlier, later in pairwise(errors))


@given(st.floats(0.03, 0.97))
def test_a_step_is_called_unreliable(place: float) -> None:
    passes = Passes(lambda alpha: [float(alpha > place), 0.5])
    curve = fit(passes)
    assert not curve.reliable
    assert len(passes.asked) == len(NODES)
    assert curve.error > 100 * ERROR


def test_scores_that_are_not_numbers_are_called_unreliable() -> None:
    assert not fit(Passes(wave(1), lambda alpha: [0.0, float("nan") if alpha == 0.5 else 1.0], wave(1))).reliable


@given(st.floats(0.01, 200), st.floats(-20, 20), st.floats(0.5, 6))
def test_logit_scale_and_bias_do_not_matter(scale: float, bias: float, speed: float) -> None:
    plain = fit(Passes(wave(speed)))
    scaled = fit(Passes(lambda alpha: [scale * score + bias for score in wave(speed)(alpha)]))
    assert scaled.error == pytest.approx(plain.error, rel=0.1, abs=max(1, abs(bias) / scale) * 1e-6)


def test_the_stated_error_is_that_at_the_last_two_nodes_before_they_took_part() -> None:
    scores = (lambda alpha: [np.cos(2 + alpha), np.cos(4 * alpha)], lambda alpha: [np.cos(3 * alpha)])
    curve = fit(Passes(*scores))
    before = len(curve.nodes) - 2
    worst = 0.0
    for one in scores:
        found, true = through(before, one).at(curve.nodes[before:])[0], Passes(one).at(curve.nodes[before:])[0]
        worst = max(worst, float(np.abs(found - true).max()))
    cosines = np.concatenate([part.ravel() for part in curve.scores])
    assert curve.error == pytest.approx(worst / ((cosines.max() - cosines.min()) / 2))
    assert curve.error >= worst  # so a bound on it holds for the cosines themselves


def test_changed_answers_are_counted_by_query() -> None:
    """A tie in noise, in one query of four: its scores are near enough, its answers are not."""

    def close(alpha: float) -> list[float]:
        return [1.0, 1.0 + 2e-6 * np.sin(10400 * alpha)]  # flips one of any two

    curve = fit(Passes(wave(1), wave(1), wave(1), close))
    assert curve.error <= ERROR
    assert curve.changed == 0.25 > CHANGED
    assert not curve.reliable
    assert fit(Passes(wave(1), wave(1), wave(1))).reliable


def test_constant_scores_single_options_and_no_queries_are_no_trouble() -> None:
    passes = Passes(lambda alpha: [7.1], lambda alpha: [7.1, 7.1], lambda alpha: [])
    curve = fit(passes)
    assert (curve.reliable, curve.error, curve.changed, len(curve.nodes)) == (True, 0, 0, 5)
    assert [part.tolist() for part in curve.at([0.3])] == [[[np.float32(7.1)]], [[np.float32(7.1)] * 2], [[]]]
    assert fit(lambda alphas: []).at([0.3]) == []


# ---------------------------------------------------------------------------------------------------------------- model
@pytest.mark.parametrize(("strength", "reliable"), [(1, True), (20, False)])
def test_a_real_model_keeps_what_its_curve_states(
    tmp_path: Path, tiny_base: Path, tiny_adapter: Path, strength: int, reliable: bool
) -> None:
    folder = tmp_path / "lora"
    shutil.copytree(tiny_adapter, folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": strength}))
    facts = {"schema": 1, "artefact": "adapter", "recipe": "tiny", "family": "embedding", "region": "sea", "alpha": 0.4,
             "base": {"id": str(tiny_base), "revision": None}, "synthetic": True}  # fmt: skip
    (folder / "ggez.json").write_text(json.dumps(facts))
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    model = RegionalModel.from_pretrained(folder)
    options = ["a red thing", "a blue thing", "nothing"]
    queries = [{"image": Image.new("RGB", (40, 40), color), "options": options} for color in ("red", "blue", "gold")]

    curve = fit(lambda alphas: model.predict(queries, alphas=alphas))
    held_out = (0.05, 0.15, 0.3, 0.45, 0.7, 0.85, 0.95)
    found, true = np.stack(curve.at(held_out)), np.stack(model.predict(queries, alphas=held_out))
    unit = np.ptp(np.stack(curve.scores)) / 2
    assert np.abs(true - true[:, :1]).max() > 100 * ERROR * unit, "alpha has no effect"
    assert np.abs(found - true).max() <= curve.error * unit
    assert curve.reliable == reliable, curve.error
    np.testing.assert_array_equal(np.stack(curve.at([0, 1])), np.stack(model.predict(queries, alphas=[0, 1])))
