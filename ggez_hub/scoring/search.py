"""Where measuring another alpha can still change which one is chosen, and where it cannot any more."""

import math
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from ggez_hub.method import Point, choose_alpha
from ggez_hub.scoring.statistics import interval

if TYPE_CHECKING:
    import numpy as np


def next_alphas(
    points: Sequence[Point],
    replicates: "np.ndarray",
    start: Collection[float],
    min_retention: float | None,
    resolution: float,
) -> list[float]:
    """The alphas that are worth measuring next; none when the choice stands.

    GRP is taken to be one hill over alpha, so its top lies beside the highest measured point, on the far side of no
    other. Three kinds of points are looked at: the chosen one, that of the plain rule, and the last one that keeps its
    global quality where the next one loses it but has a higher GRP than the choice, as the optimum then is at that
    border. Beside each, an interval is halved until it holds no multiple of the resolution, or is flat: its ends, and a
    third measured point next to them, have GRPs that a paired bootstrap interval cannot tell apart.

    Args:
        points: One mapping per measured alpha, rising from 0 to 1: what `method.choose_alpha` takes.
        replicates: GRP in bootstrap resamples, paired over alpha: [resamples, points].
        start: The alphas that were measured first; no interval between two of them is flat before it was halved once.
        min_retention: As in `method.choose_alpha`.
        resolution: Finest step, 0..1.

    Returns:
        Multiples of the resolution that are not measured yet, at most one per point that is looked at, rising.

    Raises:
        InputError: What `method.choose_alpha` raises.
    """
    alphas, grps = [point["alpha"] for point in points], [point["grp"] for point in points]

    def apart(i: int, j: int) -> bool:
        bounds = interval(replicates[:, i] - replicates[:, j])
        return bounds is not None and not bounds[0] <= 0 <= bounds[1]

    def flat(i: int, j: int) -> bool:
        # Equal ends alone mean nothing: the top of the hill may lie between them. With a third point that is equal too,
        # a hill that rises above them by more than they differ would have to be steeper inside than it is outside. The
        # third is about as far away as the ends are from each other (the other half of an interval that was halved),
        # except beside an interval of the start: hence the rule about these.
        thirds = [k for k in (2 * j - i, 2 * i - j) if 0 <= k < len(points)]
        halved = not (alphas[i] in start and alphas[j] in start)
        return halved and not apart(i, j) and not all(apart(i, k) for k in thirds)

    wanted = set()
    for i in _tops(points, min_retention):
        beside = [j for j in (i - 1, i + 1) if 0 <= j < len(points)]
        # A higher neighbour has lost its global quality, and GRP rises towards it: the other side has nothing better.
        higher = [j for j in beside if grps[j] > grps[i]]
        middles = {j: _middle(alphas[min(i, j)], alphas[max(i, j)], resolution) for j in higher or beside}
        unsettled = [j for j, middle in middles.items() if middle is not None and not flat(i, j)]
        if unsettled:  # the wider side first: one that stays wide would hide a hill; then the one that looks better
            wanted.add(middles[max(unsettled, key=lambda j: (round(abs(alphas[j] - alphas[i]), 9), grps[j]))])
    return sorted(alpha for alpha in wanted if alpha is not None)


def grid_size(resolution: float) -> int:
    """How many alphas a full grid of that step has, both ends among them."""
    return math.ceil(round(1 / resolution, 9)) + 1


def _tops(points: Sequence[Point], min_retention: float | None) -> list[int]:
    """Places of the points beside which something better may lie."""
    chosen, best = choose_alpha(points, min_retention)

    def kept(point: Point) -> bool:
        """Whether a point keeps its global quality; asks the rule itself, which would take it if its GRP were best."""
        rivals = [{**points[0], "grp": 0.0}, {**point, "grp": 1.0}]
        return bool(choose_alpha(rivals, min_retention)[0]["alpha"] == point["alpha"])

    keeps = [kept(point) for point in points]
    tops = {points.index(chosen), points.index(best)}
    for i, point in enumerate(points):
        beside = [j for j in (i - 1, i + 1) if 0 <= j < len(points)]
        if keeps[i] and any(points[j]["grp"] > max(chosen["grp"], point["grp"]) for j in beside):
            tops.add(i)
    return sorted(tops)


def _middle(low: float, high: float, resolution: float) -> float | None:
    """The multiple of the resolution nearest to the middle of an interval, or None if there is none inside."""
    # Rounded, because 0.07 / 0.01 is more than 7.
    inside = range(math.floor(round(low / resolution, 9)) + 1, math.ceil(round(high / resolution, 9)))
    if not inside:
        return None
    return round(min(max(round((low + high) / 2 / resolution), inside[0]), inside[-1]) * resolution, 12)
