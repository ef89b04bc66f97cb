"""A twin is the model that it stands for in all but its sizes: it loads, learns and answers through the family."""

import hashlib
import io
import re
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from PIL import Image

from ggez_hub import families
from ggez_hub.errors import InputError
from ggez_hub.families.base import Query, Row
from ggez_hub.hub import read_json
from ggez_hub.rehearsal import bases, twins
from ggez_hub.rehearsal.bases import Architecture

TEXTS = ("a red square", "something blue", "the green one", "Nasi lemak with an egg")
CLIP = Architecture("someone/clip", "embedding", {
    "architectures": ["CLIPModel"], "model_type": "clip", "projection_dim": 512, "torch_dtype": "float32",
    "text_config": {"model_type": "clip_text_model", "projection_dim": 512, "eos_token_id": 2},
    "vision_config": {"model_type": "clip_vision_model", "patch_size": 32, "projection_dim": 512},
}, "mit", False, None, "table")  # fmt: skip
KNOWN = {**bases.known(), CLIP.id: CLIP}
NAMES = sorted(KNOWN)
ALWAYS = (  # one of each class; the others are of the same code, so of them only when there is time
    "google/gemma-3-4b-it", "google/siglip2-base-patch16-224", "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
)  # fmt: skip
PIPELINES = [name for name in NAMES if KNOWN[name].family == "diffusion"]
# All that may differ from what was published: sizes, and what goes with the vocabulary.
SIZES = {
    "hidden_size", "intermediate_size", "num_hidden_layers", "layer_types", "num_attention_heads", "head_dim",
    "num_key_value_heads", "image_size", "patch_size", "projection_size", "projection_dim", "mm_tokens_per_image",
    "vocab_size", "bos_token_id", "eos_token_id", "pad_token_id", "boi_token_index", "eoi_token_index",
    "image_token_index", "embed_dim", "layers", "width", "heads", "head_width", "block_out_channels",
    "layers_per_block", "norm_num_groups", "sample_size", "attention_head_dim", "transformer_layers_per_block",
    "cross_attention_dim", "addition_time_embed_dim", "projection_class_embeddings_input_dim", "size", "crop_size",
}  # fmt: skip
WRITTEN = {"transformers_version", "_name_or_path", "dtype", "torch_dtype", "_class_name"}  # by the library


def each(names: Iterable[str]) -> pytest.MarkDecorator:
    """A test of each of these, of most only when there is time."""
    cases = [pytest.param(name, marks=() if name in ALWAYS else pytest.mark.slow) for name in names]
    return pytest.mark.parametrize("name", cases)


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    @cache
    def make(name: str) -> Path:
        folder = tmp_path_factory.mktemp("twin") / name.replace("/", "--")
        twins.write(KNOWN[name], folder, TEXTS)
        return folder

    return make


def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (48, 40, 3), dtype=np.uint8)) for _ in TEXTS]


def rows() -> list[Row]:
    asked = [{"role": "user", "content": "What is it?"}]
    return [
        {"image": image, "text": text, "label": text, "messages": [*asked, {"role": "assistant", "content": text}]}
        for image, text in zip(pictures(), TEXTS, strict=True)
    ]


def differing(one: Any, other: Any, key: str = "") -> set[str]:
    """The keys at which two configurations differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        return {found for name in {*one, *other} - WRITTEN
                for found in differing(one.get(name), other.get(name), name)}  # fmt: skip
    return set() if one == other or (one is None and key in WRITTEN) else {key}


def content(folder: Path) -> str:
    found = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        found.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return found.hexdigest()


# -------------------------------------------------------------------------------------------------------- as published
@each(name for name in NAMES if "model_type" in KNOWN[name].config)
def test_configuration_of_transformers_differs_in_sizes_alone(name: str, twin: Callable[[str], Path]) -> None:
    from transformers import AutoConfig

    published = AutoConfig.for_model(**KNOWN[name].config)
    ours = AutoConfig.from_pretrained(twin(name))
    assert type(ours) is type(published)
    assert ours.architectures == KNOWN[name].config["architectures"]
    assert differing(published.to_dict(), ours.to_dict()) <= SIZES


@each(PIPELINES)
def test_configurations_of_a_pipeline_differ_in_sizes_alone(name: str, twin: Callable[[str], Path]) -> None:
    index = read_json(twin(name) / "model_index.json")
    published = KNOWN[name].config
    assert {key: index.get(key) for key in published["model_index"]} == published["model_index"]
    for part, config in published.items():
        if part not in ("model_index", "tokenizer", "tokenizer_2"):
            (file,) = [f for f in (twin(name) / part).glob("*config.json") if "tokenizer" not in f.name]
            found = read_json(file)
            kept = {key: found.get(key, "not there") for key in config if not isinstance(config[key], dict)}
            assert differing({k: v for k, v in config.items() if k in kept}, kept) <= SIZES, part
    assert "_num_inference_steps" in read_json(twin(name) / "scheduler" / "scheduler_config.json")  # the one thing more


def test_configuration_of_open_clip_differs_in_sizes_alone(twin: Callable[[str], Path]) -> None:
    (name,) = (name for name in NAMES if KNOWN[name].family == "open_clip")
    found = read_json(twin(name) / "open_clip_config.json")
    assert 0 < len(differing(KNOWN[name].config, found) & SIZES) == len(differing(KNOWN[name].config, found))
    text = found["model_cfg"]["text_cfg"]  # open_clip's own tokenizer reads for it
    assert (text["vocab_size"], text["context_length"]) == (49408, 77)


@each(name for name in NAMES if "gemma" in name)
def test_gemma_keeps_both_kinds_of_layers_its_chat_and_the_type_of_its_weights(
    name: str, twin: Callable[[str], Path]
) -> None:
    from safetensors import safe_open
    from transformers import AutoProcessor

    loaded = families.get("vlm").load(twin(name))
    assert loaded.model.config.text_config.layer_types == ["sliding_attention", "full_attention"]
    with safe_open(twin(name) / "model.safetensors", "pt") as file:
        assert {file.get_tensor(key).dtype for key in file.keys()} == {torch.bfloat16}  # noqa: SIM118
        assert not any("lm_head" in key for key in file.keys())  # noqa: SIM118  # the output layer is the embedding
    processor = AutoProcessor.from_pretrained(twin(name))
    user, model = ({"role": role, "content": [{"type": "text", "text": "Hi"}]} for role in ("user", "assistant"))
    text = processor.apply_chat_template([user, model, user], add_generation_prompt=True)
    assert text.startswith("<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n")
    for wrong in ([model], [user, user]):
        with pytest.raises(Exception, match="roles must alternate"):
            processor.apply_chat_template(wrong)
    picture = {"role": "user", "content": [{"type": "image", "image": pictures()[0]}]}
    how: dict[str, Any] = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
    ids = processor.apply_chat_template([picture], **how)["input_ids"][0].tolist()
    assert ids.count(loaded.model.config.image_token_index) == loaded.model.config.mm_tokens_per_image


def test_siglip_reads_64_lower_case_tokens_padded_on_the_right(twin: Callable[[str], Path]) -> None:
    loaded = families.get("embedding").load(twin("google/siglip2-so400m-patch14-384"))
    tokenizer = loaded.processor.tokenizer
    assert (tokenizer.padding_side, tokenizer.model_max_length) == ("right", 64)
    ids = tokenizer("A Red SQUARE", padding="max_length", max_length=64)["input_ids"]
    assert ids == tokenizer("a red square", padding="max_length", max_length=64)["input_ids"]
    end = ids.index(tokenizer.eos_token_id)
    assert set(ids[end + 1 :]) == {tokenizer.pad_token_id}
    assert tokenizer.bos_token_id not in ids


def test_second_tokenizer_of_sdxl_pads_otherwise_than_the_first(twin: Callable[[str], Path]) -> None:
    pipe = families.get("diffusion").load(twin("stabilityai/stable-diffusion-xl-base-1.0")).pipeline
    assert [t.pad_token for t in (pipe.tokenizer, pipe.tokenizer_2)] == ["<|endoftext|>", "!"]
    assert [t.model_max_length for t in (pipe.tokenizer, pipe.tokenizer_2)] == [77, 77]
    assert pipe.text_encoder.config.hidden_size != pipe.text_encoder_2.config.hidden_size
    assert pipe.vae.dtype == torch.float32


# --------------------------------------------------------------------------------------------------------- its own life
@each(NAMES)
def test_twin_is_small_safe_and_the_same_each_time(name: str, twin: Callable[[str], Path], tmp_path: Path) -> None:
    twins.write(KNOWN[name], tmp_path / "again", TEXTS)
    twins.write(KNOWN[name], tmp_path / "other", TEXTS, seed=1)
    assert content(tmp_path / "again") == content(twin(name)) != content(tmp_path / "other")
    files = [path for path in twin(name).rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".jinja", ".txt"}
    assert sum(path.stat().st_size for path in files) < 2e6
    assert sum(p.numel() for module in bases.built(bases.find(str(twin(name)), KNOWN[name].family)).values()
               for name_, p in module.named_parameters() if "token_embedding" not in name_) < 60_000  # fmt: skip


@each(NAMES)
def test_every_tensor_of_an_adapter_on_a_twin_learns(name: str, twin: Callable[[str], Path]) -> None:
    family = families.get(KNOWN[name].family)
    loaded = family.load(twin(name))
    torch.manual_seed(0)
    config = LoraConfig(r=2, target_modules=family.lora_targets(), task_type=family.TASK_TYPE)
    loaded.model = get_peft_model(loaded.model, config)
    trained = {key: p for key, p in loaded.model.named_parameters() if p.requires_grad}
    for key, parameter in trained.items():
        if "lora_B" in key:  # or A would get no gradient
            torch.nn.init.normal_(parameter, std=0.1)
    for part in family.losses(loaded, rows(), 4):
        part().backward()
    assert trained
    assert [key for key, p in trained.items() if p.grad is None or not p.grad.abs().sum() > 0] == []


@each(NAMES)
def test_lora_is_put_on_the_same_modules_as_on_the_real_model(name: str, twin: Callable[[str], Path]) -> None:
    def targets(architecture: Architecture) -> set[str]:
        family, parts = families.get(architecture.family), bases.built(architecture)
        model = parts.get("unet", next(iter(parts.values())))
        if architecture.family == "open_clip":
            from ggez_hub.merging.attention import split_attention

            split_attention(model)
        names = (key for key, _ in model.named_modules() if re.fullmatch(family.lora_targets(), key))
        return {re.sub(r"\d+", "N", key) for key in names}

    real = targets(KNOWN[name])
    assert real
    assert targets(bases.find(str(twin(name)), KNOWN[name].family)) == real


@each(NAMES)
def test_answers_of_a_twin_depend_on_what_is_asked(name: str, twin: Callable[[str], Path]) -> None:
    family = families.get(KNOWN[name].family)
    loaded = family.load(twin(name))
    if KNOWN[name].family == "diffusion":
        drawn = family.predict(loaded, [Query(prompt=text, seed=s) for text in TEXTS[:2] for s in (1, 2)], 4)
        assert len({picture.tobytes() for picture in drawn}) == 4
        return
    found = np.concatenate(family.predict(loaded, [Query(picture, TEXTS) for picture in pictures()], 8))
    assert np.isfinite(found).all()
    assert found.std(axis=0).min() > 1e-3  # from picture to picture
    assert found.std(axis=1).min() > 1e-2  # from text to text


@each(("google/siglip2-base-patch16-224", CLIP.id, "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"))
def test_twin_serves_as_the_embedding_model_of_a_filter(name: str, twin: Callable[[str], Path]) -> None:
    embedder = families.embedder(str(twin(name)))
    encoded = []
    for picture in pictures():
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        encoded.append(buffer.getvalue())
    seen, read = embedder.pictures(encoded), embedder.texts(TEXTS)
    assert seen.shape == read.shape
    assert (seen @ seen.T)[0, 1:].max() < 0.9999  # else all pictures would be duplicates of each other


def test_classifier_knows_the_label_and_finds_few_pictures_unsafe(tmp_path: Path) -> None:
    import pyarrow as pa

    from ggez_hub.data.safety import unsafe_picture
    from ggez_hub.schema import Unsafe

    twins.write_classifier(tmp_path / "unsafe", "Gore")
    images = []
    for picture in pictures():
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        images.append({"bytes": buffer.getvalue(), "path": None})
    batch = pa.RecordBatch.from_pylist([{"image": image} for image in images])
    outcome = unsafe_picture(Unsafe(id=str(tmp_path / "unsafe"), label="Gore"))(batch)
    assert outcome.kept.to_pylist() == [True] * len(images)
    assert all(re.match(r"Gore 0\.\d+ <= 0.5", why) for why in outcome.why.to_pylist())


def test_configuration_that_makes_no_model_is_told_by_its_name(tmp_path: Path) -> None:
    broken = Architecture("someone/broken", "embedding", {"model_type": "siglip"}, None, None, None, "the Hub")
    with pytest.raises(InputError, match="someone/broken: a twin cannot be made from its configuration: KeyError"):
        twins.write(broken, tmp_path, TEXTS)
