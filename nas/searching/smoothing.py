"""What is believed of accuracies that are noisy: each is seen together with those like it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

import numpy as np

from nas.searching.prior import AccuracyPrior
from nas.searching.trial import Scores
from predictors.features import gene_features
from search_spaces.space import Space

C = TypeVar("C")

FEWEST = 8  # of fewer, nothing can be said but what was found


def smoothed(
    space: Space[C], scores: Mapping[C, Scores], prior: AccuracyPrior
) -> dict[C, Scores]:  # fmt: skip
    """Return the scores with the accuracies that a model fitted to all of them has there.

    It is that of the guided searcher: a trend along the prior's scores and a Gaussian process of
    choices and latency, whose noise is fitted too.
    """
    if len(scores) < FEWEST:
        return dict(scores)
    configs, found = list(scores), list(scores.values())
    inputs = np.column_stack([gene_features(space, configs),
                              np.log([s.latency_ms for s in found])])  # fmt: skip
    model = prior.fit(configs, inputs, np.array([s.accuracy for s in found]))
    accuracies, _ = model.predict(inputs, prior.of(configs))
    return {config: replace(s, accuracy=float(accuracy))
            for config, s, accuracy in zip(configs, found, accuracies, strict=True)}  # fmt: skip
