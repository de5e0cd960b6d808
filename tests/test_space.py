"""A space is any frozen dataclass with some of its fields left open."""

import math
import pickle
from dataclasses import dataclass, field
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from search_spaces.fasternet import SPACES
from search_spaces.space import Each, OneOf, Space, each, oneof


@dataclass(frozen=True)
class Cell:
    """A config that has nothing to do with FasterNet."""

    op: str
    kernel: int = 3
    widths: tuple[int, ...] = (8, 16)
    bias: bool = True
    tags: tuple[str, ...] = field(default_factory=tuple)


TRUTHS = (False, True)
SPACE = Space(
    Cell,
    op=oneof("conv", "pool", None),
    widths=each(oneof(8, 16, 24), oneof(32)),
    bias=oneof(*TRUTHS),
    kernel=5,
)


@pytest.mark.parametrize("space", [SPACE, *SPACES.values()], ids=["cell", *SPACES])
@settings(max_examples=60, database=None, derandomize=True, deadline=None)
@given(data=st.data())
def test_encoding_is_the_inverse_of_decoding(space: Space[Any], data: st.DataObject) -> None:
    genes = tuple(data.draw(st.integers(0, n - 1)) for n in space.cardinalities)
    config = space.decode(genes)
    assert space.encode(config) == genes
    assert config in space


def test_the_nearest_choices_to_a_config_outside() -> None:
    space = SPACE.replace(kernel=oneof(3, 5, 9))
    genes = space.nearest(Cell(op="other", kernel=8, widths=(21, 7), bias=False))
    assert space.decode(genes) == Cell(op="conv", kernel=9, widths=(24, 32), bias=False)
    assert space.nearest(Cell(op="pool", widths=(8, 8, 8))) == space.encode(
        Cell(op="pool", kernel=3, widths=(8, 32), bias=True)
    )


def test_a_config_takes_its_choices_fixed_values_and_defaults() -> None:
    assert SPACE.decode((1, 2, 0, 0)) == Cell(op="pool", widths=(24, 32), bias=False, kernel=5)


def test_genes_follow_the_fields_in_the_order_given() -> None:
    assert SPACE.names == ("op", "widths[0]", "widths[1]", "bias")
    assert SPACE.cardinalities == (3, 3, 1, 2)


def test_the_size_counts_the_configs() -> None:
    assert SPACE.size == 18
    assert SPACE.size_by_field == {"op": 3, "widths": 3, "bias": 2}
    genes = [(a, b, 0, c) for a in range(3) for b in range(3) for c in range(2)]
    assert len({SPACE.decode(g) for g in genes}) == 18


def test_a_space_without_open_fields_has_one_config() -> None:
    space = Space(Cell, op="conv")
    assert (space.size, space.decode(()), space.encode(Cell("conv"))) == (1, Cell("conv"), ())


def test_one_seed_draws_one_config_and_all_are_reached() -> None:
    assert SPACE.sample(Random(3)) == SPACE.sample(Random(3))
    rng = Random(0)
    assert len({SPACE.sample(rng) for _ in range(400)}) == 18


@pytest.mark.parametrize("choices", [(1, 2.5), (3,), tuple(np.arange(3))])
def test_numbers_are_ordered(choices: tuple[Any, ...]) -> None:
    assert oneof(*choices).ordered


@pytest.mark.parametrize("choices", [("a", "b"), TRUTHS, (1, "a"), (None, 1), (1.0, math.inf)])
def test_other_choices_are_not_ordered(choices: tuple[Any, ...]) -> None:
    assert not oneof(*choices).ordered


def test_replace_opens_narrows_and_fixes() -> None:
    space = SPACE.replace(op="conv", kernel=oneof(3, 5, 7), bias=oneof(*TRUTHS[1:]))
    assert space.size_by_field == {"widths": 3, "bias": 1, "kernel": 3}
    assert Cell("pool", kernel=5, widths=(8, 32)) in SPACE
    assert Cell("pool", kernel=5, widths=(8, 32)) not in space


def test_contains_tells_members_from_others() -> None:
    member = Cell("conv", kernel=5, widths=(8, 32))
    assert member in SPACE
    assert "conv" not in SPACE
    assert Cell("conv", kernel=3, widths=(8, 32)) not in SPACE  # against the fixed value
    assert Cell("conv", kernel=5, widths=(8, 32), tags=("x",)) not in SPACE  # against the default


def test_repr_shows_every_choice() -> None:
    assert repr(SPACE) == (
        "Space(Cell,\n    op=oneof('conv', 'pool', None),\n"
        "    widths=each(oneof(8, 16, 24), oneof(32)),\n    bias=oneof(False, True),\n"
        "    kernel=5,\n)"
    )


def test_a_space_can_be_sent_to_another_process() -> None:
    again = pickle.loads(pickle.dumps(SPACE))
    assert repr(again) == repr(SPACE)
    assert again.decode((2, 1, 0, 1)) == SPACE.decode((2, 1, 0, 1))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (Cell("add", kernel=5, widths=(8, 32)), r"`op` must be oneof\('conv', 'pool', None\)"),
        (Cell("conv", kernel=5, widths=(8, 16)), r"`widths\[1\]` must be oneof\(32\).*got 16"),
        (Cell("conv", kernel=5, widths=(8,)), r"`widths` must be each\(.*got \(8,\)"),
        (Cell("conv", kernel=3, widths=(8, 32)), "`kernel` must be 5 in this space, but got 3"),
        (Cell("conv", 5, (8, 32), tags=("x",)), r"`tags` must be \(\) in this space"),
    ],
)
def test_a_config_outside_is_refused_by_its_field(config: Cell, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SPACE.encode(config)


@pytest.mark.parametrize(
    ("genes", "message"),
    [
        ((0, 0, 0), "`genes` must have 4 entries, but got 3"),
        ((0, 0, 0, 0, 0), "`genes` must have 4 entries, but got 5"),
        ((3, 0, 0, 0), r"The gene of `op` must be in 0\.\.2, but got 3"),
        ((0, -1, 0, 0), r"The gene of `widths\[0\]` must be in 0\.\.2, but got -1"),
    ],
)
def test_genes_that_spell_nothing_are_refused(genes: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SPACE.decode(genes)


def test_choices_must_be_there_and_differ() -> None:
    with pytest.raises(ValueError, match="`oneof` must have at least one choice, but got none"):
        oneof()
    with pytest.raises(ValueError, match=r"`oneof` must have distinct choices, but got \(1, 1\)"):
        oneof(1, 1)
    not_a_choice: Any = (8, 16)
    with pytest.raises(TypeError, match=r"`each` must be given oneof\(...\) items, but got \(8"):
        each(not_a_choice)


@dataclass(frozen=True, slots=True)
class Other:
    """A config of another class, some of whose fields bear the same names."""

    op: str = "conv"
    inner: object = None


def test_a_choice_must_equal_itself() -> None:
    with pytest.raises(ValueError, match=r"`oneof` must have choices that equal .* got \(nan, nan"):
        oneof(float("nan"), float("nan"))


INNER = oneof(1, 2)


@pytest.mark.parametrize(
    "value", [INNER, each(INNER), (3, INNER), [(INNER,)], {"a": INNER}, Other(inner=INNER)]
)
def test_choices_inside_a_choice_or_a_value_are_refused(value: Any) -> None:
    with pytest.raises(TypeError, match=r"`oneof` must have plain values as choices, but got \("):
        oneof(value, 3)
    if not isinstance(value, (OneOf, Each)):
        with pytest.raises(
            TypeError, match=r"`tags` must be oneof.* Use each\(\.\.\.\) for a tuple"
        ):
            SPACE.replace(tags=value)


def test_values_may_hold_plain_values() -> None:
    assert Space(Other, inner=oneof((1, 2), Other(), {"a": Other})).size == 3
    assert Space(Other, inner=(1, Other())).decode(()) == Other(inner=(1, Other()))


def test_a_config_of_another_class_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`config` must be of class Cell, but got Other\("):
        SPACE.encode(Other())  # type: ignore[arg-type]
    assert Other() not in SPACE


def test_fields_must_be_known_and_complete() -> None:
    with pytest.raises(ValueError, match="`kernels` must be a field of Cell, which has op, kernel"):
        Space(Cell, op="conv", kernels=oneof(3, 5))
    with pytest.raises(ValueError, match="`op` of Cell has no default, so the space must give it"):
        Space(Cell, kernel=oneof(3, 5))


@dataclass
class Mutable:
    """Could change under a searcher's hands."""

    kernel: int = 3


@pytest.mark.parametrize("config_class", [Mutable, dict])
def test_only_frozen_dataclasses_span_a_space(config_class: type) -> None:
    with pytest.raises(TypeError, match="`config_class` must be a frozen dataclass, but got"):
        Space(config_class)


def test_a_config_in_place_of_its_class_is_refused() -> None:
    config: Any = Cell("conv")
    with pytest.raises(TypeError, match=r"`config_class` must be a class, .* Give Cell itself"):
        Space(config)


def test_the_pieces_are_plain_values() -> None:
    assert oneof(1, 2) == OneOf((1, 2))
    assert each(oneof(1)) == Each((OneOf((1,)),))


def test_a_value_that_equals_a_choice_is_that_choice() -> None:
    """Though NumPy's numbers of fewer digits have another hash."""
    space = Space(Cell, op=oneof(0.1, 0.2), kernel=oneof(1, 2))
    numbers: Any = {"op": np.float32(0.2), "kernel": np.int64(2)}
    assert space.encode(Cell(**numbers)) == (1, 1)
