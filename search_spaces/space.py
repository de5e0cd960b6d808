"""A search space is a config class with some of its fields left open.

    space = Space(Config, kernel=oneof(3, 5, 7), widths=each(oneof(16, 32), oneof(32, 64)))

Searchers see genes only, a tuple of small ints, one for each `oneof`; everything downstream sees
plain configs. `decode` and `encode` are the bridge.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cached_property
from numbers import Real
from random import Random
from typing import Any, Generic, TypeVar

C = TypeVar("C")
Genes = tuple[int, ...]


@dataclass(frozen=True)
class OneOf:
    """One value out of several."""

    choices: tuple[Any, ...]

    def __post_init__(self) -> None:
        if not self.choices:
            raise ValueError("`oneof` must have at least one choice, but got none. Name a value.")
        if any(value in self.choices[:i] for i, value in enumerate(self.choices)):
            raise ValueError(
                f"`oneof` must have distinct choices, but got {self.choices}. Remove the repeats."
            )
        if _holds_choices(self.choices):
            raise TypeError(
                f"`oneof` must have plain values as choices, but got {self.choices}. List them "
                "all; for a tuple of choices use each(...)."
            )
        if any(value != value for value in self.choices):
            raise ValueError(
                f"`oneof` must have choices that equal themselves, but got {self.choices}. Remove "
                "what is not a number."
            )

    @property
    def ordered(self) -> bool:
        """Whether the choices are finite numbers, so that neighbours in the list are alike."""
        return all(
            isinstance(c, Real) and not isinstance(c, bool) and math.isfinite(c)
            for c in self.choices
        )

    def place(self, value: object) -> int | None:
        """Return where a value stands among the choices; None where it is none."""
        try:
            place = self._places.get(value)
        except TypeError:  # choices or the value have no hash
            place = None
        if place is None and value in self.choices:  # equal, but of another hash
            return self.choices.index(value)
        return place

    def nearest(self, value: object) -> int:
        """Return the place of a value, of the nearest number, or of the first choice."""
        place = self.place(value)
        if place is None and self.ordered and isinstance(value, Real):
            number = float(value)
            return min(range(len(self.choices)), key=lambda i: abs(self.choices[i] - number))
        return place or 0

    @cached_property
    def _places(self) -> Mapping[object, int]:
        return {value: i for i, value in enumerate(self.choices)}

    def __repr__(self) -> str:
        return f"oneof({', '.join(map(repr, self.choices))})"


@dataclass(frozen=True)
class Each:
    """A tuple whose items are chosen independently."""

    items: tuple[OneOf, ...]

    def __repr__(self) -> str:
        return f"each({', '.join(map(repr, self.items))})"


def oneof(*choices: Any) -> OneOf:
    """Leave a field open: one of these values. Give numbers in ascending order."""
    return OneOf(choices)


def each(*items: OneOf) -> Each:
    """Leave a tuple field open: one choice for each item."""
    for item in items:
        if not isinstance(item, OneOf):
            raise TypeError(f"`each` must be given oneof(...) items, but got {item!r}.")
    return Each(items)


class Space(Generic[C]):
    """All the configs that the open fields of a frozen dataclass allow.

    Every combination must make a config: one that the class refuses ends a search.

    Args:
        config_class: a frozen dataclass.
        fields: for a field of that class, `oneof(...)`, `each(...)` or a fixed value. A field
            that is not named keeps its default.

    Raises:
        TypeError: if `config_class` is not a frozen dataclass, or choices lie inside a value.
        ValueError: if a field is unknown, or has neither choices nor a default.
    """

    def __init__(self, config_class: type[C], /, **fields: Any) -> None:
        _check_class(config_class)
        _check_fields(config_class, fields)
        self.config_class = config_class
        self.fields: Mapping[str, Any] = fields
        self.genes: tuple[OneOf, ...] = tuple(g for _, g in _leaves(fields))
        self.names: tuple[str, ...] = tuple(name for name, _ in _leaves(fields))
        self.cardinalities: tuple[int, ...] = tuple(len(gene.choices) for gene in self.genes)
        self._fixed: dict[str, object] | None = None  # as the config class makes them

    @property
    def size(self) -> int:
        """The number of configs."""
        return math.prod(self.cardinalities)

    @property
    def size_by_field(self) -> dict[str, int]:
        """The number of choices that each open field contributes; their product is `size`."""
        return {
            name: math.prod(len(gene.choices) for _, gene in _leaves({name: node}))
            for name, node in self.fields.items()
            if isinstance(node, (OneOf, Each))
        }

    def random_genes(self, rng: Random) -> Genes:
        """Draw genes uniformly."""
        return tuple(rng.randrange(n) for n in self.cardinalities)

    def sample(self, rng: Random) -> C:
        """Draw a config uniformly."""
        return self.decode(self.random_genes(rng))

    def decode(self, genes: Sequence[int]) -> C:
        """Return the config that the genes spell.

        Raises:
            ValueError: if there are too many or too few genes, or one is out of range.
        """
        if len(genes) != len(self.genes):
            raise ValueError(
                f"`genes` must have {len(self.genes)} entries, but got {len(genes)}: {genes!r}."
            )
        for name, gene, n in zip(self.names, genes, self.cardinalities, strict=True):
            if not 0 <= gene < n:
                raise ValueError(f"The gene of `{name}` must be in 0..{n - 1}, but got {gene}.")
        remaining = iter(genes)
        values = {name: _choose(node, remaining) for name, node in self.fields.items()}
        return self.config_class(**values)

    def encode(self, config: C) -> Genes:
        """Return the genes that spell the config.

        Raises:
            ValueError: if the config is not in the space; the message names the field.
        """
        if not isinstance(config, self.config_class):
            raise ValueError(
                f"`config` must be of class {self.config_class.__name__}, but got {config!r}."
            )
        genes = tuple(
            gene
            for name, node in self.fields.items()
            if isinstance(node, (OneOf, Each))
            for gene in _encode_field(name, getattr(config, name), node)
        )
        self._check_fixed(config, genes)
        return genes

    def nearest(self, config: C) -> Genes:
        """Return the genes of the choices nearest to a config's, which need not be in the space."""
        genes: list[int] = []
        for name in self.size_by_field:
            node, value = self.fields[name], getattr(config, name)
            items = node.items if isinstance(node, Each) else (node,)
            values = value if isinstance(node, Each) else (value,)
            if not isinstance(values, tuple) or len(values) != len(items):
                values = (None,) * len(items)
            genes += [item.nearest(one) for item, one in zip(items, values, strict=True)]
        return tuple(genes)

    def _check_fixed(self, config: C, genes: Genes) -> None:
        """Compare the fields that are not open as the config class makes them: it may fill some."""
        if self._fixed is None:
            first = self.decode(genes)
            names = (f.name for f in fields(self.config_class) if f.init)  # type: ignore[arg-type]
            self._fixed = {n: getattr(first, n) for n in names if not self._is_open(n)}
        if all(getattr(config, name) == value for name, value in self._fixed.items()):
            return  # a config class that fills them by the choices is asked again
        spelled = self.decode(genes)
        for f in fields(self.config_class):  # type: ignore[arg-type]
            value, fixed = getattr(config, f.name), getattr(spelled, f.name)
            if f.init and value != fixed:
                raise ValueError(f"`{f.name}` must be {fixed!r} in this space, but got {value!r}.")

    def _is_open(self, name: str) -> bool:
        return isinstance(self.fields.get(name), (OneOf, Each))

    def __contains__(self, config: object) -> bool:
        try:
            self.encode(config)  # type: ignore[arg-type]
        except ValueError:
            return False
        return True

    def replace(self, **fields: Any) -> "Space[C]":
        """Return the space with some fields opened, narrowed or fixed."""
        return Space(self.config_class, **{**self.fields, **fields})

    def with_choices(self, choices: Mapping[str, Sequence[Any]]) -> "Space[C]":
        """Return the space with these values for fields to choose from, whatever it had before.

        A field that is a tuple chooses among them at each of its places; `field[0]` is the first
        place alone.

        Raises:
            ValueError: if there is no such field or place, or the values are of another kind than
                the field's, repeat themselves, or are refused by the config class.
        """
        space = self
        for name in sorted(choices, key=lambda name: "[" in name):  # whole fields first
            space = _with_choice(space, name, choices[name])
        _try_each(space, (0,) * len(space.genes))
        _try_each(space, tuple(n - 1 for n in space.cardinalities))
        return space

    def __repr__(self) -> str:
        lines = "".join(f"\n    {name}={node!r}," for name, node in self.fields.items())
        return f"Space({self.config_class.__name__},{lines}\n)"


AnySpace = Space[Any]  # whatever the class of its configs


def _with_choice(space: "Space[C]", name: str, values: Sequence[Any]) -> "Space[C]":
    """The space with values for one field, or for one place of it, to choose from."""
    field, _, place = name.removesuffix("]").partition("[")
    known = [f.name for f in fields(space.config_class) if f.init]  # type: ignore[arg-type]
    if field not in known:
        raise ValueError(
            f"`{field}` must be a field of {space.config_class.__name__}, which has "
            f"{', '.join(known)}."
        )
    config = space.decode((0,) * len(space.genes))
    value = getattr(config, field)
    if not isinstance(value, tuple):
        if place:
            raise ValueError(f"`{field}` must be set as a whole, but got {name}: it is one value.")
        chosen = OneOf(_of_kind(field, values, value))
        return space.replace(**{field: chosen if len(chosen.choices) > 1 else chosen.choices[0]})
    # A tuple that may be left empty is as long as the others.
    places = len(value) or max(len(v) for v in vars(config).values() if isinstance(v, tuple))
    if place and place not in map(str, range(len(value))):
        raise ValueError(
            f"`{name}` must be {field} or one of {field}[0] to {field}[{places - 1}]."
            if value
            else f"`{field}` must be set as a whole, but got {name}."
        )
    chosen = OneOf(_of_kind(field, values, value[0] if value else values[0]))
    node = space.fields.get(field, value)
    if place and isinstance(node, OneOf):
        raise ValueError(
            f"`{field}` must be set as a whole, but got {name}: the space chooses among "
            f"{len(node.choices)} whole tuples."
        )
    before = node.items if isinstance(node, Each) else [OneOf((v,)) for v in value]
    items = [chosen if place in ("", str(i)) else before[i] for i in range(places)]
    return space.replace(**{field: Each(tuple(items))})


_KINDS: Mapping[type, tuple[str, tuple[type, ...]]] = {
    str: ("words", (str,)),
    float: ("numbers", (int, float)),
    int: ("whole numbers", (int,)),
}


def _of_kind(field: str, values: Sequence[Any], example: object) -> tuple[Any, ...]:
    """The values as those of the field are, numbers in ascending order."""
    kind, types = _KINDS.get(type(example), ("values", (object,)))
    if not all(isinstance(v, types) for v in values) or len(set(values)) < len(values):
        given = ",".join(map(str, values))
        raise ValueError(f"`{field}` must be distinct {kind} such as {example}, but got {given}.")
    if isinstance(example, float):
        values = [float(value) for value in values]
    return tuple(sorted(values) if "numbers" in kind else values)


def _try_each(space: "Space[C]", base: Genes) -> None:
    """Decode each choice with the others as in `base`: the config class refuses what cannot be."""
    for i, n in enumerate(space.cardinalities):
        for value in range(n):
            space.decode((*base[:i], value, *base[i + 1 :]))


def _leaves(nodes: Mapping[str, object]) -> list[tuple[str, OneOf]]:
    """The open choices in gene order, each with its name."""
    found: list[tuple[str, OneOf]] = []
    for name, node in nodes.items():
        if isinstance(node, OneOf):
            found.append((name, node))
        elif isinstance(node, Each):
            found.extend((f"{name}[{i}]", item) for i, item in enumerate(node.items))
    return found


def _holds_choices(value: object) -> bool:
    """Whether choices lie somewhere in a value, where no gene would reach them."""
    inside: Iterable[object] = ()
    if isinstance(value, (tuple, list)):
        inside = value
    elif isinstance(value, dict):
        inside = value.values()
    elif is_dataclass(value) and not isinstance(value, type):
        inside = [getattr(value, f.name, None) for f in fields(value)]
    return any(isinstance(item, (OneOf, Each)) or _holds_choices(item) for item in inside)


def _choose(node: object, genes: Iterator[int]) -> object:
    if isinstance(node, Each):
        return tuple(item.choices[next(genes)] for item in node.items)
    return node.choices[next(genes)] if isinstance(node, OneOf) else node


def _encode_field(name: str, value: object, node: OneOf | Each) -> list[int]:
    if isinstance(node, OneOf):
        place = node.place(value)
        if place is not None:
            return [place]
    elif isinstance(value, tuple) and len(value) == len(node.items):
        places = [item.place(v) for v, item in zip(value, node.items, strict=True)]
        if None in places:
            i = places.index(None)
            return _encode_field(f"{name}[{i}]", value[i], node.items[i])  # which is refused
        return [place for place in places if place is not None]
    raise ValueError(f"`{name}` must be {node!r} in this space, but got {value!r}.")


def _check_class(config_class: object) -> None:
    if not isinstance(config_class, type):
        raise TypeError(
            f"`config_class` must be a class, but got {config_class!r}. Give "
            f"{type(config_class).__name__} itself."
        )
    parameters = getattr(config_class, "__dataclass_params__", None)
    if parameters is None or not parameters.frozen:
        raise TypeError(
            f"`config_class` must be a frozen dataclass, but got {config_class!r}. Decorate it "
            "with @dataclass(frozen=True)."
        )


def _check_fields(config_class: Any, given: Mapping[str, object]) -> None:
    known = {f.name: f for f in fields(config_class) if f.init}
    for name, node in given.items():
        if name not in known:
            raise ValueError(
                f"`{name}` must be a field of {config_class.__name__}, which has "
                f"{', '.join(known)}."
            )
        if not isinstance(node, (OneOf, Each)) and _holds_choices(node):
            raise TypeError(
                f"`{name}` must be oneof(...), each(...) or a plain value, but got {node!r}. Use "
                "each(...) for a tuple of choices."
            )
    for name, f in known.items():
        if name not in given and f.default is MISSING and f.default_factory is MISSING:
            raise ValueError(
                f"`{name}` of {config_class.__name__} has no default, so the space must give it "
                "choices or a value."
            )
