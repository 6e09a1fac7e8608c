"""The threshold search: what it may not miss, and what it may not do."""

from pathlib import Path

import pytest
import torch

from tlee.costs import Costs
from tlee.model import Readout
from tlee.params import load_params
from tlee.policies import ALWAYS, NEVER, StoredFeatures, Thresholds
from tlee.search import Candidate, Search, choose, families, frontier

ROOT = Path(__file__).parents[1]
COSTS = Costs(segments=(10, 20, 30), heads=(1, 2, 0), reuse=0, classifier=5, gate=7)
CLASSES = 3


@pytest.fixture
def readout() -> Readout:
    torch.manual_seed(0)
    readout = Readout(CLASSES, CLASSES, load_params(ROOT / "params.yaml").model)
    readout.classifier.weight.data = torch.eye(CLASSES)
    readout.classifier.bias.data = torch.zeros(CLASSES)
    return readout


def easy_and_hard_videos(skill: tuple[float, ...], videos: int = 120, frames: int = 4) -> tuple:
    """Features whose class stands out by ``skill`` of the depth in half of the frames, and not in the others."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(CLASSES, (videos,), generator=generator)
    shown = torch.rand(videos, frames, 1, 1, generator=generator) < 0.5
    truth = torch.eye(CLASSES)[labels][:, None, None] * torch.tensor(skill)[None, None, :, None]
    noise = torch.randn(videos, frames, len(skill), CLASSES, generator=generator)
    return StoredFeatures(shown * truth + noise), labels


@pytest.fixture
def search(readout) -> Search:
    return Search(*easy_and_hard_videos(skill=(3.0, 6.0, 7.0)), readout, COSTS, levels=(ALWAYS, 0.7, 0.9, 0.99, NEVER))


def test_every_single_axis_policy_is_part_of_tlee():
    for exits in (1, 2, 4):
        spaces = {name: set(coordinates) for name, coordinates in families(exits).items()}
        assert spaces["temporal"] <= spaces["tlee"]
        assert spaces["layer"] <= spaces["tlee"]
        assert spaces["tlee_gate"] <= spaces["tlee"]
        assert all(depth == exits - 1 for _, depth in spaces["temporal"])
        assert {name for name, _ in spaces["layer"]} <= {"leave"}


@pytest.mark.parametrize("max_loss", [0.0, 1.0, 5.0])
def test_more_exits_never_make_it_worse(search, max_loss):
    chosen = {name: choose(search.explore(space, {}), search.full, max_loss) for name, space in families(3).items()}
    assert chosen["tlee"].gmacs == min(candidate.gmacs for candidate in chosen.values())
    assert max_loss == 0 or chosen["tlee"].gmacs < search.full.gmacs
    for candidate in chosen.values():
        assert candidate.added <= max_loss / 100
        assert candidate.accuracy >= search.full.accuracy - max_loss / 100


def test_an_exit_that_does_not_pay_is_switched_off(readout):
    """The first head knows nothing, so that each look at it is lost."""
    search = Search(*easy_and_hard_videos(skill=(0.0, 6.0, 7.0)), readout, COSTS)
    policy = choose(search.explore(families(3)["tlee"], {}), search.full, 1.0).policy
    assert not any(policy.looks(t, 0, frames=4) for t in range(4))
    assert policy.looks(0, 1, frames=4)


def test_fixed_thresholds_stay(search):
    seen = search.explore(families(3)["tlee"], {"leave": 0.8, "gate": NEVER})
    assert {candidate.policy.leave for candidate in seen} == {(0.8, 0.8)}
    assert {candidate.policy.gate for candidate in seen} == {(NEVER,) * 3}
    assert len({candidate.policy.first for candidate in seen}) > 1


def test_a_space_holds_only_its_own_policies(search):
    search.explore(families(3)["tlee"], {})
    for candidate in search.explore(families(3)["layer"], {}):
        never = Thresholds.never(3)
        policy = candidate.policy
        assert (policy.first, policy.gate, policy.sure) == (never.first, never.gate, never.sure)


def test_a_policy_is_run_once(search):
    policy = Thresholds.never(3)
    assert search.measure(policy) is search.measure(policy)


def candidate(gmacs: float, error: float, accuracy: float = 0.9, added: float = 0.0) -> Candidate:
    return Candidate(Thresholds.never(1), accuracy, error, added, gmacs)


def test_the_frontier_by_hand():
    points = [candidate(3, 0.2), candidate(1, 0.5), candidate(2, 0.5), candidate(2, 0.3), candidate(4, 0.2)]
    assert [(each.gmacs, each.error) for each in frontier(points)] == [(1, 0.5), (2, 0.3), (3, 0.2)]


def test_choosing_by_hand():
    full = candidate(10, 0.10, accuracy=0.92)
    wrong = candidate(1, 0.20, accuracy=0.85, added=0.11)
    perhaps_lucky = candidate(2, 0.10, accuracy=0.92, added=0.015)
    good = candidate(3, 0.10, accuracy=0.92, added=0.008)
    assert choose([wrong, perhaps_lucky, good], full, max_loss=1.0) is good
    assert choose([wrong, perhaps_lucky, good], full, max_loss=2.0) is perhaps_lucky
    assert choose([wrong, perhaps_lucky], full, max_loss=1.0) is perhaps_lucky


def test_thresholds_that_the_user_fixed_are_kept_even_if_they_lose(search):
    chosen = choose(search.explore(families(3)["layer"], {"leave": ALWAYS}), search.full, max_loss=0.0)
    assert chosen.policy.leave == (ALWAYS, ALWAYS)
    assert chosen.added > 0


def test_what_is_added_is_bounded_by_hand(search):
    """Two videos of the same error differ in nothing; the bound widens with the spread over videos."""
    assert search.full.added == 0
    policy = Thresholds((ALWAYS, NEVER), *[(NEVER,) * 3] * 3)
    found = search.measure(policy)
    assert found.added > found.error - search.full.error > 0
