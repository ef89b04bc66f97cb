"""playground: one question, every alpha."""

import html
import importlib
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ggez_hub.errors import GgezError
from ggez_hub.spaces import _asking as asking
from ggez_hub.spaces import _views as views
from ggez_hub.spaces import page

if TYPE_CHECKING:
    import gradio as gr

    from ggez_hub.spaces._asking import Adapter, Grid, Question, Shelf

FAMILIES = {
    "vlm": "Answers questions",
    "embedding": "Finds pictures (SigLIP)",
    "open_clip": "Finds pictures (CLIP)",
    "diffusion": "Draws",
}
BUTTONS = {"vlm": "Ask", "diffusion": "Draw"}
TEXTS = {
    "vlm": ("Question", "What is this?"),
    "diffusion": ("What to draw", "a drawing of kris"),
    "search": ("Search for", "words, or choose a picture below"),
}
EXAMPLES = 3  # cards
GIVEN_UP = """(said) => said.replace(/<span class="ggez-wait">.*?<\\/span>/, "")"""
SEEN = """() => document.querySelector(".ggez-status").scrollIntoView({block: "nearest", behavior: "smooth"})"""
# Gradio calls them "Thumbnail 1 of 24", which tells nobody who cannot see them what they are.
NAMED = """() => new MutationObserver(() => document.querySelectorAll(".ggez-pictures button").forEach((button) => {
  const name = button.querySelector("img")?.alt;
  if (name && button.ariaLabel !== name) button.ariaLabel = name;
})).observe(document.body, {childList: true, subtree: true, attributeFilter: ["alt"]})"""
INTRO = """<h1>Playground</h1><p>One number, the <b>regional α</b>, turns a model: at 0 it is the
<b class="ggez-global">global base</b> that everybody uses, at 1 the <b class="ggez-regional">regional model</b>.
Ask something, move α, and see what changes.</p>"""


def build(folder: Path, repos: Sequence[str] = ()) -> "gr.Blocks":
    """The playground.

    Args:
        folder: The Space: models/ and examples/ in it are offered.
        repos: Adapters that are offered instead: Hub ids or folders.
    """
    import gradio as gr

    shelf = asking.Shelf(folder, repos)
    on_gpu: Callable[[Any], Any] = lambda function: function  # noqa: E731
    if page.on_zero_gpu():
        shelf.warm()
        on_gpu = importlib.import_module("spaces").GPU(duration=60)
    opening = next(iter(shelf.examples), asking.Question((shelf.names[0],)))
    start = defaultdict(dict, _state(shelf, opening.adapters, opening))
    choices = _choices(shelf)

    demo: gr.Blocks = page.blocks("Playground · ggez_hub")
    with demo:
        gr.HTML(f"<style>{_beside('.css')}</style>{INTRO}", elem_classes="ggez-intro", js_on_load=None)
        with gr.Row(elem_classes="ggez-main", equal_height=False):
            adapter = gr.Dropdown(choices, label="Model", filterable=False, scale=4, min_width=260, **start["adapter"])
            also = gr.Dropdown(
                multiselect=True, max_choices=asking.MAX_REGIONS - 1, label="Together with other regions", scale=3,
                min_width=220, **start["also"] | {"choices": choices},
            )  # fmt: skip
            with gr.Column(scale=5, min_width=300, elem_classes="ggez-examples"):
                answered = gr.HTML(
                    '<p class="ggez-note">Examples, answered already</p>', js_on_load=None, **start["answered"]
                )
                with gr.Row():
                    cards = [gr.Button(size="sm", min_width=90, **start[f"card{i}"]) for i in range(EXAMPLES)]
        with gr.Row(elem_classes="ggez-main", equal_height=False):
            with gr.Column(scale=7, min_width=320):
                alphas = [gr.Slider(0, 1, **start[f"alpha{i}"]) for i in range(asking.MAX_REGIONS)]
                status = gr.HTML(
                    html_template='<div class="ggez-status" role="status" aria-live="polite">${value}</div>',
                    js_on_load=None, value="",
                )  # fmt: skip
                view = gr.HTML(js_on_load=None, elem_classes="ggez-view", value="")
                compare = gr.ImageSlider(
                    label="Both pictures",
                    interactive=False,
                    buttons=[],
                    max_height=420,
                    elem_classes="ggez-compare",
                    **start["compare"],
                )
                strip = gr.Gallery(
                    columns=7, height="auto", object_fit="contain", format="png", buttons=[], interactive=False,
                    allow_preview=False, label="Every α of the grid", elem_classes="ggez-pictures ggez-strip",
                    **start["strip"],
                )  # fmt: skip
                curve = gr.HTML(js_on_load=None, elem_classes="ggez-curves", value="")
            with gr.Column(scale=4, min_width=300):
                text = gr.Textbox(max_length=asking.MAX_TEXT, **start["text"])
                samples = gr.Gallery(
                    columns=6, height="auto", object_fit="contain", allow_preview=False, format="png", buttons=[],
                    interactive=False, elem_classes="ggez-pictures ggez-samples", **start["samples"],
                )  # fmt: skip
                with gr.Accordion("Your own pictures", open=False, **start["own"]) as own:
                    upload = gr.Image(
                        type="filepath", image_mode=None, sources=["upload", "clipboard"], height=160, buttons=[],
                        **start["upload"],
                    )  # fmt: skip
                    gallery = gr.File(
                        file_count="multiple", height=140, label="Pictures to search in (2 to 24)", **start["gallery"]
                    )
                # Gradio would open it first, and say what went wrong in words for programmers.
                upload.preprocess = _uploaded  # type: ignore[method-assign]
                options = gr.Textbox(
                    label="Options to choose from (optional)", lines=4, max_lines=asking.MAX_OPTIONS,
                    info="One on a line. Without them it writes an answer.", **start["options"],
                )  # fmt: skip
                seed = gr.Number(
                    precision=0, label="Seed",
                    info="The same seed starts both pictures from the same noise.", **start["seed"],
                )  # fmt: skip
                ask = gr.Button(variant="primary", **start["ask"])
                about = gr.HTML(js_on_load=None, elem_classes="ggez-about", **start["about"])
                page.copy_link()
        sample = gr.Textbox(visible=False, **start["sample"])
        facts = gr.JSON(visible=False, **start["facts"])
        grid = gr.JSON(visible=False, label="Answers", **start["grid"])
        wanted, place, later, go = (gr.Textbox("", visible=False) for _ in range(4))

        state = {
            "adapter": adapter, "also": also, "text": text, "samples": samples, "own": own, "upload": upload,
            "options": options, "gallery": gallery, "seed": seed, "ask": ask, "compare": compare, "strip": strip,
            "about": about, "sample": sample, "facts": facts, "grid": grid, "later": later, "answered": answered,
            **{f"card{i}": card for i, card in enumerate(cards)}, **{f"alpha{i}": a for i, a in enumerate(alphas)},
        }  # fmt: skip
        question = [adapter, also, text, sample, upload, options, gallery, seed]
        private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        show: dict[str, Any] = {
            "inputs": [*alphas, facts, grid, strip, wanted],
            "outputs": [compare, view, status, curve, wanted, place],
            "js": _beside(".js").partition("\n")[2],
            **private,
        }

        def updates(names: Sequence[str], asked: "Question | None" = None, **more: Any) -> dict[Any, Any]:
            with page.answering():
                found = _state(shelf, names, asked, **more)
            return {state[key]: gr.update(**value) for key, value in found.items()}

        def choose(adapter: str, also: list[str] | None, text: str) -> dict[Any, Any]:
            names = (adapter, *(also or ()))
            known = next((each for each in shelf.examples if each.adapters == names), None)
            return updates(names, known, text=text if known is None else None)

        def choose_one(adapter: str, text: str) -> dict[Any, Any]:
            return choose(adapter, None, text)

        def card(number: int) -> Callable[..., dict[Any, Any]]:
            def clicked(adapter: str, also: list[str] | None) -> dict[Any, Any]:
                names = (adapter, *(also or ()))
                return updates(names, [each for each in shelf.examples if each.adapters == names][number])

            return clicked

        def pick(adapter: str, also: list[str] | None, event: gr.SelectData) -> tuple[Any, ...]:
            with page.answering():
                paths = list(shelf.pictures((adapter, *(also or ()))))
                searching = shelf.adapter(adapter).facts.family in asking.SEARCH
            number = event.index if isinstance(event.index, int) else 0
            return paths[number % len(paths)], None, "" if searching else gr.skip()

        def compared(
            adapter: str,
            also: list[str] | None,
            text: str,
            sample: str | None,
            picture: str | None,
            options: str | None,
            gallery: list[str] | None,
            seed: float | None,
        ) -> tuple[dict[str, Any], list[tuple[str, str]]]:
            return answer(adapter, also, text, sample, picture, options, gallery, seed)

        def exactly(
            adapter: str,
            also: list[str] | None,
            text: str,
            sample: str | None,
            picture: str | None,
            options: str | None,
            gallery: list[str] | None,
            seed: float | None,
            alphas: str | None,
        ) -> tuple[Any, Any]:
            if not alphas:
                return gr.skip(), gr.skip()
            with page.answering():
                found = asking.checked(_numbers(alphas), len(asking.named(adapter, also)))
            return answer(adapter, also, text, sample, picture, options, gallery, seed, found)

        def answer(*given: Any) -> tuple[dict[str, Any], list[tuple[str, str]]]:
            with page.answering():
                found = shelf.grid(asking.asked(shelf, *given[:8]), *given[8:])
                return shelf.view(found), _files(found, strip.GRADIO_CACHE)

        def describe(adapter: str) -> dict[str, Any]:
            with page.answering():
                return views.described(shelf.adapter(adapter))

        def examples(adapter: str) -> list[dict[str, Any]]:
            with page.answering():
                return [asking.plain(each) for each in shelf.examples if shelf.adapter(adapter).name in each.adapters]

        def restore(request: gr.Request) -> Any:
            said = {key: page.asked(request, key) for key in (*asked, "alpha")}
            if not any(said.values()):
                return {facts: gr.skip()}
            names = [said["adapter"] or opening.adapters[0], *filter(None, (said["also"] or "").split(","))]
            return updates(names, **_restored(shelf, names, said))

        ran = {**page.MODEL, "show_progress": "minimal", "show_progress_on": [view]}
        running = [
            gr.on(
                [ask.click, text.submit, go.change],
                on_gpu(compared),
                question,
                [grid, strip],
                api_name="compare",
                **ran,
            ),
            wanted.change(
                on_gpu(exactly), [*question, wanted], [grid, strip], api_name="exact", trigger_mode="always_last", **ran
            ),
        ]
        running[0].success(None, **show).success(None, js=SEEN, **private)
        running[1].success(None, **show).failure(None, status, status, js=GIVEN_UP, **private)
        instead: dict[str, Any] = {"outputs": list(state.values()), "cancels": running, **private}
        demo.load(None, js=NAMED, **private)
        demo.load(None, **show)
        restored = demo.load(restore, None, list(state.values()), **private).then(None, **show)
        restored.then(None, later, go, js="(key) => key", **private)  # in a step of its own: all fields are there then
        adapter.select(choose_one, [adapter, text], **instead).then(None, **show)
        also.input(choose, [adapter, also, text], **instead).then(None, **show)
        for i, button in enumerate(cards):
            button.click(card(i), [adapter, also], **instead).then(None, **show)
        samples.select(pick, [adapter, also], [sample, upload, text], **private)
        gr.on([each.change for each in alphas], None, **show)
        for function in (describe, examples):
            gr.api(function, api_name=function.__name__)  # type: ignore[attr-defined]
        asked = {"adapter": adapter, "also": also, "text": text, "sample": sample, "options": options, "seed": seed}
        page.remember({**asked, "alpha": place})
    return demo


def _beside(suffix: str) -> str:
    return Path(__file__).with_suffix(suffix).read_text(encoding="utf-8")


def _choices(shelf: "Shelf") -> list[tuple[str, str]]:
    """What the list of models says, and their names."""
    labels = []
    for name in shelf.names:
        try:
            found = shelf.adapter(name)
            labels.append(f"{FAMILIES.get(found.facts.family, found.facts.family)} · {found.region}")
        except GgezError:
            labels.append(f"{name} (cannot be loaded)")
    return [
        (label if labels.count(label) == 1 else f"{label} · {name}", name)
        for label, name in zip(labels, shelf.names, strict=True)
    ]


def _uploaded(payload: Any) -> str | None:
    """Where an uploaded picture lies. Without `meta` in it, Gradio lets a call name any file of the server."""
    from gradio.utils import get_upload_folder, is_in_or_equal

    path = payload and payload.path
    return path if path and is_in_or_equal(path, get_upload_folder()) else None


def _files(grid: "Grid", cache: str) -> list[tuple[str, str]]:
    """Drawn pictures as files, with their captions. Equal ones are one file, which nobody meets half-written."""
    from gradio import processing_utils

    found = []
    for alphas, data in grid.answers.items():
        if isinstance(data, bytes):
            name = "drawing.png" if data.startswith(b"\x89PNG") else "drawing.webp"
            path = Path(cache) / processing_utils.hash_bytes(data) / name
            if path.exists():
                path.touch()  # files are deleted by their age
            else:
                processing_utils.save_bytes_to_cache(data, name, cache)
            found.append((str(path.resolve()), _caption(alphas)))
    return found


def _caption(alphas: Sequence[float]) -> str:
    return f"α = {', '.join(f'{alpha:g}' for alpha in alphas)}"


def _numbers(alphas: str) -> list[float]:
    """The numbers of a text such as ``0.37, 0.2``; what is none becomes one that no check lets pass."""
    found = []
    for part in str(alphas)[:100].split(","):
        try:
            found.append(float(part))
        except ValueError:
            found.append(float("nan"))
    return found


# ---------------------------------------------------------------------------------------------------------------- state
def _state(
    shelf: "Shelf",
    names: Sequence[str],
    asked: "Question | None" = None,
    alphas: Sequence[float] | None = None,
    text: str | None = None,
    sample: str | None = None,
    options: str | None = None,
    seed: int | None = None,
    go: bool = False,
) -> dict[str, dict[str, Any]]:
    """What every component of the page shows for adapters, and a question whose answers are there."""
    try:
        others = shelf.others(names[0])
    except GgezError as err:
        return _broken(names[0] if names[0] in shelf.names else None, err)
    names = [names[0], *dict.fromkeys(name for name in names[1:] if name in others)][: asking.MAX_REGIONS]
    adapters = [shelf.adapter(name) for name in names]
    facts = adapters[0].facts
    searching = facts.family in asking.SEARCH
    label, placeholder = TEXTS["search" if searching else facts.family]
    pictures = shelf.pictures(names) if facts.family != "diffusion" else {}
    if asked:
        text, options, seed = asked.text, "\n".join(asked.options), asked.seed
        sample = asked.picture if isinstance(asked.picture, str) else ""
    grid = shelf.example(asked)
    examples = [each for each in shelf.examples if each.adapters == tuple(names)]
    now = alphas or [adapter.facts.alpha for adapter in adapters]
    several = len(names) > 1
    found: dict[str, dict[str, Any]] = {
        "adapter": {"value": names[0]},
        "also": {"choices": [(shelf.adapter(each).region, each) for each in others], "value": names[1:],
                 "visible": bool(others)},
        "text": {"label": label, "placeholder": placeholder, "value": text or "", "visible": True},
        "samples": {"label": "Search with a picture" if searching else "Picture", "visible": bool(pictures),
                    "value": [(_picture(path), name) for path, name in pictures.items()],
                    "selected_index": list(pictures).index(sample) if sample in pictures else None},
        "own": {"visible": facts.family != "diffusion"},
        "upload": {"label": "Picture to search with" if searching else "Picture", "value": None},
        "options": {"visible": facts.family == "vlm", "value": options or ""},
        "gallery": {"visible": searching, "value": None},
        "seed": {"visible": facts.family == "diffusion", "value": seed or 0},
        "answered": {"visible": bool(examples)},
        "ask": {"value": BUTTONS.get(facts.family, "Search"), "visible": True},
        "compare": {"visible": facts.family == "diffusion"},
        "strip": {"visible": facts.family == "diffusion", "value": _shown(grid)},
        "about": {"value": "".join(views.about(each, each is adapters[-1]) for each in adapters)},
        "sample": {"value": sample if sample in pictures else ""},
        "facts": {"value": views.facts(adapters)},
        "grid": {"value": shelf.view(grid) if grid else None},
    }  # fmt: skip
    for i in range(EXAMPLES):
        found[f"card{i}"] = {"value": _card(examples[i], pictures), "visible": True} if i < len(examples) else {
            "value": "", "visible": False}  # fmt: skip
    for i in range(asking.MAX_REGIONS):
        there = i < len(adapters)
        found[f"alpha{i}"] = {
            "value": now[i] if there else 0,
            "step": 1 / shelf.steps(names),
            "visible": there,
            **(_said(adapters[i], several) if there else {}),
        }
    if go:
        found["later"] = {"value": str(time.monotonic_ns())}
    return found


def _said(adapter: "Adapter", several: bool) -> dict[str, str]:
    """What stands at a slider."""
    return {
        "label": f"Regional α{f' for {adapter.region}' if several else ''}",
        "info": f"0 = global base, 1 = {adapter.region}; recommended {adapter.facts.alpha:g}",
    }


def _broken(name: str | None, err: GgezError) -> dict[str, dict[str, Any]]:
    """The page of an adapter that cannot be had."""
    said = html.escape(f"{err.message}." + (f" {err.hint[:1].upper()}{err.hint[1:]}." if err.hint else ""))
    message = f'<p role="alert"><b>This model cannot be loaded.</b> {said} Choose another one, or this one again.</p>'
    hidden = ("answered", "also", "text", "samples", "own", "options", "seed", "ask", "compare", "strip")
    facts = {"adapters": [name], "regions": [], "curves": [], "message": message}
    return {
        "adapter": {"value": name}, "about": {"value": ""}, "sample": {"value": ""}, "facts": {"value": facts},
        "grid": {"value": None}, **{key: {"visible": False} for key in hidden},
        **{f"card{i}": {"visible": False} for i in range(EXAMPLES)},
        **{f"alpha{i}": {"visible": False} for i in range(asking.MAX_REGIONS)},
    }  # fmt: skip


def _restored(shelf: "Shelf", names: Sequence[str], said: dict[str, str | None]) -> dict[str, Any]:
    """What an address asks for; what is nonsense in it is left out."""
    with page.answering():
        try:
            alphas = list(asking.checked(_numbers(said["alpha"] or ""), len(names)))
        except GgezError:
            alphas = []
        digits = said["seed"] or ""
        seed = int(digits) if digits.isdecimal() and len(digits) < 11 else 0
        options, text, sample = said["options"] or "", (said["text"] or "")[: asking.MAX_TEXT], said["sample"] or ""
        more: dict[str, Any] = {"alphas": alphas or None}
        try:
            question = asking.asked(shelf, names[0], names[1:], text, sample, None, options, None, seed)
        except GgezError:
            return more | {"text": text, "sample": sample, "options": options, "seed": seed}
        if question in shelf.examples:
            return more | {"asked": question}
        return more | {"text": text, "sample": sample, "options": options, "seed": seed, "go": True}


def _picture(path: str) -> Any:
    return asking.decoded(asking.bytes_of(path))


def _shown(grid: "Grid | None") -> list[Any]:
    """Drawn pictures with captions, for a gallery."""
    answers = grid.answers.items() if grid else ()
    return [(asking.decoded(data), _caption(alphas))
            for alphas, data in answers if isinstance(data, bytes)]  # fmt: skip


def _card(question: "Question", pictures: dict[str, str]) -> str:
    """What the button of an example says."""
    if question.text and not question.picture:
        return f"“{question.text}”"
    return pictures.get(str(question.picture), "Example")
