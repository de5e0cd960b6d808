"""The command that repeats a run, from its options."""

import shlex
from collections.abc import Callable, Sequence

from nas.studies.options import SearchOptions
from nas.studies.targets import Target

_DEFAULTS = SearchOptions(device="cpu", budget_ms=1.0)
_TOLD = ("space", "trials", "seed", "searcher", "accuracy")  # whatever they are
_TIMING = ("runtime", "precision", "threads")
_UNLESS_DEFAULT = ("parallel", "data", "epochs", "growing", "weights")
_SPELLED = {"resolutions": "resolution", "activations": "activation"}


def command_of(options: SearchOptions) -> str:
    """Return the command for a shell, one option a line; it begins a new folder."""
    values = options.as_json()
    targets = options.targets
    devices = [("device", target.device) for target in targets]
    given = {"budget": _each(targets, lambda t: f"{str(t.budget_ms).removesuffix('.0')}ms")}
    given |= {name: _word(values[name]) for name in _TOLD}
    given |= {name: _shared(targets, name) for name in _TIMING}
    for name in (*_UNLESS_DEFAULT, *_SPELLED):
        if getattr(options, name) != getattr(_DEFAULTS, name):
            given[_SPELLED.get(name, name)] = _word(values[name])
    if options.classes is not None and not options.data:  # else they are the data's
        given["classes"] = str(options.classes)
    lines = [shlex.join([f"--{name}", word]) for name, word in (*devices, *given.items())]
    return " \\\n  ".join(["fasternas search", *lines])


def _each(targets: Sequence[Target], word: Callable[[Target], str]) -> str:
    """A word for each device: pi=10ms,cpu=3ms; of one alone, the word."""
    if len(targets) == 1:
        return word(targets[0])
    return ",".join(f"{target.device}={word(target)}" for target in targets)


def _shared(targets: Sequence[Target], name: str) -> str:
    """What is the same on all devices, once; else for each."""
    values = [str(getattr(target, name)) for target in targets]
    if len(set(values)) == 1:
        return values[0]
    return _each(targets, lambda target: str(getattr(target, name)))


def _word(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
