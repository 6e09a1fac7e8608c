"""Running the exported graphs: with real exits, and uncut as the baseline.

The loops are scalar NumPy. All tensors live in fixed buffers to which the graphs are bound once, so a
call passes and copies nothing.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime

from tlee.edge.export import (
    BASE,
    CONFIDENCE,
    COUNT,
    FEATURE,
    FEATURES,
    FRAME,
    GATE,
    LOGITS,
    NEXT,
    PAST,
    Bundle,
    Stretch,
    UncutBundle,
    Z,
)
from tlee.policies.look import NEVER

Buffers = dict[str, np.ndarray]  #: the tensors of a chain of graphs, by name


class BoundGraph:
    """A graph, loaded and bound to buffers; a call runs it from its inputs to its outputs.

    It reads and writes those of ``buffers`` that are named as its tensors, and adds the missing ones.
    ``nanoseconds`` adds up the time spent inside: two readings of the clock a call, below 1% of the
    shortest.
    """

    def __init__(self, path: Path, buffers: Buffers, threads: int):
        self._buffers = buffers  # a binding points into them, and does not keep them alive
        self._session = onnxruntime.InferenceSession(path, _options(threads), ["CPUExecutionProvider"])
        self._binding = self._session.io_binding()
        self._bind(self._session.get_inputs(), self._binding.bind_ortvalue_input, buffers)
        self._bind(self._session.get_outputs(), self._binding.bind_ortvalue_output, buffers)
        #: What the graph remembers: this frame's, to become that of the frame before.
        self._memories = [
            (buffers[tensor.name.removeprefix(NEXT)], buffers[tensor.name])
            for tensor in self._session.get_outputs()
            if tensor.name.startswith(NEXT)
        ]
        self.nanoseconds = 0

    @staticmethod
    def _bind(
        tensors: list[onnxruntime.NodeArg],
        bind: Callable[[str, onnxruntime.OrtValue], None],
        buffers: Buffers,
    ) -> None:
        for tensor in tensors:
            buffer = buffers.setdefault(tensor.name, np.zeros(tensor.shape, np.float32))
            bind(tensor.name, onnxruntime.OrtValue.ortvalue_from_numpy(buffer))

    def __call__(self) -> None:
        begin = time.perf_counter_ns()
        self._session.run_with_iobinding(self._binding)
        for before, now in self._memories:
            before[:] = now
        self.nanoseconds += time.perf_counter_ns() - begin

    def forget(self) -> None:
        """Start another video."""
        for before, _ in self._memories:
            before[:] = 0


def _options(threads: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    # Each graph has threads of its own. Spinning ones would take the cores from the graph that runs next.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


@dataclass(frozen=True)
class Verdict:
    """What the engine did with one video."""

    logits: np.ndarray  #: ``[C]``, at the exit where the video stopped
    exits: np.ndarray  #: ``[T]``, depth at which each frame was left; -1: never looked at
    ran: list[Stretch]  #: every call of a part of the network, in order

    @property
    def label(self) -> int:
        return int(self.logits.argmax())


class Engine:
    """Runs an exported policy with real exits: a graph that is not needed is not called."""

    def __init__(self, bundle: Bundle, threads: int):
        self._buffers: Buffers = {}
        graphs = {
            part: BoundGraph(bundle.folder / part.file, self._buffers, threads)
            for part in [*bundle.stretches, *bundle.readouts]
        }
        for name in (PAST, BASE):
            self._buffers.setdefault(name, np.zeros_like(self._buffers[Z]))
        self._buffers.setdefault(COUNT, np.zeros((1, 1), np.float32))
        self._buffers.setdefault(GATE, np.zeros_like(self._buffers[CONFIDENCE]))
        self._graphs = list(graphs.values())
        self._folds_visited = bundle.readouts[0].visited
        self._frames = [
            [
                (look.stretch, graphs[look.stretch], graphs[look.readout], look.stop, look.gate, look.leave)
                for look in looks
            ]
            for looks in bundle.frames
        ]

    @property
    def nanoseconds(self) -> int:
        """Time spent inside graphs so far."""
        return sum(graph.nanoseconds for graph in self._graphs)

    def run(self, clip: np.ndarray, path: Sequence[int] | None = None) -> Verdict:
        """Decide on one video, ``float32 [T, *input_shape]`` in visiting order, as ``inference.run`` does.

        With a ``path`` nothing is decided: frame ``t`` is left at depth ``path[t]``, and the video stops before
        the first -1; the bundle must be one of random exits.
        Raises ``ValueError`` if the bundle was exported for another number of frames.
        """
        if len(clip) != len(self._frames):
            raise ValueError(f"the clip has {len(clip)} frames, the bundle was exported for {len(self._frames)}")
        frame, past, base, count, z, confidence, gate, logits = (
            self._buffers[name] for name in (FRAME, PAST, BASE, COUNT, Z, CONFIDENCE, GATE, LOGITS)
        )
        exits, ran, visited, stop = np.full(len(self._frames), -1), [], self._folds_visited, False
        count[0] = 0
        for graph in self._graphs:
            graph.forget()
        for t, looks in enumerate(self._frames):
            frame[0] = clip[t]
            if path is not None:
                looks = looks[0 if visited else path[t] : path[t] + 1]
            for stretch, run_stretch, run_readout, stop_above, gate_above, leave_above in looks:
                run_stretch()
                run_readout()
                ran.append(stretch)
                if visited:
                    base[:] = z
                    count += 1
                stop = confidence[0] > stop_above or (gate_above < NEVER and gate[0] > gate_above)
                if stop or confidence[0] > leave_above:
                    break
            exits[t] = stretch.depth
            if stop or (path is not None and t + 1 < len(path) and path[t + 1] < 0):
                break
            past[:] = z
            if not visited:
                count += 1
        return Verdict(logits[0].copy(), exits, ran)


class UncutNetwork:
    """Runs the network without exits: all frames at full depth, or each frame up to a given exit."""

    def __init__(self, bundle: UncutBundle, threads: int):
        self._buffers: Buffers = {}
        self._prefixes = [BoundGraph(path, self._buffers, threads) for path in bundle.prefixes]
        self._conclusion = BoundGraph(bundle.conclusion, self._buffers, threads)

    @property
    def nanoseconds(self) -> int:
        """Time spent inside graphs so far."""
        return sum(graph.nanoseconds for graph in [*self._prefixes, self._conclusion])

    def run(self, clip: np.ndarray) -> np.ndarray:
        """Logits ``[C]`` of one video ``float32 [T, *input_shape]``: frame after frame, classified once."""
        self.features(clip, [len(self._prefixes) - 1] * len(clip))
        self._conclusion()
        return self._buffers[LOGITS][0].copy()

    def features(self, clip: np.ndarray, exits: Sequence[int]) -> np.ndarray:
        """The feature of exit ``exits[t]`` of each frame, ``[T, D]``; frames with -1 are not run.

        The result is valid until the next call.
        """
        frame, feature, features = (self._buffers[name] for name in (FRAME, FEATURE, FEATURES))
        for prefix in self._prefixes:
            prefix.forget()
        for t, depth in enumerate(exits):
            if depth >= 0:
                frame[0] = clip[t]
                self._prefixes[depth]()
                features[t] = feature[0]
        return features
