"""A board that is reached over SSH: its address, the command that starts an agent on it."""

import os
import re
import shlex
from dataclasses import dataclass

from predictors.devices.agent.bootstrap import BOOTSTRAP

SITE = "~/.local/share/fasternas/site"  # on the board: what was installed for us
PORT = 22  # where none is named
LONGEST_S = 6 * 3600  # what a connection may take; where it is lost unseen, the agent ends by then
# An unknown host key, or a changed one, ends the connection; no password is asked for.
_OPTIONS = {
    "BatchMode": "yes",
    "StrictHostKeyChecking": "yes",
    "ConnectTimeout": "10",
    "ServerAliveInterval": "5",
    "ServerAliveCountMax": "3",
}
_ADDRESS = re.compile(
    r"(?:ssh://)?(?:(?P<user>[\w.-]+)@)?(?P<host>[\w.:-]+?|\[[\w.:%]+\])(?::(?P<port>\d{1,5}))?/?"
)
_REMEDIES = {
    "host key verification failed": "Connect to it once with `ssh` and compare the key",
    "permission denied": "Add your public key to it with `ssh-copy-id`",
    "connection refused": "Is sshd running on that port",
    "timed out": "Is it switched on, and the address right",
    "could not resolve": "Is the name right",
    "no such file": "Install Python 3.9 or newer on it",
    "not found": "Install Python 3.9 or newer on it",
    "died": "Is there enough memory for them",
    "no space": "Make room in its folder for temporary files",
}


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where a board is."""

    host: str
    user: str | None = None
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Read `user@host`, `host:port` or `ssh://user@host:port`; `ssh_config` names are hosts.

        Raises:
            ValueError: if it is none of these.
        """
        match = _ADDRESS.fullmatch(text)
        if match is None or match["host"].startswith("-") or int(match["port"] or 1) > 65535:
            raise ValueError(
                f"`ssh` must be an address such as ssh://pi@10.0.0.3:22, but got {text!r}."
            )
        host = match["host"].strip("[]")
        return cls(
            host=host, user=match["user"], port=int(match["port"]) if match["port"] else None
        )

    def __str__(self) -> str:
        user = f"{self.user}@" if self.user else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"ssh://{user}{host}" + (f":{self.port}" if self.port else "")

    def command(self) -> tuple[str, ...]:
        """Return the command that starts an agent there.

        The environment variable FASTERNAS_SSH replaces `ssh`, as in `ssh -F my_config`.
        """
        options = [f"-o{name}={value}" for name, value in _OPTIONS.items()]
        port = ["-p", str(self.port)] if self.port else []
        user = ["-l", self.user] if self.user else []
        remote = (
            f"exec timeout -k 5 {LONGEST_S} env PYTHONPATH={SITE.replace('~', '$HOME')} "
            f"python3 -uc {shlex.quote(BOOTSTRAP)}"
        )
        ssh = shlex.split(os.environ.get("FASTERNAS_SSH", "ssh"))
        return (*ssh, *options, *port, *user, "--", self.host, remote)


def remedy(reason: str) -> str:
    """Say what to do about what ssh said."""
    found = [text for sign, text in _REMEDIES.items() if sign in reason.lower()]
    advice = next(iter(found), "Try again")
    return advice + ("?" if advice.startswith("Is ") else ".")
