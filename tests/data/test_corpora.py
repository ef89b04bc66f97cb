"""Training corpora: each in the layout it is published in becomes rows that can be filtered and trained on."""

import gzip
import io
import json
import resource
import shutil
import signal
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ggez_hub.data import conversations, corpora, images, readers
from ggez_hub.errors import InputError
from ggez_hub.schema import HubSource
from tests.hub_server import HubServer

CORPORA = Path(__file__).parents[1] / "fixtures" / "corpora"
BENCHMARKS = CORPORA.parent / "benchmarks"


def read(reader: str, path: Path, pictures: bool = True, **source: Any) -> list[dict[str, Any]]:
    """The rows of a corpus, as a recipe has them."""
    found = readers.read(HubSource(reader=reader, path=str(path), **source), pictures=pictures)
    return [row for batch in found for row in batch.to_pylist()]


def colour(row: dict[str, Any]) -> tuple[int, ...]:
    """What the picture of a row, which is of one colour, shows."""
    pixel = Image.open(io.BytesIO(row["image"]["bytes"])).getpixel((0, 0))
    assert isinstance(pixel, tuple)
    return pixel


def said(row: dict[str, Any]) -> list[str]:
    """The conversation of a row, user first."""
    assert conversations.problem(row["messages"]) is None
    return [message["content"] for message in row["messages"]]


def write(path: Path, *rows: Any) -> Path:
    """Writes JSONL, or a JSON list; half surrogates go as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows) if path.suffix == ".json" else "\n".join(map(json.dumps, rows)))
    return path


def pack(path: Path, members: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wb", 1) as packed, tarfile.open(fileobj=packed, mode="w") as tar:
        for name, data in members.items():
            about = tarfile.TarInfo(name)
            about.size = len(data)
            tar.addfile(about, io.BytesIO(data))


RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 128, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)


# --------------------------------------------------------------------------------------------------------------- SEA-VL
def test_sea_vl_gives_a_row_for_each_caption_in_its_language() -> None:
    rows = read("sea_vl", CORPORA / "sea_vl")
    assert [(row["id"], row["text"], row["language"]) for row in rows] == [
        ("made_up_0/english", "A picture, number 0.", "eng"),
        ("made_up_0/native", "Gambar 0.", "ind"),
        ("made_up_1/english", "A picture, number 1.", "eng"),
        ("made_up_1/native", "ภาพ 1", "tha"),
        ("made_up_2/english", "A picture, number 2.", "eng"),
        ("made_up_2/native", None, "zho"),  # for the filter to count
        ("made_up_3/english", "A picture, number 3.", "eng"),  # the native one is the same
    ]
    assert {row["license"] for row in rows} == {"cc-by-sa-4.0"}
    assert colour(rows[0]) == colour(rows[1]) == RED


def test_the_countries_of_sea_vl_are_those_that_its_place_names() -> None:
    rows = read("sea_vl", CORPORA / "sea_vl", options={"captions": "english"})
    assert [(row["place"], row["country"]) for row in rows] == [
        ("Bandung, Indonesia", "IDN"),
        ("Thailand, Laos", "THA|LAO"),
        ("Chinatown", "Chinatown"),
        ("Selangor malaysia", "MYS"),
    ]


@pytest.mark.parametrize(
    ("place", "countries"),
    [
        ("Vietnam.", "VNM"),
        ("on a Singapore Airlines flight", "SGP"),
        ("BURMA / Thailand", "MMR|THA"),
        ("Singapore, Singapore", "SGP"),
        ("Korea, Republic of", "KOR"),
        ("Indonesia (Bali)", "IDN"),
        ("Vientiane Street, LA", "Vientiane Street, LA"),
        ("New Mexico", "New Mexico"),
        ("Nigeria", "NGA"),
        ("Papua New Guinea coast", "PNG"),
        ("Combodia", "Combodia"),
        ("a | b", "a   b"),
    ],
)
def test_a_place_names_whole_countries_or_stays_as_it_is(place: str, countries: str) -> None:
    assert corpora._countries(place) == countries


def test_the_captions_of_sea_vl_alone_have_countries_and_languages_too() -> None:
    rows = read("sea_vl", CORPORA / "sea_vl_captions", options={"captions": "native"})
    assert [(row["id"], row["country"], row["language"]) for row in rows] == [
        ("captions/1/native", "IDN", "ind"),
        ("captions/2/native", "MYS|SGP", "eng"),
        ("captions/3/native", "MMR", "mya"),  # of the place, where the culture is not said
    ]
    assert rows[0]["license"] is None
    assert rows[0]["image"] is None


@pytest.mark.parametrize(
    ("name", "language"),
    [
        ("Indonesian (ind)", "ind"),
        ("Filipino (Fil)", "fil"),
        ("Malay (zlm)", "zsm"),
        ("Myanmar (mm)", "mya"),
        ("Our way of speaking (jv)", "jav"),
        ("english", "eng"),
        ("Bataknese", "Bataknese"),
        (None, None),
    ],
)
def test_a_language_may_have_its_code_in_brackets_and_stays_as_it_is_where_it_is_not_known(
    name: str | None, language: str | None
) -> None:
    assert corpora._language(name) == language


def test_a_rating_of_sea_vl_is_a_reward_where_columns_say_so() -> None:
    rows = read("sea_vl", CORPORA / "sea_vl", columns={"reward": "avg_cultural_relevance"})
    assert [row["reward"] for row in rows] == [1, 1, 2, 2, 3, 3, 4]


def test_the_crawled_part_of_sea_vl_is_read_by_the_names_that_columns_give() -> None:
    rows = read("sea_vl", CORPORA / "sea_vl_crawled", options={"crawled": True}, columns={"text": "made_up_text"})
    assert [(row["text"], row["country"], row["license"]) for row in rows] == [
        ("Found 0.", None, None),
        ("Found 1.", None, None),
    ]
    with pytest.raises(InputError, match=r"no column 'text'; the file has: image, made_up_text, made_up_number"):
        read("sea_vl", CORPORA / "sea_vl_crawled", options={"crawled": True})


def test_a_table_that_is_not_sea_vl_says_what_it_has() -> None:
    with pytest.raises(InputError, match=r"no column 'id'") as caught:
        read("sea_vl", CORPORA / "flickr30k")
    assert "sentids" in str(caught.value.hint)


# ------------------------------------------------------------------------------------------------------- CulturalGround
def test_culturalground_asks_in_the_language_of_a_country_about_pictures_in_its_archive() -> None:
    rows = read("culturalground", CORPORA / "culturalground")
    told = {(row["id"], row["country"]): row for row in rows}
    assert len(told) == len(rows) == 8
    first = told["Q0_P0", "IDN"]
    assert said(first) == ["<image>Apa nomor 0 ini?", "Ini benda 0."]
    assert (first["label"], first["language"], first["license"]) == ("benda 0", "ind", "apache-2.0")
    assert colour(first) == RED
    assert colour(told["Q0_P0", "KOR"]) == WHITE  # another country's picture of the same name
    assert colour(told["Q6_P6", "KOR"]) == BLACK
    assert all(row["answer"] == (row["messages"][-1]["content"] if row["messages"] else None) for row in rows)
    assert told["Q6_P6", "KOR"]["language"] == "heb"


@pytest.mark.parametrize(
    ("reader", "folder", "text"),
    [
        ("culturalground", "culturalground", "Ini benda 0."),
        ("culturalground", "culturalground_list", None),
        ("worldcuisines_train", "worldcuisines", None),
    ],
)
def test_an_answer_can_be_the_caption_for_models_that_match_texts(reader: str, folder: str, text: str | None) -> None:
    rows = read(reader, CORPORA / folder, columns={"text": "answer"})
    assert all(row["text"] == (row["messages"][-1]["content"] if row["messages"] else None) for row in rows)
    assert any(row["text"] for row in rows)
    assert text is None or text in [row["text"] for row in rows]


def test_none_and_stray_quotes_of_culturalground_are_no_text() -> None:
    told = {row["id"]: row for row in read("culturalground", CORPORA / "culturalground", where={"country": ("IDN",)})}
    assert said(told["Q0_None"]) == ["<image>What is number 0?", "Thing 0."]  # what was not reformulated
    assert said(told["Q1_P1"]) == ["<image>Apa ini?", 'Benda "satu" ini']
    assert told["Q1_P1"]["label"] is None
    assert (told["Q2_P2"]["messages"], told["Q2_P2"]["language"]) == (None, None)
    assert (told["Q5_P5"]["image"], told["Q5_P5"]["media"]) == (None, "none")
    assert (told["Q4_P4"]["image"]["bytes"], told["Q4_P4"]["media"]) == (None, "missing")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ('"What is it?"', "What is it?"),
        ('  "What is it? ', "What is it?"),
        ('What is it?"', "What is it?"),
        ('"Batik" and "ikat"', '"Batik" and "ikat"'),
        ('"They call it "batik" here"', 'They call it "batik" here'),
        ('a disc of 5"', 'a disc of 5"'),
        ('"None"', None),
        ("None", None),
        ('""', None),
        ('"', None),
        ("Nonesuch", "Nonesuch"),
        (7, "7"),
        (["no text"], None),
        (None, None),
    ],
)
def test_quotes_around_a_text_are_taken_off_and_those_in_it_stay(written: Any, meant: str | None) -> None:
    assert corpora._present(written) == meant


@given(st.text(alphabet='"ab1 (\n'))
def test_taking_quotes_off_adds_and_loses_nothing_else(text: str) -> None:
    assert (corpora._present(text) or "").replace('"', "").split() == text.replace('"', "").split()


def test_multiple_choice_questions_of_culturalground_come_by_option_only() -> None:
    asked = {
        questions: [row["id"] for row in read("culturalground", CORPORA / "culturalground", options=options)]
        for questions in ("open", "choice", "both")
        for options in [{"questions": questions, "countries": "indonesia"}]
    }
    assert asked["choice"] == ["Q3_P3"]
    assert sorted(asked["both"]) == sorted(asked["open"] + asked["choice"])


def test_countries_choose_the_files_and_archives_that_are_read(tmp_path: Path) -> None:
    folder = shutil.copytree(CORPORA / "culturalground", tmp_path / "copy")
    (folder / "CultureGroundImages" / "indonesia.tar.gz").write_bytes(b"never looked at")
    rows = read("culturalground", folder, options={"countries": "south_korea|thailand"})
    assert {row["country"] for row in rows} == {"KOR"}
    with pytest.raises(InputError, match="no file of singapore") as caught:
        read("culturalground", folder, options={"countries": "singapore"})
    assert caught.value.hint == "there are: indonesia, south_korea"


def test_the_list_of_culturalground_tells_the_country_by_the_folders_of_pictures() -> None:
    rows = {row["id"]: row for row in read("culturalground", CORPORA / "culturalground_list")}
    assert {name: row["country"] for name, row in rows.items()} == {
        "Q0_None": "THA",
        "Q1_None": "VNM",
        "Q2_None": None,
        "Q3_None": "THA",
    }
    assert said(rows["Q0_None"]) == ["<image>What is number 0?", "The thing 0."]
    assert (colour(rows["Q0_None"]), colour(rows["Q1_None"])) == (RED, GREEN)
    assert rows["Q2_None"]["media"] == "missing"


def test_a_picture_that_lies_unpacked_is_a_reference_below_the_folder() -> None:
    rows = read("culturalground", CORPORA / "culturalground_list", where={"id": ("Q3_None",)})
    assert rows[0]["image"] == {"bytes": None, "path": "CultureGroundImages/thailand/3.png"}
    assert (CORPORA / "culturalground_list" / rows[0]["image"]["path"]).is_file()


def test_an_archive_with_a_name_that_leads_out_of_it_is_refused() -> None:
    with pytest.raises(InputError, match=r"malaysia\.tar\.gz.*\.\./evil\.png"):
        read("culturalground", CORPORA / "culturalground_evil")


# ----------------------------------------------------------------------------------------------------------- MAmmoTH-VL
def test_mammoth_vl_tells_what_each_row_is_about() -> None:
    rows = {row["id"]: row for row in read("mammoth_vl", CORPORA / "mammoth_vl")}
    assert {name: row["media"] for name, row in rows.items()} == {
        "made-up-0": "picture",
        "1": "picture",
        "made-up-2": "none",
        "made-up-3": "video",
        "made-up-4": "pictures",
        "made-up-5": "missing",
        "made-up-6": "picture",
    }
    assert said(rows["made-up-0"]) == ["<image>Question 0?", "Answer 0."]
    assert said(rows["1"]) == ["<image>Question 1?", "Answer 1."]  # the mark was not there
    assert said(rows["made-up-2"]) == ["Question 2?", "Answer 2."]
    assert (colour(rows["made-up-0"]), colour(rows["1"])) == (RED, GREEN)  # two pictures of one name
    assert colour(rows["made-up-6"]) == RED
    assert [rows[name]["image"] for name in ("made-up-2", "made-up-3", "made-up-4")] == [None, None, None]
    assert {row["language"] for row in rows.values()} == {"eng"}


def test_rows_of_mammoth_vl_are_trained_on_where_they_have_a_picture() -> None:
    rows = read("mammoth_vl", CORPORA / "mammoth_vl", where={"media": ("picture",)}, options={"shards": "*_1"})
    assert [row["id"] for row in rows] == ["1"]
    with pytest.raises(InputError, match="no archive is called shard_9") as caught:
        read("mammoth_vl", CORPORA / "mammoth_vl", options={"shards": "shard_9"})
    assert caught.value.hint == "there are: shard_1, shard_2"


def test_mammoth_vl_without_pictures_reads_no_archive(tmp_path: Path) -> None:
    folder = shutil.copytree(CORPORA / "mammoth_vl", tmp_path / "copy")
    for shard in folder.rglob("*.tar.gz"):
        shard.write_bytes(b"never looked at")
    rows = read("mammoth_vl", folder, pictures=False)
    assert [row["id"] for row in rows][:3] == ["made-up-0", "1", "made-up-2"]
    assert rows[0]["image"] == {"bytes": None, "path": "coco/0.png"}


def test_a_conversation_may_be_the_text_of_a_list_and_one_that_is_cut_off_is_none() -> None:
    rows = read("mammoth_vl", CORPORA / "mammoth_vl_parquet")
    assert rows[0]["messages"] is None
    assert said(rows[1]) == ["<image>Question 1?", "Answer 1."]
    assert colour(rows[1]) == GREEN


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        ([("human", "Look:\n<image>"), ("gpt", "Yes.")], ["Look:<image>", "Yes."]),
        ([("human", "Is <image> red?"), ("gpt", " Yes. ")], ["Is <image> red?", "Yes."]),
        ([("system", "Be kind."), ("human", "Red?"), ("gpt", "Yes.")], ["Be kind.", "<image>Red?", "Yes."]),
        (
            [("human", "Red?"), ("gpt", "Yes."), ("human", "<image>\nSure?"), ("gpt", "Yes.")],
            ["Red?", "Yes.", "<image>Sure?", "Yes."],
        ),
    ],
)
def test_the_mark_of_the_picture_stays_where_it_is_or_begins_the_first_question(
    tmp_path: Path, turns: list[tuple[str, str]], expected: list[str]
) -> None:
    turned = [{"from": role, "value": text} for role, text in turns]
    path = write(tmp_path / "rows.jsonl", {"id": 0, "image": "0.png", "conversations": turned})
    assert said(read("mammoth_vl", path)[0]) == expected


@pytest.mark.parametrize(
    "conversation", [None, 7, [], [7], "[" * 99_999, [{"from": "bot", "value": "?"}], [{"from": "gpt", "value": 1}]]
)
def test_what_is_no_conversation_is_a_row_without_one(tmp_path: Path, conversation: Any) -> None:
    path = write(tmp_path / "rows.json", {"id": 0, "conversations": conversation}, ["no object"])
    assert [row["messages"] for row in read("mammoth_vl", path)] == [None, None]


def test_halves_of_characters_and_controls_are_no_trouble(tmp_path: Path) -> None:
    turned = [{"from": "human", "value": "\ud800What\x00?"}, {"from": "gpt", "value": "\x1bThat\udfff."}]
    row = {"id": "a\ud800", "image": "\udc00.png", "language": "\ud800", "conversations": turned}
    pack(tmp_path / "pictures.tar.gz", {"0.png": b"0"})
    for reader in ("mammoth_vl", "culturalground"):
        found = read(reader, write(tmp_path / "rows.json", row))
        assert said(found[0]) == ["<image>\ufffdWhat?", "That\ufffd."]
        assert found[0]["image"]["path"] == "\ufffd.png"


ODD = [
    None, 7, True, "", "\x00", "\ud800", [], {}, [None], [["a"]], {"bytes": "x", "path": 7}, {"bytes": 7, "path": "a"},
    "../x", "/etc/passwd", "x" * 100_000, 10**4000, [{"from": "human", "value": "?"}] * 20_000,
    [{"role": "user", "content": [{"type": "image"}]}, {"from": "gpt", "value": "a"}],
]  # fmt: skip
TURNS = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "That."}]
RECORDS: dict[str, dict[str, Any]] = {
    "mammoth_vl": {"id": 1, "conversations": TURNS, "image": "x.png", "source": "a"},
    "culturalground": {"id": 1, "language": "id", "original_question": "q", "original_answer": "a", "media": "x.png"},
    "worldcuisines_train": {
        "qa_id": 1, "lang": "id", "prompt_type": "1", "image_url": "u", "open_ended_prompt": "q", "answer": "a",
    },
}  # fmt: skip


@pytest.mark.parametrize("reader", RECORDS)
def test_a_value_of_any_kind_in_any_field_is_a_row_like_others(tmp_path: Path, reader: str) -> None:
    whole = RECORDS[reader]
    odd = [whole | {field: value} for field in whole for value in ODD]
    (tmp_path / "rows.jsonl").write_text(
        "\ufeff" + "\n".join(map(json.dumps, [whole, *odd])) + "\n{cut\n\x00\n[]\n", encoding="utf-8"
    )
    rows = read(reader, tmp_path)
    assert len(rows) == 1 + len(odd) + 3
    assert {kind for row in rows for kind in map(type, (row["country"], row["language"]))} <= {str, type(None)}


def test_a_picture_that_is_none_is_not_called_one(tmp_path: Path) -> None:
    given = [{"bytes": "x"}, {"bytes": 7, "path": "a.png"}, {"path": ["a.png"]}, ["a.png"], [], 7]
    path = write(tmp_path / "rows.jsonl", *({"id": 0, "conversations": TURNS, "image": image} for image in given))
    rows = read("mammoth_vl", path)
    assert [row["media"] for row in rows] == ["none", "picture", "none", "picture", "none", "none"]
    assert [row["image"] and row["image"]["path"] for row in rows] == [None, "a.png", None, "a.png", None, None]


@pytest.mark.parametrize(
    ("question", "kind"),
    [("Which is it? A. gong B. drum", "choice"), ("(A) gong\n(B) drum", "choice"), ("A. gong", "open")],
)
def test_a_question_of_culturalground_with_options_in_letters_is_one_of_choice(
    tmp_path: Path, question: str, kind: str
) -> None:
    write(tmp_path / "rows.jsonl", RECORDS["culturalground"] | {"original_question": question})
    assert read("culturalground", tmp_path, options={"questions": "both"})[0]["kind"] == kind


def test_a_question_that_is_all_but_options_takes_no_time() -> None:
    assert corpora._cultural(None, None, None, "A. " * 300_000)["kind"] == "open"


# ------------------------------------------------------------------------------------------------- pictures in archives
names_of_files = st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map("/".join)


@settings(max_examples=30)
@given(
    st.sets(names_of_files, min_size=1, max_size=8), st.sampled_from(["", "front/", "front/more/"]), st.integers(1, 2)
)
def test_no_row_ever_gets_the_picture_of_another(
    tmp_path_factory: pytest.TempPathFactory, names: set[str], front: str, count: int
) -> None:
    """Archives hold the very paths of rows, with or without folders in front of them."""
    folder = tmp_path_factory.mktemp("shards")
    for number in range(count):
        here = sorted(names)[number::count]
        pack(folder / f"shard_{number}.tar.gz", {front + name: name.encode() for name in here})
    write(folder / "rows.json", *({"id": name, "image": name, "conversations": TURNS} for name in names))
    rows = read("mammoth_vl", folder)
    assert Counter(row["id"] for row in rows) == Counter(names)
    for row in rows:
        others = names - {row["id"]}
        alone = not any(
            f"/{a}".endswith(f"/{b}") for other in others for a, b in [(other, row["id"]), (row["id"], other)]
        )
        sure = alone and ("/" in row["id"] or not front)  # the bare name of a file is that of many
        assert row["image"]["bytes"] in ([row["id"].encode()] if sure else [None, row["id"].encode()])


@pytest.mark.parametrize(
    ("path", "members", "picture"),
    [
        ("0.png", {"a/0.png": b"another"}, None),
        ("coco/0.png", {"0.png": b"another", "vg/0.png": b"another", "ococo/0.png": b"another"}, None),
        ("coco/0.png", {"front/coco/0.png": b"it"}, b"it"),
        ("coco/0.png", {"a/coco/0.png": b"one", "b/coco/0.png": b"another"}, None),
        ("coco/0.png", {"a/coco/0.png": b"it", "b/coco/0.png": b"it"}, b"it"),  # a copy
        ("coco/0.png", {"old/coco/0.png": b"another", "coco/0.png": b"it"}, b"it"),
        ("coco/0.png", {"coco/0.png": b"one", "./coco//0.png": b"another"}, None),
        ("all/shard/0.png", {"0.png": b"it"}, b"it"),
        ("all/shard/0.png", {"shard/0.png": b"it"}, b"it"),
        ("all/coco/0.png", {"coco/0.png": b"perhaps"}, None),
        ("coco\\pho\u031b\u0309.png", {"coco/ph\u1edf.png": b"it"}, b"it"),  # of Windows, of a Mac
        ("../0.png", {"0.png": b"another", "a/0.png": b"another"}, None),
        ("/coco/../0.png", {"coco/0.png": b"another"}, None),
        ("coco/\x000.png", {"coco/0.png": b"it"}, b"it"),
        ("0/" * 3000 + "0.png", {"0/0.png": b"another"}, None),
    ],
)
def test_a_picture_is_that_of_its_path_or_there_is_none(
    tmp_path: Path, path: str, members: dict[str, bytes], picture: bytes | None
) -> None:
    write(tmp_path / "rows.json", {"id": 0, "image": path, "conversations": TURNS})
    pack(tmp_path / "shard.tar.gz", members)
    (row,) = read("mammoth_vl", tmp_path)
    assert (row["image"]["bytes"], row["media"]) == (picture, "picture" if picture else "missing")


def test_archives_that_have_different_pictures_of_one_path_give_none(tmp_path: Path) -> None:
    write(tmp_path / "rows.json", *({"id": i, "image": f"coco/{i}.png", "conversations": TURNS} for i in range(2)))
    pack(tmp_path / "shard_1.tar.gz", {"coco/0.png": b"one", "coco/1.png": b"same"})
    pack(tmp_path / "shard_2.tar.gz", {"coco/0.png": b"another", "coco/1.png": b"same"})
    assert {row["id"]: row["image"]["bytes"] for row in read("mammoth_vl", tmp_path)} == {"0": None, "1": b"same"}


def test_two_paths_that_a_member_fits_equally_well_both_go_without(tmp_path: Path) -> None:
    paths = ("one/pictures/0.png", "two/pictures/0.png", "two/pictures/1.png")
    write(tmp_path / "rows.json", *({"id": name, "image": name, "conversations": TURNS} for name in paths))
    pack(tmp_path / "pictures.tar.gz", {"0.png": b"whose?"})
    pack(tmp_path / "shard.tar.gz", {"pictures/1.png": b"whose?"})
    assert {row["id"]: row["image"]["bytes"] for row in read("mammoth_vl", tmp_path)} == {
        "one/pictures/0.png": None,
        "two/pictures/0.png": None,
        "two/pictures/1.png": None,  # nor is it sure whose this is
    }


def test_the_name_of_a_file_alone_makes_no_picture_but_the_archive_may_be_a_folder(tmp_path: Path) -> None:
    paths = ("one/0.png", "all/two/1.png")
    write(tmp_path / "rows.json", *({"id": name, "image": name, "conversations": TURNS} for name in paths))
    pack(tmp_path / "two.tar.gz", {"0.png": b"of another", "1.png": b"all/two's"})
    found = {row["id"]: row["image"]["bytes"] for row in read("mammoth_vl", tmp_path)}
    assert found == {"one/0.png": None, "all/two/1.png": b"all/two's"}


def test_an_unpacked_picture_is_found_where_its_archive_would_have_been(tmp_path: Path) -> None:
    write(tmp_path / "rows.json", {"id": 0, "image": "coco/0.png", "conversations": TURNS})
    picture = tmp_path / "single_image_data" / "coco" / "0.png"
    picture.parent.mkdir(parents=True)
    picture.write_bytes(b"0")
    image = read("mammoth_vl", tmp_path)[0]["image"]
    assert images.fetch(image, readers.root(tmp_path)) == b"0"


def test_archives_of_pictures_that_all_lie_unpacked_are_not_read(tmp_path: Path) -> None:
    write(tmp_path / "rows.json", {"id": 0, "image": "coco/0.png", "conversations": TURNS})
    (tmp_path / "coco").mkdir()
    (tmp_path / "coco" / "0.png").write_bytes(b"0")
    (tmp_path / "coco.tar.gz").write_bytes(b"never looked at")
    assert read("mammoth_vl", tmp_path)[0]["image"]["path"] == "coco/0.png"


def test_a_disk_that_is_full_is_named(tmp_path: Path) -> None:
    noise = "".join(chr(0x4E00 + i * 7919 % 20000) for i in range(3000))
    turned = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": noise}]
    write(tmp_path / "rows.json", *({"id": i, "image": f"{i}.png", "conversations": turned} for i in range(1200)))
    pack(tmp_path / "shard.tar.gz", {"0.png": b"0"})
    before, ignored = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
        with pytest.raises(InputError) as caught:
            read("mammoth_vl", tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert "TMPDIR" in str(caught.value.hint)


# ------------------------------------------------------------------------------------------------------------- captions
def test_xm3600_for_training_gives_a_row_for_every_caption() -> None:
    rows = read("xm3600_captions", BENCHMARKS / "xm3600", where={"language": ("tha",)})
    assert [(row["id"][-6:], row["text"], row["country"]) for row in rows[:3]] == [
        ("0/th/0", "th: a red square", "IDN"),
        ("0/th/1", "th: red | all over", "IDN"),
        ("1/th/0", "th: a green square", "THA"),
    ]
    assert len({row["id"] for row in rows}) == len(rows) == 8
    assert [row["country"] for row in rows if row["locale"] == "en"] == [None, None]
    assert colour(rows[0]) == RED


def test_flickr30k_keeps_the_rows_of_its_own_split() -> None:
    rows = read("flickr30k", CORPORA / "flickr30k", options={"split": "train"})
    assert [(row["id"], row["text"]) for row in rows] == [
        ("0/0", "Picture 0, caption 0."),
        ("0/1", "Picture 0, caption 1."),
        ("2/0", None),  # a picture without captions is counted
    ]
    assert {(row["license"], row["country"]) for row in rows} == {("other", None)}
    assert len(read("flickr30k", CORPORA / "flickr30k")) == 5


def test_a_copy_of_flickr30k_without_its_split_says_so(tmp_path: Path) -> None:
    table = pq.read_table(CORPORA / "flickr30k" / "data" / "test-00000-of-00001.parquet").drop_columns("split")
    table = table.set_column(1, "caption", pa.array(['["One.", "Two."]', "[cut off", None]))
    pq.write_table(table, tmp_path / "test.parquet")
    assert [row["text"] for row in read("flickr30k", tmp_path)] == ["One.", "Two.", None, None]
    with pytest.raises(InputError, match="no column 'split'"):
        read("flickr30k", tmp_path, options={"split": "train"})


# ------------------------------------------------------------------------------------------- questions of benchmarks
def test_worldcuisines_for_training_answers_with_the_name_and_knows_countries_and_pictures() -> None:
    options = {"kb": str(BENCHMARKS / "worldcuisines_kb"), "task": 1}
    rows = read("worldcuisines_train", CORPORA / "worldcuisines", options=options)
    assert [row["id"] for row in rows] == ["10/en", "11/en", "10/id_formal", "11/id_formal"]
    assert said(rows[2]) == ["<image>(id_formal) What is it?\n\nPrint only the answer.", "sop biru"]
    assert [(row["country"], row["language"], row["kind"]) for row in rows[1:3]] == [
        ("THA|LAO", "eng", "dish"),
        ("IDN", "ind", "dish"),
    ]
    assert (colour(rows[0]), colour(rows[1])) == (RED, GREEN)
    assert rows[1]["messages"] is None  # it has no answer


def test_worldcuisines_for_training_asks_multiple_choice_by_option_only() -> None:
    rows = read("worldcuisines_train", CORPORA / "worldcuisines", options={"questions": "choice", "task": 2})
    assert [row["kind"] for row in rows] == ["country"] * 4
    assert said(rows[0]) == ["<image>(en) What is it?\n1. blue soup\n2. bread\n\nPrint one id.", "1"]
    assert rows[0]["image"] == {"bytes": None, "path": "https://pictures.invalid/11.jpg?download"}


def test_test_questions_of_worldcuisines_are_never_trained_on() -> None:
    with pytest.raises(InputError, match="no training file of WorldCuisines"):
        read("worldcuisines_train", BENCHMARKS / "worldcuisines")


def culture(**fields: Any) -> dict[str, Any]:
    return {
        "id": "0",
        "image": "0.png",
        "concept": "Angklung",
        "category": "Music and Dance",
        "country": "Indonesia",
        "continent": "Asia",
        "question_type": "image_recognition",
        "question": "What is it?",
        "options": ["gong", "angklung"],
        "answer": "B",
        "split": "train",
    } | fields


@pytest.mark.parametrize(
    ("fields", "target"),
    [
        ({"explanation": "Of bamboo, not, as (A), of bronze. (B)"}, "Of bamboo, not, as (A), of bronze. (B)"),
        ({"explanation": "It is of bamboo: (B)."}, "It is of bamboo: (B)."),
        ({"explanation": "It is of bamboo."}, "It is of bamboo.\n(B)"),
        ({"explanation": "Not (A) but (B), since it is of bamboo."}, "Not (A) but (B), since it is of bamboo.\n(B)"),
        ({}, "(B)"),
        ({"explanation": "It is of bronze. (A)"}, None),
        ({"answer": None, "explanation": "Who knows?"}, None),
        ({"options": "cut off"}, None),
        ({"split": None}, None),
        ({"country": ["no", "text"], "question": None}, None),
    ],
)  # fmt: skip
def test_a_question_of_cultureverse_is_answered_with_reasons_that_end_in_the_right_letter(
    tmp_path: Path, fields: dict[str, Any], target: str | None
) -> None:
    path = write(tmp_path / "questions.jsonl", culture(**fields))
    for split in ("given", "image"):
        rows = read("cultureverse_train", path, options={"split": split})
        if split == "given" or rows:  # by image the first picture is for the test
            assert [row["messages"] and said(row)[1] for row in rows] == [target]


def test_cultureverse_trains_on_what_its_benchmark_does_not_test() -> None:
    for split in ("given", "image", "concept"):
        options = {"split": split}
        tested = read("cultureverse", BENCHMARKS / "cultureverse", options=options, where={"split": ("test",)})
        trained = read("cultureverse_train", BENCHMARKS / "cultureverse", options=options)
        assert len(tested) + len(trained) == 30
        assert not {row["id"] for row in tested} & {row["id"] for row in trained}
        asked = {row["id"]: row["question"] for row in read("cultureverse", BENCHMARKS / "cultureverse")}
        assert all(said(row)[0] == "<image>" + asked[row["id"]] for row in trained)


# -------------------------------------------------------------------------------------------------------------- the Hub
def test_options_choose_what_is_fetched_from_the_hub(data_hub: HubServer) -> None:
    files = {
        str(path.relative_to(CORPORA / "culturalground")): path.read_bytes()
        for path in (CORPORA / "culturalground").rglob("*.*")
    }
    data_hub.add("made-up/ground", files | {"CulturalGround-OE-Filtered-14M.json": b"[]"}, "datasets")
    source = HubSource(reader="culturalground", id="made-up/ground", options={"countries": "south_korea"})
    folder = readers.place(source)
    assert sorted(path.name for path in folder.rglob("*.*")) == ["south_korea.tar.gz", "south_korea_refined.jsonl"]
    rows = [row for batch in readers.read(source) for row in batch.to_pylist()]
    assert [colour(row) for row in rows] == [WHITE, BLACK]


def test_every_corpus_says_what_is_fetched_of_it() -> None:
    assert corpora.PATTERNS.keys() == corpora.READERS.keys()


# ----------------------------------------------------------------------------------------------------------- real data
def test_the_real_captions_of_sea_vl(shared: Path) -> None:
    path = shared / "data" / "sea_vl" / "captions.csv"
    english, native = (read("sea_vl", path, options={"captions": way}) for way in ("english", "native"))
    assert len(english) == len(native) == 3000
    assert all(row["text"] for row in english + native)
    assert Counter(row["language"] for row in native if len(row["language"]) != 3) == {"Bataknese": 1}
    assert Counter(row["language"] for row in native).most_common(4) == [
        ("ind", 1313), ("eng", 553), ("fil", 273), ("tha", 219),
    ]  # fmt: skip
    several = [row["country"].split("|") for row in english]
    assert Counter(country for row in several for country in row).keys() == {
        "BRN", "IDN", "KHM", "LAO", "MMR", "MYS", "PHL", "SGP", "THA", "TLS", "VNM",
    }  # fmt: skip
    assert sum(len(row) > 1 for row in several) == 91
    assert len(read("sea_vl", path)) == 6000 - 565  # of which both captions are the same
