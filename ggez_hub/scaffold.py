"""A new recipe for a region, from its family's pocket recipe: it runs as it stands, and says what to change next."""

from pathlib import Path

from ggez_hub import kof, registry
from ggez_hub.errors import ConfigError, InputError, did_you_mean
from ggez_hub.registry import Key
from ggez_hub.runs import write_text
from ggez_hub.schema import Recipe, Region

HEAD = """\
# As it stands, this recipe trains and measures on drawn pictures (synthetic): it shows that everything runs here.
# The comments say what to change for an adapter that people can use.
"""
COMMENTS: dict[Key, str] = {
    ("base",): """\
# The global model. Yours: its id on the Hub, the full commit (`hf models info ID` shows it as sha) and its license:
# base: {id: NAMESPACE/NAME, revision: COMMIT, license: apache-2.0}
""",
    ("data",): """\
# What it learns from. Yours: title, license, languages, and no `synthetic: true` unless a program made the pictures.
""",
    ("data", "reader"): """\
# Yours, in place of reader and options: `reader: parquet`, `path:` with a file or folder, and for columns of other
# names `columns: {image: THEIRS, text: THEIRS, country: THEIRS}`. Rows of the region's countries are kept.
# Several corpora: `sources: {NAME: {reader: ..., path: ..., license: ...}, ...}`, in place of all but title.
""",
    ("train",): """\
# Fit for the small pocket models. For a real base remove what you do not know better: the defaults are meant for it.
""",
    ("sweep",): """\
# What is asked at every alpha: names from `ggez ls benchmarks`, or of files of yours in recipes/benchmarks/.
""",
    ("sweep", "global"): "# The rest of the world, which must not be lost.\n",
    ("sweep", "regional"): "# The region. No picture of the training data may be among these questions.\n",
}
WEIGHT = """\
# The weight of global quality, 0..1: a mere placeholder, for the region has no KOF value. Give the right one, or
# run `ggez kof import FILE` with the official index and remove this line.
globalization: 0.5
"""
TAIL = """\
# What the model card says beyond what is measured; remove the `# ` to say it.
# card:
#   license: apache-2.0  # of the adapter; it has to go with those of the base and of the data
#   intended_use: who should use it, and for what
#   limits: what it cannot do, and what was not measured
#   cautions: what its users should watch for
# Who publishes it: your name on the Hub, or an organisation's.
# push:
#   namespace: YOU
"""


def new(region: str, family: str, path: Path | None = None) -> Path:
    """Writes a recipe for a region that validates, and runs on the pocket world at once.

    Args:
        region: Name of a region, shipped or of one's own.
        family: Name of a family of models.
        path: The file to write; None = ``<region>-<family>.yaml`` in the current folder.

    Returns:
        The file.

    Raises:
        InputError: Unknown region or family, a region that the pocket world cannot be asked about, or a file that
            exists already or does not end in .yaml.
    """
    source = _pocket_recipe(family)
    details = _region(region)
    path = path or Path(f"{region}-{family.replace('_', '-')}.yaml")
    if path.suffix != ".yaml":
        raise InputError(f"{path}: expected a file name that ends in .yaml", f"--out {path}.yaml")
    if path.exists():
        raise InputError(f"{path}: exists already", "give another name with --out, or remove it first")
    text = _recipe(source, region, details)
    registry.check(Recipe, registry.parse_yaml(text, str(path))[0], lambda key: str(path))
    write_text(path, text)
    return path


def _pocket_recipe(family: str) -> Path:
    """The recipe that new ones of a family are made from."""
    if family not in (known := registry.files("families")):
        raise ConfigError([f"unknown family {family!r}{did_you_mean(family, known)}"], "ggez ls families")
    return registry.find("recipes", f"pocket-sea-{family.replace('_', '-')}")


def _region(name: str) -> Region:
    """A region with pictures in the pocket world, and pictures beside it: both sides are asked.

    Raises:
        InputError: No such region, or one of the sides has no picture.
    """
    from ggez_hub.pocket import atlas

    if "/" in name or "\\" in name:
        raise InputError(f"{name!r}: expected the name of a region, not a path", "ggez ls regions")
    if name not in (known := registry.files("regions")):
        hint = f"ggez cp sea recipes/regions/{name}.yaml, edit title and countries, remove kof_countries and kof"
        raise ConfigError([f"unknown region {name!r}{did_you_mean(name, known)}"], f"to make it: {hint}")
    region = registry.load_region(name)
    concepts = atlas.concepts()
    if not any(concept.country in region.countries for concept in concepts):
        raise InputError(
            f"region {name!r}: the pocket world has no picture from {', '.join(region.countries)}, so the recipe "
            "could not run",
            f"with pictures of your own: ggez cp omniglot-sea {name}.yaml, and edit it; "
            "or draw a concept of one of these countries in ggez_hub/pocket/atlas",
        )
    if not any(concept.core and concept.country not in region.countries for concept in concepts):
        raise InputError(
            f"region {name!r} holds all countries of the pocket world, so nothing is left to ask as its global side",
            "take a part of it: ggez ls regions",
        )
    return region


def _recipe(source: Path, name: str, region: Region) -> str:
    """The text of a pocket recipe with another title and region, and comments above the keys that come next."""
    text = source.read_text(encoding="utf-8")
    value, places = registry.parse_yaml(text, str(source))
    lines = text.splitlines()
    for key, ours in (("title", f"{region.title}, {value['title'].rpartition(', ')[2]}"), ("region", name)):
        lines[places[key,] - 1] = registry.to_yaml({key: ours}).rstrip()
    above = dict.fromkeys(range(1, len(lines) + 1), "")
    for place, comment in COMMENTS.items():
        above[places[place]] += comment
    if not _has_kof(name):
        above[places["sweep", "global"]] = WEIGHT + above[places["sweep", "global"]]
    result = HEAD
    for number, line in enumerate(lines, 1):
        indent = line[: len(line) - len(line.lstrip())]
        result += "".join(f"{indent}{note}\n" for note in above[number].splitlines()) + f"{line}\n"
    return result + TAIL


def _has_kof(region: str) -> bool:
    try:
        kof.lookup(region)
    except InputError:
        return False
    return True
