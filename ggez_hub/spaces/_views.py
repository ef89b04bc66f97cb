"""What the playground says of adapters: their numbers in words, and the curve of what was measured."""

import html
import itertools
import math
from collections.abc import Sequence
from typing import Any

from ggez_hub.spaces import page
from ggez_hub.spaces._asking import Adapter


def facts(adapters: Sequence[Adapter]) -> dict[str, Any]:
    """What the browser needs of the adapters to draw the page at any alpha."""
    return {
        "adapters": [each.name for each in adapters],
        "regions": [each.region for each in adapters],
        "curves": [curve(each) for each in adapters],
        "message": "<p>Ask something to see both answers here.</p>",
    }


def described(adapter: Adapter) -> dict[str, Any]:
    """An adapter, for programs."""
    chosen = adapter.results.chosen
    return {
        "adapter": adapter.name,
        "commit": adapter.revision,
        "family": adapter.facts.family,
        "region": adapter.facts.region,
        "base": adapter.facts.base.id,
        "alpha": adapter.facts.alpha,
        "gain": chosen.gain,
        "gain_ci95": chosen.gain_ci95,
        "retention": chosen.retention,
        "retention_ci95": chosen.retention_ci95,
        "alpha_of_highest_grp": adapter.results.grp_best.alpha,
        "globalization": adapter.results.globalization.value,
        "globalization_in_words": adapter.globalization,
        "synthetic": adapter.facts.synthetic,
    }


def about(adapter: Adapter, last: bool) -> str:
    """An adapter in words, as HTML; the last one says what holds for all."""
    chosen, best, region = adapter.results.chosen, adapter.results.grp_best, html.escape(adapter.region)
    said = []
    if chosen.gain is not None:
        said.append(f"the gain in regional quality is <b>{chosen.gain:+.0%}</b>{_between(chosen.gain_ci95, '+.0%')}")
    if chosen.retention is not None:
        said.append(
            f"<b>{chosen.retention:.1%}</b> of the global quality stays{_between(chosen.retention_ci95, '.1%')}"
        )
    return (
        f"<h2>{region}</h2><p>At the recommended α = {chosen.alpha:g}, {'; '.join(said) or 'nothing is known'}.</p>"
        f"<p>{html.escape(adapter.globalization)} The highest GRP is at α = {best.alpha:g}"
        f"{f', where {best.retention:.1%} of the global quality stays' if best.retention is not None else ''}.</p>"
        + page.provenance(adapter.name, adapter.revision, adapter.facts.synthetic and last)
    )


def _between(interval: tuple[float, float] | None, form: str) -> str:
    return f" (95% interval {interval[0]:{form}} to {interval[1]:{form}})" if interval else ""


def curve(adapter: Adapter) -> dict[str, Any]:
    """The measured qualities over alpha as a drawing, and the numbers for the dots in it."""
    points = [[p.alpha, p.global_, p.regional, p.grp] for p in sorted(adapter.results.points, key=lambda p: p.alpha)]
    values = [value for point in points for value in point[1:]]
    low, high = math.floor(min(values) * 10) / 10, math.floor(max(values) * 10 + 1) / 10
    low, high = min(low, high - 0.1), high
    box = {"x": 44, "y": 24, "width": 500, "height": 150, "low": low, "high": high}

    def x(alpha: float) -> float:
        return box["x"] + alpha * box["width"]

    def y(value: float) -> float:
        return box["y"] + (high - value) / (high - low) * box["height"]

    chosen, region = adapter.results.chosen, html.escape(adapter.region)
    parts = [f'<line class="axis" x1="{x(0)}" x2="{x(1)}" y1="{y(v):.1f}" y2="{y(v):.1f}"/>'
             f'<text x="{x(0) - 6}" y="{y(v) + 4:.1f}" text-anchor="end">{v:g}</text>'
             for v in (low, round((low + high) / 2, 3), high)]  # fmt: skip
    parts += [f'<text x="{x(a)}" y="192" text-anchor="middle">{a:g}</text>' for a in (0, 0.25, 0.5, 0.75, 1)]
    parts.append(f'<text x="{x(1) + 10}" y="192">α</text>')
    advised = x(adapter.facts.alpha)
    parts.append(f'<line class="advised" x1="{advised}" x2="{advised}" y1="24" y2="174"/><text x="{advised}" y="14" '
                 f'text-anchor="middle">recommended α = {adapter.facts.alpha:g}</text>')  # fmt: skip
    ends = _apart([y(points[-1][i]) for i in (1, 2, 3)])
    for i, (kind, name) in enumerate((("global", "global"), ("regional", "regional"), ("grp", "GRP")), 1):
        line = " ".join(f"{x(point[0]):.1f},{y(point[i]):.1f}" for point in points)
        parts.append(f'<polyline class="{kind}" points="{line}"/>')
        parts.append(f'<text class="{kind}" x="{x(1) + 10}" y="{ends[i - 1] + 4:.1f}">{name}</text>')
    told = "; ".join(f"at α = {a:g} global {g:.2f}, regional {r:.2f}, GRP {p:.2f}" for a, g, r, p in points)
    title = f"Measured quality over α, {region}: {told}. Recommended: α = {chosen.alpha:g}."
    svg = f'<svg class="ggez-curve" viewBox="0 -8 640 208" role="img"><title>{title}</title>{"".join(parts)}</svg>'
    return {"svg": f"<h2>Measured quality, {region}</h2>{svg}", "points": points, "box": box}


def _apart(places: list[float], least: float = 20) -> list[float]:
    """The places of labels, moved so that none covers another."""
    order = sorted(range(len(places)), key=lambda i: places[i])
    found = list(places)
    for before, after in itertools.pairwise(order):
        found[after] = max(found[after], found[before] + least)
    return found
