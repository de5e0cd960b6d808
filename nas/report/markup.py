"""HTML and SVG from Python: text is escaped, and mypy refuses a plain string in its place.

tag("p", text("5 < 10"), class_="note")  # <p class="note">5 &lt; 10</p>
"""

import re
from collections.abc import Iterable
from html import escape
from typing import NewType

Html = NewType("Html", str)

_CODE = re.compile("`([^`]+)`")
_ALONE = {"meta", "link", "br"}  # they have no end
_KEPT = "\t\n"  # of the control characters; a terminal's escapes are no text
_UNPRINTABLE = {code: "\ufffd" for code in (*range(32), *range(127, 160)) if chr(code) not in _KEPT}


def text(words: object) -> Html:
    """Return words as text, or as the value of an attribute, whatever they hold."""
    whole = str(words).encode("utf-8", "replace").decode()  # a file's name may be no Unicode
    return Html(escape(whole.translate(_UNPRINTABLE)))


def prose(words: object) -> Html:
    """Return words as text in which `code` stands as in Markdown; not for attributes."""
    return Html(_CODE.sub(r"<code>\1</code>", text(words)))


def tag(name: str, /, *inside: Html, **attributes: object) -> Html:
    """Return an element; `class_` spells class, `aria_label` aria-label, None leaves out."""
    spelled = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text(value)}"'
        for key, value in attributes.items() if value is not None
    )  # fmt: skip
    start = f"<{name}{spelled}>"
    return Html(start if name in _ALONE else f"{start}{''.join(inside)}</{name}>")


def joined(parts: Iterable[Html]) -> Html:
    """Return parts one after another."""
    return Html("".join(parts))
