"""Networks with weights as if trained, for what writes and runs files of them."""

from typing import Any

import torch
from networks import IRREGULAR
from torch import nn

from predictors.backends.model import Model, checkpoint_model
from search_spaces.checkpoint import Checkpoint
from search_spaces.fasternet import FasterNetConfig
from search_spaces.network import build


def deployed(config: FasterNetConfig = IRREGULAR, *, name: str = "net", **more: Any) -> Model:
    """A network whose batch norms have seen something, so that folding them matters."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build(config)
        stir(network)
    weights = network.state_dict()
    checkpoint = Checkpoint(config=config, weights=weights, mean=(0.5,), std=(0.25,))
    return checkpoint_model(name, checkpoint, **more)


def stir(network: nn.Module) -> None:
    """Give batch norms other values than those that they begin with."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.weight, module.bias, module.running_mean, module.running_var):
                assert values is not None
                values.data.uniform_(0.5, 1.5)
