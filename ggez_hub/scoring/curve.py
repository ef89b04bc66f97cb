"""Scores at every alpha from a few true passes: a polynomial in alpha, with an error that is measured, not assumed."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ggez_hub.errors import InputError

if TYPE_CHECKING:
    import numpy as np

Scores = list["np.ndarray"]  # one per query: float32 [alphas, options]

# Leja points in pairs, rounded: each pair stands where a polynomial through those before it errs most, which is the
# place to judge that polynomial, and then to mend it. Chebyshev nodes err as little, but keep earlier passes only where
# their number doubles: 3, 5, 9, 17.
NODES = (0.0, 0.5, 1.0, 0.211, 0.789, 0.08, 0.92, 0.362, 0.638, 0.028, 0.972)
ERROR = 1e-4  # of a score, in units of half the range of the scores
CHANGED = 1e-3  # share of the queries


@dataclass(frozen=True)
class Curve:
    """Scores as a continuous function of alpha. It cannot see what happens only between its nodes.

    So an alpha that is chosen by it has to be confirmed by a true pass.

    Attributes:
        nodes: The alphas of the true passes.
        scores: What the passes gave: one float32 array per query, [nodes, options].
        error: Largest error of a score on the last two nodes while they took no part in the curve, in units of half the
            range of all scores. So a model's logit scale and bias do not matter. Cosines lie in -1..1: their error is
            this number or less.
        changed: Share of the queries whose best option was another than the true one there.
    """

    nodes: tuple[float, ...]
    scores: Scores
    error: float
    changed: float

    @property
    def reliable(self) -> bool:
        """Whether the measured error is within ERROR (1e-4), and the changed answers within CHANGED (0.1%)."""
        return self.error <= ERROR and self.changed <= CHANGED

    def at(self, alphas: Sequence[float]) -> Scores:
        """Scores at any alphas, 0..1: one float32 array per query, [alphas, options]. At nodes they are the true ones.

        Raises:
            InputError: An alpha outside 0..1.
        """
        import numpy as np

        wanted, known = np.array(alphas, np.float64), np.array(self.nodes)
        if not ((wanted >= 0) & (wanted <= 1)).all():
            raise InputError(f"alphas {list(alphas)}: expected numbers from 0 (global base) to 1 (region)")
        # Lagrange's form, [alphas, nodes]: exactly 1 at a node's own place, exactly 0 at those of the others.
        others = [np.delete(known, i) for i in range(len(known))]
        factors = [(wanted[:, None] - rest) / (node - rest) for node, rest in zip(known, others, strict=True)]
        weights = np.stack([part.prod(axis=1) for part in factors], axis=1)
        return [(weights @ scores).astype(np.float32) for scores in self.scores]


def fit(predict: Callable[[Sequence[float]], Scores]) -> Curve:
    """Draws a curve through as few true passes as make it reliable: 5, 7, 9 or 11.

    Every two passes first judge the curve through those before them, and then become nodes themselves. So the error
    that a curve states was measured on a coarser one; where scores are smooth in alpha, its own is a fraction of that.

    Args:
        predict: Makes true passes at the alphas it is given: one float32 array per query, [alphas, options].

    Returns:
        The first reliable curve. If none is, the one through all NODES: its `reliable` is False.
    """
    import numpy as np

    curve = Curve(NODES[:3], predict(NODES[:3]), math.inf, 1.0)
    while not curve.reliable and len(curve.nodes) < len(NODES):
        fresh = NODES[len(curve.nodes) :][:2]
        true = predict(fresh)
        scores = [np.concatenate(both) for both in zip(curve.scores, true, strict=True)]
        curve = Curve(curve.nodes + fresh, scores, *_judge(curve.at(fresh), true, scores))
    return curve


def _judge(found: Scores, true: Scores, known: Scores) -> tuple[float, float]:
    """The error, in units of half the range of all known scores, and the share of queries with a changed answer."""
    import numpy as np

    pairs = [(f, t) for f, t in zip(found, true, strict=True) if t.size]
    if not pairs:
        return 0.0, 0.0
    worst = max(np.abs(f - t).max() for f, t in pairs)
    unit = np.ptp(np.concatenate([scores.ravel() for scores in known])) / 2  # NaN if any score is
    changed = np.mean([(f.argmax(axis=1) != t.argmax(axis=1)).any() for f, t in pairs])
    return float(worst / unit if unit else worst), float(changed)
