"""The one place that knows where models come from and what they are called: shipped, in a folder, or on the Hub."""

import contextlib
import errno
import json
import os
import re
from collections.abc import Collection, Iterator, Sequence
from fnmatch import fnmatchcase
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel

from ggez_hub import registry
from ggez_hub.errors import GgezError, HubError, InputError
from ggez_hub.hub.names import hub_id
from ggez_hub.metadata import is_hub_id
from ggez_hub.runs import Run, fingerprint, write_text
from ggez_hub.schema import Base, Facts, Recipe

if TYPE_CHECKING:
    from huggingface_hub import ModelCard

SHIPPED = Path(__file__).parents[1] / "pocket" / "models"  # folders named like the repositories of the namespace below
NAMESPACE = "ggez-hub"
FACTS = "ggez.json"  # our own facts at the root of a published repository
SCHEMA = 1  # of that file
MAX_JSON = 16_000_000  # bytes of a JSON file that is read whole; the index of many shards is the largest
MAX_FACTS = 4_000_000  # ... of one of ours; results.json of many benchmarks is the largest
MAX_FILE = 64_000_000  # bytes of other files beside the weights; tokenizers of large vocabularies are the largest
MAX_CARD = 1_000_000  # bytes of a README.md
MAX_METADATA = 100_000  # ... of the YAML in it
MAX_MESSAGE = 500  # characters of what is said of a stranger's repository
M = TypeVar("M", bound=BaseModel)
SAFE_FILES = (
    "*.safetensors",
    "*.json",
    "*.jinja",
    "*.txt",
    "*.md",
    "*.yaml",
    "*.model",
    "*.spm",
    "*.tiktoken",
    "*.bpe",
)  # no pickle, no code
OPEN_CLIP = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors")  # as open_clip looks for them
SHARD = r"(?:-\d+-of-\d+)?"
VARIANT = re.compile(rf"(?P<stem>(?:.*/)?[^./]+?){SHARD}(?P<variant>\.\w+)?{SHARD}\.safetensors$")
HERE: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}  # for transformers: else it would ask
UNREADABLE = Exception  # what libraries may raise on a stranger's files: they take their word for types

STATUS_HINTS = {
    401: "`hf auth login` with a token that may do this",
    403: "your token may not do this (`hf auth whoami`); to write, another --namespace, or --pr for a pull request",
    412: "somebody else changed it meanwhile; look at it, then push again",
    429: "it asks to wait; try again in some minutes",
}


def fetch(name: str, revision: str | None = None, near: Path | None = None, only: Sequence[str] = SAFE_FILES) -> Path:
    """The local folder of a model: shipped with the package, on this machine, or fetched from the Hub.

    Args:
        name: ``ggez-hub/pocket-...`` (shipped, never looked up elsewhere), a folder, or a Hub id (also as in `hub_id`).
        revision: Commit, tag or branch on the Hub; resolved to a commit before anything is fetched.
        only: Patterns of the files that are fetched; by default all of SAFE_FILES but for copies, as `wanted` says.
        near: The repository that names this model. One from the Hub names others there alone, never a folder of this
            machine; one in a folder of the Hub's layout (NAMESPACE/NAME) also those beside it.

    Raises:
        InputError: No such thing.
        HubError: The Hub refused or cannot be reached.
    """
    name = hub_id(name)
    stem = name.partition("/")[2]
    if is_shipped(name):
        return SHIPPED / stem
    beside = [near.parent.parent / name, near.parent / stem / "merge" / "model"] if near else []
    if near is None or commit_of(near) is None:
        for folder in (Path(name), *beside):
            if folder.is_dir():
                return folder
    if not is_hub_id(name):
        raise InputError(f"{name}: no such folder, and not a Hub id (namespace/name)")
    with talking(name):
        found = _fetched(name, revision, only)
    for file in (path for path in found.rglob("*") if path.suffix != ".safetensors" and path.is_file()):
        called, size = file.relative_to(found).as_posix(), file.stat().st_size
        most = MAX_JSON if file.suffix == ".json" and file.name not in ("tokenizer.json", "vocab.json") else MAX_FILE
        if not called.isprintable():
            raise InputError(f"{name}: has a file named {called!r}", "tell its publisher, or the Hub")
        if size > most:
            raise InputError(f"{name}: {called} has {size} bytes, expected {most} at most")
    return found


def wanted(files: Collection[str]) -> tuple[list[str], list[str]]:
    """What of a model's files is fetched: nothing that is there twice, as no family loads it.

    Repositories of diffusers often have each part in another precision beside it (``model.fp16.safetensors``), and the
    whole pipeline in one file at the root; those of open_clip the same model for transformers.

    Args:
        files: Paths of all its files, or of those in the cache.

    Returns:
        Patterns of what is fetched, and of what of it is not.
    """
    weights, *others = SAFE_FILES
    allow, ignore = [weights, *others], []
    if "model_index.json" in files:
        beside = [file for file in files if "/" not in file and any(fnmatchcase(file, each) for each in others)]
        allow = [f"*/{each}" for each in SAFE_FILES]
        allow += [escape(file) for file in beside if ".safetensors.index." not in file]
    elif "open_clip_config.json" in files and (clip := next((file for file in OPEN_CLIP if file in files), None)):
        allow, ignore = [clip, *others], ["*.safetensors.index*.json"]
    named = filter(None, map(VARIANT.match, files))
    for stem in sorted({escape(match["stem"]) for match in named if not match["variant"]}):
        ignore += [f"{stem}.*.safetensors", f"{stem}-*-of-*.*.safetensors", f"{stem}.safetensors.index.*.json"]
    return allow, ignore


def _fetched(name: str, revision: str | None, only: Sequence[str]) -> Path:
    """The folder of a model in the cache; without the Hub as it was fetched before."""
    from httpx2 import TransportError
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled, RevisionNotFoundError

    try:
        info = HfApi().model_info(name, revision=revision)
    except (OfflineModeIsEnabled, TransportError, HfHubHTTPError) as err:
        if isinstance(err, RevisionNotFoundError) and not re.fullmatch("[0-9a-f]{40}", revision or ""):
            raise  # the cache does not know that a branch or tag has gone
        return _cached(name, revision, only, err)
    allow, ignore = list(only), list[str]()
    if only == SAFE_FILES:
        allow, ignore = wanted({file.rfilename for file in info.siblings or ()})
    # By its commit: of its files no others are known. And a look at a few of them must not lead the cache's `main` to a
    # model without its weights.
    found = Path(snapshot_download(name, revision=info.sha, allow_patterns=allow, ignore_patterns=ignore))
    if only == SAFE_FILES and revision != info.sha:
        reference = found.parents[1] / "refs" / (revision or "main")
        with contextlib.suppress(OSError):  # a cache that may only be read
            reference.parent.mkdir(parents=True, exist_ok=True)
            write_text(reference, str(info.sha))
    return found


def _cached(name: str, revision: str | None, only: Sequence[str], why: Exception) -> Path:
    """The same from the cache alone."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, IncompleteSnapshotError, LocalEntryNotFoundError

    there: dict[str, Any] = {"revision": revision, "local_files_only": True}
    try:
        try:
            return Path(snapshot_download(name, allow_patterns=list(only), **there))
        except IncompleteSnapshotError as err:
            if only != SAFE_FILES:
                raise
            folder = Path(err.snapshot_path)
        allow, ignore = wanted({path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()})
        return Path(snapshot_download(name, allow_patterns=allow, ignore_patterns=ignore, **there))
    except LocalEntryNotFoundError:
        if isinstance(why, HfHubHTTPError):
            raise why from None
        raise


def read(folder: Path, name: str, model: type[M], called: str) -> M:
    """Reads a JSON file of a published repository, whoever wrote it.

    Args:
        folder: The repository.
        name: The file.
        model: What it has to say.
        called: What the repository is called in messages.

    Raises:
        InputError: No such file, or it says something else.
    """
    path = folder / name
    if not path.is_file():
        raise InputError(f"{called}: no {name}, so not a model that ggez_hub published", "load it with its own library")
    value = read_json(path, MAX_FACTS)
    if model is Facts and isinstance(value, dict) and value.get("schema") != SCHEMA:
        raise InputError(f"{called}: {name} has schema {value.get('schema')!r}, expected {SCHEMA}", "update ggez_hub")
    return registry.check(model, value, lambda key: f"{called}: {name}:")


def read_json(path: Path, most: int = MAX_JSON) -> Any:
    """Reads a JSON file that a stranger may have written, of so many bytes at most.

    Raises:
        InputError: Missing, too large, not JSON, too deeply nested, or with a key given twice.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError("a key is given twice")
        return found

    try:
        if (size := path.stat().st_size) > most:
            raise ValueError(f"{size} bytes, expected {most} at most")
        return json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=once)
    except RecursionError as err:
        raise InputError(f"{path}: cannot be read: nested too deeply") from err
    except (OSError, ValueError) as err:
        raise InputError(f"{path}: cannot be read: {err}") from err


def read_card(folder: Path, called: str) -> "ModelCard":
    """The model card of a published repository.

    Args:
        folder: The repository.
        called: What it is called in messages.

    Raises:
        InputError: No card, or one that cannot be read.
    """
    from huggingface_hub import ModelCard
    from huggingface_hub.repocard import REGEX_YAML_BLOCK

    path = folder / "README.md"
    try:
        if (size := path.stat().st_size) > MAX_CARD:
            raise ValueError(f"{size} bytes, expected {MAX_CARD} at most")
        text = path.read_text(encoding="utf-8")
        # The client reads the metadata with a parser that has no bounds, so with ours first.
        if (block := REGEX_YAML_BLOCK.search(text)) and len(block[2]) > MAX_METADATA:
            raise ValueError(f"metadata of {len(block[2])} characters, expected {MAX_METADATA} at most")
        registry.parse_yaml(block[2] if block else "", "its metadata")
        return ModelCard(text)
    except UNREADABLE as err:
        raise InputError(f"{called}: README.md cannot be read as a model card: {err}") from err


@contextlib.contextmanager
def naming(name: str = "") -> Iterator[None]:
    """Makes every error that a repository causes name it, in words that a terminal can show, and not too many."""
    try:
        yield
    except GgezError as err:
        from huggingface_hub import constants

        cache = re.escape(str(Path(constants.HF_HUB_CACHE).expanduser().resolve()))
        said = re.sub(rf"{cache}/models--(\S+?)--(\S+?)/snapshots/[0-9a-f]{{40}}", r"\1/\2", err.message)
        said = said if name in said else f"{name}: {said}"
        said = "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in said)
        err.message = said if len(said) <= MAX_MESSAGE else f"{said[:MAX_MESSAGE]} ..."
        raise


def commit_of(folder: Path) -> str | None:
    """The commit of a repository that was fetched from the Hub, given its folder; None for any other folder."""
    there = folder.resolve()
    return there.name if there.parent.name == "snapshots" and re.fullmatch(r"[0-9a-f]{40}", there.name) else None


def holds(folder: Path, file: Path) -> bool:
    """Whether a file lies in a folder, links followed; of a repository from the Hub they lead to its own blobs."""
    folder, file = folder.resolve(), file.resolve()
    homes = (folder, folder.parents[1] / "blobs") if commit_of(folder) else (folder,)
    return any(map(file.is_relative_to, homes))


@contextlib.contextmanager
def talking(name: str) -> Iterator[None]:
    """Turns what the Hub's client raises into one message that names the repository, and what to do.

    Raises:
        InputError: Not a Hub id, or a card that the Hub refuses.
        HubError: Anything else that went wrong on the way or over there.
    """
    from httpx2 import HTTPError
    from huggingface_hub import errors

    try:
        yield
    except errors.HFValidationError as err:
        raise InputError(f"{name}: no such folder, and not a Hub id (namespace/name)") from err
    except errors.GatedRepoError as err:
        raise HubError(f"{name}: access is restricted", "ask for access on its page, then `hf auth login`") from err
    except errors.RevisionNotFoundError as err:
        raise HubError(f"{name}: has no such revision", "give another one, or none") from err
    except errors.RepositoryNotFoundError as err:
        raise HubError(f"{name}: no such repository, or it is private", "check the name, or `hf auth login`") from err
    except errors.LocalTokenNotFoundError as err:
        raise HubError(f"{name}: the Hub asks who you are", "`hf auth login`, or set HF_TOKEN") from err
    except errors.HfHubHTTPError as err:
        status, said = err.response.status_code, err.server_message or err.response.reason_phrase
        hint = STATUS_HINTS.get(status, "try again later; what is there already is not sent again")
        raise HubError(f"{name}: the Hub says {status}: {said}", hint) from err
    except ValueError as err:
        raise InputError(f"{name}: {err}") from err
    except (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError, errors.RevisionResolutionError) as err:
        raise HubError(f"{name}: the Hub cannot be reached, and there is no local copy", "check the network") from err
    except (HTTPError, ConnectionError) as err:
        raise HubError(f"{name}: the Hub cannot be reached ({err})", "check the network, then try again") from err
    except OSError as err:
        if err.errno != errno.ENAMETOOLONG:
            raise
        raise InputError(f"{name}: has a file whose name is too long", "tell its publisher, or the Hub") from err


def shipped() -> list[str]:
    """Names of the models that travel in the package."""
    return sorted(p.name for p in SHIPPED.iterdir()) if SHIPPED.is_dir() else []


def is_shipped(name: str) -> bool:
    """Whether a model travels in the package, given its id."""
    namespace, _, stem = name.partition("/")
    return namespace == NAMESPACE and stem in shipped()


def base_folder(base: Base, run: Run) -> Path:
    """The local folder of a recipe's base model.

    Raises:
        InputError: The recipe that makes it has not been run yet.
    """
    if base.id:
        return fetch(base.id, base.revision)
    if base.recipe:
        made = Run(run.out / base.recipe)
        if made.manifest("merge") is None:
            raise InputError(
                f"the base is the output of recipe {base.recipe!r}, which is not in {run.out}{os.sep}",
                f"ggez run {base.recipe} --out {run.out}",
            )
        return made.stage("merge") / "model"
    return run.stage("train") / "base"


def base_files(base: Base, run: Run) -> dict[str, str]:
    """What a stage that reads the base depends on; a random start is made by the run itself."""
    return {} if base.random is not None else {"base_files": fingerprint(base_folder(base, run))}


def base_name(base: Base) -> str:
    """What a base is called on cards and in adapter_config.json: a Hub id."""
    if base.random is not None:
        return "random weights"
    return hub_id(base.id) if base.id else f"{NAMESPACE}/{base.recipe}"


def base_revision(base: Base, run: Run) -> str | None:
    """The commit of a base that came from the Hub."""
    return commit_of(base_folder(base, run)) if base.id else None


def artefacts(recipe: Recipe) -> tuple[str, ...]:
    """What a recipe publishes: full training makes no adapter."""
    return ("adapter", "merged") if recipe.train.method == "lora" else ("merged",)


def repo_id(recipe: Recipe, name: str, artefact: str) -> str:
    """The repository of an artefact: ``<namespace>/<recipe>``, with ``-lora`` for the adapter."""
    return f"{recipe.push.namespace}/{name}{'-lora' if artefact == 'adapter' else ''}"
