"""How far the features of drawings are from those of real pictures: the squared maximum mean discrepancy.

Unbiased (Gretton et al. 2012, lemma 6), with a Gaussian kernel as wide as the median distance of real pictures. Unlike
a Frechet distance it does not need thousands of pictures. Near 0 = alike; lower is better.
"""

from typing import TYPE_CHECKING

from ggez_hub.errors import InputError

if TYPE_CHECKING:
    import numpy as np


def distance(real: "np.ndarray", drawn: "np.ndarray") -> float:
    """The squared maximum mean discrepancy of two sets of features, [pictures, features] each.

    Raises:
        InputError: Fewer than two pictures on either side.
    """
    import numpy as np

    if min(len(real), len(drawn)) < 2:
        raise InputError("a distance between drawings and real pictures needs two of each", "ask more questions")
    return float(replicates(real, drawn, np.ones((1, len(drawn))))[0])


def replicates(real: "np.ndarray", drawn: "np.ndarray", weights: "np.ndarray") -> "np.ndarray":
    """The same where every drawing counts a number of times: [resamples].

    Args:
        real: Features of real pictures, [pictures, features].
        drawn: Features of drawings, [drawings, features].
        weights: How often each drawing counts, [resamples, drawings].
    """
    import numpy as np

    squared = _squared(real, real)
    pairs = squared[~np.eye(len(real), dtype=bool)]
    width = np.median(pairs) or 1.0
    kernels = [np.exp(-part / width) for part in (squared, _squared(drawn, drawn), _squared(real, drawn))]
    np.fill_diagonal(kernels[1], 0)  # a picture is not compared with itself, also where it counts twice
    within_real = np.exp(-pairs / width).mean()
    total = weights.sum(axis=1)
    pairs_drawn = total**2 - (weights**2).sum(axis=1)  # none where a single drawing counts
    within_drawn = ((weights @ kernels[1]) * weights).sum(axis=1) / np.where(pairs_drawn > 0, pairs_drawn, np.nan)
    across = weights @ kernels[2].mean(axis=0) / total
    found: np.ndarray = within_real + within_drawn - 2 * across
    return found


def _squared(left: "np.ndarray", right: "np.ndarray") -> "np.ndarray":
    """Squared distances of all pairs, [left, right]."""
    import numpy as np

    left, right = (side.astype(np.float64) for side in (left, right))
    products = left @ right.T
    found: np.ndarray = (left**2).sum(axis=1)[:, None] + (right**2).sum(axis=1)[None, :] - 2 * products
    return found.clip(0)
