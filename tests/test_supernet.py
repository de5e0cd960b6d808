"""Every config's network is a part of the supernet: its outputs, its gradients, its weights."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from networks import sandwich
from torch import Tensor, nn
from torch.nn import functional as F

from search_spaces.checkpoint import inherit
from search_spaces.fasternet import FASTERNET, SPACES, FasterNetConfig
from search_spaces.network import FasterNet, Stem, build
from search_spaces.space import Space, each, oneof
from search_spaces.supernet import Supernet
from search_spaces.timm_models import import_timm

TINY = Space(
    FasterNetConfig,
    widths=each(oneof(8, 12, 16), oneof(16, 20, 32)), depths=each(oneof(1, 2), oneof(1, 2, 3)),
    partial_ratios=each(oneof(0.25, 1 / 3, 1.0), oneof(0.25, 0.5)),
    expansions=each(oneof(1.0, 1.7, 3.0), oneof(1.5, 2.0)), resolution=oneof(12, 16),
    stem_stride=oneof(1, 2), head_width=oneof(24, 40), activation=oneof("gelu", "relu"), classes=4,
)  # fmt: skip
SIX_STAGES = Space(
    FasterNetConfig,
    widths=each(*[oneof(4, 8, 12)] * 6), depths=each(*[oneof(1, 2)] * 6),
    partial_ratios=oneof((0.25,) * 6, (0.5,) * 6), expansions=(2.0,) * 6, classes=oneof(3, 5),
    resolution=64, stem_stride=oneof(1, 2), head_width=16,
)  # fmt: skip
TWO_OR_THREE_STAGES = Space(  # 31 of 32 genes spell no config
    FasterNetConfig,
    widths=oneof((8, 64), (16, 24), (8, 16, 32), (8, 16, 24)), depths=oneof((1, 2), (2, 1, 2)),
    partial_ratios=oneof((0.5, 0.25), (0.25, 0.5, 0.25)),
    expansions=oneof((2.0, 1.0), (1.0, 2.0, 3.0)), resolution=32, head_width=8, classes=3,
)  # fmt: skip
SPACES_HERE: Mapping[str, Space[FasterNetConfig]] = {
    **{name: SPACES[name] for name in ("fasternet", "fasternet-32")},
    "tiny": TINY,
    "six stages": SIX_STAGES,
    "two or three": TWO_OR_THREE_STAGES,
}


@dataclass(frozen=True)
class Other:
    """A config that is no FasterNet's."""

    width: int


@pytest.fixture(scope="module", params=SPACES_HERE)
def scrambled(request: pytest.FixtureRequest) -> Supernet:
    """A supernet of each space in which no weight is like another."""
    with torch.device("meta"):  # `fasternet` has 370 million weights: draw them but once
        supernet = Supernet(SPACES_HERE[request.param])
    return _scramble(supernet.to_empty(device="cpu"), seed=0)


def _tiny(seed: int = 0) -> Supernet:
    torch.manual_seed(seed)
    return Supernet(TINY)


def _scramble(network: Supernet, seed: int) -> Supernet:
    """Draw all weights and statistics: batch norms that have seen nothing would hide mistakes."""
    noise = torch.rand(1_000_003, generator=torch.Generator().manual_seed(seed))
    for i, (name, weight) in enumerate(network.state_dict().items()):
        if not weight.is_floating_point():
            continue
        scale = name.endswith("running_var") or (name.endswith("weight") and weight.dim() == 1)
        low, high = (0.5, 2.0) if scale else (-0.05, 0.05)
        # The length is prime: however wide a weight is, no row of it repeats another.
        drawn = noise.roll(1000 * i).repeat(weight.numel() // len(noise) + 1)[: weight.numel()]
        torch.mul(drawn.view_as(weight), high - low, out=weight).add_(low)
    return network


def _images(n: int, size: int, seed: int = 0) -> Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


def _network(supernet: Supernet, config: FasterNetConfig) -> FasterNet:
    with torch.device("meta"):
        network = build(config)
    network.load_state_dict(supernet.weights_of(config), assign=True)
    return network


def _corner(whole: Tensor, part: Tensor) -> tuple[slice, ...]:
    assert whole.dim() == part.dim()
    return tuple(slice(n) for n in part.shape)


def _own_name(name: str, config: FasterNetConfig) -> str:
    return name.replace("patch_embed.", f"patch_embeds.{config.stem_stride}.")


def test_logits_are_those_of_the_configs_network(scrambled: Supernet) -> None:
    scrambled.eval()
    for config in sandwich(scrambled.space, Random(3), 8):
        images = _images(1, max(16, config.stem_stride * 2 ** (len(config.widths) - 1)))
        network = _network(scrambled, config).eval()
        with torch.no_grad():
            expected, logits = network(images), scrambled(images, config)
        spread = expected.std().item()
        assert logits.shape == (1, config.classes)
        assert spread > 1e-3
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4 * spread)


@pytest.mark.parametrize("space", [TINY, SIX_STAGES, TWO_OR_THREE_STAGES],
                         ids=["tiny", "six", "two or three"])  # fmt: skip
def test_gradients_are_the_networks_and_reach_its_part_only(space: Space[FasterNetConfig]) -> None:
    torch.manual_seed(0)
    supernet = _scramble(Supernet(space), seed=1)
    images = _images(4, 64)
    for config in sandwich(space, Random(1), 5):
        supernet.zero_grad()
        network = _network(supernet, config).train()
        logits, expected = supernet.train()(images, config), network(images)
        torch.testing.assert_close(logits, expected)
        logits.square().mean().backward()
        expected.square().mean().backward()
        gradients = {name: w.grad for name, w in supernet.named_parameters() if w.grad is not None}
        for name, weight in network.named_parameters():
            whole = gradients.pop(_own_name(name, config))
            corner = _corner(whole, weight)
            torch.testing.assert_close(whole[corner], weight.grad, rtol=1e-3, atol=1e-6)
            whole[corner] = 0.0
            assert not whole.any()
        assert not any(gradient.any() for gradient in gradients.values())


def test_training_leaves_the_statistics_alone() -> None:
    supernet = _scramble(_tiny(), seed=2).train()
    before = {name: b.clone() for name, b in supernet.named_buffers()}
    for config in sandwich(TINY, Random(0), 4):
        supernet(_images(4, config.resolution), config)
    assert all(torch.equal(b, before[name]) for name, b in supernet.named_buffers())


def test_the_weights_of_a_config_are_corners_of_the_largest() -> None:
    supernet, rng = _scramble(_tiny(), seed=3), Random(2)
    own = supernet.state_dict()
    for config in [TINY.sample(rng) for _ in range(10)]:
        weights, network = supernet.weights_of(config), build(config).state_dict()
        assert list(weights) == list(network)
        for name, weight in weights.items():
            assert weight.shape == network[name].shape
            whole = own[_own_name(name, config)]
            assert torch.equal(weight, whole[_corner(whole, weight)])


def test_the_weights_of_a_config_are_a_copy() -> None:
    supernet = _tiny()
    config = sandwich(TINY, Random(0), 2)[0]
    for weight in supernet.weights_of(config).values():
        assert weight.is_contiguous()
        assert not weight.requires_grad
        weight.fill_(1)
    assert all(w.std() < 0.1 for w in supernet.parameters() if w.dim() > 1)


def test_a_timm_checkpoint_becomes_its_config() -> None:
    t0 = FASTERNET["t0"]
    space = SPACES["fasternet"].replace(
        widths=each(oneof(32, 40), oneof(80, 96), oneof(128, 160), oneof(320, 384)),
        depths=(1, 2, 8, 2),
        partial_ratios=each(*[oneof(0.25, 0.5)] * 4), expansions=each(*[oneof(2.0, 2.5)] * 4),
    )  # fmt: skip
    theirs = import_timm().create_model("fasternet_t0").eval()
    generator = torch.Generator().manual_seed(1)
    for buffer in theirs.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 2.0, generator=generator)
    supernet = _scramble(Supernet(space), seed=0).eval()
    inherit(supernet, theirs.state_dict())
    images = _images(2, 64)
    with torch.no_grad():
        expected, logits = theirs(images), supernet(images, t0)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4 * expected.std().item())


def test_a_saved_supernet_comes_back(tmp_path: Path) -> None:
    supernet = _scramble(_tiny(), seed=4)
    torch.save(supernet.state_dict(), tmp_path / "supernet.pt")
    loaded = _tiny(seed=1)
    loaded.load_state_dict(torch.load(tmp_path / "supernet.pt", weights_only=True))
    for config in sandwich(TINY, Random(5), 4):
        images = _images(2, config.resolution)
        with torch.no_grad():
            expected, logits = supernet.eval()(images, config), loaded.eval()(images, config)
        assert torch.equal(logits, expected)


def test_weights_start_as_those_of_a_network() -> None:
    supernet, again = _tiny(), _tiny()
    names = {name: w for name, w in supernet.named_parameters() if w.dim() > 1}
    assert "patch_embeds.2.proj.weight" in names
    for name, weight in names.items():
        tolerance = 4 / math.sqrt(2 * weight.numel())
        assert weight.std().item() == pytest.approx(0.02, rel=tolerance), name
        assert torch.equal(weight, dict(again.named_parameters())[name])
    assert not supernet.get_parameter("classifier.bias").any()


def test_recalibration_is_the_mean_over_the_batches() -> None:
    supernet = _scramble(_tiny(), seed=5)
    config = TINY.sample(Random(0))
    batches = [3 * i + _images(8, config.resolution, seed=i) for i in range(3)]
    before = {name: w.clone() for name, w in supernet.state_dict().items()}
    network = supernet.recalibrated(config, iter(batches))
    stem = network.patch_embed
    assert isinstance(stem, Stem)
    assert isinstance(stem.norm, nn.BatchNorm2d)
    seen = [stem.proj(images) for images in batches]
    mean = torch.stack([y.mean((0, 2, 3)) for y in seen]).mean(0)
    var = torch.stack([y.var((0, 2, 3)) for y in seen]).mean(0)
    torch.testing.assert_close(stem.norm.running_mean, mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(stem.norm.running_var, var, rtol=1e-4, atol=1e-5)
    assert not network.training
    assert {m.momentum for m in network.modules() if isinstance(m, nn.BatchNorm2d)} == {0.1}
    for weight in network.state_dict().values():
        weight.zero_()
    assert all(torch.equal(w, before[name]) for name, w in supernet.state_dict().items())


SMALLEST = TINY.decode((0,) * len(TINY.genes))


@pytest.mark.parametrize("change", [{"widths": (8, 64)}, {"depths": (3, 1)}, {"resolution": 32},
                                    {"expansions": (1.0, 4.0)}], ids=str)  # fmt: skip
def test_a_config_outside_the_space_is_refused(change: dict[str, Any]) -> None:
    supernet, config = _tiny(), replace(SMALLEST, **change)
    message = rf"`{next(iter(change))}.* must be oneof\(.* in this space, but got"
    with pytest.raises(ValueError, match=message):
        supernet(_images(2, 16), config)
    with pytest.raises(ValueError, match=message):
        supernet.weights_of(config)


def test_recalibration_needs_images() -> None:
    with pytest.raises(ValueError, match=r"`batches` must hold at least one batch .* holds none"):
        _tiny().recalibrated(SMALLEST, [])


def test_a_space_of_other_configs_is_refused() -> None:
    space: Any = Space(Other, width=oneof(1, 2))
    with pytest.raises(TypeError, match=r"`space` must hold .* FasterNetConfig, but holds Other"):
        Supernet(space)


TRAINED = TINY.replace(resolution=16, stem_stride=oneof(2, 4), head_width=32)


def _trainable() -> Supernet:
    torch.manual_seed(0)
    return Supernet(TRAINED)


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


def _accuracy(logits: Tensor, labels: Tensor) -> float:
    return (logits.argmax(1) == labels).float().mean().item()


def test_training_on_noise_lowers_the_loss_of_the_largest_and_of_the_smallest() -> None:
    images = torch.randn(32, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    losses = _train(_trainable(), images, torch.arange(32) % 4, steps=20)
    assert losses[0].tolist() == pytest.approx([math.log(4)] * 2, abs=0.1)
    assert (losses[-3:].mean(0) < 0.9 * losses[0]).all()


def test_a_recalibrated_network_evaluates_as_it_trained() -> None:
    supernet, (images, labels) = _trainable(), _colours(64, seed=0)
    _train(supernet, images, labels, steps=20)
    others, answers = _colours(128, seed=1)
    for config in sandwich(TRAINED, Random(3), 5):
        network = supernet.recalibrated(config, torch.tensor_split(images, 4))
        with torch.no_grad():
            trained = _accuracy(supernet.train()(others, config), answers)
            evaluated = _accuracy(network(others), answers)
            uncalibrated = _accuracy(supernet.eval()(others, config), answers)
        assert trained > 0.6
        assert evaluated == pytest.approx(trained, abs=0.04)
        assert uncalibrated < evaluated - 0.15


@pytest.mark.parametrize(
    ("space", "field"),
    [
        (SPACES["pconv"], "kernels"),
        (SPACES["fasternet"].replace(groups=(1, 1, 1, 2)), "groups"),
        (SPACES["fasternet"].replace(head_width=oneof(0, 640)), "head_width"),
        (SPACES["fasternet"].replace(stem="convs"), "stem"),
        (SPACES["fasternet"].replace(depths=oneof((1, 2, 8, 2), (1, 2, 8, 0))), "depths"),
    ],
)
def test_blocks_that_share_no_weights_are_refused(
    space: Space[FasterNetConfig], field: str
) -> None:
    with pytest.raises(ValueError, match=f"`{field}` must be as in the published FasterNet"):
        Supernet(space)
