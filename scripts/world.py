"""Makes ggez_hub/spaces/world.json, the shapes of the parity page's map, from Natural Earth (public domain).

    npm pack world-atlas@2 && tar xzf world-atlas-2.*.tgz
    python scripts/world.py package/countries-50m.json

Natural Earth 4.1 at 1:50 million, as TopoJSON with the numeric codes of ISO 3166. Shapes are projected (Equal Earth,
Savric, Patterson and Jenny 2018, doi 10.1080/13658816.2018.1504949), simplified arc by arc, so that neighbours keep
their common border, and rounded to whole units of a map 10000 wide. Small islands are left out; a country that is too
small to be seen gets a dot. Borders are those of Natural Earth, as they are.
"""

import json
import math
import sys
from pathlib import Path

import pycountry

WIDTH = 10_000  # of the map, in units of its paths
TOLERANCE = 3.0  # units that a line may move by
ISLAND = 16.0  # units: an island whose width and height are both below is left out, unless it is the largest
DOT = 50.0  # units: a country whose width and height are both below is drawn as a dot, too
LEFT_OUT = ("Antarctica",)
TARGET = Path(__file__).parents[1] / "ggez_hub" / "spaces" / "world.json"
Ring = list[tuple[float, float]]


def equal_earth(longitude: float, latitude: float) -> tuple[float, float]:
    """Degrees to x and y of a unit sphere, y up."""
    a1, a2, a3, a4 = 1.340264, -0.081106, 0.000893, 0.003796
    t = math.asin(math.sqrt(3) / 2 * math.sin(math.radians(latitude)))
    slope = 9 * a4 * t**8 + 7 * a3 * t**6 + 3 * a2 * t**2 + a1
    x = 2 * math.sqrt(3) * math.radians(longitude) * math.cos(t) / (3 * slope)
    return x, a4 * t**9 + a3 * t**7 + a2 * t**3 + a1 * t


def decoded(topology: dict) -> list[Ring]:
    """The arcs of a quantized TopoJSON file, in degrees."""
    (sx, sy), (x0, y0) = topology["transform"]["scale"], topology["transform"]["translate"]
    arcs = []
    for deltas in topology["arcs"]:
        x = y = 0
        arc = []
        for dx, dy in deltas:
            x, y = x + dx, y + dy
            arc.append((x * sx + x0, y * sy + y0))
        arcs.append(arc)
    return arcs


def kept_points(line: Ring, tolerance: float) -> list[int]:
    """Which points of a line stay, so that none is farther from it than the tolerance (Douglas and Peucker)."""
    keep, parts = {0, len(line) - 1}, [(0, len(line) - 1)]
    if line[0] == line[-1]:  # a ring: from its far side, too
        far = max(range(len(line)), key=lambda i: math.dist(line[0], line[i]))
        keep, parts = keep | {far}, [(0, far), (far, len(line) - 1)]
    while parts:
        first, last = parts.pop()
        (ax, ay), (bx, by) = line[first], line[last]
        length = math.hypot(bx - ax, by - ay)

        def off(
            i: int, ax: float = ax, ay: float = ay, bx: float = bx, by: float = by, length: float = length
        ) -> float:
            x, y = line[i]
            return abs((bx - ax) * (ay - y) - (ax - x) * (by - ay)) / length if length else math.hypot(x - ax, y - ay)

        worst = max(range(first + 1, last), key=off, default=first)
        if off(worst) > tolerance:
            keep.add(worst)
            parts += [(first, worst), (worst, last)]
    return sorted(keep)


def cut(ring: Ring) -> list[Ring]:
    """A ring that crosses the 180th meridian, as one on each side of it; any other as it is."""
    unrolled, turn = [], 0
    for i, (x, y) in enumerate(ring):
        if i and abs(x - ring[i - 1][0]) > 180:
            turn += 360 if x < ring[i - 1][0] else -360
        unrolled.append((x + turn, y))
    sides = []
    for shift in (-360, 0, 360):
        points = [(x + shift, y) for x, y in unrolled]
        for edge in (-180, 180):
            inside = [x >= edge if edge < 0 else x <= edge for x, _ in points]
            clipped: Ring = []
            for i, (x, y) in enumerate(points):
                px, py = points[i - 1]
                if inside[i] != inside[i - 1]:
                    clipped.append((edge, py + (y - py) * (edge - px) / (x - px)))
                if inside[i]:
                    clipped.append((x, y))
            points = clipped
        sides += [points] if points else []
    return sides


def path(rings: list[list[tuple[int, int]]]) -> str:
    """Rings as the commands of an SVG path, in whole units, each point relative to the one before."""
    text, x, y = "", 0, 0
    for ring in rings:
        for i, (px, py) in enumerate(ring):
            pair = f"{px - x},{py - y}".replace(",-", "-")
            text += f"{'ml'[i]}{pair}" if i < 2 else pair if pair.startswith("-") else f" {pair}"
            x, y = px, py
        text += "z"
        x, y = ring[0]
    return text


def box(ring: list[tuple[int, int]]) -> tuple[int, int, int, int]:
    xs, ys = [x for x, _ in ring], [y for _, y in ring]
    return min(xs), min(ys), max(xs), max(ys)


def main(source: str) -> None:
    topology = json.loads(Path(source).read_text(encoding="utf-8"))
    right, top = equal_earth(180, 0)[0], equal_earth(0, 84)[1]
    bottom = equal_earth(0, -57)[1]
    scale = WIDTH / (2 * right)

    def placed(point: tuple[float, float]) -> tuple[float, float]:
        x, y = equal_earth(*point)
        return (x + right) * scale, (top - y) * scale

    arcs = [[arc[i] for i in kept_points([placed(p) for p in arc], TOLERANCE)] for arc in decoded(topology)]

    def rings(indices: list[int]) -> list[list[tuple[int, int]]]:
        points = [point for i in indices for point in (arcs[i] if i >= 0 else arcs[~i][::-1])[:-1]]
        made = []
        for part in cut(points):
            whole = [(round(x), round(y)) for x, y in map(placed, part)]
            made.append([p for i, p in enumerate(whole) if p != whole[i - 1]])
        return made

    countries: dict[str, dict] = {}
    shapes: dict[str, list[list[tuple[int, int]]]] = {}
    for geometry in topology["objects"]["countries"]["geometries"]:
        if geometry["properties"]["name"] in LEFT_OUT:
            continue
        known = pycountry.countries.get(numeric=geometry.get("id") or "")
        parts = [geometry["arcs"]] if geometry["type"] == "Polygon" else geometry["arcs"]
        # One without a code of its own is drawn, and never has a value.
        shapes.setdefault(known.alpha_3 if known else "", []).extend(
            made for part in parts for indices in part for made in rings(indices)
        )
    for code, drawn in sorted(shapes.items()):
        boxes = {i: box(r) for i, r in enumerate(drawn) if r}
        size = {i: max(b[2] - b[0], b[3] - b[1]) for i, b in boxes.items()}
        largest = max(size, key=lambda i: (size[i], i))
        kept = [r for i, r in enumerate(drawn) if len(r) > 2 and (size[i] >= ISLAND or i == largest)]
        dot = size[largest] < DOT
        main = [b for i, b in boxes.items() if i == largest or (not dot and size[i] >= size[largest] / 2)]
        edges = [min(b[0] for b in main), min(b[1] for b in main), max(b[2] for b in main), max(b[3] for b in main)]
        countries[code] = {"box": edges, "d": path(kept)} | ({"dot": True} if dot and code else {})
    made = {
        "source": "Natural Earth 4.1, 1:50 million, public domain (naturalearthdata.com); projection: Equal Earth",
        "note": "Borders as Natural Earth draws them, with no position taken. Made by scripts/world.py.",
        "size": [WIDTH, round((top - bottom) * scale)],
        "countries": countries,
    }
    TARGET.write_text(json.dumps(made, separators=(",", ":")).replace('},"', '},\n"') + "\n", encoding="utf-8")
    print(f"{TARGET}: {len(countries)} countries, {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main(sys.argv[1])
