"""The playground in a real browser, as people use it."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.spaces.conftest import Served

Visit = Callable[..., Page]

pytestmark = pytest.mark.slow  # a page's own tests; parity's stand for browsers in the quick ones


@pytest.fixture(scope="module")
def served(serve: Callable[..., Served]) -> Served:
    return serve("playground", HF_HUB_OFFLINE="1")


def slider(page: Page, number: int = 0) -> Any:
    return page.get_by_role("slider").nth(number)


def status(page: Page) -> Any:
    return page.locator(".ggez-status")


def finished(page: Page) -> Page:
    """The page once an answer stands there, and what was shown at first is fetched."""
    expect(status(page)).to_contain_text("Shown: α =")
    page.wait_for_load_state("networkidle")
    return page


def asked_of_the_server(page: Page) -> list[str]:
    """Calls of the page's functions from now on."""
    found: list[str] = []
    page.on("request", lambda request: found.append(request.url) if "/queue/" in request.url else None)
    return found


def choose(page: Page, name: str) -> None:
    page.get_by_label("Model").click()
    page.get_by_role("option", name=name, exact=True).click()


def violations(page: Page) -> list[tuple[str, str, list[str]]]:
    found = Axe().run(page).response["violations"]
    return [
        (each["impact"], each["id"], [node["html"][:200] for node in each["nodes"]])
        for each in found
        if each["impact"] in ("serious", "critical")
    ]


def test_a_finished_answer_is_there_as_the_page_opens(visit: Visit, served: Served) -> None:
    page = visit(served.url)
    expect(status(page)).to_contain_text("Shown: α = 0.35. The base says “rai stone”; here it is “Dong Son drum” (70%)")
    expect(page.locator(".ggez-bars .best")).to_have_count(2)
    expect(page.locator(".ggez-curves svg[role=img] title")).to_contain_text("Recommended: α = 0.35")
    expect(page.get_by_text("globalization factor is 0.434")).to_be_visible()
    expect(page.get_by_text("Pictures, answers and numbers are synthetic")).to_be_visible()


def test_the_mouse_on_the_slider_changes_the_picture_and_asks_no_server(visit: Visit, served: Served) -> None:
    page = finished(visit(served.url))
    choose(page, "Draws · Southeast Asia")
    expect(status(page)).to_contain_text("Shown: α = 0.50")
    page.wait_for_load_state("networkidle")
    right = page.locator(".ggez-compare img").last
    before, curve = right.get_attribute("src"), page.locator(".ggez-at").inner_text()
    calls = asked_of_the_server(page)
    box = slider(page).bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.8, box["y"] + box["height"] / 2, steps=5)
    expect(right).not_to_have_attribute("src", str(before))  # while the button is still down
    page.mouse.move(box["x"] + box["width"] - 1, box["y"] + box["height"] / 2, steps=5)
    page.mouse.up()
    expect(status(page)).to_contain_text("Shown: α = 1.00")
    expect(page.locator(".ggez-ends")).to_contain_text("Right: Southeast Asia, α = 1.00")
    last = page.get_by_role("img", name="α = 1", exact=True).get_attribute("src")
    expect(right).to_have_attribute("src", str(last))
    first = page.get_by_role("img", name="α = 0", exact=True).get_attribute("src")
    expect(page.locator(".ggez-compare img").first).to_have_attribute("src", str(first))
    expect(page.locator(".ggez-at")).not_to_have_text(curve)
    assert calls == []


def test_the_keyboard_moves_alpha_and_asks_no_server(visit: Visit, served: Served) -> None:
    page = finished(visit(served.url))
    calls = asked_of_the_server(page)
    slider(page).focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    expect(status(page)).to_contain_text("Shown: α = 0.50")
    expect(page.locator(".region .best")).to_contain_text("93%")
    expect(page.locator(".ggez-at")).to_contain_text("At α = 0.50: global 0.93, regional 0.56, GRP 0.72 (measured)")
    page.keyboard.press("End")
    expect(page.locator(".region .best")).to_contain_text("99.6%")  # not 100%: others have a little
    page.keyboard.press("Home")
    expect(status(page)).to_contain_text("also “rai stone”")
    assert page.locator(".base .ggez-bars").inner_text() == page.locator(".region .ggez-bars").inner_text()
    assert calls == []


def test_the_number_box_takes_any_alpha_and_computes_it(visit: Visit, served: Served) -> None:
    page = finished(visit(served.url))
    page.get_by_role("spinbutton").first.fill("0.333")
    page.keyboard.press("Enter")
    expect(status(page)).to_contain_text("Shown: α = 0.333.")
    expect(page.locator(".region .best")).to_contain_text("66%")
    expect(page.locator(".ggez-at")).to_contain_text("interpolated")


def test_a_shared_link_restores_model_question_and_alpha(visit: Visit, served: Served) -> None:
    page = finished(visit(served.url))
    choose(page, "Finds pictures (SigLIP) · Southeast Asia")
    expect(page.locator(".ggez-asked h2")).to_contain_text("saung")
    page.get_by_label("Search for").fill("a drawing of a tarsier <img src=x onerror=alert(1)> ${1+1} {{this}}")
    page.get_by_role("button", name="Search", exact=True).click()
    title = "“a drawing of a tarsier <img src=x onerror=alert(1)> ${1+1} {{this}}” among 24 pictures"
    expect(page.locator(".ggez-asked h2")).to_have_text(title)  # as it was typed: nothing of it is run
    slider(page).focus()
    page.keyboard.press("ArrowRight")
    expect(status(page)).to_contain_text("Shown: α = 0.55")
    expect(page).to_have_url(re.compile("alpha=0.55"))
    found = page.locator(".region .ggez-found").inner_text()
    other = visit(page.url)
    expect(other.locator(".ggez-asked h2")).to_have_text(title)
    expect(status(other)).to_contain_text("Shown: α = 0.55")
    expect(other.get_by_label("Search for")).to_have_value(re.compile("^a drawing of a tarsier"))
    assert other.locator(".region .ggez-found").inner_text() == found


def test_a_link_full_of_nonsense_opens_the_page(visit: Visit, served: Served) -> None:
    page = visit(f"{served.url}?adapter=%3Cb%3E&alpha=NaN,9&seed=1e9&text=%00&sample=../..&also=x,y")
    expect(page.get_by_role("alert").first).to_contain_text("not offered here")
    choose(page, "Draws · Southeast Asia")
    expect(page.locator(".ggez-ends")).to_contain_text("α = 0.50")


def test_two_regions_have_a_slider_each(visit: Visit, served: Served) -> None:
    page = finished(visit(served.url))
    choose(page, "Finds pictures (SigLIP) · Southeast Asia")
    page.get_by_label("Together with other regions").click()
    page.get_by_role("option", name="Sub-Saharan Africa").click()
    expect(status(page)).to_contain_text("Shown: α = Southeast Asia 0.50, Sub-Saharan Africa 0.50")
    expect(page.locator(".ggez-curves svg")).to_have_count(2)
    calls = asked_of_the_server(page)
    slider(page, 1).focus()
    page.keyboard.press("End")
    expect(status(page)).to_contain_text("Sub-Saharan Africa 1.00")
    assert calls == []


def test_asking_something_new_answers_and_a_bad_question_is_refused_kindly(visit: Visit, served: Served) -> None:
    page = finished(visit(served.url))
    page.get_by_role("button", name="longyi", exact=True).first.click()
    expect(status(page)).to_contain_text("longyi")
    page.get_by_label("Options to choose from").fill("one")
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.get_by_text("one option leaves no choice")).to_be_visible()
    page.get_by_label("Options to choose from").fill("")
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.locator(".ggez-said")).to_have_count(2)


def test_a_picture_can_be_searched_with(visit: Visit, served: Served) -> None:
    page = finished(visit(served.url))
    choose(page, "Finds pictures (SigLIP) · Southeast Asia")
    expect(page.locator(".ggez-asked h2")).to_contain_text("saung")
    page.get_by_role("button", name="sushi", exact=True).click()
    expect(page.get_by_label("Search for")).to_have_value("")
    page.get_by_role("button", name="Search", exact=True).click()
    expect(page.locator(".ggez-asked h2")).to_have_text("Pictures like this one, among 24")
    expect(page.locator(".region .ggez-found li").first).to_contain_text("sushi")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_keeps_people_out(scheme: str, visit: Visit, served: Served) -> None:
    page = finished(visit(served.url, color_scheme=scheme))
    assert violations(page) == []
    for name in ("Draws · Southeast Asia", "Finds pictures (SigLIP) · Southeast Asia"):
        choose(page, name)
        expect(page.locator(".ggez-asked h2")).to_contain_text("tarsier" if name.startswith("Draws") else "saung")
        page.wait_for_load_state("networkidle")
        assert violations(page) == []


def test_a_phone_shows_everything_without_sideways_scrolling(visit: Visit, served: Served) -> None:
    page = finished(visit(served.url, viewport={"width": 360, "height": 740}, has_touch=True))
    for name in ("Draws · Southeast Asia", "Finds pictures (SigLIP) · Southeast Asia"):
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        choose(page, name)
        expect(page.locator(".ggez-asked h2")).to_contain_text("tarsier" if name.startswith("Draws") else "saung")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
