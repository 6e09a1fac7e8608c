"""Run a bundle of exported graphs with real exits, check its results and time it, on a Jetson or any other machine.

``python3 runner.py``, in the folder of the bundle, writes ``latency.json``; ``--help`` lists the options. This file is
standalone: it is copied into the bundle, imports nothing of the kit, and runs on Python 3.6 or newer with NumPy and one
of TensorRT (8.2 or newer), ONNX Runtime and PyTorch (1.10 or newer). The kit imports it to time the machine it runs on.
"""

import argparse
import ctypes
import ctypes.util
import hashlib
import importlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import threading
import time
import typing
import zlib
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import numpy as np

MANIFEST = "bundle.json"
CLIPS = "clips.npy"
OUTPUT = "latency.json"

# --- graphs and their tensors ----------------------------------------------------------------------------


class Kind:
    """Kinds of graphs."""

    SEGMENTS = "segments"  #: segments from one exit to the next, and the head there
    READOUT = "readout"  #: reuse, classifier and gate
    CHUNK = "chunk"  #: segments and head, for the first few frames in one call
    PREFIX = "prefix"  #: all segments up to a depth, and the head there
    BATCH = "batch"  #: the full network, for all frames in one call
    VIDEO_CLASSIFIER = "video_classifier"  #: reuse over all frames, then the classifier


# Graphs are connected by the names of their tensors.
FRAME = "frame"  #: a time step, ``[1, 3, S, S]`` or ``[1, 3, L, S, S]``
CLIP = "clip"  #: all time steps of a video, ``[T, ...]``
CHUNK = "chunk"  #: the first few of them
FEATURE = "feature"  #: an exit feature, ``[1, D]``
FEATURES = "features"  #: one feature per frame, ``[T, D]``
PAST = "past"  #: ``z`` after the frames before, ``[1, D]``
BASE = "base"  #: ``z`` that the feature is combined with, ``[1, D]``; used where it can be that of the exit before
COUNT = "count"  #: number of features in that ``z``, ``[1, 1]``
Z = "z"  #: ``z`` of this exit, ``[1, D]``
LOGITS = "logits"  #: ``[1, C]``
PROBABILITIES = "probabilities"  #: of the classes at this exit, ``[1, C]``
BEFORE = "before"  #: those at the exit by which the frame before was left, ``[1, C]``
VALUES = "values"  #: weights of the values that an exit decides by, ``[3, F]``
SCORES = "scores"  #: of an exit: two numbers that are compared with its thresholds, see ``Engine``, ``[1, 2]``
MEMORY = "memory"  #: prefix of the tensors that segments keep of the frame before
NEXT = "next_"  #: prefix of such a name: its value for the next frame

NEVER = 1.0  #: a threshold that no score exceeds

# --- systems that are timed ------------------------------------------------------------------------------

FULL = "full"  #: the network without exits on all frames, classified once
FULL_BATCH = "full_batch"  #: the same with all frames in one call, which can start only after the last frame
REAL = "real"  #: the engine
REAL_CHUNKED = "real_chunked"  #: the engine, the first few frames in one call
IDEAL = "ideal"  #: the network without cuts, up to the exits that the engine takes, without readouts


def fixed_depth(depth):
    """Return the name of the system that leaves every frame at ``depth``, uncut, and classifies once."""
    return f"depth_{depth}"


# --- results ---------------------------------------------------------------------------------------------


class Column:
    """Columns of ``times`` and ``summary`` in a ``LatencyResult``."""

    SYSTEM = "system"
    VIDEO = "video"  #: position in the bundle
    REPEAT = "repeat"
    FRAMES = "frames"  #: number of frames processed
    MILLISECONDS = "milliseconds"  #: from prepared frames to a result on the host
    IN_GRAPHS = "in_graphs"  #: milliseconds of these in calls of graphs; None if the backend is not blocking
    PREPARATION = "preparation"  #: milliseconds to prepare the frames
    PER = "per"  #: ``PER_VIDEO`` or ``PER_FRAME``
    WITH_PREPARATION = "with_preparation"  #: True if the preparation is included


TIMES = (
    *(Column.SYSTEM, Column.VIDEO, Column.REPEAT, Column.FRAMES),
    *(Column.MILLISECONDS, Column.IN_GRAPHS, Column.PREPARATION),
)
PER_VIDEO, PER_FRAME = "video", "frame"
MEDIAN = "p50"
STATISTICS = (MEDIAN, "p90", "p99", "mean")  #: percentiles and mean, the other columns of ``summary``


class Device(typing.NamedTuple):
    """Description of a machine; empty where it is unknown."""

    name: str
    machine: str
    system: str
    release: str  #: of the Jetson's software
    power_mode: str
    cores: int
    python: str
    numpy: str


class Clocks(typing.NamedTuple):
    """Current and maximum MHz of each core and of each GPU; empty where they are unknown."""

    cpu: list
    gpu: list


class Runtime(typing.NamedTuple):
    """Description of the runtime of the graphs."""

    backend: str
    precision: str
    threads: int
    version: str
    runs_on: str  #: CPU or GPU
    cuda: str = ""  #: version, of TensorRT


class Check(typing.NamedTuple):
    """Comparison of the engine's results with those that the bundle expects."""

    videos: int
    same: int  #: number of videos with the same exits and label
    max_logit_difference: typing.Optional[float]  #: absolute, over these videos; None if there are none


class Energy(typing.NamedTuple):
    """Power of a system in watts, and its energy in joules per video."""

    watts: float
    joules: float
    above_idle: float  #: joules without those of the idle board


class PowerResult(typing.NamedTuple):
    """Power of the idle board in watts, and the ``Energy`` of each system; ``rail``: see ``board_power``."""

    rail: str
    idle_watts: float
    systems: dict


class LatencyResult(typing.NamedTuple):
    """Contents of ``OUTPUT``, whose keys are these fields."""

    bundle: str  #: its id
    device: Device
    clocks_before: Clocks
    clocks_after: Clocks
    runtime: Runtime
    settings: dict  #: ``warmup`` and ``repeats``
    check: Check
    times: dict  #: see ``time_systems``
    summary: list  #: see ``summarise``
    power: typing.Optional[PowerResult]  #: None if it was not measured

    def to_json(self):
        """Return the result as a line of JSON with its checksum."""
        return json.dumps(sealed(_as_dictionaries(self))) + "\n"

    @classmethod
    def from_json(cls, text):
        """Read a result. Raises ``ValueError`` if ``text`` is not one, or damaged."""
        try:
            fields = unsealed(text)
            for name, kind in (("device", Device), ("runtime", Runtime), ("check", Check)):
                fields[name] = kind(**fields[name])
            for name in ("clocks_before", "clocks_after"):
                fields[name] = Clocks(**fields[name])
            if fields["power"]:
                systems = {name: Energy(**energy) for name, energy in fields["power"]["systems"].items()}
                fields["power"] = PowerResult(**dict(fields["power"], systems=systems))
            return cls(**fields)
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError("not the result of a runner") from error


def _as_dictionaries(value):
    """Replace named tuples by dictionaries, at every level."""
    if hasattr(value, "_asdict"):
        value = value._asdict()
    return {key: _as_dictionaries(each) for key, each in value.items()} if isinstance(value, dict) else value


# --- checksums -------------------------------------------------------------------------------------------


def sealed(content):
    """Return ``content``, a dictionary, with the CRC-32 of its JSON, as ``tlee.checksums`` does."""
    digest = zlib.crc32(json.dumps(content, sort_keys=True).encode())
    return dict(content, crc32=[f"{digest:08x}"])


def unsealed(text):
    """Return the content of the JSON ``text`` without its checksum. Raises ``ValueError`` if it is damaged."""
    try:
        content = json.loads(text)
        checksum = content.pop("crc32")
    except (AttributeError, KeyError, TypeError, RecursionError):
        checksum, content = None, {}
    if checksum != sealed(content)["crc32"]:
        raise ValueError("its checksum is missing or differs")
    return content


# --- the bundle ------------------------------------------------------------------------------------------


class RunnerError(Exception):
    """An error that the user can fix. The message is one line."""


COPY_AGAIN = ": copy the bundle again"


class BundleError(RunnerError):
    """A bundle with a missing or damaged file, which ``problem`` names; the remedy is that of a device."""

    def __init__(self, problem):
        super().__init__(problem + COPY_AGAIN)
        self.problem = problem


class Bundle:
    """The bundle in ``folder``; ``program`` names the graphs to run, see ``tlee.edge.bundle``."""

    def __init__(self, folder):
        self.folder = Path(folder)
        try:
            self.program = unsealed((self.folder / MANIFEST).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise BundleError(f"{folder} contains no readable {MANIFEST} ({error})") from None
        self._check_names()
        self.videos = self.program["videos"]
        self._frames = None

    def _check_names(self):
        """Raise ``RunnerError`` if a file named by the manifest is outside the folder: it would be read or sent."""
        manifest = self.folder / MANIFEST
        try:
            names = list(dict(self.program["files"])) + list(dict(self.program["graphs"])) + self.program["videos"][:0]
        except (KeyError, TypeError, ValueError):
            raise RunnerError(f"{manifest} lacks its files, graphs or videos: export it again") from None
        for name in names:
            if name in ("", ".", "..") or re.search(r"[/\\\x00-\x1f]", name):
                raise RunnerError(f"{manifest} names {name!a}, a file outside its folder: export it again")

    def file(self, name):
        """Return the path of the file ``name``. Raises ``RunnerError`` if it is not the exported file."""
        path, digest = self.folder / name, hashlib.sha256()
        try:
            with path.open("rb") as file:
                for block in iter(partial(file.read, 1 << 20), b""):
                    digest.update(block)
        except OSError as error:
            raise BundleError(f"{path} cannot be read ({error.strerror})") from None
        if digest.hexdigest() != self.program["files"].get(name):
            raise BundleError(f"{path} is not the file that was exported")
        return str(path)

    def frames(self, video):
        """Return the RGB frames of a video in visiting order, ``uint8 [T, S, S, 3]`` or ``[T, L, S, S, 3]``."""
        if self._frames is None:
            self._frames = np.load(self.file(CLIPS), mmap_mode="r")
        return self._frames[video]

    def clip(self, video):
        """Return the same frames as the network reads them, see ``prepare_frames``."""
        return prepare_frames(self.frames(video))

    def given_exits(self, video):
        """Return the exit depths ``[T]`` to take in a video; None if the policy decides them."""
        return None if self.program["decides"] else self.videos[video]["exit_depths"]


def prepare_frames(frames):
    """Convert frames ``uint8 [T, ..., S, S, 3]`` to the network's input, ``float32 [T, 3, ..., S, S]`` in 0..1."""
    return np.divide(np.moveaxis(frames, -1, 1), np.float32(255), dtype=np.float32, order="C")


# --- backends ----------------------------------------------------------------------------------------------


class OnnxRuntime:
    """Graphs on the CPU, by ONNX Runtime.

    A backend keeps all tensors of a program by name on its device, all ``float32`` and initially zero. ``load``
    returns a function that runs a graph from its inputs to its outputs. ``put``, ``get``, ``copy`` and ``clear`` move
    values. All calls except ``get`` may return before their work is done, unless the backend is ``blocking``.
    """

    name, precisions, blocking = "onnxruntime", ("fp32", "int8"), True  # the only backend for graphs in int8

    def __init__(self, bundle, precision, threads):
        import onnxruntime

        self._runtime, self.bundle = onnxruntime, bundle
        self.precision, self.about = precision, {"version": onnxruntime.__version__, "runs_on": "CPU"}
        self._options = onnxruntime.SessionOptions()
        self._options.intra_op_num_threads = threads
        self._options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        # Each graph has its own threads; spinning ones would block the cores for the graph that runs next.
        self._options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        shapes = bundle.program["tensors"]
        self._tensors = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
        # These share their memory with the arrays, so that a call passes and copies nothing.
        self._values = {name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in self._tensors.items()}

    def load(self, name):
        path = self.bundle.file(name + ".onnx")
        session = self._runtime.InferenceSession(path, self._options, providers=["CPUExecutionProvider"])
        binding = session.io_binding()
        for tensor in session.get_inputs():
            binding.bind_ortvalue_input(tensor.name, self._values[tensor.name])
        for tensor in session.get_outputs():
            binding.bind_ortvalue_output(tensor.name, self._values[tensor.name])
        return partial(session.run_with_iobinding, binding)

    def put(self, name, array):
        self._tensors[name][...] = array

    def get(self, name):
        """Return an array that is valid until the tensor is written to."""
        return self._tensors[name]

    def copy(self, source, target, row=None):
        """Copy all of ``source`` into the target, or into one ``row`` of it."""
        self._tensors[target][... if row is None else slice(row, row + 1)] = self._tensors[source]

    def clear(self, name):
        self._tensors[name][...] = 0


class Torch:
    """Graphs as TorchScript, by PyTorch, on the GPU if there is one. ``OnnxRuntime`` describes the interface."""

    name, precisions = "torch", ("fp32",)

    def __init__(self, bundle, precision, threads):
        import torch

        self._torch, self.bundle = torch, bundle
        torch.set_num_threads(threads)
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self.blocking = self._device == "cpu"
        self.precision, self.about = precision, {"version": torch.__version__, "runs_on": self._device.upper()}
        shapes = bundle.program["tensors"]
        self._tensors = {name: torch.zeros(shape, device=self._device) for name, shape in shapes.items()}

    def load(self, name):
        graph = self.bundle.program["graphs"][name]
        module = self._torch.jit.load(self.bundle.file(name + ".pt"), map_location=self._device)
        return partial(self._run, module, graph["inputs"], graph["outputs"])

    def _run(self, module, inputs, outputs):
        with self._torch.no_grad():
            results = module(*(self._tensors[name] for name in inputs))
        self._tensors.update(zip(outputs, results))

    def put(self, name, array):
        self._tensors[name].copy_(self._torch.as_tensor(np.asarray(array, np.float32)))

    def get(self, name):
        return self._tensors[name].cpu().numpy()

    def copy(self, source, target, row=None):
        if row is None:
            self._tensors[target] = self._tensors[source]  # the next call replaces it and does not change it
        else:
            self._tensors[target][row : row + 1] = self._tensors[source]

    def clear(self, name):
        self._tensors[name] = self._torch.zeros_like(self._tensors[name])


class TensorRT:
    """Graphs on the GPU, by TensorRT. ``OnnxRuntime`` describes the interface.

    Engines are built once and kept in ``engines/`` in the folder of the bundle, by graph, precision, version of
    TensorRT and device. A file of theirs (a plan) begins with a line of JSON that names these and the SHA-256 of the
    rest; TensorRT is never given any other file. Readouts are never run in half precision: they are tiny, and their
    scores decide.
    """

    name, precisions, blocking = "tensorrt", ("fp16", "fp32"), False
    workspace = 256 << 20  #: bytes for building an engine; a Nano has 4 GB of memory in all

    def __init__(self, bundle, precision, threads):
        import tensorrt

        self._tensorrt, self.bundle, self._cuda = tensorrt, bundle, Cuda()
        self.precision = precision
        self.about = {"version": tensorrt.__version__, "runs_on": "GPU", "cuda": self._cuda.version()}
        self._logger = tensorrt.Logger(tensorrt.Logger.WARNING)
        self._runtime = tensorrt.Runtime(self._logger)
        shapes = bundle.program["tensors"]
        self._tensors = {name: DeviceTensor(self._cuda, shape) for name, shape in shapes.items()}

    def load(self, name):
        path, plan = self._plan(name)
        engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise RunnerError(f"TensorRT cannot load {path}: delete it, and it will be built again")
        context = engine.create_execution_context()
        if hasattr(engine, "num_io_tensors"):  # TensorRT 8.5 and newer
            for index in range(engine.num_io_tensors):
                tensor = engine.get_tensor_name(index)
                context.set_tensor_address(tensor, self._tensors[tensor].pointer)
            execute = partial(context.execute_async_v3, self._cuda.stream)
        else:
            names = [engine.get_binding_name(index) for index in range(engine.num_bindings)]
            bindings = [self._tensors[tensor].pointer for tensor in names]
            execute = partial(context.execute_async_v2, bindings, self._cuda.stream)
        return partial(self._run, name, execute, engine)

    def _run(self, name, execute, engine):  # the engine must live as long as its context
        if not execute():
            raise RunnerError(f"TensorRT could not run {name}: see its messages above, or choose another --backend")

    def _plan(self, name):
        """Return the file of an engine and its content, which is built if there is none, or no undamaged one."""
        kind = self.bundle.program["graphs"][name]["kind"]
        origin = {
            "graph": self.bundle.program["files"][name + ".onnx"],
            "precision": "fp32" if kind in (Kind.READOUT, Kind.VIDEO_CLASSIFIER) else self.precision,
            "tensorrt": self._tensorrt.__version__,
            "device": device_name(),
        }
        device = re.sub(r"[^A-Za-z0-9]+", "-", origin["device"])
        file = f"{name}-{origin['graph'][:12]}-{origin['precision']}-{origin['tensorrt']}-{device}.plan"
        path = self.bundle.folder / "engines" / file
        try:
            return path, read_plan(path, origin)
        except FileNotFoundError:
            log(f"building {name} for TensorRT, once; this can take minutes")
        except ValueError as error:
            log(f"{path} {error}: building {name} again; this can take minutes")
        except OSError as error:
            reason = f"{path} cannot be read ({error.strerror})"
            raise RunnerError(f"{reason}: delete it, and it will be built again") from None
        plan = self._build(name, origin["precision"])
        write_plan(path, origin, plan)
        return path, plan

    def _build(self, name, precision):
        tensorrt = self._tensorrt
        builder = tensorrt.Builder(self._logger)
        network = builder.create_network(1 << int(tensorrt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH))
        parser = tensorrt.OnnxParser(network, self._logger)
        if not parser.parse(Path(self.bundle.file(name + ".onnx")).read_bytes()):
            reason = first_line(parser.get_error(0).desc())
            raise RunnerError(f"TensorRT cannot read {name}.onnx ({reason}): choose another --backend")
        config = builder.create_builder_config()
        if hasattr(config, "set_memory_pool_limit"):  # TensorRT 8.4 and newer
            config.set_memory_pool_limit(tensorrt.MemoryPoolType.WORKSPACE, self.workspace)
        else:
            config.max_workspace_size = self.workspace
        config.clear_flag(tensorrt.BuilderFlag.TF32)  # less than single precision
        if precision == "fp16":
            config.set_flag(tensorrt.BuilderFlag.FP16)
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise RunnerError(f"TensorRT could not build {name}: see its messages above")
        return bytes(plan)

    def put(self, name, array):
        self._tensors[name].write(array)

    def get(self, name):
        """Return an array that is valid until the next ``get`` of the tensor."""
        return self._tensors[name].read()

    def copy(self, source, target, row=None):
        source, target = self._tensors[source], self._tensors[target]
        self._cuda.copy(target.pointer + (row or 0) * source.size, source.pointer, source.size, DEVICE_TO_DEVICE)

    def clear(self, name):
        self._cuda.clear(self._tensors[name].pointer, self._tensors[name].size)


def write_plan(path, origin, plan):
    """Write the engine ``plan``, bytes, with its ``origin``; a file that is not finished never has its name."""
    header = sealed(dict(origin, sha256=hashlib.sha256(plan).hexdigest()))
    unfinished = path.with_suffix(".unfinished")
    try:
        path.parent.mkdir(exist_ok=True)
        with unfinished.open("wb") as file:
            file.write(json.dumps(header).encode() + b"\n")
            file.write(plan)
        unfinished.replace(path)
    except OSError as error:
        with suppress(OSError):
            unfinished.unlink()
        reason = f"{path} cannot be written ({error.strerror})"
        raise RunnerError(f"{reason}: free space on that disk, or change the permissions of the folder") from None


def read_plan(path, origin):
    """Read an engine of ``write_plan``. Raises ``ValueError`` if it is damaged or of another origin."""
    with path.open("rb") as file:
        header, plan = file.readline(), file.read()
    try:
        found = unsealed(header.decode())
        digest = found.pop("sha256")
    except (KeyError, ValueError):
        raise ValueError("is damaged, or was not written by this program") from None
    if digest != hashlib.sha256(plan).hexdigest():
        raise ValueError("is damaged")
    if found != origin:
        raise ValueError("was built from another graph, or for another device or version of TensorRT")
    return plan


HOST_TO_DEVICE, DEVICE_TO_HOST, DEVICE_TO_DEVICE = 1, 2, 3  # of cudaMemcpyKind


class Cuda:
    """CUDA's runtime by ``ctypes``: a Jetson has the library, but rarely pycuda.

    All asynchronous calls go to one ``stream``, so that they run in order.
    """

    def __init__(self):
        self._library = load_library("cudart", "/usr/local/cuda/lib64/libcudart.so")
        self._library.cudaGetErrorString.restype = ctypes.c_char_p
        self.stream = self._new("cudaStreamCreate")

    def _call(self, function, *arguments):
        status = getattr(self._library, function)(*arguments)
        if status:
            reason = self._library.cudaGetErrorString(ctypes.c_int(status)).decode()
            raise RunnerError(f"CUDA: {function} failed ({reason}): close other programs, or choose another --backend")

    def _new(self, function, *arguments):
        """Call a function that returns a pointer by its first argument, and return the pointer."""
        pointer = ctypes.c_void_p()
        self._call(function, ctypes.byref(pointer), *arguments)
        return pointer.value

    def version(self):
        version = ctypes.c_int()
        self._call("cudaRuntimeGetVersion", ctypes.byref(version))
        return f"{version.value // 1000}.{version.value % 1000 // 10}"

    def device_memory(self, size):
        return self._new("cudaMalloc", ctypes.c_size_t(size))

    def host_array(self, shape):
        """Return a ``float32`` array in memory that the GPU can copy from and to while the program continues."""
        count = int(np.prod(shape))
        pointer = self._new("cudaHostAlloc", ctypes.c_size_t(4 * count), ctypes.c_uint(0))
        return np.ctypeslib.as_array((ctypes.c_float * count).from_address(pointer)).reshape(shape)

    def event(self):
        return self._new("cudaEventCreateWithFlags", ctypes.c_uint(2))  # without timing

    def record(self, event):
        self._call("cudaEventRecord", ctypes.c_void_p(event), ctypes.c_void_p(self.stream))

    def wait_for(self, event):
        """Wait for everything in the stream before the event was recorded; return at once if it never was."""
        self._call("cudaEventSynchronize", ctypes.c_void_p(event))

    def wait(self):
        self._call("cudaStreamSynchronize", ctypes.c_void_p(self.stream))

    def copy(self, target, source, size, kind):
        pointers = (ctypes.c_void_p(target), ctypes.c_void_p(source), ctypes.c_size_t(size))
        self._call("cudaMemcpyAsync", *pointers, ctypes.c_int(kind), ctypes.c_void_p(self.stream))

    def clear(self, target, size):
        arguments = (ctypes.c_void_p(target), ctypes.c_int(0), ctypes.c_size_t(size), ctypes.c_void_p(self.stream))
        self._call("cudaMemsetAsync", *arguments)


def load_library(name, path):
    """Load the shared library ``name``, or the file ``path`` if the system does not find it."""
    for candidate in filter(None, (ctypes.util.find_library(name), f"lib{name}.so", path)):
        with suppress(OSError):
            return ctypes.CDLL(candidate)
    raise RunnerError(f"lib{name}.so is not found: add its folder to LD_LIBRARY_PATH")


class DeviceTensor:
    """A ``float32`` tensor on the GPU; ``size`` is in bytes.

    The host writes to a buffer from which the GPU copies, and waits only for the copy before. So it can prepare the
    next frame while the GPU processes this one.
    """

    def __init__(self, cuda, shape):
        self._cuda, self._shape = cuda, shape
        self.size = 4 * int(np.prod(shape))
        self.pointer = cuda.device_memory(self.size)
        cuda.clear(self.pointer, self.size)
        self._upload = self._uploaded = self._download = None

    def write(self, array):
        if self._upload is None:
            self._upload, self._uploaded = self._cuda.host_array(self._shape), self._cuda.event()
        self._cuda.wait_for(self._uploaded)
        self._upload[...] = array
        self._cuda.copy(self.pointer, self._upload.ctypes.data, self.size, HOST_TO_DEVICE)
        self._cuda.record(self._uploaded)

    def read(self):
        if self._download is None:
            self._download = self._cuda.host_array(self._shape)
        self._cuda.copy(self._download.ctypes.data, self.pointer, self.size, DEVICE_TO_HOST)
        self._cuda.wait()
        return self._download


BACKENDS = {backend.name: backend for backend in (TensorRT, OnnxRuntime, Torch)}  #: in order of preference


def find_backend(name=None, graph_precision="fp32"):
    """Return the backend ``name``, or the first of ``BACKENDS`` that runs such graphs and can be imported.

    Raises ``RunnerError`` if there is none.
    """
    suitable = [each for each, backend in BACKENDS.items() if graph_precision in backend.precisions]
    if name and name not in suitable:
        raise RunnerError(f"{name} does not run graphs in {graph_precision}: use {' or '.join(suitable)}")
    candidates = [name] if name else suitable
    for candidate in candidates:
        with suppress(Exception):  # of any kind: a runtime may lack a library, or not fit NumPy
            importlib.import_module(candidate)
            return BACKENDS[candidate]
    raise RunnerError(f"{sys.executable} cannot import {' or '.join(candidates)}: install it, or use another Python")


@contextmanager
def errors_of_runtime(problem):
    """Turn an error of any kind, from a runtime that does not fit the graph or the machine, into ``RunnerError``."""
    try:
        yield
    except (MemoryError, RunnerError):
        raise
    except Exception as error:
        reason = first_line(str(error)) or type(error).__name__
        raise RunnerError(f"{problem} ({reason}): install another version of it, or use another runtime") from error


def first_line(text):
    """Return the first line of a message of another program."""
    return text.strip().split("\n")[0].strip()


def log(text):
    """Print a line of progress."""
    print(text, file=sys.stderr, flush=True)


# --- running -----------------------------------------------------------------------------------------------


class Graph:
    """A loaded graph; ``seconds`` is the total time spent in its calls."""

    def __init__(self, backend, name, outputs):
        self.name, self._backend = name, backend
        with errors_of_runtime(f"{backend.name} {backend.about['version']} cannot load {backend.bundle.folder / name}"):
            self._run = backend.load(name)
        self._memories = [(output, output[len(NEXT) :]) for output in outputs if output.startswith(NEXT)]
        self.seconds = 0.0

    def __call__(self):
        begin = time.perf_counter()
        self._run()
        for now, before in self._memories:
            self._backend.copy(now, before)
        self.seconds += time.perf_counter() - begin

    def reset(self):
        """Clear the memories, before another video."""
        for _, before in self._memories:
            self._backend.clear(before)


class Decision(typing.NamedTuple):
    """Result of the engine on one video."""

    logits: np.ndarray  #: ``[C]``, at the exit where the video stopped
    exit_depths: list  #: ``[T]``, depth at which each frame was left; -1: not processed
    scores: list  #: the two scores of each exit that was evaluated, in order; empty with given exits
    segments_run: list  #: names of the graphs of segments that were run frame by frame, in order


class Chunk:
    """Segments on the first ``frames`` of a video together, each called as soon as one of these frames needs it.

    ``program`` contains the ``stages`` from shallow to deep: the depth at which each ends, and its graph.
    """

    def __init__(self, backend, program, graphs):
        self._backend = backend
        self.frames = program["frames"]
        self.stages = [(depth, Graph(backend, name, graphs[name]["outputs"])) for depth, name in program["stages"]]
        self._called = 0

    def start(self, clip):
        self._called = 0
        self._backend.put(CHUNK, clip[: self.frames])

    def reach(self, t, depth):
        """Copy the exit feature of frame ``t`` at ``depth`` to ``FEATURE``."""
        while self._called < len(self.stages) and self.stages[self._called][0] <= depth:
            self.stages[self._called][1]()
            self._called += 1
        self._backend.copy(chunk_feature(t, depth), FEATURE)


def chunk_feature(t, depth):
    """Return the name of the exit feature of frame ``t`` of a chunk."""
    return f"{CHUNK}{t}_{FEATURE}{depth}"


class Engine:
    """The policy with real exits: a graph that is not needed is not called.

    ``program`` contains the ``graphs`` (name to ``inputs`` and ``outputs``), the ``tensors`` that they share (name to
    shape), for each frame the ``exits`` in use from shallow to deep, and ``accumulate``: ``visited`` if all exits
    evaluated are accumulated, ``published`` if all but those of the first frame on the way to the exit taken, ``exit``
    if only the exit taken is. An exit runs two graphs, ``segments`` and
    ``readout``, at a ``depth``; then the video stops if the first score is above ``stop`` or the second above
    ``gate``, and the frame is left if the first is above ``layer``, or if it has no exit after this one. The scores are
    the confidence (largest class probability) and the gate's score (0 without a gate). If an exit has ``values``, they
    are instead those of leaving the frame and of stopping, which the readout computes with these weights.
    There is a ``chunk`` (see ``Chunk``) where frames do not depend on the frames before.
    Raises ``RunnerError`` if an exit is not as described.
    """

    def __init__(self, backend, program):
        self._backend, self._accumulate = backend, program["accumulate"]
        try:
            exits = [each for frame in program["exits"] for each in frame]
            names = [name for each in exits for name in (each["segments"], each["readout"])]
            graphs = {name: Graph(backend, name, program["graphs"][name]["outputs"]) for name in dict.fromkeys(names)}
            self._exits = [[_exit(each, graphs, program["tensors"]) for each in frame] for frame in program["exits"]]
        except (KeyError, TypeError, ValueError) as error:
            manifest = backend.bundle.folder / MANIFEST
            raise RunnerError(f"{manifest} has an exit that cannot be run ({error}): export it again") from None
        self._graphs = list(graphs.values())
        self.chunk = Chunk(backend, program["chunk"], program["graphs"]) if program["chunk"] else None
        if self.chunk:
            self._graphs += [graph for _, graph in self.chunk.stages]
        inputs = {tensor for graph in graphs for tensor in program["graphs"][graph]["inputs"]}
        self._uses_past, self._uses_base, self._uses_count = PAST in inputs, BASE in inputs, COUNT in inputs
        self._uses_before = BEFORE in inputs

    @property
    def seconds(self):
        """Total time spent in calls of graphs."""
        return sum(self.seconds_per_graph.values())

    @property
    def seconds_per_graph(self):
        """The same for each graph, by name."""
        return {graph.name: graph.seconds for graph in self._graphs}

    def run(self, clip, given_exits=None, chunked=False):
        """Run one video, ``float32 [T, *input_shape]`` in visiting order; ``chunked``: with ``chunk``.

        With ``given_exits`` nothing is decided: frame ``t`` is left at depth ``given_exits[t]``, and the video stops
        before the first -1; the program must be one of random exits.
        Returns a ``Decision``. Raises ``ValueError`` if the program was exported for another number of frames.
        """
        if len(clip) != len(self._exits):
            raise ValueError(f"the clip has {len(clip)} frames, the bundle was exported for {len(self._exits)}")
        backend = self._backend
        exit_depths, scores, segments_run, stop, count = [-1] * len(clip), [], [], False, 0
        for graph in self._graphs:
            graph.reset()
        num_chunked = self.chunk.frames if chunked else 0
        if chunked:
            self.chunk.start(clip)
        for t, exits in enumerate(self._exits):
            if t >= num_chunked:
                backend.put(FRAME, clip[t : t + 1])
            passed = accumulates_passed(self._accumulate, t)
            if given_exits is not None:
                exits = exits[0 if passed else given_exits[t] : given_exits[t] + 1]
            for depth, segments, readout, values, stop_above, gate_above, layer_above in exits:
                if self._uses_count:
                    backend.put(COUNT, count)
                if values is not None:
                    backend.put(VALUES, values)
                if t < num_chunked:
                    self.chunk.reach(t, depth)
                else:
                    segments()
                    segments_run.append(segments.name)
                readout()
                exit_depths[t] = depth
                if passed:
                    count += 1
                if self._uses_base:
                    backend.copy(Z, BASE)
                if given_exits is None:
                    first, second = backend.get(SCORES)[0]
                    scores.append((first, second))
                    stop = first > stop_above or second > gate_above
                    if stop or first > layer_above:
                        break
            if stop or (given_exits is not None and t + 1 < len(given_exits) and given_exits[t + 1] < 0):
                break
            if self._uses_past:
                backend.copy(Z, PAST)
            if self._uses_before:
                backend.copy(PROBABILITIES, BEFORE)
            if not passed:
                count += 1
        return Decision(backend.get(LOGITS)[0].copy(), exit_depths, scores, segments_run)


def accumulates_passed(accumulate, t):
    """Return True if the exits evaluated on the way to a deeper one are accumulated at frame ``t``, by the rule."""
    return accumulate == "visited" or (accumulate == "published" and t > 0)


def _exit(exit_, graphs, tensors):
    """Return an exit of a program as ``Engine`` runs it. Raises an error if it is not one."""
    values = exit_.get("values")
    if values is not None:
        values = np.array(values, float)
        if list(values.shape) != tensors[VALUES] or not (np.abs(values) < np.finfo(np.float32).max).all():
            raise ValueError(f"its values are not finite numbers of shape {tensors[VALUES]}")
        values = values.astype(np.float32)
    thresholds = [_threshold(exit_[name]) for name in ("stop", "gate", "layer")]
    return (exit_["depth"], graphs[exit_["segments"]], graphs[exit_["readout"]], values, *thresholds)


def _threshold(value):
    """Convert to ``float32``, the type of scores; rounding lets no score exceed ``NEVER``."""
    return np.float32(np.inf if value >= NEVER else value)


class UncutNetwork:
    """The network without exits: all frames up to one depth, or each up to its own.

    ``program`` names the graph of each depth from a frame to its exit feature (``prefixes``), the one from all frames
    to their features of full depth (``batch``, if there is one), and the one that classifies the features of all
    frames (``video_classifier``).
    """

    def __init__(self, backend, program):
        self._backend = backend
        self._prefixes, batch, (self._video_classifier,) = (
            [Graph(backend, name, program["graphs"][name]["outputs"]) for name in names if name]
            for names in (program["prefixes"], [program["batch"]], [program["video_classifier"]])
        )
        self._graphs = [*self._prefixes, *batch, self._video_classifier]
        self._batch = batch[0] if batch else None
        self.deepest = len(self._prefixes) - 1

    @property
    def has_batch(self):
        """True if all frames can be run in one call."""
        return self._batch is not None

    @property
    def seconds(self):
        """Total time spent in calls of graphs."""
        return sum(graph.seconds for graph in self._graphs)

    def run(self, clip, depth=None):
        """Return the logits ``[C]`` of one video ``float32 [T, *input_shape]``: frame by frame, classified once."""
        self._extract(clip, [self.deepest if depth is None else depth] * len(clip))
        self._video_classifier()
        return self._backend.get(LOGITS)[0].copy()

    def run_batch(self, clip):
        """Return the same at full depth, with all frames in one call."""
        self._backend.put(CLIP, clip)
        self._batch()
        self._video_classifier()
        return self._backend.get(LOGITS)[0].copy()

    def features(self, clip, exit_depths):
        """Return the feature of exit ``exit_depths[t]`` of each frame, ``[T, D]``; frames with -1 are not run.

        The result is valid until the next call.
        """
        self._extract(clip, exit_depths)
        return self._backend.get(FEATURES)

    def _extract(self, clip, exit_depths):
        for prefix in self._prefixes:
            prefix.reset()
        for t, depth in enumerate(exit_depths):
            if depth >= 0:
                self._backend.put(FRAME, clip[t : t + 1])
                self._prefixes[depth]()
                self._backend.copy(FEATURE, FEATURES, row=t)


class Runner:
    """A bundle, loaded on a backend: the ``engine`` that runs its policy, and the network ``uncut``.

    ``backend`` and ``precision`` are by default the first that can be used, and ``threads`` (of the CPU) those that
    the bundle names.
    """

    needed = (
        *("id", "precision", "timing", "tensors", "decides"),
        *("exits", "accumulate", "chunk", "prefixes", "batch", "video_classifier"),
    )

    def __init__(self, folder, backend=None, precision=None, threads=None):
        self.bundle = Bundle(folder)
        missing = [key for key in self.needed if key not in self.bundle.program]
        if missing:
            raise RunnerError(f"{self.bundle.folder / MANIFEST} lacks {', '.join(missing)}: export it again")
        graph_precision = self.bundle.program["precision"]
        self.threads = threads or self.bundle.program["timing"]["threads"]
        kind = find_backend(backend, graph_precision)
        precisions = [each for each in kind.precisions if (each == "int8") == (graph_precision == "int8")]
        if precision not in (None, *precisions):
            raise RunnerError(f"{kind.name} runs in {' or '.join(precisions)}, not in {precision}")
        with errors_of_runtime(f"{kind.name} cannot be started"):
            self.backend = kind(self.bundle, precision or precisions[0], self.threads)
        self.engine = Engine(self.backend, self.bundle.program)
        self.uncut = UncutNetwork(self.backend, self.bundle.program)


# --- checking ----------------------------------------------------------------------------------------------

#: Largest difference of logits as a share of a video's largest logit, and with it the margin (in log-odds) below which
#: a decision may differ. In int8 a value that is rounded differently is a whole step away, so that kernels of one
#: network differ by 0.04.
TOLERANCE = {"fp32": 0.002, "fp16": 0.02, "int8": 0.1}


def check_results(runner, chunked=False):
    """Compare the engine's exits, labels and logits with those that the bundle expects, on all of its videos.

    Returns a ``Check``. Raises ``RunnerError`` where one differs although no decision was close.
    """
    bundle, same, largest = runner.bundle, 0, 0.0
    wrong = f"wrong result, other than in {bundle.folder / MANIFEST}, and nothing is timed"
    for number, video in enumerate(bundle.videos):
        decision = runner.engine.run(bundle.clip(number), bundle.given_exits(number), chunked)
        expected = np.array(video["logits"], np.float32)
        allowed = TOLERANCE[runner.backend.precision] * max(1.0, float(np.abs(expected).max()))
        found = {"exit_depths": decision.exit_depths, "label": int(decision.logits.argmax())}
        different = [key for key in found if found[key] != video[key]]
        if different and video["margin"] > allowed:
            key = different[0]
            raise RunnerError(f"{wrong}: {video['video']} has {key} {found[key]}, expected {video[key]}")
        if not different:
            difference = float(np.abs(decision.logits - expected).max())
            if not difference <= allowed:
                reason = f"{video['video']} has logits that differ by {difference:.2g}, expected at most {allowed:.2g}"
                raise RunnerError(f"{wrong}: {reason}")
            same, largest = same + 1, max(largest, difference)
    return Check(len(bundle.videos), same, largest if same else None)


# --- timing ------------------------------------------------------------------------------------------------


class Timing(typing.NamedTuple):
    """Time of one ``system`` on one video, in seconds."""

    system: str
    frames: int  #: number of frames processed
    seconds: float  #: from prepared frames to a result on the host
    in_graphs: float  #: part of these in calls of graphs
    preparation: float  #: to prepare the frames


def time_systems(runner, warmup, repeats, systems=None):
    """Time ``systems`` on every video, ``repeats`` times: some of those named above, or all.

    Returns a table as ``TIMES`` columns, one row per system, video and repeat.

    The systems take turns on each video, so that anything that slows the machine down affects all of them. Each runs
    the video untimed directly before, until it has processed as many frames as the full network does in one run: as in
    use, no system finds the caches filled by another. The first ``warmup`` turns are not recorded.
    """
    videos = range(len(runner.bundle.videos))
    for turn in range(warmup):
        list(take_turns(runner, turn % len(videos), systems))
    rows = []
    for repeat in range(repeats):
        for video in videos:
            for timing in take_turns(runner, video, systems):
                total, in_graphs, preparation = (round(1000 * seconds, 6) for seconds in timing[2:])
                in_graphs = in_graphs if runner.backend.blocking else None
                rows.append([timing.system, video, repeat, timing.frames, total, in_graphs, preparation])
    return {name: list(column) for name, column in zip(TIMES, zip(*rows))}


def take_turns(runner, video, systems=None):
    """Time ``systems`` on one video, or all of them; each runs it untimed before, see ``time_systems``.

    Yields a ``Timing`` of each.
    """
    engine, uncut = runner.engine, runner.uncut
    frames, given_exits = runner.bundle.frames(video), runner.bundle.given_exits(video)
    clip = prepare_frames(frames)
    exit_depths = engine.run(clip, given_exits).exit_depths
    num_processed = sum(depth >= 0 for depth in exit_depths)
    turns = [(FULL, len(clip), uncut, partial(uncut.run, clip))]
    if uncut.has_batch:
        turns += [(FULL_BATCH, len(clip), uncut, partial(uncut.run_batch, clip))]
    turns += [(fixed_depth(b), len(clip), uncut, partial(uncut.run, clip, b)) for b in range(uncut.deepest)]
    if engine.chunk:
        count = max(num_processed, engine.chunk.frames)
        turns += [(REAL_CHUNKED, count, engine, partial(engine.run, clip, given_exits, chunked=True))]
    turns += [(REAL, num_processed, engine, partial(engine.run, clip, given_exits))]
    turns += [(IDEAL, num_processed, uncut, partial(uncut.features, clip, exit_depths))]
    for system, count, graphs, run in turns:
        if systems and system not in systems:
            continue
        begin = time.perf_counter()
        prepare_frames(frames[:count])
        preparation = time.perf_counter() - begin
        for _ in range(-(-len(clip) // count)):
            run()
        yield Timing(system, count, *_time_run(run, graphs), preparation)


def _time_run(run, graphs):
    """Return the seconds of ``run``, and those of them in calls of the graphs of an engine or uncut network."""
    before = graphs.seconds
    begin = time.perf_counter()
    run()
    total = time.perf_counter() - begin
    return total, graphs.seconds - before


def summary_statistics(values):
    """Percentiles and the mean of ``values``, by the names in ``STATISTICS``.

    Where few videos take most of the time, as with exits, the mean is far from the median.
    """
    return dict(zip(STATISTICS, [*np.percentile(values, (50, 90, 99)).tolist(), float(np.mean(values))]))


def summarise(times):
    """Summarise ``times`` (see ``time_systems``) by ``summary_statistics``, in milliseconds: a list of rows.

    There is a row for each system, per video and per frame processed, without and with the preparation of frames.
    """
    names = (Column.SYSTEM, Column.FRAMES, Column.MILLISECONDS, Column.PREPARATION)
    systems, frames, milliseconds, preparation = (np.array(times[name]) for name in names)
    rows = []
    for system in dict.fromkeys(times[Column.SYSTEM]):
        mine = systems == system
        for per, count in ((PER_VIDEO, 1), (PER_FRAME, frames[mine])):
            for with_preparation in (False, True):
                values = (milliseconds[mine] + with_preparation * preparation[mine]) / count
                row = {Column.SYSTEM: system, Column.PER: per, Column.WITH_PREPARATION: with_preparation}
                row.update({name: round(value, 6) for name, value in summary_statistics(values).items()})
                rows.append(row)
    return rows


# --- power -------------------------------------------------------------------------------------------------

#: Rails that supply the whole board, on boards that have one.
INPUT_RAILS = ("POM_5V_IN", "VDD_IN", "VIN")
#: Part of another rail (AGX Orin).
INNER_RAILS = ("VDDQ_VDD2_1V8AO",)


def board_power(line):
    """Return the rails and the milliwatts of the board in a ``line`` of tegrastats.

    Where no rail supplies the whole board (AGX), it is the sum of the rails of the module. None if the line has no
    power.
    """
    found = re.findall(r"(\S+) (-?\d+)(?:mW)?/-?\d+(?:mW)?(?=\s|$)", line)
    rails = {name: int(value) for name, value in found if name not in INNER_RAILS}
    for name in INPUT_RAILS:
        if name in rails:
            return name, rails[name]
    return ("+".join(rails), sum(rails.values())) if rails else None


class Power:
    """Power of the board over time in watts, as ``tegrastats`` reports it."""

    def __init__(self, tegrastats):
        self.rail, self._samples = None, []
        command = [tegrastats, "--interval", "100"]
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, universal_newlines=True
        )
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self):
        for line in self._process.stdout:
            power = board_power(line)
            if power:
                self.rail = power[0]
                self._samples.append((time.perf_counter(), power[1] / 1000))

    def mean(self, begin, end):
        """Mean of the samples between two readings of ``time.perf_counter``; None if there are none."""
        inside = [watts for at, watts in list(self._samples) if begin < at <= end]
        return sum(inside) / len(inside) if inside else None

    def close(self):
        self._process.terminate()
        self._process.wait()


def measure_power(runner, tegrastats, seconds):
    """Measure the idle board for ``seconds``, then each system but ``IDEAL`` for as long, with frames prepared.

    Returns a ``PowerResult``; None if ``tegrastats`` reports no power.
    """
    bundle, power = runner.bundle, Power(tegrastats)
    try:
        begin = time.perf_counter()
        time.sleep(seconds)
        idle = power.mean(begin, time.perf_counter())
        if idle is None:
            return None
        systems = {}
        for name, run in _systems(runner):
            videos, begin = 0, time.perf_counter()
            while time.perf_counter() < begin + seconds:
                video = videos % len(bundle.videos)
                run(bundle.clip(video), bundle.given_exits(video))
                videos += 1
            end = time.perf_counter()
            watts = power.mean(begin + seconds / 10, end)  # the first samples still show the load before
            if watts is None:
                return None
            per_video = (end - begin) / videos
            systems[name] = Energy(watts, watts * per_video, (watts - idle) * per_video)
        return PowerResult(power.rail, idle, systems)
    finally:
        power.close()


def _systems(runner):
    """Yield names, and functions of a clip and its given exits."""
    uncut = runner.uncut
    yield FULL, lambda clip, given_exits: uncut.run(clip)
    if uncut.has_batch:
        yield FULL_BATCH, lambda clip, given_exits: uncut.run_batch(clip)
    for depth in range(uncut.deepest):
        yield fixed_depth(depth), lambda clip, given_exits, depth=depth: uncut.run(clip, depth)
    if runner.engine.chunk:
        yield REAL_CHUNKED, partial(runner.engine.run, chunked=True)
    yield REAL, runner.engine.run


# --- the device --------------------------------------------------------------------------------------------


def device_name(root="/"):
    """Return the name of the board, or else that of the processor."""
    name = _read(root, "proc/device-tree/model").replace("\0", "").strip()
    processor = re.search(r"^model name\s*: (.+)$", _read(root, "proc/cpuinfo"), re.MULTILINE)
    return name or (processor.group(1) if processor else platform.processor() or platform.machine())


def describe_device(root="/"):
    """Describe the machine: a ``Device``."""
    power_mode = re.search(r"NV Power Mode: *(\S+)", _output_of("nvpmodel", "-q"))
    return Device(
        name=device_name(root),
        machine=platform.machine(),
        system=platform.platform(),
        release=_read(root, "etc/nv_tegra_release").split("\n")[0].strip("# "),
        power_mode=power_mode.group(1) if power_mode else "",
        cores=os.cpu_count(),
        python=platform.python_version(),
        numpy=np.__version__,
    )


def clocks(root="/"):
    """Read the current ``Clocks``."""
    cores, devices = Path(root, "sys/devices/system/cpu"), Path(root, "sys/class/devfreq")
    gpus = [path for path in devices.glob("*") if re.search(r"gpu|gp10b|gv11b|ga10b", path.name)]
    return Clocks(
        cpu=_frequencies(sorted(cores.glob("cpu[0-9]*/cpufreq")), "scaling_cur_freq", "scaling_max_freq", 1e3),
        gpu=_frequencies(gpus, "cur_freq", "max_freq", 1e6),
    )


def _frequencies(folders, current, maximum, unit):
    values = [[_read(folder, name) for name in (current, maximum)] for folder in folders]
    return [[int(value) / unit for value in pair] for pair in values if all(pair)]


def _read(root, path):
    try:
        return Path(root, path).read_text(errors="replace")
    except OSError:
        return ""


def _output_of(*command):
    try:
        return subprocess.check_output(command, stderr=subprocess.DEVNULL, universal_newlines=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ""


# --- the whole measurement ---------------------------------------------------------------------------------


def measure_latency(runner, warmup=None, repeats=None, power_seconds=10.0):
    """Check the results, time the systems and describe the device: a ``LatencyResult``.

    ``warmup`` and ``repeats`` are by default those that the bundle names. Power is measured if there is tegrastats and
    ``power_seconds`` is not 0.
    Raises ``RunnerError`` if a result is wrong.
    """
    timing, backend = runner.bundle.program["timing"], runner.backend
    settings = {
        "warmup": timing["warmup"] if warmup is None else warmup,
        "repeats": timing["repeats"] if repeats is None else repeats,
    }
    if runner.engine.chunk:
        check_results(runner, chunked=True)
    check, before = check_results(runner), clocks()
    times, tegrastats = time_systems(runner, **settings), shutil.which("tegrastats")
    return LatencyResult(
        bundle=runner.bundle.program["id"],
        device=describe_device(),
        clocks_before=before,
        clocks_after=clocks(),
        runtime=Runtime(backend.name, backend.precision, runner.threads, **backend.about),
        settings=settings,
        check=check,
        times=times,
        summary=summarise(times),
        power=measure_power(runner, tegrastats, power_seconds) if tegrastats and power_seconds else None,
    )


def write_result(result, path):
    """Write a ``LatencyResult``. Raises ``RunnerError`` if that is impossible."""
    try:
        path.write_text(result.to_json())
    except OSError as error:
        reason = f"{path} cannot be written ({error.strerror})"
        raise RunnerError(f"{reason}: free space on that disk, or name another file with --output") from None


def positive(text):
    """Parse the value of an option. Raises ``ValueError`` if it is not a whole number from 1."""
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Run, check and time the bundle in the folder of this file.")
    parser.add_argument("--bundle", default=str(Path(__file__).parent), help="another folder with a bundle")
    parser.add_argument("--output", default=OUTPUT, help="the file to write")
    parser.add_argument("--backend", choices=list(BACKENDS), help="by default the first that can be imported")
    parser.add_argument("--precision", choices=["fp16", "fp32"], help="of TensorRT, by default fp16")
    parser.add_argument(
        "--threads", type=positive, help="of the CPU (the bundle names the defaults of this and the next two)"
    )
    parser.add_argument("--warmup", type=int, help="number of videos")
    parser.add_argument("--repeats", type=positive, help="number of passes over all videos")
    parser.add_argument("--power-seconds", type=float, default=10.0, help="per system; 0: do not measure power")
    options = parser.parse_args(arguments)
    try:
        runner = Runner(options.bundle, options.backend, options.precision, options.threads)
        log(f"{len(runner.bundle.videos)} videos, {runner.backend.name} {runner.backend.precision}, {device_name()}")
        result = measure_latency(runner, options.warmup, options.repeats, options.power_seconds)
        write_result(result, Path(options.output))
    except (RunnerError, OSError) as error:
        sys.exit(f"error: {error}")
    except MemoryError:
        sys.exit("error: memory ran out: close other programs")
    except KeyboardInterrupt:
        sys.exit("interrupted: nothing is written; engines that were built are kept")
    rows = [row for row in result.summary if row[Column.PER] == PER_VIDEO and not row[Column.WITH_PREPARATION]]
    width = max(len(row[Column.SYSTEM]) for row in rows)
    for row in rows:
        values = ", ".join(f"{row[name]:.2f} ({name})" for name in STATISTICS)
        log(f"{row[Column.SYSTEM].rjust(width)}: {values} ms per video")


if __name__ == "__main__":
    main()
