"""What is special to open_clip: its folders and names, its tokenizers, and the attention that PEFT wraps itself."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub.utils import validate_repo_id
from open_clip import create_model_from_pretrained, get_tokenizer, list_pretrained, pretrained
from peft import LoraConfig, PeftModel, get_peft_model
from PIL import Image
from safetensors.torch import load_file, save_file

from ggez_hub.errors import InputError
from ggez_hub.families import open_clip
from ggez_hub.families.base import Loaded, Query
from ggez_hub.hub.names import hub_id
from ggez_hub.merging import live
from ggez_hub.merging.checkpoints import merge

TEXTS = ("a red square", "something blue", "Café ណែម 🎋", "the green one " * 20)
CPU = torch.device("cpu")


def write_clip(folder: Path) -> None:
    open_clip.write_tiny(folder, TEXTS)


def write_timm(folder: Path) -> None:
    """A vision tower of timm and a text tower of its own, as SigLIP has them."""
    from open_clip.model import CustomTextCLIP

    open_clip.write_tiny(folder, TEXTS)

    def mend(config: dict[str, Any]) -> None:
        config["model_cfg"] |= {"custom_text": True, "init_logit_bias": -1.0}
        config["model_cfg"]["vision_cfg"] = {"timm_model_name": "test_vit", "timm_proj": "linear", "image_size": 160}

    config = changed(folder, mend)["model_cfg"]
    torch.manual_seed(0)
    state = CustomTextCLIP(**{key: value for key, value in config.items() if key != "custom_text"}).state_dict()
    save_file(state, folder / "open_clip_model.safetensors")


def changed(folder: Path, change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    """Changes the configuration of a model on disk."""
    file = folder / "open_clip_config.json"
    config: dict[str, Any] = json.loads(file.read_text())
    change(config)
    file.write_text(json.dumps(config))
    return config


@pytest.fixture(scope="module", params=[write_clip, write_timm], ids=["clip", "timm"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base of random weights; tests do not change it."""
    folder = tmp_path_factory.mktemp("open_clip") / "base"
    request.param(folder)
    return folder


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A base of random weights that a test may spoil."""
    write_clip(tmp_path / "own")
    return tmp_path / "own"


@pytest.fixture(scope="module")
def adapter(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter as the train stage writes it; its dropout is of training alone."""
    loaded = open_clip.load(folder, CPU)
    config = LoraConfig(r=2, lora_alpha=3, lora_dropout=0.1, target_modules=open_clip.lora_targets())
    loaded.model = get_peft_model(loaded.model, config)
    torch.manual_seed(1)
    for name, parameter in loaded.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    loaded.model.peft_config["default"].base_model_name_or_path = "someone/base"
    written = tmp_path_factory.mktemp("adapter") / "adapter"
    open_clip.save_adapter(loaded, written)
    return written


def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (60, 40 + 9 * i, 3), dtype=np.uint8)) for i in range(4)]


def ours(loaded: Loaded) -> torch.Tensor:
    """Scores of all pictures and texts, on the model's scale."""
    return torch.tensor(np.concatenate(open_clip.predict(loaded, [Query(image, TEXTS) for image in pictures()], 8)))


def theirs(model: Any, preprocess: Any, tokenizer: Any) -> torch.Tensor:
    """The same as a user of open_clip computes them."""
    with torch.no_grad():
        pixels = torch.stack([preprocess(image) for image in pictures()])
        logits: torch.Tensor = model.get_logits(pixels, tokenizer(list(TEXTS)))[0]
    return logits


def plain(folder: Path) -> tuple[Any, Any, Any]:
    """Model, preprocessing and tokenizer as a user of open_clip gets them."""
    name = f"local-dir:{folder}"
    return (*create_model_from_pretrained(name), get_tokenizer(name))


def same(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


# ------------------------------------------------------------------------------------------- what plain libraries load
def test_scores_are_those_of_open_clip(folder: Path) -> None:
    same(ours(open_clip.load(folder, CPU)), theirs(*plain(folder)))


@pytest.mark.filterwarnings("error:.*(missing|not match|unexpected)")
def test_plain_peft_puts_the_adapter_on_a_plain_model(folder: Path, adapter: Path) -> None:
    loaded = open_clip.load(folder, CPU)
    base = ours(loaded)
    loaded.model, dial = live.attach_adapter(loaded.model, adapter)
    regional = ours(loaded)
    dial(0)
    assert torch.equal(ours(loaded), base)
    assert (regional - base).abs().max() > 0.01
    model, *rest = plain(folder)
    model = PeftModel.from_pretrained(model, adapter).eval()
    same(theirs(model, *rest), regional)
    same(theirs(model.merge_and_unload(), *rest), regional)


@pytest.mark.parametrize("part", ["attn", "mlp"])
def test_adapter_reaches_attention_and_mlp_of_both_towers(adapter: Path, part: str) -> None:
    state = load_file(adapter / "adapter_model.safetensors")
    towers = {"visual" in name for name in state if f".{part}." in name}
    assert towers == {True, False}


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
def test_merged_model_loads_in_plain_open_clip(folder: Path, adapter: Path, tmp_path: Path, alpha: float) -> None:
    merge(folder, {adapter: alpha}, tmp_path / "merged")
    loaded = open_clip.load(folder, CPU)
    loaded.model, dial = live.attach_adapter(loaded.model, adapter)
    dial(alpha)
    same(theirs(*plain(tmp_path / "merged")), ours(loaded))
    same(ours(open_clip.load(tmp_path / "merged", CPU)), ours(loaded))


def test_weights_held_merged_equal_those_beside(folder: Path, adapter: Path) -> None:
    beside, merged = (open_clip.load(folder, CPU) for _ in range(2))
    beside.model, _ = live.attach_adapter(beside.model, adapter)
    live.merge_in_place(merged.model, [adapter])(1.0)
    same(ours(merged), ours(beside))


def test_trained_model_is_saved_as_open_clip_loads_it(folder: Path, tmp_path: Path) -> None:
    loaded = open_clip.load(folder, CPU, torch.float32)
    with torch.no_grad():
        for parameter in loaded.model.parameters():
            parameter.mul_(1.1)
    open_clip.save(loaded, tmp_path / "saved")
    same(theirs(*plain(tmp_path / "saved")), ours(loaded))
    assert {path.name for path in (tmp_path / "saved").iterdir()} == {path.name for path in folder.iterdir()}


def test_repository_names_itself_as_the_place_of_its_tokenizer(own: Path) -> None:
    (text,) = open_clip.repository_files(own, "me/regional").values()
    published = json.loads(text)
    assert published["model_cfg"]["text_cfg"].pop("hf_tokenizer_name") == "me/regional"
    config = json.loads((own / "open_clip_config.json").read_text())
    del config["model_cfg"]["text_cfg"]["hf_tokenizer_name"]
    assert published == config
    changed(own, lambda config: config["model_cfg"]["text_cfg"].pop("hf_tokenizer_name"))
    assert open_clip.repository_files(own, "me/regional") == {}


# -------------------------------------------------------------------------------------------------- what is not trusted
class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("exploded"),)


@pytest.mark.parametrize("name", ["open_clip_pytorch_model.bin", "open_clip_model.pth", "pytorch_model.bin"])
def test_pickle_is_never_read(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    (own / name).write_bytes(pickle.dumps(Bomb()))
    open_clip.load(own, CPU)
    (own / "open_clip_model.safetensors").rename(own / "model.safetensors")
    with pytest.raises(InputError, match=r"no open_clip_model\.safetensors") as caught:
        open_clip.load(own, CPU)
    assert "pickled weights are never loaded" in str(caught.value)
    assert not Path("exploded").exists()


def test_older_name_of_the_weights_is_read(own: Path) -> None:
    expected = ours(open_clip.load(own, CPU))
    (own / "open_clip_model.safetensors").rename(own / "open_clip_pytorch_model.safetensors")
    same(ours(open_clip.load(own, CPU)), expected)


def test_damaged_weights_are_refused(own: Path) -> None:
    file = own / "open_clip_model.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(InputError, match="own: damaged weights"):
        open_clip.load(own, CPU)


def test_folder_without_configuration_is_refused(own: Path) -> None:
    (own / "open_clip_config.json").unlink()
    with pytest.raises(InputError, match=r"open_clip_config\.json: cannot be read"):
        open_clip.load(own, CPU)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.clear(), "expected model_cfg with a text_cfg and a vision_cfg"),
        (lambda c: c["model_cfg"].pop("text_cfg"), "expected model_cfg with a text_cfg and a vision_cfg"),
        (lambda c: c["model_cfg"]["text_cfg"].update(width=64), "cannot be loaded as an open_clip model"),
        (lambda c: c["model_cfg"]["text_cfg"].update(heads=0), "cannot be loaded as an open_clip model"),
        (lambda c: c["model_cfg"]["text_cfg"].update(no_such_key=1), "cannot be loaded as an open_clip model"),
        (lambda c: c["model_cfg"].pop("embed_dim"), "cannot be loaded as an open_clip model"),
        (lambda c: c["model_cfg"]["vision_cfg"].update(patch_size="large"), "cannot be loaded as an open_clip model"),
        (lambda c: c.update(preprocess_cfg=1), "cannot be loaded as an open_clip model"),
        (lambda c: c["model_cfg"]["text_cfg"].update(hf_model_name="org/tower"), "comes from org/tower"),
        (lambda c: c["model_cfg"]["vision_cfg"].update(timm_model_name="hf-hub:org/tower"), "timm itself knows"),
    ],
)  # fmt: skip
def test_wrong_configuration_is_refused(own: Path, change: Callable[[dict[str, Any]], Any], message: str) -> None:
    changed(own, change)
    with pytest.raises(InputError, match=message):
        open_clip.load(own, CPU)


def test_tokenizer_is_the_one_in_the_folder_whatever_the_configuration_names(own: Path) -> None:
    expected = ours(open_clip.load(own, CPU))
    changed(own, lambda c: c["model_cfg"]["text_cfg"].update(hf_tokenizer_name="openai/clip-vit-large-patch14"))
    same(ours(open_clip.load(own, CPU)), expected)
    (own / "tokenizer.json").unlink()
    with pytest.raises(InputError, match="'openai/clip-vit-large-patch14', and the folder has no tokenizer files"):
        open_clip.load(own, CPU)


def test_model_without_a_tokenizer_has_that_of_open_clip(own: Path) -> None:
    changed(own, lambda c: c["model_cfg"]["text_cfg"].pop("hf_tokenizer_name"))
    tokens = open_clip.load(own, CPU).processor.tokenizer(list(TEXTS))
    assert torch.equal(tokens, get_tokenizer("ViT-B-32")(list(TEXTS), context_length=16))


def test_code_beside_a_tokenizer_is_never_run(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (own / "tokens.py").write_text("from pathlib import Path\nPath('exploded').touch()\nclass Tokens: pass\n")
    file = own / "tokenizer_config.json"
    settings = json.loads(file.read_text()) | {"auto_map": {"AutoTokenizer": ["tokens.Tokens", "tokens.Tokens"]}}
    file.write_text(json.dumps(settings | {"tokenizer_class": "Tokens"}))
    changed(own, lambda c: c["model_cfg"]["text_cfg"].update(tokenizer_kwargs={"trust_remote_code": True}))
    with pytest.raises(InputError, match="cannot be loaded as an open_clip model"):
        open_clip.load(own, CPU)
    assert not Path("exploded").exists()


# ---------------------------------------------------------------------------------------------------------------- names
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("someone/model", "someone/model"),
        ("hf-hub:someone/model", "someone/model"),
        ("open_clip:ViT-B-32/laion2b_s34b_b79k", "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"),
        ("open_clip:ViT-B-32/laion2b-s34b-b79k", "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"),
        ("open_clip:ViT-B-32-quickgelu/openai", "timm/vit_base_patch32_clip_224.openai"),
        ("open_clip:ViTamin-S/datacomp1b", "jienengchen/ViTamin-S"),
    ],
)
def test_names_of_open_clip_lead_to_the_hub(name: str, expected: str) -> None:
    assert hub_id(name) == expected


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("open_clip:ViT-B-32/laion2b_s34b_b79", "did you mean 'open_clip:ViT-B-32/laion2b_s34b_b79k'"),
        ("open_clip:ViT-B-32", "no such weights"),
    ],
)
def test_unknown_name_of_open_clip_is_refused(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        hub_id(name)


def test_every_name_of_open_clip_is_that_of_a_repository() -> None:
    for model, tag in list_pretrained():
        validate_repo_id(hub_id(f"open_clip:{model}/{tag}"))


def test_weights_that_are_not_on_the_hub_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = {"url": "https://example.org/weights.pt", "hf_hub": ""}
    monkeypatch.setitem(pretrained._PRETRAINED, "ViT-B-32", {"elsewhere": elsewhere})
    with pytest.raises(InputError, match=r"not on the Hub, but at https://example\.org/weights\.pt"):
        hub_id("open_clip:ViT-B-32/elsewhere")


def test_snippets_load_what_they_say(
    folder: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the names of local folders in place of those on the Hub."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(adapter, tmp_path / "me" / "adapter")
    snippet = open_clip.usage("me/adapter", "someone/base", "0123abc")["adapter"]
    names: dict[str, Any] = {"snapshot_download": lambda *_, **__: str(folder)}
    lines = [line for line in snippet.splitlines() if "huggingface_hub" not in line]
    exec(compile("\n".join(lines), "snippet", "exec"), names)
    loaded = open_clip.load(folder, CPU)
    loaded.model, _ = live.attach_adapter(loaded.model, adapter)
    same(theirs(names["model"].eval(), names["preprocess"], names["tokenizer"]), ours(loaded))
