"""Extraction: what is kept is exact, what is not is told, and PEFT and our own merge read the result alike."""

import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file

from ggez_hub.cli import cli
from ggez_hub.errors import InputError
from ggez_hub.families import embedding
from ggez_hub.merging.checkpoints import merge_adapters
from ggez_hub.merging.extract import EXACT, extract, factors

Tensors = dict[str, torch.Tensor]
PACKED = "vision_model.head.attention."  # torch's own attention, in SigLIP's pooling head


def tensors_of(folder: Path) -> Tensors:
    return {name: tensor for file in sorted(folder.rglob("*.safetensors")) for name, tensor in load_file(file).items()}


def edited(folder: Path, out: Path, change: Callable[[str, torch.Tensor], torch.Tensor], inside: str = "") -> Path:
    """A copy of a checkpoint with other values."""
    shutil.copytree(folder, out)
    (file,) = (out / inside).glob("*.safetensors")
    save_file({n: change(n, t).contiguous() for n, t in load_file(file).items()}, file, metadata={"format": "pt"})
    return out


def noise(tensor: torch.Tensor, name: str, size: float = 0.05) -> torch.Tensor:
    made = np.random.default_rng(list(name.encode())).normal(size=tuple(tensor.shape)) * size
    return tensor + torch.from_numpy(np.asarray(made)).to(tensor.dtype)


def everywhere(name: str, tensor: torch.Tensor) -> torch.Tensor:
    return noise(tensor, name)


def in_linear_layers(name: str, tensor: torch.Tensor) -> torch.Tensor:
    linear = re.search(r"(_proj|fc[12]|text_model\.head)\.(weight|bias)$", name) and not name.startswith(PACKED)
    return noise(tensor, name) if linear else tensor


def merged(base: Path, adapter: Path, out: Path) -> Tensors:
    merge_adapters(base, {adapter: 1.0}, out)
    return tensors_of(out)


def energy_of(difference: torch.Tensor) -> float:
    return float(difference.double().square().sum())


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def features(model: Any) -> torch.Tensor:
    pixels = torch.linspace(-1, 1, 2 * 3 * 32 * 32).view(2, 3, 32, 32)
    with torch.inference_mode():
        return model(input_ids=torch.arange(128).view(2, 64), pixel_values=pixels).logits_per_image


# -------------------------------------------------------------------------------------------------------- whole models
def test_linear_layers_and_their_biases_are_kept_exactly(tiny_base: Path, tmp_path: Path) -> None:
    regional = edited(tiny_base, tmp_path / "regional", in_linear_layers)
    found = extract(tiny_base, regional, tmp_path / "out", rank=64)
    assert found.left_out == []
    assert found.biases == 2 * 2 * 6 + 1 + 2, "two towers of two layers, the head of one, two more in the other's"
    assert found.energy > 0.999999
    for name, tensor in merged(tiny_base, tmp_path / "out", tmp_path / "merged").items():
        torch.testing.assert_close(tensor, tensors_of(regional)[name], rtol=0, atol=1e-6)
    ours = PeftModel.from_pretrained(embedding.load(tiny_base).model, tmp_path / "out")
    torch.testing.assert_close(features(ours), features(embedding.load(regional).model), rtol=1e-5, atol=1e-5)


def test_what_no_lora_carries_stays_as_in_the_base_and_is_told(tiny_base: Path, tmp_path: Path) -> None:
    regional = edited(tiny_base, tmp_path / "regional", everywhere)
    found = extract(tiny_base, regional, tmp_path / "out", rank=64)
    low, high = tensors_of(tiny_base), tensors_of(regional)
    made = merged(tiny_base, tmp_path / "out", tmp_path / "merged")
    total = sum(energy_of(high[name] - low[name]) for name in low)
    told = {left.tensor: left for left in found.left_out}
    for name, tensor in made.items():
        torch.testing.assert_close(tensor, low[name] if name in told else high[name], rtol=0, atol=1e-6)
        if name in told:
            assert told[name].share == pytest.approx(energy_of(high[name] - low[name]) / total, rel=1e-4)
    assert PACKED + "in_proj_weight" in told
    assert PACKED + "out_proj.weight" in told, "PEFT would not apply it, or twice"
    assert "text_model.embeddings.token_embedding.weight" not in told
    assert "vision_model.embeddings.patch_embedding.weight" not in told
    assert all(name in told for name in low if name.endswith(".bias") or "norm" in name or "logit" in name)
    assert found.energy == pytest.approx(1 - sum(left.share for left in found.left_out), abs=1e-6)
    assert found.residual == pytest.approx(math.sqrt(1 - found.energy), abs=1e-6)


def test_embeddings_and_convolutions_of_an_adapter_load_with_peft(tiny_base: Path, tmp_path: Path) -> None:
    changed = ("token_embedding", "position_embedding", "patch_embedding.weight")
    regional = edited(tiny_base, tmp_path / "regional", lambda n, t: noise(t, n) if any(c in n for c in changed) else t)
    found = extract(tiny_base, regional, tmp_path / "out", rank=64)
    assert len(found.layers) == 4
    assert {layer.rank for layer in found.layers} == {16, 32}, "no more than the shape has"
    ours = PeftModel.from_pretrained(embedding.load(tiny_base).model, tmp_path / "out")
    torch.testing.assert_close(features(ours), features(embedding.load(regional).model), rtol=1e-5, atol=1e-5)


def test_adapter_of_a_trained_lora_comes_back(tiny_base: Path, tiny_adapter: Path, tmp_path: Path) -> None:
    merge_adapters(tiny_base, {tiny_adapter: 1.0}, tmp_path / "regional")
    found = extract(tiny_base, tmp_path / "regional", tmp_path / "out", rank=4)
    assert {layer.rank for layer in found.layers} == {4}
    assert max(layer.residual for layer in found.layers) < 1e-5
    high = tensors_of(tmp_path / "regional")
    for name, tensor in merged(tiny_base, tmp_path / "out", tmp_path / "merged").items():
        torch.testing.assert_close(tensor, high[name], rtol=0, atol=1e-6)
    fewer = extract(tiny_base, tmp_path / "regional", tmp_path / "fewer", rank=3)
    assert min(layer.residual for layer in fewer.layers) > 1e-3


def test_energy_sets_the_rank_of_every_layer(tiny_base: Path, tmp_path: Path) -> None:
    regional = edited(tiny_base, tmp_path / "regional", in_linear_layers)
    found = extract(tiny_base, regional, tmp_path / "out", energy=0.7)
    low, high = tensors_of(tiny_base), tensors_of(regional)
    for layer in found.layers:
        name = f"{layer.module}.weight"
        values = np.linalg.svd((high[name] - low[name]).numpy(), compute_uv=False).astype("f8") ** 2
        shares = np.cumsum(values) / values.sum()
        assert layer.rank == np.searchsorted(shares, 0.7) + 1
        assert layer.energy == pytest.approx(shares[layer.rank - 1], abs=1e-5)
    assert len({layer.rank for layer in found.layers}) > 1
    ours = PeftModel.from_pretrained(embedding.load(tiny_base).model, tmp_path / "out")
    theirs = embedding.load(tiny_base).model
    theirs.load_state_dict(merged(tiny_base, tmp_path / "out", tmp_path / "merged"), strict=False)
    torch.testing.assert_close(features(ours), features(theirs), rtol=1e-5, atol=1e-5)


def test_half_precision_checkpoints_keep_their_difference(tiny_base: Path, tmp_path: Path) -> None:
    base = edited(tiny_base, tmp_path / "base", lambda _, tensor: tensor.bfloat16())
    regional = edited(base, tmp_path / "regional", in_linear_layers)
    extract(base, regional, tmp_path / "out", rank=64)
    high = tensors_of(regional)
    for name, tensor in merged(base, tmp_path / "out", tmp_path / "merged").items():
        assert tensor.dtype == torch.bfloat16
        torch.testing.assert_close(tensor, high[name], rtol=0, atol=1e-6)  # numbers of bf16 are 1e-3 apart here


def test_two_runs_give_the_same_bytes_and_no_path(tiny_base: Path, tmp_path: Path) -> None:
    regional = edited(tiny_base, tmp_path / "regional", everywhere)
    for out in ("one", "two"):
        extract(tiny_base, regional, tmp_path / out, energy=0.5)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert contents(tmp_path / "one").keys() == {"adapter_config.json", "adapter_model.safetensors", "extraction.json"}
    assert json.loads((tmp_path / "one" / "adapter_config.json").read_text())["base_model_name_or_path"] == "base"
    assert not any(str(tmp_path.parent).encode() in data for data in contents(tmp_path / "one").values())


def test_base_is_named_by_its_hub_id_and_commit(tiny_base: Path, tmp_path: Path) -> None:
    commit = "0123456789" * 4
    base = tmp_path / "hub" / "models--org--global" / "snapshots" / commit
    shutil.copytree(tiny_base, base)
    found = extract(base, edited(tiny_base, tmp_path / "regional", everywhere), tmp_path / "out", rank=1)
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (found.base, found.regional) == ("org/global", "regional")
    assert (config["base_model_name_or_path"], config["revision"]) == ("org/global", commit)


# ------------------------------------------------------------------------------------------------- other architectures
@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    text = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
            "num_key_value_heads": 1, "head_dim": 16, "query_pre_attn_scalar": 16, "vocab_size": 60}  # fmt: skip
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
              "image_size": 28, "patch_size": 14, "vision_use_head": False}  # fmt: skip
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("gemma") / "base"
    config = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=1, image_token_index=59)
    Gemma3ForConditionalGeneration(config).save_pretrained(folder)
    return folder


def in_memory(name: str) -> str:
    """The name that a tensor of the checkpoint on the Hub has in a model in memory."""
    return f"model.{name.replace('language_model.model.', 'language_model.')}"


def earlier(name: str) -> str:
    """The name that it has in checkpoints of earlier versions."""
    return name.replace("vision_tower.", "vision_tower.vision_model.")


@pytest.mark.parametrize("layout", [str, in_memory, earlier])
def test_layers_are_found_in_every_layout_of_gemma(gemma: Path, tmp_path: Path, layout: Callable[[str], str]) -> None:
    from transformers import Gemma3ForConditionalGeneration

    regional = edited(gemma, tmp_path / "regional", in_linear_layers)
    assert all(not name.startswith("model.") for name in tensors_of(gemma)), "else this tests the same layout twice"
    file = regional / "model.safetensors"
    save_file({layout(name): tensor for name, tensor in load_file(file).items()}, file, metadata={"format": "pt"})
    found = extract(gemma, regional, tmp_path / "out", rank=64)
    apart = {left.tensor for left in found.left_out}
    assert apart == {n for n in tensors_of(gemma) if n.endswith(("proj.bias", "fc1.bias", "fc2.bias"))}, (
        "some have none"
    )
    low, high = tensors_of(gemma), load_file(file)
    made = merged(gemma, tmp_path / "out", tmp_path / "merged")
    for name, tensor in made.items():
        torch.testing.assert_close(tensor, low[name] if name in apart else high[layout(name)], rtol=0, atol=1e-6)
    ids = {"input_ids": torch.tensor([[2, 59, 5, 6]]), "pixel_values": torch.ones(1, 3, 28, 28)}
    ours = PeftModel.from_pretrained(Gemma3ForConditionalGeneration.from_pretrained(gemma), tmp_path / "out").eval()
    theirs = Gemma3ForConditionalGeneration.from_pretrained(tmp_path / "merged").eval()
    torch.testing.assert_close(ours(**ids).logits, theirs(**ids).logits, rtol=1e-4, atol=1e-4)


def test_embeddings_tied_to_the_output_layer_are_left_out(gemma: Path, tmp_path: Path) -> None:
    regional = edited(gemma, tmp_path / "regional", everywhere)
    found = extract(gemma, regional, tmp_path / "out", rank=8)
    why = {left.tensor: left.why for left in found.left_out}
    assert why["language_model.model.embed_tokens.weight"] == "tied to another layer"
    assert "multi_modal_projector.mm_input_projection_weight" in why


def test_position_embeddings_that_the_model_reads_directly_are_left_out(tmp_path: Path) -> None:
    from transformers import Siglip2Config, Siglip2Model

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = sizes | {"num_patches": 16, "patch_size": 8}
    torch.manual_seed(0)
    Siglip2Model(Siglip2Config(text_config=sizes | {"vocab_size": 60}, vision_config=vision)).save_pretrained(
        tmp_path / "base"
    )
    regional = edited(tmp_path / "base", tmp_path / "regional", everywhere)
    found = extract(tmp_path / "base", regional, tmp_path / "out", rank=8)
    left = {left.tensor for left in found.left_out}
    assert "vision_model.embeddings.position_embedding.weight" in left
    assert "text_model.embeddings.position_embedding.weight" not in left


def test_only_the_unet_of_a_pipeline_is_extracted(tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers")

    torch.manual_seed(0)
    unet = diffusers.UNet2DConditionModel(
        block_out_channels=(4, 8), norm_num_groups=2, layers_per_block=1, cross_attention_dim=8, sample_size=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=2,
    )  # fmt: skip
    unet.save_pretrained(tmp_path / "base" / "unet")
    (tmp_path / "base" / "vae").mkdir()
    save_file({"conv.weight": torch.ones(2, 2, 3, 3)}, tmp_path / "base" / "vae" / "model.safetensors")
    layers = {name for name, m in unet.named_modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)}
    regional = edited(
        tmp_path / "base", tmp_path / "half",
        lambda n, t: noise(t, n) if n.rpartition(".")[0] in layers and n.endswith("weight") else t, "unet",
    )  # fmt: skip
    regional = edited(regional, tmp_path / "regional", everywhere, "vae")
    found = extract(tmp_path / "base", regional, tmp_path / "out", rank=64)
    assert {layer.module for layer in found.layers} == layers
    assert [(left.tensor, left.why) for left in found.left_out] == [("vae/conv.weight", "outside the unet")]
    made = merged(tmp_path / "base", tmp_path / "out", tmp_path / "merged")
    theirs = diffusers.UNet2DConditionModel.from_pretrained(regional / "unet").eval()
    for name, tensor in theirs.state_dict().items():
        torch.testing.assert_close(made[name], tensor, rtol=0, atol=1e-6)
    inputs = {"sample": torch.ones(1, 4, 8, 8), "timestep": 3, "encoder_hidden_states": torch.ones(1, 2, 8)}
    ours = PeftModel.from_pretrained(unet, tmp_path / "out").eval()
    torch.testing.assert_close(ours(**inputs).sample, theirs(**inputs).sample, rtol=1e-4, atol=1e-4)


class Nested(torch.nn.Module):
    """Layers of which one's name is the end of another's."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc = torch.nn.Linear(4, 4)
        self.block = torch.nn.ModuleDict({"fc": torch.nn.Linear(4, 4)})
        self.token_embed = torch.nn.Embedding(4, 4)
        self.attn = torch.nn.MultiheadAttention(4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.block["fc"](self.fc(x))


@pytest.mark.parametrize("also_block", [False, True])
def test_layers_of_unknown_models_are_met_by_their_whole_names(tmp_path: Path, also_block: bool) -> None:
    (tmp_path / "base").mkdir()
    save_file(Nested().state_dict(), tmp_path / "base" / "model.safetensors")

    def change(name: str, tensor: torch.Tensor) -> torch.Tensor:
        if name == "fc.weight":
            return noise(tensor, name)
        return tensor + 1 if name == "block.fc.weight" and also_block else tensor  # of rank 1

    regional = edited(tmp_path / "base", tmp_path / "regional", change)
    found = extract(tmp_path / "base", regional, tmp_path / "out", rank=4)
    assert found.guessed
    assert {layer.module: layer.rank for layer in found.layers} == {"fc": 4} | ({"block.fc": 1} if also_block else {})
    ours = PeftModel.from_pretrained(Nested(), tmp_path / "out")
    adapted = {name for name, module in ours.base_model.model.named_modules() if isinstance(module, LoraLayer)}
    assert adapted == {layer.module for layer in found.layers}
    theirs = Nested()
    theirs.load_state_dict(tensors_of(regional))
    torch.testing.assert_close(ours(torch.eye(4)), theirs(torch.eye(4)), rtol=0, atol=1e-6)


def test_what_may_be_no_linear_layer_of_an_unknown_model_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    save_file(Nested().state_dict(), tmp_path / "base" / "model.safetensors")
    regional = edited(tmp_path / "base", tmp_path / "regional", everywhere)
    found = extract(tmp_path / "base", regional, tmp_path / "out", rank=4)
    assert {layer.module for layer in found.layers} == {"fc", "block.fc"}
    left = {left.tensor for left in found.left_out}
    assert {"token_embed.weight", "attn.in_proj_weight", "attn.out_proj.weight"} <= left


def test_biases_alone_become_an_adapter(tiny_base: Path, tmp_path: Path) -> None:
    regional = edited(tiny_base, tmp_path / "regional", lambda n, t: noise(t, n) if n.endswith("fc1.bias") else t)
    found = extract(tiny_base, regional, tmp_path / "out", rank=64)
    assert (found.layers, found.left_out, found.biases, found.energy) == ([], [], 5, 1.0)
    ours = PeftModel.from_pretrained(embedding.load(tiny_base).model, tmp_path / "out")
    torch.testing.assert_close(features(ours), features(embedding.load(regional).model), rtol=1e-5, atol=1e-5)


# ---------------------------------------------------------------------------------------------------------- arithmetic
@settings(max_examples=80)
@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    rank=st.integers(1, 12),
    share=st.floats(0.01, 0.999),
    scale=st.sampled_from([1e-25, 1e-3, 1.0, 1e15]),
    seed=st.integers(0, 2**31),
)
def test_factors_keep_what_the_singular_values_say(
    shape: tuple[int, int], rank: int, share: float, scale: float, seed: int
) -> None:
    matrix = np.random.default_rng(seed).normal(size=shape).astype("f4") * np.float32(scale)
    values = np.linalg.svd(matrix.astype("f8"), compute_uv=False) ** 2
    kept = np.cumsum(values) / values.sum()

    up, down, residual = factors(torch.from_numpy(matrix), rank=rank)
    assert up.shape[1] == down.shape[0] == min(rank, *shape)
    assert 1 - residual**2 == pytest.approx(kept[len(down) - 1], abs=1e-5)
    left = np.linalg.norm(matrix.astype("f8") - up.double().numpy() @ down.double().numpy())
    assert residual == pytest.approx(left / np.linalg.norm(matrix.astype("f8")), abs=1e-5)
    assert float(up.double().norm() / down.double().norm()) == pytest.approx(1, rel=1e-3), "balanced"

    up, down, residual = factors(torch.from_numpy(matrix), energy=share)
    assert kept[len(down) - 1] >= share - 1e-6
    assert len(down) == 1 or kept[len(down) - 2] < share + 1e-6, "one less would do"
    assert 1 - residual**2 >= share - 1e-5


@pytest.mark.parametrize("noise_size", [0.05, 1.0, 30.0])
@pytest.mark.parametrize("wide", [False, True])
def test_search_keeps_nearly_what_the_best_product_keeps(noise_size: float, wide: bool) -> None:
    rng = np.random.default_rng(0)
    rows, columns = EXACT + 200, EXACT + 1
    low = rng.normal(size=(rows, 20)) @ rng.normal(size=(20, columns)) / math.sqrt(20)
    matrix = torch.from_numpy(low + noise_size * rng.normal(size=(rows, columns))).float()
    best = torch.linalg.eigvalsh(matrix.T @ matrix).double()
    _, down, residual = factors(matrix.T.contiguous() if wide else matrix, rank=32)
    assert len(down) == 32
    assert 1 - residual**2 == pytest.approx(float(best[-32:].sum() / best.sum()), rel=1e-3)


def test_search_finds_the_same_every_time() -> None:
    matrix = torch.from_numpy(np.random.default_rng(0).normal(size=(EXACT + 1, EXACT + 1))).float()
    for one, other in zip(factors(matrix, rank=4)[:2], factors(matrix, rank=4)[:2], strict=True):
        assert torch.equal(one, other)


# --------------------------------------------------------------------------------------------------------------- errors
@pytest.mark.parametrize(
    ("how", "named"),
    [
        ({}, "rank"),
        ({"rank": 4, "energy": 0.5}, "either"),
        ({"rank": 0}, "rank 0"),
        ({"energy": 0.0}, r"energy 0\.0"),
        ({"energy": 1.5}, r"energy 1\.5"),
        ({"energy": math.nan}, "energy nan"),
    ],
)
def test_rank_or_energy_out_of_range_is_refused(
    tiny_base: Path, tmp_path: Path, how: dict[str, Any], named: str
) -> None:
    with pytest.raises(InputError, match=named):
        extract(tiny_base, tiny_base, tmp_path / "out", **how)


def test_nothing_is_left_behind_where_nothing_can_be_extracted(tiny_base: Path, tmp_path: Path) -> None:
    nan = edited(tiny_base, tmp_path / "nan", lambda n, t: t * math.nan if "token" in n else t)
    norms = edited(tiny_base, tmp_path / "norms", lambda n, t: t + 1 if "norm" in n else t)
    (tmp_path / "other").mkdir()
    save_file({"w": torch.ones(2)}, tmp_path / "other" / "model.safetensors")
    for regional, named in ((tiny_base, "no tensor differs"), (nan, "not finite"), (norms, "no LoRA reaches")):
        with pytest.raises(InputError, match=named):
            extract(tiny_base, regional, tmp_path / "out", rank=4)
    with pytest.raises(InputError, match="counterpart"):
        extract(tiny_base, tmp_path / "other", tmp_path / "out", rank=4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["nan", "norms", "other"]
    with pytest.raises(InputError, match="is there already"):
        extract(tiny_base, norms, tmp_path / "nan", rank=4)


def test_command_prints_a_line_per_layer_or_one_document(tiny_base: Path, tmp_path: Path) -> None:
    regional = edited(tiny_base, tmp_path / "regional", everywhere)
    call = ["extract", str(tiny_base), str(regional)]
    text = CliRunner().invoke(cli, [*call, "--rank", "2", "--out", str(tmp_path / "out")])
    lines = text.stdout.splitlines()
    report = json.loads((tmp_path / "out" / "extraction.json").read_text())
    assert len([line for line in lines if " rank 2 " in line]) == len(report["layers"])
    assert any(line.startswith("left out: ") and "attention of torch" in line for line in lines)
    assert lines[-1].startswith(f"all: {report['energy']:.3%}")
    made = CliRunner().invoke(cli, [*call, "--energy", "0.5", "--out", str(tmp_path / "energy"), "--json"])
    assert json.loads(made.stdout) == json.loads((tmp_path / "energy" / "extraction.json").read_text())
    assert min(layer["energy"] for layer in json.loads(made.stdout)["layers"]) >= 0.5
