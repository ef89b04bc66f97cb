"""The Space in this folder: `python app.py`, or `ggez space playground --launch`."""

from pathlib import Path

from ggez_hub import spaces

if __name__ == "__main__":
    spaces.launch("playground", Path(__file__).resolve().parent)
