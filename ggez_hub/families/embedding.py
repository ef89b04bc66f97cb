"""Image-text embedding models of transformers: SigLIP, SigLIP2 and their like."""

import json
import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ggez_hub import device as devices
from ggez_hub.errors import InputError
from ggez_hub.families import _contrastive as contrastive
from ggez_hub.families.base import Loaded, check_complete, place_of, save, save_adapter
from ggez_hub.hub import HERE, UNREADABLE

if TYPE_CHECKING:
    import torch

__all__ = ["save", "save_adapter"]  # which the Protocol asks for

LIBRARY_NAME = "transformers"
ADAPTER_LIBRARY_NAME = "peft"
PIPELINE_TAG = "zero-shot-image-classification"
TAGS = ("siglip",)
TASK_TYPE = None
TASKS = ("top1", "choice", "question")
WRITES = False
LOSSES = {"sigmoid": "text", "softmax": "text"}
TINY = {"hidden": 32, "layers": 2, "text_hidden": 32, "text_layers": 2, "heads": 2, "image": 32, "patch": 8,
        "vocabulary": 400}  # fmt: skip


def load(folder: Path, device: "torch.device | None" = None, dtype: "torch.dtype | None" = None) -> Loaded:
    """Loads model and processor from a local folder.

    Args:
        folder: The model.
        device: None = the best there is.
        dtype: Of the weights; None = what suits the device.

    Raises:
        InputError: No embedding model in the folder, or its files are damaged.
    """
    from safetensors import SafetensorError
    from transformers import AutoModel, AutoProcessor

    device = device or devices.best()
    dtype = dtype or devices.dtype(device)
    try:
        made: Any = AutoModel.from_pretrained(
            folder, use_safetensors=True, dtype=dtype, output_loading_info=True, **HERE
        )
        processor = AutoProcessor.from_pretrained(folder, **HERE)
    except SafetensorError as err:
        raise InputError(f"{folder}: damaged weights: {err}", "fetch or write the model again") from err
    except UNREADABLE as err:
        raise InputError(f"{folder}: cannot be loaded as an embedding model: {err}") from err
    model, info = made
    check_complete(folder, info["missing_keys"])
    if not (hasattr(model, "get_image_features") and hasattr(model, "get_text_features")):
        raise InputError(
            f"{folder}: {type(model).__name__} does not embed images and texts", "use a SigLIP class model"
        )
    return Loaded(model.to(device).eval(), processor, folder)


def network(loaded: Loaded, loss: str) -> Any:
    """The model: either loss trains all of it."""
    return loaded.model


def prepare(
    loaded: Loaded, examples: Any, loss: str, batch_size: int, max_length: int | None
) -> tuple[Any, dict[str, int]]:
    """The rows as they are: both towers train, so nothing can be computed beforehand."""
    return examples, {}


def write_tiny(
    folder: Path, texts: Sequence[str] = (), seed: int = 0, parts: Mapping[str, Path] | None = None, **sizes: int
) -> None:
    """Writes a SigLIP with random weights, and a tokenizer made from `texts`.

    Args:
        folder: Where to; made if missing.
        texts: What the vocabulary is made from.
        seed: Of the weights.
        parts: None: all of it is random.
        **sizes: Any of those in TINY.
    """
    import torch
    from transformers import SiglipConfig, SiglipImageProcessor, SiglipModel, SiglipProcessor

    size = TINY | sizes
    tokenizer = tiny_tokenizer(texts or ("a picture of a thing",), size["vocabulary"])
    config = SiglipConfig(
        text_config={
            "hidden_size": size["text_hidden"],
            "num_hidden_layers": size["text_layers"],
            "num_attention_heads": size["heads"],
            "intermediate_size": 2 * size["text_hidden"],
            "projection_size": size["hidden"],
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 64,  # transformers' zero-shot pipeline always pads to 64
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        },
        vision_config={
            "hidden_size": size["hidden"],
            "num_hidden_layers": size["layers"],
            "num_attention_heads": size["heads"],
            "intermediate_size": 2 * size["hidden"],
            "image_size": size["image"],
            "patch_size": size["patch"],
        },
    )
    torch.manual_seed(seed)
    model = SiglipModel(config)
    enliven(model)
    model.save_pretrained(folder)
    pixels = SiglipImageProcessor(size={"height": size["image"], "width": size["image"]})
    SiglipProcessor(image_processor=pixels, tokenizer=tokenizer).save_pretrained(folder)


def enliven(model: Any) -> None:
    """Sets anew what the class leaves so small that a narrow model of random weights would tell nothing apart."""
    import torch

    with torch.no_grad():
        model.logit_scale.fill_(math.log(10))  # where the SigLIP paper starts; the class leaves it at 1
        # So small a text tower does not get away from embeddings as small as the class makes them.
        model.text_model.embeddings.token_embedding.weight.normal_(std=0.3)


def tiny_tokenizer(texts: Sequence[str], size: int) -> Any:
    """A byte-pair tokenizer with SigLIP2's special tokens, byte fallback, padding side and length."""
    from tokenizers import Tokenizer, normalizers, pre_tokenizers, trainers
    from tokenizers.models import BPE
    from transformers import Siglip2Tokenizer

    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer = Tokenizer(BPE(unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.Replace(" ", "▁")])
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")  # or whole sentences become one token
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=size, special_tokens=special, show_progress=False)
    )
    model = json.loads(tokenizer.to_str())["model"]
    merges: Any = [tuple(pair) for pair in model["merges"]]
    return Siglip2Tokenizer(vocab=model["vocab"], merges=merges, padding_side="right", model_max_length=64)


def lora_targets() -> str:
    """Attention and MLP of both towers' layers.

    Not the pooling head: torch's MultiheadAttention reads its weights directly, so a LoRA there would never train.
    """
    return r".*encoder\.layers\.\d+\.(self_attn\.(q|k|v|out)_proj|mlp\.fc[12])"


def _images(loaded: Loaded, images: Sequence[Any], copies: int = 1) -> "torch.Tensor":
    """Unit embeddings [copies * images, dim] of decoded pictures."""
    inputs = loaded.processor(images=list(images), return_tensors="pt").to(loaded.model.device)
    return _unit(loaded.model.get_image_features(**_copied(inputs, copies)))


def _texts(loaded: Loaded, texts: Sequence[str], copies: int = 1) -> "torch.Tensor":
    """Unit embeddings [copies * texts, dim]; padded to the full length, as SigLIP was trained."""
    inputs = loaded.processor(
        text=list(texts), padding="max_length", truncation=True, max_length=_window(loaded), return_tensors="pt"
    ).to(loaded.model.device)
    return _unit(loaded.model.get_text_features(**_copied(inputs, copies)))


def _window(loaded: Loaded) -> int:
    """The tokens of a text that the model reads."""
    return int(loaded.model.config.text_config.max_position_embeddings)


def _fits(loaded: Loaded, text: str) -> bool:
    return len(loaded.processor.tokenizer(text)["input_ids"]) <= _window(loaded)


def _copied(inputs: Any, copies: int) -> Any:
    """The same rows several times, block after block."""
    return {name: values.repeat(copies, *[1] * (values.dim() - 1)) for name, values in inputs.items()}


def _unit(output: Any) -> "torch.Tensor":
    features = getattr(output, "pooler_output", output)
    unit: torch.Tensor = features / features.norm(dim=-1, keepdim=True)
    return unit


losses = partial(contrastive.losses, (_images, _texts), next(iter(LOSSES)))
predict = partial(contrastive.predict, (_images, _texts), _fits)
embedder = partial(contrastive.Embedder, (_images, _texts))


def usage(repo_id: str, base: str, revision: str | None) -> dict[str, str]:
    """Snippets for the card: loading the adapter with PEFT, and the merged checkpoint with transformers."""
    imports, place = place_of(base, revision)
    adapter = [
        "from peft import PeftModel",
        "from transformers import AutoModel, AutoProcessor",
        *imports,
        "",
        f"base = AutoModel.from_pretrained({place})",
        f'model = PeftModel.from_pretrained(base, "{repo_id}")  # at alpha = 1',
        f'processor = AutoProcessor.from_pretrained("{repo_id}")',
    ]
    merged = [
        "from transformers import AutoModel, AutoProcessor",
        "",
        f'model = AutoModel.from_pretrained("{repo_id}")',
        f'processor = AutoProcessor.from_pretrained("{repo_id}")',
    ]
    return {"adapter": "\n".join(adapter), "merged": "\n".join(merged)}


def repository_files(folder: Path, repo_id: str) -> dict[str, str]:
    """What lets sentence-transformers embed pictures and texts as `predict` does.

    Left to itself it pads texts to the longest of a batch, which a SigLIP was not trained with, and says nothing.
    """
    from transformers import AutoConfig

    length = AutoConfig.from_pretrained(folder, local_files_only=True).text_config.max_position_embeddings
    modules = [("", "transformer.Transformer"), ("1_Normalize", "normalize.Normalize")]
    files = {
        "modules.json": [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.base.modules.{kind}"}
            for i, (path, kind) in enumerate(modules)
        ],
        "sentence_bert_config.json": {
            "transformer_task": "feature-extraction",
            "modality_config": {
                kind: {"method": f"get_{kind}_features", "method_output_name": "pooler_output"}
                for kind in ("text", "image")
            },
            "module_output_name": "sentence_embedding",
            "processing_kwargs": {"text": {"padding": "max_length", "truncation": True, "max_length": length}},
        },
    }
    return {name: json.dumps(content, indent=2) + "\n" for name, content in files.items()}
