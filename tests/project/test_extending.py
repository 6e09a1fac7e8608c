"""docs/extending.md: its examples run as they stand."""

import re
from pathlib import Path

import pytest
import torch

from tlee import backbones, modules
from tlee.params import load_params

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "extending.md").read_text()
SHARED, *EXAMPLES = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
TABLES = {
    "BACKBONES": backbones.BACKBONES,
    "BRANCHES": modules.BRANCHES,
    "REUSES": modules.REUSES,
    "GATES": modules.GATES,
}


def table_of(example: str) -> str:
    return re.search(r'^([A-Z]+)\["', example, flags=re.MULTILINE)[1]


def test_there_is_an_example_for_each_table():
    assert sorted(table_of(example) for example in EXAMPLES) == sorted(TABLES)


@pytest.mark.parametrize("example", EXAMPLES, ids=table_of)
def test_an_example_runs(example, monkeypatch):
    monkeypatch.chdir(ROOT)
    table, names = TABLES[table_of(example)], {}
    before = dict(table)
    try:
        exec(SHARED + example, names)
    finally:
        table.clear()
        table.update(before)
    params = load_params()
    clips, frames, depths, _ = names["features"].shape
    assert (clips, frames, depths) == (1, params.extract.frames, params.model.num_branches + 1)
    assert torch.all((names["exits"] >= -1) & (names["exits"] < depths))
    assert names["exits"][0, 0] >= 0
