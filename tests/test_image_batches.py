"""Batches are normalised, shuffled by a generator alone, and augmented without leaving it."""

import numpy as np
import pytest
import torch

from predictors.data.arrays import ArrayPictures
from predictors.data.datasets import ImageData
from predictors.data.images import Images
from predictors.training.batches import batches, moved, random_moves


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _data(channels: int, count: int = 10) -> ImageData:
    """Image i has label i and the pixels 20 * i, in the first channel."""
    pixels = np.zeros((count, 8, 8, channels), dtype=np.uint8)
    pixels[..., 0] = 20 * np.arange(count).reshape(-1, 1, 1)
    images = Images(
        labels=np.arange(count),
        pictures=ArrayPictures(pixels=pixels, resolution=8),
        rows=np.arange(count),
    )
    return ImageData(
        name="made",
        classes=tuple(map(str, range(count))),
        resolution=8,
        channels=channels,
        mean=(0.5, 0.25, 0.0)[:channels],
        std=(0.5, 0.5, 1.0)[:channels],
        train=images,
        validation=images,
        test=None,
        remarks=(),
    )


def _augmented(images: torch.Tensor, *, rng: torch.Generator, flip: bool = True) -> torch.Tensor:
    return moved(images, *random_moves(images.shape, rng=rng, flip=flip, shift=True))


@pytest.mark.parametrize("channels", [1, 3])
def test_every_image_comes_once_normalised_and_beside_its_label(channels: int) -> None:
    data = _data(channels)
    seen = []
    for images, labels in batches(data.train, data=data, batch_size=4, rng=_generator()):
        assert images.dtype == torch.float32
        assert images.shape[1:] == (3, 8, 8)
        expected = (20 * labels / 255 - 0.5) / 0.5
        torch.testing.assert_close(images[:, 0, 3, 5], expected)
        second = expected if channels == 1 else torch.full_like(expected, -0.5)
        torch.testing.assert_close(images[:, 1, 0, 0], second)
        seen += labels.tolist()
    assert sorted(seen) == list(range(10))
    assert seen != list(range(10))


def test_one_generator_gives_one_order_and_none_gives_that_of_the_split() -> None:
    data = _data(1)

    def order(rng: torch.Generator | None) -> list[int]:
        return [
            int(i)
            for _, labels in batches(data.train, data=data, batch_size=3, rng=rng)
            for i in labels
        ]

    assert order(_generator(1)) == order(_generator(1)) != order(_generator(2))
    assert order(None) == list(range(10))


@pytest.mark.parametrize(("drop_last", "sizes"), [(False, [4, 4, 2]), (True, [4, 4])])
def test_the_last_batch_may_be_smaller_or_left_out(*, drop_last: bool, sizes: list[int]) -> None:
    data = _data(1)
    found = batches(data.train, data=data, batch_size=4, rng=_generator(), drop_last=drop_last)
    assert [len(labels) for _, labels in found] == sizes


def test_no_full_batch_is_no_batch() -> None:
    data = _data(1)
    assert not [*batches(data.train, data=data, batch_size=16, rng=None, drop_last=True)]


def test_batches_that_cannot_be_are_refused_at_once() -> None:
    data = _data(3)
    with pytest.raises(ValueError, match=r"^`batch_size` must be 1 or more, but got 0. Use"):
        batches(data.train, data=data, batch_size=0, rng=None)


def test_augmented_images_are_shifted_crops_of_the_padded_image_or_its_mirror() -> None:
    images = torch.rand(64, 3, 16, 16, generator=_generator(5)) + 1  # zero is padding only
    padded = torch.nn.functional.pad(images, (2, 2, 2, 2))
    found = set()
    for number, image in enumerate(_augmented(images, rng=_generator())):
        places = [
            (y, x, flip)
            for y in range(5)
            for x in range(5)
            for flip in (False, True)
            if _is_crop(image, padded[number], (y, x), flip=flip)
        ]
        assert len(places) == 1
        found.add(places[0])
    assert {flip for _, _, flip in found} == {False, True}
    assert {y for y, _, _ in found} == {x for _, x, _ in found} == set(range(5))


def _is_crop(
    image: torch.Tensor, padded: torch.Tensor, place: tuple[int, int], *, flip: bool
) -> bool:
    y, x = place
    crop = padded[:, y : y + 16, x : x + 16]
    return torch.equal(image, crop.flip(2) if flip else crop)


def test_without_flip_nothing_is_mirrored_and_one_generator_gives_one_result() -> None:
    ramp = torch.arange(1.0, 17).expand(32, 1, 16, 16)
    images = _augmented(ramp, rng=_generator(3), flip=False)
    assert bool((images[..., 2:-2].diff(dim=-1) >= 0).flatten(1)[:, :1].all())
    assert torch.equal(images, _augmented(ramp, rng=_generator(3), flip=False))
    assert not torch.equal(images, _augmented(ramp, rng=_generator(4), flip=False))


def test_images_too_small_to_shift_stay_where_they_are() -> None:
    images = torch.rand(4, 1, 7, 7, generator=_generator())
    assert torch.equal(_augmented(images, rng=_generator(), flip=False), images)
