"""Exit features may be stored in float16; everything is computed from them in single precision."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.refusals import one_line
from support.small import identity_readout
from support.splits import noisy

from tlee.evaluation.headroom import _as_good_as_full_depth
from tlee.evaluation.oracle import oracle
from tlee.evaluation.replay import Split
from tlee.evaluation.value_iteration import ValueIteration
from tlee.features import TableRows, rounded
from tlee.guarantee.calibration import fit_temperatures, reliability
from tlee.loading import Loader
from tlee.policies.given import FixedExits
from tlee.policies.thresholds import Thresholds

POLICIES = [FixedExits(2, 1), *(Thresholds.one_confidence(level, 0, 2) for level in (0.6, 0.9))]
LIMIT = torch.finfo(torch.float16).max

READERS: dict[str, Callable[[Split], list]] = {
    "policies": lambda split: [vars(each) for each in split.sweep(POLICIES)],
    "values": lambda split: [torch.tensor(ValueIteration(split, 0).answers)],
    "oracle": lambda split: [vars(oracle(split))],
    "perfect shallow exits": lambda split: [vars(each) for each in _as_good_as_full_depth(split).sweep(POLICIES)],
    "temperatures": lambda split: list(fit_temperatures(split)),
    "reliability": lambda split: [reliability(split).to_numpy()],
    "gates": lambda split: [*Loader(TableRows(split.table, False), 7, torch.device("cpu")).epoch()],
}


@pytest.fixture
def halved() -> Split:
    split = noisy((1.0, 3.0), identity_readout(num_branches=1))
    return replace(split, table=replace(split.table, stored=split.table.stored.half()))


@pytest.mark.parametrize("reader", READERS)
def test_results_are_those_of_the_same_numbers_in_single_precision(reader, halved):
    single = replace(halved, table=replace(halved.table, stored=halved.table.stored.float()))
    torch.testing.assert_close(READERS[reader](halved), READERS[reader](single), rtol=0, atol=0, equal_nan=True)


def test_parts_of_a_table_keep_its_precision(halved):
    for table in (halved.table.part(slice(3)), halved.table.take(np.arange(3))):
        assert table.stored.dtype == torch.float16
        assert table.features.equal(halved.table.stored[:3].float())


def test_single_precision_stays_what_it_is():
    features = torch.tensor([1.1, 1e-30, 3e38, float("inf")])
    assert rounded(features, "float32") is features


def test_float16_has_eleven_bits():
    features = torch.tensor([1.0, 1 + 2**-10, 1 + 2**-12, LIMIT, -LIMIT])
    assert rounded(features, "float16").tolist() == [1.0, 1 + 2**-10, 1.0, LIMIT, -LIMIT]


@pytest.mark.parametrize("value", [65_505.0, -1e6, float("inf")])
def test_features_beyond_float16_are_refused_with_the_remedy(value):
    message = one_line(lambda: rounded(torch.tensor([[1.0, value]]), "float16"))
    assert "beyond the range of float16, 65504: set branches.feature_precision to float32" in message
