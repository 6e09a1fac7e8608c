"""Runs a bundle of exported graphs with real exits, checks it and times it: on a Jetson, or anywhere else.

``python3 jetson.py``, in the folder of the bundle, writes ``latency.json``; ``--help`` says more. This file stands
alone: it is copied into the bundle, imports nothing of the kit, and runs on Python 3.6 or newer with NumPy and one of
TensorRT (8.2 or newer), ONNX Runtime and PyTorch (1.10 or newer). The kit imports it to time the machine it runs on.
"""

import argparse
import collections
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
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np

MANIFEST = "bundle.json"
CLIPS = "clips.npy"

# --- names of tensors: graphs connect by them ------------------------------------------------------------

FRAME = "frame"  #: a time step, ``[1, 3, S, S]`` or ``[1, 3, L, S, S]``
CLIP = "clip"  #: all time steps of a video, ``[T, ...]``
CHUNK = "chunk"  #: the first few of them
FEATURE = "feature"  #: an exit feature, ``[1, D]``
FEATURES = "features"  #: one feature a frame, ``[T, D]``
PAST = "past"  #: ``z`` of the frames before, ``[1, D]``
BASE = "base"  #: what the feature is folded into, where this is not ``PAST`` but ``z`` of the exit before, ``[1, D]``
COUNT = "count"  #: how many features that is made of, ``[1, 1]``
Z = "z"  #: ``z`` of this exit, ``[1, D]``
LOGITS = "logits"  #: ``[1, C]``
SCORES = "scores"  #: what decides, ``[1, 2]``: the largest probability of a class, and the gate's score or 0
MEMORY = "memory"  #: begins the names of what segments remember of the frame before
NEXT = "next_"  #: before such a name: what it is to hold at the frame after

NEVER = 1.0  #: a threshold that no score is above

# --- systems that are timed ------------------------------------------------------------------------------

FULL = "full"  #: the uncut network on all frames, classified once
BATCH = "full, one batch"  #: the same, all frames in one call, which must have come before the first is looked at
REAL = "real"  #: the engine
CHUNKED = "real, chunked"  #: the engine, the first few frames in one batch
IDEAL = "ideal"  #: the uncut network up to the exits that the engine takes, and nothing else


def fixed(depth):
    """Name of the system that leaves every frame at ``depth``, uncut, and classifies once."""
    return f"depth {depth}"


class RunnerError(Exception):
    """Something that whoever runs this can mend. The message is one line."""


class Bundle:
    """The bundle in ``folder``; ``program`` says which graphs to run, see ``tlee.edge.bundle``."""

    def __init__(self, folder):
        self.folder = Path(folder)
        try:
            self.program = json.loads((self.folder / MANIFEST).read_text())
        except (OSError, ValueError) as error:
            raise RunnerError(f"{folder} holds no readable {MANIFEST} ({error}): copy the bundle again") from None
        self.videos = self.program["videos"]
        self._frames = None

    def file(self, name):
        """Where the file ``name`` is. Raises ``RunnerError`` if it is not the one that was exported."""
        path, digest = self.folder / name, hashlib.sha256()
        try:
            with path.open("rb") as file:
                for block in iter(partial(file.read, 1 << 20), b""):
                    digest.update(block)
        except OSError as error:
            raise RunnerError(f"{path} cannot be read ({error.strerror}): copy the bundle again") from None
        if digest.hexdigest() != self.program["files"][name]:
            raise RunnerError(f"{path} is not the file that was exported: copy the bundle again")
        return str(path)

    def frames(self, video):
        """``uint8 [T, S, S, 3]``, or ``[T, L, S, S, 3]``: RGB in visiting order."""
        if self._frames is None:
            self._frames = np.load(self.file(CLIPS), mmap_mode="r")
        return self._frames[video]

    def path_taken(self, video):
        """The exits to take of a video, ``[T]``; none where the policy decides."""
        return None if self.program["decides"] else self.videos[video]["exit_depths"]


def prepare(frames):
    """Frames ``uint8 [T, ..., S, S, 3]`` to what the network reads, ``float32 [T, 3, ..., S, S]`` in 0..1."""
    return np.divide(np.moveaxis(frames, -1, 1), np.float32(255), dtype=np.float32, order="C")


# --- what graphs run on ----------------------------------------------------------------------------------


class OnnxRuntime:
    """Graphs on the CPU, by ONNX Runtime.

    A backend holds all tensors of a program by name, where its graphs run, all ``float32`` and first zero. ``load``
    makes a graph a function that runs from its inputs to its outputs. ``put``, ``get``, ``copy`` and ``clear`` move
    values. What is called may return before it is done, but for ``get``; ``blocking`` says that it does not.
    """

    name, precisions, blocking = "onnxruntime", ("fp32", "int8"), True  # graphs in int8 run in nothing else

    def __init__(self, bundle, precision, threads):
        import onnxruntime

        self._runtime, self._bundle = onnxruntime, bundle
        self.precision, self.about = precision, {"version": onnxruntime.__version__, "runs_on": "CPU"}
        self._options = onnxruntime.SessionOptions()
        self._options.intra_op_num_threads = threads
        self._options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        # Each graph has threads of its own. Spinning ones would take the cores from the graph that runs next.
        self._options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        shapes = bundle.program["tensors"]
        self._tensors = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
        # These share their memory with the arrays: a call passes and copies nothing.
        self._values = {name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in self._tensors.items()}

    def load(self, name):
        path = self._bundle.file(name + ".onnx")
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
        """An array that is valid until something writes to the tensor."""
        return self._tensors[name]

    def copy(self, source, target, row=None):
        """All of ``source``; into one ``row`` of the target, if it is named."""
        self._tensors[target][... if row is None else slice(row, row + 1)] = self._tensors[source]

    def clear(self, name):
        self._tensors[name][...] = 0


class Torch:
    """Graphs as TorchScript, by PyTorch, on its GPU if it finds one. See ``OnnxRuntime`` for what a backend is."""

    name, precisions = "torch", ("fp32",)

    def __init__(self, bundle, precision, threads):
        import torch

        self._torch, self._bundle = torch, bundle
        torch.set_num_threads(threads)
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self.blocking = self._device == "cpu"
        self.precision, self.about = precision, {"version": torch.__version__, "runs_on": self._device.upper()}
        shapes = bundle.program["tensors"]
        self._tensors = {name: torch.zeros(shape, device=self._device) for name, shape in shapes.items()}

    def load(self, name):
        graph = self._bundle.program["graphs"][name]
        module = self._torch.jit.load(self._bundle.file(name + ".pt"), map_location=self._device)
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
            self._tensors[target] = self._tensors[source]  # which the next call replaces, and does not change
        else:
            self._tensors[target][row : row + 1] = self._tensors[source]

    def clear(self, name):
        self._tensors[name] = self._torch.zeros_like(self._tensors[name])


class TensorRT:
    """Graphs on the GPU, by TensorRT. See ``OnnxRuntime`` for what a backend is.

    Engines are built once and kept in ``engines/`` in the folder of the bundle, by graph, precision, version of
    TensorRT and device. Readouts are never run in half precision: they are tiny, and what they compute is compared
    with thresholds.
    """

    name, precisions, blocking = "tensorrt", ("fp16", "fp32"), False
    workspace = 256 << 20  #: bytes that building an engine may take; a Nano has 4 GB for everything

    def __init__(self, bundle, precision, threads):
        import tensorrt

        self._tensorrt, self._bundle, self._cuda = tensorrt, bundle, Cuda()
        self.precision = precision
        self.about = {"version": tensorrt.__version__, "runs_on": "GPU", "cuda": self._cuda.version()}
        self._logger = tensorrt.Logger(tensorrt.Logger.WARNING)
        self._runtime = tensorrt.Runtime(self._logger)
        shapes = bundle.program["tensors"]
        self._tensors = {name: DeviceTensor(self._cuda, shape) for name, shape in shapes.items()}

    def load(self, name):
        plan = self._plan(name)
        engine = self._runtime.deserialize_cuda_engine(plan.read_bytes())
        if engine is None:
            raise RunnerError(f"TensorRT cannot load {plan}: delete it, it is built again")
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
            raise RunnerError(f"TensorRT could not run {name}")

    def _plan(self, name):
        """The file of an engine, which is built if it is not there."""
        precision = "fp32" if name.startswith(("readout", "conclusion")) else self.precision
        digest = self._bundle.program["files"][name + ".onnx"][:12]
        device = re.sub(r"[^A-Za-z0-9]+", "-", device_name())
        file = f"{name}-{digest}-{precision}-{self._tensorrt.__version__}-{device}.plan"
        path = self._bundle.folder / "engines" / file
        if not path.exists():
            say(f"building {name} for TensorRT, once; this can take minutes")
            plan = self._build(name, precision)
            path.parent.mkdir(exist_ok=True)
            unfinished = path.with_suffix(".unfinished")
            unfinished.write_bytes(plan)
            unfinished.replace(path)
        return path

    def _build(self, name, precision):
        tensorrt = self._tensorrt
        builder = tensorrt.Builder(self._logger)
        network = builder.create_network(1 << int(tensorrt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH))
        parser = tensorrt.OnnxParser(network, self._logger)
        if not parser.parse(Path(self._bundle.file(name + ".onnx")).read_bytes()):
            raise RunnerError(f"TensorRT cannot read {name}.onnx: {parser.get_error(0).desc()}")
        config = builder.create_builder_config()
        if hasattr(config, "set_memory_pool_limit"):  # TensorRT 8.4 and newer
            config.set_memory_pool_limit(tensorrt.MemoryPoolType.WORKSPACE, self.workspace)
        else:
            config.max_workspace_size = self.workspace
        config.clear_flag(tensorrt.BuilderFlag.TF32)  # which is no single precision
        if precision == "fp16":
            config.set_flag(tensorrt.BuilderFlag.FP16)
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise RunnerError(f"TensorRT could not build {name}: its messages above say why")
        return bytes(plan)

    def put(self, name, array):
        self._tensors[name].write(array)

    def get(self, name):
        """An array that is valid until the tensor is got again."""
        return self._tensors[name].read()

    def copy(self, source, target, row=None):
        source, target = self._tensors[source], self._tensors[target]
        self._cuda.copy(target.pointer + (row or 0) * source.size, source.pointer, source.size, DEVICE_TO_DEVICE)

    def clear(self, name):
        self._cuda.clear(self._tensors[name].pointer, self._tensors[name].size)


HOST_TO_DEVICE, DEVICE_TO_HOST, DEVICE_TO_DEVICE = 1, 2, 3  # of cudaMemcpyKind


class Cuda:
    """The calls of CUDA's runtime that are needed, by ``ctypes``: a Jetson has the library, but rarely pycuda.

    All that returns before it is done goes to one ``stream``, and so happens in order.
    """

    def __init__(self):
        self._library = load_library("cudart", "/usr/local/cuda/lib64/libcudart.so")
        self._library.cudaGetErrorString.restype = ctypes.c_char_p
        self.stream = self._new("cudaStreamCreate")

    def _call(self, function, *arguments):
        status = getattr(self._library, function)(*arguments)
        if status:
            reason = self._library.cudaGetErrorString(ctypes.c_int(status)).decode()
            raise RunnerError(f"CUDA: {function} failed ({reason})")

    def _new(self, function, *arguments):
        """Of a function that returns a pointer by its first argument."""
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
        """A ``float32`` array in memory that the GPU can copy from and to while the program goes on."""
        count = int(np.prod(shape))
        pointer = self._new("cudaHostAlloc", ctypes.c_size_t(4 * count), ctypes.c_uint(0))
        return np.ctypeslib.as_array((ctypes.c_float * count).from_address(pointer)).reshape(shape)

    def event(self):
        return self._new("cudaEventCreateWithFlags", ctypes.c_uint(2))  # without timing

    def record(self, event):
        self._call("cudaEventRecord", ctypes.c_void_p(event), ctypes.c_void_p(self.stream))

    def wait_for(self, event):
        """Until all that was given to the stream before the event was recorded is done; if it was not, not at all."""
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
    """The shared library ``name``, or the file ``path`` where the system does not find it."""
    for candidate in filter(None, (ctypes.util.find_library(name), f"lib{name}.so", path)):
        with suppress(OSError):
            return ctypes.CDLL(candidate)
    raise RunnerError(f"lib{name}.so is not found: add its folder to LD_LIBRARY_PATH")


class DeviceTensor:
    """A ``float32`` tensor on the GPU. ``size``: in bytes.

    What the host writes is copied from an area that is free again once the copy is done: so it can prepare the next
    frame while the GPU is busy with this one.
    """

    def __init__(self, cuda, shape):
        self._cuda, self._shape = cuda, shape
        self.size = 4 * int(np.prod(shape))
        self.pointer = cuda.device_memory(self.size)
        cuda.clear(self.pointer, self.size)
        self._written = self._copied = self._seen = None

    def write(self, array):
        if self._written is None:
            self._written, self._copied = self._cuda.host_array(self._shape), self._cuda.event()
        self._cuda.wait_for(self._copied)
        self._written[...] = array
        self._cuda.copy(self.pointer, self._written.ctypes.data, self.size, HOST_TO_DEVICE)
        self._cuda.record(self._copied)

    def read(self):
        if self._seen is None:
            self._seen = self._cuda.host_array(self._shape)
        self._cuda.copy(self._seen.ctypes.data, self.pointer, self.size, DEVICE_TO_HOST)
        self._cuda.wait()
        return self._seen


BACKENDS = {backend.name: backend for backend in (TensorRT, OnnxRuntime, Torch)}  #: the first that is there is taken


def find_backend(name=None, graphs="fp32"):
    """The backend ``name``, or the first of ``BACKENDS`` whose package can be imported, for ``graphs`` of a precision.

    Raises ``RunnerError`` if there is none.
    """
    able = [each for each, backend in BACKENDS.items() if graphs in backend.precisions]
    if name and name not in able:
        raise RunnerError(f"{name} does not run graphs in {graphs}: use {' or '.join(able)}")
    wanted = [name] if name else able
    for candidate in wanted:
        with suppress(ImportError):
            importlib.import_module(candidate)
            return BACKENDS[candidate]
    raise RunnerError(f"{sys.executable} cannot import {' or '.join(wanted)}: install it, or use another Python")


def say(text):
    """To whoever watches."""
    print(text, file=sys.stderr, flush=True)


# --- running -----------------------------------------------------------------------------------------------


class Graph:
    """A loaded graph. ``seconds`` adds up the time spent in calls: two readings of the clock a call."""

    def __init__(self, backend, name, outputs):
        self.name, self._backend = name, backend
        try:
            self._run = backend.load(name)
        except RunnerError:
            raise
        except Exception as error:  # whatever a runtime raises that is too old or too new for the graph
            reason = (str(error).strip() or type(error).__name__).split("\n")[0]
            raise RunnerError(f"{backend.name} {backend.about['version']} cannot load {name}: {reason}") from error
        self._memories = [(output, output[len(NEXT) :]) for output in outputs if output.startswith(NEXT)]
        self.seconds = 0.0

    def __call__(self):
        begin = time.perf_counter()
        self._run()
        for now, before in self._memories:
            self._backend.copy(now, before)
        self.seconds += time.perf_counter() - begin

    def forget(self):
        """Start another video."""
        for _, before in self._memories:
            self._backend.clear(before)


#: What was done with one video: ``logits [C]`` where it stopped, ``exits [T]``, the depth at which each frame was left
#: and -1 where it was never looked at, and the graphs of segments that ``ran`` frame by frame, in order.
Verdict = collections.namedtuple("Verdict", "logits exit_depths ran")


class Chunk:
    """Segments on the first ``frames`` of a video at once, each called as soon as one of these frames needs it.

    ``program`` holds the ``stages`` from shallow to deep: the depth that each ends at, and its graph.
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
        """Provide the exit feature of frame ``t`` at ``depth``."""
        while self._called < len(self.stages) and self.stages[self._called][0] <= depth:
            self.stages[self._called][1]()
            self._called += 1
        self._backend.copy(chunk_feature(t, depth), FEATURE)


def chunk_feature(t, depth):
    """Name of the exit feature of frame ``t`` of a chunk."""
    return f"{CHUNK}{t}_{FEATURE}{depth}"


class Engine:
    """Runs a policy with real exits: a graph that is not needed is not called.

    ``program`` holds ``graphs`` (name to ``inputs`` and ``outputs``), the ``tensors`` that they share (name to shape),
    for each frame the ``looks`` from shallow to deep, and ``visited``: whether exits are folded into each other. A look
    runs two graphs, ``segments`` and ``readout``, at a ``depth``; then the video stops if the confidence is above
    ``stop`` or the gate's score above ``gate``, and the frame is left if the confidence is above ``leave``.
    There is a ``chunk`` (see ``Chunk``) where frames do not depend on the frames before.
    """

    def __init__(self, backend, program):
        self._backend, self._accumulates_visited = backend, program["visited"]
        looks = [look for frame in program["looks"] for look in frame]
        names = [name for look in looks for name in (look["segments"], look["readout"])]
        graphs = {name: Graph(backend, name, program["graphs"][name]["outputs"]) for name in dict.fromkeys(names)}
        self._graphs = list(graphs.values())
        self._frames = [
            [
                (
                    look["depth"],
                    graphs[look["segments"]],
                    graphs[look["readout"]],
                    *(_threshold(look[name]) for name in ("stop", "gate", "leave")),
                )
                for look in frame
            ]
            for frame in program["looks"]
        ]
        self.chunk = Chunk(backend, program["chunk"], program["graphs"]) if program["chunk"] else None
        if self.chunk:
            self._graphs += [graph for _, graph in self.chunk.stages]
        read = {tensor for graph in graphs for tensor in program["graphs"][graph]["inputs"]}
        self._has_past, self._has_base, self._has_count = PAST in read, BASE in read, COUNT in read

    @property
    def seconds(self):
        """Time spent in calls of graphs so far."""
        return sum(self.seconds_of_graphs.values())

    @property
    def seconds_of_graphs(self):
        """The same for each graph, by name."""
        return {graph.name: graph.seconds for graph in self._graphs}

    def run(self, clip, path=None, chunked=False):
        """Decide on one video, ``float32 [T, *input_shape]`` in visiting order; ``chunked``: with ``chunk``.

        With a ``path`` nothing is decided: frame ``t`` is left at depth ``path[t]``, and the video stops before
        the first -1; the program must be one of random exits.
        Raises ``ValueError`` if the program was exported for another number of frames.
        """
        if len(clip) != len(self._frames):
            raise ValueError(f"the clip has {len(clip)} frames, the bundle was exported for {len(self._frames)}")
        backend, visited = self._backend, self._accumulates_visited
        exits, ran, stop, count = [-1] * len(clip), [], False, 0
        for graph in self._graphs:
            graph.forget()
        at_once = self.chunk.frames if chunked else 0
        if chunked:
            self.chunk.start(clip)
        for t, looks in enumerate(self._frames):
            if t >= at_once:
                backend.put(FRAME, clip[t : t + 1])
            if path is not None:
                looks = looks[0 if visited else path[t] : path[t] + 1]
            for depth, run_segments, run_readout, stop_above, gate_above, leave_above in looks:
                if self._has_count:
                    backend.put(COUNT, count)
                if t < at_once:
                    self.chunk.reach(t, depth)
                else:
                    run_segments()
                    ran.append(run_segments.name)
                run_readout()
                exits[t] = depth
                if visited:
                    count += 1
                    if self._has_base:
                        backend.copy(Z, BASE)
                if path is None:
                    confidence, gate = backend.get(SCORES)[0]
                    stop = confidence > stop_above or gate > gate_above
                    if stop or confidence > leave_above:
                        break
            if stop or (path is not None and t + 1 < len(path) and path[t + 1] < 0):
                break
            if self._has_past:
                backend.copy(Z, PAST)
            if not visited:
                count += 1
        return Verdict(backend.get(LOGITS)[0].copy(), exits, ran)


def _threshold(value):
    """Of ``float32``, as scores are; rounding takes no score above ``NEVER``."""
    return np.float32(np.inf if value >= NEVER else value)


class UncutNetwork:
    """Runs the network without exits: all frames up to one depth, or each up to its own.

    ``program`` names the graph of each depth that runs from a frame to its exit feature (``prefixes``), the one that
    runs from all frames to their features of full depth (``batch``, if there is one), and the one that classifies the
    features of all frames (``conclusion``).
    """

    def __init__(self, backend, program):
        self._backend = backend
        self._prefixes, batch, (self._conclusion,) = (
            [Graph(backend, name, program["graphs"][name]["outputs"]) for name in names if name]
            for names in (program["prefixes"], [program["batch"]], [program["conclusion"]])
        )
        self._graphs = [*self._prefixes, *batch, self._conclusion]
        self._batch = batch[0] if batch else None
        self.deepest = len(self._prefixes) - 1

    @property
    def has_batch(self):
        """Whether it can run all frames in one call."""
        return self._batch is not None

    @property
    def seconds(self):
        """Time spent in calls of graphs so far."""
        return sum(graph.seconds for graph in self._graphs)

    def run(self, clip, depth=None):
        """Logits ``[C]`` of one video ``float32 [T, *input_shape]``: frame after frame, classified once."""
        self._extract(clip, [self.deepest if depth is None else depth] * len(clip))
        self._conclusion()
        return self._backend.get(LOGITS)[0].copy()

    def run_batch(self, clip):
        """The same at full depth, all frames in one call."""
        self._backend.put(CLIP, clip)
        self._batch()
        self._conclusion()
        return self._backend.get(LOGITS)[0].copy()

    def features(self, clip, exits):
        """The feature of exit ``exits[t]`` of each frame, ``[T, D]``; frames with -1 are not run.

        The result is valid until the next call.
        """
        self._extract(clip, exits)
        return self._backend.get(FEATURES)

    def _extract(self, clip, exits):
        for prefix in self._prefixes:
            prefix.forget()
        for t, depth in enumerate(exits):
            if depth >= 0:
                self._backend.put(FRAME, clip[t : t + 1])
                self._prefixes[depth]()
                self._backend.copy(FEATURE, FEATURES, row=t)


class Runner:
    """A bundle, loaded: the ``engine`` that runs its policy, and the network ``uncut``, on a backend.

    That is the one called ``backend``, or the first that is there; so with its ``precision``. ``threads`` are of the
    CPU, those that the bundle says if none are given.
    """

    def __init__(self, folder, backend=None, precision=None, threads=None):
        self.bundle = Bundle(folder)
        graphs, self.threads = self.bundle.program["precision"], threads or self.bundle.program["timing"]["threads"]
        kind = find_backend(backend, graphs)
        precisions = [each for each in kind.precisions if (each == "int8") == (graphs == "int8")]
        if precision not in (None, *precisions):
            raise RunnerError(f"{kind.name} runs in {' or '.join(precisions)}, not in {precision}")
        self.backend = kind(self.bundle, precision or precisions[0], self.threads)
        self.engine = Engine(self.backend, self.bundle.program)
        self.uncut = UncutNetwork(self.backend, self.bundle.program)


# --- checking ----------------------------------------------------------------------------------------------

#: How far logits may be off, as a share of the largest of a video; what lies nearer to a threshold may go either way.
#: In int8 a value that is rounded the other way is a whole step off, so that kernels of one network differ by 0.04.
TOLERANCE = {"fp32": 0.002, "fp16": 0.02, "int8": 0.1}


WRONG = "wrong result, nothing is timed"


def check(runner, chunked=False):
    """Does the engine take the exits and find the labels that the bundle expects, on all of its videos?

    Returns how many ``clips`` there were, of how many exits and label were the ``same``, and how far ``logits`` were
    off at most on these. Raises ``RunnerError`` where one differs though no score was near a threshold.
    """
    bundle, same, furthest = runner.bundle, 0, 0.0
    for number, video in enumerate(bundle.videos):
        verdict = runner.engine.run(prepare(bundle.frames(number)), bundle.path_taken(number), chunked)
        expected = np.array(video["logits"], np.float32)
        allowed = TOLERANCE[runner.backend.precision] * max(1.0, float(np.abs(expected).max()))
        found = {"exit_depths": verdict.exit_depths, "label": int(verdict.logits.argmax())}
        other = [key for key in found if found[key] != video[key]]
        if other and video["margin"] > allowed:
            key = other[0]
            raise RunnerError(f"{WRONG}: {key} of {video['video']} are {found[key]}, expected {video[key]}")
        if not other:
            off = float(np.abs(verdict.logits - expected).max())
            if not off <= allowed:
                far = f"are {off:.2g} off, expected at most {allowed:.2g}"
                raise RunnerError(f"{WRONG}: logits of {video['video']} {far}")
            same, furthest = same + 1, max(furthest, off)
    return {"clips": len(bundle.videos), "same": same, "logits": furthest if same else None}


# --- timing ------------------------------------------------------------------------------------------------

COLUMNS = ("system", "video", "repeat", "frames", "milliseconds", "network", "preparation")


def measure(runner, warmup, repeats, systems=None):
    """Time ``systems`` on every video, ``repeats`` times: those named above, or all of them.

    Returns a table as columns, one row a system, video (position in the bundle) and repeat: how many ``frames`` were
    processed, ``milliseconds`` from prepared frames to a result on the host, how many of them went into calls of
    graphs, ``network`` (none if the backend is not blocking), and those that it took to prepare the frames.

    The systems take turns on each video, so that whatever slows the machine down hits all of them. Each runs the video
    untimed right before, until it has seen as many frames as the full network does in one run: in use none finds the
    caches filled by another. The first ``warmup`` turns are not recorded.
    """
    videos = range(len(runner.bundle.videos))
    for turn in range(warmup):
        list(take_turns(runner, turn % len(videos), systems))
    rows = []
    for repeat in range(repeats):
        for video in videos:
            for system, frames, total, network, preparation in take_turns(runner, video, systems):
                times = [round(1000 * seconds, 6) for seconds in (total, network, preparation)]
                times[1] = times[1] if runner.backend.blocking else None
                rows.append([system, video, repeat, frames, *times])
    return {name: list(column) for name, column in zip(COLUMNS, zip(*rows))}


def take_turns(runner, video, systems):
    """Time ``systems`` on one video, or all of them if none are named; each runs it untimed before, see ``measure``.

    Gives of each: name, frames that were processed, seconds, those in calls of graphs, those to prepare the frames.
    """
    engine, uncut = runner.engine, runner.uncut
    frames, path = runner.bundle.frames(video), runner.bundle.path_taken(video)
    clip = prepare(frames)
    exits = engine.run(clip, path).exit_depths
    looked_at = sum(depth >= 0 for depth in exits)
    turns = [(FULL, len(exits), uncut, partial(uncut.run, clip))]
    if uncut.has_batch:
        turns += [(BATCH, len(exits), uncut, partial(uncut.run_batch, clip))]
    turns += [(fixed(b), len(exits), uncut, partial(uncut.run, clip, b)) for b in range(uncut.deepest)]
    if engine.chunk:
        count = max(looked_at, engine.chunk.frames)
        turns += [(CHUNKED, count, engine, partial(engine.run, clip, path, chunked=True))]
    turns += [(REAL, looked_at, engine, partial(engine.run, clip, path))]
    turns += [(IDEAL, looked_at, uncut, partial(uncut.features, clip, exits))]
    for system, count, graphs, work in turns:
        if systems and system not in systems:
            continue
        begin = time.perf_counter()
        prepare(frames[:count])
        preparation = time.perf_counter() - begin
        for _ in range(-(-len(exits) // count)):
            work()
        yield (system, count, *_time(work, graphs), preparation)


def _time(work, graphs):
    """Seconds of ``work``, and of them in calls of the graphs of an engine or uncut network."""
    inside = graphs.seconds
    begin = time.perf_counter()
    work()
    total = time.perf_counter() - begin
    return total, graphs.seconds - inside


STATISTICS = ("p50", "p90", "p99", "mean")


def statistics(values):
    """Percentiles and the mean of ``values``, by the names in ``STATISTICS``.

    Where few videos take most of the time, as with exits, the mean is far from the median.
    """
    return dict(zip(STATISTICS, [*np.percentile(values, (50, 90, 99)).tolist(), float(np.mean(values))]))


def summarise(times):
    """``statistics`` of ``times`` (see ``measure``), in milliseconds: a list of rows.

    Each is of one ``system``, ``per`` video or per frame that was processed, without or with ``preparation`` of the
    frames.
    """
    columns = {name: np.array(times[name]) for name in ("system", "frames", "milliseconds", "preparation")}
    rows = []
    for system in dict.fromkeys(times["system"]):
        mine = columns["system"] == system
        for per, count in (("video", 1), ("frame", columns["frames"][mine])):
            for preparation in (False, True):
                total = columns["milliseconds"][mine] + preparation * columns["preparation"][mine]
                rows.append({"system": system, "per": per, "preparation": preparation})
                rows[-1].update({name: round(value, 6) for name, value in statistics(total / count).items()})
    return rows


# --- power -------------------------------------------------------------------------------------------------

#: Rails that carry all that a board takes, on boards that have one.
INPUT_RAILS = ("POM_5V_IN", "VDD_IN", "VIN")
#: Part of another rail (AGX Orin).
INNER_RAILS = ("VDDQ_VDD2_1V8AO",)


def board_power(line):
    """What the board takes by a ``line`` of tegrastats: the rails that it is read from, and milliwatts.

    Where no rail carries all (AGX), it is the sum of those of the module. None where the line tells no power.
    """
    found = re.findall(r"(\S+) (-?\d+)(?:mW)?/-?\d+(?:mW)?(?=\s|$)", line)
    rails = {name: int(value) for name, value in found if name not in INNER_RAILS}
    for name in INPUT_RAILS:
        if name in rails:
            return name, rails[name]
    return ("+".join(rails), sum(rails.values())) if rails else None


class Power:
    """Watts of the board over time, as ``tegrastats`` tells them."""

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
        """Mean of the samples between two readings of ``time.perf_counter``; none if there are none."""
        inside = [watts for at, watts in list(self._samples) if begin < at <= end]
        return sum(inside) / len(inside) if inside else None

    def close(self):
        self._process.terminate()
        self._process.wait()


def measure_power(runner, tegrastats, seconds):
    """Energy of a video, for each system but ``IDEAL``, from ``seconds`` of each and as many of doing nothing.

    Returns ``idle_watts``, the ``rail``, and for each of the ``systems`` its ``watts`` and the ``joules`` a video, in
    all and ``above_idle``; frames are prepared too. None where ``tegrastats`` tells no power.
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
                run(prepare(bundle.frames(video)), bundle.path_taken(video))
                videos += 1
            end = time.perf_counter()
            watts = power.mean(begin + seconds / 10, end)  # the first samples still show what was before
            if watts is None:
                return None
            each = (end - begin) / videos
            systems[name] = {"watts": watts, "joules": watts * each, "above_idle": (watts - idle) * each}
        return {"rail": power.rail, "idle_watts": idle, "systems": systems}
    finally:
        power.close()


def _systems(runner):
    """Names, and what to call with a clip and its path."""
    uncut = runner.uncut
    yield FULL, lambda clip, path: uncut.run(clip)
    if uncut.has_batch:
        yield BATCH, lambda clip, path: uncut.run_batch(clip)
    for depth in range(uncut.deepest):
        yield fixed(depth), lambda clip, path, depth=depth: uncut.run(clip, depth)
    if runner.engine.chunk:
        yield CHUNKED, partial(runner.engine.run, chunked=True)
    yield REAL, runner.engine.run


# --- the device --------------------------------------------------------------------------------------------


def device_name(root="/"):
    """What the machine calls itself."""
    name = _read(root, "proc/device-tree/model").replace("\0", "").strip()
    processor = re.search(r"^model name\s*: (.+)$", _read(root, "proc/cpuinfo"), re.MULTILINE)
    return name or (processor.group(1) if processor else platform.processor() or platform.machine())


def describe_device(root="/"):
    """Name, system and power mode of the machine; what it does not tell is left out."""
    power_mode = re.search(r"NV Power Mode: *(\S+)", _output_of("nvpmodel", "-q"))
    about = {
        "name": device_name(root),
        "machine": platform.machine(),
        "system": platform.platform(),
        "release": _read(root, "etc/nv_tegra_release").split("\n")[0].strip("# "),
        "power_mode": power_mode.group(1) if power_mode else "",
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }
    return {key: value for key, value in about.items() if value}


def clocks(root="/"):
    """MHz at this moment, and at most: of each core of the CPU, and of the GPU; empty where they are not told."""
    cores, devices = Path(root, "sys/devices/system/cpu"), Path(root, "sys/class/devfreq")
    gpus = [path for path in devices.glob("*") if re.search(r"gpu|gp10b|gv11b|ga10b", path.name)]
    return {
        "cpu": _frequencies(sorted(cores.glob("cpu[0-9]*/cpufreq")), "scaling_cur_freq", "scaling_max_freq", 1e3),
        "gpu": _frequencies(gpus, "cur_freq", "max_freq", 1e6),
    }


def _frequencies(folders, now, most, unit):
    values = [[_read(folder, name) for name in (now, most)] for folder in folders]
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


# --- all of it -----------------------------------------------------------------------------------------------


def report(runner, warmup=None, repeats=None, power_seconds=10.0):
    """Check, time and describe: what ``latency.json`` holds.

    ``bundle`` (its id), ``device``, ``clocks`` before and after, ``runtime``, ``settings``, ``check``, ``times``,
    ``summary`` and ``power``; the last is none where there is no tegrastats. ``warmup`` and ``repeats`` are those that
    the bundle says if they are not given.
    Raises ``RunnerError`` where a result is wrong.
    """
    timing, backend = runner.bundle.program["timing"], runner.backend
    settings = {
        "warmup": timing["warmup"] if warmup is None else warmup,
        "repeats": timing["repeats"] if repeats is None else repeats,
    }
    if runner.engine.chunk:
        check(runner, chunked=True)
    checked, before = check(runner), clocks()
    times, tegrastats = measure(runner, **settings), shutil.which("tegrastats")
    return {
        "bundle": runner.bundle.program["id"],
        "device": describe_device(),
        "clocks": {"before": before, "after": clocks()},
        "runtime": {
            "backend": backend.name,
            "precision": backend.precision,
            "threads": runner.threads,
            **backend.about,
        },
        "settings": settings,
        "check": checked,
        "times": times,
        "summary": summarise(times),
        "power": measure_power(runner, tegrastats, power_seconds) if tegrastats and power_seconds else None,
    }


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Run, check and time the bundle that lies beside this file.")
    parser.add_argument("--bundle", default=str(Path(__file__).parent), help="its folder")
    parser.add_argument("--output", default="latency.json", help="what is written")
    parser.add_argument("--backend", choices=list(BACKENDS), help="by default the first that can be imported")
    parser.add_argument("--precision", choices=["fp16", "fp32"], help="of TensorRT, by default fp16")
    parser.add_argument("--threads", type=int, help="of the CPU; these three by default as the bundle says")
    parser.add_argument("--warmup", type=int, help="videos")
    parser.add_argument("--repeats", type=int, help="passes over all videos")
    parser.add_argument("--power-seconds", type=float, default=10.0, help="for each system; 0: do not measure power")
    options = parser.parse_args(arguments)
    try:
        runner = Runner(options.bundle, options.backend, options.precision, options.threads)
        say(f"{len(runner.bundle.videos)} videos, {runner.backend.name} {runner.backend.precision}, {device_name()}")
        result = report(runner, options.warmup, options.repeats, options.power_seconds)
        Path(options.output).write_text(json.dumps(result) + "\n")
    except (RunnerError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted: nothing is written; engines that were built are kept")
    rows = [row for row in result["summary"] if row["per"] == "video" and not row["preparation"]]
    width = max(len(row["system"]) for row in rows)
    for row in rows:
        text = "{}: {p50:8.2f} ms a video (median), {p90:8.2f} (p90), {p99:8.2f} (p99), {mean:8.2f} (mean)"
        say(text.format(row["system"].rjust(width), **row))


if __name__ == "__main__":
    main()
