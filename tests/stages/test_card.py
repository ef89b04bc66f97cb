"""Cards: every number comes from the run folder, and the shipped examples are what the recipes make today."""

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries

from ggez_hub import families, load_recipe, metadata, registry, run
from ggez_hub.cli import _guarded, cli
from ggez_hub.errors import ConfigError, InputError
from ggez_hub.hub import fetch, shipped
from ggez_hub.runs import MANIFEST, Run, file_hash
from ggez_hub.stages import card

GOLDEN = Path(__file__).parents[2] / "cards" / "pocket"
EXAMPLES = sorted(GOLDEN.iterdir())
NUMBER = re.compile(r"\b[0-9a-f]{64}\b|\d+(\.\d+)*(e-?\d+)?")


def test_every_region_has_an_example() -> None:
    regions = {json.loads((folder / "results.json").read_text())["region"] for folder in EXAMPLES}
    with_kof = {name for name in registry.files("regions") if registry.load_region(name).kof}
    assert regions == with_kof


@pytest.mark.parametrize("folder", EXAMPLES, ids=lambda f: f.name)
def test_example_says_what_was_measured(folder: Path) -> None:
    results = json.loads((folder / "results.json").read_text())
    chosen = results["chosen"]
    for artefact in ("adapter", "merged"):
        card = ModelCard.load(folder / f"{artefact}.md")
        assert f"ggez-region:{results['region']}" in card.data.tags
        assert "synthetic" in card.data.tags
        assert "**Synthetic.**" in card.text
        assert f"**Gain** in the region {100 * chosen['gain']:.1f}%" in card.text
        assert f"global quality {100 * chosen['retention']:.1f}%" in card.text
        for point in results["points"]:
            row = f"| {point['alpha']:g} | {point['global']:.3f} | {point['regional']:.3f} | {point['grp']:.3f} |"
            assert row in card.text


QUESTIONS = {"embedding": (1000, 2000), "vlm": (200, 300), "diffusion": (150, 150)}  # regional, global


@pytest.mark.parametrize("family", QUESTIONS)
def test_pocket_sea_shows_what_the_method_promises(family: str) -> None:
    results = json.loads((GOLDEN / f"pocket-sea-{family}" / "results.json").read_text())
    chosen, points = results["chosen"], {point["alpha"]: point for point in results["points"]}
    assert chosen["gain"] >= 0.15
    assert chosen["gain_ci95"][0] > 0
    assert chosen["retention"] >= 0.97
    assert chosen["retention_ci95"][1] >= 0.98
    assert 0 < chosen["alpha"] < 1
    assert points[0]["regional"] < chosen["regional"] < points[1]["regional"]
    assert points[0]["global"] > points[1]["global"]
    questions = {name: measured["n"] for name, measured in points[0]["benchmarks"].items()}
    for side, least in zip(("regional", "global"), QUESTIONS[family], strict=True):
        assert min(n for name, n in questions.items() if side in name) >= least


@pytest.mark.slow
@pytest.mark.parametrize("family", QUESTIONS)
def test_example_is_what_its_recipe_makes(tmp_path: Path, family: str) -> None:
    made = run(f"pocket-sea-{family}", tmp_path)
    golden = GOLDEN / f"pocket-sea-{family}"
    for artefact in ("adapter", "merged"):
        ours = (made.stage("card") / artefact / "README.md").read_text()
        theirs = (golden / f"{artefact}.md").read_text()
        assert NUMBER.sub("#", ours) == NUMBER.sub("#", theirs)
    ours, theirs = (json.loads(p.read_text()) for p in (made.stage("sweep") / "results.json", golden / "results.json"))
    assert ours["chosen"]["alpha"] == pytest.approx(theirs["chosen"]["alpha"], abs=0.25)  # the next one of the grid
    for our, their in zip(ours["points"], theirs["points"], strict=True):  # other processors round otherwise
        assert our["global"] == pytest.approx(their["global"], abs=0.03)
        assert our["regional"] == pytest.approx(their["regional"], abs=0.03)


@pytest.mark.parametrize("name", shipped())
def test_shipped_models_are_small_and_hold_no_place_of_this_machine(name: str) -> None:
    files = [path for path in fetch(f"ggez-hub/{name}").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 6_000_000
    for path in files:
        if "config" in path.name or path.name == "model_index.json":
            assert not re.search(r'": "/', path.read_text()), f"{path} names a place of the machine that made it"


@pytest.mark.parametrize(("base", "travels"), [("pocket-base-embedding", True), ("omniglot-base", False)])
def test_snippet_says_that_a_base_travels_in_the_package_only_if_it_does(base: str, travels: bool) -> None:
    snippet = families.get("embedding").usage("me/mine-lora", f"ggez-hub/{base}", None)["adapter"]
    assert ("this base travels with ggez_hub" in snippet) is travels


# --------------------------------------------------------------------------------------------------- a card of our own
def ggez(*arguments: str) -> int:
    return _guarded(lambda: cli.main(arguments, standalone_mode=False))


@pytest.fixture
def tiny(tiny_run: Run) -> Run:
    return tiny_run


def readme(tiny: Run, artefact: str = "adapter") -> Path:
    return tiny.stage("card") / artefact / "README.md"


def write_by_hand(path: Path, text: str) -> None:
    path.write_text(path.read_text().replace(card.END, text + card.END))


# ------------------------------------------------------------------------------------------------------------ metadata
def test_one_listing_of_the_hub_shows_what_was_measured(tiny: Run) -> None:
    chosen = json.loads((tiny.stage("sweep") / "results.json").read_text())["chosen"]
    keys = ("alpha", "gain", "gain_ci95", "retention", "retention_ci95", "grp")
    for artefact in ("adapter", "merged"):
        found = ModelCard.load(readme(tiny, artefact))
        assert metadata.problems(str(readme(tiny, artefact).read_text())) == []
        assert {"ggez", "ggez-region:sea", "ggez-family:embedding"} <= set(found.data.tags)
        expected = {"artefact": artefact, "family": "embedding", "region": "sea", "synthetic": True}
        assert found.data.ggez == expected | {key: chosen[key] for key in keys}
        parity = [x for x in found.data.eval_results if x.dataset_type == "global-regional-parity"]
        assert {x.metric_type: x.metric_value for x in parity} == {
            key: round(chosen[key], 4) for key in ("grp", "gain", "retention")
        }
        assert {x.dataset_type for x in found.data.eval_results} > {"tiny-global", "tiny-regional"}


def test_a_number_that_is_unknown_is_left_out(tiny: Run) -> None:
    results = json.loads((tiny.stage("sweep") / "results.json").read_text())
    results["chosen"] |= {"gain": None, "gain_ci95": None}
    data = card.front_matter(load_recipe("tiny"), "tiny", "adapter", results)
    assert "gain" not in data.ggez
    assert "gain_ci95" not in data.ggez
    assert [x.metric_type for x in data.eval_results if "parity" in x.dataset_type] == ["grp", "retention"]


@pytest.mark.parametrize(
    ("base", "named"),
    [
        ("base", None),
        ("models/base", None),
        ("models/gone", "models/gone"),  # a Hub id, as far as anyone here can tell
        ("google/siglip2-base-patch16-224", "google/siglip2-base-patch16-224"),
        ("ggez-hub/pocket-base-embedding", "ggez-hub/pocket-base-embedding"),
    ],
)
def test_a_folder_is_never_named_as_the_base(tiny: Run, project: Path, base: str, named: str | None) -> None:
    (project / "models").mkdir()
    (project / "models" / "base").symlink_to(project / "base")
    results = json.loads((tiny.stage("sweep") / "results.json").read_text())
    for place in (base, str(project / base)) if named is None else (base,):
        recipe = load_recipe("tiny", {"base.id": place})
        data = card.front_matter(recipe, "tiny", "adapter", results).to_dict()
        assert data.get("base_model") == named
        assert ("base_model_relation" in data) == (named is not None)


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        ({"card.license": "aapche-2.0"}, "card.license: found 'aapche-2.0'"),
        ({"card.license": "other"}, "card.license: other needs a card.license_name"),
        ({"data.languages": ["en", "klingon"]}, "data.languages: found 'klingon'"),
    ],
)
def test_what_the_hub_would_refuse_is_told_before_anything_runs(
    tiny: Run, overrides: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ConfigError) as err:
        load_recipe("tiny", overrides)
    assert problem in err.value.message


def test_a_card_that_the_hub_would_refuse_is_not_written(tiny: Run) -> None:
    recipe, before = load_recipe("tiny"), readme(tiny).read_bytes()
    recipe = recipe.model_copy(update={"card": recipe.card.model_copy(update={"license": "aapche-2.0"})})
    with pytest.raises(InputError, match=r"card of the adapter: license: found 'aapche-2\.0'") as err:
        card.run(recipe, tiny, tiny.hidden("card"))
    assert "mend card.license" in str(err.value.hint)
    assert readme(tiny).read_bytes() == before


def test_epochs_are_told_with_the_steps_that_they_took(tiny: Run) -> None:
    text = card.card(load_recipe("tiny", {"train.epochs": 2, "train.batch_size": 4}), tiny, "adapter")
    assert "AdamW, 2 epochs of batches of 4 rows (12 steps), learning rate" in text
    assert "AdamW, 12 steps of 8 rows, learning rate" in readme(tiny).read_text()


def test_another_license_goes_by_its_name(tiny: Run) -> None:
    recipe = load_recipe("tiny", {"card.license": "other", "card.license_name": "our-own"})
    data = ModelCard(card.card(recipe, tiny, "merged")).data
    assert (data.license, data.license_name) == ("other", "our-own")


def test_a_number_that_is_none_is_not_written(tiny: Run) -> None:
    path = tiny.stage("sweep") / "results.json"
    results = json.loads(path.read_text())
    results["chosen"]["gain"] = float("nan")
    path.write_text(json.dumps(results))
    with pytest.raises(InputError, match=r"ggez\.gain: found nan"):
        card.card(load_recipe("tiny"), tiny, "merged")


def test_results_on_registered_benchmarks_are_told_to_the_hub(tiny: Run, project: Path) -> None:
    assert not (tiny.stage("card") / "adapter" / ".eval_results").exists()
    path = project / "recipes" / "benchmarks" / "tiny-choice.yaml"
    path.write_text(path.read_text() + "registered: {dataset: me/quiz, task: choice, revision: abc}\n")
    made = run("tiny", project / "runs")
    results = json.loads((made.stage("sweep") / "results.json").read_text())
    chosen = next(p for p in results["points"] if p["alpha"] == results["chosen"]["alpha"])
    for artefact in ("adapter", "merged"):
        (file,) = (made.stage("card") / artefact / ".eval_results").iterdir()
        assert file.name == "tiny-choice.yaml"
        (entry,) = parse_eval_result_entries(yaml.safe_load(file.read_text()))
        assert (entry.dataset_id, entry.task_id, entry.dataset_revision) == ("me/quiz", "choice", "abc")
        assert entry.value == chosen["benchmarks"]["tiny-choice"]["value"]
        assert (entry.date, entry.source_url) == (None, None)
    path.write_text(path.read_text().replace("me/quiz", "quiz"))
    assert ggez("validate", str(path)) == 2


# ---------------------------------------------------------------------------------------------------------- by hand
OWN = "## From the region\n\n```yaml\na: {{ b }} --- <!-- x -->\n```\n\n  Written in Kuala Lumpur: çà é ✓\n"


def test_what_is_written_by_hand_stays(tiny: Run, project: Path) -> None:
    untouched = {artefact: readme(tiny, artefact).read_bytes() for artefact in ("adapter", "merged")}
    for path in (readme(tiny), readme(tiny, "merged")):
        assert path.read_text().index(card.END) < path.read_text().index("## Provenance")
    write_by_hand(readme(tiny), OWN)
    written = readme(tiny).read_bytes()
    assert ggez("card", "tiny") == 0
    assert readme(tiny).read_bytes() == written
    assert ggez("card", "tiny", "card.limits=Only at night.") == 0
    assert f"{card.BEGIN}\n{OWN}{card.END}\n" in readme(tiny).read_text()
    assert "Only at night." in readme(tiny).read_text()
    assert OWN not in readme(tiny, "merged").read_text()
    assert ggez("card", "tiny") == 0
    assert readme(tiny).read_bytes() == written
    assert ggez("push", "tiny", "--to", "hub") == 0
    assert (project / "hub" / "ggez-hub" / "tiny-lora" / "README.md").read_bytes() == written
    write_by_hand(readme(tiny), "")
    readme(tiny).write_text(readme(tiny).read_text().replace(OWN, ""))
    assert ggez("card", "tiny") == 0
    assert {artefact: readme(tiny, artefact).read_bytes() for artefact in untouched} == untouched


def test_text_of_the_same_length_as_what_it_took_the_place_of_stays(tiny: Run, project: Path) -> None:
    expected = readme(tiny).read_text().replace(card.END, OWN + card.END)
    size = readme(tiny).stat().st_size
    write_by_hand(readme(tiny), OWN)
    readme(tiny).write_bytes(readme(tiny).read_bytes()[:size])  # by deleting as much of what is generated
    assert OWN in readme(tiny).read_text() != expected
    assert ggez("push", "tiny", "--to", "hub") == 0
    assert readme(tiny).read_text() == expected
    assert (project / "hub" / "ggez-hub" / "tiny-lora" / "README.md").read_text() == expected


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (card.BEGIN, ""),
        (card.END, ""),
        (card.END, f"{card.END}\n{card.END}"),
        (card.BEGIN, f"{card.BEGIN}\n{card.BEGIN}"),
        (card.BEGIN, card.END),
        (f"{card.BEGIN}\n{card.END}", "mine, without the lines"),
    ],
)
def test_broken_lines_are_an_error_and_nothing_is_lost(
    tiny: Run, project: Path, old: str, new: str, capsys: pytest.CaptureFixture[str]
) -> None:
    readme(tiny).write_text(text := readme(tiny).read_text().replace(old, new))
    for command in (["card", "tiny"], ["run", "tiny"], ["push", "tiny", "--to", "hub"]):
        assert ggez(*command) == 2
        assert "runs/tiny/card/adapter/README.md: expected once each" in capsys.readouterr().err
    assert readme(tiny).read_text() == text
    assert not (project / "hub").exists()


def test_a_card_of_an_earlier_version_is_written_anew(tiny: Run) -> None:
    expected = readme(tiny).read_text()
    readme(tiny).write_text(expected.replace(f"{card.BEGIN}\n{card.END}\n\n", ""))
    path = tiny.stage("card") / MANIFEST
    manifest = json.loads(path.read_text())
    output = {"sha256": file_hash(readme(tiny)), "size": readme(tiny).stat().st_size}
    manifest["outputs"]["adapter/README.md"] = output
    manifest["inputs"]["template"] = "that of an earlier version"
    path.write_text(json.dumps(manifest))
    assert ggez("card", "tiny") == 0
    assert readme(tiny).read_text() == expected


def test_a_run_killed_as_it_put_the_card_in_place_loses_nothing(tiny: Run) -> None:
    write_by_hand(readme(tiny), OWN)
    tiny.stage("card").rename(tiny.folder / ".card.old")
    assert ggez("card", "tiny") == 0
    assert OWN in readme(tiny).read_text()


def test_text_of_a_card_that_is_no_longer_made_is_not_thrown_away(tiny: Run) -> None:
    recipe = load_recipe("tiny", {"train.method": "full"})
    card.run(recipe, tiny, tiny.hidden("card"))
    write_by_hand(readme(tiny), OWN)
    with pytest.raises(InputError, match=r"adapter/README\.md: holds text written by hand"):
        card.run(recipe, tiny, tiny.hidden("card"))


def test_a_recipe_cannot_say_the_lines_of_the_card(tiny: Run) -> None:
    with pytest.raises(InputError, match="the card's own"):
        card.card(load_recipe("tiny", {"card.limits": f"None.\n\n{card.END}"}), tiny, "adapter")


# ------------------------------------------------------------------------------------------------------------- the gate
def test_a_card_below_the_gate_says_so_under_its_title(tiny: Run) -> None:
    recipe, reasons = load_recipe("tiny"), ["gain 1.0%, expected 5%", "the interval\nholds 0"]
    write_by_hand(readme(tiny), OWN)
    text = card.card(recipe, tiny, "adapter", reasons)
    plain = card.card(recipe, tiny, "adapter")
    title, notice = ModelCard(text).text.strip().split("\n\n")[:2]
    assert title.startswith("# Tiny")
    assert notice.startswith("> **Published below the gate.**")
    assert notice.endswith("> * gain 1.0%, expected 5%\n> * the interval holds 0")
    assert text.replace(f"{notice}\n\n", "").replace("  below_gate: true\n", "") == plain
    assert OWN in text
    assert "below the gate" not in plain
    assert card.facts(recipe, tiny, "adapter", reasons)["gate"] == reasons
    assert "gate" not in card.facts(recipe, tiny, "adapter")


# ------------------------------------------------------------------------------------------------------------ coverage
COVERAGE = "**Countries of the region without coverage**"


def body(tiny: Run) -> str:
    return card.card(load_recipe("tiny"), tiny, "adapter")


def keep_countries(tiny: Run, change: Any) -> None:
    """Changes how many rows of each country the filter has kept."""
    path = tiny.stage("filter") / "report.json"
    report = json.loads(path.read_text())
    report["countries"]["after"] = change(report["countries"]["after"])
    path.write_text(json.dumps(report))


def without_questions(tiny: Run, *codes: str) -> None:
    """Takes the test questions about countries out of the predictions."""
    path = tiny.stage("sweep") / "predictions.parquet"
    table = pq.read_table(path)
    asked = pc.and_(pc.is_in(table["country"], pa.array(codes)), pc.equal(table["split"], "test"))
    pq.write_table(table.filter(pc.invert(asked)), path)


def test_a_card_says_nothing_of_coverage_where_every_country_has_rows_and_questions(tiny: Run) -> None:
    codes = registry.load_region("sea").countries
    keep_countries(tiny, lambda _: dict.fromkeys(codes, 1))
    path = tiny.stage("sweep") / "predictions.parquet"
    table = pq.read_table(path).slice(0, len(codes))
    table = table.set_column(table.schema.get_field_index("country"), "country", pa.array(codes))
    pq.write_table(
        table.set_column(table.schema.get_field_index("split"), "split", pa.array(["test"] * len(codes))), path
    )
    assert COVERAGE not in body(tiny)


def test_countries_of_the_region_without_rows_or_questions_are_named_in_words(tiny: Run) -> None:
    codes = registry.load_region("sea").countries
    keep_countries(tiny, lambda _: {code: 1 for code in codes if code not in ("IDN", "VNM")})
    without_questions(tiny, *set(codes) - {"IDN", "PHL"})
    (found,) = re.findall(rf"{re.escape(COVERAGE)}.*", body(tiny))
    covered, questions = found.partition(" No test question is about ")[::2]
    assert covered == (
        f"{COVERAGE} (11 countries in all). No row that it was trained on is known to be of, and no test question is "
        "about, Vietnam: what it says of them is the base's, or carried over from elsewhere, and was not measured. No "
        "row that it was trained on is known to be of Indonesia: what it says of them is the base's, or carried over "
        "from elsewhere."
    )
    assert {"Thailand", "Brunei Darussalam"} <= set(questions.partition(":")[0].split(", "))
    assert not {"Philippines", "Indonesia", "Vietnam"} & set(questions.partition(":")[0].split(", "))
    assert questions.endswith(": how well it does there was not measured.")


def test_a_row_of_several_countries_covers_each_of_them(tiny: Run) -> None:
    codes = registry.load_region("sea").countries
    keep_countries(tiny, lambda _: {"|".join(codes[:-1]): 4, "None": 3})
    (found,) = re.findall(rf"{re.escape(COVERAGE)}.*", body(tiny))
    assert found.partition("known to be of ")[2].startswith("Vietnam: ")


def test_of_a_selection_question_a_country_is_not_measured(tiny: Run) -> None:
    path = tiny.stage("sweep") / "predictions.parquet"
    without_questions(tiny, "IDN")
    left = pq.read_table(path)
    assert "IDN" in left["country"].to_pylist()  # alpha was chosen on these
    assert "No test question is about" in body(tiny)
    assert "Indonesia" in body(tiny).partition("No test question is about")[2].partition("\n")[0]


def test_of_rows_whose_countries_nobody_knows_none_is_missed(tiny: Run) -> None:
    keep_countries(tiny, lambda _: {"None": 3})
    assert "No row that it was trained on" not in body(tiny)
