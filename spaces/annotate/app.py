"""The Space in this folder: `python app.py`, or `ggez space annotate --launch`."""

from pathlib import Path

from ggez_hub import spaces

if __name__ == "__main__":
    spaces.launch("annotate", Path(__file__).resolve().parent)
