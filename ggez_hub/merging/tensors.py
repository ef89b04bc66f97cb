"""Tensors on disk: where they lie in safetensors files, read from checked headers, and what they are called."""

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ggez_hub.errors import InputError
from ggez_hub.hub import FACTS, OPEN_CLIP, VARIANT, read_json

if TYPE_CHECKING:
    import torch

MAX_HEADER = 32_000_000  # bytes; those of the largest models have a few millions
MAX_DIMENSIONS = 64  # as torch
DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
          "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool"}  # fmt: skip
INDEX = ".safetensors.index.json"
# Configuration, tokenizer and processor files.
CARRIED = (".json", ".txt", ".jinja", ".model", ".spm", ".tiktoken", ".bpe", ".yaml")
OURS = (FACTS, "results.json")  # what a published model says of itself holds for no other
LICENCES = ("LICENSE", "LICENCE", "NOTICE")

# Parts of names that come and go between a model in memory, its files, and versions of the libraries.
WRAPPERS = frozenset({"base_model", "base_layer", "module", "model", "vision_model", "language_model"})


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies in a safetensors file."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    begin: int  # from the start of the file
    end: int

    @property
    def is_floating(self) -> bool:
        """Whether its values can be mixed."""
        return self.dtype in ("F64", "F32", "F16", "BF16")

    def __str__(self) -> str:
        return f"{self.dtype} {list(self.shape)}"


def entries(folder: Path) -> dict[str, Entry]:
    """All tensors of a checkpoint folder, sharded or not, by name.

    Those in a sub-folder, such as the parts of a diffusers pipeline, have it in front: ``unet/conv_in.weight``.

    Raises:
        InputError: No safetensors files, a damaged one, or one that the index lists and that is not there.
    """
    files, _ = weight_files(folder)
    if not files:
        raise InputError(f"{folder}: no .safetensors file", "only safetensors checkpoints are read")
    result: dict[str, Entry] = {}
    for file in files:
        inner = file.parent.relative_to(folder).as_posix()
        for bare, entry in header(file).items():
            name = bare if inner == "." else f"{inner}/{bare}"
            if name in result:
                raise InputError(
                    f"{file}: tensor {name} is also in {result[name].file.name}", "give a folder with one copy of it"
                )
            result[name] = entry
    for path in _visible(folder, f"*{INDEX}"):
        listed = _weight_map(path)
        inside = "" if path.parent == folder else f"{path.parent.relative_to(folder).as_posix()}/"
        missing = [name for name, file in listed.items()
                   if (found := result.get(inside + name)) is None or found.file.name != file]  # fmt: skip
        if missing:
            raise InputError(
                f"{path}: {len(missing)} tensors are not in the file it names: {some(missing)}", "fetch the rest"
            )
    return result


def _weight_map(path: Path) -> dict[str, Any]:
    index = read_json(path)
    listed = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(listed, dict):
        raise InputError(f"{path}: no weight_map, so not the index of a sharded checkpoint")
    return listed


def check_whole(folder: Path) -> None:
    """Refuses a checkpoint folder from which libraries would go on to another place: an adapter's base, or shards.

    Raises:
        InputError: It holds an adapter, or an index that names what is no safetensors file beside it.
    """
    if (folder / "adapter_config.json").is_file():
        raise InputError(
            f"{folder}: a base with an adapter in it (adapter_config.json)", "give the base without adapter"
        )
    for path in _visible(folder, "*.safetensors.index*.json"):
        there = {file.name for file in path.parent.glob("*.safetensors")}
        if strange := [str(file) for file in _weight_map(path).values() if str(file) not in there]:
            raise InputError(
                f"{path}: names shards that are not there: {some(dict.fromkeys(strange))}", "fetch the rest"
            )


def weight_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """The safetensors files of a checkpoint folder, and those left out because they hold the same once more.

    Repositories of diffusers often have each part in another precision beside it (``model.fp16.safetensors``), and the
    whole pipeline in one file at the root; those of open_clip the same model for transformers or timm.
    """
    files = _visible(folder, "*.safetensors")
    whole = (folder / "model_index.json").is_file()
    clip = next((folder / name for name in OPEN_CLIP if folder / name in files), None)
    found = {file: VARIANT.match(file.name) for file in files}
    plain = {(file.parent, match["stem"]) for file, match in found.items() if match and not match["variant"]}
    again = [
        file for file, match in found.items()
        if (match and match["variant"] and (file.parent, match["stem"]) in plain)
        or (file.parent == folder and (whole or clip not in (None, file)))
    ]  # fmt: skip
    return [file for file in files if file not in again], again


def header(file: Path) -> dict[str, Entry]:
    """The tensors of one safetensors file, none of which overlap or lie outside.

    Raises:
        InputError: The file is damaged, or has values of an unknown type.
    """
    size = file.stat().st_size

    def damaged(why: str) -> InputError:
        return InputError(f"{file}: damaged safetensors file: {why}", "fetch or write it again")

    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > min(size - 8, MAX_HEADER):
            raise damaged(f"its header says {length} bytes, the file has {size}")
        try:
            found = {
                name: Entry(file, info["dtype"], tuple(info["shape"]), *(8 + length + o for o in info["data_offsets"]))
                for name, info in json.loads(stream.read(length)).items()
                if name != "__metadata__"
            }
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as err:
            raise damaged(f"its header cannot be read ({err})") from err
    place = 8 + length
    for name, entry in sorted(found.items(), key=lambda item: (item[1].begin, item[1].end)):
        numbers = (*entry.shape, entry.begin, entry.end)
        if len(entry.shape) > MAX_DIMENSIONS or any(type(n) is not int or not 0 <= n < 2**63 for n in numbers):
            raise damaged(f"tensor {name} has a shape or place that is not in whole numbers")
        if not isinstance(entry.dtype, str) or entry.dtype not in DTYPES:
            raise InputError(f"{file}: tensor {name} has dtype {entry.dtype}; known are {', '.join(DTYPES)}")
        width = torch_dtype(entry.dtype).itemsize
        if entry.begin != place or entry.end - entry.begin != math.prod(entry.shape) * width:
            raise damaged(f"tensor {name} does not lie where it should")
        place = entry.end
    if place != size:
        raise damaged(f"it should have {place} bytes and has {size}")
    return found


def torch_dtype(name: str) -> "torch.dtype":
    """From the name that safetensors uses to torch's type."""
    import torch

    dtype: torch.dtype = getattr(torch, DTYPES[name])
    return dtype


def read(entry: Entry) -> "torch.Tensor":
    """A tensor's values, in memory of their own."""
    import torch

    room = torch.empty(entry.end - entry.begin, dtype=torch.uint8)
    return read_into(room, entry, 0, math.prod(entry.shape)).view(entry.shape)


def read_into(room: "torch.Tensor", entry: Entry, start: int, stop: int) -> "torch.Tensor":
    """Reads values `start` to `stop` of a tensor into bytes that are there already; returns these as values, flat.

    Raises:
        InputError: The file has become shorter since its header was read.
    """
    dtype = torch_dtype(entry.dtype)
    room = room[: (stop - start) * dtype.itemsize]
    data = room.numpy().data
    with entry.file.open("rb", buffering=0) as stream:
        stream.seek(entry.begin + start * dtype.itemsize)
        while len(data):
            count = stream.readinto(data)
            if not count:
                raise InputError(f"{entry.file}: became shorter while it was read", "fetch or write it again")
            data = data[count:]
    return room.view(dtype)


def same_bytes(one: Entry, other: Entry) -> bool:
    """Whether two tensors are the same, bit for bit."""
    if one.dtype != other.dtype or one.end - one.begin != other.end - other.begin:
        return False
    with one.file.open("rb") as first, other.file.open("rb") as second:
        first.seek(one.begin)
        second.seek(other.begin)
        for start in range(one.begin, one.end, 2**20):
            count = min(2**20, one.end - start)
            if first.read(count) != second.read(count):
                return False
    return True


def trained_part(names: Iterable[str]) -> str:
    """The part of a diffusers pipeline that adapters are for, ``unet/``; nothing for a checkpoint without parts."""
    parts = {name.partition("/")[0] if "/" in name else "" for name in names}
    return next((f"{part}/" for part in ("unet", "transformer") if part in parts and "" not in parts), "")


def carried(folder: Path) -> list[Path]:
    """The files of a checkpoint folder that go with its tensors, relative to it: settings, tokenizers, licences."""
    return [
        path.relative_to(folder)
        for path in _visible(folder, "*")
        if (path.suffix in CARRIED or path.name.upper().startswith(LICENCES)) and path.name not in OURS
        if not re.search(r"\.safetensors\.index\.\w+\.json$", path.name)  # of files that are left out
    ]


def _visible(folder: Path, pattern: str) -> list[Path]:
    """Files anywhere in a folder, unless they or a folder on the way are hidden."""
    found = (path for path in sorted(folder.rglob(pattern)) if path.is_file())
    return [path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts)]


# ---------------------------------------------------------------------------------------------------------------- names
def canonical(name: str) -> str:
    """One form for the names of a tensor in memory, on disk, and in other versions of a library.

    ``language_model.model.layers.0`` and ``model.language_model.layers.0`` (Gemma-3) are one layer, and so are
    ``vision_tower.vision_model.encoder`` and ``vision_tower.encoder``; torch keeps the packed projection of its
    attention in ``in_proj_weight``, which is ``in_proj.weight`` where it is a layer.
    """
    folder, _, name = name.rpartition("/")
    kept = [part for part in name.split(".") if part not in WRAPPERS]
    return (f"{folder}/" if folder else "") + re.sub(r"\bin_proj_(weight|bias)$", r"in_proj.\1", ".".join(kept))


@dataclass
class Matched:
    """Which name of one side is which of the other."""

    pairs: dict[str, str] = field(default_factory=dict)  # ours: theirs
    ours_alone: list[str] = field(default_factory=list)
    theirs_alone: list[str] = field(default_factory=list)


def match(ours: Iterable[str], theirs: Iterable[str]) -> Matched:
    """Pairs names that are equal, then those that are equal in their canonical form, if that is unambiguous."""
    left, right = dict.fromkeys(ours), dict.fromkeys(theirs)
    found = Matched({name: name for name in left if name in right})
    forms: tuple[dict[str, list[str]], ...] = (defaultdict(list), defaultdict(list))
    for names, other, form in ((left, right, forms[0]), (right, left, forms[1])):
        for name in names:
            if name not in other:
                form[canonical(name)].append(name)
    for key in forms[0].keys() & forms[1].keys():
        if len(forms[0][key]) == len(forms[1][key]) == 1:
            found.pairs[forms[0].pop(key)[0]] = forms[1].pop(key)[0]
    found.ours_alone, found.theirs_alone = (sorted(n for names in form.values() for n in names) for form in forms)
    return found


def some(names: Iterable[str], most: int = 20) -> str:
    """The first of many names."""
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
