"""The learning curve."""

from pathlib import Path

import pytest

from nas.report.figures import training_figure, training_title
from nas.report.sheet import save
from predictors.training.recipe import EpochRow


def _rows(accuracies: list[float]) -> list[EpochRow]:
    return [
        EpochRow(
            epoch=i + 1,
            loss=2.0 / (i + 1),
            accuracy=accuracy,
            lr=1e-3,
            seconds=2.0,
            resolution=24 if i < len(accuracies) - 1 else 32,
            images_per_s=100.0,
        )
        for i, accuracy in enumerate(accuracies)
    ]


@pytest.mark.parametrize(
    ("accuracies", "title"),
    [
        ([], "mine: no epoch yet"),
        ([50.0], "mine: 50.00 % after epoch 1"),
        ([50.0, 80.0, 80.0, 70.0], "mine: 80.00 % after epoch 2"),
    ],
)
def test_the_title_is_the_best_epoch(accuracies: list[float], title: str) -> None:
    assert training_title(_rows(accuracies), "mine") == title


def test_it_shows_accuracy_and_loss_and_where_the_images_grow(tmp_path: Path) -> None:
    rows = _rows([50.0, 80.0, 70.0])
    upper, lower = training_figure(rows, name="mine", data="digits").axes
    assert list(upper.lines[0].get_ydata()) == [50.0, 80.0, 70.0]  # type: ignore[arg-type]
    assert list(lower.lines[0].get_ydata()) == [row.loss for row in rows]  # type: ignore[arg-type]
    assert [text.get_text() for text in upper.texts] == ["24 px", "32 px"]
    save(training_figure(rows, name="mine", data="digits"), tmp_path / "training.png")
    assert (tmp_path / "training.png").read_bytes()[:4] == b"\x89PNG"
    save(training_figure([], name="mine", data="digits"), tmp_path / "training.png")
