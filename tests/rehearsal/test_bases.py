"""What is known of base models is what was published, and what is not known is said with the next step."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ggez_hub import load_recipe, registry
from ggez_hub.errors import ConfigError, InputError
from ggez_hub.families import diffusion, embedding, open_clip, vlm
from ggez_hub.rehearsal import bases
from ggez_hub.schema import Recipe
from tests.hub_server import HubServer

TABLE = sorted(bases.known())
# Published: the bytes of the float32 weights on the Hub over four, or what the card says.
PARAMETERS: dict[str, dict[str, float]] = {
    "google/gemma-3-27b-it": {"model": 27.43e9},
    "google/gemma-3-4b-it": {"model": 4.300e9},
    "google/siglip2-so400m-patch14-384": {"model": 4544143072 / 4},
    "google/siglip2-base-patch16-224": {"model": 1500800904 / 4},
    "laion/CLIP-ViT-B-32-laion2B-s34B-b79K": {"model": 605143316 / 4},
    "stabilityai/stable-diffusion-xl-base-1.0": {
        "unet": 10270077736 / 4,
        "vae": 334643268 / 4,
        "text_encoder": 492265168 / 4,
        "text_encoder_2": 2778702264 / 4,
    },
    "stable-diffusion-v1-5/stable-diffusion-v1-5": {
        "unet": 3438167540 / 4,
        "vae": 334643276 / 4,
        "text_encoder": 492265874 / 4,
        "safety_checker": 1215981830 / 4,
    },
}
RECIPE = """\
title: Tiny
family: {family}
region: sea
base: {base}
data: {{reader: pocket, options: {{train: 1}}, synthetic: true}}
sweep: {{global: [pocket-global-top1], regional: [pocket-regional-top1]}}
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Recipe]:
    """Writes recipes/NAME.yaml in the current folder, and loads it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").mkdir()

    def write(base: str, family: str = "embedding", name: str = "tiny") -> Recipe:
        (tmp_path / "recipes" / f"{name}.yaml").write_text(RECIPE.format(family=family, base=base))
        return load_recipe(name)

    return write


def folder_with(folder: Path, **files: Any) -> Path:
    for name, content in files.items():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


# ------------------------------------------------------------------------------------------------------------ the table
LARGE = ("google/gemma-3-27b-it", "google/gemma-3-4b-it", "stabilityai/stable-diffusion-xl-base-1.0")  # seconds each


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in LARGE else name for name in TABLE]
)
def test_the_real_classes_have_as_many_parameters_as_was_published(name: str) -> None:
    parts = bases.built(bases.known()[name])
    counts = {part: sum(p.numel() for p in module.parameters()) for part, module in parts.items()}
    assert counts == pytest.approx(PARAMETERS[name], rel=5e-4)
    assert {p.device.type for module in parts.values() for p in module.parameters()} == {"meta"}


@pytest.mark.parametrize("name", TABLE)
def test_every_known_base_has_a_family_and_a_twin(name: str) -> None:
    found = bases.find(name, "any")
    assert found.family in registry.files("families")
    assert found.class_name in bases.TWINS[found.family]
    assert (found.id, found.known_from) == (name, "table")
    assert found.license
    assert found.gated == name.startswith("google/gemma")


def test_gemma_has_both_kinds_of_layers_and_the_attention_scale_of_its_size() -> None:
    small, large = (bases.built(bases.known()[f"google/gemma-3-{size}-it"])["model"].config.text_config
                    for size in ("4b", "27b"))  # fmt: skip
    for text, layers in ((small, 34), (large, 62)):
        assert len(text.layer_types) == layers
        assert text.layer_types[:6] == ["sliding_attention"] * 5 + ["full_attention"]
        assert text.rope_parameters["full_attention"]["factor"] == 8
        assert text.vocab_size == 262208
    assert (small.query_pre_attn_scalar, large.query_pre_attn_scalar) == (256, 168)


@pytest.mark.parametrize(("changed", "line", "words"), [
    ("gated: false", 3, "gated: Input should be a valid boolean"),
    ("family: embedding", 2, "famly: unknown key; did you mean 'family'?"),
])  # fmt: skip
def test_a_broken_file_of_the_table_is_told_with_its_line(
    changed: str, line: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "id: a/b\nfamily: embedding\ngated: false\nlicense: mit\nconfig: {}\n"
    broken = {"gated: false": "gated: perhaps", "family: embedding": "family: embedding\nfamly: vlm"}[changed]
    (tmp_path / "b.yaml").write_text(text.replace(changed, broken))
    monkeypatch.setattr(bases, "TABLE", tmp_path)
    with pytest.raises(ConfigError) as caught:
        bases.known()
    assert f"b.yaml:{line + ('famly' in words)}  {words}" in str(caught.value)


# ------------------------------------------------------------------------------------------------------ a recipe's base
@pytest.mark.parametrize(("family", "base", "class_name"), [
    ("embedding", "{id: google/siglip2-base-patch16-224}", "SiglipModel"),
    ("embedding", "{id: ggez-hub/pocket-base-embedding}", "SiglipModel"),
    ("embedding", "{random: {hidden: 16, text_hidden: 16}}", "SiglipModel"),
    ("embedding", "{recipe: pocket-base-embedding}", "SiglipModel"),
])  # fmt: skip
def test_base_of_a_recipe_is_found_however_it_is_given(
    family: str, base: str, class_name: str, recipe: Callable[..., Recipe]
) -> None:
    found = bases.of(recipe(base, family))
    assert (found.family, found.class_name) == (family, class_name)
    assert found.known_from == ("table" if "google" in base else "folder")


def test_sizes_of_a_random_start_are_those_of_the_recipe(recipe: Callable[..., Recipe]) -> None:
    found = bases.of(recipe("{random: {hidden: 16, text_hidden: 24}}"))
    assert found.config["vision_config"]["hidden_size"] == 16
    assert found.config["text_config"]["hidden_size"] == 24
    assert found.id == "random weights"


def test_base_that_another_recipe_makes_has_the_name_it_is_published_by(recipe: Callable[..., Recipe]) -> None:
    recipe("{id: google/siglip2-base-patch16-224}", name="first")
    recipe("{recipe: first}", name="second")
    found = bases.of(recipe("{recipe: second}", name="third"))
    assert (found.id, found.license) == ("ggez-hub/second", "apache-2.0")


def test_recipes_that_start_from_each_other_are_refused(recipe: Callable[..., Recipe]) -> None:
    recipe("{id: google/siglip2-base-patch16-224}", name="one")
    recipe("{recipe: one}", name="two")
    with pytest.raises(InputError, match="two -> one -> two: a circle"):
        bases.of(recipe("{recipe: two}", name="one"))


def test_base_of_another_family_is_refused(recipe: Callable[..., Recipe]) -> None:
    with pytest.raises(InputError, match=r"gemma-3-4b-it: Gemma3.* is of family vlm, the recipe of embedding"):
        bases.of(recipe("{id: google/gemma-3-4b-it}"))


@pytest.mark.parametrize("family", [vlm, embedding, diffusion, open_clip], ids=lambda module: str(module.__name__))
def test_model_in_a_folder_is_read_from_its_own_files(family: Any, tmp_path: Path) -> None:
    family.write_tiny(tmp_path / "base")
    name = family.__name__.rpartition(".")[2]
    found = bases.find(str(tmp_path / "base"), "embedding" if name == "open_clip" else name)
    assert (found.family, found.known_from, found.download) == (name, "folder", 0)
    assert found.class_name == bases.TWINS[name][0]
    (module, *_) = bases.built(found).values()
    assert sum(p.numel() for p in module.parameters()) > 1000


# ------------------------------------------------------------------------------------------------------ what is unknown
def test_unknown_id_without_the_network_names_what_is_known_and_the_next_step() -> None:
    with pytest.raises(InputError) as caught:
        bases.find("someone/else", "vlm")
    assert "someone/else" in caught.value.message
    assert "google/gemma-3-4b-it" in caught.value.message
    assert "network" in str(caught.value.hint)
    assert "folder" in str(caught.value.hint)


@pytest.mark.parametrize(("family", "files", "found"), [
    ("vlm", {"config": {"architectures": ["Qwen3VLForConditionalGeneration"], "model_type": "qwen3_vl"}}, "Qwen3VLFor"),
    ("vlm", {"config": {"model_type": "llava"}}, "is llava"),
    ("diffusion", {"model_index": {"_class_name": "FluxPipeline"}}, "FluxPipeline"),
    ("open_clip", {"open_clip_config": {"model_cfg": {"text_cfg": {"hf_model_name": "xlm"}, "vision_cfg": {}}}}, "xlm"),
])  # fmt: skip
def test_unknown_architecture_names_itself_and_those_that_twins_exist_of(
    family: str, files: dict[str, Any], found: str, tmp_path: Path
) -> None:
    folder = folder_with(tmp_path / "base", **files)
    with pytest.raises(InputError) as caught:
        bases.find(str(folder), family)
    assert str(folder) in caught.value.message
    assert found in caught.value.message
    assert " and ".join(bases.TWINS[family]) in caught.value.message
    assert "ggez run RECIPE train.steps=2" in str(caught.value.hint)


@pytest.mark.parametrize(("files", "words"), [
    ({"config": []}, "expected a mapping, found a list"),
    ({"open_clip_config": {"model_cfg": {"text_cfg": 3, "vision_cfg": {}}}}, "model_cfg.text_cfg: expected a mapping"),
    ({"open_clip_config": {}}, "model_cfg: expected a mapping"),
    ({"other": {}}, "no config.json"),
])  # fmt: skip
def test_folder_that_holds_no_model_is_refused(files: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        bases.find(str(folder_with(tmp_path / "base", **files)), "embedding")


def test_with_the_network_only_configurations_are_fetched(data_hub: HubServer, tmp_path: Path) -> None:
    embedding.write_tiny(tmp_path / "base")
    files = {path.name: path.read_bytes() for path in (tmp_path / "base").iterdir()}
    card = b"---\nlicense: mit\n---\n# A model\n"
    data_hub.add("someone/new", {**files, "README.md": card, "pytorch_model.bin": b"pickle" * 100,
                                  "model.fp16.safetensors": b"the same"})  # fmt: skip
    found = bases.find("someone/new", "embedding", online=True)
    assert (found.class_name, found.license, found.gated, found.known_from) == ("SiglipModel", "mit", False, "the Hub")
    assert found.download == sum(map(len, files.values())) + len(card)
    asked = {request.path.rpartition("/")[2] for request in data_hub.requests if "/resolve/" in request.path}
    assert asked <= {"config.json", "tokenizer_config.json"}
