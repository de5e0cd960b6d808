"""A table on standard output."""

from collections.abc import Sequence


def print_table(header: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    """Print rows of cells under a header, in columns."""
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    for row in (header, ["-" * width for width in widths], *cells):
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )
