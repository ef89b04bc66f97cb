"""Benchmarks as questions: each in its published shape, from a folder or the Hub, and what bad data say back."""

import csv
import json
import re
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggez_hub.data import benchmarks, images, readers, tables
from ggez_hub.errors import ConfigError, InputError
from ggez_hub.hub import datasets
from ggez_hub.recipes import load_benchmark
from ggez_hub.registry import load_region
from ggez_hub.schema import Benchmark, HubSource
from ggez_hub.scoring import items
from ggez_hub.scoring.questions import questions
from tests.hub_server import HubServer

HERE = Path(__file__).parents[1] / "fixtures" / "benchmarks"
KB = HERE / "worldcuisines_kb"
PLACES: dict[str, dict[str, Any]] = {  # where each benchmark finds its fixture
    "cultural-vqa": {"source.path": HERE / "cultural_vqa"},
    "cultureverse": {"source.path": HERE / "cultureverse"},
    "cvqa": {"source.path": HERE / "cvqa"},
    "dpg-bench": {"source.path": HERE / "dpg_bench", "source.options.pictures_folder": HERE / "dpg_bench" / "pictures"},
    "sea-vqa": {"source.path": HERE / "sea_vqa_offline"},
    "worldcuisines": {"source.path": HERE / "worldcuisines", "source.options.kb": KB},
    "worldcuisines-open": {"source.path": HERE / "worldcuisines", "source.options.kb": KB},
    "xm3600": {"source.path": HERE / "xm3600"},
}


def benchmark(name: str, **options: Any) -> Benchmark:
    """A shipped benchmark with its fixture; options of the reader, or dotted keys."""
    given = {key if "." in key else f"source.options.{key}": value for key, value in options.items()}
    given = PLACES[name] | given
    return load_benchmark(name, {key: str(value) if isinstance(value, Path) else value for key, value in given.items()})


def read(name: str, pictures: bool = False, **options: Any) -> list[dict[str, Any]]:
    batches = readers.read(benchmark(name, **options).source, pictures=pictures)
    return [row for batch in batches for row in batch.to_pylist()]


def by(rows: list[dict[str, Any]], *key: str) -> dict[Any, dict[str, Any]]:
    """Rows by their key, each once."""
    found = {tuple(row[field] for field in key) if len(key) > 1 else row[key[0]]: row for row in rows}
    assert len(found) == len(rows)
    return found


def refused(name: str, path: Path, **options: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        read(name, **{"source.path": path}, **options)
    return caught.value


# ------------------------------------------------------------------------------------------------------------- each one
@pytest.mark.parametrize("name", PLACES)
def test_a_benchmark_has_every_field_that_its_own_file_names(name: str) -> None:
    found = benchmark(name)
    rows = read(name)
    fields = {*found.key, *found.average, found.cluster, *found.test}
    assert fields <= rows[0].keys()
    assert len({tuple(row[field] for field in found.key) for row in rows}) == len(rows)
    assert all(isinstance(row[field], str) and row[field] for row in rows for field in (*found.key, found.cluster))
    assert all(row["question"] for row in rows)
    assert all(row["country"] is None or all(len(code) == 3 for code in row["country"].split("|")) for row in rows)


@pytest.mark.parametrize("name", PLACES)
def test_a_benchmark_can_be_asked_with_its_pictures(name: str) -> None:
    found = benchmark(name)
    asked = questions(found, load_region("sea"))["test"]
    assert len(asked) == sum(
        row["answer"] is not None and all(row[field] in values for field, values in found.test.items())
        for row in read(name)
    )
    for question in asked:
        assert images.decode(question.picture).size in ((8, 8), (4, 4))
        assert question.query.prompt
        assert question.answer in question.options or not question.options
        assert all(re.sub(r" \(\d\)$", "", option) in question.query.prompt for option in question.options)


@pytest.mark.parametrize("name", PLACES)
def test_a_benchmark_becomes_a_table_of_items(name: str) -> None:
    found = benchmark(name)
    table = items.load(found)
    assert table.num_rows == sum(
        all(row[field] in values for field, values in found.test.items()) for row in read(name)
    )
    assert {*found.key, *found.average, "cluster", "options", "answer", "country"} <= set(table.column_names)


@pytest.mark.parametrize("name", PLACES)
def test_without_pictures_none_is_read(name: str) -> None:
    with_pictures, without = read(name, pictures=True), read(name)
    for row in without:
        assert not (row["image"] or {}).get("bytes")
    drop = lambda rows: [{key: value for key, value in row.items() if key != "image"} for row in rows]  # noqa: E731
    assert drop(with_pictures) == drop(without)


def test_pictures_is_no_option_for_users() -> None:
    with pytest.raises(ConfigError, match=r"options\.pictures: unknown option"):
        benchmark("cvqa", pictures=False)


# ----------------------------------------------------------------------------------------------------------------- CVQA
def test_cvqa_asks_each_question_in_english_and_in_the_language_of_the_place() -> None:
    rows = by(read("cvqa"), "id", "prompt_type")
    english, local = (rows["made_up_00001", way] for way in ("english", "local"))
    assert (english["question"], english["answer"]) == ("Which dish is this, number 1?", "cake 1")
    assert (local["question"], local["answer"]) == ("(Javanese) Which dish is this, number 1?", "(Javanese) cake 1")
    for row in (english, local):
        assert (row["country"], row["language"], row["category"]) == ("IDN", "Javanese", "Places")
        assert row["license"] == "CC BY-NC 4.0"
    assert {row["prompt_type"] for row in read("cvqa", prompts="local")} == {"local"}


def test_cvqa_tells_southeast_asia_by_country_and_by_language() -> None:
    def ids(**options: Any) -> list[str]:
        places = {"source.path": str(HERE / "cvqa"), "rows": "region"}
        return pc.unique(items.load(load_benchmark("cvqa", places | options)).column("id")).to_pylist()

    assert ids() == [f"made_up_{i:05}" for i in range(5)]
    assert ids(region_by="language") == [f"made_up_{i:05}" for i in range(7)]  # Chinese of China, Tamil of India


def test_a_label_that_is_missing_or_names_no_option_leaves_the_question_unscorable() -> None:
    rows = read("cvqa")
    assert {row["id"] for row in rows if row["answer"] is None} == {"made_up_00009", "made_up_00010"}


def cvqa_with(tmp_path: Path, row: int = 2, **columns: Any) -> Path:
    """The fixture with other values in one row, whose column may take another type with them."""
    table = pq.read_table(next((HERE / "cvqa").rglob("*.parquet")))
    for name, value in columns.items():
        place = table.schema.get_field_index(name.replace("_", " "))
        values = table.column(place).to_pylist()
        if isinstance(value, str) and isinstance(values[0], list):
            values = [str(other) for other in values]
        values[row] = value
        table = table.set_column(place, name.replace("_", " "), pa.array(values))
    path = tmp_path / "test.parquet"
    pq.write_table(table, path)
    return path


def test_options_may_be_the_text_of_a_list(tmp_path: Path) -> None:
    path = cvqa_with(tmp_path, Options='["one", "it\'s two", "three", "four"]')
    row = by(read("cvqa", **{"source.path": path}), "id", "prompt_type")["made_up_00002", "local"]
    assert (row["options"], row["answer"]) == (["one", "it's two", "three", "four"], "three")


@pytest.mark.parametrize("text", ["['one', 'two'", "one, two", "{'a': 1}", "['one']", "", "[[1], [2]]", "[" * 500])
def test_options_that_cannot_be_read_are_named_with_file_and_row(tmp_path: Path, text: str) -> None:
    path = cvqa_with(tmp_path, Options=text)
    error = refused("cvqa", path)
    assert error.message == f"{path}, row 3: 'Options' cannot be read"
    assert error.hint == "expected a list of texts, or the text of one"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("('Egyptian_Arabic', 'Egypt')", ("Egyptian_Arabic", "Egypt")),
        ("""("French", "Cote d'Ivoire")""", ("French", "Cote d'Ivoire")),
        ("('French', 'Cote d'Ivoire')", ("French", "Cote d'Ivoire")),  # no Python any more
        (" ( 'Malay' ,'Malaysia' ) ", ("Malay", "Malaysia")),
    ],
)
def test_a_subset_is_read_from_the_text_of_a_pair(text: str, expected: tuple[str, str]) -> None:
    assert benchmarks._subset("here", text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "('Malay', __import__('os').mkdir('owned'))",
        "__import__('os').mkdir('owned')",
        "('a', 'b').__class__",
        "('Malay',)",
        "('Malay', 'Malaysia', 'x')",
        "(1, 2)",
        "Malay",
        "",
        None,
        7,
    ],
)
def test_a_subset_that_is_no_pair_is_refused_and_never_run(
    tmp_path: Path, text: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"^here: Subset ['\"].*['\"] is no pair") as caught:
        benchmarks._subset("here", text)
    assert caught.value.hint == "expected ('LANGUAGE', 'COUNTRY')"
    assert not Path("owned").exists()


@given(st.text())
def test_no_text_of_a_subset_gives_anything_but_a_pair_or_an_error(text: str) -> None:
    try:
        pair = benchmarks._subset("here", text)
    except InputError:
        return
    assert len(pair) == 2
    assert all(isinstance(part, str) and part for part in pair)


# -------------------------------------------------------------------------------------------------------------- SEA-VQA
def test_sea_vqa_has_a_split_for_each_country_and_ids_by_row(tmp_path: Path) -> None:
    rows = by(read("sea-vqa", **{"source.path": HERE / "sea_vqa"}), "id")  # laos stands there twice: Arrow and parquet
    assert Counter(row["country"] for row in rows.values()) == dict.fromkeys(
        ("KHM", "IDN", "LAO", "MYS", "PHL", "SGP", "THA", "VNM"), 2
    )
    assert rows["laos/1"]["answer"] == "flute 1"
    assert rows["laos/1"]["picture"] == "https://pictures.invalid/laos/1.png?size=full"


def test_sea_vqa_answers_are_read_whatever_their_case_and_unscorable_otherwise() -> None:
    rows = by(read("sea-vqa", **{"source.path": HERE / "sea_vqa"}), "id")
    assert rows["cambodia/0"]["answer"] == "drum 0"  # "A "
    assert rows["cambodia/1"]["answer"] is None  # "e"


def test_sea_vqa_offline_finds_pictures_by_the_name_of_the_file(tmp_path: Path) -> None:
    rows = by(read("sea-vqa"), "id")
    assert rows["thailand/1"]["image"]["path"] == "images/thailand/1.png"  # laos has a 1.png, too
    shutil.copytree(HERE / "sea_vqa_offline", tmp_path / "flat")
    shutil.rmtree(tmp_path / "flat" / "images")
    rows = by(read("sea-vqa", **{"source.path": tmp_path / "flat"}), "id")
    assert rows["thailand/1"]["image"]["path"] == "https://pictures.invalid/thailand/1.png?size=full"


def test_sea_vqa_keeps_a_blank_option_in_its_place_but_needs_two(tmp_path: Path) -> None:
    rows = json.loads((HERE / "sea_vqa_offline" / "laos.json").read_text())
    rows[1] |= {"choice_b": None, "correct_answer": "c"}
    (tmp_path / "laos.json").write_text(json.dumps(rows))
    row = by(read("sea-vqa", **{"source.path": tmp_path}), "id")["laos/1"]
    assert (row["options"], row["answer"]) == (["drum 1", "", "gong 1", "zither 1"], "gong 1")
    rows[1] |= {"choice_a": "", "choice_c": None}
    (tmp_path / "laos.json").write_text(json.dumps(rows))
    assert refused("sea-vqa", tmp_path).message == f"{tmp_path / 'laos.json'}, row 2: no options"


def test_what_a_download_leaves_behind_is_no_data(tmp_path: Path) -> None:
    shutil.copytree(HERE / "cvqa", tmp_path / "cvqa")
    hidden = tmp_path / "cvqa" / ".cache" / "half.parquet"
    hidden.parent.mkdir()
    hidden.write_bytes(b"PAR1")
    assert len(read("cvqa", **{"source.path": tmp_path / "cvqa"})) == 24


def test_sea_vqa_reads_one_country_from_one_file() -> None:
    whole = HERE / "sea_vqa"
    for path in (
        HERE / "sea_vqa_offline" / "laos.json",
        whole / "laos_parquet",
        next((whole / "laos_parquet").iterdir()),
        next((whole / "laos").glob("*.arrow")),
    ):
        rows = read("sea-vqa", **{"source.path": path})
        assert [row["question"] for row in rows] == [f"Which instrument of laos is this, number {i}?" for i in range(2)]
        assert [(row["id"], row["country"]) for row in rows] == [("laos/0", "LAO"), ("laos/1", "LAO")]


def test_sea_vqa_asks_which_country_a_file_is_of_where_no_name_tells(tmp_path: Path) -> None:
    path = tmp_path / "questions.json"
    shutil.copy(HERE / "sea_vqa_offline" / "laos.json", path)
    assert refused("sea-vqa", path).message == f"{path}: which country is it of?"


# -------------------------------------------------------------------------------------------------------- WorldCuisines
def test_worldcuisines_gives_the_large_set_unless_the_small_one_is_asked_for() -> None:
    assert {int(row["id"]) >= 400 for row in read("worldcuisines")} == {True}
    assert {int(row["id"]) >= 400 for row in read("worldcuisines", size="small")} == {False}


@pytest.mark.parametrize(("task", "types"), [(None, "1234"), (1, "134"), (2, "2")])
def test_worldcuisines_tasks_are_told_by_prompt_type(task: int | None, types: str) -> None:
    rows = read("worldcuisines", **({"task": task} if task else {}))
    assert Counter(row["prompt_type"] for row in rows) == dict.fromkeys(types, 12)
    assert {(row["prompt_type"] == "2") == (row["kind"] == "country") for row in rows} == {True}


def test_worldcuisines_knows_countries_and_pictures_from_the_knowledge_base() -> None:
    rows = by(read("worldcuisines", pictures=True), "id", "language")
    assert rows["401", "en"]["country"] == "THA|LAO"
    assert rows["403", "en"]["country"] == "GBR"  # England
    assert rows["400", "en"]["category"] == "soup"
    assert images.decode(rows["401", "nan"]["image"]["bytes"]).getpixel((0, 0)) == (0, 128, 0)


def test_worldcuisines_without_a_knowledge_base_has_addresses_and_no_countries() -> None:
    rows = read("worldcuisines", pictures=True, kb="")
    assert {row["country"] for row in rows} == {None}
    assert rows[0]["image"] == {"bytes": None, "path": "https://pictures.invalid/11.jpg?download"}


def test_the_language_nan_is_a_language() -> None:
    assert Counter(row["language"] for row in read("worldcuisines")) == {"en": 16, "id_formal": 16, "nan": 16}


def test_options_that_read_alike_are_told_apart_by_their_number() -> None:
    """Without this the second of two equal options could never be the right one."""
    rows = by(read("worldcuisines", task=2), "id", "language")
    assert rows["502", "en"]["options"] == ["Laos", "Indonesia", "Thailand", "Italy (4)", "Italy (5)"]
    assert rows["502", "en"]["answer"] == "Italy (4)"
    assert rows["503", "en"]["answer"] == "Italy (5)"


def test_a_prompt_with_numbers_is_asked_as_it_stands() -> None:
    asked = questions(benchmark("worldcuisines", task=1), load_region("sea"))["test"]
    first = next(question for question in asked if question.key == ("400", "en"))
    assert first.query.prompt == read("worldcuisines")[0]["question"]
    assert first.query.prompt.count("blue soup") == 1
    assert (first.query.options, first.place) == ((), 0)


@pytest.mark.parametrize(
    ("references", "expected"),
    [("own", "紅飯"), ("dual", "紅飯|red rice"), ("multi", "red rice|nasi merah|紅飯")],
)
def test_open_questions_take_names_of_the_same_dish_in_other_languages(references: str, expected: str) -> None:
    row = by(read("worldcuisines-open", references=references), "id", "language")["401", "nan"]
    assert (row["answer"], row["options"]) == (expected, [])
    assert row["question"] == "(nan) What is dish 1 called in <CUISINE>?\n\nPrint only the answer."


def test_the_wide_form_gives_every_question_in_thirty_languages_with_the_same_number() -> None:
    options = {"source.path": HERE / "worldcuisines_wide", "kb": "worldcuisines/food-kb"}  # which nobody asks here
    wide = by(read("worldcuisines", **options), "id", "language")
    assert len(wide) == 16 * 30
    published = by(read("worldcuisines"), "id", "language")
    same = ("question", "options", "answer", "country", "kind", "prompt_type", "food_id")
    for key in published:
        if key[1] != "nan":
            assert {field: wide[key][field] for field in same} == {field: published[key][field] for field in same}
    hokkien, english = wide["502", "nan"], wide["502", "en"]
    assert hokkien["question"] is None
    assert (hokkien["options"], hokkien["answer"]) == (english["options"], english["answer"])


def test_the_open_form_of_a_wide_prompt_is_the_published_one() -> None:
    wide = by(read("worldcuisines-open", **{"source.path": HERE / "worldcuisines_wide"}), "id", "language")
    published = by(read("worldcuisines-open"), "id", "language")
    assert wide["401", "en"]["question"] == published["401", "en"]["question"]
    assert wide["401", "th"]["answer"] == "red rice|nasi merah"
    own = read("worldcuisines-open", references="own", **{"source.path": HERE / "worldcuisines_wide"})
    assert {row["language"] for row in own if row["answer"]} == {"en", "id_formal"}  # elsewhere no name is known


def test_a_question_whose_words_are_not_there_is_scored_but_not_asked() -> None:
    options = {"source.path": HERE / "worldcuisines_wide", "kb": KB, "task": 2}
    found = benchmark("worldcuisines", **options)
    assert items.load(found).num_rows == 4 * 30
    asked = questions(found, load_region("sea"))["test"]
    assert [question.key for question in asked] == [
        (str(qa_id), language) for qa_id in range(500, 504) for language in ("en", "id_formal")
    ]


def test_the_real_wide_files_are_read_whole(shared: Path) -> None:
    source = benchmark("worldcuisines", **{"source.path": shared / "data" / "worldcuisines"}).source
    table = pa.Table.from_batches(list(readers.read(source, pictures=False)))
    asked = table.filter(pc.is_in(table["language"], pa.array(["en", "th", "nan"])))
    rows = by(asked.select(["id", "language", "options", "answer"]).to_pylist(), "id", "language")
    assert (table.num_rows, len(rows)) == (2000 * 30, 2000 * 3)
    for task in (1, 2):
        with (shared / "data" / "worldcuisines" / f"task{task}_items.csv").open(newline="") as file:
            for item in csv.DictReader(file):
                for language in ("en", "th", "nan"):
                    row = rows[item["qa_id"], language]
                    assert row["options"].index(row["answer"]) == int(item["gold"]) - 1
    assert Counter(table["prompt_type"].to_pylist()) == dict.fromkeys("1234", 500 * 30)
    unknown = {code for codes in pc.unique(table["country"]).to_pylist() for code in codes.split("|") if len(code) != 3}
    assert not unknown


def worldcuisines_with(tmp_path: Path, **values: Any) -> Path:
    """The first published questions, the second of them with other values."""
    lines = (HERE / "worldcuisines/hf_prompt/large_eval_task1/en_large_eval_task1.jsonl").read_text().splitlines()[:3]
    lines[1] = json.dumps(json.loads(lines[1]) | values)
    path = tmp_path / "questions.jsonl"
    path.write_text("\n".join(lines))
    return path


@pytest.mark.parametrize(
    ("prompt", "right"), [("no options", False), ("What?\n1. a\n3. b", False), ("", False), ("What?\n1. a\n2. b", True)]
)
def test_a_prompt_without_numbered_options_is_refused(tmp_path: Path, prompt: str, right: bool) -> None:
    path = worldcuisines_with(tmp_path, multi_choice_prompt=prompt)
    if right:
        assert len(read("worldcuisines", **{"source.path": path})) == 3
    else:
        assert refused("worldcuisines", path).message == f"{path}, row 2: no options in the prompt {prompt!r}"


@pytest.mark.parametrize("gold", [0, 6, -1, None, "", "3.5", "three", "²", 10**30])
def test_a_right_number_that_names_no_option_leaves_the_question_unscorable(tmp_path: Path, gold: Any) -> None:
    rows = read("worldcuisines", **{"source.path": worldcuisines_with(tmp_path, multi_choice_answer=gold)})
    assert [row["answer"] is None for row in rows] == [False, True, False]


@pytest.mark.parametrize(("gold", "place"), [("2", 1), (2.0, 1), (" 5 ", 4)])
def test_a_right_number_may_be_written_as_a_fraction_or_text(tmp_path: Path, gold: Any, place: int) -> None:
    row = read("worldcuisines", **{"source.path": worldcuisines_with(tmp_path, multi_choice_answer=gold)})[1]
    assert row["options"].index(row["answer"]) == place


def test_a_knowledge_base_may_list_its_countries_and_has_to_name_them(tmp_path: Path) -> None:
    dish = {"Image1 URL": "https://pictures.invalid/12.jpg?download", "Countries": ["Viet Nam", "Laos", "Korea"]}
    path = tmp_path / "kb.parquet"
    pq.write_table(pa.Table.from_pylist([dish]), path)
    found = by(read("worldcuisines", kb=path), "id", "language")
    assert (found["401", "en"]["country"], found["400", "en"]["country"]) == ("VNM|LAO|KOR|PRK", None)
    pq.write_table(pa.Table.from_pylist([{"image1_url": "x", "country": "Laos"}]), path)
    with pytest.raises(InputError, match="no column 'countries' in the knowledge base; did you mean 'country'"):
        read("worldcuisines", kb=path)


def dishes(path: Path, **source: Any) -> list[dict[str, Any]]:
    given = HubSource(reader="worldcuisines_dishes", path=str(path), **source)
    return [row for batch in readers.read(given) for row in batch.to_pylist()]


def test_every_dish_of_the_knowledge_base_can_be_drawn_and_has_its_first_picture() -> None:
    rows = by(dishes(KB), "id")
    assert {name: (row["label"], row["category"], row["country"]) for name, row in rows.items()} == {
        "blue soup": ("blue soup", "soup", "IDN"),
        "red rice": ("red rice", "rice", "THA|LAO"),
        "green cake": ("green cake", "cake", "ITA"),
        "yellow pie": ("yellow pie", "pie", "GBR"),
    }
    assert all(images.decode(row["image"]["bytes"]).size == (8, 8) for row in rows.values())
    assert {row["fold"] for row in rows.values()} <= set("0123456789")


@pytest.mark.parametrize(
    ("side", "labels"), [("regional", {"blue soup", "red rice"}), ("others", {"green cake", "yellow pie"})]
)
def test_dishes_are_drawn_on_either_side_by_their_countries(side: str, labels: set[str]) -> None:
    found = load_benchmark(f"dishes-drawing-{side}", {"source.path": str(KB), "test": {}, "selection": {}})
    asked = questions(found, load_region("sea"))["test"]
    assert {question.query.prompt for question in asked} == {f"An image of people eating {label}" for label in labels}
    assert {len(question.options) for question in asked} == {4}  # the judge names them among all dishes


def test_folds_of_dishes_stay_as_they_are_and_choose_and_test_apart(tmp_path: Path) -> None:
    made = [
        {"name": f"dish {i}", "countries": "Laos", "image1_url": f"https://pictures.invalid/{i}"} for i in range(200)
    ]
    pq.write_table(pa.Table.from_pylist(made), tmp_path / "kb.parquet")
    folds = Counter(row["fold"] for row in dishes(tmp_path))
    assert min(folds[fold] for fold in "0123456789") >= 8
    assert {row["id"]: row["fold"] for row in dishes(tmp_path)}["dish 7"] == "6"
    for side in ("regional", "others"):
        found = load_benchmark(f"dishes-drawing-{side}")
        assert not set(found.test["fold"]) & set(found.selection["fold"])


def test_dishes_of_one_name_are_told_apart_and_those_without_a_picture_or_name_are_none(tmp_path: Path) -> None:
    row = {"name": "Laksa", "countries": ["Malaysia"], "image1_url": "https://pictures.invalid/1"}
    other = row | {"countries": ["Singapore", "Korea"], "image1_url": None, "image2_url": "https://pictures.invalid/2"}
    path = tmp_path / "kb.parquet"
    pq.write_table(pa.Table.from_pylist([row | {"image2_url": None}, other, row | {"image1_url": None}]), path)
    found = {row["id"]: (row["label"], row["country"], row["image"]["path"]) for row in dishes(path)}
    assert found == {
        "Laksa": ("Laksa", "MYS", "https://pictures.invalid/1"),
        "Laksa (2)": ("Laksa", "SGP|KOR|PRK", "https://pictures.invalid/2"),
    }
    for broken, said in (
        (row | {"name": None}, "no 'name'"),
        ({"countries": "Laos", "image1_url": "x"}, "no column 'name'"),
    ):
        pq.write_table(pa.Table.from_pylist([broken]), path)
        with pytest.raises(InputError, match=said):
            dishes(path)


# ------------------------------------------------------------------------------- benchmarks that ask a part of another
PARTS = {  # of which benchmark each is a part
    "cvqa-regional": "cvqa", "cvqa-english": "cvqa", "cvqa-english-regional": "cvqa", "cvqa-english-others": "cvqa",
    "cvqa-matched": "cvqa", "cvqa-matched-regional": "cvqa", "cvqa-matched-others": "cvqa",
    "sea-vqa-matched": "sea-vqa",
    "worldcuisines-small": "worldcuisines", "worldcuisines-small-regional": "worldcuisines",
    "worldcuisines-english-regional": "worldcuisines", "worldcuisines-english-others": "worldcuisines",
    "worldcuisines-matched-regional": "worldcuisines", "worldcuisines-matched-others": "worldcuisines",
    "cultureverse-local": "cultureverse",
}  # fmt: skip


@pytest.mark.parametrize("name", PARTS)
def test_a_part_of_a_benchmark_asks_that_part_and_no_more(name: str) -> None:
    region = load_region("sea")
    part = load_benchmark(name, {key: str(value) for key, value in PLACES[PARTS[name]].items()})
    whole = benchmark(PARTS[name], **({"size": "small"} if "small" in name else {}))
    asked = questions(part, region)["test"]
    every = {question.id: question for question in questions(whole, region)["test"]}
    assert asked
    assert all(question.picture == every[question.id].picture for question in asked)
    inside = [bool(q.country) and set(q.country.split("|")) <= set(region.countries) for q in asked]
    assert {"regional": {True}, "others": {False}}.get(name.rpartition("-")[2], {*inside}) == {*inside}
    if "english" in name or "matched" in name:
        assert len({question.query.prompt for question in asked}) > 1
        assert not any("(Javanese)" in (question.query.prompt or "") for question in asked)
    for question in asked:
        if "matched" in name:  # what a model that embeds can be asked
            assert question.query.options == question.options
            assert question.query.template in ("{question} {option}", "{option}")
        else:
            assert not question.query.options


def test_pope_is_streamed_and_its_questions_are_counted_in_each_category(tmp_path: Path) -> None:
    picture = {"bytes": next((HERE / "cultureverse" / "images").rglob("*.png")).read_bytes(), "path": "a.png"}
    row = {
        "id": "7",
        "question_id": "1",
        "question": "Is there a dog?",
        "answer": "no",
        "image_source": "a",
        "image": picture,
    }
    rows = [row | {"category": name, "answer": answer} for name, answer in (("random", "no"), ("popular", "yes"))]
    (tmp_path / "data").mkdir()
    table = pa.Table.from_pylist(rows)
    pq.write_table(table, tmp_path / "data" / "test-00000-of-00001.parquet")
    found = load_benchmark("pope", {"source.path": str(tmp_path)})
    asked = questions(found, load_region("world"))["test"]
    assert [(question.key, question.answer, question.query.options) for question in asked] == [
        (("random", "1"), "no", ()), (("popular", "1"), "yes", ())
    ]  # fmt: skip


# --------------------------------------------------------------------------------------------------------- CultureVerse
def test_cultureverse_lists_its_options_and_asks_for_reasons() -> None:
    row = by(read("cultureverse"), "id")["ken-thing-0-cultural_knowledge"]
    lines = row["question"].splitlines()
    assert lines[:5] == [
        "Which cultural_knowledge is this of Kenya?",
        *(f"({letter}) {option}" for letter, option in zip("ABCD", row["options"], strict=True)),
    ]
    assert "round brackets" in lines[5]
    assert (row["answer"], row["country"], row["continent"]) == ("x-thing", "KEN", "Africa")
    assert row["kind"] == "cultural_knowledge"


def test_cultureverse_splits_by_the_first_picture_or_by_whole_concepts(tmp_path: Path) -> None:
    given = {row["id"]: row["split"] for row in read("cultureverse")}
    assert {row["id"]: row["split"] for row in read("cultureverse", split="image")} == given  # the fixture's own way
    rows = [json.loads(line) for line in (HERE / "cultureverse" / "questions.jsonl").read_text().splitlines()]
    many = [row | {"id": f"{row['id']}-{i}", "concept": f"{row['concept']} {i}"} for i in range(40) for row in rows]
    (tmp_path / "many.jsonl").write_text("\n".join(json.dumps(row) for row in many))
    sides: dict[str, set[str]] = {}
    for row in read("cultureverse", split="concept", **{"source.path": tmp_path / "many.jsonl"}):
        sides.setdefault(row["concept"], set()).add(row["split"])
    assert {len(found) for found in sides.values()} == {1}  # no concept is on both sides
    assert 0.1 < np.mean([found == {"test"} for found in sides.values()]) < 0.3


@pytest.mark.parametrize(("letter", "answer"), [("(b)", "x-thing"), ("B.", "x-thing"), ("E", None), ("", None)])
def test_a_letter_may_stand_in_brackets(tmp_path: Path, letter: str, answer: str | None) -> None:
    row = json.loads((HERE / "cultureverse" / "questions.jsonl").read_text().splitlines()[0])
    (tmp_path / "one.jsonl").write_text(json.dumps(row | {"answer": letter}))
    assert [row["answer"] for row in read("cultureverse", **{"source.path": tmp_path / "one.jsonl"})] == [answer]


# ---------------------------------------------------------------------------------------------------------- CulturalVQA
def test_cultural_vqa_has_several_right_answers_and_columns_of_its_own() -> None:
    rows = by(read("cultural-vqa"), "id")
    assert rows["made-up-1"]["answer"] == "cloth 1|the 1 cloth"  # a bar within an answer would split it
    assert (rows["made-up-1"]["country"], rows["made-up-1"]["options"]) == ("NGA", None)


def test_cultural_vqa_reads_jsonl_with_pictures_beside(tmp_path: Path) -> None:
    row = {"u_id": "a", "image": "a.png", "question": "What?", "answers": ["b", None, "c", "b"], "country": "Mali"}
    (tmp_path / "one.jsonl").write_text(json.dumps(row))
    (found,) = read("cultural-vqa", pictures=True, **{"source.path": tmp_path / "one.jsonl"})
    assert (found["answer"], found["image"]["path"], found["country"]) == ("b|c", "a.png", "MLI")


def test_a_column_of_another_name_is_asked_for_with_those_that_are_there(tmp_path: Path) -> None:
    row = {"u_id": "a", "image": "a.png", "question": "What?", "references": ["b"], "country": "Mali"}
    path = tmp_path / "one.jsonl"
    path.write_text(json.dumps(row))
    error = refused("cultural-vqa", path)
    assert error.message.startswith(f"{path}: no column 'answers' (wanted as 'answer')")
    assert error.message.endswith("known: country, image, question, references, u_id")
    assert error.hint == "set source.columns.answer= to the right one"
    (found,) = read("cultural-vqa", **{"source.path": path, "source.columns.answer": "references"})
    assert found["answer"] == "b"


# ------------------------------------------------------------------------------------------------------------ DPG-Bench
def test_dpg_asks_every_question_of_every_tile_in_the_order_of_the_file() -> None:
    rows = read("dpg-bench")
    assert len(rows) == 7 * 4
    assert [row["row"] for row in rows] == sorted(row["row"] for row in rows)
    child = by(rows, "id", "proposition_id", "tile")["fx0", "4", "2"]
    assert (child["dependency"], child["tuple"]) == ("1,3", "relation - spatial (cube, table, on)")
    assert (child["category"], child["kind"], child["answer"]) == ("relation", "relation - spatial", "yes")
    assert child["question"] == "Is the cube on the table?"
    assert {row["category"] for row in rows if row["id"] == "fx1"} == {"entity", "other", "global"}


def test_dpg_cuts_each_tile_out_of_the_picture() -> None:
    colours = [(255, 0, 0), (0, 128, 0), (0, 0, 255), (255, 255, 0)]  # row by row
    for row in read("dpg-bench", pictures=True):
        tile = images.decode(row["image"]["bytes"])
        assert tile.getcolors() == [(16, colours[int(row["tile"])])]
    two = read("dpg-bench", pictures=True, tiles=2)
    assert {row["tile"] for row in two} == {"0", "1"}
    (whole,) = {images.decode(row["image"]["bytes"]).size for row in read("dpg-bench", pictures=True, tiles=1)}
    assert whole == (8, 8)


@pytest.mark.parametrize("item", ["fx9", "../fx0", "/etc/passwd"])
def test_dpg_takes_pictures_from_their_folder_alone(tmp_path: Path, item: str) -> None:
    text = (HERE / "dpg_bench" / "dpg_bench.csv").read_text().replace("fx0", item)
    (tmp_path / "dpg_bench.csv").write_text(text)
    (tmp_path / "pictures").mkdir()
    shutil.copy(HERE / "dpg_bench" / "pictures" / "fx0.png", tmp_path / "fx0.png")
    options = {"source.path": tmp_path, "source.options.pictures_folder": tmp_path / "pictures"}
    with pytest.raises(InputError, match=rf"row 1: the picture of item '{item}': {item}\.png: no such picture below"):
        read("dpg-bench", pictures=True, **options)
    assert len(read("dpg-bench", **options)) == 28  # answers made elsewhere need none


@pytest.mark.parametrize(("first", "row"), [(0, 7), (1, 1)])
def test_dpg_takes_the_later_of_two_rows_at_the_place_of_the_first(
    broken: Callable[..., Path], first: int, row: int
) -> None:
    """As the published program, which skips row 0."""
    later = {"question_natural_language": "Is it a cube?"}
    path = broken("dpg-bench", lambda rows: [*rows, rows[first] | later])
    rows = [found for found in read("dpg-bench", tiles=1, **{"source.path": path}) if found["id"] == "fx0"]
    assert len(rows) == 4
    assert [(found["row"], found["question"]) for found in rows][first] == (row, "Is it a cube?")


# --------------------------------------------------------------------------------------------------------------- XM3600
def test_xm3600_tells_the_language_by_the_split_and_the_country_by_the_picture() -> None:
    rows = by(read("xm3600"), "id", "language")
    pictures = {name: row["country"] for (name, language), row in rows.items() if language == "en"}
    assert list(pictures.values()) == ["IDN", "THA", None, "PHL"]
    filipino = rows["0000000000000001", "fil"]
    assert filipino["country"] == "THA"
    assert filipino["answer"] == "fil: a green square|fil: green all over"
    assert filipino["question"] == "Write a short caption of this picture in Filipino."


def test_xm3600_tells_the_language_whatever_the_folder_is_called(tmp_path: Path) -> None:
    path = tmp_path / "downloads" / "th-00000-of-00001.parquet"
    path.parent.mkdir()
    shutil.copy(HERE / "xm3600" / "data" / path.name, path)
    assert {row["language"] for row in read("xm3600", **{"source.path": tmp_path})} == {"th"}


@pytest.mark.parametrize(
    ("locale", "country"),
    [("ja", "JPN"), ("te", "IND"), ("no", "NOR"), ("tr", "TUR"), ("es", None), ("ru", None), ("mi", None)],
)
def test_xm3600_tells_the_country_where_a_language_is_spoken_in_one_for_the_most_part(
    tmp_path: Path, locale: str, country: str | None
) -> None:
    rows = pq.read_table(HERE / "xm3600" / "data" / "th-00000-of-00001.parquet").to_pylist()[:1]
    pq.write_table(pa.Table.from_pylist([rows[0] | {"image_locale": locale}]), tmp_path / "th.parquet")
    assert [row["country"] for row in read("xm3600", **{"source.path": tmp_path})] == [country]


# -------------------------------------------------------------------------------------------------------------- the Hub
def uploaded(
    hub: HubServer, name: str, folder: str, change: Callable[[str, bytes], bytes] = lambda _, data: data
) -> str:
    """Puts a fixture on the Hub and returns the commit."""
    root = HERE / folder
    files = {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    return hub.add(name, {path: change(path, data) for path, data in files.items()}, kind="datasets")


def newest(name: str, **options: Any) -> Benchmark:
    """A shipped benchmark without the commits that it is pinned to, which are the real Hub's."""
    given = {key if "." in key else f"source.{key}": value for key, value in options.items()}
    knowledge = {"source.options.kb_revision": ""} if "kb" in load_benchmark(name).source.options else {}
    return load_benchmark(name, {"source.revision": None} | knowledge | given)


def from_hub(name: str, **options: Any) -> list[dict[str, Any]]:
    found = newest(name, **options)
    return [row for batch in readers.read(found.source) for row in batch.to_pylist()]


def test_cvqa_is_read_from_the_hub_at_the_pinned_commit(data_hub: HubServer) -> None:
    first = uploaded(data_hub, "afaji/cvqa", "cvqa")
    data_hub.add("afaji/cvqa", {"evil.py": b"print()"}, kind="datasets")
    table = pq.read_table(next((HERE / "cvqa").rglob("*.parquet"))).slice(0, 3)
    newer = pa.BufferOutputStream()
    pq.write_table(table, newer)
    files = {"data/test-00000-of-00001.parquet": newer.getvalue().to_pybytes()}
    data_hub.add("afaji/cvqa", files, kind="datasets")
    assert len(from_hub("cvqa")) == 6
    assert len(from_hub("cvqa", revision=first)) == 24
    assert from_hub("cvqa", revision=first) == read("cvqa", pictures=True)
    place = readers.place(load_benchmark("cvqa", {"source.revision": first}).source)
    assert [path.name for path in place.rglob("*") if path.is_file()] == ["test-00000-of-00001.parquet"]


def test_sea_vqa_is_read_from_the_hub_at_the_pinned_commit(data_hub: HubServer) -> None:
    first = uploaded(data_hub, "wit543/sea-vqa", "sea_vqa")
    uploaded(data_hub, "wit543/sea-vqa", "sea_vqa", lambda path, data: data.replace(b"laos", b"LAOS"))
    questions_of = lambda rows: {row["question"] for row in rows if row["country"] == "LAO"}  # noqa: E731
    assert questions_of(from_hub("sea-vqa")) == {f"Which instrument of LAOS is this, number {i}?" for i in range(2)}
    pinned = from_hub("sea-vqa", revision=first)
    assert questions_of(pinned) == {f"Which instrument of laos is this, number {i}?" for i in range(2)}
    assert len(pinned) == 16


def test_worldcuisines_and_its_knowledge_base_are_read_from_the_hub_at_pinned_commits(data_hub: HubServer) -> None:
    first = uploaded(data_hub, "worldcuisines/vqa", "worldcuisines")
    uploaded(data_hub, "worldcuisines/vqa", "worldcuisines", lambda _, data: data.replace(b"called", b"named"))
    dishes = uploaded(data_hub, "worldcuisines/food-kb", "worldcuisines_kb")
    table = pq.read_table(next(KB.rglob("*.parquet")))
    moved = pa.array(["Japan"] * table.num_rows)
    parquet = pa.BufferOutputStream()
    pq.write_table(table.set_column(table.schema.get_field_index("countries"), "countries", moved), parquet)
    files = {
        "data/main-00000-of-00001.parquet": parquet.getvalue().to_pybytes(),
        "worldcuisines.csv": (KB / "worldcuisines.csv").read_bytes().replace(b"Italy", b"Japan"),
    }
    data_hub.add("worldcuisines/food-kb", files, kind="datasets")
    pins = {"source.revision": first, "source.options.kb_revision": dishes}

    def country(pictures: bool, **pins: str) -> str:
        source = newest("worldcuisines", **pins).source
        rows = [row for batch in readers.read(source, pictures=pictures) for row in batch.to_pylist()]
        return by(rows, "id", "language")["402", "en"]["country"]

    for pictures in (False, True):
        assert (country(pictures), country(pictures, **pins)) == ("JPN", "ITA")
    assert from_hub("worldcuisines", **pins) == read("worldcuisines", pictures=True)
    assert {"named" in row["question"] for row in from_hub("worldcuisines") if row["kind"] == "dish"} == {True}


def test_scoring_fetches_the_knowledge_base_without_its_pictures(data_hub: HubServer) -> None:
    uploaded(data_hub, "worldcuisines/vqa", "worldcuisines")
    uploaded(data_hub, "worldcuisines/food-kb", "worldcuisines_kb")
    table = items.load(newest("worldcuisines"))
    assert set(table.column("country").to_pylist()) == {"IDN", "THA|LAO", "ITA", "GBR"}
    asked = [request.path for request in data_hub.requests if "/resolve/" in request.path and "food-kb" in request.path]
    assert asked
    assert not any("parquet" in path for path in asked)


def test_pictures_that_are_files_of_a_repository_are_found(data_hub: HubServer) -> None:
    """The client keeps them as links to a folder beside that of the commit."""
    uploaded(data_hub, "someone/cultureverse", "cultureverse")
    found = load_benchmark("cultureverse", {"source.id": "someone/cultureverse"})
    assert questions(found, load_region("sea")) == questions(benchmark("cultureverse"), load_region("sea"))


def test_a_knowledge_base_without_a_csv_is_read_from_its_parquet_files(data_hub: HubServer) -> None:
    files = {"data/main.parquet": next(KB.rglob("*.parquet")).read_bytes()}
    data_hub.add("worldcuisines/food-kb", files, kind="datasets")
    source = benchmark("worldcuisines", kb="worldcuisines/food-kb", kb_revision="").source
    found = [row for batch in readers.read(source, pictures=False) for row in batch.to_pylist()]
    assert {row["country"] for row in found} == {"IDN", "THA|LAO", "ITA", "GBR"}


# ------------------------------------------------------------------------------------------------------------- bad data
FILES = {  # of each benchmark a file that holds questions, and a column that every row needs
    "cultureverse": ("cultureverse/questions.jsonl", "question_type"),
    "cvqa": ("cvqa/data/test-00000-of-00001.parquet", "Translated Options"),
    "dpg-bench": ("dpg_bench/dpg_bench.csv", "dependency"),
    "sea-vqa": ("sea_vqa_offline/laos.json", "correct_answer"),
    "worldcuisines": ("worldcuisines/hf_prompt/large_eval_task1/en_large_eval_task1.jsonl", "image_url"),
    "xm3600": ("xm3600/data/th-00000-of-00001.parquet", "captions"),
}


def rewritten(path: Path, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
    """Changes the rows of a file, whatever its kind."""
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        rows = change(table.to_pylist())
        pq.write_table(
            pa.Table.from_pylist(rows, None if rows and rows[0].keys() != set(table.column_names) else table.schema),
            path,
        )
    elif path.suffix == ".csv":
        rows = change(list(csv.DictReader(path.read_text().splitlines())))
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]) if rows else ["item_id"])
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".json":
        path.write_text(json.dumps(change(json.loads(path.read_text()))))
    else:
        path.write_text(
            "".join(
                json.dumps(row) + "\n" for row in change([json.loads(line) for line in path.read_text().splitlines()])
            )
        )


@pytest.fixture
def broken(tmp_path: Path) -> Callable[..., Path]:
    """Copies a benchmark's file with its rows changed."""

    def copy(name: str, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> Path:
        path = tmp_path / Path(FILES[name][0]).name
        shutil.copy(HERE / FILES[name][0], path)
        rewritten(path, change)
        return path

    return copy


@pytest.mark.parametrize("name", FILES)
def test_a_column_that_is_not_there_is_named_with_the_nearest(name: str, broken: Callable[..., Path]) -> None:
    column = FILES[name][1]
    path = broken(name, lambda rows: [{f"{k}s" if k == column else k: v for k, v in row.items()} for row in rows])
    error = refused(name, path)
    assert error.message == f"{path}, row 1: no column {column!r}; did you mean '{column}s'?"


@pytest.mark.parametrize("name", FILES)
def test_a_file_without_a_row_is_refused(name: str, broken: Callable[..., Path]) -> None:
    path = broken(name, lambda rows: [])
    assert refused(name, path).message == f"{path}: no row in it"


@pytest.mark.parametrize("name", sorted(FILES.keys() - {"sea-vqa", "dpg-bench"}))  # ids of sea-vqa are row numbers
def test_a_question_that_stands_there_twice_is_named_with_both_rows(name: str, broken: Callable[..., Path]) -> None:
    path = broken(name, lambda rows: [*rows, rows[1]])
    again = len(list(by_row(path))) if path.suffix != ".json" else 0
    error = refused(name, path)
    assert error.message.startswith(f"{path}, row {again}: ")
    assert error.message.endswith(f" stands in {path}, row 2 already")


def by_row(path: Path) -> Iterator[Any]:
    return iter(row for row in tables.records(path))


@pytest.mark.parametrize(
    ("name", "column", "value"),
    [
        ("cultureverse", "continent", 5),
        ("cultureverse", "question_type", ["a"]),
        ("cultureverse", "question", "half a \ud800"),
        ("cultureverse", "image", {}),
        ("cultureverse", "options", f"[0x{'f' * 5000}, 2]"),
        ("sea-vqa", "image_page", True),
        ("sea-vqa", "choice_a", "\udfff"),
        ("worldcuisines", "image_url", []),
        ("worldcuisines", "answer", {"en": "soup"}),
        ("worldcuisines", "food_id", "\ud800"),
    ],
)
def test_a_value_of_another_type_is_named_with_file_and_row(
    name: str, column: str, value: Any, broken: Callable[..., Path]
) -> None:
    path = broken(name, lambda rows: [rows[0], rows[1] | {column: value}, *rows[2:]])
    assert refused(name, path).message.startswith(f"{path}, row 2: ")


@pytest.mark.parametrize("captions", ["a man", 5, ["a", None]])
def test_captions_that_are_no_list_of_texts_are_refused(tmp_path: Path, captions: Any) -> None:
    rows = pq.read_table(HERE / FILES["xm3600"][0]).to_pylist()
    path = tmp_path / "th.parquet"
    pq.write_table(pa.Table.from_pylist([row | {"captions": captions} for row in rows]), path)
    assert refused("xm3600", path).message == f"{path}, row 1: 'captions' cannot be read"


def test_text_that_is_no_utf8_is_told(tmp_path: Path) -> None:
    place, end, text = (pa.py_buffer(part) for part in (bytes(4), b"\2\0\0\0", b"\xff\xfe"))
    offsets = pa.py_buffer(place.to_pybytes() + end.to_pybytes())
    damaged = pa.Array.from_buffers(pa.string(), 1, [None, offsets, text])
    path = tmp_path / "test.parquet"
    pq.write_table(pa.table({"ID": damaged}), path)
    assert refused("cvqa", path).message.startswith(f"{path}: not a readable parquet file: 'utf-8' codec")


def test_the_mark_that_some_editors_begin_files_with_is_left_out(tmp_path: Path) -> None:
    for name in ("cultureverse", "dpg-bench", "sea-vqa"):
        path = tmp_path / Path(FILES[name][0]).name
        path.write_text("\ufeff" + (HERE / FILES[name][0]).read_text().replace("\n", "\r\n"), newline="")
        assert read(name, **{"source.path": path}) == read(name, **{"source.path": HERE / FILES[name][0]})


@pytest.mark.parametrize(
    ("name", "message"),
    [("cultureverse", ", row 3: not JSON: "), ("dpg-bench", ": not a readable CSV file: row 3 has more or fewer")],
)
def test_a_line_that_is_cut_off_is_named(tmp_path: Path, name: str, message: str) -> None:
    header = name == "dpg-bench"
    lines = (HERE / FILES[name][0]).read_text().splitlines()
    lines[2 + header] = lines[2 + header][:9]
    path = tmp_path / Path(FILES[name][0]).name
    path.write_text("\n".join(lines))
    assert refused(name, path).message.startswith(f"{path}{message}")


@given(st.lists(st.sampled_from(["x", "x (1)", "x (2)", "y", ""]), min_size=2, max_size=6))
def test_options_are_told_apart_however_they_read(options: list[str]) -> None:
    found = benchmarks._distinct(options)
    assert len(set(found)) == len(options)
    assert all(one.startswith(option) for one, option in zip(found, options, strict=True))


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_another_kind_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "questions.xlsx"
    path.write_bytes(b"PK")
    assert refused(name, path).message.startswith(f"{path}: expected a *.")
    (tmp_path / "folder").mkdir()
    assert " file there" in refused(name, tmp_path / "folder").message


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("content", [b"\xff\xfe\x00garbage", b"", b"{", b'"a\nb'])
def test_a_damaged_file_is_named(name: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / Path(FILES[name][0]).name
    path.write_bytes(content)
    error = refused(name, path)
    assert error.message.startswith(str(path))


@pytest.mark.parametrize("name", ["cultureverse", "cvqa", "worldcuisines", "xm3600", "dpg-bench"])
def test_a_row_without_an_id_is_named(name: str, broken: Callable[..., Path]) -> None:
    column = {
        "cultureverse": "id",
        "cvqa": "ID",
        "worldcuisines": "qa_id",
        "xm3600": "image_id",
        "dpg-bench": "item_id",
    }[name]
    path = broken(name, lambda rows: [rows[0], rows[1] | {column: " "}, *rows[2:]])
    assert refused(name, path).message == f"{path}, row 2: no {column!r}"


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [("cvqa", "prompts", "both of them"), ("worldcuisines", "task", 3), ("worldcuisines", "references", "all"),
     ("worldcuisines", "size", "huge"), ("cultureverse", "split", "random"), ("dpg-bench", "tiles", 9)],
)  # fmt: skip
def test_an_option_of_another_value_is_refused(name: str, option: str, value: Any) -> None:
    with pytest.raises(InputError, match=rf"^options\.{option}: {value!r} is none of "):
        read(name, **{option: value})


def test_a_picture_outside_the_folder_is_refused(tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (HERE / "cultureverse" / "questions.jsonl").read_text().splitlines()]
    (tmp_path / "data").mkdir()
    shutil.copy(HERE / "cultureverse" / "images" / "idn" / "thing_0.png", tmp_path / "secret.png")
    (tmp_path / "data" / "one.jsonl").write_text(json.dumps(rows[0] | {"image": "../secret.png"}))
    for path in (tmp_path / "data", tmp_path / "data" / "one.jsonl"):
        with pytest.raises(InputError, match=r"\.\./secret\.png: no such picture below"):
            questions(benchmark("cultureverse", **{"source.path": path}), load_region("sea"))


# --------------------------------------------------------------------------------------------- pictures with an address
class Web(ThreadingHTTPServer):
    """Answers GET requests from a table: path -> (status, headers, body); remembers what was asked."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.table: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self.asked: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Answer(BaseHTTPRequestHandler):
    server: Web

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        status, headers, body = self.server.table.get(self.path, (404, {}, b""))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    """A web server on this machine, and a cache of its own."""
    monkeypatch.setattr("huggingface_hub.constants.HF_ASSETS_CACHE", str(tmp_path / "assets"))
    with Web() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


PICTURE = (HERE / "cultureverse" / "images" / "idn" / "thing_0.png").read_bytes()
fetch = partial(images.fetch, download=True)


def at(url: str) -> dict[str, Any]:
    return {"bytes": None, "path": url}


def test_a_picture_with_an_address_is_downloaded_once(web: Web, tmp_path: Path) -> None:
    web.table["/a.png?size=1"] = (200, {}, PICTURE)
    for _ in range(2):
        assert fetch(at(f"{web.url}/a.png?size=1")) == PICTURE
    assert web.asked == ["/a.png?size=1"]
    kept = [path for path in (tmp_path / "assets").rglob("*") if path.is_file()]
    assert [path.read_bytes() for path in kept] == [PICTURE]


def test_an_address_is_visited_only_where_that_was_asked_for(web: Web, tmp_path: Path) -> None:
    web.table["/a.png"] = (200, {}, PICTURE)
    for root in (None, tmp_path):
        with pytest.raises(images.BrokenImage):
            images.fetch(at(f"{web.url}/a.png"), root)
    assert not web.asked


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://127.0.0.1/a.png", "data:image/png;base64,AA", "gopher://x"]
)
def test_other_schemes_are_no_addresses(url: str, tmp_path: Path) -> None:
    with pytest.raises(images.BrokenImage, match=r"no such picture below|not in the file"):
        fetch(at(url), tmp_path)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((404, {}, PICTURE), "answered 404 Not Found"),
        ((500, {}, b""), "answered 500"),
        ((200, {}, b"<html>too many requests</html>"), "not a picture of a known kind"),
        ((200, {}, b""), "not a picture of a known kind"),
        ((200, {"Content-Length": "5000"}, PICTURE), "cannot be downloaded"),
        ((302, {"Location": "/x"}, b""), "more than 5 redirects"),
        ((302, {"Location": "file:///etc/passwd"}, b""), "leads to file:/"),
        ((302, {"Location": "ftp://127.0.0.1/x"}, b""), "leads to ftp://"),
        ((302, {"Location": "http://[broken"}, b""), "cannot be downloaded"),
    ],
)
def test_what_is_no_picture_at_an_address_is_told_and_not_kept(
    web: Web, tmp_path: Path, answer: tuple[int, dict[str, str], bytes], message: str
) -> None:
    web.table["/x"] = answer
    with pytest.raises(images.BrokenImage, match=message):
        fetch(at(f"{web.url}/x"))
    assert not [path for path in (tmp_path / "assets").rglob("*") if path.is_file()]


def test_a_picture_that_is_too_large_is_not_downloaded_whole(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_BYTES", 1000)
    web.table["/x"] = (200, {}, PICTURE + b"0" * 1000)
    with pytest.raises(images.BrokenImage, match="more than 1000 bytes"):
        fetch(at(f"{web.url}/x"))


def test_a_picture_that_takes_too_long_is_given_up(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_SECONDS", -1)
    web.table["/x"] = (200, {}, PICTURE)
    with pytest.raises(images.BrokenImage, match="took more than -1 seconds"):
        fetch(at(f"{web.url}/x"))


def test_a_redirect_is_followed(web: Web) -> None:
    web.table |= {"/old": (301, {"Location": "new"}, b""), "/new": (200, {}, PICTURE)}
    assert fetch(at(f"{web.url}/old")) == PICTURE
    assert web.asked == ["/old", "/new"]


@pytest.mark.parametrize(
    "inside", ["http://127.0.0.1:1/secret", "http://10.0.0.1/", "http://[::1]/", "http://169.254.169.254/"]
)
def test_an_address_of_the_world_leads_to_none_of_this_network(
    web: Web, inside: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY"):  # so that a public address can answer without a network
        monkeypatch.setenv(name, web.url)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    web.table["http://93.184.216.34/a.png"] = (302, {"Location": inside}, b"")
    with pytest.raises(images.BrokenImage, match="where no picture is taken from"):
        fetch(at("http://93.184.216.34/a.png"))
    assert web.asked == ["http://93.184.216.34/a.png"]


def test_nobody_at_an_address_is_a_broken_picture(web: Web) -> None:
    web.shutdown()
    web.server_close()
    with pytest.raises(images.BrokenImage, match="cannot be downloaded"):
        fetch(at(f"{web.url}/a.png"))


def test_sea_vqa_is_asked_with_the_pictures_at_its_addresses(web: Web, tmp_path: Path) -> None:
    rows = json.loads((HERE / "sea_vqa_offline" / "laos.json").read_text())
    for i, row in enumerate(rows):
        row["image_path"] = f"{web.url}/{i}.png"
        web.table[f"/{i}.png"] = (200, {}, PICTURE)
    (tmp_path / "laos.json").write_text(json.dumps(rows))
    asked = questions(benchmark("sea-vqa", **{"source.path": tmp_path / "laos.json"}), load_region("sea"))["test"]
    assert [question.picture for question in asked] == [PICTURE, PICTURE]
    assert asked[0].query.prompt.endswith("A. drum 0\nB. flute 0\nC. gong 0\nD. zither 0\nAnswer with the letter.")


def test_other_readers_visit_no_address(web: Web, tmp_path: Path) -> None:
    row = json.loads((HERE / "cultureverse" / "questions.jsonl").read_text().splitlines()[0])
    (tmp_path / "one.jsonl").write_text(json.dumps(row | {"image": f"{web.url}/a.png"}))
    with pytest.raises(InputError, match="no such picture below"):
        questions(benchmark("cultureverse", **{"source.path": tmp_path}), load_region("sea"))
    assert not web.asked


def test_the_readers_that_fetch_from_the_hub_say_what() -> None:
    assert benchmarks.PATTERNS.keys() == benchmarks.READERS.keys() >= benchmarks.LINKED
    assert datasets.fetch(str(HERE), None, ()) == HERE


def test_manifests_name_the_commit_of_a_benchmark_on_the_hub(data_hub: HubServer) -> None:
    first = uploaded(data_hub, "afaji/cvqa", "cvqa")
    source = load_benchmark("cvqa").source
    assert readers.fingerprint(source, "corpus.parquet") == {"afaji/cvqa": first}  # not the recipe's own corpus
    newest = data_hub.add("afaji/cvqa", {"more.txt": b"more"}, kind="datasets")
    assert readers.fingerprint(source) == {"afaji/cvqa": newest}
    pinned = source.model_copy(update={"revision": first})
    asked = len(data_hub.requests)
    assert readers.fingerprint(pinned) == {"afaji/cvqa": first}
    assert len(data_hub.requests) == asked  # a commit is known without the Hub
