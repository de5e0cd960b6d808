"""Trees of image files of one colour each."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

RED, GREEN = (200, 30, 30), (30, 200, 30)


def saved(path: Path, colour: Sequence[int] = RED, size: tuple[int, int] = (40, 40)) -> Path:
    """An image of one colour, or of one grey if it has one part only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((size[1], size[0], len(colour)), colour, dtype=np.uint8)
    Image.fromarray(pixels[..., 0] if len(colour) == 1 else pixels).save(path)
    return path


def coloured_tree(root: Path, *, count: int = 10, suffix: str = ".png") -> Path:
    """A red and a green class."""
    for name, colour in (("red", RED), ("green", GREEN)):
        for number in range(count):
            saved(root / name / f"{number}{suffix}", colour)
    return root
