"""Runs a bundle of exported graphs with real exits, checks it and times it.

This file stands alone: it is copied into the bundle (``tlee.edge.bundle`` says what else is in there), imports nothing
of the kit, and runs on Python 3.6 with NumPy and ONNX Runtime. The kit imports it to time the machine it runs on.
"""

import collections
import hashlib
import json
import time
from functools import partial
from pathlib import Path

import numpy as np

MANIFEST = "bundle.json"
CLIPS = "clips.npy"

# --- names of tensors: graphs connect by them ------------------------------------------------------------

FRAME = "frame"  #: a time step, ``[1, 3, S, S]`` or ``[1, 3, L, S, S]``
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
REAL = "real"  #: the engine
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
        return None if self.program["decides"] else self.videos[video]["exits"]


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

    name, precision, blocking = "onnxruntime", "fp32", True

    def __init__(self, bundle, threads):
        import onnxruntime

        self._runtime, self._bundle = onnxruntime, bundle
        self.version = onnxruntime.__version__
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


# --- running -----------------------------------------------------------------------------------------------


class Graph:
    """A loaded graph. ``seconds`` adds up the time spent in calls: two readings of the clock a call."""

    def __init__(self, backend, name, outputs):
        self.name, self._backend, self._run = name, backend, backend.load(name)
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
#: and -1 where it was never looked at, and the graphs of segments that ``ran``, in order.
Verdict = collections.namedtuple("Verdict", "logits exits ran")


class Engine:
    """Runs a policy with real exits: a graph that is not needed is not called.

    ``program`` holds ``graphs`` (name to ``inputs`` and ``outputs``), the ``tensors`` that they share (name to shape),
    for each frame the ``looks`` from shallow to deep, and ``visited``: whether exits are folded into each other. A look
    runs two graphs, ``segments`` and ``readout``, at a ``depth``; then the video stops if the confidence is above
    ``stop`` or the gate's score above ``gate``, and the frame is left if the confidence is above ``leave``.
    """

    def __init__(self, backend, program):
        self._backend, self._folds_visited = backend, program["visited"]
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
        read = {tensor for graph in graphs for tensor in program["graphs"][graph]["inputs"]}
        self._has_past, self._has_base, self._has_count = PAST in read, BASE in read, COUNT in read

    @property
    def seconds(self):
        """Time spent in calls of graphs so far."""
        return sum(graph.seconds for graph in self._graphs)

    def run(self, clip, path=None):
        """Decide on one video, ``float32 [T, *input_shape]`` in visiting order.

        With a ``path`` nothing is decided: frame ``t`` is left at depth ``path[t]``, and the video stops before
        the first -1; the program must be one of random exits.
        Raises ``ValueError`` if the program was exported for another number of frames.
        """
        if len(clip) != len(self._frames):
            raise ValueError(f"the clip has {len(clip)} frames, the bundle was exported for {len(self._frames)}")
        backend, visited = self._backend, self._folds_visited
        exits, ran, stop, count = [-1] * len(clip), [], False, 0
        for graph in self._graphs:
            graph.forget()
        for t, looks in enumerate(self._frames):
            backend.put(FRAME, clip[t : t + 1])
            if path is not None:
                looks = looks[0 if visited else path[t] : path[t] + 1]
            for depth, run_segments, run_readout, stop_above, gate_above, leave_above in looks:
                if self._has_count:
                    backend.put(COUNT, count)
                run_segments()
                run_readout()
                exits[t] = depth
                ran.append(run_segments.name)
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

    ``program`` names the graph of each depth that runs from a frame to its exit feature (``prefixes``), and the one
    that classifies the features of all frames (``conclusion``).
    """

    def __init__(self, backend, program):
        self._backend = backend
        self._prefixes, self._conclusion = (
            [Graph(backend, name, program["graphs"][name]["outputs"]) for name in names]
            for names in (program["prefixes"], [program["conclusion"]])
        )
        self.deepest = len(self._prefixes) - 1

    @property
    def seconds(self):
        """Time spent in calls of graphs so far."""
        return sum(graph.seconds for graph in self._prefixes + self._conclusion)

    def run(self, clip, depth=None):
        """Logits ``[C]`` of one video ``float32 [T, *input_shape]``: frame after frame, classified once."""
        self._extract(clip, [self.deepest if depth is None else depth] * len(clip))
        self._conclusion[0]()
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
    """A bundle, loaded: the ``engine`` that runs its policy, and the network ``uncut``, on ONNX Runtime."""

    def __init__(self, folder, threads):
        self.bundle = Bundle(folder)
        self.backend = OnnxRuntime(self.bundle, threads)
        self.engine = Engine(self.backend, self.bundle.program)
        self.uncut = UncutNetwork(self.backend, self.bundle.program)


# --- checking ----------------------------------------------------------------------------------------------

#: How far logits may be off, as a share of the largest of a video; what lies nearer to a threshold may go either way.
TOLERANCE = {"fp32": 0.002, "fp16": 0.02}


WRONG = "wrong result, nothing is timed"


def check(runner):
    """Does the engine take the exits and find the labels that PyTorch did, on all videos of the bundle?

    Returns how many ``clips`` there were, of how many exits and label were the ``same``, and how far ``logits`` were
    off at most on these. Raises ``RunnerError`` where one differs though no score was near a threshold.
    """
    bundle, same, furthest = runner.bundle, 0, 0.0
    for number, video in enumerate(bundle.videos):
        verdict = runner.engine.run(prepare(bundle.frames(number)), bundle.path_taken(number))
        expected = np.array(video["logits"], np.float32)
        allowed = TOLERANCE[runner.backend.precision] * max(1.0, float(np.abs(expected).max()))
        found = {"exits": verdict.exits, "label": int(verdict.logits.argmax())}
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


def measure(runner, warmup, repeats):
    """Time the systems ``FULL``, ``fixed(depth)``, ``REAL`` and ``IDEAL`` on every video, ``repeats`` times.

    Returns a table as columns, one row a system, video (position in the bundle) and repeat: how many ``frames`` were
    processed, ``milliseconds`` from prepared frames to a result on the host, how many of them went into calls of
    graphs, ``network`` (none if the backend is not blocking), and those that it took to prepare the frames.

    The systems take turns on each video, so that whatever slows the machine down hits all of them. Each runs the video
    untimed right before, until it has seen as many frames as the full network does in one run: in use none finds the
    caches filled by another. The first ``warmup`` turns are not recorded.
    """
    videos = range(len(runner.bundle.videos))
    for turn in range(warmup):
        list(_take_turns(runner, turn % len(videos)))
    rows = []
    for repeat in range(repeats):
        for video in videos:
            for system, frames, total, network, preparation in _take_turns(runner, video):
                times = [round(1000 * seconds, 6) for seconds in (total, network, preparation)]
                times[1] = times[1] if runner.backend.blocking else None
                rows.append([system, video, repeat, frames, *times])
    return {name: list(column) for name, column in zip(COLUMNS, zip(*rows))}


def _take_turns(runner, video):
    engine, uncut = runner.engine, runner.uncut
    frames, path = runner.bundle.frames(video), runner.bundle.path_taken(video)
    clip = prepare(frames)
    exits = engine.run(clip, path).exits
    looked_at = sum(depth >= 0 for depth in exits)
    turns = [(FULL, len(exits), uncut, partial(uncut.run, clip))]
    turns += [(fixed(b), len(exits), uncut, partial(uncut.run, clip, b)) for b in range(uncut.deepest)]
    turns += [(REAL, looked_at, engine, partial(engine.run, clip, path))]
    turns += [(IDEAL, looked_at, uncut, partial(uncut.features, clip, exits))]
    for system, count, graphs, work in turns:
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
