"""Filtering: what is kept, what is dropped and counted, and what is refused."""

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ggez_hub import metadata, run
from ggez_hub.data import examples
from ggez_hub.errors import InputError
from ggez_hub.recipes import load_recipe
from ggez_hub.registry import parse_overrides
from ggez_hub.runs import file_hash, read_json
from ggez_hub.stages import train
from tests.endpoint_server import EndpointServer, text_of


def png(colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), colour).save(buffer, "PNG")
    return buffer.getvalue()


def row(text: str | None = "a temple", country: str | None = "Thailand", image: bytes | None = None) -> dict[str, Any]:
    return {"image": {"bytes": image or png("red"), "path": None}, "text": text, "country": country}


def filtered(project: Path, rows: list[dict[str, Any]], *overrides: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Runs the stage on a corpus; returns the kept rows and the report."""
    pq.write_table(pa.Table.from_pylist(rows), project / "corpus.parquet")
    data = ["data={reader: parquet, path: corpus.parquet}", "filter.contamination=keep"]
    folder = run("tiny", "runs", parse_overrides([*data, *overrides]), until="filter").stage("filter")
    return pq.read_table(folder / "examples.parquet").to_pylist(), read_json(folder / "report.json")


def decisions(project: Path) -> list[dict[str, Any]]:
    return pq.read_table(project / "runs" / "tiny" / "filter" / "decisions.parquet").to_pylist()


def test_rows_of_the_region_are_kept_in_any_spelling(project: Path) -> None:
    rows = [row(country=c) for c in ("Thailand", "VNM", "Burma", "East Timor", "France", "Atlantis", None)]
    kept, report = filtered(project, rows)
    assert [r["country"] for r in kept] == ["THA", "VNM", "MMR", "TLS"]
    assert (report["rows"], report["kept"], report["dropped"]["region"]) == (7, 4, 3)
    assert report["countries"]["after"] == {"THA": 1, "VNM": 1, "MMR": 1, "TLS": 1}
    assert report["unknown_countries"] == ["Atlantis", "None"]


def test_every_row_is_accounted_for(project: Path) -> None:
    rows = [row() for _ in range(20)] + [
        row(country="France"),
        row(text="  "),
        row(text=None),
        row(image=b"no picture"),
    ]
    _, report = filtered(project, rows)
    assert report["dropped"] == {"region": 1, "text": 2, "broken picture": 1}
    assert report["rows"] == report["kept"] + sum(report["dropped"].values())
    assert "cannot be decoded" in report["broken"][0]


def test_too_many_broken_pictures_are_an_error(project: Path) -> None:
    rows = [row(), row(), row(image=png("red")[:40])]
    with pytest.raises(InputError, match=r"1 of 3 pictures are broken.*cannot be decoded"):
        filtered(project, rows)
    assert not (project / "runs" / "tiny" / "filter").exists()
    assert len(filtered(project, rows, "filter.max_broken=0.5")[0]) == 2


def test_nothing_left_says_what_dropped_it(project: Path) -> None:
    with pytest.raises(InputError, match="no row is left of 2; dropped by region: 2") as caught:
        filtered(project, [row(country="France"), row(country="Peru")])
    assert "FRA, PER" in (caught.value.hint or "")
    assert not (project / "runs" / "tiny" / "filter").exists()


@pytest.mark.parametrize("rule", ["max_hash_distance=4", "reward={model: stand-in}"])
def test_nothing_left_is_told_the_same_where_rows_were_to_be_compared(project: Path, rule: str) -> None:
    with pytest.raises(InputError, match="no row is left of 1; dropped by region: 1"):
        filtered(project, [row(country="France")], f"filter.{rule}", "filter.min_reward=1")


def test_data_of_text_alone_are_told_as_such(project: Path, shared: Path) -> None:
    captions = shared / "data" / "sea_vl" / "captions.csv"
    with pytest.raises(InputError, match=r"5435 of 5435 pictures are broken.*no picture in the row") as caught:
        filtered(project, [row()], f"data={{reader: sea_vl, path: {captions}}}")
    assert "filter_region" in (caught.value.hint or "")
    with pytest.raises(InputError, match=r"no row is left of 5435; dropped by broken picture: 5435") as caught:
        filtered(project, [row()], f"data={{reader: sea_vl, path: {captions}}}", "filter.max_broken=1")
    assert "region" not in (caught.value.hint or "").partition("report.json")[0].replace("filter_region", "")


def test_why_a_row_was_dropped_is_not_what_spoke_for_it_before(project: Path) -> None:
    filtered(project, [row(text=None), row(), row()], "data={reader: parquet, path: corpus.parquet, cap: 1}")
    assert sorted((each["rule"] or "", each["why"]) for each in decisions(project)) == [
        ("", "country THA"),
        ("mix", None),
        ("text", None),
    ]


def test_what_was_examined_is_not_examined_again_for_another_mix(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row(), row(), row(image=b"no picture")]
    with pytest.raises(InputError, match="1 of 3 pictures are broken"):
        filtered(project, rows)
    capsys.readouterr()
    cap = "data={reader: parquet, path: corpus.parquet, cap: 1}"
    kept, _ = filtered(project, rows, cap, "filter.max_broken=0.5", "seed=3")
    assert len(kept) == 1
    assert "filter: 3" in (said := capsys.readouterr().err)
    assert "filter: 0" not in said


def test_reward_threshold_drops_low_and_unscored_rows(project: Path) -> None:
    rows = [row() | {"reward": reward} for reward in (2.9, 3.0, 4.5, None)]
    kept, report = filtered(project, rows, "filter.min_reward=3")
    assert [r["reward"] for r in kept] == [3.0, 4.5]
    assert report["dropped"]["reward"] == 2


def test_missing_column_is_named_with_the_mend(project: Path) -> None:
    rows = [{"picture": r["image"], "text": r["text"], "country": r["country"]} for r in [row()]]
    with pytest.raises(InputError, match=r"no column 'image'.*picture") as caught:
        filtered(project, rows)
    assert "data.columns.image" in (caught.value.hint or "")
    assert len(filtered(project, rows, "data.columns={image: picture}")[0]) == 1


def test_pictures_may_lie_beside_the_file(project: Path) -> None:
    (project / "pictures").mkdir()
    (project / "pictures" / "a.png").write_bytes(png("blue"))
    rows = [row() | {"image": {"bytes": None, "path": path}} for path in ("pictures/a.png", "../../etc/passwd")]
    kept, report = filtered(project, rows, "filter.max_broken=0.5")
    assert [r["image"]["bytes"] for r in kept] == [png("blue")]
    assert "no such picture" in report["broken"][0]


def test_pictures_of_a_folder_of_files_lie_in_it(project: Path) -> None:
    (project / "corpus" / "pictures").mkdir(parents=True)
    (project / "corpus" / "pictures" / "a.png").write_bytes(png("blue"))
    rows = [row() | {"image": {"bytes": None, "path": "pictures/a.png"}}]
    pq.write_table(pa.Table.from_pylist(rows), project / "corpus" / "part.parquet")
    kept, _ = filtered(project, rows, "data={reader: parquet, path: corpus}")
    assert [r["image"]["bytes"] for r in kept] == [png("blue")]


def said(*turns: str) -> list[dict[str, str]]:
    """A conversation in which user and assistant take turns."""
    return [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(turns)]


def test_broken_conversations_are_dropped_and_counted(project: Path) -> None:
    whole = said("<image>What is this?", "a temple")
    rows = [row() | {"messages": whole, "id": str(i)} for i in range(30)] + [
        row() | {"messages": said("<image>What is this?"), "id": "no answer"},
        row() | {"messages": said("<image>and <image>?", "a temple"), "id": "two marks"},
        row() | {"messages": None, "id": "caption alone"},
    ]
    kept, report = filtered(project, rows)
    assert [r["id"] for r in kept] == [*(str(i) for i in range(30)), "caption alone"]
    assert kept[0]["messages"] == whole
    assert report["dropped"] == {"region": 0, "text": 0, "broken conversation": 2, "broken picture": 0}
    assert report["rows"] == report["kept"] + sum(report["dropped"].values())
    assert report["broken"] == [
        "row no answer: its last message is not by the assistant",
        "row two marks: it has <image> more than once",
    ]


def test_too_many_broken_conversations_are_an_error(project: Path) -> None:
    rows = [row() | {"messages": turns} for turns in (said("Hello", "Hi"), said("Hello", "Hi"), said("Hello"))]
    with pytest.raises(InputError, match=r"1 of 3 conversations are broken.*not by the assistant") as caught:
        filtered(project, rows)
    assert "filter.max_broken" in (caught.value.hint or "")
    assert not (project / "runs" / "tiny" / "filter").exists()
    assert len(filtered(project, rows, "filter.max_broken=0.5")[0]) == 2


def test_a_conversation_stands_for_a_caption_but_not_for_a_picture(project: Path) -> None:
    rows = [
        row(text=None) | {"messages": said("What is this?", "a temple")},
        row(text=" ") | {"messages": said("What is this?", "a temple")},
        row(text=None) | {"messages": None},
        row() | {"messages": said("Hello", "Hi"), "image": None},
    ]
    kept, report = filtered(project, rows, "filter.max_broken=0.5")
    assert [r["text"] for r in kept] == [None, " "]
    assert report["dropped"] == {"region": 0, "text": 1, "broken picture": 1}
    assert "no picture" in report["broken"][0]


def test_omniglot_letters_of_the_region(project: Path, shared: Path) -> None:
    corpus = shared / "data" / "omniglot" / "train.parquet"
    run("tiny", "runs", parse_overrides([f"data={{reader: parquet, path: {corpus}}}"]), until="filter")
    report = read_json(project / "runs" / "tiny" / "filter" / "report.json")
    assert (report["rows"], report["kept"]) == (3630, 41 * 15)
    assert report["unknown_countries"] == ["Europe", "Korea", "Near East"]


def test_decisions_say_row_by_row_what_became_of_it_and_why(project: Path) -> None:
    rows = [
        row(country="France") | {"id": "a", "language": None},
        row() | {"id": "b", "language": "tha"},
        row(text="") | {"id": None},
        row(image=b"no picture") | {"id": "d"},
    ]
    _, report = filtered(project, rows, "filter.max_broken=0.5")
    found = decisions(project)
    assert [each["row"] for each in found] == [0, 1, 2, 3]
    assert [each["id"] for each in found] == ["a", "b", None, "d"]
    assert [each["rule"] for each in found] == ["region", None, "text", "broken picture"]
    assert [each["kept"] for each in found] == [False, True, False, False]
    assert found[0]["why"] == "country FRA"
    assert found[1]["why"] == "country THA", "what spoke for a row is said, too"
    assert "not a picture" in found[3]["why"]
    assert {rule: [each["row"] for each in shown] for rule, shown in report["samples"].items()} == {
        "region": [0],
        "text": [2],
        "broken picture": [3],
    }
    assert report["languages"] == {"before": {"None": 3, "tha": 1}, "after": {"tha": 1}}


SOURCES = """\
data={sources: {
  ours: {reader: parquet, path: corpus.parquet, license: mit, languages: [th]%s},
  theirs: {reader: parquet, path: other.parquet, license: cc-by-4.0, regional: false%s}}}"""


def two_sources(project: Path, *overrides: str, ours: str = "", theirs: str = "") -> Any:
    other = [row(f"text {i}", "France") | {"id": f"t{i}", "score": i} for i in range(12)]
    pq.write_table(pa.Table.from_pylist(other), project / "other.parquet")
    mine = [row(country=country) for country in ["Thailand"] * 4 + ["France"]]
    return filtered(project, mine, SOURCES.replace("\n", "") % (ours, theirs), *overrides)


def test_sources_are_mixed_and_told_apart(project: Path) -> None:
    kept, report = two_sources(project, ours=", share: 0.4", theirs=", share: 0.6")
    assert [each["source"] for each in kept] == ["ours"] * 4 + ["theirs"] * 6, "4 rows are 40% of 10"
    assert report["sources"]["ours"] == {
        "rows": 5, "kept": 4, "dropped": {"region": 1, "text": 0, "broken picture": 0, "mix": 0},
    }  # fmt: skip
    assert report["sources"]["theirs"]["dropped"]["mix"] == 6
    assert report["mix"] == {"ours": {"left": 4, "taken": 4}, "theirs": {"left": 12, "taken": 6}}
    assert [each["score"] for each in kept[:4]] == [None] * 4, "a further column of one source is empty in the other"
    again, _ = two_sources(project, ours=", share: 0.4", theirs=", share: 0.6")
    assert again == kept
    other, _ = two_sources(project, "seed=1", ours=", share: 0.4", theirs=", share: 0.6")
    assert [each["id"] for each in other] != [each["id"] for each in kept]


def test_a_share_of_a_source_of_which_nothing_is_left_is_an_error_beside_the_report(project: Path) -> None:
    with pytest.raises(InputError, match=r"source 'ours': no row of it is left.*share of 0\.4") as caught:
        two_sources(project, ours=", share: 0.4, where: {country: [FRA]}", theirs=", share: 0.6")
    report = read_json(project / "runs" / "tiny" / ".filter" / "report.json")
    assert "report.json" in (caught.value.hint or "")
    assert report["mix"]["ours"] == {"left": 0, "taken": 0}


def test_columns_that_differ_between_sources_are_named(project: Path) -> None:
    rows = [row() | {"score": "high"}]
    pq.write_table(pa.Table.from_pylist([row() | {"score": 1}]), project / "other.parquet")
    with pytest.raises(InputError, match="column 'score': string in some files, int64 in others"):
        filtered(project, rows, SOURCES.replace("\n", "") % ("", ""))


def test_a_license_that_a_row_does_not_state_is_that_of_its_source(project: Path) -> None:
    kept, report = two_sources(project, "filter.licenses=[mit]")
    assert {each["license"] for each in kept} == {"mit"}
    assert report["dropped"]["license"] == 12


def test_a_picture_comes_once_and_the_first_is_named(project: Path) -> None:
    stripes = Image.effect_noise((64, 64), 90).convert("RGB")
    buffer = io.BytesIO()
    stripes.save(buffer, "PNG")
    again = io.BytesIO()
    stripes.resize((96, 96)).save(again, "PNG")
    rows = [row(image=data) | {"id": name} for name, data in (("a", buffer.getvalue()), ("b", again.getvalue()))]
    kept, report = filtered(project, rows, "filter.max_hash_distance=6")
    assert [each["id"] for each in kept] == ["a"]
    assert report["dropped"]["duplicate"] == 1
    assert decisions(project)[1]["why"] == "picture of data, row a"
    assert len(filtered(project, rows)[0]) == 2


def test_a_picture_comes_as_often_as_something_else_is_said_of_it(project: Path) -> None:
    picture, other = (Image.effect_noise((64, 64), 90 + i).convert("RGB") for i in range(2))
    files = []
    for image in (picture, picture.resize((96, 96)), other):
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        files.append(buffer.getvalue())
    told = [
        ("a", 0, "rendang"),
        ("b", 0, "beef in coconut"),
        ("c", 0, "rendang"),
        ("d", 2, "rendang"),
        ("e", 1, "stew"),
    ]
    rows = [row(text, image=files[file]) | {"id": name} for name, file, text in told]
    kept, report = filtered(project, rows, "filter.max_hash_distance=6")
    assert [each["id"] for each in kept] == ["a", "b", "d"]
    assert report["dropped"]["duplicate"] == 2
    whys = [decisions(project)[place]["why"] for place in (2, 4)]
    assert whys == ["picture and text of data, row a", "picture of data, row a"]


def test_rewards_of_a_model_decide_and_rows_that_it_cannot_score_are_counted(project: Path) -> None:
    rows = [row(text) for text in ("a temple", "a long and rich description of a temple in the rain", "x")]
    kept, report = filtered(project, rows, "filter.reward={model: stand-in}", "filter.min_reward=2")
    assert all(each["reward"] >= 2 for each in kept)
    assert report["kept"] + sum(report["dropped"].values()) == 3
    assert report["unscored"] == report["dropped"]["unscored"] == 0


CONTAMINATED = ("data.options={train: 1, test: 1}", "data.where={category: [Food]}")


def test_rows_of_a_benchmark_are_refused_unless_told(project: Path, ggez: Callable[..., tuple[int, str, str]]) -> None:
    code, _, said = ggez("filter", "tiny", *CONTAMINATED)
    assert code == 2
    stands = r"\d+ of \d+ rows stand in a benchmark that measures the model, such as row .+: picture of tiny-"
    assert re.search(stands, said)
    hidden = project / "runs" / "tiny" / ".filter"
    assert str(hidden.relative_to(project) / "report.json") in said
    hits = read_json(hidden / "report.json")["dropped"]["contamination"]
    assert f"error: {hits} of " in said
    code, out, said = ggez("filter", "tiny", *CONTAMINATED, "filter.contamination=drop")
    assert code == 0, said
    assert f"contamination{-hits:,}" in out.replace(" ", "")
    assert "filter: 0" not in said, "rows are examined again though only what is done with them has changed"
    kept = pq.read_table(project / "runs" / "tiny" / "filter" / "examples.parquet", columns=["id"])["id"].to_pylist()
    assert not [name for name in kept if "/test/" in name]
    code, _, _ = ggez("filter", "tiny", *CONTAMINATED, "filter.contamination=keep")
    assert code == 0
    report = read_json(project / "runs" / "tiny" / "filter" / "report.json")
    assert (report["kept"], report["contamination"]["hits"]) == (len(kept) + hits, None)


def test_translated_rows_replace_their_originals(project: Path) -> None:
    with EndpointServer(lambda request: "ada di sini " + text_of(request).splitlines()[-1][:4]) as server:
        by = f"translators: {{server: {{id: tiny, endpoint: '{server.url}', license: mit}}}}, default: server"
        into = f"translate={{{by}, languages: [ind], check_language: false}}"
        rows = [row("the old temple by the river") | {"language": "en"}, row("วัดเก่า") | {"language": "th"}]
        translate = "data={reader: parquet, path: corpus.parquet, translate: true}"
        kept, report = filtered(project, rows, translate, into)
        asked = len(server.requests)
        assert kept[0]["text"].startswith("ada di sini")
        assert [each["language"] for each in kept] == ["ind", "th"]
        assert report["languages"] == {"before": {"en": 1, "th": 1}, "after": {"th": 1, "ind": 1}}
        assert report["translation"] == {"rows": 1, "into": {"ind": 1}, "problems": {}}
        assert [each["into"] for each in decisions(project)] == ["ind", None]
        filtered(project, rows, translate, into, "filter.min_text=2")
        assert len(server.requests) == asked, "what is translated is not translated again"


@pytest.mark.slow
def test_more_than_a_shard_is_a_folder_that_trains_the_same(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run("tiny", "whole", until="train")
    monkeypatch.setattr(examples, "SHARD", 2000)
    parts = run("tiny", "parts", until="train")
    shards = sorted((parts.stage("filter") / "examples.parquet").iterdir())
    assert len(shards) > 2
    assert shards[0].name == "part-00000.parquet"
    assert pq.read_table(parts.stage("filter") / "examples.parquet").equals(
        pq.read_table(whole.stage("filter") / "examples.parquet")
    )
    adapter = "adapter/adapter_model.safetensors"
    assert file_hash(parts.stage("train") / adapter) == file_hash(whole.stage("train") / adapter)


def test_training_depends_on_the_examples_alone(project: Path) -> None:
    made = []
    for change in ("data.title=One title", "data.title=Another title", "data.options.train=1"):
        recipe = load_recipe("tiny", parse_overrides(["filter.contamination=keep", change]))
        folder = run("tiny", "runs", parse_overrides(["filter.contamination=keep", change]), until="filter")
        made.append((train.inputs(recipe, folder), file_hash(folder.stage("filter") / "README.md")))
    (first, its_card), (second, other_card), (third, _) = made
    assert its_card != other_card
    assert first["filter"] == second["filter"] != third["filter"]


def test_the_dataset_card_is_one_that_the_hub_takes(project: Path) -> None:
    from huggingface_hub import DatasetCard

    two_sources(project)
    text = (project / "runs" / "tiny" / "filter" / "README.md").read_text()
    assert metadata.problems(text) == []
    data = DatasetCard(text).data.to_dict()
    assert data["license"] == "other", "two sources of two licenses"
    assert data["size_categories"] == ["n<1K"]
    assert data["language"] == ["th", "en"]
    assert "synthetic" not in data["tags"]
    assert "| theirs | cc-by-4.0 |" in text
    filtered(project, [row()], "data.synthetic=true", "data.license=mit")
    text = (project / "runs" / "tiny" / "filter" / "README.md").read_text()
    assert "> **Synthetic.**" in text
    assert DatasetCard(text).data.to_dict()["license"] == "mit"


@pytest.mark.parametrize("shard", [examples.SHARD, 1])
def test_what_is_written_loads_as_a_data_set_of_the_hub_does(
    project: Path, monkeypatch: pytest.MonkeyPatch, shard: int
) -> None:
    import datasets

    monkeypatch.setattr(examples, "SHARD", shard)
    two_sources(project)
    folder = project / "runs" / "tiny" / "filter"
    assert (folder / "examples.parquet").is_dir() == (shard == 1)
    loaded = datasets.load_dataset(str(folder), split="train", cache_dir=str(project / "cache"))
    assert loaded["source"] == ["ours"] * 4 + ["theirs"] * 12


def test_data_without_a_row_are_an_error(project: Path) -> None:
    with pytest.raises(InputError, match="the data hold none"):
        filtered(project, [row()], "data.where={country: [FRA]}")
