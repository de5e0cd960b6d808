"""The command line: what `fasternas` parses, calls and prints."""

import sys
from types import TracebackType


def _one_line(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    """What is interrupted while it is still being imported has no traceback either."""
    if issubclass(kind, KeyboardInterrupt):
        sys.stderr.write("fasternas: interrupted; what was finished is kept.\n")
    else:
        sys.__excepthook__(kind, error, traceback)


sys.excepthook = _one_line
