"""Decisions, report and examples say the same of any data: a property of small random corpora."""

import contextlib
import io
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from ggez_hub import run
from ggez_hub.errors import InputError
from ggez_hub.runs import read_json
from ggez_hub.stages import filter as stage

UNIT = 3  # rows, so that a few make several units


def _png(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((16, 16), 40 + 60 * seed).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


PICTURES = [b"no picture", *map(_png, range(3))]
ROWS = st.fixed_dictionaries(
    {
        "id": st.sampled_from(["a", "b", "0", None]),
        "image": st.sampled_from([None, *({"bytes": data, "path": None} for data in PICTURES)]),
        "text": st.sampled_from([None, " ", "a temple", "two temples", "half \N{REPLACEMENT CHARACTER}\0"]),
        "country": st.sampled_from(["Thailand", "THA", "Burma|Laos", "France", "Atlantis", None]),
        "language": st.sampled_from(["th", None]),
        "reward": st.sampled_from([1.0, 4.0, None]),
    }
)
RULES = st.fixed_dictionaries(
    {},
    optional={
        "region": st.just(False),
        "min_text": st.just(9),
        "min_reward": st.just(2.0),
        "max_hash_distance": st.just(2),
        "reward": st.just({"model": "stand-in"}),
    },
)
MIX = st.sampled_from([{}, {"cap": 1}, {"cap": 3}, {"share": 0.5}])
SCHEMA = pa.schema(
    [("id", "string"), ("image", pa.struct([("bytes", "binary"), ("path", "string")]))]
    + [(name, "string") for name in ("text", "country", "language")]
    + [("reward", "float32")]
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.tuples(st.lists(ROWS, min_size=1, max_size=9), st.lists(ROWS, min_size=1, max_size=4)),
    rules=RULES,
    mix=MIX,
)
def test_every_row_is_told_of_once_and_the_same_everywhere(
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    rows: tuple[list[dict[str, Any]], ...],
    rules: dict[str, Any],
    mix: dict[str, Any],
) -> None:
    monkeypatch.setattr(stage, "UNIT_ROWS", UNIT)
    names = ("ours", "theirs")
    for name, part in zip(names, rows, strict=True):
        pq.write_table(pa.Table.from_pylist(part, SCHEMA), project / f"{name}.parquet", row_group_size=2)
    sources = {name: {"reader": "parquet", "path": f"{name}.parquet"} | mix for name in names}
    if "reward" in rules:
        rules = {"min_reward": 1.5} | rules
    given_filter = {"contamination": "keep", "max_broken": 1.0} | rules
    shutil.rmtree(project / "runs", ignore_errors=True)
    with contextlib.suppress(InputError):  # nothing may be left
        run("tiny", "runs", {"data": {"sources": sources}, "filter": given_filter}, until="filter")
    folder = next((project / "runs" / "tiny").glob("*filter"))
    whole = folder / "examples.parquet"
    examples = pq.read_table(whole).to_pylist() if whole.is_file() else []
    report = read_json(folder / "report.json")
    decisions = pq.read_table(folder / "decisions.parquet").to_pylist()

    expected = [(name, place) for name, part in zip(names, rows, strict=True) for place in range(len(part))]
    assert [(each["source"], each["row"]) for each in decisions] == expected, "every row, once, in order"
    assert all(each["kept"] == (each["rule"] is None) for each in decisions)
    assert not any((each["why"] or "").startswith("country THA") for each in decisions if each["rule"]), (
        "what spoke for a row is not why it was dropped"
    )
    kept = [each for each in decisions if each["kept"]]
    told = [(each["source"], each["id"], each["country"]) for each in kept]
    assert [(each["source"], each["id"], each["country"]) for each in examples] == told
    originals = dict(zip(names, rows, strict=True))
    given_rows = [originals[each["source"]][each["row"]] for each in kept]
    assert [each["image"]["bytes"] for each in examples] == [row["image"]["bytes"] for row in given_rows]
    assert not any(name.startswith("_") for each in examples for name in each)

    dropped = Counter(each["rule"] for each in decisions if each["rule"])
    assert {rule: count for rule, count in report["dropped"].items() if count} == dropped
    assert report["rows"] == len(decisions) == report["kept"] + sum(report["dropped"].values())
    assert report["kept"] == len(kept)
    for name, of in report["sources"].items():
        mine = [each for each in decisions if each["source"] == name]
        assert (of["rows"], of["kept"]) == (len(mine), sum(each["kept"] for each in mine))
        assert of["rows"] == of["kept"] + sum(of["dropped"].values())
    for field, title in (("country", "countries"), ("language", "languages")):
        for when, of_these in (("before", decisions), ("after", kept)):
            assert report[title][when] == Counter(str(each[field]) for each in of_these)
    if cap := mix.get("cap"):
        assert all(of["kept"] <= cap for of in report["sources"].values())
    if "share" in mix:
        assert len({of["kept"] for of in report["sources"].values()}) == 1
