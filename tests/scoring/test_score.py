"""Scores of answers made elsewhere: values, intervals, sides, groups and comparisons, through the files users have."""

import json
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ggez_hub.errors import InputError
from ggez_hub.recipes import load_benchmark
from ggez_hub.runs import Run
from ggez_hub.schema import Benchmark
from ggez_hub.scoring import items, predictions, score

OPTIONS = ["tea", "gong", "flute"]
PLACES = ["Laos", "Laos|Thailand", "Japan", "Laos|Japan"]  # regional, regional, global, mixed
Rows = list[dict[str, Any]]


def questions(count: int = 8, languages: Sequence[str] = ("en", "nan")) -> Rows:
    """Every question in every language; countries and kinds take turns, and the right answer is always the gong."""
    return [
        {
            "id": f"q{i}", "language": language, "country": PLACES[i % 4], "kind": ["even", "odd"][i % 2], "text": "",
            "dish": f"dish{i // 2}", "question": "What is it?", "options": OPTIONS, "answer": "gong",
        }
        for i in range(count)
        for language in languages
    ]  # fmt: skip


def benchmark(folder: Path, rows: Rows, **changes: Any) -> Benchmark:
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "mine.parquet")
    whole = {"title": "Mine", "task": "question", "answer": "letter", "key": ["id", "language"]} | changes
    source = {"reader": "parquet", "path": str(folder / "mine.parquet")}
    return Benchmark.model_validate_json(json.dumps(whole | {"source": source}))


def answers(rows: Rows, right: Callable[[int], Any], model: str = "m") -> Rows:
    """Answers in letters: right or wrong by the number of the row, or what `right` gives instead."""
    said = [right(i) for i in range(len(rows))]
    return [
        {
            "model": model,
            "id": row["id"],
            "language": row["language"],
            "prediction": "AB"[one] if isinstance(one, bool) else one,
        }
        for row, one in zip(rows, said, strict=True)
    ]


def scored(folder: Path, mine: Benchmark, given: Rows, **settings: Any) -> dict[str, Any]:
    """The document of answers that a file has."""
    folder.mkdir(exist_ok=True)
    path = folder / "answers.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in given))
    return score.score("mine", mine, items.load(mine), predictions.read([path], mine.key), **settings)


# --------------------------------------------------------------------------------------------------------------- values
def test_a_document_says_how_many_answers_were_right(tmp_path: Path) -> None:
    rows = questions()
    found = scored(tmp_path, benchmark(tmp_path, rows), answers(rows, lambda i: i < 12))
    assert (found["benchmark"], found["metric"], found["revision"], found["region"]) == (
        "mine",
        "accuracy",
        None,
        "sea",
    )
    assert (found["n"], found["value"], found["unparsed"], found["unscorable"], found["missing"]) == (16, 0.75, 0, 0, 0)
    low, high = found["ci95"]
    assert 0 <= low < 0.75 < high <= 1
    assert found["comparisons"] == []
    kept = {key: value for key, value in found.items() if key in found["models"]["m"]}
    assert found["models"] == {"m": kept}
    json.dumps(found, allow_nan=False)


def test_what_cannot_be_read_counts_as_wrong_and_is_counted(tmp_path: Path) -> None:
    rows = questions()
    texts = {0: "", 1: None, 2: "no idea", 3: "A or B"}
    found = scored(tmp_path, benchmark(tmp_path, rows), answers(rows, lambda i: texts.get(i, True)))
    assert (found["n"], found["value"], found["unparsed"]) == (16, 0.75, 4)
    assert found["by"]["language"]["en"] == {"value": 0.75, "n": 8, "unparsed": 2}


def test_answers_most_of_which_cannot_be_read_are_warned_of(tmp_path: Path) -> None:
    rows = questions()
    mine = benchmark(tmp_path, rows)
    warning = "9 of 16 answers could not be read, and count as wrong"
    assert warning in scored(tmp_path, mine, answers(rows, lambda i: "?" if i < 9 else True))["warnings"]
    half = scored(tmp_path, mine, answers(rows, lambda i: "?" if i < 8 else True))["warnings"]
    assert not any("could not be read" in text for text in half)


def test_a_question_without_a_right_answer_is_not_scored(tmp_path: Path) -> None:
    rows = questions()
    for row in rows[:4]:
        row["answer"] = "drum"
    mine = benchmark(tmp_path, rows)
    found = scored(tmp_path, mine, answers(rows, lambda i: i >= 8))
    assert (found["n"], found["value"], found["unscorable"]) == (12, 8 / 12, 4)
    assert "4 answers are to questions without a right answer, and are not scored" in found["warnings"]
    assert scored(tmp_path, mine, answers(rows, lambda i: i >= 8)[4:])["value"] == 8 / 12  # nobody misses them


def test_groups_are_told_apart(tmp_path: Path) -> None:
    rows = questions()
    by = scored(tmp_path, benchmark(tmp_path, rows), answers(rows, lambda i: rows[i]["country"] == "Laos"))["by"]
    assert by["country"] == {
        "JPN": {"value": 0, "n": 4, "unparsed": 0},
        "LAO": {"value": 1, "n": 4, "unparsed": 0},
        "several": {"value": 0, "n": 8, "unparsed": 0},
    }
    assert by["kind"]["even"] == {"value": 0.5, "n": 8, "unparsed": 0}
    assert set(by["region"]) == {"eap"}
    assert set(by["continent"]) == {"asia"}
    assert set(by["language"]) == {"en", "nan"}
    assert "prompt_type" not in by


def nested(rows: Rows, values: Sequence[float], fields: Sequence[str]) -> float:
    """The mean over groups of the mean over groups ..., by hand."""
    if not fields:
        return sum(values) / len(values)
    groups: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        groups.setdefault(row[fields[0]], []).append(i)
    inner = [nested([rows[i] for i in at], [values[i] for i in at], fields[1:]) for at in groups.values()]
    return sum(inner) / len(inner)


@settings(max_examples=12)
@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"), st.booleans()), min_size=1, max_size=20),
    st.permutations(["kind", "dish"]),
    st.integers(0, 2),
)
def test_groups_count_alike_however_many_questions_they_have(
    tmp_path_factory: pytest.TempPathFactory, asked: list[tuple[str, str, bool]], fields: list[str], levels: int
) -> None:
    folder = tmp_path_factory.mktemp("nested")
    rows = questions(len(asked), ("en",))
    for row, (kind, dish, _) in zip(rows, asked, strict=True):
        row |= {"kind": kind, "dish": dish}
    mine = benchmark(folder, rows, average=fields[:levels])
    found = scored(folder, mine, answers(rows, lambda i: asked[i][2]))
    values = [float(right) for _, _, right in asked]
    assert found["value"] == pytest.approx(nested(rows, values, fields[:levels]))
    for kind, group in found["by"]["kind"].items():
        at = [i for i, row in enumerate(rows) if row["kind"] == kind]
        expected = nested([rows[i] for i in at], [values[i] for i in at], fields[:levels])
        assert group["value"] == pytest.approx(expected)
        assert group["n"] == len(at)


def test_within_a_group_the_others_count_alike_too(tmp_path: Path) -> None:
    rows = questions(6, ("en",))
    for row, kind, dish in zip(rows, "aaabbb", "xxyxxx", strict=True):
        row |= {"kind": kind, "dish": dish}
    mine = benchmark(tmp_path, rows, average=["kind", "dish"])
    found = scored(tmp_path, mine, answers(rows, lambda i: i == 2))
    assert found["value"] == found["by"]["language"]["en"]["value"] == 0.25  # ((0 + 1) / 2 + 0) / 2
    cells = {name: cell["value"] for name, cell in found["by"]["kind / dish"].items()}
    assert cells == {"a / x": 0, "a / y": 1, "b / x": 0}


@settings(max_examples=5)
@given(st.lists(st.sampled_from([True, False, "", "?"]), min_size=32, max_size=32), st.randoms(), st.integers(1, 31))
def test_neither_the_order_of_rows_nor_the_number_of_files_matters(
    tmp_path_factory: pytest.TempPathFactory, right: list[Any], random: Any, cut: int
) -> None:
    folder = tmp_path_factory.mktemp("order")
    rows = questions()
    mine = benchmark(folder, rows, average=["language"], cluster="dish")
    given_ = [*answers(rows, lambda i: right[i], "a"), *answers(rows, lambda i: right[16 + i], "b")]
    expected = scored(folder, mine, given_, against="a")
    random.shuffle(given_)
    paths = [folder / "one.csv", folder / "two.parquet"]
    pq.write_table(pa.Table.from_pylist(given_[cut:]), paths[1])
    lines = [",".join(row.values()) for row in given_[:cut]]
    paths[0].write_text("\n".join(["model,qa_id,lang,pred", *lines]) + "\n")
    read = predictions.read(paths, mine.key)
    assert score.score("mine", mine, items.load(mine), read, against="a") == expected


# ---------------------------------------------------------------------------------------------------------------- sides
def test_regional_global_and_mixed_questions_are_told_apart(tmp_path: Path) -> None:
    rows = questions(64)
    regional, global_, mixed = PLACES[:2], PLACES[2], PLACES[3]
    share = {global_: 3, mixed: 2}
    right = {i: i % 4 < share.get(row["country"], 1) for i, row in enumerate(rows)}
    found = scored(tmp_path, benchmark(tmp_path, rows, key=["id", "language"]), answers(rows, lambda i: right[i]))
    for side, places in (("regional", regional), ("global", [global_]), ("mixed", [mixed])):
        at = [i for i, row in enumerate(rows) if row["country"] in places]
        assert found[side]["n"] == len(at)
        assert found[side]["value"] == sum(right[i] for i in at) / len(at)
        low, high = found[side]["ci95"]
        assert low <= found[side]["value"] <= high
    difference = found["regional_minus_global"]
    assert difference["value"] == pytest.approx(found["regional"]["value"] - found["global"]["value"])
    low, high = difference["ci95"]
    assert low < difference["value"] < high


def test_another_region_may_be_asked_for(tmp_path: Path) -> None:
    rows = questions()
    rows[0]["country"] = rows[1]["country"] = "Kenya"
    mine, given_ = benchmark(tmp_path, rows), answers(rows, lambda i: i < 2)
    found = scored(tmp_path, mine, given_, region="ssa")
    assert (found["region"], found["regional"]["n"], found["regional"]["value"]) == ("ssa", 2, 1)
    assert (found["global"]["n"], found["mixed"]) == (14, None)
    with pytest.raises(
        InputError, match=r"'Mine' has no question of region 'sa'\n  hint: it has country JPN, KEN, LAO"
    ):
        scored(tmp_path, mine, given_, region="sa")


def test_without_regional_questions_there_are_no_sides(tmp_path: Path) -> None:
    rows = questions()
    for row in rows:
        row["country"] = "Kenya"
    found = scored(tmp_path, benchmark(tmp_path, rows), answers(rows, bool))
    assert [found[key] for key in ("region", "regional", "global", "mixed", "regional_minus_global")] == [None] * 5


def test_sides_may_be_told_by_language(tmp_path: Path) -> None:
    rows = questions(languages=("en", "id_formal", "tl"))
    mine = benchmark(tmp_path, rows, region_by="language", cluster="id")
    found = scored(tmp_path, mine, answers(rows, lambda i: rows[i]["language"] != "en"))
    assert (found["regional"]["n"], found["regional"]["value"]) == (16, 1)
    assert (found["global"]["n"], found["global"]["value"]) == (8, 0)


def test_a_difference_knows_that_both_sides_share_clusters(tmp_path: Path) -> None:
    """In both languages the same answers are right: however the questions are drawn, the sides differ in nothing."""
    rows = questions(40, ("en", "tl"))
    given_ = answers(rows, lambda i: i // 2 % 3 == 0)
    paired = scored(tmp_path, benchmark(tmp_path, rows, region_by="language"), given_)
    assert paired["regional_minus_global"] == {"value": pytest.approx(0), "ci95": pytest.approx([0, 0])}
    low, high = paired["regional"]["ci95"]
    assert high - low > 0.1


# ------------------------------------------------------------------------------------------------------------ intervals
def test_questions_that_depend_on_each_other_are_drawn_together(tmp_path: Path) -> None:
    rows = questions(100)
    given_ = answers(rows, lambda i: i // 2 % 2 == 0)  # a question is right in both languages, or in none

    def width(**changes: Any) -> float:
        found = scored(tmp_path, benchmark(tmp_path, rows, **changes), given_)
        low, high = found["ci95"]
        assert found["clusters"] == (100 if changes["cluster"] == "id" else 200)
        return float(high - low)

    for i, row in enumerate(rows):
        row["row"] = str(i)
    assert width(cluster="id") == pytest.approx(2**0.5 * width(cluster="row"), rel=0.15)


@pytest.mark.parametrize(
    ("count", "cluster", "warned"),
    [(30, "id", None), (29, "id", "only 29 questions"), (58, "dish", "only 29 independent groups among 58 questions")],
)
def test_an_interval_of_few_questions_is_warned_of(
    tmp_path: Path, count: int, cluster: str, warned: str | None
) -> None:
    rows = questions(count, ("en",))
    for row in rows:
        row["country"] = None
    found = scored(tmp_path, benchmark(tmp_path, rows, cluster=cluster), answers(rows, lambda i: i % 2 == 0))
    assert found["ci95"]
    assert found["warnings"] == found["models"]["m"]["warnings"]
    assert [text[: len(warned or "")] for text in found["warnings"]] == ([warned] if warned else [])


def test_answers_that_are_all_right_are_warned_of(tmp_path: Path) -> None:
    rows = questions(100, ("en",))
    for row in rows:
        row["country"] = None
    found = scored(tmp_path, benchmark(tmp_path, rows), answers(rows, lambda i: True))
    assert found["ci95"] == [1, 1]
    assert found["warnings"] == ["all answers are worth the same, which 3.0% of others may not be (the rule of three)"]
    assert not scored(tmp_path, benchmark(tmp_path, rows), answers(rows, bool))["warnings"]


def test_one_group_of_questions_has_no_interval(tmp_path: Path) -> None:
    rows = questions(1)
    assert scored(tmp_path, benchmark(tmp_path, rows), answers(rows, bool))["ci95"] is None


def test_a_warning_that_all_models_share_is_said_once(tmp_path: Path) -> None:
    rows = questions(12, ("en",))
    given_ = [*answers(rows, bool, "a"), *answers(rows, bool, "b")[1:]]
    found = scored(tmp_path, benchmark(tmp_path, rows), given_, allow_missing=True)
    assert (
        found["warnings"].count("global: only 3 questions: an interval needs 30, take this one as a rough guess") == 1
    )
    assert "a: only 12 questions: an interval needs 30, take this one as a rough guess" in found["warnings"]
    assert "b: 1 of 12 questions have no answer, and count neither way" in found["warnings"]


# --------------------------------------------------------------------------------------------------------------- models
def test_several_models_have_their_own_figures_and_one_over_all(tmp_path: Path) -> None:
    rows = questions()
    given_ = [*answers(rows, lambda i: i < 4, "b"), *answers(rows, lambda i: i < 12, "a")]
    found = scored(tmp_path, benchmark(tmp_path, rows), given_)
    assert list(found["models"]) == ["a", "b"]
    assert [one["value"] for one in found["models"].values()] == [0.75, 0.25]
    assert (found["n"], found["value"], found["by"]["language"]["en"]["n"]) == (32, 0.5, 16)
    assert found["models"]["a"] | {"warnings": None} == {
        key: value
        for key, value in scored(tmp_path, benchmark(tmp_path, rows), given_[16:]).items()
        if key in found["models"]["a"]
    } | {"warnings": None}


def test_models_may_answer_in_different_languages(tmp_path: Path) -> None:
    rows = questions()
    english = [row for row in rows if row["language"] == "en"]
    given_ = [*answers(rows, lambda i: i % 2 == 0, "a"), *answers(english, lambda i: i < 6, "b")]
    found = scored(tmp_path, benchmark(tmp_path, rows, average=["language"]), given_, against="a")
    assert [(one["n"], one["value"], one["missing"]) for one in found["models"].values()] == [
        (16, 0.5, 0),
        (8, 0.75, 0),
    ]
    assert found["n"] == 24
    (one,) = found["comparisons"]
    assert (one["model"], one["against"], one["n"], one["difference"]) == ("b", "a", 8, -0.25)  # a is right in English


def test_models_are_compared_with_a_paired_test(tmp_path: Path) -> None:
    rows = questions(40)
    given_ = [
        *answers(rows, lambda i: i % 2 == 0, "base"),
        *answers(rows, lambda i: i % 2 == 0 or i % 3 == 0, "better"),
        *answers(rows, lambda i: i % 2 == 0, "twin"),
    ]
    found = scored(tmp_path, benchmark(tmp_path, rows), given_, against="base")["comparisons"]
    better, twin = found
    assert [one["model"] for one in found] == ["better", "twin"]
    assert better["difference"] == pytest.approx(13 / 80)
    assert better["ci95"][0] > 0
    assert better["p"] < 0.001
    assert better["p_holm"] == pytest.approx(2 * better["p"])
    assert (twin["difference"], twin["p"], twin["p_holm"]) == (0, 1, 1)
    with pytest.raises(InputError, match=r"--against: no model 'bas' in the predictions; did you mean 'base'\?"):
        scored(tmp_path, benchmark(tmp_path, rows), given_, against="bas")


# --------------------------------------------------------------------------------------------------------------- errors
def test_missing_answers_are_an_error_unless_they_are_allowed(tmp_path: Path) -> None:
    rows = questions()
    mine, given_ = benchmark(tmp_path, rows), answers(rows, lambda i: i % 2 == 0)[:11]
    with pytest.raises(InputError) as caught:
        scored(tmp_path, mine, given_)
    assert str(caught.value) == (
        "'Mine': model 'm' has no answer to 5 questions: 'q5', language 'nan'; 'q6', language 'en'; 'q6', language "
        "'nan', ...\n  hint: an empty prediction counts as unparsed; --allow-missing scores the others alone"
    )
    found = scored(tmp_path, mine, given_, allow_missing=True)
    assert (found["n"], found["missing"], found["value"]) == (11, 5, 6 / 11)
    assert "5 of 16 questions have no answer, and count neither way" in found["warnings"]


def test_groups_that_are_missing_whole_are_named_with_the_command_that_leaves_them_out(ggez: Any) -> None:
    rows = questions(20)
    even = [row for row in rows if row["kind"] == "even" and row["language"] == "en"]
    given_ = [*answers(even, bool, "a"), *answers(even, bool, "b")]
    Path("answers.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in given_))
    code, _, err = ggez(*ARGUMENTS)
    assert (code, err.partition(": ")[2]) == (
        2,
        "'Mine': all 2 models have no answer to 10 questions: all of kind 'odd'\n"
        "  hint: 'source.where.kind=[\"even\"]' scores the others alone\n",
    )
    (override,) = shlex.split(err.partition("hint: ")[2].partition(" scores")[0])
    assert json.loads(ggez(*ARGUMENTS, override, "--json")[1])["n"] == 20
    with Path("answers.jsonl").open("a") as file:  # one model answers the rest, and is not to lose it
        file.writelines(f"{json.dumps(row)}\n" for row in answers(rows, bool, "c"))
    assert "--allow-missing" in ggez(*ARGUMENTS)[2]


def test_of_a_language_that_a_model_answers_in_every_question_is_expected(tmp_path: Path) -> None:
    rows = questions()
    english = [row for row in rows if row["language"] == "en"]
    assert scored(tmp_path, benchmark(tmp_path, rows), answers(english, bool))["n"] == 8
    with pytest.raises(InputError, match="has no answer to 7 questions: 'q1', language 'nan'"):
        scored(tmp_path, benchmark(tmp_path, rows), answers([*english, rows[1]], bool))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": "q99"}, r":3: 'q99', language 'en' is no question of 'Mine' \(id 'q99'.*\); 1 of 16 answers"),
        ({"language": "ean"}, r":3: 'q1', language 'ean' is no question of 'Mine' \(language 'ean'; did you mean 'en'"),
        ({"id": "q0"}, r":3: model 'm' answers 'q0', language 'en' once more, first in .*answers.jsonl:1; 1 questions"),
        ({"gold": "A"}, r":3: gold 'A' of 'q1', language 'en', but the benchmark's answer is 'gong'; 1 of 16"),
        ({"gold": "1"}, r":3: gold '1' of 'q1'"),  # a place, counted from 0
        ({"gold": "F"}, r":3: gold 'F' of 'q1'"),  # outside the options
    ],
)
def test_an_answer_to_no_question_is_named_with_its_line(tmp_path: Path, change: dict[str, str], message: str) -> None:
    rows = questions()
    given_ = answers(rows, bool)
    given_[2] |= change
    with pytest.raises(InputError, match=rf"^{tmp_path}/answers\.jsonl{message}"):
        scored(tmp_path, benchmark(tmp_path, rows), given_)


def test_gold_that_agrees_is_no_error(tmp_path: Path) -> None:
    rows = questions()
    given_ = answers(rows, bool)
    for row, gold in zip(given_, ["B", "gong", "(b)", "", None], strict=False):
        row["gold"] = gold
    assert scored(tmp_path, benchmark(tmp_path, rows), given_)["n"] == 16


@pytest.mark.parametrize(("number", "fine"), [(1, True), (3, True), (0, False), (4, False), (1.5, False), (-1, False)])
def test_numbers_that_are_no_options_are_an_error(tmp_path: Path, number: float, fine: bool) -> None:
    rows = questions()
    given_ = answers(rows, lambda i: number if i == 4 else 2)
    mine = benchmark(tmp_path, rows, answer="number")
    if fine:
        assert scored(tmp_path, mine, given_)["value"] == 15 / 16
    else:
        with pytest.raises(
            InputError, match=rf"jsonl:5: prediction {number}, expected the number of an option, 1\.\.3"
        ):
            scored(tmp_path, mine, given_)


def test_a_number_that_only_its_own_question_lacks_was_said(tmp_path: Path) -> None:
    rows = questions()
    rows[0]["options"] = OPTIONS[:2]
    found = scored(tmp_path, benchmark(tmp_path, rows, answer="number"), answers(rows, lambda i: 2 if i else 3))
    assert (found["value"], found["unparsed"]) == (15 / 16, 1)


def test_scores_of_a_judge_are_averaged_as_they_are(tmp_path: Path) -> None:
    rows = questions()
    given_ = [{"id": row["id"], "language": row["language"], "score": i / 20} for i, row in enumerate(rows)]
    given_[15]["score"] = None
    found = scored(tmp_path, benchmark(tmp_path, rows), given_)
    assert (found["metric"], found["unparsed"]) == ("score", 1)
    assert found["value"] == pytest.approx(sum(range(15)) / 20 / 16)


def test_a_distance_cannot_be_told_from_answers(tmp_path: Path) -> None:
    mine = load_benchmark("pocket-global-distance")
    rows = [{"id": "1", "prediction": "tea"}]
    (tmp_path / "a.jsonl").write_text(json.dumps(rows[0]))
    with pytest.raises(InputError, match="measures distance, which answers do not tell"):
        score.judge(mine, pa.table({}), predictions.read([tmp_path / "a.jsonl"]))


# --------------------------------------------------------------------------------------------------------- command line
@pytest.fixture
def ggez(tmp_path: Path, ggez: Any) -> Any:
    """Runs a command beside a benchmark `mine` and a file of answers; returns exit code, stdout and stderr."""
    rows = questions(20)
    benchmark(tmp_path, rows)
    Path("recipes/benchmarks").mkdir(parents=True)
    text = (
        "title: Mine\nsource: {reader: parquet}\ntask: question\nanswer: letter\nkey: [id, language]\nsynthetic: true\n"
    )
    Path("recipes/benchmarks/mine.yaml").write_text(text)
    given_ = [*answers(rows, lambda i: i % 4 == 0, "a"), *answers(rows, lambda i: i % 4 < 2, "b")]
    Path("answers.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in given_))
    return ggez


ARGUMENTS = ("score", "mine", "source.path=mine.parquet", "--predictions", "answers.jsonl")


def test_the_command_prints_tables_and_warns_on_stderr(ggez: Any) -> None:
    code, out, err = ggez(*ARGUMENTS, "--against", "a")
    assert code == 0
    head, a, b = out.splitlines()[:3]
    assert " ".join(head.split()) == "accuracy all sea global sea - global n unparsed"
    assert a.split()[:2] == ["a", "0.250"]
    assert b.split()[:2] == ["b", "0.500"]
    assert a.split()[-2:] == ["40", "0"]
    assert f"{'kind':5}" in out
    assert "against a" in out
    assert "warning: only 20 independent groups among 40 questions" in err
    assert "Synthetic" in err


def test_breakdowns_of_many_models_fit_on_a_screen(tmp_path: Path) -> None:
    rows = questions()
    for row in rows:
        row["kind"] = "\x1b[31mred"
    models = [f"a-model-with-a-long-name-{i}" for i in range(9)]
    given_ = [
        row
        for j, model in enumerate(models)
        for row in answers(rows, [j < i % 9 for i in range(16)].__getitem__, model)
    ]
    found = scored(tmp_path, benchmark(tmp_path, rows), given_)
    shown = score.table(found)
    lines = shown.partition("\n\n")[2].splitlines()
    assert max(map(len, lines)) <= 120
    english = [line.split() for line in lines if line.startswith("en ")]
    assert len(english) == 3
    expected = [f"{one['by']['language']['en']['value']:.3f}" for one in found["models"].values()]
    assert [cell for _, _, *cells in english for cell in cells] == expected
    assert "\x1b" not in shown


def test_the_command_gives_one_json_document(ggez: Any) -> None:
    code, out, _ = ggez(*ARGUMENTS, "--json", "--region", "eap")
    found = json.loads(out)
    assert (code, found["region"], found["n"]) == (0, "eap", 80)
    assert set(found["models"]) == {"a", "b"}
    code, other, _ = ggez(*ARGUMENTS, "--json", "--region", "eap", "average=[language]", "cluster=kind")
    assert json.loads(other)["clusters"] == 2


def test_the_command_ends_with_2_where_the_input_is_wrong(ggez: Any) -> None:
    lines = Path("answers.jsonl").read_text().splitlines()
    Path("answers.jsonl").write_text("\n".join(lines[:-1]))
    code, out, err = ggez(*ARGUMENTS)
    assert (code, out) == (2, "")
    assert "model 'b' has no answer to 1 questions: 'q19', language 'nan'" in err
    assert ggez(*ARGUMENTS, "--allow-missing")[0] == 0
    assert ggez(*ARGUMENTS, "--region", "ssa", "--allow-missing")[0] == 2
    assert "argument source.pth  source.pth: unknown key" in ggez("score", "mine", "source.pth=x", *ARGUMENTS[3:])[2]
    assert ggez("score", "mine")[0] == 2


def test_a_sweeps_own_answers_have_the_values_of_its_results(tiny_run: Run) -> None:
    results = json.loads((tiny_run.stage("sweep") / "results.json").read_text())
    for name in ("tiny-global", "tiny-regional"):
        mine = load_benchmark(name)
        read = predictions.read([tiny_run.stage("sweep") / "predictions.parquet"], mine.key, name)
        found = score.score(name, mine, items.load(mine), read)
        assert {model: one["value"] for model, one in found["models"].items()} == {
            f"alpha={point['alpha']:g}": pytest.approx(point["benchmarks"][name]["value"])
            for point in results["points"]
        }


# ----------------------------------------------------------------------------------------------------------- real files
ENGLISH = {  # accuracy by prompt type 1, 2, 3, 4, computed from the columns gold and pred of the files
    "gpt-4o-2024-08-06": (0.902, 0.690, 0.934, 0.846), "llama-3.2-11b": (0.724, 0.620, 0.784, 0.596),
    "llava-1.6-7b": (0.370, 0.400, 0.580, 0.362), "molmo-7b-d": (0.480, 0.348, 0.658, 0.398),
    "molmo-7b-d-fp32": (0.480, 0.344, 0.654, 0.394), "pangea-7b": (0.564, 0.518, 0.726, 0.544),
    "qwen2-vl-72b": (0.780, 0.628, 0.856, 0.610), "qwen2-vl-7b-instruct": (0.674, 0.598, 0.744, 0.560),
}  # fmt: skip


@pytest.fixture(scope="module")
def worldcuisines(shared: Path) -> tuple[Benchmark, pa.Table, pa.Table]:
    folder = shared / "data" / "worldcuisines"
    mine = load_benchmark("worldcuisines", {"source.path": str(folder)})
    return mine, items.load(mine), predictions.read(sorted(folder.glob("*_predictions.csv.gz")), mine.key)


@pytest.mark.slow
def test_eight_real_models_get_the_scores_of_their_files(worldcuisines: Any) -> None:
    mine, asked, given_ = worldcuisines
    found = score.score("worldcuisines", mine, asked, given_, against="molmo-7b-d")
    cells = {model: one["by"]["prompt_type / language"] for model, one in found["models"].items()}
    assert {m: tuple(by[f"{kind} / en"]["value"] for kind in "1234") for m, by in cells.items()} == {
        model: pytest.approx(values) for model, values in ENGLISH.items()
    }
    assert (found["n"], found["unparsed"], found["clusters"]) == (
        96000,
        246 + 4,
        500,
    )  # 4 chose a fifth of four options
    assert [found[side]["n"] for side in ("regional", "global", "mixed")] == [224 * 48, 1708 * 48, 68 * 48]
    for one in found["models"].values():
        assert one["value"] == pytest.approx(sum(g["value"] for g in one["by"]["prompt_type"].values()) / 4)
    assert found["models"]["qwen2-vl-7b-instruct"]["regional_minus_global"]["ci95"][1] < 0  # Southeast Asia is harder
    twin = next(one for one in found["comparisons"] if one["model"] == "molmo-7b-d-fp32")
    assert twin["p"] > 0.05
    assert abs(twin["difference"]) < 0.005
    others = [one for one in found["comparisons"] if one is not twin]
    assert all(one["p_holm"] < 0.01 for one in others)


def test_the_twin_is_no_different_in_english_either(worldcuisines: Any) -> None:
    mine, asked, given_ = worldcuisines
    asked = asked.filter(pa.compute.equal(asked["kind"], "dish"))
    dishes = given_.filter(pa.compute.is_in(given_["id"], asked["id"].unique()))
    english = dishes.filter(pa.compute.equal(dishes["language"], "en"))
    two = english.filter(pa.compute.match_substring(english["model"], "molmo"))
    (twin,) = score.score("worldcuisines", mine, asked, two, against="molmo-7b-d")["comparisons"]
    assert (twin["n"], twin["model"]) == (1500, "molmo-7b-d-fp32")
    assert twin["p"] > 0.05
    assert twin["ci95"][0] <= 0 <= twin["ci95"][1]
