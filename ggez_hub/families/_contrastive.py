"""What families share that match pictures with texts: the loss over a batch, and the scores of pairs.

Each brings two encoders, of decoded pictures and of texts. From the loaded model, the items and a number of copies
they make unit embeddings [copies * items, dim], block after block. Its model has a `logit_scale`, and may have a
`logit_bias`.
"""

import bisect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ggez_hub.errors import InputError
from ggez_hub.families.base import Loaded, Query, Row, Share, chunks

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL.Image import Image

Encoders = tuple[Callable[..., "torch.Tensor"], Callable[..., "torch.Tensor"]]
BATCH = 64  # pictures or texts that are embedded at once
SIDE = 1024  # pixels that a picture is held with, more than models see: many large ones would fill the memory


def losses(
    encoders: Encoders,
    default: str,
    loaded: Loaded,
    rows: Sequence[Row],
    micro_batch_size: int,
    loss: str | None = None,
    share: Share = (0, 1),
) -> "list[Callable[[], torch.Tensor]]":
    """A contrastive loss over the batch; rows with the same label are positives of each other.

    `sigmoid` is SigLIP's, over all pairs; `softmax` is CLIP's, which learns faster from small batches. Either couples
    all rows, so it is one part; the towers run in chunks of `micro_batch_size`, recomputed in the backward pass, so
    that 4 x 1 rows give what 1 x 4 give. Every process embeds its share of pictures and texts, and has the others'.
    """
    return [lambda: _loss(encoders, loaded, rows, micro_batch_size, loss or default, share)]


def _loss(
    encoders: Encoders, loaded: Loaded, rows: Sequence[Row], micro_batch_size: int, loss: str, share: Share
) -> "torch.Tensor":
    import torch
    from torch.utils.checkpoint import checkpoint

    labels = {row["text"]: row["label"] for row in rows}  # a text that occurs twice is encoded once
    sides: tuple[list[Any], ...] = ([row["image"] for row in rows], list(labels))
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
        for encode, items in zip(encoders, sides, strict=True)
    )
    # Every process has the whole loss, so the gradients of what is not shared out come from each of them.
    logits = _logits(loaded.model, image, text, share[1])  # [rows, texts]
    place = {label: i for i, label in enumerate(dict.fromkeys(labels.values()))}
    numbers = [torch.tensor([place[x] for x in side]) for side in ([row["label"] for row in rows], labels.values())]
    positive = (numbers[0][:, None] == numbers[1][None, :]).to(logits.device)
    if loss == "sigmoid":
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


@dataclass(frozen=True)
class Embedder:
    """Embeddings alone, see ggez_hub.data.similarity.Embedder."""

    encoders: Encoders
    loaded: Loaded

    def pictures(self, pictures: Sequence[bytes]) -> "np.ndarray":
        """Unit vectors of encoded pictures, float32 [pictures, dim]. Raises BrokenImage."""
        return self._embedded(lambda loaded, part: self.encoders[0](loaded, list(map(_held, part))), pictures)

    def texts(self, texts: Sequence[str]) -> "np.ndarray":
        """Unit vectors of texts, float32 [texts, dim]; what is longer than the model reads is cut off."""
        return self._embedded(self.encoders[1], texts)

    def _embedded(self, encode: Callable[..., "torch.Tensor"], items: Sequence[Any]) -> "np.ndarray":
        import numpy as np
        import torch

        from ggez_hub.device import enough_memory

        with torch.inference_mode(), enough_memory("batch", BATCH):
            parts = [encode(self.loaded, part).float().cpu().numpy() for part in chunks(items, BATCH)]
        return np.concatenate(parts) if parts else np.empty((0, 0), np.float32)


def _held(picture: bytes) -> "Image":
    """A decoded picture of SIDE pixels at most."""
    from ggez_hub.data.images import opened

    image = opened(picture)
    image.thumbnail((SIDE, SIDE))
    return image


def predict(
    encoders: Encoders,
    fits: Callable[[Loaded, str], bool],
    loaded: Loaded,
    queries: Sequence[Query],
    batch_size: int = 256,
    copies: int = 1,
) -> "list[np.ndarray]":
    """Similarity of every query's picture to each of its options, on the model's scale: [copies, options].

    Pictures and texts that occur in several queries are embedded once.

    Args:
        encoders: Of pictures and of texts.
        fits: Whether the model reads the whole of a text.
        loaded: The model.
        queries: What to ask.
        batch_size: Pictures or texts at once.
        copies: How often each batch holds its inputs.
    """
    import torch

    from ggez_hub.data.images import opened

    def encode_images(loaded: Loaded, images: Sequence[Any], copies: int) -> torch.Tensor:
        return encoders[0](loaded, [opened(image) for image in images], copies)

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
    options = [_option_texts(query, lambda text: fits(loaded, text)) for query in queries]
    texts = {text: i for i, text in enumerate(dict.fromkeys(text for part in options for text in part))}
    with torch.inference_mode():
        size = max(1, batch_size // copies)
        sides = [
            torch.cat([encode(loaded, part, copies).unflatten(0, (copies, -1)) for part in chunks(items, size)], dim=1)
            for encode, items in ((encode_images, list(images.values())), (encoders[1], list(texts)))
        ]  # [copies, images, dim], [copies, texts, dim]
        logits = torch.stack([_logits(loaded.model, *pair) for pair in zip(*(s.float() for s in sides), strict=True)])
    found = logits.cpu().numpy()  # [copies, images, texts]
    return [found[:, rows[key], [texts[text] for text in part]] for key, part in zip(keys, options, strict=True)]


def _option_texts(query: Query, fits: Callable[[str], bool]) -> list[str]:
    """What is matched with the picture, for each option.

    A question that is too long loses its end, the same for all options: these are what has to be told apart.
    """
    template, question = query.template, query.prompt or ""
    if template is None:
        return list(query.options)

    def texts(length: int) -> list[str]:
        return [_filled(template, question=question[:length], option=option) for option in query.options]

    def too_long(length: int) -> bool:
        return not all(fits(text) for text in texts(length))

    if not too_long(len(question)):
        return texts(len(question))
    return texts(max(0, bisect.bisect_left(range(len(question)), True, key=too_long) - 1))


def _filled(template: str, **parts: str) -> str:
    """A template with its parts filled in; what else has braces stays."""
    return re.sub(r"\{(question|option)\}", lambda match: parts[match[1]], template).strip()
