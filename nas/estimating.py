"""Which accuracy estimator a study has, from its options."""

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from nas.search.guided import AccuracyPrior
from nas.study.file_accuracies import Weighted
from nas.study.options import SearchOptions
from nas.supernets import SupernetEstimator
from predictors.accuracy import AccuracyEstimator, ProxyEstimator, proxy_scores

if TYPE_CHECKING:
    from predictors.training.short_training import TrainingEstimator

CHECKPOINTS = "trainings"  # the folder of the trainings in a run folder


def open_estimator(
    options: SearchOptions, folder: Path, *, epochs: int | None = None
) -> AccuracyEstimator:
    """Return the estimator of a study; one that trains does so for `epochs`, or to the first rung.

    Raises:
        ValueError: if more epochs are asked for than the study has.
    """
    if options.accuracy == "proxy":
        return ProxyEstimator()
    if options.accuracy == "supernet":
        return _supernet(options, folder)
    return _training(options, folder, epochs)


def open_weights(options: SearchOptions, folder: Path) -> Weighted | None:
    """Return what has the weights of the networks of a study; None where each was not trained."""
    return _training(options, folder, None) if options.accuracy == "train" else None


def accuracy_prior(options: SearchOptions) -> AccuracyPrior:
    """Return what is known of the accuracies of a study: nothing, where there are but scores.

    How far chance moves them is known of trained networks only.
    """
    if options.accuracy == "proxy":
        return AccuracyPrior()
    trained = options.accuracy == "train"
    images = _validation_images(options.data) if trained else None
    return AccuracyPrior(scores=proxy_scores, images=images)


@lru_cache(maxsize=1)
def _validation_images(data: str) -> int:
    from predictors.data.datasets import load_data, located

    return len(load_data(located(data)).validation)


def _supernet(options: SearchOptions, folder: Path) -> SupernetEstimator:
    from predictors.data.datasets import located

    options = replace(options, data=located(options.data))
    return SupernetEstimator(options=options, folder=folder.absolute())


def _training(options: SearchOptions, folder: Path, epochs: int | None) -> "TrainingEstimator":
    from predictors.data.datasets import located
    from predictors.training.recipe import Recipe, rungs
    from predictors.training.short_training import TrainingEstimator

    recipe = Recipe(epochs=options.epochs, growing=options.growing, seed=options.seed)
    return TrainingEstimator(
        data=located(options.data), recipe=recipe, epochs=epochs or rungs(options.epochs)[0],
        folder=(folder / CHECKPOINTS).absolute(),
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """The options of a search as its data make them, and what is to be said of that."""

    options: SearchOptions
    remarks: tuple[str, ...] = ()


def prepared(
    options: SearchOptions, *, automatic: bool, minutes: float | None = None
) -> Prepared:  # fmt: skip
    """Take the classes from the data and, where that is `automatic`, choose the estimator.

    Raises:
        ValueError: if the data cannot be used, or has other classes than the options.
        OSError: if it cannot be read.
    """
    data = None
    if options.data:
        from predictors.data.datasets import load_data

        data = load_data(options.data)
        if options.classes not in (None, len(data.classes)):
            raise ValueError(f"`classes` must be the {len(data.classes)} of {data.name}, but got "
                             f"{options.classes}. Leave it out.")  # fmt: skip
        options = replace(options, classes=len(data.classes))
    remarks = data.remarks if data else ()
    if not automatic:
        return Prepared(options=options, remarks=remarks)
    from nas.choosing import choose

    choice = choose(options, data, minutes=minutes)
    return Prepared(options=choice.options, remarks=(*remarks, f"auto took {choice.reason}."))
