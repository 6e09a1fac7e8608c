"""Policies as they are kept between stages, and features likewise."""

from pathlib import Path

import numpy as np
import pytest
import torch
from support.labels import sparse
from support.refusals import one_line

from tlee.checksums import save_sealed
from tlee.errors import UserError
from tlee.features import FeatureTable, load_features, save_description
from tlee.paths import FEATURES, POLICY
from tlee.policies.files import read_policy, save_policies
from tlee.policies.given import FixedExits, RandomExits
from tlee.policies.optimal_stopping import NO_CHOICE, OptimalStopping
from tlee.policies.stops import StopAbove
from tlee.policies.thresholds import Thresholds
from tlee.weights import save_tensors

WEIGHTS = tuple(tuple(row) for row in torch.rand(3, 9, dtype=torch.double).div(3).tolist())  #: no digit may be lost

POLICIES = {
    "tlee": Thresholds((0.5,), (1.0, 0.9), (1.0, 0.5), (1.0, 1.0)),
    "random": RandomExits(0.2, 4),
    "values": OptimalStopping(0.1, ((None, WEIGHTS), ((WEIGHTS[0], NO_CHOICE, NO_CHOICE), None))),
    "fixed_frames": FixedExits(3, 1),
    "confidence": StopAbove.between("confidence", 0.9, 3, 0, 1),
    "ensemble": StopAbove.between("ensemble", 0.9, 3, 1, 1, (0.0, 1.5)),
}


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_every_kind_of_policy_survives_writing_and_reading():
    save_policies(POLICIES)
    assert {name: read_policy(name) for name in POLICIES} == POLICIES


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "policy.json is missing or damaged: run `dvc repro evaluate`"),
        ({"full": {}}, "policy.json holds no policy `tlee`, it has full: run `dvc repro evaluate`"),
        ({"tlee": {"layer": [1.0]}}, "policy.json is of an older kit or damaged: run `dvc repro evaluate`"),
        ({"tlee": {"kind": "Thresholds", "layer": [1.0]}}, "is of an older kit or damaged: run `dvc repro evaluate`"),
    ],
)
def test_a_policy_that_cannot_be_read_names_the_stage(content, message):
    if content is not None:
        save_sealed(POLICY, content)
    assert message in one_line(lambda: read_policy("tlee"))


# --- features ----------------------------------------------------------------------------------------------


@pytest.fixture
def stored() -> Path:
    """Two videos of three frames, two depths and four numbers."""
    FEATURES.mkdir(parents=True)
    features = np.arange(48, dtype=np.float32).reshape(2, 3, 2, 4)
    np.save(FEATURES / "val.npy", features)
    labels = sparse(torch.eye(2, dtype=torch.bool))
    table = FeatureTable(torch.from_numpy(features), labels, ["a", "b"], ["g", "h"], ["x", "y"])
    save_description(FEATURES / "val.npy", table)
    return FEATURES / "val.npy"


def test_features_are_mapped_and_not_changed_on_disk(stored):
    before = stored.read_bytes()
    table = load_features("val")
    assert table.features[1, 0, 0].tolist() == [24, 25, 26, 27]
    table.features[0] = 0
    assert stored.read_bytes() == before
    part = load_features("val").take(np.array([1]))
    assert (part.videos, part.groups, part.labels.tolist()) == (["b"], ["h"], [1])
    assert part.features.flatten()[0] == 24


@pytest.mark.parametrize("fault", ["missing", "truncated", "not an array", "another table"])
def test_incomplete_features_name_the_stage(stored, fault):
    if fault == "missing":
        stored.unlink()
    elif fault == "truncated":
        stored.write_bytes(stored.read_bytes()[:-40])
    elif fault == "not an array":
        stored.write_bytes(b"features")
    else:
        save_tensors(FEATURES / "val.safetensors", {"labels": torch.zeros(2)}, {})
    with pytest.raises(UserError, match=r"results/features/val\.npy.*run `dvc repro branches`"):
        load_features("val")
