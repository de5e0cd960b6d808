"""Which configs a supernet is trained with in one step: the largest, the smallest and some more."""

from collections.abc import Sequence
from functools import lru_cache
from random import Random
from typing import Any, TypeVar

from search_spaces.layers import Layered
from search_spaces.space import Genes, Space

L = TypeVar("L", bound=Layered)

_STARTS = 8  # a climb from one config may end where only two changes at once are valid
_TRIES = 10_000  # draws of a valid config


def sandwich(space: Space[L], rng: Random, count: int) -> list[L]:
    """Return the configs of one training step (the sandwich rule, arXiv 1903.05134, section 3.2).

    The largest, the smallest, then `count - 2` random ones. Size is multiply-accumulates; what
    does not change it, such as the activation, is drawn.

    Raises:
        ValueError: if `count` is below 2, or hardly any config of the space is valid.
    """
    if count < 2:
        raise ValueError(f"`count` must be at least 2, for the largest config and the smallest, "
                         f"but got {count}.")  # fmt: skip
    anything = tuple(tuple(range(n)) for n in space.cardinalities)
    options = [*_extremes(space), *[anything] * (count - 2)]
    return [space.decode(_draw(space, o, rng)) for o in options]


@lru_cache(maxsize=8)
def _extremes(space: Space[Layered]) -> tuple[tuple[tuple[int, ...], ...], ...]:
    """For the largest config and for the smallest, the choices of each gene that tie."""
    anything, rng = [range(n) for n in space.cardinalities], Random(0)
    starts = [_draw(space, anything, rng) for _ in range(_STARTS)]
    found = []
    for sign in (1, -1):
        ends = [_climb(space, start, sign) for start in starts]
        best = max(ends, key=lambda genes: sign * (_macs(space, genes) or 0))
        found.append(_ties(space, best))
    return tuple(found)


def _climb(space: Space[Layered], genes: Genes, sign: int) -> Genes:
    """Set each gene to what gives the most (or with sign -1, fewest) MACs, until none changes."""
    while True:
        before = genes
        for i in range(len(genes)):
            sizes = {g: sign * n for g in _variants(space, genes, i) if (n := _macs(space, g))}
            genes = max(sizes, key=sizes.__getitem__)
        if genes == before:
            return genes


def _ties(space: Space[Layered], genes: Genes) -> tuple[tuple[int, ...], ...]:
    """The choices of each gene that leave the MACs as they are."""
    size = _macs(space, genes)
    return tuple(
        tuple(g[i] for g in _variants(space, genes, i) if _macs(space, g) == size)
        for i in range(len(genes))
    )


def _variants(space: Space[Any], genes: Genes, i: int) -> list[Genes]:
    return [(*genes[:i], choice, *genes[i + 1 :]) for choice in range(space.cardinalities[i])]


@lru_cache(maxsize=2**14)  # climbs end on the same configs
def _macs(space: Space[Layered], genes: Genes) -> int | None:
    """Multiply-accumulates of the config, or none where the genes spell no valid one."""
    try:
        return sum(layer.macs for layer in space.decode(genes).layers())
    except ValueError:
        return None


def _draw(space: Space[Any], options: Sequence[Sequence[int]], rng: Random) -> Genes:
    """Draw genes out of the options until they spell a valid config."""
    for _ in range(_TRIES):
        genes = tuple(rng.choice(choices) for choices in options)
        if _macs(space, genes) is not None:
            return genes
    raise ValueError(f"`space` must have valid configs, but {_TRIES} random ones were not. "
                     "Give fields that fit each other.")  # fmt: skip
