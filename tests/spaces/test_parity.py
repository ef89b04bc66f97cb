"""The page that compares adapters, through its API as programs use it, and what it is made of."""

import json
import math
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from gradio_client import Client, handle_file
from hypothesis import given
from hypothesis import strategies as st

from ggez_hub import kof, method, registry
from ggez_hub.errors import GgezError, InputError
from ggez_hub.scoring import paper
from ggez_hub.spaces import _charts, _entries
from ggez_hub.spaces._entries import Point
from tests.hub_server import HubServer
from tests.spaces.conftest import Served

CARDS = registry.data_root() / "cards" / "pocket"
SEA = ["pocket-sea-embedding", "pocket-sea-open-clip"]


def results(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((CARDS / name / "results.json").read_text(encoding="utf-8"))
    return loaded


def write(folder: Path, value: Any, name: str = "results.json") -> str:
    path = folder / name
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def served(serve: Callable[..., Served], tmp_path_factory: pytest.TempPathFactory) -> Served:
    return serve("parity", GGEZ_HOME=str(tmp_path_factory.mktemp("home")))


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[Client]:
    """One user of the page."""
    with closing(Client(served.url, verbose=False)) as one:
        yield one


@pytest.fixture
def newcomer(served: Served) -> Iterator[Client]:
    """A user who was not here before."""
    with closing(Client(served.url, verbose=False)) as one:
        yield one


def refusal(client: Client, api_name: str, **arguments: Any) -> str:
    """What a call is refused with: words of ours or gradio's, never a traceback."""
    with pytest.raises(Exception, match=r"\S") as caught:  # gradio_client raises AppError or ValueError
        client.predict(api_name=api_name, **arguments)
    said = str(caught.value)
    assert "Traceback" not in said
    assert "site-packages" not in said
    return said


# ----------------------------------------------------------------------------------------------------------- the API
def test_the_table_has_every_pocket_adapter_and_the_papers_models(client: Client) -> None:
    rows = {row["name"]: row for row in client.predict(api_name="/table")}
    assert {name for name in rows if name.startswith("pocket-")} == {
        path.parent.name for path in CARDS.glob("*/*.json")
    }
    for name in ("pocket-sea-vlm", "pocket-na-embedding"):
        row, chosen = rows[name], results(name)["chosen"]
        assert [row[key] for key in ("alpha", "retention_ci95", "grp", "synthetic")] == [
            chosen["alpha"], chosen["retention_ci95"], pytest.approx(chosen["grp"]), True,
        ]  # fmt: skip
        assert (row["gain"], row["retention"]) == pytest.approx((chosen["gain"], chosen["retention"]))
    assert rows["pocket-sea-vlm"]["below_gate"]  # it keeps 97.9%, and its recipe asks for 98%
    assert not rows["pocket-na-embedding"]["below_gate"]
    assert {name: row["alpha_of_highest_grp"] for name, row in rows.items() if name.startswith("pocket-")} == {
        path.parent.name: results(path.parent.name)["grp_best"]["alpha"] for path in CARDS.glob("*/results.json")
    }
    assert "highest GRP: 0.5<" in client.predict(order="name", api_name="/retry")[0]
    printed = rows["paper: SEA-Gemma-3"]
    assert (printed["alpha"], round(printed["gain"], 3), round(printed["retention"], 3)) == (0.1, 0.133, 1.014)
    assert printed["below_gate"] is None
    assert not printed["synthetic"]


@pytest.mark.parametrize(("region", "year"), [("sea", 2023), ("na", 2023), ("ssa", 1993)])
def test_the_winner_is_the_highest_parity_of_all_alphas(region: str, year: int, client: Client) -> None:
    found = client.predict(models=SEA, region=region, year=year, api_name="/winner")
    g = kof.globalization_factor(region, year)
    assert found["globalization"] == g
    assert found["comparable"]
    ways = [(method.grp(point["global"], point["regional"], g), -point["alpha"], name, point)
            for name in SEA for point in results(name)["points"]]  # fmt: skip
    best = max(ways, key=lambda way: way[:2])
    winner = found["winners"][0]["winner"]
    assert (winner["grp"], winner["alpha"], winner["model"]) == (pytest.approx(best[0]), -best[1], best[2])
    base = {name: results(name)["points"][0]["global"] for name in SEA}
    kept = max((way for way in ways if way[3]["global"] >= 0.98 * base[way[2]]), key=lambda way: way[:2])
    keeping = found["winners"][0]["keeping"]
    assert (keeping["alpha"], keeping["model"]) == (-kept[1], kept[2])


def test_models_that_were_asked_other_questions_are_not_compared(client: Client) -> None:
    found = client.predict(models=["pocket-sea-vlm", *SEA, "paper: SEA-Gemma-3"], region="sea", year=2023,
                           api_name="/winner")  # fmt: skip
    assert not found["comparable"]
    assert [group["models"] for group in found["winners"]] == [["pocket-sea-vlm"], SEA, ["paper: SEA-Gemma-3"]]
    printed = found["winners"][2]["winner"]
    assert (printed["alpha"], round(printed["grp"], 3)) == (0.1, 0.641)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"models": ["pocket-sea-embeding"]}, "pocket-sea-embeding"),
        ({"models": []}, "none given"),
        ({"models": ["<img src=x onerror=alert(1)>"]}, "img"),
        ({"models": "pocket-sea-vlm"}, ""),
        ({"models": [path.parent.name for path in sorted(CARDS.glob("*/results.json"))[:7]]}, "6 at most"),
        ({"region": "../../etc/passwd"}, "passwd"),
        ({"region": "atlantis"}, "atlantis"),
        ({"year": 1800}, "1800|1993"),
        ({"year": 2000.5}, "whole number"),
        ({"year": "soon"}, ""),
    ],
)
def test_a_winner_that_cannot_be_told_is_refused_in_words(arguments: dict[str, Any], said: str, client: Client) -> None:
    asked = {"models": SEA, "region": "sea", "year": 2023} | arguments
    assert re.search(said, refusal(client, "/winner", **asked))


def test_countries_have_the_values_of_the_results(client: Client) -> None:
    found = client.predict(model="pocket-sea-vlm", benchmark="pocket-regional-open", alpha="1", api_name="/countries")
    points = results("pocket-sea-vlm")["points"]
    first, last = (point["benchmarks"]["pocket-regional-open"]["by"]["country"] for point in (points[0], points[-1]))
    assert found["synthetic"]
    assert {code: (row["value"], row["base"], row["n"]) for code, row in found["countries"].items()} == {
        code: (last[code]["value"], first[code]["value"], last[code]["n"]) for code in last
    }
    assert found["countries"]["VNM"]["name"] == "Vietnam"


def test_countries_of_the_paper_are_those_of_its_table(client: Client) -> None:
    found = client.predict(model="paper: SEA-Gemma-3", benchmark="SEA-VQA (table 10)", alpha="0.1",
                           api_name="/countries")["countries"]  # fmt: skip
    printed = next(row for row in paper.table(10).records() if row["alpha"] == 0.1)
    assert {code: round(100 * row["value"], 1) for code, row in found.items()} == {
        code: printed[code] for code in ("KHM", "IDN", "LAO", "MYS", "PHL", "SGP", "THA", "VNM")
    }
    assert found["LAO"]["base"] == 0
    assert found["LAO"]["gain"] is None  # nothing at alpha 0 to be relative to


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"alpha": "7"}, "7"),
        ({"alpha": "0.3"}, "0.3"),
        ({"alpha": "nan"}, ""),
        ({"alpha": "half"}, "half"),
        ({"benchmark": "pocket-global-distance"}, "pocket-global-distance"),
        ({"model": "paper: SEA-SigLIP2"}, "SigLIP2"),
        ({"model": 17}, ""),
    ],
)
def test_countries_that_cannot_be_told_are_refused_in_words(
    arguments: dict[str, Any], said: str, client: Client
) -> None:
    asked = {"model": "pocket-sea-vlm", "benchmark": "pocket-regional-open", "alpha": "1"} | arguments
    assert said in refusal(client, "/countries", **asked)


# ------------------------------------------------------------------------------------------------------------ uploads
def test_an_upload_is_compared_and_stays_with_its_user(client: Client, newcomer: Client, tmp_path: Path) -> None:
    own = results("pocket-sea-embedding")
    own["recipe"] = "my-own"
    for point in own["points"]:
        point["regional"] = min(1.0, point["regional"] + 0.2)
    told, *_ = newcomer.predict(file=handle_file(write(tmp_path, own)), order="name", models=SEA, api_name="/upload")
    assert "uploaded: my-own" in told
    assert "Comparable with pocket-sea-embedding, pocket-sea-open-clip" in told
    found = newcomer.predict(models=[*SEA, "uploaded: my-own"], region="sea", year=2023, api_name="/winner")
    assert found["winners"][0]["winner"]["model"] == "uploaded: my-own"
    assert "uploaded: my-own" not in [row["name"] for row in client.predict(api_name="/table")]
    assert "my-own" in refusal(client, "/winner", models=["uploaded: my-own"], region="sea", year=2023)


def test_five_uploads_are_kept(newcomer: Client, tmp_path: Path) -> None:
    file = write(tmp_path, results("pocket-sea-vlm"))
    for _ in range(5):
        told, *_ = newcomer.predict(file=handle_file(file), order="name", models=[], api_name="/upload")
        assert "put away" not in told
    told, *_ = newcomer.predict(file=handle_file(file), order="name", models=[], api_name="/upload")
    assert "uploaded: pocket-sea-vlm was put away" in told
    names = [row["name"] for row in newcomer.predict(api_name="/table")]
    assert len([name for name in names if name.startswith("uploaded: ")]) == 5
    assert len(set(names)) == len(names)


def changed(**parts: Any) -> dict[str, Any]:
    return results("pocket-sea-vlm") | parts


POINTS = results("pocket-sea-vlm")["points"]
HOSTILE = {
    "not JSON": ("\x00\x01PNG", "cannot be read"),
    "not a mapping": ("[1, 2]", "expected a mapping"),
    "too large": (" " * (_entries.MAX_UPLOAD + 1), f"{_entries.MAX_UPLOAD} at most"),
    "nested deeply": ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
    "nested deeply in a key": ('{"region": ' + "[" * 900 + "]" * 900 + "}", "recursion limit"),
    "not a number": (json.dumps(changed()).replace("0.6852638888888889", "NaN"), "grp"),
    "a key is missing": ({k: v for k, v in changed().items() if k != "points"}, "points: is missing"),
    "an alpha of 7": (changed(points=[*POINTS, POINTS[0] | {"alpha": 7.0}]), "points.7.alpha"),
    "no base": (changed(points=POINTS[1:]), "alpha 0 is missing"),
    "an alpha twice": (changed(points=[*POINTS, POINTS[0]]), "an alpha is there twice"),
    "another chosen": (changed(chosen=changed()["chosen"] | {"alpha": 0.33}), "alpha 0.33 is missing"),
    "too many points": (changed(points=[{**POINTS[0], "alpha": i / 500, "benchmarks": {}} for i in range(501)]), "200"),
    "a quality out of reach": (changed(points=[*POINTS[:-1], POINTS[-1] | {"global": -1e300}]), "a quality of more"),
    "a country out of reach": (
        json.dumps(changed()).replace('"IDN": {"value":', '"IDN": {"value": 1e30, "was":'),
        "by.country",
    ),
    "a path as region": (changed(region="../../etc/passwd"), "region"),
    "a key twice": ('{"region": "sea", "region": "sea"}', "twice"),
    "empty": ("", "cannot be read"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_an_upload_that_is_no_results_file_is_refused_in_words(kind: str, client: Client, tmp_path: Path) -> None:
    content, wanted = HOSTILE[kind]
    said = refusal(client, "/upload", file=handle_file(write(tmp_path, content)), order="name", models=[])
    assert wanted in said
    assert str(tmp_path.parent) not in said  # the server's own places are nobody's business
    assert "gradio" not in said
    assert len(client.predict(api_name="/table")) == len(list(CARDS.iterdir())) + 3  # the paper's; the page lives on


def test_what_an_upload_says_is_shown_as_text(newcomer: Client, tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)>"
    own = changed(recipe=evil, region="<b>sea</b>")
    assert "region" in refusal(newcomer, "/upload", file=handle_file(write(tmp_path, own)), order="name", models=[])
    own = changed(recipe=evil + "\u202e" + "x" * 500)
    told, table, *_ = newcomer.predict(
        file=handle_file(write(tmp_path, own)), order="name", models=[], api_name="/upload"
    )
    shown = str(told) + str(table)
    assert "&lt;img src=x" in shown
    assert "<img" not in shown
    assert "\u202e" not in shown
    assert "x" * 70 not in shown


def test_an_alpha_of_many_digits_can_be_chosen_as_it_is_written(newcomer: Client, tmp_path: Path) -> None:
    own = changed(points=[POINTS[0], POINTS[1] | {"alpha": 1 / 3}, *POINTS[2:]])
    newcomer.predict(file=handle_file(write(tmp_path, own)), order="name", models=[], api_name="/upload")
    asked = {"model": "uploaded: pocket-sea-vlm", "benchmark": "pocket-regional-open"}
    listed = refusal(newcomer, "/countries", **asked, alpha="0.3").partition("one of ")[2]
    alpha = listed.split(", ")[2]
    assert newcomer.predict(**asked, alpha=alpha, api_name="/countries")["alpha"] == 1 / 3


# ------------------------------------------------------------------------------------------- other adapters than ours
FACTS = {
    "schema": 1, "artefact": "adapter", "recipe": "pocket-sea-vlm", "family": "vlm", "region": "sea", "alpha": 0.35,
    "base": {"id": "me/base<b>", "revision": "0" * 40}, "synthetic": False, "gate": ["gain is low"],
}  # fmt: skip


@pytest.fixture(scope="module")
def own(serve: Callable[..., Served], tmp_path_factory: pytest.TempPathFactory) -> tuple[Served, Path]:
    """A page of an adapter in a folder, one in a run folder, and a third that comes later; with an imported index."""
    folder, home = tmp_path_factory.mktemp("repos"), tmp_path_factory.mktemp("home")
    for facts, measured in (
        (folder / "me" / "one",) * 2,
        (folder / "two" / "card" / "adapter", folder / "two" / "sweep"),
    ):
        facts.mkdir(parents=True)
        measured.mkdir(exist_ok=True)
        write(facts, FACTS, "ggez.json")
        write(measured, changed(synthetic=False))
    countries = {"IDN": {"2022": 15.0, "2023": 16.4}, "SGP": {"2022": 90.0, "2023": 91.25}}
    write(home, {"name": "KOFGI_2099.xlsx", "edition": 2099, "sha256": "0" * 64, "countries": countries}, "kof.json")
    repos = (str(folder / "me" / "one"), str(folder / "two"), str(folder / "later"))
    return serve("parity", *(part for repo in repos for part in ("--repo", repo)), GGEZ_HOME=str(home)), folder


def test_published_adapters_are_shown_with_what_they_say_and_lost_ones_do_no_harm(own: tuple[Served, Path]) -> None:
    client, folder = Client(own[0].url, verbose=False), own[1]
    rows = client.predict(api_name="/table")
    one, two = rows[:2]
    assert one["name"] == "me/one"
    assert two["name"] == f"{folder.name}/two"
    assert one["origin"] == "from a folder"
    assert (one["below_gate"], one["synthetic"]) == (True, False)
    assert one["base"].startswith("me/base<b> at 000")
    assert [row["name"] for row in rows[2:]] == [entry.name for entry in _entries.printed()]
    found = client.predict(models=[one["name"], two["name"]], region="sea", year=2023, api_name="/winner")
    assert found["comparable"]
    assert found["globalization"] == pytest.approx((0.164 + 0.9125) / 2)  # the imported index wins
    table, *_ = client.predict(order="name", api_name="/retry")
    assert "later: no such folder" in table
    shutil.copytree(folder / "me" / "one", folder / "later")
    table, *_ = client.predict(order="name", api_name="/retry")
    assert "no such folder" not in table
    assert len(client.predict(api_name="/table")) == len(rows) + 1
    client.close()


def test_an_adapter_from_the_hub_is_shown_with_its_commit(hub_server: HubServer, tmp_path: Path) -> None:
    files = {"ggez.json": json.dumps(FACTS).encode(), "results.json": json.dumps(changed()).encode()}
    first = hub_server.add("me/adapter", files)
    hub_server.add("me/adapter", {"results.json": b"{}"})
    entry = _entries.published(f"me/adapter@{first}", tmp_path)
    assert (entry.name, entry.origin, entry.family) == ("me/adapter", f"commit {first[:12]}", "vlm")
    with pytest.raises(InputError, match=r"me/adapter: results.json:  region: is missing"):
        _entries.published("me/adapter", tmp_path)
    with pytest.raises(GgezError, match="me/nothing: no such repository"):
        _entries.published("me/nothing", tmp_path)


def test_the_imported_index_can_be_mapped(own: tuple[Served, Path]) -> None:
    client = Client(own[0].url, verbose=False)
    asked = {"model": _entries.KOF, "benchmark": "KOFIpGIdf in 2023", "alpha": "0"}
    found = client.predict(**asked, api_name="/countries")["countries"]
    assert {code: row["value"] for code, row in found.items()} == {"IDN": 0.164, "SGP": 0.9125}
    client.close()


# ----------------------------------------------------------------------------------------------------------- the parts
quality = st.floats(0, 1, allow_subnormal=False)


@given(st.lists(st.tuples(quality, quality), min_size=1, max_size=8), st.floats(0, 1))
def test_the_envelope_is_the_best_of_all_lines(sides: list[tuple[float, float]], g: float) -> None:
    points = [Point(i / 10, *side) for i, side in enumerate(sides)]
    pieces = _entries.envelope(points)
    assert [piece[0] for piece in pieces] == [0.0, *(piece[1] for piece in pieces[:-1])]
    assert pieces[-1][1] == 1
    at = next(point for start, end, point in pieces if start <= g <= end)
    assert at.grp(g) == pytest.approx(max(point.grp(g) for point in points), abs=1e-9)


@given(st.lists(quality, min_size=1, max_size=30), st.sampled_from(["value", "change"]))
def test_every_value_has_a_class_whose_limits_hold_it(values: list[float], of: str) -> None:
    if of == "change":
        values = [2 * value - 1 for value in values]
    edges = _charts.edges(values, of)
    assert edges == sorted(set(edges))
    for value in values:
        i = _charts._class(value, edges)
        assert edges[i] - 1e-9 <= value <= edges[i + 1] + 1e-9


def test_every_country_of_every_region_is_on_the_map() -> None:
    world = json.loads(_charts.WORLD.read_text(encoding="utf-8"))
    regions = [registry.load_region(name) for name in registry.files("regions")]
    # Continents have small territories too, some of which Natural Earth has not at this scale.
    wanted = {code for region in regions if region.partition != "continent" for code in region.countries}
    assert wanted <= world["countries"].keys()
    assert "public domain" in world["source"]
    assert _charts.WORLD.stat().st_size < 150_000
    for code, shape in world["countries"].items():
        assert re.fullmatch(r"[mlz0-9 ,-]*", shape["d"]), code
        assert shape["d"] or shape["dot"], code
        assert all(math.isfinite(x) for x in shape["box"])
    # In the right place: Singapore is at 104 degrees east, by the equator.
    x0, _, x1, _ = world["countries"]["SGP"]["box"]
    assert (x0 + x1) / 2 == pytest.approx(world["size"][0] * (0.5 + 103.8 / 360), rel=0.01)


def test_shapes_are_none_of_what_a_stranger_says(tmp_path: Path) -> None:
    entry = _entries.uploaded(write(tmp_path, changed()), [])
    drawn = _charts.world("t", {"<b>": {"name": "<b>", "value": 0.5, "base": None, "change": None, "n": None}}, "value",
                          [0, 0.2, 0.4, 0.6, 0.8, 1], False)  # fmt: skip
    assert "<b>" not in drawn
    assert entry.places["pocket-regional-open"][0.35].keys() == {"BRN", "IDN", "KHM", "LAO", "MMR", "MYS", "PHL", "SGP",
                                                                  "THA", "TLS", "VNM"}  # fmt: skip


def test_names_stay_apart() -> None:
    assert _entries.unique("a, b", ["a  b"]) == "a  b (2)"
    with pytest.raises(GgezError, match="unknown model 'x'"):
        _entries.one_of("x", ["y"], "model")
    with pytest.raises(InputError, match="expected a number"):
        _entries.fraction(None)


def test_lines_of_pocket_models_say_that_they_are_synthetic_and_those_of_the_paper_do_not() -> None:
    pocket, printed = _entries.shipped()[:1], _entries.printed()[:1]
    assert "synthetic" in _charts.lines(pocket)
    assert "synthetic" not in _charts.lines(printed)
