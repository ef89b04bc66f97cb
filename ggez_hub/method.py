"""The paper as pure functions: "Anthropogenic Regional Adaptation", arXiv 2604.11490 v2. No I/O, no torch at import.

Two numbers must never be confused, because the paper's letters are not ours:

    ours             the paper's   meaning                                                    section
    alpha            beta          merge weight: 0 = the global base, 1 = the regional model  4.2
    globalization    alpha         weight of global quality in GRP, from the KOF index        3.2

Section 4.2 of the paper swaps the two roles once, in an example; its published numbers follow section 3.2, as we do.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, cast

from ggez_hub.errors import InputError

Point = TypeVar("Point", bound=Mapping[str, Any])
Values = TypeVar("Values")  # a float, a numpy array, a torch tensor, or a mapping of names to these


# ------------------------------------------------------------------------------------------------------------- measures
def grp(global_quality: float, regional_quality: float, globalization: float) -> float:
    """Global-regional parity (section 3.2): ``GRP = globalization * Q_global + (1 - globalization) * Q_regional``.

    The paper writes alpha for globalization. It is not the merge weight that we call alpha.

    Args:
        global_quality: Quality on the world's questions, on any scale where higher is better.
        regional_quality: Quality on the region's questions, on the same scale.
        globalization: Weight of the global quality, 0..1.

    Returns:
        The parity, on the scale of the qualities.

    Raises:
        InputError: Globalization outside 0..1.
    """
    check_fraction("globalization", globalization, "KOF values are 0..100: divide them by 100")
    return globalization * global_quality + (1 - globalization) * regional_quality


def gain(regional: float, base_regional: float) -> float | None:
    """Relative change of regional quality: ``(Q_regional - Q_regional at alpha 0) / Q_regional at alpha 0``.

    The headline claim of the paper (5% to 15%) is in these terms.

    Args:
        regional: Regional quality of the adapted model.
        base_regional: Regional quality of the global base, on the same scale.

    Returns:
        0.05 for five percent better, negative for worse, None where the base has quality 0.
    """
    return (regional - base_regional) / base_regional if base_regional else None


def retention(global_: float, base_global: float) -> float | None:
    """Share of global quality that is kept: ``Q_global / Q_global at alpha 0`` (the paper's claim: over 98%).

    Args:
        global_: Global quality of the adapted model.
        base_global: Global quality of the global base, on the same scale.

    Returns:
        1.0 for all of it, more than 1 for an improvement, None where the base has quality 0.
    """
    return global_ / base_global if base_global else None


# ---------------------------------------------------------------------------------------------------------------- merge
def interpolate(base: Values, regional: Values, alpha: float) -> Values:
    """Merges two models (section 4.2): ``theta(alpha) = alpha * theta_regional + (1 - alpha) * theta_base``.

    The paper writes beta for this alpha. Where both models agree, the result is that very value at every alpha, so that
    weights which training did not touch stay bit for bit the same.

    Args:
        base: The global model, alpha 0: a float, a numpy array, a torch tensor, or a mapping of names to these.
        regional: The regional model, alpha 1: of the same kind, shape and dtype, or with the same names.
        alpha: Merge weight, 0..1.

    Returns:
        Values of the same kind, shape and dtype. At alpha 0 and 1 they are the given objects themselves, not copies.
        Dtypes below 32 bits (bf16, fp16) are computed in fp32 and rounded once. Whole numbers and booleans, such as
        position ids, cannot be mixed: they must be equal in both models.

    Raises:
        InputError: Alpha outside 0..1; models that differ in names (all are listed), shape, dtype or whole numbers.
    """
    check_fraction("alpha", alpha, "0 is the global base, 1 the regional model")
    if isinstance(base, Mapping) and isinstance(regional, Mapping):
        _check_names(base, regional)
        return cast(Values, {name: _mix(base[name], regional[name], alpha, f"{name}: ") for name in base})
    return cast(Values, _mix(base, regional, alpha, ""))


def _check_names(base: Mapping[str, Any], regional: Mapping[str, Any]) -> None:
    problems = [
        f"only in {side}: {', '.join(sorted(names))}"
        for side, names in (("base", base.keys() - regional.keys()), ("regional", regional.keys() - base.keys()))
        if names
    ]
    if problems:
        raise InputError(
            "the two models do not hold the same tensors; " + "; ".join(problems),
            "both must be checkpoints of the same architecture",
        )


def _mix(base: Any, regional: Any, alpha: float, where: str) -> Any:
    """Interpolates one float, array or tensor; ``where`` opens the messages of errors."""
    for what in ("shape", "dtype"):  # floats have neither
        ours, theirs = getattr(base, what, None), getattr(regional, what, None)
        if ours != theirs:
            raise InputError(f"{where}{what} {ours} in base, {theirs} in regional", "convert one of them first")
    if not _is_floating(base):
        if not bool((base == regional).all()):
            raise InputError(f"{where}{base.dtype} values differ between base and regional, and cannot be mixed")
        return base
    if alpha == 0:
        return base
    if alpha == 1:
        return regional
    if hasattr(base, "lerp"):  # torch: the same line as below, and bf16 and fp16 are computed in fp32
        return base.lerp(regional, alpha)
    low, high = _widened(base), _widened(regional)
    gap = high - low
    # The same line from either end. Starting at the nearer end loses no digits of small weights beside large ones, and
    # gives the common value back, unrounded, where the gap is 0; alpha * regional + (1 - alpha) * base can miss it.
    mixed = low + alpha * gap if alpha < 0.5 else high - (1 - alpha) * gap
    return mixed.astype(base.dtype, copy=False) if hasattr(base, "dtype") else mixed


def _is_floating(values: Any) -> bool:
    if hasattr(values, "is_floating_point"):  # torch
        return bool(values.is_floating_point())
    return not hasattr(values, "dtype") or values.dtype.kind == "f"


def _widened(values: Any) -> Any:
    """The values in fp32, where they have fewer bits."""
    return values.astype("float32") if hasattr(values, "dtype") and values.dtype.itemsize < 4 else values


# ------------------------------------------------------------------------------------------------------------ selection
def choose_alpha(points: Sequence[Point], min_retention: float | None = 0.98) -> tuple[Point, Point]:
    """Chooses among measured alphas (section 4.2): ``alpha* = argmax GRP(theta(alpha))``, if global quality is kept.

    The paper's plain rule takes the highest GRP (it calls the merge weight beta). With a globalization near 0.4 a
    strong specialist can win that while it forgets a good part of the world, so by default only those compete that
    keep 98% of the global quality. Of equal GRPs the smaller alpha wins, which stays nearer to the base.

    Args:
        points: One mapping per measured alpha with ``alpha``, ``global``, ``regional`` and ``grp``; higher is better.
        min_retention: Share of the global quality at alpha 0 that must be kept, 0..1; None is the plain rule.

    Returns:
        ``(chosen, grp_best)``, two of the points: the choice, and the choice of the plain rule.

    Raises:
        InputError: No point at alpha 0, or a quality that is not a finite number.
    """
    for point in points:
        for key in ("alpha", "global", "regional", "grp"):
            if not math.isfinite(point[key]):
                raise InputError(f"{key} is {point[key]} at alpha {point['alpha']}: expected a finite number")
    base = next((point for point in points if point["alpha"] == 0), None)
    if base is None:
        raise InputError("no point at alpha 0, the global base that others are judged against", "measure alpha 0 too")

    def kept(point: Point) -> bool:
        return point is base or min_retention is None or keeps(point["global"], base["global"], min_retention)

    def best(candidates: Sequence[Point]) -> Point:
        return min(candidates, key=lambda point: (-point["grp"], point["alpha"]))

    return best([point for point in points if kept(point)]), best(points)


def keeps(global_quality: float, base_global: float, min_retention: float) -> bool:
    """Whether a model keeps enough of its base's global quality.

    Args:
        global_quality: Of the model.
        base_global: Of its base, at alpha 0.
        min_retention: The share that is enough, 0..1.
    """
    # The margin forgives the last binary digit: 49 of 85 right is 98% of 50 of 85, yet 49/85 < 0.98 * (50/85).
    return global_quality >= min_retention * base_global - 1e-12


def check_fraction(name: str, value: float, hint: str) -> None:
    """Raises InputError unless a number lies between 0 and 1."""
    if not 0 <= value <= 1:  # also catches NaN
        raise InputError(f"{name} {value}: expected a number from 0 to 1", hint)
