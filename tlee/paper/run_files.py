"""The small files of a run, from the work tree or from a revision of git, and their content."""

import json
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError

from tlee.checksums import KEY, unsealed
from tlee.errors import UserError, one_line
from tlee.paths import LOCK, METRICS

PARAMS, DATA, PIPELINE = Path("params.yaml"), Path("data.dvc"), Path("dvc.yaml")

Metrics = dict[str, dict[str, Any]]  #: content of ``results/metrics/<name>.json``, by name


class Entry(BaseModel):
    """An input or output of a stage, as DVC records it."""

    path: str
    md5: str | None = None
    size: int = 0


class Stage(BaseModel):
    """A stage that has been run, in ``dvc.lock``."""

    deps: list[Entry] = []
    outs: list[Entry] = []
    params: dict[str, dict[str, Any]] = {}

    @property
    def settings(self) -> dict[str, Any]:
        """Parameters that the stage ran with, by dotted key."""
        return flat(self.params.get(PARAMS.name, {}))


_STAGES = TypeAdapter(dict[str, Stage])


class Files(Protocol):
    """Files of one run; paths are relative to the project's root, which is the working folder."""

    @property
    def title(self) -> str: ...

    def read(self, path: Path) -> str | None:
        """Return the text of a file, None if there is no such file; ``ValueError`` if it is not UTF-8."""

    def names(self, folder: Path) -> list[Path]:
        """Return the files in ``folder`` and below it, sorted; none if there is no such folder."""


@dataclass(frozen=True)
class WorkTree:
    title: str = "the work tree"

    def read(self, path: Path) -> str | None:
        try:
            return path.read_bytes().decode()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None

    def names(self, folder: Path) -> list[Path]:
        return sorted(path for path in folder.rglob("*") if path.is_file())


@dataclass(frozen=True)
class Revision:
    """The files that git keeps at ``commit``."""

    title: str
    commit: str

    @classmethod
    def find(cls, name: str) -> "Revision":
        """Find a revision by its name in git; raises ``UserError`` if there is none, or no repository."""
        inside = run_git("rev-parse", "--git-dir")
        if inside.returncode:
            reason = inside.stderr.decode(errors="replace").strip().removeprefix("fatal: ").partition("\n")[0]
            raise UserError(
                f"there is no committed run to compare with ({one_line(reason)}): work in a clone of the kit"
            )
        found = run_git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
        if found.returncode:
            raise UserError(f"git knows no revision `{one_line(name)}`: `git log` and `git tag` list revisions")
        commit = found.stdout.decode().strip()
        return cls(name if commit.startswith(name) else f"{name} ({commit[:7]})", commit)

    def read(self, path: Path) -> str | None:
        found = run_git("cat-file", "blob", f"{self.commit}:./{path.as_posix()}")
        return None if found.returncode else found.stdout.decode()

    def names(self, folder: Path) -> list[Path]:
        found = run_git("ls-tree", "-r", "-z", "--name-only", self.commit, f"{folder.as_posix()}/")
        return sorted(Path(name) for name in found.stdout.decode().split("\0") if name)


def run_git(*arguments: str, folder: Path = Path()) -> subprocess.CompletedProcess[bytes]:
    """Run a git command in ``folder``, whether it fails or not; raise ``UserError`` if there is no git."""
    try:
        return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, check=False)
    except FileNotFoundError:
        raise UserError("git is not installed, with which the committed run is read: install it") from None


def read_metrics(files: Files) -> tuple[Metrics, list[Path]]:
    """Read all metrics of a run; return them, and the files that are damaged.

    Those of older revisions have no checksum.
    """
    metrics: Metrics = {}
    damaged = []
    for path in files.names(METRICS):
        try:
            content = json.loads(files.read(path) or "")
            if KEY in content or isinstance(files, WorkTree):
                content = unsealed(content)
            metrics[path.stem] = dict(content)
        except (ValueError, TypeError, RecursionError):
            damaged.append(path)
    return metrics, damaged


def read_yaml(files: Files, path: Path) -> dict[str, Any]:
    """Read a file of parameters or of DVC; empty if it is missing. Raises ``UserError`` if it is damaged."""
    try:
        content = _parse_yaml(files.read(path) or "{}")
    except (ValueError, yaml.YAMLError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise _damaged(path, files)
    return content


@lru_cache(maxsize=16)
def _parse_yaml(text: str) -> Any:
    """Parse YAML, which is slow; the same files are read several times, and their content is not changed."""
    return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # of libyaml, if PyYAML was built with it


def read_stages(files: Files) -> dict[str, Stage]:
    """Read what DVC has recorded of each stage; empty if none has been run. Raises ``UserError`` if it is damaged.

    DVC keeps the record of stages that the pipeline no longer has: these are left out.
    """
    try:
        recorded = _STAGES.validate_python(read_yaml(files, LOCK).get("stages", {}))
    except ValidationError:
        raise _damaged(LOCK, files) from None
    pipeline = read_yaml(files, PIPELINE).get("stages")
    return {name: stage for name, stage in recorded.items() if pipeline is None or name in pipeline}


def flat(nested: dict[str, Any]) -> dict[str, Any]:
    """Flatten nested sections to dotted keys."""
    return pd.json_normalize(nested).astype(object).iloc[0].to_dict()


def changed_parameters(stage: Stage, settings: dict[str, Any]) -> dict[str, Any]:
    """Return the values with which ``stage`` ran, by dotted key, of parameters that ``settings`` have otherwise.

    Values are compared as text: DVC writes ``0.00001`` as ``1e-05``, which is text in YAML 1.1.
    """
    return {key: value for key, value in stage.settings.items() if str(settings.get(key)) != str(value)}


def read_data(files: Files) -> list[Entry]:
    """Read the hash of the data set that DVC keeps; none if there is no ``data.dvc``."""
    try:
        return Stage.model_validate(read_yaml(files, DATA)).outs
    except ValidationError:
        raise _damaged(DATA, files) from None


def _damaged(path: Path, files: Files) -> UserError:
    return UserError(f"{path} of {files.title} is damaged: `git checkout {path}` brings the committed one back")
