"""The page that compares adapters, in a browser, as people use it."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from gradio_client import Client
from playwright.sync_api import Locator, Page, expect

from ggez_hub import registry
from tests.spaces.conftest import Served

CARDS = registry.data_root() / "cards" / "pocket"
SEA = ["pocket-sea-embedding", "pocket-sea-open-clip"]
Visit = Callable[..., Page]


@pytest.fixture(scope="module")
def served(serve: Callable[..., Served], tmp_path_factory: pytest.TempPathFactory) -> Served:
    return serve("parity", GGEZ_HOME=str(tmp_path_factory.mktemp("home")))


def says(page: Page) -> Locator:
    return page.locator("[data-says]")


def line_at(page: Page) -> float:
    """Where the upright KOF line stands, as a globalization."""
    path = page.locator("[data-kof-line]").get_attribute("d")
    left, right = json.loads(page.locator("[data-lines]").get_attribute("data-lines") or "")["x"]
    return (float(re.findall(r"[\d.]+", path or "")[0]) - left) / (right - left)


def choose(page: Page, label: str, option: str) -> None:
    """Chooses in a list by keyboard."""
    box = page.get_by_label(label, exact=True)
    box.click()
    box.fill(option)
    page.get_by_role("option", name=option, exact=True).first.wait_for()
    box.press("Enter")


def violations(page: Page) -> list[str]:
    """What axe finds, serious or critical."""
    found = Axe().run(page).response["violations"]
    return [f"{v['id']}: {v['nodes'][0]['html'][:200]}" for v in found if v["impact"] in ("serious", "critical")]


def test_year_and_region_move_the_line_and_the_winner_by_keyboard(visit: Visit, served: Served) -> None:
    page, client = visit(served.url), Client(served.url, verbose=False)

    def holds(region: str, year: int) -> None:
        found = client.predict(models=SEA, region=region, year=year, api_name="/winner")
        best, g = found["winners"][0]["winner"], found["globalization"]
        expect(says(page)).to_contain_text(
            f"{year} value, {g:.3f}, {best['model']} at α = {best['alpha']:g} wins with GRP {best['grp']:.3f}."
        )
        assert line_at(page) == pytest.approx(g, abs=1e-3)
        expect(page.locator("[data-year-text]")).to_contain_text(f"{year}: {g:.3f}")

    expect(says(page)).to_contain_text("At Southeast Asia's 2023 value, 0.434")
    holds("sea", 2023)
    slider = page.get_by_role("slider", name=re.compile("Year"))
    slider.focus()
    slider.press("Home")
    holds("sea", 1993)
    slider.press("ArrowRight")
    holds("sea", 1994)
    choose(page, "KOF value of region", "North America")
    holds("na", 1994)
    expect(page.locator("polyline.on")).to_have_attribute("data-region", "na")
    box = page.get_by_label(re.compile("number input for Year"))
    box.fill("2018")
    box.press("Enter")
    holds("na", 2018)
    page.get_by_label("pocket-sea-vlm", exact=True).check()
    expect(says(page)).to_contain_text("cannot be compared")
    assert line_at(page) == pytest.approx(0.7882, abs=1e-3)  # the new picture has the line where it was
    client.close()


def colours(page: Page) -> dict[str, str]:
    found = page.evaluate(
        """() => [...document.querySelectorAll(".ggez-map [data-iso]")].map(
            (country) => [country.dataset.iso, getComputedStyle(country).fill])"""
    )
    return dict(found)


def test_the_map_and_the_table_below_it_show_the_measured_values(visit: Visit, served: Served) -> None:
    page = visit(served.url)
    points = json.loads((CARDS / "pocket-sea-embedding" / "results.json").read_text(encoding="utf-8"))["points"]
    by = {p["alpha"]: p["benchmarks"]["pocket-regional-top1"]["by"]["country"] for p in points}

    def rows() -> dict[str, str]:
        table = page.get_by_role("region", name="Table of the map's values").locator("tbody tr")
        cells = [row.split("\t") for row in table.all_inner_texts()]
        return {name: value for name, value, *_ in cells}

    expect(page.locator('.ggez-map [data-iso="IDN"] title')).to_have_text(
        f"Indonesia: {by[0.5]['IDN']['value']:.3f} ({by[0.5]['IDN']['n']} questions)"
    )
    assert sorted(rows().values()) == sorted(f"{part['value']:.3f}" for part in by[0.5].values())
    before = colours(page)
    assert before["IDN"] != before["MMR"]  # 0.648 and 0.385
    assert before["AUS"] == before["USA"] != before["IDN"]  # no value
    page.locator("fieldset, .block").filter(has_text="Alpha (α)").last.get_by_label("1", exact=True).check()
    expect(page.locator('.ggez-map [data-iso="IDN"] title')).to_contain_text(f"{by[1.0]['IDN']['value']:.3f}")
    assert rows()["Laos"] == f"{by[1.0]['LAO']['value']:.3f}"
    assert colours(page) != before
    choose(page, "Model", "paper: SEA-Gemma-3")
    expect(page.locator('.ggez-map [data-iso="LAO"] title')).to_have_text("Laos: 0.681")
    assert rows()["Singapore"] == "0.688"  # at its own best alpha, 0.1
    page.get_by_label("the change since α = 0").check()
    expect(page.locator('.ggez-map [data-iso="VNM"] title')).to_have_text("Vietnam: +38.6 points, to 0.575")


def test_an_uploaded_file_joins_the_table_and_the_lines(visit: Visit, served: Served, tmp_path: Path) -> None:
    page = visit(served.url)
    own: dict[str, Any] = json.loads((CARDS / "pocket-sea-vlm" / "results.json").read_text(encoding="utf-8"))
    evil = "${alert(1)}{{value}}<img src=x onerror=alert(1)>"
    (tmp_path / "results.json").write_text(json.dumps(own | {"recipe": evil}), encoding="utf-8")
    page.on("dialog", lambda dialog: pytest.fail(f"a stranger's file ran code: {dialog.message}"))
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Compare with your own results.json").click()
    chooser.value.set_files(tmp_path / "results.json")
    row = page.get_by_role("row").filter(has_text=f"uploaded: {evil}")
    expect(row).to_contain_text("+27.5%")
    expect(page.get_by_role("checkbox", name=f"uploaded: {evil}")).to_be_checked()
    expect(page.locator(".ggez-legend").first).to_contain_text(evil)
    expect(says(page)).to_contain_text(f"uploaded: {evil} at α = 0.5 wins with GRP")
    page.get_by_label("pocket-sea-vlm", exact=True).check()  # the server knows the names of this user's uploads
    expect(page.locator(".ggez-legend").first).to_contain_text("pocket-sea-vlm")
    choose(page, "Model", f"uploaded: {evil}")
    expect(page.locator(".ggez-title")).to_contain_text(evil)
    (tmp_path / "results.json").write_text("{}", encoding="utf-8")
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Compare with your own results.json").click()
    chooser.value.set_files(tmp_path / "results.json")
    expect(page.get_by_text("points: is missing")).to_be_visible()


@pytest.mark.parametrize("scheme", [pytest.param("light", marks=pytest.mark.slow), "dark"])
def test_a_phone_shows_all_without_sideways_scrolling_and_without_barriers(
    scheme: str, visit: Visit, served: Served
) -> None:
    page = visit(served.url, viewport={"width": 360, "height": 740}, color_scheme=scheme)
    expect(says(page)).to_contain_text("wins with GRP")
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert page.evaluate("document.body.classList.contains('dark')") == (scheme == "dark")
    page.get_by_text("Numbers behind the lines").click()
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    table = page.get_by_role("region", name="Table of adapters")
    assert table.evaluate("(box) => box.scrollWidth > box.clientWidth")  # it scrolls in its own box
    table.focus()
    expect(table).to_be_focused()
    assert violations(page) == []


@pytest.mark.slow
def test_a_shared_link_restores_the_page_and_a_bad_one_is_no_harm(visit: Visit, served: Served) -> None:
    page = visit(served.url)
    expect(says(page)).to_contain_text("wins")
    page.get_by_label("pocket-sea-embedding", exact=True).uncheck()
    page.get_by_label("paper: SEA-SigLIP2", exact=True).check()
    slider = page.get_by_role("slider", name=re.compile("Year"))
    slider.press("Home")
    choose(page, "KOF value of region", "South Asia")
    choose(page, "Model", "pocket-sea-vlm")
    choose(page, "Quality", "pocket-global-open")
    title = page.locator(".ggez-title")
    expect(title).to_contain_text("pocket-global-open")  # until then the choice of α may still be set by the page
    page.locator("fieldset, .block").filter(has_text="Alpha (α)").last.get_by_label("0.75", exact=True).check()
    expect(title).to_contain_text("at α = 0.75")
    page.wait_for_url(re.compile(r"alpha=0\.75"))
    told, shown = says(page).inner_text(), title.inner_text()
    again = visit(page.url)
    expect(says(again)).to_have_text(told.replace("\n\n", ""))
    expect(again.locator(".ggez-title")).to_have_text(shown)
    expect(again.get_by_label("pocket-sea-embedding", exact=True)).not_to_be_checked()
    again.locator("fieldset, .block").filter(has_text="Alpha (α)").last.get_by_label("1", exact=True).check()
    expect(again.locator(".ggez-title")).to_contain_text("pocket-global-open, accuracy, the value at this α")
    expect(again.locator(".ggez-title")).to_contain_text("at α = 1")
    bad = visit(served.url + "?models=<b>,x&region=..&year=9999&map=nobody&quality=none&alpha=7&show=all&zoom=maybe")
    expect(says(bad)).to_contain_text("At Southeast Asia's 2023 value, 0.434, pocket-sea-open-clip")
    expect(bad.locator(".ggez-title")).to_contain_text("pocket-sea-embedding at α = 0.5")
