"""A LoRA from the difference of two checkpoints, so that a fully trained model gets an alpha.

Every matrix that differs becomes the nearest product of two thin ones. What no LoRA can carry is not lost silently:
it is reported, with its share of the difference.

Energy is the squared Frobenius norm. What a product B A keeps of the energy of a difference D is 1 - |D - BA|² / |D|².
"""

import inspect
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ggez_hub import hub
from ggez_hub.errors import InputError
from ggez_hub.merging.adapters import CONFIG, WEIGHTS
from ggez_hub.merging.checkpoints import completed, pairs_of
from ggez_hub.merging.tensors import Entry, entries, match, read, some, torch_dtype, trained_part
from ggez_hub.runs import read_json, write_json

if TYPE_CHECKING:
    import torch

REPORT = "extraction.json"
EXACT = 1536  # columns up to which all singular vectors cost no more than a search for the leading ones
SPARE = 10  # vectors searched for beyond those wanted
CONVERGED = 5e-4  # relative gain of energy in one step at which a search ends
NOISE = 1e-6  # singular values below this share of the largest are rounding


@dataclass(frozen=True)
class Layer:
    """A layer of the adapter."""

    module: str
    shape: tuple[int, ...]  # of its weight
    rank: int
    energy: float  # kept, 0..1
    residual: float  # |D - BA| / |D|


@dataclass(frozen=True)
class LeftOut:
    """A tensor that differs and is not in the adapter."""

    tensor: str
    share: float  # of the energy of the whole difference
    why: str


@dataclass(frozen=True)
class Extracted:
    """What an adapter keeps of a difference, and what not; extraction.json holds the same."""

    base: str
    regional: str
    guessed: bool  # the library does not know the model: names and kinds of layers are taken from its files
    energy: float  # of the whole difference, 0..1
    residual: float  # of the whole difference
    biases: int  # kept exactly, beside the weights of their layers
    layers: list[Layer]
    left_out: list[LeftOut]


@dataclass(frozen=True)
class _Home:
    """Where a tensor that a LoRA can carry lives in memory."""

    module: str
    is_bias: bool = False
    is_embedding: bool = False


def extract(
    base: str | Path, regional: str | Path, out: Path, rank: int | None = None, energy: float | None = None
) -> Extracted:
    """Writes the difference of two checkpoints as a LoRA in PEFT's format; alpha = 1 is nearest to the regional model.

    In memory are one pair of tensors at a time, and the adapter. Two runs on one machine give the same bytes.

    Args:
        base: Folder or Hub id of the global model.
        regional: Folder or Hub id of the regional model, of the same architecture.
        out: Folder to write; it appears when it is complete.
        rank: Of every layer, or less where the difference has less.
        energy: Instead of `rank`: every layer gets the smallest rank that keeps this share, above 0 to 1.

    Returns:
        What was kept, layer by layer, and what was left out.

    Raises:
        InputError: The two do not fit each other or do not differ, an argument is out of range, `out` is there already.
        HubError: The Hub refused or cannot be reached.
    """
    from safetensors.torch import save_file

    if (rank is None) == (energy is None):
        raise InputError("expected either a rank or a share of energy", "for example --rank 64, or --energy 0.9")
    if rank is not None and rank < 1:
        raise InputError(f"rank {rank}: expected 1 or more")
    if energy is not None and not 0 < energy <= 1:
        raise InputError(f"energy {energy}: expected a share above 0, up to 1")
    folders = hub.fetch(str(base)), hub.fetch(str(regional))
    name, revision = _called(base, folders[0])
    with completed(out) as hidden:
        config, tensors, report = _adapter(*folders, rank, energy)
        report = replace(report, base=name, regional=_called(regional, folders[1])[0])
        save_file(tensors, hidden / WEIGHTS, metadata={"format": "pt"})
        write_json(hidden / CONFIG, config | {"base_model_name_or_path": name, "revision": revision})
        write_json(hidden / REPORT, asdict(report))
    return report


def _called(given: str | Path, folder: Path) -> tuple[str, str | None]:
    """The Hub id of a model and the commit, or the name of its folder: never a path on this machine."""
    cached = re.search(r"/models--([^/]+)--([^/]+)/snapshots/([0-9a-f]{40})$", folder.resolve().as_posix())
    if cached:
        return f"{cached[1]}/{cached[2]}", cached[3]
    return folder.resolve().name if Path(given).is_dir() else str(given), None


def _adapter(
    base: Path, regional: Path, rank: int | None, energy: float | None
) -> "tuple[dict[str, Any], dict[str, torch.Tensor], Extracted]":
    """The adapter's configuration and tensors, and the report."""
    import torch
    from tqdm import tqdm

    known, other = entries(base), entries(regional)
    pairs = pairs_of(known, other, base, regional)
    homes, modules = _homes(base, known)
    weights = {h.module: (h, known[n].shape) for n, h in homes.items() if isinstance(h, _Home) and not h.is_bias}
    biased = {h.module for h in homes.values() if isinstance(h, _Home) and h.is_bias}
    layers: dict[str, Layer] = {}
    tensors: dict[str, torch.Tensor] = {}
    biases: dict[str, tuple[str, torch.Tensor]] = {}  # by module; its name on disk
    apart: dict[str, tuple[float, str]] = {}  # energy, and why; with the biases until it is clear whether they fit
    total = lost = 0.0
    for name, theirs in tqdm(pairs.items(), desc="extract", unit=" tensors"):
        home, entry = homes.get(name), known[name]
        if home is None or not entry.is_floating:
            continue
        difference = _difference(entry, other[theirs])
        size = float(torch.linalg.vector_norm(difference, dtype=torch.float64)) ** 2
        if not math.isfinite(size):
            raise InputError(f"{name}: holds values that are not finite, in {base} or {regional}")
        if not size:
            continue
        total += size
        if isinstance(home, str):
            apart[name] = (size, home)
        elif home.is_bias:
            apart[name] = (size, "bias, which PEFT adds to all layers of an adapter or to none")
            if home.module in weights:
                biases[home.module] = (name, difference)
        else:
            up, down, residual = factors(difference.flatten(1), rank, energy)
            tensors |= _named(home, up, down, entry.shape)
            layers[home.module] = Layer(home.module, entry.shape, len(down), max(0.0, 1 - residual**2), residual)
            lost += size * residual**2
    if not total:
        raise InputError(f"{base} and {regional}: no tensor differs", "there is nothing to extract")
    ranks = {module: layer.rank for module, layer in layers.items()}
    if any(module not in biased or weights[module][0].is_embedding for module in layers):
        biases = {}
    for module in {**layers, **biases} if biases else ():
        home, shape = weights[module]
        if module not in layers:  # PEFT has no bias without a rank
            ranks[module] = 1
            tensors |= _named(home, torch.zeros(shape[0], 1), torch.zeros(1, math.prod(shape[1:])), shape)
        name, bias = biases.get(module, ("", torch.zeros(shape[0])))
        tensors[f"base_model.model.{module}.lora_B.bias"] = bias
        apart.pop(name, None)
    if not tensors:
        raise InputError(
            f"{regional}: differs from {base} only where no LoRA reaches: {some(apart)}",
            "merge the two themselves: ggez merge-checkpoints",
        )
    lost += sum(size for size, _ in apart.values())
    left_out = [LeftOut(name, size / total, why) for name, (size, why) in apart.items()]
    kept = max(0.0, 1 - lost / total)
    report = Extracted(
        "", "", modules is None, kept, math.sqrt(lost / total), len(biases), [*layers.values()], left_out
    )
    return _config(ranks, modules or set(weights), bool(biases)), tensors, report


def _difference(ours: Entry, theirs: Entry) -> "torch.Tensor":
    """Theirs - ours, in fp32."""
    import torch

    wide = torch.promote_types(torch.promote_types(torch_dtype(ours.dtype), torch_dtype(theirs.dtype)), torch.float32)
    return read(theirs).to(wide).sub_(read(ours)).float()


def _named(home: _Home, up: "torch.Tensor", down: "torch.Tensor", shape: tuple[int, ...]) -> "dict[str, torch.Tensor]":
    """Factors by PEFT's names, in its shapes."""
    module = f"base_model.model.{home.module}"
    if home.is_embedding:
        return {f"{module}.lora_embedding_A": up.T.contiguous(), f"{module}.lora_embedding_B": down.T.contiguous()}
    return {
        f"{module}.lora_A.weight": down.reshape(-1, *shape[1:]).contiguous(),
        f"{module}.lora_B.weight": up.reshape(*up.shape, *[1] * (len(shape) - 2)).contiguous(),
    }


def _config(ranks: Mapping[str, int], modules: set[str], lora_bias: bool) -> dict[str, Any]:
    """PEFT's configuration, at scale 1; it meets the given modules and no others."""
    r = Counter(ranks.values()).most_common(1)[0][0]
    other = {f"^{re.escape(module)}": rank for module, rank in ranks.items() if rank != r}
    # PEFT takes a target as the end of a name; what it would meet beside the targets is excluded by name.
    ends = tuple(f".{module}" for module in ranks)
    beside = sorted(module for module in modules - ranks.keys() if module.endswith(ends))
    return {
        "peft_type": "LORA", "r": r, "lora_alpha": r, "rank_pattern": other, "alpha_pattern": other,
        "target_modules": list(ranks), "exclude_modules": beside or None, "lora_bias": lora_bias, "bias": "none",
        "lora_dropout": 0.0, "inference_mode": True, "task_type": None,
    }  # fmt: skip


def table(found: Extracted) -> str:
    """A line per layer, one for each reason that something is left out for, and the totals."""
    rows = [
        (layer.module, "x".join(map(str, layer.shape)), f"rank {layer.rank}", layer.energy, layer.residual)
        for layer in found.layers
    ]
    width = max((len(row[0]) for row in rows), default=0)
    lines = [f"{n:{width}}  {s:>14}  {r:>9}  {e:8.3%} kept  residual {d:.3g}" for n, s, r, e, d in rows]
    if found.biases:
        lines.append(f"{found.biases} biases, exactly")
    shares: dict[str, list[float]] = {}
    for left in found.left_out:
        shares.setdefault(left.why, []).append(left.share)
    lines += [f"left out: {sum(part):.3%} in {len(part)} tensors: {why}" for why, part in shares.items()]
    return "\n".join([*lines, f"all: {found.energy:.3%} of the difference kept, residual {found.residual:.3g}"])


# ------------------------------------------------------------------------------------------------------------ low ranks
def factors(
    difference: "torch.Tensor", rank: int | None = None, energy: float | None = None
) -> "tuple[torch.Tensor, torch.Tensor, float]":
    """The nearest product of a given rank, or of the smallest rank that keeps a share of energy.

    By the singular value decomposition (Eckart and Young, 1936); both factors get the roots of the singular values.
    The vectors are the eigenvectors of D^T D. For a small rank of a large matrix they come from a randomised block
    Krylov search (Musco and Musco, arXiv 1504.05477), which keeps what the best product keeps to within 0.1%.

    Args:
        difference: [rows, columns], fp32, not all 0.
        rank: At most this.
        energy: Instead of `rank`, above 0 to 1.

    Returns:
        up [rows, r], down [r, columns], and the residual |D - up down| / |D|.
    """
    import torch

    norm = float(torch.linalg.vector_norm(difference, dtype=torch.float64))
    unit = difference / norm  # squares of very small or large values would leave the range of fp32
    tall = unit if unit.shape[0] >= unit.shape[1] else unit.T
    right = _directions(tall, min(rank or tall.shape[1], tall.shape[1]))
    left = tall @ right  # the projection on these directions: good even where they are not quite the singular vectors
    sizes = torch.linalg.vector_norm(left, dim=0, dtype=torch.float64)
    order = sizes.argsort(descending=True, stable=True)
    kept = sizes[order].square().cumsum(0)
    count = int((kept < energy * kept[-1]).sum()) + 1 if energy else len(order)
    order = order[: min(count, int((sizes > NOISE * sizes.max()).sum()))]
    roots, scale = sizes[order].sqrt().float(), math.sqrt(norm)
    left, right = left[:, order] / roots * scale, right[:, order] * roots * scale
    up, down = (left, right.T) if tall is unit else (right, left.T)
    residual = unit.addmm_(up, down, alpha=-1 / norm)
    return up, down, float(torch.linalg.vector_norm(residual, dtype=torch.float64))


def _directions(tall: "torch.Tensor", rank: int) -> "torch.Tensor":
    """Leading right singular vectors [columns, rank] of a matrix that is not wider than high."""
    import torch

    columns = tall.shape[1]
    if columns > EXACT and 16 * rank <= columns:
        found = _search(tall, rank)
        if found is not None:
            return found
    vectors: torch.Tensor = torch.linalg.eigh(tall.T @ tall).eigenvectors
    return vectors[:, -rank:]


def _search(tall: "torch.Tensor", rank: int) -> "torch.Tensor | None":
    """The same by a search from a random start, or None where it takes more vectors than it saves."""
    import torch

    start = torch.randn(tall.shape[1], rank + SPARE, generator=torch.Generator().manual_seed(0))
    blocks = [torch.linalg.qr(start).Q]
    images = [tall @ blocks[0]]
    energy = 0.0
    while len(blocks) * (rank + SPARE) <= tall.shape[1] // 2:
        block = tall.T @ images[-1]
        for _ in range(2):  # once leaves too much of what is there already
            basis = torch.cat(blocks, dim=1)
            block = torch.linalg.qr(block - basis @ (basis.T @ block)).Q
        blocks.append(block)
        images.append(tall @ block)
        image = torch.cat(images, dim=1)
        values, vectors = torch.linalg.eigh(image.T @ image)
        before, energy = energy, float(values[-rank:].sum())
        if energy - before <= CONVERGED * energy:
            found: torch.Tensor = torch.cat(blocks, dim=1) @ vectors[:, -rank:]
            return found
    return None


# --------------------------------------------------------------------------------------------------------------- layers
def _homes(base: Path, known: Mapping[str, Entry]) -> tuple[dict[str, _Home | str], set[str] | None]:
    """Where the tensors of a checkpoint live, or why no LoRA can carry them; and all modules, where known.

    A tensor that is another one written twice, as a tied output layer can be, is not there.
    """
    part = trained_part(known)
    inside = {name.removeprefix(part): name for name in known if name.startswith(part)}
    homes: dict[str, _Home | str] = dict.fromkeys(known, f"outside the {part.rstrip('/')}")
    model = _skeleton(base / part)
    if model is None:
        shapes = {bare: known[name] for bare, name in inside.items()}
        return homes | {name: _guess(bare, shapes) for bare, name in inside.items()}, None
    modules = dict(model.named_modules())
    first = {id(tensor): name for name, tensor in model.named_parameters()}  # tied tensors have one name here
    memory = {name: first[id(tensor)] for name, tensor in model.named_parameters(remove_duplicate=False)}
    uses = Counter(memory.values())
    found = match(inside, memory)
    homes |= {inside[bare]: "no parameter of the model" for bare in found.ours_alone}
    taken: set[str] = set()
    for bare, called in found.pairs.items():
        place = memory[called]
        if place in taken:
            del homes[inside[bare]]
        else:
            homes[inside[bare]] = "tied to another layer" if uses[place] > 1 else _home(place, modules)
        taken.add(place)
    return homes, set(modules)


def _skeleton(folder: Path) -> Any:
    """The model of a checkpoint without weights, or None where no installed library knows it. Runs no remote code."""
    import torch
    import transformers

    if not (folder / "config.json").is_file():
        return None
    config = read_json(folder / "config.json")
    try:
        with torch.device("meta"):
            if "_class_name" in config:
                import diffusers

                return getattr(diffusers, config["_class_name"]).from_config(config)
            loaded = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            known = getattr(transformers, (config.get("architectures") or [""])[0], None)
            if isinstance(known, type) and issubclass(known, transformers.PreTrainedModel):
                return known(loaded)
            auto: Any = transformers.AutoModel
            return auto.from_config(loaded, trust_remote_code=False)
    except (ImportError, AttributeError, ValueError, OSError):
        return None


def _home(place: str, modules: Mapping[str, Any]) -> _Home | str:
    """Where a parameter of a model lives, or why no LoRA can carry it."""
    from torch import nn

    path, _, part = place.rpartition(".")
    module = modules[path]
    parent, _, name = path.rpartition(".")
    outer: Any = type(modules[parent])
    above = [modules[".".join(path.split(".")[:i])] for i in range(path.count(".") + 1)]
    if any(isinstance(each, nn.MultiheadAttention) for each in [*above, module]):
        return "inside an attention of torch, which reads its weights directly"
    if part not in ("weight", "bias"):
        return f"a parameter of {type(module).__name__}"
    if path and name in _read_directly(outer):
        return f"{outer.__name__} reads it directly"
    if isinstance(module, nn.Embedding):
        return _Home(path, is_embedding=True)
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        if module.groups > 1 or set(module.dilation) != {1} or module.padding_mode != "zeros":
            return "a convolution with groups, dilation or other padding than zeros"
    elif not isinstance(module, nn.Linear):
        return f"of {type(module).__name__}"
    return _Home(path, is_bias=part == "bias")


@cache
def _read_directly(kind: type) -> frozenset[str]:
    """Layers whose weights a class of modules computes with, without calling them: a LoRA there is never applied."""
    try:
        source = inspect.getsource(kind.forward)  # type: ignore[attr-defined]
    except OSError:  # no source on this machine
        return frozenset()
    return frozenset(re.findall(r"(?<!isinstance\()\bself\.(\w+)\.weight\b(?!\.(?:dtype|device|shape))", source))


def _guess(name: str, known: Mapping[str, Entry]) -> _Home | str:
    """Where a tensor lives, from names and shapes alone; what may be anything but a linear layer is left out."""
    module, _, part = name.rpartition(".")
    above, _, last = module.rpartition(".")
    weight = known.get(f"{module}.weight")
    if f"{above}.in_proj_weight" in known:
        return "inside an attention of torch, which reads its weights directly"
    if part not in ("weight", "bias") or not weight or len(weight.shape) != 2 or re.search("emb|wte|wpe|shared", last):
        return "perhaps no linear layer: no installed library knows the model"
    return _Home(module, is_bias=part == "bias")
