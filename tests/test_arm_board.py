"""An emulated ARM board behind a real sshd, from its registration to a ranking; `make test-board`.

Emulated times are no ARM latencies: what is tested is the way to them.
"""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback_sshd import Server, kill_first, ssh_clients, until

from nas.cli.main import main
from predictors.devices.boards import load_boards
from predictors.devices.registry import open_device
from predictors.measurement import Backend, TimingProtocol
from search_spaces.fasternet import FasterNetConfig

BOARD = os.environ.get("FASTERNAS_ARM_BOARD")
BINFMT = Path("/proc/sys/fs/binfmt_misc")
ENTRY = BINFMT / "fasternas-aarch64"
# The first twenty bytes of an executable, and which bits of them count (see binfmt-misc(7)).
MAGIC = r"\x7fELF\x02\x01\x01" + r"\x00" * 9 + r"\x02\x00\xb7\x00"
MASK = r"\xff" * 7 + r"\x00" + r"\xff" * 8 + r"\xfe\xff\xff\xff"
Streams = pytest.CaptureFixture[str]

pytestmark = pytest.mark.skipif(BOARD is None, reason="takes minutes: `make test-board` runs it")


def _config(width: int) -> FasterNetConfig:
    return FasterNetConfig(
        widths=(width, 2 * width),
        depths=(1, 1),
        partial_ratios=(0.25, 0.25),
        expansions=(2.0, 2.0),
        resolution=64,
        head_width=64,
        classes=10,
    )


@pytest.fixture
def root() -> Iterator[Path]:
    """The board's root folder, which the kernel runs through the emulator."""
    folder = Path(str(BOARD))
    if not (BINFMT / "register").exists():
        subprocess.run(["mount", "-t", "binfmt_misc", "binfmt_misc", BINFMT], check=True)
    emulator = folder / "emulator" / "usr" / "bin" / "qemu-aarch64"
    (BINFMT / "register").write_text(f":{ENTRY.name}:M::{MAGIC}:{MASK}:{emulator}:OCF")
    mounts = [folder / "root" / name for name in ("proc", "dev", "sys")]
    for mount in mounts:
        subprocess.run(["mount", "--bind", f"/{mount.name}", mount], check=True)
    yield folder / "root"
    for mount in mounts:
        subprocess.run(["umount", "-l", mount], check=True)
    ENTRY.write_text("-1")


def test_a_board_is_registered_loses_its_connection_and_ranks(
    server: Server, root: Path, capsys: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.becomes(
        "",
        f"exec chroot {root} /usr/bin/env -i HOME=/root PATH=/usr/bin:/bin "
        'QEMU_CPU=cortex-a76 /bin/sh -c "$SSH_ORIGINAL_COMMAND"',
    )
    quick = TimingProtocol(rounds=(2, 2), inferences=(1, 1), most_warm_up=1)
    monkeypatch.setattr("predictors.devices.registry.PROTOCOL", quick)
    assert main(["devices", "add", "pi", "--ssh", server.address]) == 0
    assert "(emulated), aarch64, " in capsys.readouterr().out
    (board,) = load_boards().values()
    assert board.emulated

    device = open_device("arm", runtime="onnxruntime")
    assert "emulated: no latencies of the real processor" in device.description
    killer = kill_first(ssh_clients)
    large, small = device.measure_each([_config(64), _config(8)], repeats=1)
    killer.join()
    assert large.median_ms > 1.5 * small.median_ms
    assert large.context.emulated

    for package in ("ncnn", "pnnx"):  # the board runs what is converted here
        pytest.importorskip(package)
    ncnn = open_device("arm", runtime="ncnn")
    large, small = ncnn.measure_each([_config(64), _config(8)], repeats=1)
    assert large.backend == Backend("ncnn")
    assert large.median_ms > 1.5 * small.median_ms
    until(lambda: not list((root / "tmp").iterdir()), seconds=120)
    until(lambda: server.agents() == [])
