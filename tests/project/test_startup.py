"""The start of a stage: no process imports slow packages that it does not use."""

import json
import subprocess
import sys

import nbformat
import pytest

SLOW = {
    *("lightning_fabric", "matplotlib", "onnx", "pandas", "papermill", "rfc3987_syntax", "scipy", "seaborn", "sklearn"),
    *("torch", "torchmetrics", "torchvision"),
}


def slow_imports(code: str) -> set[str]:
    """Return the packages of ``SLOW`` that a new process has imported after ``code``."""
    code += f"\nimport json, sys\nprint(json.dumps([name for name in {sorted(SLOW)} if sys.modules.get(name)]))"
    return set(json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout))


def test_the_process_that_starts_a_kernel_only_runs_notebooks():
    assert slow_imports("import tlee.__main__, tlee.execution") == {"papermill"}


@pytest.mark.parametrize(
    ("stage", "unused"),
    [
        ("1_extract_frames", SLOW - {"matplotlib", "pandas", "torch"}),
        ("2_pretrain_backbone", {"onnx", "seaborn", "sklearn"}),
        ("3_train_branches", {"onnx", "seaborn", "sklearn"}),
        ("6_latency", {"lightning_fabric", "sklearn", "torchmetrics"}),
        ("8_explain", {"lightning_fabric", "onnx", "sklearn", "torchmetrics", "torchvision"}),
    ],
)
def test_a_stage_imports_only_the_slow_packages_that_it_uses(root, stage, unused):
    cells = nbformat.read(root / "notebooks" / f"{stage}.ipynb", as_version=4).cells
    lines = "\n".join(cell.source for cell in cells if cell.cell_type == "code").splitlines()
    imported = slow_imports("\n".join(line for line in lines if line.startswith(("import ", "from "))))
    assert imported.isdisjoint(unused | {"papermill", "rfc3987_syntax"})
    assert {"matplotlib", "torch"} <= imported
