"""What a region, a benchmark and a recipe may say: strict and frozen, defaults stand here and nowhere else."""

from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

Fraction = Annotated[float, Field(ge=0, le=1)]
Iso3 = Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
Iso639 = Annotated[str, Field(pattern=r"^[a-z]{3}$")]  # ISO 639-3
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
Label = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]  # a part of dotted keys
Positive = Annotated[int, Field(ge=1)]
Epochs = Annotated[float, Field(gt=0)]  # passes over the rows that a loss can learn from
Scalar = str | int | float | bool


class Strict(BaseModel):
    """Unknown keys and silent conversions are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True, allow_inf_nan=False)
    # Fields younger than runs that are kept: left out of dumps while they have their default, so that hashes stay.
    LATER: ClassVar[tuple[str, ...]] = ()
    # Keys that say which thing this is: where a recipe gives another, it inherits nothing else of the thing either.
    NAMED_BY: ClassVar[tuple[str, ...]] = ()
    # Keys of which one is given: where a recipe gives one, it inherits none of the others.
    ONE_OF: ClassVar[tuple[str, ...]] = ()

    @model_serializer(mode="wrap")
    def _dumped(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        plain: dict[str, Any] = handler(self)
        return {key: value for key, value in plain.items() if not self._left_out(key)}

    def _left_out(self, key: str) -> bool:
        """Whether a key is no part of a dump."""
        return key in self.LATER and getattr(self, key) == type(self).model_fields[key].default


class Misfit(ValueError):
    """Values that do not go together, said of a key below the one that is checked."""

    def __init__(self, text: str, *key: str | int) -> None:
        super().__init__(text)
        self.key = key


class Region(Strict):
    """Part of the world that a model is adapted to."""

    title: str
    countries: tuple[Iso3, ...] = Field(min_length=1)  # whose data is regional
    languages: tuple[Iso639, ...] = ()  # whose data is regional where a benchmark tells regions by language
    partition: Literal["World Bank", "continent"] | None = None  # the division of the world that it is a part of
    kof_countries: tuple[Iso3, ...] = ()  # whose mean is the globalization factor; empty = `countries`
    kof: dict[int, Annotated[float, Field(ge=0, le=100)]] = {}  # year: printed mean of KOFIpGIdf, 0..100


HubId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")]  # namespace/name


class Source(Strict):
    """Where rows come from: a reader (a function of ggez_hub.data.readers) and what it needs."""

    reader: Name
    path: str | None = None  # a file or folder, for readers that need one
    options: dict[str, Scalar] = {}  # further arguments of the reader
    columns: dict[str, str] = {}  # our field: their column
    where: dict[str, tuple[Scalar, ...]] = {}  # field: the values that are kept


class HubSource(Source):
    """A source that may be on the Hub."""

    LATER: ClassVar[tuple[str, ...]] = ("license", "gated")
    NAMED_BY: ClassVar[tuple[str, ...]] = ("reader", "id")
    id: HubId | None = None  # the data set that stands in where there is no path
    revision: str | None = None  # its commit; None = the newest, which is then recorded
    license: str | None = None  # the Hub's name for it
    gated: bool = False  # the Hub asks for access first


class Registered(Strict):
    """A data set that the Hub has registered as a benchmark, so that results on it stand on its leaderboard."""

    dataset: HubId
    task: Annotated[str, Field(min_length=1)]  # the id of one of the tasks in its eval.yaml
    revision: str | None = None  # its commit


class Benchmark(Strict):
    """Questions, and how answers are scored."""

    LATER = ("judge_revision",)
    title: str
    source: HubSource  # without `path` and `id` the recipe's own data.path
    # Name the picture among all labels | among four near ones | answer the row's own question | draw its label.
    task: Literal["top1", "choice", "question", "drawing"]
    answer: Name = "option"  # the likeliest option, or what is written: one of ggez_hub.scoring.answers.PROTOCOLS
    prompt: str | None = None  # asked of every picture (top1, choice), or with {label} in it what to draw
    judge: str | None = None  # of drawings: an embedding model that names them, by its Hub id
    judge_revision: str | None = None
    # Of drawings: the share that the judge names right | its mean confidence in the right name | how far their features
    # are from those of real pictures (squared maximum mean discrepancy; lower is better, no fraction).
    measure: Literal["top1", "confidence", "distance"] = "top1"
    rows: Literal["all", "region", "others"] = "all"  # relative to the recipe's region
    region_by: Literal["country", "language"] = "country"  # what tells whether a row is of a region
    key: tuple[str, ...] = ("id",)  # the fields that name a question, in prediction files as well
    average: tuple[str, ...] = ()  # fields whose groups count alike, the outermost first; empty = every question does
    cluster: str = "id"  # the field whose questions depend on each other, and are drawn together for intervals
    scorer: Name = "accuracy"  # one of ggez_hub.scoring.scorers.SCORERS
    test: dict[str, tuple[Scalar, ...]] = {}  # field: values that mark test questions
    selection: dict[
        str, tuple[Scalar, ...]
    ] = {}  # ... questions on which alpha is chosen; none of them is a test question
    synthetic: bool = False
    registered: Registered | None = None  # where the Hub knows these very questions as a benchmark; else no claim

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.task == "drawing") != (self.judge is not None):
            raise ValueError("a judge and task: drawing go together")
        if self.judge_revision is not None and self.judge is None:
            raise Misfit("goes with judge, the model that it is a commit of", "judge_revision")
        if self.task == "drawing" and "{label}" not in (self.prompt or ""):
            raise ValueError("task: drawing needs a prompt with {label} in it")
        if self.measure != "top1" and self.task != "drawing":
            raise ValueError(f"measure: {self.measure} is for task: drawing")
        return self


class Base(Strict):
    """The global model: exactly one of a Hub id or folder, another recipe's output, or a random start."""

    LATER = ("gated",)
    NAMED_BY = ("id", "recipe", "random")
    id: str | None = None
    revision: str | None = None
    license: str | None = None
    gated: bool = False  # the Hub asks for access first
    recipe: Name | None = None
    random: dict[str, int] | None = None  # sizes for the family's write_tiny
    parts: dict[str, str] = {}  # of a random start: trained models that parts of it start from, by their Hub ids

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if sum(x is not None for x in (self.id, self.recipe, self.random)) != 1:
            raise ValueError("give exactly one of id, recipe, random")
        return self


class Corpus(HubSource):
    """Rows that may train the model, and what part they have in the mix."""

    LATER = ("gated",)
    languages: tuple[str, ...] = ("en",)
    synthetic: bool = False
    regional: bool = True  # filter.region applies; false for general data (the paper's D_gen)
    translate: bool = False  # into the languages of `translate`
    share: Annotated[float, Field(gt=0, le=1)] | None = None  # of the rows that train; None = all that are left of it
    cap: Positive | None = None  # rows at most


class Data(Corpus):
    """The training corpus: one source, or several that are mixed."""

    NAMED_BY = (*Corpus.NAMED_BY, "sources")
    reader: str = ""  # none where there are `sources`
    title: str | None = None  # what the card calls it
    sources: dict[Label, Corpus] = {}

    @model_validator(mode="after")
    def _one_or_several(self) -> Self:
        if not self.reader and not self.sources:
            raise ValueError("expected a reader, or several sources with a reader each")
        if alone := [key for key in Corpus.model_fields if self.sources and key in self.model_fields_set]:
            raise Misfit("belongs to each of the sources, not beside them", alone[0])
        shares = {name: corpus.share for name, corpus in self.corpora.items() if corpus.share is not None}
        if shares and len(shares) < len(self.corpora):
            lacking = next(name for name in self.corpora if name not in shares)
            raise Misfit(f"{lacking} has no share; give one to every source, or to none", "sources", lacking)
        if shares and abs(sum(shares.values()) - 1) > 1e-6:
            key = "sources" if self.sources else "share"
            raise Misfit(f"the shares sum to {sum(shares.values()):g}, expected 1", key)
        return self

    def _left_out(self, key: str) -> bool:
        return super()._left_out(key) or (bool(self.sources) and key in Corpus.model_fields)  # the sources say it

    @property
    def corpora(self) -> dict[str, Corpus]:
        """Every source by its name; a single one is called data."""
        return self.sources or {"data": self}


Evidence = Literal["country", "language", "text", "image"]
EVIDENCE: tuple[Evidence, ...] = get_args(Evidence)


class Reward(Strict):
    """Who says how good a row is, from 1 to 5."""

    LATER = ("license",)
    NAMED_BY = ("model", "id")
    model: Name  # one of ggez_hub.data.rewards.MODELS
    id: str | None = None  # its weights on the Hub or in a folder, or what the endpoint calls it; None = the published
    revision: str | None = None
    license: str | None = None  # the Hub's name for it
    endpoint: str | None = None  # address of an OpenAI-compatible server that has it loaded; None = in this process


class Unsafe(Strict):
    """What is left out as unsafe: by a column of the data, or by a model that classifies pictures."""

    NAMED_BY = ("column", "id")
    column: str | None = None  # with a score 0..1
    id: str | None = None  # of an image classification model, on the Hub or in a folder
    revision: str | None = None
    label: str = "nsfw"  # the model's class whose probability counts
    max: Fraction = 0.5  # rows above are dropped

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if (self.column is None) == (self.id is None):
            raise ValueError("give exactly one of column, id")
        return self


class Filter(Strict):
    """Which rows of the corpus train the model: rules in the order in which they are applied."""

    LATER = ("embedding_revision",)
    ONE_OF = ("embedding", "embedding_revision")  # a commit is of one model
    # Keep only rows of the region: by these kinds of evidence, the first that says something decides. True = country.
    region: bool | tuple[Evidence, ...] = True
    min_similarity: float | None = None  # of a picture to the region's prompts above all others (evidence image)
    embedding: str | None = None  # the embedding model of evidence image and of duplicates, by Hub id or folder
    embedding_revision: str | None = None
    min_text: Annotated[int, Field(ge=1)] = 1  # characters of a caption
    max_text: Positive | None = None
    licenses: tuple[str, ...] = ()  # allowed of a row; empty = any
    unsafe: Unsafe | None = None
    min_side: Positive | None = None  # pixels of the shorter side
    max_aspect: Annotated[float, Field(ge=1)] | None = None  # longer side over shorter
    min_reward: float | None = None  # keep rows whose `reward` is at least this (the paper: 3 on a scale of 1 to 5)
    reward: Reward | None = None  # who gives it; None = it stands in the data
    max_hash_distance: Annotated[int, Field(ge=0, le=16)] | None = None  # bits of 64 in which two pictures are the same
    max_cosine: Fraction | None = None  # of two pictures' embeddings, above which they are the same
    contamination: Literal["refuse", "drop", "keep"] = "refuse"  # rows of training that stand in a benchmark as well
    max_broken: Fraction = 0.1  # more undecodable pictures than this share is an error

    @field_validator("region", mode="before")
    @classmethod
    def _evidence(cls, region: Any) -> Any:
        kinds = ", ".join(EVIDENCE)
        if not isinstance(region, bool) and not (isinstance(region, list | tuple) and region):
            raise ValueError(f"expected true, false or a list of evidence: {kinds}")
        for i, kind in enumerate(() if isinstance(region, bool) else region):
            if kind not in EVIDENCE:
                raise Misfit(f"{kind!r} is no evidence that a row is of the region; known: {kinds}", i)
        return region if isinstance(region, bool) else tuple(region)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        by_image = isinstance(self.region, tuple) and "image" in self.region
        if by_image and self.min_similarity is None:
            raise Misfit("evidence image needs filter.min_similarity", "region")
        if self.min_similarity is not None and not by_image:
            raise Misfit("goes with evidence image, as in filter.region: [country, text, image]", "min_similarity")
        if by_image and self.embedding is None:
            raise Misfit("evidence image needs filter.embedding, an embedding model", "region")
        if self.max_cosine is not None and self.embedding is None:
            raise Misfit("needs filter.embedding, an embedding model", "max_cosine")
        if self.embedding_revision is not None and self.embedding is None:
            raise Misfit("needs filter.embedding, the model that it is a commit of", "embedding_revision")
        if self.max_text is not None and self.max_text < self.min_text:
            raise Misfit(f"is less than filter.min_text, {self.min_text}", "max_text")
        if self.reward is not None and self.min_reward is None:
            raise Misfit("needs filter.min_reward, the least that is kept", "reward")
        return self


class Translator(Strict):
    """A model that translates."""

    NAMED_BY = ("id",)
    id: str  # an NLLB checkpoint on the Hub or in a folder, or what the endpoint calls its model
    revision: str | None = None
    endpoint: str | None = None  # address of an OpenAI-compatible server; None = in this process
    license: str | None = None  # of what it writes, such as cc-by-nc-4.0


class Translate(Strict):
    """Into which languages rows of sources with `translate: true` are translated, and by what."""

    languages: tuple[Iso639, ...] = ()  # empty = the region's
    translators: dict[Label, Translator] = Field(min_length=1)
    models: dict[Iso639, Label] = {}  # language: its translator
    default: Label | None = None  # the translator of all others
    copies: Positive = 1  # languages that each row is translated into, drawn by its id
    min_back: Fraction | None = None  # chrF, 0..1, of the text translated back against the text; None = not checked
    check_language: bool = True  # whether what came out is in the language that was asked for

    @model_validator(mode="after")
    def _known(self) -> Self:
        named: dict[tuple[str, ...], str | None] = {("models", key): name for key, name in self.models.items()}
        for key, name in (named | {("default",): self.default}).items():
            if name is not None and name not in self.translators:
                raise Misfit(f"unknown translator {name!r}; known: {', '.join(self.translators)}", *key)
        return self


class Lora(Strict):
    """Low-rank adaptation (PEFT)."""

    r: Positive = 16
    lora_alpha: Positive = 16
    lora_dropout: Fraction = 0.0


def _check_length(steps: int | None, epochs: float | None) -> None:
    """Raises Misfit unless exactly one says how long a phase is."""
    if steps is not None and epochs is not None:
        raise Misfit(f"stands beside steps: {steps}; give one of the two", "epochs")
    if steps is None and epochs is None:
        raise Misfit("give steps or epochs", "steps")


def _length(steps: int | None, epochs: float | None) -> str:
    return f"{steps} steps" if epochs is None else f"{epochs:g} epoch{'' if epochs == 1 else 's'}"


class Pretrain(Strict):
    """What comes before the training proper, with an optimiser of its own: captions before conversations."""

    LATER = ("epochs",)
    ONE_OF = ("steps", "epochs")
    loss: str
    steps: Positive | None = None
    epochs: Epochs | None = None  # in place of steps
    learning_rate: Annotated[float, Field(gt=0)] | None = None  # None = that of the training

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        _check_length(self.steps, self.epochs)
        return self

    @property
    def length(self) -> str:
        """How long it is, for people: ``100 steps``, ``3 epochs``."""
        return _length(self.steps, self.epochs)


class Train(Strict):
    """Fine-tuning with AdamW; the rate falls linearly to zero (paper, section 5.2)."""

    LATER = ("epochs",)
    ONE_OF = ("steps", "epochs")
    method: Literal["lora", "full"] = "lora"
    loss: str | None = None  # one of the family's; None = its first
    pretrain: Pretrain | None = None
    freeze: tuple[str, ...] = ()  # of method full: parts that stay as they are, by how their parameters' names begin
    lora: Lora = Lora()
    steps: Positive | None = 1000
    epochs: Epochs | None = None  # in place of steps
    batch_size: Positive = 64
    micro_batch_size: Positive | None = None  # rows in memory at once; None = batch_size
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    warmup: Annotated[int, Field(ge=0)] = 0  # steps
    augment: bool = False  # random small affine changes of the pictures
    max_length: Positive | None = None  # tokens of a conversation; longer ones are left out. None = what the base takes
    dtype: Literal["float32", "bfloat16"] | None = None  # computed in; None = bfloat16 on a GPU, else float32
    gradient_checkpointing: bool = False  # less memory for more time
    checkpoint_steps: Positive = 100

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.epochs is not None and "steps" not in self.model_fields_set:
            object.__setattr__(self, "steps", None)  # frozen from here on
        _check_length(self.steps, self.epochs)
        if self.micro_batch_size is not None and self.micro_batch_size > self.batch_size:
            raise Misfit(f"is more than train.batch_size, {self.batch_size}", "micro_batch_size")
        return self

    @property
    def length(self) -> str:
        """How long it is, for people: ``1000 steps of 64``, ``3 epochs of batches of 64``."""
        of = "" if self.epochs is None else " of batches"
        return f"{_length(self.steps, self.epochs)}{of} of {self.batch_size}"


class Sweep(Strict):
    """Measuring the alphas and choosing one."""

    alphas: tuple[Fraction, ...] = (0.0, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0)
    search: Literal["grid", "refine"] = "grid"  # measure these alphas | these, then others where it can still matter
    resolution: Annotated[float, Field(gt=0, le=0.5)] = 0.01  # finest step of refine
    global_: tuple[Name, ...] = Field(alias="global", min_length=1)
    regional: tuple[Name, ...] = Field(min_length=1)
    beside: tuple[Name, ...] = ()  # measured and shown, no part of either quality
    min_retention: Fraction | None = 0.98  # None = the paper's plain rule
    globalization: Fraction | None = None  # None = from KOF
    year: int | None = None  # of the KOF value; None = the newest
    resamples: Positive = 2000  # bootstrap
    batch_size: Positive = 256

    @property
    def benchmarks(self) -> tuple[str, ...]:
        """All that is measured: on the global side, on the regional side, beside."""
        return (*self.global_, *self.regional, *self.beside)

    @field_validator("alphas")
    @classmethod
    def _with_ends(cls, alphas: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(sorted({0.0, 1.0, *alphas}))


class Card(Strict):
    """What the model card says beyond what was measured."""

    title: str | None = None
    license: str = "apache-2.0"
    license_name: str | None = None  # goes with `license: other`
    intended_use: str = ""
    limits: str = ""
    cautions: str = ""


class Push(Strict):
    """Where it is published, and what it has to reach before."""

    namespace: Annotated[str, Field(pattern=r"^[A-Za-z0-9]+([._-][A-Za-z0-9]+)*$")] = "ggez-hub"
    min_gain: Annotated[float, Field(ge=0)] = 0.05  # in the region; its interval has to be above 0 as well
    min_retention: Fraction = 0.98  # of the global quality


class Recipe(Strict):
    """One run, from data to a published adapter."""

    title: str
    family: Name
    region: Name
    base: Base
    data: Data
    filter: Filter = Filter()
    train: Train = Train()
    sweep: Sweep
    card: Card = Card()
    push: Push = Push()
    translate: Translate | None = None
    # For `ggez ablate`: the sources of each mix, and the rows of each at most (None = all), in place of cap and share.
    mixes: dict[Label, Annotated[dict[Label, Positive | None], Field(min_length=1)]] = {}
    engine: Literal["processes", "ray"] = "processes"  # what filters and translates in parallel, with the same result
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0  # what numpy and torch both take
    notes: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _whole(self) -> Self:
        translated = [name for name, corpus in self.data.corpora.items() if corpus.translate]
        if translated and self.translate is None:
            key = ("sources", translated[0], "translate") if self.data.sources else ("translate",)
            raise Misfit("needs the section translate, which says into what and by what", "data", *key)
        if self.translate and not translated:
            raise Misfit("no source has translate: true", "translate")
        return self

    def section(self, *names: str) -> dict[str, Any]:
        """The named parts as plain data, as the manifests hash them."""
        whole = self.model_dump(mode="json", by_alias=True)
        return {name: whole[name] for name in names}


class BaseFacts(Strict):
    """What a published model was made from."""

    id: str
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")] | None  # the commit, of a base from the Hub

    def __str__(self) -> str:
        return f"{self.id} at {self.revision}" if self.revision else self.id


class Facts(Strict):
    """ggez.json, our own facts at the root of a published repository: what loading it has to know."""

    schema_: Literal[1] = Field(1, alias="schema")
    artefact: Literal["adapter", "merged"]
    recipe: Name
    family: Name
    region: Name
    alpha: Fraction  # recommended; of a merged checkpoint the one it was merged at
    gain: float | None = None
    retention: float | None = None
    base: BaseFacts
    synthetic: bool
    gate: tuple[str, ...] = ()  # why it should not have been published, where it was all the same


class Read(BaseModel):
    """What is read from files of published repositories: keys that are not asked for may be there."""

    model_config = ConfigDict(extra="ignore", frozen=True, populate_by_name=True, allow_inf_nan=False)


Interval = tuple[float, float] | None


class Part(Read):
    """The value of a part of a benchmark's questions, such as those of a country."""

    value: float
    n: Positive


PartName = Annotated[str, Field(max_length=200)]


class Measured(Read):
    """The value of a benchmark at an alpha."""

    value: float
    ci95: Interval
    n: Positive
    metric: str
    by: Annotated[dict[PartName, Annotated[dict[PartName, Part], Field(max_length=1000)]], Field(max_length=20)] = {}


class Point(Read):
    """Both qualities at an alpha."""

    alpha: Fraction
    global_: float = Field(alias="global")
    regional: float
    grp: float
    benchmarks: dict[Name, Measured]


class Judged(Read):
    """An alpha against alpha = 0."""

    alpha: Fraction
    grp: float
    gain: float | None
    gain_ci95: Interval
    retention: float | None
    retention_ci95: Interval


class Globalization(Read):
    """The weight of global quality in the parity."""

    value: Fraction


class Results(Read):
    """sweep/results.json, as far as others rely on it."""

    region: Name
    globalization: Globalization
    points: tuple[Point, ...] = Field(min_length=1)
    chosen: Judged
    grp_best: Judged
    synthetic: bool = False  # whether every question of it is
