"""The model card of a trained network: README.md in its folder."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from nas.finetune.folder import WEIGHTS
from nas.finetune.jobs import Job, data_of, words_of_start
from nas.finetune.result import TrainingResult
from nas.quantities import cost_words, format_count, format_ms
from nas.report.tables import stages_of
from predictors.backends.agreement import Agreement
from predictors.backends.table import formats
from predictors.cost import cost_by_layer
from predictors.data.datasets import ImageData
from predictors.measurement import Latency
from predictors.training.recipe import crop_of, recipe_for
from search_spaces.fasternet import FasterNetConfig, stem_strides
from search_spaces.io import atomic_write, shown

CARD = "README.md"
_ALWAYS = ("epochs", "batch_size", "lr")  # settings that are shown whatever they are
_MOST_NAMES = 20
_CELLS = 12  # of the bar that a stage's channels are
_HEADER = ("", "map", "channels", "PConv convolves", "hidden", "blocks", "MACs", "with")

_LOADING = """\
## Use

Images are RGB of {side} x {side} pixels{crop}, normalised: values in 0..1, minus the mean, over the
standard deviation. Grey ones are repeated to three channels.

In timm:

```python
import fasternas.timm  # makes timm know these networks
import timm
import torch

network = timm.create_model("fasternas", checkpoint={weights}).eval()
transform = timm.data.create_transform(**timm.data.resolve_data_config(network.pretrained_cfg))
with torch.no_grad():
    logits = network(torch.zeros(1, 3, {side}, {side}))  # transform(picture)[None], in RGB
print(network.pretrained_cfg["label_names"][logits.argmax(1).item()])
```

In ONNX Runtime, without torch and fasternas:

```python
import json

import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession({onnx})
metadata = {{k: json.loads(v) for k, v in session.get_modelmeta().custom_metadata_map.items()}}
mean, std = (np.reshape(metadata[name], (1, -1, 1, 1)) for name in ("mean", "std"))
pixels = np.zeros((1, 3, {side}, {side}))  # images in 0..1; any number at once
(logits,) = session.run(None, {{"image": ((pixels - mean) / std).astype(np.float32)}})
print(metadata["classes"][logits.argmax(1)[0]])
```

In torch:

```python
import fasternas
import torch

network = fasternas.load({weights})  # in evaluation mode; network.config says what it is
with torch.no_grad():
    logits = network(torch.zeros(1, 3, {side}, {side}))
print(logits.argmax(1).item())
```

Other formats: `fasternas export {file} --to FORMAT` ({formats}).
"""


def write_card(job: Job, result: TrainingResult) -> None:
    """Write the card of a trained network into its folder."""
    data = data_of(job)
    parts = [
        _head(job, result),
        _architecture(job, result),
        _data(data, job),
        _recipe(job, data),
        _accuracy(result, data),
        _latency(result),
        _loading(job, result),
    ]
    atomic_write(job.folder / CARD, "\n".join(parts))


def _head(job: Job, result: TrainingResult) -> str:
    found = result.evaluation
    data = shown(Path(job.data).name)
    words = f"{found.accuracy:.2f} % of {found.images:,} {found.split} images of {data}"
    for latency, _ in result.on_each:
        where = f" on {latency.device}" if len(result.on_each) > 1 else ""
        words += f", {format_ms(latency.median_ms)} ms {latency.source}{where}"
    return f"# {job.name}\n\nA FasterNet: {words}.\n"


def _architecture(job: Job, result: TrainingResult) -> str:
    return (
        f"## Architecture\n\n{format_count(result.macs)} MACs, "
        f"{format_count(result.params)} parameters. Of each bar, PConv convolves the filled "
        f"part and passes on the rest{_exceptions(job.config)}.\n\n"
        f"```text\n{rendered(job.config)}\n```\n"
        f"{_limits(result)}"
    )


def _exceptions(config: FasterNetConfig) -> str:
    """What is different in stages with other ingredients."""
    stages = stages_of(config)
    words = [
        *["fused, it and the first 1x1 are one convolution"] * any(s.fused for s in stages),
        *["attention takes its place where it is named"] * any(s.attention for s in stages),
        *["a gate scales the rest where it is named"] * any(s.gate for s in stages),
        *["with a star, what is hidden is a product of two branches"] * any(s.star for s in stages),
    ]
    return "".join(f"; {word}" for word in words)


def _limits(result: TrainingResult) -> str:
    """Which limits are kept, by the file that is deployed."""
    lines = [
        f"- {cost_words(name, limit, exact=True)} at the most: "
        f"{'not kept' if name in result.exceeded else 'kept'}, it has "
        f"{cost_words(name, getattr(result, name), exact=True)}"
        for name, limit in result.limits.given.items()
    ]
    return "\n" + "\n".join(lines) + "\n" if lines else ""


def rendered(config: FasterNetConfig) -> str:
    """Return a line for the stem, each stage and merging, and the head, under a header."""
    rows = _rows(config)
    some = any(row[-1] for row in rows)
    rows = [row[: len(row) if some else -1] for row in (_HEADER, *rows)]
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
    shares, stages = _shares(config), stages_of(config)
    stem = f"3 to {config.widths[0]}", _stem(config)
    rows: list[Sequence[str]] = [("stem", _map(stages[0].side), *stem, "", "", shares["stem"], "")]
    for i, s in enumerate(stages):
        if i:
            merging = f"{stages[i - 1].width} to {s.width}", "conv 2x2, stride 2"
            share = shares[f"stages.{i}.merging"]
            rows.append(("merging", _map(s.side), *merging, "", "", share, ""))
        blocks = f"{bar(s.ratio)} {s.convolved}", f"{s.hidden} (x{s.expansion:.3g})", str(s.depth)
        share = shares[f"stages.{i}.block"]
        words = ", ".join(s.ingredients)
        rows.append((f"stage {s.number}", _map(s.side), str(s.width), *blocks, share, words))
    conv = f"conv 1x1, {config.activation}, " if config.head_width else ""
    channels = f"{config.out_width} to {config.head_width or config.classes}"
    head = channels, f"pool, {conv}linear to {config.classes}"
    return [*rows, ("head", _map(1), *head, "", "", shares["head"], "")]


def _stem(config: FasterNetConfig) -> str:
    k = config.stem_stride
    if config.stem == "patch":
        return f"conv {k}x{k}, stride {k}"
    strides = " and ".join(map(str, stem_strides(k)))
    return f"two conv 3x3, strides {strides}"


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


def _data(data: ImageData, job: Job) -> str:
    sizes = [f"{len(data.train):,} to train", f"{len(data.validation):,} for validation"]
    sizes += [] if data.test is None else [f"{len(data.test):,} to test"]
    names = ", ".join(data.classes[:_MOST_NAMES])
    more = ", ..." if len(data.classes) > _MOST_NAMES else ""
    colours = "grey" if data.channels == 1 else "in colour"
    lines = [
        f"- {shown(job.data)}: {', '.join(sizes)}, {data.resolution} x {data.resolution} pixels, "
        f"{colours}",
        f"- {len(data.classes)} classes: {names}{more}",
        *(f"- {remark}" for remark in data.remarks),
    ]
    return "## Data\n\n" + "\n".join(lines) + "\n"


def _recipe(job: Job, data: ImageData) -> str:
    """What was set besides the recipe that the network and the data would get."""
    usual = asdict(recipe_for(job.config, max(len(data.train), 2), epochs=job.recipe.epochs))
    shown = {
        name: value
        for name, value in asdict(job.recipe).items()
        if name in _ALWAYS or value != usual[name]
    }
    settings = ", ".join(f"`{name}` {value}" for name, value in shown.items())
    return (
        f"## Recipe\n\nThe published one, fitted to network and data, with {settings}; "
        f"begun from {_start(job)} `recipe.yaml` has all settings, `training.csv` each epoch.\n\n"
        "![The learning curve](training.png)\n"
    )


def _start(job: Job) -> str:
    """With how much of the weights it began, as long as their file is there."""
    try:
        words = words_of_start(job)
    except (OSError, ValueError):
        words = ""
    return f"{job.init}: {words}" if words else f"{job.init}."


def _accuracy(result: TrainingResult, data: ImageData) -> str:
    found, (low, high) = result.evaluation, result.evaluation.interval
    int8 = result.deployed.endswith(".int8.onnx")
    by = f" by `{result.deployed}`" if int8 else ""
    lines = [
        f"{found.accuracy:.2f} % [{low:.2f}, {high:.2f}] of {found.images:,} {found.split} "
        f"images{by} (95 %, Wilson)"
    ]
    if found.split == "test":
        lines[0] += ", looked at once, at the end."
        lines.append(
            f"{result.validation:.2f} % of {len(data.validation):,} validation images, by "
            f"which epoch {result.epoch} was chosen."
        )
    else:
        lines[0] += (
            f", by which epoch {result.epoch} was chosen, so it is a little too high; "
            "there is no test split."
        )
    if found.largest_class is not None:
        doubt = ", which the interval does not exclude" if found.is_guess else ""
        lines.append(
            f"Always guessing the largest class gets {found.largest_class:.2f} % of these "
            f"{found.split} images right{doubt}."
        )
    agreement = result.agreement
    lines.append(
        f"`{result.deployed}` says the same class as torch for {agreement.same:.4g} % of "
        f"{agreement.images} validation images{_lost(agreement) if int8 else ''}."
    )
    return "## Accuracy\n\n" + "\n\n".join(lines) + "\n"


def _lost(found: Agreement) -> str:
    if found.lost is None:
        return ""
    return (
        f", and has {found.accuracy:.2f} % of them right where torch has "
        f"{found.torch_accuracy:.2f} %: {found.lost:+.2f} points lost"
    )


def _latency(result: TrainingResult) -> str:
    if result.latencies is None:
        return "## Latency\n\nNot timed yet: `fasternas train` does it with --resume.\n"
    precision, several = result.backend.precision, len(result.on_each) > 1
    what = f"`{result.deployed}`, batch 1, {precision}"
    lines = [f"{what}. {result.described}."] if several else []
    for latency, _ in result.on_each:
        timing = _timing(latency)
        once = f"{timing}: {what}. {result.described}."
        lines.append(f"On {latency.device} {timing}." if several else once)
    if precision == "bf16":
        lines.append("The accuracy is that of fp32: the runtime rounds the file when it loads it.")
    for latency, budget_ms in result.on_each:
        if budget_ms is not None:
            where = f" on {latency.device}" if several else ""
            verdict = "kept" if latency.meets(budget_ms) else "not kept"
            lines.append(
                f"The budget of {budget_ms:g} ms{where} is {verdict}: the upper end of the "
                f"interval is {format_ms(latency.high_ms)} ms."
            )
    return "## Latency\n\n" + "\n\n".join(lines) + "\n"


def _timing(latency: Latency) -> str:
    words = (
        f"{format_ms(latency.median_ms)} ms [{format_ms(latency.low_ms)}, "
        f"{format_ms(latency.high_ms)}] {latency.source}"
    )
    sure = " (95 %)" if latency.source == "measured" else ""
    return f"{words}{sure}{', unstable' if latency.unstable else ''}"


def _loading(job: Job, result: TrainingResult) -> str:
    onnx = result.deployed if result.deployed.endswith(".onnx") else f"{job.name}.onnx"
    crop = crop_of(job.recipe, job.config.resolution)
    seen = f", the middle {crop:.0%} of the shorter side" if crop else ""
    return _LOADING.format(
        side=job.config.resolution,
        crop=seen,
        weights=json.dumps(WEIGHTS),
        onnx=json.dumps(onnx),
        file=WEIGHTS,
        formats=", ".join(formats()),
    )
