"""Image-text embedding models of transformers: SigLIP, SigLIP2 and their like."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ggez_hub import device as devices
from ggez_hub.errors import InputError
from ggez_hub.families.base import Loaded, Query, Row, Share, chunks, place_of, save, save_adapter

if TYPE_CHECKING:
    import numpy as np
    import torch

__all__ = ["save", "save_adapter"]  # which the Protocol asks for

LIBRARY_NAME = "transformers"
ADAPTER_LIBRARY_NAME = "peft"
PIPELINE_TAG = "zero-shot-image-classification"
TAGS = ("siglip",)
TASK_TYPE = None
TASKS = ("top1", "choice")
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
        model = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True, dtype=dtype).to(device)
        processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
    except SafetensorError as err:
        raise InputError(f"{folder}: damaged weights: {err}", "fetch or write the model again") from err
    except (OSError, ValueError) as err:
        raise InputError(f"{folder}: cannot be loaded as an embedding model: {err}") from err
    if not (hasattr(model, "get_image_features") and hasattr(model, "get_text_features")):
        raise InputError(
            f"{folder}: {type(model).__name__} does not embed images and texts", "use a SigLIP class model"
        )
    return Loaded(model.eval(), processor, folder)


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
    from transformers import (
        Siglip2Tokenizer,
        SiglipConfig,
        SiglipImageProcessor,
        SiglipModel,
        SiglipProcessor,
    )

    size = TINY | sizes
    vocabulary, merges = _vocabulary(texts or ("a picture of a thing",), size["vocabulary"])
    tokenizer = Siglip2Tokenizer(vocab=vocabulary, merges=merges, padding_side="right", model_max_length=64)
    config = SiglipConfig(
        text_config={
            "hidden_size": size["text_hidden"],
            "num_hidden_layers": size["text_layers"],
            "num_attention_heads": size["heads"],
            "intermediate_size": 2 * size["text_hidden"],
            "projection_size": size["hidden"],
            "vocab_size": len(vocabulary),
            "max_position_embeddings": 64,  # transformers' zero-shot pipeline always pads to 64
            "pad_token_id": vocabulary["<pad>"],
            "bos_token_id": vocabulary["<bos>"],
            "eos_token_id": vocabulary["<eos>"],
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
    with torch.no_grad():
        model.logit_scale.fill_(math.log(10))  # where the SigLIP paper starts; the class leaves it at 1
        # So small a text tower does not get away from embeddings as small as the class makes them.
        model.text_model.embeddings.token_embedding.weight.normal_(std=0.3)
    model.save_pretrained(folder)
    pixels = SiglipImageProcessor(size={"height": size["image"], "width": size["image"]})
    SiglipProcessor(image_processor=pixels, tokenizer=tokenizer).save_pretrained(folder)


def _vocabulary(texts: Sequence[str], size: int) -> tuple[dict[str, int], list[Any]]:
    """A byte-pair vocabulary with the special tokens and byte fallback that Siglip2Tokenizer expects."""
    import json

    from tokenizers import Tokenizer, normalizers, pre_tokenizers, trainers
    from tokenizers.models import BPE

    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer = Tokenizer(BPE(unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.Replace(" ", "▁")])
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")  # or whole sentences become one token
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=size, special_tokens=special, show_progress=False)
    )
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]]


def lora_targets() -> str:
    """Attention and MLP of both towers' layers.

    Not the pooling head: torch's MultiheadAttention reads its weights directly, so a LoRA there would never train.
    """
    return r".*encoder\.layers\.\d+\.(self_attn\.(q|k|v|out)_proj|mlp\.fc[12])"


def losses(
    loaded: Loaded, rows: Sequence[Row], micro_batch_size: int, loss: str | None = None, share: Share = (0, 1)
) -> "list[Callable[[], torch.Tensor]]":
    """A contrastive loss over the batch; rows with the same label are positives of each other.

    `sigmoid` is SigLIP's, over all pairs; `softmax` is CLIP's, which learns faster from small batches. Either couples
    all rows, so it is one part; the towers run in chunks of `micro_batch_size`, recomputed in the backward pass, so
    that 4 x 1 rows give what 1 x 4 give. Every process embeds its share of pictures and texts, and has the others'.
    """
    return [lambda: _loss(loaded, rows, micro_batch_size, loss, share)]


def _loss(loaded: Loaded, rows: Sequence[Row], micro_batch_size: int, loss: str | None, share: Share) -> "torch.Tensor":
    import torch
    from torch.utils.checkpoint import checkpoint

    labels = {row["text"]: row["label"] for row in rows}  # a text that occurs twice is encoded once
    encoders: tuple[tuple[Any, list[Any]], ...] = ((_images, [row["image"] for row in rows]), (_texts, list(labels)))
    whole = share[1] == 1 and len(rows) <= micro_batch_size
    image, text = (
        _gathered(
            [
                encode(loaded, part) if whole else checkpoint(encode, loaded, part, use_reentrant=False)
                for part in chunks(_dealt(items, share), micro_batch_size)
            ],
            len(items),
            share,
        )
        for encode, items in encoders
    )
    # Every process has the whole loss, so the gradients of what is not shared out come from each of them.
    logits = _logits(loaded.model, image, text, share[1])  # [rows, texts]
    place = {label: i for i, label in enumerate(dict.fromkeys(labels.values()))}
    numbers = [torch.tensor([place[x] for x in side]) for side in ([row["label"] for row in rows], labels.values())]
    positive = (numbers[0][:, None] == numbers[1][None, :]).to(logits.device)
    if loss in (None, "sigmoid"):
        found = -torch.nn.functional.logsigmoid(torch.where(positive, logits, -logits)).sum() / len(rows)
    else:
        right = logits.masked_fill(~positive, -torch.inf)
        found = torch.stack([(logits.logsumexp(dim) - right.logsumexp(dim)).mean() for dim in (0, 1)]).mean()
    return found - (found * (1 - 1 / share[1])).detach()  # the shares' values sum to the loss; gradients are whole


def _dealt(items: Sequence[Any], share: Share) -> Sequence[Any]:
    """The items of one process; the last ones are repeated, so that every process has as many."""
    size = -(-len(items) // share[1])
    return [items[min(i, len(items) - 1)] for i in range(share[0] * size, (share[0] + 1) * size)]


def _gathered(parts: "list[torch.Tensor]", count: int, share: Share) -> "torch.Tensor":
    """Embeddings of all processes, [count, dim]; gradients go to the own ones."""
    import torch

    own = torch.cat(parts)
    if share[1] == 1:
        return own
    from accelerate.utils import gather

    every = list(gather(own.detach()).chunk(share[1]))
    every[share[0]] = own
    return torch.cat(every)[:count]


def _logits(model: Any, image: "torch.Tensor", text: "torch.Tensor", processes: int = 1) -> "torch.Tensor":
    """Similarity [images, texts] on the model's own scale, whose gradient is that of one of several processes."""
    scale = model.logit_scale
    bias = getattr(model, "logit_bias", None)
    if processes > 1:
        scale, bias = (x if x is None else x / processes + (x * (1 - 1 / processes)).detach() for x in (scale, bias))
    logits: torch.Tensor = image @ text.T * scale.exp()
    return logits if bias is None else logits + bias


def _images(loaded: Loaded, images: Sequence[Any], copies: int = 1) -> "torch.Tensor":
    """Unit embeddings [copies * images, dim] of decoded pictures."""
    inputs = loaded.processor(images=list(images), return_tensors="pt").to(loaded.model.device)
    return _unit(loaded.model.get_image_features(**_copied(inputs, copies)))


def _texts(loaded: Loaded, texts: Sequence[str], copies: int = 1) -> "torch.Tensor":
    """Unit embeddings [copies * texts, dim]; padded to the full length, as SigLIP was trained."""
    length = loaded.model.config.text_config.max_position_embeddings
    inputs = loaded.processor(
        text=list(texts), padding="max_length", truncation=True, max_length=length, return_tensors="pt"
    ).to(loaded.model.device)
    return _unit(loaded.model.get_text_features(**_copied(inputs, copies)))


def _copied(inputs: Any, copies: int) -> Any:
    """The same rows several times, block after block."""
    return {name: values.repeat(copies, *[1] * (values.dim() - 1)) for name, values in inputs.items()}


def _unit(output: Any) -> "torch.Tensor":
    features = getattr(output, "pooler_output", output)
    unit: torch.Tensor = features / features.norm(dim=-1, keepdim=True)
    return unit


def predict(loaded: Loaded, queries: Sequence[Query], batch_size: int = 256, copies: int = 1) -> "list[np.ndarray]":
    """Similarity of every query's picture to each of its options, on the model's scale: [copies, options].

    Pictures and texts that occur in several queries are embedded once.
    """
    import torch

    for query in queries:
        if query.image is None or not query.options:
            raise InputError(
                "a query without a picture or without options: an embedding model matches one with the other"
            )
    if not queries:
        return []
    keys = [image if isinstance(image := query.image, str | bytes) else id(image) for query in queries]
    images = dict(zip(keys, (query.image for query in queries), strict=True))
    rows = {key: i for i, key in enumerate(images)}
    texts = {text: i for i, text in enumerate(dict.fromkeys(t for q in queries for t in q.options))}
    with torch.inference_mode():
        size = max(1, batch_size // copies)
        sides = [
            torch.cat([encode(loaded, part, copies).unflatten(0, (copies, -1)) for part in chunks(items, size)], dim=1)
            for encode, items in ((_opened_images, list(images.values())), (_texts, list(texts)))
        ]  # [copies, images, dim], [copies, texts, dim]
        logits = torch.stack([_logits(loaded.model, *pair) for pair in zip(*(s.float() for s in sides), strict=True)])
    found = logits.cpu().numpy()  # [copies, images, texts]
    return [found[:, rows[key], [texts[t] for t in query.options]] for key, query in zip(keys, queries, strict=True)]


def _opened_images(loaded: Loaded, images: Sequence[Any], copies: int) -> "torch.Tensor":
    from ggez_hub.data.images import opened

    return _images(loaded, [opened(image) for image in images], copies)


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
