"""Trainings with other seeds, each in a clone of the repository below ``runs/seeds/``, saved as DVC experiments.

``dvc exp run --temp`` forgets the stages of a run that is interrupted, and these have no entry in DVC's run cache. A
clone keeps them, and unfinished training too; it shares DVC's cache with the repository and leaves its results alone.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from dvc.repo import Repo

from tlee.errors import UserError
from tlee.paper.run_files import run_git
from tlee.paths import RUNS

#: Stages that are run, with all that these need.
TARGETS = ("guarantee", "explain")

_CLONES = RUNS / "seeds"
_SOURCES = ("params.yaml", "dvc.yaml", "*.dvc", "tlee", "notebooks")
_RESULTS = ("dvc.lock", "results")
_AGAIN = "what is finished is kept: run the same command again"


def find_experiment(seed: int) -> str | None:
    """Return the git revision of the experiment ``seed<seed>`` of the last commit, if there is one."""
    return git("for-each-ref", "--format=%(objectname)", _reference(seed)).strip() or None


def train(seed: int) -> None:
    """Run the pipeline of the last commit with ``seed``, unless its experiment exists; continue if it was interrupted.

    Raises ``UserError`` if sources are not committed, or the run fails or is interrupted.
    """
    if changed := git("status", "--porcelain", "--", *_SOURCES):
        raise UserError(f"{changed.split()[1]} is not committed, but seeds are trained on the last commit: commit it")
    if find_experiment(seed):
        return
    clone, reference = _clone(seed), _reference(seed)
    git("update-ref", "-d", reference, folder=clone)
    if data := [path.name for path in clone.glob("*.dvc") if path.is_file()]:
        _dvc(clone, "checkout", "--quiet", *data)
    _dvc(clone, "repro", *TARGETS)
    _dvc(clone, "exp", "run", "--quiet", "--name", _name(seed), *TARGETS)  # runs nothing: it saves the experiment
    git("fetch", "--quiet", str(clone), f"+{reference}:{reference}")


def git(*arguments: str, folder: Path = Path()) -> str:
    """Return the output of a git command. Raises ``UserError`` with git's message if it fails."""
    done = run_git(*arguments, folder=folder)
    if done.returncode:
        message = " ".join(done.stderr.decode(errors="replace").split())
        raise UserError(f"`git {arguments[0]}` failed ({message}): seeds need a git repository with a commit")
    return done.stdout.decode()


def _name(seed: int) -> str:
    return f"seed{seed}"


def _reference(seed: int) -> str:
    """Name of the git reference of the experiment, as DVC names it."""
    head = git("rev-parse", "HEAD").strip()
    return f"refs/exps/{head[:2]}/{head[2:]}/{_name(seed)}"


def _clone(seed: int) -> Path:
    """Return the clone for ``seed`` at the last commit, with the results that it had if it was at an earlier one."""
    clone, head = _CLONES / _name(seed), git("rev-parse", "HEAD").strip()
    if not clone.exists():
        partial = clone.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        git("clone", "--quiet", ".", str(partial))
        partial.rename(clone)
    if git("rev-parse", "HEAD", folder=clone).strip() != head:
        git("fetch", "--quiet", "origin", head, folder=clone)
        git("reset", "--quiet", head, folder=clone)
    kept = [f":!{path}" for path in _RESULTS]
    git("restore", "--source", head, "--worktree", "--", ".", *kept, folder=clone)
    git("clean", "-dfq", "--", ".", *kept, folder=clone)  # files that the commit no longer has
    _share_cache(clone)
    params = clone / "params.yaml"
    params.write_text(re.sub(r"(?m)^seed:.*$", f"seed: {seed}", params.read_text(encoding="utf-8")), encoding="utf-8")
    return clone


def _share_cache(clone: Path) -> None:
    local = Path(".dvc/config.local")
    if local.exists():
        shutil.copy(local, clone / local)
    with Repo() as repo, Repo(clone) as copy, copy.config.edit("local") as config:
        config["cache"]["dir"] = repo.cache.local_cache_dir


def _dvc(clone: Path, *arguments: str) -> None:
    """Run DVC in the clone, with the programs of this environment."""
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    process = subprocess.Popen(
        [sys.executable, "-m", "dvc", *arguments], cwd=clone, env=os.environ | {"PATH": programs}
    )
    try:
        failed = process.wait()
    except KeyboardInterrupt:
        process.wait()  # DVC was interrupted too, and records what is finished
        raise UserError(f"interrupted; {_AGAIN}") from None
    if failed:
        raise UserError(f"`dvc {arguments[0]}` failed in {clone}, for the reason above; {_AGAIN}")
