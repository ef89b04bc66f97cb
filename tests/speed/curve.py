"""Measures how far curves over alpha lie from true passes, on all test questions of trained embedding recipes.

python tests/speed/curve.py FOLDER ...     run folders or published adapters

Two ways to interpolate are compared, through the same true passes: of scores, as ggez_hub.scoring.curve does it, and of
embeddings, which are then made unit vectors again. Last comes what `fit` offers: for all queries at once, and for every
query by itself, as a Space would ask.

error     the largest, in cosine, of any option of any query at any held-out alpha
changed   queries with another best option than the true pass at any held-out alpha
pairs     the same, of all pairs of a query and a held-out alpha
margin    the largest lead, in true cosine, of a best option that the curve missed
distance  the largest cosine distance between an interpolated embedding and the true one
holds     whether error and changed are within the bound; of queries by themselves: the share that `fit` calls reliable
"""

import argparse
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch
from tqdm import tqdm

from ggez_hub import RegionalModel, hub, load_recipe
from ggez_hub.data import images
from ggez_hub.families import embedding
from ggez_hub.families.base import Loaded, chunks
from ggez_hub.recipes import load_benchmark
from ggez_hub.registry import load_region
from ggez_hub.runs import read_json
from ggez_hub.scoring.curve import CHANGED, ERROR, NODES, Curve, Scores, fit
from ggez_hub.scoring.questions import questions

HELD_OUT = (0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9, 0.95)
COUNTS = range(3, len(NODES) + 1, 2)
LINE = "{recipe:<22} {queries:>7} {curve:<10} {nodes:>5} {error:>9} {changed:>8} {pairs:>8} {margin:>8} {distance:>8} {holds:>6}"  # fmt: skip  # noqa: E501
FORMS = {"nodes": "g", "error": ".1e", "changed": ".2%", "pairs": ".3%", "margin": ".1e", "distance": ".1e"}
BATCH = 256


def measure(folder: Path) -> Iterator[dict[str, Any]]:
    """One row for each kind of curve on all test questions of a recipe."""
    card = folder if (folder / hub.FACTS).is_file() else folder / "card" / "adapter"
    recipe = load_recipe(read_json(card / hub.FACTS)["recipe"])
    names, region = (*recipe.sweep.global_, *recipe.sweep.regional), load_region(recipe.region)
    asked = [q for name in names for q in questions(load_benchmark(name), region, recipe.data.path)["test"]]
    pictures = {image: i for i, image in enumerate(dict.fromkeys(q.image for q in asked))}
    texts = {text: i for i, text in enumerate(dict.fromkeys(text for q in asked for text in q.options))}
    places = [(pictures[q.image], [texts[text] for text in q.options]) for q in asked]
    model = RegionalModel.from_pretrained(folder)
    loaded = Loaded(model.model, model.processor, folder)

    @cache
    def embeddings(alpha: float) -> tuple[np.ndarray, np.ndarray]:
        """Unit embeddings of pictures and of texts by a true pass."""
        with model.at(alpha), torch.inference_mode():
            seen = [
                embedding._images(loaded, [images.decode(x) for x in part]) for part in chunks(list(pictures), BATCH)
            ]
            read = [embedding._texts(loaded, part) for part in chunks(list(texts), BATCH)]
        return torch.cat(seen).numpy(), torch.cat(read).numpy()

    def cosines(sides: Sequence[tuple[np.ndarray, np.ndarray]]) -> Scores:
        products = np.stack([seen @ read.T for seen, read in sides])
        return [products[:, picture][:, options] for picture, options in places]

    def predict(alphas: Sequence[float]) -> Scores:
        return cosines([embeddings(alpha) for alpha in alphas])

    for alpha in tqdm((*HELD_OUT, *NODES), desc=recipe.title, unit=" alpha"):
        embeddings(alpha)
    true, passes = predict(HELD_OUT), predict(NODES)
    known = {"recipe": folder.name, "queries": len(asked)}
    for count in COUNTS:
        yield known | {"curve": "scores", "nodes": count} | compare(through(count, passes), true)
        sides = [drawn(count, np.stack([embeddings(alpha)[side] for alpha in NODES[:count]])) for side in (0, 1)]
        truth = [np.stack([embeddings(alpha)[side] for alpha in HELD_OUT]) for side in (0, 1)]
        distance = max(float(((f - t) ** 2).sum(-1).max()) / 2 for f, t in zip(sides, truth, strict=True))
        row = compare(cosines(list(zip(*sides, strict=True))), true)
        yield known | {"curve": "embeddings", "nodes": count} | row | {"distance": distance}
    offered = fit(predict)
    row = compare(offered.at(HELD_OUT), true) | {"stated": offered.error, "reliable": offered.reliable}
    yield known | {"curve": "fit", "nodes": len(offered.nodes)} | row

    def alone(scores: np.ndarray) -> Curve:
        return fit(lambda alphas: [scores[[NODES.index(alpha) for alpha in alphas]]])

    curves = [alone(scores) for scores in tqdm(passes, desc="each by itself", unit=" query")]
    for count in COUNTS[1:]:
        chosen = [i for i, curve in enumerate(curves) if curve.reliable and len(curve.nodes) == count]
        if chosen:
            row = compare([curves[i].at(HELD_OUT)[0] for i in chosen], [true[i] for i in chosen])
            yield known | {"curve": "fit alone", "nodes": count} | row | {"share": len(chosen) / len(curves)}


def through(count: int, passes: Scores) -> Scores:
    """Scores at the held-out alphas by a curve through the first nodes, whatever its error."""
    return Curve(NODES[:count], [scores[:count] for scores in passes], np.nan, np.nan).at(HELD_OUT)


def drawn(count: int, vectors: np.ndarray) -> np.ndarray:
    """Unit vectors [held-out alphas, items, dim] through unit vectors [nodes, items, dim]."""
    found = through(count, [vectors.reshape(count, -1)])[0].reshape(-1, *vectors.shape[1:])
    return found / np.linalg.norm(found, axis=-1, keepdims=True)


def compare(found: Scores, true: Scores) -> dict[str, Any]:
    """Errors of cosines, and what they do to the answers."""
    error = max(float(np.abs(f - t).max()) for f, t in zip(found, true, strict=True))
    # How far the true answer leads the one that was found, [queries, alphas]; 0 where they are the same.
    leads = np.stack([
        t.max(axis=1) - np.take_along_axis(t, f.argmax(axis=1)[:, None], axis=1)[:, 0]
        for f, t in zip(found, true, strict=True)
    ])  # fmt: skip
    changed = float((leads > 0).any(axis=1).mean())
    return {
        "error": error,
        "changed": changed,
        "pairs": float((leads > 0).mean()),
        "margin": float(leads.max()),
        "holds": error <= ERROR and changed <= CHANGED,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    args = parser.parse_args()
    print(f"bound: cosine {ERROR:g}, another answer on {CHANGED:.1%} of the queries; held out: {HELD_OUT}")
    names = ("recipe", "queries", "curve", "nodes", "error", "changed", "pairs", "margin", "distance", "holds")
    print(LINE.format(**{name: name for name in names}))
    rows = []
    for folder in args.folders:
        for row in measure(folder.resolve()):
            rows.append(row)
            shown = {"distance": ""} | {name: format(row[name], form) for name, form in FORMS.items() if name in row}
            holds = f"{row['share']:.1%}" if "share" in row else "yes" if row["holds"] else "no"
            print(LINE.format(**row | shown | {"holds": holds}), flush=True)
    common.report("curve", [summary(row) for row in rows if row["curve"] in ("scores", "fit alone")])


def summary(row: dict[str, Any]) -> dict[str, Any]:
    """A row as it stands in the table of all speed scripts."""
    found = {"goal": f"{ERROR:g}; {CHANGED:.1%}", "value": f"{row['error']:.1e}; {row['changed']:.2%}"}
    if row["curve"] == "scores":
        what = f"a curve through {row['nodes']} passes, for all {row['queries']:,} test questions"
        return found | {"measure": f"{row['recipe']} (synthetic): {what}: worst error in cosine; other answers"}
    what = f"the curves that are reliable after {row['nodes']} passes, one per question"
    note = f"{row['share']:.1%} of the questions"
    return found | {
        "measure": f"{row['recipe']} (synthetic): {what}: worst error in cosine; other answers",
        "note": note,
    }


if __name__ == "__main__":
    main()
