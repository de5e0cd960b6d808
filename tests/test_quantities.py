"""Durations are read as people write them, and what is none is refused."""

import pytest

from nas.quantities import format_count, parse_duration_ms


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("10ms", 10.0),
        (" 0.5 s ", 500.0),
        ("800us", 0.8),
        ("800\u00b5s", 0.8),
        (".5ms", 0.5),
        ("+1.e-2s", 10.0),
        ("1e304s", 1e307),
        ("2h", 7.2e6),
        ("30 min", 1.8e6),
    ],
)
def test_durations_are_read_in_milliseconds(text: str, ms: float) -> None:
    assert parse_duration_ms(text) == pytest.approx(ms)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("-3ms", "must be positive, but got '-3ms'"),
        ("0s", "must be positive, but got '0s'"),
        ("1e-400ms", "must be positive, but got '1e-400ms'"),
        ("5e-324us", "must be positive, but got '5e-324us'"),  # 0 ms
        ("1e400ms", "must be finite, but got '1e400ms'"),
        ("-1e400ms", "must be positive, but got '-1e400ms'"),
        ("1e308s", "must be finite, but got '1e308s'"),  # the seconds are, not the milliseconds
        ("\u0663ms", "must be a duration such as 10ms, .* but got '\u0663ms'"),
        ("1e\u0663ms", "must be a duration such as 10ms"),
        ("10", "must end in us, ms, s, min or h, as in 10ms, but got '10'"),
        ("ten", "must be a duration such as 10ms, 0.5s or 800us, but got 'ten'"),
    ],
)
def test_what_is_no_duration_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_duration_ms(text)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (999, "999"),
        (1234, "1.23 K"),
        (999_800_000, "1 G"),
        (999_400_000, "999 M"),
        (999_600, "1 M"),
        (1.3e12, "1300 G"),
    ],
)
def test_counts_have_three_figures(number: float, text: str) -> None:
    assert format_count(number) == text
