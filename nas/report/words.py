"""Networks and runs in words: latencies, costs, architectures, the command that repeats a run."""

import shlex
from collections import Counter
from collections.abc import Callable, Sequence

from nas.candidate import Candidate
from nas.gauge import HEADING, form_words, share_words, source_words, unit_of
from nas.quantities import format_count, format_ms, format_score
from nas.study.options import SearchOptions
from nas.study.targets import Target
from predictors.accuracy import AccuracyKind
from predictors.cost import cost, cost_by_layer
from predictors.devices.device import threads_of
from predictors.measurement import Latency
from search_spaces.fasternet import FasterNetConfig

_NUMBER = {"proxy": "score", "trained": "accuracy", "supernet": "shared-weights likelihood"}
_UNIT = {"proxy": "", "trained": " %", "supernet": " %"}


def number_of(kind: AccuracyKind) -> str:
    """Say what is plotted upwards, in a word or two: a score is no accuracy."""
    return _NUMBER[kind]


def format_accuracy(accuracy: float, kind: AccuracyKind) -> str:
    """Return an accuracy or score with its unit."""
    return f"{accuracy_number(accuracy, kind)}{_UNIT[kind]}"


def accuracy_number(accuracy: float, kind: AccuracyKind) -> str:
    """Return it without a unit: a score is no more exact than a latency."""
    return format_score(accuracy) if kind == "proxy" else f"{accuracy:.5g}"


def latency_words(latency: Latency) -> str:
    """Say a latency with its interval and where it is from; of several devices, each."""
    each = "".join(f"; {name}: {latency_words(part)}" for name, part in latency.parts)
    how = f"{source_words(latency)}{form_words(latency)}"
    return (f"{share_words(latency)} [{format_ms(latency.low_ms)} to "
            f"{format_ms(latency.high_ms)}] {how}{each}")  # fmt: skip


def architecture_words(config: FasterNetConfig) -> list[str]:
    """Say what a network is built of, one field a line."""
    return [
        f"widths {_row(config.widths)}",
        f"depths {_row(config.depths)}",
        f"partial ratios {_row(config.partial_ratios)}",
        f"expansions {_row(config.expansions)}",
        f"{config.activation}, {config.resolution} px, stem stride {config.stem_stride}",
    ]


def network_words(candidate: Candidate, name: str | None = None) -> str:
    """Say everything of a network, one thing a line."""
    kind = candidate.accuracy_kind
    moved = cost(candidate.config).memory_bytes
    known = candidate.accuracy == candidate.accuracy  # the named sizes may have none
    return "\n".join([
        name or candidate.name,
        *([f"{number_of(kind)} {format_accuracy(candidate.accuracy, kind)}"] if known else []),
        latency_words(candidate.latency),
        f"{format_count(candidate.macs)} MACs, {format_count(candidate.params)} parameters, "
        f"{format_count(moved)} bytes moved",
        *architecture_words(candidate.config),
    ])  # fmt: skip


def _row(values: Sequence[float]) -> str:
    return " ".join(f"{value:g}" for value in values)


Value = str | float

FORM = ("runtime", "precision")


def columns(devices: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the columns of a file; `devices` are those of the study."""
    if len(devices) == 1:
        return ("latency_ms", "low_ms", "high_ms", "source", *FORM)
    whats = ("ms", "low_ms", "high_ms", "source", *FORM)
    each = (f"{name}_{what}" for name in devices for what in whats)
    return ("share_percent", "share_low", "share_high", "source", *each)


def values(latency: Latency) -> dict[str, Value]:
    """Return what is in these columns."""
    cells: list[Value] = []
    for one in (latency, *(part for _, part in latency.parts)):
        cells += [one.median_ms, one.low_ms, one.high_ms, one.source]
        cells += [] if one.parts else [one.backend.runtime, one.backend.precision]
    return dict(zip(columns([name for name, _ in latency.on_each]), cells, strict=True))


def headings(latencies: Sequence[Latency]) -> list[str]:
    """Return what heads the columns that people read, of latencies on the same devices."""
    if not latencies:
        return [HEADING["ms"], "95 % interval", "source"]
    heads = [HEADING[unit_of(latencies[0])], *(f"{name} ms" for name, _ in latencies[0].parts)]
    rows = [[latency, *(part for _, part in latency.parts)] for latency in latencies]
    found: list[str] = []
    for head, column in zip(heads, zip(*rows, strict=True), strict=True):
        measured = all(one.source == "measured" for one in column)
        found += [head, "95 % interval" if measured else "interval", "source"]
        found += ["in"] if _have_form(column[0], tell=forms_differ(latencies)) else []
    return found


def cells(latency: Latency, *, tell_form: bool = False) -> list[str]:
    """Return what people read in these columns; runtime and precision where they are to be told."""
    found: list[str] = []
    for one in (latency, *(part for _, part in latency.parts)):
        found += [format_ms(one.median_ms), f"{format_ms(one.low_ms)} - {format_ms(one.high_ms)}",
                  source_words(one)]  # fmt: skip
        found += (
            [f"{one.backend.runtime} {one.backend.precision}"]
            if _have_form(one, tell=tell_form)
            else []
        )
    return found


def forms_differ(latencies: Sequence[Latency]) -> bool:
    """Whether runtimes and precisions are to be told: several, or another precision than fp32."""
    by_device: dict[str, set[tuple[str, str]]] = {}
    for latency in latencies:
        for name, m in latency.on_each:
            by_device.setdefault(name, set()).add((m.backend.runtime, m.backend.precision))
    return any(len(forms) > 1 or any(precision != "fp32" for _, precision in forms)
               for forms in by_device.values())  # fmt: skip


def sentence(latency: Latency) -> str:
    """Say it, and how it was come by, on each device."""
    return "; ".join(
        f"{m.median_ms:.4g} ms [{m.low_ms:.4g}, {m.high_ms:.4g}] {m.source} on {name}, "
        f"{m.backend.runtime}{_precision_words(m)}, {threads_of(m.backend.threads)}"
        for name, m in latency.on_each
    )


def _have_form(latency: Latency, *, tell: bool) -> bool:
    """The largest share of several devices is of none of them."""
    return tell and not latency.parts


def _precision_words(latency: Latency) -> str:
    return "" if latency.backend.precision == "fp32" else f" in {latency.backend.precision}"


_CELLS = 12  # of the bar that a stage's channels are
_HEADER = ("", "map", "channels", "PConv convolves", "hidden", "blocks", "MACs")


def drawn(config: FasterNetConfig) -> str:
    """Return a line for the stem, each stage and merging, and the head, under a header."""
    rows = [_HEADER, *_rows(config)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def bar(ratio: float) -> str:
    """Return the channels of a stage as a bar, those that PConv convolves filled."""
    filled = min(max(round(_CELLS * ratio), 1), _CELLS)
    return "\u2588" * filled + "\u2591" * (_CELLS - filled)


def _rows(config: FasterNetConfig) -> list[Sequence[str]]:
    shares = _shares(config)
    side = config.resolution // config.stem_stride
    kernel = config.stem_stride
    rows: list[Sequence[str]] = [
        ("stem", _map(side), f"3 to {config.widths[0]}", f"conv {kernel}x{kernel}, stride {kernel}",
         "", "", shares["stem"])
    ]  # fmt: skip
    for i, width in enumerate(config.widths):
        if i:
            side //= 2
            rows.append(("merging", _map(side), f"{config.widths[i - 1]} to {width}",
                         "conv 2x2, stride 2", "", "", shares[f"stages.{i}.merging"]))  # fmt: skip
        convolved = f"{bar(config.partial_ratios[i])} {config.partial_widths[i]}"
        hidden = f"{config.hidden_widths[i]} (x{config.expansions[i]:.3g})"
        rows.append((f"stage {i + 1}", _map(side), str(width), convolved, hidden,
                     str(config.depths[i]), shares[f"stages.{i}.block"]))  # fmt: skip
    rows.append(("head", _map(1), f"{config.widths[-1]} to {config.head_width}",
                 f"pool, conv 1x1, {config.activation}, linear to {config.classes}", "", "",
                 shares["head"]))  # fmt: skip
    return rows


def _shares(config: FasterNetConfig) -> dict[str, str]:
    """The share of the MACs by part: stem, stages.0.block, stages.1.merging, ..., head."""
    macs: Counter[str] = Counter()
    for layer in cost_by_layer(config):
        parts = layer.name.split(".")
        macs[".".join(parts[:3]) if parts[0] == "stages" else parts[0]] += layer.macs
    total = macs.total()
    return {part: f"{100 * count / total:.1f} %" for part, count in macs.items()}


def _map(side: int) -> str:
    return f"{side}x{side}"


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
