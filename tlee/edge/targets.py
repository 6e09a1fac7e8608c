"""Latency results of a device: over SSH, or from a file that was copied from it.

Each returns a ``runner.LatencyResult``. Results of another bundle are refused.
"""

import re
import shlex
import subprocess
import tarfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

from tlee.edge.bundle import RUNNER
from tlee.edge.failures import as_user_errors
from tlee.edge.runner import COPY_AGAIN, MANIFEST, OUTPUT, Bundle, LatencyResult
from tlee.errors import UserError
from tlee.param_types import TARGET
from tlee.params import LatencyParams


@as_user_errors()
def measure_target(params: LatencyParams, folder: Path) -> LatencyResult | None:
    """Return the result of ``latency.target`` for the bundle in ``folder``; None if the target is this machine.

    Raises ``UserError`` if the device cannot be reached, its result cannot be used, or the bundle is damaged.
    """
    if params.target == "local":
        return None
    if params.target.startswith("file:"):
        path = Path(params.target.removeprefix("file:"))
        try:
            return read_result(path.read_text(encoding="utf-8"), folder, str(path))
        except (OSError, ValueError):  # not UTF-8, or a path that no file can have
            raise UserError(f"{path} cannot be read: copy {OUTPUT} there from the device") from None
    options = [f"--{name}={getattr(params, name)}" for name in ("threads", "warmup", "repeats")]
    return read_result(Remote.of(params.target).run(folder, options), folder, params.target)


def read_result(text: str, folder: Path, source: str) -> LatencyResult:
    """Read the result in ``text``. Raises ``UserError`` if it is not one, or not of the bundle in ``folder``."""
    again = f"run {RUNNER} of {folder} on the device again"
    try:
        result = LatencyResult.from_json(text)
    except ValueError:
        raise UserError(f"{source} is not a result of {RUNNER}: {again}") from None
    if result.bundle != Bundle(folder).program["id"]:
        raise UserError(f"{source} was measured with another bundle: {again}")
    return result


# --- SSH -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Remote:
    """A folder on a device, reached by the system's ``ssh`` with its configuration, without a password."""

    target: str
    login: tuple[str, ...]  #: arguments of ``ssh`` that name the device
    folder: str  #: relative to the home folder, or absolute

    @classmethod
    def of(cls, target: str) -> Self:
        """Parse ``latency.target``."""
        match = TARGET.fullmatch(target)
        assert match is not None  # parameters are validated when they are read
        user, host, port, folder = match.group("user", "host", "port", "folder")
        address = f"{user}@{host}" if user else host
        folder = re.sub("^/~/-", "/~/./-", folder)  # `mkdir -x` would be an option
        return cls(target, (*(("-p", port) if port else ()), address), folder.removeprefix("/~/"))

    def run(self, bundle: Path, options: list[str]) -> str:
        """Copy the bundle, unless the device has the same one, run it, and return its output."""
        files = _checked_files(bundle)
        folder, manifest = shlex.quote(self.folder), files[MANIFEST].read_text(encoding="utf-8")
        existing = self._call(f"mkdir -p {folder} && cd {folder} && {{ cat {MANIFEST} || true; }}")
        if existing != manifest:
            print(f"copying {bundle} to {self.target}", flush=True)
            self._call(f"cd {folder} && tar -xf -", files)
        self._call(f"cd {folder} && python3 {RUNNER} {shlex.join(options)}", show=True)
        return self._call(f"cd {folder} && cat {OUTPUT}")

    def _call(self, command: str, sent: dict[str, Path] | None = None, show: bool = False) -> str:
        """Return the output of ``command`` on the device, whose input are the files ``sent``.

        Its messages are printed as they come if ``show`` is true.
        """
        ssh = ["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=30", *self.login]
        try:
            process = subprocess.Popen(
                [*ssh, shlex.join(["sh", "-c", command])],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        except FileNotFoundError:
            raise UserError("latency.target needs `ssh`, which is not installed here: install OpenSSH") from None
        assert process.stdin and process.stdout and process.stderr
        with process:
            with suppress(BrokenPipeError):  # then the messages of the device name the reason
                if sent is not None:
                    _send(sent, process.stdin)
                process.stdin.close()
            messages = []
            if show:
                for line in process.stderr:
                    messages.append(line.decode(errors="replace").rstrip())
                    print(messages[-1], flush=True)
            output = process.stdout.read()
            messages += process.stderr.read().decode(errors="replace").splitlines()
        if process.returncode:
            raise UserError(f"latency.target {self.target}: {self._reason(process.returncode, messages)}")
        return output.decode(errors="replace")

    def _reason(self, status: int, messages: list[str]) -> str:
        last = next((line.strip() for line in reversed(messages) if line.strip()), f"exit status {status}")
        if status == 255:  # of ssh itself
            return f"{last}: `ssh {shlex.join(self.login)}` must work without a password"
        if status == 127:
            return "the device has no python3: install it"
        if status == 137:
            return f"{RUNNER} was killed, most likely because memory ran out: close other programs on the device"
        if last.endswith(COPY_AGAIN):  # the device has the same manifest, so that nothing would be copied
            problem = last.removeprefix("error: ").removesuffix(COPY_AGAIN)
            return f"{problem}: delete {MANIFEST} in its folder on the device and run the same command again"
        return last.removeprefix("error: ")


def _checked_files(bundle: Path) -> dict[str, Path]:
    """Return the files of a bundle by name, the manifest last. Raises ``RunnerError`` if one is damaged."""
    checked = Bundle(bundle)
    return {name: Path(checked.file(name)) for name in checked.program["files"]} | {MANIFEST: bundle / MANIFEST}


def _send(files: dict[str, Path], stream: IO[bytes]) -> None:
    """Send files as a tar archive in their order, so that the last exists only if all others do."""
    with tarfile.open(fileobj=stream, mode="w|") as archive:
        for name, path in files.items():
            archive.add(path, name)
