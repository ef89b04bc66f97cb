"""YAML files: what they may say, and what a mistake in one says back."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from ggez_hub import registry
from ggez_hub.errors import ConfigError
from ggez_hub.registry import (
    KINDS,
    Kind,
    find,
    kind_of,
    load_list,
    parse_file,
    parse_overrides,
    parse_yaml,
    read,
    to_yaml,
)
from ggez_hub.registry import files as registered
from ggez_hub.schema import (
    Base,
    Benchmark,
    Corpus,
    Data,
    Filter,
    HubSource,
    Lora,
    Pretrain,
    Recipe,
    Region,
    Reward,
    Train,
)

RECIPE = """\
title: Mine
family: embedding
region: sea
base: {random: {hidden: 16}}
data: {reader: pocket}
sweep: {global: [a], regional: [b]}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(RECIPE)
    return path


def problems(call: Any, *arguments: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        call(*arguments)
    return list(caught.value.problems)


# ---------------------------------------------------------------------------------------------------------------- names
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_shipped_files_and_names_are_their_stems(kind: Kind) -> None:
    found = registered(kind)
    assert found
    assert all(path.is_file() and path.stem == name for name, path in found.items())
    assert all(find(kind, name) == path for name, path in found.items())


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        (
            "recipes",
            "pocket-sea-embeding",
            "unknown recipe 'pocket-sea-embeding'; did you mean 'pocket-sea-embedding'?",
        ),
        ("regions", "wrld", "unknown region 'wrld'; did you mean 'world'?"),
        ("families", "embeding", "unknown family 'embeding'; did you mean 'embedding'?"),
        ("benchmarks", "pocket-core-top", "unknown benchmark 'pocket-core-top'; did you mean 'pocket-core-top1'?"),
        ("recipes", "nowhere/mine.yaml", "nowhere/mine.yaml: no such file"),
        ("recipes", "mine.yml", "mine.yml: no such file"),
    ],
)
def test_what_is_not_there_gets_the_nearest_name_and_a_command(kind: Kind, name: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        find(kind, name)
    assert str(caught.value) == f"{message}\n  hint: ggez ls {kind}"


def test_file_in_ones_own_recipes_folder_needs_no_registering(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in (
        "recipes/mine.yaml",
        "recipes/deeper/other.yaml",
        "recipes/regions/atoll.yaml",
        "recipes/regions/sea.yaml",
    ):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text("title: Ours")
    assert {"mine", "other", "pocket-sea-embedding"} <= registered("recipes").keys()
    assert {"atoll", "world"} <= registered("regions").keys()
    assert find("regions", "sea") == Path("recipes/regions/sea.yaml")  # rather than the shipped one


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("regions/x.yaml", "nonsense: 1", "regions"),
        ("benchmarks/x.yaml", "nonsense: 1", "benchmarks"),
        ("x.yaml", "title: X\ncountries: [IDN]", "regions"),
        ("x.yaml", "title: X\ntask: top1\nsource: {reader: pocket}", "benchmarks"),
        ("x.yaml", RECIPE, "recipes"),
        ("x.yaml", "title: X", "recipes"),
        ("x.yaml", "extends: sea\ntitle: X\ntask: top1\nsource: {}", "recipes"),
        ("x.yaml", "", "recipes"),
        ("x.yaml", "[1, 2]", "recipes"),
        ("x.yaml", "[{a: 1}]", "recipes"),
        ("x.yaml", "5", "recipes"),
        ("x.yaml", "a: [", "recipes"),
    ],
)
def test_kind_of_a_file_is_told_by_its_folder_or_its_keys(tmp_path: Path, name: str, text: str, kind: Kind) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    assert kind_of(path) == kind


# ----------------------------------------------------------------------------------------------------------------- YAML
@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2e-3", 0.002),
        ("1E5", 1e5),
        ("1.5e3", 1500.0),
        ("-.5", -0.5),
        ("1.", 1.0),
        ("3", 3),
        ("true", True),
        ("false", False),
        ("null", None),
        ("", None),
        ('"2e-3"', "2e-3"),
        *((word, word) for word in ("NO", "no", "yes", "Yes", "off", "on", "y", "True", "2024-01-01", "1.2.3", ".nan")),
    ],
)
def test_values_are_what_people_mean(text: str, value: Any) -> None:
    parsed = parse_yaml(f"key: {text}", "here")[0]["key"]
    assert parsed == value
    assert type(parsed) is type(value)


def test_norway_is_a_country(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(RECIPE.replace("pocket", "pocket, languages: [no, en]"))
    assert read(Recipe, tmp_path / "mine.yaml").data.languages == ("no", "en")


# Not next-line (U+0085): PyYAML itself does not bring it back.
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x85"), max_size=20)
keys = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=20)  # of one line
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=10,
)


@given(plain)
@example("1e5")
@example(["no", "1.5e3", "+.5", "12:30", "2024-01-01", "~", "=", "<<"])
@example({"1": "\u2028\ufeff\x7f", "": []})
def test_what_is_written_is_read_back_unchanged(value: Any) -> None:
    again = parse_yaml(to_yaml(value), "here")[0]
    assert again == value
    assert repr(again) == repr(value)  # 1 is not 1.0, nor True


@given(st.text() | st.text("[]{}&*!<>|?:,-=0x_.e'\"#% \n\tab", max_size=30))
@example("0x_")
@example("9" * 5000)
@example("!!int ''")
@example("!!int foo")
@example("!!bool foo")
@example("!!timestamp foo")
@example("? !!binary aGk=\n: 1")
@example("? 2020-01-01\n: 1")
@example("? [1, 2]\n: 1")
@example("&a [*a]")
@example("&a {b: *a}")
@example("---\n1\n---\n2")
@example("!!python/object/apply:os.getcwd []")
def test_any_text_is_data_or_a_clear_error(text: str) -> None:
    for call in (lambda: parse_yaml(text, "here")[0], lambda: parse_overrides([text, f"a.b={text}"])["a.b"]):
        try:
            json.dumps(call())  # plain data and nothing else
        except ConfigError as err:
            named = [problem.startswith(("here", "argument ")) for problem in err.problems]
            assert named
            assert all(named)


def test_nesting_without_end_is_an_error() -> None:
    for text in ("[" * 1000, "a: " * 60, "&a {b: *a}"):
        with pytest.raises(ConfigError, match=r"^here.* not valid YAML: "):
            parse_yaml(text, "here")


def test_keys_given_twice_are_all_named(tmp_path: Path) -> None:
    text = RECIPE + "train:\n  steps: 5\n  loss: softmax\n  steps: 6\ntitle: Again\n"
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    assert problems(read, Recipe, path) == [
        f"{path}:10  train.steps: key given twice",
        f"{path}:11  title: key given twice",
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [("title: [Mine\nfamily: embedding\n", 2), ("title: Mine\n\tfamily: x\n", 2), ("a: 1\nb: c: d\n", 2), ("a: 'b", 1)],
)
def test_broken_yaml_is_told_with_its_line(tmp_path: Path, text: str, line: int) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    (problem,) = problems(read, Recipe, path)
    assert problem.startswith(f"{path}:{line}  not valid YAML: ")


def test_lines_are_those_of_the_keys() -> None:
    lines = parse_yaml("a:\n  b: 1\n  c:\n    - x\n    - y\n# remark\nd: |\n  text\n  more\n", "here")[1]
    assert {key: lines[key] for key in (("a",), ("a", "b"), ("a", "c"), ("a", "c", 1), ("d",))} == {
        ("a",): 1,
        ("a", "b"): 2,
        ("a", "c"): 3,
        ("a", "c", 1): 5,
        ("d",): 7,
    }


# --------------------------------------------------------------------------------------------------------------- schema
@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("title: Mine", "titel: Mine", "1  titel: unknown key; did you mean 'title'?"),
        ("hidden: 16", "hidden: x", "4  base.random.hidden: Input should be a valid integer"),
        ("{random: {hidden: 16}}", "{}", "4  base: give exactly one of id, recipe, random"),
        ("{random: {hidden: 16}}", "{id: x, recipe: y}", "4  base: give exactly one of id, recipe, random"),
        ("{random: {hidden: 16}}", "[random]", "4  base: Input should be an object"),
        ("{reader: pocket}", "{}", "5  data: expected a reader, or several sources with a reader each"),
        ("{reader: pocket}", "pocket", "5  data: Input should be an object"),
        ("{reader: pocket}", "{reader: pocket, pth: x}", "5  data.pth: unknown key; did you mean 'path'?"),
        ("{reader: pocket}", "{reader: pocket, options: {a: [1]}}", "5  data.options.a: expected text, a number,"),
        ("global: [a]", "global: a", "6  sweep.global: Input should be a valid array"),
        ("global: [a]", "global: []", "6  sweep.global: Tuple should have at least 1 item"),
        ("global: [a]", "globl: [a]", "6  sweep.globl: unknown key; did you mean 'global'?"),
        ("global: [a]", "global: [a], alphas: [0, 1.5]", "6  sweep.alphas.1: Input should be less than or equal to 1"),
        ("global: [a]", "global: [a], alphas: [-0.1]", "6  sweep.alphas.0: Input should be greater than or equal to 0"),
        ("region: sea", "region: SEA!", "3  region: String should match pattern"),
        ("region: sea", "region: sea\nseed: '1'", "4  seed: Input should be a valid integer"),
        ("region: sea", "region: sea\nseed: true", "4  seed: Input should be a valid integer"),
        ("region: sea", "region: sea\nseed: 1.0", "4  seed: Input should be a valid integer"),
        ("region: sea", "region: sea\nseed: -1", "4  seed: Input should be greater than or equal to 0"),
        (
            "region: sea",
            "region: sea\ntrain:\n  steps: 0",
            "5  train.steps: Input should be greater than or equal to 1",
        ),
        ("region: sea", "region: sea\ntrain:\n  lora:\n    r: a", "6  train.lora.r: Input should be a valid integer"),
        (
            "region: sea",
            "region: sea\ntrain:\n  lora:\n    rank: 4",
            "6  train.lora.rank: unknown key; known: lora_alpha,",
        ),
        ("region: sea", "region: sea\ntrain: {method: magic}", "4  train.method: Input should be 'lora' or 'full'"),
        (
            "region: sea",
            "region: sea\ntrain: {learning_rate: 1e999}",
            "4  train.learning_rate: Input should be a finite",
        ),
        (
            "region: sea",
            "region: sea\ntrain: {learning_rate: '1e-3'}",
            "4  train.learning_rate: Input should be a valid n",
        ),
    ],
)
def test_mistake_in_a_recipe_is_told_with_its_line(file: Path, old: str, new: str, problem: str) -> None:
    assert old in RECIPE
    file.write_text(RECIPE.replace(old, new))
    found = problems(read, Recipe, file)
    assert any(line.startswith(f"{file}:{problem}") for line in found), found


@pytest.mark.parametrize(
    ("model", "text", "problem"),
    [
        (Region, "title: X\ncountries: []", "2  countries: Tuple should have at least 1 item"),
        (Region, "title: X\ncountries: [IDN, id]", "2  countries.1: String should match pattern"),
        (
            Region,
            "title: X\ncountries: [IDN]\nkof: {2020: 143}",
            "3  kof.2020: Input should be less than or equal to 100",
        ),
        (Region, "title: X\ncountry: [IDN]", "2  country: unknown key; did you mean 'countries'?"),
        (Benchmark, "title: X\nsource: {reader: a}\ntask: top5", "3  task: Input should be 'top1', 'choice'"),
        (
            Benchmark,
            "title: X\nsource: {reader: a, wher: {}}\ntask: top1",
            "2  source.wher: unknown key; did you mean 'wh",
        ),
        (Recipe, "- 1\n- 2", "1  expected a mapping of keys, got list"),
        (Recipe, "", "1  expected a mapping of keys, got NoneType"),
        (Recipe, "text", "1  expected a mapping of keys, got str"),
    ],
)
def test_mistake_in_any_kind_of_file(tmp_path: Path, model: type[BaseModel], text: str, problem: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    found = problems(read, model, path)
    assert any(line.startswith(f"{path}:{problem}") for line in found), found


def test_all_problems_of_a_file_come_at_once(file: Path) -> None:
    file.write_text("titel: Mine\nfamily: 3\nregion: sea\ndata: {}\nsweep: {global: [a], regional: [b], alphas: [2]}\n")
    assert set(problems(read, Recipe, file)) == {
        f"{file}:1  titel: unknown key; did you mean 'title'?",
        f"{file}:1  title: is missing",
        f"{file}:1  base: is missing",
        f"{file}:2  family: Input should be a valid string",
        f"{file}:4  data: expected a reader, or several sources with a reader each",
        f"{file}:5  sweep.alphas.0: Input should be less than or equal to 1",
    }


def test_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_bytes(b"title: \xff\xfe\n")
    (problem,) = problems(read, Recipe, tmp_path / "mine.yaml")
    assert problem.startswith(f"{tmp_path / 'mine.yaml'}: cannot be read as UTF-8 text: ")
    (problem,) = problems(read, Recipe, tmp_path)
    assert problem.startswith(f"{tmp_path}: cannot be read")


def test_recipe_that_says_only_what_differs_gets_the_defaults(file: Path) -> None:
    file.write_text(RECIPE + "train: {steps: 7, lora: {r: 4}}\n")
    recipe = read(Recipe, file)
    assert recipe.filter == Filter()
    assert recipe.train == Train(steps=7, lora=Lora(r=4))
    assert recipe.sweep.min_retention == 0.98
    assert {0.0, 1.0} < set(recipe.sweep.alphas)


def test_whole_number_is_fine_where_a_fraction_may_stand(file: Path) -> None:
    recipe = read(Recipe, file, {"train.learning_rate": 1, "sweep.globalization": 0})
    assert (recipe.train.learning_rate, recipe.sweep.globalization) == (1.0, 0.0)


def test_alpha_0_and_1_are_always_measured_and_alphas_sorted(file: Path) -> None:
    assert read(Recipe, file, {"sweep.alphas": [0.5, 0.25, 0.5]}).sweep.alphas == (0.0, 0.25, 0.5, 1.0)


def test_what_was_read_cannot_be_changed(file: Path) -> None:
    recipe = read(Recipe, file)
    with pytest.raises(ValidationError, match="frozen"):
        recipe.title = "Other"
    with pytest.raises(ValidationError, match="frozen"):
        recipe.train.lora.r = 3


# --------------------------------------------------------------------------------------------------- steps and epochs
@pytest.mark.parametrize(
    ("train", "steps", "epochs", "length"),
    [
        ("{}", 1000, None, "1000 steps of 64"),
        ("{steps: 5, batch_size: 2}", 5, None, "5 steps of 2"),
        ("{epochs: 3}", None, 3.0, "3 epochs of batches of 64"),
        ("{epochs: 1, steps: null}", None, 1.0, "1 epoch of batches of 64"),
        ("{epochs: 0.5, batch_size: 8}", None, 0.5, "0.5 epochs of batches of 8"),
    ],
)
def test_a_training_is_as_long_as_its_steps_or_its_epochs(
    file: Path, train: str, steps: int | None, epochs: float | None, length: str
) -> None:
    file.write_text(f"{RECIPE}train: {train}\n")
    recipe = read(Recipe, file)
    assert (recipe.train.steps, recipe.train.epochs, recipe.train.length) == (steps, epochs, length)
    file.write_text(to_yaml(recipe.model_dump(mode="json", by_alias=True)))
    assert read(Recipe, file) == recipe  # as it stands in run folders, and is published


@pytest.mark.parametrize(
    ("train", "line", "problem"),
    [
        ("steps: 5\n  epochs: 2", 9, "train.epochs: stands beside steps: 5; give one of the two"),
        ("steps: null", 8, "train.steps: give steps or epochs"),
        ("epochs: 0", 8, "train.epochs: Input should be greater than 0"),
        ("epochs: .inf", 8, "train.epochs: Input should be a valid number"),
        ("epochs: many", 8, "train.epochs: Input should be a valid number"),
        ("pretrain:\n    loss: caption", 8, "train.pretrain.steps: give steps or epochs"),
        (
            "pretrain:\n    loss: caption\n    steps: 3\n    epochs: 1",
            11,
            "train.pretrain.epochs: stands beside steps: 3; give one of the two",
        ),
        ("batch_size: 8\n  micro_batch_size: 9", 9, "train.micro_batch_size: is more than train.batch_size, 8"),
    ],
)
def test_lengths_and_batches_that_cannot_be_are_named_at_their_line(
    file: Path, train: str, line: int, problem: str
) -> None:
    file.write_text(f"{RECIPE}train:\n  {train}\n")
    assert problems(read, Recipe, file) == [f"{file}:{line}  {problem}"]


def test_parts_of_a_batch_need_not_divide_it(file: Path) -> None:
    assert read(Recipe, file, {"train.batch_size": 8, "train.micro_batch_size": 3}).train.micro_batch_size == 3
    assert read(Recipe, file, {"train.batch_size": 8, "train.micro_batch_size": 8}).train.micro_batch_size == 8


def test_keys_that_came_later_change_no_hash_of_a_run_without_them() -> None:
    train = Train().model_dump(mode="json")
    assert list(train) == [
        *("method", "loss", "pretrain", "freeze", "lora", "steps", "batch_size", "micro_batch_size"),
        *("learning_rate", "weight_decay", "warmup", "augment", "max_length", "dtype", "gradient_checkpointing"),
        "checkpoint_steps",
    ]
    assert train["steps"] == 1000
    assert Pretrain(loss="x", steps=1).model_dump() == {"loss": "x", "steps": 1, "learning_rate": None}
    assert Base(id="a").model_dump().keys() == {"id", "revision", "license", "recipe", "random", "parts"}
    assert Reward(model="x").model_dump().keys() == {"model", "id", "revision", "endpoint"}
    assert "embedding_revision" not in Filter(embedding="x").model_dump()
    drawing = {"title": "x", "source": HubSource(reader="x"), "task": "drawing", "judge": "x", "prompt": "{label}"}
    assert "judge_revision" not in Benchmark(**drawing).model_dump()
    source = ["reader", "path", "options", "columns", "where", "id", "revision"]
    assert list(HubSource(reader="x").model_dump()) == source
    assert list(Corpus(reader="x").model_dump())[:8] == [*source, "license"]
    assert "gated" not in Data(reader="x").model_dump()
    given = (Train(epochs=1.0), Base(id="a", gated=True), Reward(model="x", license="mit"))
    assert [made.model_dump().keys() & {"epochs", "gated", "license"} for made in given] == [
        {"epochs"},
        {"gated", "license"},
        {"license"},
    ]
    assert Data(reader="x", gated=True).model_dump()["gated"] is True


words = st.from_regex(r"[a-z]{1,8}", fullmatch=True)


@given(
    st.builds(
        Train,
        steps=st.none(),
        epochs=st.floats(min_value=1e-3, max_value=100),
        batch_size=st.integers(2, 9),
        micro_batch_size=st.none() | st.integers(1, 2),
    )
    | st.builds(Train, steps=st.integers(1, 9))
    | st.builds(Base, id=st.just("a"), gated=st.booleans(), license=st.none() | words)
    | st.builds(HubSource, reader=st.just("x"), gated=st.booleans(), license=st.none() | words)
    | st.builds(Corpus, reader=st.just("x"), gated=st.booleans(), license=st.none() | words)
)
def test_what_is_left_out_of_a_dump_comes_back(value: BaseModel) -> None:
    again = type(value).model_validate_json(value.model_dump_json())
    assert again == value
    assert again.model_dump_json() == value.model_dump_json()


# ------------------------------------------------------------------------------------------------------------ overrides
def test_overrides_win_and_touch_nothing_else(file: Path) -> None:
    file.write_text(RECIPE + "train: {steps: 7, loss: softmax}\n")
    given = parse_overrides(["train.steps=50", "train.lora.r=2", "sweep.min_retention=null", "title=a=b"])
    recipe = read(Recipe, file, given)
    assert (recipe.train.steps, recipe.train.loss, recipe.train.lora.r) == (50, "softmax", 2)
    assert (recipe.sweep.min_retention, recipe.title) == (None, "a=b")
    assert recipe.sweep.global_ == ("a",)
    assert read(Recipe, file).train.steps == 7  # the file is as it was


def test_later_override_of_the_same_key_wins(file: Path) -> None:
    assert read(Recipe, file, parse_overrides(["seed=1", "seed=2"])).seed == 2


@pytest.mark.parametrize(
    ("argument", "problem"),
    [
        ("train.step=5", "argument train.step  train.step: unknown key; did you mean 'steps'?"),
        ("trane.steps=5", "argument trane.steps  trane: unknown key; did you mean 'train'?"),
        ("train.steps=many", "argument train.steps  train.steps: Input should be a valid integer"),
        ("train.steps='5'", "argument train.steps  train.steps: Input should be a valid integer"),
        ("train.steps=", "argument train.steps  train.steps: give steps or epochs"),
        ("train=5", "argument train  train: Input should be an object"),
        ("sweep.alphas=[0, 1.1]", "argument sweep.alphas  sweep.alphas.1: Input should be less than or equal to 1"),
        ("sweep.alphas=[-1]", "argument sweep.alphas  sweep.alphas.0: Input should be greater than or equal to 0"),
        ("sweep.alphas.0=0.5", " and argument sweep.alphas.0  sweep.alphas: Input should be a valid array"),
        (
            "sweep.min_retention=98",
            "argument sweep.min_retention  sweep.min_retention: Input should be less than or eq",
        ),
        ("base.recipe=other", ":4 and argument base.recipe  base: give exactly one of id, recipe, random"),
        ("=5", "argument '=5': expected key=value, such as train.steps=50"),
        ("train.steps", "argument 'train.steps': expected key=value, such as train.steps=50"),
        ("train.steps=[1", "argument train.steps:2  not valid YAML: "),
        ("train={steps: 1, steps: 2}", "argument train:1  steps: key given twice"),
    ],
)
def test_mistake_in_an_override_names_the_argument(file: Path, argument: str, problem: str) -> None:
    found = problems(lambda: read(Recipe, file, parse_overrides([argument])))
    assert any(problem in line for line in found), found


def test_all_mistakes_in_overrides_come_at_once(file: Path) -> None:
    found = problems(parse_overrides, ["nonsense", "a=[", "=1"])
    assert [line.split(":")[0] for line in found] == ["argument 'nonsense'", "argument a", "argument '=1'"]
    file.write_text(RECIPE.replace("title", "titel"))
    found = problems(lambda: read(Recipe, file, parse_overrides(["train.step=5", "seed=x"])))
    assert set(found) == {
        "argument train.step  train.step: unknown key; did you mean 'steps'?",
        "argument seed  seed: Input should be a valid integer",
        f"{file}:1  titel: unknown key; did you mean 'title'?",
        f"{file}:1  title: is missing",
    }


def test_overrides_do_not_make_a_recipe_of_a_list(file: Path) -> None:
    file.write_text("- 1\n")
    found = problems(lambda: read(Recipe, file, parse_overrides(["train.steps=5"])))
    assert found == [f"{file}:1  expected a mapping of keys, got list"]


def test_an_override_takes_the_place_of_the_other_way_to_say_how_long(file: Path) -> None:
    file.write_text(RECIPE + "train: {epochs: 3, pretrain: {loss: caption, epochs: 2}}\n")
    train = read(Recipe, file, parse_overrides(["train.steps=5", "train.pretrain.steps=2"])).train
    assert train.pretrain
    assert (train.steps, train.epochs, train.pretrain.steps, train.pretrain.epochs) == (5, None, 2, None)
    file.write_text(RECIPE + "train: {steps: 3}\n")
    assert read(Recipe, file, parse_overrides(["train.epochs=0.5"])).train.epochs == 0.5
    found = problems(lambda: read(Recipe, file, parse_overrides(["train.epochs=2", "train.steps=5"])))
    assert found == ["argument train.epochs  train.epochs: stands beside steps: 5; give one of the two"]


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)


keys = st.lists(words, min_size=1, max_size=3).map(".".join)


@given(st.dictionaries(keys, scalars | st.lists(scalars, max_size=3)))
def test_overrides_say_what_json_says(values: dict[str, Any]) -> None:
    arguments = [f"{key}={json.dumps(value)}" for key, value in values.items()]
    assert parse_overrides(arguments) == values


# ------------------------------------------------------------------------------------------------------------ extending
Folder = Callable[..., Path]


@pytest.fixture
def chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """Writes recipes of these names; gives the path of the first."""
    monkeypatch.chdir(tmp_path)
    Path("recipes").mkdir()
    Path("recipes/parent.yaml").write_text(RECIPE + "train: {epochs: 3, batch_size: 8, lora: {r: 2}}\n")

    def write(**texts: str) -> Path:
        for name, text in texts.items():
            Path(f"recipes/{name}.yaml").write_text(text)
        return Path(f"recipes/{next(iter(texts))}.yaml")

    return write


@pytest.mark.parametrize("name", ["parent", "parent.yaml", "../recipes/parent.yaml", "recipes/parent.yaml"])
def test_a_recipe_says_only_what_differs_from_the_one_it_extends(chain: Folder, name: str) -> None:
    path = chain(child=f"extends: {name}\ntrain: {{lora: {{lora_alpha: 4}}}}\nsweep: {{global: [c, d]}}\n")
    child, parent = read(Recipe, path), read(Recipe, Path("recipes/parent.yaml"))
    assert child.train == parent.train.model_copy(update={"lora": Lora(r=2, lora_alpha=4)})
    assert (child.sweep.global_, child.sweep.regional) == (("c", "d"), parent.sweep.regional)
    assert "extends" not in child.model_dump()
    same = {"train", "sweep"}
    assert child.model_dump(exclude=same) == parent.model_dump(exclude=same)
    assert read(Recipe, path, {"train.lora.r": 5, "seed": 3}).train.lora == Lora(r=5, lora_alpha=4)


@pytest.mark.parametrize(
    ("inherited", "ours", "expected"),
    [
        ("train: {steps: 5, warmup: 2}", "train: {epochs: 2}", {"train": {"warmup": 2, "epochs": 2}}),
        ("train: {epochs: 5, warmup: 2}", "train: {steps: 2}", {"train": {"warmup": 2, "steps": 2}}),
        (
            "train: {pretrain: {loss: a, steps: 1}}",
            "train: {pretrain: {epochs: 1}}",
            {"train": {"pretrain": {"loss": "a", "epochs": 1}}},
        ),
        ("train: {pretrain: {loss: a, steps: 1}}", "train: {pretrain: null}", {"train": {"pretrain": None}}),
        ("base: {id: a, revision: x}", "base: {parts: {}}", {"base": {"id": "a", "revision": "x", "parts": {}}}),
        ("base: {id: a, revision: x, license: mit}", "base: {id: b}", {"base": {"id": "b"}}),
        ("base: {id: a, revision: x}", "base: {id: a, revision: y}", {"base": {"id": "a", "revision": "y"}}),
        ("base: {id: a, revision: x}", "base: {recipe: b}", {"base": {"recipe": "b"}}),
        ("base: {random: {a: 1, b: 2}}", "base: {random: {b: 3}}", {"base": {"random": {"a": 1, "b": 3}}}),
        (
            "data: {reader: pocket, options: {train: 1}, languages: [en]}",
            "data: {options: {train: 2}}",
            {"data": {"reader": "pocket", "options": {"train": 2}, "languages": ["en"]}},
        ),
        (
            "data: {reader: pocket, options: {train: 1}, license: mit}",
            "data: {reader: parquet, path: x}",
            {"data": {"reader": "parquet", "path": "x"}},
        ),
        (
            "data: {reader: pocket, title: A}",
            "data: {sources: {id: {reader: b}}}",
            {"data": {"sources": {"id": {"reader": "b"}}}},
        ),
        (
            "data: {sources: {a: {reader: a, path: x}, b: {reader: b}}}",
            "data: {sources: {a: {path: y}, id: {reader: c}}}",
            {"data": {"sources": {"a": {"reader": "a", "path": "y"}, "b": {"reader": "b"},
                                  "id": {"reader": "c"}}}},
        ),
        ("filter: {embedding: a, embedding_revision: x}", "filter: {embedding: b}", {"filter": {"embedding": "b"}}),
        ("notes: [a, b]", "notes: [c]", {"notes": ["c"]}),
        ("filter: {region: [text]}", "filter: {region: false}", {"filter": {"region": False}}),
        ("train: 5", "train: {steps: 2}", {"train": {"steps": 2}}),
        ("train: {steps: 2}", "train: 5", {"train": 5}),
    ],
)  # fmt: skip
def test_what_is_inherited_merges_or_gives_way(
    chain: Folder, inherited: str, ours: str, expected: dict[str, Any]
) -> None:
    path = chain(child=f"extends: base\n{ours}\n", base=f"{inherited}\n")
    value, place = parse_file(path, extends=True)
    assert value == expected
    (top,) = expected
    assert place((top, "nothing of the kind")) == "recipes/child.yaml:2"


def test_every_problem_is_named_where_its_value_was_given(chain: Folder) -> None:
    parent = (
        RECIPE.replace("region: sea", "region: sea\nseed: x") + "train:\n  steps: 5\n  lora: {r: 0, lora_alpa: 1}\n"
    )
    path = chain(child="extends: parent\ntitel: Mine\ntrain:\n  epochs: 2\n  warmup: -1\n", parent=parent)
    assert problems(read, Recipe, path, {"train.batch_size": 0}) == [
        "argument train.batch_size  train.batch_size: Input should be greater than or equal to 1",
        "recipes/child.yaml:2  titel: unknown key; did you mean 'title'?",
        "recipes/child.yaml:5  train.warmup: Input should be greater than or equal to 0",
        "recipes/parent.yaml:4  seed: Input should be a valid integer",
        "recipes/parent.yaml:10  train.lora.lora_alpa: unknown key; did you mean 'lora_alpha'?",
        "recipes/parent.yaml:10  train.lora.r: Input should be greater than or equal to 1",
    ]


def test_what_gives_way_is_never_named_as_the_place_of_a_problem(chain: Folder) -> None:
    path = chain(child="extends: parent\nbase: {recipe: x, random: {}}\ndata:\n  reader: 5\ntrain: {pretrain: {}}\n")
    assert problems(read, Recipe, path) == [
        "recipes/child.yaml:2  base: give exactly one of id, recipe, random",
        "recipes/child.yaml:4  data.reader: Input should be a valid string",
        "recipes/child.yaml:5  train.pretrain.loss: is missing",
    ]


def test_the_nearest_recipe_of_a_chain_wins(chain: Folder) -> None:
    path = chain(
        child="extends: middle\ntrain: {batch_size: 2}\n",
        middle="extends: parent\ntrain: {steps: 4, batch_size: 3}\nbase: {id: far}\n",
    )
    recipe = read(Recipe, path)
    assert (recipe.train.steps, recipe.train.epochs, recipe.train.batch_size, recipe.base.id) == (4, None, 2, "far")
    places = parse_file(path, extends=True)[1]
    assert [places(("train", key)) for key in ("batch_size", "steps", "lora")] == [
        "recipes/child.yaml:2",
        "recipes/middle.yaml:2",
        "recipes/parent.yaml:7",
    ]
    assert places(("train", "epochs")) == "recipes/child.yaml:2"  # what gave way is nowhere


@pytest.mark.parametrize(
    ("texts", "problem"),
    [
        ({"child": "extends: parrent"}, "child.yaml:1  extends: unknown recipe 'parrent'; did you mean 'parent'?"),
        ({"child": "\nextends: far/off.yaml"}, "child.yaml:2  extends: far/off.yaml: no such file"),
        ({"child": "extends: [parent]"}, "child.yaml:1  extends: expected the name or the path of a recipe"),
        ({"child": "extends: null"}, "child.yaml:1  extends: expected the name or the path of a recipe"),
        ({"child": "extends: x.yaml" + "x" * 300 + ".yaml"}, "child.yaml:1  extends: "),
        (
            {"child": "extends: list", "list": "- 1"},
            "list.yaml:1  expected a mapping of keys, since recipes/child.yaml",
        ),
        ({"child": "extends: list", "list": ""}, "list.yaml:1  expected a mapping of keys, since recipes/child.yaml"),
        ({"child": "extends: list", "list": "a: ["}, "list.yaml:2  not valid YAML: "),
        ({"child": "extends: list", "list": "a: 1\na: 2"}, "list.yaml:2  a: key given twice"),
        (
            {"child": "extends: child"},
            "child.yaml:1  extends: leads back to where it came from: recipes/child.yaml -> recipes/child.yaml",
        ),
        (
            {"child": "extends: b", "b": "title: B\nextends: ../recipes/child.yaml"},
            "b.yaml:2  extends: leads back to where it came from: recipes/child.yaml -> recipes/b.yaml -> ",
        ),
        (
            {"a1": "extends: a2", **{f"a{i}": f"extends: a{i + 1}" for i in range(2, 7)}, "a7": RECIPE},
            "a6.yaml:1  extends: more than 5 recipes above recipes/a1.yaml",
        ),
    ],
)
def test_a_recipe_that_cannot_be_extended_is_named(chain: Folder, texts: dict[str, str], problem: str) -> None:
    (found,) = problems(read, Recipe, chain(**texts))
    assert found.startswith(f"recipes/{problem}")


def test_five_recipes_may_stand_above_one(chain: Folder) -> None:
    texts = {f"a{i}": f"extends: a{i + 1}\nseed: {i}" for i in range(1, 6)}
    assert read(Recipe, chain(**texts, a6=RECIPE)).seed == 1


def test_only_a_recipe_extends_another(chain: Folder) -> None:
    path = chain(child="extends: parent\ntitle: A\ncountries: [IDN]\n")
    assert problems(read, Region, path)[0] == "recipes/child.yaml:1  extends: unknown key; known: " + ", ".join(
        sorted(Region.model_fields)
    )
    assert "extends" in parse_file(path)[0]


def test_a_recipe_that_is_proposed_reads_no_file_that_it_chooses(
    chain: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "data_root", lambda: tmp_path)
    (tmp_path / "secret.yaml").write_text("password: 5\n")
    for text in ("extends: ../secret.yaml", f"extends: {tmp_path}/secret.yaml", "extends: secret.yaml"):
        (found,) = problems(read, Recipe, chain(child=text))
        assert found == "recipes/child.yaml:1  extends: a shipped recipe extends another by its name, not by a path"
    assert read(Recipe, chain(child="extends: parent")).title == "Mine"


plain = st.recursive(
    st.none() | st.integers(0, 3) | st.lists(st.integers(0, 3), max_size=2),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)


@given(*[st.dictionaries(st.sampled_from("abc"), plain, max_size=3)] * 2)
def test_mappings_merge_and_all_else_is_replaced(inherited: dict[str, Any], ours: dict[str, Any]) -> None:
    def flat(value: Any, key: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
        if not isinstance(value, dict):
            return {key: value}
        return {name: leaf for part in value for name, leaf in flat(value[part], (*key, part)).items()}

    with tempfile.TemporaryDirectory() as folder:
        child, parent = Path(folder, "child.yaml"), Path(folder, "parent.yaml")
        child.write_text(to_yaml({"extends": "parent.yaml"} | ours))
        parent.write_text(to_yaml(inherited))
        value, place = parse_file(child, extends=True)
        leaves, theirs = flat(ours), flat(inherited)
        for key, leaf in flat(value).items():
            assert leaf == (leaves[key] if key in leaves else theirs[key])
            assert place(key).partition(":")[0] == str(child if key in leaves else parent)
        assert leaves.keys() <= flat(value).keys()


# ---------------------------------------------------------------------------------------------------------------- lists
def test_file_with_a_list_of_things(tmp_path: Path) -> None:
    path = tmp_path / "many.yaml"
    path.write_text("- {title: A, countries: [IDN]}\n- title: B\n  countries: [VNM]\n")
    assert [region.title for region in load_list(Region, path)] == ["A", "B"]


def test_all_problems_of_a_list_come_at_once(tmp_path: Path) -> None:
    path = tmp_path / "many.yaml"
    path.write_text("- {title: A, countries: [IDN, x]}\n- title: B\n  countris: [VNM]\n- 5\n")
    assert {line.partition(" (")[0] for line in problems(load_list, Region, path)} == {
        f"{path}:1  countries.1: String should match pattern '^[A-Z]{{3}}$'",
        f"{path}:2  countries: is missing",
        f"{path}:3  countris: unknown key; did you mean 'countries'?",
        f"{path}:4  expected a mapping of keys, got int",
    }
