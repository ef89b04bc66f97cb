"""Reward models: what is asked, what counts as a score, and what becomes of rows without one."""

import functools
import io
import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import convert_weights
from ggez_hub import families
from ggez_hub.data import image_reward, readers, rewards
from ggez_hub.errors import ConfigError, HubError, InputError
from ggez_hub.families import embedding, open_clip, vlm
from ggez_hub.families.base import clip_vocabulary
from ggez_hub.schema import Reward
from tests.endpoint_server import MODEL, EndpointServer, text_of

TEXTS = ("a bowl of noodles", "a wooden boat on the river", "two people dance at night")


def picture(seed: int, size: tuple[int, int] = (40, 30)) -> bytes:
    buffer = io.BytesIO()
    rng = np.random.default_rng(seed)
    Image.fromarray(rng.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)).save(buffer, "png")
    return buffer.getvalue()


def talk(*turns: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(turns)]


def rows(*given: dict[str, Any]) -> pa.RecordBatch:
    """Rows with a picture each, unless they say otherwise."""
    told = [{"image": {"bytes": picture(i), "path": None}} | row for i, row in enumerate(given)]
    return pa.RecordBatch.from_pylist(told, readers.row_schema())


def captions(*texts: str) -> pa.RecordBatch:
    return rows(*({"text": text} for text in texts))


def local(model: str, folder: Path | None = None) -> rewards.Scorer:
    return rewards.scorer(Reward(model=model, id=str(folder) if folder else None), families)


# -------------------------------------------------------------------------------------------------------------- parsing
THREE = (
    'Word-wise Scores: [["boat", 0.1]]\n\nAlignment Score (1-5): {}\nCoherence Score (1-5): {}\nStyle Score (1-5): {}'
)


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("Final Score: 4", 4),
        ("Final Score: 3.5", 3.5),
        ("boat (object): 1\nriver (location): 0\nFinal Score: 2\n", 2),
        ("Final Score: 1. The picture has 2 boats.", 1),
        ("**Final Score:** 4", 4),
        ("**Final Score**: **4.0**", 4),
        ("final score:\n5", 5),
        ("FINAL SCORE： [3]", 3),
        ("Final Score: **4**.", 4),
        ("_Final Score_: 4/5.", 4),
        ("Final Score: 4\n- 2 boats are missing", 4),
        ("Final Score: 4/5", 4),
        ("Final Score: 4 out of 5", 4),
        ("Final Score: 2, I thought. No:\nFinal Score: 4", 4),
        ("Score 1 to 5 after 'Final Score:'. Final Score: 3", 3),
        (THREE.format("3.0625", "2.5", "3.4375"), 3),
        (THREE.format(1, 1, 1) + "\n" + THREE.format(4, 5, 3), 4),
    ],
)
def test_a_score_is_read_from_what_a_model_writes(text: str, score: float) -> None:
    assert rewards.score_in(text) == rewards.Score(score)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no Final Score in ''"),
        ("4", "no Final Score in '4'"),
        ("It is a good picture.\x1b[31m", "no Final Score in 'It is a good picture. [31m'"),
        ("Final Score:", "no number after Final Score: ''"),
        ("Final Score: good", "no number after Final Score: 'good'"),
        ("Final Score: none. There are 3 boats", "no number after Final Score: "),
        ("Final Score: NaN", "no number after Final Score: 'NaN'"),
        ("Final Score: inf", "no number after Final Score: 'inf'"),
        ("Final Score: 45", "Final Score: '45' is not from 1 to 5"),
        ("Final Score: -3", "Final Score: '-3' is not from 1 to 5"),
        ("Final Score: 0", "is not from 1 to 5"),
        ("Final Score: 5.01", "is not from 1 to 5"),
        ("Final Score: 1e400", "no number after"),
        ("Final Score: " + "9" * 100_000, "is not from 1 to 5"),
        ("Final Score: 4.5/10", "is not from 1 to 5"),
        ("Final Score: 5/100", "is not from 1 to 5"),
        ("Final Score: 4%", "no number after"),
        ("Final Score: 4th", "no number after"),
        ("Final Score: 3.1.4", "no number after"),
        ("Final Score: 3,5", "no number after"),
        ("Final Score: 3-4", "more than one number after Final Score: '3-4'"),
        ("Final Score: 3 or 4", "more than one number after"),
        ("Final Score: 3, 4", "more than one number after"),
        ("Final Score: 3 to 4", "more than one number after"),
        ("Final Score: 4\nFinal Score: bad", "no number after Final Score: 'bad'"),
        ("Alignment Score (1-5): 3\nStyle Score (1-5): 2", "no Coherence Score in "),
        (THREE.format(3, 9, 3), "Coherence Score: '9 Style Score (1-5): 3' is not from 1 to 5"),
    ],
)
def test_what_is_no_score_is_said_and_nothing_is_guessed(text: str, problem: str) -> None:
    value, said = rewards.score_in(text)
    assert value is None
    assert problem in said
    assert len(said) < 120
    assert said.isprintable()


@pytest.mark.parametrize(
    "text", ["Final Score" + " " * 300_000, "Final Score *_ " * 50_000, "Style Score ( 1" * 50_000]
)
def test_an_answer_that_never_ends_takes_no_time(text: str) -> None:
    assert rewards.score_in(text).problem


@given(st.floats(1, 5), st.text(max_size=50), st.sampled_from(["\n", " ", ".\n", "/5", " "]))
def test_any_number_on_the_scale_is_read_whatever_stands_before_it(value: float, before: str, after: str) -> None:
    assert rewards.score_in(f"{before} Final Score: {value:.6f}{after}").value == pytest.approx(value, abs=1e-6)


@given(st.text(), st.sampled_from(["", "Final Score:", "Alignment Score (1-5):"]), st.text())
def test_no_text_is_too_odd_to_be_read(before: str, name: str, after: str) -> None:
    value, problem = rewards.score_in(before + name + after)
    assert bool(problem) if value is None else 1 <= value <= 5


# ------------------------------------------------------------------------------------------------------------- endpoint
@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[EndpointServer]:
    import openai._base_client

    monkeypatch.setattr(openai._base_client, "INITIAL_RETRY_DELAY", 0.001)
    with EndpointServer(lambda request: "Final Score: 4") as running:
        yield running


def asked(server: EndpointServer, minimum: float | None = 3, model: str = "unified-reward") -> Callable[..., Any]:
    """The rule over a server."""
    scorer = rewards.scorer(Reward(model=model, id=MODEL, endpoint=server.url), families)
    return rewards.scored(scorer, minimum)


def test_rows_are_scored_by_an_endpoint_and_those_below_the_limit_dropped(server: EndpointServer) -> None:
    said = {"noodles": "Final Score: 4", "boat": "Final Score: 2.5", "dance": "I see people.", "near": "Final Score: 3"}
    server.answer = lambda request: next(text for word, text in said.items() if f"a {word}]" in text_of(request))
    batch, kept, why = asked(server)(captions("a noodles", "a boat", "a dance", "a near"))
    assert kept.to_pylist() == [True, False, False, True]
    assert batch.column("reward").to_pylist() == [4, 2.5, None, 3]
    assert batch.schema == readers.row_schema()
    assert why.to_pylist() == [
        "reward 4",
        "reward 2.5 < 3",
        "unscored: no Final Score in 'I see people.'",
        "reward 3",
    ]


def test_a_limit_in_decimals_keeps_rows_of_just_that_score(server: EndpointServer) -> None:
    server.answer = lambda request: "Final Score: 3.3"
    assert asked(server, 3.3)(captions("a boat")).kept.to_pylist() == [True]


def test_without_a_limit_only_rows_without_a_score_are_dropped(server: EndpointServer) -> None:
    said = iter(["Final Score: 1", "no"])
    server.answer = lambda request: said.__next__()
    kept = asked(server, None)(captions("a boat", "a boat")).kept
    assert sorted(kept.to_pylist()) == [False, True]


def test_what_is_asked_has_picture_caption_and_the_words_that_are_read_again(server: EndpointServer) -> None:
    asked(server)(captions("a boat <image> in {braces}"))
    (request,) = server.requests
    image, text = request["messages"][0]["content"]
    assert image["type"] == "image_url"
    assert text["text"].endswith("Text Caption: [a boat   in {braces}]")
    assert "from 1 to 5" in text["text"]
    assert "Final Score:" in text["text"]


def test_of_version_two_three_scores_are_asked_and_their_mean_is_taken(server: EndpointServer) -> None:
    server.answer = lambda request: THREE.format(4.25, 2.25, 3.25)
    batch = asked(server, model="unified-reward-2")(captions("a boat")).batch
    assert batch.column("reward").to_pylist() == [3.25]
    for name in ("Alignment", "Coherence", "Style"):
        assert f"{name} Score (1-5):" in text_of(server.requests[0])


@pytest.mark.parametrize(("said", "reward"), [("60", 3), ("100", 5), ("85/100", 4.25), ("12", 1), ("0", 1)])
def test_a_conversation_is_scored_to_a_hundred_of_which_sixty_is_the_three_that_is_kept(
    server: EndpointServer, said: str, reward: float
) -> None:
    server.answer = lambda request: f"It is right.\nFinal Score: {said}"
    messages = talk("<image>What is it?", "A boat.", "Where?", "On a river.")
    batch, kept, _ = asked(server)(rows({"text": "a caption that is not asked about", "messages": messages}))
    assert batch.column("reward").to_pylist() == [reward]
    assert kept.to_pylist() == [reward >= 3]
    text = text_of(server.requests[0])
    assert "from 0 to 100" in text
    assert text.endswith("Question: [What is it?]\nResponse: [A boat.]\nQuestion: [Where?]\nResponse: [On a river.]")


def test_a_score_beyond_a_hundred_is_none(server: EndpointServer) -> None:
    server.answer = lambda request: "Final Score: 450"
    outcome = asked(server)(rows({"messages": talk("What is it?", "A boat.")}))
    assert outcome.why.to_pylist() == ["unscored: Final Score: '450' is not from 0 to 100"]


def test_rows_without_picture_or_text_are_not_asked(server: EndpointServer) -> None:
    broken = {"bytes": b"no picture", "path": None}
    given = rows(
        {"text": "a boat", "image": None},
        {"text": "a boat", "image": broken},
        {"text": " <image> "},
        {"messages": [None, {"role": None, "content": None}, {"role": "user", "content": "What?"}]},
        {"text": "x" * (rewards.MAX_TEXT + 1)},
        {"text": "a boat"},
    )
    batch, kept, why = asked(server)(given)
    assert kept.to_pylist() == [False] * 5 + [True]
    assert why.to_pylist() == [
        "unscored: no picture in the row",
        "unscored: cannot be decoded: not a picture of a known kind",
        "unscored: no text",
        "unscored: no text",
        f"unscored: a text of {rewards.MAX_TEXT + 1} characters, more than {rewards.MAX_TEXT}",
        "reward 4",
    ]
    assert batch.column("reward").null_count == 5
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("does", "problem"),
    [
        (["refuse"], "the server says 400: the picture is"),
        (["forbidden"], "the server says 403: flagged"),
        (["broken"] * 10, "the server says 500: out of memory"),
        (["busy"] * 10, "the server says 429"),
        (["no json"], "the reply is no JSON"),
        (["no text"], "the reply has no text"),
        (["half"], "the reply broke off"),
        (["close"] * 10, "the server cannot be reached"),
    ],
)
def test_a_row_that_the_server_fails_is_unscored_and_the_work_goes_on(
    server: EndpointServer, does: list[str], problem: str
) -> None:
    server.script["bad"] = does
    _, kept, why = asked(server)(captions("a boat", "a bad one", "a river"))
    assert kept.to_pylist() == [True, False, True]
    assert why[1].as_py().startswith(f"unscored: {problem}")


def test_a_slow_answer_is_given_up_and_the_work_goes_on(
    server: EndpointServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.script["bad"] = ["slow"]
    monkeypatch.setattr(rewards, "Endpoint", functools.partial(rewards.Endpoint, timeout=0.2, retries=0))
    _, kept, why = asked(server)(captions("a bad one", "a boat"))
    assert kept.to_pylist() == [False, True]
    assert why[0].as_py() == "unscored: no answer within 0.2 seconds"


def test_a_server_that_answers_nothing_any_more_ends_it_with_one_error(
    server: EndpointServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rewards, "PATIENCE", 4)
    rule = asked(server)
    rule(captions("a boat", "a bad", "a bad"))
    server.script["bad"] = ["refuse"] * 10
    assert not any(rule(captions(*["a bad"] * 10)).kept.to_pylist()), "what it says of rows is an answer"
    server.script["bad"] = ["no json"] * 20
    rule(captions("a bad", "a bad", "a boat", "a bad"))
    rule(captions("a boat", "a bad", "a bad", "a bad"))
    rule(captions("a boat"))
    with pytest.raises(HubError, match="no answer to the last 4 questions: the reply is no JSON"):
        rule(captions(*["a bad"] * 5))


def test_a_wrong_model_or_key_ends_it_with_one_error(server: EndpointServer) -> None:
    wrong = rewards.scorer(Reward(model="unified-reward", id="tinny", endpoint=server.url), families)
    with pytest.raises(HubError, match="did you mean 'tiny'"):
        rewards.scored(wrong, 3)(captions("a boat"))
    server.script[""] = ["wrong key"] * 10
    with pytest.raises(HubError, match="the server says 401"):
        asked(server)(captions("a boat"))


# --------------------------------------------------------------------------------------------------------- local models
@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny vision-language model that can say nothing but two scores: which one, is up to it."""
    from transformers import AutoTokenizer, GenerationConfig

    folder = tmp_path_factory.mktemp("writer")
    said = ("Final Score: 2", "Final Score: 4")
    vlm.write_tiny(folder, (*TEXTS, *said), length=2048)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    spoken = {tokenizer.convert_tokens_to_ids(text) for text in said}
    config = GenerationConfig.from_pretrained(folder)
    config.suppress_tokens = [i for i in range(len(tokenizer)) if i not in spoken]
    config.save_pretrained(folder)
    return folder


def test_a_local_model_that_writes_is_asked_the_same(writer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewards, "MAX_TOKENS", 1)
    given = rows(
        {"text": TEXTS[0]}, {"text": TEXTS[1], "image": {"bytes": b"broken", "path": None}}, {"text": TEXTS[2]}
    )
    batch, kept, why = rewards.scored(local("unified-reward", writer), 3)(given)
    first, broken, last = batch.column("reward").to_pylist()
    assert {first, last} <= {2.0, 4.0}
    assert broken is None
    assert kept.to_pylist() == [first >= 3, False, last >= 3]
    assert why[1].as_py() == "unscored: cannot be decoded: not a picture of a known kind"
    messages = rows({"messages": talk("<image>What is it?", "A boat.")})
    assert rewards.scored(local("unified-reward", writer), 1)(messages).batch.column("reward").to_pylist() == [1]


def tiny_clip(folder: Path) -> None:
    """CLIP's own classes in transformers."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

    vocabulary, merges = clip_vocabulary(TEXTS, 600)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    ends = {
        "bos_token_id": len(vocabulary) - 2,
        "eos_token_id": len(vocabulary) - 1,
        "pad_token_id": len(vocabulary) - 1,
    }
    text = sizes | ends | {"vocab_size": len(vocabulary), "max_position_embeddings": 24}
    config = CLIPConfig(text_config=text, vision_config=sizes | {"image_size": 32, "patch_size": 8}, projection_dim=16)
    torch.manual_seed(0)
    CLIPModel(config).save_pretrained(folder)
    pixels = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges)
    CLIPProcessor(image_processor=pixels, tokenizer=tokenizer).save_pretrained(folder)


def cosines_of_clip(folder: Path, pictures: list[bytes]) -> list[float]:
    from transformers import AutoModel, AutoProcessor

    model: Any = AutoModel.from_pretrained(folder)
    processor: Any = AutoProcessor.from_pretrained(folder)
    images = [Image.open(io.BytesIO(data)) for data in pictures]
    with torch.inference_mode():
        inputs = processor(text=list(TEXTS), images=images, padding=True, return_tensors="pt")
        logits = model(**inputs).logits_per_image / model.logit_scale.exp()
    return [float(x) for x in logits.diagonal()]


def cosines_of_open_clip(folder: Path, pictures: list[bytes]) -> list[float]:
    import open_clip as library

    model, preprocess = library.create_model_from_pretrained(f"local-dir:{folder}")
    tokens = library.get_tokenizer(f"local-dir:{folder}")(list(TEXTS))
    with torch.inference_mode():
        pixels = torch.stack([preprocess(Image.open(io.BytesIO(data))) for data in pictures])
        found = model.encode_image(pixels, normalize=True) @ model.encode_text(tokens, normalize=True).T
    return [float(x) for x in found.diagonal()]


@pytest.mark.parametrize(
    ("write", "expected"),
    [(tiny_clip, cosines_of_clip), (functools.partial(open_clip.write_tiny, texts=TEXTS), cosines_of_open_clip)],
    ids=["transformers", "open_clip"],
)
def test_the_score_of_clip_is_the_cosine_that_its_own_library_gives(
    tmp_path: Path, write: Callable[[Path], None], expected: Callable[[Path, list[bytes]], list[float]]
) -> None:
    write(tmp_path)
    batch, kept, why = rewards.scored(local("clip", tmp_path), 3)(captions(*TEXTS))
    raw = batch.column(rewards.RAW).to_pylist()
    assert raw == pytest.approx(expected(tmp_path, [picture(i) for i in range(3)]), abs=1e-5)
    assert len(set(raw)) == 3
    assert batch.column("reward").null_count == 3, "until all rows are known"
    assert kept.to_pylist() == [True] * 3, "no limit holds on another scale than one to five"
    assert why[0].as_py() == f"reward {raw[0]:.4g}"


def test_without_a_caption_a_model_of_captions_reads_what_is_answered(tmp_path: Path) -> None:
    embedding.write_tiny(tmp_path, TEXTS)
    image = {"bytes": picture(0), "path": None}
    given = rows(
        {"text": TEXTS[0], "image": image, "messages": talk("<image>What is it?", TEXTS[1])},
        {"image": image, "messages": talk("<image>What is it?", TEXTS[1], "And here?", TEXTS[2])},
        {"text": TEXTS[0], "image": image},
        {"text": f"{TEXTS[1]} {TEXTS[2]}", "image": image},
        {"text": TEXTS[1], "image": {"bytes": b"broken", "path": None}},
    )
    batch, _, why = rewards.scored(local("clip", tmp_path))(given)
    raw = batch.column(rewards.RAW).to_pylist()
    assert raw[:2] == pytest.approx(raw[2:4], abs=1e-6)
    assert raw[0] != pytest.approx(raw[1], abs=1e-4)
    assert raw[4] is None
    assert why[4].as_py() == "unscored: the picture cannot be read"


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    embedding.write_tiny(tmp_path, TEXTS)
    state = load_file(tmp_path / "model.safetensors")
    state["logit_scale"] = state["logit_scale"] * math.nan
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="NaN"):
        local("clip", tmp_path)


def test_a_score_that_is_no_number_is_none() -> None:
    scorer = rewards.Scorer(rewards.MODELS["clip"], lambda seen: [rewards.Score(x) for x in (math.nan, math.inf, 0.5)])
    _, kept, why = rewards.scored(scorer)(captions(*TEXTS))
    assert kept.to_pylist() == [False, False, True]
    assert why[1].as_py() == "unscored: the model's score is inf"


# ----------------------------------------------------------------------------------------------------- converted models
@pytest.mark.slow
def test_hpsv2_is_converted_from_its_pickle_and_fits_pictures_in(tmp_path: Path) -> None:
    import open_clip as library

    open_clip.write_tiny(tmp_path / "tiny", TEXTS)
    config = json.loads((tmp_path / "tiny" / "open_clip_config.json").read_text())
    made = library.create_model_from_pretrained(f"local-dir:{tmp_path / 'tiny'}", return_transform=False)
    torch.save({"state_dict": made.half().state_dict(), "epoch": 3}, tmp_path / "hps.pt")
    config["model_cfg"]["text_cfg"].pop("hf_tokenizer_name", None)
    sizes = {**config["model_cfg"]}
    sizes["text_cfg"] = {
        k: v for k, v in sizes["text_cfg"].items() if k not in ("hf_tokenizer_name", "tokenizer_kwargs")
    }
    convert_weights.hpsv2(convert_weights.state_of(tmp_path / "hps.pt"), tmp_path / "hps", sizes)
    assert not [*(tmp_path / "hps").glob(".*")]

    wide = Image.new("RGB", (64, 16), "red")
    _, preprocess = library.create_model_from_pretrained(f"local-dir:{tmp_path / 'hps'}")
    pixels = preprocess(wide)
    assert pixels.shape == (3, 32, 32)
    assert torch.equal(pixels[:, 0], pixels[:, -1]), "above and below it is black"
    assert not torch.equal(pixels[:, 0], pixels[:, 16])

    read = open_clip.load(tmp_path / "hps").model.state_dict()
    for name, value in open_clip.load(tmp_path / "tiny").model.state_dict().items():
        assert torch.allclose(read[name], value.half().float()), name


SIZES = {
    "model_type": image_reward.KIND,
    "vision": {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3,
               "image_size": 32, "patch_size": 16},
    "text": {"hidden_size": 16, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 2,
             "vocab_size": 40, "max_position_embeddings": 64},
    "head": [12, 4, 1],
}  # fmt: skip
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted({word for text in TEXTS for word in text.split()})]


def published() -> dict[str, torch.Tensor]:
    """A state as ImageReward is published: BLIP's own names, random numbers."""
    torch.manual_seed(1)
    eye, text = SIZES["vision"], SIZES["text"]
    shapes: dict[str, tuple[int, ...]] = {
        "blip.visual_encoder.cls_token": (1, 1, 24), "blip.visual_encoder.pos_embed": (1, 5, 24),
        "blip.visual_encoder.patch_embed.proj.weight": (24, 3, 16, 16),
        "blip.visual_encoder.patch_embed.proj.bias": (24,),
        "blip.text_encoder.embeddings.word_embeddings.weight": (40, 16),
        "blip.text_encoder.embeddings.position_embeddings.weight": (64, 16),
        "blip.vision_proj.weight": (8, 24), "blip.vision_proj.bias": (8,), "blip.text_proj.weight": (8, 16),
    }  # fmt: skip

    def linear(name: str, wide: int, narrow: int) -> None:
        shapes.update({f"{name}.weight": (wide, narrow), f"{name}.bias": (wide,)})

    def norm(name: str, width: int) -> None:
        shapes.update({f"{name}.weight": (width,), f"{name}.bias": (width,)})

    for i in range(eye["num_hidden_layers"]):
        block = f"blip.visual_encoder.blocks.{i}"
        norm(f"{block}.norm1", 24), norm(f"{block}.norm2", 24)
        linear(f"{block}.attn.qkv", 72, 24), linear(f"{block}.attn.proj", 24, 24)
        linear(f"{block}.mlp.fc1", 48, 24), linear(f"{block}.mlp.fc2", 24, 48)
    norm("blip.visual_encoder.norm", 24), norm("blip.text_encoder.embeddings.LayerNorm", 16)
    for i in range(text["num_hidden_layers"]):
        layer = f"blip.text_encoder.encoder.layer.{i}"
        for kind, width in (("attention", 16), ("crossattention", 24)):
            linear(f"{layer}.{kind}.self.query", 16, 16)
            linear(f"{layer}.{kind}.self.key", 16, width), linear(f"{layer}.{kind}.self.value", 16, width)
            linear(f"{layer}.{kind}.output.dense", 16, 16), norm(f"{layer}.{kind}.output.LayerNorm", 16)
        linear(f"{layer}.intermediate.dense", 40, 16), linear(f"{layer}.output.dense", 16, 40)
        norm(f"{layer}.output.LayerNorm", 16)
    linear("mlp.layers.0", 12, 16), linear("mlp.layers.2", 4, 12), linear("mlp.layers.4", 1, 4)  # dropout between them
    small = re.compile("cls_token|pos_embed|patch_embed")  # so that what is added to a variance shows
    state = {name: torch.randn(shape) * (0.003 if small.search(name) else 0.6) for name, shape in shapes.items()}
    return state | {"blip.text_encoder.embeddings.position_ids": torch.arange(64)[None]}


def by_the_paper(state: dict[str, torch.Tensor], data: bytes, words: list[int]) -> float:
    """The score worked out layer by layer from the published names, with nothing of transformers."""
    from torch.nn.functional import conv2d, gelu, layer_norm
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, ToTensor

    def linear(name: str, x: torch.Tensor) -> torch.Tensor:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def norm(name: str, x: torch.Tensor, eps: float) -> torch.Tensor:
        return layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], eps)

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int) -> torch.Tensor:
        q, k, v = (x.unflatten(-1, (heads, -1)).transpose(0, 1) for x in (q, k, v))
        weights = (q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).softmax(-1)
        return (weights @ v).transpose(0, 1).flatten(1)

    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    read = Compose([Resize(32, InterpolationMode.BICUBIC), CenterCrop(32), ToTensor(), Normalize(mean, std)])
    eye, told = "blip.visual_encoder", "blip.text_encoder"
    patches = conv2d(
        read(Image.open(io.BytesIO(data)))[None], state[f"{eye}.patch_embed.proj.weight"],
        state[f"{eye}.patch_embed.proj.bias"], 16,
    )  # fmt: skip
    x = torch.cat([state[f"{eye}.cls_token"][0], patches[0].flatten(1).T]) + state[f"{eye}.pos_embed"][0]
    for i in range(2):
        block = f"{eye}.blocks.{i}"
        q, k, v = linear(f"{block}.attn.qkv", norm(f"{block}.norm1", x, 1e-6)).chunk(3, -1)
        x = x + linear(f"{block}.attn.proj", attend(q, k, v, 3))
        x = x + linear(f"{block}.mlp.fc2", gelu(linear(f"{block}.mlp.fc1", norm(f"{block}.norm2", x, 1e-6))))
    seen = norm(f"{eye}.norm", x, 1e-6)
    x = state[f"{told}.embeddings.word_embeddings.weight"][words]
    x = x + state[f"{told}.embeddings.position_embeddings.weight"][: len(words)]
    x = norm(f"{told}.embeddings.LayerNorm", x, 1e-12)
    for i in range(2):
        layer = f"{told}.encoder.layer.{i}"
        for kind, other in (("attention", None), ("crossattention", seen)):
            name = f"{layer}.{kind}"
            source = x if other is None else other
            q, k, v = (
                linear(f"{name}.self.query", x),
                linear(f"{name}.self.key", source),
                linear(f"{name}.self.value", source),
            )
            x = norm(f"{name}.output.LayerNorm", linear(f"{name}.output.dense", attend(q, k, v, 2)) + x, 1e-12)
        inner = linear(f"{layer}.output.dense", gelu(linear(f"{layer}.intermediate.dense", x)))
        x = norm(f"{layer}.output.LayerNorm", inner + x, 1e-12)
    head = linear("mlp.layers.4", linear("mlp.layers.2", linear("mlp.layers.0", x[0])))
    return (float(head) - 0.16717362830052426) / 1.0333394966054072


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny ImageReward, converted from a pickle."""
    folder = tmp_path_factory.mktemp("image_reward")
    bert = folder / "bert"
    bert.mkdir()
    (bert / "vocab.txt").write_text("\n".join(WORDS))
    (bert / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer", "do_lower_case": true}')
    torch.save(published(), folder / "ImageReward.pt")
    convert_weights.imagereward(convert_weights.state_of(folder / "ImageReward.pt"), folder / "out", bert, SIZES)
    return folder


def test_image_reward_gives_what_its_layers_make_of_picture_and_text(converted: Path) -> None:
    texts = [*TEXTS, " ".join(TEXTS * 4)]
    pictures = [picture(i, size) for i, size in enumerate([(40, 30), (30, 70), (32, 32), (20, 90)])]
    given = rows(*({"text": t, "image": {"bytes": p, "path": None}} for t, p in zip(texts, pictures, strict=True)))
    batch, kept, _ = rewards.scored(local("image-reward", converted / "out"), 3)(given)
    words = [[2, *[WORDS.index(word) for word in text.split()][:33], 3] for text in texts]  # 35 with start and end
    expected = [by_the_paper(published(), *each) for each in zip(pictures, words, strict=True)]
    assert batch.column(rewards.RAW).to_pylist() == pytest.approx(expected, abs=1e-4)
    assert np.ptp(expected) > 0.01
    assert kept.to_pylist() == [True] * 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("mlp.layers.0.bias"), "tensor head.0.bias: not there, expected "),
        (lambda state: state.update(strange=torch.zeros(1)), "tensor strange: [1], expected none of that name"),
        (
            lambda state: state.update({"mlp.layers.4.weight": torch.zeros(1, 5)}),
            "head.2.weight: [1, 5], expected [1, 4]",
        ),
    ],
)
def test_another_checkpoint_is_not_converted(
    converted: Path, tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], Any], message: str
) -> None:
    state = published()
    change(state)
    with pytest.raises(InputError, match=re.escape(message)):
        convert_weights.imagereward(state, tmp_path / "out", converted / "bert", SIZES)
    assert not (tmp_path / "out").exists()


def test_a_pickle_that_would_run_something_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": Path("of somebody")}, tmp_path / "evil.pt")
    assert convert_weights.main(["hpsv2", str(tmp_path / "evil.pt"), str(tmp_path / "out")]) == 2
    assert "cannot be read as tensors alone" in capsys.readouterr().err
    (tmp_path / "cut.pt").write_bytes((tmp_path / "evil.pt").read_bytes()[:50])
    assert convert_weights.main(["image-reward", str(tmp_path / "cut.pt"), str(tmp_path / "out")]) == 2
    assert not (tmp_path / "out").exists()


def test_a_folder_with_a_pickle_in_it_is_refused_and_the_hint_says_how_to_convert_it(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "ImageReward.pt")
    (tmp_path / "config.json").write_text("{}")
    for name in ("image-reward", "hpsv2"):
        with pytest.raises(InputError) as caught:
            local(name, tmp_path)
        assert str(tmp_path) in caught.value.message
    with pytest.raises(InputError, match="no converted ImageReward"):
        local("image-reward", tmp_path)


@pytest.mark.parametrize(
    "broken", ["[]", '{"model_type": "image-reward"}', '{"model_type": "image-reward", "vision": 3}']
)
def test_a_damaged_configuration_is_one_error(converted: Path, tmp_path: Path, broken: str) -> None:
    (tmp_path / "model.safetensors").write_bytes((converted / "out" / "model.safetensors").read_bytes())
    (tmp_path / "config.json").write_text(broken)
    with pytest.raises(InputError):
        local("image-reward", tmp_path)


# ------------------------------------------------------------------------------------------------- stand-in and checks
def test_the_stand_in_scores_contrast_and_words_and_says_what_it_is() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (20, 20), "gray").save(buffer, "png")
    flat, halves = {"bytes": buffer.getvalue(), "path": None}, Image.new("L", (16, 16))
    halves.paste(255, (8, 0, 16, 16))
    halves.save(buffer := io.BytesIO(), "png")
    given = rows(
        {"text": "boat", "image": flat},
        {"text": "boat boat", "image": flat},
        {"text": "one two three four five six seven eight nine ten eleven twelve", "image": flat},
        {"text": "boat", "image": {"bytes": buffer.getvalue(), "path": None}},
        {"messages": talk("What is it?", "a boat"), "image": flat},
        {"text": "boat", "image": {"bytes": b"broken", "path": None}},
    )
    scorer = local("stand-in")
    batch = rewards.scored(scorer, 2)(given).batch
    expected = [1 + 2 / 12, 1 + 2 / 12, 3, 3 + 2 / 12, 1 + 4 / 12, None]
    assert batch.column("reward").to_pylist() == [None if x is None else pytest.approx(x) for x in expected]
    assert batch.equals(rewards.scored(scorer, 2)(given).batch)
    assert scorer.model.synthetic
    assert "synthetic" in scorer.model.title


def test_an_empty_batch_stays_empty() -> None:
    for scorer in (local("stand-in"), rewards.Scorer(rewards.MODELS["clip"], lambda seen: [])):
        outcome = rewards.scored(scorer, 3)(rows())
        assert (outcome.batch.num_rows, len(outcome.kept), len(outcome.why)) == (0, 0, 0)


@pytest.mark.parametrize(
    ("settings", "message", "hint"),
    [
        ({"model": "hpsv3"}, "filter  reward.model: unknown model 'hpsv3'; did you mean 'hpsv2'?", None),
        ({"model": "hpsv2"}, "filter  reward.id: HPSv2 is published as a pickle", "convert_weights.py hpsv2 HPS_v2.1"),
        ({"model": "image-reward"}, "filter  reward.id: ImageReward is published", "convert_weights.py image-reward"),
        ({"model": "clip", "endpoint": "http://localhost/v1"}, "filter  reward.endpoint: clip gives", "remove"),
    ],
)
def test_settings_that_cannot_work_are_told_at_once(settings: dict[str, str], message: str, hint: str | None) -> None:
    with pytest.raises(ConfigError) as caught:
        rewards.scorer(Reward(**settings), families)
    assert caught.value.message.startswith(message)
    assert (hint or "") in (caught.value.hint or "")


def test_an_endpoint_needs_no_id_and_is_asked_for_the_served_name(server: EndpointServer) -> None:
    scorer = rewards.scorer(Reward(model="unified-reward", endpoint=server.url), families)
    with pytest.raises(HubError, match="'UnifiedReward'"):
        rewards.scored(scorer)(captions("a boat"))


# ---------------------------------------------------------------------------------------------------------- calibration
FINITE = st.lists(st.floats(-1e9, 1e9, width=32), min_size=1, max_size=50).map(np.array)


@given(FINITE)
def test_calibrated_scores_are_from_one_to_five_and_keep_order_and_ties(raw: np.ndarray) -> None:
    found = rewards.calibrated(raw)
    assert found.shape == raw.shape
    assert ((found >= 1) & (found <= 5)).all()
    assert np.array_equal(np.sign(found[:, None] - found), np.sign(raw[:, None] - raw))
    assert found.mean() == pytest.approx(3)


@given(FINITE, st.randoms())
def test_calibration_knows_neither_the_scale_nor_the_order_of_the_rows(raw: np.ndarray, random: Any) -> None:
    found = rewards.calibrated(raw)
    assert np.array_equal(
        rewards.calibrated(raw * 4 - 7 if len(np.unique(raw * 4 - 7)) == len(np.unique(raw)) else raw), found
    )
    places = random.sample(range(len(raw)), len(raw))
    assert np.array_equal(rewards.calibrated(raw[places]), found[places])


def test_calibration_in_numbers() -> None:
    assert rewards.calibrated(np.array([0.3, 0.1, 0.2])).tolist() == [5, 1, 3]
    assert rewards.calibrated(np.array([1.0, 1.0, 1.0, 2.0])).tolist() == pytest.approx([1 + 4 / 3] * 3 + [5])
    assert rewards.calibrated(np.array([7.0])).tolist() == [3]
    assert rewards.calibrated(np.array([])).tolist() == []
    assert rewards.calibrated(np.array([0.5] * 7)).tolist() == [3] * 7
    nan, inf = math.nan, math.inf
    assert rewards.calibrated(np.array([inf, 0.0, -inf])).tolist() == [5, 3, 1]
    assert str(rewards.calibrated(np.array([2.0, nan, 1.0])).tolist()) == "[5.0, nan, 1.0]"
    assert str(rewards.calibrated(np.array([nan, 1.0])).tolist()) == "[nan, 3.0]"
    assert np.isnan(rewards.calibrated(np.array([nan, nan]))).all()
