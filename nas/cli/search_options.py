"""The options of `fasternas search`, apart from the rest so that `--help` loads nothing else."""

import argparse

from nas.cli.arguments import (
    by_device,
    duration_ms,
    numbers,
    positive,
    ray_address,
    whole,
    word,
    words,
)


def add_search_options(search: argparse.ArgumentParser) -> None:
    """Add what the command takes, but for the device's."""
    add = search.add_argument
    add("--budget", required=True, type=by_device(duration_ms), metavar="TIME",
        help="the latency to keep, such as 10ms, 0.5s or 800us; pi=10ms,cpu=3ms on "
             "several devices")  # fmt: skip
    add("--space", default="fasternet", help="see `fasternas spaces`")
    add("--trials", type=int, help="networks to score (200; 30 if trained)")
    add("--parallel", type=positive, default=8, metavar="N",
        help="trials at once (8); of another number come other trials")  # fmt: skip
    add("--data", type=word, metavar="DATA",
        help="to train on: a folder, an .npz, digits (none)")  # fmt: skip
    add("--accuracy", metavar="HOW",
        help="proxy, train, supernet or auto (train if there is data)")  # fmt: skip
    add("--time", type=duration_ms, metavar="TIME",
        help="for auto: what training may take, such as 2h")  # fmt: skip
    add("--epochs", type=positive, default=8, help="of the longest training (8)")
    add("--progressive", type=words, default=(), metavar="G[,G]",
        help="what early epochs have less of: resolution, images (none)")  # fmt: skip
    add("--weights", type=word, metavar="FILE",
        help="a FasterNet checkpoint for the supernet to begin with")  # fmt: skip
    add("--workers", type=positive, metavar="N",
        help="processes that train the supernet together (one a GPU, or 1)")  # fmt: skip
    add("--gpus", type=whole, metavar="N", help="GPUs that train the supernet (all there are)")
    add("--searcher", default="guided",
        help="guided (ours), nsga2, nsga3, tpe, gp, evolution, local, random, "
             "nni-evolution")  # fmt: skip
    add("--seed", type=int, default=0, help="same seed, same trials (0)")
    add("--resolution", type=numbers, default=(), metavar="PX[,PX...]",
        help="the image sizes to choose from")  # fmt: skip
    add("--activation", type=words, default=(), metavar="A[,A]",
        help="relu, gelu or relu,gelu (the space's own)")  # fmt: skip
    add("--classes", type=int, help="outputs of the classifier (the space's own)")
    add("--out", type=word, metavar="DIR", help="the run folder (runs/DEVICE-BUDGET)")
    add("--resume", action="store_true",
        help="go on with the run in the folder, to more --trials if told")  # fmt: skip
    add("--fresh", action="store_true", help="time anew what earlier runs timed")
    add("--repair", action="store_true", help="drop a last line that was cut off")
    add("--ray", type=ray_address, metavar="HOST:PORT", help="a running Ray cluster, or auto")
    add("--trial-timeout", type=duration_ms, metavar="TIME",
        help="end a trial that runs longer, such as 10min (no limit)")  # fmt: skip
    add("--storage", type=word, metavar="URL",
        help="an Optuna storage that gets a copy of the trials every half a minute and at the end: "
             "sqlite:///x.db, or a file x.journal")  # fmt: skip
