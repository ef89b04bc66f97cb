"""LoRA adapters on files: every kind whose scaling is the linear merge equals PEFT, all others are refused."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from ggez_hub.errors import InputError
from ggez_hub.families import embedding
from ggez_hub.merging.checkpoints import merge_adapters

LAYER = "text_model.encoder.layers.0.mlp.fc1"  # [64, 32] in tiny_base
TOKENS = "text_model.embeddings.token_embedding"
PATCHES = "vision_model.embeddings.patch_embedding"  # a convolution

Tensors = dict[str, torch.Tensor]


def merge_adapter(base: Path, adapter: Path, alpha: float, out: Path) -> Tensors:
    merge_adapters(base, {adapter: alpha}, out)
    return load_file(out / "model.safetensors")


def edited(adapter: Path, folder: Path, change: Callable[[Tensors], object] = len, **config: Any) -> Path:
    """A copy of an adapter with other tensors, or another configuration."""
    shutil.copytree(adapter, folder)
    tensors = load_file(folder / "adapter_model.safetensors")
    change(tensors)
    save_file(tensors, folder / "adapter_model.safetensors")
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    return folder


def trained(base: Path, folder: Path, seed: int = 0, **config: Any) -> Path:
    """An adapter as PEFT saves it after training, none of its tensors zero."""
    model = get_peft_model(embedding.load(base).model, LoraConfig(**({"r": 2, "target_modules": ["fc1"]} | config)))
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder, save_embedding_layers=False)
    return folder


# ------------------------------------------------------------------------------------------------------ what PEFT makes
@pytest.mark.parametrize(
    ("config", "changed"),  # fc1 is in two towers of two layers, and in the pooling head
    [
        ({"target_modules": embedding.lora_targets()}, 2 * 2 * 6),  # two towers, two layers, six linear maps
        ({"r": 4, "use_rslora": True}, 5),
        ({"target_modules": ["fc1", "fc2"], "rank_pattern": {"fc1": 3, "layers.0.mlp.fc2": 1}}, 10),
        ({"target_modules": ["fc1", "fc2"], "alpha_pattern": {"fc1": 3, r".*layers\.1\.mlp\.fc2": 5}}, 10),
        ({"rank_pattern": {"^text_model.encoder.layers.0.mlp.fc1": 5}, "use_rslora": True, "lora_alpha": 3}, 5),
        ({"lora_bias": True}, 10),
        ({"target_modules": ["token_embedding"], "r": 3}, 1),
        ({"target_modules": ["patch_embedding"]}, 1),
        ({"target_modules": [TOKENS, PATCHES, "fc1"], "alpha_pattern": {"token_embedding": 7}}, 7),
        ({"init_lora_weights": "orthogonal"}, 5),
    ],
    ids=str,
)
def test_merged_files_equal_what_peft_merges(
    tiny_base: Path, tmp_path: Path, config: dict[str, Any], changed: int
) -> None:
    adapter = trained(tiny_base, tmp_path / "adapter", **config)
    ours = merge_adapter(tiny_base, adapter, 1, tmp_path / "out")
    theirs = PeftModel.from_pretrained(embedding.load(tiny_base).model, adapter).merge_and_unload().state_dict()
    base = load_file(tiny_base / "model.safetensors")
    assert ours.keys() == theirs.keys() == base.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=1e-6)
    assert sum(not torch.equal(ours[name], base[name]) for name in ours) == changed


@pytest.mark.parametrize("alpha", [0.25, 0.9])
def test_scaling_all_parts_is_the_linear_merge(tiny_base: Path, tmp_path: Path, alpha: float) -> None:
    config = {"target_modules": [PATCHES, "fc1"], "lora_bias": True, "rank_pattern": {"fc1": 3}}
    adapter = trained(tiny_base, tmp_path / "adapter", **config)
    ends = [merge_adapter(tiny_base, adapter, end, tmp_path / f"at{end}") for end in (0, 1)]
    between = merge_adapter(tiny_base, adapter, alpha, tmp_path / "out")
    for name, tensor in between.items():
        torch.testing.assert_close(tensor, torch.lerp(ends[0][name], ends[1][name], alpha), rtol=0, atol=1e-6)


def test_adapter_of_an_injected_model_has_shorter_names(tiny_base: Path, tiny_adapter: Path, tmp_path: Path) -> None:
    def shorten(tensors: Tensors) -> None:
        for name in list(tensors):
            tensors[name.removeprefix("base_model.model.")] = tensors.pop(name)

    adapter = edited(tiny_adapter, tmp_path / "adapter", shorten)
    ours = merge_adapter(tiny_base, adapter, 1, tmp_path / "out")
    theirs = merge_adapter(tiny_base, tiny_adapter, 1, tmp_path / "same")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


# ------------------------------------------------------------------------------------------- tensors that have no place
def key(part: str) -> str:
    return f"base_model.model.{LAYER}.lora_{part}.weight"


def transposed(tensors: Tensors) -> None:
    """As many numbers as the base's layer has, in the other order."""
    tensors |= {key("A"): torch.ones(4, 64), key("B"): torch.ones(32, 4)}


def other_rank(tensors: Tensors) -> None:
    tensors |= {key("A"): torch.ones(2, 32), key("B"): torch.ones(64, 2)}


def unequal_ranks(tensors: Tensors) -> None:
    tensors |= {key("A"): torch.ones(4, 32), key("B"): torch.ones(64, 3)}


def no_rank(tensors: Tensors) -> None:
    tensors |= {key("A"): torch.tensor(1.0), key("B"): torch.tensor(1.0)}


def whole_numbers(tensors: Tensors) -> None:
    tensors |= {name: tensor.to(torch.int32) for name, tensor in tensors.items()}


def unknown_layer(tensors: Tensors) -> None:
    for part in "AB":
        tensors[key(part).replace("layers.0", "layers.7")] = tensors[key(part)].clone()


def long_bias(tensors: Tensors) -> None:
    tensors[f"base_model.model.{LAYER}.lora_B.bias"] = torch.ones(65)


def bias_alone(tensors: Tensors) -> None:
    tensors[f"base_model.model.{PATCHES}.lora_B.bias"] = torch.ones(32)


def bias_of_no_bias(tensors: Tensors) -> None:
    """A LoRA with a bias, on a layer that has none."""
    tensors |= {f"base_model.model.{TOKENS}.lora_{part}.weight": torch.ones(4, 4) for part in "AB"}
    tensors[f"base_model.model.{TOKENS}.lora_B.bias"] = torch.ones(4)


def whole_layer(tensors: Tensors) -> None:
    """What PEFT saves beside the factors of embeddings, unless told not to."""
    tensors[f"base_model.model.{TOKENS}.base_layer.weight"] = torch.ones(4)


def dora(tensors: Tensors) -> None:
    tensors[f"base_model.model.{LAYER}.lora_magnitude_vector"] = torch.ones(64)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (transposed, LAYER),
        (other_rank, LAYER),
        (unequal_ranks, LAYER),
        (no_rank, LAYER),
        (whole_numbers, "lora_A"),
        (unknown_layer, r"layers\.7\.mlp\.fc1"),
        (long_bias, rf"{LAYER}\.bias"),
        (bias_alone, f"{PATCHES}: bias alone"),
        (bias_of_no_bias, rf"{TOKENS}\.bias: no such tensor"),
        (whole_layer, rf"{TOKENS}\.base_layer\.weight"),
        (dora, "lora_magnitude_vector"),
        (lambda tensors: tensors.pop(key("A")), f"{LAYER}: up alone"),
        (lambda tensors: tensors.pop(key("B")), f"{LAYER}: down alone"),
        (lambda tensors: tensors.clear(), "none at all"),
    ],
)
@pytest.mark.parametrize("alpha", [0, 0.5])
def test_adapter_tensors_that_do_not_fit_are_named(
    tiny_base: Path, tiny_adapter: Path, tmp_path: Path, change: Callable[[Tensors], object], named: str, alpha: float
) -> None:
    adapter = edited(tiny_adapter, tmp_path / "adapter", change)
    with pytest.raises(InputError, match=named) as caught:
        merge_adapter(tiny_base, adapter, alpha, tmp_path / "out")
    assert str(adapter) in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_all_layers_of_another_base_are_counted(tiny_adapter: Path, tmp_path: Path) -> None:
    embedding.write_tiny(tmp_path / "other", hidden=16, text_hidden=16)
    with pytest.raises(InputError, match=r"does not fit the base.*: 24 tensors find no place") as caught:
        merge_adapter(tmp_path / "other", tiny_adapter, 0.5, tmp_path / "out")
    assert str(tmp_path / "other") in caught.value.message
    assert caught.value.hint == "the adapter belongs to another base"


# ----------------------------------------------------------------------------------------------- more than a plain LoRA
@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"modules_to_save": ["head"]}, "modules_to_save"),
        ({"bias": "lora_only"}, "bias"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights=pissa"),
        ({"init_lora_weights": "olora"}, "init_lora_weights=olora"),
    ],
)
def test_adapters_that_are_more_than_a_plain_lora_are_refused(
    tiny_base: Path, tmp_path: Path, config: dict[str, Any], named: str
) -> None:
    adapter = trained(tiny_base, tmp_path / "adapter", **config)
    with pytest.raises(InputError, match=f"not a plain LoRA.*{named}"):
        merge_adapter(tiny_base, adapter, 0.5, tmp_path / "out")


@pytest.mark.parametrize(
    "config",
    [
        {"fan_in_fan_out": True},
        {"target_parameters": ["experts.weight"]},
        {"layer_replication": [[0, 2], [1, 2]]},
        {"trainable_token_indices": [1, 2]},
        {"init_lora_weights": "pissa_niter_16"},
        {"init_lora_weights": "corda"},
        {"init_lora_weights": "loftq"},
        {"init_lora_weights": "lora_ga"},  # the base it was trained on lacks the first product
        {"kasa_config": {"beta": 1e-4, "gemma": 1e-3}},  # the base it was trained on lacks small singular values
        {"alora_invocation_tokens": [1]},
    ],
    ids=str,
)
def test_other_kinds_of_lora_are_refused(
    tiny_base: Path, tiny_adapter: Path, tmp_path: Path, config: dict[str, Any]
) -> None:
    adapter = edited(tiny_adapter, tmp_path / "adapter", **config)
    with pytest.raises(InputError, match=f"not a plain LoRA.*{next(iter(config))}"):
        merge_adapter(tiny_base, adapter, 0.5, tmp_path / "out")


@pytest.mark.parametrize(
    "config",
    [
        {"r": 0},
        {"r": "4"},
        {"r": None},
        {"lora_alpha": None},
        {"lora_alpha": math.inf},
        {"peft_type": "LOHA"},
        {"peft_type": None},
        {"rank_pattern": {"fc1": 3}},  # the factors have rank 4
        {"rank_pattern": {"fc1": "4"}},
        {"rank_pattern": [4]},
        {"rank_pattern": {"(": 4}},
        {"alpha_pattern": {"fc1": None}},
        {"alpha_pattern": "fc1"},
    ],
    ids=str,
)
def test_adapter_configurations_without_meaning_are_refused(
    tiny_base: Path, tiny_adapter: Path, tmp_path: Path, config: dict[str, Any]
) -> None:
    adapter = edited(tiny_adapter, tmp_path / "adapter", **config)
    with pytest.raises(InputError) as caught:
        merge_adapter(tiny_base, adapter, 0.5, tmp_path / "out")
    assert caught.value.message.startswith(str(adapter))


@pytest.mark.parametrize("text", [None, "", "{", "[]", "3"])
def test_adapter_without_a_readable_configuration_is_refused(
    tiny_base: Path, tiny_adapter: Path, tmp_path: Path, text: str | None
) -> None:
    adapter = edited(tiny_adapter, tmp_path / "adapter")
    (adapter / "adapter_config.json").unlink()
    if text is not None:
        (adapter / "adapter_config.json").write_text(text)
    with pytest.raises(InputError) as caught:
        merge_adapter(tiny_base, adapter, 0.5, tmp_path / "out")
    assert caught.value.message.startswith(str(adapter))
