"""Diffusion pipelines: what is encoded once, what is drawn, and the two formats of an adapter. Real classes, tiny."""

import io
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from PIL import Image

from ggez_hub.errors import InputError
from ggez_hub.families import diffusion
from ggez_hub.families.base import Loaded, Query, Row
from ggez_hub.merging import live
from ggez_hub.merging.checkpoints import merge_adapters

TEXTS = ("a red square", "something blue", "a red square", "the green one", "something blue", "a red square")
LONG = "one two three four five six seven eight nine ten"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Stable Diffusion XL."""
    folder = tmp_path_factory.mktemp("xl") / "base"
    diffusion.write_tiny(folder, TEXTS, steps=3)
    return folder


@pytest.fixture(scope="module")
def old(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Stable Diffusion 1: one text encoder, whose output is `""` for no prompt, and another scheduler."""
    from diffusers import PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel

    pipe = diffusion.load(folder).pipeline
    pipe.vae.register_to_config(scaling_factor=0.5)
    torch.manual_seed(1)
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(4, 8),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=2,
        cross_attention_dim=8,
        norm_num_groups=2,
    )
    scheduler = PNDMScheduler(beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1)
    scheduler.register_to_config(_num_inference_steps=3)
    folder = tmp_path_factory.mktemp("old") / "base"
    StableDiffusionPipeline(
        pipe.vae, pipe.text_encoder, pipe.tokenizer, unet, scheduler, None, None, requires_safety_checker=False
    ).save_pretrained(folder)
    return folder


def pictures(count: int = len(TEXTS)) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (48 + 2 * i, 40, 3), dtype=np.uint8)) for i in range(count)]


def rows() -> list[Row]:
    return [{"image": image, "text": text} for image, text in zip(pictures(), TEXTS, strict=True)]


def examples(texts: tuple[str, ...] = TEXTS) -> Dataset:
    """Rows as the filter stage writes them."""
    encoded = []
    for image in pictures(len(texts)):
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        encoded.append({"bytes": buffer.getvalue(), "path": None})
    return Dataset.from_dict({"id": list("abcdefgh"[: len(texts)]), "image": encoded, "text": list(texts)})


def with_lora(folder: Path, **kwargs: Any) -> Loaded:
    """A UNet with a LoRA of some effect, whose scale is not 1."""
    loaded = diffusion.load(folder, **kwargs)
    torch.manual_seed(0)
    config = LoraConfig(r=2, lora_alpha=6, target_modules=diffusion.lora_targets())
    loaded.model = get_peft_model(loaded.model, config)
    for name, parameter in loaded.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return loaded


@pytest.fixture(scope="module")
def adapter(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    adapter = tmp_path_factory.mktemp("adapter")
    diffusion.save_adapter(with_lora(folder), adapter)
    return adapter


def loss(
    loaded: Loaded, given: Any, micro_batch_size: int = 8, share: tuple[int, int] = (0, 1), name: str = "denoise"
) -> float:
    torch.manual_seed(5)
    return sum(float(part().detach()) for part in diffusion.losses(loaded, given, micro_batch_size, name, share))


@pytest.fixture
def dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the prompts are left out."""
    monkeypatch.setattr(diffusion, "PROMPT_DROPOUT", 0.5)


@pytest.fixture
def encoded_rows() -> Iterator[Counter[str]]:
    """How many rows each frozen part has seen."""
    seen: Counter[str] = Counter()

    def hook(module: torch.nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        kind = type(module).__name__
        if kind in ("Encoder", "CLIPTextEmbeddings"):
            seen[kind] += len((*args, *kwargs.values())[0])

    handle = torch.nn.modules.module.register_module_forward_hook(hook, with_kwargs=True)
    yield seen
    handle.remove()


# ------------------------------------------------------------------------------------------------------------- encoding
@pytest.mark.usefixtures("dropped")
@pytest.mark.parametrize("kind", ["folder", "old"])
@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_encoded_rows_give_the_loss_of_pictures_and_texts(
    kind: str, batch_size: int, request: pytest.FixtureRequest
) -> None:
    loaded = diffusion.load(request.getfixturevalue(kind))
    prepared, counts = diffusion.prepare(loaded, examples(), "denoise", batch_size, None)
    assert counts == {}
    assert "image" not in prepared.column_names
    assert loss(loaded, prepared.to_list()) == pytest.approx(loss(loaded, rows()), rel=1e-5)
    assert loss(loaded, prepared.to_list()) != pytest.approx(loss(loaded, prepared.to_list()[::-1]), rel=1e-5)


def test_every_picture_and_text_is_encoded_once_and_never_in_a_step(folder: Path, encoded_rows: Counter[str]) -> None:
    loaded = diffusion.load(folder)
    prepared, _ = diffusion.prepare(loaded, examples(), "denoise", 2, None)
    texts = len(set(TEXTS)) + 1  # and the empty one
    assert encoded_rows == {"Encoder": len(TEXTS), "CLIPTextEmbeddings": 2 * texts}  # SDXL has two encoders
    encoded_rows.clear()
    loss(loaded, prepared.to_list())
    assert not encoded_rows


def test_run_that_goes_on_reads_what_was_encoded(folder: Path, tmp_path: Path, encoded_rows: Counter[str]) -> None:
    examples((*TEXTS, LONG)).to_parquet(tmp_path / "examples.parquet")

    def prepare(loaded: Loaded) -> tuple[Any, dict[str, int]]:
        given = Dataset.from_parquet(str(tmp_path / "examples.parquet"), cache_dir=str(tmp_path / "rows"))
        prepared, counts = diffusion.prepare(loaded, given, "denoise", 2, None)
        return prepared.to_list(), counts

    first = prepare(diffusion.load(folder))
    encoded_rows.clear()
    loaded = diffusion.load(folder)
    assert prepare(loaded) == first
    assert encoded_rows == {"CLIPTextEmbeddings": 2}  # the empty text
    with torch.no_grad():
        loaded.pipeline.vae.encoder.conv_in.weight.mul_(2)
    assert prepare(loaded)[0] != first[0], "a VAE that has learned encodes anew"


def test_texts_that_are_too_long_are_cut_and_counted(folder: Path) -> None:
    loaded = diffusion.load(folder)
    texts = (*TEXTS[:2], LONG, LONG + " and more")
    prepared, counts = diffusion.prepare(loaded, examples(texts), "denoise", 8, None)
    assert counts == {"texts cut at 16 tokens": 2}
    assert prepared["text"][2] == prepared["text"][3] != prepared["text"][0]


def test_reconstruct_sees_the_rows_as_they_are_and_trains_the_vae(folder: Path) -> None:
    loaded, given = diffusion.load(folder), examples()
    assert diffusion.prepare(loaded, given, "reconstruct", 8, None) == (given, {})
    vae = diffusion.network(loaded, "reconstruct")
    assert vae is loaded.pipeline.vae
    whole = loss(loaded, rows(), name="reconstruct")
    assert loss(loaded, rows(), 4, name="reconstruct") == pytest.approx(whole, rel=1e-5)
    vae.requires_grad_(True)
    diffusion.losses(loaded, rows(), 8, "reconstruct")[0]().backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in vae.parameters())


def test_sdxl_is_told_sizes_and_what_was_cut_off(folder: Path) -> None:
    wide, tall, small = Image.new("RGB", (96, 48)), Image.new("RGB", (32, 96)), Image.new("RGB", (8, 16))
    pipe = diffusion.load(folder).pipeline
    wide.paste("red", (24, 0, 72, 48))
    assert diffusion._pixels(pipe, [wide])[:, 0].min() > 0.8  # the middle is what is left
    found = [diffusion._time_ids(pipe, image) for image in (wide, tall, small)]
    assert found == [[32, 64, 0, 16, 32, 32], [96, 32, 32, 0, 32, 32], [16, 8, 16, 0, 32, 32]]


@pytest.mark.parametrize("size", [(1, 1), (1, 20_000), (20_000, 1), (20_000, 3_000), (33, 31)])
def test_pictures_of_any_shape_train(folder: Path, size: tuple[int, int]) -> None:
    given = [{"image": Image.new("RGB", size, "red"), "text": "a red square"}]
    for name in diffusion.LOSSES:
        assert np.isfinite(loss(diffusion.load(folder), given, name=name))


# ------------------------------------------------------------------------------------------------------------- training
@pytest.mark.usefixtures("dropped")
@pytest.mark.parametrize("name", diffusion.LOSSES)
@pytest.mark.parametrize(("processes", "micro_batch_size"), [(2, 2), (4, 1), (4, 8), (9, 2)])
def test_shares_sum_to_the_whole_and_have_as_many_parts(
    folder: Path, processes: int, micro_batch_size: int, name: str
) -> None:
    loaded = diffusion.load(folder)
    whole = loss(loaded, rows(), name=name)
    shares = [(i, processes) for i in range(processes)]
    assert sum(loss(loaded, rows(), micro_batch_size, share, name) for share in shares) == pytest.approx(whole, 1e-5)
    assert len({len(diffusion.losses(loaded, rows(), micro_batch_size, name, share)) for share in shares}) == 1


@pytest.mark.parametrize("kind", ["folder", "old"])
def test_loss_is_what_diffusers_own_parts_make_of_it(kind: str, request: pytest.FixtureRequest) -> None:
    from diffusers import DDPMScheduler

    loaded = diffusion.load(request.getfixturevalue(kind))
    pipe, texts = loaded.pipeline, [row["text"] for row in rows()]
    ours = loss(loaded, rows())
    torch.manual_seed(5)
    (draws, noise), times = torch.randn(2, len(texts), 4, 8, 8), torch.randint(1000, (len(texts),))
    dropped = torch.rand(len(texts)) < 0.1
    assert 0 < dropped.sum() < len(texts)
    peer = DDPMScheduler.from_config(pipe.scheduler.config)
    sides = [], []  # type: ignore[var-annotated]
    with torch.no_grad():
        latents = pipe.vae.encode(diffusion._pixels(pipe, pictures())).latent_dist
        clean = (latents.mean + latents.std * draws) * pipe.vae.config.scaling_factor
        for text, drop in zip(texts, dropped, strict=True):
            found = pipe.encode_prompt(text, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=True)
            for side, values in zip(sides, (found[int(drop)], found[-2 + int(drop)]), strict=True):
                side.append(values)
        is_v = peer.config.prediction_type == "v_prediction"
        target = peer.get_velocity(clean, noise, times) if is_v else noise
        time_ids = torch.tensor([diffusion._time_ids(pipe, image) for image in pictures()])
        added = {"text_embeds": torch.cat(sides[1]), "time_ids": time_ids} if kind == "folder" else None
        found = pipe.unet(peer.add_noise(clean, noise, times), times, torch.cat(sides[0]), added_cond_kwargs=added)
    assert ours == pytest.approx(float(torch.nn.functional.mse_loss(found.sample, target)), rel=1e-5)


@pytest.mark.parametrize("prediction", diffusion.TARGETS)
def test_target_is_what_diffusers_scheduler_says(folder: Path, prediction: str) -> None:
    from diffusers import DDPMScheduler

    pipe = diffusion.load(folder).pipeline
    pipe.scheduler.register_to_config(prediction_type=prediction)
    peer = DDPMScheduler.from_config(pipe.scheduler.config)
    clean, noise, times = torch.randn(3, 4, 8, 8), torch.randn(3, 4, 8, 8), torch.tensor([0, 500, 999])
    alphas = diffusion._alphas(pipe)[times].view(-1, 1, 1, 1)
    signal, strength = alphas.sqrt(), (1 - alphas).sqrt()
    expected = {"epsilon": noise, "v_prediction": peer.get_velocity(clean, noise, times), "sample": clean}[prediction]
    torch.testing.assert_close(diffusion.TARGETS[prediction](clean, noise, signal, strength), expected)
    torch.testing.assert_close(signal * clean + strength * noise, peer.add_noise(clean, noise, times))


def test_scheduler_without_noise_levels_cannot_train(folder: Path) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    loaded = diffusion.load(folder)
    loaded.pipeline.scheduler = FlowMatchEulerDiscreteScheduler()
    with pytest.raises(InputError, match="FlowMatchEulerDiscreteScheduler"):
        diffusion.losses(loaded, rows(), 8, "denoise")


def test_recomputed_activations_change_nothing(folder: Path) -> None:
    loaded = with_lora(folder)
    loaded.model.train()

    def gradients() -> list[torch.Tensor]:
        loaded.model.zero_grad()
        torch.manual_seed(0)
        diffusion.losses(loaded, rows(), 8, "denoise")[0]().backward()  # type: ignore[no-untyped-call]
        return [p.grad.clone() for p in loaded.model.parameters() if p.grad is not None]

    plain = gradients()
    diffusion.network(loaded, "denoise").enable_gradient_checkpointing()
    assert loaded.pipeline.unet.is_gradient_checkpointing
    for ours, expected in zip(gradients(), plain, strict=True):
        torch.testing.assert_close(ours, expected)


def test_bfloat16_unet_trains_with_a_loss_in_float32(folder: Path) -> None:
    exact = loss(with_lora(folder), rows())
    loaded = with_lora(folder, dtype=torch.bfloat16)
    assert loaded.pipeline.unet.dtype == loaded.pipeline.text_encoder.dtype == torch.bfloat16
    prepared, _ = diffusion.prepare(loaded, examples(), "denoise", 8, None)
    for given in (rows(), prepared.to_list()):
        (part,) = diffusion.losses(loaded, given, 8, "denoise")
        found = part()
        found.backward()  # type: ignore[no-untyped-call]
        assert found.dtype == torch.float32
        assert loss(loaded, given) == pytest.approx(exact, rel=0.03)
    assert all(p.grad is not None for p in loaded.model.parameters() if p.dtype == torch.float32)


# -------------------------------------------------------------------------------------------------------------- folders
def test_vae_that_overflows_in_half_precision_stays_in_float32(folder: Path, tmp_path: Path) -> None:
    assert diffusion.load(folder, dtype=torch.bfloat16).pipeline.vae.dtype == torch.bfloat16
    shutil.copytree(folder, tmp_path / "base")
    config = tmp_path / "base" / "vae" / "config.json"
    config.write_text(config.read_text().replace('"force_upcast": false', '"force_upcast": true'))
    loaded = diffusion.load(tmp_path / "base", dtype=torch.bfloat16)
    assert loaded.pipeline.vae.dtype == torch.float32
    assert diffusion.predict(loaded, [Query(prompt="a red square")], 8)[0].std() > 0


def test_adapter_loads_with_peft_and_with_diffusers(folder: Path, adapter: Path) -> None:
    assert sorted(path.name for path in adapter.iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors", "pytorch_lora_weights.safetensors",
    ]  # fmt: skip
    torch.manual_seed(0)
    inputs: dict[str, Any] = {
        "sample": torch.randn(2, 4, 8, 8),
        "timestep": 500,
        "encoder_hidden_states": torch.randn(2, 16, 16),
        "added_cond_kwargs": {"text_embeds": torch.randn(2, 8), "time_ids": torch.full((2, 6), 32)},
    }
    base, plain = diffusion.load(folder).model, diffusion.load(folder).pipeline
    peft = PeftModel.from_pretrained(diffusion.load(folder).model, str(adapter))
    plain.load_lora_weights(str(adapter), adapter_name="regional")
    assert plain.get_active_adapters() == ["regional"]
    with torch.no_grad():
        trained, one, other, without = (m(**inputs).sample for m in (with_lora(folder).model, peft, plain.unet, base))
    torch.testing.assert_close(one, trained, rtol=0, atol=1e-5)
    torch.testing.assert_close(other, trained, rtol=0, atol=1e-5)
    assert (trained - without).abs().max() > 1e-2


@pytest.mark.parametrize("kind", ["folder", "old"])
def test_saved_pipeline_draws_the_same_and_names_no_path(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    loaded = diffusion.load(request.getfixturevalue(kind))
    diffusion.save(loaded, tmp_path / "saved")
    queries = [Query(prompt=text) for text in TEXTS]
    again = diffusion.predict(diffusion.load(tmp_path / "saved"), queries, 8)
    np.testing.assert_array_equal(again, diffusion.predict(loaded, queries, 8))
    assert not [p for p in (tmp_path / "saved").rglob("*.json") if str(loaded.folder) in p.read_text()]


def test_tiny_base_may_start_from_a_trained_vae(folder: Path, tmp_path: Path) -> None:
    diffusion.write_tiny(tmp_path / "base", TEXTS, 7, {"vae": folder})
    weights = "diffusion_pytorch_model.safetensors"
    assert (tmp_path / "base" / "vae" / weights).read_bytes() == (folder / "vae" / weights).read_bytes()
    assert (tmp_path / "base" / "unet" / weights).read_bytes() != (folder / "unet" / weights).read_bytes()
    assert str(folder) not in (tmp_path / "base" / "vae" / "config.json").read_text()
    with pytest.raises(InputError, match="unet"):
        diffusion.write_tiny(tmp_path / "other", TEXTS, 7, {"unet": folder})


def test_any_text_has_tokens_and_its_end_is_found(folder: Path) -> None:
    pipe = diffusion.load(folder).pipeline
    for text in ("", "đŷ 漢字 🙂", "never seen before"):
        ids = pipe.tokenizer(text)["input_ids"]
        assert ids.count(pipe.tokenizer.eos_token_id) == 1
        assert ids[-1] == pipe.text_encoder.config.eos_token_id == len(pipe.tokenizer) - 1
    assert len(pipe.tokenizer("red")["input_ids"]) == 3  # a word that the texts have is one token
    pooled = diffusion._texts(pipe, ["a red square", "something blue"])[1]
    assert (pooled[0] - pooled[1]).abs().max() > 0.5


def test_other_pipelines_are_refused_by_name(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    with pytest.raises(InputError, match="FluxPipeline") as caught:
        diffusion.load(tmp_path)
    assert "StableDiffusionXLPipeline" in str(caught.value)
    for nothing in (tmp_path / "empty", folder / "unet"):
        with pytest.raises(InputError, match="no diffusers pipeline"):
            diffusion.load(nothing)


@pytest.mark.parametrize("part", ["unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"])
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_damaged_pipeline_is_named(folder: Path, tmp_path: Path, part: str, damage: str) -> None:
    shutil.copytree(folder, tmp_path / "base")
    file = tmp_path / "base" / part
    data = file.read_bytes()
    file.unlink()
    if damage == "cut":
        file.write_bytes(data[:1000])
    with pytest.raises(InputError, match=str(tmp_path / "base")):
        diffusion.load(tmp_path / "base")


# -------------------------------------------------------------------------------------------------------------- drawing
def queries() -> list[Query]:
    return [Query(prompt=text, seed=seed) for text, seed in zip(TEXTS, (0, 0, 1, 1, 2, 0), strict=True)]


def difference(ours: Any, theirs: Any) -> int:
    """Of pixels, at most."""
    return int(np.abs(np.asarray(ours).astype(int) - np.asarray(theirs).astype(int)).max())


def test_same_seed_draws_the_same_picture_and_another_another(folder: Path) -> None:
    drawn = diffusion.predict(diffusion.load(folder), queries(), 8)
    assert [(d.dtype, d.shape) for d in drawn] == [(np.uint8, (1, 32, 32, 3))] * len(TEXTS)
    assert difference(drawn[0], drawn[5]) <= 1  # the same prompt and seed
    assert difference(drawn[0], drawn[2]) > 20  # another seed
    assert difference(drawn[0], drawn[1]) > 5  # another prompt


@pytest.mark.parametrize("kind", ["folder", "old"])
@pytest.mark.parametrize("batch_size", [1, 4, 5])
def test_drawings_do_not_depend_on_the_batch_size(kind: str, batch_size: int, request: pytest.FixtureRequest) -> None:
    loaded = diffusion.load(request.getfixturevalue(kind))
    assert difference(diffusion.predict(loaded, queries(), batch_size), diffusion.predict(loaded, queries(), 64)) <= 1


@pytest.mark.parametrize(
    ("kind", "scheduler", "guidance"),
    [("folder", "DDIMScheduler", 3.0), ("folder", "DDIMScheduler", 1.0), ("folder", "EulerDiscreteScheduler", 3.0),
     ("folder", "EulerAncestralDiscreteScheduler", 3.0), ("folder", "DPMSolverMultistepScheduler", 3.0),
     ("old", "PNDMScheduler", 3.0), ("old", "DDIMScheduler", 3.0), ("old", "DDIMScheduler", 1.0)],
)  # fmt: skip
def test_drawings_are_those_of_the_pipeline_itself(
    kind: str, scheduler: str, guidance: float, request: pytest.FixtureRequest
) -> None:
    import diffusers

    loaded = diffusion.load(request.getfixturevalue(kind))
    pipe = loaded.pipeline
    config = {**pipe.scheduler.config, "skip_prk_steps": True, "_guidance_scale": guidance}
    pipe.scheduler = getattr(diffusers, scheduler).from_config(config)
    ours = diffusion.predict(loaded, queries(), 4)
    theirs = pipe(
        prompt=[query.prompt for query in queries()],
        generator=[torch.Generator().manual_seed(query.seed) for query in queries()],
        num_inference_steps=3,
        guidance_scale=guidance,
        output_type="np",
    ).images
    assert difference(np.concatenate(ours), (theirs * 255).round()) <= 2


@pytest.mark.parametrize(
    ("kind", "scheduler"), [("folder", None), ("folder", "EulerAncestralDiscreteScheduler"), ("old", None)]
)
def test_one_batch_at_several_alphas_draws_what_a_pass_for_each_draws(
    kind: str, scheduler: str | None, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    import diffusers

    folder = request.getfixturevalue(kind)
    diffusion.save_adapter(with_lora(folder), tmp_path / "adapter")
    loaded, base = diffusion.load(folder), diffusion.load(folder)
    if scheduler:
        for one in (loaded, base):
            one.pipeline.scheduler = getattr(diffusers, scheduler).from_config(one.pipeline.scheduler.config)
    loaded.model, dial = live.attach_adapter(loaded.model, tmp_path / "adapter", "regional")
    alphas, asked = [0.0, 1.0, 0.3], queries()[1:4]
    with live.blocks({"regional": alphas}):
        together = np.stack(diffusion.predict(loaded, asked, 6, len(alphas)), axis=1)  # [alphas, queries, ...]
    for drawn, alpha in zip(together, alphas, strict=True):
        dial(alpha)
        assert difference(drawn, np.concatenate(diffusion.predict(loaded, asked, 16))) <= 1
    assert difference(together[0], np.concatenate(diffusion.predict(base, asked, 16))) <= 1
    assert difference(together[0], together[1]) > 10


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_merged_pipeline_draws_what_the_adapter_draws_at_alpha(
    folder: Path, adapter: Path, tmp_path: Path, alpha: float
) -> None:
    merged = merge_adapters(folder, {adapter: alpha}, tmp_path / "merged")
    assert merged.changed == (32 if alpha else 0)
    loaded = diffusion.load(folder)
    loaded.model, dial = live.attach_adapter(loaded.model, adapter, "regional")
    dial(alpha)
    whole = diffusion.load(tmp_path / "merged")
    assert difference(diffusion.predict(whole, queries(), 8), diffusion.predict(loaded, queries(), 8)) <= 1


def test_each_prompt_is_encoded_once(folder: Path, encoded_rows: Counter[str]) -> None:
    diffusion.predict(diffusion.load(folder), queries(), 3, 2)
    assert encoded_rows["CLIPTextEmbeddings"] == 2 * (len(set(TEXTS)) + 1)  # two encoders; and the empty one


def test_steps_and_guidance_travel_with_the_model(folder: Path, tmp_path: Path) -> None:
    diffusion.write_tiny(tmp_path / "base", TEXTS, steps=2, guidance=1)
    loaded = diffusion.load(tmp_path / "base")
    calls: Counter[int] = Counter()
    loaded.model.register_forward_hook(lambda module, args, output: calls.update([len(args[0])]))
    diffusion.predict(loaded, queries(), 8)
    assert calls == {len(TEXTS): 2}  # without guidance no row is doubled


def test_queries_that_cannot_be_drawn_are_refused(folder: Path) -> None:
    loaded = diffusion.load(folder)
    assert diffusion.predict(loaded, [], 8) == []
    with pytest.raises(InputError, match="options"):
        diffusion.predict(loaded, [Query(prompt="a red square", options=["yes", "no"])], 8)
    with pytest.raises(InputError, match="prompt"):
        diffusion.predict(loaded, [Query(pictures()[0])], 8)
    cut, longer = diffusion.predict(loaded, [Query(prompt=LONG), Query(prompt=f"{LONG} and more")], 8)
    np.testing.assert_array_equal(cut, longer)  # cut off, as the pipeline does
