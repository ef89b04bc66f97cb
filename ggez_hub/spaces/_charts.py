"""What the parity page draws: tables, lines and a map, as HTML and SVG without any library."""

import html
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ggez_hub.spaces._entries import Entry, Point, envelope, region_title
from ggez_hub.spaces.page import country

WORLD = Path(__file__).with_name("world.json")
DOT = 0.009  # radius of a country that is too small to be seen, as a share of the map's width
SHAPE = 1.9  # width of a part of the map by its height
CLASSES = 5  # of the map's colours
DASHES = ("", "7 3", "2 3", "9 3 2 3", "12 4", "4 2 1 2")  # so that colour is not all that tells lines apart

# Both charts are drawn in these units; their text is larger where the page is narrow.
WIDTH, HEIGHT, LOW = 440, 300, 150
LEFT, RIGHT, TOP, BOTTOM = 44, 430, 16, 36

CSS = """
.html-container { padding: 0 !important; }
.ggez-table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums;
  color: var(--body-text-color); }
.ggez-table th, .ggez-table td { padding: 6px 10px; border-bottom: 1px solid var(--ggez-line); text-align: left;
  vertical-align: top; }
.ggez-table .number { text-align: right; white-space: nowrap; }
.ggez-table tbody th { min-width: 8em; }
@media (min-width: 900px) { .ggez-table tbody th { min-width: 17em; } }
.ggez-table thead th { border-bottom: 2px solid var(--ggez-muted); }
.ggez-table tbody th { font-weight: 600; }
.ggez-table small { display: block; color: var(--ggez-muted); font-weight: 400; }
.ggez-mark { border: 1px solid currentColor; border-radius: 4px; padding: 0 5px; font-size: 0.8em; font-weight: 400;
  white-space: nowrap; }
.ggez-tall { max-height: 340px; overflow: auto; }
.ggez-chart { width: 100%; height: auto; display: block; max-width: 680px; }
.ggez-chart text { fill: var(--body-text-color); font-size: 10px; }
.ggez-chart .quiet { fill: var(--ggez-muted); }
.ggez-chart .grid { stroke: var(--ggez-line); stroke-width: 0.7; }
.ggez-chart .axis { stroke: var(--ggez-muted); stroke-width: 1; }
.ggez-chart .best { fill: none; stroke-width: 2.6; }
.ggez-chart .single { stroke-width: 1; opacity: 0.75; }
.ggez-chart .kof { stroke: var(--ggez-kof); stroke-width: 1.6; }
.ggez-chart .kof-text { fill: var(--ggez-kof); font-weight: 700; }
.ggez-chart .dots { stroke: var(--ggez-kof); stroke-width: 9; stroke-linecap: round; fill: none; }
.ggez-chart polyline { fill: none; stroke: var(--ggez-muted); stroke-width: 0.8; opacity: 0.55; }
.ggez-chart polyline.on { stroke: var(--ggez-kof); stroke-width: 2.4; opacity: 1; }
@media (max-width: 640px) { .ggez-chart text { font-size: 15px; } }
.ggez-legend { list-style: none; margin: 6px 0; padding: 0; display: flex; flex-wrap: wrap; gap: 4px 18px; }
.ggez-legend li { display: flex; align-items: center; gap: 6px; overflow-wrap: anywhere; }
.ggez-legend svg { flex: none; }
.ggez-c0 { stroke: var(--ggez-m0); } .ggez-c1 { stroke: var(--ggez-m1); } .ggez-c2 { stroke: var(--ggez-m2); }
.ggez-c3 { stroke: var(--ggez-m3); } .ggez-c4 { stroke: var(--ggez-m4); } .ggez-c5 { stroke: var(--ggez-m5); }
:root { --ggez-m0: #1d4ed8; --ggez-m1: #0f766e; --ggez-m2: #a21caf; --ggez-m3: #3f3f46; --ggez-m4: #be123c;
  --ggez-m5: #4d7c0f; --ggez-kof: #c2410c; --ggez-sea: #ffffff;
  --ggez-v0: #e0ecff; --ggez-v1: #a9c8fb; --ggez-v2: #6798ee; --ggez-v3: #2f62c9; --ggez-v4: #12306f;
  --ggez-d0: #9a4a06; --ggez-d1: #f0b35e; --ggez-d2: #e6e6e9; --ggez-d3: #79aaf0; --ggez-d4: #1746a8; }
.dark { --ggez-m0: #93c5fd; --ggez-m1: #5eead4; --ggez-m2: #f0abfc; --ggez-m3: #e4e4e7; --ggez-m4: #fda4af;
  --ggez-m5: #bef264; --ggez-kof: #fbbf24; --ggez-sea: #18181b;
  --ggez-v0: #1c2f57; --ggez-v1: #2b51a3; --ggez-v2: #4f82dc; --ggez-v3: #8fb6f5; --ggez-v4: #e2edff;
  --ggez-d0: #fdba5c; --ggez-d1: #a8691c; --ggez-d2: #55555e; --ggez-d3: #3b6fd0; --ggez-d4: #a8cbff; }
.ggez-map { width: 100%; height: auto; display: block; background: var(--ggez-sea); border-radius: 8px; }
.ggez-shapes { position: absolute; width: 0; height: 0; }
.ggez-shapes path { vector-effect: non-scaling-stroke; }
.ggez-map g { stroke: var(--ggez-muted); stroke-width: 0.6px; fill: url(#ggez-none); }
.ggez-map circle { vector-effect: non-scaling-stroke; }
.ggez-map g:hover { stroke: var(--body-text-color); stroke-width: 2px; }
.ggez-swatch { width: 22px; height: 14px; border: 1px solid var(--ggez-muted); }
.ggez-v0 { fill: var(--ggez-v0) !important; } .ggez-v1 { fill: var(--ggez-v1) !important; }
.ggez-v2 { fill: var(--ggez-v2) !important; } .ggez-v3 { fill: var(--ggez-v3) !important; }
.ggez-v4 { fill: var(--ggez-v4) !important; }
.ggez-d0 { fill: var(--ggez-d0) !important; } .ggez-d1 { fill: var(--ggez-d1) !important; }
.ggez-d2 { fill: var(--ggez-d2) !important; } .ggez-d3 { fill: var(--ggez-d3) !important; }
.ggez-d4 { fill: var(--ggez-d4) !important; }
.html-container h3.ggez-title { font-size: 1.1em !important; font-weight: 600 !important; margin: 8px 0 2px;
  color: var(--body-text-color); }
.ggez-says { font-size: 1.1em; line-height: 1.5; }
.ggez-says p { margin: 0 0 6px; }
"""


# ---------------------------------------------------------------------------------------------------------------- table
def adapters(entries: Sequence[Entry]) -> str:
    """The table of adapters."""
    heads = ("Adapter", "Chosen α", "Gain", "Retention", "GRP, α = 0 to chosen", "Region", "Family and base")
    head = "".join(f'<th scope="col"{_number(0 < i < 5)}>{text}</th>' for i, text in enumerate(heads))
    note = "Gain and retention of the chosen α against α = 0, with 95% intervals where they are known."
    rows = "".join(map(_adapter, entries))
    table = f'<table class="ggez-table"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
    return f'<p class="ggez-note">{note}</p>{_scrolling("Table of adapters", table)}'


def _adapter(entry: Entry) -> str:
    point = entry.at(entry.chosen)
    marks = [text for text, holds in (("synthetic", entry.synthetic), ("below the gate", entry.below_gate)) if holds]
    shown = "".join(f' <span class="ggez-mark">{mark}</span>' for mark in marks)
    family = f"{html.escape(entry.family)}<small>{html.escape(entry.base)}</small>" if entry.family else "not said"
    change = (
        (_percent(entry.gain(point), sign="+"), entry.gain_ci95),
        (
            _percent(entry.retention(point)),
            entry.retention_ci95,
        ),
    )
    numbers = [f"{point.alpha:g}<small>highest GRP: {entry.grp_best:g}</small>"]
    numbers += [text + (f"<small>{_percents(interval)}</small>" if interval else "") for text, interval in change]
    numbers.append(" → ".join(f"{p.grp(entry.globalization):.3f}" for p in (entry.points[0], point)))
    return (
        f'<tr><th scope="row">{html.escape(entry.name)}{shown}<small>{html.escape(entry.origin)}</small></th>'
        + "".join(f'<td class="number">{text}</td>' for text in numbers)
        + f"<td>{html.escape(region_title(entry.region))}</td><td>{family}</td></tr>"
    )


def _number(holds: bool) -> str:
    return ' class="number"' if holds else ""


def _percent(value: float | None, sign: str = "") -> str:
    if value is None:
        return "undefined"
    return f"{100 * value:{sign}.1f}%" if abs(value) < 100 else f"{100 * value:{sign}.2g}%"


def _percents(interval: tuple[float, float]) -> str:
    return f"{_percent(interval[0])[:-1]} to {_percent(interval[1])}"


def _scrolling(label: str, inner: str, more: str = "") -> str:
    """Something wide in a box of its own that scrolls, also by keyboard."""
    return f'<div class="ggez-scroll {more}" tabindex="0" role="region" aria-label="{html.escape(label)}">{inner}</div>'


# ---------------------------------------------------------------------------------------------------------------- lines
def lines(entries: Sequence[Entry]) -> str:
    """GRP over the globalization factor: of every model the best that any alpha gives; of a single one all alphas."""
    if not entries:
        return "<p>Choose a model above.</p>"
    shown = [
        point for entry in entries for point in (entry.points if len(entries) == 1 else _best_and_base(entry.points))
    ]
    values = [value for point in shown for value in (point.global_, point.regional)]
    ticks = _ticks(min(values), max(values))
    low, high = ticks[0], ticks[-1]

    def at(globalization: float, value: float) -> str:
        x = LEFT + globalization * (RIGHT - LEFT)
        y = HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - BOTTOM - TOP)
        return f"{x:.1f} {y:.1f}"

    drawn, names, told = [], [], []
    for i, entry in enumerate(entries):
        singles = entry.points if len(entries) == 1 else entry.points[:1]
        for point in singles:
            drawn.append(f'<path class="single ggez-c{i}" stroke-dasharray="1 3" '
                         f'd="M{at(0, point.regional)}L{at(1, point.global_)}"/>')  # fmt: skip
        pieces = envelope(entry.points)
        corners = [at(start, point.grp(start)) for start, _, point in pieces] + [at(1, pieces[-1][2].grp(1))]
        drawn.append(f'<path class="best ggez-c{i}" stroke-dasharray="{DASHES[i]}" d="M{"L".join(corners)}"/>')
        for start, end, point in pieces:
            middle = (start + end) / 2
            if end - start > 0.1 and len(entries) <= 2:
                top = all(point.grp(middle) >= p.grp(middle) for other in entries for p in other.points)
                x, y = at(middle, point.grp(middle)).split()
                top = top and float(y) > TOP + 20  # below the line where the KOF value's text stands above it
                drawn.append(f'<text x="{x}" y="{float(y) + (-7 if top else 15):.1f}" text-anchor="middle">'
                             f"α {point.alpha:g}</text>")  # fmt: skip
        names.append(f'<li><svg width="34" height="10" aria-hidden="true"><path class="ggez-c{i}" stroke-width="3" '
                     f'stroke-dasharray="{DASHES[i]}" d="M0 5h34"/></svg>{html.escape(entry.name)}</li>')  # fmt: skip
        spans = ", ".join(f"α = {point.alpha:g} from {start:.2f} to {end:.2f}" for start, end, point in pieces)
        told.append(f"{entry.name}: {spans}.")
    grid = "".join(
        f'<path class="grid" d="M{at(0, tick)}L{at(1, tick)}"/><text class="quiet" x="{LEFT - 5}" '
        f'y="{float(at(0, tick).split()[1]) + 3.5:.1f}" text-anchor="end">{tick:g}</text>' for tick in ticks
    ) + "".join(
        f'<text class="quiet" x="{LEFT + g * (RIGHT - LEFT):.1f}" y="{HEIGHT - BOTTOM + 14}" text-anchor="middle">'
        f"{g:g}</text>" for g in (0, 0.25, 0.5, 0.75, 1)
    )  # fmt: skip
    data = {
        "x": [LEFT, RIGHT], "y": [HEIGHT - BOTTOM, TOP, low, high],
        "models": [{"name": entry.name, "group": entry.group,
                    "points": [[p.alpha, p.global_, p.regional] for p in entry.points]} for entry in entries],
    }  # fmt: skip
    kept = "a single model: its alphas are dotted" if len(entries) == 1 else "dotted: α = 0, the base"
    drawn_only = " Pocket models' numbers are synthetic." if any(entry.synthetic for entry in entries) else ""
    return (
        f'<div data-lines="{html.escape(json.dumps(data))}">'
        f'<svg class="ggez-chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" tabindex="0"><title>GRP over the '
        "globalization factor, from 0, regional quality alone, to 1, global quality alone</title><desc>The best alpha "
        f"of each model. {html.escape(' '.join(told))}</desc>{grid}"
        f'<path class="axis" d="M{LEFT} {HEIGHT - BOTTOM}H{RIGHT}"/>{"".join(drawn)}'
        f'<path class="kof" data-kof-line d=""/><path class="dots" data-winners d=""/>'
        f'<text class="kof-text" data-kof-text y="{TOP - 4}" text-anchor="middle"></text>'
        f'<text class="quiet" x="{LEFT}" y="{HEIGHT - 6}">regional alone</text>'
        f'<text class="quiet" x="{RIGHT}" y="{HEIGHT - 6}" text-anchor="end">global alone</text></svg>'
        f'<ul class="ggez-legend">{"".join(names)}</ul>'
        f'<p class="ggez-note">Height: GRP. Bold: the best that any α gives; {kept}. Upright line: the KOF value.'
        f"{drawn_only}</p>"
        f"{_numbers(entries)}</div>"
    )


def _best_and_base(points: Sequence[Point]) -> list[Point]:
    return [points[0], *(point for _, _, point in envelope(points))]


def _numbers(entries: Sequence[Entry]) -> str:
    """The numbers behind the lines."""
    rows = "".join(
        f'<tr><th scope="row">{html.escape(entry.name)}</th><td class="number">{p.alpha:g}</td>'
        f'<td class="number">{p.global_:.3f}</td><td class="number">{p.regional:.3f}</td>'
        f'<td class="number">{_percent(entry.retention(p))}</td></tr>'
        for entry in entries
        for p in entry.points
    )
    heads = ("Model", "α", "Global quality", "Regional quality", "Retention")
    head = "".join(f'<th scope="col"{_number(i > 0)}>{text}</th>' for i, text in enumerate(heads))
    table = f'<table class="ggez-table"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
    label = "Numbers behind the lines"
    return f"<details><summary>{label}</summary>{_scrolling(label, table, 'ggez-tall')}</details>"


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers from below the lowest to above the highest, about five."""
    span = max(high - low, 1e-3)
    step = 10 ** math.floor(math.log10(span / 4))
    step *= min((factor for factor in (1, 2, 5, 10) if span / (step * factor) <= 5), default=10)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(i * step, 10) for i in range(first, max(last, first + 1) + 1)]


def years(kof: Mapping[str, Mapping[str, Any]]) -> str:
    """KOF values of all regions over the years; the page's own code lifts out the chosen one."""
    values = [value for region in kof.values() for value in region["values"].values()]
    known = sorted({year for region in kof.values() for year in region["values"]})
    first, last = known[0], max(known[-1], known[0] + 1)
    low, high = math.floor(min(values) * 10) / 10, math.ceil(max(values) * 10) / 10
    bottom, top = LOW - 20, 14

    def at(year: int, value: float) -> str:
        x = LEFT + (year - first) / (last - first) * (RIGHT - LEFT)
        return f"{x:.1f},{bottom - (value - low) / (high - low) * (bottom - top):.1f}"

    drawn = "".join(
        f'<polyline data-region="{html.escape(name)}" '
        f'points="{" ".join(at(year, value) for year, value in sorted(region["values"].items()))}"/>'
        for name, region in kof.items()
    )
    marks = "".join(
        f'<text class="quiet" x="{LEFT - 5}" y="{float(at(first, value).split(",")[1]) + 3.5:.1f}" text-anchor="end">'
        f"{value:g}</text>" for value in (low, high)
    ) + "".join(
        f'<text class="quiet" x="{at(year, low).split(",")[0]}" y="{LOW - 5}" text-anchor="{anchor}">{year}</text>'
        for year, anchor in ((first, "start"), (last, "end"))
    )  # fmt: skip
    data = {"x": [LEFT, RIGHT, first, last], "y": [bottom, top, low, high], "regions": kof}
    return (
        f'<div data-kof="{html.escape(json.dumps(data))}"><svg class="ggez-chart" viewBox="0 0 {WIDTH} {LOW}" '
        'role="img"><title>KOF value of the regions over the years</title><desc>One line for each region, from '
        f"{first} to {last}; the chosen region is bold, the chosen year has a dot.</desc>{marks}"
        f'<path class="axis" d="M{LEFT} {bottom}H{RIGHT}"/>{drawn}<path class="dots" data-year-dot d=""/>'
        '<text class="kof-text" data-year-text text-anchor="middle"></text></svg></div>'
    )


# ------------------------------------------------------------------------------------------------------------------ map
@cache
def _world() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(WORLD.read_text(encoding="utf-8"))
    return loaded


def shapes() -> str:
    """The countries' shapes, once for the page; maps refer to them."""
    drawn = []
    for code, shape in _world()["countries"].items():
        drawn.append(f'<path id="ggez-c-{code}" d="{shape["d"]}"/>')
    hatch = (
        '<pattern id="ggez-none" width="60" height="60" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
        '<rect width="60" height="60" fill="var(--ggez-fill)"/><path d="M0 0V60" stroke="var(--ggez-line)" '
        'stroke-width="24"/></pattern>'
    )
    return f'<svg class="ggez-shapes" aria-hidden="true"><defs>{hatch}{"".join(drawn)}</defs></svg>'


Values = Mapping[str, Mapping[str, Any]]  # by country: name, value, base, change, n


def world(title: str, values: Values, of: str, edges: Sequence[float], zoom: bool) -> str:
    """A map with its legend and a table of the same numbers.

    Args:
        title: What is shown.
        values: By country, ISO 3166: ``name``, ``value``, ``base`` (at alpha 0), ``change``, ``n``; None where unknown.
        of: Which of them gives the colour, ``value`` or ``change``.
        edges: The classes' limits, rising, one more than there are classes.
        zoom: Show the countries that have a value, and what lies around them.
    """
    known = {code: row for code, row in values.items() if row[of] is not None}
    colour, unit, scale = ("v", "", 1) if of == "value" else ("d", " points", 100)
    x, y, wide, high = _view(list(known) if zoom else [])
    drawn = []
    for code in sorted(_world()["countries"], key=lambda code: code in known):  # those with a value on top
        name = values[code]["name"] if code in values else country(code)
        said = f"{name}: {_said(known[code], of)}" if code in known else f"{name}: no value"
        css = f' class="ggez-{colour}{_class(known[code][of], edges)}"' if code in known else ""
        titled = f"<title>{html.escape(said)}</title>" if name else ""
        shape = f'<use href="#ggez-c-{code}"/>{_dot(code, DOT * wide * (1 if code in known else 0.3))}'
        drawn.append(f'<g data-iso="{code}"{css}>{titled}{shape}</g>')
    legend = "".join(
        f'<li><svg class="ggez-swatch ggez-{colour}{i}" aria-hidden="true"><rect width="22" '
        f'height="14"/></svg>{scale * low:.4g} to {scale * high:.4g}{unit}</li>'
        for i, (low, high) in enumerate(itertools.pairwise(edges))
    )
    legend += (
        '<li><svg class="ggez-swatch" aria-hidden="true"><rect width="22" height="14" fill="url(#ggez-none)"/></svg>'
        "no value</li>"
    )
    return (
        f'<svg class="ggez-map" viewBox="{x:.0f} {y:.0f} {wide:.0f} {high:.0f}" role="img">'
        f"<title>{html.escape(title)}</title><desc>The table below has the same numbers.</desc>"
        f'{"".join(drawn)}</svg><ul class="ggez-legend" aria-label="Colours of the map">{legend}</ul>'
        f"{_places(values)}"
    )


def _said(row: Mapping[str, Any], of: str) -> str:
    number = f"{row['value']:.3f}" if of == "value" else f"{100 * row['change']:+.1f} points, to {row['value']:.3f}"
    return number + (f" ({row['n']} questions)" if row["n"] else "")


def _class(value: float, edges: Sequence[float]) -> int:
    return min(sum(value >= edge for edge in edges[1:-1]), len(edges) - 2)


def edges(values: Sequence[float], of: str) -> list[float]:
    """Limits of the map's classes: round numbers that hold all values; for changes the same on both sides of 0."""
    if of == "change":
        step = max((abs(value) for value in values), default=0.0) * 2 / CLASSES
        fine = 10 if step > 0.1 else 50
        step = max(math.ceil(step * fine - 1e-9), 1) / fine
        return [round(step * i / 2, 6) for i in range(-CLASSES, CLASSES + 1, 2)]
    low, high = min(values, default=0.0), max(values, default=1.0)
    fine = 20 if high - low > 0.25 else 100
    last = math.ceil(high * fine - 1e-9) / fine
    step = max(math.ceil((last - low) / CLASSES * fine - 1e-9), 1) / fine
    first = max(last - step * CLASSES, 0.0) if low >= 0 else last - step * CLASSES
    return [round(first + step * i, 6) for i in range(CLASSES + 1)]


def _dot(code: str, radius: float) -> str:
    """A dot on a country that is too small to be seen."""
    shape = _world()["countries"][code]
    x0, y0, x1, y1 = shape["box"]
    return f'<circle cx="{(x0 + x1) // 2}" cy="{(y0 + y1) // 2}" r="{radius:.0f}"/>' if shape.get("dot") else ""


def _view(codes: Sequence[str]) -> tuple[float, float, float, float]:
    """The part of the map that holds some countries; all of it where they are spread over most of it, or none given."""
    width, height = _world()["size"]
    boxes = [_world()["countries"][code]["box"] for code in codes if code in _world()["countries"]]
    if not boxes:
        return 0, 0, width, height
    x0, y0 = (min(box[i] for box in boxes) for i in (0, 1))
    x1, y1 = (max(box[i] for box in boxes) for i in (2, 3))
    wide = max((x1 - x0) * 1.15, (y1 - y0) * 1.15 * SHAPE, width / 8)
    if wide > 0.75 * width:
        return 0, 0, width, height
    high = wide / SHAPE
    return (x0 + x1 - wide) / 2, (y0 + y1 - high) / 2, wide, high


def _places(values: Values) -> str:
    rows = "".join(
        f'<tr><th scope="row">{html.escape(row["name"])}</th>'
        + "".join(f'<td class="number">{text}</td>' for text in _cells(row))
        + "</tr>"
        for row in sorted(values.values(), key=lambda row: str(row["name"]))
    )
    heads = ("Country", "Value", "At α = 0", "Change in points", "Questions")
    head = "".join(f'<th scope="col"{_number(i > 0)}>{text}</th>' for i, text in enumerate(heads))
    table = f'<table class="ggez-table"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
    return _scrolling("Table of the map's values", table, "ggez-tall")


def _cells(row: Mapping[str, Any]) -> list[str]:
    return [
        f"{row['value']:.3f}",
        "–" if row["base"] is None else f"{row['base']:.3f}",
        "–" if row["change"] is None else f"{100 * row['change']:+.1f}",
        "not said" if row["n"] is None else str(row["n"]),
    ]
