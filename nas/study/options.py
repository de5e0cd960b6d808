"""The options of `fasternas search`, as the run folder keeps them."""

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from nas.gauge import Unit
from nas.search.searchers import SearcherName
from nas.study.targets import Target, check_targets
from predictors.shares import WHOLE
from predictors.training.recipe import Fidelity
from search_spaces.fasternet import SPACES, FasterNetConfig
from search_spaces.space import Space, oneof

AccuracyOption = Literal["proxy", "train", "supernet"]


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """What a study asks; two runs with equal options on one machine are one study.

    Raises:
        ValueError: if the space is unknown or a number is out of range.
    """

    device: str
    budget_ms: float
    beside: tuple[Target, ...] = ()  # further devices, on which networks are to keep budgets too
    space: str = "fasternet"
    runtime: str = "onnxruntime"
    precision: str = "fp32"
    threads: int = 1
    trials: int = 200
    parallel: int = 8  # trials at once
    seed: int = 0
    searcher: SearcherName = "guided"
    accuracy: AccuracyOption = "proxy"
    data: str = ""  # what networks are trained on, as `load_data` takes it
    epochs: int = 8  # of the longest training
    progressive: tuple[Fidelity, ...] = ()  # what is smaller in the first epochs
    weights: str = ""  # that a supernet begins with, as `read_weights` takes them
    resolutions: tuple[int, ...] = ()  # empty: the space's own
    activations: tuple[str, ...] = ()  # empty: the space's own
    classes: int | None = None  # None: the space's own

    def __post_init__(self) -> None:
        if self.space not in SPACES:
            raise ValueError(f"`space` must be one of {', '.join(SPACES)}, but got {self.space!r}.")
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"`seed` must be in 0..{2**31 - 1}, but got {self.seed}.")
        for name in ("trials", "parallel"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, but got {getattr(self, name)}.")
        if self.searcher not in get_args(SearcherName):
            raise ValueError(f"`searcher` must be one of {', '.join(get_args(SearcherName))}, but "
                             f"got {self.searcher!r}.")  # fmt: skip
        self._check_accuracy()
        check_targets(self.targets)

    @property
    def targets(self) -> tuple[Target, ...]:
        """Every device with its budget."""
        first = Target(device=self.device, budget_ms=self.budget_ms, runtime=self.runtime,
                       precision=self.precision, threads=self.threads)  # fmt: skip
        return (first, *self.beside)

    @property
    def unit(self) -> Unit:
        """What the study's latencies are in: of several devices, per cent of a budget."""
        return "%" if self.beside else "ms"

    @property
    def limit(self) -> float:
        """The latency to keep, in that unit."""
        return WHOLE if self.beside else self.budget_ms

    def _check_accuracy(self) -> None:
        if self.accuracy not in get_args(AccuracyOption):
            raise ValueError(f"`accuracy` must be one of {', '.join(get_args(AccuracyOption))}, "
                             f"but got {self.accuracy!r}.")  # fmt: skip
        if self.accuracy != "proxy" and not self.data:
            raise ValueError(f"`data` must be given where `accuracy` is {self.accuracy}, but is "
                             "not. Name a folder of images, or use --accuracy proxy.")  # fmt: skip
        if self.weights and self.accuracy != "supernet":
            raise ValueError(f"`weights` must be left out where `accuracy` is {self.accuracy}, but "
                             f"got {self.weights}. They are what a supernet begins with: "
                             "--accuracy supernet.")  # fmt: skip
        if self.epochs < 1:
            raise ValueError(f"`epochs` must be at least 1, but got {self.epochs}.")
        if unknown := set(self.progressive) - set(get_args(Fidelity)):
            raise ValueError(f"`progressive` must be of {', '.join(get_args(Fidelity))}, but got "
                             f"{min(unknown)!r}.")  # fmt: skip

    def open_space(self) -> Space[FasterNetConfig]:
        """Return the space with the fields that the options open, narrow or fix."""
        space: Space[FasterNetConfig] = SPACES[self.space]
        changes: dict[str, Any] = {}
        for name in ("resolutions", "activations"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"`{name[:-1]}` must be distinct values, but got "
                                 f"{','.join(map(str, values))}.")  # fmt: skip
        if self.resolutions:
            changes["resolution"] = oneof(*sorted(self.resolutions))
        if self.activations:
            changes["activation"] = oneof(*self.activations)
        if self.classes is not None:
            changes["classes"] = self.classes
        opened = space.replace(**changes)
        for resolution in self.resolutions or (None,):  # refuses what no network could have
            for activation in self.activations or (None,):
                fixed = {"resolution": resolution, "activation": activation}
                narrowed = {k: v for k, v in fixed.items() if v is not None}
                opened.replace(**narrowed).decode((0,) * len(opened.replace(**narrowed).genes))
        return opened

    def as_json(self) -> dict[str, Any]:
        """Return the options as JSON values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "SearchOptions":
        """Return the options that `as_json` spelled.

        Raises:
            ValueError: if a value is missing or unknown.
        """
        wrong = [name for name, value in values.items() if not _is_option(name, value)]
        if wrong:
            raise ValueError(
                f"The options in run.json must be as a search wrote them, but {wrong[0]} is "
                f"{values[wrong[0]]!r:.60}. Restore the file."
            )
        try:
            fields: dict[str, Any] = {
                k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
            }
            beside = tuple(Target(**values) for values in fields.get("beside", ()))
            return cls(**{**fields, "beside": beside})
        except TypeError as error:
            raise ValueError(f"The options in run.json must be whole, but {error}.") from None


_KINDS: dict[str, tuple[type, ...]] = {
    "device": (str,), "budget_ms": (int, float), "space": (str,), "runtime": (str,),
    "precision": (str,), "threads": (int,), "trials": (int,), "parallel": (int,),
    "seed": (int,), "searcher": (str,),
    "accuracy": (str,), "data": (str,), "epochs": (int,), "progressive": (list,), "weights": (str,),
    "resolutions": (list,), "activations": (list,), "classes": (int, type(None)),
    "beside": (list,),
}  # fmt: skip


def _is_option(name: str, value: object) -> bool:
    """Whether a value of run.json can be this option's; an unknown name is refused elsewhere."""
    if isinstance(value, bool) or not isinstance(value, _KINDS.get(name, (object,))):
        return False
    return name != "beside" or all(map(_is_target, value))  # type: ignore[call-overload]


def _is_target(values: object) -> bool:
    return isinstance(values, dict) and all(_is_option(k, v) for k, v in values.items())
