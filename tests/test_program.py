"""The program in a shell: interrupted, without a reader, in a terminal that has ASCII alone."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from networks import TINY
from run_folders import make_run

from nas.cli.main import main
from search_spaces.formats import save_config

PROGRAM = [sys.executable, "-c", "import sys; from nas.cli.main import main; sys.exit(main())"]
BEGUN = [*PROGRAM[:2], f"import nas.cli, os; os.write(1, b'.'); {PROGRAM[2]}"]
INTERRUPTED = "fasternas: interrupted; what was finished is kept.\n"


def _run(*words: str | Path, **settings: str) -> "subprocess.CompletedProcess[bytes]":
    environment = {**os.environ, **settings}
    return subprocess.run(
        [*PROGRAM, *map(str, words)], capture_output=True, check=False, timeout=300, env=environment
    )


@pytest.fixture
def training(tmp_path: Path) -> list[str]:
    """The command of a training of a second or two, all in a folder of its own."""
    images = np.random.default_rng(0).integers(0, 256, (60, 32, 32, 3), dtype=np.uint8)
    np.savez(tmp_path / "noise.npz", x_train=images, y_train=np.arange(60) % 4)
    save_config(replace(TINY, classes=4), tmp_path / "mine.yaml")
    return [
        "train",
        str(tmp_path / "mine.yaml"),
        "--data",
        str(tmp_path / "noise.npz"),
        "--epochs",
        "1",
        "--device",
        "none",
        "--gpus",
        "0",
        "--out",
        str(tmp_path / "out"),
    ]


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"PYTHONIOENCODING": "ascii"}, rb"\u732b-caf\xe9/report.html"),
        (
            {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
            "\u732b\u2013caf\u00e9/report.html".encode(),
        ),
    ],
    ids=["ascii", "C"],
)
def test_a_terminal_without_a_character_ends_nothing(
    tmp_path: Path, settings: dict[str, str], name: bytes
) -> None:
    run = tmp_path / "\u732b\u2013caf\u00e9"
    make_run(run)
    commands: list[tuple[str | Path, ...]] = [("show", run, "--all"), ("report", run)]
    no_utf8 = "LC_ALL" in settings
    for words in commands if no_utf8 else commands[1:]:
        done = _run(*words, **settings)
        assert (done.returncode, b"error" in done.stderr) == (0, False), done.stderr
    assert done.stdout.strip().endswith(name)  # as scripts take it
    if no_utf8:
        done = _run("show", tmp_path / "\u2013\u732b", **settings)
        assert done.returncode == 2
        assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize(
    ("number", "after_s"),
    [
        (signal.SIGINT, 0.0),
        (signal.SIGTERM, 0.3),
        (signal.SIGHUP, 2.0),
        (signal.SIGINT, 3.0),
    ],
)
def test_ended_at_any_moment_it_says_one_line_and_leaves_nothing_half_written(
    training: list[str], tmp_path: Path, number: signal.Signals, after_s: float
) -> None:
    before = set(tmp_path.rglob("*"))
    with subprocess.Popen(
        [*BEGUN, *training], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.read(1) == "."
        time.sleep(after_s)
        process.send_signal(number)
        out, err = process.communicate(timeout=120)
    assert "Traceback" not in err
    if process.returncode > 0:
        assert process.returncode == 128 + number
        # Early on it is not known yet which command it is.
        resumed = INTERRUPTED.replace("\n", " The same command with --resume goes on.\n")
        assert err.endswith((INTERRUPTED, resumed))
        assert out == ""
    elif process.returncode < 0:  # before the program had begun
        assert process.returncode == -number
    new = [path for path in set(tmp_path.rglob("*")) - before if path.is_file()]
    assert not [path for path in new if path.name.startswith(".")]


WAITS_AS_RAY_DOES = """
import os, signal, sys
import nas.cli.runs
from nas.cli.main import main

number = int(sys.argv[1])
# As a terminal leaves it: whoever runs the tests in the background may have had it ignored.
signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

def wait(_):
    try:
        os.kill(os.getpid(), number)
    except KeyboardInterrupt:
        raise KeyboardInterrupt from None  # an exception of its own
    except BaseException:
        return 1  # heeds nothing else
    return 0

nas.cli.runs.run_spaces = wait
before = signal.getsignal(number)
code = main(["spaces"])
assert signal.getsignal(number) == before
sys.exit(code)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_what_heeds_only_an_interruption_ends_with_the_code_of_its_signal(
    number: signal.Signals,
) -> None:
    command = [sys.executable, "-c", WAITS_AS_RAY_DOES, str(int(number))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (128 + number, INTERRUPTED)


def test_a_second_interruption_has_no_traceback_either(training: list[str]) -> None:
    with subprocess.Popen(
        [*BEGUN, *training], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.read(1) == "."
        for wait_s in (2.0, 0.01, 0.01):
            time.sleep(wait_s)
            process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
    assert "Traceback" not in err
    assert process.returncode in (0, 130, -signal.SIGINT)


def test_progress_without_a_reader_does_not_end_a_training(
    training: list[str], tmp_path: Path
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*PROGRAM, *training],
        stderr=writing,
        stdout=subprocess.PIPE,
        text=True,
        timeout=300,
        check=False,
    )
    os.close(writing)
    assert done.returncode == 0
    assert "accuracy %" in done.stdout
    assert (tmp_path / "out" / "mine" / "README.md").is_file()


def test_an_error_that_finds_no_room_keeps_its_code(tmp_path: Path) -> None:
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        command = [*PROGRAM, "show", str(tmp_path / "none")]
        done = subprocess.run(command, stderr=full, stdout=subprocess.PIPE, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (2, b"")


def test_without_standard_error_results_stay_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path / "run")
    words = ["show", str(tmp_path / "run"), "--json"]
    assert main(words) == 0
    whole = capsys.readouterr().out.encode()
    closed = ["sh", "-c", 'exec "$@" 2>&-', "sh", *PROGRAM, *words]
    assert subprocess.run(closed, capture_output=True, check=True).stdout == whole


def test_what_libraries_warn_of_stays_off_the_terminal(training: list[str]) -> None:
    code = (
        "import sys, warnings, logging; import nas.cli.runs as r\n"
        "from search_spaces.timm_models import import_timm\n"
        "def f(_):\n"
        "    import torch\n"
        "    warnings.warn('of a library')\n"
        "    import_timm(); import timm.scheduler as s\n"
        "    o = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)\n"
        "    s.CosineLRScheduler(o, t_initial=1, lr_min=1.0, cycle_decay=1.0)\n"
        "    logging.getLogger('timm.scheduler').warning('of a schedule')\n"
        "    import predictors.data.pictures\n"
        "    logging.getLogger('PIL.TiffImagePlugin').error('of a broken file')\n"
        "    return 0\n"
        "r.run_spaces = f\n"
        "from nas.cli.main import main; sys.argv[1:] = ['spaces']; sys.exit(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
