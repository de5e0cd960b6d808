"""Tables as HTML: with a caption, headers that say what they head, and room to scroll."""

from collections.abc import Mapping, Sequence

from nas.report.markup import Html, tag, text


def table(
    header: Sequence[str], rows: Sequence[Sequence[Html]], *, caption: str | None, class_: str = ""
) -> Html:
    """Return a table whose first column heads its rows; without rows, nothing."""
    if not rows:
        return Html("")
    head = tag("thead", tag("tr", *(tag("th", text(name), scope="col") for name in header)))
    body = tag("tbody", *(tag("tr", tag("th", first, scope="row"), *(tag("td", c) for c in rest))
                          for first, *rest in rows))  # fmt: skip
    above = [tag("caption", text(caption))] if caption else []
    whole = tag("table", *above, head, body, class_=class_ or None)
    return scrolled(whole, caption) if caption else whole


def pairs(values: Mapping[str, object], *, caption: str) -> Html:
    """Return a table of names and values."""
    rows = [[text(name), text(_plain(value))] for name, value in values.items()]
    return table(["name", "value"], rows, caption=caption, class_="pairs")


def scrolled(whole: Html, label: str) -> Html:
    """Let something wide scroll by itself, by the keyboard too."""
    return tag("div", whole, class_="scrolled", role="region", aria_label=label, tabindex=0)


def kept(*words: Html) -> Html:
    """Keep words in one line."""
    return tag("span", *words, class_="kept")


def value(number: float, words: str) -> Html:
    """Return a number as people read it, the exact one beside it for programs."""
    return tag("data", text(words), value=repr(number))


def _plain(found: object) -> str:
    """A value as people read it."""
    if isinstance(found, dict):
        return " ".join(f"{name}={_plain(value)}" for name, value in found.items())
    if isinstance(found, list | tuple):
        return ", ".join(map(_plain, found)) or "not given"
    return "not given" if found in (None, "") else str(found)
