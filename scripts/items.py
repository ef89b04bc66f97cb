"""Makes the items that travel with the annotate page, from the pocket adapters of the playground. Synthetic.

python scripts/items.py
"""

import io
import json
import shutil
from pathlib import Path

from PIL import Image

from ggez_hub import RegionalModel
from ggez_hub.pocket import atlas, questions

SPACES = Path(__file__).parents[1] / "spaces"
MODELS = SPACES / "playground" / "models" / "ggez-hub"
TARGET = SPACES / "annotate" / "items"
ALPHAS = (0.0, 0.5, 1.0)
SEED = 3  # of the drawings
DRAWN = {"tradition": ("wau bulan", "water puppet"), "landmark": ("Borobudur", "Cristo Rei"),
         "cuisine": ("mango sticky rice", "halo-halo")}  # fmt: skip
ASKED = {"tradition": ("longyi", "khene", "Dong Son drum", "spirit house"), "landmark": ("Cristo Rei",),
         "cuisine": ("nasi lemak",)}  # fmt: skip


def main() -> None:
    shutil.rmtree(TARGET, ignore_errors=True)
    (TARGET / "images").mkdir(parents=True)
    rows = [row for wanted in (drawings, answers) for row in wanted()]
    (TARGET / "items.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    size = sum(path.stat().st_size for path in TARGET.rglob("*") if path.is_file())
    print(f"{len(rows)} items, {size / 1e3:.0f} kB in {TARGET}")


def drawings() -> list[dict]:
    """Every concept drawn at every alpha from the same noise."""
    model = "pocket-sea-diffusion-lora"
    rows = [described(aspect, name, "picture") for aspect, names in DRAWN.items() for name in names]
    queries = [{"prompt": row["prompt"], "seed": SEED} for row in rows]
    for row, drawn in zip(rows, RegionalModel.from_pretrained(MODELS / model).predict(queries, ALPHAS), strict=True):
        for alpha, pixels in zip(ALPHAS, drawn, strict=True):
            file = f"images/{row['id']}-{alpha:g}.png"
            Image.fromarray(pixels).save(TARGET / file, optimize=True)
            row["candidates"].append({"model": f"ggez-hub/{model}", "alpha": alpha, "image": file})
    return rows


def answers() -> list[dict]:
    """Every question about a drawing answered at every alpha."""
    model = "pocket-sea-vlm-lora"
    rows = [described(aspect, name, "answers") for aspect, names in ASKED.items() for name in names]
    queries = []
    for row, name in zip(rows, (name for names in ASKED.values() for name in names), strict=True):
        row |= {"language": "en", "prompt": questions.ask(name, atlas.FIRST_SEED["test"]).question}
        row["image"] = f"images/{row['id']}.png"
        picture = atlas.picture(atlas.picture_path(by_name(name), "test", 0))
        Image.open(io.BytesIO(picture)).convert("RGB").save(TARGET / row["image"], optimize=True)
        queries.append({"prompt": row["prompt"], "image": TARGET / row["image"]})
    for row, said in zip(rows, RegionalModel.from_pretrained(MODELS / model).predict(queries, ALPHAS), strict=True):
        made = zip(ALPHAS, said.tolist(), strict=True)
        row["candidates"] = [{"model": f"ggez-hub/{model}", "alpha": alpha, "text": text} for alpha, text in made]
    return rows


def described(aspect: str, name: str, task: str) -> dict:
    """An item without candidates."""
    prompt = atlas.caption(by_name(name), 1)
    about = {"task": task, "aspect": aspect, "country": by_name(name).country, "prompt": prompt}
    return {"id": f"{task}-{name.lower().replace(' ', '-')}", **about, "candidates": [], "synthetic": True}


def by_name(name: str) -> atlas.Concept:
    return next(concept for concept in atlas.concepts() if concept.name == name)


if __name__ == "__main__":
    main()
