"""The annotate page in a browser, as raters use it."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Page, expect

from ggez_hub import spaces
from ggez_hub.scoring import ratings
from tests.spaces.conftest import Served

pytestmark = pytest.mark.slow  # a page's own tests; parity's stand for browsers in the quick ones


ADMIN = "only for the admin"
HOSTILE = '<img src=x onerror="document.title=1">![x](http://example.com/x.png) **b** $x$'
Visit = Callable[..., Page]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the ratings."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture(scope="module")
def served(serve: Callable[..., Served], kept: Path) -> Served:
    return serve("annotate", GGEZ_RATINGS=str(kept), GGEZ_ADMIN_KEY=ADMIN)


def file_of(kept: Path, name: str) -> Path:
    """The only rating file of raters called so."""
    [path] = kept.glob(f"{name.lower()}-*.jsonl")
    return path


def rated(kept: Path, name: str) -> list[ratings.Record]:
    """What a rater has said that counts."""
    return list(ratings.settle(ratings.read(file_of(kept, name))[0])[0].values())


def sign_in(page: Page, name: str) -> None:
    page.get_by_label("Your name").fill(name)
    page.keyboard.press("Enter")
    expect(page.locator("#card")).to_be_visible()
    at(page, 1)


def at(page: Page, number: int) -> None:
    """The page shows this item with its questions, and nothing is answered yet."""
    expect(page.locator("#work [role=status]")).to_have_text(f"{number} of 24")
    ready(page)


def ready(page: Page) -> None:
    """All of an item is there: Gradio brings it piece by piece."""
    page.wait_for_function("""() => {
        const groups = [...document.querySelectorAll("#work .question")].filter((group) => group.offsetParent);
        const ranked = document.querySelector("#card")?.textContent.includes("?") ||
            document.querySelector("#card")?.textContent.includes("Name this");
        return groups.length === (ranked ? 3 : 2) && !document.querySelector(".question input:checked");
    }""")


def questions(page: Page) -> int:
    return page.locator(".question:visible").count()


def answer(page: Page, key: str = "2") -> None:
    """Answers every question by keyboard, and saves."""
    before = page.locator("#card").get_attribute("data-unit")
    ready(page)
    for _ in range(questions(page)):
        page.keyboard.press(key)
    page.keyboard.press("Enter")
    page.wait_for_function("unit => document.querySelector('#card').dataset.unit !== unit", arg=before)


def violations(page: Page) -> list[str]:
    """What axe finds, serious or critical."""
    found = Axe().run(page).response["violations"]
    return [f"{v['id']}: {v['nodes'][0]['html'][:200]}" for v in found if v["impact"] in ("serious", "critical")]


def wide(page: Page) -> bool:
    """Whether the page scrolls sideways."""
    return bool(page.evaluate("document.documentElement.scrollWidth > innerWidth"))


def test_ten_items_by_keyboard_then_the_server_is_killed_and_the_rater_goes_on(
    visit: Visit, served: Served, kept: Path
) -> None:
    page = visit(served.url)
    sign_in(page, "Siti")
    for number in range(1, 11):
        at(page, number)
        answer(page)
    at(page, 11)
    assert len(rated(kept, "Siti")) == 10
    shown = page.locator("#card").get_attribute("data-unit")
    served.kill()
    for _ in range(questions(page)):
        page.keyboard.press("3")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Connection to the server was lost").first).to_be_visible()
    expect(page.locator("#work [role=status]")).to_have_text("11 of 24")  # what was not saved does not look saved
    with page.expect_event("load"):  # the page comes back by itself
        served.start()
    at(page, 11)
    assert page.locator("#card").get_attribute("data-unit") == shown
    answer(page, "1")
    at(page, 12)
    found = rated(kept, "Siti")
    assert len(found) == 11
    assert found[-1].scores == (1, 1) or found[-1].points == dict.fromkeys(found[-1].points or {}, 3)


def test_keys_answer_the_first_open_question_and_do_nothing_while_somebody_types(
    visit: Visit, served: Served, kept: Path
) -> None:
    page = visit(served.url)
    sign_in(page, "Keys")
    page.keyboard.press("Enter")  # nothing is answered yet
    expect(page.get_by_role("alert")).to_contain_text("Please answer every question first")
    page.keyboard.press("3")
    page.keyboard.press("2")
    first, second = page.locator(".question:visible").nth(0), page.locator(".question:visible").nth(1)
    expect(first.get_by_role("radio").nth(2)).to_be_checked()
    expect(second.get_by_role("radio").nth(1)).to_be_checked()
    comment = page.get_by_label("Comment (optional)")
    comment.click()
    page.keyboard.type("u1 saw 3 of 2")
    page.keyboard.press("Backspace")
    page.keyboard.press("Enter")
    expect(comment).to_have_value("u1 saw 3 of ")
    expect(page.locator("#work [role=status]")).to_have_text("1 of 24")
    expect(first.get_by_role("radio").nth(2)).to_be_checked()
    comment.blur()
    for _ in range(questions(page) - 2):
        page.keyboard.press("1")
    page.keyboard.press("Control+Enter")
    page.keyboard.press("Enter")
    at(page, 2)
    assert [record.comment for record in rated(kept, "Keys")] == ["u1 saw 3 of"]
    for key in ("u", "Backspace"):
        page.keyboard.press(key)
        at(page, 1)
        expect(comment).to_have_value("u1 saw 3 of")
        answer(page, "1")
        at(page, 2)
    assert len(rated(kept, "Keys")) == 1


def test_by_mouse_and_arrows_and_with_a_reason_for_what_cannot_be_judged(
    visit: Visit, served: Served, kept: Path
) -> None:
    page = visit(served.url)
    sign_in(page, "Mouse")
    for group in page.locator(".question:visible").all():
        group.locator("label").first.click()
    page.get_by_role("button", name="Save and go on").click()
    at(page, 2)
    expect(page.locator("#card")).to_be_focused()  # not left behind at the button
    group = page.get_by_role("group").filter(has=page.get_by_role("radio")).first
    group.get_by_role("radio").first.focus()
    page.keyboard.press("Space")
    page.keyboard.press("ArrowDown")
    expect(group.get_by_role("radio").nth(1)).to_be_checked()
    assert group.get_attribute("aria-label")
    page.get_by_role("button", name="Cannot judge").click()
    page.get_by_role("button", name="I do not know this culture well enough").click()
    at(page, 3)
    assert [(r.event, r.reason) for r in rated(kept, "Mouse")] == [("rated", None), ("skipped", "culture")]
    page.get_by_role("button", name="Back to the last one").click()
    at(page, 2)
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Your name")).to_be_visible()
    sign_in_again = page.get_by_label("Your name")
    sign_in_again.fill("Mouse")
    page.get_by_role("button", name="Start").click()
    at(page, 2)  # the browser kept the key


def test_a_second_tab_shows_the_same_and_rates_nothing_twice(visit: Visit, served: Served, kept: Path) -> None:
    page = visit(served.url)
    other = page.context.new_page()
    other.goto(served.url)
    sign_in(page, "Tabs")
    sign_in(other, "Tabs")
    assert other.locator("#card").get_attribute("data-unit") == page.locator("#card").get_attribute("data-unit")
    answer(page)
    at(page, 2)
    for _ in range(questions(other)):
        other.keyboard.press("1")
    other.keyboard.press("Enter")
    expect(other.get_by_role("alert")).to_contain_text("in another tab")
    at(other, 2)
    assert len(rated(kept, "Tabs")) == 1
    other.close()


def test_what_could_not_be_saved_says_so_and_stays(visit: Visit, served: Served, kept: Path) -> None:
    page = visit(served.url)
    sign_in(page, "Full")
    path = file_of(kept, "Full")
    path.rename(path.with_suffix(".away"))
    path.mkdir()  # nothing can be written there now
    for _ in range(questions(page)):
        page.keyboard.press("2")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("This was not saved")
    expect(page.locator("#work [role=status]")).to_have_text("1 of 24")
    expect(page.locator(".question input:checked")).to_have_count(questions(page))
    path.rmdir()
    path.with_suffix(".away").rename(path)
    page.keyboard.press("Enter")
    at(page, 2)
    assert len(rated(kept, "Full")) == 1


def test_the_language_of_the_page_is_in_its_address_and_keeps_what_was_answered(visit: Visit, served: Served) -> None:
    page = visit(served.url, locale="vi-VN")
    expect(page.get_by_role("button", name="Bắt đầu", exact=True)).to_be_visible()
    expect(page.get_by_text("chưa được người nói tiếng Việt xác nhận").first).to_be_visible()
    expect(page.get_by_text("has not been confirmed by a speaker").first).to_be_visible()
    page.get_by_label("Tên của bạn").fill("Lan")
    page.keyboard.press("Enter")
    expect(page.locator("#work [role=status]")).to_have_text("1 trên 24")
    ready(page)
    page.keyboard.press("1")
    expect(page.locator(".question input:checked")).to_have_count(1)
    language = page.get_by_role("listbox", name="Language").or_(page.get_by_label("Language of this page")).first
    language.click()
    page.get_by_role("option", name="ไทย").click()
    expect(page.locator("#work [role=status]")).to_have_text("1 จาก 24")
    expect(page.locator(".question input:checked")).to_have_count(1)
    expect(page.locator("html")).to_have_attribute("lang", "th")
    expect(page).to_have_url(re.compile("language=th"))
    page.reload()
    expect(page.locator("#work [role=status]")).to_have_text("1 จาก 24")
    page.goto(f"{served.url}?language=nonsense")
    expect(page.locator("#work [role=status]")).to_have_text("1 trên 24")


def fits(page: Page) -> None:
    """What is shown is readable by everybody, in light and in dark, and does not scroll sideways on a phone."""
    for scheme in ("dark", "light"):
        page.emulate_media(color_scheme=scheme)
        expect(page.locator("body")).to_have_class(re.compile(r"\bdark\b" if scheme == "dark" else r"^(?!.*\bdark\b)"))
        assert violations(page) == []
    page.set_viewport_size({"width": 360, "height": 740})
    assert not wide(page)
    page.set_viewport_size({"width": 1280, "height": 900})


def test_everybody_can_use_it_on_a_phone_and_in_the_dark(visit: Visit, served: Served) -> None:
    page = visit(f"{served.url}?language=fil", reduced_motion="reduce")  # the longest words; colours change at once
    expect(page.locator("html")).to_have_attribute("lang", "fil")
    fits(page)
    page.locator("#name").get_by_role("textbox").fill("Everybody")
    page.keyboard.press("Enter")
    expect(page.locator("#card")).to_be_visible()
    kinds: set[int] = set()
    while len(kinds) < 2:
        ready(page)
        if questions(page) not in kinds:
            fits(page)
        kinds.add(questions(page))
        answer(page)
    expect(page.locator("#card").get_by_role("img")).to_have_accessible_name(re.compile("larawan"))


def test_what_models_and_people_wrote_is_text_and_nothing_else(
    visit: Visit, serve: Callable[..., Served], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder, kept = tmp_path_factory.mktemp("items"), tmp_path_factory.mktemp("hostile")
    Image.new("RGB", (8, 8), "red").save(folder / "a.png")
    made: list[dict[str, Any]] = [{"model": f"m{i}", "alpha": i / 2, "text": f"{i} {HOSTILE}"} for i in range(3)]
    row = {"id": "a", "task": "answers", "aspect": HOSTILE[:20], "country": "XXX", "language": "en", "prompt": HOSTILE}
    (folder / "items.jsonl").write_text(json.dumps(row | {"image": "a.png", "candidates": made}) + "\n")
    served = serve("annotate", "--repo", str(folder), GGEZ_RATINGS=str(kept), GGEZ_ADMIN_KEY=ADMIN)
    page = visit(served.url)
    page.get_by_label("Your name").fill(HOSTILE[:60])
    page.keyboard.press("Enter")
    expect(page.locator("#card")).to_contain_text(HOSTILE)
    expect(page.locator(".question:visible")).to_have_count(3)
    for letter, group in zip("ABC", page.locator(".question:visible").all(), strict=True):
        expect(group).to_contain_text(re.compile(rf"{letter}\. \d {re.escape(HOSTILE)}"))
    assert page.locator("#work img").count() == 1
    assert "m0" not in page.content()
    for key in "123":
        page.keyboard.press(key)
    page.get_by_label("Comment (optional)").fill(HOSTILE)
    page.get_by_role("button", name="Save and go on").click()
    expect(page.get_by_text("All done. Thank you!")).to_be_visible()
    page.goto(f"{served.url}admin")
    page.get_by_label("Admin key").fill(ADMIN)
    page.get_by_role("button", name="Show").click()
    expect(page.locator(".ggez-report")).to_contain_text("m0@0")
    assert page.title() == "annotate"


def test_the_admin_page_opens_with_its_key_only_and_gives_all_ratings(visit: Visit, served: Served, kept: Path) -> None:
    book = ratings.Book(kept, ratings.load(spaces.folder("annotate") / "items"))
    place = book.sign_in("counted-1", ["en"])
    assert place.unit
    book.skip("counted-1", ratings.token("counted-1", place.unit), "culture")
    page = visit(f"{served.url}admin")
    key = page.get_by_label("Admin key")
    key.fill(ADMIN)
    key.press("Enter")
    expect(page.locator(".ggez-report")).to_contain_text(file_of(kept, "Counted").stem)
    assert violations(page) == []
    with page.expect_download() as download:
        page.get_by_role("link", name="Download all ratings").or_(
            page.get_by_role("button", name="Download all ratings")
        ).first.click()
    rows = [json.loads(line) for line in download.value.path().read_text().splitlines()]
    assert {row["event"] for row in rows} <= {"rated", "skipped"}
    assert file_of(kept, "Counted").stem in {row["rater"] for row in rows}
    page.reload()
    key.fill("guess")
    key.press("Enter")
    expect(page.get_by_text("this is not the admin key").first).to_be_visible()
    expect(page.locator(".ggez-report")).to_have_count(0)
