"""The configs of a training step, and that steps over them train the whole supernet."""

import math
from random import Random

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from predictors.cost import cost
from search_spaces.fasternet import SPACES, FasterNetConfig
from search_spaces.sandwich import sandwich
from search_spaces.space import Space, each, oneof
from search_spaces.supernet import Supernet

TINY = Space(
    FasterNetConfig,
    widths=each(oneof(8, 12, 16), oneof(16, 20, 32)), depths=each(oneof(1, 2), oneof(1, 2)),
    partial_ratios=each(oneof(0.25, 1.0), oneof(0.25, 0.5)),
    expansions=each(oneof(1.0, 2.0), oneof(1.5, 2.0)), resolution=16, stem_stride=oneof(2, 4),
    head_width=32, activation=oneof("gelu", "relu"), classes=4,
)  # fmt: skip


def _colours(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noise in four colours, far from the mean of 0 that untouched statistics stand for."""
    generator, labels = torch.Generator().manual_seed(seed), torch.arange(n) % 4
    colours = torch.randn(4, 3, 1, 1, generator=torch.Generator().manual_seed(9))
    return 5.0 + colours[labels] + torch.randn(n, 3, 16, 16, generator=generator), labels


def _step(supernet: Supernet, images: Tensor, labels: Tensor, rng: Random) -> list[Tensor]:
    """The losses of one step, the largest distilled into the others, and that of the smallest."""
    largest, *others = sandwich(supernet.space, rng, 4)
    logits = supernet(images, largest)
    soft = logits.detach().softmax(1)
    answers = [supernet(images, config) for config in others]
    distilled = [F.kl_div(a.log_softmax(1), soft, reduction="batchmean") for a in answers]
    return [F.cross_entropy(logits, labels), *distilled, F.cross_entropy(answers[0], labels)]


def _train(supernet: Supernet, images: Tensor, labels: Tensor, *, steps: int) -> Tensor:
    """Train; return the losses of the largest and of the smallest config, [steps, 2]."""
    optimizer = torch.optim.AdamW(supernet.train().parameters(), lr=5e-3)
    rng, history = Random(0), []
    for _ in range(steps):
        *losses, smallest = _step(supernet, images, labels, rng)
        optimizer.zero_grad()
        torch.autograd.backward(losses)
        optimizer.step()
        history.append([losses[0].item(), smallest.item()])
    return torch.tensor(history)


def _tiny() -> Supernet:
    torch.manual_seed(0)
    return Supernet(TINY)


def _accuracy(logits: Tensor, labels: Tensor) -> float:
    return (logits.argmax(1) == labels).float().mean().item()


def test_training_on_noise_lowers_the_loss_of_the_largest_and_of_the_smallest() -> None:
    images = torch.randn(32, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    losses = _train(_tiny(), images, torch.arange(32) % 4, steps=20)
    assert losses[0].tolist() == pytest.approx([math.log(4)] * 2, abs=0.1)
    assert (losses[-3:].mean(0) < 0.9 * losses[0]).all()


def test_a_recalibrated_network_evaluates_as_it_trained() -> None:
    supernet, (images, labels) = _tiny(), _colours(64, seed=0)
    _train(supernet, images, labels, steps=20)
    others, answers = _colours(128, seed=1)
    for config in sandwich(TINY, Random(3), 5):
        network = supernet.recalibrated(config, torch.tensor_split(images, 4))
        with torch.no_grad():
            trained = _accuracy(supernet.train()(others, config), answers)
            evaluated = _accuracy(network(others), answers)
            uncalibrated = _accuracy(supernet.eval()(others, config), answers)
        assert trained > 0.6
        assert evaluated == pytest.approx(trained, abs=0.04)
        assert uncalibrated < evaluated - 0.15


def test_a_step_has_the_largest_config_then_the_smallest_then_random_ones() -> None:
    space = SPACES["fasternet-32"]
    largest, smallest, *others = sandwich(space, Random(0), 6)
    assert (largest.widths, largest.depths) == ((48, 96, 192, 256), (3, 3, 8, 3))
    assert (largest.partial_ratios, largest.expansions) == ((0.5, 1.0, 1.0, 1.0), (3.0,) * 4)
    assert (smallest.widths, smallest.depths) == ((16, 32, 32, 64), (1,) * 4)
    assert smallest.partial_ratios == (0.25, 0.25, 0.125, 0.125)
    assert smallest.expansions == (1.0,) * 4
    assert (largest.stem_stride, smallest.stem_stride) == (1, 2)
    assert len(set(others)) == 4
    assert all(cost(smallest).macs < cost(config).macs < cost(largest).macs for config in others)


def test_one_seed_gives_one_sandwich_and_both_activations_take_turns() -> None:
    assert sandwich(TINY, Random(1), 5) == sandwich(TINY, Random(1), 5)
    rng = Random(0)
    steps = [sandwich(TINY, rng, 2) for _ in range(20)]
    for i in (0, 1):
        assert {step[i].activation for step in steps} == {"gelu", "relu"}
        assert len({cost(step[i]).macs for step in steps}) == 1


def test_the_extremes_are_found_where_few_genes_spell_a_config() -> None:
    space = Space(
        FasterNetConfig,
        widths=oneof((8, 16), (8, 12), (8, 16, 32), (8, 16, 24)), depths=oneof((1, 2), (2, 1, 2)),
        partial_ratios=oneof((0.5, 0.25), (0.25, 0.5, 0.25)),
        expansions=oneof((2.0,) * 2, (3.0,) * 3), resolution=oneof(2, 32), head_width=8,
        stem_stride=oneof(2, 16), classes=3,
    )  # fmt: skip
    valid = []
    for i in range(space.size):
        genes, left = [], i
        for n in space.cardinalities:
            left, gene = divmod(left, n)
            genes.append(gene)
        try:
            valid.append(space.decode(genes))
        except ValueError:
            continue
    assert 0 < len(valid) < space.size / 10
    sizes = {cost(config).macs for config in valid}
    step = sandwich(space, Random(0), 20)
    assert [cost(config).macs for config in step[:2]] == [max(sizes), min(sizes)]
    assert [len(config.widths) for config in step[:2]] == [3, 2]
    assert {len(config.widths) for config in step[2:]} == {2, 3}


@pytest.mark.parametrize("count", [1, 0, -2])
def test_a_step_without_the_two_extremes_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"`count` must be at least 2, .*, but got {count}"):
        sandwich(TINY, Random(0), count)


def test_a_space_without_a_valid_config_is_refused() -> None:
    space = TINY.replace(depths=oneof((1,), (2,)))
    with pytest.raises(ValueError, match=r"`space` must have valid configs, but .* were not"):
        sandwich(space, Random(0), 2)
