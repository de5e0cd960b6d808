"""Run folders as a search leaves them, made in a moment: latencies and accuracies by formula."""

from dataclasses import replace
from pathlib import Path
from random import Random

from specs import each, latency, on, scores

from nas.search.trial import Outcome
from nas.study.options import SearchOptions
from nas.study.store import Study, write_run
from predictors.cost import cost
from predictors.measurement import Latencies
from search_spaces.fasternet import FASTERNET, FasterNetConfig

HOSTILE = "<script>alert('x')</script>"
MACHINE = {
    "devices": {
        "cpu": {"description": f"A board {HOSTILE}, onnxruntime 1.0", "source": "measured"}
    },
    "cores": 2,
    "platform": "Linux",
    "python": "3.11",
    "versions": {"fasternas": "0.1.0", "torch": "2.9"},
}
OPTIONS = SearchOptions(
    devices=on("cpu", 2.0),
    space="fasternet-32",
    trials=30,
    accuracy="train",
    data=f"pictures/{HOSTILE}",
    classes=10,
)


def latency_of(config: FasterNetConfig) -> float:
    """Milliseconds that rise with the work and the blocks."""
    return 0.1 + cost(config).macs / 30e6 + 0.02 * sum(config.depths)


def accuracy_of(config: FasterNetConfig) -> float:
    """Percent that rise with the depth of the third stage most of all."""
    return 80.0 + 1.5 * config.depths[2] + 0.2 * sum(config.depths) + config.widths[0] / 100


def measurement_of(config: FasterNetConfig) -> Latencies:
    """A timing without error."""
    ms = latency_of(config)
    found = replace(latency(ms), low_ms=0.97 * ms, high_ms=1.03 * ms)
    return each(replace(found, unstable=config.depths[0] == 3))


def make_run(
    folder: Path,
    options: SearchOptions = OPTIONS,
    *,
    trials: int = 30,
    timed: int = 56,
    failed: bool = True,
) -> None:
    """Write the folder of a run on a clock: so many networks timed, so many trials recorded.

    Trial 3 has failed, if any is to; the front is timed where all trials are there.
    """
    folder.mkdir(parents=True)
    write_run(
        folder,
        {
            "options": options.as_json(),
            "machine": MACHINE,
            "remarks": [f"Board {HOSTILE} was lost."],
        },
    )
    space, rng = options.open_space(), Random(0)
    study = Study(folder, space, options.budgets_ms)
    for _ in range(timed):
        config = space.sample(rng)
        study.keep_measurement(config, measurement_of(config))
    for number in range(trials):
        genes = space.random_genes(rng)
        config = space.decode(genes)
        ms = latency_of(config)
        found = scores(accuracy_of(config), ms, 1.03 * ms, device=options.devices[0].name)
        error = f"ValueError: {HOSTILE}" if failed and number == 3 else None
        study.keep(genes, Outcome(number, None if error else found, error))
        if trials >= options.trials:
            study.keep_measurement(config, measurement_of(config))
    t0 = replace(FASTERNET["t0"], resolution=32, classes=10)
    if timed:
        study.keep_measurement(t0, measurement_of(t0))
    study.close()
