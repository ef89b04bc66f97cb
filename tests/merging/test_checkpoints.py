"""Merging files: exact at both ends, rounded once in between, and all or nothing."""

import errno
import json
import math
import os
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from ggez_hub.errors import InputError
from ggez_hub.families import embedding
from ggez_hub.merging import checkpoints
from ggez_hub.merging.checkpoints import completed, merge, merge_adapters, merge_full

FLOATS = (torch.float32, torch.bfloat16, torch.float16)
NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.int64: "I64", torch.bool: "BOOL",
         torch.float64: "F64"}  # fmt: skip

alphas = st.floats(0, 1) | st.sampled_from([0.0, 0.25, 0.5, 1.0])
pieces = st.sampled_from([7, 64, checkpoints.PIECE])
Tensors = dict[str, torch.Tensor]


def checkpoint(folder: Path, tensors: Tensors, file: str = "model.safetensors") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / file, metadata={"format": "pt"})
    return folder


def adapter_of(folder: Path, tensors: Tensors, **config: Any) -> Path:
    checkpoint(folder, tensors, "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", **config}))
    return folder


def scattered(folder: Path, tensors: Tensors, seed: int) -> Path:
    """A checkpoint in one to three files, each with its tensors, and its header, in an order of its own."""
    folder.mkdir(parents=True)
    shuffled = random.Random(seed)
    count = shuffled.randint(1, 3)
    homes = {name: f"model-{shuffled.randint(1, count)}.safetensors" for name in tensors}
    for file in set(homes.values()):
        names = [name for name in tensors if homes[name] == file]
        header, data = {}, b""
        for name in shuffled.sample(names, len(names)):
            tensor, place = tensors[name], len(data)
            data += bits(tensor)
            header[name] = {"dtype": NAMES[tensor.dtype], "shape": tensor.shape, "data_offsets": [place, len(data)]}
        text = json.dumps({name: header[name] for name in shuffled.sample(names, len(names))}).encode()
        text += b" " * shuffled.randint(0, 9)  # so that numbers stand at odd places
        (folder / file).write_bytes(len(text).to_bytes(8, "little") + text + data)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": homes}))
    return folder


def all_tensors(folder: Path) -> Tensors:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.flatten().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def normal(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape)).to(dtype)


# ------------------------------------------------------------------------------------------------------- base + adapter
def test_adapter_at_alpha_0_gives_the_files_of_the_base(tiny_base: Path, tiny_adapter: Path, tmp_path: Path) -> None:
    merge_adapters(tiny_base, {tiny_adapter: 0}, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tiny_base)


@settings(max_examples=100)
@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9))
    | st.tuples(st.integers(1, 3), st.integers(1, 3), st.just(3), st.integers(1, 2)),
    dtype=st.sampled_from((*FLOATS, torch.float64)),
    alpha=alphas,
    r=st.integers(1, 3),
    lora_alpha=st.integers(1, 9),
    use_rslora=st.booleans(),
    lora_bias=st.booleans(),
    piece=pieces,
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
    lora_bias: bool,
    piece: int,
    seed: int,
) -> None:
    base = {
        "layer.weight": normal(shape, dtype, seed),
        "layer.bias": normal(shape[:1], dtype, seed + 1),
        "other.weight": normal((3,), dtype, seed + 2),
    }
    base["layer.weight"][0] = -0.0  # adding nothing to it makes another bit pattern
    rng = np.random.default_rng(seed)
    up = rng.integers(-9, 10, (shape[0], r)).astype("f4")  # whole numbers, so that their product is exact in any order
    down = rng.integers(-9, 10, (r, math.prod(shape[1:]))).astype("f4")
    shift = rng.integers(-9, 10, shape[0]).astype("f4")
    folder = tmp_path_factory.mktemp("merge")
    name = "base_model.model.layer.lora_{}"
    tensors = {
        name.format("A.weight"): torch.from_numpy(down).reshape(r, *shape[1:]),
        name.format("B.weight"): torch.from_numpy(up).reshape(shape[0], r, *[1] * (len(shape) - 2)),
    }
    tensors |= {name.format("B.bias"): torch.from_numpy(shift)} if lora_bias else {}
    adapter = adapter_of(folder / "adapter", tensors, r=r, lora_alpha=lora_alpha, use_rslora=use_rslora)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "PIECE", piece)
        merge_adapters(scattered(folder / "base", base, seed), {adapter: alpha}, folder / "out")

    scale = np.float32(alpha * lora_alpha / (math.sqrt(r) if use_rslora else r))
    deltas = {"layer.weight": (up @ down).reshape(shape), "layer.bias": shift * lora_bias}
    merged = all_tensors(folder / "out")
    assert merged.keys() == base.keys()
    for name, tensor in base.items():
        if alpha == 0 or name not in deltas:
            assert bits(merged[name]) == bits(tensor)
            continue
        exact = tensor.to(torch.promote_types(dtype, torch.float32)) + torch.from_numpy(scale * deltas[name])
        # Adding 0.0 makes one zero of the two: its sign depends on how a library adds up zeros.
        assert bits(merged[name] + 0.0) == bits(exact.to(dtype) + 0.0)


def two_adapters(folder: Path) -> tuple[Path, Path, Path]:
    """A base and two adapters of other ranks, one layer of which is in both; one of them has biases."""
    rng = torch.Generator().manual_seed(0)

    def values(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=rng)

    layers = {f"model.{name}.{kind}": values(*shape) for name in "xyz" for kind, shape in
              (("weight", (6, 5)), ("bias", (6,)))}  # fmt: skip
    base = checkpoint(folder / "base", layers)
    adapters = []
    for names, r, biased in (("xy", 2, True), ("yz", 3, False)):
        tensors = {}
        for name in names:
            stem = f"base_model.model.model.{name}.lora_"
            tensors |= {f"{stem}A.weight": values(r, 5), f"{stem}B.weight": values(6, r)}
            tensors |= {f"{stem}B.bias": values(6)} if biased else {}
        adapters.append(adapter_of(folder / f"adapter-{names}", tensors, r=r, lora_alpha=4))
    return base, adapters[0], adapters[1]


def test_several_adapters_are_the_sum_of_their_deltas(tmp_path: Path) -> None:
    base, one, other = two_adapters(tmp_path)
    runs = {"both": {one: 0.3, other: 0.8}, "turned": {other: 0.8, one: 0.3}, "one": {one: 0.3}, "other": {other: 0.8}}
    done = {name: merge(base, regional, tmp_path / name) for name, regional in runs.items()}
    found = {name: all_tensors(tmp_path / name) for name in runs}
    low = all_tensors(base)
    for name, tensor in low.items():
        expected = tensor + (found["one"][name] - tensor) + (found["other"][name] - tensor)
        torch.testing.assert_close(found["both"][name], expected, rtol=0, atol=5e-6)
        torch.testing.assert_close(found["turned"][name], found["both"][name], rtol=0, atol=1e-6)
    assert (done["one"].changed, done["other"].changed, done["both"].changed) == (4, 2, 5)
    assert torch.equal(found["both"]["model.z.bias"], low["model.z.bias"])


def test_adapter_at_0_beside_another_changes_nothing(tmp_path: Path) -> None:
    base, one, other = two_adapters(tmp_path)
    merge(base, {one: 0.3, other: 0}, tmp_path / "both")
    merge(base, {one: 0.3}, tmp_path / "one")
    assert contents(tmp_path / "both") == contents(tmp_path / "one")


def test_two_full_checkpoints_at_once_are_refused(tiny_base: Path, tiny_adapter: Path, tmp_path: Path) -> None:
    embedding.write_tiny(tmp_path / "regional", seed=1)
    for others in ({tiny_adapter: 0.5}, {tiny_base: 0.5}):
        with pytest.raises(InputError, match="a full checkpoint can only be merged alone") as caught:
            merge(tiny_base, {tmp_path / "regional": 0.5} | others, tmp_path / "out")
        assert f"ggez extract {tiny_base} {tmp_path / 'regional'}" in str(caught.value.hint)
    assert not (tmp_path / "out").exists()


def test_base_with_an_adapter_in_it_is_refused(tiny_base: Path, tiny_adapter: Path, tmp_path: Path) -> None:
    """Libraries would apply it again, to the merged weights."""
    base = shutil.copytree(tiny_base, tmp_path / "base")
    shutil.copytree(tiny_adapter, base, dirs_exist_ok=True)
    with pytest.raises(InputError, match=r"adapter_config\.json"):
        merge(base, {tiny_adapter: 0.5}, tmp_path / "out")
    with pytest.raises(InputError, match=r"adapter_config\.json"):
        merge(tiny_adapter, {tiny_base: 0.5}, tmp_path / "out")


def test_sharded_base_keeps_its_shards_and_its_index(tiny_base: Path, tiny_adapter: Path, tmp_path: Path) -> None:
    embedding.load(tiny_base).model.save_pretrained(tmp_path / "sharded", max_shard_size="100KB")
    index = json.loads((tmp_path / "sharded" / "model.safetensors.index.json").read_text())
    merge_adapters(tmp_path / "sharded", {tiny_adapter: 0.5}, tmp_path / "out")
    merge_adapters(tiny_base, {tiny_adapter: 0.5}, tmp_path / "single")
    assert contents(tmp_path / "out").keys() == contents(tmp_path / "sharded").keys()
    assert json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text()) == index
    shards = {file: load_file(tmp_path / "out" / file) for file in set(index["weight_map"].values())}
    assert len(shards) > 1
    whole = load_file(tmp_path / "single" / "model.safetensors")
    assert index["weight_map"].keys() == whole.keys()
    for name, file in index["weight_map"].items():
        assert torch.equal(shards[file][name], whole[name])


def test_settings_licences_and_tokenizer_come_along_and_pickles_and_code_do_not(
    tiny_base: Path, tiny_adapter: Path, tmp_path: Path
) -> None:
    base = shutil.copytree(tiny_base, tmp_path / "base")
    (base / "tokenizer").mkdir()
    (base / ".cache").mkdir()
    for name in ("pytorch_model.bin", "modeling.py", "README.md", ".cache/x.json"):
        (base / name).write_text("not this one")
    kept = {"chat_template.jinja", "LICENSE", "NOTICE.txt", "tokenizer/merges.txt", "tokenizer/spiece.model"}
    for name in kept:
        (base / name).write_text(f"the very bytes of {name}")
    merge_adapters(base, {tiny_adapter: 0.5}, tmp_path / "out")
    made = contents(tmp_path / "out")
    assert made.keys() == contents(tiny_base).keys() | kept
    assert all(made[name] == (base / name).read_bytes() for name in made if name != "model.safetensors")


@pytest.mark.parametrize("alpha", [-0.1, 1.1, math.nan])
def test_alpha_outside_0_and_1_is_refused(tiny_base: Path, tiny_adapter: Path, tmp_path: Path, alpha: float) -> None:
    with pytest.raises(InputError, match="alpha"):
        merge_adapters(tiny_base, {tiny_adapter: alpha}, tmp_path / "out")
    with pytest.raises(InputError, match="alpha"):
        merge_full(tiny_base, tiny_base, alpha, tmp_path / "out")


# ------------------------------------------------------------------------------------------------- two full checkpoints
@settings(max_examples=150)
@given(
    shapes=st.lists(st.lists(st.integers(0, 5), max_size=3), min_size=1, max_size=5),
    dtypes=st.lists(st.tuples(st.sampled_from(FLOATS), st.none() | st.sampled_from(FLOATS)), min_size=5, max_size=5),
    alpha=alphas,
    piece=pieces,
    seed=st.integers(0, 2**31),
)
def test_checkpoints_are_interpolated_to_the_last_bit(
    tmp_path_factory: pytest.TempPathFactory,
    shapes: list[list[int]],
    dtypes: list[tuple[torch.dtype, torch.dtype | None]],
    alpha: float,
    piece: int,
    seed: int,
) -> None:
    folder = tmp_path_factory.mktemp("merge")
    whole = {"ids": torch.arange(3), "mask": torch.tensor([True, False])}
    low, high = dict(whole), dict(whole)
    for i, (shape, (ours, theirs)) in enumerate(zip(shapes, dtypes, strict=False)):
        low[f"w{i}"] = normal(tuple(shape), ours, seed + i)
        high[f"w{i}"] = normal(tuple(shape), theirs or ours, seed + i + 100)
    base, regional = scattered(folder / "base", low, seed), scattered(folder / "regional", high, seed + 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "PIECE", piece)
        done = merge_full(base, regional, alpha, folder / "out")
    merged = all_tensors(folder / "out")
    assert merged.keys() == low.keys()
    for name, tensor in merged.items():
        if name in whole:
            assert torch.equal(tensor, whole[name])
        else:
            expected = torch.lerp(low[name].float(), high[name].float(), alpha).to(low[name].dtype)
            assert bits(tensor) == bits(low[name] if alpha == 0 else expected), name
    differ = sum(low[name].dtype != high[name].dtype for name in low)
    assert done.converted == (differ if alpha else 0)
    # Whatever the regional one's layout is, files and headers are the base's.
    for file in base.iterdir():
        size = file.stat().st_size - sum(t.nbytes for t in load_file(file).values()) if file.suffix != ".json" else None
        assert (folder / "out" / file.name).read_bytes()[:size] == file.read_bytes()[:size]
        assert (folder / "out" / file.name).stat().st_size == file.stat().st_size


@pytest.mark.parametrize("dtype", FLOATS)
def test_both_ends_keep_every_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    numbers = [0.0, -0.0, math.nan, -math.nan, math.inf, -math.inf, 1.1, 6e4, 1e-7]
    low, high = torch.tensor(numbers, dtype=dtype), torch.tensor(numbers[::-1], dtype=dtype)
    base, regional = (checkpoint(tmp_path / name, {"w": w}) for name, w in (("low", low), ("high", high)))
    for end, expected in ((0, base), (1, regional)):
        merge_full(base, regional, end, tmp_path / f"at{end}")
        assert contents(tmp_path / f"at{end}") == contents(expected)


def test_empty_tensors_do_not_hide_others_at_the_same_place(tmp_path: Path) -> None:
    text = json.dumps({name: {"dtype": "F32", "shape": [n], "data_offsets": [0, 4 * n]} for name, n in
                       (("w", 2), ("empty", 0))}).encode()  # fmt: skip
    for name, values in (("base", torch.zeros(2)), ("regional", torch.ones(2))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bits(values))
    merge_full(tmp_path / "base", tmp_path / "regional", 0.5, tmp_path / "out")
    assert all_tensors(tmp_path / "out")["w"].tolist() == [0.5, 0.5]


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
        (ONES | {"extra": torch.ones(1)}, "only in {other}: extra"),
        ({"ids": ONES["ids"]}, "only in {ones}: w"),
        ({"ids": ONES["ids"], "v": ONES["w"]}, "only in {ones}: w"),
        (ONES | {"w": torch.ones(4)}, "1 tensors do not fit"),
        (ONES | {"w": torch.ones(2, 2, dtype=torch.int64)}, "1 tensors do not fit"),
        (ONES | {"ids": torch.arange(3) + 1}, "ids holds other whole numbers"),
        (ONES | {"ids": torch.arange(3, dtype=torch.int32)}, "ids holds other whole numbers"),
        ({"w": torch.ones(4), "ids": torch.arange(3) + 1}, "2 tensors do not fit"),
    ],
)
@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("alpha", [0, 0.5])
def test_checkpoints_that_do_not_match_are_refused(
    tmp_path: Path, other: Tensors, named: str, swap: bool, alpha: float
) -> None:
    folders = [checkpoint(tmp_path / "a", ONES), checkpoint(tmp_path / "b", other)]
    named = named.format(ones=folders[0], other=folders[1])
    if swap:
        folders.reverse()
    with pytest.raises(InputError) as caught:
        merge_full(*folders, alpha, tmp_path / "out")
    assert named in caught.value.message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_message_names_both_kinds_of_a_tensor_that_does_not_fit(tmp_path: Path) -> None:
    base, regional = checkpoint(tmp_path / "a", ONES), checkpoint(tmp_path / "b", ONES | {"w": torch.ones(4).half()})
    with pytest.raises(InputError, match=r"w is F32 \[2, 2\] and F16 \[4\]"):
        merge_full(base, regional, 0.5, tmp_path / "out")


# --------------------------------------------------------------------------------------------------------- tied tensors
EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"


@pytest.mark.parametrize("twice", [True, False])
def test_output_layer_tied_to_its_inputs_may_be_written_on_one_side_alone(tmp_path: Path, twice: bool) -> None:
    low, high = torch.zeros(4, 2), torch.ones(4, 2)
    folders = [checkpoint(tmp_path / "low", {EMBED: low}), checkpoint(tmp_path / "high", {EMBED: high})]
    written = [folders[0], folders[1]][not twice]
    checkpoint(written, all_tensors(written) | {HEAD: [low, high][not twice].clone()})
    merge_full(*folders, 0.25, tmp_path / "out")
    merged = all_tensors(tmp_path / "out")
    assert merged.keys() == ({EMBED, HEAD} if twice else {EMBED})
    assert all(torch.equal(tensor, torch.full((4, 2), 0.25)) for tensor in merged.values())


@pytest.mark.parametrize("swap", [False, True])
def test_output_layer_of_its_own_on_one_side_alone_is_refused(tmp_path: Path, swap: bool) -> None:
    tied = checkpoint(tmp_path / "tied", {EMBED: torch.zeros(4, 2)})
    own = checkpoint(tmp_path / "own", {EMBED: torch.zeros(4, 2), HEAD: torch.ones(4, 2)})
    with pytest.raises(InputError, match=f"only in {own}: {HEAD}"):
        merge_full(*((own, tied) if swap else (tied, own)), 0.5, tmp_path / "out")


# ------------------------------------------------------------------------------------------------------- all or nothing
def test_an_existing_output_is_never_touched(tiny_base: Path, tiny_adapter: Path, tmp_path: Path) -> None:
    out = checkpoint(tmp_path / "made" / "out", {"old": torch.ones(1)})
    before = contents(tmp_path / "made")
    with pytest.raises(InputError, match="is there already"):
        merge_adapters(tiny_base, {tiny_adapter: 0.5}, out)
    assert contents(tmp_path / "made") == before


def test_what_a_killed_merge_left_is_cleared_away(tiny_base: Path, tiny_adapter: Path, tmp_path: Path) -> None:
    checkpoint(tmp_path / "made" / ".out.partial", {"old": torch.ones(1)}, "model-7.safetensors")
    merge_adapters(tiny_base, {tiny_adapter: 0.5}, tmp_path / "made" / "out")
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["out"]
    assert contents(tmp_path / "made" / "out").keys() == contents(tiny_base).keys()


@pytest.mark.parametrize("call", ["truncate", "pwrite", "rename"])
def test_full_disk_leaves_nothing_behind(
    tiny_base: Path, tiny_adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    calls = {"pwrite": [os.pwrite] * 3}.get(call, [])  # a few succeed

    def full(*arguments: Any) -> Any:
        if calls:
            return calls.pop()(*arguments)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match="No space left on device"):
        merge_adapters(tiny_base, {tiny_adapter: 0.5}, tmp_path / "made" / "out")
    assert list((tmp_path / "made").iterdir()) == []


def test_too_little_room_is_met_before_anything_is_written(
    tiny_base: Path, tiny_adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    monkeypatch.setattr(os, "pwrite", None)
    with pytest.raises(OSError, match="No space left on device"):
        merge_adapters(tiny_base, {tiny_adapter: 0.5}, tmp_path / "made" / "out")
    assert list((tmp_path / "made").iterdir()) == []


def test_file_systems_that_cannot_copy_in_the_kernel_will_do(
    tiny_base: Path, tiny_adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merge_adapters(tiny_base, {tiny_adapter: 0.5}, tmp_path / "usual")

    def unable(*_: Any) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(os, "copy_file_range", unable)
    merge_adapters(tiny_base, {tiny_adapter: 0.5}, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "usual")


def test_short_writes_are_completed(
    tiny_base: Path, tiny_adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merge_adapters(tiny_base, {tiny_adapter: 0.5}, tmp_path / "usual")
    copy, write = os.copy_file_range, os.pwrite
    monkeypatch.setattr(os, "copy_file_range", lambda i, o, count, *at: copy(i, o, min(count, 999), *at))
    monkeypatch.setattr(os, "pwrite", lambda file, data, at: write(file, data[:999], at))
    merge_adapters(tiny_base, {tiny_adapter: 0.5}, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "usual")


@pytest.mark.parametrize(("side", "alpha"), [("base", 0), ("base", 0.5), ("regional", 0.5)])
def test_file_that_shrinks_while_it_is_read_is_refused(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: str, alpha: float
) -> None:
    folders = {name: shutil.copytree(tiny_base, tmp_path / name) for name in ("base", "regional")}

    usage = shutil.disk_usage(tmp_path)

    def shrink(*_: Any) -> Any:  # when headers have been read, and mixing starts
        os.truncate(folders[side] / "model.safetensors", 5000)
        return usage

    monkeypatch.setattr(shutil, "disk_usage", shrink)
    with pytest.raises(InputError, match="shorter while it was read"):
        merge_full(folders["base"], folders["regional"], alpha, tmp_path / "made" / "out")
    assert list((tmp_path / "made").iterdir()) == []


def test_inputs_are_never_written_to(tiny_base: Path, tiny_adapter: Path, tmp_path: Path) -> None:
    before = contents(tiny_base), contents(tiny_adapter)
    merge_adapters(tiny_base, {tiny_adapter: 0.5}, tmp_path / "out")
    merge_full(tiny_base, tmp_path / "out", 0.5, tmp_path / "out2")
    assert (contents(tiny_base), contents(tiny_adapter)) == before


def test_two_merges_into_one_folder_at_once_do_not_mix(tiny_base: Path, tiny_adapter: Path, tmp_path: Path) -> None:
    with completed(tmp_path / "out") as hidden:
        (hidden / "of the first").touch()
        with pytest.raises(InputError, match="another process is writing it"):
            merge_adapters(tiny_base, {tiny_adapter: 0.5}, tmp_path / "out")
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "of the first"]


@pytest.mark.parametrize("dtype", FLOATS)
def test_what_both_models_hold_stays_even_if_it_is_infinite(tmp_path: Path, dtype: torch.dtype) -> None:
    values = torch.tensor([-torch.inf, torch.inf, 1.0, 2.0], dtype=dtype)
    folders = [
        checkpoint(tmp_path / str(i), {"mask": values + torch.tensor([0, 0, 0, i], dtype=dtype)}) for i in (0, 1)
    ]
    merge_full(*folders, 0.5, tmp_path / "out")
    merged = load_file(tmp_path / "out" / "model.safetensors")["mask"]
    assert merged.tolist() == [-torch.inf, torch.inf, 1.0, 2.5]


def test_lora_in_another_format_is_called_that(tiny_base: Path, tmp_path: Path) -> None:
    lora = checkpoint(tmp_path / "lora", {"unet.to_q.lora.down.weight": torch.ones(2, 2)})
    with pytest.raises(InputError, match="a LoRA, but not in PEFT's format"):
        merge(tiny_base, {lora: 0.5}, tmp_path / "out")


def test_facts_of_a_published_base_do_not_come_along(tiny_base: Path, tiny_adapter: Path, tmp_path: Path) -> None:
    base = shutil.copytree(tiny_base, tmp_path / "base")
    for name in ("ggez.json", "results.json"):
        (base / name).write_text("{}")
    merge_adapters(base, {tiny_adapter: 0.5}, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {path.name for path in tiny_base.iterdir()}
