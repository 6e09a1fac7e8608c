"""docs/extending.md: its examples run unchanged, and what it names exists."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from support.labels import sparse
from support.small import COSTS, identity_readout, random_features, video

from tlee import backbones, datasets, modules
from tlee.evaluation import baselines
from tlee.evaluation.replay import Split
from tlee.evaluation.search import Search
from tlee.features import FeatureTable
from tlee.methods import display_name
from tlee.params import load_params
from tlee.policies import files
from tlee.policies.files import read_policy, save_policies
from tlee.policies.inference import run

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
SHARED, *BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
EXAMPLES = {re.search(r'^([A-Z]+)\["', block, flags=re.MULTILINE)[1]: block for block in BLOCKS}

FAMILIES = {
    "FAMILIES": baselines.FAMILIES,
    "READERS": datasets.READERS,
    "BACKBONES": backbones.BACKBONES,
    "BRANCHES": modules.BRANCHES,
    "REUSES": modules.REUSES,
    "GATES": modules.GATES,
}
TABLES = [*FAMILIES.values(), files.KINDS]


@contextmanager
def executed(table: str) -> Iterator[dict[str, Any]]:
    """Run the example that adds a line to ``table``; yield its variables, then restore all tables."""
    before, variables = [dict(each) for each in TABLES], {}
    try:
        exec(SHARED + EXAMPLES[table], variables)
        yield variables
    finally:
        for each, entries in zip(TABLES, before, strict=True):
            each.clear()
            each.update(entries)


@pytest.fixture(autouse=True)
def in_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_there_is_one_example_for_each_table():
    assert len(BLOCKS) == len(EXAMPLES)
    assert set(EXAMPLES) == set(FAMILIES)


@pytest.mark.parametrize("table", [name for name in FAMILIES if name != "READERS"])
def test_an_example_takes_exits_of_a_network(table):
    size = len(FAMILIES[table])
    with executed(table) as variables:
        assert len(FAMILIES[table]) == size + 1
    params = load_params()
    clips, frames, depths, _ = variables["features"].shape
    assert (clips, frames, depths) == (1, params.extract.frames, params.model.num_branches + 1)
    assert torch.all((variables["exits"] >= -1) & (variables["exits"] < depths))
    assert variables["exits"][0, 0] >= 0


def test_the_policy_is_searched_like_its_family_and_can_be_stored(tmp_path, monkeypatch):
    path = tmp_path / "policy.json"
    monkeypatch.setitem(files.STAGES, path, "evaluate")
    truth, names = torch.eye(2, dtype=torch.bool).repeat(20, 1), [str(row) for row in range(40)]
    table = FeatureTable(random_features(40), sparse(truth), names, names, ["a", "b"])
    val = Split(table, identity_readout(), COSTS, "top1")
    with executed("FAMILIES"):
        policies = [policy for path in baselines.FAMILIES["margin"](val, 0) for policy in path]
        tried = Search(val).measure_all(policies)
        save_policies({"margin": policies[-1]}, path)
        assert read_policy("margin", path) == policies[-1]
        assert display_name("margin") == "margin"
    for depth in range(3):
        gmacs = [candidate.gmacs for candidate in tried if candidate.policy.depth == depth]
        assert gmacs == sorted(gmacs, reverse=True)  # the lower the threshold, the earlier a video stops
        assert gmacs[0] > gmacs[-1]


def test_the_policy_stops_by_the_margin_of_two_probabilities():
    with executed("FAMILIES") as variables:
        margin = variables["Margin"]
    source = video(*[[(3.0, 0.0)] * 3] * 4)
    probabilities = torch.tensor([3.0, 0.0]).softmax(0)
    difference = (probabilities[0] - probabilities[1]).item()
    for threshold, expected in ((difference - 0.01, [1, -1, -1, -1]), (difference + 0.01, [1, 1, 1, 1])):
        outcomes = run(source, identity_readout(reuse="none"), margin(threshold, depth=1), COSTS)
        assert outcomes.exit_depths.tolist() == [expected]


def test_the_data_set_is_read_and_split():
    with executed("READERS") as variables:
        assert "labels_csv" in datasets.READERS
    manifest = variables["dataset"].manifest
    assert variables["dataset"].classes == ["hug", "wave"]
    assert manifest["split"].value_counts()["test"] == 4
    assert set(manifest["split"]) == {"train", "val", "test"}
    assert manifest.groupby("group")["split"].nunique().eq(1).all()
    assert manifest["labels"].tolist() == [[0]] * 8 + [[1]] * 8


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:tlee|tests)/[\w/.]+)`", PAGE))))
def test_a_file_that_is_named_exists(path):
    assert (ROOT / path).exists()


@pytest.mark.parametrize("table", FAMILIES)
def test_the_file_with_the_table_is_named(table):
    row = next(line for line in PAGE.splitlines() if line.startswith("|") and f"`{table}`" in line)
    named = [ROOT / path for path in re.findall(r"`(tlee/[\w/]+\.py)`", row)]
    assert any(re.search(rf"^{table}\b.* = ", path.read_text(encoding="utf-8"), flags=re.MULTILINE) for path in named)
