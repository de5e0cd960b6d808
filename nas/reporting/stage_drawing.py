"""The architecture of a network, drawn stage by stage in text."""

from collections import Counter
from collections.abc import Sequence

from predictors.cost import cost_by_layer
from search_spaces.fasternet import FasterNetConfig

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
