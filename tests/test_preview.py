"""Previews: what the Hub would show, on one page that asks nobody for anything and runs nothing."""

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from ggez_hub.cli import _guarded, cli
from ggez_hub.preview import render

GOLDEN = Path(__file__).parents[1] / "cards" / "pocket" / "pocket-sea-embedding"
LOADS = {"src", "srcset", "data", "poster", "background", "action", "formaction", "style"}  # attributes that fetch


class Page(HTMLParser):
    """The elements of a page, as a browser would see them, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def fetched(self) -> list[str]:
        """Everything that a browser would fetch to show the page."""
        links = [found.get("href", "") for found in self.all("link") + self.all("base")]
        return links + [value for _, found in self.elements for name, value in found.items() if name in LOADS]


HOSTILE = """\
---
license: "<script>alert('license')</script>"
tags: ["<img src=x onerror=alert(1)>", "ggez-region:</span><script>"]
base_model: "\\"><script>alert('base')</script>"
model-index:
- name: "</title><script>alert('name')</script>"
  results: {results}
ggez: {{alpha: "<iframe>", "<script>": 1}}
---
# <script>alert('title')</script>

<script>
alert('block')
</script>

<iframe src="https://evil.example/frame"></iframe> and <img src="https://evil.example/inline.png" onerror="alert(1)">

[a](javascript:alert(1)) [b](JaVaScRiPt&colon;alert(1)) [c](data:text/html;base64,PHNjcmlwdD4=) [d](vbscript:x)
[e](https://evil.example/"onclick="alert(1)) <javascript:alert(1)> [f]: x

![seen](https://evil.example/seen.png) ![own](own.png "\\" onload=\\"alert(1)") ![gone](../../etc/passwd)

<!-- <script>alert('comment')</script> -->

```"><script>alert('language')</script>
<script>alert('code')</script>
```
"""


@pytest.mark.parametrize(
    "results",
    ["[]", "3", "[{task: {type: a}, dataset: {type: b, name: <script>}, metrics: [{type: <b>, value: 1}]}]"],
)
def test_a_hostile_card_is_harmless(results: str) -> None:
    page = Page(render(HOSTILE.format(results=results), {}))
    assert {tag for tag, _ in page.elements}.isdisjoint({"script", "iframe", "img", "object", "embed", "form", "base"})
    assert not [name for _, found in page.elements for name in found if name.startswith("on")]
    assert page.fetched() == []
    assert [link["href"] for link in page.all("a") if not link["href"].startswith("https://evil.example/")] == []
    assert "default-src 'none'" in page.all("meta")[1]["content"]
    assert "alert('title')" in page.text  # shown, not run
    assert "alert('comment')" not in page.text


def test_the_name_in_the_title_is_text() -> None:
    name = "</title><script>alert(1)</script>"
    result = "{task: {type: a}, dataset: {type: b, name: <script>}, metrics: [{type: <b>, value: 1}]}"
    html = render(f'---\nmodel-index: [{{name: "{name}", results: [{result}]}}]\n---\n', {})
    assert Page(html).all("script") == []
    assert html.count("&lt;/title&gt;&lt;script&gt;alert(1)") == 2
    assert "<td>&lt;script&gt;</td><td>&lt;b&gt;</td>" in html


def test_tables_code_pictures_and_numbers_appear() -> None:
    images = {path.name: path for path in GOLDEN.glob("*.png")}
    html = render((GOLDEN / "adapter.md").read_text(), images)
    page = Page(html)
    shown = {found["alt"]: found["src"] for found in page.all("img")}
    kind, _, content = shown["Quality over α, and regional against global quality"].partition(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(content) == images["parity.png"].read_bytes()
    assert len(shown) == 2
    assert all(source.startswith("data:image/png;base64,") for source in page.fetched())
    assert html.count('<div class="scroll"') == html.count("<table>") == 5  # one of them the panel's
    assert '<code class="language-python">from PIL import Image' in html
    assert "RegionalModel.from_pretrained(&quot;ggez-hub/pocket-sea-embedding-lora&quot;)" in html
    for text in (
        "Pocket Southeast Asia",
        "ggez-hub/pocket-base-embedding",
        "pocket-regional-top1 (synthetic)",
        "0.5326",
    ):
        assert text in page.text
    labels = re.findall(r"<li><span>(.+?)</span> (.+?)</li>", html)
    assert {("library", "peft"), ("task", "zero-shot-image-classification"), ("license", "apache-2.0")} <= set(labels)
    assert {("language", "en"), ("region", "sea"), ("tag", "synthetic")} <= set(labels)


def test_a_picture_that_is_not_there_is_its_description(tmp_path: Path) -> None:
    html = render("---\nlicense: mit\n---\n![a < b](parity.png) ![c](notes.txt)", {"parity.png": tmp_path / "gone.png"})
    assert '<span class="picture">a &lt; b</span> <span class="picture">c</span>' in html


def test_any_name_of_a_picture_is_found(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    Image.new("RGB", (1, 1)).save(path)
    page = Page(render("---\nlicense: mit\n---\n![a](<my böse picture.png>)", {"my böse picture.png": path}))
    assert len(page.all("img")) == 1


def test_problems_of_the_metadata_are_shown_instead_of_results() -> None:
    page = Page(render("---\nlicense: aapche-2.0\nmodel-index: 3\n---\n# Title\n", {}))
    assert "license: found 'aapche-2.0'" in page.text
    assert "model-index: found 3" in page.text
    assert "Evaluation results" not in page.text


def test_the_command_writes_a_page_for_each_card(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def ggez(*arguments: str) -> int:
        return _guarded(lambda: cli.main(arguments, standalone_mode=False))

    assert ggez("card", "tiny", "--preview") == 2  # nothing to show yet
    assert ggez("run", "tiny") == 0
    capsys.readouterr()
    assert ggez("card", "tiny", "--preview") == 0
    *_, adapter, merged = capsys.readouterr().out.splitlines()
    assert (adapter, merged) == ("runs/tiny/preview/adapter.html", "runs/tiny/preview/merged.html")
    for name in (adapter, merged):
        html = (project / name).read_text()
        page = Page(html)
        assert len(page.all("img")) == 2
        assert all(source.startswith("data:image/png;base64,") for source in page.fetched())
        assert "Problems of the metadata" not in page.text
        assert "hand-written" not in page.text
        assert "global-regional parity, sea (synthetic)" in page.text
        assert {"region", "family"} <= set(re.findall(r"<li><span>(.+?)</span>", html))
    before = Path(adapter).read_bytes()
    assert ggez("plan", "tiny") == 0
    assert "run " not in capsys.readouterr().out  # a preview is no part of any stage
    assert ggez("card", "tiny", "--preview") == 0
    assert Path(adapter).read_bytes() == before
