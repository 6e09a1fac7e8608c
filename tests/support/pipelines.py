"""A copy of the project with few clips and short training, in which the real pipeline runs."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from tlee.checksums import read_sealed

ROOT = Path(__file__).parents[2]
CLASSES = 8
CLIPS = {"train": [f"g{group:02d}_c{clip:02d}" for group in (9, 10, 11) for clip in (1, 2)], "test": ["g01_c01"]}
SMALL = {
    ("extract", "frames"): 4,
    ("pretrain", "joint"): False,
    ("pretrain", "epochs"): 3,
    ("pretrain", "batch_clips"): 8,
    ("branches", "epochs"): 1,
    ("branches", "frames"): 2,
    ("branches", "train_views"): 1,
    ("gates", "epochs"): 2,
    ("evaluate", "bootstrap"): 50,
    ("evaluate", "folds"): 2,
    ("latency", "repeats"): 1,
    ("latency", "warmup"): 1,
}


class Project:
    """A copy of the project's files in a folder of its own, with few clips and short training."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        for name in ("dvc.yaml", "params.yaml", "notebooks", ".dvc/config"):
            source, target = ROOT / name, folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
        (folder / "tlee").symlink_to(ROOT / "tlee")
        (folder / "results/stripped").mkdir(parents=True)
        for (section, key), value in SMALL.items():
            self.change(section, key, value)
        self._update({"reproducible": False})  # its two threads in each kernel would wait for the other tests
        self.copy_clips()
        self.call("git", "init", "--quiet")

    def copy_clips(self) -> None:
        videos, lists = self.folder / "data/UCF-101", self.folder / "data/ucfTrainTestlist"
        lists.mkdir(parents=True)
        shutil.copy(ROOT / "data/difficulty.csv", videos.parent)
        class_file = ROOT / "data/ucfTrainTestlist/classInd.txt"
        shutil.copy(class_file, lists)
        names = [line.split()[1] for line in class_file.read_text().splitlines()]
        for side, clips in CLIPS.items():
            listed = [f"{name}/v_{name}_{clip}.mp4" for name in names for clip in clips]
            (lists / f"{side}list01.txt").write_text("\n".join(listed))
            for clip in listed:
                (videos / clip).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / "data/UCF-101" / clip, videos / clip)

    def change(self, section: str, key: str, value: object) -> None:
        params = yaml.safe_load((self.folder / "params.yaml").read_text())
        self._update({section: params[section] | {key: value}})

    def _update(self, settings: dict[str, object]) -> None:
        path = self.folder / "params.yaml"
        path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | settings))

    def start(self, *command: str) -> subprocess.Popen:
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def call(self, *command: str, expect: int = 0) -> str:
        process = self.start(*command)
        output, _ = process.communicate(timeout=400)
        assert (process.returncode == 0) == (expect == 0), output
        return output

    def run_cells(self, *notebooks: str) -> None:
        """Run notebooks without DVC, papermill and kernels, whose imports take longer than so few clips."""
        self.call("env", f"PYTHONPATH={ROOT / 'tests'}", sys.executable, "-m", "support.cells", *notebooks)

    def would_run(self) -> set[str]:
        """The stages that ``dvc repro`` would run, if all that they make were new."""
        status = json.loads(self.call("dvc", "status", "--json"))
        return {stage.split("@")[0] for stage in status}

    def metrics(self, stage: str) -> dict:
        return read_sealed(self.folder / f"results/metrics/{stage}.json")

    def contents(self) -> dict[str, str]:
        """Digests of all results but executed notebooks, times, and TorchScript, which differs from run to run."""
        return {
            name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(self.folder.glob("results/**/*.*"))
            if not re.search(
                r"latency|notebooks/|edge/.*(\.pt|bundle\.json)$", name := str(path.relative_to(self.folder))
            )
            and path.is_file()
        }
