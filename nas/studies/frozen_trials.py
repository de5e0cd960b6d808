"""A trial as Optuna stores it: its genes, its outcome and its number in the study."""

from typing import Any

import optuna

from nas.cluster import Outcome
from nas.searching.samplers import distributions
from nas.searching.trial import Scores
from search_spaces.space import Genes, Space


def frozen(
    space: Space[Any], genes: Genes, outcome: Outcome, *, budget_ms: float
) -> optuna.trial.FrozenTrial:
    """Return an outcome as a finished trial; a failed one has its error as an attribute."""
    names = distributions(space)
    attributes: dict[str, Any] = {"number": outcome.number, "genes": list(genes)}
    if outcome.scores is None:
        state, values, excess = optuna.trial.TrialState.FAIL, None, None
        attributes["error"] = outcome.error
    else:
        scores = outcome.scores
        state = optuna.trial.TrialState.COMPLETE
        values = [float(scores.accuracy), float(scores.latency_ms)]
        excess = {"budget": scores.upper_ms - budget_ms}
        attributes["latency_high_ms"] = scores.latency_high_ms
    return optuna.trial.create_trial(
        state=state, values=values, params=dict(zip(names, genes, strict=True)),
        distributions=names, user_attrs=attributes, constraints=excess,
    )  # fmt: skip


def thawed(trial: optuna.trial.FrozenTrial) -> tuple[Genes, Outcome]:
    """Return the genes and the outcome of a trial that `frozen` made.

    Raises:
        KeyError: if it lacks an attribute.
        TypeError: if one is something else.
    """
    scores = None
    if trial.state == optuna.trial.TrialState.COMPLETE:
        accuracy, latency_ms = trial.values
        scores = Scores(accuracy=float(accuracy), latency_ms=float(latency_ms),
                        latency_high_ms=trial.user_attrs["latency_high_ms"])  # fmt: skip
    number, error = trial.user_attrs["number"], trial.user_attrs.get("error")
    return tuple(trial.user_attrs["genes"]), Outcome(number, scores, error)
