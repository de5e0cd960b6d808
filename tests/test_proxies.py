"""A score looks at a network and leaves no trace in it."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from proxies import PROXIES, expressivity, log_synflow, structure_score
from torch import nn

from search_spaces.fasternet import FASTERNET, Activation, FasterNetConfig
from search_spaces.network import FasterNet, build

SMALL = FasterNetConfig(
    widths=(16, 32),
    depths=(1, 2),
    partial_ratios=(0.5, 0.25),
    expansions=(2.0, 1.5),
    resolution=16,
    stem_stride=1,
    head_width=32,
    classes=4,
)
SCORES = list(PROXIES.values())
Score = Callable[[FasterNet], float]


def _network(config: FasterNetConfig) -> FasterNet:
    torch.manual_seed(0)
    return build(config, drop_path=0.2)


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_scoring_leaves_the_network_bit_identical(
    score: Score, activation: Activation, mode: str
) -> None:
    network = _network(replace(SMALL, activation=activation)).train(mode == "train")
    network.stages[0].eval()  # a part that its owner froze
    network.conv_head.weight.requires_grad = False
    before = {name: value.clone() for name, value in network.state_dict().items()}
    modules = [(name, type(m), m.training) for name, m in network.named_modules()]
    grads = [p.requires_grad for p in network.parameters()]
    score(network)
    after = network.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert all(after[name].dtype == value.dtype for name, value in before.items())
    assert [(name, type(m), m.training) for name, m in network.named_modules()] == modules
    assert all(not m._forward_pre_hooks and not m._forward_hooks for m in network.modules())
    assert [p.requires_grad for p in network.parameters()] == grads
    assert all(p.grad is None for p in network.parameters())


@pytest.mark.parametrize("score", SCORES)
def test_scoring_is_deterministic_and_draws_no_random_numbers(score: Score) -> None:
    network = _network(SMALL)
    state = torch.random.get_rng_state()
    assert score(network) == score(network)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("score", SCORES)
def test_a_wider_network_scores_higher(score: Score) -> None:
    scores = [score(_network(replace(SMALL, widths=(w, 2 * w)))) for w in (8, 16, 32, 64)]
    assert scores == sorted(set(scores))


@pytest.mark.parametrize("score", [score for score in SCORES if score is not expressivity])
def test_a_deeper_network_scores_higher(score: Score) -> None:
    scores = [score(_network(replace(SMALL, depths=(1, depth)))) for depth in (1, 2, 4, 8)]
    assert scores == sorted(set(scores))


def test_scoring_works_where_gradients_are_off() -> None:
    network = _network(SMALL)
    expected = log_synflow(network)
    with torch.no_grad():
        assert log_synflow(network) == expected


def test_synaptic_flow_is_what_its_paper_says() -> None:
    network = _network(SMALL)
    for parameter in network.parameters():  # then R is a sum over paths, and so is the flow
        nn.init.constant_(parameter, 0.0)
    network.classifier.bias.data.copy_(torch.tensor([1.0, -2.0, 0.5, 0.0]))
    assert log_synflow(network) == pytest.approx(math.log(3.5))


def test_the_structure_score_gives_t0_100_and_t2_200() -> None:
    assert structure_score(FASTERNET["t0"]) == pytest.approx(100.0)
    assert structure_score(FASTERNET["t2"]) == pytest.approx(200.0)
    deeper = replace(FASTERNET["t0"], depths=(2, 2, 8, 2))
    by = 100 / 3 * math.log(2) / math.log(96 / 40)
    assert structure_score(deeper) == pytest.approx(100 + by)


def test_a_failed_score_leaves_the_network_as_it_was() -> None:
    network = _network(SMALL).train()
    network.classifier = nn.Linear(7, 4)  # cannot follow a head of 32 channels
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        log_synflow(network)
    assert network.training
    assert all(torch.equal(v, before[name]) for name, v in network.state_dict().items())
