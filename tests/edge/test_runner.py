"""The runner by itself: it needs nothing of the kit, and runs on any of its backends."""

import ast
import hashlib
import importlib
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support import tensorrt_fake
from support.bundles import as_pixels, bundle_of, small_bundle, values_amid
from support.margins import policy_amid
from support.refusals import one_line
from support.small import T, in_place_of_resnet18, random_clips, random_network, small_params

from tlee.checksums import save_sealed
from tlee.edge.runner import (
    Runner,
    RunnerError,
    board_power,
    check_results,
    clocks,
    describe_device,
    device_name,
    find_backend,
    load_library,
    main,
    measure_power,
    summarise,
)
from tlee.policies.given import RandomExits

pytestmark = pytest.mark.slow

VIDEOS = 4
SOURCE = Path(inspect.getfile(Runner))

#: Networks that differ in the tensors between their graphs.
KINDS = {
    "default": {},
    "visited, mean, per step": {"accumulate": "visited", "reuse": "mean", "readout": "per_step"},
    "random exits": {"method": "random"},
    "values": {},
    "values, visited, per step": {"accumulate": "visited", "readout": "per_step"},
    "temporal shift": {"backbone": "mobilenet_v2_tsm", "input_size": 32, "num_branches": 1, "crm_scale": 3},
}


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with in_place_of_resnet18():
        model = random_network(small_params(**KINDS[request.param]))
        clips = as_pixels(random_clips(model, VIDEOS))
        if request.param == "random exits":
            policy = RandomExits(0.3, seed=0)
        else:
            policy = (values_amid if "values" in request.param else policy_amid)(model, clips)
        return bundle_of(model, policy, tmp_path_factory.mktemp("kind"), VIDEOS)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_bundle(tmp_path_factory.mktemp("bundle"), VIDEOS)


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy of the bundle that a test may change."""
    return Path(shutil.copytree(made, tmp_path / "bundle"))


# --- standalone -----------------------------------------------------------------------------------

#: Names of the standard library that are newer than Python 3.6.
TOO_NEW = {
    *(
        "perf_counter_ns",
        "time_ns",
        "monotonic_ns",
        "removeprefix",
        "removesuffix",
        "fromisoformat",
        "get_running_loop",
    ),
    *(
        "dataclass",
        "dataclasses",
        "nullcontext",
        "cached_property",
        "cache",
        "is_relative_to",
        "missing_ok",
        "readlink",
    ),
    *("capture_output", "text", "dirs_exist_ok", "prod", "dist", "isqrt", "comb", "perm", "pairwise", "batched"),
}


def test_it_is_python_3_6():
    tree = ast.parse(SOURCE.read_text(), feature_version=(3, 6))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and not (isinstance(node.value, ast.Name) and node.value.id == "np"):
            assert node.attr not in TOO_NEW, f"line {node.lineno}"
        if isinstance(node, ast.keyword):
            assert node.arg not in TOO_NEW, f"line {node.value.lineno}"
        if isinstance(node, ast.arg):
            assert node.annotation is None  # Python 3.6 would evaluate it


def test_it_imports_the_standard_library_and_numpy_and_runtimes_only_when_used():
    tree = ast.parse(SOURCE.read_text())
    named = {name.name for node in tree.body if isinstance(node, ast.Import) for name in node.names}
    named |= {node.module for node in tree.body if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in named} - set(sys.stdlib_module_names) == {"numpy"}
    inside = {node.names[0].name for node in ast.walk(tree) if isinstance(node, ast.Import) and node not in tree.body}
    assert inside == {"tensorrt", "onnxruntime", "torch"}


AS_SCRIPT = """
import runpy, sys
sys.argv = ["runner.py", "--backend", "onnxruntime", "--warmup", "1", "--repeats", "1"]
runpy.run_path("runner.py", run_name="__main__")
print(*sorted({name.split(".")[0] for name in sys.modules}))
"""


def test_it_runs_as_a_script_without_the_kit(folder, tmp_path):
    done = subprocess.run(
        [sys.executable, "-I", "-c", AS_SCRIPT], cwd=folder, capture_output=True, text=True, check=True
    )
    modules = set(done.stdout.split())
    assert {"numpy", "onnxruntime"} < modules
    assert not modules & {"tlee", "torch", "onnx", "pandas", "tensorrt"}
    result = json.loads((folder / "latency.json").read_text())
    assert result["bundle"] == json.loads((folder / "bundle.json").read_text())["id"]
    assert result["check"]["same"] == VIDEOS
    assert result["runtime"]["backend"] == "onnxruntime"
    assert result["settings"] == {"warmup": 1, "repeats": 1}
    assert len(result["times"]["system"]) == 7 * VIDEOS
    assert f"{VIDEOS} videos, onnxruntime fp32" in done.stderr
    assert "real:" in done.stderr


OLD_PYTHON = os.environ.get("OLD_PYTHON")


@pytest.mark.skipif(not OLD_PYTHON, reason="OLD_PYTHON names no older Python with NumPy, ONNX Runtime and PyTorch")
@pytest.mark.parametrize("backend", ["onnxruntime", "torch"])
def test_it_runs_on_an_old_python(kind, backend, tmp_path):
    command = [OLD_PYTHON, "-W", "error", kind / "runner.py", "--backend", backend, "--output", tmp_path / "out.json"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["check"]["same"] == result["check"]["videos"] == VIDEOS
    assert tuple(map(int, result["device"]["python"].split("."))) < sys.version_info[:3]


def test_a_wrong_result_is_one_line_and_nothing_is_written(folder):
    about = json.loads((folder / "bundle.json").read_text())
    about["videos"][0] |= {"label": 7, "margin": 9.0}
    save_sealed(folder / "bundle.json", about)
    command = [sys.executable, "runner.py", "--backend", "onnxruntime", "--output", "out.json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert re.search(r"^error: .*0\.mp4 .*label \d, expected 7$", done.stderr.splitlines()[-1])
    assert "Traceback" not in done.stderr
    assert not (folder / "out.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bundle", "nowhere"], r"^error: nowhere .*bundle\.json .*: copy the bundle again$"),
        (["--backend", "tensorrt"], r"^error: .* cannot import tensorrt: install it, or use another Python$"),
        (["--backend", "onnxruntime", "--precision", "fp16"], r"^error: onnxruntime .*fp32, not in fp16$"),
        (
            ["--backend", "onnxruntime", "--repeats", "1", "--output", "nowhere/out.json"],
            r"^error: nowhere/out\.json .*: .* another file with --output$",
        ),
    ],
)
def test_a_run_that_is_impossible_ends_with_one_line(folder, monkeypatch, arguments, message):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(SystemExit) as caught:
        main(["--bundle", str(folder), *arguments])
    assert re.search(message, str(caught.value))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("option", ["--repeats", "--threads"])
@pytest.mark.parametrize("value", ["0", "-1", "many"])
def test_an_impossible_number_is_refused(folder, capsys, option, value):
    with pytest.raises(SystemExit):
        main(["--bundle", str(folder), option, value])
    assert f"error: argument {option}: invalid positive value: '{value}'" in capsys.readouterr().err


def test_a_manifest_of_another_version_is_one_line(folder):
    about = json.loads((folder / "bundle.json").read_text())
    del about["timing"], about["chunk"]
    save_sealed(folder / "bundle.json", about)
    one_line(lambda: Runner(folder), folder / "bundle.json", "timing, chunk", "export it again", error=RunnerError)


def test_a_machine_without_memory_is_one_line(folder, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("onnxruntime.InferenceSession", fail)
    with pytest.raises(SystemExit, match=r"^error: memory ran out: .*$"):
        main(["--bundle", str(folder), "--backend", "onnxruntime"])


def test_an_interrupted_run_is_one_line(folder, monkeypatch, tmp_path):
    def press(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tlee.edge.runner.time_systems", press)
    with pytest.raises(SystemExit, match=r"^interrupted: .*$"):
        main(["--bundle", str(folder), "--output", str(tmp_path / "out.json")])
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize(("backend", "suffix"), [("onnxruntime", ".onnx"), ("torch", ".pt")])
def test_a_graph_that_a_runtime_cannot_load_is_one_line(folder, backend, suffix):
    about = json.loads((folder / "bundle.json").read_text())
    first = about["exits"][0][0]["segments"]
    (folder / (first + suffix)).write_bytes(b"of another version")
    about["files"][first + suffix] = hashlib.sha256(b"of another version").hexdigest()
    save_sealed(folder / "bundle.json", about)
    with pytest.raises(SystemExit) as caught:
        main(["--bundle", str(folder), "--backend", backend])
    version = importlib.import_module(backend).__version__
    assert str(caught.value).startswith(f"error: {backend} {version} cannot load {folder / first} (")
    assert str(caught.value).endswith("): install another version of it, or use another runtime")
    assert "\n" not in str(caught.value)


def test_the_first_backend_that_can_be_imported_is_used(monkeypatch):
    for name in ("tensorrt", "onnxruntime", "torch"):
        monkeypatch.setitem(sys.modules, name, SimpleNamespace())
    for name in ("tensorrt", "onnxruntime", "torch"):
        assert find_backend().name == name
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(RunnerError, match=r"cannot import tensorrt or onnxruntime or torch: install"):
        find_backend()


def test_a_runtime_that_cannot_be_imported_for_any_reason_is_not_used(tmp_path, monkeypatch):
    (tmp_path / "tensorrt.py").write_text("raise OSError('libnvinfer.so.8: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    assert find_backend().name == "onnxruntime"
    one_line(lambda: find_backend("tensorrt"), "cannot import tensorrt", "install it", error=RunnerError)


def test_a_runtime_that_does_not_start_is_one_line(folder, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no kernel image is available for execution on the device\nmore")

    monkeypatch.setattr("torch.zeros", fail)
    expected = ("torch cannot be started", "no kernel image", "use another runtime")
    assert "more" not in one_line(lambda: Runner(folder, "torch"), *expected, error=RunnerError)


# --- PyTorch -------------------------------------------------------------------------------------------


def test_pytorch_decides_the_same(kind):
    runner = Runner(kind, "torch")
    assert check_results(runner).same == VIDEOS
    clip = runner.bundle.clip(0)
    other = Runner(kind, "onnxruntime").uncut
    np.testing.assert_allclose(runner.uncut.run(clip), other.run(clip), atol=1e-4)
    np.testing.assert_allclose(runner.uncut.features(clip, [0] * T), other.features(clip, [0] * T), atol=1e-4)


def test_torchscript_has_a_format_that_pytorch_1_10_reads_and_names_no_device(kind):
    for path in kind.glob("*.pt"):
        with zipfile.ZipFile(path) as archive:
            assert int(archive.read(f"{path.stem}/version")) <= 6
            for name in archive.namelist():
                assert not name.endswith(".py") or b"device" not in archive.read(name).replace(b"device=None", b"")


def test_torchscript_has_constant_sizes(kind):
    for path in kind.glob("*.pt"):
        assert "aten::size" not in str(torch.jit.load(path).inlined_graph), path.name


# --- TensorRT, on stand-ins ----------------------------------------------------------------------------


@pytest.fixture
def cudart(monkeypatch: pytest.MonkeyPatch) -> tensorrt_fake.Cudart:
    library = tensorrt_fake.Cudart()
    monkeypatch.setattr("tlee.edge.runner.load_library", lambda *_: library)
    return library


@pytest.fixture(params=["8.2.1.8", "10.3.0"])
def tensorrt(request, cudart, monkeypatch) -> SimpleNamespace:
    module = tensorrt_fake.tensorrt(cudart, request.param)
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    return module


@pytest.fixture
def engines(kind: Path) -> Iterator[Path]:
    """The folder of engines, which is deleted afterwards."""
    yield kind / "engines"
    shutil.rmtree(kind / "engines", ignore_errors=True)


def test_tensorrt_decides_the_same_with_the_latest_possible_execution(kind, engines, tensorrt, cudart):
    runner = Runner(kind)
    assert (runner.backend.name, runner.backend.precision) == ("tensorrt", "fp16")
    assert runner.backend.about == {"version": tensorrt.__version__, "runs_on": "GPU", "cuda": "10.2"}
    assert check_results(runner).same == VIDEOS
    other = Runner(kind, "onnxruntime").uncut
    for video in range(VIDEOS):
        clip = runner.bundle.clip(video)
        np.testing.assert_array_equal(runner.uncut.run(clip), other.run(clip))
        exit_depths = [0, runner.uncut.deepest, -1, 0]
        found, expected = runner.uncut.features(clip, exit_depths), other.features(clip, exit_depths)
        np.testing.assert_array_equal(found[[0, 1, 3]], expected[[0, 1, 3]])
    assert not cudart.queue


def test_engines_are_built_once_per_precision(folder, tensorrt, capsys):
    graphs = json.loads((folder / "bundle.json").read_text())["graphs"]
    heavy = sum(graph["kind"] in ("segments", "prefix", "chunk", "batch") for graph in graphs.values())
    assert 0 < heavy < len(graphs)
    Runner(folder, "tensorrt")
    assert sorted(tensorrt.built) == [""] * (len(graphs) - heavy) + ["FP16"] * heavy
    assert capsys.readouterr().err.count("building") == len(graphs)
    Runner(folder, "tensorrt")
    assert len(tensorrt.built) == len(graphs)
    Runner(folder, "tensorrt", "fp32")
    assert len(tensorrt.built) == len(graphs) + heavy
    assert {path.suffix for path in (folder / "engines").iterdir()} == {".plan"}


def test_the_gpu_is_not_waited_for_between_frames(folder, tensorrt, cudart):
    """The uncut network passes a frame while the one before is computed."""
    runner = Runner(folder, "tensorrt")
    waits = []
    cudart.cudaStreamSynchronize = lambda stream: waits.append(stream) or cudart._drain(len(cudart.queue))
    runner.uncut.run(runner.bundle.clip(0))
    assert len(waits) == 1
    decision = runner.engine.run(runner.bundle.clip(0))
    assert len(waits) == 1 + len(decision.segments_run) + 1  # the scores of each exit, and the logits


@pytest.mark.parametrize(
    ("part", "method", "result", "message"),
    [
        ("OnnxParser", "parse", False, r"^TensorRT .* read segments0-\d\.onnx \(error 0\): .*another --backend$"),
        ("Builder", "build_serialized_network", None, r"^TensorRT .* build segments0-\d: "),
        ("Runtime", "deserialize_cuda_engine", None, r"^TensorRT .* load .*\.plan: delete it"),
    ],
)
def test_a_failure_of_tensorrt_is_one_line(folder, tensorrt, monkeypatch, part, method, result, message):
    monkeypatch.setattr(getattr(tensorrt, part), method, lambda *_: result)
    with pytest.raises(RunnerError, match=message):
        Runner(folder, "tensorrt")


def test_a_graph_that_cannot_be_run_is_named(folder, tensorrt, cudart):
    runner = Runner(folder, "tensorrt")
    tensorrt.failing = True
    with pytest.raises(RunnerError, match=r"^TensorRT .* run segments0-\d: .*another --backend$"):
        check_results(runner)


def test_an_error_of_cuda_is_named(folder, tensorrt, cudart):
    cudart.cudaMalloc = lambda *_: 2
    with pytest.raises(RunnerError, match=r"cudaMalloc .*error 2.*another --backend$"):
        Runner(folder, "tensorrt")


def test_a_library_is_found_by_name_or_the_remedy_is_named(tmp_path):
    assert load_library("c", "").abs(-3) == 3
    with pytest.raises(RunnerError, match=r"^libnosuchthing\.so .*: add its folder to LD_LIBRARY_PATH$"):
        load_library("nosuchthing", str(tmp_path / "lib.so"))


# --- summaries -----------------------------------------------------------------------------------------


def test_a_summary_by_hand():
    times = {
        "system": ["full", "real"] * 3,
        "frames": [4, 2, 4, 1, 4, 4],
        "milliseconds": [8.0, 4.0, 8.0, 3.0, 16.0, 8.0],
        "preparation": [4.0, 2.0, 4.0, 1.0, 4.0, 4.0],
    }
    rows = {(row["system"], row["per"], row["with_preparation"]): row for row in summarise(times)}
    assert list(rows) == [
        (system, per, with_preparation)
        for system in ("full", "real")
        for per in ("video", "frame")
        for with_preparation in (False, True)
    ]
    assert rows["full", "video", False]["p50"] == 8
    assert rows["full", "video", True]["p50"] == 12
    assert rows["full", "frame", False]["p90"] == pytest.approx((8 + 0.8 * 8) / 4)  # between 8 and 16
    assert rows["real", "frame", False]["p50"] == 2  # of 2, 3 and 2
    assert rows["real", "frame", True]["p99"] == pytest.approx(3 + 0.98)
    assert rows["real", "video", False]["mean"] == 5


# --- power ---------------------------------------------------------------------------------------------

#: Lines of tegrastats that users have posted.
NANO = (
    "RAM 613/3964MB (lfb 634x4MB) SWAP 0/1982MB (cached 0MB) CPU [2%@102,1%@102,0%@102,0%@102] EMC_FREQ 0% "
    "GR3D_FREQ 0% PLL@39C CPU@40.5C PMIC@100C GPU@41C AO@46C thermal@41C POM_5V_IN 900/943 POM_5V_GPU 0/0 "
    "POM_5V_CPU 123/123"
)
TX2 = (
    "RAM 1345/7829MB (lfb 1290x4MB) SWAP 0/512MB (cached 0MB) CPU [2%@345,off,off,off,off,off] EMC_FREQ 13%@40 "
    "GR3D_FREQ 0%@114 APE 150 BCPU@35C MCPU@35C GPU@41C PLL@35C AO@35.5C Tboard@35C Tdiode@36C PMIC@100C thermal@35.5C "
    "VDD_IN 2003/2658 VDD_CPU 320/518 VDD_GPU 400/735 VDD_SOC 400/415 VDD_WIFI 0/0 VDD_DDR 240/348"
)
XAVIER = (
    "RAM 1903/15692MB (lfb 3251x4MB) CPU [1%@1190,1%@1190,2%@1190,0%@1190,0%@1190,0%@1190,0%@1190,0%@1190] EMC_FREQ 0% "
    "GR3D_FREQ 0% AO@32.5C GPU@32C Tboard@32C Tdiode@34.75C AUX@31.5C CPU@33.5C thermal@32.9C PMIC@100C GPU 0/0 "
    "CPU 216/216 SOC 864/864 CV 0/0 VDDRQ 144/144 SYS5V 1889/1889"
)
ORIN_NX = (
    "11-21-2023 10:59:23 RAM 2505/7775MB (lfb 1429x4MB) SWAP 0/3887MB (cached 0MB) CPU [2%@729,0%@729,off,off] "
    "EMC_FREQ 0%@2133 GR3D_FREQ 0%@[305] cpu@48.8C tj@49C gpu@47.5C VDD_IN 4940mW/4930mW VDD_CPU_GPU_CV 1124mW/1120mW "
    "VDD_SOC 1487mW/1480mW"
)
AGX_ORIN = (
    "RAM 1206/30623MB (lfb 6429x4MB) SWAP 0/15311MB (cached 0MB) CPU [1%@732,0%@729] GR3D_FREQ 0%@114 CPU@43.5C "
    "VDD_GPU_SOC 1592mW/1592mW VDD_CPU_CV -398mW/-398mW VIN_SYS_5V0 2624mW/2624mW NC 0mW/0mW "
    "VDDQ_VDD2_1V8AO 403mW/403mW NC 0mW/0mW"
)


@pytest.mark.parametrize(
    ("line", "power"),
    [
        (NANO, ("POM_5V_IN", 900)),
        (TX2, ("VDD_IN", 2003)),
        (XAVIER, ("GPU+CPU+SOC+CV+VDDRQ+SYS5V", 216 + 864 + 144 + 1889)),
        (ORIN_NX, ("VDD_IN", 4940)),
        (AGX_ORIN, ("VDD_GPU_SOC+VDD_CPU_CV+VIN_SYS_5V0+NC", 1592 - 398 + 2624)),
        ("RAM 613/3964MB (lfb 634x4MB) SWAP 0/1982MB (cached 0MB) CPU [2%@102,off] thermal@41C", None),
        ("", None),
    ],
)
def test_power_is_that_of_the_whole_board(line, power):
    assert board_power(line) == power


def tegrastats(folder: Path, line: str) -> str:
    """Write a program that prints ``line`` fifty times per second; return its path."""
    path = folder / "tegrastats"
    path.write_text(f"#!/bin/sh\nwhile true; do echo '{line}'; sleep 0.02; done\n")
    path.chmod(0o755)
    return str(path)


def test_energy_of_a_video_is_power_times_time(made, tmp_path):
    runner = Runner(made, "onnxruntime")
    power = measure_power(runner, tegrastats(tmp_path, NANO), seconds=0.2)
    assert (power.rail, power.idle_watts) == ("POM_5V_IN", pytest.approx(0.9))
    assert list(power.systems) == ["full", "full_batch", "depth_0", "depth_1", "real_chunked", "real"]
    for energy in power.systems.values():
        assert energy.watts == pytest.approx(0.9)
        assert 0 < energy.joules < 0.9 * 0.2
        assert energy.above_idle == pytest.approx(0)


def test_a_board_that_reports_no_power_has_none(made, tmp_path):
    runner = Runner(made, "onnxruntime")
    assert measure_power(runner, tegrastats(tmp_path, "RAM 613/3964MB"), seconds=0.1) is None


def test_energy_above_idle_is_that_of_the_work(made, monkeypatch):
    """The board takes 2 W when idle and 5 W at work."""

    class Board:
        rail = "VDD_IN"

        def __init__(self, _):
            self._calls = 0

        def mean(self, begin, end):
            self._calls += 1
            return 2.0 if self._calls == 1 else 5.0

        def close(self):
            pass

    monkeypatch.setattr("tlee.edge.runner.Power", Board)
    power = measure_power(Runner(made, "onnxruntime"), "tegrastats", seconds=0.02)
    assert power.idle_watts == 2
    for energy in power.systems.values():
        assert energy.above_idle == pytest.approx(0.6 * energy.joules)


# --- the device ----------------------------------------------------------------------------------------


def write_files(root: Path, contents: dict[str, str]) -> None:
    for name, content in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)


def test_a_board_is_described_by_its_name_release_power_mode_and_clocks(tmp_path, monkeypatch):
    cpu, gpu = "sys/devices/system/cpu", "sys/class/devfreq/57000000.gpu"
    write_files(
        tmp_path,
        {
            "proc/device-tree/model": "NVIDIA Jetson Nano Developer Kit\0",
            "etc/nv_tegra_release": "# R32 (release), REVISION: 7.1, GCID: 29818004, BOARD: t210ref\nmore\n",
            f"{cpu}/cpu0/cpufreq/scaling_cur_freq": "1479000\n",
            f"{cpu}/cpu0/cpufreq/scaling_max_freq": "1479000\n",
            f"{cpu}/cpu1/cpufreq/scaling_cur_freq": "102000\n",
            f"{cpu}/cpu1/cpufreq/scaling_max_freq": "1479000\n",
            f"{gpu}/cur_freq": "76800000\n",
            f"{gpu}/max_freq": "921600000\n",
            "sys/class/devfreq/1d84000.ufshc/cur_freq": "1\n",
            "bin/nvpmodel": "#!/bin/sh\necho 'NVPM WARN: fan mode is not set!'\necho 'NV Power Mode: MAXN'\necho 0\n",
        },
    )
    (tmp_path / "bin/nvpmodel").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    about = describe_device(tmp_path)
    assert about.name == "NVIDIA Jetson Nano Developer Kit"
    assert about.release.startswith("R32 (release), REVISION: 7.1")
    assert about.power_mode == "MAXN"
    assert clocks(tmp_path) == ([[1479, 1479], [102, 1479]], [[76.8, 921.6]])


def test_another_machine_is_described_by_its_processor(tmp_path, monkeypatch):
    write_files(tmp_path, {"proc/cpuinfo": "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nflags\t: fpu\n"})
    monkeypatch.setenv("PATH", str(tmp_path))
    about = describe_device(tmp_path)
    assert about.name == "Some CPU @ 2 GHz"
    assert about.release == about.power_mode == ""
    assert clocks(tmp_path) == ([], [])
    assert device_name(tmp_path / "nowhere")
