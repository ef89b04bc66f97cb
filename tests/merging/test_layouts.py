"""Merged files as the libraries lay them out and read them: Gemma-3 of several versions, diffusers, open_clip."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from transformers import Gemma3Config, Gemma3ForConditionalGeneration

from ggez_hub.errors import InputError
from ggez_hub.merging.attention import split_attention
from ggez_hub.merging.checkpoints import merge

Tensors = dict[str, torch.Tensor]


def randomized(model: Any, seed: int, only: str = "") -> Any:
    """A model none of whose weights is zero or one, as after training; or only those of an adapter."""
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if only in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return model


def save_adapter(model: Any, config: LoraConfig, folder: Path) -> Path:
    """An adapter injected into a model of another library, in PEFT's format."""
    folder.mkdir()
    config.save_pretrained(folder)
    factors = get_peft_model_state_dict(model)
    save_file({f"base_model.model.{name}": t for name, t in factors.items()}, folder / "adapter_model.safetensors")
    return folder


def assert_equal_models(ours: Any, theirs: Any, atol: float = 0) -> None:
    found, expected = ours.state_dict(), theirs.state_dict()
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=atol)


def between(low: Any, high: Any, alpha: float) -> Any:
    """The first model, moved to the second in memory; tied tensors once."""
    with torch.no_grad():
        for name, tensor in low.named_parameters():
            tensor.copy_(torch.lerp(tensor, high.get_parameter(name), alpha))
    return low


# --------------------------------------------------------------------------------------------------------- transformers
def gemma(seed: int) -> Any:
    config = Gemma3Config(
        text_config={
            "vocab_size": 40, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "query_pre_attn_scalar": 16,
            "layer_types": ["sliding_attention", "full_attention"],
            "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
        },
        vision_config={
            "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
            "image_size": 28, "patch_size": 14, "vision_use_head": False,
        },
        mm_tokens_per_image=1, image_token_index=5, boi_token_index=3, eoi_token_index=4,
    )  # fmt: skip
    return randomized(Gemma3ForConditionalGeneration(config), seed).eval()


def renamed(folder: Path, into: Path, pattern: str, replacement: str, extra: Tensors | None = None) -> Path:
    """A copy of a checkpoint in the names of another version of transformers."""
    into.mkdir()
    tensors = load_file(folder / "model.safetensors")
    named = {re.sub(pattern, replacement, name, count=1): tensor for name, tensor in tensors.items()} | (extra or {})
    assert named.keys() != tensors.keys()
    save_file(named, into / "model.safetensors", metadata={"format": "pt"})
    (into / "config.json").write_bytes((folder / "config.json").read_bytes())
    return into


@pytest.fixture(scope="module")
def gemmas(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Base, regional model and an adapter; the base also as the Hub's older files and as memory name it."""
    root = tmp_path_factory.mktemp("gemma")
    for name, seed in (("base", 0), ("regional", 1)):
        gemma(seed).save_pretrained(root / name)
    targets = r".*language_model.*\.(q_proj|down_proj)|.*vision_tower.*\.(v_proj|fc1)"
    adapted = get_peft_model(gemma(0), LoraConfig(r=2, target_modules=targets))
    randomized(adapted, 2, "lora_B").save_pretrained(root / "adapter", save_embedding_layers=False)
    renamed(root / "base", root / "hub", r"^vision_tower\.", "vision_tower.vision_model.")
    renamed(root / "base", root / "memory", r"^(language_model\.)?(model\.)?", r"model.\1")
    return {folder.name: folder for folder in root.iterdir()}


LAYOUTS = pytest.mark.parametrize("layout", ["base", "hub", "memory"])


@LAYOUTS
def test_gemma_adapter_fits_every_layout_of_its_base(gemmas: dict[str, Path], tmp_path: Path, layout: str) -> None:
    done = merge(gemmas[layout], {gemmas["adapter"]: 1}, tmp_path / "out")
    assert done.changed == 8, "two layers of two towers with two linear maps each"
    theirs = PeftModel.from_pretrained(gemma(0), gemmas["adapter"]).merge_and_unload()
    assert_equal_models(Gemma3ForConditionalGeneration.from_pretrained(tmp_path / "out"), theirs, atol=1e-6)
    assert (
        load_file(tmp_path / "out" / "model.safetensors").keys()
        == load_file(gemmas[layout] / "model.safetensors").keys()
    )


@LAYOUTS
@pytest.mark.parametrize("swap", [False, True])
def test_gemma_checkpoints_of_two_layouts_merge(
    gemmas: dict[str, Path], tmp_path: Path, layout: str, swap: bool
) -> None:
    base, regional = (gemmas["regional"], gemmas[layout]) if swap else (gemmas[layout], gemmas["regional"])
    merge(base, {regional: 0.25}, tmp_path / "out")
    expected = between(gemma(1), gemma(0), 0.25) if swap else between(gemma(0), gemma(1), 0.25)
    assert_equal_models(Gemma3ForConditionalGeneration.from_pretrained(tmp_path / "out"), expected)


@pytest.mark.parametrize("own", [False, True])
def test_gemma_output_layer_is_dropped_only_if_it_is_the_tied_one(
    gemmas: dict[str, Path], tmp_path: Path, own: bool
) -> None:
    embeddings = load_file(gemmas["regional"] / "model.safetensors")["language_model.model.embed_tokens.weight"]
    head = {"language_model.lm_head.weight": embeddings + own}
    regional = renamed(
        gemmas["regional"], tmp_path / "regional", r"^vision_tower\.", "vision_tower.vision_model.", head
    )
    if own:
        with pytest.raises(InputError, match=f"only in {regional}: language_model.lm_head.weight"):
            merge(gemmas["base"], {regional: 0.25}, tmp_path / "out")
    else:
        merge(gemmas["base"], {regional: 0.25}, tmp_path / "out")
        merged = Gemma3ForConditionalGeneration.from_pretrained(tmp_path / "out")
        assert_equal_models(merged, between(gemma(0), gemma(1), 0.25))


def test_lora_on_an_output_layer_that_the_base_does_not_write_is_refused(
    gemmas: dict[str, Path], tmp_path: Path
) -> None:
    model = get_peft_model(gemma(0), LoraConfig(r=2, target_modules=["lm_head"]))
    model.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    with pytest.raises(InputError, match=r"lm_head\.weight: no such tensor"):
        merge(gemmas["base"], {tmp_path / "adapter": 1}, tmp_path / "out")


# ------------------------------------------------------------------------------------------------------------ diffusers
def unet(seed: int) -> Any:
    diffusers = pytest.importorskip("diffusers")
    model = diffusers.UNet2DConditionModel(
        sample_size=8, block_out_channels=(4, 8), norm_num_groups=2, layers_per_block=1, attention_head_dim=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16, addition_embed_type="text_time", addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=8 + 6 * 4, use_linear_projection=True,
    )  # fmt: skip
    return randomized(model, seed)


def pipeline(seed: int) -> Any:
    diffusers = pytest.importorskip("diffusers")
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    text = CLIPTextConfig(
        vocab_size=20, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=8, projection_dim=8, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    return diffusers.StableDiffusionXLPipeline(
        vae=randomized(diffusers.AutoencoderKL(block_out_channels=(4,), norm_num_groups=2), seed),
        text_encoder=randomized(CLIPTextModel(text), seed),
        text_encoder_2=randomized(CLIPTextModelWithProjection(text), seed),
        tokenizer=None,
        tokenizer_2=None,
        unet=unet(seed),
        scheduler=diffusers.EulerDiscreteScheduler(),
    )


@pytest.fixture
def unet_adapter(tmp_path: Path) -> Path:
    """A LoRA on linear layers and convolutions, as diffusers injects it."""
    config = LoraConfig(r=3, lora_alpha=5, target_modules=["to_q", "to_out.0", "conv1", "conv_in", "ff.net.2"])
    model = unet(0)
    model.add_adapter(config)
    return save_adapter(randomized(model, 2, "lora_B"), config, tmp_path / "adapter")


def with_adapter(adapter: Path) -> Any:
    return PeftModel.from_pretrained(unet(0), adapter).merge_and_unload()


def test_unet_with_its_adapter_equals_peft(tmp_path: Path, unet_adapter: Path) -> None:
    unet(0).save_pretrained(tmp_path / "unet")
    merge(tmp_path / "unet", {unet_adapter: 1}, tmp_path / "out")
    merged = unet(0).from_pretrained(tmp_path / "out")
    assert_equal_models(merged, with_adapter(unet_adapter), atol=1e-6)


def test_adapter_changes_the_unet_of_a_pipeline_alone(tmp_path: Path, unet_adapter: Path) -> None:
    base = pipeline(0)
    base.save_pretrained(tmp_path / "base")
    merge(tmp_path / "base", {unet_adapter: 1}, tmp_path / "out")
    merged = type(base).from_pretrained(tmp_path / "out")
    assert_equal_models(merged.unet, with_adapter(unet_adapter), atol=1e-6)
    files = {path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert files == {path.relative_to(tmp_path / "base") for path in (tmp_path / "base").rglob("*") if path.is_file()}
    for file in files - {Path("unet/diffusion_pytorch_model.safetensors")}:
        assert (tmp_path / "out" / file).read_bytes() == (tmp_path / "base" / file).read_bytes(), file


def test_repository_that_holds_everything_twice_is_merged_once(tmp_path: Path, unet_adapter: Path) -> None:
    base = pipeline(0)
    base.save_pretrained(tmp_path / "base")
    again = ["one_file_1.0.safetensors", "unet/diffusion_pytorch_model.fp16.safetensors"]
    again += [f"vae/diffusion_pytorch_model.fp16-0000{i}-of-00002.safetensors" for i in (1, 2)]
    for name in again:
        shutil.copyfile(tmp_path / "base/unet/diffusion_pytorch_model.safetensors", tmp_path / "base" / name)
    (tmp_path / "base/vae/diffusion_pytorch_model.safetensors.index.fp16.json").write_text("{}")
    written = merge(tmp_path / "base", {unet_adapter: 1}, tmp_path / "out")
    assert sorted(written.left_out) == sorted(again)
    assert not [path for path in (tmp_path / "out").rglob("*") if "fp16" in path.name or "one_file" in path.name]
    assert_equal_models(type(base).from_pretrained(tmp_path / "out").unet, with_adapter(unet_adapter), atol=1e-6)


def test_all_parts_of_two_pipelines_are_merged(tmp_path: Path) -> None:
    base, regional = pipeline(0), pipeline(1)
    base.save_pretrained(tmp_path / "base")
    regional.save_pretrained(tmp_path / "regional", max_shard_size="20KB")
    merge(tmp_path / "base", {tmp_path / "regional": 0.25}, tmp_path / "out")
    merged = type(base).from_pretrained(tmp_path / "out")
    for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
        assert_equal_models(getattr(merged, part), between(getattr(base, part), getattr(regional, part), 0.25))


def test_adapter_of_another_unet_is_refused(tmp_path: Path, unet_adapter: Path) -> None:
    base = pipeline(0)
    base.save_pretrained(tmp_path / "base")
    file = tmp_path / "base" / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    del tensors["conv_in.weight"]
    save_file(tensors, file)
    with pytest.raises(InputError, match=r"conv_in\.weight: no such tensor"):  # the VAE has some of that name
        merge(tmp_path / "base", {unet_adapter: 1}, tmp_path / "out")


# ------------------------------------------------------------------------------------------------------------ open_clip
CLIP = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 50, "width": 32, "heads": 2, "layers": 2},
}  # fmt: skip


def clip(seed: int) -> Any:
    open_clip = pytest.importorskip("open_clip")
    return randomized(open_clip.model.CLIP(**CLIP), seed)


def save_clip(model: Any, folder: Path) -> Path:
    folder.mkdir()
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": CLIP, "preprocess_cfg": {}}))
    return folder


def load_clip(folder: Path) -> Any:
    import open_clip

    return open_clip.create_model(f"local-dir:{folder}")


def test_open_clip_checkpoints_merge(tmp_path: Path) -> None:
    base, regional = (save_clip(clip(seed), tmp_path / str(seed)) for seed in (0, 1))
    merge(base, {regional: 0.25}, tmp_path / "out")
    assert_equal_models(load_clip(tmp_path / "out"), between(clip(0), clip(1), 0.25))


def test_open_clip_adapter_reaches_packed_attention(tmp_path: Path) -> None:
    base = save_clip(clip(0), tmp_path / "base")
    layers = clip(0)
    split_attention(layers)
    config = LoraConfig(r=2, target_modules=["in_proj", "out_proj", "c_fc"], lora_bias=True)
    adapted = randomized(get_peft_model(layers, config), 2, "lora_B")
    adapted.save_pretrained(tmp_path / "adapter")
    merge(base, {tmp_path / "adapter": 1}, tmp_path / "out")
    expected = clip(0)
    state = adapted.merge_and_unload().state_dict()
    expected.load_state_dict({name.replace("in_proj.", "in_proj_"): tensor for name, tensor in state.items()})
    assert_equal_models(load_clip(tmp_path / "out"), expected, atol=1e-6)


def test_open_clip_adapter_that_peft_trained_on_packed_attention_fits(tmp_path: Path) -> None:
    base = save_clip(clip(0), tmp_path / "base")
    config = LoraConfig(r=2, target_modules=["c_fc"], target_parameters=["attn.in_proj_weight"])
    adapted = randomized(get_peft_model(clip(0), config), 2, "lora_B")
    adapted.save_pretrained(tmp_path / "adapter")
    merge(base, {tmp_path / "adapter": 1}, tmp_path / "out")
    assert_equal_models(load_clip(tmp_path / "out"), adapted.merge_and_unload(), atol=1e-6)


def test_adapter_on_other_parameters_is_refused(tmp_path: Path) -> None:
    base = save_clip(clip(0), tmp_path / "base")
    config = LoraConfig(r=2, target_modules=["c_fc"], target_parameters=["visual.proj"])
    get_peft_model(clip(0), config).save_pretrained(tmp_path / "adapter")
    with pytest.raises(InputError, match="not a plain LoRA \\(target_parameters\\)"):
        merge(base, {tmp_path / "adapter": 1}, tmp_path / "out")


def test_open_clip_repository_that_also_serves_transformers_is_merged_for_open_clip(tmp_path: Path) -> None:
    base, regional = (save_clip(clip(seed), tmp_path / str(seed)) for seed in (0, 1))
    save_file({"logit_scale": torch.zeros(())}, base / "model.safetensors")
    written = merge(base, {regional: 0.25}, tmp_path / "out")
    assert written.left_out == ("model.safetensors",)
    assert_equal_models(load_clip(tmp_path / "out"), between(clip(0), clip(1), 0.25))


def test_adapter_on_an_attention_that_peft_wraps_is_refused(tmp_path: Path) -> None:
    base = save_clip(clip(0), tmp_path / "base")
    get_peft_model(clip(0), LoraConfig(r=2, target_modules=["attn"])).save_pretrained(tmp_path / "adapter")
    with pytest.raises(InputError, match=r"resblocks\.0\.attn\.weight: no such tensor"):
        merge(base, {tmp_path / "adapter": 1}, tmp_path / "out")
