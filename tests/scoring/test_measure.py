"""Drawings are judged by the commit of the judge that the benchmark names."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ggez_hub.errors import GgezError
from ggez_hub.families import embedding
from ggez_hub.families.base import Query
from ggez_hub.schema import Benchmark, HubSource
from ggez_hub.scoring import measure
from ggez_hub.scoring.questions import Question
from ggez_hub.stages import sweep
from tests.hub_server import HubServer

JUDGE = "someone/judge"
DRAWING = Benchmark(
    title="Draw", source=HubSource(reader="pocket"), task="drawing", prompt="a drawing of {label}", judge=JUDGE
)


def test_a_judge_is_taken_at_its_commit(data_hub: HubServer, tmp_path: Path) -> None:
    embedding.write_tiny(tmp_path / "one", ("pho", "satay"), seed=1)
    embedding.write_tiny(tmp_path / "other", ("pho", "satay"), seed=2)
    first, second = (
        data_hub.add(JUDGE, {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
        for name in ("one", "other")
    )
    labels = ("pho", "satay")
    asked = Question("1", Query(b"", prompt="a drawing of pho"), labels, "pho", "VNM", "Food", "", b"")
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    pinned = {revision: DRAWING.model_copy(update={"judge_revision": revision}) for revision in (None, first, second)}
    given = measure.given({key: [asked] for key in pinned}, pinned, lambda queries: [pixels for _ in queries], 8)
    assert given[None][0].tolist() == given[second][0].tolist() != given[first][0].tolist()
    data_hub.add(JUDGE, {"config.json": b"broken"})
    measure.judge.cache_clear()
    measure.judge(JUDGE, first)
    with pytest.raises(GgezError, match="config"):
        measure.judge(JUDGE, None)


def test_answers_are_kept_for_one_commit_of_the_judge() -> None:
    asked = Question("1", Query(b"", prompt="x"), ("a", "b"), "a", "VNM", "Food", "", b"")
    hashes = [
        sweep._hash(DRAWING.model_copy(update={"judge_revision": revision}), [replace(asked)])
        for revision in (None, None, "v1", "v2")
    ]
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3
