"""Alpha on a model in memory: exact at both ends, the same as merged files in between, no drift, no misfit adapters."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from PIL import Image
from safetensors.torch import load_file

from ggez_hub.errors import InputError
from ggez_hub.families import embedding
from ggez_hub.families.base import Loaded, Query
from ggez_hub.merging import checkpoints
from ggez_hub.merging.live import attach_adapter, between

QUERIES = [
    Query(Image.new("RGB", (40, 40), color), ["a red thing", "a blue thing", "nothing"]) for color in ("red", "blue")
]


def scores(loaded: Loaded) -> np.ndarray:
    return np.stack(embedding.predict(loaded, QUERIES))


def adapter_on(base: Path, folder: Path, **config: Any) -> Path:
    lora = LoraConfig(**({"r": 2, "target_modules": embedding.lora_targets()} | config))
    model = get_peft_model(embedding.load(base).model, lora)
    model.save_pretrained(folder, save_embedding_layers=False)
    return folder


@pytest.fixture(scope="module")
def regional(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fully trained model: all weights differ from the base."""
    folder = tmp_path_factory.mktemp("live") / "regional"
    embedding.write_tiny(folder, seed=1)
    return folder


# ------------------------------------------------------------------------------------------------------------- adapters
def test_adapter_at_0_gives_the_base_bit_for_bit(tiny_base: Path, tiny_adapter: Path) -> None:
    base, adapted = embedding.load(tiny_base), embedding.load(tiny_base)
    dial = attach_adapter(adapted, tiny_adapter)
    assert np.abs(scores(adapted) - scores(base)).max() > 0.1, "the adapter changes nothing"
    dial(0)
    np.testing.assert_array_equal(scores(adapted), scores(base))


def test_adapter_at_1_equals_peft(tiny_base: Path, tiny_adapter: Path) -> None:
    ours, theirs = embedding.load(tiny_base), embedding.load(tiny_base)
    dial = attach_adapter(ours, tiny_adapter)
    theirs.model = PeftModel.from_pretrained(theirs.model, tiny_adapter).eval()
    np.testing.assert_array_equal(scores(ours), scores(theirs))  # where it stands at first
    dial(0.3)
    dial(1)
    np.testing.assert_array_equal(scores(ours), scores(theirs))


@pytest.mark.parametrize("alpha", [0.25, 0.5, 0.9])
@pytest.mark.parametrize("use_rslora", [False, True])
def test_adapter_in_between_equals_the_merged_files(
    tiny_base: Path, tiny_adapter: Path, tmp_path: Path, alpha: float, use_rslora: bool
) -> None:
    adapter = shutil.copytree(tiny_adapter, tmp_path / "adapter")
    config = (adapter / "adapter_config.json").read_text()
    changed = config.replace('"use_rslora": false', f'"use_rslora": {str(use_rslora).lower()}')
    assert (changed != config) == use_rslora
    (adapter / "adapter_config.json").write_text(changed)
    checkpoints.merge_adapter(tiny_base, adapter, alpha, tmp_path / "merged", embedding.tensor_name)
    live = embedding.load(tiny_base)
    attach_adapter(live, adapter)(alpha)
    np.testing.assert_allclose(scores(live), scores(embedding.load(tmp_path / "merged")), rtol=0, atol=1e-5)


def test_turning_back_and_forth_does_not_drift(tiny_base: Path, tiny_adapter: Path) -> None:
    loaded = embedding.load(tiny_base)
    dial = attach_adapter(loaded, tiny_adapter)
    first: dict[float, np.ndarray] = {}
    for alpha in (0.0, 0.3, 1.0, 0.1, 0.7, 0.3, 0.9, 0.0, 0.2, 1.0, 0.3):
        dial(alpha)
        found = scores(loaded)
        np.testing.assert_array_equal(found, first.setdefault(alpha, found))


@pytest.mark.parametrize(
    "sizes",
    [{"hidden": 16, "text_hidden": 16}, {"layers": 3}, {"layers": 1}, {"text_layers": 1}],
    ids=lambda sizes: "-".join(sizes),
)
def test_adapter_of_another_base_is_refused(tiny_adapter: Path, tmp_path: Path, sizes: dict[str, int]) -> None:
    embedding.write_tiny(tmp_path / "other", **sizes)
    with pytest.raises(InputError, match="does not fit the base") as caught:
        attach_adapter(embedding.load(tmp_path / "other"), tiny_adapter)
    assert str(tmp_path / "other") in caught.value.message
    assert str(tiny_adapter) in caught.value.message


@pytest.mark.parametrize("config", [{"use_dora": True}, {"modules_to_save": ["head"]}])
def test_adapter_whose_scaling_is_not_the_merge_is_refused(
    tiny_base: Path, tmp_path: Path, config: dict[str, Any]
) -> None:
    adapter = adapter_on(tiny_base, tmp_path / "adapter", **config)
    with pytest.raises(InputError, match="not a plain LoRA"):
        attach_adapter(embedding.load(tiny_base), adapter)


def test_pickled_adapter_is_refused(tiny_base: Path, tiny_adapter: Path, tmp_path: Path) -> None:
    adapter = shutil.copytree(tiny_adapter, tmp_path / "adapter")
    torch.save(load_file(adapter / "adapter_model.safetensors"), adapter / "adapter_model.bin")
    (adapter / "adapter_model.safetensors").unlink()
    PeftModel.from_pretrained(embedding.load(tiny_base).model, adapter)  # which would take it
    with pytest.raises(InputError, match=r"no adapter_model\.safetensors"):
        attach_adapter(embedding.load(tiny_base), adapter)


@pytest.mark.parametrize("length", [0, 5, 1000, -1])
def test_truncated_adapter_is_refused(tiny_base: Path, tiny_adapter: Path, tmp_path: Path, length: int) -> None:
    adapter = shutil.copytree(tiny_adapter, tmp_path / "adapter")
    file = adapter / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(InputError, match="damaged") as caught:
        attach_adapter(embedding.load(tiny_base), adapter)
    assert str(adapter) in caught.value.message


# --------------------------------------------------------------------------------------------------------- whole models
def test_between_is_exact_at_both_ends_and_does_not_drift(tiny_base: Path, regional: Path) -> None:
    loaded, ends = embedding.load(tiny_base), [embedding.load(folder) for folder in (tiny_base, regional)]
    dial = between(loaded, embedding.load(regional).model)
    for alpha in (0, 1, 0.3, 0, 1, 0.7, 1, 0):
        dial(alpha)
        if alpha in (0, 1):
            expected = ends[alpha].model.state_dict()
            for name, tensor in loaded.model.state_dict().items():
                assert torch.equal(tensor, expected[name]), name
            np.testing.assert_array_equal(scores(loaded), scores(ends[alpha]))


def test_between_stands_at_the_base_at_first(tiny_base: Path, regional: Path) -> None:
    loaded = embedding.load(tiny_base)
    between(loaded, embedding.load(regional).model)
    np.testing.assert_array_equal(scores(loaded), scores(embedding.load(tiny_base)))


@pytest.mark.parametrize("alpha", [0.25, 0.5, 0.9])
def test_between_equals_the_merged_files(tiny_base: Path, regional: Path, tmp_path: Path, alpha: float) -> None:
    checkpoints.merge_full(tiny_base, regional, alpha, tmp_path / "merged")
    loaded, other = embedding.load(tiny_base), embedding.load(regional)
    between(loaded, other.model)(alpha)
    np.testing.assert_array_equal(scores(loaded), scores(embedding.load(tmp_path / "merged")))
    np.testing.assert_array_equal(scores(other), scores(embedding.load(regional)))  # only the base is turned
