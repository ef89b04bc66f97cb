"""Contamination: what of a benchmark is found in training rows, and what is not taken for it."""

import functools
import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageEnhance

from ggez_hub import load_recipe
from ggez_hub.data import contamination, filters, readers
from ggez_hub.data.conversations import lettered
from ggez_hub.recipes import load_benchmark
from ggez_hub.registry import load_region
from ggez_hub.schema import Benchmark
from ggez_hub.scoring.questions import on_side

SEA = load_region("sea")
ON_SIDE = functools.partial(on_side, region=SEA)
OPTIONS = ["Saman from Aceh", "Kecak from Bali", "Reog from Ponorogo", "Topeng from Betawi"]
QUESTION = "Which dance do the men in chequered cloth around the fire perform?"
CAPTION = "Two women in red sell grilled squid from a cart beside the old harbour bridge"
CHINESE = "傍晚时分，两位穿红衣的妇女在旧港口大桥旁的手推车上卖烤鱿鱼，旁边坐着一只黑猫，等着吃剩下的鱼头"


def photo(seed: int = 0, size: tuple[int, int] = (320, 240)) -> Image.Image:
    """Something with large and small structure, as a photograph has."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
    grain = rng.normal(0, 6, (size[1], size[0], 3))
    return Image.fromarray((np.asarray(coarse) + grain).clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def row(name: str, image: Image.Image | bytes | None = None, **fields: Any) -> dict[str, Any]:
    data = image if isinstance(image, bytes) else encoded(image or photo(99))
    return {"id": name, "image": {"bytes": data, "path": None}, "country": "Indonesia", "text": None} | fields


def benchmark(folder: Path, questions: list[dict[str, Any]], **fields: Any) -> Benchmark:
    """A benchmark of these rows."""
    table = pa.Table.from_pylist([{"question": None, "options": None, "answer": None} | row for row in questions])
    pq.write_table(table, folder / "benchmark.parquet")
    source = {"reader": "parquet", "path": str(folder / "benchmark.parquet")}
    return Benchmark.model_validate({"title": "Ours", "source": source, "task": "question"} | fields)


def found(index: contamination.Index, *rows: dict[str, Any]) -> list[str | None]:
    """Why training rows are dropped."""
    batch = pa.RecordBatch.from_pylist(list(rows), readers.row_schema())
    outcome = contamination.uncontaminated(index)(filters.pictures(None)(batch).batch)
    assert outcome.batch.column("id").to_pylist() == [row["id"] for row in rows]
    assert outcome.kept.to_pylist() == [why is None for why in outcome.why.to_pylist()]
    return outcome.why.to_pylist()


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> contamination.Index:
    """Of a benchmark of three pictures, a question and captions; as another process reads it."""
    folder = tmp_path_factory.mktemp("index")
    rows = [
        row("dance", photo(0), question=QUESTION, options=OPTIONS, answer=OPTIONS[1]),
        row("dish", photo(1), question="What dish is this?", options=["pho", "laksa"], answer="pho"),
        row("harbour", photo(2), question="Describe it.", answer=f"{CAPTION}|A cart|{CHINESE}"),
    ]
    made = contamination.index({"ours": benchmark(folder, rows, answer="caption")}, ON_SIDE)
    made.save(folder / "index")
    return contamination.Index.load(folder / "index")


# ------------------------------------------------------------------------------------------------------------- pictures
@pytest.mark.parametrize(
    "copy",
    [
        lambda image: encoded(image.resize((160, 120))),
        lambda image: encoded(image.resize((800, 600)), "JPEG"),
        lambda image: encoded(image.resize((224, 224)), "WEBP"),
        lambda image: encoded(image, "JPEG", quality=40),
        lambda image: encoded(ImageEnhance.Brightness(image).enhance(1.4), "JPEG"),
        lambda image: encoded(ImageEnhance.Brightness(image).enhance(0.75)),
        lambda image: encoded(image.crop((8, 6, 312, 234))),
        lambda image: encoded(image.crop((6, 0, 320, 236))),
        lambda image: encoded(
            ImageEnhance.Brightness(image.crop((5, 4, 314, 236)).resize((200, 150))).enhance(1.1), "JPEG"
        ),
    ],
    ids=["smaller", "larger", "square", "JPEG", "brighter", "darker", "cropped", "corner", "all of it"],
)
def test_copies_of_a_test_picture_are_hits(index: contamination.Index, copy: Any) -> None:
    assert found(index, row("a", copy(photo(0))), row("b")) == ["picture like that of ours dance", None]


def test_the_same_picture_is_a_hit_and_others_are_not(index: contamination.Index) -> None:
    same = found(index, row("a", photo(1)), *(row(str(seed), photo(seed)) for seed in range(3, 30)))
    assert same == ["picture of ours dish", *[None] * 27]


def test_a_picture_that_is_like_a_test_picture_but_for_its_colours_is_none_of_its_copies(
    index: contamination.Index,
) -> None:
    red, green, blue = photo(0).split()
    assert found(index, row("a", Image.merge("RGB", (blue, green, red)))) == [None]


def test_of_drawings_only_the_same_ones_are_hits(tmp_path: Path) -> None:
    drawn = benchmark(tmp_path, [row("a", photo(0), text="a long caption of a drawing that all share")], synthetic=True)
    made = contamination.index({"drawn": drawn}, ON_SIDE)
    copies = [photo(0), encoded(photo(0), "WEBP", lossless=True), photo(0).crop((8, 6, 312, 234))]
    told = [row(str(i), copy, text="a long caption of a drawing that all share") for i, copy in enumerate(copies)]
    assert found(made, *told) == ["picture of drawn a", "picture like that of drawn a", None]


# ---------------------------------------------------------------------------------------------------------------- texts
@pytest.mark.parametrize(
    ("text", "why"),
    [
        (CAPTION, "text of ours harbour"),
        (CAPTION.upper() + "!", "text of ours harbour"),
        (f"Look. {CAPTION}, in the evening, when the lamps are lit and the boats come home.", "text of ours harbour"),
        (CAPTION.replace("red", "blue"), "text like that of ours harbour"),
        (CAPTION.replace("squid", "fish"), "text like that of ours harbour"),
        (CAPTION.replace("women in red", "men"), None),  # another picture
        (CHINESE, "text of ours harbour"),
        (CHINESE.replace("黑", "白"), "text like that of ours harbour"),
        ("Two women sell fish", None),
        ("A cart", None),
        ("beside the old harbour bridge two women in red sell from a cart", None),
        ("\x00\x07 \ufffd", None),
    ],
)
def test_captions_with_small_edits_are_hits(index: contamination.Index, text: str, why: str | None) -> None:
    assert found(index, row("a", text=text), row("b", text="A temple by the sea")) == [why, None]


def test_copied_questions_with_options_are_hits_wherever_they_stand(index: contamination.Index) -> None:
    numbered = "\n".join((QUESTION, *(f"{i}. {option}" for i, option in enumerate(OPTIONS, 1))))
    told = [f"<image>{lettered(QUESTION, OPTIONS)}", f"Look well.\n{numbered}", QUESTION]
    turns = [[{"role": "user", "content": text}, {"role": "assistant", "content": "B"}] for text in told]
    rows = [row(str(i), messages=messages) for i, messages in enumerate(turns)]
    rows += [row("asked", question=QUESTION, options=OPTIONS), row("others", question=QUESTION, options=["yes", "no"])]
    assert found(index, *rows) == ["text of ours dance"] * 2 + [None, "text of ours dance", None]


def test_templates_are_no_hits(index: contamination.Index, tmp_path: Path) -> None:
    assert found(index, row("a", question="What dish is this?", options=["pho", "laksa"])) == [None]
    asked = "I travelled far to taste this famous dish at a stall on the market. What is it called by the people there?"
    dishes = [[f"{word}{place}" for word in ("soup", "stew", "cake")] for place in range(100)]
    picture = encoded(photo(5))
    many = benchmark(
        tmp_path, [row(str(i), picture, question=asked, options=options) for i, options in enumerate(dishes)]
    )
    made = contamination.index({"many": many}, ON_SIDE)
    assert found(made, row("a", question=asked, options=["a roll", "a pie"]), row("b", text=asked)) == [None, None]


def test_a_text_that_is_all_the_same_is_a_hit_where_it_is_no_name(tmp_path: Path) -> None:
    place, name, often = "A night market by the river in Luang Prabang", "The Grand Palace in Bangkok", "A roof " * 9
    asked, options = "What is this building called?", ["Wat Arun", "Wat Pho"]
    picture, other = encoded(photo(5)), encoded(photo(9))
    rows = [row(str(i), picture, answer=text) for i, text in enumerate([place, name, *[often] * 5])]
    rows += [row(f"asked {i}", picture, question=asked, options=[*options, f"Wat {i}"]) for i in range(60)]
    made = contamination.index({"ours": benchmark(tmp_path, rows, answer="caption")}, ON_SIDE)
    told = [row(text, other, text=text) for text in (place.lower(), name, often)]
    told += [row(end, other, question=asked, options=[*options, end]) for end in ("Wat 7", "Wat Phra Kaew")]
    assert found(made, *told) == ["text of ours 0", None, None, "text of ours asked 7", None]


def test_to_be_asked_the_same_of_another_picture_is_no_hit(tmp_path: Path) -> None:
    asked = "What is the meaning of the red thread that the old man wears around his wrist?"
    made = contamination.index(
        {"ours": benchmark(tmp_path, [row("a", photo(0), question=asked, answer="luck")], answer="open")}, ON_SIDE
    )
    turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": "It is a blessing of the monks."}]
    assert found(made, row("b", photo(9), messages=turns), row("c", photo(0), messages=turns)) == [
        None,
        "picture of ours a",
    ]


def test_the_label_to_be_named_is_no_text(tmp_path: Path) -> None:
    rows = [row(str(i), photo(i), text=f"{CAPTION} {i}") for i in range(5)]
    made = contamination.index({"ours": benchmark(tmp_path, rows, task="top1")}, ON_SIDE)
    assert found(made, row("a", text=f"{CAPTION} 1")) == [None]


# ----------------------------------------------------------------------------------------------------------------- rows
def test_only_test_and_selection_rows_of_the_benchmarks_side_count(tmp_path: Path) -> None:
    parts = [("test", "Indonesia"), ("selection", "Indonesia"), ("train", "Indonesia"), ("test", "France")]
    rows = [row(str(i), photo(i), split=split, country=country) for i, (split, country) in enumerate(parts)]
    chosen = {"test": {"split": ("test",)}, "selection": {"split": ("selection",)}, "rows": "region"}
    made = contamination.index({"ours": benchmark(tmp_path, rows, task="top1", **chosen)}, ON_SIDE)
    trained = [row("again", photo(i)) for i in range(4)]
    assert found(made, *trained) == ["picture of ours 0", "picture of ours 1", None, None]


def test_pictures_that_cannot_be_had_are_told_of_and_texts_are_compared_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = row("a", text=CAPTION) | {"image": {"bytes": None, "path": "a.png"}}
    made = contamination.index({"ours": benchmark(tmp_path, [missing])}, ON_SIDE)
    assert "1 pictures of benchmarks cannot be had" in capsys.readouterr().err
    assert found(made, row("b", text=CAPTION), row("c")) == ["text of ours a", None]


def test_without_benchmarks_nothing_is_a_hit() -> None:
    assert found(contamination.index({}, ON_SIDE), row("a", text=CAPTION)) == [None]


def test_an_index_holds_no_pickle(index: contamination.Index, tmp_path: Path) -> None:
    index.save(tmp_path / "index")
    for path in (tmp_path / "index").iterdir():
        assert path.suffix in (".npy", ".json")
        if path.suffix == ".npy":
            assert not np.load(path, allow_pickle=False).dtype.hasobject


@pytest.mark.parametrize(
    ("name", "data", "options"),
    [
        ("pocket-sea-embedding", {"train": 2}, {"selection": 1, "test": 2}),
        pytest.param(
            *("pocket-sea-diffusion", {"train": 3, "calm": True}, {"selection": 1, "test": 2, "calm": True}),
            marks=pytest.mark.slow,
        ),
        pytest.param("omniglot-sea", {}, {}, marks=pytest.mark.slow),
    ],
)
def test_our_recipes_train_on_nothing_that_their_benchmarks_ask(
    shared: Path, name: str, data: dict[str, Any], options: dict[str, Any]
) -> None:
    region = {"country": list(SEA.countries)}
    corpus = {"data.path": str(shared / "data" / "omniglot" / "train.parquet")} if not data else {"data.options": data}
    recipe = load_recipe(name, corpus | {"data.where": region | ({} if data else {"drawer": list(range(1, 11))})})
    asked = {"source.options": options, "source.where": region} if data else {}
    benchmarks = {name: load_benchmark(name, asked) for name in recipe.sweep.benchmarks[-2:]}
    made = contamination.index(benchmarks, ON_SIDE, recipe.data.path)
    rule, look = contamination.uncontaminated(made), filters.pictures(None)
    hits = [why for batch in readers.read(recipe.data) for why in rule(look(batch).batch).why.to_pylist()]
    assert len(hits) > 100
    assert len(made.pictures) > 40
    assert set(hits) == {None}
