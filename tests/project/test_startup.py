"""The start of a stage: no process imports slow packages that it does not use."""

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]

SLOW = {
    *("lightning_fabric", "matplotlib", "onnx", "pandas", "papermill", "rfc3987_syntax", "scipy", "seaborn", "sklearn"),
    *("torch", "torchmetrics", "torchvision"),
}


def slow_imports(*parts: str) -> list[set[str]]:
    """Return the packages of ``SLOW`` that a new process has imported after each part of its code."""
    report = f"import json, sys\nprint(json.dumps([name for name in {sorted(SLOW)} if sys.modules.get(name)]))"
    code = "\n".join(f"{part}\n{report}" for part in parts)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    return [set(json.loads(line)) for line in done.stdout.splitlines()]


def test_the_process_that_starts_a_kernel_only_runs_notebooks():
    assert slow_imports("import tlee.__main__, tlee.execution") == [{"papermill"}]


@pytest.mark.slow
@pytest.mark.parametrize(
    "unused",
    [
        {
            "1_extract_frames": SLOW - {"matplotlib", "pandas", "torch"},
            "8_explain": {"lightning_fabric", "onnx", "sklearn", "torchmetrics", "torchvision"},
            "6_latency": {"lightning_fabric", "sklearn", "torchmetrics"},
        },
        {
            "2_pretrain_backbone": {"onnx", "seaborn", "sklearn", "torchmetrics"},
            "3_train_branches": {"onnx", "seaborn", "sklearn", "torchmetrics"},
        },
    ],
    ids="-".join,
)
def test_a_stage_imports_only_the_slow_packages_that_it_uses(unused):
    """One process imports what several stages do, one after the other, each of which may use more than the last."""
    assert all(later <= earlier for earlier, later in pairwise(unused.values()))
    for names, imported in zip(unused.values(), slow_imports(*map(imports_of, unused)), strict=True):
        assert imported.isdisjoint(names | {"papermill", "rfc3987_syntax"})
        assert {"matplotlib", "torch"} <= imported


def imports_of(stage: str) -> str:
    """Return the import statements of a stage's notebook."""
    cells = nbformat.read(ROOT / "notebooks" / f"{stage}.ipynb", as_version=4).cells
    lines = "\n".join(cell.source for cell in cells if cell.cell_type == "code").splitlines()
    return "\n".join(line for line in lines if line.startswith(("import ", "from ")))
