"""One picture of PIL, of any mode and shape, as a square of uint8."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

_GREY = {"1", "L", "LA", "La", "I", "F"}  # PIL's modes without colour, I;16 and its like besides


def is_grey(mode: str) -> bool:
    """Whether a picture of this mode of PIL has no colours."""
    return mode in _GREY or mode.startswith("I;")


def square(image: "Image", *, resolution: int, channels: int) -> NDArray[np.uint8]:
    """Return [resolution, resolution, channels]: the centre, resized.

    Raises:
        Exception: whatever the decoder does on a broken file.
    """
    from PIL.Image import Resampling

    # JPEG decodes at a fraction of its size, many times as fast; nothing else heeds it.
    image.draft("L" if channels == 1 else "RGB", (resolution, resolution))
    colours = _converted(image, "L" if channels == 1 else "RGB")
    width, height = colours.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    resized = colours.resize(
        (resolution, resolution),
        Resampling.BICUBIC,
        box=(left, top, left + side, top + side),
        reducing_gap=3.0,
    )
    return np.asarray(resized).reshape(resolution, resolution, channels)


def _converted(image: "Image", mode: str) -> "Image":
    from PIL.Image import fromarray

    if image.mode == "I" or image.mode.startswith("I;"):  # 16 bits, which PIL would cut off at 255
        image = fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # PIL warns of the direct way
    return image.convert(mode)
