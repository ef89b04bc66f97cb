"""Merging files: base + adapter, or base + regional checkpoint, at any alpha, without loading either.

The output keeps the base's files: every shard is copied as it is, then the tensors that change are written over in
place. So untouched tensors are copied by the kernel, alpha = 0 gives the base bit for bit, and memory holds one tensor
at a time.
"""

import json
import math
import mmap
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ggez_hub.errors import InputError
from ggez_hub.method import interpolate
from ggez_hub.runs import read_json

if TYPE_CHECKING:
    import torch

MAX_HEADER = 100_000_000  # bytes, as the safetensors library
DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
          "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool"}  # fmt: skip
CARRIED = (".json", ".txt", ".jinja", ".model", ".yaml")  # configuration, tokenizer and processor files
Change = Callable[
    [str, "torch.Tensor"], "torch.Tensor | None"
]  # name, base values -> new values, or None for unchanged


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies in a safetensors file."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    begin: int  # from the start of the file
    end: int


def entries(folder: Path) -> dict[str, Entry]:
    """All tensors of a checkpoint folder, sharded or not, by name.

    Raises:
        InputError: No safetensors files, or a damaged one.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise InputError(f"{folder}: no .safetensors file", "only safetensors checkpoints are read")
    result: dict[str, Entry] = {}
    for file in files:
        for name, entry in _header(file).items():
            if name in result:
                raise InputError(f"{file}: tensor {name} is also in {result[name].file.name}")
            result[name] = entry
    return result


def _header(file: Path) -> dict[str, Entry]:
    size = file.stat().st_size

    def damaged(why: str) -> InputError:
        return InputError(f"{file}: damaged safetensors file: {why}", "fetch or write it again")

    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > min(size - 8, MAX_HEADER):
            raise damaged(f"its header says {length} bytes, the file has {size}")
        try:
            header = json.loads(stream.read(length))
            header.pop("__metadata__", None)
            found = {
                name: Entry(file, info["dtype"], tuple(info["shape"]), *(8 + length + o for o in info["data_offsets"]))
                for name, info in header.items()
            }
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as err:
            raise damaged(f"its header cannot be read ({err})") from err
    place = 8 + length
    for name, entry in sorted(found.items(), key=lambda item: (item[1].begin, item[1].end)):
        if any(type(number) is not int or number < 0 for number in (*entry.shape, entry.begin, entry.end)):
            raise damaged(f"tensor {name} has a shape or place that is not in whole numbers")
        if not isinstance(entry.dtype, str) or entry.dtype not in DTYPES:
            raise InputError(f"{file}: tensor {name} has dtype {entry.dtype}; known are {', '.join(DTYPES)}")
        width = _torch_dtype(entry.dtype).itemsize
        if entry.begin != place or entry.end - entry.begin != math.prod(entry.shape) * width:
            raise damaged(f"tensor {name} does not lie where it should")
        place = entry.end
    if place != size:
        raise damaged(f"it should have {place} bytes and has {size}")
    return found


def _torch_dtype(name: str) -> "torch.dtype":
    import torch

    dtype: torch.dtype = getattr(torch, DTYPES[name])
    return dtype


def _tensor(buffer: Any, entry: Entry) -> "torch.Tensor":
    """A view of a tensor inside a mapped file, which it keeps mapped: an explicit close would leave it dangling."""
    import torch

    count = math.prod(entry.shape)
    if not count:
        return torch.empty(entry.shape, dtype=_torch_dtype(entry.dtype))
    return torch.frombuffer(buffer, dtype=_torch_dtype(entry.dtype), count=count, offset=entry.begin).view(entry.shape)


def read(entry: Entry) -> "torch.Tensor":
    """A tensor's values, in memory of their own."""
    with entry.file.open("rb") as stream:
        return _tensor(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY), entry).clone()


def read_adapter(folder: Path) -> tuple[dict[str, Any], dict[str, Entry]]:
    """The configuration of a LoRA in PEFT's format, and its tensors by name.

    Raises:
        InputError: Not a LoRA whose scaling is the linear merge, or damaged.
    """
    file = folder / "adapter_model.safetensors"
    if not file.is_file():
        raise InputError(f"{folder}: no {file.name}", "pickled adapters are never loaded")
    config = read_json(folder / "adapter_config.json")
    config = config if isinstance(config, dict) else {}
    unusual = [key for key in ("use_dora", "modules_to_save", "rank_pattern", "alpha_pattern", "bias", "fan_in_fan_out")
               if config.get(key) not in (None, False, "none", {}, [])]  # fmt: skip
    if config.get("peft_type") != "LORA" or unusual:
        raise InputError(f"{folder}: not a plain LoRA ({', '.join(unusual) or config.get('peft_type')})")
    r, lora_alpha = config.get("r"), config.get("lora_alpha")
    if not (isinstance(r, int) and r > 0 and isinstance(lora_alpha, int | float) and math.isfinite(lora_alpha)):
        raise InputError(f"{folder}: adapter_config.json has r {r} and lora_alpha {lora_alpha}")
    return config, _header(file)


def merge_adapter(base: Path, adapter: Path, alpha: float, out: Path, tensor_name: Callable[[str], str]) -> None:
    """Bakes a LoRA into its base: ``W + alpha * s * B A``, computed in fp32 and rounded once (paper, section 4.2).

    Args:
        base: Folder of the base checkpoint.
        adapter: Folder in PEFT's format.
        alpha: 0 (the base, bit for bit) to 1.
        out: Folder to write; appears when it is complete.
        tensor_name: From a module's name in memory to that of its weights on disk.

    Raises:
        InputError: The adapter does not fit the base, or is of a kind that is not a plain LoRA.
    """
    if not 0 <= alpha <= 1:
        raise InputError(f"alpha {alpha}: expected a number from 0 (global base) to 1 (region)")
    config, parts = read_adapter(adapter)
    r = config["r"]
    scale = alpha * config["lora_alpha"] / (math.sqrt(r) if config.get("use_rslora") else r)
    modules = {name.removesuffix(".lora_A.weight") for name in parts if name.endswith(".lora_A.weight")}
    targets = {tensor_name(module.removeprefix("base_model.model.")) + ".weight": module for module in modules}
    known = entries(base)
    pairs = {f"{module}.lora_{part}.weight" for module in modules for part in "AB"}
    orphans = sorted(targets.keys() - known.keys()) + sorted(parts.keys() ^ pairs)
    if orphans:
        raise InputError(
            f"{adapter}: {len(orphans)} tensors find no place in {base}: {', '.join(orphans[:5])}",
            "the adapter belongs to another base",
        )
    unfit = []
    for name, module in sorted(targets.items()):
        shape, down, up = known[name].shape, *(parts[f"{module}.lora_{part}.weight"].shape for part in "AB")
        if up[:1] + down[1:] != shape or down[:1] != (r,) or math.prod(up[1:]) != r:
            unfit.append(f"{name} is {list(shape)} in the base, the adapter has {list(up)} x {list(down)} of rank {r}")
    if unfit:
        raise InputError(f"{adapter}: {len(unfit)} tensors do not fit {base}: {'; '.join(unfit[:5])}",
                         "the adapter belongs to another base")  # fmt: skip

    def change(name: str, weight: "torch.Tensor") -> "torch.Tensor | None":
        if name not in targets or alpha == 0:
            return None
        down, up = (read(parts[f"{targets[name]}.lora_{part}.weight"]).float() for part in "AB")
        delta = up.flatten(1) @ down.flatten(1)
        merged: torch.Tensor = (weight.float() + scale * delta.view(weight.shape)).to(weight.dtype)
        return merged

    _rewrite(base, known, change, out)


def merge_full(base: Path, regional: Path, alpha: float, out: Path) -> None:
    """Interpolates two checkpoints of one architecture: ``alpha * regional + (1 - alpha) * base``, rounded once.

    Raises:
        InputError: They do not hold the same tensors.
    """
    known, other = entries(base), entries(regional)
    if alone := sorted(known.keys() ^ other.keys()):
        raise InputError(f"{len(alone)} tensors are only in one of {base} and {regional}: {', '.join(alone[:5])}")
    differing = [
        f"{name} ({known[name].dtype} {list(known[name].shape)}, {other[name].dtype} {list(other[name].shape)})"
        for name in sorted(known)
        if (known[name].dtype, known[name].shape) != (other[name].dtype, other[name].shape)
    ]
    if differing:
        raise InputError(
            f"{len(differing)} tensors differ in dtype or shape between {base} and {regional}: "
            + ", ".join(differing[:5]),
            "both must be checkpoints of the same architecture and dtype",
        )

    def change(name: str, weight: "torch.Tensor") -> "torch.Tensor | None":
        return None if alpha == 0 else interpolate({name: weight}, {name: read(other[name])}, alpha)[name]

    _rewrite(base, known, change, out)


def _rewrite(base: Path, known: dict[str, Entry], change: Change, out: Path) -> None:
    """Copies a checkpoint folder and writes the changed tensors over; all or nothing."""
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        for file in sorted(base.iterdir()):
            if file.suffix in (".safetensors", *CARRIED):
                shutil.copyfile(file, partial / file.name)
        for file, names in _by_file(known):
            with (partial / file.name).open("r+b") as stream:
                mapped = mmap.mmap(stream.fileno(), 0)
            for name in names:
                view = _tensor(mapped, known[name])
                if (new := change(name, view)) is not None:
                    view.copy_(new)
        shutil.rmtree(out, ignore_errors=True)
        os.replace(partial, out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _by_file(known: dict[str, Entry]) -> Iterator[tuple[Path, list[str]]]:
    for file in sorted({entry.file for entry in known.values()}):
        yield file, [name for name, entry in known.items() if entry.file == file]
