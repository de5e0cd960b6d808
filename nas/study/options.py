"""The options of `fasternas search`, as the run folder keeps them."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Literal, get_args

import msgspec

from nas.quantities import limit_words
from nas.search.searchers import SearcherName, searcher_names
from predictors.cost import NO_LIMITS, Limits
from predictors.devices.device import DeviceSpec, budgets_of, check_specs
from predictors.training.recipe import Fidelity
from search_spaces.extensions import Group, check_free, extension_names, extension_source
from search_spaces.fasternet import FasterNetConfig
from search_spaces.io import listed
from search_spaces.space import OneOf, Space, oneof
from search_spaces.spaces import fasternet_space, space_names

AccuracyOption = Literal["estimate", "train"]  # and those of other packages
# Values of options that there are no more, and what to do instead.
_REMOVED: Mapping[tuple[str, str], str] = {
    ("accuracy", "supernet"): "Search anew with --accuracy train.",
    ("accuracy", "proxy"): "Search anew with --accuracy estimate.",
    ("init", "supernet"): "Search with --accuracy train, and leave --init out.",
}
_GROUPS: Mapping[str, Group] = {  # of other packages' names, by the option that takes them
    "space": "spaces",
    "searcher": "searchers",
    "accuracy": "estimators",
    "device": "devices",
    "runtime": "backends",
}
_OURS: Mapping[str, Collection[str]] = {  # of a space `find_space` looks itself
    "searcher": get_args(SearcherName),
    "accuracy": get_args(AccuracyOption),
}
OF_TRAININGS = ("epochs", "progressive", "flip")  # the options by which networks are trained
_PACKAGES = "packages"  # beside the options in run.json


def accuracy_names() -> tuple[str, ...]:
    """Return the names of the estimators: ours, and those that other packages have registered."""
    ours: tuple[str, ...] = get_args(AccuracyOption)
    return (*ours, *(name for name in extension_names("estimators") if name not in ours))


def check_accuracy(name: str, *, also: tuple[str, ...] = ()) -> None:
    """Refuse a name that no estimator has, nor is in `also`."""
    names = (*accuracy_names(), *also)
    if name not in names:
        refuse_removed("accuracy", name)
        raise ValueError(f"`accuracy` must be one of {', '.join(names)}, but got {name!r}.")


def refuse_removed(option: str, value: str) -> None:
    """Refuse what an option took in earlier versions: a run or a training may be of such a one."""
    if remedy := _REMOVED.get((option, value)):
        raise ValueError(f"`{option}` must not be {value}, which was removed. {remedy}")


def refuse_uninstalled(values: Mapping[str, Any], options: Iterable[str] = tuple(_GROUPS)) -> None:
    """Refuse the names in run.json that no installed package provides any more, nor do we."""
    if (accuracy := str(values.get("accuracy"))) not in accuracy_names():
        refuse_removed("accuracy", accuracy)  # before what else may have changed since
    kept = values.get(_PACKAGES)
    provided: dict[str, object] = kept if isinstance(kept, dict) else {}
    names = [(o, n) for o, _, n in (key.partition(" ") for key in provided) if o in _GROUPS]
    ours = {"space": space_names(), "searcher": searcher_names(), "accuracy": accuracy_names()}
    missing = [(o, n) for o, n in names if n not in extension_names(_GROUPS[o])]
    missing += [(o, str(values[o])) for o in ours if _is_unknown(values.get(o), ours[o])]
    for option, name in missing:
        if option in options:
            package = provided.get(f"{option} {name}", "")
            was = f"; {package} provided it when the search was begun" if package else ""
            raise ValueError(
                f"`{option}` {name} must be of an installed package, but none provides it{was}. "
                f"Install {package or 'the one that does'}, and try again."
            )


def _is_unknown(name: object, names: Sequence[str]) -> bool:
    return isinstance(name, str) and ":" not in name and name not in names


@dataclass(frozen=True, kw_only=True)
class FieldChoices:
    """What a field of the space may be instead, at each stage where it has one value for each.

    `field` may be that of one stage: kernels[0] is that of the first.
    """

    field: str
    values: tuple[int | float | str, ...]

    @property
    def words(self) -> str:
        """As on the command line: kernels=3,5."""
        return f"{self.field}={','.join(map(str, self.values))}"


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """What a study asks; two runs with equal options on one machine are one study."""

    devices: tuple[DeviceSpec, ...]  # each with a budget
    space: str = "fasternet"  # as `find_space` takes it
    trials: int = 200
    parallel: int = 8  # trials at once
    seed: int = 0
    searcher: str = "guided"
    accuracy: str = "estimate"
    data: str = ""  # what networks are trained on, as `load_data` takes it
    epochs: int = 8  # of the longest training
    progressive: tuple[Fidelity, ...] = ()  # what is smaller in the first epochs
    flip: bool = True  # left and right are alike in the images
    init: str = ""  # the file of a FasterNet with whose weights each network begins
    resolutions: tuple[int, ...] = ()  # empty: the space's own
    activations: tuple[str, ...] = ()  # empty: the space's own
    classes: int | None = None  # None: the space's own
    choices: tuple[FieldChoices, ...] = ()  # in place of the space's own
    limits: Limits = NO_LIMITS  # of what a network costs

    def __post_init__(self) -> None:
        self._check_names()
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"`seed` must be in 0..{2**31 - 1}, but got {self.seed}.")
        for name in ("trials", "parallel", "epochs"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, but got {getattr(self, name)}.")
        self._check_accuracy()
        self._check_choices()
        check_specs(self.devices)
        for device in self.devices:
            if device.budget_ms is None:
                raise ValueError(
                    f"`budget` must be given for each device, but {device.name} has none."
                )

    def _check_names(self) -> None:
        if self.searcher not in searcher_names():
            raise ValueError(
                f"`searcher` must be one of {', '.join(searcher_names())}, but got "
                f"{self.searcher!r}."
            )
        check_accuracy(self.accuracy)
        for option, ours in _OURS.items():
            if (name := getattr(self, option)) in ours:
                check_free(_GROUPS[option], name)

    @cached_property
    def budgets_ms(self) -> dict[str, float]:
        return budgets_of(self.devices)

    def _check_accuracy(self) -> None:
        if self.accuracy == "train" and not self.data:
            raise ValueError(
                "`data` must be given where `accuracy` is train, but is not. Name a folder of "
                "images, or use --accuracy estimate."
            )
        if self.init and self.accuracy != "train":
            raise ValueError(
                f"`init` must be left out where `accuracy` is {self.accuracy}, but got "
                f"{self.init}: only trainings begin with weights. Add --accuracy train."
            )
        if unknown := set(self.progressive) - set(get_args(Fidelity)):
            raise ValueError(
                f"`progressive` must be of {', '.join(get_args(Fidelity))}, but got "
                f"{min(unknown)!r}."
            )

    def _check_choices(self) -> None:
        fields = [choice.field for choice in self.choices]
        if "classes" in fields:
            raise ValueError("`classes` must be set by --classes, or by the data.")
        fields += ["resolution"] * bool(self.resolutions) + ["activation"] * bool(self.activations)
        if repeated := {field for field in fields if fields.count(field) > 1}:
            raise ValueError(
                f"`{min(repeated)}` must be set once, but is set twice. Name all of its values in "
                "one place."
            )

    def open_space(self) -> Space[FasterNetConfig]:
        """Return the space with the fields that the options open, narrow or fix."""
        space = fasternet_space(self.space)
        changes: dict[str, Any] = {}
        for name in ("resolutions", "activations"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(
                    f"`{name[:-1]}` must be distinct values, but got {','.join(map(str, values))}."
                )
        if self.resolutions:
            changes["resolution"] = oneof(*sorted(self.resolutions))
        if self.activations:
            changes["activation"] = oneof(*self.activations)
        if self.classes is not None:
            changes["classes"] = self.classes
        elif isinstance(open_classes := space.fields.get("classes"), OneOf):
            raise ValueError(
                f"`classes` must be one number, but {self.space} chooses among "
                f"{listed(list(map(str, open_classes.choices)))}. Say which: --classes N."
            )
        if not (changes or self.choices):
            return space
        chosen = {choice.field: choice.values for choice in self.choices}
        return space.replace(**changes).with_choices(chosen)

    @property
    def spelled(self) -> dict[str, object]:
        """What two studies have in common, or do not, in words: the options by name."""
        values: dict[str, object] = self._values()
        devices = "; ".join(device.words for device in self.devices)
        choices = " ".join(choice.words for choice in self.choices)
        limits = limit_words(self.limits)
        return {**values, "devices": devices, "choices": choices, "limits": limits}

    def as_json(self) -> dict[str, Any]:
        """Return them as run.json has them: with the packages of names that are none of ours."""
        return self._values() | ({_PACKAGES: self._packages()} if self._packages() else {})

    def _values(self) -> dict[str, Any]:
        values: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(self))
        return values

    def _packages(self) -> dict[str, str]:
        """The package with its version of each name that another package provides."""
        names = [(option, getattr(self, option)) for option in ("space", "searcher", "accuracy")]
        names += [("device", device.name) for device in self.devices]
        names += [("runtime", b.runtime) for device in self.devices for b in device.backends]
        return {
            f"{option} {name}": extension_source(_GROUPS[option], name)
            for option, name in names
            if name in extension_names(_GROUPS[option])
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "SearchOptions":
        """Return the options that `as_json` spelled."""
        refuse_uninstalled(values, ("space", "searcher", "accuracy"))
        # Runs of before have `weights`: empty, but for those that are refused.
        values = {n: value for n, value in values.items() if n not in ("weights", _PACKAGES)}
        unknown = values.keys() - {field.name for field in fields(cls)}
        if unknown:
            raise ValueError(
                "The options in run.json must be as a search wrote them, but "
                f"{min(unknown)} is none of them. Restore the file."
            )
        try:
            return msgspec.convert(values, cls)
        except msgspec.ValidationError as error:
            raise ValueError(
                f"The options in run.json must be as a search wrote them, but: {error}. Restore "
                "the file."
            ) from None


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """What of a search is not asked: how much is timed, when and how often."""

    calibration: int = 49  # networks timed before the search, at most
    calibration_margin: float = 0.07  # fewer do where upper ends are so near the predictions
    calibration_repeats: int = 1  # the predictor averages over networks what one timing misses
    front_repeats: int = 7  # of each network of the front
    risked: int = 8  # of so many proposals one may miss the budget, to be timed at the end
    near_misses: int = 4  # a round, of networks that could be the best of those within the budget
    front_rounds: int = 6  # of timing what has come onto the front
    gpu_share: float = (
        0.25  # of a GPU a trial, where there are some: small networks do not fill one
    )
    timed_ratio: float = 10.0  # up to which they are timed


SETTINGS = SearchSettings()
