"""What the playground asks: adapters, questions, and the answers at every alpha of a grid."""

import base64
import contextlib
import io
import itertools
import json
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ggez_hub import hub, registry
from ggez_hub.errors import GgezError, InputError
from ggez_hub.runs import write_json
from ggez_hub.schema import Facts, Results
from ggez_hub.spaces import _entries, page, split_revision

if TYPE_CHECKING:
    from PIL.Image import Image

    from ggez_hub.model import RegionalModel

Alphas = tuple[float, ...]  # one for each region
SEARCH = ("embedding", "open_clip")
MODELS = 4  # in memory at once, of pocket ones
GRIDS = 64
POINTS = 300  # of a grid, with those of the number box
PICTURES = 24  # that are searched in
MAX_REGIONS = 3
MAX_TEXT = 500  # characters
MAX_OPTIONS = 10
MAX_SEED = 2**31 - 1


@dataclass(frozen=True)
class Adapter:
    """A published adapter, before its weights are read."""

    name: str
    place: str  # what loads it
    revision: str | None
    facts: Facts
    results: Results
    globalization: str  # the KOF value in a sentence

    @property
    def region(self) -> str:
        """The region's title."""
        return _entries.region_title(self.facts.region)


@dataclass(frozen=True)
class Question:
    """What is asked; equal ones have equal answers.

    Attributes:
        adapters: One, or several of one base.
        text: What to draw, to ask, or to search for.
        picture: That the question is about, or that is searched with: a pocket picture's path, or encoded.
        options: That are scored.
        gallery: Own pictures to search in: names, and encoded.
        seed: Of a drawing.
    """

    adapters: tuple[str, ...]
    text: str = ""
    picture: str | bytes = ""
    options: tuple[str, ...] = ()
    gallery: tuple[tuple[str, bytes], ...] = ()
    seed: int = 0


@dataclass
class Grid:
    """Answers to one question: scores (of options, or of pictures), a text, or a picture as PNG or WebP."""

    question: Question
    answers: dict[Alphas, Any] = field(default_factory=dict)


class Shelf:
    """The adapters of an app, the models that are in memory, and the answers that were computed last.

    Attributes:
        names: Of the adapters.
    """

    def __init__(self, folder: Path, repos: Sequence[str] = ()) -> None:
        shipped = (folder / "models").resolve()
        self._places: dict[str, tuple[str, str | None]] = {}  # name: what loads it, revision
        for repo in repos or sorted(f"{p.parent.name}/{p.name}" for p in shipped.glob("*/*") if p.is_dir()):
            name, revision = split_revision(repo)
            folders = () if revision else (shipped / name, Path(name))
            local = next((path.resolve() for path in folders if path.is_dir()), None)
            # A folder of this machine is shown by the end of its path, which is the id that it would have on the Hub.
            place, name = (str(local), "/".join(local.parts[-2:])) if local else (name, name)
            self._places[name] = place, revision
        if not self._places:
            raise InputError(f"{shipped}: no adapters", "name some with --repo")
        self.names = list(self._places)
        self._known: dict[str, Adapter] = {}
        self._model = lru_cache(maxsize=MODELS)(self._loaded)
        self._lock = threading.Lock()  # one model call at a time, also for equal questions
        self._grids: OrderedDict[Question, Grid] = OrderedDict()
        # Those of the adapters that travel with them: another one of the same name answers otherwise.
        own = [name for name, (place, _) in self._places.items() if Path(place).is_relative_to(shipped)]
        self.examples = _examples(folder / "examples", own)

    def adapter(self, name: str) -> Adapter:
        """What a repository says about its adapter; asked again where it could not be had.

        Raises:
            InputError: Not offered here, or not an adapter.
            HubError: The Hub refused or cannot be reached.
        """
        if not isinstance(name, str) or name not in self._places:
            raise InputError(f"{name}: not offered here", "choose one from the list")
        if name in self._known:
            return self._known[name]
        place, revision = self._places[name]
        with _called(place, name), hub.naming(name):
            root = hub.fetch(place, revision, only=(hub.FACTS, "results.json"))
            facts = hub.read(root, hub.FACTS, Facts, name)
            if facts.artefact != "adapter":
                raise InputError(f"{name}: a merged model, which stays at its alpha", "give the adapter's repository")
            if facts.family not in registry.files("families"):
                raise InputError(f"{name}: of family {facts.family!r}, which is unknown here", "update ggez_hub")
            results = _entries.checked(hub.read(root, "results.json", Results, name))
            said = hub.read_json(root / "results.json", hub.MAX_FACTS)["globalization"]
        found = Adapter(name, place, hub.commit_of(root), facts, results, _globalization(results, said))
        self._known[name] = found
        return found

    def others(self, name: str) -> list[str]:
        """The adapters of other regions on the same base, as far as they could be had."""
        own = self.adapter(name).facts
        return [
            other
            for other in self.names
            if (known := self._known.get(other))
            and (known.facts.family, known.facts.base) == (own.family, own.base)
            and known.facts.region != own.region
        ]

    def _loaded(self, names: tuple[str, ...]) -> "RegionalModel":
        from ggez_hub.model import RegionalModel

        first, *more = (self.adapter(name) for name in names)
        if not first.facts.synthetic and not page.on_zero_gpu():
            self._model.cache_clear()  # a model that is no pocket one may need all the memory
        with _called(first.place, first.name):
            try:
                model = RegionalModel.from_pretrained(first.place, revision=first.revision)
                for adapter in more:
                    model.load_adapter(adapter.place, revision=adapter.revision)
            except GgezError:
                raise
            except hub.UNREADABLE as err:  # a stranger's files
                raise InputError(f"{first.name}: cannot be loaded: {err}", "choose another one, or try again") from err
        return model

    def warm(self) -> None:
        """Loads as many models as stay in memory, for processes that are forked from this one."""
        for name in self.names[:MODELS]:
            try:
                self._model((name,))
            except GgezError:
                continue  # it says why when it is asked

    def example(self, question: Question | None) -> Grid | None:
        """The answers that travel with the app; no model is asked."""
        return Grid(question, self.examples[question]) if question in self.examples else None

    def grid(self, question: Question, exact: Alphas | None = None) -> Grid:
        """The answers at every alpha of the grid, and at one beside it.

        Args:
            question: What is asked.
            exact: Alphas that need not be in the grid.

        Raises:
            GgezError: The model cannot be loaded, or cannot answer.
        """
        with self._lock:
            grid = self._grids.pop(question, None) or Grid(question, dict(self.examples.get(question, {})))
            wanted = self.alphas(question.adapters) if not grid.answers else []
            missing = [*wanted, *([exact] if exact and exact not in wanted and exact not in grid.answers else [])]
            if missing:
                found = _answers(self._model(question.adapters), question, missing)
                if len(grid.answers) >= POINTS:  # of the number box: it starts anew
                    grid.answers = {alphas: grid.answers[alphas] for alphas in self.alphas(question.adapters)}
                grid = Grid(question, dict(sorted((grid.answers | dict(zip(missing, found, strict=True))).items())))
            self._grids[question] = grid
            while len(self._grids) > GRIDS:
                self._grids.popitem(last=False)
            return grid

    def alphas(self, names: Sequence[str]) -> list[Alphas]:
        """The grid: 0 to 1 in equal steps, and the recommended alphas; of several regions all combinations."""
        steps = self.steps(names)
        axes = [
            sorted({*(round(i / steps, 4) for i in range(steps + 1)), self.adapter(name).facts.alpha}) for name in names
        ]
        return list(itertools.product(*axes))

    def steps(self, names: Sequence[str]) -> int:
        """How many steps from 0 to 1 a grid has. A large picture takes its time, and combinations are many."""
        facts = self.adapter(names[0]).facts
        large = facts.family == "diffusion" and not facts.synthetic
        if len(names) > 1:
            return 2 if large else 4
        return 10 if large else 20

    def pictures(self, names: Sequence[str]) -> dict[str, str]:
        """Pocket pictures for adapters that know these: path and name, half of them from their regions."""
        facts = [self.adapter(name).facts for name in names]
        return _pocket_pictures(tuple(each.region for each in facts)) if facts[0].synthetic else {}

    def view(self, grid: Grid) -> dict[str, Any]:
        """A grid as plain data, for the page and for programs; pictures that were drawn are apart."""
        question, adapters = grid.question, [self.adapter(name) for name in grid.question.adapters]
        family = adapters[0].facts.family
        alphas = list(grid.answers)
        answers = list(grid.answers.values())
        view: dict[str, Any] = {
            "adapters": list(question.adapters),
            "regions": [adapter.region for adapter in adapters],
            "recommended": [adapter.facts.alpha for adapter in adapters],
            "alphas": [list(each) for each in alphas],
            "base": alphas.index((0.0,) * len(adapters)),
            "text": question.text,
        }
        if family == "diffusion":
            return view | {"kind": "drawing", "seed": question.seed}
        shown = _small(question.picture) if question.picture else None
        if family in SEARCH:
            names, pictures = zip(*_searched(question, [each.facts.region for each in adapters]), strict=True)
            thumbs = [_small(each) for each in pictures]
            shown = None if question.text else shown
            return view | {"kind": "search", "scores": answers, "names": names, "thumbs": thumbs, "picture": shown}
        if question.options:
            shares = [_shares(scores) for scores in answers]
            return view | {"kind": "choice", "options": question.options, "shares": shares, "picture": shown}
        return view | {"kind": "text", "texts": answers, "picture": shown}


@contextlib.contextmanager
def _called(place: str, name: str) -> Iterator[None]:
    """Makes errors name the adapter as users know it, and no folder of this machine."""
    try:
        yield
    except GgezError as err:
        for form, known in ((place, name), (str(hub.SHIPPED), hub.NAMESPACE)):
            err.message = err.message.replace(form, known)
        raise


def _answers(model: "RegionalModel", question: Question, alphas: Sequence[Alphas]) -> list[Any]:
    """The answers of a model at several alphas, from one batch."""
    import numpy as np
    from PIL import Image

    from ggez_hub.families.base import Query

    regions = list(model.alpha) if isinstance(model.alpha, dict) else [model.region]
    wanted: list[Any] = [dict(zip(regions, each, strict=True)) if len(regions) > 1 else each[0] for each in alphas]
    if model.family == "diffusion":
        drawn = model.predict([Query(prompt=question.text, seed=question.seed)], wanted)[0]
        return [encoded(Image.fromarray(pixels)) for pixels in drawn]
    if model.family not in SEARCH:
        query = Query(image=bytes_of(question.picture), prompt=question.text, options=question.options)
        found: list[Any] = model.predict([query], wanted)[0].tolist()
        return found if not question.options else [_rounded(scores) for scores in found]
    gallery = [bytes_of(picture) for _, picture in _searched(question, regions)]
    if question.text:
        scores = model.predict([Query(image=each, options=[question.text]) for each in gallery], wanted)
        return [_rounded(row) for row in np.concatenate(scores, axis=1).tolist()]
    return [_rounded(_similarity(model, each, [bytes_of(question.picture), *gallery])) for each in wanted]


def _searched(question: Question, regions: Sequence[str]) -> list[tuple[str, str | bytes]]:
    """Names and pictures of what is searched in."""
    return [*question.gallery] or [(name, path) for path, name in _pocket_pictures(tuple(regions)).items()]


def _similarity(model: "RegionalModel", alpha: Any, pictures: Sequence[bytes]) -> list[float]:
    """Cosine of the first picture with each other one. Picture against picture is no query that models are asked."""
    import torch

    from ggez_hub.data import images

    decoded = [images.opened(picture) for picture in pictures]
    with model.at(alpha), torch.inference_mode():
        where = next(model.model.parameters())
        if model.family == "open_clip":
            pixels = torch.stack([model.processor.preprocess(picture) for picture in decoded])
            features = model.model.encode_image(pixels.to(where.device, where.dtype))
        else:
            inputs = model.processor(images=decoded, return_tensors="pt").to(where.device)
            features = model.model.get_image_features(**inputs)
            features = getattr(features, "pooler_output", features)
    features = torch.nn.functional.normalize(features.float(), dim=-1)
    cosines: list[float] = (features[1:] @ features[0]).cpu().tolist()
    return cosines


def _rounded(numbers: Sequence[float]) -> list[float]:
    return [round(number, 4) for number in numbers]


def _shares(scores: Sequence[float]) -> list[float]:
    """Probabilities of options from their log-likelihoods."""
    weights = [math.exp(score - max(scores)) for score in scores]
    return _rounded([weight / sum(weights) for weight in weights])


# ------------------------------------------------------------------------------------------------------------- pictures
def encoded(picture: "Image") -> bytes:
    """A picture as PNG; a large one as WebP, at a tenth of the size."""
    buffer = io.BytesIO()
    picture.save(buffer, *(("PNG",) if max(picture.size) <= 256 else ("WEBP",)), quality=92)
    return buffer.getvalue()


def decoded(data: bytes) -> "Image":
    """A picture that `encoded` wrote."""
    from PIL import Image

    return Image.open(io.BytesIO(data)).convert("RGB")


def bytes_of(picture: str | bytes) -> bytes:
    """An encoded picture, given as such or as a pocket picture's path."""
    from ggez_hub.pocket import atlas

    return picture if isinstance(picture, bytes) else atlas.picture(picture)


@lru_cache(maxsize=256)
def _small(picture: str | bytes) -> str:
    """A picture of 96 pixels at most, to be put into a page."""
    found = decoded(bytes_of(picture))
    found.thumbnail((96, 96))
    buffer = io.BytesIO()
    found.save(buffer, "WEBP", quality=85)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


@cache
def _pocket_pictures(regions: tuple[str, ...]) -> dict[str, str]:
    """Path and name: what the base does not know from the regions, and what it knows from the world."""
    from ggez_hub.pocket import atlas

    known = registry.files("regions")
    countries = [set(registry.load_region(region).countries) if region in known else set() for region in regions]
    own = [[c for c in atlas.concepts() if c.country in each and not c.core] for each in countries]
    rest = [c for c in atlas.concepts() if c.country not in set().union(*countries) and c.core]
    sizes = [PICTURES // 2 // len(regions)] * len(regions) + [PICTURES // 2]
    chosen = [
        part[i * len(part) // size] for part, size in zip([*own, rest], sizes, strict=True) if part for i in range(size)
    ]
    return {atlas.picture_path(concept, "test", 0): concept.name for concept in chosen}


def _globalization(results: Results, said: Mapping[str, Any]) -> str:
    """The KOF value in one sentence."""
    value, year, source = results.globalization.value, said.get("year"), str(said.get("source", ""))[:100]
    where = ", ".join(part for part in (source, str(year)[:4] if year else "") if part)
    region = _entries.region_title(results.region)
    return (
        f"{region}'s globalization factor is {value:.3f}{f' ({where})' if where else ''}: "
        f"in the parity GRP the world's questions weigh {value:.0%} and the region's {1 - value:.0%}."
    )


# ------------------------------------------------------------------------------------------------------------- examples
def _examples(folder: Path, names: Sequence[str]) -> dict[Question, dict[Alphas, Any]]:
    """Questions whose answers travel with the app."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        said = json.loads(path.read_text(encoding="utf-8"))
        question = _question(said["question"])
        if "alphas" in said and set(question.adapters) <= set(names):
            alphas = [tuple(each) for each in said["alphas"]]
            strip = path.with_suffix(".png")
            found[question] = dict(zip(alphas, _parts(strip, len(alphas)) if strip.is_file() else said["answers"],
                                       strict=True))  # fmt: skip
    return found


def _question(said: Mapping[str, Any]) -> Question:
    return Question(**dict(said) | {key: tuple(said[key]) for key in ("adapters", "options") if key in said})


def _parts(strip: Path, count: int) -> list[bytes]:
    """The pictures that lie beside each other in a file."""
    from PIL import Image

    whole = Image.open(strip).convert("RGB")
    side = whole.width // count
    return [encoded(whole.crop((i * side, 0, (i + 1) * side, whole.height))) for i in range(count)]


def write_example(path: Path, ask: Callable[[Question], Grid]) -> None:
    """Answers the question of an example's file, and writes the answers into it."""
    from PIL import Image

    said = json.loads(path.read_text(encoding="utf-8"))
    grid = ask(_question(said["question"]))
    answers = list(grid.answers.values())
    content = {"question": said["question"], "alphas": list(grid.answers)}
    if isinstance(answers[0], bytes):
        pictures = [decoded(each) for each in answers]
        whole = Image.new("RGB", (sum(p.width for p in pictures), pictures[0].height))
        for i, picture in enumerate(pictures):
            whole.paste(picture, (i * picture.width, 0))
        whole.save(path.with_suffix(".png"), optimize=True)
    else:
        content["answers"] = answers
    write_json(path, content)


def plain(question: Question) -> dict[str, Any]:
    """An example's question, for programs."""
    return {key: value for key, value in asdict(replace(question, gallery=())).items() if value not in ("", (), 0)}


# --------------------------------------------------------------------------------------------------------------- asking
def asked(
    shelf: Shelf,
    adapter: str,
    also: Sequence[str] | None,
    text: str | None,
    sample: str | None,
    upload: str | None,
    options: str | None,
    gallery: Sequence[str] | None,
    seed: float | None,
) -> Question:
    """A question from what a page or a program gave; nothing of it is trusted.

    Raises:
        InputError: Something is missing, too long or of a wrong kind.
    """
    names = named(adapter, also)
    found = [shelf.adapter(name) for name in names]
    family = found[0].facts.family
    if wrong := [name for name in names[1:] if name not in shelf.others(adapter)]:
        raise InputError(f"{wrong[0]}: not of another region on the same base as {adapter}", "choose from the list")
    if family == "diffusion":
        if isinstance(seed, bool) or not isinstance(seed, int | float) or seed != seed or not 0 <= seed <= MAX_SEED:
            raise InputError(f"seed: expected a whole number from 0 to {MAX_SEED}")
        return Question(names, page.text(text, "what to draw", MAX_TEXT), seed=int(seed))
    searching = family in SEARCH
    if searching and text and text.strip():
        return Question(names, page.text(text, "what to search for", MAX_TEXT), gallery=_own(shelf, names, gallery))
    if upload:
        picture: str | bytes = encoded(page.picture(upload))
    elif sample in shelf.pictures(names):
        picture = str(sample)
    elif searching:
        raise InputError("nothing to search with was given", "type some words, or choose a picture")
    else:
        raise InputError("no picture was given", "choose one, or drop your own")
    if searching:
        return Question(names, picture=picture, gallery=_own(shelf, names, gallery))
    return Question(names, page.text(text, "the question", MAX_TEXT), picture, _options(options))


def named(adapter: Any, also: Any) -> tuple[str, ...]:
    """The names of adapters that a page or a program gave, each once.

    Raises:
        InputError: Not names, or too many.
    """
    given = (adapter, *(also or ()))
    if isinstance(also, str) or not all(isinstance(name, str) for name in given):
        raise InputError("adapter: expected a name, and also: a list of names", "choose from the list")
    names = tuple(dict.fromkeys(given))
    if len(names) > MAX_REGIONS:
        raise InputError(f"{len(names)} regions, expected {MAX_REGIONS} at most")
    return names


def _options(given: str | None) -> tuple[str, ...]:
    """Options, one on a line, or on one line with commas between them."""
    whole = given or ""
    if not isinstance(whole, str) or len(whole) > MAX_OPTIONS * MAX_TEXT:
        raise InputError("options: too long", f"give {MAX_OPTIONS} short ones at most")
    parts = whole.strip().splitlines()
    parts = parts[0].split(",") if len(parts) == 1 else parts
    found = tuple(dict.fromkeys(page.text(part, "an option", 100) for part in parts if part.strip()))
    if len(found) == 1:
        raise InputError("one option leaves no choice", "give two or more, or none for a written answer")
    if len(found) > MAX_OPTIONS:
        raise InputError(f"{len(found)} options, expected {MAX_OPTIONS} at most", "leave some out")
    return found


def _own(shelf: Shelf, names: Sequence[str], files: Sequence[str] | None) -> tuple[tuple[str, bytes], ...]:
    """A user's own pictures to search in."""
    if not files:
        if not shelf.pictures(names):
            raise InputError("no pictures to search in were given", "add some of your own")
        return ()
    if not 2 <= len(files) <= PICTURES:
        raise InputError(f"{len(files)} pictures to search in, expected 2 to {PICTURES}")
    found = []
    for file in files:
        picture = page.picture(file)
        picture.thumbnail((384, 384))
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=95)
        found.append((Path(file).name[:60], buffer.getvalue()))
    return tuple(found)


def checked(alphas: Sequence[float | None], count: int) -> Alphas:
    """The alphas of so many regions, to four digits.

    Raises:
        InputError: Too few, or not numbers from 0 to 1.
    """
    if len(alphas) < count:
        raise InputError(
            f"alphas: {len(alphas)}, expected {count}", "give one for each region, with commas between them"
        )
    found = []
    for alpha in alphas[:count]:
        if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 <= alpha <= 1:
            raise InputError(f"alpha {alpha}: expected a number from 0 (global base) to 1 (regional model)")
        found.append(round(float(alpha), 4))
    return tuple(found)
