"""Recipes and all that they name: what ships is valid, and a wrong name gets the right one."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ggez_hub import describe, registry
from ggez_hub.data import account
from ggez_hub.data.codes import iso3
from ggez_hub.errors import ConfigError
from ggez_hub.hub.licenses import conflicts
from ggez_hub.pipeline import resolved
from ggez_hub.recipes import load, load_benchmark, load_recipe, recipe_name, validate_file
from ggez_hub.registry import Kind, parse_overrides
from ggez_hub.schema import Train

RECIPE = """\
title: Mine
family: embedding
region: atoll
base: {random: {hidden: 16}}
data:
  reader: pocket
  options: {train: 1}
train: {steps: 2}
sweep:
  global: [easy]
  regional:
    - hard
"""
BENCHMARK = """\
title: Easy
source:
  reader: pocket
  options:
    test: 1
task: top1
"""
PATH = "recipes/mine.yaml"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A current directory with a recipe, a region and benchmarks of one's own; call it to change the recipe's text."""
    monkeypatch.chdir(tmp_path)
    for folder in ("regions", "benchmarks"):
        Path("recipes", folder).mkdir(parents=True)
    Path("recipes/regions/atoll.yaml").write_text("title: Atoll\ncountries: [TUV]\nkof: {2020: 43}\n")
    for name in ("easy", "hard"):
        Path(f"recipes/benchmarks/{name}.yaml").write_text(BENCHMARK)

    def change(*pairs: tuple[str, str]) -> None:
        text = RECIPE
        for old, new in pairs:
            assert old in text
            text = text.replace(old, new)
        Path(PATH).write_text(text)

    change()
    return change


def problems(call: Any, *arguments: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        call(*arguments)
    return list(caught.value.problems)


@pytest.mark.parametrize("kind", ["recipes", "regions", "benchmarks"])
def test_every_shipped_file_is_valid(kind: Kind) -> None:
    files = registry.files(kind).values()
    assert files
    for path in files:
        validate_file(path)


def test_every_yaml_file_that_ships_is_of_some_kind() -> None:
    shipped = {path for kind in ("recipes", "regions", "benchmarks") for path in registry.files(kind).values()}
    there = {path.name for path in (registry.data_root() / "recipes").rglob("*.yaml")}
    assert there == {path.name for path in shipped}  # none hides another of the same name


def test_recipe_is_found_by_name_and_by_path(project: Callable[..., None], tmp_path: Path) -> None:
    by_name = load_recipe("mine")
    assert by_name == load_recipe(PATH) == load_recipe(str(tmp_path / PATH))
    assert (by_name.title, by_name.region, by_name.sweep.regional) == ("Mine", "atoll", ("hard",))
    assert recipe_name("mine") == recipe_name(PATH) == "mine"


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("region: atoll", "region: atol", "3  region: unknown region 'atol'; did you mean 'atoll'?"),
        ("family: embedding", "family: embeding", "2  family: unknown family 'embeding'; did you mean 'embedding'?"),
        ("random: {hidden: 16}", "recipe: min", "4  base.recipe: unknown recipe 'min'; did you mean 'mine'?"),
        ("[easy]", "[esy]", "10  sweep.global.0: unknown benchmark 'esy'; did you mean 'easy'?"),
        ("- hard", "- hard\n    - hrd", "13  sweep.regional.1: unknown benchmark 'hrd'; did you mean 'hard'?"),
        ("- hard", "- hard\n    - easy", "9  sweep: 'easy' stands on both sides; give each side its own"),
        ("reader: pocket", "reader: poket", "6  reader: unknown reader 'poket'; did you mean 'pocket'?"),
        ("{train: 1}", "{trian: 1}", "7  options.trian: unknown option; did you mean 'train'?"),
        ("{train: 1}", "\n    train: 1\n    tset: 1", "9  options.tset: unknown option; did you mean 'test'?"),
        ("{steps: 2}", "{loss: sigmod}", "8  train.loss: unknown loss 'sigmod'; did you mean 'sigmoid'?"),
    ],
)
def test_unknown_name_gets_the_nearest_and_its_line(
    project: Callable[..., None], old: str, new: str, problem: str
) -> None:
    project((old, new))
    assert problems(load_recipe, "mine") == [f"{PATH}:{problem}"]


def test_all_unknown_names_come_at_once(project: Callable[..., None]) -> None:
    project(
        ("atoll", "atol"), ("family: embedding", "family: embeding"), ("[easy]", "[esy, hrd]"), ("train: 1", "x: 1")
    )
    found = problems(load_recipe, "mine")
    assert [line.partition(": ")[0] for line in found] == [
        f"{PATH}:2  family",
        f"{PATH}:3  region",
        f"{PATH}:7  options.x",
        f"{PATH}:10  sweep.global.0",
        f"{PATH}:10  sweep.global.1",
    ]


def test_unknown_names_come_with_the_mistakes_in_other_keys(project: Callable[..., None]) -> None:
    pairs = (("title", "titel"), ("steps: 2", "steps: x, loss: sigmod"), ("atoll", "atol"), ("[easy]", "easy"))
    project(*pairs, ("- hard", "- hrd"), ("pocket", "poket"), ("{train: 1}", "[1]"))
    assert {line.partition("; ")[0] for line in problems(load_recipe, "mine", parse_overrides(["seed=x"]))} == {
        "argument seed  seed: Input should be a valid integer",
        f"{PATH}:1  titel: unknown key",
        f"{PATH}:1  title: is missing",
        f"{PATH}:3  region: unknown region 'atol'",
        f"{PATH}:6  reader: unknown reader 'poket'",
        f"{PATH}:7  data.options: Input should be an object",
        f"{PATH}:8  train.steps: Input should be a valid integer",
        f"{PATH}:8  train.loss: unknown loss 'sigmod'",
        f"{PATH}:10  sweep.global: Input should be a valid array",
        f"{PATH}:12  sweep.regional.0: unknown benchmark 'hrd'",
    }


@pytest.mark.parametrize(
    "text", ["", "- 1", "sweep: {global: [[a], 5, null, {b: c}], regional: [5]}", "data: {reader: [a]}"]
)
def test_recipe_of_another_shape_is_an_error_and_no_crash(project: Callable[..., None], text: str) -> None:
    Path(PATH).write_text(text)
    assert problems(load_recipe, "mine")


@pytest.mark.parametrize(
    ("argument", "problem"),
    [
        ("region=atol", "argument region  region: unknown region 'atol'; did you mean 'atoll'?"),
        ("family=embeding", "argument family  family: unknown family 'embeding'; did you mean 'embedding'?"),
        ("sweep.global=[esy]", "argument sweep.global  sweep.global.0: unknown benchmark 'esy'; did you mean 'easy'?"),
        ("sweep.global=[hard]", f"{PATH}:9 and argument sweep.global  sweep: 'hard' stands on both sides; give each"),
        ("data.reader=poket", "argument data.reader  reader: unknown reader 'poket'; did you mean 'pocket'?"),
        ("data.options.trian=2", "argument data.options.trian  options.trian: unknown option; did you mean 'train'?"),
        ("data.options={trian: 2}", "argument data.options  options.trian: unknown option; did you mean 'train'?"),
        ("train.loss=sigmod", "argument train.loss  train.loss: unknown loss 'sigmod'; did you mean 'sigmoid'?"),
    ],
)
def test_unknown_name_in_an_override_names_the_argument(
    project: Callable[..., None], argument: str, problem: str
) -> None:
    (found,) = problems(load_recipe, "mine", parse_overrides([argument]))
    assert found.startswith(problem)


def test_mistakes_in_the_files_that_a_recipe_names_come_with_its_own(project: Callable[..., None]) -> None:
    project(("pocket", "poket"))
    Path("recipes/regions/atoll.yaml").write_text("title: Atoll\ncountries: [TUV, Nauru]\n")
    Path("recipes/benchmarks/easy.yaml").write_text(BENCHMARK.replace("top1", "top2"))
    Path("recipes/benchmarks/hard.yaml").write_text(BENCHMARK.replace("test: 1", "tset: 1"))
    assert {line.partition(" Input")[0].partition(" String")[0] for line in problems(load_recipe, "mine")} == {
        "recipes/regions/atoll.yaml:2  countries.1:",
        "recipes/benchmarks/easy.yaml:6  task:",
        "recipes/benchmarks/hard.yaml:5  options.tset: unknown option; did you mean 'test'?",
        f"{PATH}:6  reader: unknown reader 'poket'; did you mean 'pocket'?",
    }


def test_unknown_reader_of_a_benchmark_gets_the_nearest_and_its_line(project: Callable[..., None]) -> None:
    path = Path("recipes/benchmarks/easy.yaml")
    path.write_text(BENCHMARK.replace("pocket", "parket"))
    found = problems(load_benchmark, "easy")
    assert found == [f"{path}:3  reader: unknown reader 'parket'; did you mean 'parquet'?"]


DRAWING = BENCHMARK.replace("top1", "drawing\nprompt: 'a {label}'\njudge: me/judge")


@pytest.mark.parametrize(
    ("family", "benchmark", "how"),
    [
        (
            "embedding",
            BENCHMARK.replace("top1", "question\nanswer: reasoned"),
            "task question, answered by reasoned, which family 'embedding'",
        ),
        ("embedding", DRAWING, "task drawing, which family 'embedding'"),
        ("embedding", BENCHMARK + "answer: letter\n", "task top1, answered by letter, which family 'embedding'"),
        ("embedding", BENCHMARK + "answer: open\n", "task top1, answered by open, which family 'embedding'"),
        ("diffusion", BENCHMARK, "task top1, which family 'diffusion'"),
        ("vlm", DRAWING, "task drawing, which family 'vlm'"),
    ],
)
@pytest.mark.parametrize(("name", "key"), [("easy", "10  sweep.global.0"), ("hard", "12  sweep.regional.0")])
def test_a_benchmark_that_the_family_cannot_be_asked_is_named(
    project: Callable[..., None], family: str, benchmark: str, how: str, name: str, key: str
) -> None:
    can = DRAWING if family == "diffusion" else BENCHMARK
    for other in ("easy", "hard"):
        Path(f"recipes/benchmarks/{other}.yaml").write_text(benchmark if other == name else can)
    project(("family: embedding", f"family: {family}"))
    assert problems(load_recipe, "mine") == [f"{PATH}:{key}: '{name}' is of {how} cannot do"]


def test_a_benchmark_that_the_family_can_be_asked_is_taken(project: Callable[..., None]) -> None:
    Path("recipes/benchmarks/easy.yaml").write_text(BENCHMARK + "answer: letter\n")
    Path("recipes/benchmarks/hard.yaml").write_text(BENCHMARK.replace("top1", "question\nanswer: open"))
    project(("family: embedding", "family: vlm"))
    assert load_recipe("mine").family == "vlm"


@pytest.mark.parametrize("family", ["embedding", "open_clip", "vlm"])
def test_questions_with_options_can_be_asked_of_all_that_see(project: Callable[..., None], family: str) -> None:
    Path("recipes/benchmarks/easy.yaml").write_text(BENCHMARK.replace("top1", "question"))
    project(("family: embedding", f"family: {family}"))
    assert load_recipe("mine").sweep.global_ == ("easy",)


def test_a_distance_is_measured_beside_the_qualities_alone(project: Callable[..., None]) -> None:
    for name in ("easy", "hard"):
        Path(f"recipes/benchmarks/{name}.yaml").write_text(DRAWING)
    Path("recipes/benchmarks/far.yaml").write_text(DRAWING + "measure: distance\n")
    diffusion = ("family: embedding", "family: diffusion")
    for side, old, key in (("global", "[easy]", "10  sweep.global.0"), ("regional", "- hard", "12  sweep.regional.0")):
        project(diffusion, (old, old.replace("easy", "far").replace("hard", "far")))
        assert problems(load_recipe, "mine") == [
            f"{PATH}:{key}: 'far' measures a distance, which is no quality; name it under sweep.beside"
        ], side
    project(diffusion, ("sweep:", "sweep:\n  beside: [far]"))
    assert load_recipe("mine").sweep.beside == ("far",)


def test_unknown_loss_of_what_comes_first_gets_the_nearest(project: Callable[..., None]) -> None:
    for name in ("easy", "hard"):
        Path(f"recipes/benchmarks/{name}.yaml").write_text(DRAWING)
    pretrain = "train:\n  pretrain:\n    loss: reconstuct\n    steps: 2"
    project(("family: embedding", "family: diffusion"), ("train: {steps: 2}", pretrain))
    assert problems(load_recipe, "mine") == [
        f"{PATH}:10  train.pretrain.loss: unknown loss 'reconstuct'; did you mean 'reconstruct'?"
    ]


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ("task: drawing\nprompt: '{label}'", "a judge and task: drawing go together"),
        ("task: top1\njudge: me/judge", "a judge and task: drawing go together"),
        ("task: top1\njudge_revision: v1", "judge_revision: goes with judge, the model that it is a commit of"),
        ("task: drawing\njudge: me/judge", "task: drawing needs a prompt with {label} in it"),
        ("task: drawing\njudge: me/judge\nprompt: a label", "task: drawing needs a prompt with {label} in it"),
        ("task: top1\nmeasure: confidence", "measure: confidence is for task: drawing"),
        ("task: choice\nmeasure: distance", "measure: distance is for task: drawing"),
        ("task: question\nmeasure: top1\nanswer: lettre", "answer"),
    ],
)
def test_fields_of_a_benchmark_go_together(project: Callable[..., None], fields: str, problem: str) -> None:
    path = Path("recipes/benchmarks/easy.yaml")
    path.write_text(BENCHMARK.replace("task: top1", fields))
    (found,) = problems(load_benchmark, "easy")
    assert found.startswith(str(path))
    assert problem in found


@pytest.mark.parametrize("measure", ["top1", "confidence", "distance"])
def test_drawings_are_measured_in_three_ways(project: Callable[..., None], measure: str) -> None:
    Path("recipes/benchmarks/easy.yaml").write_text(DRAWING + f"measure: {measure}\n")
    assert load_benchmark("easy").measure == measure


def test_min_retention_null_is_the_plain_rule(project: Callable[..., None]) -> None:
    assert load_recipe("mine").sweep.min_retention == 0.98
    project(("sweep:", "sweep:\n  min_retention: null"))
    assert load_recipe("mine").sweep.min_retention is None


SOURCES = """\
data:
  sources:
    near:
      reader: pocket
      options: {train: 1}
    far: {reader: pocket, options: {train: 1}, regional: false}
"""
ONE = "data:\n  reader: pocket\n  options: {train: 1}\n"


def test_a_recipe_may_mix_several_sources(project: Callable[..., None]) -> None:
    project((ONE, SOURCES), ("title: Mine", "title: Mine\nmixes: {half: {near: 50, far: null}}"))
    recipe = load_recipe("mine")
    assert list(recipe.data.corpora) == ["near", "far"]
    assert [corpus.regional for corpus in recipe.data.corpora.values()] == [True, False]
    assert recipe.mixes == {"half": {"near": 50, "far": None}}
    Path("recipes/again.yaml").write_text(registry.to_yaml(recipe.model_dump(mode="json", by_alias=True)))
    assert load_recipe("again") == recipe  # as it is written into the run folder, and published


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("reader: pocket\n", "reader: poket\n", "8  reader: unknown reader 'poket'; did you mean 'pocket'?"),
        ("  {train: 1}", "  {trian: 1}", "9  options.trian: unknown option; did you mean 'train'?"),
        (", regional", ", columns: {txt: x}, regional", "10  columns.txt: unknown field; did you mean 'text'?"),
        (", regional", ", languages: [Englsh], regional", "10  data.sources.far.languages: found 'Englsh'"),
        (", regional", ", regonal", "10  data.sources.far.regonal: unknown key; did you mean 'regional'?"),
        ("far: {", "a.b: {", "10  data.sources.a.b"),
        (
            "  sources:",
            "  license: mit\n  sources:",
            "6  data.license: belongs to each of the sources, not beside them",
        ),
        (
            "  sources:",
            "  reader: pocket\n  sources:",
            "6  data.reader: belongs to each of the sources, not beside them",
        ),
        (", regional", ", share: 0.5, regional", "7  data.sources.near: near has no share; give one to every source,"),
        (", regional", ", translate: true, regional", "10  data.sources.far.translate: needs the section translate"),
        (
            "title: Mine",
            "mixes: {a: {far: 1, neer: 1}}\ntitle: Mine",
            "1  mixes.a.neer: unknown source 'neer'; did you",
        ),
        ("title: Mine", "mixes: {a: {far: 0}}\ntitle: Mine", "1  mixes.a.far: Input should be greater than or equal"),
        ("title: Mine", "filter: {region: [txt]}\ntitle: Mine", "1  filter.region.0: 'txt' is no evidence"),
        ("title: Mine", "filter: {region: some}\ntitle: Mine", "1  filter.region: expected true, false or a list"),
        ("title: Mine", "filter:\n  max_cosine: 0.9\ntitle: Mine", "2  filter.max_cosine: needs filter.embedding"),
        (
            "title: Mine",
            "filter:\n  embedding_revision: v1\ntitle: Mine",
            "2  filter.embedding_revision: needs filter.embedding, the model that it is a commit of",
        ),
        ("title: Mine", "filter:\n  reward: {model: clip}\ntitle: Mine", "2  filter.reward: needs filter.min_reward"),
        (
            "title: Mine",
            "filter:\n  min_reward: 3\n  reward: {model: clp}\ntitle: Mine",
            "3  reward.model: unknown model",
        ),
        (
            "title: Mine",
            "filter:\n  min_reward: 3\n  reward: {model: image-reward}\ntitle: Mine",
            "3  reward.id: ImageReward is published as a pickle (.pt), which is never loaded; python scripts/convert",
        ),
        (
            "title: Mine",
            "translate:\n  translators: {n: {id: x}}\ntitle: Mine",
            "1  translate: no source has translate:",
        ),
        (
            "title: Mine",
            "translate:\n  translators: {n: {id: x}}\n  default: m\ntitle: Mine",
            "3  translate.default: unknown translator 'm'; known: n",
        ),
        (
            "title: Mine",
            "translate:\n  languages:\n  - ind\n  - tet\n  translators: {n: {id: x}}\n  default: n\ntitle: Mine",
            "4  translate.languages.1: tet (Tetum) is unsupported by NLLB-200",
        ),
        ("title: Mine", "engine: dask\ntitle: Mine", "1  engine: Input should be 'processes' or 'ray'"),
    ],
)
def test_a_mistake_in_sources_filters_mixes_and_translation_is_told_at_its_line(
    project: Callable[..., None], old: str, new: str, problem: str
) -> None:
    project((ONE, SOURCES), (old.strip(), new.strip()))
    found = problems(load_recipe, "mine")
    assert any(line.startswith(f"{PATH}:{problem}") for line in found), found


def test_mistakes_in_several_sources_and_mixes_come_at_once(project: Callable[..., None]) -> None:
    broken = SOURCES.replace("near:\n      reader: pocket", "near:\n      reader: poket").replace(
        "{train: 1}, r", "{x: 1}, r"
    )
    project((ONE, broken), ("title: Mine", "mixes: {a: {b: 1}, c: {d: 1}}\ntitle: Mine"))
    found = {line.partition(": unknown")[0].partition("  ")[2] for line in problems(load_recipe, "mine")}
    assert found == {"mixes.a.b", "mixes.c.d", "reader", "options.x"}


def test_several_sources_have_no_path_that_a_benchmark_could_read(project: Callable[..., None]) -> None:
    Path("recipes/benchmarks/hard.yaml").write_text(
        BENCHMARK.replace("reader: pocket\n  options:\n    test: 1", "reader: parquet")
    )
    project((ONE, SOURCES))
    assert problems(load_recipe, "mine") == [
        f"{PATH}:15  sweep.regional.0: 'hard' is read from data.path, which a recipe of several sources does not have; "
        "give a copy of it a source.path"
    ]


def test_shares_sum_to_one(project: Callable[..., None]) -> None:
    shares = SOURCES.replace("options: {train: 1}\n    far", "share: 0.75\n    far").replace(
        "regional: false", "share: 0.25"
    )
    project((ONE, shares))
    assert load_recipe("mine").data.sources["far"].share == 0.25
    found = problems(load_recipe, "mine", {"data.sources.far.share": 0.5})
    assert found == [f"{PATH}:6 and argument data.sources.far.share  data.sources: the shares sum to 1.25, expected 1"]


def test_recipe_that_is_not_there() -> None:
    assert problems(load_recipe, "nowhere/mine.yaml") == ["nowhere/mine.yaml: no such file"]
    (problem,) = problems(load_recipe, "pocket-see-embedding")
    assert problem.endswith("did you mean 'pocket-sea-embedding'?")


# ------------------------------------------------------------------------------------------------------------ extending
def test_a_recipe_that_extends_another_is_found_listed_and_resolved(project: Callable[..., None]) -> None:
    Path("recipes/longer.yaml").write_text("extends: mine\ntitle: Longer\ntrain: {epochs: 2}\n")
    recipe, parent = load_recipe("longer"), load_recipe("mine")
    changes = {"title": "Longer", "train": Train(epochs=2.0)}
    assert recipe == parent.model_copy(update=changes)
    assert load_recipe("longer", {"train.steps": 2, "title": "Mine"}) == parent
    row = {"name": "longer", "title": "Longer", "family": "embedding", "region": "atoll"}
    assert row in describe.listing("recipes")
    Path("whole.yaml").write_text(resolved(recipe))
    assert "extends" not in Path("whole.yaml").read_text()
    assert load_recipe("whole.yaml") == recipe


def test_problems_of_what_is_inherited_are_those_of_the_parents_lines(project: Callable[..., None]) -> None:
    project(("atoll", "atol"), ("[easy]", "[esy]"), ("- hard", "- hrd"), ("train: 1", "trian: 1"))
    child = Path("recipes/child.yaml")
    child.write_text("extends: mine\ntrain: {loss: sigmod}\nsweep:\n  regional: [easi]\n")
    with pytest.raises(ConfigError) as caught:
        validate_file(child)
    assert list(caught.value.problems) == [
        "recipes/child.yaml:2  train.loss: unknown loss 'sigmod'; did you mean 'sigmoid'?",
        "recipes/child.yaml:4  sweep.regional.0: unknown benchmark 'easi'; did you mean 'easy'?",
        f"{PATH}:3  region: unknown region 'atol'; did you mean 'atoll'?",
        f"{PATH}:7  options.trian: unknown option; did you mean 'train'?",
        f"{PATH}:10  sweep.global.0: unknown benchmark 'esy'; did you mean 'easy'?",
    ]


def test_a_recipe_of_a_stranger_extends_nothing(project: Callable[..., None]) -> None:
    Path("theirs.yaml").write_text(f"{RECIPE}extends: {Path(PATH).absolute()}\n")
    assert load_recipe("theirs.yaml").title == "Mine"
    (problem,) = problems(load_recipe, "theirs.yaml", None, False)
    assert problem.startswith("theirs.yaml:13  extends: unknown key; known: ")


def test_benchmarks_take_overrides(project: Callable[..., None]) -> None:
    changed = load("benchmarks", "easy", parse_overrides(["source.options={test: 3}", "average=[country]"]))
    assert changed == load_benchmark("easy", {"source.options": {"test": 3}, "average": ["country"]})
    assert (changed.source.options, changed.average) == ({"test": 3}, ("country",))
    found = problems(load, "benchmarks", "easy", parse_overrides(["source.options.tset=3", "averge=[country]"]))
    assert found == ["argument averge  averge: unknown key; did you mean 'average'?"]
    found = problems(load, "benchmarks", "easy", parse_overrides(["source.options.tset=3"]))
    assert found == ["argument source.options.tset  options.tset: unknown option; did you mean 'test'?"]


def test_regions_take_no_overrides(project: Callable[..., None]) -> None:
    assert load("regions", "atoll").title
    found = problems(load, "regions", "atoll", parse_overrides(["title=x"]))
    assert found == ["argument title: only recipes and benchmarks take overrides"]


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ("answer: lettre", "7  answer: unknown answer 'lettre'; did you mean 'letter'?"),
        ("scorer: acuracy", "7  scorer: unknown scorer 'acuracy'; did you mean 'accuracy'?"),
        ("answer: yes\nscorer: dpg-oficial", "8  scorer: unknown scorer 'dpg-oficial'; did you mean 'dpg-official'?"),
        (
            "answer: letter\nscorer: cider",
            "8  scorer: 'cider' does not score answers of 'letter'; it goes with answer: caption or open",
        ),
        ("scorer: dpg", "7  scorer: 'dpg' does not score answers of 'option'; it goes with answer: yes"),
        (
            "answer: caption",
            "1  scorer: 'accuracy' does not score answers of 'caption'; it goes with answer: option or letter or "
            "number or reasoned or yes or open or contains",
        ),
    ],
)
def test_an_unknown_way_to_read_or_score_gets_the_nearest_and_its_line(
    project: Callable[..., None], fields: str, problem: str
) -> None:
    path = Path("recipes/benchmarks/easy.yaml")
    path.write_text(BENCHMARK + fields + "\n")
    assert problems(load_benchmark, "easy") == [f"{path}:{problem}"]
    assert f"{path}:{problem}" in problems(load_recipe, "mine")


def test_unknown_ways_to_read_and_score_come_with_the_mistakes_of_the_source(project: Callable[..., None]) -> None:
    path = Path("recipes/benchmarks/easy.yaml")
    path.write_text(BENCHMARK.replace("test: 1", "tset: 1"))
    assert set(problems(load_benchmark, "easy", {"answer": "opne", "scorer": "dgp"})) == {
        "argument answer  answer: unknown answer 'opne'; did you mean 'open'?",
        "argument scorer  scorer: unknown scorer 'dgp'; did you mean 'dpg'?",
        f"{path}:5  options.tset: unknown option; did you mean 'test'?",
    }


@pytest.mark.parametrize(
    ("answer", "scorer"), [("number", "accuracy"), ("yes", "dpg-official"), ("caption", "cider"), ("open", "chrf")]
)
def test_ways_to_read_and_score_that_go_together_are_taken(
    project: Callable[..., None], answer: str, scorer: str
) -> None:
    Path("recipes/benchmarks/easy.yaml").write_text(BENCHMARK + f"answer: {answer}\nscorer: {scorer}\n")
    assert (load_benchmark("easy").answer, load_benchmark("easy").scorer) == (answer, scorer)


def test_a_run_measures_accuracy_alone(project: Callable[..., None]) -> None:
    for name in ("easy", "hard"):
        Path(f"recipes/benchmarks/{name}.yaml").write_text(BENCHMARK.replace("top1", "question\nanswer: open"))
    Path("recipes/benchmarks/hard.yaml").write_text(BENCHMARK.replace("top1", "question\nanswer: open\nscorer: chrf"))
    project(("family: embedding", "family: vlm"))
    assert problems(load_recipe, "mine") == [
        f"{PATH}:12  sweep.regional.0: 'hard' is scored by 'chrf', which `ggez score` does and a run does not"
    ]


def test_validate_tells_a_missing_file_from_an_empty_folder(tmp_path: Path) -> None:
    assert problems(validate_file, tmp_path / "no.yaml") == [f"{tmp_path / 'no.yaml'}: no such file"]
    assert problems(validate_file, tmp_path) == [f"{tmp_path}: no YAML file in it"]


# ------------------------------------------------------------------------------------------------- the shipped recipes
REAL = [name for name in registry.files("recipes") if not name.startswith(("pocket-", "omniglot-"))]
PAPER = {  # method.md: batch, rate, weight decay, epochs, alphas (and both ends)
    "sea-gemma3-27b": (64, 2e-5, 0.01, 3, (0, 0.05, 0.1, 0.5, 0.7, 1)),
    "sea-sdxl": (32, 1e-5, 0.01, 4, (0, 0.25, 0.5, 0.75, 1)),
    "sea-siglip2-so400m": (128, 5e-6, 0.001, 2, (0, 0.25, 0.5, 0.75, 1)),
}
WORLD_BANK = ("eap", "eca", "lac", "mena", "na", "sa", "ssa")


@pytest.mark.parametrize("name", PAPER)
def test_the_paper_s_recipes_say_what_the_paper_says(name: str) -> None:
    recipe = load_recipe(name)
    train, sweep = recipe.train, recipe.sweep
    assert (train.batch_size, train.learning_rate, train.weight_decay, train.epochs, sweep.alphas) == PAPER[name]
    assert (train.method, train.warmup, sweep.min_retention, sweep.year) == ("lora", 0, None, 2023)
    assert (recipe.region, recipe.filter.region, recipe.filter.min_reward) == ("sea", True, 3)
    assert recipe.filter.reward is not None
    assert recipe.filter.reward.model == "unified-reward"
    notes = " ".join(recipe.notes)
    assert all(said in notes for said in ("LoRA", "0.43", "Not said in the paper"))


def test_the_paper_s_language_model_learns_captions_first_and_translates_as_people_judged() -> None:
    recipe = load_recipe("sea-gemma3-27b")
    assert recipe.train.pretrain is not None
    assert (recipe.train.pretrain.loss, recipe.train.loss) == ("caption", "answers")
    sources = recipe.data.sources
    assert list(sources) == ["sea-vl", "xm3600", "flickr30k", "culturalground", "mammoth"]
    assert {name for name, corpus in sources.items() if corpus.translate} == {"flickr30k", "mammoth"}
    assert sources["mammoth"].cap == 250_000
    assert len(str(sources["mammoth"].options["shards"]).split("|")) == 5
    assert sources["culturalground"].options.get("questions", "open") == "open"
    assert recipe.translate is not None
    by = {language: recipe.translate.translators[name].id for language, name in recipe.translate.models.items()}
    assert {language for language, model in by.items() if "gemma-3-27b" in model} == {"ind", "vie", "zsm", "fil", "zho"}
    assert {language for language, model in by.items() if "gemini-2.5-flash" in model} == {
        "tha",
        "mya",
        "lao",
        "khm",
        "tam",
    }
    assert set(recipe.translate.languages) == set(by)


@pytest.mark.parametrize("name", PAPER)
def test_a_full_variant_differs_in_how_it_trains_alone(name: str) -> None:
    ours, theirs = (load_recipe(n).model_dump(by_alias=True) for n in (f"{name}-full", name))
    assert ours.pop("title") == f"{theirs.pop('title')}, {'the whole UNet' if 'sdxl' in name else 'every weight'}"
    assert ours["train"].pop("method") == "full"
    assert theirs["train"].pop("method") == "lora"
    assert ours == theirs


@pytest.mark.parametrize("region", WORLD_BANK)
@pytest.mark.parametrize(("family", "model"), [("embedding", "siglip2-base"), ("vlm", "gemma3-4b")])
def test_every_region_of_the_world_bank_has_a_recipe_of_both_families(region: str, family: str, model: str) -> None:
    recipe = load_recipe(f"{region}-{model}")
    assert (recipe.region, recipe.family) == (region, family)
    assert recipe.sweep.globalization is None  # from KOF, by region
    assert registry.load_region(region).title.partition(" and ")[0] in recipe.title
    assert all(load_benchmark(name).rows == "region" for name in recipe.sweep.regional)
    assert all(load_benchmark(name).rows == "others" for name in recipe.sweep.global_)


def test_the_regions_of_culturalground_are_its_42_countries_each_in_its_region() -> None:
    named: list[str] = ["taiwan"]  # in no region of the KOF index
    for region in WORLD_BANK:
        found = {}
        for model in ("siglip2-base", "gemma3-4b"):
            recipe = load_recipe(f"{region}-{model}")
            found[model] = [
                name
                for corpus in recipe.data.corpora.values()
                if corpus.reader == "culturalground"
                for name in str(corpus.options["countries"]).split("|")
            ]
        assert found["siglip2-base"] == found["gemma3-4b"]
        codes = {iso3(name.replace("_", " ")) for name in found["gemma3-4b"]}
        assert codes <= set(registry.load_region(region).countries)
        named += found["gemma3-4b"]
    assert len(named) == len(set(named)) == 42


@pytest.mark.parametrize("name", REAL)
def test_licenses_of_a_shipped_recipe_go_together_or_it_says_what_is_missing(name: str) -> None:
    recipe = load_recipe(name)
    given = [("base.license", recipe.base.license), *account.licenses(recipe)]
    found = [problem for key, license_ in given for problem in conflicts(key, license_, recipe.card.license)]
    if name.startswith("culturevlm-"):  # whose data are not public
        assert all(problem.startswith("data.") and problem.endswith("is not stated") for problem in found)
        assert any("license is not stated until you give it" in note for note in recipe.notes)
    else:
        assert found == []


@pytest.mark.parametrize("name", REAL)
def test_a_shipped_recipe_says_what_it_is_for_and_is_pinned_where_a_commit_is_known(name: str) -> None:
    recipe = load_recipe(name)
    card = recipe.card
    assert min(len(text) for text in (card.intended_use, card.limits, card.cautions)) > 80
    assert re.fullmatch(r"[0-9a-f]{40}", recipe.base.revision or "")
    assert recipe.base.gated == ("gemma" in (recipe.base.id or ""))
    assert ("Gemma's terms of use" in card.cautions) == recipe.base.gated
    assert recipe.filter.contamination == "drop"  # no real corpus is known to have nothing of a benchmark


@pytest.mark.parametrize("name", ["culturevlm-continents-gemma3-4b", "culturevlm-categories-gemma3-4b"])
def test_every_source_of_a_generalisation_matrix_is_a_mix_of_its_own_with_as_many_rows(name: str) -> None:
    recipe = load_recipe(name)
    rows = {mix: sum(count or 0 for count in taken.values()) for mix, taken in recipe.mixes.items()}
    assert set(rows) == {*recipe.data.sources, "all"}
    assert len(set(rows.values())) == 1
    assert all(set(recipe.mixes[source]) == {source} for source in recipe.data.sources)
    assert set(recipe.mixes["all"]) == set(recipe.data.sources)
