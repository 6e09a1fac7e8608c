"""Results of a device: from a file, and over SSH, with a program in place of `ssh` and with a real server."""

import getpass
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from support.bundles import small_bundle
from support.refusals import one_line

from tlee.checksums import save_sealed
from tlee.edge.runner import Energy, LatencyResult, PowerResult, Runner, device_name, measure_latency
from tlee.edge.targets import measure_target
from tlee.params import LatencyParams, load_params

ROOT = Path(__file__).parents[2]
VIDEOS = 4


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_bundle(tmp_path_factory.mktemp("bundle"), VIDEOS)


@pytest.fixture
def bundle(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "bundle"))


@pytest.fixture(scope="module")
def result(made: Path) -> LatencyResult:
    return measure_latency(Runner(made, "onnxruntime"), warmup=0, repeats=1)


@cache
def latency(target: str) -> LatencyParams:
    overrides = {"latency.target": target, "latency.warmup": 0, "latency.repeats": 1}
    return load_params(ROOT / "params.yaml", overrides).latency


def refusal(target: str, bundle: Path) -> str:
    return one_line(lambda: measure_target(latency(target), bundle))


# --- no device, and files -----------------------------------------------------------------------------


def test_the_local_target_has_no_result_of_its_own(bundle):
    assert measure_target(latency("local"), bundle) is None


def test_a_result_is_read_from_a_file(bundle, result, tmp_path):
    path = tmp_path / "from the nano.json"
    path.write_text(result.to_json())
    assert measure_target(latency(f"file:{path}"), bundle) == result


def test_a_result_with_power_is_read_unchanged(result):
    energy = {"real": Energy(watts=4.0, joules=0.4, above_idle=0.3)}
    measured = result._replace(power=PowerResult("POM_5V_IN", 1.5, energy))
    assert LatencyResult.from_json(measured.to_json()) == measured


def test_a_missing_file_is_named(bundle):
    message = refusal("file:nano.json", bundle)
    assert message.startswith("nano.json ")
    assert message.endswith(": copy latency.json there from the device")


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "3", '{"bundle": "1"}'])
def test_a_file_with_other_content_is_named(bundle, tmp_path, content):
    path = tmp_path / "nano.json"
    path.write_text(content)
    message = refusal(f"file:{path}", bundle)
    assert message.startswith(f"{path} is not a result ")
    assert message.endswith(f": run runner.py of {bundle} on the device again")


def test_a_result_with_another_key_is_refused(bundle, result, tmp_path):
    path = tmp_path / "nano.json"
    fields = json.loads(result.to_json())
    fields["check"]["clips"] = fields["check"].pop("videos")
    save_sealed(path, fields)
    assert refusal(f"file:{path}", bundle).startswith(f"{path} is not a result ")


def test_a_result_of_another_bundle_is_refused(bundle, result, tmp_path):
    path = tmp_path / "nano.json"
    path.write_text(result._replace(bundle="of last week").to_json())
    message = refusal(f"file:{path}", bundle)
    assert message.startswith(f"{path} was measured with another bundle")
    assert message.endswith(f": run runner.py of {bundle} on the device again")


# --- a program in place of ssh ---------------------------------------------------------------------------

LOCAL_SHELL = """#!/bin/sh
echo "$@" >> {log}
for last; do :; done
cd {home} && exec sh -c "$last"
"""


def program(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home folder of a device, on which `ssh` runs commands."""
    home, tools = tmp_path / "home", tmp_path / "tools"
    home.mkdir()
    program(tools / "ssh", LOCAL_SHELL.format(log=tmp_path / "log", home=home))
    monkeypatch.setenv("PATH", f"{tools}:{Path(sys.executable).parent}:{os.environ['PATH']}")
    return home


TARGET = "ssh://someone@nano:2222/~/of tests".replace(" ", "_")


def test_the_bundle_is_copied_run_and_its_result_fetched(bundle, home, tmp_path, capsys):
    found = measure_target(latency(TARGET), bundle)
    assert found == LatencyResult.from_json((home / "of_tests/latency.json").read_text())
    assert found.check.same == VIDEOS
    assert found.settings == {"warmup": 0, "repeats": 1}
    copied = {path.name for path in (home / "of_tests").iterdir()} - {"__pycache__"}
    assert copied == {path.name for path in bundle.iterdir()} | {"latency.json"}
    for line in (tmp_path / "log").read_text().splitlines():
        assert line.startswith(
            "-o BatchMode=yes -o ConnectTimeout=10 -o ServerAliveInterval=30 -p 2222 someone@nano sh -c"
        )
    shown = capsys.readouterr().out
    assert f"copying {bundle} to {TARGET}" in shown
    assert f"{VIDEOS} videos, " in shown


def test_the_same_bundle_is_not_copied_again(bundle, home, capsys):
    measure_target(latency(TARGET), bundle)
    kept = home / "of_tests/engines"
    kept.mkdir()
    capsys.readouterr()
    measure_target(latency(TARGET), bundle)
    assert "copying" not in capsys.readouterr().out
    about = json.loads((bundle / "bundle.json").read_text())
    save_sealed(bundle / "bundle.json", about | {"method": "another"})
    measure_target(latency(TARGET), bundle)
    assert "copying" in capsys.readouterr().out
    assert kept.exists()


def test_a_wrong_result_on_the_device_is_reported(bundle, home):
    about = json.loads((bundle / "bundle.json").read_text())
    about["videos"][1] |= {"label": 7, "margin": 9.0}
    save_sealed(bundle / "bundle.json", about)
    message = refusal(TARGET, bundle)
    assert message.startswith(f"latency.target {TARGET}: wrong result")
    assert re.search(r"1\.mp4 .*label \d, expected 7$", message)


def test_a_damaged_bundle_is_not_sent(bundle, home):
    (bundle / "clips.npy").write_bytes(b"")
    one_line(lambda: measure_target(latency(TARGET), bundle), bundle / "clips.npy", "run the same command again")
    assert not list(home.iterdir())


def test_a_file_that_is_damaged_on_the_device_can_be_copied_again(bundle, home):
    measure_target(latency(TARGET), bundle)
    (home / "of_tests/clips.npy").write_bytes(b"")
    message = refusal(TARGET, bundle)
    assert message.startswith(f"latency.target {TARGET}: ")
    assert "clips.npy is not " in message
    assert message.endswith(": delete bundle.json in its folder on the device and run the same command again")
    (home / "of_tests/bundle.json").unlink()
    assert measure_target(latency(TARGET), bundle).check.same == VIDEOS


def test_a_runner_that_is_killed_on_the_device_is_reported(bundle, home, tmp_path):
    text = '#!/bin/sh\nfor last; do :; done\ncase "$last" in *python3*) echo building >&2; exit 137;; esac\n'
    program(tmp_path / "tools/ssh", text)
    assert "killed, most likely because memory ran out: close" in refusal(TARGET, bundle)


def test_a_device_without_python_is_reported(bundle, home, tmp_path, monkeypatch):
    for name in ("sh", "mkdir", "cat", "tar"):
        (tmp_path / "tools" / name).symlink_to(shutil.which(name))
    monkeypatch.setenv("PATH", str(tmp_path / "tools"))
    message = refusal(TARGET, bundle)
    assert message.startswith(f"latency.target {TARGET}: ")
    assert message.endswith(" no python3: install it")


@pytest.mark.parametrize(
    ("printed", "status", "message"),
    [
        ("ssh: Could not resolve hostname nano", 255, "ssh: Could not resolve hostname nano: "),
        (
            "Warning: added\nsomeone@nano: Permission denied (publickey).",
            255,
            "someone@nano: Permission denied (publickey).: ",
        ),
        ("mkdir: cannot create directory: Permission denied", 1, "mkdir: cannot create directory: Permission denied"),
        ("", 3, "exit status 3"),
    ],
)
def test_the_last_line_of_ssh_is_reported(bundle, home, tmp_path, printed, status, message):
    program(tmp_path / "tools/ssh", f"#!/bin/sh\nprintf '%b\\n' '{printed}' >&2\nexit {status}\n")
    rest = "`ssh -p 2222 someone@nano` must work without a password" if status == 255 else ""
    assert refusal(TARGET, bundle) == f"latency.target {TARGET}: {message}{rest}"


def test_a_device_that_stops_reading_the_bundle_is_reported(bundle, home, tmp_path):
    text = (
        '#!/bin/sh\nfor last; do :; done\ncase "$last" in *tar*) echo "No space left" >&2; exit 2;; *mkdir*) ;; esac\n'
    )
    program(tmp_path / "tools/ssh", text)
    (bundle / "large").write_bytes(bytes(1 << 20))  # more than fits into a pipe
    about = json.loads((bundle / "bundle.json").read_text())
    about["files"]["large"] = hashlib.sha256(bytes(1 << 20)).hexdigest()
    save_sealed(bundle / "bundle.json", about)
    assert refusal(TARGET, bundle) == f"latency.target {TARGET}: No space left"


def test_without_ssh_the_remedy_is_named(bundle, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    message = refusal(TARGET, bundle)
    assert message.startswith("latency.target needs `ssh`")
    assert message.endswith(": install OpenSSH")


# --- a real server -----------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def make_key(path: Path) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    """An OpenSSH server on this machine that lets a key of its own in: its folder and port."""
    sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if not sshd or not shutil.which("ssh"):
        pytest.skip("OpenSSH's client and server are not both installed: apt install openssh-client openssh-server")
    if sys.platform == "linux" and os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # Debian's sshd needs it; its service would create it
    folder, port = tmp_path_factory.mktemp("sshd"), free_port()
    host, user = make_key(folder / "host"), make_key(folder / "user")
    make_key(folder / "stranger")
    settings = {
        "ListenAddress": "127.0.0.1",
        "Port": port,
        "HostKey": host,
        "AuthorizedKeysFile": f"{user}.pub",
        "StrictModes": "no",
        "PidFile": "none",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "ForceCommand": f'PATH={Path(sys.executable).parent}:$PATH exec sh -c "$SSH_ORIGINAL_COMMAND"',
    }
    (folder / "sshd_config").write_text("".join(f"{key} {value}\n" for key, value in settings.items()))
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([sshd, "-D", "-e", "-f", folder / "sshd_config"], stderr=log)
    try:
        for _ in range(100):
            if process.poll() is not None:
                pytest.fail(f"sshd does not start: {(folder / 'log').read_text().strip()}")
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield folder, port
    finally:
        process.terminate()
        process.wait()


def use_key(folder: Path, key: str, known: str, tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `ssh` use this configuration instead of the user's."""
    settings = {
        "IdentityFile": folder / key,
        "IdentitiesOnly": "yes",
        "UserKnownHostsFile": folder / "known_hosts",
        "GlobalKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": known,
        "LogLevel": "ERROR",
    }
    (tools / "config").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    program(tools / "bin" / "ssh", f'#!/bin/sh\nexec {shutil.which("ssh")} -F {tools / "config"} "$@"\n')
    monkeypatch.setenv("PATH", f"{tools / 'bin'}:{os.environ['PATH']}")


@pytest.mark.slow
def test_a_real_server_runs_the_bundle(server, bundle, tmp_path, monkeypatch):
    folder, port = server
    use_key(folder, "user", "no", tmp_path, monkeypatch)
    target = f"ssh://{getpass.getuser()}@127.0.0.1:{port}{tmp_path / 'device'}"
    found = measure_target(latency(target), bundle)
    assert (found.check.videos, found.check.same) == (VIDEOS, VIDEOS)
    assert found.device.name == device_name()
    assert (tmp_path / "device" / "latency.json").exists()


def test_a_real_server_refuses_a_stranger(server, bundle, tmp_path, monkeypatch):
    folder, port = server
    use_key(folder, "stranger", "no", tmp_path, monkeypatch)
    user = getpass.getuser()
    message = refusal(f"ssh://{user}@127.0.0.1:{port}/tmp/device", bundle)
    assert "Permission denied (publickey)" in message
    assert message.endswith(f"`ssh -p {port} {user}@127.0.0.1` must work without a password")


def test_a_real_server_with_an_unknown_key_is_not_trusted(server, bundle, tmp_path, monkeypatch):
    folder, port = server
    use_key(tmp_path, "user", "yes", tmp_path, monkeypatch)
    shutil.copy(folder / "user", tmp_path)
    assert "Host key verification failed." in refusal(f"ssh://127.0.0.1:{port}/tmp/device", bundle)


def test_a_refused_connection_is_reported(bundle, tmp_path, monkeypatch):
    if not shutil.which("ssh"):
        pytest.skip("OpenSSH's client is not installed")
    use_key(tmp_path, "none", "no", tmp_path, monkeypatch)
    port = free_port()
    message = refusal(f"ssh://someone@127.0.0.1:{port}/tmp/device", bundle)
    assert "Connection refused" in message
    assert message.endswith(f"`ssh -p {port} someone@127.0.0.1` must work without a password")
