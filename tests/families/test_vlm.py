"""What is special to chatting about pictures: conversations, answers, and models other than Gemma 3."""

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from PIL import Image
from tokenizers import Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    PreTrainedTokenizerFast,
    Qwen2Tokenizer,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)

from ggez_hub.errors import InputError
from ggez_hub.families import embedding, vlm
from ggez_hub.families.base import Loaded, Query, Row
from ggez_hub.merging import live
from ggez_hub.merging.checkpoints import merge

NAMES = ("red", "blue", "green tea", "a tall dark tower", "Noh mask", "ta'ovala")
TEXTS = (*NAMES, "a picture of green tea", "a drawing of a Noh mask, seen from above", "what colour is it, and why?")
QWEN_TEMPLATE = """\
{% for m in messages %}<|im_start|>{{ m.role }}
{% for part in m.content %}{{ '<|vision_start|><|image_pad|><|vision_end|>' if part.type == 'image' else part.text }}
{%- endfor %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
ENDS = {"gemma": ("<start_of_turn>model\n", "<end_of_turn>"), "qwen": ("<|im_start|>assistant\n", "<|im_end|>")}


def write_gemma(folder: Path) -> None:
    vlm.write_tiny(folder, TEXTS)


def write_qwen(folder: Path) -> None:
    """A Qwen2-VL of random weights, with a vocabulary of bytes."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
               "<|video_pad|>"]  # fmt: skip
    ids = {token: i for i, token in enumerate([*special, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    tokenizer = Qwen2Tokenizer(vocab=ids, merges=[], additional_special_tokens=special[1:])
    pixels = Qwen2VLImageProcessor(
        patch_size=4, merge_size=2, temporal_patch_size=1, size={"shortest_edge": 256, "longest_edge": 1024}
    )
    config = Qwen2VLConfig(
        text_config={
            "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 256,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]},
            "bos_token_id": None, "eos_token_id": ids["<|im_end|>"], "pad_token_id": 0,
        },
        vision_config={
            "depth": 1, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2, "patch_size": 4,
            "spatial_merge_size": 2, "temporal_patch_size": 1,
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )  # fmt: skip
    torch.manual_seed(0)
    Qwen2VLForConditionalGeneration(config).save_pretrained(folder)
    make: Any = Qwen2VLProcessor
    processor = make(pixels, tokenizer, Qwen2VLVideoProcessor(), chat_template=QWEN_TEMPLATE)
    processor.save_pretrained(folder)


@pytest.fixture(scope="module", params=["gemma", "qwen"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(kind) / "base"
    {"gemma": write_gemma, "qwen": write_qwen}[kind](folder)
    return folder


@pytest.fixture(scope="module")
def loaded(folder: Path) -> Loaded:
    return vlm.load(folder)


@pytest.fixture(scope="module")
def gemma_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("only") / "base"
    write_gemma(folder)
    return folder


@pytest.fixture(scope="module")
def gemma(gemma_folder: Path) -> Loaded:
    return vlm.load(gemma_folder)


@pytest.fixture(scope="module")
def adapter(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA that changes every layer, as training leaves it."""
    loaded = vlm.load(folder)
    config = LoraConfig(r=2, target_modules=vlm.lora_targets(), task_type=vlm.TASK_TYPE)
    loaded.model = get_peft_model(loaded.model, config)
    torch.manual_seed(0)
    for name, parameter in loaded.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    loaded.model.peft_config["default"].base_model_name_or_path = str(folder)
    path = tmp_path_factory.mktemp("adapter") / "adapter"
    vlm.save_adapter(loaded, path)
    return path


def picture(seed: int, width: int = 40, height: int = 48) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def turns(*contents: str, system: str | None = None) -> list[dict[str, str]]:
    said = [{"role": ("user", "assistant")[i % 2], "content": content} for i, content in enumerate(contents)]
    return [{"role": "system", "content": system}, *said] if system else said


def conversations() -> list[Row]:
    """Of unequal length, with one and several answers, and the picture in various places."""
    told = [
        turns("What is it?", "red"),
        turns("<image>\nWhat colour is it, and why?", "a Noh mask, seen from above, in blue"),
        turns("Look", "at what?", "at this <image> please", "green tea", "Sure?", "blue", system="Be short."),
        turns("See <image> there", "a picture of green tea", "Thanks, and what more is there to see?", "red"),
        turns("Who?", "ta'ovala"),
    ]
    return [
        {"image": picture(i, 40 + 9 * i), "text": NAMES[i], "label": NAMES[i], "messages": messages}
        for i, messages in enumerate(told)
    ]


def whole_loss(loaded: Loaded, rows: list[Row], micro: int = 100, loss: str | None = None) -> float:
    with torch.no_grad():
        return float(sum(part() for part in vlm.losses(loaded, rows, micro, loss)))


def by_hand(loaded: Loaded, kind: str, row: Row) -> list[float]:
    """Log-probability of every token of the answers, from one plain pass over one row, without padding."""
    start, end = ENDS[kind]
    chat = []
    marked = any("<image>" in turn["content"] for turn in row["messages"])
    for turn in row["messages"]:
        before, mark, after = turn["content"].partition("<image>")
        content = [{"type": "text", "text": before.strip()}] if before.strip() else []
        if mark or (not marked and turn["role"] == "user"):
            content = [*content, {"type": "image", "image": row["image"]}] if mark else [
                {"type": "image", "image": row["image"]}, *content]  # fmt: skip
            marked = True
        chat.append(
            {
                "role": turn["role"],
                "content": [*content, *([{"type": "text", "text": after.strip()}] if after.strip() else [])],
            }
        )
    inputs = loaded.processor.apply_chat_template(chat, tokenize=True, return_dict=True, return_tensors="pt")
    with torch.inference_mode():
        found = loaded.model(**inputs).logits[0].log_softmax(-1)
    ids = inputs["input_ids"][0].tolist()
    opening, closing = (loaded.processor.tokenizer.encode(text, add_special_tokens=False) for text in (start, end))
    result, i = [], 0
    while i < len(ids):
        if ids[i : i + len(opening)] == opening:
            i += len(opening)
            while ids[i - len(closing) : i] != closing:
                result.append(float(found[i - 1, ids[i]]))
                i += 1
        else:
            i += 1
    return result


# ------------------------------------------------------------------------------------------------------------- training
def test_the_loss_is_the_mean_over_the_tokens_of_answers_and_their_ends(loaded: Loaded, kind: str) -> None:
    rows = conversations()
    tokens = [by_hand(loaded, kind, row) for row in rows]
    for row, own in zip(rows, tokens, strict=True):
        assert whole_loss(loaded, [row]) == pytest.approx(-np.mean(own), rel=1e-5)
    every = [token for own in tokens for token in own]
    assert whole_loss(loaded, rows) == pytest.approx(-np.mean(every), rel=1e-5)
    end = len(loaded.processor.tokenizer.encode(ENDS[kind][1], add_special_tokens=False))
    answers = [turn["content"] for row in rows for turn in row["messages"] if turn["role"] == "assistant"]
    expected = sum(len(loaded.processor.tokenizer.encode(text, add_special_tokens=False)) + end for text in answers)
    assert len(every) == expected


def test_a_caption_is_the_answer_to_a_fixed_request(loaded: Loaded) -> None:
    rows = conversations()
    asked = [row | {"messages": turns(vlm.CAPTION_PROMPT, row["text"])} for row in rows]
    without = [{"image": row["image"], "text": row["text"], "messages": None} for row in rows]
    assert whole_loss(loaded, without, loss="caption") == pytest.approx(
        whole_loss(loaded, asked, loss="answers"), rel=1e-6
    )


@pytest.mark.parametrize(("micro", "of"), [(1, 1), (2, 1), (100, 1), (100, 2), (2, 2), (1, 3), (2, 7)])
def test_parts_and_shares_sum_to_the_whole_and_every_share_has_as_many(loaded: Loaded, micro: int, of: int) -> None:
    rows = conversations()
    shares = [vlm.losses(loaded, rows, micro, "answers", (which, of)) for which in range(of)]
    assert len({len(share) for share in shares}) == 1
    total = 0.0
    loaded.model.zero_grad()
    for part in (part for share in shares for part in share):
        found = part()
        assert found.requires_grad, "a part without rows runs as well"
        total += float(found.detach())
    assert total == pytest.approx(whole_loss(loaded, rows), rel=1e-5)


def test_work_is_shared_out_evenly(gemma: Loaded) -> None:
    seen: list[int] = []
    hook = gemma.model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    for which in (0, 1):
        for part in vlm.losses(gemma, conversations()[:4], 100, "answers", (which, 2)):
            part()
    hook.remove()
    assert seen == [2, 2]


def test_a_template_that_rewrites_earlier_turns_is_refused(gemma_folder: Path) -> None:
    loaded = vlm.load(gemma_folder)
    loaded.processor.chat_template = "{{ messages | length }}" + loaded.processor.chat_template
    with pytest.raises(InputError, match="rewrites earlier turns"):
        vlm.losses(loaded, conversations(), 4)


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        (None, "'': it has no message"),
        (turns("only a question"), "'only a question': its last message is not by the assistant"),
        (turns("q", "a")[1:], "'a': message 1 is by 'assistant', expected 'user'"),
        (turns("<image> and <image>", "a"), "it has <image> more than once"),
        (turns("<image>", "a", "<image>", "b"), "it has <image> more than once"),
        (turns("q", "see <image>"), "not the user's"),
        (turns("q", " "), "message 2 is empty"),
    ],
)
def test_a_conversation_that_cannot_train_is_named(gemma: Loaded, messages: Any, problem: str) -> None:
    row = {"image": picture(0), "text": "red", "messages": messages}
    with pytest.raises(InputError, match=re.escape(problem)):
        vlm.losses(gemma, [row], 1)


def test_a_text_that_cannot_be_a_caption_is_named(gemma: Loaded) -> None:
    for text in ("", None, "an <image>"):
        with pytest.raises(InputError, match="the conversation"):
            vlm.losses(gemma, [{"image": picture(0), "text": text}], 1, "caption")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradient_checkpointing_changes_no_gradient(folder: Path, dtype: torch.dtype) -> None:
    found = []
    for checkpointing in (False, True):
        loaded = vlm.load(folder, dtype=dtype)
        assert loaded.model.dtype == dtype
        loaded.model = get_peft_model(loaded.model, LoraConfig(r=2, target_modules=vlm.lora_targets()))
        if checkpointing:
            loaded.model.gradient_checkpointing_enable()
        loaded.model.train()
        torch.manual_seed(0)
        trained = [p for p in loaded.model.parameters() if p.requires_grad]
        for parameter in trained:
            torch.nn.init.normal_(parameter, std=0.1)
        for part in vlm.losses(loaded, conversations(), 3):
            part().backward()  # type: ignore[no-untyped-call]
        found.append([p.grad for p in trained])
    assert all(gradient is not None for gradients in found for gradient in gradients)
    torch.testing.assert_close(found[0], found[1])


# ------------------------------------------------------------------------------------------------------------ preparing
def examples(rows: list[Row]) -> datasets.Dataset:
    flat = [row | {"image": {"bytes": encoded(row["image"]), "path": None}} for row in rows]
    return datasets.Dataset.from_list(flat)


@pytest.mark.parametrize("loss", ["answers", "caption"])
def test_too_long_rows_are_left_out_and_counted(loaded: Loaded, loss: str) -> None:
    rows = [row | {"text": f"{row['text']} " * (i + 1)} for i, row in enumerate(conversations())]
    given = examples(rows)
    assert vlm.prepare(loaded, given, loss, 2, None) == (given, {})
    lengths = []
    hook = loaded.model.register_forward_pre_hook(
        lambda module, args, kwargs: lengths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    for row in rows:
        whole_loss(loaded, [row], loss=loss)
    hook.remove()
    for limit in {min(lengths), sorted(lengths)[2], max(lengths), max(lengths) - 1}:
        kept, counts = vlm.prepare(loaded, given, loss, 2, limit)
        assert kept["text"] == [row["text"] for row, length in zip(rows, lengths, strict=True) if length <= limit]
        gone = len(rows) - len(kept)
        assert counts == ({f"longer than {limit} tokens": gone} if gone else {})
    with pytest.raises(InputError, match=f"5 longer than {min(lengths) - 1} tokens"):
        vlm.prepare(loaded, given, loss, 2, min(lengths) - 1)


def test_the_model_itself_says_how_long_a_row_may_be(gemma: Loaded) -> None:
    rows = [*conversations(), conversations()[0] | {"messages": turns("What?", "red " * 600)}]
    kept, counts = vlm.prepare(gemma, examples(rows), "answers", 4, None)
    assert counts == {"longer than 512 tokens": 1}
    assert len(kept) == len(rows) - 1


def test_pictures_that_a_model_does_not_take_are_counted(loaded: Loaded, kind: str) -> None:
    rows = [*conversations(), conversations()[0] | {"image": picture(0, 2000, 4)}]
    kept, counts = vlm.prepare(loaded, examples(rows), "answers", 4, None)
    assert sum(counts.values()) == (kind == "qwen")
    assert len(kept) == len(rows) - (kind == "qwen")


# ----------------------------------------------------------------------------------------------------------- predicting
def asked() -> list[Query]:
    """With and without picture, options and prompt, in no order."""
    return [
        Query(picture(0), ["red", "blue", "green tea", "a drawing of a mask"]),
        Query(picture(1, 60), (), "What colour is it, and why is that so?", max_new_tokens=6),
        Query(None, ["red", "a picture"], "Say something."),
        Query(picture(2, 30, 90), ["red", "blue"], "What is in <image> here, red or blue?"),
        Query(picture(1, 60), (), max_new_tokens=9),
        Query(None, [], "Hello", max_new_tokens=6),
        Query(picture(3), [], "Red?", max_new_tokens=6),
        Query(None, [], "Say something longer than that, and then something else.", max_new_tokens=6),
        Query(picture(0), ["blue", "red and blue", "red and green"]),
    ]


def prompt_of(loaded: Loaded, query: Query) -> str:
    before, mark, after = (query.prompt or vlm.DEFAULT_PROMPT).partition("<image>")
    texts = [{"type": "text", "text": text.strip()} for text in (before, after)]
    content = [texts[0], {"type": "image"}, texts[1]] if mark else [{"type": "image"}, *texts[:1]]
    if query.image is None:
        content = texts[:1]
    chat = [{"role": "user", "content": content}]
    return str(loaded.processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False))


def read(loaded: Loaded, query: Query, text: str) -> Any:
    images = None if query.image is None else [[query.image]]
    return loaded.processor(text=[text], images=images, add_special_tokens=False, return_tensors="pt")


def scored_by_hand(loaded: Loaded, query: Query) -> list[float]:
    """Each option in a pass of its own."""
    prompt = prompt_of(loaded, query)
    start = read(loaded, query, prompt)["input_ids"].shape[1]
    result = []
    for option in query.options:
        inputs = read(loaded, query, prompt + option)
        with torch.inference_mode():
            found = loaded.model(**inputs).logits[0].log_softmax(-1)
        ids = inputs["input_ids"][0]
        result.append(float(sum(found[i - 1, ids[i]] for i in range(start, len(ids)))))
    return result


def written_by_hand(loaded: Loaded, query: Query, kind: str) -> str:
    inputs = read(loaded, query, prompt_of(loaded, query))
    out = loaded.model.generate(**inputs, max_new_tokens=query.max_new_tokens, do_sample=False)
    text: str = loaded.processor.tokenizer.decode(out[0, inputs["input_ids"].shape[1] :])
    text = text.split(ENDS[kind][1])[0]
    for mark in loaded.processor.tokenizer.all_special_tokens:
        text = text.replace(mark, "")
    return text.strip()


@pytest.mark.parametrize(("batch_size", "copies"), [(1, 1), (3, 1), (100, 1), (6, 3)])
def test_answers_equal_those_of_plain_transformers(loaded: Loaded, kind: str, batch_size: int, copies: int) -> None:
    for query, found in zip(asked(), vlm.predict(loaded, asked(), batch_size, copies), strict=True):
        if query.options:
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, [scored_by_hand(loaded, query)] * copies, rtol=0, atol=2e-5)
        else:
            assert found.dtype.kind == "U"
            assert found.tolist() == [written_by_hand(loaded, query, kind)] * copies


def test_options_that_differ_in_their_last_token_share_a_pass(gemma: Loaded) -> None:
    rows: list[int] = []
    hook = gemma.model.register_forward_pre_hook(
        lambda module, args, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    image = picture(0)
    vlm.predict(gemma, [Query(image, NAMES)], 100)
    assert rows == [1], "names are single tokens: one pass for all"
    vlm.predict(gemma, [Query(image, NAMES), Query(image, NAMES[:2]), Query(picture(1), NAMES)], 100)
    assert rows[1:] == [2], "nothing is asked twice"
    vlm.predict(gemma, [Query(image, [*NAMES, "red red", "red blue", "blue blue"])], 100)
    hook.remove()
    assert rows[2:] == [3], "after nothing, after red and after blue"


@pytest.mark.parametrize("copies", [[0.0, 1.0, 0.4], [1.0]])
def test_one_batch_at_several_alphas_writes_what_each_alone_writes(
    folder: Path, adapter: Path, copies: list[float]
) -> None:
    loaded = vlm.load(folder)
    loaded.model, dial = live.attach_adapter(loaded.model, adapter, "region")
    with live.blocks({"region": copies}):
        together = vlm.predict(loaded, asked(), 12, len(copies))
    alone = []
    for alpha in copies:
        dial(alpha)
        alone.append(vlm.predict(loaded, asked(), 2))
    for i, found in enumerate(together):
        expected = np.concatenate([answers[i] for answers in alone])
        if found.dtype.kind == "U":
            assert found.tolist() == expected.tolist()
        else:
            np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)
    assert len(copies) == 1 or len(set(together[1].tolist())) > 1, "alpha makes no difference"


@pytest.mark.parametrize("end", ["<end_of_turn>", "[end]"], ids=["special", "plain text"])
def test_what_follows_the_end_of_a_turn_is_cut(gemma_folder: Path, end: str) -> None:
    loaded = vlm.load(gemma_folder)
    loaded.processor.chat_template = loaded.processor.chat_template.replace("<end_of_turn>", end)
    told = loaded.processor.tokenizer.encode(f"green tea{end}\n<start_of_turn>user", add_special_tokens=False)
    loaded.model.generate = lambda **inputs: torch.cat([inputs["input_ids"], torch.tensor([told])], dim=1)
    assert vlm.predict(loaded, [Query(picture(0))], 1)[0].tolist() == ["green tea"]


def test_an_answer_is_read_as_it_stands_after_its_prompt() -> None:
    """Tokenizers in the manner of Llama 2 put a space before every text that they read alone."""
    made = Tokenizer(WordLevel({word: i for i, word in enumerate(("[unk]", "▁say", "▁red", "▁", "red"))}, "[unk]"))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    make: Any = PreTrainedTokenizerFast
    tokenizer = make(tokenizer_object=made, unk_token="[unk]")
    assert tokenizer("say red")["input_ids"] == [1, 2]
    assert tokenizer(" red")["input_ids"] == [3, 2]
    assert vlm._tokens(tokenizer, [("say", " red"), ("", "say"), ("say", "red")]) == [[2], [1], [2]]


def test_writing_stops_at_the_end_of_a_turn(gemma: Loaded) -> None:
    ends = gemma.model.generation_config.eos_token_id
    assert gemma.processor.tokenizer.convert_tokens_to_ids("<end_of_turn>") in ends


def test_queries_that_cannot_be_asked_are_refused(loaded: Loaded, kind: str) -> None:
    mark = {"gemma": "<start_of_image>", "qwen": "<|image_pad|>"}[kind]
    for query, words in (
        (Query(picture(0), ["a"], "<image> or <image>?"), "names more pictures"),
        (Query(None, ["a"], "what is in <image>?"), "names more pictures"),
        (Query(picture(0), ["red", " "]), "is empty"),
        (Query(picture(0), ["red"], f"what is {mark}?"), "cannot read"),
        (Query(None, ["red"], f"what is {mark}?"), "cannot read"),
        (Query(Image.new("RGB", (0, 5)), ["red"]), "0 x 5 pixels"),
        (Query(b"no picture", ["red"]), "cannot be decoded"),
    ):
        with pytest.raises(InputError, match=words):
            vlm.predict(loaded, [query], 4)


def test_odd_pictures_are_read(loaded: Loaded, kind: str) -> None:
    frames = [picture(i) for i in range(3)]
    deep = Image.fromarray((np.arange(48 * 40) * 30).astype(np.uint16).reshape(48, 40))
    odd: list[Any] = [
        encoded(picture(0).convert("CMYK"), "JPEG"),
        encoded(picture(0).convert("RGBA")),
        encoded(picture(0).convert("L")),
        encoded(picture(0).convert("P")),
        encoded(deep),
        encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        Image.new("RGB", (1, 1)),
    ]
    for scores in vlm.predict(loaded, [Query(image, ["red", "blue"]) for image in odd], 4):
        assert np.isfinite(scores).all()
    long = Query(Image.new("RGB", (20_000, 10)), ["red"])
    if kind == "qwen":
        with pytest.raises(InputError, match="aspect ratio"):
            vlm.predict(loaded, [long], 4)
    else:
        assert np.isfinite(vlm.predict(loaded, [long], 4)[0]).all()


# ------------------------------------------------------------------------------------------------------ files and parts
def same(found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        if ours.dtype.kind == "U":
            assert ours.tolist() == theirs.tolist()
        else:
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-5)


def test_what_is_saved_loads_and_answers_the_same(loaded: Loaded, tmp_path: Path) -> None:
    vlm.save(loaded, tmp_path / "copy")
    same(vlm.predict(vlm.load(tmp_path / "copy"), asked(), 8), vlm.predict(loaded, asked(), 8))


def test_an_adapter_loads_in_plain_peft_and_by_the_hubs_snippet(folder: Path, adapter: Path, kind: str) -> None:
    assert sorted(path.name for path in adapter.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    ours = vlm.load(folder)
    ours.model, _ = live.attach_adapter(ours.model, adapter)
    classes = [AutoModelForImageTextToText, *([AutoModelForCausalLM] if kind == "gemma" else [])]
    for auto in classes:
        plain = PeftModel.from_pretrained(auto.from_pretrained(folder), adapter).eval()
        theirs = Loaded(plain, vlm.load(folder).processor, folder)
        same(vlm.predict(ours, asked(), 8), vlm.predict(theirs, asked(), 8))


def test_a_merged_checkpoint_answers_as_the_adapter_does(folder: Path, adapter: Path, tmp_path: Path) -> None:
    loaded = vlm.load(folder)
    before = vlm.predict(loaded, asked(), 8)
    loaded.model, dial = live.attach_adapter(loaded.model, adapter)
    merge(folder, {adapter: 0.5}, tmp_path / "merged")
    dial(0.5)
    merged = vlm.predict(vlm.load(tmp_path / "merged"), asked(), 8)
    same(merged, vlm.predict(loaded, asked(), 8))
    assert np.abs(merged[0] - before[0]).max() > 1e-3


def test_only_language_layers_get_a_lora(loaded: Loaded) -> None:
    names = [name for name, _ in loaded.model.named_modules() if re.fullmatch(vlm.lora_targets(), name)]
    assert len(names) == 14
    assert all("language_model.layers" in name for name in names)


@pytest.mark.parametrize(
    ("module", "wanted"),
    [
        ("model.language_model.layers.3.self_attn.q_proj", True),
        ("language_model.model.layers.3.mlp.gate_up_proj", True),
        ("base_model.model.model.text_model.layers.0.mlp.down_proj", True),
        ("model.vision_tower.encoder.layers.0.self_attn.q_proj", False),
        ("model.vision_tower.vision_model.encoder.layers.0.self_attn.q_proj", False),
        ("model.visual.blocks.0.attn.qkv", False),
        ("model.multi_modal_projector.linear_1", False),
        ("language_model.lm_head", False),
        ("model.language_model.embed_tokens", False),
    ],
)
def test_targets_in_other_models(module: str, wanted: bool) -> None:
    assert bool(re.fullmatch(vlm.lora_targets(), module)) == wanted


def test_names_are_single_tokens_and_texts_come_back(gemma: Loaded) -> None:
    tokenizer = gemma.processor.tokenizer
    for name in NAMES:
        assert len(tokenizer.encode(name, add_special_tokens=False)) == 1
    assert len(tokenizer.encode("a picture of green tea", add_special_tokens=False)) > 1, "a caption is not a name"
    for text in (*TEXTS, "redder than blue, naïve  é 中\n\n", "<start_of_turn>x"):
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text
    assert len(tokenizer.encode("redder", add_special_tokens=False)) > 1


def test_a_small_vocabulary_holds_what_it_can(tmp_path: Path) -> None:
    names = [f"name {i}" for i in range(200)]
    vlm.write_tiny(tmp_path, names, vocabulary=400)
    tokenizer = vlm.load(tmp_path).processor.tokenizer
    assert len(tokenizer) <= 400
    single = [name for name in names if len(tokenizer.encode(name, add_special_tokens=False)) == 1]
    assert single == names[: len(single)]
    assert len(single) > 50


def test_a_trained_vision_tower_is_taken_over(tmp_path: Path) -> None:
    embedding.write_tiny(tmp_path / "siglip", seed=3, image=24, patch=6, hidden=16)
    vlm.write_tiny(tmp_path / "vlm", TEXTS, parts={"vision": tmp_path / "siglip"}, image_tokens=4)
    siglip, ours = embedding.load(tmp_path / "siglip"), vlm.load(tmp_path / "vlm")
    pixels = ours.processor.image_processor(picture(0), return_tensors="pt")["pixel_values"]
    assert torch.equal(pixels, siglip.processor.image_processor(picture(0), return_tensors="pt")["pixel_values"])
    with torch.inference_mode():
        expected = siglip.model.vision_model(pixels).last_hidden_state
        assert torch.equal(ours.model.model.vision_tower(pixels).last_hidden_state, expected)
    assert len(vlm.predict(ours, [Query(picture(0), NAMES)], 1)[0][0]) == len(NAMES)


def test_sizes_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    sizes: Any
    for sizes, words in (
        ({"hiden": 8}, "hiden: no such size .* did you mean 'hidden'"),
        ({"image_tokens": 5}, "image_tokens=5: expected the square"),
        ({"image_tokens": 9}, "image_tokens=9: expected the square"),
    ):
        with pytest.raises(InputError, match=words):
            vlm.write_tiny(tmp_path / "x", **sizes)
    for part, words in (("vision", "cannot be loaded as a SigLIP"), ("sight", "no such part .*; known: vision")):
        with pytest.raises(InputError, match=words):
            vlm.write_tiny(tmp_path / "x", parts={part: tmp_path})
    assert not (tmp_path / "x").exists()


def cut_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def lose_a_tensor(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    tensors.pop(next(name for name in tensors if name.endswith("layers.0.mlp.up_proj.weight")))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (cut_weights, "damaged weights"),
        (lose_a_tensor, "damaged weights: .*up_proj.weight"),
        (lambda folder: (folder / "model.safetensors").unlink(), "cannot be loaded"),
        (lambda folder: (folder / "config.json").unlink(), "cannot be loaded"),
        (lambda folder: (folder / "config.json").write_text("{"), "cannot be loaded"),
        (lambda folder: (folder / "processor_config.json").unlink(), "cannot be loaded|no chat template"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), "cannot be loaded"),
        (lambda folder: (folder / "chat_template.jinja").unlink(), "no chat template"),
    ],
)
def test_folders_that_are_no_such_model_or_damaged_are_named(
    tmp_path: Path, spoil: Callable[[Path], Any], words: str
) -> None:
    folder = tmp_path / "base"
    write_gemma(folder)
    spoil(folder)
    with pytest.raises(InputError, match=words) as caught:
        vlm.load(folder)
    assert str(folder) in caught.value.message
    assert caught.value.hint


def test_other_kinds_of_models_are_refused(tiny_base: Path, tmp_path: Path) -> None:
    for folder in (tiny_base, tmp_path, tmp_path / "missing"):
        with pytest.raises(InputError, match="cannot be loaded as a vision-language model") as caught:
            vlm.load(folder)
        assert "Gemma3ForConditionalGeneration" in str(caught.value)
        assert len(str(caught.value)) < 600
