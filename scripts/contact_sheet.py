"""Writes a contact sheet of the pocket atlas."""

import argparse
from pathlib import Path

import yaml
from PIL import Image, ImageDraw

from ggez_hub.pocket import render

ATLAS = Path(render.__file__).parent / "atlas"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out")
    parser.add_argument("--only", default="*", help="one file of the atlas, by its stem")
    parser.add_argument("--nuisance", action="store_true", help="as the models see them")
    parser.add_argument("--columns", type=int, default=12)
    parser.add_argument("--size", type=int, default=112)
    args = parser.parse_args()
    concepts = [c for path in sorted(ATLAS.glob(f"{args.only}.yaml")) for c in yaml.safe_load(path.read_text())]
    for concept in concepts:
        for shape in concept["drawing"]:
            if problem := render.check_shape(shape):
                raise SystemExit(f"{concept['name']}: {problem}")
    cell_w, cell_h = args.size + 8, args.size + 24
    sheet = Image.new("RGB", (args.columns * cell_w, -(-len(concepts) // args.columns) * cell_h), "white")
    pen = ImageDraw.Draw(sheet)
    for i, concept in enumerate(concepts):
        x, y = i % args.columns * cell_w + 4, i // args.columns * cell_h + 2
        if args.nuisance:
            small = render.draw_concept(concept["name"], concept["drawing"], 0)
            picture = small.resize((args.size, args.size), Image.Resampling.NEAREST)
        else:
            picture = render.draw_plain(concept["drawing"], args.size)
        sheet.paste(picture, (x, y))
        pen.text((x, y + args.size + 2), concept["name"][:19], fill="black")
    sheet.save(args.out, optimize=True)
    print(f"{len(concepts)} concepts -> {args.out}")


if __name__ == "__main__":
    main()
