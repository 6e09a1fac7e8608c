"""``dvc.yaml`` says what each stage really depends on: no less, and no more than is worth a rerun."""

import ast
import re
from pathlib import Path

import nbformat
import pytest
import yaml

from tlee.params import load_params

ROOT = Path(__file__).parents[1]
PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text())
STAGES = {name: stage for name, stage in PIPELINE["stages"].items() if name != "strip"}
TRAINING = ("pretrain", "branches", "gates")

#: Modules that check, name, show and write down; they cannot change what a stage computes.
BOOKKEEPING = {"tlee", "tlee.errors", "tlee.notebook", "tlee.params", "tlee.paths", "tlee.records"}

#: Packages on which a stage depends as a whole: a table in each of them knows all of its modules.
WHOLE = {"tlee.backbones", "tlee.datasets", "tlee.exits", "tlee.extraction"}


def source_of(module: str) -> Path:
    path = ROOT / Path(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def imported(code: str) -> set[str]:
    """The modules of the kit that ``code`` imports, wherever it does."""
    found = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] == "tlee" and source_of(name).exists()}


def closure(modules: set[str]) -> set[str]:
    """``modules`` and all that they import in turn."""
    seen: set[str] = set()
    while modules - seen:
        module = min(modules - seen)
        seen.add(module)
        modules = modules | imported(source_of(module).read_text())
        modules |= {module.rpartition(".")[0]} if "." in module else set()
    return seen


def dependencies(modules: set[str]) -> set[str]:
    """What ``dvc.yaml`` must list for ``modules``: files that are not empty, and whole packages."""
    packages = {module for module in modules if module in WHOLE}
    files = {source_of(module) for module in modules if not any(f"{module}.".startswith(f"{each}.") for each in WHOLE)}
    listed = {path for path in files if path.read_text().strip()} | {source_of(module).parent for module in packages}
    return {path.relative_to(ROOT).as_posix() for path in listed}


def notebook_of(stage: str) -> str:
    return re.fullmatch(r"python -m tlee run (\w+)", STAGES[stage]["cmd"])[1]


def code_of(notebook: str) -> str:
    cells = nbformat.read(ROOT / "notebooks" / f"{notebook}.ipynb", as_version=4).cells
    return "\n".join(cell.source for cell in cells if cell.cell_type == "code")


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_the_code_it_uses(stage):
    used = closure(imported(code_of(notebook_of(stage)))) - BOOKKEEPING
    if stage in TRAINING:  # a change to a picture is not worth training anew
        used = {module for module in used if not module.startswith("tlee.figures")}
    declared = {dep for dep in STAGES[stage]["deps"] if dep.startswith("tlee/") and not dep.endswith(".csv")}
    assert declared == dependencies(used)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_its_stripped_notebook(stage):
    assert f"results/stripped/{notebook_of(stage)}.ipynb" in STAGES[stage]["deps"]
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


def test_modules_import_in_one_direction():
    """No module of the kit is part of a circle of imports."""
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in (ROOT / "tlee").rglob("*.py")
    }
    graph = {module: imported(source_of(module).read_text()) - {module, "tlee"} for module in modules}
    while graph:
        leaves = {module for module, needs in graph.items() if not needs & graph.keys()}
        assert leaves, f"a circle among {sorted(graph)}"
        graph = {module: needs for module, needs in graph.items() if module not in leaves}
