"""Intervals by bootstrap, paired over alpha: every resample asks the same questions of every alpha.

Questions about the same picture are drawn together (clusters), as they are not independent of each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

LEVEL = 0.95


@dataclass(frozen=True)
class Answers:
    """Which questions of one benchmark were answered right, at every alpha."""

    benchmark: str
    clusters: Sequence[str]  # [questions]
    correct: "np.ndarray"  # bool [alphas, questions]


def quality(side: Sequence[Answers]) -> "np.ndarray":
    """Quality of a side at every alpha, [alphas]: the unweighted mean over its benchmarks (paper, section 5.4)."""
    import numpy as np

    values: np.ndarray = np.mean([answers.correct.mean(axis=1) for answers in side], axis=0)
    return values


def resample(side: Sequence[Answers], resamples: int, seed: int) -> "np.ndarray":
    """Bootstrap replicates of each benchmark's value, [benchmarks, resamples, alphas].

    The mean over the first axis gives replicates of the side's quality.
    """
    import numpy as np

    places = {name: i for i, name in enumerate(dict.fromkeys(c for answers in side for c in answers.clusters))}
    total = len(places)
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(total, np.full(total, 1 / total), size=resamples).astype(np.float64)
    result = []
    for answers in side:
        at = np.array([places[c] for c in answers.clusters])
        right = np.stack([np.bincount(at, weights=row, minlength=total) for row in answers.correct], axis=1)
        asked = weights @ np.bincount(at, minlength=total)
        # A resample may miss a small benchmark altogether: it then says nothing of it.
        result.append(weights @ right / np.where(asked > 0, asked, np.nan)[:, None])
    return np.stack(result)


def interval(replicates: "np.ndarray") -> list[float] | None:
    """The middle 95% of replicates, [low, high]; None if they are not numbers (a ratio to zero)."""
    import numpy as np

    finite = replicates[np.isfinite(replicates)]
    if len(finite) < LEVEL * len(replicates):
        return None
    low, high = np.quantile(finite, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return [float(low), float(high)]
