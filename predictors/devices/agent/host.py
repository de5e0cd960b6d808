"""What both programs have in common: how they come to run, what a machine is and how hot it is."""

from __future__ import annotations

import json
import os
import platform
import sys
import sysconfig
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO


def facts(package: str) -> dict[str, object]:
    """What the machine is and has, the package's version included; None where it does not tell."""
    return {
        "machine": architecture(),
        "kernel": _line("/proc/sys/kernel/arch"),  # not the machine's: that one is emulated
        "processor": processor(),
        "libc": _libc(),  # which wheels run here depends on it
        "cores": len(os.sched_getaffinity(0)),
        "online": os.cpu_count(),  # with those that are isolated: they are used when named
        "python": platform.python_version(),
        "runtime_version": _version(package),
        "governor": _line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        **heat(),
    }


def architecture() -> str:
    """Return that of what runs here: a kernel of 64 bits may run a userland of 32."""
    kernel = platform.machine()
    narrow = {"aarch64": "armv7l", "arm64": "armv7l", "x86_64": "i686", "amd64": "i686"}
    return kernel if sys.maxsize > 2**32 else narrow.get(kernel, kernel)


def abi() -> str:
    """Return what packages with compiled parts depend on, such as cpython-311-x86_64-linux-gnu."""
    known = sysconfig.get_config_var("SOABI")
    return str(known or f"{sys.implementation.cache_tag}-{architecture()}")


def _libc() -> str:
    return "musl" if "musl" in abi() else platform.libc_ver()[1]


def heat() -> dict[str, float | None]:
    """The lowest frequency of our cores, the first zone's temperature; None where not known."""
    cores = Path("/sys/devices/system/cpu")
    files = [cores / f"cpu{n}/cpufreq/scaling_cur_freq" for n in os.sched_getaffinity(0)]
    kilohertz = min(filter(None, map(_number, files)), default=None)
    millidegrees = _number(Path("/sys/class/thermal/thermal_zone0/temp"))
    return {
        "mhz": None if kilohertz is None else kilohertz / 1e3,
        "celsius": None if millidegrees is None else millidegrees / 1e3,
    }


def processor() -> str:
    """Return the board's or the processor's name."""
    board = (_text("/proc/device-tree/model") or "").strip(" \0\n")
    lines = (_text("/proc/cpuinfo") or "").splitlines()
    told = {name.strip(): value.strip() for name, _, value in (s.partition(":") for s in lines)}
    # ARM's servers have numbers in place of a name.
    part = " ".join(told[name] for name in ("CPU implementer", "CPU part") if name in told)
    arm = f"{platform.machine()} {part}" if part else ""
    return board or told.get("model name") or arm or platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _number(file: Path) -> float | None:
    try:
        return float(_line(file) or "")
    except ValueError:
        return None


def _line(file: Path | str) -> str | None:
    return (_text(file) or "").strip() or None


def _text(file: Path | str) -> str | None:
    try:
        return Path(file).read_text()
    except (OSError, ValueError):
        return None


if TYPE_CHECKING:
    from collections.abc import Callable

    Message = dict[str, Any]  # a request or an answer

OLDEST = (3, 9)  # Python that these programs need
MARKER = "fasternas-python"
# Run by the other side's Python, of whatever age: it says which it is, after whatever was said
# before, and runs what it is then sent; one that is too old leaves to one that is not, if there is.
# One line without apostrophes and backslashes, which every shell passes on. What lies in the
# folder that it was started in is not imported.
BOOTSTRAP = (
    "import os,sys;sys.path[:]=[p for p in sys.path if p];version=sys.version_info[:3];"
    'version<(3,9) and len(sys.argv)>1 and os.execvp("sh",["sh","-c",os.environ["newer"]]);'
    'os.write(1,(("%cfasternas"+"-python %d.%d.%d%c")%((10,)+version+(10,))).encode());'
    "import json;sent=json.loads(sys.stdin.buffer.readline());exec(sent[0])"
)
# The first of what is sent. The second are modules by name, as text, each of which imports only
# earlier ones; the last one's main() is what runs.
LOADER = """\
import types
for name, text in sent[1]:
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(text, name, "exec"), module.__dict__)
module.main()
"""


def serve(answer: Callable[[Message, BinaryIO], Message]) -> None:
    """Answer requests until the input ends, or one says that it is the last."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a runtime prints must not mix with the answers
    for line in iter(sys.stdin.buffer.readline, b""):
        try:
            request = json.loads(line)
            if "end" in request:
                break
            reply = answer(request, sys.stdin.buffer)
        except Exception as error:  # whatever it is, it is told to the other side
            said = " ".join(f"{type(error).__name__}: {error}".split())
            reply = {"error": said if len(said) <= 4000 else f"{said[:1000]} ... {said[-3000:]}"}
        # on a line of its own, whatever the user's shell has left running and says meanwhile
        answers.write("\n" + json.dumps(reply) + "\n")
        answers.flush()
