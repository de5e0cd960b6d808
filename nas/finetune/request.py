"""What a training command asks for, and the jobs that follow from it; all is checked here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from nas.finetune.folder import RECIPE, TRAINED, has_training
from nas.finetune.jobs import SCRATCH, SUPERNET, Job, check_job
from nas.finetune.select import Picked, find_networks, remark_on
from nas.study.store import read_run
from predictors.data.datasets import located
from predictors.training.recipe import read_overrides, read_recipe, recipe_for, recipe_with

if TYPE_CHECKING:
    from predictors.data.datasets import ImageData


@dataclass(frozen=True, kw_only=True)
class TrainingRequest:
    """Networks to train in full, as a user names them, and what they are trained on and how.

    `settings` are over those of the file `recipe`. None is what the run, the data or the folder to
    go on with says.
    """

    networks: Sequence[str]
    pick: str = "best"
    data: str | None = None
    init: str | None = None
    out: Path | None = None
    recipe: Path | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    resume: bool = False
    minutes: float = 10.0  # between checkpoints

    def jobs(self) -> tuple[list[Job], list[str]]:
        """Return a job for each network, and remarks on the networks and the data.

        Raises:
            ValueError: if something that is asked for is not to be had, or does not fit.
            OSError: if something cannot be read.
        """
        from predictors.training.short_training import loaded

        found = [find_networks(name, self.pick) for name in self.networks]
        picked = [network for networks in found for network in networks]
        _refuse_twice(picked)
        named = zip(self.networks, found, strict=True)
        lines = [remark_on(name, networks, self.pick) for name, networks in named]
        remarks = dict.fromkeys(line for line in lines if line)
        jobs = []
        for network in picked:
            name = self._data(network)
            data = loaded(name, network.config.resolution)
            job = self._job(network, name, data)
            check_job(job, data)
            if has_training(job.folder) and not self.resume:
                raise ValueError(
                    f"`out` must be a new folder, but {job.folder} holds a training. Go on with "
                    "--resume or name another folder."
                )
            remarks.update(dict.fromkeys(data.remarks))
            jobs.append(job)
        return jobs, list(remarks)

    def _job(self, network: Picked, name: str, data: "ImageData") -> Job:
        config = network.config
        if network.any_classes:
            config = replace(config, classes=len(data.classes))
        out = self.out or (network.run or Path()) / TRAINED
        folder = (out / network.name).absolute()
        settings = self._settings()
        if self.resume and (folder / RECIPE).exists():
            recipe = read_recipe(folder / RECIPE)
        else:
            asked = ((key, settings.get(key, "")) for key in ("epochs", "batch_size"))
            whole = {key: int(text) for key, text in asked if text.isdecimal() and int(text)}
            recipe = recipe_for(config, len(data.train), **whole)
        return Job(
            name=network.name,
            config=config,
            recipe=recipe_with(recipe, settings),
            data=located(name),
            folder=folder,
            init=self._init(folder),
            run=network.run and network.run.absolute(),
            minutes=self.minutes,
        )

    def _settings(self) -> dict[str, str]:
        settings = {**(read_overrides(self.recipe) if self.recipe else {}), **self.settings}
        if "teacher_weights" in settings:  # workers are in other folders
            settings["teacher_weights"] = located(settings["teacher_weights"])
        return settings

    def _data(self, network: Picked) -> str:
        """As asked; a run that trained its networks had data."""
        name = self.data or (network.run and read_run(network.run)["options"].get("data"))
        if not name:
            raise ValueError(
                "`data` must be given, but is not. Name a folder of images: --data DIR."
            )
        return str(name)

    def _init(self, folder: Path) -> str:
        """As asked; a training that is gone on with began from something."""
        from predictors.training.checkpoint import in_folder

        if self.init is None:
            kept = in_folder(folder).newest() if self.resume else None
            return str(kept.content["identity"]["start"]) if kept else SCRATCH
        return self.init if self.init in (SCRATCH, SUPERNET) else located(self.init)


def _refuse_twice(picked: Sequence[Picked]) -> None:
    names = [network.name for network in picked]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise ValueError(
            f"`networks` must have names of their own, but two are {twice}. Train them one after "
            "the other, with --out."
        )
