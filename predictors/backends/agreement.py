"""How far a written file agrees with torch, image by image."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from predictors.backends.model import Model
from predictors.backends.onnxruntime import outputs_of
from predictors.backends.table import Precision, Run, Runtime
from predictors.backends.torch import in_torch

Batches = Callable[[int], Iterable[tuple[Tensor, Tensor | None]]]  # of so many, labels if known

# The largest difference from torch, relative to the largest output: bf16 has 8 bits, a network
# some tens of layers.
TOLERANCES = {"fp32": 1e-4, "bf16": 5e-2}
# Of rounded outputs with torch's, over all images. Rounding costs 0.01 with random weights; a scale
# gone wrong costs all of it.
CORRELATION = 0.9
_NUMBERS = 64  # of outputs, at least, to tell a correlation by


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """What comparing outputs gave: `difference` is max|ours - torch's| / max|torch's|.

    `correlation` is Pearson's over all images, the lowest of any output. `same` is the share of
    images, in percent, of which both say the same class; the accuracies, in percent, are the file's
    and torch's. None where there are no logits, or no labels.
    """

    images: int
    difference: float
    correlation: float
    same: float | None = None
    accuracy: float | None = None
    torch_accuracy: float | None = None

    @property
    def lost(self) -> float | None:
        """Accuracy that torch has and the file has not, in points."""
        if self.accuracy is None or self.torch_accuracy is None:
            return None
        return self.torch_accuracy - self.accuracy


def check(model: Model, file: Path, runtime: Runtime, images: Batches) -> Agreement | None:
    """Run a file and compare it with torch; None where there is nothing to compute."""
    run = runtime.module.run(model, file, runtime)
    if run is None:
        return None
    fill = model.batch == "fixed"
    found = agreement(run, _reference(model), images, at_once=model.at_once, fill=fill)
    if runtime.precision == "fp32":
        refuse_difference(found.difference, file)
    else:
        refuse_correlation(found.correlation, file)
    return found


def check_on_noise(model: Model, file: Path, runtime: Runtime) -> None:
    """Run a file on random images; two of them show whether our own batch is dynamic.

    Of few outputs many images are needed to tell whether rounded ones go with torch's.

    Where this processor lacks a precision, it is what the file holds that is checked.
    """
    try:
        run = runtime.module.run(model, file, runtime)
    except NotImplementedError:
        run = runtime.module.run(model, file, replace(runtime, precision="fp32"))
    assert run is not None  # what is timed computes something
    image, reference = model.image(), _reference(model)
    several = model.batch == "dynamic" and model.file is None
    images = torch.cat([image, image.flip(-1)]) if several else image
    numbers = reference(images)[0].numel() if runtime.precision == "int8" else _NUMBERS
    moved = range(0, max(_NUMBERS // max(numbers, 1), 1))
    shown = [images.roll(i, dims=-1) * (-1) ** i for i in moved]
    found = agreement(
        run, reference, lambda _: [(one, None) for one in shown], at_once=len(images), fill=False
    )
    if runtime.precision == "int8":
        refuse_correlation(found.correlation, file)
    else:
        precision: Precision = "bf16" if model.file_half else runtime.precision
        refuse_difference(found.difference, file, precision=precision)


def agreement(run: Run, reference: Run, batches: Batches, *, at_once: int, fill: bool) -> Agreement:
    """Compare a file with torch on all images, so many at once.

    For files of a fixed batch, a last one that is smaller is filled up with its first image.
    """
    tally = _Tally()
    for images, labels in batches(at_once):
        expected = reference(images)
        count = len(images)
        missing = at_once - count if fill else 0
        filled = torch.cat([images, images[:1].expand(missing, *images.shape[1:])])
        ours = [output[:count] for output in run(filled.contiguous())]
        tally.add(ours, expected, labels)
    return tally.agreement()


def refuse_difference(difference: float, file: Path, *, precision: Precision = "fp32") -> None:
    """Refuse outputs that differ from torch's by more than the tolerance, or are no numbers."""
    if not difference <= TOLERANCES[precision]:
        raise RuntimeError(
            f"The exported {file.name} must agree with torch to {TOLERANCES[precision]:.0e}, but "
            f"differs by {difference:.1e}. Please report the config and the versions of torch and "
            "runtime."
        )


def refuse_correlation(correlation: float, file: Path) -> None:
    """Refuse rounded outputs that correlate with torch's by less than `CORRELATION`."""
    if not correlation >= CORRELATION:
        raise RuntimeError(
            f"The exported {file.name} must compute in int8 much the same as in fp32, but its "
            f"outputs correlate by {correlation:.2f}, not {CORRELATION}. Use fp32 for this network."
        )


def _reference(model: Model) -> Run:
    """What torch computes, or, of a network that came as a file, ONNX Runtime."""
    return in_torch(model.network()) if model.file is None else outputs_of(str(model.file))


class _Tally:
    def __init__(self) -> None:
        self._images = self._same = self._right = self._torch_right = 0
        self._labelled, self._classified = True, True
        self._largest: list[tuple[Tensor, Tensor]] = []
        self._moments: list[Tensor] = []  # of each output

    def add(self, ours: list[Tensor], reference: list[Tensor], labels: Tensor | None) -> None:
        pairs = [(_shaped_like(b, a), b) for a, b in zip(ours, reference, strict=True)]
        largest = [((a - b).abs().max(), b.abs().max()) for a, b in pairs]
        before = self._largest or largest
        self._largest = [  # which keep what is no number
            (torch.maximum(a, c), torch.maximum(b, d))
            for (a, b), (c, d) in zip(before, largest, strict=True)
        ]
        moments = [_moments(a, b) for a, b in pairs]
        sums = self._moments or [torch.zeros_like(m) for m in moments]
        self._moments = [a + b for a, b in zip(sums, moments, strict=True)]
        self._images += len(reference[0])
        self._classified = reference[0].ndim == 2
        self._labelled = labels is not None and self._classified
        if not self._classified:
            return
        predicted, by_torch = (logits.argmax(1) for logits in pairs[0])
        self._same += int((predicted == by_torch).sum())
        if labels is not None:
            self._right += int((predicted == labels).sum())
            self._torch_right += int((by_torch == labels).sum())

    def agreement(self) -> Agreement:
        differences = torch.stack([a / b for a, b in self._largest])
        correlations = torch.stack([*map(_pearson, self._moments)])
        return Agreement(
            images=self._images,
            difference=float(differences.max()),
            correlation=float(correlations.min()),
            same=self._percent(self._same) if self._classified else None,
            accuracy=self._percent(self._right) if self._labelled else None,
            torch_accuracy=self._percent(self._torch_right) if self._labelled else None,
        )

    def _percent(self, count: int) -> float:
        return 100 * count / self._images


def _shaped_like(reference: Tensor, ours: Tensor) -> Tensor:
    """Our output in the shape of torch's; no numbers if it has not as many."""
    same = ours.numel() == reference.numel()
    return ours.reshape(reference.shape) if same else torch.full_like(reference, torch.nan)


def _moments(ours: Tensor, reference: Tensor) -> Tensor:
    """How many numbers there are, their sums, and the sums of their products."""
    a, b = ours.double().flatten(), reference.double().flatten()
    count = torch.tensor(float(len(a)), dtype=a.dtype)
    return torch.stack([count, a.sum(), b.sum(), (a * a).sum(), (b * b).sum(), (a * b).sum()])


def _pearson(moments: Tensor) -> Tensor:
    n, a, b, aa, bb, ab = moments.unbind()
    return (n * ab - a * b) / torch.sqrt((n * aa - a * a) * (n * bb - b * b))
