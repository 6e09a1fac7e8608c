"""Damage files of every format at random and load them, in a process that may die or hang.

``python -m support.fuzzing FORMAT FIRST COUNT SEED`` runs cases and prints a line of JSON before and after each.
"""

import contextlib
import io
import json
import os
import queue
import random
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

TESTS = Path(__file__).parents[1]
LIMIT = 5.0  #: seconds of a case
START = 60.0  #: seconds until the first case of a process
SAME, REFUSED, CHANGED = "same", "refused", "changed"  #: results that are no failure; the last is that of no checksum


class Case(NamedTuple):
    """Result of a mutation: one of those above, or a failure with its details."""

    format: str
    number: int
    result: str
    detail: str


def mutate(content: bytes, seed: str) -> bytes:
    """Change one to twenty bytes, half of the time among the first 512, where headers are.

    Half of the time only low bits change, so that text remains text.
    """
    rng, damaged = random.Random(seed), bytearray(content)
    end, bits = rng.choice((len(content), min(512, len(content)))), rng.choice((256, 16))
    for _ in range(rng.randint(1, 20)):
        damaged[rng.randrange(end)] ^= rng.randrange(1, bits)
    return bytes(damaged)


# --- the process that loads damaged files --------------------------------------------------------------


def work(jobs: list[tuple[str, int, int]], seed: int) -> None:
    """Run the cases ``first`` to ``end`` of each format in ``jobs``, and print what comes of them."""
    sys.modules.setdefault("rfc3987_syntax", None)  # as in tests/conftest.py
    from support.formats import FORMATS

    def report(*values: object) -> None:
        os.write(output, (json.dumps(values) + "\n").encode())

    output = os.dup(1)
    os.dup2(2, 1)  # messages of libraries
    for name, first, end in jobs:
        report("make", name, end - 1)  # the cases that are lost if this fails
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            files = FORMATS[name].make()
            good = {path: path.read_bytes() for path in files}
            original = _load(name, FORMATS)
            for path, content in good.items():
                path.write_bytes(content)
            for number in range(first, end):
                label = f"{seed} {name} {number}"
                path = random.Random(label).choice(files)
                path.write_bytes(mutate(good[path], label))
                report("begin", name, number)
                report("end", name, number, *_attempt(name, FORMATS, original, path))
                for each, content in good.items():
                    if not each.exists() or each == path or FORMATS[name].parts:
                        each.write_bytes(content)


def _load(name: str, formats: dict) -> object:
    with contextlib.redirect_stdout(io.StringIO()):
        return formats[name].load()


def _attempt(name: str, formats: dict, original: object, path: Path) -> tuple[str, str]:
    from tlee.edge.runner import RunnerError
    from tlee.errors import UserError

    kind = formats[name]
    try:
        content = _load(name, formats)
    except (UserError, RunnerError) as error:
        message = str(error)
        if "\n" in message or (kind.checked and path.stem not in message):
            return "message", message
        return REFUSED, message
    except ValueError as error:
        documented = not kind.checked and name.startswith(("clip", "folder"))
        return (REFUSED if documented else "traceback"), f"{type(error).__name__}: {error}"
    except BaseException as error:
        return "traceback", f"{type(error).__name__}: {error} {traceback.format_exc()[-400:]}"
    if not kind.checked:
        return CHANGED, ""
    if kind.parts:
        return (SAME if all(part in original for part in content) else "silent"), ""
    return (SAME if content == original else "silent"), ""


# --- the process that watches it -----------------------------------------------------------------------


def run_cases(counts: dict[str, int], seed: int) -> Iterator[Case]:
    """Yield the result of ``counts`` cases of each format; a process that dies or hangs is replaced."""
    jobs = [(name, 0, count) for name, count in counts.items() if count]
    while jobs:
        for case in _run_process(jobs, seed):
            jobs = _after(jobs, case)
            yield case


def _after(jobs: list[tuple[str, int, int]], case: Case) -> list[tuple[str, int, int]]:
    rest = jobs[[name for name, _, _ in jobs].index(case.format) :]
    name, _, end = rest[0]
    return [(name, case.number + 1, end), *rest[1:]] if case.number + 1 < end else rest[1:]


def _run_process(jobs: list[tuple[str, int, int]], seed: int) -> Iterator[Case]:
    """Yield the cases of one process; one in which it dies or hangs is a ``signal``, an ``exit`` or a ``hang``."""
    command = [sys.executable, "-m", "support.fuzzing", json.dumps(jobs), str(seed)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)]), "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryFile() as messages:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=messages, text=True, env=environment)
        lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=_copy_lines, args=(process.stdout, lines), daemon=True).start()
        begun, event = None, "start"
        try:
            while line := lines.get(timeout=LIMIT if event == "begin" else START):
                event, *values = json.loads(line)
                begun = values
                if event == "end":
                    begun = None
                    yield Case(*values)
            died = "signal" if process.wait() < 0 else "exit"
        except queue.Empty:
            died = "hang"
        finally:
            process.kill()
            process.wait()
        if begun or process.returncode:
            messages.seek(0)
            text = messages.read().decode(errors="replace")[-500:]
            yield Case(*(begun or [jobs[0][0], jobs[0][2] - 1]), died, f"status {process.returncode}: {text}")


def _copy_lines(stream: IO[str], lines: queue.Queue[str]) -> None:
    for line in stream:
        lines.put(line)
    lines.put("")


if __name__ == "__main__":
    work(json.loads(sys.argv[1]), int(sys.argv[2]))
