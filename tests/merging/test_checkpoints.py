"""Merging files: exact at both ends, rounded once in between, all or nothing, and no damaged file gets through."""

import json
import math
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from ggez_hub.errors import InputError
from ggez_hub.families import embedding
from ggez_hub.merging import checkpoints
from ggez_hub.merging.checkpoints import merge_full

FLOATS = (torch.float32, torch.bfloat16, torch.float16)
LAYER = "text_model.encoder.layers.0.mlp.fc1"  # [64, 32] in tiny_base

alphas = st.floats(0, 1) | st.sampled_from([0.0, 0.25, 0.5, 1.0])
Tensors = dict[str, torch.Tensor]


def merge_adapter(base: Path, adapter: Path, alpha: float, out: Path) -> None:
    checkpoints.merge_adapter(base, adapter, alpha, out, embedding.tensor_name)


def checkpoint(folder: Path, tensors: Tensors) -> Path:
    folder.mkdir(parents=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def adapter_of(folder: Path, tensors: Tensors, **config: Any) -> Path:
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", **config}))
    return folder


def edited(adapter: Path, folder: Path, change: Callable[[Tensors], object] = len, **config: Any) -> Path:
    """A copy of an adapter with other tensors, or another configuration."""
    shutil.copytree(adapter, folder)
    tensors = load_file(folder / "adapter_model.safetensors")
    change(tensors)
    save_file(tensors, folder / "adapter_model.safetensors")
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()


def normal(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape)).to(dtype)


# ------------------------------------------------------------------------------------------------------- base + adapter
def test_adapter_at_alpha_0_gives_the_files_of_the_base(tiny_base: Path, tiny_adapter: Path, tmp_path: Path) -> None:
    merge_adapter(tiny_base, tiny_adapter, 0, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tiny_base)


def test_adapter_at_alpha_1_equals_merging_with_peft(tiny_base: Path, tiny_adapter: Path, tmp_path: Path) -> None:
    merge_adapter(tiny_base, tiny_adapter, 1, tmp_path / "out")
    ours, base = (load_file(folder / "model.safetensors") for folder in (tmp_path / "out", tiny_base))
    theirs = PeftModel.from_pretrained(embedding.load(tiny_base).model, tiny_adapter).merge_and_unload().state_dict()
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=1e-6)
    changed = {name for name in ours if not torch.equal(ours[name], base[name])}
    assert len(changed) == 2 * 2 * 6, "two towers of two layers with six linear maps each"


@settings(max_examples=60)
@given(
    shape=st.tuples(st.integers(1, 5), st.integers(1, 5))
    | st.tuples(st.integers(1, 3), st.integers(1, 3), st.just(3), st.integers(1, 2)),
    dtype=st.sampled_from(FLOATS),
    alpha=alphas,
    r=st.integers(1, 3),
    lora_alpha=st.integers(1, 9),
    use_rslora=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_adapter_is_added_in_fp32_and_rounded_once(
    tmp_path_factory: pytest.TempPathFactory,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    alpha: float,
    r: int,
    lora_alpha: int,
    use_rslora: bool,
    seed: int,
) -> None:
    weight, other = normal(shape, dtype, seed), normal((3,), dtype, seed + 1)
    weight[0] = -0.0  # adding nothing to it makes another bit pattern
    rng = np.random.default_rng(seed)
    up = rng.integers(-9, 10, (shape[0], r)).astype("f4")  # whole numbers, so that their product is exact in any order
    down = rng.integers(-9, 10, (r, math.prod(shape[1:]))).astype("f4")
    folder = tmp_path_factory.mktemp("merge")
    base = checkpoint(folder / "base", {"layer.weight": weight, "layer.bias": other})
    name = "base_model.model.layer.lora_{}.weight"
    tensors = {
        name.format("A"): torch.from_numpy(down).reshape(r, *shape[1:]),
        name.format("B"): torch.from_numpy(up).reshape(shape[0], r, *[1] * (len(shape) - 2)),
    }
    adapter = adapter_of(folder / "adapter", tensors, r=r, lora_alpha=lora_alpha, use_rslora=use_rslora)

    merge_adapter(base, adapter, alpha, folder / "out")

    scale = np.float32(alpha * lora_alpha / (math.sqrt(r) if use_rslora else r))
    exact = weight.float().numpy() + scale * (up @ down).reshape(shape)
    merged = load_file(folder / "out" / "model.safetensors")
    if alpha == 0:
        assert bits(merged["layer.weight"]) == bits(weight)
    else:  # adding 0.0 makes one zero of the two: its sign depends on how a library adds up zeros
        assert bits(merged["layer.weight"] + 0.0) == bits(torch.from_numpy(exact).to(dtype) + 0.0)
    assert bits(merged["layer.bias"]) == bits(other)


def test_sharded_base_keeps_its_shards_and_its_index(tiny_base: Path, tiny_adapter: Path, tmp_path: Path) -> None:
    embedding.load(tiny_base).model.save_pretrained(tmp_path / "sharded", max_shard_size="100KB")
    index = json.loads((tmp_path / "sharded" / "model.safetensors.index.json").read_text())
    merge_adapter(tmp_path / "sharded", tiny_adapter, 0.5, tmp_path / "out")
    merge_adapter(tiny_base, tiny_adapter, 0.5, tmp_path / "single")
    assert contents(tmp_path / "out").keys() == contents(tmp_path / "sharded").keys()
    assert json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text()) == index
    shards = {file: load_file(tmp_path / "out" / file) for file in set(index["weight_map"].values())}
    assert len(shards) > 1
    whole = load_file(tmp_path / "single" / "model.safetensors")
    assert index["weight_map"].keys() == whole.keys()
    for name, file in index["weight_map"].items():
        assert torch.equal(shards[file][name], whole[name])


def test_settings_and_tokenizer_come_along_and_pickles_and_code_do_not(
    tiny_base: Path, tiny_adapter: Path, tmp_path: Path
) -> None:
    base = shutil.copytree(tiny_base, tmp_path / "base")
    for name in ("pytorch_model.bin", "optimizer.pt", "weights.pkl", "model.ckpt", "modeling.py", "README.md"):
        (base / name).write_text("not this one")
    for name in ("chat_template.jinja", "merges.txt", "spiece.model"):
        (base / name).write_text(f"the very bytes of {name}")
    merge_adapter(base, tiny_adapter, 0.5, tmp_path / "out")
    made = contents(tmp_path / "out")
    assert made.keys() == contents(tiny_base).keys() | {"chat_template.jinja", "merges.txt", "spiece.model"}
    assert all(made[name] == (base / name).read_bytes() for name in made if name != "model.safetensors")


@pytest.mark.parametrize("alpha", [-0.1, 1.1, math.nan])
def test_alpha_outside_0_and_1_is_refused(tiny_base: Path, tiny_adapter: Path, tmp_path: Path, alpha: float) -> None:
    with pytest.raises(InputError, match="alpha"):
        merge_adapter(tiny_base, tiny_adapter, alpha, tmp_path / "out")
    with pytest.raises(InputError, match="alpha"):
        merge_full(tiny_base, tiny_base, alpha, tmp_path / "out")


# -------------------------------------------------------------------------------------------- adapters that are refused
def key(part: str) -> str:
    return f"base_model.model.{LAYER}.lora_{part}.weight"


def transposed(tensors: Tensors) -> None:
    """As many numbers as the base's layer has, in the other order."""
    tensors |= {key("A"): torch.ones(4, 64), key("B"): torch.ones(32, 4)}


def other_rank(tensors: Tensors) -> None:
    tensors |= {key("A"): torch.ones(2, 32), key("B"): torch.ones(64, 2)}


def unequal_ranks(tensors: Tensors) -> None:
    tensors |= {key("A"): torch.ones(4, 32), key("B"): torch.ones(64, 3)}


def unknown_layer(tensors: Tensors) -> None:
    for part in "AB":
        tensors[key(part).replace("layers.0", "layers.7")] = tensors[key(part)].clone()


def with_bias(tensors: Tensors) -> None:
    tensors[f"base_model.model.{LAYER}.lora_B.bias"] = torch.ones(64)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (transposed, LAYER),
        (other_rank, LAYER),
        (unequal_ranks, LAYER),
        (unknown_layer, r"layers\.7\.mlp\.fc1"),
        (with_bias, r"lora_B\.bias"),
        (lambda tensors: tensors.pop(key("A")), r"lora_B"),
        (lambda tensors: tensors.pop(key("B")), r"lora_B"),
    ],
)
def test_adapter_tensors_that_do_not_fit_are_named(
    tiny_base: Path, tiny_adapter: Path, tmp_path: Path, change: Callable[[Tensors], object], named: str
) -> None:
    adapter = edited(tiny_adapter, tmp_path / "adapter", change)
    with pytest.raises(InputError, match=named) as caught:
        merge_adapter(tiny_base, adapter, 0.5, tmp_path / "out")
    assert str(adapter) in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"modules_to_save": ["head"]}, "modules_to_save"),
        ({"bias": "lora_only"}, "bias"),
        ({"target_modules": ["fc1", "fc2"], "rank_pattern": {"fc1": 2}}, "rank_pattern"),
        ({"target_modules": ["fc1", "fc2"], "alpha_pattern": {"fc1": 2}}, "alpha_pattern"),
    ],
)
def test_adapters_that_are_more_than_a_plain_lora_are_refused(
    tiny_base: Path, tmp_path: Path, config: dict[str, Any], named: str
) -> None:
    lora = LoraConfig(**({"r": 2, "target_modules": embedding.lora_targets()} | config))
    model = get_peft_model(embedding.load(tiny_base).model, lora)
    model.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    with pytest.raises(InputError, match=f"not a plain LoRA.*{named}"):
        merge_adapter(tiny_base, tmp_path / "adapter", 0.5, tmp_path / "out")


@pytest.mark.parametrize("config", [{"r": 0}, {"r": "4"}, {"r": None}, {"lora_alpha": None}, {"peft_type": "LOHA"}])
def test_adapter_configurations_without_meaning_are_refused(
    tiny_base: Path, tiny_adapter: Path, tmp_path: Path, config: dict[str, Any]
) -> None:
    adapter = edited(tiny_adapter, tmp_path / "adapter", **config)
    with pytest.raises(InputError, match="adapter"):
        merge_adapter(tiny_base, adapter, 0.5, tmp_path / "out")


@pytest.mark.parametrize("text", [None, "", "{", "[]", "3"])
def test_adapter_without_a_readable_configuration_is_refused(
    tiny_base: Path, tiny_adapter: Path, tmp_path: Path, text: str | None
) -> None:
    adapter = edited(tiny_adapter, tmp_path / "adapter")
    (adapter / "adapter_config.json").unlink()
    if text is not None:
        (adapter / "adapter_config.json").write_text(text)
    with pytest.raises(InputError, match="adapter"):
        merge_adapter(tiny_base, adapter, 0.5, tmp_path / "out")


# ------------------------------------------------------------------------------------------------- two full checkpoints
@settings(max_examples=60)
@given(
    shapes=st.lists(st.lists(st.integers(0, 4), max_size=3), min_size=1, max_size=4),
    dtypes=st.lists(st.sampled_from(FLOATS), min_size=4, max_size=4),
    alpha=alphas,
    seed=st.integers(0, 2**31),
)
def test_checkpoints_are_interpolated_to_the_last_digit(
    tmp_path_factory: pytest.TempPathFactory,
    shapes: list[list[int]],
    dtypes: list[torch.dtype],
    alpha: float,
    seed: int,
) -> None:
    folder = tmp_path_factory.mktemp("merge")
    low, high = (
        {f"w{i}": normal(tuple(shape), dtypes[i], seed + i + 100 * side) for i, shape in enumerate(shapes)}
        | {"ids": torch.arange(3), "mask": torch.tensor([True, False])}
        for side in (0, 1)
    )
    base, regional = checkpoint(folder / "base", low), checkpoint(folder / "regional", high)
    for end, expected in ((0, base), (1, regional)):
        merge_full(base, regional, end, folder / f"at{end}")
        assert contents(folder / f"at{end}") == contents(expected)

    merge_full(base, regional, alpha, folder / "out")
    merged = load_file(folder / "out" / "model.safetensors")
    assert merged.keys() == low.keys()
    for name, tensor in merged.items():
        if not tensor.is_floating_point():
            assert torch.equal(tensor, low[name])
            continue
        mixed = torch.lerp(low[name].float(), high[name].float(), alpha).to(tensor.dtype)
        size = low[name].float().abs() + high[name].float().abs()  # the largest number on the way
        ulp = torch.nextafter(size, torch.tensor(torch.inf)) - size
        ulp *= {torch.float32: 1, torch.bfloat16: 2**16, torch.float16: 2**13}[tensor.dtype]
        assert ((tensor.double() - mixed.double()).abs() <= ulp).all()


def test_merged_models_load_and_differ_from_both(tiny_base: Path, tmp_path: Path) -> None:
    embedding.write_tiny(tmp_path / "regional", seed=1)
    merge_full(tiny_base, tmp_path / "regional", 0.5, tmp_path / "out")
    models = [embedding.load(folder).model for folder in (tiny_base, tmp_path / "out", tmp_path / "regional")]
    low, middle, high = (model.text_model.head.weight for model in models)
    torch.testing.assert_close(middle, (low + high) / 2)


ONES = {"w": torch.ones(2, 2), "ids": torch.arange(3)}


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (ONES | {"extra": torch.ones(1)}, "extra"),
        ({"ids": ONES["ids"]}, "w"),
        (ONES | {"w": torch.ones(2, 2, dtype=torch.float16)}, r"w \(F32 \[2, 2\], F16 \[2, 2\]\)"),
        (ONES | {"w": torch.ones(4)}, r"w \(F32 \[2, 2\], F32 \[4\]\)"),
        (ONES | {"ids": torch.arange(3) + 1}, "ids"),
    ],
)
@pytest.mark.parametrize("swap", [False, True])
def test_checkpoints_that_do_not_match_are_refused(tmp_path: Path, other: Tensors, named: str, swap: bool) -> None:
    folders = [checkpoint(tmp_path / "a", ONES), checkpoint(tmp_path / "b", other)]
    if swap:
        folders.reverse()
        named = named.split(" ")[0]
    with pytest.raises(InputError, match=named):
        merge_full(*folders, 0.5, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


# ------------------------------------------------------------------------------------------------------- all or nothing
@pytest.fixture
def breaking(tmp_path: Path) -> tuple[Path, Path]:
    """Two checkpoints that turn out not to fit when most tensors have been merged already."""
    folders = []
    for i in (0, 1):
        folder = checkpoint(tmp_path / "in" / str(i), {f"w{n}": torch.full((8,), float(i)) for n in range(9)})
        save_file({"x_ids": torch.tensor([i])}, folder / "z.safetensors")
        folders.append(folder)
    return folders[0], folders[1]


def test_failure_in_the_middle_leaves_nothing_behind(tmp_path: Path, breaking: tuple[Path, Path]) -> None:
    with pytest.raises(InputError, match="x_ids"):
        merge_full(*breaking, 0.5, tmp_path / "made" / "out")
    assert list((tmp_path / "made").iterdir()) == []


def test_failure_in_the_middle_leaves_an_older_output_as_it_was(tmp_path: Path, breaking: tuple[Path, Path]) -> None:
    out = checkpoint(tmp_path / "made" / "out", {"old": torch.ones(1)})
    before = contents(tmp_path / "made")
    with pytest.raises(InputError, match="x_ids"):
        merge_full(*breaking, 0.5, out)
    assert contents(tmp_path / "made") == before


def test_success_replaces_an_older_output_and_what_a_killed_merge_left(
    tiny_base: Path, tiny_adapter: Path, tmp_path: Path
) -> None:
    for name in ("out", ".out.partial"):
        checkpoint(tmp_path / "made" / name, {"old": torch.ones(1)})
        (tmp_path / "made" / name / "stale.json").write_text("{}")
    merge_adapter(tiny_base, tiny_adapter, 0.5, tmp_path / "made" / "out")
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["out"]
    assert contents(tmp_path / "made" / "out").keys() == contents(tiny_base).keys()


def test_inputs_are_never_written_to(tiny_base: Path, tiny_adapter: Path, tmp_path: Path) -> None:
    before = contents(tiny_base), contents(tiny_adapter)
    merge_adapter(tiny_base, tiny_adapter, 0.5, tmp_path / "out")
    merge_full(tiny_base, tmp_path / "out", 0.5, tmp_path / "out2")
    assert (contents(tiny_base), contents(tiny_adapter)) == before


# -------------------------------------------------------------------------------------------------------- damaged files
def safetensors_bytes(header: Any, data: bytes = bytes(8)) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def header(dtype: Any = "F32", shape: Any = (2,), data_offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"w": {"dtype": dtype, "shape": shape, "data_offsets": data_offsets}}


def refused(folder: Path, content: bytes) -> None:
    """The file is refused, as itself, wherever it is met: as base, as regional checkpoint, as adapter."""
    good = checkpoint(folder / "good", {"w": torch.ones(2)})
    bad = adapter_of(folder / "bad", {}, r=1, lora_alpha=1)
    (bad / "adapter_model.safetensors").write_bytes(content)
    (folder / "bad base").mkdir()
    (folder / "bad base" / "model.safetensors").write_bytes(content)
    for merge, base, other, file in (
        (merge_full, folder / "bad base", good, folder / "bad base" / "model.safetensors"),
        (merge_full, good, folder / "bad base", folder / "bad base" / "model.safetensors"),
        (merge_adapter, good, bad, bad / "adapter_model.safetensors"),
    ):
        with pytest.raises(InputError) as caught:
            merge(base, other, 0.5, folder / "out")
        assert caught.value.message.startswith(f"{file}: ")
        assert not (folder / "out").exists()


WHOLE = safetensors_bytes(header())


@pytest.mark.parametrize(
    "content",
    {
        "empty": b"",
        "shorter than its first number": b"abc",
        "cut in the header": WHOLE[:20],
        "cut in the data": WHOLE[:-1],
        "padded": WHOLE + b"\0",
        "zeros": bytes(100),
        "garbage": b"garbage" * 50,
        "a pickle": b"\x80\x02}q\x00.",
        "not JSON": safetensors_bytes(b"{nonsense"),
        "not UTF-8": safetensors_bytes(b'{"\xff": 1}'),
        "deeply nested": safetensors_bytes(b"[" * 200_000),
        "a list": safetensors_bytes([header()]),
        "no mapping of a tensor": safetensors_bytes({"w": 3}),
        "no dtype": safetensors_bytes({"w": {"shape": [2], "data_offsets": [0, 8]}}),
        "unknown dtype": safetensors_bytes(header(dtype="F7")),
        "dtype is a list": safetensors_bytes(header(dtype=["F32"])),
        "shape too large for its place": safetensors_bytes(header(shape=[3])),
        "shape beyond any memory": safetensors_bytes(header(shape=[2**62, 2**62])),
        "negative shape": safetensors_bytes(header(shape=[-1, -2])),
        "shape of fractions": safetensors_bytes(header(shape=[2.0])),
        "shape of strings": safetensors_bytes(header(shape="2")),
        "shape of nothing": safetensors_bytes(header(shape=[None])),
        "offsets of fractions": safetensors_bytes(header(data_offsets=[0.0, 8.0])),
        "offsets beyond the file": safetensors_bytes(header(data_offsets=[8, 16])),
        "offsets before the data": safetensors_bytes(header(data_offsets=[-8, 0])),
        "offsets backwards": safetensors_bytes(header(data_offsets=[8, 0])),
        "three offsets": safetensors_bytes(header(data_offsets=[0, 4, 8])),
        "overlap": safetensors_bytes(header() | {"v": header()["w"]}),
        "partial overlap": safetensors_bytes(header() | {"v": header(data_offsets=(4, 12))["w"]}, bytes(12)),
        "a gap": safetensors_bytes(header() | {"v": header(data_offsets=(12, 20))["w"]}, bytes(20)),
    }.items(),
    ids=lambda item: item[0],
)
def test_damaged_files_are_refused(tmp_path: Path, content: tuple[str, bytes]) -> None:
    refused(tmp_path, content[1])


@pytest.mark.parametrize("length", [2**63, 99_999_999, 200_000_000])
def test_headers_that_claim_to_be_huge_cost_no_memory(tmp_path: Path, length: int) -> None:
    bad = tmp_path / "bad"
    bad.mkdir()
    with (bad / "model.safetensors").open("wb") as file:
        file.write(length.to_bytes(8, "little"))
        file.truncate(250_000_000 if length == 200_000_000 else 64)  # the large one is there, as a hole on the disk
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="damaged"):
            checkpoints.entries(bad)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


numbers = st.integers(-3, 12) | st.sampled_from([True, None, 4.0, math.inf, math.nan, 2**70, "8", [2]])
anything = st.recursive(
    numbers | st.text(max_size=3), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)
wrong = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["F32", "F16", "BOOL", "I64", "F4", None, 3, [], {}]),
        "shape": st.lists(numbers, max_size=3) | numbers,
        "data_offsets": st.lists(numbers, min_size=1, max_size=3) | numbers,
    },
)
entries = wrong.map(lambda changes: header()["w"] | changes)


def read_or_refusal(folder: Path) -> Tensors | str:
    try:
        return {name: checkpoints.read(entry) for name, entry in checkpoints.entries(folder).items()}
    except InputError as err:
        return str(err)


@settings(max_examples=150)
@given(
    header=st.dictionaries(st.text(max_size=3) | st.just("__metadata__"), entries | wrong, max_size=2) | anything,
    data=st.just(bytes(8)) | st.binary(max_size=16),
)
@example(header=header(shape=[4, 2], dtype="BOOL"), data=b"\1" * 8)
@example(header=header(shape=[2.0]), data=bytes(8))
@example(header=header(dtype=[]), data=bytes(8))
def test_any_header_is_read_right_or_refused(
    tmp_path_factory: pytest.TempPathFactory, header: Any, data: bytes
) -> None:
    file = tmp_path_factory.mktemp("header") / "model.safetensors"
    file.write_bytes(safetensors_bytes(header, data))
    found = read_or_refusal(file.parent)
    if isinstance(found, str):
        assert str(file) in found
    else:
        assert sum(tensor.nbytes for tensor in found.values()) == len(data)


@settings(max_examples=150)
@given(place=st.integers(0, 300), value=st.integers(0, 255), cut=st.none() | st.integers(0, 300))
def test_flipped_bytes_and_cuts_are_read_as_the_safetensors_library_does_or_refused(
    tmp_path_factory: pytest.TempPathFactory, place: int, value: int, cut: int | None
) -> None:
    file = tmp_path_factory.mktemp("flip") / "model.safetensors"
    save_file({"a": torch.arange(6.0).view(2, 3), "b": torch.ones(3, dtype=torch.bfloat16)}, file)
    content = bytearray(file.read_bytes()[:cut])
    if place < len(content):
        content[place] = value
    file.write_bytes(content)
    found = read_or_refusal(file.parent)
    if isinstance(found, str):
        assert str(file) in found
    else:
        assert {name: bits(tensor) for name, tensor in found.items()} == {
            name: bits(tensor) for name, tensor in load_file(file).items()
        }


def test_tensor_in_two_files_is_refused(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "base", {"w": torch.ones(2)})
    shutil.copyfile(folder / "model.safetensors", folder / "other.safetensors")
    with pytest.raises(InputError, match=r"w is also in model\.safetensors"):
        checkpoints.entries(folder)


def test_folder_without_safetensors_is_refused(tiny_adapter: Path, tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "pytorch_model.bin").write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(InputError, match="safetensors"):
        merge_adapter(tmp_path / "base", tiny_adapter, 0.5, tmp_path / "out")
