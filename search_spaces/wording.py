"""Values as error messages show them."""

import reprlib

_LONGEST = 120  # characters


def brief(value: object) -> str:
    """Return a value's repr, shortened to what fits in a line of an error message.

    `reprlib` alone is not enough: it still shows six items in each of six levels.
    """
    text = reprlib.repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
