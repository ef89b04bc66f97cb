"""Makes safetensors of models that are published as pickles alone, once, so that ggez_hub never loads a pickle.

    python scripts/convert_weights.py hpsv2 HPS_v2.1_compressed.pt FOLDER
    python scripts/convert_weights.py image-reward ImageReward.pt FOLDER [--tokenizer google-bert/bert-base-uncased]
    python scripts/convert_weights.py nllb DOWNLOADED FOLDER

The files are those of xswu/HPSv2 and THUDM/ImageReward on the Hub, and what `hf download
facebook/nllb-200-distilled-600M --local-dir DOWNLOADED` brings. Nothing of a pickle is run: torch reads tensors alone
(`weights_only=True`), and every one of them has to have the name and the shape that the model needs.
"""

import argparse
import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ggez_hub import hub
from ggez_hub.data import image_reward
from ggez_hub.errors import GgezError, InputError
from ggez_hub.families.base import library
from ggez_hub.runs import write_json

if TYPE_CHECKING:
    import torch

    State = dict[str, "torch.Tensor"]

HPSV2 = "ViT-H-14"  # of open_clip
TOKENIZER = "google-bert/bert-base-uncased"
# ImageReward's names, which are those of BLIP's own code, and what transformers calls the same.
NAMES = (
    (r"^blip\.visual_encoder\.cls_token$", "vision.embeddings.class_embedding"),
    (r"^blip\.visual_encoder\.pos_embed$", "vision.embeddings.position_embedding"),
    (r"^blip\.visual_encoder\.patch_embed\.proj\.", "vision.embeddings.patch_embedding."),
    (r"^blip\.visual_encoder\.norm\.", "vision.post_layernorm."),
    (r"^blip\.visual_encoder\.blocks\.(\d+)\.norm([12])\.", r"vision.encoder.layers.\1.layer_norm\2."),
    (r"^blip\.visual_encoder\.blocks\.(\d+)\.attn\.proj\.", r"vision.encoder.layers.\1.self_attn.projection."),
    (r"^blip\.visual_encoder\.blocks\.(\d+)\.attn\.", r"vision.encoder.layers.\1.self_attn."),
    (r"^blip\.visual_encoder\.blocks\.(\d+)\.mlp\.", r"vision.encoder.layers.\1.mlp."),
    (r"^blip\.text_encoder\.", "text."),
)
UNUSED = re.compile(  # by the score, or computed anew
    r"^blip\.(vision_proj|text_proj)\.|\.position_ids$|^attn_mask$|\.embed_positions\.weights$"
)


def state_of(file: Path) -> "State":
    """The tensors of a pickled checkpoint.

    Raises:
        InputError: No such file, or one that holds more than tensors.
    """
    import pickle

    import torch

    try:
        found: Any = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as err:
        raise InputError(f"{file}: cannot be read as tensors alone: {str(err).splitlines()[0]}") from err
    found = found.get("state_dict", found) if isinstance(found, dict) else found
    if not (isinstance(found, dict) and all(isinstance(value, torch.Tensor) for value in found.values())):
        raise InputError(f"{file}: expected a dictionary of tensors")
    return {name.removeprefix("module."): value for name, value in found.items()}


def hpsv2(state: "State", folder: Path, model: Mapping[str, Any] | None = None) -> None:
    """Writes an open_clip model.

    Pictures are fitted in, not cropped, as HPSv2 does it.

    Args:
        state: Its tensors.
        folder: Where to.
        model: Its sizes, as open_clip has them; None = those of HPSv2.
    """
    import torch

    open_clip = library("open_clip", "open_clip")
    sizes = model or open_clip.get_model_config(HPSV2)
    with torch.device("meta"):
        wanted = open_clip.CLIP(**sizes).state_dict()
    preprocess = {
        "mean": list(open_clip.OPENAI_DATASET_MEAN),
        "std": list(open_clip.OPENAI_DATASET_STD),
        "interpolation": "bicubic",
        "resize_mode": "longest",
    }
    write(state, wanted, folder, hub.OPEN_CLIP[0])
    write_json(folder / "open_clip_config.json", {"model_cfg": dict(sizes), "preprocess_cfg": preprocess})


def imagereward(
    state: "State", folder: Path, tokenizer: Path, config: Mapping[str, Any] = image_reward.PUBLISHED
) -> None:
    """Writes what ggez_hub.data.image_reward reads.

    Args:
        state: ImageReward's tensors.
        folder: Where to.
        tokenizer: The folder of BERT's tokenizer.
        config: The model's sizes.
    """
    import torch
    from transformers import BertTokenizer

    layers = sorted({int(found[1]) for name in state if (found := re.match(r"mlp\.layers\.(\d+)\.", name))})
    renamed = {}
    for name, value in state.items():
        for pattern, ours in NAMES:
            name = re.sub(pattern, ours, name)
        renamed[re.sub(r"^mlp\.layers\.(\d+)\.", lambda found: f"head.{layers.index(int(found[1]))}.", name)] = value
    with torch.device("meta"):
        wanted = image_reward.network(config).state_dict()
    read: Any = BertTokenizer.from_pretrained(tokenizer, **hub.HERE)
    if len(read) > config["text"]["vocab_size"]:
        raise InputError(f"{tokenizer}: {len(read)} words, expected {config['text']['vocab_size']} at most")
    write(renamed, wanted, folder, "model.safetensors")
    read.save_pretrained(folder)
    write_json(folder / "config.json", dict(config))


def nllb(source: Path, folder: Path) -> None:
    """Writes an NLLB-200 checkpoint with its tokenizer.

    Args:
        source: The folder with pytorch_model.bin, in one file or several.
        folder: Where to.

    Raises:
        InputError: No such checkpoint, or one that holds more than tensors.
    """
    from transformers import AutoConfig, AutoTokenizer, M2M100ForConditionalGeneration, NllbMoeForConditionalGeneration

    classes: dict[Any, Any] = {"m2m_100": M2M100ForConditionalGeneration, "nllb-moe": NllbMoeForConditionalGeneration}
    config = hub.read_json(source / "config.json")
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind not in classes:
        raise InputError(f"{source}: is a model of type {kind!r}, expected an NLLB-200 checkpoint (m2m_100)")
    state: State = {}
    for file in sorted(source.glob("pytorch_model*.bin")):
        state |= {name: value for name, value in state_of(file).items() if not UNUSED.search(name)}
    try:
        sizes = AutoConfig.from_pretrained(source, **hub.HERE)
        loaded = classes[kind].from_pretrained(
            None, config=sizes, state_dict=state, dtype="auto", output_loading_info=True
        )
        tokenizer: Any = AutoTokenizer.from_pretrained(source, **hub.HERE)
    except hub.UNREADABLE as err:
        raise InputError(f"{source}: no NLLB-200 checkpoint: {str(err).splitlines()[0]}") from err
    model, info = loaded
    if wrong := sorted([*info["missing_keys"], *info["unexpected_keys"], *map(str, info["mismatched_keys"])]):
        raise InputError(f"{source}: tensor {wrong[0]} is not there, or not expected", "fetch it again")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as made:
        model.save_pretrained(made)
        tokenizer.save_pretrained(made)
        for file in sorted(Path(made).iterdir(), key=lambda file: file.suffix == ".safetensors"):  # these last
            file.replace(folder / file.name)


def write(state: "State", wanted: "State", folder: Path, name: str) -> None:
    """Writes tensors, all that are wanted and no others."""
    from safetensors.torch import save_file

    state = {key: value for key, value in state.items() if not UNUSED.search(key)}
    for key in sorted(state.keys() | wanted.keys()):
        has, needs = (list(side[key].shape) if key in side else None for side in (state, wanted))
        if has != needs:
            raise InputError(f"tensor {key}: {has or 'not there'}, expected {needs or 'none of that name'}",
                             "is it the checkpoint of another model?")  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    whole = {key: value.contiguous().clone() for key, value in state.items()}
    save_file(whole, folder / f".{name}", metadata={"format": "pt"})
    (folder / f".{name}").replace(folder / name)


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=["hpsv2", image_reward.KIND, "nllb"])
    parser.add_argument("file", type=Path, help="the pickle; of nllb its folder")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tokenizer", default=TOKENIZER, help="of ImageReward: a folder or a Hub id")
    given = parser.parse_args(arguments)
    try:
        if given.model == "nllb":
            nllb(given.file, given.folder)
        elif given.model == "hpsv2":
            hpsv2(state_of(given.file), given.folder)
        else:
            only = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "config.json")
            imagereward(state_of(given.file), given.folder, hub.fetch(given.tokenizer, only=only))
    except GgezError as err:
        sys.stderr.write(f"{err}\n")
        return err.exit_code
    key = "the id of a translator" if given.model == "nllb" else "filter.reward.id"
    sys.stdout.write(f"{given.folder}: for {key}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
