"""`fasternas export`: a network as files that other programs load, each checked against torch."""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nas.cli.table import print_table
from nas.finetune.folder import WEIGHTS
from nas.training.export_images import RandomImages, RealImages, real_images
from nas.training.exports import Export, export_each, find_weights
from predictors.backends.agreement import Agreement
from predictors.backends.export_subject import Subject
from predictors.backends.export_targets import find_targets
from search_spaces.checkpoint import Checkpoint, is_checkpoint
from search_spaces.network import strides


def run_export(arguments: argparse.Namespace) -> int:
    """Export, print a table, and say what was refused; then the exit code is 2."""
    targets = find_targets(arguments.to)
    checkpoint, trained = find_weights(arguments.network, weights=arguments.weights)
    real = None
    if arguments.data is not None:
        real = real_images(arguments.data, checkpoint, trained=trained, count=arguments.images)
    subject = Subject(
        name=_name(Path(arguments.network)), checkpoint=checkpoint, trained=trained,
        features=arguments.features, batch=arguments.batch,
        calibration=None if real is None else real.calibration(arguments.batch or 1),
    )  # fmt: skip
    for remark in [
        *_foreign(arguments.weights, checkpoint),
        *_remarks(subject, real, int8=any(target.int8 for target in targets)),
    ]:
        print(remark, file=sys.stderr)
    exports = list(export_each(subject, targets, Path(arguments.out),
                               real or RandomImages(shape=subject.shape)))  # fmt: skip
    if arguments.json:
        print(json.dumps([_record(export, subject) for export in exports], indent=2))
    else:
        _print(exports, subject)
    for export in exports:
        if export.refusal:
            print(f"fasternas: refused: {export.target.name}: {export.refusal}", file=sys.stderr)
    return 2 if any(export.refusal for export in exports) else 0


def _name(path: Path) -> str:
    """That of the file; of a trained network's weights that of its folder."""
    folder = path.absolute().parent.name
    return folder if path.name == WEIGHTS and folder else path.stem


def _foreign(weights: str | None, checkpoint: Checkpoint) -> list[str]:
    """What is taken for granted of a file that holds weights alone."""
    if weights is None or is_checkpoint(weights):
        return []
    mean, std = (
        ", ".join(f"{v:g}" for v in values) for values in (checkpoint.mean, checkpoint.std)
    )
    return [f"{weights} does not say how images are normalised: as for timm's FasterNets, by mean "
            f"{mean} and deviation {std}. If it was trained by others, fasternas.save says "
            "them."]  # fmt: skip


def _remarks(subject: Subject, real: RealImages | None, *, int8: bool) -> list[str]:
    found = list(real.data.remarks) if real is not None else []
    if not subject.trained:
        found.append("The weights are random, for want of a checkpoint or --weights.")
    if real is None:
        found.append("The images to check with are noise, for want of --data.")
    if int8 and real is None:
        found.append("int8 is calibrated with noise: good for its latency, not for its accuracy.")
    return found


def _print(exports: list[Export], subject: Subject) -> None:
    written = [export for export in exports if not export.refusal]
    if written:
        print_table(["file", "format", "size MB", "difference", "same class", "accuracy", "lost"],
                    [_cells(export) for export in written])  # fmt: skip
    for feature in _features(subject):
        print(f"{feature['output']}: {feature['channels']} channels, stride {feature['stride']}")
    for export in written:
        print(f"load {export.path.name}: {export.load}")


def _cells(export: Export) -> list[str]:
    found = export.agreement
    return [export.path.name, export.target.name, f"{export.size / 1e6:.3g}",
            "-" if found is None else f"{found.difference:.1e}",
            "-" if found is None or found.same is None else f"{found.same:.4g} %",
            "-" if found is None or found.accuracy is None else f"{found.accuracy:.2f} %",
            "-" if (lost := _lost(found)) is None else f"{lost:+.2f}"]  # fmt: skip


def _record(export: Export, subject: Subject) -> dict[str, Any]:
    if export.refusal:
        return {"format": export.target.name, "refused": export.refusal}
    return {
        "format": export.target.name, "file": str(export.path), "bytes": export.size,
        "load": export.load, "features": _features(subject),
        "agreement": None if export.agreement is None else asdict(export.agreement),
        "accuracy_lost": _lost(export.agreement),
    }  # fmt: skip


def _lost(found: Agreement | None) -> float | None:
    """Accuracy that torch has and the file has not, in points."""
    if found is None or found.accuracy is None or found.torch_accuracy is None:
        return None
    return found.torch_accuracy - found.accuracy


def _features(subject: Subject) -> list[dict[str, Any]]:
    if not subject.features:
        return []
    config = subject.config
    named = zip(subject.outputs(), config.widths, strides(config), strict=True)
    return [{"output": name, "channels": c, "stride": stride} for name, c, stride in named]
