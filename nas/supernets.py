"""The supernet of a study: with which networks it is trained, how long, and where it is kept."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from random import Random
from statistics import fmean
from typing import TYPE_CHECKING, Any

from nas.search.feasibility import Gate, PredictLatency
from nas.study.options import SearchOptions
from predictors.accuracy import AccuracyKind
from predictors.cost import cost
from search_spaces.fasternet import FasterNetConfig
from search_spaces.space import Space

if TYPE_CHECKING:
    import torch
    from torch import nn

    from predictors.training.trainer import Training
    from predictors.training.workers import Team
    from search_spaces.supernet import Supernet

FILE = "supernet.pt"
SAMPLE = 256  # networks within the budget that stand for all of those
DRAWN = 8192  # networks of any size to find them among
END = 16  # of these one in so many counts as among the largest, or the smallest
COST = 12.0  # trainings of a single network that training the supernet may cost


@dataclass(frozen=True, kw_only=True)
class Trained:
    """How many epochs of a supernet are done, of how many, and the accuracy of a large network."""

    done: int
    total: int
    accuracy: float


@dataclass(frozen=True)
class Sandwich:
    """Draws the networks of a step: a large one, a small one and two of any size.

    All are within the budget: what is slower than that need not share the weights.
    """

    configs: Sequence[FasterNetConfig]  # the smallest first

    def __call__(self, rng: Random) -> list[FasterNetConfig]:
        """Return the large one first."""
        ends = max(len(self.configs) // END, 1)
        large, small = rng.choice(self.configs[-ends:]), rng.choice(self.configs[:ends])
        return [large, small, *rng.choices(self.configs, k=2)]


def within_budget(
    space: Space[FasterNetConfig], predict: PredictLatency, budget_ms: float, seed: int
) -> list[FasterNetConfig]:
    """Return random networks that are predicted to meet the budget, by ascending MACs."""
    rng = Random(f"supernet/{seed}")
    drawn = list(dict.fromkeys(space.random_genes(rng) for _ in range(DRAWN)))
    upper_ms = predict([space.decode(genes) for genes in drawn]).high_ms
    found = [genes for genes, ms in zip(drawn, upper_ms, strict=True) if ms <= budget_ms][:SAMPLE]
    if len(found) < SAMPLE:  # few networks are so fast, or there are few networks
        gate = Gate(space, predict, budget_ms)
        admitted = (gate.admit(genes, rng) for genes in drawn[:SAMPLE])
        found = [genes for genes in admitted if genes is not None]
    return sorted(map(space.decode, found), key=lambda config: cost(config).macs)


def epochs_for(sandwich: Sandwich, epochs: int) -> int:
    """Return for how many epochs the supernet is trained: what `COST` trainings of a network cost.

    `epochs` are those of one of these trainings; the networks of a step are trained one by one.
    """
    rng = Random(0)
    a_step = fmean(sum(cost(c).macs for c in sandwich(rng)) for _ in range(SAMPLE))
    a_network = fmean(cost(config).macs for config in sandwich.configs)
    return max(int(COST * epochs * a_network / a_step), 1)


def train_supernet(
    folder: Path, options: SearchOptions, sandwich: Sandwich, *, team: "Team | None" = None,
    device: "torch.device | None" = None,
) -> Iterator[Trained]:  # fmt: skip
    """Train the supernet of a run folder, alone or as one of a team; yield after each epoch.

    It is kept after each epoch, by the first of a team, and goes on from there, whatever the team.

    Raises:
        RuntimeError: if the loss is no number any more.
        ValueError: if a team is larger than a batch, or finds different files.
        OSError: if it cannot be kept.
    """
    import torch

    from search_spaces.io import atomic_write

    total = epochs_for(sandwich, options.epochs)
    training = _begun(options, sandwich, total, team, device)
    if (folder / FILE).exists():
        training.load_state(read_kept(folder / FILE))
    if team is not None:
        _check_agreed(team, training.done, training.network)
    while training.done < total:
        accuracy = training.run_epoch().accuracy
        if team is None or team.leads:
            saved = io.BytesIO()
            torch.save({**training.state(), "accuracy": accuracy}, saved)
            atomic_write(folder / FILE, saved.getvalue())
        yield Trained(done=training.done, total=total, accuracy=accuracy)


def _begun(
    options: SearchOptions, sandwich: Sandwich, epochs: int, team: "Team | None",
    device: "torch.device | None",
) -> "Training":  # fmt: skip
    import torch

    from predictors.training.recipe import Recipe
    from predictors.training.short_training import loaded
    from predictors.training.supernet import supernet_training
    from predictors.training.trainer import training_device
    from search_spaces.checkpoint import inherit, read_weights

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        supernet = _empty(options)
    if options.weights:
        inherit(supernet, read_weights(options.weights))
    data = loaded(options.data, max(config.resolution for config in sandwich.configs))
    return supernet_training(supernet, data, Recipe(epochs=epochs, seed=options.seed), sandwich,
                             device=device or training_device(), team=team)  # fmt: skip


def _check_agreed(team: "Team", done: int, network: "nn.Module") -> None:
    import torch

    from predictors.training.trainer import device_of

    here = torch.tensor([done, done**2], device=device_of(network))
    total, squares = team.summed(here).tolist()
    if total**2 != team.size * squares:  # Cauchy-Schwarz: alike where all are, so all raise
        raise ValueError(f"`out` must be a folder that all nodes share, but not all find the same "
                         f"{FILE} in it. Name one on a shared disk.")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SupernetEstimator:
    """How likely the labels are with the supernet's weights, in percent."""

    options: SearchOptions
    folder: Path
    kind: AccuracyKind = "supernet"

    def __call__(self, config: FasterNetConfig) -> float:
        """Take the config's share of the weights, recalibrate its batch norms, evaluate."""
        from predictors.training.short_training import loaded
        from predictors.training.supernet import score

        supernet = _trained(self.options, self.folder / FILE)
        return score(supernet, config, loaded(self.options.data, config.resolution))


@lru_cache(maxsize=1)
def _trained(options: SearchOptions, file: Path) -> "Supernet":
    """The trained supernet, once in a process."""
    supernet = _empty(options)
    supernet.load_state_dict(read_kept(file)["network"])
    return supernet


def read_kept(file: Path) -> dict[str, Any]:
    """Return a training as it was kept, on the CPU: the device that it was on may not be here."""
    import torch

    kept: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    return kept


def _empty(options: SearchOptions) -> "Supernet":
    from search_spaces.supernet import Supernet

    return Supernet(options.open_space())
