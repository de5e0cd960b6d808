"""The command that repeats a run, from its options."""

import shlex

from nas.options import SearchOptions

_DEFAULTS = SearchOptions(device="cpu", budget_ms=1.0)
_TOLD = ("space", "trials", "seed", "searcher", "accuracy")  # whatever they are
_TIMING = ("runtime", "precision", "threads")
_UNLESS_DEFAULT = ("parallel", "data", "epochs", "growing", "weights")
_SPELLED = {"resolutions": "resolution", "activations": "activation"}


def command_of(options: SearchOptions) -> str:
    """Return the command for a shell, one option a line; it begins a new folder."""
    values = options.as_json()
    given = {"device": options.device, "budget": f"{str(options.budget_ms).removesuffix('.0')}ms"}
    given |= {name: _word(values[name]) for name in (*_TOLD, *_TIMING)}
    for name in (*_UNLESS_DEFAULT, *_SPELLED):
        if getattr(options, name) != getattr(_DEFAULTS, name):
            given[_SPELLED.get(name, name)] = _word(values[name])
    if options.classes is not None and not options.data:  # else they are the data's
        given["classes"] = str(options.classes)
    lines = [shlex.join([f"--{name}", word]) for name, word in given.items()]
    return " \\\n  ".join(["fasternas search", *lines])


def _word(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
