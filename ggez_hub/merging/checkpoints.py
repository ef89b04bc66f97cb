"""Merging files at any alpha: base + adapters, or base + regional checkpoint, without loading either.

The output keeps the base's files: what changes is computed piece by piece, in fp32 with one rounding at the end, and
all the rest is copied by the kernel. Memory holds a few pieces of a megabyte, however large the checkpoints are.
"""

import contextlib
import errno
import math
import os
import shutil
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ggez_hub.errors import InputError
from ggez_hub.hub import naming
from ggez_hub.merging.adapters import CONFIG, LowRank, place, read_adapter
from ggez_hub.merging.tensors import (
    Entry,
    carried,
    entries,
    match,
    read,
    read_into,
    same_bytes,
    some,
    torch_dtype,
    trained_part,
    weight_files,
)
from ggez_hub.merging.threads import in_threads
from ggez_hub.method import check_fraction

if TYPE_CHECKING:
    import torch

PIECE = 2**19  # values computed at once
COPIED = 2**26  # bytes copied at once
TIED = ("lm_head.weight", "embed_tokens.weight", "shared.weight", "wte.weight", "token_embedding.weight")

Mix = Callable[[int, int, "torch.Tensor"], "torch.Tensor"]  # first value, last value + 1, the base's: the new ones


@dataclass(frozen=True)
class Merged:
    """What a merge has written."""

    tensors: int
    changed: int
    bytes: int
    converted: int = 0  # tensors whose regional values had another dtype
    left_out: tuple[str, ...] = ()  # files of the base that hold the same once more


@dataclass(frozen=True)
class Lerp:
    """A tensor mixed with the regional one."""

    other: Entry
    alpha: float


Sum = list[tuple[LowRank, float]]  # adapters' layers, each with its alpha; for a bias, whose biases are added


def merge(base: Path, regional: Mapping[Path, float], out: Path) -> Merged:
    """Merges a base with a regional checkpoint, or with one or several adapters.

    Args:
        base: Folder of the base checkpoint.
        regional: Folder of a checkpoint, or of each adapter, and its alpha: 0 (the base, bit for bit) to 1.
        out: Folder to write; it appears when it is complete.

    Returns:
        How much was written.

    Raises:
        InputError: They do not fit each other, are damaged, or `out` is there already.
    """
    with naming():
        adapters = [folder for folder in regional if (folder / CONFIG).is_file()]
        if len(adapters) == len(regional):
            return merge_adapters(base, regional, out)
        if len(regional) > 1:
            full = next(folder for folder in regional if folder not in adapters)
            raise InputError(
                f"{full}: a full checkpoint can only be merged alone",
                f"make it an adapter first: ggez extract {base} {full} --rank 64 --out DIR",
            )
        ((folder, alpha),) = regional.items()
        return merge_full(base, folder, alpha, out)


def merge_adapters(base: Path, adapters: Mapping[Path, float], out: Path) -> Merged:
    """Bakes LoRAs into their base: ``W + sum of alpha * scale * B A``, in fp32, rounded once (paper, section 4.2).

    Args:
        base: Folder of the base checkpoint, or of a diffusers pipeline around it.
        adapters: Folders in PEFT's format, each with its alpha, 0..1. Deltas are added, never factors.
        out: Folder to write; it appears when it is complete.

    Returns:
        How much was written; a bias counts as a tensor of its own.

    Raises:
        InputError: An adapter does not fit the base, or is of a kind that is not a plain LoRA.
    """
    _check(base, adapters.values())
    known = entries(base)
    inside = trained_part(known)
    shapes = {name.removeprefix(inside): entry.shape for name, entry in known.items() if name.startswith(inside)}
    sums: dict[str, Sum] = defaultdict(list)
    for adapter, alpha in adapters.items():
        for name, layer in place(read_adapter(adapter), shapes, adapter, base).items():
            if alpha:
                sums[inside + name].append((layer, alpha))
                if layer.bias:
                    sums[inside + name.removesuffix("weight") + "bias"].append((layer, alpha))
    return _write(base, known, dict(sums), out)


def merge_full(base: Path, regional: Path, alpha: float, out: Path) -> Merged:
    """Interpolates two checkpoints of one architecture: ``alpha * regional + (1 - alpha) * base``, rounded once.

    Names and shards are the base's. At alpha = 1 every tensor is bit for bit the regional one. Where the two differ in
    the width of their numbers, the result has the base's.

    Raises:
        InputError: A tensor has no counterpart, or one of another shape, or whole numbers differ; all are listed.
    """
    _check(base, [alpha])
    known, other = entries(base), entries(regional)
    if any(".lora" in name for name in other):
        raise InputError(f"{regional}: a LoRA, but not in PEFT's format", f"expected {CONFIG} beside it")
    pairs = pairs_of(known, other, base, regional)
    changes = {name: Lerp(other[theirs], alpha) for name, theirs in pairs.items() if alpha and known[name].is_floating}
    converted = sum(known[name].dtype != change.other.dtype for name, change in changes.items())
    return replace(_write(base, known, dict(changes), out), converted=converted)


def pairs_of(known: Mapping[str, Entry], other: Mapping[str, Entry], base: Path, regional: Path) -> dict[str, str]:
    """Which tensor of a regional checkpoint belongs to which of its base: the base's name, the regional name.

    Raises:
        InputError: A tensor has no counterpart, or one of another shape, or whole numbers differ; all are listed.
    """
    hint = "both must be checkpoints of one architecture"
    found = match(known, other)
    pairs = found.pairs | _tied(found.ours_alone, known, found.pairs)
    written_twice = _tied(found.theirs_alone, other, {theirs: ours for ours, theirs in found.pairs.items()})
    alone = {base: [n for n in found.ours_alone if n not in pairs],
             regional: [n for n in found.theirs_alone if n not in written_twice]}  # fmt: skip
    if any(alone.values()):
        told = (f"only in {side}: {some(names)}" for side, names in alone.items() if names)
        raise InputError(f"tensors without a counterpart: {'; '.join(told)}", hint)
    wrong = []
    for name, theirs in pairs.items():
        ours, regional_entry = known[name], other[theirs]
        if ours.shape != regional_entry.shape or ours.is_floating != regional_entry.is_floating:
            wrong.append(f"{name} is {ours} and {regional_entry}")
        elif not ours.is_floating and not same_bytes(ours, regional_entry):
            wrong.append(f"{name} holds other whole numbers ({ours}), which cannot be mixed")
    if wrong:
        raise InputError(f"{len(wrong)} tensors do not fit between {base} and {regional}: {some(wrong)}", hint)
    return pairs


def _tied(alone: list[str], known: Mapping[str, Entry], pairs: Mapping[str, str]) -> dict[str, str]:
    """Counterparts of tensors that one side writes twice and the other once, as an output layer tied to its inputs."""
    found = {}
    for name in (name for name in alone if name.endswith(TIED)):
        for twin in (twin for twin in pairs if twin.endswith(TIED)):
            if known[twin].shape == known[name].shape and same_bytes(known[twin], known[name]):
                found[name] = pairs[twin]
                break
    return found


def _check(base: Path, alphas: Iterable[float]) -> None:
    for alpha in alphas:
        check_fraction("alpha", alpha, "0 is the global base, 1 the regional model")
    if (base / CONFIG).is_file():  # which libraries would apply once more, to the merged weights
        raise InputError(f"{base}: a base with an adapter in it ({CONFIG})", "give the base without adapter")


# -------------------------------------------------------------------------------------------------------------- writing
def _write(base: Path, known: Mapping[str, Entry], changes: Mapping[str, Lerp | Sum], out: Path) -> Merged:
    """Writes a copy of a checkpoint folder with other values in some tensors; all or nothing."""
    from tqdm import tqdm

    sizes = {file: file.stat().st_size for file in sorted({entry.file for entry in known.values()})}
    size = sum(sizes.values())
    with completed(out) as hidden, tqdm(total=size, desc="merge", unit="B", unit_scale=True) as progress:
        if shutil.disk_usage(hidden).free < size:  # met at once, and not after an hour
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(out))
        for file in sizes:
            inside = [(entry, changes.get(name)) for name, entry in known.items() if entry.file == file]
            inside.sort(key=lambda one: one[0].begin)
            target = hidden / file.relative_to(base)
            target.parent.mkdir(parents=True, exist_ok=True)
            _write_file(file, sizes[file], inside, target, progress.update)
        for file in carried(base):  # last, so that nothing loads what a killed merge leaves
            (hidden / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(base / file, hidden / file)
    again = tuple(file.relative_to(base).as_posix() for file in weight_files(base)[1])
    return Merged(len(known), len(changes), size, left_out=again)


@contextlib.contextmanager
def completed(out: Path) -> Iterator[Path]:
    """A hidden folder beside `out` that takes its place when the block ends well, and is removed when it does not.

    Raises:
        InputError: `out` is there already, or another process is writing it.
    """
    from filelock import FileLock, Timeout

    hidden = out.with_name(f".{out.name}.partial")
    out.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out.with_name(f".{out.name}.lock"), timeout=0)
    try:
        lock.acquire()
    except Timeout as err:
        raise InputError(f"{out}: another process is writing it", "wait for it, or give another --out") from err
    try:
        if out.exists():
            raise InputError(f"{out}: is there already", "give another --out, or remove it first")
        shutil.rmtree(hidden, ignore_errors=True)  # of a killed process
        hidden.mkdir()
        yield hidden
        hidden.rename(out)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


class _Rooms(threading.local):
    """Bytes to read into, used again and again by each thread: fresh memory for every piece would cost more than it."""

    def __init__(self) -> None:
        self._rooms: dict[str, torch.Tensor] = {}

    def get(self, name: str, count: int) -> "torch.Tensor":
        """`count` bytes."""
        import torch

        if name not in self._rooms or self._rooms[name].numel() < count:
            self._rooms[name] = torch.empty(count, dtype=torch.uint8)
        return self._rooms[name][:count]


def _write_file(
    source: Path,
    size: int,
    tensors: list[tuple[Entry, Lerp | Sum | None]],
    target: Path,
    done: Callable[[int], object],
) -> None:
    rooms = _Rooms()
    with source.open("rb") as reader, target.open("wb") as writer:
        os.truncate(writer.fileno(), size)

        def pieces() -> Iterator[Callable[[], int]]:
            place = 0
            for entry, change in tensors:
                if change is None or entry.begin == entry.end:
                    continue
                yield from copies(place, entry.begin)
                place = entry.end
                mix, step = _lerp(entry, change, rooms) if isinstance(change, Lerp) else _sum(entry, change)
                count = (entry.end - entry.begin) // torch_dtype(entry.dtype).itemsize
                for start in range(0, count, step):
                    yield partial(mixed, entry, mix, start, min(start + step, count))
            yield from copies(place, size)

        def copies(begin: int, end: int) -> Iterator[Callable[[], int]]:
            for start in range(begin, end, COPIED):
                yield partial(_copy, reader.fileno(), writer.fileno(), start, min(start + COPIED, end))

        def mixed(entry: Entry, mix: Mix, start: int, stop: int) -> int:
            import torch

            width = torch_dtype(entry.dtype).itemsize
            ours = read_into(rooms.get("base", (stop - start) * width), entry, start, stop)
            new = mix(start, stop, ours).to(ours.dtype).view(torch.uint8)
            _write_all(writer.fileno(), new.numpy().data, entry.begin + start * width)
            return new.numel()

        in_threads(pieces(), done)


def _lerp(entry: Entry, change: Lerp, rooms: _Rooms) -> tuple[Mix, int]:
    """What mixes pieces of a tensor, and their length."""
    import torch

    dtype, other = torch_dtype(entry.dtype), torch_dtype(change.other.dtype)
    wide = torch.promote_types(torch.promote_types(dtype, other), torch.float32)

    def mix(start: int, stop: int, ours: "torch.Tensor") -> "torch.Tensor":
        theirs = read_into(rooms.get("regional", (stop - start) * other.itemsize), change.other, start, stop)
        if change.alpha == 1:
            return theirs
        if dtype != other:
            ours, theirs = ours.to(wide), theirs.to(wide)
        room = rooms.get("new", ours.numel() * ours.itemsize).view(ours.dtype)
        new = torch.lerp(ours, theirs, change.alpha, out=room)  # bf16 and fp16 too: in fp32 and rounded once
        if not math.isfinite(new.sum()):  # between two infinities of one sign lies the same, not NaN
            new = torch.where(ours == theirs, ours, new)
        return new

    return mix, PIECE


def _sum(entry: Entry, change: Sum) -> tuple[Mix, int]:
    """What adds low-rank deltas to pieces of a tensor; a piece is whole rows of a weight."""
    import torch

    wide = torch.promote_types(torch_dtype(entry.dtype), torch.float32)
    if len(entry.shape) == 1:  # the bias beside a weight
        biases = [alpha * layer.scale * read(layer.bias).float() for layer, alpha in change if layer.bias]
        return lambda start, stop, ours: sum((bias[start:stop] for bias in biases), ours.to(wide)), PIECE
    terms = [(alpha * layer.scale, *layer.factors()) for layer, alpha in change]
    width = terms[0][2].shape[1]

    def mix(start: int, stop: int, ours: "torch.Tensor") -> "torch.Tensor":
        total = ours.to(wide).view(-1, width)
        for scale, up, down in terms:
            total = total + (up[start // width : stop // width] @ down).mul_(scale)
        return total.view(-1)

    return mix, max(PIECE // width, 1) * width


def _copy(source: int, target: int, start: int, stop: int) -> int:
    """Copies bytes between files, in the kernel where it can."""
    place = start
    while place < stop:
        try:
            count = os.copy_file_range(source, target, stop - place, place, place)
        except (OSError, AttributeError):  # across some file systems, and not on every system
            count = _write_all(target, memoryview(os.pread(source, min(stop - place, 2**20), place)), place)
        if not count:
            raise InputError("a file of the base became shorter while it was read", "fetch or write it again")
        place += count
    return stop - start


def _write_all(target: int, data: memoryview, place: int) -> int:
    written = 0
    while written < len(data):
        written += os.pwrite(target, data[written:], place + written)
    return written
