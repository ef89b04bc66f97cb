"""Publishing a Space: its folder, the package itself and pinned requirements, so that it runs what was tried here."""

import importlib.metadata
import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ggez_hub import hub, metadata, registry, spaces
from ggez_hub.errors import DependencyError, HubError, InputError
from ggez_hub.hub import datasets, publish, search
from ggez_hub.hub.names import hub_id
from ggez_hub.hub.publish import Change, Content
from ggez_hub.schema import Facts
from ggez_hub.scoring import ratings
from ggez_hub.stages import card

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

PACKAGE = Path(__file__).parents[1]
PUBLISHED = (
    "*.py", "*.typed", "*.js", "*.css", "*.html", "*.svg", "*.j2", "*.jinja", "*.json", "*.jsonl", "*.yaml", "*.csv",
    "*.md", "*.png", "*.webp", "*.safetensors",
)  # fmt: skip
LEFT_OUT = ("__pycache__", "ratings", "runs")  # folders; ratings are people's
EXTRAS = {"playground": ("spaces", "diffusion", "open_clip"), "parity": ("spaces",), "annotate": ("spaces",)}
# Instead of what is installed here: ZeroGPU has torch 2.8 to 2.11, and the Hub also installs gradio's extra mcp, which
# wants no later pydantic.
INSTEAD = {"torch": "2.11.0", "torchvision": "0.26.0", "pydantic": "2.12.5"}
MAX_PRELOADED = 10  # repositories
PRELOADED = re.compile(r"[\w.+/-]+", re.ASCII)  # files whose name is no part of the list's own syntax
NEXT = {
    "playground": "a GPU is given to it in its settings, under Hardware; a model that is private or gated needs the "
    "secret HF_TOKEN, under Variables and secrets",
    "parity": "it needs no GPU; a model that is private needs the secret HF_TOKEN, in its settings",
    "annotate": "in its settings, under Variables and secrets, give the secret GGEZ_ADMIN_KEY for the page of the "
    "administrator, and GGEZ_RATINGS_REPO with the secret HF_TOKEN to keep ratings in a dataset; with persistent "
    "storage no rating is lost when it restarts",
}


class Shown(NamedTuple):
    """A repository that a Space shows.

    Attributes:
        line: What the list of the Space says.
        ids: The repositories on the Hub that it needs.
        preload: What is fetched while the Space is built.
        files: What is copied into the Space.
    """

    line: str
    ids: tuple[str, ...] = ()
    preload: tuple[str, ...] = ()
    files: Mapping[str, Content] = {}


def change(name: str, repos: Sequence[str] = (), namespace: str | None = None) -> Change:
    """What publishing an app would change in the Space ``<namespace>/ggez-<name>``; reads from the Hub, writes nothing.

    Args:
        name: The app.
        repos: What it shows, as `files` takes it.
        namespace: Whose Space; None = of the user who is logged in.

    Raises:
        InputError: No such app or repository, or a Space of that name holds something else.
        DependencyError: Something that the Space needs is not installed here.
        HubError: The Hub refused or cannot be reached.
    """
    found = files(name, repos)
    repo_id = f"{namespace or _user()}/ggez-{name}"
    if not metadata.is_hub_id(repo_id):
        raise InputError(f"--namespace {namespace!r}: expected a user or an organisation of the Hub")
    changed = publish.compare(repo_id, found, kind="space")
    if "README.md" in changed.changed and (kept := card.own_lines(publish.text(changed, "README.md"))):
        found["README.md"] = _text(found["README.md"]).replace(f"{card.BEGIN}\n", f"{card.BEGIN}\n{kept}").encode()
        return publish.compare(repo_id, found, kind="space")
    return changed


def address(repo_id: str) -> str:
    """The page of a Space."""
    from huggingface_hub import HfApi

    return f"{HfApi().endpoint}/spaces/{repo_id}"


def files(name: str, repos: Sequence[str] = ()) -> dict[str, Content]:
    """Everything that the repository of a Space holds: `python app.py` in it needs only what its requirements name.

    Args:
        name: The app.
        repos: What it shows: Hub ids (``namespace/name``, with ``@`` and a revision if wanted), which are pinned to
            their commit, or folders in the layout of a published repository, which are copied; of annotate, datasets.

    Returns:
        Path in the repository -> where the file lies, or what it says.

    Raises:
        InputError: No such app, or no such repository, or one that cannot be shown.
        DependencyError: Something that the Space needs is not installed here.
        HubError: The Hub refused or cannot be reached.
    """
    found: dict[str, Content] = _below(spaces.folder(name))
    found["requirements.txt"] = requirements(name).encode()
    shown = _datasets(repos) if name == "annotate" else [_model(repo, name == "playground") for repo in _once(repos)]
    for each in shown:  # a copy takes the place of a shipped one of its name, whose examples are not its own
        found = {
            path: file
            for path, file in found.items()
            if not path.startswith(f"models/{each.line}/")
            and not (each.files and fnmatch(path, "examples/*.json") and f'"{each.line}"' in _text(file))
        }
        found |= each.files
    if shown:
        found[spaces.REPOS] = "".join(f"{line}\n" for line in _once(each.line for each in shown)).encode()
    found["README.md"] = _readme(name, _text(found["README.md"]), shown).encode()
    data = {f"_data/{part}/{path}": file for part in ("recipes", "cards")
            for path, file in _below(registry.data_root() / part).items()}  # fmt: skip
    package = {path: file for path, file in _below(PACKAGE).items() if not path.startswith("_data/")}
    return found | {f"ggez_hub/{path}": file for path, file in (package | data).items()}


def _below(folder: Path, patterns: Sequence[str] = PUBLISHED) -> dict[str, Content]:
    """The files in a folder that may be published, by path: of known kinds, none hidden, none that a link leads to."""
    root = folder.resolve()
    return {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.resolve().is_relative_to(root)
        and not any(part.startswith(".") or part in LEFT_OUT for part in path.relative_to(folder).parts)
        and any(fnmatch(path.name, pattern) for pattern in patterns)
    }


def requirements(name: str) -> str:
    """What an app needs besides this package, each at its version here, in pip's format.

    Raises:
        DependencyError: Something is not installed here.
    """
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    wanted = map(Requirement, importlib.metadata.requires("ggez_hub") or ())
    extras = [{"extra": extra} for extra in ("", *EXTRAS[name])]
    needed = {
        canonicalize_name(each.name): f"[{','.join(sorted(each.extras))}]" if each.extras else ""
        for each in wanted
        if each.marker is None or any(each.marker.evaluate(extra) for extra in extras)
    }
    return "".join(f"{package}{parts}=={_version(package)}\n" for package, parts in sorted(needed.items()))


def _version(package: str) -> str:
    """The version of a package that a Space gets: the one installed here, without what names a build of it."""
    try:
        return INSTEAD.get(package) or importlib.metadata.version(package).partition("+")[0]
    except importlib.metadata.PackageNotFoundError as err:
        raise DependencyError(
            f"the Space needs {package}, whose version here it gets", f"pip install {package}"
        ) from err


def _readme(name: str, shipped: str, shown: Sequence[Shown]) -> str:
    """The shipped README with the keys that depend on what is installed and shown."""
    import yaml

    data: dict[str, Any] = metadata.read(shipped) | {"sdk_version": _version("gradio")}
    ids = _once(repo_id for each in shown for repo_id in each.ids)
    preload = _once(line for each in shown for line in each.preload)[:MAX_PRELOADED]
    data |= {"datasets" if name == "annotate" else "models": ids} if ids else {}
    data |= {"preload_from_hub": preload} if preload else {}
    head = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=10_000)
    return f"---\n{head}---\n{metadata.split(shipped)[1]}"


# -------------------------------------------------------------------------------------------------------- what is shown
def _model(repo: str, whole: bool) -> Shown:
    """A published model; `whole` where the app loads it, and not only what it says of itself."""
    if Path(repo).is_dir():
        return _copied(Path(repo), whole)
    name, revision = spaces.split_revision(repo)
    folder, facts, _ = search.described(name, revision or None)
    name, commit = hub_id(name), _commit(name, folder)
    _check(repo, facts, whole)
    ids, preload = [name], [_preload(_info(name, commit))] if whole else []
    if not hub.is_shipped(facts.base.id):
        base = _info(facts.base.id, facts.base.revision)
        ids.append(base.id)
        preload += [_preload(base)] if whole else []
    return Shown(f"{name}@{commit}", tuple(ids), tuple(filter(None, preload)))


def _commit(name: str, folder: Path) -> str:
    commit = hub.commit_of(folder)
    if commit is None:
        raise InputError(f"{name}: a folder, which has no revisions", f"--repo {name}")
    return commit


def _check(repo: str, facts: Facts, whole: bool) -> None:
    if whole and facts.artefact != "adapter":
        raise InputError(f"{repo}: a merged model, which stays at its alpha", "give the adapter's repository")


def _copied(folder: Path, whole: bool) -> Shown:
    """A model in a folder, which goes into the Space."""
    layout = "`ggez push RECIPE --to DIR` writes DIR/NAMESPACE/NAME, which can be shown"
    repo_id = "/".join(folder.resolve().parts[-2:])
    found = _below(folder, hub.SAFE_FILES)
    if not metadata.is_hub_id(repo_id) or not {hub.FACTS, "results.json"} <= found.keys():
        raise InputError(f"{folder}: expected a folder NAMESPACE/NAME with {hub.FACTS} and results.json", layout)
    facts = search.described(str(folder))[1]
    _check(str(folder), facts, whole)
    base, ids = facts.base, []
    if not hub.is_shipped(base.id):
        try:
            ids.append(_info(base.id, base.revision).id)
        except (InputError, HubError) as err:
            raise InputError(
                f"{folder}: its base {base.id} is not on the Hub: {err.message}", "publish the base, then the Space"
            ) from err
    return Shown(repo_id, tuple(ids), files={f"models/{repo_id}/{path}": file for path, file in found.items()})


def _datasets(repos: Sequence[str]) -> list[Shown]:
    """Datasets of items to rate, which are checked together."""
    shown, folders = [], []
    pictures = [f"*{suffix}" for suffix in ratings.PICTURES]
    for repo in _once(repos):
        if Path(repo).is_dir():
            raise InputError(
                f"{repo}: a folder, expected a dataset of the Hub",
                f"`hf upload NAMESPACE/NAME {repo} --repo-type dataset`, then --repo NAMESPACE/NAME",
            )
        name, revision = spaces.split_revision(repo)
        folders.append(datasets.fetch(name, revision or None, [ratings.ITEMS, *pictures]))
        shown.append(Shown(f"{name}@{_commit(name, folders[-1])}", (name,)))
    if folders:
        with hub.naming(", ".join(repos)):
            ratings.load(*folders)
    return shown


def _info(repo_id: str, revision: str | None) -> "ModelInfo":
    from huggingface_hub import HfApi

    if not metadata.is_hub_id(repo_id):
        raise InputError(f"{repo_id}: not a Hub id (namespace/name)")
    with hub.talking(repo_id):
        return publish.retried(HfApi().model_info, repo_id, revision=revision)


def _preload(info: "ModelInfo") -> str | None:
    """What the Hub fetches as it builds the Space, where it may: it does so without the Space's secrets."""
    paths = [sibling.rfilename for sibling in info.siblings or ()]
    paths = [path for path in paths if PRELOADED.fullmatch(path) and any(fnmatch(path, p) for p in hub.SAFE_FILES)]
    return None if info.private or info.gated or not paths else f"{info.id} {','.join(paths)} {info.sha}"


def _user() -> str:
    from huggingface_hub import HfApi

    with hub.talking("your Space"):
        return str(publish.retried(HfApi().whoami)["name"])


def _once(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


def _text(content: Content) -> str:
    return content.decode() if isinstance(content, bytes) else content.read_text(encoding="utf-8")
