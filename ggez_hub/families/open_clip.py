"""Image-text models of open_clip: CLIP and its many relatives."""

import copy
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ggez_hub import device as devices
from ggez_hub.errors import InputError
from ggez_hub.families import _contrastive as contrastive
from ggez_hub.families.base import Loaded, clip_vocabulary, has_tokenizer, library, place_of
from ggez_hub.hub import HERE, OPEN_CLIP, UNREADABLE, read_json
from ggez_hub.merging.adapters import WEIGHTS
from ggez_hub.merging.attention import split_attention
from ggez_hub.merging.tensors import carried
from ggez_hub.runs import write_json

if TYPE_CHECKING:
    import torch

LIBRARY_NAME = "open_clip"
ADAPTER_LIBRARY_NAME = "peft"
PIPELINE_TAG = "zero-shot-image-classification"
TAGS = ("clip",)
TASK_TYPE = None
TASKS = ("top1", "choice", "question")
WRITES = False
LOSSES = {"softmax": "text", "sigmoid": "text"}
TINY = {"hidden": 32, "layers": 2, "text_hidden": 32, "text_layers": 2, "heads": 2, "image": 32, "patch": 8,
        "length": 16, "vocabulary": 600}  # fmt: skip
CONFIG = "open_clip_config.json"
TOKENIZER = "hf_tokenizer_name"


@dataclass(frozen=True)
class Processor:
    """What turns pictures and texts into a model's inputs."""

    preprocess: Any  # PIL picture -> [3, height, width]
    tokenizer: Any  # texts -> tokens [texts, length]


def load(folder: Path, device: "torch.device | None" = None, dtype: "torch.dtype | None" = None) -> Loaded:
    """Loads model, evaluation preprocessing and tokenizer from a local folder.

    Args:
        folder: The model.
        device: None = the best there is.
        dtype: Of the weights; None = what suits the device.

    Raises:
        InputError: No open_clip model in the folder, or its files are damaged.
        DependencyError: open_clip is not installed.
    """
    from safetensors import SafetensorError

    open_clip = library("open_clip", "open_clip")
    if not any((folder / name).is_file() for name in OPEN_CLIP):  # where one is there, it looks for no pickle
        raise InputError(f"{folder}: no {OPEN_CLIP[0]}", "pickled weights are never loaded")
    text = _checked(folder)["model_cfg"]["text_cfg"]
    device = device or devices.best()
    dtype = dtype or devices.dtype(device)
    # What a tokenizer is given may stand in the model's own files, so it is overruled where it could lead elsewhere.
    safe = HERE if text.get(TOKENIZER) else {}
    try:
        model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
        tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}", **safe)
    except SafetensorError as err:
        raise InputError(f"{folder}: damaged weights: {err}", "fetch or write the model again") from err
    except UNREADABLE as err:
        raise InputError(f"{folder}: cannot be loaded as an open_clip model: {err}") from err
    split_attention(model)
    return Loaded(model.to(device, dtype).eval(), Processor(preprocess, tokenizer), folder)


def _checked(folder: Path) -> dict[str, Any]:
    """The configuration of a model, none of whose parts open_clip would fetch from elsewhere."""
    file = folder / CONFIG
    config = read_json(file)
    model = config.get("model_cfg") if isinstance(config, dict) else None
    text, vision = (model.get(part) if isinstance(model, dict) else None for part in ("text_cfg", "vision_cfg"))
    if not (isinstance(text, dict) and isinstance(vision, dict)):
        raise InputError(f"{file}: expected model_cfg with a text_cfg and a vision_cfg")
    if text.get("hf_model_name"):
        raise InputError(f"{file}: text_cfg.hf_model_name: a text tower that comes from {text['hf_model_name']}",
                         "use a model whose text tower is open_clip's own")  # fmt: skip
    if ":" in str(vision.get("timm_model_name", "")):
        raise InputError(f"{file}: vision_cfg.timm_model_name: expected a name that timm itself knows")
    if text.get(TOKENIZER) and not has_tokenizer(folder):
        raise InputError(f"{file}: text_cfg.{TOKENIZER} is {text[TOKENIZER]!r}, and the folder has no tokenizer files",
                         "put tokenizer.json and tokenizer_config.json beside it")  # fmt: skip
    return config  # type: ignore[no-any-return]


def save(loaded: Loaded, folder: Path) -> None:
    """Writes a whole model; what is no weight is as it was where it came from."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in carried(loaded.folder):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(loaded.folder / file, folder / file)
    state = loaded.model.state_dict()
    _write({re.sub(r"\bin_proj\.", "in_proj_", name): tensor for name, tensor in state.items()}, folder / OPEN_CLIP[0])


def save_adapter(loaded: Loaded, folder: Path) -> None:
    """Writes the adapter of a trained model so that PEFT puts it on a model as open_clip makes it.

    There query, key and value are a parameter of the attention, not a layer: PEFT's `target_parameters`.
    """
    from peft import get_peft_model_state_dict

    state = get_peft_model_state_dict(loaded.model, save_embedding_layers=False)
    attention = re.compile(r"^base_model\.model\.(.+)\.in_proj\.lora_A\.weight$")
    config = copy.copy(loaded.model.peft_config["default"])
    config.target_parameters = [f"{found[1]}.in_proj_weight" for name in state if (found := attention.match(name))]
    config.lora_dropout = 0.0  # of training alone; PEFT refuses it beside such targets
    config.inference_mode = True
    config.save_pretrained(folder)
    _write({name.replace(".in_proj.lora_", ".lora_"): t for name, t in state.items()}, folder / WEIGHTS)


def _write(state: "Mapping[str, torch.Tensor]", file: Path) -> None:
    from safetensors.torch import save_file

    save_file({name: tensor.contiguous() for name, tensor in state.items()}, file, metadata={"format": "pt"})


def write_tiny(
    folder: Path, texts: Sequence[str] = (), seed: int = 0, parts: Mapping[str, Path] | None = None, **sizes: int
) -> None:
    """Writes a CLIP with random weights, and a tokenizer made from `texts`.

    Args:
        folder: Where to; made if missing.
        texts: What the vocabulary is made from.
        seed: Of the weights.
        parts: None: all of it is random.
        **sizes: Any of those in TINY.
    """
    import torch
    from transformers import CLIPTokenizer

    open_clip = library("open_clip", "open_clip")
    size = TINY | sizes
    vocabulary, merges = clip_vocabulary(texts or ("a picture of a thing",), size["vocabulary"])
    model = {
        "embed_dim": size["hidden"],
        "vision_cfg": {
            "image_size": size["image"],
            "patch_size": size["patch"],
            "layers": size["layers"],
            "width": size["hidden"],
            "head_width": size["hidden"] // size["heads"],
            "mlp_ratio": 2.0,
        },
        "text_cfg": {
            "context_length": size["length"],
            "vocab_size": len(vocabulary),
            "layers": size["text_layers"],
            "width": size["text_hidden"],
            "heads": size["heads"],
            "mlp_ratio": 2.0,
            TOKENIZER: "in this folder",  # which open_clip does not read from a folder, only that it is there
        },
    }
    torch.manual_seed(seed)
    state = open_clip.model.CLIP(**copy.deepcopy(model)).state_dict()
    CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=size["length"]).save_pretrained(folder)
    _write(state, folder / OPEN_CLIP[0])
    write_json(folder / CONFIG, {"model_cfg": model, "preprocess_cfg": {}})


def lora_targets() -> str:
    """Query, key and value, and MLP, of both towers' layers; also of a vision tower of timm.

    Not the output projection of torch's attention, for which PEFT adds the delta twice (MultiheadAttention.merge).
    """
    timm = r"visual\.trunk\.blocks\.\d+\.(attn\.(qkv|proj)|mlp\.fc[12])"
    return rf"(.*resblocks\.\d+\.(attn\.in_proj|mlp\.c_(fc|proj))|{timm})"


def network(loaded: Loaded, loss: str) -> Any:
    """The model: either loss trains all of it."""
    return loaded.model


def prepare(
    loaded: Loaded, examples: Any, loss: str, batch_size: int, max_length: int | None
) -> tuple[Any, dict[str, int]]:
    """The rows as they are: both towers train, so nothing can be computed beforehand."""
    return examples, {}


def _images(loaded: Loaded, images: Sequence[Any], copies: int = 1) -> "torch.Tensor":
    """Unit embeddings [copies * images, dim] of decoded pictures."""
    import torch

    weight = loaded.model.logit_scale
    pixels = torch.stack([loaded.processor.preprocess(image) for image in images]).to(weight.device, weight.dtype)
    unit: torch.Tensor = loaded.model.encode_image(pixels.repeat(copies, 1, 1, 1), normalize=True)
    return unit


def _texts(loaded: Loaded, texts: Sequence[str], copies: int = 1) -> "torch.Tensor":
    """Unit embeddings [copies * texts, dim]; what is longer than the model takes is cut off."""
    tokens = loaded.processor.tokenizer(list(texts)).to(loaded.model.logit_scale.device)
    unit: torch.Tensor = loaded.model.encode_text(tokens.repeat(copies, 1), normalize=True)
    return unit


def _fits(loaded: Loaded, text: str) -> bool:
    """Whether nothing of a text is cut off: then a longer window changes nothing (tokenizers cannot be asked)."""
    import torch

    read = loaded.processor.tokenizer
    length = read.context_length
    return torch.equal(read([text], length), read([text], length + 1)[:, :length])


losses = partial(contrastive.losses, (_images, _texts), next(iter(LOSSES)))
predict = partial(contrastive.predict, (_images, _texts), _fits)
embedder = partial(contrastive.Embedder, (_images, _texts))


def usage(repo_id: str, base: str, revision: str | None) -> dict[str, str]:
    """Snippets for the card: loading the adapter with PEFT, and the merged checkpoint with open_clip."""
    imports, place = place_of(base, revision)
    if not imports:
        imports = ["from huggingface_hub import snapshot_download"]
        place = f'snapshot_download({place}, allow_patterns=["*.safetensors", "*.json", "*.txt"])'
    adapter = [
        "import open_clip",
        "from peft import PeftModel",
        *imports,
        "",
        f"folder = {place}",
        'base, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}")',
        'tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")',
        f'model = PeftModel.from_pretrained(base, "{repo_id}")  # at alpha = 1',
    ]
    merged = [
        "import open_clip",
        "",
        f'model, preprocess = open_clip.create_model_from_pretrained("hf-hub:{repo_id}")',
        f'tokenizer = open_clip.get_tokenizer("hf-hub:{repo_id}")',
    ]
    return {"adapter": "\n".join(adapter), "merged": "\n".join(merged)}


def repository_files(folder: Path, repo_id: str) -> dict[str, str]:
    """The configuration, with the repository itself as the place of the tokenizer, if the folder has one."""
    config = _checked(folder)
    text = config["model_cfg"]["text_cfg"]
    if not text.get(TOKENIZER):
        return {}
    text[TOKENIZER] = repo_id
    return {CONFIG: json.dumps(config, indent=2) + "\n"}
