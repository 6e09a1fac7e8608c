"""Files of TensorRT's engines, on stand-ins: TensorRT is given only those that the runner wrote for this graph."""

import errno
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from support import tensorrt_fake
from support.bundles import small_bundle
from support.refusals import one_line

from tlee.edge.runner import Runner, RunnerError, sealed

VERSION, OTHER_VERSION = "10.3.0", "10.4.0"


def install(version: str, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    library = tensorrt_fake.Cudart()
    module = tensorrt_fake.tensorrt(library, version)
    monkeypatch.setattr("tlee.edge.runner.load_library", lambda *_: library)
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    return module


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle without engines."""
    return small_bundle(tmp_path_factory.mktemp("bundle"), videos=4)


@pytest.fixture(scope="module")
def with_engines(made: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[bytes]]:
    """The same with them, and the engines that TensorRT loads from it."""
    folder = Path(shutil.copytree(made, tmp_path_factory.mktemp("engines") / "bundle"))
    with pytest.MonkeyPatch.context() as patch:
        module = install(VERSION, patch)
        Runner(folder, "tensorrt")
    return folder, module.loaded


@pytest.fixture
def folder(with_engines: tuple[Path, list[bytes]], tmp_path: Path) -> Path:
    return Path(shutil.copytree(with_engines[0], tmp_path / "bundle"))


@pytest.fixture
def engines(with_engines: tuple[Path, list[bytes]]) -> list[bytes]:
    return with_engines[1]


@pytest.fixture
def tensorrt(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    return install(VERSION, monkeypatch)


def plans(folder: Path) -> list[Path]:
    return sorted((folder / "engines").iterdir())


def flip(position: int) -> Callable[[bytes], bytes]:
    """Return a function that flips a bit; the position is a share of the file in thousandths."""

    def damage(content: bytes) -> bytes:
        index = position * (len(content) - 1) // 1000
        return content[:index] + bytes([content[index] ^ 1]) + content[index + 1 :]

    return damage


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "cut by a byte": lambda content: content[:-1],
    "cut in the middle": lambda content: content[: len(content) // 2],
    "cut in its header": lambda content: content[:20],
    "one byte more": lambda content: content + b"\0",
    "without header": lambda content: content.split(b"\n", 1)[1],
    "no JSON": lambda content: b"[" * 100_000 + content,
    "no object": lambda content: b"[3]\n" + content,
    "sealed, but of another kind": lambda content: json.dumps(sealed({})).encode() + b"\n",
    **{f"bit flipped at {position / 10} %": flip(position) for position in (0, 3, 10, 500, 999, 1000)},
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_engine_is_built_again_with_one_line(folder, engines, tensorrt, capsys, damage):
    path = plans(folder)[0]
    good = path.read_bytes()
    path.write_bytes(damage(good))
    Runner(folder, "tensorrt")
    assert tensorrt.loaded == engines
    assert len(tensorrt.built) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{path} ")
    assert "building" in line
    assert path.read_bytes() == good


def test_the_engine_of_another_graph_is_built_again(folder, engines, tensorrt, capsys):
    first, second = [path for path in plans(folder) if path.name.startswith("prefix")][:2]
    shutil.copy(first, second)
    Runner(folder, "tensorrt")
    assert tensorrt.loaded == engines
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{second} was built from another graph")


def test_the_engine_of_another_version_is_built_again_even_under_this_name(folder, engines, monkeypatch, capsys):
    for path in plans(folder):
        path.rename(path.with_name(path.name.replace(VERSION, OTHER_VERSION)))
    module = install(OTHER_VERSION, monkeypatch)
    Runner(folder, "tensorrt")
    assert len(module.built) == len(plans(folder))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(module.built)
    assert all("version of TensorRT: building" in line for line in lines)
    Runner(folder, "tensorrt")
    assert len(module.built) == len(plans(folder))


def test_the_engine_of_another_device_is_built_again(folder, tensorrt, monkeypatch):
    monkeypatch.setattr("tlee.edge.runner.device_name", lambda: "another  board")
    Runner(folder, "tensorrt")
    assert len(tensorrt.built) == len(tensorrt.loaded)
    monkeypatch.setattr("tlee.edge.runner.device_name", lambda: "another board")  # the same name of the file
    Runner(folder, "tensorrt")
    assert len(tensorrt.built) == len(tensorrt.loaded)


def test_an_engine_that_was_not_finished_is_ignored(made, engines, tensorrt, tmp_path, monkeypatch, capsys):
    """The runner is killed before the third engine has its name."""
    folder, finished = Path(shutil.copytree(made, tmp_path / "bundle")), []

    def replace(path: Path, target: Path) -> Path:
        if len(finished) == 2:
            path.write_bytes(path.read_bytes()[:100])
            raise KeyboardInterrupt
        finished.append(target)
        return path.rename(target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        with pytest.raises(KeyboardInterrupt):
            Runner(folder, "tensorrt")
    assert [path.suffix for path in plans(folder)].count(".unfinished") == 1
    tensorrt.loaded.clear()
    capsys.readouterr()
    Runner(folder, "tensorrt")
    assert tensorrt.loaded == engines
    assert capsys.readouterr().err.count("once; this can take minutes") == len(plans(folder)) - 2
    assert {path.suffix for path in plans(folder)} == {".plan"}


def test_an_engine_that_cannot_be_written_is_one_line_and_leaves_nothing(made, tensorrt, tmp_path, monkeypatch):
    def fail(path: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    folder = Path(shutil.copytree(made, tmp_path / "bundle"))
    monkeypatch.setattr(Path, "replace", fail)
    one_line(lambda: Runner(folder, "tensorrt"), ".plan", "No space left", "free space", error=RunnerError)
    assert plans(folder) == []


def test_an_engine_that_cannot_be_read_is_one_line(folder, tensorrt):
    path = plans(folder)[0]
    path.unlink()
    path.mkdir()
    one_line(lambda: Runner(folder, "tensorrt"), path, "delete it", error=RunnerError)
