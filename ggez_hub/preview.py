"""A model card as a page of its own, as the Hub would show it: for looking at a card before it is published."""

import base64
import mimetypes
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from ggez_hub import metadata
from ggez_hub.registry import data_root

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

TEMPLATE = "preview.html.j2"
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)


def render(card_text: str, images: Mapping[str, Path]) -> str:
    """One HTML page that holds everything it shows: no script, and no request to anywhere.

    Args:
        card_text: The whole card, from whomever: HTML in it is shown as text, a link that would run code is none.
        images: File of each picture, by the name that the card has for it; of any other only the description is shown.

    Returns:
        The page. Where the front matter has problems, it lists these instead of the results.

    Raises:
        InputError: The card's front matter cannot be read.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    data, found = metadata.read(card_text), metadata.problems(card_text)
    models = [] if found else data.get("model-index", [])
    environment = Environment(
        loader=FileSystemLoader(data_root() / "cards"), undefined=StrictUndefined, autoescape=True, trim_blocks=True
    )
    body = _markdown(images).render(metadata.split(card_text)[1])
    return environment.get_template(TEMPLATE).render(
        title=next((model["name"] for model in models), "Model card"),
        labels=_labels(data),
        facts=_facts(data),
        rows=[
            (result["dataset"]["name"], metric.get("name", metric["type"]), metric["value"])
            for model in models
            for result in model["results"]
            for metric in result["metrics"]
        ],
        problems=found,
        body=Markup(body),  # noqa: S704 -- the renderer below lets no HTML of the card through
    )


def _labels(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What stands in the row under the title: what it is, and its value."""
    keys = {"library_name": "library", "pipeline_tag": "task", "license": "license", "language": "language"}
    found = [(what, str(value)) for key, what in keys.items() for value in _list(data.get(key))]
    for tag in map(str, _list(data.get("tags"))):
        what, _, value = tag.removeprefix("ggez-").partition(":")
        found.append((what, value) if tag.startswith("ggez-") and value else ("tag", tag))
    return found


def _facts(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What stands beside the card: what it was made from, and what was measured of it."""
    own = data.get("ggez")
    facts = [(key.replace("_", " "), data[key]) for key in ("base_model", "base_model_relation") if key in data]
    facts += own.items() if isinstance(own, Mapping) else ()
    return [(str(key).replace("_ci95", ", 95% interval"), _shown(value)) for key, value in facts]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return " to ".join(map(_shown, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _markdown(images: Mapping[str, Path]) -> "MarkdownIt":
    """A renderer of the Markdown that the Hub shows, to which HTML is text."""
    from markdown_it import MarkdownIt
    from markdown_it.common.utils import escapeHtml

    markdown = MarkdownIt("commonmark").enable(["table", "strikethrough"])

    def image(renderer: Any, tokens: Any, i: int, options: Any, env: Any) -> str:
        description = escapeHtml(renderer.renderInlineAsText(tokens[i].children or (), options, env))
        name = unquote(str(tokens[i].attrGet("src")))
        kind = mimetypes.guess_type(name)[0] or ""
        if name not in images or not images[name].is_file() or not kind.startswith("image/"):
            return f'<span class="picture">{description}</span>'
        content = base64.b64encode(images[name].read_bytes()).decode()
        return f'<img src="data:{kind};base64,{content}" alt="{description}">'

    def html(renderer: Any, tokens: Any, i: int, options: Any, env: Any) -> str:
        return escapeHtml(COMMENT.sub("", tokens[i].content).strip())  # comments say something to who edits the card

    def link(renderer: Any, tokens: Any, i: int, options: Any, env: Any) -> str:
        tokens[i].attrSet("rel", "noopener noreferrer nofollow")
        return str(renderer.renderToken(tokens, i, options, env))

    def before_table(renderer: Any, tokens: Any, i: int, options: Any, env: Any) -> str:
        return '<div class="scroll" tabindex="0"><table>'

    def after_table(renderer: Any, tokens: Any, i: int, options: Any, env: Any) -> str:
        return "</table></div>"

    rules = {"image": image, "html_block": html, "html_inline": html, "link_open": link}
    for name, rule in (rules | {"table_open": before_table, "table_close": after_table}).items():
        markdown.add_render_rule(name, rule)
    return markdown
