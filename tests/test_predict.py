"""Asking a benchmark's questions: of a regional model, of a model's folder, of an endpoint; and the file of answers."""

import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filelock import FileLock
from PIL import Image
from safetensors.torch import load_file, save_file

from ggez_hub import RegionalModel, families, predict, registry, run
from ggez_hub.endpoint import Endpoint
from ggez_hub.errors import InputError
from ggez_hub.families.base import Query
from ggez_hub.recipes import load_benchmark
from ggez_hub.registry import load_region
from ggez_hub.runs import Run, read_json
from ggez_hub.scoring.answers import PROTOCOLS
from ggez_hub.scoring.questions import OPEN, questions
from tests.endpoint_server import MODEL, EndpointServer, text_of

FIXTURES = Path(__file__).parent / "fixtures" / "benchmarks"
KEY = "sk-a-secret-that-nobody-may-see"
ASKED = "What is this, number"
Ggez = Callable[..., tuple[int, str, str]]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[EndpointServer]:
    import openai._base_client

    monkeypatch.setattr(openai._base_client, "INITIAL_RETRY_DELAY", 0.001)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with EndpointServer() as running:
        yield running


def lines(file: str | Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in Path(file).read_text(encoding="utf-8").splitlines()]


def own(folder: Path, answer: str, count: int = 80, **settings: Any) -> Path:
    """A benchmark of questions with options, each with a picture of its own; of every tenth the answer is not known."""
    rows = []
    for i in range(count):
        buffer = pa.BufferOutputStream()
        Image.new("RGB", (16, 16), (i, 255 - i, 7)).save(buffer, "png")
        rows.append(
            {
                "id": f"q{i}",
                "language": "th",
                "image": {"bytes": buffer.getvalue().to_pybytes(), "path": None},
                "text": "",
                "question": f"{ASKED} {i}?",
                "options": ["rendang", "pho", "laksa"],
                "answer": None if i % 10 == 0 else "pho",
            }
        )
    pq.write_table(pa.Table.from_pylist(rows), folder / "rows.parquet")
    values = {"title": "Own", "source": {"reader": "parquet", "path": str(folder / "rows.parquet")}, "task": "question"}
    path = folder / "recipes" / "benchmarks" / "own.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(registry.to_yaml(values | {"answer": answer} | settings))
    return path


# ------------------------------------------------------------------------------------------------------ regional models
@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_an_adapter_answers_as_the_sweep_measured_it(tiny_run: Run, ggez: Ggez, alpha: float) -> None:
    for benchmark in ("tiny-choice", "tiny-global"):
        out = f"{benchmark}.jsonl"
        code, put, said = ggez("predict", benchmark, "--model", "runs/tiny", "--alpha", str(alpha), "--out", out)
        assert (code, put) == (0, f"{out}\n"), said
        swept = pq.read_table(tiny_run.stage("sweep") / "predictions.parquet").to_pylist()
        expected = {
            row["id"]: row["prediction"]
            for row in swept
            if (row["benchmark"], row["split"], row["alpha"]) == (benchmark, "test", alpha)
        }
        assert {row["id"]: row["prediction"] for row in lines(out)} == expected
        assert {row["model"] for row in lines(out)} == {f"runs/tiny alpha={alpha:g}"}
        assert len(lines(out)) == len(expected)


def test_what_is_predicted_can_be_scored_and_is_worth_what_the_sweep_says(tiny_run: Run, ggez: Ggez) -> None:
    assert ggez("predict", "tiny-choice", "--model", "runs/tiny", "--alpha", "0.5", "--out", "a.jsonl")[0] == 0
    code, put, said = ggez("score", "tiny-choice", "--predictions", "a.jsonl", "--json")
    assert code == 0, said
    points = read_json(tiny_run.stage("sweep") / "results.json")["points"]
    swept = next(point for point in points if point["alpha"] == 0.5)["benchmarks"]["tiny-choice"]
    assert (json.loads(put)["value"], json.loads(put)["n"]) == (pytest.approx(swept["value"]), swept["n"])


def test_answers_are_those_of_a_model_in_memory(tiny_run: Run) -> None:
    benchmark, model = load_benchmark("tiny-choice"), RegionalModel.from_pretrained("runs/tiny")
    asked = predict.asked("tiny-choice", benchmark, limit=20)
    at_one = [answer.text for answer in predict.answers(benchmark, asked, model, 1.0)]
    model.alpha = 1.0
    assert [answer.text for answer in predict.answers(benchmark, asked, model)] == at_one
    family = families.get("embedding")
    loaded = family.load(Path("base"))
    assert [answer.text for answer in predict.answers(benchmark, asked, (family, loaded))] == [
        answer.text for answer in predict.answers(benchmark, asked, model, 0.0)
    ]


def test_the_same_command_gives_the_same_bytes_and_says_where_a_number_is_from(tiny_run: Run, ggez: Ggez) -> None:
    command = ("predict", "tiny-choice", "--model", "runs/tiny", "--limit", "5")
    for out in ("a.jsonl", "b.jsonl"):
        assert ggez(*command, "--out", out)[0] == 0
    assert Path("a.jsonl").read_bytes() == Path("b.jsonl").read_bytes()
    assert Path("a.jsonl.json").read_bytes() == Path("b.jsonl.json").read_bytes()
    facts = read_json(Path("a.jsonl.json"))
    chosen = read_json(tiny_run.stage("sweep") / "results.json")["chosen"]["alpha"]
    assert facts["model"]["name"] == "runs/tiny"
    assert (facts["model"]["family"], facts["model"]["alpha"]) == ("embedding", chosen)
    assert facts["benchmark"]["name"] == "tiny-choice"
    assert (facts["benchmark"]["task"], facts["region"], facts["limit"]) == ("choice", "sea", 5)
    assert facts["questions"]["n"] == len(lines("a.jsonl")) == 5
    assert "transformers" in facts["versions"]
    assert not list(Path().glob(".*")), "something was left behind"


def test_what_is_done_is_not_asked_again_and_other_settings_are_refused(tiny_run: Run, ggez: Ggez) -> None:
    command = ("predict", "tiny-choice", "--model", "runs/tiny", "--limit", "5", "--out", "a.jsonl")
    assert "5 questions asked" in ggez(*command, "--alpha", "0.5")[2]
    before = Path("a.jsonl").stat().st_mtime_ns
    assert "done already" in ggez(*command, "--alpha", "0.5")[2]
    code, _, said = ggez(*command, "--alpha", "1")
    assert code == 2
    assert "a.jsonl: was begun with other settings: model.alpha: 0.5 -> 1.0" in said
    assert Path("a.jsonl").stat().st_mtime_ns == before


def test_a_file_of_somebody_else_is_not_written_over(tiny_run: Run, ggez: Ggez) -> None:
    Path("a.jsonl").write_text("mine")
    code, _, said = ggez("predict", "tiny-choice", "--model", "runs/tiny", "--out", "a.jsonl")
    assert code == 2
    assert "a.jsonl: exists already" in said
    assert Path("a.jsonl").read_text() == "mine"


def own_base() -> Path:
    """The base of a project, as a copy that may be changed."""
    base = Path("base")
    shared = base.resolve()
    base.unlink()
    shutil.copytree(shared, base)
    return base


def test_a_base_that_was_changed_in_its_place_is_another_model(tiny_run: Run, ggez: Ggez) -> None:
    base = own_base()
    command = ("predict", "tiny-choice", "--model", "runs/tiny", "--limit", "5", "--out", "a.jsonl")
    assert ggez(*command)[0] == 0
    (base / "config.json").write_text((base / "config.json").read_text() + "\n")
    code, _, said = ggez(*command)
    assert (code, "a.jsonl: was begun with other settings: model.base: " in said) == (2, True), said


def test_an_alpha_that_the_model_cannot_have_leaves_nothing_behind(tiny_run: Run, ggez: Ggez) -> None:
    code, _, said = ggez("predict", "tiny-choice", "--model", "runs/tiny", "--alpha", "nan", "--out", "a.jsonl")
    assert (code, "alpha of sea" in said) == (2, True), said
    assert not list(Path().glob("*a.jsonl*"))


def test_two_processes_do_not_write_one_file(project: Path, ggez: Ggez) -> None:
    with FileLock(".a.jsonl.lock"):
        code, _, said = ggez("predict", "tiny-choice", "--model", "base", "--out", "a.jsonl")
    assert (code, "a.jsonl: another ggez is writing it" in said) == (2, True), said


@pytest.mark.parametrize(("tensor", "value"), [("text_model.final_layer_norm.weight", math.nan), ("logit_scale", 1e4)])
def test_scores_that_are_no_numbers_are_no_answers(project: Path, ggez: Ggez, tensor: str, value: float) -> None:
    file = own_base() / "model.safetensors"
    weights = load_file(file)
    weights[tensor].fill_(value)
    save_file(weights, file, {"format": "pt"})
    code, _, said = ggez("predict", "tiny-choice", "--model", "base", "--out", "a.jsonl")
    assert code == 2, said
    assert f"{tensor} holds NaN" in said or "scores of its options are no numbers" in said
    assert not list(project.glob("*a.jsonl*"))


def test_a_limit_reads_no_further(tmp_path: Path) -> None:
    own(tmp_path, "option", count=20)
    rows = pq.read_table(tmp_path / "rows.parquet").to_pylist()
    rows[10]["image"]["bytes"] = b"broken"
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    benchmark = load_benchmark(str(tmp_path / "recipes" / "benchmarks" / "own.yaml"))
    assert [question.id for question in predict.asked("own", benchmark, limit=10)] == [f"q{i}" for i in range(10)]
    with pytest.raises(InputError, match="question 'q10': its picture cannot be decoded"):
        predict.asked("own", benchmark)
    broken: list[str] = []
    left = [question.id for question in predict.asked("own", benchmark, broken=broken)]
    assert left == [f"q{i}" for i in range(20) if i != 10]
    assert broken == ["question 'q10': its picture cannot be decoded: not a picture of a known kind"]


def test_questions_about_one_picture_hold_it_once(tmp_path: Path) -> None:
    own(tmp_path, "option", count=4)
    rows = pq.read_table(tmp_path / "rows.parquet").to_pylist()
    pq.write_table(pa.Table.from_pylist([row | {"image": rows[0]["image"]} for row in rows]), tmp_path / "rows.parquet")
    asked = predict.asked("own", load_benchmark(str(tmp_path / "recipes" / "benchmarks" / "own.yaml")))
    assert (len(asked), len({id(question.picture) for question in asked})) == (4, 1)


def test_region_decides_which_questions_are_asked(project: Path, ggez: Ggez) -> None:
    sea, africa = (
        {row["id"] for row in lines(out)}
        for out in ("sea.jsonl", "ssa.jsonl")
        if ggez("predict", "tiny-regional", "--model", "base", "--region", out.removesuffix(".jsonl"), "--out", out)
    )
    assert sea
    assert africa
    assert not sea & africa


# --------------------------------------------------------------------------------------------------- folders of models
def test_a_vision_language_model_answers_in_words(tmp_path: Path, ggez: Ggez) -> None:
    families.get("vlm").write_tiny(tmp_path / "vlm", ["rendang", "pho", "laksa"])
    own(tmp_path, "letter", count=12)
    code, _, said = ggez("predict", "own", "--model", "vlm", "--out", "a.jsonl")
    assert code == 0, said
    benchmark, family = load_benchmark("own"), families.get("vlm")
    asked = questions(benchmark, load_region("sea"), unscorable=True)["test"]
    expected = family.predict(family.load(tmp_path / "vlm"), [question.query for question in asked], 64)
    assert [row["prediction"] for row in lines("a.jsonl")] == [str(text[0]) for text in expected]
    assert read_json(Path("a.jsonl.json"))["model"]["family"] == "vlm"


@pytest.mark.parametrize("family", ["embedding", "open_clip"])
def test_a_model_that_embeds_chooses_the_option_that_fits_question_and_picture(
    tmp_path: Path, ggez: Ggez, family: str
) -> None:
    module = families.get(family)
    module.write_tiny(tmp_path / "model", ["what is this number rendang pho laksa"])
    own(tmp_path, "option", count=12)
    code, _, said = ggez("predict", "own", "--model", "model", "--out", "a.jsonl")
    assert code == 0, said
    assert read_json(Path("a.jsonl.json"))["model"]["family"] == family
    options, loaded = ("rendang", "pho", "laksa"), module.load(tmp_path / "model")
    expected = []
    for i in range(12):
        picture = Image.new("RGB", (16, 16), (i, 255 - i, 7))
        texts = [f"{ASKED} {i}? {option}" for option in options]
        expected.append(options[int(module.predict(loaded, [Query(picture, texts)], 8)[0][0].argmax())])
    assert [row["prediction"] for row in lines("a.jsonl")] == expected


@pytest.mark.parametrize("family", ["embedding", "open_clip"])
def test_a_very_long_question_does_not_hide_the_options(tmp_path: Path, family: str) -> None:
    module = families.get(family)
    module.write_tiny(tmp_path / "model", ["what is this number rendang pho laksa"])
    loaded, picture = module.load(tmp_path / "model"), Image.new("RGB", (16, 16), "teal")
    options, template = ("rendang", "pho", "laksa"), "{question} {option}"

    def scores(question: str, template: str | None = template) -> np.ndarray:
        return module.predict(loaded, [Query(picture, options, question, template)], 8)[0][0]

    for long in ("what is this " * 100, "อาหารจานนี้คืออะไร" * 40, "what " * 100 + "{option}"):
        assert len(set(scores(long).tolist())) == 3, "all options look alike"
    tail = "rendang pho laksa " * 50
    assert np.array_equal(scores(f"what is this {tail} number?"), scores(f"what is this {tail} rendang"))
    assert not np.array_equal(scores(f"what is this {tail}"), scores(f"what is it {tail}")), "its beginning is lost"
    assert not np.array_equal(scores("what is this"), scores("what is it")), "the question is not read"
    assert np.array_equal(scores("what is this", None), scores("", "{option}"))


@pytest.mark.slow
def test_an_embedding_model_is_swept_and_predicts_on_questions(project: Path, ggez: Ggez) -> None:
    text = Path("recipes/benchmarks/tiny-choice.yaml").read_text()
    text = text.replace("task: choice", "task: question").replace("reader: pocket", "reader: pocket_questions")
    Path("recipes/benchmarks/tiny-choice.yaml").write_text(text)
    swept = run("tiny", "runs", {"train.steps": 4, "sweep.alphas": [0, 1], "sweep.regional": ["tiny-choice"]}, "sweep")
    answers = pq.read_table(swept.stage("sweep") / "predictions.parquet").to_pylist()
    assert ggez("predict", "tiny-choice", "--model", "base", "--out", "a.jsonl")[0] == 0
    wanted = ("tiny-choice", "test", 0.0)
    assert {row["id"]: row["prediction"] for row in lines("a.jsonl")} == {
        row["id"]: row["prediction"] for row in answers if (row["benchmark"], row["split"], row["alpha"]) == wanted
    }


@pytest.mark.parametrize("overrides", [["answer=option"], ["answer=option", "prompt='{option}'"]])
def test_cvqa_is_answered_and_scored_with_a_model_that_embeds(
    tmp_path: Path, ggez: Ggez, tiny_base: Path, overrides: list[str]
) -> None:
    cvqa = ("cvqa", f"source.path={FIXTURES / 'cvqa'}")
    code, _, said = ggez("predict", *cvqa, "--model", str(tiny_base), "--out", "a.jsonl")
    assert (code, "add answer=option to the command" in said) == (2, True)
    code, _, said = ggez("predict", *cvqa, *overrides, "--model", str(tiny_base), "--out", "a.jsonl")
    assert code == 0, said
    code, put, said = ggez("score", *cvqa, *overrides, "--predictions", "a.jsonl", "--json")
    assert code == 0, said
    scored = json.loads(put)
    assert scored["unparsed"] == scored["missing"] == 0
    assert scored["n"] + scored["unscorable"] == len(lines("a.jsonl"))
    assert scored["unscorable"] > 0


def test_the_benchmarks_prompt_is_the_template(tmp_path: Path) -> None:
    own(tmp_path, "option", count=2, prompt="Question: {question} Answer: {option}")
    benchmark = load_benchmark(str(tmp_path / "recipes" / "benchmarks" / "own.yaml"))
    (question,) = predict.asked("own", benchmark, limit=1)
    assert (question.query.prompt, question.query.template) == (f"{ASKED} 0?", "Question: {question} Answer: {option}")
    own(tmp_path, "option", count=2, prompt="Question: {question}")
    with pytest.raises(InputError, match=r"has no \{option\} in it"):
        predict.asked("own", load_benchmark(str(tmp_path / "recipes" / "benchmarks" / "own.yaml")))


def test_shipped_models_are_told_apart_by_their_files() -> None:
    shipped = Path(predict.hub.SHIPPED)
    found = {folder.name: predict.family_of(folder) for folder in shipped.iterdir()}
    expected = {"embedding": "embedding", "vlm": "vlm", "open-clip": "open_clip", "diffusion": "diffusion"}
    assert found == {f"pocket-base-{kind}": family for kind, family in expected.items()} | {"pocket-judge": "embedding"}


@pytest.mark.parametrize(
    ("config", "family"),
    [
        ({"model_type": "siglip2"}, "embedding"),
        ({"architectures": ["CLIPModel"], "model_type": "clip"}, "embedding"),
        ({"architectures": ["Qwen2_5_VLForConditionalGeneration"], "model_type": "qwen2_5_vl"}, "vlm"),
        ({"architectures": ["BlipForConditionalGeneration"], "model_type": "blip"}, "vlm"),
        ({"model_type": "gemma3"}, "vlm"),
    ],
)
def test_a_configuration_tells_the_family(tmp_path: Path, config: dict[str, Any], family: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert predict.family_of(tmp_path) == family


@pytest.mark.parametrize(
    "config", ['{"architectures": ["BertModel"], "model_type": "bert"}', "[]", '{"architectures": 3}', None]
)
def test_a_model_of_another_kind_is_refused(tmp_path: Path, ggez: Ggez, config: str | None) -> None:
    (tmp_path / "model").mkdir()
    if config is not None:
        (tmp_path / "model" / "config.json").write_text(config)
    code, _, said = ggez("predict", "pocket-core-top1", "--model", "model", "--out", "a.jsonl")
    assert code == 2
    assert "no kind of model that is known here" in said


def test_only_an_adapter_has_an_alpha_and_only_some_models_write(project: Path, ggez: Ggez) -> None:
    code, _, said = ggez("predict", "tiny-choice", "--model", "base", "--alpha", "0.5", "--out", "a.jsonl")
    assert (code, "only a published adapter has one" in said) == (2, True)
    code, _, said = ggez("predict", "pocket-core-open", "--model", "base", "--out", "a.jsonl")
    assert (code, "is of task question, answered by open, which this model cannot do" in said) == (2, True)
    code, _, said = ggez("predict", "tiny-choice", "--model", "base", "--out", "a.csv")
    assert (code, "--out a.jsonl" in said) == (2, True)
    assert not list(project.glob("a.*")), "something was left behind"


# ------------------------------------------------------------------------------------------------------------ endpoints
def ask(server: EndpointServer, out: str = "a.jsonl", *more: str) -> tuple[str, ...]:
    return ("predict", "own", "--endpoint", server.url, "--model", MODEL, "--out", out, *more)


def test_an_endpoint_is_asked_for_letters_where_options_are_scored(
    server: EndpointServer, tmp_path: Path, ggez: Ggez
) -> None:
    own(tmp_path, "option", count=30)
    said = {0: "C. laksa", 1: "Either A or B", 2: ""}  # the others: B
    server.answer = lambda request: said.get(int(re.findall(rf"{ASKED} (\d+)", text_of(request))[0]), "B")
    code, _, told = ggez(*ask(server))
    assert code == 0, told
    assert "no likelihoods of options: they are asked for by letter" in told
    rows = lines("a.jsonl")
    assert rows[:3] == [
        {"model": MODEL, "id": "q0", "prediction": "laksa", "written": "C. laksa"},
        {"model": MODEL, "id": "q1", "prediction": "", "written": "Either A or B"},
        {"model": MODEL, "id": "q2", "prediction": "", "written": ""},
    ]
    assert {row["prediction"] for row in rows[3:]} == {"pho"}
    assert f"{ASKED} 0?\nA. rendang\nB. pho\nC. laksa\nAnswer with the letter." in map(text_of, server.requests)
    assert {request["max_tokens"] for request in server.requests} == {8}
    assert read_json(Path("a.jsonl.json"))["asked_for"] == "letter"


@pytest.mark.parametrize("answer", ["open", "letter", "reasoned"])
def test_an_endpoint_writes_what_the_protocol_reads(
    server: EndpointServer, tmp_path: Path, ggez: Ggez, answer: str
) -> None:
    own(tmp_path, answer, count=3, key=["id", "language"])
    server.answer = lambda request: "Answer:\n(B)"
    code, _, told = ggez(*ask(server))
    assert code == 0, told
    assert "by letter" not in told
    assert lines("a.jsonl")[2] == {"model": MODEL, "id": "q2", "language": "th", "prediction": "Answer:\n(B)"}
    assert len(lines("a.jsonl")) == 3, "a question whose answer is not known was not asked"
    assert {request["max_tokens"] for request in server.requests} == {
        {"open": 32, "letter": 8, "reasoned": 1024}[answer]
    }


def test_cvqa_is_answered_by_an_endpoint_and_scored(server: EndpointServer, tmp_path: Path, ggez: Ggez) -> None:
    cvqa = ("cvqa", f"source.path={FIXTURES / 'cvqa'}")
    code, _, said = ggez("predict", *cvqa, *ask(server)[2:])
    assert code == 0, said
    code, put, said = ggez("score", *cvqa, "--predictions", "a.jsonl", "--json")
    assert code == 0, said
    assert json.loads(put)["unparsed"] == json.loads(put)["missing"] == 0
    assert set(json.loads(put)["models"]) == {MODEL}
    assert {row["prompt_type"] for row in lines("a.jsonl")} == {"english", "local"}


def test_questions_without_a_known_answer_are_asked_but_take_no_part_in_a_sweep(tmp_path: Path) -> None:
    benchmark = load_benchmark(str(own(tmp_path, "option", count=20)))
    swept = questions(benchmark, load_region("sea"))["test"]
    assert len(swept) == 18
    assert all(question.answer for question in swept)
    assert len(predict.asked("own", benchmark)) == 20


def test_protocols_for_open_questions_are_those_that_read_no_place() -> None:
    assert {name for name, protocol in PROTOCOLS.items() if not protocol.place} == set(OPEN)


def test_questions_that_failed_are_listed_and_alone_asked_again(
    server: EndpointServer, tmp_path: Path, ggez: Ggez
) -> None:
    own(tmp_path, "option")
    assert ggez(*ask(server, "whole.jsonl"))[0] == 0
    server.requests.clear()
    server.script = {f"{ASKED} {i}?": ["no json"] for i in (3, 70, 79)}
    code, put, told = ggez(*ask(server))
    assert (code, put) == (4, "")
    assert f"{server.url}, model 'tiny': 3 questions have no answer yet" in told
    assert "q70: the reply is no JSON" in told
    assert not Path("a.jsonl").exists()
    assert len(lines(".a.partial.jsonl")) == 77
    assert len(server.requests) == 80
    server.requests.clear()
    code, _, told = ggez(*ask(server))
    assert (code, "3 questions asked" in told) == (0, True)
    assert len(server.requests) == 3
    assert Path("a.jsonl").read_bytes() == Path("whole.jsonl").read_bytes()
    assert not list(tmp_path.glob(".a.*"))


def test_a_server_that_is_down_is_not_asked_every_question(server: EndpointServer, tmp_path: Path, ggez: Ggez) -> None:
    own(tmp_path, "option")
    server.script[""] = ["refuse"] * 80
    code, _, told = ggez(*ask(server))
    assert code == 4
    assert "80 questions have no answer yet" in told
    assert len(server.requests) < 80


def test_other_settings_do_not_go_on_where_these_stopped(server: EndpointServer, tmp_path: Path, ggez: Ggez) -> None:
    own(tmp_path, "option", count=20)
    server.script["number 3?"] = ["no json"]
    assert ggez(*ask(server))[0] == 4
    kept = Path(".a.partial.jsonl").read_bytes()
    own(tmp_path, "letter", count=20)
    code, _, told = ggez(*ask(server))
    assert code == 2
    assert ".a.partial.jsonl: was begun with other settings: benchmark.answer: option -> letter" in told
    assert Path(".a.partial.jsonl").read_bytes() == kept
    own(tmp_path, "option", count=20)
    code, _, told = ggez(*ask(server, "a.jsonl", "--limit", "10"))
    assert (code, "limit: None -> 10" in told) == (2, True)


def test_a_killed_run_goes_on_where_it_was_and_ends_in_the_same_bytes(
    server: EndpointServer, tmp_path: Path, ggez: Ggez
) -> None:
    own(tmp_path, "option")
    assert ggez(*ask(server, "whole.jsonl"))[0] == 0
    server.requests.clear()
    command = [sys.executable, "-m", "ggez_hub", *ask(server)]
    process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE)

    def answer(request: dict[str, Any]) -> str:
        if len(server.requests) > 70:
            process.kill()
        return "A"

    server.answer = answer
    _, told = process.communicate(timeout=60)
    assert process.returncode == -9, told
    assert not Path("a.jsonl").exists()
    kept = Path(".a.partial.jsonl")
    assert len(lines(kept)) == 64
    kept.write_bytes(kept.read_bytes()[:-9])  # as if it had died while it wrote
    server.requests.clear()
    server.script[f"{ASKED} 79?"] = ["no json"]
    assert ggez(*ask(server))[0] == 4
    assert len(lines(kept)) == 79
    code, _, said = ggez(*ask(server))
    assert code == 0, said
    assert len(server.requests) == 80 - 63 + 1
    assert Path("a.jsonl").read_bytes() == Path("whole.jsonl").read_bytes()
    assert Path("a.jsonl.json").read_bytes() == Path("whole.jsonl.json").read_bytes()


def test_a_local_model_goes_on_in_the_same_bytes(project: Path, ggez: Ggez) -> None:
    own(project, "option")
    assert ggez("predict", "own", "--model", "base", "--out", "whole.jsonl")[0] == 0
    whole = Path("whole.jsonl").read_bytes()
    Path("a.jsonl.json").write_bytes(Path("whole.jsonl.json").read_bytes())
    Path(".a.partial.jsonl").write_bytes(b"".join(whole.splitlines(keepends=True)[:70]))
    code, _, told = ggez("predict", "own", "--model", "base", "--out", "a.jsonl")
    assert code == 0, told
    assert "10 questions asked" in told
    assert Path("a.jsonl").read_bytes() == whole


@pytest.mark.parametrize("does", ["", "wrong key", "refuse", "no json", "close"])
def test_the_key_is_nowhere(server: EndpointServer, tmp_path: Path, ggez: Ggez, does: str) -> None:
    own(tmp_path, "open", count=3)
    server.answer = lambda request: f"you sent {KEY}"
    server.script[""] = [does] * 100
    code, put, told = ggez(*ask(server))
    assert code == (4 if does else 0)
    assert server.keys == {f"Bearer {KEY}"}
    assert KEY not in put + told
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert written
    assert not [path for path in written if KEY.encode() in path.read_bytes()]


def test_an_endpoint_draws_nothing_and_has_letters_for_some_options_only(
    server: EndpointServer, project: Path, ggez: Ggez
) -> None:
    code, _, told = ggez("predict", "pocket-core-drawing", *ask(server)[2:])
    assert (code, "of task drawing" in told) == (2, True)
    code, _, told = ggez("predict", "tiny-global", *ask(server)[2:])
    assert (code, "at most 26 have a letter" in told) == (2, True)
    assert not list(project.glob("a.*")), "something was left behind"
    assert not server.requests


def test_two_questions_of_one_name_are_refused(tmp_path: Path) -> None:
    benchmark = load_benchmark(str(own(tmp_path, "option", count=4, key=["language"])))
    with pytest.raises(InputError, match="two questions with language th"):
        predict.asked("own", benchmark)


def test_an_endpoint_can_be_asked_from_python(server: EndpointServer, project: Path) -> None:
    benchmark = load_benchmark("tiny-choice")
    asked = predict.asked("tiny-choice", benchmark, limit=3)
    answers = predict.answers(benchmark, asked, Endpoint(server.url, MODEL))
    assert [answer.text for answer in answers] == ["A"] * 3
    sent = {request["messages"][0]["content"][0]["image_url"]["url"] for request in server.requests}
    assert len(sent) == 3, "every question has its own picture"
