"""How far an exported file agrees with torch, image by image."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from predictors.backends.export_running import Run
from predictors.backends.export_subject import outputs_of

Batches = Callable[[int], Iterable[tuple[Tensor, Tensor | None]]]  # of so many, labels if known


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


def agreement(
    run: Run, network: nn.Module, batches: Batches, *, at_once: int, fill: bool
) -> Agreement:
    """Compare a file with the network on all images, so many at once.

    For files of a fixed batch, a last one that is smaller is filled up with its first image.
    """
    tally = _Tally()
    for images, labels in batches(at_once):
        with torch.no_grad():
            reference = outputs_of(network(images))
        count = len(images)
        missing = at_once - count if fill else 0
        filled = torch.cat([images, images[:1].expand(missing, -1, -1, -1)])
        ours = [output[:count] for output in run(filled.contiguous())]
        tally.add(ours, reference, labels)
    return tally.agreement()


class _Tally:
    def __init__(self) -> None:
        self._images = self._same = self._right = self._torch_right = 0
        self._labelled, self._classified = True, True
        self._largest: list[tuple[Tensor, Tensor]] = []
        self._moments: list[Tensor] = []  # of each output

    def add(self, ours: list[Tensor], reference: list[Tensor], labels: Tensor | None) -> None:
        pairs = [(a.reshape(b.shape), b) for a, b in zip(ours, reference, strict=True)]
        largest = [((a - b).abs().max(), b.abs().max()) for a, b in pairs]
        before = self._largest or largest
        self._largest = [(torch.maximum(a, c), torch.maximum(b, d))  # which keep what is no number
                         for (a, b), (c, d) in zip(before, largest, strict=True)]  # fmt: skip
        moments = [_moments(a, b) for a, b in pairs]
        sums = self._moments or [torch.zeros_like(m) for m in moments]
        self._moments = [a + b for a, b in zip(sums, moments, strict=True)]
        self._images += len(reference[0])
        self._classified = reference[0].ndim == 2
        self._labelled = labels is not None and self._classified
        if self._classified:
            said, torch_said = (logits.argmax(1) for logits in pairs[0])
            self._same += int((said == torch_said).sum())
        if labels is not None and self._classified:
            self._right += int((said == labels).sum())
            self._torch_right += int((torch_said == labels).sum())

    def agreement(self) -> Agreement:
        differences = torch.stack([a / b for a, b in self._largest])
        return Agreement(
            images=self._images, difference=float(differences.max()),
            correlation=float(torch.stack([*map(_pearson, self._moments)]).min()),
            same=self._percent(self._same) if self._classified else None,
            accuracy=self._percent(self._right) if self._labelled else None,
            torch_accuracy=self._percent(self._torch_right) if self._labelled else None,
        )  # fmt: skip

    def _percent(self, count: int) -> float:
        return 100 * count / self._images


def _moments(ours: Tensor, reference: Tensor) -> Tensor:
    """How many numbers there are, their sums, and the sums of their products."""
    a, b = ours.double().flatten(), reference.double().flatten()
    return torch.stack([torch.tensor(float(len(a)), dtype=a.dtype), a.sum(), b.sum(),
                        (a * a).sum(), (b * b).sum(), (a * b).sum()])  # fmt: skip


def _pearson(moments: Tensor) -> Tensor:
    n, a, b, aa, bb, ab = moments.unbind()
    return (n * ab - a * b) / torch.sqrt((n * aa - a * a) * (n * bb - b * b))
