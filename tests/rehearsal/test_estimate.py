"""What an estimate counts is what a run takes: compared with real tensors, of tiny models."""

import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from ggez_hub import families, recipes, registry
from ggez_hub.rehearsal import bases, estimate
from ggez_hub.rehearsal.bases import Architecture
from ggez_hub.rehearsal.estimate import assumptions, counting, data, models
from ggez_hub.rehearsal.estimate.counting import Shape
from ggez_hub.schema import Corpus, Recipe
from ggez_hub.stages import train

TEXTS = ["a drawing of nasi lemak", "a picture that shows wau bulan", "Which country is this from?"]
BENCHMARKS = {"embedding": "top1", "open_clip": "top1", "vlm": "question", "diffusion": "drawing"}
SLOW = [pytest.param(family, marks=pytest.mark.slow) for family in ("embedding", "diffusion")]
KNOWN = bases.known()


def recipe(family: str, base: str = "a/b", sweep: dict[str, Any] | None = None, **settings: Any) -> Recipe:
    """A recipe of a family, with settings of its training."""
    questions = {side: [f"pocket-{side}-{BENCHMARKS[family]}"] for side in ("global", "regional")}
    whole = {
        "title": "Test", "family": family, "region": "sea", "base": {"id": base}, "data": {"reader": "parquet"},
        "train": settings, "sweep": questions | (sweep or {}),
    }  # fmt: skip
    return Recipe.model_validate_json(json.dumps(whole))


def tiny(family: str, folder: Path) -> Architecture:
    """A tiny model in a folder, and what it is made of."""
    families.get(family).write_tiny(folder, TEXTS)
    return bases.find(str(folder), family)


def rows(family: str, count: int) -> list[dict[str, Any]]:
    """Rows that differ."""
    asked = [{"role": "user", "content": "<image>Which?"}, {"role": "assistant", "content": "a drawing of nasi lemak"}]
    return [
        {"image": Image.new("RGB", (40, 40), (20 * i, 0, 0)), "text": f"{TEXTS[0]} {i}", "label": str(i)}
        | ({"messages": asked} if family == "vlm" else {})
        for i in range(count)
    ]


def prepared(family: str, loaded: Any, count: int) -> Any:
    """Rows as the training has them: of diffusion what the VAE and the text encoders make of them."""
    if family != "diffusion":
        return rows(family, count)
    import datasets

    encoded = [row | {"image": {"bytes": png(row["image"])}} for row in rows(family, count)]
    return list(families.get(family).prepare(loaded, datasets.Dataset.from_list(encoded), "denoise", count, None)[0])


def png(image: Image.Image) -> bytes:
    """An encoded picture."""
    file = io.BytesIO()
    image.save(file, "png")
    return file.getvalue()


def measured(family: str, loaded: Any, made: Recipe, count: int) -> tuple[int, int, dict[str, Any]]:
    """Bytes saved for the backward pass and operations of a real step on the CPU; and the inputs of the model."""
    module = families.get(family)
    if made.train.gradient_checkpointing:
        train.checkpoint_activations(module.network(loaded, next(iter(module.LOSSES))))
    loaded.model.train()
    weights = {id(p.untyped_storage()) for p in [*loaded.model.parameters(), *loaded.model.buffers()]}
    alive = [p.untyped_storage() for p in [*loaded.model.parameters(), *loaded.model.buffers()]]
    saved: dict[int, Any] = {}
    seen: dict[str, Any] = {}
    loaded.model.register_forward_pre_hook(lambda _, args, kwargs: seen.update(kwargs), with_kwargs=True)
    (part,) = module.losses(loaded, prepared(family, loaded, count), count)

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if id(storage) not in weights:
            saved[id(storage)] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), FlopCounterMode(display=False) as flops:
        part().backward()
    assert alive
    return sum(storage.nbytes() for storage in saved.values()), flops.get_total_flops(), seen


@pytest.mark.parametrize("family", ["open_clip", "vlm", *SLOW])
def test_what_a_step_of_a_lora_keeps_and_computes_is_counted_as_it_is(family: str, tmp_path: Path) -> None:
    architecture = tiny(family, tmp_path / "base")
    made = recipe(family, str(tmp_path / "base"), batch_size=3, lora={"r": 4})
    module = families.get(family)
    loaded = module.load(tmp_path / "base")
    train.add_lora(module, loaded, made)
    saved, flops, inputs = measured(family, loaded, made, 3)
    shape = Shape()
    if family == "vlm":
        length, keep = inputs["input_ids"].shape[1], inputs["logits_to_keep"]
        picture = models.picture_tokens(architecture)
        shape = Shape(picture, length - picture - keep + 1, keep - 1)
    cost = counting.step(models.model(architecture, made, gpu=False), 3, shape)
    assert cost.flops == pytest.approx(flops, rel=0.02)
    assert cost.saved == pytest.approx(saved, rel=0.05)
    assert cost.peak > cost.saved


@pytest.mark.parametrize("family", ["open_clip", pytest.param("vlm", marks=pytest.mark.slow), *SLOW])
def test_parameters_and_adapter_are_exactly_those_of_a_run(family: str, tmp_path: Path) -> None:
    from safetensors import safe_open

    architecture = tiny(family, tmp_path / "base")
    made = recipe(family, str(tmp_path / "base"), lora={"r": 4})
    module = families.get(family)
    loaded = module.load(tmp_path / "base")
    count = sum(p.numel() for p in loaded.model.parameters())
    train.add_lora(module, loaded, made)
    module.save_adapter(loaded, tmp_path / "adapter")
    with safe_open(tmp_path / "adapter" / "adapter_model.safetensors", "pt") as file:
        written = sum(file.get_tensor(name).numel() for name in file.keys())  # noqa: SIM118
    found = estimate.estimate(made, architecture)
    assert found.trained.value == written
    assert found.disk["adapter"].value == 4 * written
    assert found.parameters["unet" if family == "diffusion" else "model"].value == count


def test_parameters_of_published_models_are_those_that_their_cards_say() -> None:
    said = {
        "google/gemma-3-4b-it": ("model", 4_300_079_472),
        "google/gemma-3-27b-it": ("model", 27_432_406_640),
        "stabilityai/stable-diffusion-xl-base-1.0": ("unet", 2_567_463_684),
        "laion/CLIP-ViT-B-32-laion2B-s34B-b79K": ("model", 151_277_313),
    }
    for name, (part, count) in said.items():
        assert models.parameters(bases.built(KNOWN[name])[part]) == count


@pytest.mark.slow
@pytest.mark.parametrize("family", ["embedding", "vlm"])
def test_a_deep_model_is_counted_from_a_few_of_its_layers(family: str, tmp_path: Path) -> None:
    deep = {"layers": 9, "vision_layers": 7} if family == "vlm" else {"layers": 7, "text_layers": 9}
    families.get(family).write_tiny(tmp_path / "base", TEXTS, **deep)
    architecture = bases.find(str(tmp_path / "base"), family)
    assert sorted(models.left_out(architecture)) == [5, 7]
    shape = Shape(4, 20, 20) if family == "vlm" else Shape()
    for settings in ({}, {"gradient_checkpointing": True}):
        made = recipe(family, batch_size=2, lora={"r": 1}, **settings)
        few = models.shallow(architecture, made)
        whole = models.model(architecture, made)
        step = counting.step(whole, 2, shape)
        found = counting.extended([counting.step(one, 2, shape) for one in few], models.left_out(architecture))
        assert (found.flops, found.saved) == (step.flops, pytest.approx(step.saved, rel=0.01))
        assert found.peak == pytest.approx(step.peak, rel=0.1)
    for name, cost in counting.answers(whole, 2, shape).items():
        passes = [counting.answers(one, 2, shape)[name] for one in few]
        found = counting.extended(passes, models.left_out(architecture))
        assert (found.flops, found.peak) == (cost.flops, pytest.approx(cost.peak, rel=0.1))


@pytest.mark.slow
def test_checkpointing_keeps_less_and_computes_more(tmp_path: Path) -> None:
    families.get("embedding").write_tiny(tmp_path / "base", TEXTS, layers=8, text_layers=8, hidden=64, text_hidden=64)
    architecture = bases.find(str(tmp_path / "base"), "embedding")
    costs = [
        counting.step(models.model(architecture, recipe("embedding", gradient_checkpointing=how, lora={"r": 1})), 8)
        for how in (False, True)
    ]
    assert costs[1].peak < costs[0].peak / 3  # what is recomputed is let go of layer by layer
    assert costs[0].flops * 1.2 < costs[1].flops < costs[0].flops * 1.7


@pytest.mark.slow
def test_a_batch_that_nothing_holds_is_told_with_one_that_fits() -> None:
    architecture = KNOWN["google/siglip2-base-patch16-224"]
    large = estimate.estimate(recipe("embedding", batch_size=8192, sweep={"batch_size": 64}), architecture)
    assert (large.possible, large.fits, large.peak_stage) == (False, (), "train")
    assert large.hint
    rows = int(large.hint.removeprefix("lower train.micro_batch_size from 8192 to ").split()[0])
    lowered = recipe("embedding", batch_size=8192, micro_batch_size=rows, sweep={"batch_size": 64})
    assert estimate.estimate(lowered, architecture).possible


def test_a_sweep_that_nothing_holds_is_told_with_its_setting(tmp_path: Path) -> None:
    architecture = tiny("embedding", tmp_path / "base")
    small = estimate.estimate(recipe("embedding", batch_size=32, sweep={"batch_size": 64}), architecture)
    assert (small.possible, small.hint) == (True, None)
    assert small.fits[0] == assumptions.hardware().gpus[0].name
    swept = estimate.estimate(recipe("embedding", batch_size=32, sweep={"batch_size": 5_000_000}), architecture)
    assert (swept.possible, swept.peak_stage) == (False, "sweep")
    assert "lower sweep.batch_size" in (swept.hint or "")


def test_every_number_says_how_it_comes_about_and_the_sums_are_sums(tmp_path: Path) -> None:
    found = estimate.estimate(recipe("embedding", str(tmp_path), batch_size=4), tiny("embedding", tmp_path / "base"))
    plain = json.loads(json.dumps(found.plain()))

    def numbers(value: Any) -> list[dict[str, Any]]:
        if isinstance(value, dict):
            return (
                [value] if set(value) == {"value", "unit", "how"} else [n for v in value.values() for n in numbers(v)]
            )
        return [n for v in value for n in numbers(v)] if isinstance(value, list) else []

    assert len(numbers(plain)) > 20
    assert all(number["how"] and number["unit"] for number in numbers(plain))
    for items in (plain["memory"]["train"], plain["memory"]["sweep"], plain["disk"]):
        assert items["all"]["value"] == pytest.approx(sum(n["value"] for name, n in items.items() if name != "all"))
    text = estimate.text(found)
    assert "memory of a GPU, train" in text
    assert "not in these numbers" in text  # of such data nothing is known


def test_epochs_need_the_rows_and_caps_bound_them(tmp_path: Path) -> None:
    architecture = tiny("embedding", tmp_path / "base")
    made = recipe("embedding", batch_size=100, epochs=2.0)
    unknown = estimate.estimate(made, architecture)
    assert unknown.steps["train"].value is None
    assert all(way.hours["train"].value is None and way.hours["1,000 steps"].value for way in unknown.ways)
    capped = made.model_copy(update={"data": made.data.model_copy(update={"cap": 5000})})
    known = estimate.estimate(capped, architecture)
    assert known.steps["train"].value == 100
    assert known.ways[0].hours["train"].value == pytest.approx((known.ways[0].hours["1,000 steps"].value or 0) / 10)


def test_rows_follow_what_a_source_names_of_a_data_set() -> None:
    def rows(id_: str, **more: Any) -> tuple[float | None, str]:
        found = data.rows_of(Corpus.model_validate({"reader": "parquet", "id": id_, **more}))
        return found.value, found.how

    captions, how = rows("floschne/xm3600", where={"language": ("eng", "tha")})
    assert (captions, rows("floschne/xm3600")[0]) == (round(261_375 * 2 / 36), 261_375)
    assert "2 of 36 by language, as if all were alike (assumption)" in how
    country = 14_000_000 / 42
    assert rows("neulab/CulturalGround", options={"countries": "thailand"})[0] == round(country)
    assert rows("neulab/CulturalGround", options={"countries": "thailand|india"})[0] == round(country + 717_590)
    assert rows("SEACrowd/sea-vl_crowdsourcing", options={"captions": "english"})[0] == 7010
    assert rows("MAmmoTH-VL/MAmmoTH-VL-Instruct-12M", options={"shards": "shard_*"})[0] is None
    assert rows("nobody/knows") == (None, "nobody/knows: nothing is known of it")


def test_a_phase_counts_the_rows_that_have_what_it_learns_from() -> None:
    made = recipes.load_recipe("mena-gemma3-4b")  # conversations of CulturalGround, captions of XM3600
    found = data.rows(made)
    captions, asked = (data.eligible(made, found, field).value for field in ("text", "messages"))
    assert (captions, asked) == (found["xm3600"].value, found["culturalground"].value)
    matched = recipes.load_recipe("mena-siglip2-base")  # answers of CulturalGround are captions there
    assert data.eligible(matched, data.rows(matched), "text").value == data.rows(matched)["all"].value


def test_captions_and_conversations_are_phases_of_their_own(tmp_path: Path) -> None:
    made = recipe("vlm", epochs=2.0, batch_size=4, pretrain={"loss": "caption", "epochs": 1.0})
    sources = recipes.load_recipe("mena-gemma3-4b").data
    found = estimate.estimate(made.model_copy(update={"data": sources}), tiny("vlm", tmp_path / "base"))
    expected = {"pretrain": math.ceil((found.rows["xm3600"].value or 0) / 4), "train": 2 * 60_000 / 4}
    assert {name: steps.value for name, steps in found.steps.items()} == expected


def test_only_parts_that_are_fetched_count_as_bytes() -> None:
    def size(**more: Any) -> float | None:
        more |= {"reader": "parquet", "id": "MAmmoTH-VL/MAmmoTH-VL-Instruct-12M"}
        return data.bytes_of(Corpus.model_validate(more))

    assert size() == size(where={"language": ("en",)}) == 3.4e12
    assert size(options={"shards": "shard_1|shard_2"}) == pytest.approx(25.85e9 + 2 * (3.4e12 - 25.85e9) / 100)


@pytest.mark.parametrize(
    "name", [name for name in registry.files("recipes") if "-gemma3-" in name or "siglip2" in name]
)
def test_of_shipped_recipes_with_published_data_the_rows_are_known(name: str) -> None:
    made = recipes.load_recipe(name)
    if all(source.id for source in made.data.corpora.values()):
        assert data.rows(made)["all"].value


def test_what_is_assumed_names_its_source() -> None:
    assert all(gpu.source for gpu in assumptions.hardware().gpus)
    assert all(one.source for one in assumptions.corpora().sets)
    assert [gpu.memory for gpu in assumptions.hardware().gpus] == sorted(
        gpu.memory for gpu in assumptions.hardware().gpus
    )
