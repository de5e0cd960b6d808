"""A small space whose scores are known by formula."""

from dataclasses import dataclass

from nas.search.trial import Scores
from search_spaces.space import Space, oneof


@dataclass(frozen=True)
class Point:
    """Two numbers."""

    x: int = 0
    y: int = 0


PLANE = Space(Point, x=oneof(*range(20)), y=oneof(*range(20)))


def scores_of(point: Point) -> Scores:
    """Return scores of which both rise with x, and the accuracy alone with y."""
    return Scores(accuracy=point.x + point.y / 2, latency_ms=1 + point.x)
