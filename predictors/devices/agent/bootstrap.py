"""How a program of this folder comes to run elsewhere, and how it answers requests."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Callable

    Message = dict[str, Any]  # a request or an answer

# Run by the other side's Python. The first line of its input holds modules by name, as text, each
# of which imports only earlier ones; the last one's main() is what runs.
BOOTSTRAP = """\
import json, sys, types
for name, text in json.loads(sys.stdin.buffer.readline()):
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(text, name, "exec"), module.__dict__)
module.main()
"""


def serve(answer: Callable[[Message, BinaryIO], Message]) -> None:
    """Answer requests until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a runtime prints must not mix with the answers
    for line in iter(sys.stdin.buffer.readline, b""):
        try:
            reply = answer(json.loads(line), sys.stdin.buffer)
        except Exception as error:  # whatever it is, it is told to the other side
            reply = {"error": " ".join(f"{type(error).__name__}: {error}".split())[:1000]}
        answers.write(json.dumps(reply) + "\n")
        answers.flush()
