"""Twins of base models: the same classes and the same configuration, but so small that a laptop trains them in seconds.

A twin differs from the model that it stands for in these things alone:

* its sizes: widths, layers, heads, groups, patches, steps of drawing; where layers are of several kinds, one of each
  kind is left, and pictures are of 28 to 128 pixels a side;
* its vocabulary, made from the texts that it will read, with the real special tokens under other numbers; an open_clip
  model without a tokenizer of its own keeps open_clip's, with all 49408 entries;
* its weights, which are random, in the type of numbers that the configuration names (diffusers: float32).
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ggez_hub.errors import GgezError, InputError
from ggez_hub.families import diffusion, embedding, open_clip, vlm
from ggez_hub.families.base import clip_vocabulary, library
from ggez_hub.hub import OPEN_CLIP, UNREADABLE
from ggez_hub.rehearsal import bases
from ggez_hub.rehearsal.bases import INDEX, Architecture, Config
from ggez_hub.runs import write_json

HEADS, GROUPS, CHANNELS = 2, 2, 2  # CHANNELS of the outermost blocks of a pipeline's networks
PATCH, PATCHES = 7, 4  # pixels, and patches, of a side
PICTURE = PATCH * PATCHES
IMAGE_TOKENS = 4
WIDTH = 16
DRAWN = 32  # pixels of a side that a pipeline draws; more, where it has many blocks
STEPS = 2  # of drawing
VOCABULARY = {"vlm": 400, "embedding": 400, "clip": 600}  # entries at most; of CLIP 512 are letters
# A conversation that the real template refuses has to be refused here too, not first on the big machine.
TURNS = """\
{%- for message in messages if message.role != 'system' -%}
{%- if (message.role == 'user') != (loop.index0 % 2 == 0) -%}
{{ raise_exception('roles must alternate: user, assistant, user, assistant, ...') }}
{%- endif -%}
{%- endfor -%}
"""


def write(architecture: Architecture, folder: Path, texts: Sequence[str], seed: int = 0) -> None:
    """Writes a twin, which the family of the architecture loads; the same arguments write the same bytes.

    Args:
        architecture: Of the model that it stands for.
        folder: Where to; made if missing.
        texts: What the vocabulary is made from.
        seed: Of the weights.

    Raises:
        InputError: The configuration makes no model.
        DependencyError: The library of its family is not installed.
    """
    writers: dict[str, Callable[[Architecture, Path, Sequence[str], int], None]] = {
        "Gemma3ForConditionalGeneration": _gemma,
        "SiglipModel": _siglip,
        "CLIPModel": _clip,
        "CLIP": _open_clip,
        **dict.fromkeys(diffusion.PIPELINES, _pipeline),
    }
    folder.mkdir(parents=True, exist_ok=True)
    try:
        writers[architecture.class_name](architecture, folder, list(texts) or ["a picture of a thing"], seed)
    except GgezError:
        raise
    except UNREADABLE as err:
        words = f"{type(err).__name__}: {err}"
        raise InputError(
            f"{architecture.id}: a twin cannot be made from its configuration: {words}",
            "check that its files are whole; if they are, tell the maintainers of ggez_hub",
        ) from err


def write_classifier(folder: Path, label: str, seed: int = 0) -> None:
    """Writes an image classification model that stands for that of filter.unsafe.id: it finds few pictures unsafe.

    Args:
        folder: Where to; made if missing.
        label: The class whose probability counts.
        seed: Of the weights.
    """
    import torch
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    names = {0: f"not {label}", 1: label}
    sizes: Config = _vision({}) | {"num_hidden_layers": 1}
    config = ViTConfig(**sizes, id2label=names, label2id={name: i for i, name in names.items()})
    torch.manual_seed(seed)
    model: Any = ViTForImageClassification(config)
    with torch.no_grad():
        model.classifier.bias.copy_(torch.tensor([3.0, 0.0]))
    model.save_pretrained(folder)
    ViTImageProcessor(size={"height": PICTURE, "width": PICTURE}).save_pretrained(folder)


# --------------------------------------------------------------------------------------------------------- transformers
def _gemma(architecture: Architecture, folder: Path, texts: Sequence[str], seed: int) -> None:
    from transformers import Gemma3ImageProcessor, Gemma3Processor, GenerationConfig

    tokenizer = vlm.tiny_tokenizer(texts, VOCABULARY["vlm"])
    ends = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<end_of_turn>")]
    published = architecture.config["text_config"]
    text = {
        **published,
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": 2,
        "layer_types": ["sliding_attention", "full_attention"],
        "num_attention_heads": HEADS,
        "num_key_value_heads": 1,
        "head_dim": WIDTH // HEADS,
        "vocab_size": len(tokenizer),
        "eos_token_id": ends,
        "bos_token_id": tokenizer.bos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = {
        **architecture.config,
        "text_config": text,
        "vision_config": _vision(architecture.config["vision_config"]),
        "mm_tokens_per_image": IMAGE_TOKENS,
        "boi_token_index": tokenizer.boi_token_id,
        "eoi_token_index": tokenizer.eoi_token_id,
        "image_token_index": tokenizer.image_token_id,
        "eos_token_id": ends,
    }
    model = _random(architecture.class_name, config, seed, vlm.enliven)
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, pad_token_id=tokenizer.pad_token_id, eos_token_id=ends
    )
    model.save_pretrained(folder)
    reader = Gemma3ImageProcessor(size={"height": PICTURE, "width": PICTURE})
    Gemma3Processor(reader, tokenizer, TURNS + vlm.TEMPLATE, IMAGE_TOKENS).save_pretrained(folder)


def _siglip(architecture: Architecture, folder: Path, texts: Sequence[str], seed: int) -> None:
    from tokenizers.processors import TemplateProcessing
    from transformers import SiglipImageProcessor, SiglipProcessor

    tokenizer = embedding.tiny_tokenizer(texts, VOCABULARY["embedding"])
    end = tokenizer.eos_token  # the real one adds it, and no beginning
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"$A {end}", pair=f"$A {end} $B {end}", special_tokens=[(end, tokenizer.eos_token_id)]
    )
    text = _narrow(architecture.config["text_config"]) | {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = _vision(architecture.config["vision_config"])
    config = {**architecture.config, "text_config": text, "vision_config": vision}
    _random(architecture.class_name, config, seed, embedding.enliven).save_pretrained(folder)
    reader = SiglipImageProcessor(size={"height": PICTURE, "width": PICTURE})
    SiglipProcessor(image_processor=reader, tokenizer=tokenizer).save_pretrained(folder)


def _clip(architecture: Architecture, folder: Path, texts: Sequence[str], seed: int) -> None:
    from transformers import CLIPImageProcessor, CLIPProcessor

    tokenizer = _clip_tokenizer(texts, {"model_max_length": 77})
    text = _clip_text(architecture.config["text_config"], len(tokenizer))
    vision = _vision(architecture.config["vision_config"])
    config = {**architecture.config, "text_config": text, "vision_config": vision, "projection_dim": WIDTH}
    _random(architecture.class_name, config, seed).save_pretrained(folder)
    reader = CLIPImageProcessor(size={"shortest_edge": PICTURE}, crop_size={"height": PICTURE, "width": PICTURE})
    CLIPProcessor(image_processor=reader, tokenizer=tokenizer).save_pretrained(folder)


def _random(class_name: str, config: Mapping[str, Any], seed: int, enliven: Callable[[Any], None] | None = None) -> Any:
    """A model of transformers with random weights, of the type of numbers that the configuration names."""
    import torch

    kind = config.get("dtype") or config.get("torch_dtype") or "float32"
    torch.manual_seed(seed)
    model = bases.of_transformers(class_name, config).float()
    if enliven:
        enliven(model)
    return model.to(getattr(torch, kind)).eval()


def _narrow(config: Mapping[str, Any], width: int = WIDTH, layers: int = 2) -> Config:
    """The configuration of a tower with other sizes; what it is projected to, where it says so, is as wide."""
    sizes = {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": HEADS,
    }
    return {**config, **sizes, **{key: width for key in ("projection_size", "projection_dim") if key in config}}


def _vision(config: Mapping[str, Any]) -> Config:
    return _narrow(config) | {"image_size": PICTURE, "patch_size": PATCH}


def _clip_text(config: Mapping[str, Any], vocabulary: int, width: int = WIDTH) -> Config:
    """A CLIP's text tower; the end of a text is the last entry, unless the number 2 stands for it as in old ones."""
    last = {} if config.get("eos_token_id") == 2 else {"bos_token_id": vocabulary - 2, "eos_token_id": vocabulary - 1}
    return _narrow(config, width) | last | {"vocab_size": vocabulary}


def _clip_tokenizer(texts: Sequence[str], settings: Mapping[str, Any]) -> Any:
    from transformers import CLIPTokenizer

    vocabulary, merges = clip_vocabulary(texts, VOCABULARY["clip"])
    return CLIPTokenizer(vocab=vocabulary, merges=merges, **settings)


# ------------------------------------------------------------------------------------------------------------ open_clip
def _open_clip(architecture: Architecture, folder: Path, texts: Sequence[str], seed: int) -> None:
    import torch
    from safetensors.torch import save_file

    config = copy.deepcopy(dict(architecture.config))
    model, width = config["model_cfg"], WIDTH // 2  # its tokenizer has many words
    model["embed_dim"] = width
    model["vision_cfg"] |= {"image_size": PICTURE, "patch_size": PATCH, "layers": 2, "width": width,
                            "head_width": width // HEADS}  # fmt: skip
    model["text_cfg"] |= {"layers": 2, "width": width, "heads": HEADS}
    if model["text_cfg"].get(open_clip.TOKENIZER):
        tokenizer = _clip_tokenizer(texts, {"model_max_length": model["text_cfg"].get("context_length", 77)})
        model["text_cfg"]["vocab_size"] = len(tokenizer)
        tokenizer.save_pretrained(folder)
    torch.manual_seed(seed)
    state = library("open_clip", "open_clip").model.CLIP(**copy.deepcopy(model)).state_dict()
    tensors = {name: tensor.contiguous() for name, tensor in state.items()}
    save_file(tensors, folder / OPEN_CLIP[0], metadata={"format": "pt"})
    write_json(folder / open_clip.CONFIG, config)


# ------------------------------------------------------------------------------------------------------------ diffusers
def _pipeline(architecture: Architecture, folder: Path, texts: Sequence[str], seed: int) -> None:
    import torch
    from transformers import CLIPImageProcessor

    diffusers = library("diffusers", "diffusion")
    published = architecture.config
    configs = _pipeline_sizes(published, len(_clip_tokenizer(texts, {})))
    torch.manual_seed(seed)
    parts: dict[str, Any] = {}
    for name, value in published[INDEX].items():
        if not isinstance(value, list):
            continue
        class_name = value[1]
        if class_name is None:
            parts[name] = None
        elif class_name.startswith("CLIPTokenizer"):
            parts[name] = _clip_tokenizer(texts, published.get(name, {}))
        elif class_name.endswith("Scheduler"):
            parts[name] = getattr(diffusers, class_name).from_config(dict(published[name]))
            parts[name].register_to_config(**{diffusion.STEPS_KEY: STEPS})
        elif not bases.is_network(class_name):
            parts[name] = CLIPImageProcessor(**{**published[name], "size": PICTURE, "crop_size": PICTURE})
        else:
            parts[name] = bases.part(class_name, configs[name]).float().eval()
            if name.startswith("text_encoder"):
                with torch.no_grad():  # or random texts would all look alike
                    parts[name].get_input_embeddings().weight.normal_()
    settings = {name: value for name, value in published[INDEX].items()
                if name[0] != "_" and not isinstance(value, list)}  # fmt: skip
    getattr(diffusers, architecture.class_name)(**parts, **settings).save_pretrained(folder)


def _pipeline_sizes(published: Mapping[str, Any], vocabulary: int) -> dict[str, Config]:
    """The configurations of a pipeline's networks with sizes that fit each other."""
    configs: dict[str, Config] = {}
    widths = {name: 8 + 4 * i for i, name in enumerate(sorted(n for n in published if n.startswith("text_encoder")))}
    for name, width in widths.items():
        configs[name] = _clip_text(published[name], vocabulary, width)
    unet, vae = dict(published["unet"]), dict(published["vae"])
    scale = 2 ** (len(vae["block_out_channels"]) - 1)
    # Halved from block to block; of a single place the attention in the last one would have nothing to learn.
    side = max(2 ** len(unet["block_out_channels"]), DRAWN // scale)
    for config, size in ((unet, side), (vae, side * scale)):
        config |= {"block_out_channels": _channels(config["block_out_channels"]), "layers_per_block": 1,
                   "norm_num_groups": GROUPS, "sample_size": size}  # fmt: skip
    unet["cross_attention_dim"] = sum(widths.values())
    heads, layers = unet.get("attention_head_dim", 8), unet.get("transformer_layers_per_block", 1)
    unet["attention_head_dim"] = [2**i for i in range(len(heads))] if isinstance(heads, list) else HEADS
    if isinstance(layers, list):
        unet["transformer_layers_per_block"] = [min(count, 2) for count in layers]
    if unet.get("addition_embed_type") == "text_time":  # the pooled text, and six numbers of a picture
        unet["addition_time_embed_dim"] = 8
        unet["projection_class_embeddings_input_dim"] = list(widths.values())[-1] + 6 * 8
    configs |= {"unet": unet, "vae": vae}
    if checker := published.get("safety_checker"):
        configs["safety_checker"] = {
            **checker,
            "projection_dim": WIDTH,
            "text_config": _narrow(checker["text_config"], layers=1),
            "vision_config": _vision(checker["vision_config"]) | {"num_hidden_layers": 1},
        }
    return configs


def _channels(published: Sequence[int]) -> list[int]:
    """As many, each twice as wide as the next smaller one."""
    distinct = sorted(set(published))
    return [CHANNELS * 2 ** distinct.index(count) for count in published]
