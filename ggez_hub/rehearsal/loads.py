"""Loads what was published back with every library that should, offline, and compares what they compute with ours."""

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ggez_hub import device as devices
from ggez_hub import families
from ggez_hub.errors import GgezError, InputError
from ggez_hub.families.base import Loaded, Query, has_tokenizer
from ggez_hub.hub import HERE, UNREADABLE
from ggez_hub.merging.adapters import read_config
from ggez_hub.model import RegionalModel
from ggez_hub.schema import Recipe

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

OPTIONS = ("durian", "a plate of rice", "nothing")
PROMPT = "What is this?"
SIDE = 48  # pixels of a picture that is asked about
ROUNDING = 1e-5  # of outputs: less is no difference
TOLERANCE = 1e-3  # of outputs: more is another model
LORA = "pytorch_lora_weights.safetensors"
AUTO = {"vlm": "AutoModelForImageTextToText", "embedding": "AutoModel"}  # of transformers
LIBRARIES = {
    "vlm": ("peft", "transformers"),
    "embedding": ("peft", "transformers", "sentence_transformers"),
    "diffusion": ("peft", "diffusers"),
    "open_clip": ("peft", "open_clip"),
}
AGAIN = "publish it again; if it stays so, tell the maintainers of ggez_hub"
Said = Iterator[str]


def back(recipe: Recipe, published: Mapping[str, Path], base: Path) -> dict[str, str]:
    """Loads published folders with every library that should, and checks that all compute the same.

    Args:
        recipe: Whose they are.
        published: ``merged``, and, where the recipe trains one, ``adapter``: each a folder as `ggez push` lays it out.
        base: The folder of the base model.

    Returns:
        Library -> what was checked, in words.

    Raises:
        InputError: One does not load them, computes something else, or the adapter changes nothing.
    """
    checks: dict[str, Callable[[_Case], Said]] = {
        "ggez_hub": _ours,
        "peft": _peft,
        "transformers": _transformers,
        "sentence_transformers": _sentence_transformers,
        "diffusers": _diffusers,
        "open_clip": _open_clip,
    }
    case = _Case(recipe.family, published.get("adapter"), published["merged"], base)
    found = {}
    for library in ("ggez_hub", *LIBRARIES[recipe.family]):
        if importlib.util.find_spec(library) is None:
            found[library] = "not installed, so not tried"
            continue
        try:
            found[library] = "; ".join(checks[library](case)) or "nothing of this recipe is for it"
        except GgezError as err:
            err.hint = err.hint or AGAIN
            raise
        except UNREADABLE as err:
            folders, said = " or ".join(map(str, published.values())), " ".join(str(err).split())[:300]
            raise InputError(f"{folders}: {library} cannot load it: {type(err).__name__}: {said}", AGAIN) from err
    return found


@dataclass(frozen=True)
class _Case:
    """What is loaded; and what ggez_hub makes of a few questions, which all libraries have to make of them too.

    Attributes:
        expected: Outputs of the ``base`` (alpha 0), the ``adapter`` (alpha 1) and of what is ``merged``.
    """

    family: str
    adapter: Path | None
    merged: Path
    base: Path
    expected: "dict[str, np.ndarray]" = field(default_factory=dict)


def _ours(case: _Case) -> Said:
    """Loads all of it with RegionalModel, and notes what it makes of the questions."""
    import numpy as np

    def answers(model: RegionalModel) -> np.ndarray:
        return _latents(model.model) if case.family == "diffusion" else np.stack(model.predict(_queries()))

    if case.adapter:
        model = RegionalModel.from_pretrained(case.adapter, alpha=0.0, base=case.base)
        case.expected["base"] = answers(model)
        model.alpha = 1.0
        case.expected["adapter"] = answers(model)
        effect = _apart(case.expected["adapter"], case.expected["base"])
        if not 0 < effect < np.inf:
            what = "changes nothing" if effect == 0 else "makes outputs that are no numbers"
            raise InputError(f"{case.adapter}: the adapter {what}: outputs at alpha 1 against alpha 0",
                             "look at train/log.jsonl, then at train.learning_rate and warmup")  # fmt: skip
        small = ", less than rounding" if effect < ROUNDING else ""
        yield f"RegionalModel, adapter at alpha 0 and 1: outputs differ by up to {effect:.1g}{small}"
    model = RegionalModel.from_pretrained(case.merged)
    case.expected["merged"] = answers(model)
    yield f"RegionalModel, merged at alpha {model.alpha}"


def _same(case: _Case, artefact: str, how: str, loaded: Loaded) -> str:
    """Says how an artefact was loaded. Raises InputError where it computes something else than ours."""
    import numpy as np

    if case.family == "diffusion":
        found = _latents(loaded.pipeline)
    else:
        found = np.stack([scores[0] for scores in families.get(case.family).predict(loaded, _queries(), 8)])
    folder, expected = case.adapter if artefact == "adapter" else case.merged, case.expected[artefact]
    apart = _apart(found, expected)
    if not apart <= TOLERANCE * max(1.0, float(np.abs(expected).max())):
        raise InputError(f"{folder}: loaded by {how} it computes something else than by ggez_hub: outputs differ by "
                         f"up to {apart:.1g}", AGAIN)  # fmt: skip
    if artefact == "adapter":
        base = case.expected["base"]
        if _apart(expected, base) >= ROUNDING and _apart(found, base) < apart:
            raise InputError(f"{folder}: loaded by {how} the adapter has no effect",
                             AGAIN)  # fmt: skip
    return f"{how}, as ggez_hub to {max(apart, 1e-9):.0e}"


def _apart(one: "np.ndarray", other: "np.ndarray") -> float:
    """The largest difference."""
    import numpy as np

    return float(np.abs(one - other).max())


def _pictures() -> "list[Image]":
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)) for _ in range(2)]


def _queries() -> list[Query]:
    return [Query(picture, OPTIONS, PROMPT) for picture in _pictures()]


def _latents(pipe: Any) -> "np.ndarray":
    """What a pipeline draws before it becomes a picture, where small differences are not rounded away."""
    import numpy as np
    import torch

    pipe.set_progress_bar_config(disable=True)
    how = {"num_inference_steps": 2, "guidance_scale": 3.0, "output_type": "latent"}
    drawn: np.ndarray = pipe(PROMPT, generator=torch.Generator().manual_seed(0), **how).images.float().cpu().numpy()
    return drawn


def _found_by_name(adapter: Path) -> bool:
    """Whether the base that an adapter names can be found without the network, in a folder or in the cache."""
    from huggingface_hub import try_to_load_from_cache

    config = read_config(adapter)
    name, revision = config.get("base_model_name_or_path") or "", config.get("revision")
    if Path(name).is_dir() or name.count("/") != 1:
        return Path(name).is_dir()
    return isinstance(try_to_load_from_cache(name, "config.json", revision=revision), str)


# --------------------------------------------------------------------------------------------------- each library's way
def _peft(case: _Case) -> Said:
    """PeftModel on the base, which its own library loads."""
    if not case.adapter:
        return
    from peft import PeftModel

    loaded = _own(case, case.base)
    network = PeftModel.from_pretrained(loaded.model, str(case.adapter)).eval()
    if loaded.pipeline is not None:
        loaded.pipeline.unet = network
    yield _same(case, "adapter", "PeftModel.from_pretrained(base, ...)", replace(loaded, model=network))


def _own(case: _Case, folder: Path) -> Loaded:
    """A whole model as users of its library load it."""
    if case.family == "open_clip":
        return _open_clip_model(folder)
    if case.family == "diffusion":
        return _pipe(folder)
    return _auto(case.family, folder)


def _auto(family: str, folder: Path) -> Loaded:
    import transformers

    device = devices.best()
    how = {"dtype": devices.dtype(device), "use_safetensors": True, **HERE}
    model = getattr(transformers, AUTO[family]).from_pretrained(folder, **how)
    return Loaded(model.to(device).eval(), _processor(folder), folder)


def _processor(folder: Path) -> Any:
    from transformers import AutoProcessor

    if not has_tokenizer(folder):  # transformers would make an empty one
        raise InputError(f"{folder}: no tokenizer files")
    return AutoProcessor.from_pretrained(folder, **HERE)


def _transformers(case: _Case) -> Said:
    auto = AUTO[case.family]
    if case.adapter:
        loaded = _auto(case.family, case.base)
        loaded.model.load_adapter(str(case.adapter), adapter_name="ggez_regional")
        loaded = replace(loaded, processor=_processor(case.adapter))
        yield _same(case, "adapter", "base.load_adapter(...) and its processor", loaded)
        if _found_by_name(case.adapter):
            loaded = _auto(case.family, case.adapter)
            yield _same(case, "adapter", f"{auto}.from_pretrained(adapter)", loaded)
    yield _same(case, "merged", f"{auto}.from_pretrained(merged)", _auto(case.family, case.merged))


def _sentence_transformers(case: _Case) -> Said:
    """One vector for pictures and texts alike; compared with those of our own embedder."""
    import io

    import numpy as np
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(case.merged), local_files_only=True, device="cpu")
    found = np.concatenate([model.encode(_pictures()), model.encode(list(OPTIONS))])
    encoded = []
    for picture in _pictures():
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        encoded.append(buffer.getvalue())
    embedder = families.embedder(str(case.merged))
    apart = float(np.abs(found - np.concatenate([embedder.pictures(encoded), embedder.texts(OPTIONS)])).max())
    # bfloat16, which it computes in where the weights are of it, has three digits.
    if not apart <= 20 * TOLERANCE:
        raise InputError(f"{case.merged}: sentence_transformers embeds otherwise than ggez_hub: by up to {apart:.1g}",
                         AGAIN)  # fmt: skip
    yield f"SentenceTransformer(merged): pictures and texts, as ggez_hub to {max(apart, 1e-9):.0e}"


def _pipe(folder: Path) -> Loaded:
    from diffusers import DiffusionPipeline

    device = devices.best()
    pipe = DiffusionPipeline.from_pretrained(
        folder, use_safetensors=True, local_files_only=True, dtype=devices.dtype(device)
    ).to(device)
    return Loaded(pipe.unet, pipe, folder, pipe)


def _diffusers(case: _Case) -> Said:
    if case.adapter:
        loaded = _pipe(case.base)
        pipe: Any = loaded.pipeline
        how = {"weight_name": LORA, "use_safetensors": True, "local_files_only": True}
        pipe.load_lora_weights(str(case.adapter), adapter_name="regional", **how)
        if pipe.get_active_adapters() != ["regional"]:  # it says nothing where no name in the file fits
            raise InputError(f"{case.adapter}: diffusers finds no LoRA in {LORA}", AGAIN)
        pipe.set_adapters("regional", 1.0)
        yield _same(case, "adapter", "pipe.load_lora_weights(...)", loaded)
    yield _same(case, "merged", "DiffusionPipeline.from_pretrained(merged)", _pipe(case.merged))


def _open_clip_model(folder: Path) -> Loaded:
    import open_clip

    from ggez_hub.families.open_clip import Processor

    device = devices.best()
    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    return Loaded(model.to(device, devices.dtype(device)).eval(), Processor(preprocess, tokenizer), folder)


def _open_clip(case: _Case) -> Said:
    yield _same(case, "merged", 'create_model_from_pretrained("local-dir:merged")', _open_clip_model(case.merged))
