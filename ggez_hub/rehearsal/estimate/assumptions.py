"""What cannot be counted and is assumed: speeds and prices of GPUs, sizes of data sets, lengths of texts."""

import functools
from pathlib import Path

from pydantic import Field

from ggez_hub import registry
from ggez_hub.schema import Strict

HARDWARE = Path(__file__).parent / "hardware.yaml"


CORPORA = Path(__file__).parent / "corpora.yaml"


class GPU(Strict):
    """A kind of GPU."""

    name: str
    memory: float  # bytes
    tflops: float  # 10^12 operations a second
    bandwidth: float  # 10^9 bytes a second
    utilisation: float  # of tflops
    price: float  # USD an hour
    source: str


class Assumed(Strict):
    """What else is assumed of machines; see hardware.yaml."""

    context: float
    fragmentation: float
    sharded: float
    unet: float
    decode: float
    picture: float
    filter: float
    image_embedding: float
    reward: float
    translation: float


class Hardware(Strict):
    """hardware.yaml."""

    gpus: tuple[GPU, ...]
    assumed: Assumed


class Parts(Strict):
    """What a data set is divided into, where a source may name those that it wants.

    Where nothing else is known, all are taken to be alike: each has the average.
    """

    by: str  # an option of the source, with "|" between those wanted, or a field of its `where`
    count: int
    rows: dict[str, int] = Field(default={})  # of those of which it is known
    common: float = 0  # bytes that are fetched with any


class DataSet(Strict):
    """A data set, or a variant of it; see corpora.yaml."""

    id: str
    when: dict[str, str] = Field(default={})
    rows: int | None = None
    questions: int | None = None
    bytes: float | None = None
    regions: dict[str, int] = Field(default={})
    parts: Parts | None = None
    source: str


class Text(Strict):
    """How long the texts of a reader are, in tokens, and which fields it gives."""

    prompt: int
    answer: int
    longest: int
    gives: tuple[str, ...] = Field(default=("text", "messages"))


class Corpora(Strict):
    """corpora.yaml."""

    sets: tuple[DataSet, ...]
    texts: dict[str, Text]
    question: int


@functools.cache
def hardware() -> Hardware:
    """What is assumed of machines. Raises ConfigError with every problem in the file."""
    return registry.read(Hardware, HARDWARE)


@functools.cache
def corpora() -> Corpora:
    """What is known of data sets. Raises ConfigError with every problem in the file."""
    return registry.read(Corpora, CORPORA)
