"""Where to measure next: the choice of the full grid, from far fewer alphas."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ggez_hub import grp
from ggez_hub.method import choose_alpha
from ggez_hub.scoring.search import grid_size, next_alphas
from ggez_hub.scoring.statistics import Answers, interval, quality, resample

START = (0.0, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0)
GRID = [k / 100 for k in range(101)]
GLOBALIZATION = 0.434
WIG = 0


class World:
    """Qualities and bootstrap replicates at every alpha of a grid; counts what is asked of it."""

    def __init__(self, points: list[dict[str, float]], replicates: np.ndarray) -> None:
        self.points = points
        self.replicates = replicates  # of GRP: [resamples, alphas]
        self.place = {point["alpha"]: i for i, point in enumerate(points)}

    def search(
        self, start: Sequence[float] = START, min_retention: float | None = 0.98, resolution: float = 0.01
    ) -> list[float]:
        """All alphas that a search measures."""
        measured = list(start)
        while wanted := next_alphas(*self.at(measured), start, min_retention, resolution):
            assert not set(wanted) & set(measured), "an alpha is measured twice"
            measured = sorted([*measured, *wanted])
        return measured

    def at(self, alphas: Sequence[float]) -> tuple[list[dict[str, float]], np.ndarray]:
        places = [self.place[alpha] for alpha in alphas]
        return [self.points[i] for i in places], self.replicates[:, places]

    def choice(self, alphas: Sequence[float], min_retention: float | None = 0.98) -> tuple[float, float]:
        chosen, best = choose_alpha(self.at(alphas)[0], min_retention)
        return chosen["alpha"], best["alpha"]

    def apart(self, one: float, other: float) -> bool:
        bounds = interval(self.replicates[:, self.place[one]] - self.replicates[:, self.place[other]])
        assert bounds is not None
        return not bounds[0] <= 0 <= bounds[1]


def exact(global_: Sequence[float], grps: Sequence[float], alphas: Sequence[float] = GRID) -> World:
    """Qualities without noise, as endless questions would give them: all that differs is told apart."""
    points = [
        {"alpha": alpha, "global": g, "regional": 0.5, "grp": parity}
        for alpha, g, parity in zip(alphas, global_, grps, strict=True)
    ]
    return World(points, np.tile(grps, (50, 1)))


def asked(
    global_: Sequence[float], regional: Sequence[float], questions: int, luck: float = 0.0, seed: int = 0
) -> World:
    """Qualities as so many questions a side find them; with luck, some become harder over alpha and others easier."""
    rng = np.random.default_rng(seed)
    sides = []
    for name, truth in (("global", global_), ("regional", regional)):
        hard = rng.random(questions) if luck else (rng.permutation(questions) + 0.5) / questions
        right = hard + np.outer(GRID, rng.normal(0, luck, questions)) < np.array(truth)[:, None]
        sides.append([Answers(name, [str(i) for i in range(questions)], right)])
    points = [
        {"alpha": alpha, "global": g, "regional": r, "grp": grp(g, r, GLOBALIZATION)}
        for alpha, g, r in zip(GRID, *(quality(side) for side in sides), strict=True)
    ]
    replicates: Any = grp(*(resample(side, 300, i).mean(axis=0) for i, side in enumerate(sides)), GLOBALIZATION)
    return World(points, replicates)


def trade(fall: float, late: float, rise: float, soon: float) -> tuple[list[float], list[float]]:
    """Global quality that falls, and regional quality that rises ever less, over alpha."""
    return [0.9 - fall * x**late for x in GRID], [0.5 + rise * (1 - (1 - x) ** soon) for x in GRID]


@st.composite
def hills(draw: st.DrawFn) -> list[float]:
    """Curves that rise to a top anywhere and fall from it: each flank flat or steep at first."""
    top, left, right = draw(st.floats(0, 1)), draw(st.floats(0.3, 4)), draw(st.floats(0.3, 4))
    height = draw(st.floats(0.1, 10))
    return [-height * (top - x) ** left if x < top else -((x - top) ** right) for x in GRID]


falling = st.tuples(st.floats(0.01, 0.9), st.floats(0.3, 3)).map(lambda f: [1 - f[0] * x ** f[1] for x in GRID])
trades = st.builds(trade, st.floats(0, 0.3), st.floats(1, 3), st.floats(0, 0.4), st.floats(1, 3))


# ----------------------------------------------------------------------------------------------------------- the choice
@settings(max_examples=300)
@given(hills(), falling, st.sampled_from([None, 0.9, 0.98, 0.999]))
def test_exact_curves_give_both_choices_of_the_full_grid_from_a_quarter_of_it(
    grps: list[float], global_: list[float], min_retention: float | None
) -> None:
    world = exact(global_, grps)
    measured = world.search(min_retention=min_retention)
    assert world.choice(measured, min_retention) == world.choice(GRID, min_retention)
    assert len(measured) <= 26


@pytest.mark.slow
@settings(max_examples=60, derandomize=True)  # likely, not certain: hence always the same examples
@given(trades, st.sampled_from([100, 400, 1000]), st.sampled_from([None, 0.98]))
def test_questions_without_luck_give_choices_that_cannot_be_told_from_those_of_the_full_grid(
    curves: tuple[list[float], list[float]], questions: int, min_retention: float | None
) -> None:
    world = asked(*curves, questions)
    measured = world.search(min_retention=min_retention)
    for mine, theirs in zip(world.choice(measured, min_retention), world.choice(GRID, min_retention), strict=True):
        assert not world.apart(mine, theirs)


@pytest.mark.slow
def test_with_luck_the_choice_is_as_near_to_the_truth_as_that_of_the_full_grid() -> None:
    rng = np.random.default_rng(0)
    distance: dict[str, list[float]] = {"search": [], "grid": [], "start": []}
    used = []
    for seed in range(40):
        curves = trade(rng.uniform(0, 0.3), rng.uniform(1, 3), rng.uniform(0, 0.4), rng.uniform(1, 3))
        truth = exact(curves[0], [grp(g, r, GLOBALIZATION) for g, r in zip(*curves, strict=True)]).choice(GRID)
        world = asked(*curves, 1000, luck=0.15, seed=seed)
        measured = world.search()
        used.append(len(measured))
        for name, alphas in (("search", measured), ("grid", GRID), ("start", START)):
            distance[name] += [abs(mine - best) for mine, best in zip(world.choice(alphas), truth, strict=True)]
    search, grid, start = (np.mean(values) for values in distance.values())
    assert search < 1.15 * grid
    assert search < 0.9 * start
    assert np.mean(used) < 13


# ---------------------------------------------------------------------------------------------------- where it searches
def test_hill_between_two_equal_ends_is_found() -> None:
    world = exact([1.0] * 101, [-abs(x - 0.75) for x in GRID])
    points, replicates = world.at([0.0, 0.5, 1.0])
    assert points[1]["grp"] == points[2]["grp"]
    assert 0.75 in next_alphas(points, replicates, (0.0, 0.5, 1.0), 0.98, 0.01)


def test_flat_curve_is_settled_when_every_interval_beside_the_choice_was_halved_once() -> None:
    world = exact([1.0] * 101, [0.7] * 101)
    assert world.search((0.0, 0.5, 1.0)) == [0.0, 0.25, 0.5, 1.0]  # of equal GRPs the smallest alpha is chosen


@pytest.mark.parametrize("questions", [10, 40])
def test_few_questions_stop_the_search_early(questions: int) -> None:
    used = [len(asked(*trade(0.1, 2, 0.3, 2), questions, luck=0.15, seed=seed).search()) for seed in range(20)]
    assert max(used) <= len(START) + 5


def test_optimum_at_the_border_of_retention_is_found_where_grp_still_rises_through_it() -> None:
    world = exact([1 - 0.05 * x for x in GRID], [x - 0.01 * x**2 for x in GRID])  # 98% are kept up to 0.4
    measured = world.search()
    assert world.choice(measured) == (0.4, 1.0)
    assert {0.4, 0.41} <= set(measured)
    assert not [alpha for alpha in measured if 0.1 < alpha < 0.25], "GRP rises there: nothing to find"


def test_border_is_searched_though_a_dip_before_it_hides_it_from_the_choice() -> None:
    grps = [0.5 + 0.4 * x - 0.2 * math.exp(-(((x - 0.5) / 0.1) ** 2)) for x in GRID]
    world = exact([1.0 if x <= 0.7 else 0.9 for x in GRID], grps)
    points, replicates = world.at(START)
    assert choose_alpha(points)[0]["alpha"] == 0.25
    assert 0.62 in next_alphas(points, replicates, START, 0.98, 0.01)
    assert world.choice(world.search())[0] == 0.7


def test_lost_border_without_a_higher_grp_behind_it_is_left_alone() -> None:
    world = exact([1.0 if x <= 0.6 else 0.9 for x in GRID], [-abs(x - 0.07) for x in GRID])
    assert [alpha for alpha in world.search() if alpha > 0.25] == [0.5, 0.75, 1.0]


def test_ratios_without_an_interval_settle_the_search() -> None:
    world = exact([1.0] * 101, GRID)
    world.replicates[:] = np.nan
    assert len(world.search()) == len(START) + 1


# ---------------------------------------------------------------------------------------------------------- the lattice
@given(st.floats(0.02, 0.5), st.lists(st.floats(0, 1), max_size=3), hills())
def test_only_multiples_of_the_resolution_are_added(resolution: float, given_: list[float], grps: list[float]) -> None:
    start = sorted({0.0, 1.0, *given_})
    measured = list(start)
    for _ in range(60):
        points = [{"alpha": x, "global": 1.0, "grp": float(np.interp(x, GRID, grps))} for x in measured]
        replicates = np.tile([point["grp"] for point in points], (10, 1))
        wanted = next_alphas([p | {"regional": 1.0} for p in points], replicates, start, 0.98, resolution)
        if not wanted:
            break
        for alpha in wanted:
            assert alpha not in measured
            assert 0 < alpha < 1
            assert alpha / resolution == pytest.approx(round(alpha / resolution), abs=1e-6)
        measured = sorted([*measured, *wanted])
    assert not wanted
    assert len(measured) <= len(start) + grid_size(resolution) - 2


def test_size_of_a_full_grid_counts_both_ends() -> None:
    assert [grid_size(step) for step in (0.01, 0.02, 0.5, 0.3, 0.3333333333)] == [101, 51, 3, 5, 4]
