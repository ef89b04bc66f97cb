"""ImageReward: a BLIP that reads a text beside a picture, and linear layers that make one number of it.

Xu et al. 2023, arXiv 2304.05977. Its weights are published as a pickle; scripts/convert_weights.py makes a folder of it
that is read here: model.safetensors, config.json with the sizes, and the files of the tokenizer.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ggez_hub import device as devices
from ggez_hub import hub
from ggez_hub.data import images
from ggez_hub.errors import InputError

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

KIND = "image-reward"  # what config.json calls the model
MEAN, STD = 0.16717362830052426, 1.0333394966054072  # of its scores before they are normed
TOKENS = 35  # of a text; what comes after is not read
PIXEL_MEAN, PIXEL_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
BATCH = 32
PUBLISHED: Mapping[str, Any] = {
    "model_type": KIND,
    "vision": {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
               "image_size": 224, "patch_size": 16},
    "text": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
             "vocab_size": 30524, "max_position_embeddings": 512},
    "head": [1024, 128, 64, 16, 1],
}  # fmt: skip


def network(config: Mapping[str, Any]) -> Any:
    """The model with random weights: a torch module with the parts `vision`, `text` and `head`."""
    import itertools

    from torch import nn
    from transformers import BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel

    vision = BlipVisionConfig(**config["vision"], layer_norm_eps=1e-6)
    text = BlipTextConfig(**config["text"], encoder_hidden_size=vision.hidden_size, is_decoder=True)  # it has crossings
    widths = itertools.pairwise([text.hidden_size, *config["head"]])
    return nn.ModuleDict(
        {
            "vision": BlipVisionModel(vision),
            "text": BlipTextModel(text, add_pooling_layer=False),
            "head": nn.Sequential(*(nn.Linear(*pair) for pair in widths)),
        }
    )


def load(name: str, revision: str | None = None) -> Callable[[Sequence[tuple[bytes, str]]], list[float]]:
    """Loads a converted model, as a function from encoded pictures with their texts to scores, near 0 in the mean.

    Args:
        name: A folder or a Hub id.
        revision: On the Hub.

    Raises:
        InputError: No converted ImageReward there. Of the function: BrokenImage.
        HubError: The Hub refused or cannot be reached.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file
    from transformers import BertTokenizer

    from ggez_hub.merging.live import check_finite

    with hub.naming(name):
        folder = hub.fetch(name, revision)
        config = _config(folder)
        try:
            model = network(config)
            model.load_state_dict(load_file(folder / "model.safetensors"))
            tokenizer = BertTokenizer.from_pretrained(folder, **hub.HERE)
        except (SafetensorError, OSError, RuntimeError, ValueError) as err:
            raise InputError(f"{folder}: cannot be loaded as an ImageReward: {str(err)[:300]}") from err
        check_finite(model.named_parameters(), folder)
    device = devices.best()
    model.to(device).eval()
    side = config["vision"]["image_size"]

    def score(rows: Sequence[tuple[bytes, str]]) -> list[float]:
        import torch

        found: list[float] = []
        with torch.inference_mode(), devices.enough_memory("batch", BATCH):
            for part in (rows[i : i + BATCH] for i in range(0, len(rows), BATCH)):
                pixels = torch.stack([_pixels(images.decode(data), side) for data, _ in part])
                texts = tokenizer(
                    [text for _, text in part], padding=True, truncation=True, max_length=TOKENS, return_tensors="pt"
                )
                found += _scores(model, pixels.to(device), texts.to(device)).tolist()
        return found

    return score


def _scores(model: Any, pixels: "torch.Tensor", texts: Any) -> "torch.Tensor":
    """[rows]; what the text's first token has become once it has seen text and picture is scored."""
    seen = model["vision"](pixels).last_hidden_state
    read = model["text"](texts["input_ids"], texts["attention_mask"], encoder_hidden_states=seen).last_hidden_state
    scores: torch.Tensor = (model["head"](read[:, 0])[:, 0] - MEAN) / STD
    return scores


def _pixels(image: "Image", side: int) -> "torch.Tensor":
    """The middle of a picture whose shorter side is `side`, normed: [3, side, side]."""
    import numpy as np
    import torch
    from PIL.Image import Resampling

    short = min(image.size)
    width, height = (side if length == short else int(side * length / short) for length in image.size)
    left, top = (round((length - side) / 2) for length in (width, height))
    image = image.resize((width, height), Resampling.BICUBIC).crop((left, top, left + side, top + side))
    normed = (np.asarray(image, np.float32) / 255 - PIXEL_MEAN) / PIXEL_STD
    return torch.from_numpy(normed.astype(np.float32).transpose(2, 0, 1))


def _config(folder: Path) -> Any:
    """The sizes of a converted model; nothing else is taken from its file."""
    file = folder / "config.json"
    config = hub.read_json(file) if file.is_file() else None
    if not (isinstance(config, dict) and config.get("model_type") == KIND and (folder / "model.safetensors").is_file()):
        raise InputError(f"{folder}: no converted ImageReward", "pickled weights are never loaded")
    try:
        sizes = {part: {name: int(config[part][name]) for name in PUBLISHED[part]} for part in ("vision", "text")}
        return sizes | {"head": [int(width) for width in config["head"]]}
    except (LookupError, TypeError, ValueError) as err:
        raise InputError(f"{file}: expected the sizes {', '.join(PUBLISHED)}: {err}") from err
