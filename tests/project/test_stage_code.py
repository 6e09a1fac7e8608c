"""Which code a stage depends on: what its notebook really uses, without comments and docstrings."""

import nbformat
import pytest
from support.refusals import one_line

from tlee.paths import CODE, STRIPPED
from tlee.stage_code import bare_code, closure, code_files, imported_modules, source_file, write_stage_code

SOURCE = '''"""Module."""

import math  # for pi


#: An area.
def area(radius: float) -> float:
    """Of a circle."""
    text = """kept

    # this too"""
    return math.pi * radius**2  # r squared


class Shape:
    """Any."""
'''


def test_comments_docstrings_and_blank_lines_do_not_count():
    assert bare_code(SOURCE).splitlines() == [
        "import math",
        "def area(radius: float) -> float:",
        '    text = """kept',
        "",
        '    # this too"""',
        "    return math.pi * radius**2",
        "class Shape:",
    ]


@pytest.mark.parametrize(
    ("old", "new", "counts"),
    [
        ("Of a circle.", "The area of a circle, in two\n    lines.", False),
        ("# r squared", "# the square", False),
        ("import math  # for pi", "import math", False),
        ("radius**2", "radius**3", True),
        ("# this too", "# that too", True),
        ("\n\nclass Shape", "\nclass Shape", False),
    ],
)
def test_code_counts_and_words_do_not(old, new, counts):
    changed = SOURCE.replace(old, new)
    assert changed != SOURCE
    assert (bare_code(changed) != bare_code(SOURCE)) == counts


def test_imports_are_found_anywhere():
    code = "import tlee.costs as costs\nfrom tlee import metrics\ndef f():\n    from tlee.params import Params, math\n"
    assert imported_modules(code + "import torch\n") == {"tlee", "tlee.costs", "tlee.metrics", "tlee.params"}


def test_the_closure_holds_what_imports_import_and_their_packages():
    found = closure({"tlee.evaluation.oracle"})
    assert {"tlee.evaluation", "tlee.evaluation.replay", "tlee.policies.inference", "tlee.backbones.cut"} <= found
    assert not {module for module in found if module.startswith(("tlee.edge", "tlee.training", "tlee.figures"))}
    assert source_file("tlee.policies").name == "__init__.py"


@pytest.fixture
def project(tmp_path, monkeypatch, root):
    """The notebooks of five stages, stripped."""
    monkeypatch.chdir(tmp_path)
    STRIPPED.mkdir(parents=True)
    for notebook in root.glob("notebooks/[1-5]*.ipynb"):
        (STRIPPED / notebook.name).write_bytes(notebook.read_bytes())


def names(stage: str) -> set[str]:
    (notebook,) = STRIPPED.glob(f"*_{stage}*.ipynb")
    return {path.as_posix().rpartition("tlee/")[2] for path in code_files(notebook)}


def test_one_line_a_module(project):
    files = write_stage_code()
    assert [path.stem for path in files] == sorted(path.stem for path in STRIPPED.glob("*.ipynb"))
    lines = (CODE / "5_evaluate.txt").read_text().splitlines()
    assert {line.split("  ")[1] for line in lines} >= {"tlee/policies/inference.py", "tlee/evaluation/search.py"}
    assert all(len(line.split("  ")[0]) == 16 for line in lines)


def test_a_stage_does_not_depend_on_later_stages_nor_on_bookkeeping(project):
    assert names("pretrain").isdisjoint({"records.py", "params.py", "notebook.py"})
    for stage, later in {"extract": "model", "pretrain": "costs", "branches": "policies/inference"}.items():
        assert f"{later}.py" not in names(stage)


def test_training_does_not_depend_on_figures(project):
    assert not {name for name in names("branches") if name.startswith("figures/")}
    assert "figures/evaluation.py" in names("evaluate")


def test_a_damaged_notebook_is_named(tmp_path):
    path = tmp_path / "1_broken.ipynb"
    path.write_text("{")
    assert str(path) in one_line(lambda: code_files(path))
    with pytest.raises(nbformat.reader.NotJSONError):
        nbformat.read(path, 4)
