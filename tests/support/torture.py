"""Kill stages of the pipeline at random moments and fill their disk; then hold what the next run makes to a whole run.

``python -m support.torture FOLDER TABLE`` does so to all stages of a small project in the new folder ``FOLDER``, for
about half an hour, and writes a row for each trial to the CSV file ``TABLE``.
"""

import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import psutil
import yaml
from support.pipelines import Project

from tlee.extraction.parts import Part
from tlee.paths import RESULTS, RUNS

STAGES = ("extract", "pretrain", "branches", "gates", "evaluate", "latency", "guarantee", "explain")
KILLS = 7  #: of each stage
FULL_DISKS = 2  #: of each stage
LIMIT = 300  #: seconds until a run, or what is left of it after a kill, has ended
LARGEST_DISK = 2e9  #: bytes
EPOCHS = {"pretrain": 6, "branches": 4, "gates": 4}

#: What can be killed: everything, as when the machine goes down, or one process, whose arguments hold the text.
VICTIMS = {
    "everything": "",
    "dvc": "dvc repro",
    "command": "-m tlee run",
    "kernel": "ipykernel_launcher",
    "worker": "LokyProcess",
}


class Trial(NamedTuple):
    """A kill or a full disk in the middle of a stage."""

    stage: str
    fault: str  #: ``kill`` or ``full disk``
    victim: str  #: of a kill, from ``VICTIMS``
    writing: bool  #: killed at the moment when a file changed, as opposed to any moment
    seconds: float  #: from the start of ``dvc repro`` to the kill, or to its end
    message: str  #: of the kit or of DVC, if there was one
    lost: int = 0  #: epochs or videos that had been finished, and were repeated by the next run
    failure: str = ""  #: what was not as it should be


class Torture:
    """Trials on one project, whose stages up to the one at hand have been run."""

    def __init__(self, project: Project, seed: int = 0):
        self.project = project
        self.random = random.Random(seed)
        self.trials: list[Trial] = []

    # --- kills -------------------------------------------------------------------------------------------

    def kill(self, stage: str, kills: int, seconds: float, victims: tuple[str, ...] = tuple(VICTIMS)) -> None:
        """Kill a stage that takes ``seconds`` several times, run it to its end and compare what it wrote.

        It must have been run before. A stage that ends before it is killed is compared and begun once more.
        """
        whole = self.project.contents()
        killed, done, forced = 0, 0, ["--force"]
        while killed < kills:
            victim = victims[killed % len(victims)]
            at, writing = self.random.uniform(0, seconds), self.random.random() < 0.5
            output, is_killed, after = self._run_and_kill(stage, forced, at, writing, victim)
            self._count_lost(stage, output, done)
            if is_killed:
                killed += 1
                done, forced = self._progress(stage, output, done), []
                self._record(stage, "kill", victim, writing, after, output)
            else:
                self._compare(stage, whole)
                done, forced = 0, ["--force"]
        self._count_lost(stage, self._run(stage), done)
        self._compare(stage, whole)

    def _run_and_kill(
        self, stage: str, options: list[str], at: float, writing: bool, victim: str
    ) -> tuple[str, bool, float]:
        """Return the output of the run, whether it was killed before its end, and the seconds until then.

        The kill waits for its victim.
        """
        start = time.monotonic()
        process = self._start(stage, *options)
        while time.monotonic() - start < at and process.poll() is None:
            time.sleep(0.01)
        if writing:
            before = self._files()
            while process.poll() is None and self._files() == before:
                time.sleep(0.001)
        killed = False
        while process.poll() is None and not killed:
            killed = _kill(process.pid, victim)
            time.sleep(0.001)
        after = time.monotonic() - start
        output, _ = process.communicate(timeout=LIMIT)  # of all that are left, which end by themselves
        return output, killed, after

    def _files(self) -> dict[Path, tuple[int, int]]:
        found = {}
        for top in (RUNS, RESULTS):
            for folder, _, names in os.walk(self.project.folder / top):  # unlike a glob, of folders that disappear too
                for path in (Path(folder, name) for name in names):
                    with suppress(FileNotFoundError):  # it has just been renamed or removed
                        about = path.stat()
                        found[path] = (about.st_size, about.st_mtime_ns)
        return found

    # --- full disks --------------------------------------------------------------------------------------

    def fill_disk(self, stage: str, megabytes: float) -> None:
        """Run a stage, which writes at most ``megabytes``, where the disk fills up on the way; then make space."""
        whole = self.project.contents()
        for path in self._outputs(stage):
            shutil.rmtree(path, ignore_errors=True)
            path.unlink(missing_ok=True)
        start = time.monotonic()
        with _filler(self.project.folder / "filler", int(self.random.uniform(0, megabytes) * 1e6)):
            output = self._run(stage, "--force")
        self._record(stage, "full disk", "", False, time.monotonic() - start, output)
        self._run(stage)
        self._compare(stage, whole)

    def _outputs(self, stage: str) -> list[Path]:
        lock = yaml.safe_load((self.project.folder / "dvc.lock").read_text(encoding="utf-8"))
        return [self.project.folder / each["path"] for each in lock["stages"][stage]["outs"]]

    # --- what came of it ---------------------------------------------------------------------------------

    def _run(self, stage: str, *options: str) -> str:
        output, _ = self._start(stage, *options).communicate(timeout=LIMIT)
        return output

    def _start(self, stage: str, *options: str) -> subprocess.Popen:
        self.repair_dvc_lock()
        return self.project.start("dvc", "repro", "--single-item", *options, stage)

    def repair_dvc_lock(self) -> None:
        """Do as docs/failures.md says if DVC's list of locks was cut short; it is noted with the trial."""
        lock = self.project.folder / ".dvc/tmp/rwlock"
        with suppress(FileNotFoundError):
            try:
                json.loads(lock.read_text(encoding="utf-8"))
            except ValueError:
                lock.unlink()
                self._change_last(message=f"{self.trials[-1].message}; then .dvc/tmp/rwlock had to be removed")

    def _record(self, stage: str, fault: str, victim: str, writing: bool, seconds: float, output: str) -> None:
        failure = "traceback" if "Traceback" in output else ""
        message = _message(output)
        if not message and victim not in ("everything", "dvc") and "Use `dvc push`" not in output:
            failure = "no message"
        trial = Trial(stage, fault, victim, writing, round(seconds, 1), message, failure=failure)
        self.trials.append(trial)
        print(*trial, sep="  ", flush=True)
        if failure:
            print(output, flush=True)

    def _compare(self, stage: str, whole: dict[str, str]) -> None:
        """Note a failure of the last trial if the stage's results are not those of a whole run."""
        now = self.project.contents()
        if differing := sorted(name for name in whole.keys() | now.keys() if whole.get(name) != now.get(name)):
            self._change_last(failure=f"{len(differing)} files differ: {differing[0]}")

    def _change_last(self, **values: int | str) -> None:
        self.trials[-1] = self.trials[-1]._replace(**values)
        print(values, flush=True)

    def _progress(self, stage: str, output: str, before: int) -> int:
        """Return the number of finished epochs or recorded videos."""
        if stage == "extract":
            return max(map(_recorded_videos, self._unrecorded(f"{RUNS}/extract-*")), default=0)
        return max([before, *map(int, re.findall(r"^epoch +(\d+)/", output, re.MULTILINE))])

    def _unrecorded(self, pattern: str) -> list[Path]:
        folder = self.project.folder
        recorded = (folder / "dvc.lock").stat().st_mtime_ns
        return [path for path in folder.glob(pattern) if path.stat().st_mtime_ns > recorded]

    def _count_lost(self, stage: str, output: str, done: int) -> None:
        """Note what had been ``done`` before a run and was repeated by it, if it got as far as to print so."""
        pattern = r"extract: .*? (\d+)/\d+ \[" if stage == "extract" else r"resuming after epoch (\d+)"
        begun = re.search(r"extract: |^epoch ", output, re.MULTILINE)
        resumed = re.search(pattern, output)
        if done and (resumed or begun):
            self._change_last(lost=done - (int(resumed[1]) if resumed else 0))


def _recorded_videos(folder: Path) -> int:
    """Return the number of videos in the whole parts of an extraction."""
    found = set()
    for path in folder.glob("*.arrow"):
        with suppress(OSError, ValueError):
            found |= {(path.name.split(".")[0], row) for row in Part(path).rows}
    return len(found)


def _message(output: str) -> str:
    """Return the error message of the kit, or that of DVC, or an empty string."""
    found = re.search(r"^error: .*", output, re.MULTILINE) or re.search(r"ERROR: .*", output)  # maybe after progress
    return found[0] if found else ""


def _kill(root: int, victim: str) -> bool:
    """Kill ``victim``, the process ``root`` or one or all below it; return whether there was one."""
    tree = [psutil.Process(root)]
    with suppress(psutil.NoSuchProcess):
        tree += tree[0].children(recursive=True)
    chosen = tree if victim == "everything" else [each for each in tree if VICTIMS[victim] in _arguments(each)][:1]
    for each in chosen:
        with suppress(psutil.NoSuchProcess):
            each.kill()
    return bool(chosen)


def _arguments(process: psutil.Process) -> str:
    with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
        return " ".join(process.cmdline())
    return ""


@contextmanager
def _filler(path: Path, free: int) -> Iterator[None]:
    """Fill the file system of ``path`` but for ``free`` bytes."""
    with path.open("wb", buffering=0) as file, suppress(OSError):  # it needs some space for its own index
        for _ in range(max(0, shutil.disk_usage(path.parent).free - free) // 4096):
            file.write(bytes(4096))
    try:
        yield
    finally:
        path.unlink()


# --- all stages ------------------------------------------------------------------------------------------


def torture_all(folder: Path) -> list[Trial]:
    """Run the stages of a small project in ``folder`` one after the other, each with its kills and full disks."""
    project = Project(folder)
    for stage, epochs in EPOCHS.items():
        project.change(stage, "epochs", epochs)
    project.call("dvc", "repro", "code")
    torture = Torture(project)
    for stage in STAGES:
        before, start = shutil.disk_usage(folder).used, time.monotonic()
        torture.repair_dvc_lock()
        project.call("dvc", "repro", "--single-item", stage)
        seconds = time.monotonic() - start
        megabytes = (shutil.disk_usage(folder).used - before) / 2e6  # one half is DVC's cache
        torture.kill(stage, KILLS, seconds, tuple(VICTIMS) if stage == "extract" else tuple(VICTIMS)[:-1])
        for _ in range(FULL_DISKS):
            torture.repair_dvc_lock()
            project.call("dvc", "gc", "--workspace", "--force", "--quiet")  # TorchScript files of all these runs
            torture.fill_disk(stage, megabytes)
    return torture.trials


def summary(trials: pd.DataFrame) -> str:
    """Return the trials of each stage, and of all, as a Markdown table."""
    rows = []
    for stage in (*STAGES, "all"):
        own = trials if stage == "all" else trials[trials["stage"] == stage]
        killed = own["fault"] == "kill"
        rows.append(
            {
                "stage": stage,
                "kills": killed.sum(),
                "of these, of one process": (killed & (own["victim"] != "everything")).sum(),
                "while a file changed": (killed & own["writing"]).sum(),
                "full disks": (~killed).sum(),
                "most epochs or videos repeated": own["lost"].max(),
                "same result": f"{own['failure'].isna().sum()} of {len(own)}",
            }
        )
    return pd.DataFrame(rows).to_markdown(index=False)


def main(folder: Path, table: Path) -> None:
    if shutil.disk_usage(folder).total > LARGEST_DISK:
        raise SystemExit(f"error: {folder} lies on a large file system, which would be filled: use `make torture`")
    trials = torture_all(folder)
    pd.DataFrame(trials).to_csv(table, index=False)
    print(summary(pd.read_csv(table)))
    failures = [trial for trial in trials if trial.failure or trial.lost > 1]
    print(f"wrote {table}: {len(failures)} of {len(trials)} trials failed", *failures, sep="\n")
    raise SystemExit(bool(failures))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
