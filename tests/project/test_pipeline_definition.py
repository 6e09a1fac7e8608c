"""``dvc.yaml`` chains the papers' stages, each a short notebook with its parameters and its code."""

import re
from pathlib import Path

import nbformat
import pytest
import yaml

from tlee.params import load_params

ROOT = Path(__file__).parents[2]
PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text())
STAGES = {name: stage for name, stage in PIPELINE["stages"].items() if name not in ("strip", "code")}


def notebook_of(stage: str) -> str:
    return re.fullmatch(r"python -m tlee run (\w+)", STAGES[stage]["cmd"])[1]


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_its_notebook_and_on_the_code_it_uses(stage):
    assert f"results/stripped/{notebook_of(stage)}.ipynb" in STAGES[stage]["deps"]
    assert f"results/code/{notebook_of(stage)}.txt" in STAGES[stage]["deps"]
    assert f"results/notebooks/{notebook_of(stage)}.ipynb" in STAGES[stage]["outs"]


@pytest.mark.parametrize("stage", STAGES)
def test_the_parameters_of_a_stage_exist(stage):
    params = load_params(ROOT / "params.yaml").model_dump()
    for dotted in STAGES[stage]["params"]:
        value = params
        for part in dotted.split("."):
            value = value[part]


def test_the_chain_is_the_papers():
    stages = ["extract", "pretrain", "branches", "gates", "evaluate", "latency", "guarantee", "explain"]
    assert list(STAGES) == stages


@pytest.mark.parametrize("notebook", sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb")))
def test_notebooks_are_short_and_hold_no_outputs(notebook):
    cells = nbformat.read(ROOT / "notebooks" / f"{notebook}.ipynb", as_version=4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert len(cells) <= 20
    assert not any(cell.outputs or cell.execution_count for cell in code)
    assert [cell for cell in code if "parameters" in cell.metadata.get("tags", [])] == code[:1]
    assert all(len(cell.source.splitlines()) <= 10 for cell in code)
