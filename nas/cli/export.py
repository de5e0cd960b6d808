"""`fasternas export`: a network as files that other programs load, each checked against torch."""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nas.cli.arguments import add_json, batch, positive, word, words
from nas.cli.measure import say_wrong
from nas.cli.progress import print_table
from predictors.backends.table import find_formats, format_names
from search_spaces.io import check_out

if TYPE_CHECKING:
    from nas.finetune.export import Export
    from predictors.backends.model import Model
    from predictors.backends.table import Runtime
    from predictors.training.evaluate import RealImages
    from search_spaces.checkpoint import Checkpoint


def add_export_options(parser: argparse.ArgumentParser) -> None:
    """Add what `fasternas export` takes."""
    add, names = parser.add_argument, ", ".join(format_names())
    text = "a checkpoint or config file, t0 to l (t0@192)"
    add("networks", nargs="+", metavar="NETWORK", help=text)
    add("--to", type=words, default=("onnx",), metavar="F[,F]", help=f"{names} (onnx)")
    text = "the weights of a config, under timm's names (random)"
    add("--weights", type=word, metavar="FILE", help=text)
    text = "to calibrate int8 and to check with, as search takes it (noise)"
    add("--data", type=word, metavar="DATA", help=text)
    text = "validation images to check with (500)"
    add("--images", type=positive, default=500, metavar="N", help=text)
    add("--features", action="store_true", help="the backbone: the map after each stage")
    add("--batch", type=batch, metavar="N", help="images at once, or dynamic (dynamic)")
    add("--out", type=word, default="exports", metavar="DIR", help="the folder for them (exports)")
    add_json(parser)


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A network to be exported, and images to check its files with, if data were given.

    `remarks` say what of it is taken for granted.
    """

    model: "Model"
    images: "RealImages | None"
    remarks: Sequence[str]


def run_export(arguments: argparse.Namespace) -> int:
    """Export, print a table, and say what was refused; then the exit code is 2."""
    lines = find_formats(arguments.to)
    check_out(Path(arguments.out))  # before networks and data are read
    from nas.networks import find_each

    names = list(dict.fromkeys(arguments.networks))
    subjects, wrong = find_each(names, lambda name: _opened(name, lines, arguments))
    _refuse_same_name(subjects)
    for remark in dict.fromkeys(remark for one in subjects for remark in one.remarks):
        print(remark, file=sys.stderr)
    found = list(_watched(subjects, lines, Path(arguments.out)))
    if arguments.json:
        records = [_record(export, model) for model, exports in found for export in exports]
        print(json.dumps(records, indent=2))
    else:
        _print(found)
    refused = [(model, e) for model, exports in found for e in exports if e.refusal]
    for model, export in refused:
        whose = f"{model.name}: " if len(names) > 1 else ""
        kind = export.runtime.format
        print(f"fasternas: refused: {whose}{kind}: {export.refusal}", file=sys.stderr)
    return say_wrong(wrong) or (2 if refused else 0)


def _opened(name: str, lines: "Sequence[Runtime]", arguments: argparse.Namespace) -> Opened:
    """Open a network that was typed, its weights and its images."""
    from nas.finetune.export import find_weights, real_images
    from nas.finetune.folder import name_of_file
    from nas.networks import Typed
    from predictors.backends.model import checkpoint_model

    checkpoint, trained = find_weights(name, weights=arguments.weights)
    real = None
    if arguments.data is not None:
        real = real_images(arguments.data, checkpoint, trained=trained, count=arguments.images)
    model = checkpoint_model(
        name_of_file(Path(Typed.parse(name).name)),
        checkpoint,
        features=arguments.features,
        batch=arguments.batch,
        calibration_images=None if real is None else real.calibration_images(arguments.batch or 1),
    )
    int8 = any(line.precision == "int8" for line in lines)
    foreign = _foreign(arguments.weights, checkpoint)
    remarks = [*foreign, *_remarks(real, trained=trained, int8=int8)]
    return Opened(model=model, images=real, remarks=remarks)


def _refuse_same_name(subjects: Sequence[Opened]) -> None:
    """Refuse networks whose files would have one name."""
    names = [one.model.name for one in subjects]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(
            f"`networks` must be of different names, but two are called {twice}. Their files would "
            "take each other's place: export one of them to another --out."
        )


def _watched(
    subjects: Sequence[Opened], lines: "Sequence[Runtime]", folder: Path
) -> "Iterator[tuple[Model, list[Export]]]":
    """Export one after another; of several say what was written as soon as it is."""
    for number, subject in enumerate(subjects, start=1):
        exports = _exports(subject, lines, folder)
        if len(subjects) > 1:
            written = ", ".join(str(export.path) for export in exports if not export.refusal)
            what = written or "nothing was written"
            print(f"{number} of {len(subjects)}: {subject.model.name}: {what}", file=sys.stderr)
        yield subject.model, exports


def _exports(subject: Opened, lines: "Sequence[Runtime]", folder: Path) -> "list[Export]":
    from nas.finetune.export import export_each
    from predictors.training.evaluate import RandomImages

    images = subject.images or RandomImages(shape=subject.model.shape)
    return list(export_each(subject.model, lines, folder, images))


def _foreign(weights: str | None, checkpoint: "Checkpoint") -> list[str]:
    """What is taken for granted of a file that holds weights alone."""
    from search_spaces.checkpoint import is_checkpoint

    if weights is None or is_checkpoint(weights):
        return []
    mean, std = (
        ", ".join(f"{v:g}" for v in values) for values in (checkpoint.mean, checkpoint.std)
    )
    return [
        f"{weights} does not say how images are normalised: as for timm's FasterNets, by mean "
        f"{mean} and deviation {std}. If it was trained by others, fasternas.save says them."
    ]


def _remarks(real: "RealImages | None", *, trained: bool, int8: bool) -> list[str]:
    found = list(real.data.remarks) if real is not None else []
    if not trained:
        found.append("The weights are random, for want of a checkpoint or --weights.")
    if real is None:
        found.append("The images to check with are noise, for want of --data.")
    if int8 and real is None:
        found.append("int8 is calibrated with noise: good for its latency, not for its accuracy.")
    return found


def _print(found: "Sequence[tuple[Model, Sequence[Export]]]") -> None:
    written = [export for _, exports in found for export in exports if not export.refusal]
    if written:
        header = ["file", "format", "size MB", "difference", "same class", "accuracy", "lost"]
        print_table(header, [_cells(export) for export in written])
    features = [(m.name, feature) for m, _ in found for feature in _features(m)]
    for name, feature in features:
        whose = f"{name}, " if len(found) > 1 else ""
        print(
            f"{whose}{feature['output']}: {feature['channels']} channels, "
            f"stride {feature['stride']}"
        )
    for export in written:
        print(f"load {export.path.name}: {export.code}")


def _cells(export: "Export") -> list[str]:
    cells = [export.path.name, export.runtime.format, f"{export.size / 1e6:.3g}"]
    found = export.agreement
    if found is None:
        return [*cells, "-", "-", "-", "-"]
    return [
        *cells,
        f"{found.difference:.1e}",
        "-" if found.same is None else f"{found.same:.4g} %",
        "-" if found.accuracy is None else f"{found.accuracy:.2f} %",
        "-" if found.lost is None else f"{found.lost:+.2f}",
    ]


def _record(export: "Export", model: "Model") -> dict[str, object]:
    if export.refusal:
        return {
            "network": model.name,
            "format": export.runtime.format,
            "refused": export.refusal,
        }
    return {
        "format": export.runtime.format,
        "file": str(export.path),
        "bytes": export.size,
        "load": export.code,
        "features": _features(model),
        "agreement": None if export.agreement is None else asdict(export.agreement),
        "accuracy_lost": None if export.agreement is None else export.agreement.lost,
    }


def _features(model: "Model") -> list[dict[str, object]]:
    if not model.features or model.checkpoint is None:
        return []
    from search_spaces.network import strides

    config = model.checkpoint.config
    named = zip(model.outputs, config.widths, strides(config), strict=False)
    return [{"output": name, "channels": c, "stride": stride} for name, c, stride in named]
