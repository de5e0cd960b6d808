"""How the agent comes to run behind a real sshd, whatever shell, greeting or Python is there."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from loopback_sshd import Server, until

from nas.cli.main import main
from predictors.devices.agent.host import BOOTSTRAP, MARKER
from predictors.devices.boards import Board, load_boards, survey
from predictors.devices.connection import SCRIPT, Address, Connection, ConnectionLostError

Streams = pytest.CaptureFixture[str]
PASS_ON = 'exec sh -c "$SSH_ORIGINAL_COMMAND"'
GREETED = {  # files of a login shell in which the user has it greet
    "tcsh": ".tcshrc",
    "fish": ".config/fish/config.fish",
    "zsh": ".zshenv",
    "bash": ".bashrc",
    "dash": ".profile",
    "ksh": ".kshrc",
    "csh": ".cshrc",
}


def _looked_at(server: Server) -> Board:
    found = survey(Board(name="pi", ssh=server.address))
    until(lambda: server.agents() == [])
    assert server.left() == []
    return found


@pytest.mark.parametrize("how", ["-c", "-l -c", "-i -c"])
@pytest.mark.parametrize("shell", GREETED)
def test_every_login_shell_passes_it_on(server: Server, shell: str, how: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed here.")
    if shell in ("tcsh", "csh") and "-l" in how:
        how = "-c"  # they take no other option beside it
    file = server.folder / "home" / GREETED[shell]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("echo 'Welcome!'\n")
    setting = f'export PATH="{Path(sys.executable).parent}:$PATH"\n'
    server.becomes(setting, f'exec {shell} {how} "$SSH_ORIGINAL_COMMAND"')
    assert _looked_at(server).number_of_cores >= 1


@pytest.mark.parametrize(
    "command",
    [
        f'echo "Welcome!"; printf "no line> "; {PASS_ON}',
        f"head -c 200000 /dev/urandom | base64; {PASS_ON}",
        f"read key; {PASS_ON}",
        f"(for i in 1 2 3 4 5 6 7 8 9; do printf chat; sleep 0.05; done) & {PASS_ON}",
        "exec $SSH_ORIGINAL_COMMAND",
        'exec bash -xvrc "$SSH_ORIGINAL_COMMAND"',
        "exec bash -i",
        "exec dash -l",
        'exec script -qec "$SSH_ORIGINAL_COMMAND" /dev/null',
        f"export PYTHONIOENCODING=utf-16 PYTHONINSPECT=1 PYTHONPATH=/nowhere; {PASS_ON}",
        f'cd "$HOME"; echo "raise ImportError" | tee json.py >platform.py; {PASS_ON}',
    ],
)
def test_what_is_between_the_shell_and_the_agent_is_passed_over(
    server: Server, command: str
) -> None:
    server.becomes(f'export PATH="{Path(sys.executable).parent}:$PATH"\n', command)
    assert _looked_at(server).number_of_cores >= 1


@pytest.mark.parametrize(
    "setting",
    [
        "RequestTTY force",
        "RemoteCommand /bin/bash",
        "LogLevel DEBUG3",
        "PermitLocalCommand yes\nLocalCommand echo hi",
        "SessionType none",
        "StdinNull yes",
        "ForkAfterAuthentication yes",
        "ExitOnForwardFailure yes\nLocalForward 127.0.0.1:1 127.0.0.1:2",
        "IgnoreUnknown UseKeychain\nUseKeychain yes",
    ],
)
def test_what_ssh_is_set_to_for_sessions_of_the_user_does_not_count(
    server: Server, setting: str
) -> None:
    with (server.folder / "ssh_config").open("a") as file:
        file.write(setting + "\n")
    done = subprocess.run(["ssh", "-G", "-F", file.name, "host"], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"This ssh has no {setting.split()[0]}.")
    assert _looked_at(server).number_of_cores >= 1


def test_what_is_said_is_named_where_nothing_follows(server: Server, capsys: Streams) -> None:
    server.becomes("", "echo 'This account is currently not available.'; exit 1")
    assert main(["devices", "add", "pi", "--ssh", server.address]) == 2
    said = capsys.readouterr().err
    assert (
        "it answered no JSON object: 'This account is currently not available'. Does `ssh`" in said
    )
    server.becomes("", "echo 'Hello!'; echo 'sh: not found' >&2; exit 127")
    assert main(["devices", "add", "pi", "--ssh", server.address]) == 2
    assert "sh: not found, after it said 'Hello!'. Does `ssh` to it" in capsys.readouterr().err
    assert load_boards() == {}


@pytest.mark.parametrize(
    ("setting", "why"),
    [
        ("ProxyCommand no-such-proxy %h", "no-such-proxy: not found: "),
    ],
)
def test_the_reason_before_the_last_line_of_ssh_is_named(
    server: Server, setting: str, why: str, capsys: Streams
) -> None:
    with (server.folder / "ssh_config").open("a") as file:
        file.write(setting + "\n")
    assert main(["devices", "add", "pi", "--ssh", server.address]) == 2
    said = capsys.readouterr().err
    assert why in said
    assert "Does `ssh` to it connect?" in said


def test_a_shell_that_waits_is_not_waited_for(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("predictors.devices.connection.START_S", 5.0)
    server.becomes("", "echo 'Press a key'; exec sleep 60")
    with pytest.raises(RuntimeError, match="within 5 s, after it said 'Press a key'"):
        survey(Board(name="pi", ssh=server.address))


def test_the_command_is_one_word_and_the_script_one_line() -> None:
    assert Address.parse("pi").command()[-1].isalpha()
    assert SCRIPT.strip().count("\n") == 0
    assert len(SCRIPT) < 4096  # what a terminal takes as a line
    assert not set(BOOTSTRAP) & set("'\\!\n")
    assert MARKER not in SCRIPT  # a terminal, or a shell that shows what it does, would echo it


def _old_python(folder: Path, version: str, name: str = "python3") -> None:
    """A Python that is too old for more than to leave to another, or to say so."""
    file = folder / name
    folder.mkdir(exist_ok=True)
    file.write_text(
        f'#!/bin/sh\n[ $1 = -Ec ] && exit 1\n[ $3 ] && exec sh -c "$newer"\n'
        f"echo; echo {MARKER} {version}; read line\n"
    )
    file.chmod(0o755)


@pytest.mark.parametrize("version", ["3.8.10", "3.6.9", "2.7.18"])
def test_an_old_python_is_one_line_before_anything_else(
    server: Server, capsys: Streams, version: str
) -> None:
    tools = server.folder / "bin"
    _old_python(tools, version, "python" if version.startswith("2") else "python3")
    for tool in ("sh", "stty"):
        (tools / tool).symlink_to(shutil.which(tool) or f"/bin/{tool}")
    server.becomes(f"export PATH={tools}\n")
    for arguments in (["devices", "add", "pi", "--ssh"], ["measure", "t0", "--device"]):
        assert main([*arguments, server.address]) == 2
        said = capsys.readouterr().err
        assert f"its Python must be 3.9 or newer, but is {version}; install a newer one" in said
        assert said.count("\n") == 1


def test_a_newer_python_beside_an_old_one_is_found(server: Server) -> None:
    tools = server.folder / "bin"
    _old_python(tools, "3.8.10")
    (tools / "python3.12").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (tools / "python3.12").chmod(0o755)
    server.becomes(f'export PATH="{tools}:$PATH"\n')
    assert _looked_at(server).python == ".".join(map(str, sys.version_info[:3]))


def test_the_program_of_every_python_says_which_it_is() -> None:
    """The first line of what is sent is code for this one."""
    done = subprocess.run(
        [sys.executable, "-c", BOOTSTRAP],
        input=b'["print(sent[1])", 7]\n',
        capture_output=True,
        check=True,
    )
    assert done.stdout.decode().split() == [MARKER, sys.version.split()[0], "7"]
    for program in ("print('Welcome')", "print('fasternas-python 3')"):
        with (
            Connection([sys.executable, "-c", program]) as connection,
            pytest.raises(ConnectionLostError, match="it answered no JSON object"),
        ):
            connection.ask({"facts": "numpy"})
