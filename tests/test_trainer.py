"""A full training: stopped anywhere it goes on to the same bits; what its options do."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import TINY
from torch import Tensor

from predictors.data.datasets import ImageData, load_data
from predictors.training.distillation import open_teacher
from predictors.training.recipe import Amp, DivergedError, Recipe
from predictors.training.trainer import Trainer, precision
from predictors.training.workers import Workers, loaders_of
from search_spaces.checkpoint import save
from search_spaces.fasternet import FasterNetConfig
from search_spaces.network import build

CPU = torch.device("cpu")
CONFIG = replace(TINY, classes=4)
RECIPE = Recipe(
    epochs=3, batch_size=16, micro_batch_size=8, lr=5e-3, drop_path=0.3, ema=0.9, grad_clip=1.0
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ImageData:
    return load_data(str(_colours(tmp_path_factory.mktemp("data"), 32, 90)))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> ImageData:
    return load_data(str(_colours(tmp_path_factory.mktemp("data"), 96, 40)))


def _colours(folder: Path, side: int, count: int) -> Path:
    """Four classes of noise, each about a colour of its own."""
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (4, 1, 1, 3))
    labels = np.arange(count) % 4
    images = np.clip(colours[labels] + rng.normal(0, 40, (count, side, side, 3)), 0, 255)
    file = folder / "colours.npz"
    np.savez(file, x_train=images.astype(np.uint8), y_train=labels)
    return file


def _training(
    data: ImageData, recipe: Recipe, config: FasterNetConfig = CONFIG, *, loaders: int = 0
) -> Trainer:
    torch.manual_seed(0)
    network = build(config, drop_path=recipe.drop_path)
    return Trainer(network, data, recipe, device=CPU, workers=Workers(loaders=loaders))


def _ended(training: Trainer) -> dict[str, Tensor]:
    for _ in training.run():
        pass
    return {k: v.clone() for k, v in training.evaluated.state_dict().items()}


def _same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@lru_cache(maxsize=1)
def _whole(data: ImageData) -> tuple[dict[str, Tensor], list[Any], Any]:
    training = _training(data, RECIPE)
    return _ended(training), training.rows, training.best


@pytest.mark.parametrize("stop", [1, 3, 5, 7, 12])
def test_stopped_after_any_step_it_goes_on_to_the_same_bits(
    stop: int, data: ImageData, tmp_path: Path
) -> None:
    weights, rows, best = _whole(data)
    first = _training(data, RECIPE)
    for _ in zip(range(stop), first.run(), strict=False):
        pass
    torch.save(first.state(), tmp_path / "state.pt")
    torch.manual_seed(99)  # of what others draw it does not depend
    torch.rand(3)
    second = _training(data, RECIPE)
    second.load_state(torch.load(tmp_path / "state.pt", weights_only=True))
    assert _same(_ended(second), weights)
    told = [(r.epoch, r.loss, r.accuracy, r.lr, r.resolution) for r in second.rows]
    assert told == [(r.epoch, r.loss, r.accuracy, r.lr, r.resolution) for r in rows]
    assert second.best
    assert (second.best.epoch, second.best.accuracy) == (best.epoch, best.accuracy)
    assert _same(second.best.weights, best.weights)


def test_it_learns_and_grows_its_images_and_draws_no_numbers_of_others(data: ImageData) -> None:
    state = torch.get_rng_state()
    recipe = replace(
        RECIPE, epochs=6, drop_path=0.0, ema=0.0, mixup_prob=0.0, early_resolution=0.75
    )
    torch.set_rng_state(state)
    network = build(CONFIG)
    state, numbers = torch.get_rng_state(), np.random.get_state(legacy=False)["state"]["key"]
    training = Trainer(network, data, recipe, device=CPU)
    for _ in training.run():
        pass
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state(legacy=False)["state"]["key"], numbers)
    assert training.rows[-1].loss < training.rows[0].loss
    assert [row.resolution for row in training.rows] == [24] * 5 + [32]
    assert training.best
    assert training.best.accuracy == max(row.accuracy for row in training.rows) > 50
    assert training.finished


def test_pictures_are_the_same_from_every_number_of_loaders(pictures: ImageData) -> None:
    config = replace(CONFIG, resolution=96)
    recipe = replace(RECIPE, epochs=2, augment="rand-m5-mstd0.5-inc1", ema=0.0)
    weights = _ended(_training(pictures, recipe, config))
    assert _same(_ended(_training(pictures, recipe, config, loaders=2)), weights)
    plain = replace(recipe, augment="")
    assert not _same(_ended(_training(pictures, plain, config)), weights)


def test_pictures_stopped_in_an_epoch_go_on_to_the_same_bits(pictures: ImageData) -> None:
    config, recipe = replace(CONFIG, resolution=96), replace(RECIPE, epochs=1, micro_batch_size=16)
    first = _training(pictures, recipe, config)
    steps = first.run()
    next(steps)
    second = _training(pictures, recipe, config)
    second.load_state({**first.state(), "network": _copied(first.state()["network"])})
    assert first.progress().step == 1
    assert _same(_ended(second), _ended(_training(pictures, recipe, config)))


def test_an_epoch_that_has_become_shorter_than_what_is_done_of_it_is_refused(
    data: ImageData,
) -> None:
    first = _training(data, RECIPE)
    for _ in zip(range(3), first.run(), strict=False):
        pass
    fewer = replace(data, train=data.train.subset(np.arange(48)))
    second = _training(fewer, RECIPE)
    second.load_state(first.state())
    message = "`data` must be what .* epoch 1 has 3 steps now, of which 3 are done. Put"
    with pytest.raises(ValueError, match=message):
        next(second.run_epoch())


def _copied(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: weight.clone() for name, weight in weights.items()}


def test_a_teacher_is_heeded(data: ImageData, tmp_path: Path) -> None:
    from search_spaces.timm_models import import_timm

    timm = import_timm()
    file = tmp_path / "teacher.pt"
    torch.save(timm.create_model("test_resnet", num_classes=4).state_dict(), file)
    alone = replace(RECIPE, epochs=1, ema=0.0)
    taught = replace(alone, teacher="test_resnet", teacher_weights=str(file))
    assert not _same(_ended(_training(data, taught)), _ended(_training(data, alone)))
    with pytest.raises(ValueError, match="`teacher` must be a model of timm, but got 'nobody'"):
        _training(data, replace(taught, teacher="nobody"))
    torch.save(timm.create_model("test_resnet", num_classes=3).state_dict(), file)
    with pytest.raises(ValueError, match="`teacher_weights` must be those of a test_resnet with 4"):
        _training(data, taught)


def test_a_teacher_of_one_image_size_is_shown_that(data: ImageData, tmp_path: Path) -> None:
    from search_spaces.timm_models import import_timm

    file, name = tmp_path / "teacher.pt", "test_vit"
    network = import_timm().create_model(name, num_classes=4)
    torch.save(network.state_dict(), file)
    recipe = replace(RECIPE, teacher=name, teacher_weights=str(file))
    teacher = open_teacher(recipe, data, CPU)
    assert teacher
    assert teacher.side == network.pretrained_cfg["input_size"][-1] > 32
    images, logits = torch.rand(2, 3, 32, 32), torch.zeros(2, 4)
    assert float(teacher.loss(images, logits)) >= 0


def test_a_checkpoint_of_ours_teaches_by_its_own_mean_and_deviation(
    data: ImageData, tmp_path: Path
) -> None:
    file, network = tmp_path / "weights.safetensors", build(CONFIG).eval()
    recipe = replace(RECIPE, teacher="fasternas", teacher_weights=str(file))
    save(network, file, classes=data.classes, mean=(0.25,), std=(0.5,))
    teacher = open_teacher(recipe, data, CPU)
    assert teacher
    pixels = torch.rand(2, 3, 32, 32)
    ours, seen = (
        (pixels - torch.tensor(m).view(1, -1, 1, 1)) / torch.tensor(s).view(1, -1, 1, 1)
        for m, s in ((data.mean, data.std), ((0.25,), (0.5,)))
    )
    with torch.no_grad():
        expected = network(seen)
    assert torch.allclose(teacher.network(ours * teacher.std + teacher.mean), expected, atol=1e-5)
    assert float(teacher.loss(ours, expected)) == pytest.approx(0, abs=1e-5)
    with pytest.raises(ValueError, match="`teacher` must be fasternas where its weights are a che"):
        open_teacher(replace(recipe, teacher="resnet18"), data, CPU)
    with pytest.raises(ValueError, match="`teacher_weights` must be a checkpoint that fasternas s"):
        open_teacher(replace(recipe, teacher_weights=""), data, CPU)
    save(network, file, classes=data.classes[::-1])
    with pytest.raises(ValueError, match="`teacher_weights` must tell the 4 classes of the data a"):
        open_teacher(recipe, data, CPU)


def test_a_teacher_that_cannot_be_had_says_why(
    data: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    from search_spaces.timm_models import import_timm

    said: list[str] = []
    hub, handler = logging.getLogger("huggingface_hub"), logging.Handler()
    monkeypatch.setattr(handler, "emit", lambda record: said.append(record.getMessage()))
    monkeypatch.setattr(hub, "handlers", [handler])
    monkeypatch.setattr(hub, "level", logging.WARNING)

    def offline(*_: object, **__: object) -> None:
        logging.getLogger("huggingface_hub.utils._http").warning("Retrying in 1s [Retry 1/5].")
        raise OSError("The files cannot be found. " + "Say this and that. " * 30)

    monkeypatch.setattr(import_timm(), "create_model", offline)
    message = r"but: The files cannot be found\. Say .* Say this and that\. Give a file"
    with pytest.raises(RuntimeError, match=message):
        open_teacher(replace(RECIPE, teacher="test_resnet"), data, CPU)
    assert (said, hub.level) == ([], logging.WARNING)
    logging.getLogger("huggingface_hub.utils._http").warning("of others")
    assert said == ["of others"]


def test_half_the_rate_is_half_of_every_step_and_stays_so(data: ImageData) -> None:
    rates = []
    for halve in (False, True):
        training = _training(data, replace(RECIPE, epochs=1))
        if halve:
            training.lr_scale /= 2
            again = _training(data, replace(RECIPE, epochs=1))
            again.load_state(training.state())
            training = again
        _ended(training)
        rates.append(training.rows[0].lr)
    assert rates[1] == rates[0] / 2


def test_weights_that_are_no_numbers_end_it(data: ImageData) -> None:
    with pytest.raises(DivergedError, match="must stay"):
        _ended(_training(data, replace(RECIPE, lr=1e30, warmup=0.0)))


def test_a_batch_of_all_images_leaves_out_an_odd_one(data: ImageData) -> None:
    few = replace(data, train=data.train.subset(np.arange(33)))
    training = _training(few, replace(RECIPE, batch_size=64, micro_batch_size=64, epochs=1))
    assert _ended(training)
    assert training.steps_done == 1


def test_what_does_not_fit_is_refused(data: ImageData) -> None:
    with pytest.raises(ValueError, match=r"`classes` must be the 4 of .*, but the network has 10"):
        _training(data, RECIPE, TINY)
    if not torch.cpu._is_avx512_bf16_supported():
        with pytest.raises(ValueError, match="`amp` must be auto or off here, but is on"):
            _ended(_training(data, replace(RECIPE, amp="on")))


@pytest.mark.parametrize(
    ("amp", "there", "resolution", "in_bfloat16"),
    [
        ("auto", True, 96, True),
        ("auto", True, 95, False),
        ("auto", False, 96, False),
        ("off", True, 96, False),
        ("on", True, 32, True),
    ],
)
def test_pictures_are_in_bfloat16_where_a_cpu_has_it(
    amp: Amp, resolution: int, monkeypatch: pytest.MonkeyPatch, *, there: bool, in_bfloat16: bool
) -> None:
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: there)
    with precision(replace(RECIPE, amp=amp), torch.device("cpu"), resolution):
        assert torch.is_autocast_enabled("cpu") == in_bfloat16


def test_the_last_weights_are_kept_where_not_the_best_are(data: ImageData) -> None:
    training = _training(data, replace(RECIPE, keep_best=False))
    last = _ended(training)
    assert training.best
    assert training.best.epoch == RECIPE.epochs == training.rows[-1].epoch
    assert training.best.accuracy == training.rows[-1].accuracy
    assert _same(training.best.weights, last)


@pytest.mark.parametrize(("cores", "loaders"), [(1, 0), (4, 3), (64, 8)])
def test_pictures_are_decoded_by_all_cores_but_one_and_by_eight_at_most(
    cores: int, loaders: int
) -> None:
    assert loaders_of(cores) == loaders
