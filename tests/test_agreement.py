"""Comparing an exported file with torch."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from predictors.backends.agreement import Agreement, Batches, agreement
from predictors.backends.torch import in_torch

IMAGES = torch.arange(15.0).view(5, 3, 1, 1) + 1


def _batches(labels: Tensor | None) -> Batches:
    def batches(at_once: int) -> Iterator[tuple[Tensor, Tensor | None]]:
        parts = [None] * 5 if labels is None else torch.split(labels, at_once)
        yield from zip(torch.split(IMAGES, at_once), parts, strict=False)

    return batches


def _found(wrong: Tensor, labels: Tensor | None = None, *, fill: bool = False) -> Agreement:
    """Of a network that gives back its images, and a file that adds something to the first."""
    sizes = []

    def run(images: Tensor) -> list[Tensor]:
        sizes.append(len(images))
        ours = images.flatten(1).clone()
        ours[0] += wrong
        return [ours]

    found = agreement(run, in_torch(nn.Flatten(1)), _batches(labels), at_once=2, fill=fill)
    assert sizes == ([2, 2, 2] if fill else [2, 2, 1])
    return found


@pytest.mark.parametrize("fill", [False, True])
def test_the_difference_is_relative_to_the_largest_output(*, fill: bool) -> None:
    found = _found(torch.tensor([0.0, 3.0, 0.0]), fill=fill)
    assert found.difference == pytest.approx(3 / 15)
    assert found.images == 5
    assert found.same == pytest.approx(100 * 2 / 5)  # the first of each of three batches
    assert found.accuracy is found.torch_accuracy is None


def test_accuracies_are_those_of_the_file_and_of_torch() -> None:
    found = _found(torch.tensor([0.0, 3.0, 0.0]), torch.tensor([1, 2, 2, 2, 0]))
    assert (found.accuracy, found.torch_accuracy) == (60, 60)
    found = _found(torch.zeros(3), torch.tensor([1, 2, 2, 2, 0]))
    assert (found.accuracy, found.torch_accuracy, found.same) == (60, 60, 100)
    assert found.correlation == pytest.approx(1)


def test_what_is_no_number_does_not_agree() -> None:
    found = _found(torch.tensor([0.0, float("nan"), 0.0]))
    assert found.difference != found.difference
    assert found.correlation != found.correlation


def test_several_outputs_are_compared_each_by_its_size() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return 1000 * x, x

    found = agreement(
        lambda x: [1000 * x, x + 1.5], in_torch(Two()), _batches(None), at_once=5, fill=False
    )
    assert found.difference == pytest.approx(0.1)
    assert found.same is None


def test_one_image_of_two_classes_that_goes_wrong_does_not_decide_alone() -> None:
    """Two logits of a single image correlate by 1 or -1, whatever they are."""
    images = torch.randn(50, 2, 1, 1, generator=torch.Generator().manual_seed(0))
    near = images.flatten(1).clone()
    near[7] = near[7].flip(0)
    rows = iter(torch.split(near, 1))
    found = agreement(
        lambda _: [next(rows)],
        in_torch(nn.Flatten(1)),
        lambda _: ((image, None) for image in torch.split(images, 1)),
        at_once=1,
        fill=False,
    )
    whole = torch.corrcoef(torch.stack([near.flatten(), images.flatten()]))[0, 1]
    assert found.correlation == pytest.approx(float(whole))
    assert found.correlation > 0.9
