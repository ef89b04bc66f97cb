"""parity: which adapters there are, which of them wins at which alpha, and where in the world."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ggez_hub import kof, registry
from ggez_hub.errors import GgezError, InputError
from ggez_hub.spaces import _charts, _entries, page
from ggez_hub.spaces._entries import Entry

if TYPE_CHECKING:
    import gradio as gr

MODELS = 6  # compared at once
UPLOADS = 5  # kept of each user
SORTED = ("name", "region", "gain", "retention")
SHOWN = {"value": "the value at this α", "change": "the change since α = 0"}
FIRST = ("pocket-sea-embedding", "pocket-sea-open-clip")  # compared at first, if they are there
Uploads = tuple[Entry, ...]

# Moves the KOF line, says who wins, and lifts out the region's curve; with what the page holds, so at once.
SCRIPT = """
window.ggezPlace = () => {
    const chart = document.querySelector("[data-lines]"), kof = document.querySelector("[data-kof]");
    const says = document.querySelector("[data-says]");
    if (!kof || !says || !window.ggezAt) return;
    const [region, year] = window.ggezAt, known = JSON.parse(kof.dataset.kof), here = known.regions[region];
    if (!here) return;
    const value = here.values[year];
    const scaled = (x, [to0, to1, from0, from1]) => to0 + (x - from0) / (from1 - from0) * (to1 - to0);
    const put = (root, name, attributes, text) => {
        const element = root.querySelector(`[data-${name}]`);
        Object.entries(attributes).forEach(([key, x]) => element.setAttribute(key, x));
        if (text !== undefined) element.textContent = text;
    };
    kof.querySelectorAll("polyline").forEach((line) => line.classList.toggle("on", line.dataset.region === region));
    const sentences = [];
    const dot = value === undefined ? null : [scaled(+year, known.x), scaled(value, known.y)];
    put(kof, "year-dot", {d: dot ? `M${dot[0]} ${dot[1]}h0` : ""});
    put(kof, "year-text", {x: dot ? Math.max(dot[0], 60) : 0, y: dot ? dot[1] - 9 : 0},
        dot ? `${here.title} ${year}: ${value.toFixed(3)}` : "");
    kof.querySelector("[data-year-text]").setAttribute("text-anchor", dot && dot[0] > 240 ? "end" : "start");
    const data = chart ? JSON.parse(chart.dataset.lines) : {models: []};
    const dots = [];
    if (value === undefined) sentences.push(`There is no KOF value of ${here.title} for ${year}.`);
    else if (!data.models.length) sentences.push("Choose a model.");
    else {
        const ways = data.models.flatMap((model) => model.points.map(([alpha, all, own]) => ({
            model, alpha, grp: value * all + (1 - value) * own, kept: all / model.points[0][1],
            keeps: alpha === 0 || all >= 0.98 * model.points[0][1] - 1e-12,
        })));
        const best = (found) => found.reduce((a, b) =>
            b.grp > a.grp || (b.grp === a.grp && b.alpha < a.alpha) ? b : a);
        const groups = [...new Set(data.models.map((model) => model.group))];
        const named = (way) => `${way.model.name} at α = ${+way.alpha.toPrecision(6)}`;
        if (groups.length > 1) sentences.push("These models were not asked the same questions, so their numbers " +
            "cannot be compared. One winner for each set of questions:");
        groups.forEach((group) => {
            const own = ways.filter((way) => way.model.group === group);
            const first = best(own), kept = best(own.filter((way) => way.keeps));
            let text = `At ${here.title}'s ${year} value, ${value.toFixed(3)}, ${named(first)} wins with GRP ` +
                `${first.grp.toFixed(3)}.`;
            if (Number.isFinite(first.kept)) text += first.keeps
                ? ` It keeps ${(100 * first.kept).toFixed(1)}% of its base's global quality.`
                : ` It keeps only ${(100 * first.kept).toFixed(1)}% of its base's global quality; of those that ` +
                  `keep 98%, ${named(kept)} wins with GRP ${kept.grp.toFixed(3)}.`;
            sentences.push(text);
            dots.push([scaled(value, [...data.x, 0, 1]), scaled(first.grp, data.y)]);
        });
    }
    if (data.models.length) {
        const x = value === undefined ? null : scaled(value, [...data.x, 0, 1]);
        put(chart, "kof-line", {d: x === null ? "" : `M${x} ${data.y[0]}V${data.y[1]}`});
        put(chart, "kof-text", {x: x ?? 0}, x === null ? "" : `KOF ${value.toFixed(3)}`);
        put(chart, "winners", {d: dots.map(([x, y]) => `M${x} ${y}h0`).join("")});
    }
    says.replaceChildren(...sentences.map((text) => Object.assign(document.createElement("p"), {textContent: text})));
};
window.ggezPlace();
watch("value", window.ggezPlace);
"""


@dataclass
class _Catalogue:
    """What the page shows to everybody.

    Attributes:
        entries: The adapters, then the paper's models.
        failed: Repositories that could not be read, and why.
    """

    repos: Sequence[str]
    folder: Path
    entries: list[Entry] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    def read(self) -> None:
        """Reads all; what could not be read before is tried again."""
        found: list[Entry] = []
        failed = {}
        for repo in self.repos:
            try:
                known = next((entry for entry in self.entries if entry.repo == repo), None)
                found.append(known or _entries.published(repo, self.folder, [entry.name for entry in found]))
            except GgezError as err:
                failed[repo] = err.message
        self.entries = [*(found if self.repos else _entries.shipped()), *_entries.printed()]
        self.failed = failed


def build(folder: Path, repos: Sequence[str] = ()) -> "gr.Blocks":
    """The page.

    Args:
        folder: The folder of the Space.
        repos: Published adapters: Hub ids (also with ``@`` and a revision), folders in the layout of a repository, or
            run folders. Empty: the pocket adapters of this package.
    """
    import gradio as gr

    catalogue = _Catalogue(repos, folder)
    catalogue.read()
    weights = _weights()
    years = sorted({year for region in weights.values() for year in region["values"]})

    def everyone(uploads: Uploads) -> list[Entry]:
        return [*catalogue.entries, *uploads]

    def chosen(names: Any, uploads: Uploads) -> list[Entry]:
        """The entries of names that somebody asked for."""
        known = {entry.name: entry for entry in everyone(uploads)}
        if not isinstance(names, list):
            raise InputError("models: expected a list of names")
        if len(set(map(str, names))) > MODELS:
            raise InputError(f"{len(names)} models, expected {MODELS} at most", "choose fewer")
        return [known[_entries.one_of(name, list(known), "model")] for name in dict.fromkeys(map(str, names))]

    def mapped(uploads: Uploads) -> dict[str, Entry]:
        """What the map can show."""
        return {entry.name: entry for entry in (*everyone(uploads), *_kof_entry()) if entry.places}

    def asked_place(model: Any, benchmark: Any, alpha: Any, uploads: Uploads) -> tuple[Entry, str, float]:
        entry = mapped(uploads)[_entries.one_of(model, list(mapped(uploads)), "model")]
        name = _entries.one_of(benchmark, list(entry.places), "benchmark")
        alphas, number = list(entry.places[name]), _entries.fraction(alpha)
        if number not in alphas:
            raise InputError(f"alpha {number:g} was not measured", f"choose one of {_listed(alphas)}")
        return entry, name, number

    def map_of(entry: Entry, benchmark: str, alpha: float, shown: str, zoom: bool) -> str:
        values = _values(entry, benchmark, alpha)
        edges = _charts.edges([row[shown] for row in values.values() if row[shown] is not None], shown)
        title = f"{benchmark}, {entry.metrics[benchmark]}, {SHOWN[shown]}: {entry.name}" + (
            f" at α = {alpha:g}" if entry.name != _entries.KOF else ""
        )
        note = "Synthetic numbers: drawn pictures, nothing about the world. " if entry.synthetic else ""
        if shown == "change" and not any(row["change"] is not None for row in values.values()):
            note += "There is nothing at α = 0 to compare with. "
        head = f'<h3 class="ggez-title">{html.escape(title)}</h3>'
        head += f'<p class="ggez-note">{note}Source: {html.escape(entry.origin)}.</p>'
        return head + _charts.world(title, values, shown, edges, zoom)

    def table_of(uploads: Uploads, order: str) -> str:
        rows = sorted(everyone(uploads), key=lambda entry: _order(entry, order))
        failed = "".join(
            f"<li><strong>{html.escape(repo)}</strong>: {html.escape(why)}</li>"
            for repo, why in catalogue.failed.items()
        )
        lost = f"<p>These could not be read:</p><ul>{failed}</ul>" if failed else ""
        said = f'<p class="ggez-note">{page.SYNTHETIC}</p>' if any(entry.synthetic for entry in rows) else ""
        return lost + _charts.adapters(rows) + said

    # ---------------------------------------------------------------------------------------------------------- answers
    def sort(order: str, uploads: Uploads) -> str:
        with page.answering():
            return table_of(uploads, _entries.one_of(order, SORTED, "order"))

    def draw(models: list[str], uploads: Uploads) -> str:
        with page.answering():
            return _charts.lines(chosen(models, uploads))

    def winner(models: list[str], region: str, year: float, uploads: Uploads) -> dict[str, Any]:
        with page.answering():
            entries = chosen(models, uploads)
            if not entries:
                raise InputError("models: none given", "choose one at least")
            value = kof.lookup(_entries.one_of(region, list(weights), "region"), _whole(year))
            found = _entries.winners(entries, value.value)
            return {"region": region, "year": value.year, "globalization": value.value, "source": value.source,
                    "comparable": len(found) == 1, "winners": found}  # fmt: skip

    def table(uploads: Uploads) -> list[dict[str, Any]]:
        return [_row(entry) for entry in everyone(uploads)]

    def countries(model: str, benchmark: str, alpha: str, uploads: Uploads) -> dict[str, Any]:
        with page.answering():
            entry, name, number = asked_place(model, benchmark, alpha, uploads)
            return {"model": entry.name, "benchmark": name, "alpha": number, "metric": entry.metrics[name],
                    "synthetic": entry.synthetic, "countries": _values(entry, name, number)}  # fmt: skip

    def paint(model: str, benchmark: str, alpha: str, shown: str, zoom: bool, uploads: Uploads) -> str:
        with page.answering():
            _entries.one_of(shown, list(SHOWN), "choice")
            return map_of(*asked_place(model, benchmark, alpha, uploads), shown, bool(zoom))

    def other_model(model: str, shown: str, zoom: bool, uploads: Uploads) -> tuple[Any, Any, str]:
        with page.answering():
            entry = mapped(uploads)[_entries.one_of(model, list(mapped(uploads)), "model")]
            name, alpha = _first_place(entry)
            return (
                gr.update(choices=list(entry.places), value=name),
                gr.update(choices=_alphas(entry, name), value=_written(alpha)),
                map_of(entry, name, alpha, _entries.one_of(shown, list(SHOWN), "choice"), bool(zoom)),
            )

    def upload(file: str, order: str, models: list[str], uploads: Uploads) -> tuple[Any, ...]:
        with page.answering():
            if not file:
                raise InputError("no file was given", "choose a results.json")
            entry = _entries.uploaded(file, [known.name for known in everyone(uploads)])
            kept = (*uploads, entry)[-UPLOADS:]
            gone = (
                "" if len(uploads) < UPLOADS else f" {html.escape(uploads[0].name)} was put away: {UPLOADS} are kept."
            )
            names = [known.name for known in everyone(kept)]
            picked = [name for name in models or [] if name in names]
            picked = [*picked, entry.name] if len(picked) < MODELS else picked
            same = [known.name for known in everyone(kept) if known.group == entry.group and known is not entry]
            beside = (
                f"Comparable with {_listed(same)}." if same else "No other model here was asked the same questions."
            )
            told = f"<strong>{html.escape(entry.name)}</strong> is in the table and below. {html.escape(beside)}{gone}"
            told += " Only you see it, while this page is open."
            return (
                f'<div role="status" aria-live="polite"><p>{told}</p></div>',
                kept,
                table_of(kept, _entries.one_of(order, SORTED, "order")),
                gr.update(choices=names, value=picked),
                gr.update(choices=list(mapped(kept))),
                _charts.lines(chosen(picked, kept)),
            )

    def again(order: str, uploads: Uploads) -> tuple[Any, ...]:
        with page.answering():
            catalogue.read()
            return (
                table_of(uploads, _entries.one_of(order, SORTED, "order")),
                gr.update(choices=[entry.name for entry in everyone(uploads)]),
                gr.update(choices=list(mapped(uploads))),
                gr.update(visible=bool(catalogue.failed)),
            )

    def restore(request: gr.Request) -> tuple[Any, ...]:
        """What the address asks for, wherever it asks for something that is there."""
        now = [entry.name for entry in catalogue.entries]
        if not request.query_params and now == names:  # as built: what somebody has chosen meanwhile stays
            return (gr.skip(),) * 11
        wanted = page.asked(request, "models")
        listed = [name for name in (wanted or "").split(",") if name in now][:MODELS]
        region, year = page.asked(request, "region"), page.asked(request, "year")
        places = mapped(())
        entry = places.get(page.asked(request, "map") or "", places[start_place])
        benchmark, alpha = _first_place(entry)
        benchmark = said if (said := page.asked(request, "quality")) in entry.places and said else benchmark
        said = page.asked(request, "alpha")
        alpha = float(said) if said in _alphas(entry, benchmark) and said else alpha
        shown = said if (said := page.asked(request, "show")) in SHOWN and said else "value"
        zoom = page.asked(request, "zoom") != "false"
        return (
            gr.update(choices=now, value=listed or start),
            region if region in weights else start_region,
            int(year) if year and year.isdecimal() and int(year) in years else years[-1],
            _charts.lines(chosen(listed or start, ())),
            gr.update(choices=list(places), value=entry.name),
            gr.update(choices=list(entry.places), value=benchmark),
            gr.update(choices=_alphas(entry, benchmark), value=_written(alpha)),
            shown,
            zoom,
            map_of(entry, benchmark, alpha, shown, zoom),
            table_of((), SORTED[0]),
        )

    # ------------------------------------------------------------------------------------------------------------- page
    names = [entry.name for entry in catalogue.entries]
    start = [name for name in FIRST if name in names] or _same_group(catalogue.entries)
    start_region = next(entry.region for entry in catalogue.entries if entry.name == start[0])
    start_region = start_region if start_region in weights else "sea"
    start_place = start[0] if start[0] in mapped(()) else next(iter(mapped(())))
    first = mapped(())[start_place]
    benchmark, alpha = _first_place(first)
    private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}

    demo: gr.Blocks = page.blocks("Parity: which adapter, at which α, for which part of the world")
    with demo:
        uploads = gr.State((), time_to_live=page.KEPT)
        gr.HTML(f"<style>{_charts.CSS}</style>{_charts.shapes()}")
        gr.Markdown(
            "# Parity\nAn adapter turns a global model towards one region of the world. How far is set by **α**: 0 is "
            "the global base, 1 the fully regional model. This page compares what adapters gain in their region with "
            "what they keep of the world."
        )
        gr.Markdown("## 1. Which adapters are there?")
        order = gr.Radio(list(SORTED), value=SORTED[0], label="Sort by")
        adapters = gr.HTML(table_of((), SORTED[0]), apply_default_css=False)
        with gr.Row():
            file = gr.UploadButton("Compare with your own results.json", file_types=[".json"], scale=1, min_width=200)
            retry = gr.Button("Try again what could not be read", visible=bool(catalogue.failed), min_width=200)
        message = gr.HTML('<div role="status" aria-live="polite"></div>')

        gr.Markdown(
            "## 2. Which wins where?\n**GRP** weighs both sides: `g · global + (1 − g) · regional`. The weight `g` of "
            "a region is its KOF value: how much its people deal with the rest of the world. Change region or year, "
            "and see which model wins at which α."
        )
        models = gr.CheckboxGroup(
            names, value=start, label=f"Models, {MODELS} at most",
            info="Numbers can be compared where models were asked the same questions.",
        )  # fmt: skip
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                region = gr.Dropdown(
                    [(data["title"], name) for name, data in weights.items()], value=start_region,
                    label="KOF value of region",
                )  # fmt: skip
                year = gr.Slider(years[0], years[-1], value=years[-1], step=1, label="Year")
                gr.HTML('<div class="ggez-says" role="status" aria-live="polite" data-says></div>')
                gr.HTML(_charts.years(weights))
            with gr.Column(scale=3, min_width=300):
                lines = gr.HTML(_charts.lines(chosen(start, ())), js_on_load=SCRIPT, apply_default_css=False)

        gr.Markdown("## 3. Where in the world?\nQuality by country: of one model, on one benchmark, at one α.")
        with gr.Row():
            map_model = gr.Dropdown(list(mapped(())), value=start_place, label="Model", min_width=200)
            quality = gr.Dropdown(list(first.places), value=benchmark, label="Quality", min_width=200)
        with gr.Row():
            map_alpha = gr.Radio(
                _alphas(first, benchmark), value=_written(alpha), label="Alpha (α)", min_width=280, scale=2
            )
            shown = gr.Radio([(text, key) for key, text in SHOWN.items()], value="value", label="Colour shows",
                             min_width=280, scale=2)  # fmt: skip
        zoom = gr.Checkbox(True, label="Zoom to where there are values")
        world = gr.HTML(map_of(first, benchmark, alpha, "value", True), apply_default_css=False)

        page.copy_link()
        gr.HTML(f'<p class="ggez-note">{_sources(weights)}</p>')

        # Events that people cause are `input`: what the page itself sets changes nothing further.
        place = [map_model, quality, map_alpha, shown, zoom, uploads]
        order.input(sort, [order, uploads], adapters, **private)
        file.upload(upload, [file, order, models, uploads], [message, uploads, adapters, models, map_model, lines],
                    api_name="upload")  # fmt: skip
        retry.click(again, [order, uploads], [adapters, models, map_model, retry], api_name="retry")
        models.input(draw, [models, uploads], lines, **private)
        gr.on(
            [region.change, year.change], None, [region, year],
            js="(region, year) => { window.ggezAt = [region, year]; window.ggezPlace?.(); }", **private,
        )  # fmt: skip
        map_model.input(other_model, [map_model, shown, zoom, uploads], [quality, map_alpha, world], **private)
        gr.on([quality.input, map_alpha.input, shown.input, zoom.input], paint, place, world, **private)
        demo.load(
            restore, None,
            [models, region, year, lines, map_model, quality, map_alpha, shown, zoom, world, adapters], **private,
        ).then(
            None, [region, year],
            js="(region, year) => { window.ggezAt = [region, year]; window.ggezPlace?.(); }", **private,
        )  # fmt: skip
        page.remember({"models": models, "region": region, "year": year, "map": map_model, "quality": quality,
                       "alpha": map_alpha, "show": shown, "zoom": zoom})  # fmt: skip
        # For programs alone, so that they are told in our words what they may ask for.
        of_map = (("model", start_place), ("benchmark", benchmark), ("alpha", _written(alpha)))
        texts = [gr.Textbox(value, label=label, visible=False) for label, value in (*of_map, ("region", start_region))]
        compared = gr.JSON(start, label="models", visible=False)
        when = gr.Number(years[-1], label="year", visible=False)
        for function, inputs in (
            (table, [uploads]),
            (winner, [compared, texts[3], when, uploads]),
            (countries, [*texts[:3], uploads]),
        ):
            gr.Button(visible=False).click(function, inputs, gr.JSON(visible=False), api_name=function.__name__)
    return demo


# ----------------------------------------------------------------------------------------------------------------- data
def _weights() -> dict[str, dict[str, Any]]:
    """KOF values of the regions that have any: title, source, and values by year, 0..1."""
    found: dict[str, dict[str, Any]] = {}
    for name in registry.files("regions"):
        try:
            values, source = kof.series(name)
            title = registry.load_region(name).title
        except GgezError:
            continue  # a region without a value, or a file in the user's folder that is not in order
        found[name] = {"title": title, "source": source, "values": {y: round(v / 100, 12) for y, v in values.items()}}
    return dict(sorted(found.items(), key=lambda item: str(item[1]["title"])))


def _kof_entry() -> list[Entry]:
    """The index itself by country, where the user has imported it: as if measured, in its last year."""
    table, source = kof.imported()
    if not table:
        return []
    last = max(year for row in table.values() for year in row)
    name = f"{kof.COLUMN} in {last}"
    values = {
        code: (round(row[last] / 100, 12), None) for code, row in table.items() if last in row and page.country(code)
    }
    return [Entry(_entries.KOF, source, "world", "", "", (), 0.0, 0.0, 0.0, "", places={name: {0.0: values}},
                  metrics={name: "0 to 1"})]  # fmt: skip


def _values(entry: Entry, benchmark: str, alpha: float) -> dict[str, dict[str, Any]]:
    """By country: name, value, base (the value at alpha 0), change, gain, n."""
    at, base = entry.places[benchmark][alpha], entry.places[benchmark].get(0.0, {})
    found = {}
    for code, (value, n) in sorted(at.items()):
        before = base[code][0] if code in base and entry.name != _entries.KOF else None
        change = None if before is None else value - before
        found[code] = {"name": page.country(code), "value": value, "base": before, "change": change,
                       "gain": change / before if change is not None and before else None, "n": n}  # fmt: skip
    return found


def _row(entry: Entry) -> dict[str, Any]:
    point, base = entry.at(entry.chosen), entry.points[0]
    return {
        "name": entry.name, "origin": entry.origin, "region": entry.region, "family": entry.family, "base": entry.base,
        "alpha": point.alpha, "alpha_of_highest_grp": entry.grp_best,
        "gain": entry.gain(point), "gain_ci95": entry.gain_ci95,
        "retention": entry.retention(point), "retention_ci95": entry.retention_ci95,
        "globalization": entry.globalization, "grp_at_0": base.grp(entry.globalization),
        "grp": point.grp(entry.globalization), "synthetic": entry.synthetic, "below_gate": entry.below_gate,
        "compared": entry.group,
    }  # fmt: skip


def _order(entry: Entry, order: str) -> Any:
    if order in ("gain", "retention"):
        value = getattr(entry, order)(entry.at(entry.chosen))
        return (value is None, -(value or 0.0), entry.name)
    kind = next(i for i, start in enumerate(("uploaded: ", "paper: ", "")) if entry.name.startswith(start))
    kind = (0, 2, 1)[kind]
    return (kind, entry.name) if order == "name" else (getattr(entry, order), entry.name)


def _same_group(entries: Sequence[Entry]) -> list[str]:
    """The first entry, and those that can be compared with it."""
    return [entry.name for entry in entries if entry.group == entries[0].group][:MODELS]


def _first_place(entry: Entry) -> tuple[str, float]:
    """A benchmark of the region, if there is one, and the chosen alpha, if it was measured there."""
    name = next((name for name in entry.places if "regional" in name), next(iter(entry.places)))
    alphas = entry.places[name]
    return name, entry.chosen if entry.chosen in alphas else next(iter(alphas))


def _alphas(entry: Entry, benchmark: str) -> list[str]:
    return [_written(alpha) for alpha in entry.places[benchmark]]


def _written(alpha: float) -> str:
    """All digits of an alpha, so that it is found again."""
    return repr(alpha).removesuffix(".0")


def _listed(values: Sequence[Any]) -> str:
    return ", ".join(_written(value) if isinstance(value, float) else str(value) for value in values)


def _whole(year: Any) -> int:
    number = float(year) if isinstance(year, (int, float)) else float("nan")
    if number != number or number in (float("inf"), float("-inf")) or number % 1:
        raise InputError(f"year {_entries.shorter(str(year))}: expected a whole number, such as 2023")
    return int(number)


def _sources(weights: Mapping[str, Mapping[str, Any]]) -> str:
    kof_sources = "; ".join(html.escape(source) for source in dict.fromkeys(w["source"] for w in weights.values()))
    return (
        "Numbers of the paper: arXiv 2604.11490 v2, tables 1, 2, 5 and 10, as printed. No GRP is printed for drawn "
        f"pictures. KOF values: {kof_sources} (Gygli, Haelg, Potrafke and Sturm 2019). Map: Natural Earth, public "
        "domain, Equal Earth projection; borders as Natural Earth draws them, with no position taken."
    )
