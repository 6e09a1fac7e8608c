"""Stand-ins for TensorRT and CUDA's runtime: device memory is host memory, and ONNX Runtime computes.

Asynchronous work of a GPU is done here as late as possible: when the host waits for it.
"""

import ctypes
import json
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import onnxruntime

ONE_THREAD = onnxruntime.SessionOptions()  #: since threads of each of hundreds of engines take longer than its graph
ONE_THREAD.intra_op_num_threads = 1


class Cudart:
    """The functions of ``libcudart.so`` that the runner calls, with one stream."""

    def __init__(self):
        self.queue: list[int | Callable[[], None]] = []  # pending work, and numbers of events
        self._memory: list[ctypes.Array] = []
        self._events = 0
        self.cudaGetErrorString = lambda status: f"error {status.value}".encode()

    def _drain(self, count: int) -> int:
        now, self.queue = self.queue[:count], self.queue[count:]
        for work in now:
            if not isinstance(work, int):
                work()
        return 0

    def _allocate(self, pointer, size) -> int:
        memory = (ctypes.c_ubyte * size.value)(*[0x7F] * size.value)  # anything but zero
        self._memory.append(memory)
        pointer._obj.value = ctypes.addressof(memory)
        return 0

    def cudaRuntimeGetVersion(self, version) -> int:
        version._obj.value = 10020
        return 0

    def cudaStreamCreate(self, stream) -> int:
        stream._obj.value = 77
        return 0

    def cudaMalloc(self, pointer, size) -> int:
        return self._allocate(pointer, size)

    def cudaHostAlloc(self, pointer, size, flags) -> int:
        return self._allocate(pointer, size)

    def cudaMemcpyAsync(self, target, source, size, kind, stream) -> int:
        assert stream.value == 77 and kind.value in (1, 2, 3)
        self.queue.append(lambda: ctypes.memmove(target, source, size.value))
        return 0

    def cudaMemsetAsync(self, target, value, size, stream) -> int:
        self.queue.append(lambda: ctypes.memset(target, value.value, size.value))
        return 0

    def cudaStreamSynchronize(self, stream) -> int:
        return self._drain(len(self.queue))

    def cudaEventCreateWithFlags(self, event, flags) -> int:
        self._events += 1
        event._obj.value = self._events
        return 0

    def cudaEventRecord(self, event, stream) -> int:
        self.queue.append(event.value)
        return 0

    def cudaEventSynchronize(self, event) -> int:
        recorded = [position for position, work in enumerate(self.queue) if work == event.value]
        return self._drain(recorded[-1] + 1 if recorded else 0)


def tensorrt(cudart: Cudart, version: str) -> SimpleNamespace:
    """Build the module of ``version``: 8.2 (bindings) or newer than 8.5 (tensors by name).

    ``built`` lists the flags of each engine that was built, and ``loaded`` the content of each that was loaded; while
    it is ``failing`` no graph can be run.
    """
    old = version.startswith("8.2")
    built: list[str] = []
    loaded: list[bytes] = []

    class Config:
        def __init__(self):
            self.flags = {"TF32"}
            if not old:
                self.set_memory_pool_limit = lambda pool, size: setattr(self, "limit", (pool, size))

        def set_flag(self, flag: str) -> None:
            self.flags.add(flag)

        def clear_flag(self, flag: str) -> None:
            self.flags.discard(flag)

    class Builder:
        def __init__(self, logger):
            pass

        def create_network(self, flags: int) -> SimpleNamespace:
            assert flags == 1
            return SimpleNamespace(content=None)

        def create_builder_config(self) -> Config:
            return Config()

        def build_serialized_network(self, network: SimpleNamespace, config: Config) -> memoryview | None:
            limit = (None, config.max_workspace_size) if old else config.limit
            assert limit == (None if old else "workspace", 256 << 20)
            built.append(" ".join(sorted(config.flags)))
            return memoryview(json.dumps(sorted(config.flags)).encode() + b"\n" + network.content)

    class OnnxParser:
        def __init__(self, network: SimpleNamespace, logger):
            self._network = network

        def parse(self, content: bytes) -> bool:
            self._network.content = content
            return True

        def get_error(self, index: int) -> SimpleNamespace:
            return SimpleNamespace(desc=lambda: f"error {index}")

    class Engine:
        def __init__(self, plan: bytes):
            graph = plan.split(b"\n", 1)[1]
            self.session = onnxruntime.InferenceSession(graph, ONE_THREAD, providers=["CPUExecutionProvider"])
            self.names = [tensor.name for tensor in (*self.session.get_outputs(), *self.session.get_inputs())]
            setattr(self, "num_bindings" if old else "num_io_tensors", len(self.names))
            setattr(self, "get_binding_name" if old else "get_tensor_name", self.names.__getitem__)

        def create_execution_context(self) -> "Context":
            return Context(self)

    class Context:
        def __init__(self, engine: Engine):
            self._engine, self._addresses = engine, {}

        def set_tensor_address(self, name: str, address: int) -> None:
            self._addresses[name] = address

        def execute_async_v2(self, bindings: list[int], stream_handle: int) -> bool:
            assert old
            return self._execute(dict(zip(self._engine.names, bindings, strict=True)), stream_handle)

        def execute_async_v3(self, stream_handle: int) -> bool:
            assert not old
            return self._execute(self._addresses, stream_handle)

        def _execute(self, addresses: dict[str, int], stream: int) -> bool:
            assert stream == 77
            if module.failing:
                return False
            cudart.queue.append(lambda: _compute(self._engine.session, addresses))
            return True

    class Runtime:
        def __init__(self, logger):
            pass

        def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
            loaded.append(plan)
            return Engine(plan)

    module = SimpleNamespace(
        __version__=version,
        Logger=type("Logger", (), {"WARNING": 2, "__init__": lambda self, level: None}),
        NetworkDefinitionCreationFlag=SimpleNamespace(EXPLICIT_BATCH=0),
        MemoryPoolType=SimpleNamespace(WORKSPACE="workspace"),
        BuilderFlag=SimpleNamespace(FP16="FP16", TF32="TF32"),
        Builder=Builder,
        OnnxParser=OnnxParser,
        Runtime=Runtime,
        built=built,
        loaded=loaded,
        failing=False,
    )
    return module


def _compute(session: onnxruntime.InferenceSession, addresses: dict[str, int]) -> None:
    inputs = {tensor.name: _at(addresses[tensor.name], tensor.shape).copy() for tensor in session.get_inputs()}
    for tensor, result in zip(session.get_outputs(), session.run(None, inputs), strict=True):
        _at(addresses[tensor.name], tensor.shape)[...] = result


def _at(address: int, shape: list[int]) -> np.ndarray:
    return np.ctypeslib.as_array((ctypes.c_float * int(np.prod(shape))).from_address(address)).reshape(shape)
