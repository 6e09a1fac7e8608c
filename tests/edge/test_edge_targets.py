"""Times of a device: from a file, and over SSH, once with a program in place of `ssh` and once with a real server."""

import getpass
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.bundles import small_bundle
from support.refusals import one_line

from tlee.edge import runner as jetson
from tlee.edge.targets import measure_there
from tlee.params import LatencyParams, load_params

ROOT = Path(__file__).parents[2]
VIDEOS = 2


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_bundle(tmp_path_factory.mktemp("bundle"), VIDEOS)


@pytest.fixture
def bundle(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "bundle"))


@pytest.fixture(scope="module")
def result(made: Path) -> dict:
    return jetson.report(jetson.Runner(made, "onnxruntime"), warmup=0, repeats=1)


def latency(target: str) -> LatencyParams:
    overrides = {"latency.target": target, "latency.warmup": 0, "latency.repeats": 1}
    return load_params(ROOT / "params.yaml", overrides).latency


def refusal(target: str, bundle: Path) -> str:
    return one_line(lambda: measure_there(latency(target), bundle))


# --- this machine, and files -----------------------------------------------------------------------------


def test_this_machine_is_no_other(bundle):
    assert measure_there(latency("local"), bundle) is None


def test_a_file_that_was_brought_is_read(bundle, result, tmp_path):
    path = tmp_path / "from the nano.json"
    path.write_text(json.dumps(result))
    assert measure_there(latency(f"file:{path}"), bundle) == result


def test_a_missing_file_is_named(bundle):
    assert refusal("file:nano.json", bundle) == "nano.json cannot be read: copy latency.json there from the device"


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"bundle": "1"}'])
def test_a_file_of_something_else_is_named(bundle, tmp_path, content):
    path = tmp_path / "nano.json"
    path.write_text(content)
    again = f"run jetson.py of {bundle} on the device again"
    assert refusal(f"file:{path}", bundle) == f"{path}: this is not what jetson.py writes; {again}"


def test_times_of_another_bundle_are_not_believed(bundle, result, tmp_path):
    path = tmp_path / "nano.json"
    path.write_text(json.dumps(result | {"bundle": "of last week"}))
    assert refusal(f"file:{path}", bundle).startswith(f"{path}: this was measured with another bundle; run jetson.py")


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
    found = measure_there(latency(TARGET), bundle)
    assert found == json.loads((home / "of_tests/latency.json").read_text())
    assert found["check"]["same"] == VIDEOS
    assert found["settings"] == {"warmup": 0, "repeats": 1}
    copied = {path.name for path in (home / "of_tests").iterdir()} - {"__pycache__"}
    assert copied == {path.name for path in bundle.iterdir()} | {"latency.json"}
    for line in (tmp_path / "log").read_text().splitlines():
        assert line.startswith(
            "-o BatchMode=yes -o ConnectTimeout=10 -o ServerAliveInterval=30 -p 2222 someone@nano sh -c"
        )
    shown = capsys.readouterr().out
    assert f"copying {bundle} to {TARGET}" in shown
    assert "2 videos, " in shown


def test_what_is_there_already_is_not_copied_again(bundle, home, capsys):
    measure_there(latency(TARGET), bundle)
    kept = home / "of_tests/engines"
    kept.mkdir()
    capsys.readouterr()
    measure_there(latency(TARGET), bundle)
    assert "copying" not in capsys.readouterr().out
    about = json.loads((bundle / "bundle.json").read_text())
    (bundle / "bundle.json").write_text(json.dumps(about | {"method": "another"}))
    measure_there(latency(TARGET), bundle)
    assert "copying" in capsys.readouterr().out
    assert kept.exists()


def test_a_wrong_result_on_the_device_is_its_line(bundle, home):
    about = json.loads((bundle / "bundle.json").read_text())
    about["videos"][1] |= {"label": 7, "margin": 9.0}
    (bundle / "bundle.json").write_text(json.dumps(about))
    message = refusal(TARGET, bundle)
    assert message.startswith(f"latency.target {TARGET}: wrong result, nothing is timed: label of 1.mp4 are ")


def test_a_device_without_python_is_told(bundle, home, tmp_path, monkeypatch):
    for name in ("sh", "mkdir", "cat", "tar"):
        (tmp_path / "tools" / name).symlink_to(shutil.which(name))
    monkeypatch.setenv("PATH", str(tmp_path / "tools"))
    assert refusal(TARGET, bundle) == f"latency.target {TARGET}: there is no python3 on the device: install it"


@pytest.mark.parametrize(
    ("said", "status", "message"),
    [
        ("ssh: Could not resolve hostname nano", 255, "ssh: Could not resolve hostname nano: "),
        (
            "Warning: added\nsomeone@nano: Permission denied (publickey).",
            255,
            "someone@nano: Permission denied (publickey).: ",
        ),
        ("mkdir: cannot create directory: Permission denied", 1, "mkdir: cannot create directory: Permission denied"),
        ("", 3, "it ended with status 3"),
    ],
)
def test_the_last_line_says_what_was_wrong(bundle, home, tmp_path, said, status, message):
    program(tmp_path / "tools/ssh", f"#!/bin/sh\nprintf '%b\\n' '{said}' >&2\nexit {status}\n")
    rest = "`ssh -p 2222 someone@nano` must work without a password" if status == 255 else ""
    assert refusal(TARGET, bundle) == f"latency.target {TARGET}: {message}{rest}"


def test_a_device_that_leaves_while_it_is_sent_the_bundle_is_told(bundle, home, tmp_path):
    text = (
        '#!/bin/sh\nfor last; do :; done\ncase "$last" in *tar*) echo "No space left" >&2; exit 2;; *mkdir*) ;; esac\n'
    )
    program(tmp_path / "tools/ssh", text)
    with (bundle / "clips.npy").open("ab") as file:
        file.write(bytes(1 << 20))  # more than fits into a pipe
    assert refusal(TARGET, bundle) == f"latency.target {TARGET}: No space left"


def test_without_ssh_the_remedy_is_named(bundle, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert refusal(TARGET, bundle) == "latency.target wants `ssh`, which is not installed here: install OpenSSH"


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
        Path("/run/sshd").mkdir(exist_ok=True)  # Debian's wants it when root starts it; its service would make it
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
    """Let `ssh` use this configuration and not that of whoever runs the test."""
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


def test_a_real_server_runs_the_bundle(server, bundle, tmp_path, monkeypatch):
    folder, port = server
    use_key(folder, "user", "no", tmp_path, monkeypatch)
    target = f"ssh://{getpass.getuser()}@127.0.0.1:{port}{tmp_path / 'device'}"
    found = measure_there(latency(target), bundle)
    assert found["check"] == {"clips": VIDEOS, "same": VIDEOS, "logits": found["check"]["logits"]}
    assert found["device"]["name"] == jetson.device_name()
    assert (tmp_path / "device" / "latency.json").exists()


def test_a_real_server_refuses_a_stranger(server, bundle, tmp_path, monkeypatch):
    folder, port = server
    use_key(folder, "stranger", "no", tmp_path, monkeypatch)
    user = getpass.getuser()
    message = refusal(f"ssh://{user}@127.0.0.1:{port}/tmp/device", bundle)
    assert "Permission denied (publickey)" in message
    assert message.endswith(f"`ssh -p {port} {user}@127.0.0.1` must work without a password")


def test_a_real_server_that_is_not_known_is_not_trusted(server, bundle, tmp_path, monkeypatch):
    folder, port = server
    use_key(tmp_path, "user", "yes", tmp_path, monkeypatch)
    shutil.copy(folder / "user", tmp_path)
    assert "Host key verification failed." in refusal(f"ssh://127.0.0.1:{port}/tmp/device", bundle)


def test_where_no_server_listens_the_refusal_is_told(bundle, tmp_path, monkeypatch):
    if not shutil.which("ssh"):
        pytest.skip("OpenSSH's client is not installed")
    use_key(tmp_path, "none", "no", tmp_path, monkeypatch)
    port = free_port()
    message = refusal(f"ssh://someone@127.0.0.1:{port}/tmp/device", bundle)
    assert "Connection refused" in message
    assert message.endswith(f"`ssh -p {port} someone@127.0.0.1` must work without a password")
