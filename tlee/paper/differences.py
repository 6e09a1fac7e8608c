"""Differences between two runs that can explain different numbers: parameters, data, code, and the environment."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tlee.environment import ENVIRONMENT
from tlee.paper.run_files import PARAMS, Entry, Files, Stage, flat, read_data, read_stages, read_yaml
from tlee.paths import CODE, EDGE, FIGURES, FRAMES, METRICS, NOTEBOOKS, PLOTS, STRIPPED

#: Outputs with times, pictures or code; and what ONNX Runtime computes, whose instruction sets are not pinned.
NOT_COMPARED = (
    *(NOTEBOOKS, FIGURES, STRIPPED, CODE, EDGE, PLOTS / "latency"),
    *(METRICS / "edge.json", METRICS / "latency.json"),
)

_SHORT = 8  # digits of a hash
_NAMED = 3  # modules that are named


class Difference(NamedTuple):
    kind: str  #: such as ``seed`` or ``processor``, for the verdict
    name: str
    committed: str
    yours: str


#: Kind of each entry of the environment; those of packages are ``versions``, and those of variables ``settings``.
_KINDS = {
    "processor": "processor",
    "instruction sets": "processor",
    "vector code": "processor",
    "accelerator": "accelerator",
    "cores": "number of cores",
    "system": "operating system",
    "python": "versions",
    "packages": "versions",
    "settings": "settings",
}


def find_differences(committed: Files, yours: Files) -> list[Difference]:
    """List what differs between two runs, the seed first; raises ``UserError`` if a file is damaged."""
    return [
        *_parameters(committed, yours),
        *_data(committed, yours),
        *_code(committed, yours),
        *_environment(committed, yours),
    ]


def first_other_output(committed: Files, yours: Files) -> tuple[str, str] | None:
    """Return the first stage, and its output, with other bits in two runs; None if all have the same.

    Outputs in ``NOT_COMPARED`` are left out, and those that only one run has.
    """
    mine = {out.path: out.md5 for stage in read_stages(yours).values() for out in stage.outs}
    for name, stage in read_stages(committed).items():
        for out in stage.outs:
            if is_compared(out) and mine.get(out.path, out.md5) != out.md5:
                return name, out.path
    return None


def is_compared(out: Entry) -> bool:
    return not any(Path(out.path).is_relative_to(folder) for folder in NOT_COMPARED)


def _parameters(committed: Files, yours: Files) -> Iterator[Difference]:
    theirs, mine = (flat(read_yaml(files, PARAMS)) for files in (committed, yours))
    for key in sorted(theirs.keys() | mine.keys(), key=lambda key: (key != "seed", key)):
        if (key in theirs, str(theirs.get(key))) != (key in mine, str(mine.get(key))):
            kind = "seed" if key == "seed" else "parameters"
            yield Difference(kind, key, *(str(each[key]) if key in each else "absent" for each in (theirs, mine)))


def _data(committed: Files, yours: Files) -> Iterator[Difference]:
    for name, hashes in {
        "data set": [_hashes(read_data(files)) for files in (committed, yours)],
        "frames": [_hashes(_frames(read_stages(files))) for files in (committed, yours)],
    }.items():
        if hashes[0] != hashes[1]:
            yield Difference("data", name, *hashes)


def _frames(stages: dict[str, Stage]) -> list[Entry]:
    return [out for stage in stages.values() for out in stage.outs if out.path == FRAMES.as_posix()]


def _hashes(entries: list[Entry]) -> str:
    return " ".join((entry.md5 or "")[:_SHORT] for entry in entries) or "absent"


def _code(committed: Files, yours: Files) -> Iterator[Difference]:
    """Yield the modules that the stages used, if their digests differ, in one row."""
    theirs, mine = (_modules(files) for files in (committed, yours))
    if changed := sorted(name for name in theirs.keys() | mine.keys() if theirs.get(name) != mine.get(name)):
        named = ", ".join(changed[:_NAMED]) + (f" and {len(changed) - _NAMED} more" if len(changed) > _NAMED else "")
        yield Difference("code", "code", "", f"other code in {named}")


def _modules(files: Files) -> dict[str, str]:
    texts = [files.read(path) or "" for path in files.names(CODE)]
    return {name: digest for text in texts for digest, _, name in (line.partition("  ") for line in text.splitlines())}


def _environment(committed: Files, yours: Files) -> Iterator[Difference]:
    """Yield the entries of the environments that differ; stages of one run may have run in several."""
    theirs, mine = (_recorded(files) for files in (committed, yours))
    if not theirs and not mine:
        return
    if not theirs or not mine:
        states = ("recorded" if each else "not recorded" for each in (theirs, mine))
        yield Difference("environment (not recorded)", "environment", *states)
        return
    order = {name: rank for rank, name in enumerate(_KINDS)}
    for key in sorted(theirs.keys() | mine.keys(), key=lambda key: (order.get(key[0], len(order)), key)):
        if theirs.get(key) != mine.get(key):
            values = (" or ".join(sorted(each.get(key, {"absent"}))) for each in (theirs, mine))
            yield Difference(_KINDS.get(key[0], key[0]), key[-1], *values)


def _recorded(files: Files) -> dict[tuple[str, ...], set[str]]:
    """Return the values of each entry over the stages of a run, by the path of the entry."""
    stages = {path.stem for path in files.names(CODE)}
    found: dict[tuple[str, ...], set[str]] = {}
    for path in files.names(ENVIRONMENT):
        if path.stem not in stages:
            continue
        try:
            content = dict(json.loads(files.read(path) or ""))
        except (ValueError, TypeError, RecursionError):
            continue
        for key, value in content.items():
            inner = {(key, name): text for name, text in value.items()} if isinstance(value, dict) else {(key,): value}
            for name, text in inner.items():
                found.setdefault(name, set()).add(" ".join(text) if isinstance(text, list) else str(text))
    return found
