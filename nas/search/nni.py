"""A space as NNI sees it, and NNI's strategies as searchers.

The only module that imports nni, which wants to be installed: `pip install 'fasternas[nni]'`.
"""

import logging
import threading
import warnings
import weakref
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from queue import Queue
from typing import Any

from torch import Tensor, nn

from nas.search.trial import Admit, Objectives, generator
from search_spaces.space import AnySpace, Genes
from search_spaces.timm_models import import_timm

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # nni is of 2023
    import_timm()  # nni imports torchvision, which by itself may not load beside this torch
    from nni.mutable import Categorical, ensure_frozen
    from nni.nas.execution import ExecutionEngine, TrainingEndEvent
    from nni.nas.nn.pytorch import ModelSpace
    from nni.nas.space import (
        ExecutableModelSpace,
        ModelStatus,
        SimplifiedModelSpace,
        current_model,
        model_context,
    )
    from nni.nas.strategy import RegularizedEvolution, Strategy

logging.getLogger("nni").setLevel(logging.ERROR)

POPULATION, TOURNAMENT = 20, 5  # of regularised evolution
_MISS = -1e9  # the metric of a network that misses the budget, less by how much


class NniSpace(ModelSpace):  # type: ignore[misc]
    """A space as an `nni.nas` model space: a choice for each gene, under the gene's name.

    NNI makes the networks that it has chosen from the same class: such a one has a `config` and,
    if `build` is given (`fn.build`), is the network of that config.
    """

    def __init__(self, space: AnySpace, build: Callable[[Any], nn.Module] | None = None) -> None:
        super().__init__()
        self._made_of = (space, build)
        choices = [
            Categorical(list(gene.choices), label=name)
            for name, gene in zip(space.names, space.genes, strict=True)
        ]
        for choice in choices:
            self.add_mutable(choice)
        values = [ensure_frozen(choice) for choice in choices]
        self.config = space.decode(_genes(space, dict(zip(space.names, values, strict=True))))
        self.network = build(self.config) if build and current_model() is not None else None

    def freeze(self, sample: dict[str, object]) -> "NniSpace":
        """Return the network of a sample, which maps the names of the genes to choices."""
        self.validate(sample)
        with model_context(sample):
            return NniSpace(*self._made_of)

    def forward(self, x: Tensor) -> Tensor:
        """Run the network.

        Raises:
            RuntimeError: if this is the whole space, or was made without `build`.
        """
        if self.network is None:
            raise RuntimeError(
                "`forward` must be called on a network that NNI has chosen from a space with a "
                "`build`, but this is none."
            )
        return self.network(x)  # type: ignore[no-any-return]


class NniSearcher:
    """An NNI strategy behind ask and tell; unless given, regularised evolution (1802.01548).

    Strategies know one metric: the accuracy, or by how much the budget is missed. The strategy
    runs in a thread of its own, but only while it is asked, so that one seed gives one result.
    """

    def __init__(
        self,
        space: AnySpace,
        *,
        seed: int,
        strategy: Strategy | None = None,
    ) -> None:
        self._space = space
        self._seed = seed
        self._engine = _Engine()
        self._asked: defaultdict[Genes, deque[ExecutableModelSpace | None]] = defaultdict(deque)
        self._evolves, self._has_parents = strategy is None, False
        chosen = strategy or RegularizedEvolution(
            population_size=POPULATION,
            sample_size=TOURNAMENT,
            seed=seed,
            mutation_prob=1 / max(len(space.genes), 1),
        )
        explored = SimplifiedModelSpace.from_model(NniSpace(space))
        weakref.finalize(self, self._engine.stop)
        threading.Thread(target=self._engine.explore, args=(chosen, explored), daemon=True).start()

    def ask(self, number: int, admit: Admit) -> Genes | None:
        """Let the strategy submit a network; it is told what was admitted in its place."""
        rng = generator(self._seed, number)
        model = None if self._must_wait() else self._engine.next_model()
        proposal = (
            self._space.random_genes(rng) if model is None else _genes(self._space, model.sample)
        )
        genes = admit(proposal, rng)
        if model is not None and genes is not None:
            model.sample = _sample(self._space, genes)
        if genes is not None:
            self._asked[genes].append(model)
        return genes

    def tell(self, genes: Genes, found: Objectives | None) -> None:
        """Tell the strategy."""
        model = self._asked[genes].popleft()
        self._has_parents |= model is not None and found is not None
        if model is not None:
            self._engine.end(model, None if found is None else _metric(found))

    def _must_wait(self) -> bool:
        """NNI's evolution has no parents for a network after the first generation, if none of that
        has been told: others are drawn until then.
        """
        running = sum(model is not None for asked in self._asked.values() for model in asked)
        return self._evolves and not self._has_parents and running >= POPULATION


class _Engine(ExecutionEngine):  # type: ignore[misc]
    """Takes one network each time it is asked for one; between, the strategy waits."""

    def __init__(self) -> None:
        super().__init__()
        self._wanted = threading.Semaphore(0)
        self._submitted: Queue[ExecutableModelSpace | None] = Queue()
        self._over = False
        self._error: Exception | None = None

    def next_model(self) -> ExecutableModelSpace | None:
        """Return what the strategy submits next; None once it has come to its end.

        Raises:
            RuntimeError: if it failed.
        """
        if self._over:
            return None
        self._wanted.release()
        model = self._submitted.get()
        self._over = model is None
        if self._error:
            raise RuntimeError(
                f"NNI's strategy must go on, but failed: {self._error}"
            ) from self._error
        return model

    def end(self, model: ExecutableModelSpace, metric: float | None) -> None:
        """Hand over what came of a network; None where its evaluation failed."""
        model.status = ModelStatus.Failed if metric is None else ModelStatus.Trained
        if metric is not None:
            model.metrics.final = metric
        self.dispatch_model_event(TrainingEndEvent(model, model.status))

    def stop(self) -> None:
        """Let the strategy end."""
        self._over = True
        self._wanted.release()

    def explore(self, strategy: Strategy, space: ExecutableModelSpace) -> None:
        """Run a strategy to its end."""
        try:
            strategy(space, self)
        except Exception as error:  # whatever a strategy raises, the search must not wait for it
            self._error = error
        self._submitted.put(None)

    def idle_worker_available(self) -> bool:
        """Wait until a network is asked for."""
        self._wanted.acquire()
        return True

    def budget_available(self) -> bool:
        return not self._over

    def submit_models(self, *models: ExecutableModelSpace) -> None:
        for model in models:
            self._submitted.put(model)

    def list_models(self, status: ModelStatus | None = None) -> Iterable[ExecutableModelSpace]:
        return []


def _metric(found: Objectives) -> float:
    return found.accuracy if found.feasible else _MISS - found.excess


def _genes(space: AnySpace, sample: dict[str, object]) -> Genes:
    return tuple(
        gene.choices.index(sample[name])
        for name, gene in zip(space.names, space.genes, strict=True)
    )


def _sample(space: AnySpace, genes: Genes) -> dict[str, object]:
    return {
        name: gene.choices[i] for name, gene, i in zip(space.names, space.genes, genes, strict=True)
    }
