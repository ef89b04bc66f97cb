"""Tensors on disk: what they are called, which files count, and no damaged file gets through."""

import json
import math
import random
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from ggez_hub.errors import InputError
from ggez_hub.merging import tensors as on_disk
from ggez_hub.merging.checkpoints import merge

Tensors = dict[str, torch.Tensor]


def checkpoint(folder: Path, tensors: Tensors, file: str = "model.safetensors") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / file, metadata={"format": "pt"})
    return folder


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.flatten().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


# ---------------------------------------------------------------------------------------------------------------- names
LAYER = "layers.0.self_attn.q_proj.weight"
PATCHES = "embeddings.patch_embedding.weight"
GEMMA = {  # in memory, as transformers saves it now, and as the Hub's checkpoints have it
    "memory": [f"model.language_model.{LAYER}", f"model.vision_tower.{PATCHES}", "lm_head.weight"],
    "now": [f"language_model.model.{LAYER}", f"vision_tower.{PATCHES}", "language_model.lm_head.weight"],
    "hub": [f"language_model.model.{LAYER}", f"vision_tower.vision_model.{PATCHES}", "language_model.lm_head.weight"],
    "peft": [f"base_model.model.model.language_model.{LAYER}", f"base_model.model.model.vision_tower.{PATCHES}",
             "base_model.model.lm_head.base_layer.weight"],
}  # fmt: skip


@pytest.mark.parametrize("ours", GEMMA)
@pytest.mark.parametrize("theirs", GEMMA)
def test_names_of_one_tensor_in_versions_of_a_library_are_paired(ours: str, theirs: str) -> None:
    found = on_disk.match(GEMMA[ours], GEMMA[theirs][::-1])
    assert found.pairs == dict(zip(GEMMA[ours], GEMMA[theirs], strict=True))
    assert (found.ours_alone, found.theirs_alone) == ([], [])


def test_packed_attention_is_one_tensor_whether_a_layer_or_not() -> None:
    for kind in ("weight", "bias"):
        found = on_disk.match([f"visual.attn.in_proj_{kind}"], [f"visual.attn.in_proj.{kind}"])
        assert found.pairs == {f"visual.attn.in_proj_{kind}": f"visual.attn.in_proj.{kind}"}


def test_names_that_could_mean_two_tensors_are_not_guessed() -> None:
    found = on_disk.match(["layer.weight"], ["model.layer.weight", "language_model.layer.weight"])
    assert not found.pairs
    assert found.ours_alone == ["layer.weight"]
    assert found.theirs_alone == ["language_model.layer.weight", "model.layer.weight"]


def test_equal_names_win_over_similar_ones() -> None:
    names = ["layer.weight", "model.layer.weight"]
    assert on_disk.match(names, names[::-1]).pairs == {name: name for name in names}
    assert on_disk.match(names, names[:1]).ours_alone == ["model.layer.weight"]


def test_parts_of_a_pipeline_are_never_mixed_up() -> None:
    found = on_disk.match(["unet/conv_in.weight"], ["vae/conv_in.weight", "conv_in.weight"])
    assert not found.pairs


parts = st.lists(st.sampled_from(["model", "vision_model", "module", "a", "b", "weight"]), min_size=1, max_size=4)
names = st.lists(parts.map(".".join), unique=True, max_size=6)


@given(ours=names, theirs=names)
def test_every_name_is_in_one_pair_or_told_as_an_orphan(ours: list[str], theirs: list[str]) -> None:
    found = on_disk.match(ours, theirs)
    assert sorted([*found.pairs, *found.ours_alone]) == sorted(ours)
    assert sorted([*found.pairs.values(), *found.theirs_alone]) == sorted(theirs)
    assert all(name in found.pairs for name in ours if name in theirs)


# ---------------------------------------------------------------------------------------------------- which files count
def sharded(folder: Path, listed: Any) -> Path:
    """w in one file, v in another, and an index that lists what it is given."""
    checkpoint(folder, {"w": torch.ones(2)}, "model-00001-of-00002.safetensors")
    checkpoint(folder, {"v": torch.ones(2)}, "model-00002-of-00002.safetensors")
    text = listed if isinstance(listed, str) else json.dumps(listed)
    (folder / "model.safetensors.index.json").write_text(text)
    return folder


W, V = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


@pytest.mark.parametrize(
    ("listed", "named"),
    [
        ({"weight_map": {"w": W, "v": V, "x": V}}, "x"),
        ({"weight_map": {"w": W, "v": W}}, "v"),
        ({"weight_map": {"w": W, "v": V, "x": "model-00003-of-00003.safetensors"}}, "x"),
        ({"weight_map": {"w": W, "v": 3}}, "v"),
        ({"weight_map": [W, V]}, "weight_map"),
        ({}, "weight_map"),
        ([], "weight_map"),
        ("{", "cannot be read"),
    ],
)
@pytest.mark.parametrize("inner", ["", "unet"])
def test_index_that_lists_what_is_not_there_is_refused(tmp_path: Path, listed: Any, named: str, inner: str) -> None:
    folder = sharded(tmp_path / "base" / inner, listed)
    with pytest.raises(InputError, match=named) as caught:
        on_disk.entries(tmp_path / "base")
    assert caught.value.message.startswith(str(folder / "model.safetensors.index.json"))


def test_shards_and_sub_folders_make_one_checkpoint(tmp_path: Path) -> None:
    sharded(tmp_path, {"weight_map": {"w": W, "v": V}})
    sharded(tmp_path / "unet", {"weight_map": {"w": W, "v": V}})
    assert on_disk.entries(tmp_path).keys() == {"w", "v", "unet/w", "unet/v"}


def test_tensor_in_two_files_is_refused(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "base", {"w": torch.ones(2)})
    shutil.copyfile(folder / "model.safetensors", folder / "other.safetensors")
    with pytest.raises(InputError, match=r"w is also in model\.safetensors"):
        on_disk.entries(folder)


def test_hidden_folders_do_not_count(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / ".cache" / "base", {"w": torch.ones(2)})  # hidden above it does not matter
    sharded(folder / ".git" / "x", {"weight_map": {"y": "gone.safetensors"}})
    (folder / ".git" / "config.json").write_text("{}")
    (folder / ".hidden.json").write_text("{}")
    assert on_disk.entries(folder).keys() == {"w"}
    assert on_disk.carried(folder) == []


def test_settings_and_licences_are_carried_and_nothing_else(tmp_path: Path) -> None:
    kept = ["config.json", "chat_template.jinja", "merges.txt", "spiece.model", "sentencepiece.yaml", "LICENSE",
            "LICENSE.md", "Licence.pdf", "NOTICE", "unet/config.json"]  # fmt: skip
    left = ["README.md", "pytorch_model.bin", "modeling.py", "optimizer.pt", "weights.pkl", "model.ckpt",
            "model.safetensors", "unet/README.md"]  # fmt: skip
    (tmp_path / "unet").mkdir()
    for name in kept + left:
        (tmp_path / name).write_text("{}")
    assert sorted(path.as_posix() for path in on_disk.carried(tmp_path)) == sorted(kept)


def test_folder_without_safetensors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(InputError, match=r"no \.safetensors file"):
        on_disk.entries(tmp_path)


# -------------------------------------------------------------------------------------------------------- damaged files
def safetensors_bytes(header: Any, data: bytes = bytes(8)) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def header(dtype: Any = "F32", shape: Any = (2,), data_offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"w": {"dtype": dtype, "shape": shape, "data_offsets": data_offsets}}


def refused(folder: Path, content: bytes) -> None:
    """The file is refused, as itself, wherever it is met: as base, as regional checkpoint, as adapter."""
    good = checkpoint(folder / "good", {"w": torch.ones(2)})
    bad = folder / "bad"
    bad.mkdir()
    (bad / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 1, "lora_alpha": 1}))
    (bad / "adapter_model.safetensors").write_bytes(content)
    (folder / "bad base").mkdir()
    (folder / "bad base" / "model.safetensors").write_bytes(content)
    for base, other, file in (
        (folder / "bad base", good, folder / "bad base" / "model.safetensors"),
        (good, folder / "bad base", folder / "bad base" / "model.safetensors"),
        (good, bad, bad / "adapter_model.safetensors"),
    ):
        with pytest.raises(InputError) as caught:
            merge(base, {other: 0.5}, folder / "out")
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
            on_disk.entries(bad)
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
        return {name: on_disk.read(entry) for name, entry in on_disk.entries(folder).items()}
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


@settings(max_examples=100)
@given(
    kinds=st.lists(st.tuples(st.sampled_from(list(on_disk.DTYPES)), st.integers(0, 5)), min_size=1, max_size=5),
    padding=st.integers(0, 9),
    seed=st.integers(0, 99),
)
def test_tensors_may_stand_in_any_order_and_at_odd_places(
    tmp_path_factory: pytest.TempPathFactory, kinds: list[tuple[str, int]], padding: int, seed: int
) -> None:
    shuffled = random.Random(seed)
    info, data = {}, b""
    for i in shuffled.sample(range(len(kinds)), len(kinds)):
        dtype, count = kinds[i]
        values = bytes(shuffled.choices((0, 1), k=count * on_disk.torch_dtype(dtype).itemsize))
        info[f"t{i}"] = {"dtype": dtype, "shape": [count], "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    text = json.dumps({name: info[name] for name in shuffled.sample(sorted(info), len(info))}).encode()
    file = tmp_path_factory.mktemp("order") / "model.safetensors"
    file.write_bytes(safetensors_bytes(text + b" " * padding, data))
    ours, theirs = read_or_refusal(file.parent), load_file(file)
    assert isinstance(ours, dict)
    assert {n: (t.dtype, bits(t)) for n, t in ours.items()} == {n: (t.dtype, bits(t)) for n, t in theirs.items()}


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
