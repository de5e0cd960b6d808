"""A network drawn stage by stage, to scale: a square for the map, a bar for each block.

A bar is as high as the stage is wide in channels; its lower part are those that PConv convolves,
the rest passes through. All networks of a page share one scale.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from nas.report.html_tables import table
from nas.report.markup import Html, joined, tag, text
from search_spaces.fasternet import FasterNetConfig

WIDTH, MAP, BARS = 340, 40, 96  # pixels: of a drawing, of the largest map, of the highest bar
_GAP, _BETWEEN, _FOOT = 10, 8, 16  # between stages, between maps and bars, for the numbers
_BLOCK = 8.0  # pixels across, at the most


@dataclass(frozen=True, kw_only=True)
class NetworkScale:
    """Pixels of the drawing for a channel, for a pixel of a map, and for a block."""

    channel: float
    pixel: float
    block: float


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What is drawn of a stage."""

    number: int
    side: int  # of the map, in its pixels
    width: int
    convolved: int  # channels that PConv convolves
    depth: int
    ratio: float
    expansion: float


def stages_of(config: FasterNetConfig) -> list[Stage]:
    """Return the stages, the first one first."""
    side, stages = config.resolution // config.stem_stride, []
    for i, width in enumerate(config.widths):
        stages.append(
            Stage(number=i + 1, side=side, width=width, convolved=config.partial_widths[i],
                  depth=config.depths[i], ratio=config.partial_ratios[i],
                  expansion=config.expansions[i])
        )  # fmt: skip
        side //= 2
    return stages


def scale_of(configs: Sequence[FasterNetConfig]) -> NetworkScale:
    """Return the scale in which every one of these networks has room."""
    every = [stages_of(config) for config in configs]
    stages = [stage for network in every for stage in network]
    pixel = MAP / max(stage.side for stage in stages)
    room = min((WIDTH - _GAP * len(n) - MAP * 2) / sum(s.depth for s in n) for n in every)
    return NetworkScale(channel=BARS / max(stage.width for stage in stages), pixel=pixel,
                        block=min(max(room, 0.5), _BLOCK))  # fmt: skip


def draw_network(config: FasterNetConfig, scale: NetworkScale, *, name: str) -> Html:
    """Return the drawing; what it says in words is in `stage_table`."""
    x, parts = 0.0, []
    for stage in stages_of(config):
        across = max(stage.depth * scale.block, stage.side * scale.pixel)
        parts.append(_stage(stage, scale, x))
        x += across + _GAP
    height = MAP + _BETWEEN + BARS + _FOOT
    return tag("svg", *parts, viewBox=f"0 0 {WIDTH} {height}", width=WIDTH, height=height,
               role="img", aria_label=f"{name}, stage by stage; the table says the same",
               class_="network")  # fmt: skip


def stage_table(config: FasterNetConfig) -> Html:
    """Return what the drawing shows in numbers."""
    header = ["stage", "map", "width", "blocks", "convolved", "expand"]
    rows = [
        [text(s.number), text(f"{s.side}\u00d7{s.side}"), text(s.width), text(s.depth),
         text(f"{s.convolved} = {_share(s.ratio)}"), text(f"\u00d7{s.expansion:g}")]
        for s in stages_of(config)
    ]  # fmt: skip
    return table(header, rows, caption=None, class_="stages")


def network_legend(scale: NetworkScale) -> Html:
    """Return how to read the drawings, with a bar of a round number of channels."""
    channels = next(c for c in (512, 256, 128, 64, 32, 16, 8, 1) if c * scale.channel <= BARS)
    high = channels * scale.channel
    sample = tag("svg", _bar(0, 0, 9, (high, high / 4)), viewBox=f"-1 -1 12 {high + 2:.1f}",
                 width=12, height=f"{high + 2:.1f}", aria_hidden="true")  # fmt: skip
    words = (
        f"One scale for all: this bar is a block of {channels} channels. Its lower part is "
        "convolved by PConv, the rest passes through. The squares are the maps. Stages go from "
        "left to right."
    )
    return tag("p", sample, tag("span", text(words)), class_="how")


def _stage(stage: Stage, scale: NetworkScale, x: float) -> Html:
    side = stage.side * scale.pixel
    foot = MAP + _BETWEEN + BARS
    high = stage.width * scale.channel
    bars = [
        _bar(x + i * scale.block, foot - high, scale.block * 0.86,
             (high, stage.convolved * scale.channel))
        for i in range(stage.depth)
    ]  # fmt: skip
    return joined([
        tag("rect", x=f"{x + 0.5:.1f}", y=f"{MAP - side + 0.5:.1f}", width=f"{side:.1f}",
            height=f"{side:.1f}", class_="map"),
        *bars,
        tag("text", text(stage.number), x=f"{x:.1f}", y=foot + _FOOT - 2, class_="tick start"),
    ])  # fmt: skip


def _bar(x: float, y: float, across: float, heights: tuple[float, float]) -> Html:
    """A block: all of its channels and, at the foot, those that are convolved."""
    whole, convolved = heights
    place = {"x": f"{x:.2f}", "width": f"{across:.2f}"}
    return joined([
        tag("rect", y=f"{y:.2f}", height=f"{whole:.2f}", class_="through", **place),
        tag("rect", y=f"{y + whole - convolved:.2f}", height=f"{convolved:.2f}",
            class_="convolved", **place),
    ])  # fmt: skip


def _share(ratio: float) -> str:
    """Say a ratio as a fraction where it is a simple one."""
    simple = Fraction(ratio).limit_denominator(16)
    return str(simple) if abs(float(simple) - ratio) < 1e-6 else f"{ratio:g}"
