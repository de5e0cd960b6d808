"""A figure as inline SVG: in the colours of the page, and its points say what they are."""

import re
from io import BytesIO
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote
from xml.etree import ElementTree as ET

from markupsafe import Markup

from nas.report.sheet import PALETTE, WIDE, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NAMES = {colour.lower(): name for name, colour in PALETTE.items()}
_UNPRINTABLE = dict.fromkeys((*range(9), *range(11, 32), *range(127, 160)), "�")
_POINT, _STOP = "point:", "stop:"  # as matplotlib has no titles, its URLs carry them


def printable(words: str) -> str:
    """Return words without control characters and without what is no Unicode."""
    return words.encode("utf-8", "replace").decode().translate(_UNPRINTABLE)


def point_url(words: str, *, stop: bool = False) -> str:
    """Return the URL of a mark that says these words; at a `stop` the keyboard stops too."""
    return (_STOP if stop else _POINT) + quote(printable(words))


def inline_svg(figure: "Figure", *, name: str, label: str, look: str = "") -> Markup:
    """Return the figure as an element of a page; `name` keeps its ids apart from others'."""
    image = BytesIO()
    metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with style(WIDE):
        figure.savefig(image, format="svg", facecolor="none", metadata=metadata)
    root = ET.fromstring(image.getvalue())
    for element in list(root.iter()):
        _plain(element, name)
        if element.tag == "a":
            _name_point(element)
    root.remove(root[0])  # a style, which would be the whole page's
    points = root.find(".//g[@class='point']") is not None
    view = root.attrib["viewBox"]
    root.attrib.clear()
    root.attrib |= {
        "viewBox": view,
        "class": f"figure {look}".strip(),
        "role": "group" if points else "img",
        "aria-label": label,
    }
    return Markup(ET.tostring(root, encoding="unicode"))


def _plain(element: ET.Element, name: str) -> None:
    """Drop namespaces and needless ids, shorten numbers, put the page's colours in."""
    element.tag = element.tag.rpartition("}")[2]
    element.tail = None
    found = {key.rpartition("}")[2]: value for key, value in element.attrib.items()}
    if element.tag not in ("path", "clipPath"):
        found.pop("id", None)
    for key, value in found.items():
        found[key] = _attribute(key, value, name)
    element.attrib.clear()
    element.attrib |= found
    if element.tag != "text":
        element.text = None


def _attribute(key: str, value: str, name: str) -> str:
    if key == "id":
        return f"{name}-{value}"
    if key in ("href", "clip-path"):
        return value.replace("#", f"#{name}-")
    if key == "style":
        value = re.sub("#[0-9a-f]{6}", lambda c: f"var(--{_NAMES.get(c[0], 'ink')})", value)
        return re.sub("'DejaVu Sans'[^;]*", "system-ui, sans-serif", value)
    return re.sub(r"\s+", " ", re.sub(r"(\.\d\d)\d+", r"\1", value)).strip()


def _name_point(element: ET.Element) -> None:
    """Turn a link into a group with a title."""
    kind, _, words = element.attrib.pop("href").partition(":")
    element.tag = "g"
    element.attrib.clear()
    element.attrib |= {"class": "point", "role": "img"}
    if f"{kind}:" == _STOP:
        element.set("tabindex", "0")
    title = ET.Element("title")
    title.text = unquote(words)
    element.insert(0, title)
