"""Vision-language models of transformers that chat about a picture: Gemma 3, Qwen-VL and their like."""

import functools
import io
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ggez_hub import device as devices
from ggez_hub.data.conversations import IMAGE, problem
from ggez_hub.errors import InputError, did_you_mean
from ggez_hub.families.base import (
    DEFAULT_PROMPT,
    Loaded,
    Query,
    Row,
    Share,
    check_complete,
    place_of,
    save,
    save_adapter,
)
from ggez_hub.hub import HERE, UNREADABLE, naming

if TYPE_CHECKING:
    import numpy as np
    import torch

__all__ = ["save", "save_adapter"]  # which the Protocol asks for

LIBRARY_NAME = "transformers"
ADAPTER_LIBRARY_NAME = "peft"
PIPELINE_TAG = "image-text-to-text"
TAGS = ("vision-language-model",)
TASK_TYPE = "CAUSAL_LM"  # the Hub's snippet for adapters knows no other that fits
TASKS = ("top1", "choice", "question")
WRITES = True
LOSSES = {"answers": "messages", "caption": "text"}
CAPTION_PROMPT = "Describe the picture."
TINY = {"hidden": 32, "layers": 2, "heads": 2, "kv_heads": 1, "ffn": 64, "length": 512, "vocabulary": 400,
        "image": 32, "patch": 8, "vision_hidden": 32, "vision_layers": 1, "image_tokens": 4}  # fmt: skip
PLAIN = (256, 256)  # pixels of a picture whose tokens are counted
NEAR = 8  # tokens
NAME_WORDS = 4  # a text of so many words at most is taken for a name, and becomes one token
TEMPLATE = """\
{%- macro written(content) -%}
{%- if content is string -%}{{ content | trim }}
{%- else -%}{%- for part in content -%}
{{ '<start_of_image>' if part.type == 'image' else part.text | trim }}
{%- endfor -%}{%- endif -%}
{%- endmacro -%}
{%- set told = namespace(before='') -%}
{{ bos_token }}
{%- for message in messages -%}
{%- if message.role == 'system' -%}{%- set told.before = written(message.content) + '\\n\\n' -%}
{%- else -%}
{{ '<start_of_turn>' + ('model' if message.role == 'assistant' else 'user') + '\\n' + told.before }}
{{- written(message.content) + '<end_of_turn>\\n' -}}
{%- set told.before = '' -%}
{%- endif -%}
{%- endfor -%}
{{ '<start_of_turn>model\\n' if add_generation_prompt }}"""


def load(folder: Path, device: "torch.device | None" = None, dtype: "torch.dtype | None" = None) -> Loaded:
    """Loads model and processor from a local folder.

    Args:
        folder: The model.
        device: None = the best there is.
        dtype: Of the weights; None = what suits the device.

    Raises:
        InputError: No vision-language model that chats in the folder, or its files are damaged.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForImageTextToText, AutoProcessor

    device = device or devices.best()
    dtype = dtype or devices.dtype(device)
    try:
        made: Any = AutoModelForImageTextToText.from_pretrained(
            folder, use_safetensors=True, dtype=dtype, output_loading_info=True, **HERE
        )
        processor = AutoProcessor.from_pretrained(folder, **HERE)
    except SafetensorError as err:
        raise InputError(f"{folder}: damaged weights: {err}", "fetch or write the model again") from err
    except UNREADABLE as err:
        words = str(err).split("Model type should be one of")[0].strip()  # the list of all classes there are
        raise InputError(
            f"{folder}: cannot be loaded as a vision-language model: {words}",
            "use one such as Gemma3ForConditionalGeneration or Qwen2_5_VLForConditionalGeneration",
        ) from err
    model, info = made
    check_complete(folder, info["missing_keys"])
    if not (hasattr(processor, "image_processor") and getattr(processor, "chat_template", None)):
        raise InputError(f"{folder}: has no chat template", "use a model that was trained to chat (-it, -Instruct)")
    return Loaded(model.to(device).eval(), processor, folder)


def network(loaded: Loaded, loss: str) -> Any:
    """The model: either loss trains all of it."""
    return loaded.model


def lora_targets() -> str:
    """Attention and MLP of the language layers; not the vision tower, the projector or the output layer."""
    return (
        r"(.*\.)?(language_model|text_model)\.(.*\.)?layers\.\d+\."
        r"(self_attn|mlp)\.(q|k|v|o|qkv|gate|up|down|gate_up)_proj"
    )


# ------------------------------------------------------------------------------------------------------ a tiny Gemma 3
def write_tiny(
    folder: Path, texts: Sequence[str] = (), seed: int = 0, parts: Mapping[str, Path] | None = None, **sizes: int
) -> None:
    """Writes a Gemma 3 with random weights, and a tokenizer made from `texts`.

    Args:
        folder: Where to; made if missing.
        texts: What the vocabulary is made from; names, texts of four words at most, become single tokens.
        seed: Of the weights.
        parts: ``{"vision": folder}``: a trained SigLIP whose vision tower, and reading of pixels, this one starts from.
        **sizes: Any of those in TINY; those of pictures and of the vision tower are a part's own.

    Raises:
        InputError: An unknown size or part, or sizes that do not go together.
    """
    import torch
    from transformers import (
        Gemma3Config,
        Gemma3ForConditionalGeneration,
        Gemma3ImageProcessor,
        Gemma3Processor,
        Gemma3TextConfig,
        GenerationConfig,
        SiglipVisionConfig,
    )

    for given, known, what in ((sizes, TINY, "size"), (parts or {}, ("vision",), "part")):
        for name in given:
            if name not in known:
                raise InputError(f"{name}: no such {what} of a tiny vision-language model{did_you_mean(name, known)}")
    size = TINY | sizes
    tower = _vision_part(parts["vision"]) if parts else None
    vision: Any = (
        tower.config
        if tower
        else SiglipVisionConfig(
            hidden_size=size["vision_hidden"],
            num_hidden_layers=size["vision_layers"],
            num_attention_heads=size["heads"],
            intermediate_size=2 * size["vision_hidden"],
            image_size=size["image"],
            patch_size=size["patch"],
            vision_use_head=False,
        )
    )
    patches, side = vision.image_size // vision.patch_size, round(size["image_tokens"] ** 0.5)
    if side**2 != size["image_tokens"] or patches % side:
        raise InputError(
            f"image_tokens={size['image_tokens']}: expected the square of a divisor of {patches}, the patches of a side"
        )
    tokenizer = tiny_tokenizer(texts, size["vocabulary"])
    ends = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<end_of_turn>")]
    text = Gemma3TextConfig(
        vocab_size=len(tokenizer),
        hidden_size=size["hidden"],
        intermediate_size=size["ffn"],
        num_hidden_layers=size["layers"],
        num_attention_heads=size["heads"],
        num_key_value_heads=size["kv_heads"],
        head_dim=size["hidden"] // size["heads"],
        query_pre_attn_scalar=size["hidden"] // size["heads"],
        max_position_embeddings=size["length"],
        sliding_window=size["length"],
        layer_types=["sliding_attention"] * (size["layers"] - 1) + ["full_attention"],
        bos_token_id=tokenizer.bos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=ends,
    )
    config = Gemma3Config(
        text_config=text,
        vision_config=vision,
        mm_tokens_per_image=size["image_tokens"],
        boi_token_index=tokenizer.boi_token_id,
        eoi_token_index=tokenizer.eoi_token_id,
        image_token_index=tokenizer.image_token_id,
    )
    torch.manual_seed(seed)
    model = Gemma3ForConditionalGeneration(config)
    enliven(model)
    pixels: dict[str, Any] = {"size": {"height": size["image"], "width": size["image"]}}
    if tower:
        model.model.vision_tower.load_state_dict(tower.weights)
        pixels = tower.pixels
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, pad_token_id=tokenizer.pad_token_id, eos_token_id=ends
    )
    model.save_pretrained(folder)
    reader = Gemma3ImageProcessor(**pixels)
    Gemma3Processor(reader, tokenizer, TEMPLATE, size["image_tokens"]).save_pretrained(folder)


def enliven(model: Any) -> None:
    """Draws anew what the class leaves so small that a narrow model of random weights would tell nothing apart."""
    import torch

    with torch.no_grad():
        model.model.multi_modal_projector.mm_input_projection_weight.normal_(std=0.1)  # zero would hide all pictures
        # Gemma's own at its width. As small as the class makes them in a narrow model, it would learn slowly.
        words = model.model.language_model.embed_tokens.weight
        words.normal_(std=words.shape[1] ** -0.5)


@dataclass(frozen=True)
class _Tower:
    """A vision tower without its pooling head, and how it reads pixels."""

    config: Any
    weights: "dict[str, torch.Tensor]"
    pixels: dict[str, Any]


def _vision_part(folder: Path) -> _Tower:
    """That of a SigLIP in a folder."""
    from safetensors import SafetensorError
    from transformers import AutoImageProcessor, SiglipModel

    try:
        model: Any = SiglipModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        pixels: Any = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, SafetensorError) as err:
        raise InputError(f"{folder}: cannot be loaded as a SigLIP: {err}") from err
    config = model.config.vision_config
    config.vision_use_head = False
    weights = {name: w for name, w in model.vision_model.state_dict().items() if not name.startswith("head.")}
    settings = {name: getattr(pixels, name) for name in ("image_mean", "image_std", "resample", "rescale_factor")}
    return _Tower(config, weights, settings | {"size": dict(pixels.size)})


def tiny_tokenizer(texts: Sequence[str], size: int) -> Any:
    """A byte-pair tokenizer with Gemma's special tokens and byte fallback; names are tokens of their own.

    Byte pairs alone would take several thousand entries before every name is one token.
    """
    import json

    from tokenizers import AddedToken, Tokenizer, pre_tokenizers, trainers
    from tokenizers.models import BPE
    from transformers import GemmaTokenizer

    marks = {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>",
             "sot_token": "<start_of_turn>", "eot_token": "<end_of_turn>"}  # fmt: skip
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *marks.values(), *(f"<0x{b:02X}>" for b in range(256))]
    names = _names(texts)[: max(0, size - len(special)) // 2]
    inside = re.compile("|".join(rf"\b{re.escape(name)}\b" for name in sorted(names, key=len, reverse=True)) or "(?!)")
    corpus = [inside.sub("", text).replace(" ", "▁") for text in texts]
    common = [words.replace(" ", "▁") for words in ("user", "model", "\n\n\n", DEFAULT_PROMPT, CAPTION_PROMPT)]
    bpe = Tokenizer(BPE(unk_token="<unk>", byte_fallback=True))
    bpe.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")  # or whole sentences become one token
    bpe.train_from_iterator(
        corpus + common * (len(corpus) + 2),
        trainers.BpeTrainer(vocab_size=size - len(names), special_tokens=special, show_progress=False),
    )
    model = json.loads(bpe.to_str())["model"]
    merges: Any = [tuple(pair) for pair in model["merges"]]
    tokenizer = GemmaTokenizer(vocab=model["vocab"], merges=merges, extra_special_tokens=marks)
    tokenizer.add_tokens([AddedToken(name, single_word=True, normalized=False) for name in names])
    return tokenizer


def _names(texts: Sequence[str]) -> list[str]:
    """Texts of few words, but for those with another one within: captions with a name."""
    short = {text: words for text in texts if 0 < len(words := text.split()) <= NAME_WORDS and text == " ".join(words)}

    def composed(words: list[str]) -> bool:
        spans = itertools.combinations(range(len(words) + 1), 2)
        return any(" ".join(words[i:j]) in short for i, j in spans if j - i < len(words))

    return [text for text, words in short.items() if not composed(words)]


# -------------------------------------------------------------------------------------------------------- conversations
def _chat(messages: Sequence[Mapping[str, Any]], picture: bool = True) -> list[dict[str, Any]]:
    """A conversation as chat templates take it: contents are lists of parts."""
    turns = [(turn["role"], turn["content"]) for turn in messages]
    if picture and not any(IMAGE in content for role, content in turns if role == "user"):
        first = [role for role, _ in turns].index("user")
        turns[first] = ("user", IMAGE + turns[first][1])
    chat = []
    for role, content in turns:
        before, mark, after = content.partition(IMAGE) if role == "user" else (content, "", "")
        parts: list[dict[str, str]] = [{"type": "text", "text": text.strip()} for text in (before, after)]
        if mark:
            parts.insert(1, {"type": "image"})
        chat.append({"role": role, "content": [part for part in parts if part.get("text") != ""]})
    return chat


def _written(processor: Any, chats: Sequence[Any], asks: bool) -> list[str]:
    """Conversations in the words of the model's chat template; `asks` if the model is to go on."""
    if not chats:
        return []
    with naming():
        try:
            texts: list[str] = processor.apply_chat_template(list(chats), tokenize=False, add_generation_prompt=asks)
        except Exception as err:  # a template is a program: it can raise anything
            raise InputError(f"the model's chat template does not take a conversation: {err}") from err
    return texts


@dataclass(frozen=True)
class _Sequence:
    """What the model reads: parts in tokens, but for the one with the picture, which the model's processor reads."""

    image: Any
    text: str  # the part that the processor reads
    parts: Sequence[tuple[list[int] | None, bool]]  # tokens (None: of `text`), and whether they are to be learned
    length: int  # in tokens, the picture not counted

    def then(self, tokens: list[int]) -> "_Sequence":
        """The same, going on with more tokens."""
        return replace(self, parts=[*self.parts, (tokens, False)], length=self.length + len(tokens))

    def joined(self, read: list[int], name: str | None) -> list[int]:
        """The whole of an input of the model, given what the processor read; or of what is learned."""
        whole: list[int] = []
        for tokens, learned in self.parts:
            if tokens is None:
                whole += read
            elif name == "input_ids":
                whole += tokens
            else:
                whole += [learned if name is None else name == "attention_mask"] * len(tokens)
        return whole


def _sequences(processor: Any, chats: Sequence[Any], images: Sequence[Any], asks: bool) -> list[_Sequence]:
    """Conversations as sequences: of each answer all tokens are learned, up to the mark that ends the turn.

    Every part is cut where the model will be asked to go on, so that it learns to continue just what it will see.

    Args:
        processor: The model's.
        chats: Conversations, as `_chat` gives them.
        images: The picture of each.
        asks: Whether they end with a question, and have no answers yet.

    Raises:
        InputError: The template writes a turn otherwise once others follow.
    """
    if asks:
        cut = [[(text, False)] for text in _written(processor, chats, True)]
    else:
        answers = [(c, i) for c, chat in enumerate(chats) for i, turn in enumerate(chat) if turn["role"] == "assistant"]
        starts = _written(processor, [chats[c][:i] for c, i in answers], True)
        ends = _written(processor, [chats[c][: i + 1] for c, i in answers], False)
        cut = [[] for _ in chats]
        for (c, _), start, end in zip(answers, starts, ends, strict=True):
            done = "".join(text for text, _ in cut[c])
            if not (start.startswith(done) and end.startswith(start)):
                raise InputError(
                    "the model's chat template rewrites earlier turns, so its answers cannot be told apart",
                    "train on conversations of one answer, or use a model with another template",
                )
            cut[c] += [(start[len(done) :], False), (end[len(start) :].rstrip(), True)]
    places = [("".join(x for x, _ in parts[:k]), text) for parts in cut for k, (text, _) in enumerate(parts)]
    tokens = iter(_tokens(processor.tokenizer, places))
    found = []
    for parts, chat, image in zip(cut, chats, images, strict=True):
        place = 0  # of the part with the picture: after so many answers and what comes before them
        for turn in chat:
            if any(part["type"] == "image" for part in turn["content"]):
                break
            place += 2 * (turn["role"] == "assistant")
        place = min(place, len(parts) - 1)
        coded = [(next(tokens), learned) for _, learned in parts]
        length = sum(len(part) for part, _ in coded)
        listed = [(None if i == place else part, learned) for i, (part, learned) in enumerate(coded)]
        found.append(_Sequence(image, parts[place][0], [(_opening(processor, parts[0][0]), False), *listed], length))
    return found


def _tokens(tokenizer: Any, places: Sequence[tuple[str, str]]) -> list[list[int]]:
    """The tokens of texts, given what stands before each."""
    if not places:
        return []
    pairs = list(dict.fromkeys(places))  # many options stand after many prompts, but most of them often
    heads, whole, alone = (
        tokenizer(texts, add_special_tokens=False, return_attention_mask=False)["input_ids"]
        for texts in ([before for before, _ in pairs], [before + text for before, text in pairs], [t for _, t in pairs])
    )
    found = {
        pair: both[len(head) :] if both[: len(head)] == head else own
        for pair, head, both, own in zip(pairs, heads, whole, alone, strict=True)
    }
    return [found[place] for place in places]


def _opening(processor: Any, text: str) -> list[int]:
    """The tokens that a model expects before all others, where its template does not write them."""
    start = processor.tokenizer.bos_token
    written = start is not None and text.startswith(start)
    return [] if written else list(processor.tokenizer("")["input_ids"])


def _inputs(
    loaded: Loaded, sequences: Sequence[_Sequence], side: str = "right", copies: int = 1
) -> "tuple[dict[str, torch.Tensor], torch.Tensor]":
    """A batch, every tensor `copies` times block after block; and which tokens are learned, bool [sequences, length].

    Raises:
        InputError: The processor does not take a picture or a text.
    """
    import torch

    processor, model = loaded.processor, loaded.model
    try:
        read = processor(
            text=[sequence.text for sequence in sequences],
            images=None if sequences[0].image is None else [[sequence.image] for sequence in sequences],
            padding=True,
            padding_side="right",
            add_special_tokens=False,
            return_tensors="pt",
        )
    except ValueError as err:
        raise InputError(f"the model cannot read a picture or its text: {err}") from err
    sizes = read["attention_mask"].sum(dim=1).tolist()
    rows: dict[str, list[list[int]]] = {
        "learned": [s.joined([False] * n, None) for s, n in zip(sequences, sizes, strict=True)]
    }
    for name in [name for name, values in read.items() if values.shape == read["input_ids"].shape]:
        own = [values[:n] for values, n in zip(read[name].tolist(), sizes, strict=True)]
        rows[name] = [sequence.joined(values, name) for sequence, values in zip(sequences, own, strict=True)]
    longest = max(len(row) for row in rows["learned"])
    inputs = dict(read)
    for name, values in rows.items():
        blank = processor.tokenizer.pad_token_id or 0 if name == "input_ids" else 0
        pads = [[blank] * (longest - len(row)) for row in values]
        inputs[name] = torch.tensor(
            [p + row if side == "left" else row + p for p, row in zip(pads, values, strict=True)]
        )
    learned = inputs.pop("learned").to(model.device, torch.bool)
    for name, values in inputs.items():
        kind = model.dtype if values.is_floating_point() else values.dtype
        inputs[name] = values.repeat(copies, *[1] * (values.dim() - 1)).to(model.device, kind)
    return inputs, learned


# ------------------------------------------------------------------------------------------------------------- training
def _conversations(
    loaded: Loaded, columns: Mapping[str, Sequence[Any]], images: Sequence[Any], loss: str | None
) -> list[_Sequence]:
    """Rows as sequences to learn from."""
    if loss == "caption":
        asked = {"role": "user", "content": CAPTION_PROMPT}
        every: list[Any] = [[asked, {"role": "assistant", "content": text}] for text in columns["text"]]
    else:
        every = list(columns["messages"])
    for messages in every:
        if wrong := problem(messages or ()):
            start = next((turn["content"] for turn in messages or () if turn["content"]), "")
            raise InputError(f"the conversation {start[:60]!r}: {wrong}", "mend or remove the row")
    return _sequences(loaded.processor, [_chat(messages) for messages in every], images, False)


def prepare(
    loaded: Loaded, examples: Any, loss: str, batch_size: int, max_length: int | None
) -> tuple[Any, dict[str, int]]:
    """Leaves out rows of more tokens than the model takes, the picture's counted: no answer is ever cut.

    Args:
        loaded: The model.
        examples: A datasets.Dataset with `image`, and `messages` or `text`.
        loss: What it will be trained with.
        batch_size: Rows in memory at once.
        max_length: Tokens of a row at most; None = what the model takes.

    Returns:
        The rows, and how many were left out for what.

    Raises:
        InputError: A conversation that cannot train a model, or no row is left.
    """
    limit = max_length or loaded.model.config.get_text_config().max_position_embeddings
    too_long, odd = f"longer than {limit} tokens", "pictures of a shape that the model does not take"
    length = _lengths(loaded, limit)
    found: list[str | None] = []  # what keeps each row out
    for batch in examples.select_columns([LOSSES[loss], "image"]).iter(batch_size):
        for sequence in _conversations(loaded, batch, batch["image"], loss):
            tokens = length(sequence)
            found.append(odd if tokens is None else too_long if tokens > limit else None)
    counts = {reason: count for reason in (too_long, odd) if (count := found.count(reason))}
    if sum(counts.values()) == len(found):
        told = ", ".join(f"{count} {reason}" for reason, count in counts.items())
        raise InputError(f"no conversation is left to train on: {told or 'there was none'}", "raise train.max_length")
    return examples.select([i for i, why in enumerate(found) if why is None]) if counts else examples, counts


def _lengths(loaded: Loaded, limit: int) -> Callable[[_Sequence], int | None]:
    """A function that counts the tokens of a row, its picture's too; None for one that the model does not take.

    No pixel is read, but where the count is close to the limit: how a picture's mark and the text around it become
    tokens may differ by a few.
    """
    from PIL import Image

    def measured(sequence: _Sequence) -> int:
        return int(_inputs(loaded, _opened([sequence]))[0]["input_ids"].shape[1])

    @functools.cache
    def grown(size: tuple[int, int]) -> int:
        chat = _chat([{"role": "user", "content": DEFAULT_PROMPT}])
        sequence = _sequences(loaded.processor, [chat], [Image.new("RGB", size)], True)[0]
        return measured(sequence) - sequence.length

    count = getattr(loaded.processor, "_get_num_multimodal_tokens", None)

    @functools.cache
    def growth(size: tuple[int, int]) -> int:
        if count is None:
            return grown(size)
        own, plain = count(image_sizes=[size[::-1], PLAIN])["num_image_tokens"]
        return int(own - plain) + grown(PLAIN)

    def length(sequence: _Sequence) -> int | None:
        data = sequence.image["bytes"]
        with Image.open(io.BytesIO(data)) as image:
            size = image.size
        try:
            tokens = sequence.length + growth(size)
            return measured(replace(sequence, image=data)) if abs(tokens - limit) <= NEAR else tokens
        except (ValueError, InputError):
            return None

    return length


def losses(
    loaded: Loaded, rows: Sequence[Row], micro_batch_size: int, loss: str | None = None, share: Share = (0, 1)
) -> "list[Callable[[], torch.Tensor]]":
    """The mean cross-entropy of the answers' tokens, and of the marks that end them, over all rows.

    `answers` learns the assistant's turns of a conversation; `caption` learns to answer one fixed request with the
    text of the row. Rows of like length go together, so that little is padded. A share that has fewer parts than the
    others computes one more that counts for nothing, so that all run in step.
    """
    which, of = share
    columns = {name: [row.get(name) for row in rows] for name in ("messages", "text")}
    sequences = _conversations(loaded, columns, [row["image"] for row in rows], loss)
    total = sum(len(tokens or ()) for sequence in sequences for tokens, learned in sequence.parts if learned)
    sequences.sort(
        key=lambda sequence: -sequence.length
    )  # the longest first: what does not fit in memory shows at once
    parts = of * -(-len(sequences) // (of * micro_batch_size))
    cuts = [len(sequences) * i // parts for i in range(parts + 1)] if parts else []
    return [
        functools.partial(_summed, loaded, sequences[a:b] or sequences[-1:], (b > a) / total)
        for a, b in list(itertools.pairwise(cuts))[which::of]
    ]


def _summed(loaded: Loaded, sequences: Sequence[_Sequence], weight: float) -> "torch.Tensor":
    """The cross-entropy of all tokens that are learned, times a weight."""
    import torch

    inputs, learned = _inputs(loaded, sequences)
    first = int(learned.any(dim=0).nonzero()[0])
    logits = _logits(loaded, inputs, learned.shape[1] - first + 1)[:, :-1]  # a token is foretold at the one before it
    chosen = learned[:, first:]
    sum_: torch.Tensor = torch.nn.functional.cross_entropy(
        logits[chosen].float(), inputs["input_ids"][:, first:][chosen], reduction="sum"
    )
    return sum_ * weight


def _logits(loaded: Loaded, inputs: "Mapping[str, torch.Tensor]", keep: int) -> "torch.Tensor":
    """Logits of the last `keep` tokens, [rows, keep, vocabulary]."""
    logits: torch.Tensor = loaded.model(**inputs, logits_to_keep=keep, use_cache=False).logits
    return logits[:, -keep:]


# ----------------------------------------------------------------------------------------------------------- predicting
def predict(loaded: Loaded, queries: Sequence[Query], batch_size: int = 64, copies: int = 1) -> "list[np.ndarray]":
    """What the model answers to every query.

    With options: the log-likelihood of each as the answer, without the mark that ends it, float32 [copies, options].
    Options that differ in their last token only share one pass. Without options: what the model writes, str [copies].

    Raises:
        InputError: A picture, a prompt or an option that the model cannot read.
    """
    import torch

    if not queries:
        return []
    prompts = [query.prompt or DEFAULT_PROMPT for query in queries]
    for query, prompt in zip(queries, prompts, strict=True):
        if prompt.count(IMAGE) > (query.image is not None):
            raise InputError(f"the prompt {prompt[:60]!r} names more pictures than there are")
        if any(not option.strip() for option in query.options):
            raise InputError(f"an option of the prompt {prompt[:60]!r} is empty")
    chats = [
        _chat([{"role": "user", "content": prompt}], query.image is not None)
        for query, prompt in zip(queries, prompts, strict=True)
    ]
    sequences = _sequences(loaded.processor, chats, [query.image for query in queries], True)
    lead, end = _answer_marks(loaded.processor, chats[0])
    size = max(1, batch_size // copies)
    answers: dict[int, np.ndarray] = {}
    with torch.inference_mode():
        scored = [i for i, query in enumerate(queries) if query.options]
        places = [(sequences[i].text, lead + option.strip()) for i in scored for option in queries[i].options]
        tokens = iter(_tokens(loaded.processor.tokenizer, places))
        options = [[next(tokens) for _ in queries[i].options] for i in scored]
        answers |= zip(scored, _scores(loaded, [sequences[i] for i in scored], options, size, copies), strict=True)
        for limit in sorted({query.max_new_tokens for query in queries if not query.options}):
            asked = [i for i, query in enumerate(queries) if not query.options and query.max_new_tokens == limit]
            texts_ = _generated(loaded, [sequences[i] for i in asked], limit, end, size, copies)
            answers |= zip(asked, texts_, strict=True)
    return [answers[i] for i in range(len(queries))]


def _answer_marks(processor: Any, chat: list[dict[str, Any]]) -> tuple[str, str]:
    """What the model's template writes before an answer, once it is the model's turn, and after it."""
    answered = [*chat, {"role": "assistant", "content": [{"type": "text", "text": "@@"}]}]
    start, whole = _written(processor, [chat], True)[0], _written(processor, [answered], False)[0]
    lead, _, end = whole.removeprefix(start).partition("@@")
    return (lead, end.strip()) if whole.startswith(start) else ("", "")


def _batches(sequences: Sequence[_Sequence], size: int) -> Iterator[list[int]]:
    """Places of sequences in batches of like length, those with and without a picture apart."""
    order = sorted(range(len(sequences)), key=lambda i: (sequences[i].image is None, sequences[i].length))
    for _, group in itertools.groupby(order, lambda i: sequences[i].image is None):
        places = list(group)
        yield from (places[i : i + size] for i in range(0, len(places), size))


def _opened(sequences: Sequence[_Sequence]) -> list[_Sequence]:
    """The same with their pictures decoded, each once."""
    from ggez_hub.data.images import opened

    found: dict[Any, Any] = {None: None}
    for image in (sequence.image for sequence in sequences):
        if (key := _key(image)) not in found:
            found[key] = opened(image)
    return [replace(sequence, image=found[_key(sequence.image)]) for sequence in sequences]


def _key(image: Any) -> Any:
    return image if image is None or isinstance(image, str | bytes) else id(image)


def _scores(
    loaded: Loaded, prompts: Sequence[_Sequence], options: Sequence[Sequence[list[int]]], size: int, copies: int
) -> "Iterator[np.ndarray]":
    """Log-likelihoods of options, in tokens, after each prompt: float32 [copies, options]."""
    import torch

    passes: dict[Any, tuple[_Sequence, list[tuple[int, list[int]]]]] = {}  # with the place and tokens of each option
    places = itertools.count()
    for prompt, texts in zip(prompts, options, strict=True):
        for tokens in texts:
            key = (_key(prompt.image), prompt.text, tuple(tokens[:-1]))
            if key not in passes:
                passes[key] = (prompt.then(tokens[:-1]), [])
            passes[key][1].append((next(places), tokens))
    scores = torch.zeros(copies, next(places))
    every = list(passes.values())
    for batch in _batches([sequence for sequence, _ in every], size):
        inputs, _ = _inputs(loaded, _opened([every[i][0] for i in batch]), copies=copies)
        lengths = inputs["attention_mask"][: len(batch)].sum(dim=1).tolist()
        starts = [
            n - len(every[i][1][0][1]) for i, n in zip(batch, lengths, strict=True)
        ]  # where the last token of the prompt is
        keep = inputs["input_ids"].shape[1] - min(starts)
        asked = [
            (row * keep + starts[row] - min(starts) + j, token, place)
            for row, i in enumerate(batch)
            for place, tokens in every[i][1]
            for j, token in enumerate(tokens)
        ]
        where, token, place = torch.tensor(asked, device=inputs["input_ids"].device).T
        where, which = where.unique(return_inverse=True)
        logits = _logits(loaded, inputs, keep).unflatten(0, (copies, -1)).flatten(1, 2)[:, where].float()
        found = logits[:, which, token] - logits.logsumexp(dim=-1)[:, which]  # [copies, tokens]
        scores.index_add_(1, place.cpu(), found.cpu())
    ends = itertools.accumulate(len(texts) for texts in options)
    return (scores[:, end - len(texts) : end].numpy() for end, texts in zip(ends, options, strict=True))


def _generated(
    loaded: Loaded, sequences: Sequence[_Sequence], limit: int, end: str, size: int, copies: int
) -> "list[np.ndarray]":
    """What the model writes, choosing the likeliest token each time: str [copies] for each sequence."""
    import numpy as np

    tokenizer = loaded.processor.tokenizer
    found: dict[int, np.ndarray] = {}
    for batch in _batches(sequences, size):
        inputs, _ = _inputs(loaded, _opened([sequences[i] for i in batch]), "left", copies)
        written = loaded.model.generate(
            **inputs, max_new_tokens=limit, do_sample=False, temperature=None, top_p=None, top_k=None,
            pad_token_id=tokenizer.pad_token_id or 0,
        )  # fmt: skip
        texts = tokenizer.batch_decode(written[:, inputs["input_ids"].shape[1] :])
        if end:  # a tokenizer need not know the end of a turn as special, nor the model stop there
            texts = [text.split(end)[0] for text in texts]
        for mark in tokenizer.all_special_tokens:
            texts = [text.replace(mark, "") for text in texts]
        for row, i in enumerate(batch):
            found[i] = np.array([text.strip() for text in texts[row :: len(batch)]])
    return [found[i] for i in range(len(sequences))]


# ---------------------------------------------------------------------------------------------------------- the snippet
def usage(repo_id: str, base: str, revision: str | None) -> dict[str, str]:
    """Snippets for the card: loading the adapter with PEFT, and the merged checkpoint with transformers."""
    imports, place = place_of(base, revision)
    asking = [
        f'processor = AutoProcessor.from_pretrained("{repo_id}")',
        "",
        f'content = [{{"type": "image", "path": "picture.jpg"}}, {{"type": "text", "text": "{DEFAULT_PROMPT}"}}]',
        'how = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"}',
        'inputs = processor.apply_chat_template([{"role": "user", "content": content}], **how).to(model.device)',
        "written = model.generate(**inputs, max_new_tokens=64)[0]",
        'print(processor.decode(written[inputs["input_ids"].shape[1] :], skip_special_tokens=True))',
    ]
    adapter = [
        "from peft import PeftModel",
        "from transformers import AutoModelForImageTextToText, AutoProcessor",
        *imports,
        "",
        f"base = AutoModelForImageTextToText.from_pretrained({place})",
        f'model = PeftModel.from_pretrained(base, "{repo_id}")  # at alpha = 1',
        *asking,
    ]
    merged = [
        "from transformers import AutoModelForImageTextToText, AutoProcessor",
        "",
        f'model = AutoModelForImageTextToText.from_pretrained("{repo_id}")',
        *asking,
    ]
    return {"adapter": "\n".join(adapter), "merged": "\n".join(merged)}


def repository_files(folder: Path, repo_id: str) -> dict[str, str]:
    """None: its library reads what the folder holds."""
    return {}
