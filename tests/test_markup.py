"""Whatever a string holds, it stays text."""

import pytest

from nas.report.markup import joined, prose, tag, text


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("<script>", "&lt;script&gt;"),
        ("a & b", "a &amp; b"),
        ("\"'", "&quot;&#x27;"),
        ("two\nlines", "two\nlines"),
        ("\x1b[31mred", "\ufffd[31mred"),
        ("\udcff", "?"),
        (5, "5"),
    ],
)
def test_text_is_escaped(words: object, expected: str) -> None:
    assert text(words) == expected


def test_an_element_has_attributes_and_content() -> None:
    inside = tag("b", text("<"))
    assert tag("p", inside, class_="note", aria_label='"') == (
        '<p class="note" aria-label="&quot;"><b>&lt;</b></p>'
    )
    assert tag("meta", charset="utf-8") == '<meta charset="utf-8">'
    assert tag("p", class_=None) == "<p></p>"
    assert joined([text("a"), inside]) == "a<b>&lt;</b>"


def test_code_in_prose_is_escaped_and_marked() -> None:
    assert prose("`a<b>` and `c`, a ` alone") == (
        "<code>a&lt;b&gt;</code> and <code>c</code>, a ` alone"
    )
