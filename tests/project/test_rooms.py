"""The house: which rooms there are, and that imports run one way through them."""

from functools import cache

import pytest

from tlee.stage_code import PACKAGE, imported_modules, source_file

#: Rooms and flat modules from the ground up: each may import only what stands above it in this list.
ORDER = [
    *("_papermill", "errors", "checksums", "sizes", "paths", "records", "resumption"),
    *("param_types", "param_problems", "params"),
    *("environment", "reproducibility", "execution"),
    *("stage_code", "levels", "methods", "subsets", "intervals", "arrays", "_torchvision", "_lightning", "labels"),
    *("average_precision", "metrics", "weights"),
    *("devices", "throughput", "distributed", "collation", "loading"),
    *("sealed_batches", "frame_format", "datasets", "extraction"),
    *("frames", "views", "clips", "backbones", "modules", "readout", "model", "costs", "features"),
    *("figures", "notebook", "policies"),
    *("training", "evaluation", "explanation", "guarantee", "edge", "live", "paper", "benchmark", "planning"),
    *("demo", "checkpoints", "__main__"),
]

MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
}


@cache
def imports() -> dict[str, set[str]]:
    """The modules that each module imports."""
    return {name: imported_modules(source_file(name).read_text()) - {name, "tlee"} for name in MODULES - {"tlee"}}


def room(module: str) -> str:
    return module.split(".")[1]


def test_every_module_has_a_room():
    assert {room(module) for module in MODULES - {"tlee"}} == set(ORDER)


@pytest.mark.parametrize("module", sorted(MODULES - {"tlee"}))
def test_no_import_runs_upwards(module):
    upwards = [name for name in imports()[module] if ORDER.index(room(name)) > ORDER.index(room(module))]
    assert upwards == []


def test_no_module_is_part_of_a_circle():
    graph = imports()
    while graph:
        leaves = {module for module, needs in graph.items() if not needs & graph.keys()}
        assert leaves, f"a circle among {sorted(graph)}"
        graph = {module: needs for module, needs in graph.items() if module not in leaves}


def test_modules_are_short():
    """All but the runner, which is one file since it is copied to devices."""
    lengths = {path: len(path.read_text().splitlines()) for path in PACKAGE.rglob("*.py")}
    assert {path.name for path, length in lengths.items() if length > 300} <= {"runner.py"}
