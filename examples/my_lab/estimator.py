"""An accuracy estimator: here a training-free score.

fasternas search --accuracy end-width ...
"""

from dataclasses import dataclass
from math import log
from pathlib import Path

import fasternas as fn


@dataclass(frozen=True)
class EndWidth:
    """The logarithm of the channels of the last map, times ten.

    `kind` says what the number is: `score` ranks networks and is no accuracy, `trained` is an
    accuracy in percent. It is sent to the processes that evaluate, so it holds no open file, and
    what is heavy is loaded when it is called.
    """

    kind: fn.AccuracyKind = "score"

    def __call__(self, config: fn.FasterNetConfig) -> float:
        """Return the score; the same config has the same one."""
        return 10 * log(config.out_width)


def open_end_width(options: fn.SearchOptions, folder: Path) -> EndWidth:
    """Open it for a run; what the entry point names.

    `options` are those of the search, such as its data and epochs; `folder` is the run's.
    """
    return EndWidth()


def main() -> None:
    """Score the named sizes."""
    score = EndWidth()
    for name, config in fn.FASTERNET.items():
        print(f"{name}: {score(config):.1f}")


if __name__ == "__main__":
    main()
