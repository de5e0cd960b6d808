"""The options of `fasternas train`, apart from the rest so that `--help` loads nothing else."""

import argparse

from nas.cli.arguments import device, duration_ms, positive, ray_address, whole, word, words


def add_train_options(train: argparse.ArgumentParser) -> None:
    """Add them to the parser of the command."""
    train.add_argument("networks", metavar="NETWORK", nargs="+",
                       help="a run folder, a config file, or t0 to l (t0@192)")  # fmt: skip
    train.add_argument("--data", type=word, metavar="DATA",
                       help="to train on: a folder, an .npz, digits (the run's)")  # fmt: skip
    train.add_argument("--pick", default="best", metavar="WHICH",
                       help="of a run's front: best, knee, all or a number (best)")  # fmt: skip
    train.add_argument("--epochs", type=positive, metavar="N", help="of each training (300)")
    train.add_argument("--seed", type=whole, metavar="N", help="same seed, same weights (0)")
    train.add_argument("--recipe", type=word, metavar="FILE", help="YAML with settings to change")
    train.add_argument("--set", type=setting, metavar="NAME=VALUE", action="append", default=[],
                       help="change a setting of recipe.yaml; may be repeated")  # fmt: skip
    train.add_argument("--init", type=word, metavar="WEIGHTS",
                       help="supernet (the run's) or a FasterNet checkpoint (scratch)")  # fmt: skip
    train.add_argument("--workers", type=positive, default=1, metavar="N",
                       help="processes that train one network together (1)")  # fmt: skip
    train.add_argument("--gpus", type=whole, metavar="N",
                       help="GPUs for one network (1 if there is one)")  # fmt: skip
    train.add_argument("--checkpoint", type=duration_ms, default=600e3, metavar="TIME",
                       help="the longest time between checkpoints (10min)")  # fmt: skip
    train.add_argument("--out", type=word, metavar="DIR",
                       help="where each network has its folder (RUN/trained)")  # fmt: skip
    train.add_argument("--device", type=device, metavar="NAME",
                       help="that times them at the end (the run's, or cpu); or none")  # fmt: skip
    train.add_argument("--log", type=words, default=(), metavar="WHERE",
                       help="mlflow, wandb: tell these of each epoch too")  # fmt: skip
    train.add_argument("--resume", action="store_true", help="go on with trainings in the folder")
    train.add_argument(
        "--ray", type=ray_address, metavar="HOST:PORT", help="a running Ray cluster, or auto"
    )


def setting(text: str) -> tuple[str, str]:
    """Read batch_size=64."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"must be NAME=VALUE, but got {text!r}.")
    return name.strip(), value
