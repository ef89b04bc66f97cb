import filecmp
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from ggez_hub.data import benchmarks as published
from ggez_hub.data import images, readers
from ggez_hub.errors import InputError
from ggez_hub.recipes import load_benchmark, load_recipe
from ggez_hub.registry import load_region
from ggez_hub.rehearsal import rows
from ggez_hub.schema import Corpus, Filter, HubSource
from ggez_hub.scoring.questions import questions

KB = "worldcuisines/food-kb"
CORPORA: dict[str, dict[str, Any]] = {
    "sea_vl": {"id": "SEACrowd/sea-vl_crowdsourcing"},
    "sea_vl crawled": {"id": "SEACrowd/c", "options": {"crawled": True}, "columns": {"text": "alt"}},
    "culturalground": {"id": "neulab/CulturalGround", "where": {"media": ("picture",)}},
    "mammoth_vl": {"id": "M/M", "options": {"shards": "shard_[1-3]"}, "where": {"media": ("picture",)}},
    "xm3600_captions": {"id": "floschne/xm3600"},
    "flickr30k": {"id": "n/f", "options": {"split": "train"}},
    "worldcuisines_train": {"id": "worldcuisines/vqa", "options": {"kb": KB}},
    "cultureverse_train": {},
    "parquet": {"columns": {"image": "photo", "text": "meta.caption", "country": "place"}},
    "table": {"columns": {"text": "caption"}},
    "image_folder": {},
    "webdataset": {"columns": {"country": "place"}},
}
HELD = {  # countries of the region that the real data have, where not all
    "culturalground": {"IDN", "MYS", "SGP", "THA", "VNM"},
    "xm3600_captions": {"IDN", "PHL", "THA", "VNM"},
}
GENERAL = ("flickr30k", "mammoth_vl", "sea_vl crawled")  # say of no row which country it is about


@dataclass
class Made:
    """Twins in a folder of their own."""

    folder: Path
    sources: dict[str, HubSource] = field(default_factory=dict)

    def at(self, name: str) -> Path:
        return self.folder / name.replace("/", "--")

    def write(self, source: HubSource, region: str = "sea", **more: Any) -> HubSource:
        """Writes the twin of a source; returns the source as a machine without the Hub reads it."""
        path = rows.write(source, load_region(region), self.at, 7, **more)
        kb = {"kb": str(self.at(KB))} if "kb" in source.options else {}
        return source.model_copy(update={"path": str(path), "options": {**source.options, **kb}})


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path / "twins")


def source(name: str, **more: Any) -> HubSource:
    kind = Corpus if name in CORPORA else HubSource
    return kind(reader=name.split()[0], **CORPORA.get(name, {}) | more)


def read(twin: HubSource) -> list[dict[str, Any]]:
    return [row for batch in readers.read(twin) for row in batch.to_pylist()]


def countries(found: list[dict[str, Any]]) -> set[str]:
    return {country for row in found for country in (row["country"] or "").split("|")} - {""}


@pytest.mark.parametrize("name", CORPORA)
def test_the_reader_of_a_corpus_reads_its_twin_and_finds_the_region_and_others(made: Made, name: str) -> None:
    twin = made.write(source(name))
    found = read(twin)
    assert len(found) >= 20
    assert all(row["text"] or row["messages"] for row in found[:10])
    if name not in GENERAL:
        regional = set(load_region("sea").countries)
        assert countries(found) - regional
        held = HELD.get(name, regional)
        assert countries(found) & regional == held
    root, broken = readers.root(Path(twin.path or "")), 0
    for row in found:
        try:
            assert images.decode(images.fetch(row["image"], root)).width
        except images.BrokenImage:
            broken += 1
    assert broken <= 0.05 * len(found)


@pytest.mark.parametrize("name", [*CORPORA, "cvqa", "sea_vqa", "dpg"])
def test_the_same_arguments_give_the_same_bytes(made: Made, tmp_path: Path, name: str) -> None:
    again = Made(tmp_path / "again")
    first, second = (each.folder for each in (made, again))
    for each in (made, again):
        each.write(source(name), rows=8)
    files = [file.relative_to(first) for file in sorted(first.rglob("*")) if file.is_file()]
    assert files
    same, differ, missing = filecmp.cmpfiles(first, second, files, shallow=False)
    assert (len(same), differ, missing) == (len(files), [], [])


# ----------------------------------------------------------------------------------------------------------- benchmarks
ASKED = ("cvqa", "worldcuisines", "worldcuisines-open", "cultureverse", "cultural-vqa", "xm3600", "sea-vqa")
COVERED = {  # of the regions below those that the real benchmark asks about, where not all
    "cvqa": {"sea", "ssa", "eca"},
    "sea-vqa": {"sea"},
    "xm3600": {"sea", "eca"},
}


@pytest.mark.parametrize(
    "region", ["sea", *(pytest.param(name, marks=pytest.mark.slow) for name in ("ssa", "eca", "na"))]
)
@pytest.mark.parametrize("name", ASKED)
def test_both_sides_of_a_benchmark_can_be_scored_where_it_covers_a_region(made: Made, name: str, region: str) -> None:
    benchmark = load_benchmark(name)
    twin = made.write(benchmark.source, region, rows=12, holds=[benchmark.test])
    for side in ("region", "others"):
        asked = benchmark.model_copy(update={"source": twin, "rows": side})
        covered = region in COVERED.get(name, {region}) if side == "region" else (name, region) != ("sea-vqa", "sea")
        if not covered:
            with pytest.raises(InputError, match="has no test question for region"):
                questions(asked, load_region(region))
            continue
        found = questions(asked, load_region(region))["test"]
        inside = {question.country in load_region(region).countries for question in found}
        assert inside == {side == "region"}
        assert all(question.answer for question in found)
        assert len({question.picture for question in found}) > 2
        assert "" not in {question.cluster for question in found}


@pytest.mark.slow
def test_a_benchmark_that_tells_regions_by_language_has_both_sides(made: Made) -> None:
    for name in ("cvqa", "worldcuisines", "xm3600"):
        benchmark = load_benchmark(name)
        twin = made.write(benchmark.source, rows=12)
        for side in ("region", "others"):
            asked = benchmark.model_copy(update={"source": twin, "rows": side, "region_by": "language"})
            assert questions(asked, load_region("sea"))["test"]


def test_dpg_bench_asks_about_the_tiles_of_its_pictures(made: Made) -> None:
    benchmark = load_benchmark("dpg-bench")
    twin = made.write(benchmark.source)
    twin = twin.model_copy(update={"options": {"pictures_folder": f"{twin.path}/pictures"}})
    found = questions(benchmark.model_copy(update={"source": twin}), load_region("sea"))["test"]
    assert len(found) == 3 * 4 * 4
    assert len({question.picture for question in found}) == 12


@pytest.mark.parametrize("split", ["given", "image", "concept"])
def test_cultureverse_trains_and_tests_on_both_sides_however_it_is_split(made: Made, split: str) -> None:
    benchmark = load_benchmark("cultureverse")
    twin = made.write(benchmark.source.model_copy(update={"options": {"split": split}}))
    for side in ("region", "others"):
        asked = benchmark.model_copy(update={"source": twin, "rows": side})
        found = questions(asked, load_region("sea"))["test"]
        assert len({question.kind for question in found}) == 3
        train = [row for row in read(twin.model_copy(update={"reader": "cultureverse_train"})) if row["messages"]]
        learned = {images.fetch(row["image"], Path(twin.path or "")) for row in train}
        assert not learned & {question.picture for question in found}
        assert {country in load_region("sea").countries for country in countries(train)} == {True, False}


def test_every_prompt_type_and_languages_of_the_region_are_in_worldcuisines(made: Made) -> None:
    benchmark = load_benchmark("worldcuisines")
    for size in ("large", "small"):
        options = {**benchmark.source.options, "size": size}
        twin = made.write(benchmark.source.model_copy(update={"options": options}))
        found = [row for row in read(twin) if row["answer"]]
        assert {row["prompt_type"] for row in found} == {"1", "2", "3", "4"}
        languages = {row["language"] for row in found}
        assert {"en", "id_formal", "es"} <= languages
        assert len(languages & {"id_formal", "id_casual", "zh_cn", "su_loma", "jv_krama", "jv_ngoko", "tl", "th"}) > 2
        assert all(len(set(row["options"])) == 5 for row in found)


# ------------------------------------------------------------------------------------------------- what recipes ask for
@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("cvqa", {"category": "Kategory"}),
        ("sea_vl", {"text": "captoin"}),
        ("culturalground", {"label": "shortanswer"}),
        ("worldcuisines_train", {"text": "answr"}),
        ("flickr30k", {"text": "sentence"}),
    ],
)
def test_a_column_that_the_real_data_lack_fails_as_it_would_there(
    made: Made, name: str, columns: dict[str, str]
) -> None:
    (theirs,) = columns.values()
    with pytest.raises(InputError, match=f"no column '{theirs}'"):
        read(made.write(source(name, columns=columns), rows=4))


def test_only_the_countries_and_shards_that_are_asked_for_are_there(made: Made) -> None:
    asked = {"options": {"countries": "indonesia|vietnam"}, "where": {"country": ("IDN",)}}
    found = read(made.write(source("culturalground", **asked)))
    assert countries(found) == {"IDN"}
    assert len(found) >= 10
    twin = made.write(source("mammoth_vl", options={"shards": "shard_7"}))
    packed = sorted(file.name for file in Path(twin.path or "").rglob("*.tar.gz"))
    assert packed == ["shard_1.tar.gz", "shard_7.tar.gz"]


def test_a_country_that_the_real_data_lack_fails_as_it_would_there(made: Made) -> None:
    with pytest.raises(InputError, match="no file of viet_nam"):
        read(made.write(source("culturalground", options={"countries": "viet_nam"}), rows=4))


def test_every_selection_of_a_recipe_and_of_benchmarks_has_both_sides(made: Made) -> None:
    train, test = {"drawer": (1, 2, 3), "core": (True,)}, {"drawer": (13, 14), "script": ("Balinese", "Greek")}
    twin = made.write(source("parquet", where=train), holds=[test])
    for selection in (train, test):
        found = read(twin.model_copy(update={"where": selection}))
        inside = [bool(countries([row]) & set(load_region("sea").countries)) for row in found]
        assert min(inside.count(True), inside.count(False)) >= 8
        assert {row["drawer"] for row in found} == set(selection["drawer"])
        assert len({row["label"] for row in found}) >= 8


def test_rules_of_the_filter_can_be_met(made: Made) -> None:
    rules = Filter.model_validate(
        {"min_side": 512, "max_text": 60, "licenses": ("mit",), "min_reward": 3.0, "unsafe": {"column": "nsfw"}}
    )
    found = read(made.write(source("parquet"), rows=12, rules=rules))
    kept = [row for row in found if row["reward"] >= 3 and row["nsfw"] < 0.5 and row["license"] == "mit"]
    sizes = [images.decode(row["image"]["bytes"]).size for row in kept]
    assert sum(min(size) >= 512 for size in sizes) >= 18
    assert max(len(row["text"]) for row in kept) <= 60
    assert min(row["reward"] for row in found) < 3


def test_what_cannot_be_known_of_a_data_set_is_said() -> None:
    assert rows.unseen(source("cvqa", id="afaji/cvqa")) is None
    assert "org/new" in str(rows.unseen(source("hub", id="org/new")))
    assert rows.unseen(source("sea_vl crawled"))
    with pytest.raises(InputError, match="reads no files"):
        rows.write(HubSource(reader="pocket"), load_region("sea"), Path, 0)


def test_pope_is_asked_in_its_own_columns(made: Made) -> None:
    benchmark = load_benchmark("pope")
    assert rows.unseen(benchmark.source) is None
    twin = made.write(benchmark.source, holds=[benchmark.test])
    found = questions(benchmark.model_copy(update={"source": twin}), load_region("sea"))["test"]
    assert {question.answer for question in found} == {"yes", "no"}
    assert {question.category for question in found} == {"adversarial", "popular", "random"}
    with pytest.raises(InputError, match="no column 'quetsion'"):
        read(twin.model_copy(update={"columns": {"text": "quetsion"}}))


@pytest.mark.parametrize("name", ["categories", "continents"])
def test_every_part_of_cultureverse_that_is_trained_on_alone_has_rows(made: Made, name: str) -> None:
    recipe = load_recipe(f"culturevlm-{name}-gemma3-4b")
    parts = [corpus.where for corpus in recipe.data.corpora.values()]
    twin = made.write(source("cultureverse_train"), "world", holds=parts)
    for part in parts:
        assert [row for row in read(twin.model_copy(update={"where": part})) if row["messages"]], part


def test_a_data_set_of_the_hub_reader_is_read_from_its_folder(made: Made) -> None:
    options = {"split": "validation", "config": "part"}
    twin = made.write(source("hub", id="org/new", options=options, columns={"text": "caption"}), rows=8)
    found = read(twin)
    assert len(found) > 12
    assert images.decode(found[0]["image"]["bytes"]).width == 256


# ----------------------------------------------------------------------------------------------------------- the filter
def test_of_every_corpus_rows_are_kept_and_dropped_and_none_stands_in_a_benchmark(
    made: Made, tmp_path: Path, ggez: Callable[..., tuple[int, str, str]]
) -> None:
    sources, folder = {}, tmp_path / "recipes"
    (folder / "benchmarks").mkdir(parents=True)
    for name in CORPORA:
        twin = made.write(source(name))
        said = twin.model_dump(mode="json", exclude_defaults=True, exclude={"id"})
        sources[name.replace(" ", "-")] = {**said, "regional": name not in GENERAL, "license": "mit"}
    benchmarks = []
    for name in ("cvqa", "sea-vqa", "worldcuisines", "cultural-vqa", "cultureverse"):
        asked = yaml.safe_load((Path(rows.__file__).parents[2] / f"recipes/benchmarks/{name}.yaml").read_text())
        twin = made.write(load_benchmark(name).source)
        asked["source"] = twin.model_dump(mode="json", exclude_defaults=True, exclude={"id"})
        (folder / "benchmarks" / f"twin-{name}.yaml").write_text(yaml.safe_dump(asked | {"synthetic": True}))
        benchmarks.append(f"twin-{name}")
    recipe = {
        "title": "All",
        "family": "vlm",
        "region": "sea",
        "base": {"id": "org/base", "license": "mit"},
        "data": {"sources": sources},
        "filter": {"min_side": 64, "max_hash_distance": 6, "max_text": 300},
        "sweep": {"global": benchmarks[:2], "regional": benchmarks[2:]},
    }
    (folder / "all.yaml").write_text(yaml.safe_dump(recipe))
    code, _, err = ggez("filter", "all")
    assert code == 0, err
    report = yaml.safe_load((tmp_path / "runs/all/filter/report.json").read_text())
    assert report["dropped"]["region"] > 50
    for rule in ("text", "size", "broken picture"):
        assert report["dropped"][rule] > 0
    assert not report["dropped"].get("contamination")
    for name, part in report["sources"].items():
        assert 0 < part["kept"] < part["rows"], name


# --------------------------------------------------------------------------------------------------------------- sample
def test_a_sample_of_the_users_own_data_has_their_fields_and_both_sides(made: Made, tmp_path: Path) -> None:
    columns = {"text": "caption", "country": "place"}
    own = made.write(source("table", columns=columns, where={"drawer": (1, 2)}), holds=[{"drawer": (9,)}])
    file = rows.sample(own, tmp_path / "sample", load_region("sea"), 10, [{"drawer": (9,)}])
    taken = HubSource(reader="parquet", path=str(file))
    found, before = read(taken), read(own.model_copy(update={"where": {}}))
    assert found[0].keys() == before[0].keys()
    assert {row["drawer"] for row in found} == {1, 2, 9}
    inside = [bool(countries([row]) & set(load_region("sea").countries)) for row in found]
    assert (inside.count(True), inside.count(False)) == (10, 10)
    by_id = {row["id"]: row for row in before}
    assert all(row | {"image": None} == by_id[row["id"]] | {"image": None} for row in found)
    assert all(images.decode(row["image"]["bytes"]).width for row in found)


def test_a_sample_of_questions_visits_no_address(made: Made, tmp_path: Path) -> None:
    own = made.write(load_benchmark("sea-vqa").source)
    shutil.rmtree(Path(own.path or "") / "images")
    benchmark = load_benchmark("sea-vqa")
    taken = HubSource(reader="parquet", path=str(rows.sample(own, tmp_path, rows=8)))
    found = questions(benchmark.model_copy(update={"source": taken}), load_region("sea"))["test"]
    assert len({question.picture for question in found}) == len(found) >= 6


def test_a_wrong_column_of_the_users_own_data_is_named(made: Made, tmp_path: Path) -> None:
    own = made.write(source("table"), rows=4).model_copy(update={"columns": {"text": "captoin"}})
    with pytest.raises(InputError, match="no column 'captoin'"):
        rows.sample(own, tmp_path)


def test_the_twins_know_all_readers_that_read_files() -> None:
    made_here = {name for name in readers.READERS if re.search("pocket", name) is None}
    assert set(rows.MAKERS) == made_here
    assert set(published.READERS) <= set(rows.MAKERS)
