"""The annotate page for programs: raters, what is refused, what stays after the server was killed, and the admin."""

import base64
import io
import json
import re
import string
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
import yaml
from gradio_client import Client
from gradio_client.exceptions import AppError
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ggez_hub import spaces
from ggez_hub.errors import ConfigError, InputError
from ggez_hub.hub import datasets
from ggez_hub.scoring import rating_report, ratings
from ggez_hub.spaces import annotate
from tests.hub_server import HubServer
from tests.spaces.conftest import Served

KEY = "0123456789abcdef" * 2
ADMIN = "only for the admin"
SHIPPED = spaces.folder("annotate")
HOSTILE = '<img src=x onerror="alert(1)">'


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the ratings."""
    return tmp_path_factory.mktemp("kept") / "ratings"


@pytest.fixture(scope="module")
def server(serve: Callable[..., Served], kept: Path) -> Served:
    return serve("annotate", GGEZ_RATINGS=str(kept), GGEZ_ADMIN_KEY=ADMIN)


@pytest.fixture(scope="module")
def client(server: Served) -> Client:
    return Client(server.url, verbose=False)


def of(kept: Path, name: str, key: str = KEY) -> list[ratings.Record]:
    """All lines of a rater."""
    return ratings.read(kept / f"{ratings.rater_id(name, key)}.jsonl")[0]


def answer(place: dict[str, Any], score: int = 2) -> list[int]:
    return [score] * len(place["answers"]) if place["answers"] else [score, score]


def test_a_rater_signs_in_rates_goes_back_and_sees_the_progress(client: Client, kept: Path) -> None:
    first = client.predict("Siti", ["en"], "", api_name="/sign_in")
    key = first["key"]
    assert (first["done"], first["total"], first["languages"]) == (0, 24, ["en"])
    assert re.fullmatch("[0-9a-f]{32}", key)
    second = client.predict("Siti", key, first["unit"], answer(first), "fine", api_name="/rate")
    assert second["done"] == 1
    assert second["unit"] != first["unit"]
    third = client.predict("Siti", key, second["unit"], "culture", api_name="/skip")
    assert third["done"] == 2
    assert client.predict("Siti", key, api_name="/progress") == third
    back = client.predict("Siti", key, api_name="/undo")
    assert (back["done"], back["unit"]) == (1, second["unit"])
    assert [r.event for r in of(kept, "Siti", key)] == ["signed_in", "rated", "skipped", "undone"]


def test_nothing_that_a_rater_gets_tells_what_made_it(client: Client) -> None:
    texts: dict[str, list[str]] = {}
    for line in (SHIPPED / "items" / "items.jsonl").read_text().splitlines():
        row = json.loads(line)
        texts[row["prompt"], row["country"]] = [c.get("text") for c in row["candidates"]]
    place = client.predict("Blind", ["en"], KEY, api_name="/sign_in")
    orders = set()
    while place["unit"]:
        said = json.dumps({key: value for key, value in place.items() if key != "picture"})
        assert not re.search(r"pocket|lora|ggez|alpha|\.png", said)
        data = base64.b64decode(place["picture"].partition("base64,")[2])
        assert not re.search(rb"pocket|lora|ggez|EXIF|XMP", data)
        if place["answers"]:
            made = texts[place["prompt"], place["country"]]
            assert sorted(place["answers"]) == sorted(made)
            orders.add(tuple(place["answers"]) == tuple(made))
        place = client.predict("Blind", KEY, place["unit"], answer(place), api_name="/rate")
    assert False in orders  # not always from the base to the region
    assert place["done"] == 24


def test_pictures_lose_what_a_file_says_beside_its_pixels(tmp_path: Path) -> None:
    about = PngInfo()
    about.add_text("parameters", "a drawing, Model: secret-model")
    exif = Image.Exif()
    exif[0x0131] = "secret-model"
    Image.new("RGB", (2000, 100), "red").save(tmp_path / "secret-model.png", pnginfo=about, exif=exif)
    found = annotate._picture(tmp_path / "secret-model.png")
    data = base64.b64decode(found.partition("base64,")[2])
    assert b"secret-model" not in data
    assert Image.open(io.BytesIO(data)).size == (1024, 51)


def test_two_raters_of_one_name_are_kept_apart(client: Client, kept: Path) -> None:
    one = client.predict("Ana", ["en"], "", api_name="/sign_in")
    other = client.predict("Ana", ["en"], "", api_name="/sign_in")
    assert one["key"] != other["key"]
    client.predict("Ana", one["key"], one["unit"], answer(one), api_name="/rate")
    assert client.predict("Ana", one["key"], api_name="/progress")["done"] == 1
    assert client.predict("Ana", other["key"], api_name="/progress")["done"] == 0
    with pytest.raises(AppError, match="no such thing to rate"):
        client.predict("Ana", other["key"], one["unit"], [1, 1], api_name="/rate")


def test_nobody_rates_or_reads_as_somebody_else(client: Client) -> None:
    place = client.predict("Victim", ["en"], KEY, api_name="/sign_in")
    for call in (("/progress",), ("/undo",), ("/rate", place["unit"], [1, 1]), ("/skip", place["unit"], "other")):
        with pytest.raises(AppError, match=r"nobody has signed in|no such thing to rate|nothing to go back to"):
            client.predict("Victim", "f" * 32, *call[1:], api_name=call[0])
        with pytest.raises(AppError, match="key: expected"):
            client.predict("Victim", "../../etc", *call[1:], api_name=call[0])
    assert client.predict("Victim", KEY, api_name="/progress")["done"] == 0


def test_a_second_tab_goes_on_with_the_same_list_and_rates_nothing_twice(client: Client, server: Served) -> None:
    tab = Client(server.url, verbose=False)
    first = client.predict("Tabs", ["en"], KEY, api_name="/sign_in")
    assert tab.predict("Tabs", ["en"], KEY, api_name="/sign_in") == first
    client.predict("Tabs", KEY, first["unit"], answer(first), api_name="/rate")
    with pytest.raises(AppError, match="rated before, in another tab"):
        tab.predict("Tabs", KEY, first["unit"], answer(first, 1), api_name="/rate")
    assert tab.predict("Tabs", KEY, api_name="/progress")["done"] == 1


@pytest.mark.parametrize("name", ["", "   ", "x" * 61, "\u0000", 7, None, ["a"]])
def test_what_is_no_name_is_refused(client: Client, name: Any) -> None:
    with pytest.raises(AppError, match="name: "):
        client.predict(name, ["en"], KEY, api_name="/sign_in")


@pytest.mark.parametrize("name", ["../../outside", "/etc/passwd", "con.jsonl", HOSTILE, "สมชาย", "a\nb", "💚", "-rf *"])
def test_whatever_name_a_rater_has_the_file_is_in_the_folder(client: Client, kept: Path, name: str) -> None:
    place = client.predict(name, ["en"], KEY, api_name="/sign_in")
    client.predict(name, KEY, place["unit"], answer(place), HOSTILE, api_name="/rate")
    cleaned = name.replace("\n", " ")
    assert [r.comment for r in of(kept, cleaned) if r.event == "rated"] == [HOSTILE]
    assert not {path.name for path in kept.parent.iterdir()} - {"ratings"}
    assert all(re.fullmatch(r"[a-z0-9-]+\.jsonl|\.lock", path.name) for path in kept.iterdir())


@pytest.mark.parametrize(
    ("scores", "comment", "said"),
    [
        ([9, 9], "", "scores: expected"),
        ([], "", "scores: expected"),
        ("12", "", "scores: expected"),
        (None, "", "scores: expected"),
        ([[1], [2]], "", "scores: expected"),
        ([1, 1], "x" * 501, "comment: 501 characters"),
    ],
)
def test_ratings_of_another_kind_are_refused(client: Client, scores: Any, comment: str, said: str) -> None:
    place = client.predict("Wrong", [], KEY, api_name="/sign_in")
    with pytest.raises(AppError, match=said):
        client.predict("Wrong", KEY, place["unit"], scores, comment, api_name="/rate")
    assert client.predict("Wrong", KEY, api_name="/progress")["done"] == 0


def test_languages_that_there_are_not_are_refused(client: Client) -> None:
    for languages in (["xx"], "en", None, [["en"]]):
        with pytest.raises(AppError, match="languages: expected some of en"):
            client.predict("Ana", languages, KEY, api_name="/sign_in")


@pytest.mark.slow
def test_twenty_raters_at_once_lose_nothing_and_are_not_mixed(server: Served, kept: Path) -> None:
    failed: list[str] = []

    def work(number: int) -> None:
        try:
            mine, name = Client(server.url, verbose=False), f"Crowd {number}"
            place = mine.predict(name, ["en"], KEY, api_name="/sign_in")
            for _ in range(5):
                score = 1 + number % 3
                place = mine.predict(name, KEY, place["unit"], answer(place, score), name, api_name="/rate")
            assert place["done"] == 5
        except Exception as err:  # noqa: BLE001  # whatever went wrong fails the test
            failed.append(f"{number}: {err!r}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    for number in range(20):
        rated = [r for r in of(kept, f"Crowd {number}") if r.event == "rated"]
        assert [r.comment for r in rated] == [f"Crowd {number}"] * 5
        assert {r.correctness for r in rated if r.scores} <= {1 + number % 3}
        assert len({r.key for r in rated}) == 5


@pytest.mark.slow
def test_a_killed_server_has_kept_every_rating_that_it_confirmed(server: Served) -> None:
    client = Client(server.url, verbose=False)
    place = client.predict("Killed", ["en"], KEY, api_name="/sign_in")
    for _ in range(3):
        place = client.predict("Killed", KEY, place["unit"], answer(place), api_name="/rate")
    server.kill()
    server.start()
    client = Client(server.url, verbose=False)
    assert client.predict("Killed", KEY, api_name="/progress") == place
    assert place["done"] == 3


def test_no_file_is_readable_through_the_server(client: Client, server: Served, kept: Path) -> None:
    import httpx

    client.predict("Files", ["en"], KEY, api_name="/sign_in")
    files = [
        *list(kept.glob("*.jsonl"))[:2],
        SHIPPED / "items" / "items.jsonl",
        SHIPPED / "texts.yaml",
        Path("/etc/passwd"),
    ]
    files += list((SHIPPED / "items" / "images").iterdir())[:1]
    for path in files:
        assert path.is_file()
        for route in ("gradio_api/file=", "file=", "gradio_api/file/", ""):
            answered = httpx.get(f"{server.url}{route}{path}", follow_redirects=True)
            assert answered.status_code in (403, 404), (route, path)


# ------------------------------------------------------------------------------------------------------------ the admin
@pytest.mark.slow
def test_the_admin_sees_progress_agreement_and_means_and_others_do_not(client: Client) -> None:
    for name, score in (("Report 1", 1), ("Report 2", 3)):
        place = client.predict(name, ["en"], KEY, api_name="/sign_in")
        while place["unit"]:
            place = client.predict(name, KEY, place["unit"], answer(place, score), api_name="/rate")
    found = client.predict(ADMIN, api_name="/admin")
    assert found["units"] == 24
    assert found["fewest"] >= 2
    assert found["progress"]["rater"][ratings.rater_id("Report 1", KEY)] == {"rated": 24, "skipped": 0}
    assert {"ggez-hub/pocket-sea-diffusion-lora@0.5", "ggez-hub/pocket-sea-vlm-lora@1"} <= set(found["means"])
    assert found["agreement"]["correctness"]["n"] == 18
    assert found["agreement"]["correctness"]["exact"] < 1
    assert found["agreement"]["points"]["alpha"] is None  # all of them tied all answers
    rows = [json.loads(line) for line in client.predict(ADMIN, api_name="/ratings").splitlines()]
    assert Counter(row["rater"] for row in rows)[ratings.rater_id("Report 2", KEY)] == 24
    for wrong in ("", "only for the admi", "é", None, 7):
        for call in ("/admin", "/ratings", "/commit"):
            with pytest.raises(AppError, match="this is not the admin key"):
                client.predict(wrong, api_name=call)


def test_what_no_text_can_be_is_no_admin_key_and_what_nobody_sees_is_no_comment() -> None:
    with pytest.raises(InputError, match="this is not the admin key"):
        annotate._opened("\ud800", ADMIN)
    assert [annotate.comment_of(text) for text in ("\u200b", " \0 ", None, " fine ")] == ["", "", "", "fine"]


def test_an_unfinished_line_is_shown_to_the_admin(client: Client, kept: Path) -> None:
    client.predict("Torn", ["en"], KEY, api_name="/sign_in")
    path = kept / f"{ratings.rater_id('Torn', KEY)}.jsonl"
    with path.open("a") as file:
        file.write('{"event":"ra')
    assert f"{path.name}:2" in client.predict(ADMIN, api_name="/admin")["damaged"]
    place = client.predict("Torn", KEY, api_name="/progress")
    client.predict("Torn", KEY, place["unit"], answer(place), api_name="/rate")
    assert f"{path.stem}.torn:1" in client.predict(ADMIN, api_name="/admin")["damaged"]
    assert len(of(kept, "Torn")) == 2


def test_without_a_key_given_one_is_made_and_told_on_stderr(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    keys = set()
    for _ in range(2):
        spaces.build("annotate")
        said = capsys.readouterr().err
        assert f"ratings are kept in {tmp_path / 'ratings'}\n" in said
        found = re.search(r"the admin page is at /admin; its key, until the next start: (\S{20,})\n", said)
        assert found
        keys.add(found[1])
    assert len(keys) == 2


def test_a_login_is_the_same_rater_on_every_device_and_nobody_elses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OAUTH_CLIENT_SECRET", "secret of the Space")
    key = annotate.login_key("ana")
    assert annotate.rater_of("ana", key) == annotate.rater_of("ana", annotate.login_key("ana"))
    assert annotate.login_key("budi") != key
    monkeypatch.setenv("OAUTH_CLIENT_SECRET", "of another Space")
    assert annotate.login_key("ana") != key


def test_in_a_space_a_login_signs_in_whatever_was_typed(book: ratings.Book, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GGEZ_RATINGS", str(book.folder))
    monkeypatch.setenv("OAUTH_CLIENT_ID", "space")
    monkeypatch.setenv("OAUTH_CLIENT_SECRET", "secret of the Space")
    monkeypatch.setattr("gradio.routes.attach_oauth", lambda app: None)  # would ask the Hub
    profile = gr.OAuthProfile({"name": "Ana", "preferred_username": "ana", "profile": "", "picture": ""})
    [enter] = {fn.fn for fn in spaces.build("annotate").fns.values() if fn.name == "enter"}
    own = {"name": "ana", "key": annotate.login_key("ana")}
    for typed in (("", ""), ("Victim", KEY)):
        assert enter(*typed, ["en"], "en", {"name": "Victim", "key": KEY}, profile)[0] == own
    assert enter("Budi", "", ["en"], "en", {"name": "", "key": KEY}, None)[0] == {"name": "Budi", "key": KEY}


def test_the_report_escapes_what_people_wrote() -> None:
    found = annotate.report_html(
        rating_report.report([], []) | {"progress": {"rater": {HOSTILE: {"rated": 1, "skipped": 0}}}}, [HOSTILE]
    )
    assert HOSTILE not in found
    assert "&lt;img src=x" in found


@pytest.fixture
def book(tmp_path: Path) -> ratings.Book:
    book = ratings.Book(tmp_path / "ratings", ratings.load(SHIPPED / "items"))
    rater = annotate.rater_of("Ana", KEY)
    book.sign_in(rater, ["en"])
    return book


def rate_next(book: ratings.Book) -> None:
    rater = annotate.rater_of("Ana", KEY)
    place = book.place(rater)
    assert place
    assert place.unit
    book.rate(rater, ratings.token(rater, place.unit), [1, 1] if place.unit.candidate else [1, 2, 3])


def test_ratings_are_committed_once_and_again_where_they_changed(book: ratings.Book, hub_server: HubServer) -> None:
    rate_next(book)
    name = f"{annotate.rater_of('Ana', KEY)}.jsonl"
    assert annotate._commit(book, "ggez-hub/ratings").startswith("Committed to ggez-hub/ratings: ")
    repo = hub_server.repos["datasets", "ggez-hub/ratings"]
    files = hub_server.files("ggez-hub/ratings", kind="datasets")
    assert repo.private
    assert files[f"ratings/{name}"] == (book.folder / name).read_bytes()
    assert "synthetic" in files["README.md"].decode()
    assert KEY not in repr(files)
    commits = len(repo.commits)
    assert annotate._commit(book, "ggez-hub/ratings") == "ggez-hub/ratings has all of it already."
    assert len(repo.commits) == commits
    hub_server.add("ggez-hub/ratings", {"README.md": b"# written by hand"}, kind="datasets")
    rate_next(book)
    annotate._commit(book, "ggez-hub/ratings")
    files = hub_server.files("ggez-hub/ratings", kind="datasets")
    assert files["README.md"] == b"# written by hand"
    assert files[f"ratings/{name}"].count(b"\n") == 3


def test_a_commit_that_the_hub_refuses_says_so_without_the_token(book: ratings.Book, hub_server: HubServer) -> None:
    rate_next(book)
    with pytest.raises(Exception, match=r"(?s)^(?!.*hf_ggez).*someone/ratings: .*403") as caught:
        annotate._commit(book, "someone/ratings")
    assert "hf_ggez" not in repr(caught.value)
    with pytest.raises(InputError, match="not a Hub id"):
        annotate._commit(book, "../ratings")


def test_the_repository_of_the_environment_is_the_only_one(
    book: ratings.Book, hub_server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    rate_next(book)
    monkeypatch.setenv("GGEZ_RATINGS_REPO", "ggez-hub/fixed")
    annotate._commit(book, "ggez-hub/another")
    assert [repo_id for _, repo_id in hub_server.repos] == ["ggez-hub/fixed"]


def test_items_come_from_a_dataset_repository(hub_server: HubServer) -> None:
    items = SHIPPED / "items"
    files = {path.relative_to(items).as_posix(): path.read_bytes() for path in items.rglob("*") if path.is_file()}
    hub_server.add("ggez-hub/items", files | {"evil.py": b"print()"}, kind="datasets")
    folder = datasets.fetch("ggez-hub/items", None, ("items.jsonl", "*.png"))
    assert len(ratings.load(folder)) == 24
    assert not (folder / "evil.py").exists()


# ----------------------------------------------------------------------------------------------------------- the texts
def test_every_text_is_there_in_all_languages_with_the_same_places_to_fill() -> None:
    found = annotate.registry.read(annotate.Texts, SHIPPED / "texts.yaml")
    assert set(yaml.safe_load((SHIPPED / "texts.yaml").read_text())) == {"status", "texts"}
    for key, text in found.texts.items():
        filled = {
            language: {name for _, name, _, _ in string.Formatter().parse(getattr(text, language)) if name is not None}
            for language in annotate.LANGUAGES
        }
        assert len(set(map(frozenset, filled.values()))) == 1, (key, filled)
        others = [getattr(text, language) for language in annotate.LANGUAGES]
        assert all(text.strip() == text for text in others), key
        assert key == "called" or text.th != text.en, key
    assert found.status.en == "written"
    for language in annotate.LANGUAGES:
        assert re.fullmatch(r"written|machine-drafted|confirmed by .+", getattr(found.status, language))


def test_no_text_is_left_over() -> None:
    found = annotate.registry.read(annotate.Texts, SHIPPED / "texts.yaml")
    code = Path(annotate.__file__).read_text()
    used = set(re.findall(r"[\"']([a-z_]+)[\"']", code))
    families = ("guide_", "skip_", "correctness_", "naturalness_")
    left = {key for key in found.texts if key not in used and not key.startswith(families)}
    assert left <= {"correctness", "naturalness"}


def test_a_language_that_lacks_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "texts.yaml"
    path.write_text(re.sub(r"(?m)^    vi: Bắt đầu\n", "", (SHIPPED / "texts.yaml").read_text()))
    with pytest.raises(ConfigError, match=r"texts.yaml:\d+  texts.start.vi: is missing"):
        annotate.registry.read(annotate.Texts, path)


@pytest.mark.parametrize(
    ("header", "expected"),
    [("th-TH,th;q=0.9,en;q=0.8", "th"), ("de,tl;q=0.5", "fil"), ("", "en"), ("de-DE,ja", "en"), ("," * 1000, "en")],
)
def test_the_page_begins_in_the_browsers_language(header: str, expected: str) -> None:
    assert annotate.preferred(header) == expected
