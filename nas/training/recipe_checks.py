"""What a recipe asks for that is not to be had is refused before anything is written."""

from pathlib import Path

from nas.training.full_recipe import FullRecipe
from predictors.data.datasets import ImageData
from predictors.training.picture_loading import transform_for


def check_recipe(recipe: FullRecipe, data: ImageData) -> None:
    """Refuse a batch of more images than there are, a teacher's file or augmentation that is none.

    Raises:
        ValueError: if there is one of these.
    """
    most = len(data.train) - len(data.train) % 2
    if recipe.batch > most:
        raise ValueError(f"`batch` must be at most {most:,}, of the {len(data.train):,} training "
                         f"images, but got {recipe.batch:,}. Leave it out.")  # fmt: skip
    if recipe.teacher_weights and not Path(recipe.teacher_weights).is_file():
        raise ValueError("`teacher_weights` must be a file that exists, but got "
                         f"{recipe.teacher_weights!r}. Check the path.")  # fmt: skip
    if recipe.augment:
        _check_augment(recipe.augment, data)


def _check_augment(augment: str, data: ImageData) -> None:
    try:
        transform_for(data, data.resolution, is_training=True, auto_augment=augment)
    except Exception:  # timm raises AssertionError, KeyError, ValueError, whatever it likes
        raise ValueError("`augment` must be an augmentation of timm's, such as "
                         f"rand-m5-mstd0.5-inc1, but got {augment!r}. Leave it out for the "
                         "published one.") from None  # fmt: skip
