"""Ways to the times of a device: over SSH, or from a file that someone brought from it.

Each gives what ``jetson.report`` tells. Nothing is believed that was measured with another bundle.
"""

import json
import shlex
import subprocess
import tarfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

from tlee.edge import runner as jetson
from tlee.errors import UserError
from tlee.param_types import TARGET
from tlee.params import LatencyParams

Result = dict[str, Any]  #: what ``jetson.report`` tells

PARTS = {"bundle", "device", "runtime", "check", "times", "summary", "power"}  #: of a result, that are needed here


def measure_there(params: LatencyParams, folder: Path) -> Result | None:
    """What ``latency.target`` tells of the bundle in ``folder``; none if it is this machine.

    Raises ``UserError`` if the device cannot be reached or its result is of no use.
    """
    if params.target == "local":
        return None
    if params.target.startswith("file:"):
        path = Path(params.target.removeprefix("file:"))
        try:
            return believe(path.read_text(encoding="utf-8"), folder, str(path))
        except (OSError, UnicodeDecodeError):
            raise UserError(f"{path} cannot be read: copy latency.json there from the device") from None
    options = [f"--{name}={getattr(params, name)}" for name in ("threads", "warmup", "repeats")]
    return believe(Remote.of(params.target).run(folder, options), folder, params.target)


def believe(text: str, folder: Path, source: str) -> Result:
    """The result in ``text``. Raises ``UserError`` if it is none, or of another bundle than that in ``folder``."""
    try:
        result = json.loads(text)
        known = isinstance(result, dict) and set(result) >= PARTS
    except ValueError:
        known = False
    again = f"run jetson.py of {folder} on the device again"
    if not known:
        raise UserError(f"{source}: this is not what jetson.py writes; {again}")
    if result["bundle"] != jetson.Bundle(folder).program["id"]:
        raise UserError(f"{source}: this was measured with another bundle; {again}")
    return result


# --- SSH -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Remote:
    """A folder on a device, through the system's ``ssh`` and its configuration; it is never asked for a password."""

    target: str
    login: tuple[str, ...]  #: arguments of ``ssh`` that name the device
    folder: str  #: relative ones are below the home folder

    @classmethod
    def of(cls, target: str) -> Self:
        user, host, port, folder = TARGET.fullmatch(target).group("user", "host", "port", "folder")
        where = f"{user}@{host}" if user else host
        return cls(target, (*(("-p", port) if port else ()), where), folder.removeprefix("/~/"))

    def run(self, bundle: Path, options: list[str]) -> str:
        """Copy the bundle, unless the same is there, run it, and return what it wrote."""
        folder, manifest = shlex.quote(self.folder), (bundle / jetson.MANIFEST).read_text()
        there = self._call(f"mkdir -p {folder} && cd {folder} && {{ cat {jetson.MANIFEST} || true; }}")
        if there != manifest:
            print(f"copying {bundle} to {self.target}", flush=True)
            self._call(f"cd {folder} && tar -xf -", bundle)
        self._call(f"cd {folder} && python3 jetson.py {shlex.join(options)}", show=True)
        return self._call(f"cd {folder} && cat latency.json")

    def _call(self, command: str, sent: Path | None = None, show: bool = False) -> str:
        """What ``command`` prints on the device; the bundle ``sent`` is its input. ``show`` what it says meanwhile."""
        ssh = ["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=30", *self.login]
        try:
            process = subprocess.Popen(
                [*ssh, shlex.join(["sh", "-c", command])],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        except FileNotFoundError:
            raise UserError("latency.target wants `ssh`, which is not installed here: install OpenSSH") from None
        with process:
            with suppress(BrokenPipeError):  # then the other side says why
                if sent is not None:
                    _send(sent, process.stdin)
                process.stdin.close()
            said = []
            for line in process.stderr if show else ():
                said.append(line.decode(errors="replace").rstrip())
                print(said[-1], flush=True)
            output = process.stdout.read()
            said += process.stderr.read().decode(errors="replace").splitlines()
        if process.returncode:
            raise UserError(f"latency.target {self.target}: {self._reason(process.returncode, said)}")
        return output.decode(errors="replace")

    def _reason(self, status: int, said: list[str]) -> str:
        last = next((line.strip() for line in reversed(said) if line.strip()), f"it ended with status {status}")
        if status == 255:  # of ssh itself
            return f"{last}: `ssh {shlex.join(self.login)}` must work without a password"
        if status == 127:
            return "there is no python3 on the device: install it"
        return last.removeprefix("error: ")


def _send(bundle: Path, stream: BinaryIO) -> None:
    """The files of a bundle as a tar archive; the manifest comes last, so that it is there only if all others are."""
    with tarfile.open(fileobj=stream, mode="w|") as archive:
        for name in (*jetson.Bundle(bundle).program["files"], jetson.MANIFEST):
            archive.add(bundle / name, name)
