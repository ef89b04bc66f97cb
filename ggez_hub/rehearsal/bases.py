"""What is known of base models: their configurations as published, their licenses, and whether they are gated.

Twins are made, and costs are estimated, from nothing but these; weights are never fetched for it.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ggez_hub import families, hub, registry
from ggez_hub.errors import InputError
from ggez_hub.families import diffusion, open_clip
from ggez_hub.families.base import library
from ggez_hub.hub.names import hub_id
from ggez_hub.metadata import is_hub_id
from ggez_hub.recipes import load_recipe
from ggez_hub.schema import Base, HubId, Name, Positive, Recipe, Strict

Config = dict[str, Any]
TABLE = Path(__file__).parent / "bases"
# The classes that twins exist of, by family; a configuration that names no class is of the first one of its model_type.
TWINS: dict[str, tuple[str, ...]] = {
    "vlm": ("Gemma3ForConditionalGeneration",),
    "embedding": ("SiglipModel", "CLIPModel"),
    "diffusion": diffusion.PIPELINES,
    "open_clip": ("CLIP",),
}
MODEL_TYPES = {"gemma3": "Gemma3ForConditionalGeneration", "siglip": "SiglipModel", "clip": "CLIPModel"}
INDEX = "model_index"  # what a pipeline consists of
TOKENIZER = ("model_max_length", "pad_token")  # what a pipeline's tokenizers differ in
FILES = (  # that hold configurations, in the folder of a model or of a part
    "config.json",
    "scheduler_config.json",
    "preprocessor_config.json",
    "tokenizer_config.json",
    f"{INDEX}.json",
    open_clip.CONFIG,
)


class Known(Strict):
    """A file of the table."""

    id: HubId
    family: Name
    license: str
    gated: bool
    download: Positive | None = None  # bytes of what `ggez run` fetches
    config: dict[str, Any]


@dataclass(frozen=True)
class Architecture:
    """What a model is made of.

    Attributes:
        id: What the recipe calls it.
        family: Which family loads it.
        config: As published: config.json of transformers; of diffusers the configurations of all parts by their names,
            ``model_index`` among them; the whole of open_clip_config.json.
        license: The Hub's name for it; None = not known.
        gated: Whether the Hub asks to accept terms before it gives the files; None = not known.
        download: Bytes that fetching it takes; None = not known, so to be computed from the parameters.
        known_from: ``table``, ``folder``, ``the Hub``.
    """

    id: str
    family: str
    config: Mapping[str, Any]
    license: str | None
    gated: bool | None
    download: int | None
    known_from: str

    @property
    def class_name(self) -> str:
        """The class of its library: ``SiglipModel``, ``StableDiffusionXLPipeline``, ``CLIP``."""
        if INDEX in self.config:
            return str(self.config[INDEX].get("_class_name"))
        if "model_cfg" in self.config:
            model = self.config["model_cfg"]
            if name := model.get("text_cfg", {}).get("hf_model_name"):
                return f"CLIP with the text tower {name}"
            if name := model.get("vision_cfg", {}).get("timm_model_name"):
                return f"CLIP with the vision tower {name}"
            return "CoCa" if "multimodal_cfg" in model else "CLIP"
        model_type = self.config.get("model_type")
        return str((self.config.get("architectures") or [MODEL_TYPES.get(str(model_type), model_type)])[0])


_met: dict[str, Architecture] = {}  # on the Hub, by this process or the one that started it


def met() -> dict[str, dict[str, Any]]:
    """What was learned from the Hub, as plain data for another process."""
    return {name: asdict(architecture) for name, architecture in _met.items()}


def learn(met: Mapping[str, Mapping[str, Any]]) -> None:
    """Takes over what another process learned from the Hub, so that this one knows it offline."""
    _met.update({name: Architecture(**told) for name, told in met.items()})


# ------------------------------------------------------------------------------------------------------------- look-ups
def known() -> dict[str, Architecture]:
    """The models of the table, by id.

    Raises:
        ConfigError: A file of it is broken, with file and line.
    """
    rows = [registry.read(Known, path) for path in sorted(TABLE.glob("*.yaml"))]
    return {row.id: Architecture(**dict(row), known_from="table") for row in rows}


def of(recipe: Recipe, online: bool = False) -> Architecture:
    """The architecture of a recipe's base: shipped, in a folder, of the table, or, if online, on the Hub.

    Of a base that another recipe makes it is what that recipe starts from, under the name that it is published by.

    Args:
        recipe: The recipe.
        online: Whether the Hub may be asked, for configurations alone.

    Raises:
        InputError: A model that nothing is known of, or of an architecture that has no twin.
    """
    start, followed = recipe, [""]
    while start.base.recipe:
        followed.append(start.base.recipe)
        if followed.count(start.base.recipe) > 1:
            raise InputError(f"base.recipe: {' -> '.join(followed[1:])}: a circle", "name a base by base.id")
        start = load_recipe(start.base.recipe)
    base = start.base
    found = find(base.id, start.family, base.revision, online) if base.id else _of_random(base, start.family)
    if found.family != recipe.family:
        raise InputError(f"{found.id}: {found.class_name} is of family {found.family}, the recipe of {recipe.family}",
                         "change `family`, or the base")  # fmt: skip
    return replace(found, id=hub.base_name(recipe.base)) if recipe.base.recipe else found


def find(name: str, family: str, revision: str | None = None, online: bool = False) -> Architecture:
    """The architecture of any model.

    Args:
        name: A Hub id or a folder.
        family: Which family is to load it; what is found may turn out to be of another.
        revision: On the Hub.
        online: Whether the Hub may be asked, for configurations alone.

    Raises:
        InputError: Not known, or of an architecture that has no twin.
        HubError: The Hub refused or cannot be reached.
    """
    name = hub_id(name)
    table = known()
    if hub.is_shipped(name) or Path(name).is_dir():
        found = _read(hub.fetch(name), name, family)
    elif name in table:
        found = table[name]
    elif online and is_hub_id(name):
        found = _met[name] = _asked(name, family, revision)
    elif name in _met:
        found = _met[name]
    elif is_hub_id(name):
        raise InputError(
            f"{name}: nothing is known of this model without the network; known are {', '.join(table)}",
            "run this with the network, so that its configuration is fetched, or give a folder that holds the model",
        )
    else:
        raise InputError(f"{name}: no such folder, and not a Hub id (namespace/name)")
    if found.class_name not in (twins := TWINS.get(found.family, ())):
        raise InputError(
            f"{name}: its architecture is {found.class_name}, of which there is no twin; "
            f"of family {found.family} there are twins of {' and '.join(twins)}",
            "take a base of such an architecture, or try this one in a real run: ggez run RECIPE train.steps=2",
        )
    return found


def _read(folder: Path, name: str, family: str) -> Architecture:
    """That of a model in a folder, of which the configurations may be all there is."""
    if (folder / f"{INDEX}.json").is_file():
        family, index = "diffusion", _mapping(folder / f"{INDEX}.json")
        parts = {part.name: _mapping(part / file) for part in sorted(folder.iterdir()) for file in FILES
                 if part.name in index and (part / file).is_file()}  # fmt: skip
        for name in parts:
            if name.startswith("tokenizer"):
                kept = {key: value for key, value in parts[name].items() if key in TOKENIZER}
                parts[name] = {key: v["content"] if isinstance(v, dict) else v for key, v in kept.items()}
        config = {INDEX: index, **parts}
    elif (folder / open_clip.CONFIG).is_file():
        family, config = "open_clip", _mapping(folder / open_clip.CONFIG, "model_cfg")
        for part in ("text_cfg", "vision_cfg"):
            if not isinstance(config["model_cfg"].get(part), dict):
                raise InputError(f"{folder / open_clip.CONFIG}: model_cfg.{part}: expected a mapping")
    elif (folder / "config.json").is_file():
        config = _mapping(folder / "config.json")
        if str(config.get("model_type")) in ("siglip", "clip"):
            family = "embedding"
    else:
        raise InputError(f"{name}: no config.json, {INDEX}.json or {open_clip.CONFIG}, so not a model",
                         "give the folder that holds these")  # fmt: skip
    return Architecture(name, family, config, None, False, 0, "folder")


def _mapping(file: Path, *keys: str) -> Config:
    """What a JSON file says, of which these keys are mappings, too."""
    found = hub.read_json(file)
    for key, value in {"": found, **{key: found.get(key) for key in keys if isinstance(found, dict)}}.items():
        if not isinstance(value, dict):
            raise InputError(f"{file}: {key or 'its content'}: expected a mapping, found a {type(value).__name__}")
    return dict(found)


def _asked(name: str, family: str, revision: str | None) -> Architecture:
    """That of a model on the Hub."""
    from fnmatch import fnmatchcase

    from huggingface_hub import HfApi

    folder = hub.fetch(name, revision, only=[pattern for file in FILES for pattern in (file, f"*/{file}")])
    with hub.talking(name):
        info = HfApi().model_info(name, revision=revision, files_metadata=True)
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
    wanted, left = hub.wanted(sizes)
    fetched = [
        size for file, size in sizes.items()
        if any(fnmatchcase(file, each) for each in wanted) and not any(fnmatchcase(file, each) for each in left)
    ]  # fmt: skip
    license_ = info.card_data.get("license") if info.card_data else None
    return replace(_read(folder, name, family), license=license_ if isinstance(license_, str) else None,
                   gated=bool(info.gated), download=sum(fetched), known_from="the Hub")  # fmt: skip


def _of_random(base: Base, family: str) -> Architecture:
    """That of a random start, which is written to see what it is."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        parts = {part: hub.fetch(name) for part, name in base.parts.items()}
        families.get(family).write_tiny(folder, (), 0, parts, **(base.random or {}))
        return _read(folder, hub.base_name(base), family)


# -------------------------------------------------------------------------------------------------------- the real size
def built(architecture: Architecture) -> dict[str, Any]:
    """The real classes at their real sizes on the meta device, so without weights: for counting parameters and layers.

    Returns:
        The modules by their names: of diffusers ``unet``, ``vae``, ``text_encoder`` and such; else one, ``model``.

    Raises:
        InputError: The configuration does not make a model.
        DependencyError: The library of its family is not installed.
    """
    import torch

    config = architecture.config
    try:
        with torch.device("meta"):
            if INDEX not in config and "model_cfg" in config:
                return {"model": library("open_clip", "open_clip").model.CLIP(**config["model_cfg"])}
            if INDEX not in config:
                return {"model": of_transformers(architecture.class_name, config)}
            names = {name: value[1] for name, value in config[INDEX].items() if isinstance(value, list) and value[1]}
            return {name: part(names[name], config[name]) for name in names if is_network(names[name])}
    except hub.UNREADABLE as err:
        raise InputError(f"{architecture.id}: its configuration makes no {architecture.class_name}: {err}") from err


def is_network(class_name: str) -> bool:
    """Whether a part of a pipeline holds weights."""
    return not class_name.endswith(("Scheduler", "Tokenizer", "TokenizerFast", "Processor", "FeatureExtractor"))


def part(class_name: str, config: Mapping[str, Any]) -> Any:
    """A part of a pipeline with random weights."""
    diffusers = library("diffusers", "diffusion")
    if class_name == "StableDiffusionSafetyChecker":
        from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
        from transformers import CLIPConfig

        return StableDiffusionSafetyChecker(CLIPConfig(**config))
    if "model_type" in config:
        return of_transformers(class_name, config)
    return getattr(diffusers, class_name).from_config(dict(config))


def of_transformers(class_name: str, config: Mapping[str, Any]) -> Any:
    """A model of transformers with random weights."""
    import transformers

    made = transformers.AutoConfig.for_model(**config)
    return getattr(transformers, class_name)(made)
