"""Intervals by bootstrap, paired over alpha: every resample asks the same questions of every alpha.

Questions about the same picture are drawn together (clusters), as they are not independent of each other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ggez_hub import method

if TYPE_CHECKING:
    import numpy as np

LEVEL = 0.95


@dataclass(frozen=True)
class Answers:
    """How good the answers to one benchmark's questions are, at every alpha."""

    benchmark: str
    clusters: Sequence[str]  # [questions]
    values: "np.ndarray"  # [alphas, questions], 0..1: right or wrong, or graded


def quality(side: Sequence[Answers]) -> "np.ndarray":
    """Quality of a side at every alpha, [alphas]: the unweighted mean over its benchmarks (paper, section 5.4)."""
    import numpy as np

    values: np.ndarray = np.mean([answers.values.mean(axis=1) for answers in side], axis=0)
    return values


def draws(clusters: Sequence[str], resamples: int, seed: int) -> "np.ndarray":
    """How often every item counts in each resample, [resamples, items]; items of one cluster are drawn together."""
    places = {name: i for i, name in enumerate(dict.fromkeys(clusters))}
    return _weights(len(places), resamples, seed)[:, [places[name] for name in clusters]]


def _weights(total: int, resamples: int, seed: int) -> "np.ndarray":
    """How often each of `total` clusters is drawn, [resamples, total]."""
    import numpy as np

    rng = np.random.default_rng(seed)
    return rng.multinomial(total, np.full(total, 1 / total), size=resamples).astype(np.float64)


def resample(side: Sequence[Answers], resamples: int, seed: int) -> "np.ndarray":
    """Bootstrap replicates of each benchmark's value, [benchmarks, resamples, alphas].

    The mean over the first axis gives replicates of the side's quality.
    """
    import numpy as np

    places = {name: i for i, name in enumerate(dict.fromkeys(c for answers in side for c in answers.clusters))}
    weights = _weights(len(places), resamples, seed)
    result = []
    for answers in side:
        at = np.array([places[c] for c in answers.clusters])
        right = np.stack([np.bincount(at, weights=row, minlength=len(places)) for row in answers.values], axis=1)
        asked = weights @ np.bincount(at, minlength=len(places))
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


def change(qualities: Mapping[str, tuple[float, float]], replicates: "Mapping[str, np.ndarray]") -> dict[str, Any]:
    """Gain and retention (paper, section 4.1) with paired intervals.

    Args:
        qualities: Of the sides ``global`` and ``regional``: before (alpha = 0) and after.
        replicates: Bootstrap replicates of the same, [resamples, 2].

    Returns:
        gain, gain_ci95, retention, retention_ci95; None where the quality before is 0.
    """
    import numpy as np

    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = {side: part[:, 1] / part[:, 0] for side, part in replicates.items()}
    return {
        "gain": method.gain(qualities["regional"][1], qualities["regional"][0]),
        "gain_ci95": interval(ratios["regional"] - 1),
        "retention": method.retention(qualities["global"][1], qualities["global"][0]),
        "retention_ci95": interval(ratios["global"]),
    }
