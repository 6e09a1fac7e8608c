"""The threshold search: what it may not miss, and what it may not do."""

import math
from dataclasses import replace

import pytest
import torch
from support.labels import sparse
from support.small import COSTS, small_params

from tlee.evaluation.replay import Split
from tlee.evaluation.results import Results
from tlee.evaluation.search import COMPARED, Candidate, Search, afford, choose, families, frontier
from tlee.features import FeatureTable
from tlee.levels import ALWAYS, NEVER
from tlee.params import METHOD_SETTINGS
from tlee.policies.inference import Outcomes
from tlee.policies.thresholds import Thresholds
from tlee.readout import Readout

CLASSES = 3
LEVELS = (ALWAYS, 0.7, 0.9, 0.99, NEVER)
CONFIDENCE = 0.95


@pytest.fixture
def readout() -> Readout:
    return three_classes()


def three_classes() -> Readout:
    torch.manual_seed(0)
    readout = Readout(CLASSES, CLASSES, small_params())
    readout.classifiers[0].weight.data = torch.eye(CLASSES)
    readout.classifiers[0].bias.data = torch.zeros(CLASSES)
    return readout


def easy_and_hard_videos(skill: tuple[float, ...], videos: int = 120, frames: int = 4) -> tuple:
    """Features whose class stands out by ``skill`` of the depth in half of the frames, and not in the others."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(CLASSES, (videos,), generator=generator)
    shown = torch.rand(videos, frames, 1, 1, generator=generator) < 0.5
    truth = torch.eye(CLASSES)[labels][:, None, None] * torch.tensor(skill)[None, None, :, None]
    noise = torch.randn(videos, frames, len(skill), CLASSES, generator=generator)
    return shown * truth + noise, torch.eye(CLASSES, dtype=torch.bool)[labels]


def split(features: torch.Tensor, truth: torch.Tensor, readout: Readout, metric: str = "top1") -> Split:
    names = [str(row) for row in range(len(features))]
    table = FeatureTable(features, sparse(truth), names, names, list("abc"))
    return Split(table, readout, COSTS, metric)


@pytest.fixture
def search(readout) -> Search:
    return Search(split(*easy_and_hard_videos(skill=(3.0, 6.0, 7.0)), readout), LEVELS)


# --- families ----------------------------------------------------------------------------------------


def test_every_single_axis_policy_is_part_of_tlee():
    for exits in (1, 2, 4):
        spaces = {name: set(coordinates) for name, coordinates in families("tlee", exits, gated=True).items()}
        assert spaces["temporal"] <= spaces["tlee"]
        assert spaces["layer"] <= spaces["tlee"]
        assert spaces["tlee_gate"] <= spaces["tlee"]
        assert all(depth == exits - 1 for _, depth in spaces["temporal"])
        assert {name for name, _ in spaces["layer"]} <= {"layer"}


def test_the_families_of_each_method():
    found = {method: list(families(method, 3, gated=True)) for method in METHOD_SETTINGS}
    assert found == {
        "tlee": ["frameexit", "temporal", "layer", "tlee_gate", "tlee"],
        "frameexit": ["frameexit", "temporal"],
        "layer": ["layer"],
        "full": [],
        "random": [],
    }
    assert all(method in spaces for method, spaces in found.items() if spaces)  # its own is the method's policy


def test_frameexit_is_the_gate_after_the_first_frame():
    spaces = families("frameexit", 1, gated=True)
    assert spaces == {"frameexit": (("first", 0), ("gate", 0)), "temporal": (("first", 0), ("gate", 0), ("stop", 0))}


@pytest.mark.parametrize("method", COMPARED)
def test_without_a_gate_none_is_searched(method):
    spaces = families(method, 3, gated=False)
    assert not {"tlee_gate", "frameexit"} & (spaces.keys() - {method})
    assert not any(name == "gate" for space in spaces.values() for name, _ in space)


# --- the search ----------------------------------------------------------------------------------------


def spaces() -> dict:
    return families("tlee", 3, gated=True)


@pytest.mark.parametrize("max_loss", [0.0, 1.0, pytest.param(5.0, marks=pytest.mark.slow)])
def test_more_exits_never_make_it_worse(search, max_loss):
    chosen = {
        name: choose(search.explore(space, {}), search.full, max_loss, CONFIDENCE, search.score)
        for name, space in spaces().items()
    }
    assert chosen["tlee"].gmacs == min(candidate.gmacs for candidate in chosen.values())
    assert max_loss == 0 or chosen["tlee"].gmacs < search.full.gmacs
    for candidate in chosen.values():
        assert candidate.added <= max_loss / 100
        assert search.score(candidate) >= search.score(search.full) - max_loss / 100


def test_an_exit_that_does_not_pay_is_switched_off(readout):
    """The first head is uninformative, so that using it only costs."""
    search = Search(split(*easy_and_hard_videos(skill=(0.0, 6.0, 7.0)), readout))
    policy = choose(search.explore(spaces()["tlee"], {}), search.full, 1.0, CONFIDENCE, search.score).policy
    assert not any(policy.uses_exit(t, 0, frames=4) for t in range(4))
    assert policy.uses_exit(0, 1, frames=4)


def test_fixed_thresholds_are_kept(search):
    seen = search.explore(spaces()["tlee"], {"layer": 0.8, "gate": NEVER})
    assert {candidate.policy.layer for candidate in seen} == {(0.8, 0.8)}
    assert {candidate.policy.gate for candidate in seen} == {(NEVER,) * 3}
    assert len({candidate.policy.first for candidate in seen}) > 1


def test_a_space_holds_only_its_own_policies(search):
    search.explore(spaces()["tlee"], {})
    for candidate in search.explore(spaces()["layer"], {}):
        never = Thresholds.never(3)
        policy = candidate.policy
        assert (policy.first, policy.gate, policy.stop) == (never.first, never.gate, never.stop)


def test_a_policy_is_run_once(search):
    policy = Thresholds.never(3)
    assert search.measure(policy) is search.measure(policy)


def test_the_score_is_the_metric_that_counts(readout):
    """Three videos: two are correct by top-1; by mean average precision classes are ranked over videos."""
    features = torch.tensor([(4.0, 0.0, 0.0), (0.0, 1.0, 0.0), (3.0, 2.0, 0.0)])[:, None, None].expand(3, 4, 3, 3)
    truth = torch.tensor([[True, False, False], [False, True, False], [False, True, False]])
    searches = {metric: Search(split(features, truth, readout, metric)) for metric in ("top1", "map")}
    scores = {metric: search.score(search.full) for metric, search in searches.items()}
    # p of class 0: 0.96, 0.21, 0.71; of class 1: 0.02, 0.58, 0.26; nobody has class 2.
    assert scores == {"top1": pytest.approx(2 / 3), "map": pytest.approx(1.0)}


def test_several_labels_are_searched_too(readout):
    readout.multi_label = True
    features, truth = easy_and_hard_videos(skill=(3.0, 6.0, 7.0))
    truth = truth | truth.roll(1, 1)  # of each video, a second class that its features do not show
    search = Search(split(features, truth, readout, "map"), LEVELS)
    chosen = choose(search.explore(spaces()["tlee"], {}), search.full, 5.0, CONFIDENCE, search.score)
    assert chosen.gmacs < search.full.gmacs
    assert search.score(chosen) >= search.score(search.full) - 0.05


def test_the_smooth_error_by_hand(readout):
    """One video is correct with p = 0.5, the other wrong, whose two classes have 0.2 and 0.3."""
    logits = torch.tensor([(0.5, 0.25, 0.25), (0.5, 0.2, 0.3)]).log()
    features = logits[:, None, None].expand(2, 4, 3, 3)
    truth = torch.tensor([[True, False, False], [False, True, True]])
    full = Search(split(features, truth, readout)).full
    assert full.error == pytest.approx(((0 + 0.5) / 2 + (1 + 0.75) / 2) / 2)
    assert full.gmacs == pytest.approx((4 * 60 + 5) / 1e9)


# --- choosing ------------------------------------------------------------------------------------------


def candidate(gmacs: float, error: float, added: float = 0.0, spread: float = 0.0) -> Candidate:
    return Candidate(Thresholds((), (gmacs / 100,), (1.0,), (1.0,)), error, added, spread, gmacs)


def test_the_frontier_by_hand():
    points = [candidate(3, 0.2), candidate(1, 0.5), candidate(2, 0.5), candidate(2, 0.3), candidate(4, 0.2)]
    assert [(each.gmacs, each.error) for each in frontier(points)] == [(1, 0.5), (2, 0.3), (3, 0.2)]


def test_a_choice_by_hand():
    full, wrong = candidate(10, 0.10), candidate(1, 0.20, added=0.11)
    perhaps_lucky, good = candidate(2, 0.10, added=0.015), candidate(3, 0.10, added=0.008)
    scores = {full: 0.92, wrong: 0.85, perhaps_lucky: 0.92, good: 0.92}

    assert choose([wrong, perhaps_lucky, good], full, 1.0, CONFIDENCE, scores.__getitem__) is good
    assert choose([wrong, perhaps_lucky, good], full, 2.0, CONFIDENCE, scores.__getitem__) is perhaps_lucky
    assert choose([wrong, perhaps_lucky], full, 1.0, CONFIDENCE, scores.__getitem__) is perhaps_lucky
    scores[perhaps_lucky] = 0.89  # the bound is kept, the metric is not
    assert choose([wrong, perhaps_lucky, good], full, 2.0, CONFIDENCE, scores.__getitem__) is good


def test_a_budget_by_hand():
    """The least added error, by its bound, of those whose cost fits by its bound; the cheapest if none does."""
    cheap, good, expensive = candidate(1, 0.3, added=0.2), candidate(2, 0.15, added=0.05), candidate(4, 0.1)
    lucky = candidate(2, 0.14, added=0.04, spread=0.03)
    unsure = replace(candidate(2.9, 0.11, added=0.01), gmacs_spread=0.1)
    everyone = [cheap, good, expensive, lucky, unsure]
    assert afford(everyone, 3.0, CONFIDENCE) is good  # `unsure` may cost 2.9 + 1.645 * 0.1
    assert afford(everyone, 3.1, CONFIDENCE) is unsure
    assert afford(everyone, 5.0, CONFIDENCE) is expensive
    assert afford(everyone, 0.5, CONFIDENCE) is cheap


def test_the_bound_holds_for_all_policies_at_once():
    """5% in all: 1.645 standard errors for one policy, 3.291 for a hundred."""
    measured = candidate(2, 0.1, added=0.01, spread=0.002)
    assert measured.bound(0.95) == pytest.approx(0.01 + 1.645 * 0.002, abs=1e-6)
    assert measured.bound(0.95, 100) == pytest.approx(0.01 + 3.2905 * 0.002, abs=1e-6)


def test_with_a_confidence_of_one_half_the_bound_is_the_mean():
    """Also where the standard error is not known, of a single video."""
    for spread in (0.0, 0.002, math.inf):
        measured = replace(candidate(2, 0.1, added=0.01, spread=spread), gmacs_spread=spread)
        assert (measured.bound(0.5), measured.gmacs_bound(0.5)) == (0.01, 2)
    assert measured.bound(0.95) == measured.gmacs_bound(0.95) == math.inf


# --- choosing among policies of paths ------------------------------------------------------------------


def on_path(gmacs: float, added: float, spread: float = 0.0, score: float = 0.9) -> Candidate:
    return replace(candidate(gmacs, 0.1, added, spread), path_score=score)


def chosen_of(candidates: list[Candidate], max_loss: float, confidence: float = CONFIDENCE) -> Candidate:
    full = on_path(10, 0.0)
    return choose(candidates, full, max_loss, confidence, lambda each: each.path_score)


def test_policies_of_paths_are_tested_each_for_itself():
    """One that fails rules out no other, and the order given is of no account."""
    policies = [on_path(8, 0.001), on_path(6, 0.008), on_path(4, 0.012), on_path(2, 0.009)]
    for order in (policies, policies[::-1]):
        assert chosen_of(order, max_loss=1.0).gmacs == 2
        assert chosen_of(order, max_loss=0.8).gmacs == 6  # a loss equal to the limit is within it
        assert chosen_of(order, max_loss=0.7).gmacs == 8


def test_the_bound_of_a_policy_of_a_path_is_its_own():
    """For this policy alone: 0.004 + 1.645 * 0.002 = 0.0073; for two policies at once it would be 0.0079."""
    policies = [on_path(8, 0.0), on_path(2, 0.004, spread=0.002)]
    assert chosen_of(policies, max_loss=0.75).gmacs == 2
    assert chosen_of(policies, max_loss=0.7).gmacs == 8
    searched = [replace(each, path_score=None) for each in policies]
    assert choose(searched, policies[0], 0.75, CONFIDENCE, lambda each: 0.9).gmacs == 8


def test_the_confidence_decides_between_the_expected_loss_and_its_bound():
    policies = [on_path(8, 0.001), on_path(6, 0.004, spread=0.004)]
    assert chosen_of(policies, max_loss=0.5, confidence=0.5).gmacs == 6
    assert chosen_of(policies, max_loss=0.5, confidence=0.95).gmacs == 8


def test_a_policy_of_a_path_must_keep_the_metric_too():
    assert chosen_of([on_path(8, 0.001), on_path(2, 0.001, score=0.88)], max_loss=1.0).gmacs == 8


def test_if_none_is_within_the_limit_the_policy_with_the_lowest_bound_is_chosen():
    assert chosen_of([on_path(8, 0.02), on_path(6, 0.011, spread=0.003), on_path(4, 0.012)], max_loss=1.0).gmacs == 4


def test_a_policy_is_judged_by_the_outcomes_of_others_like_it(search):
    """It is the policy that is kept, and their outcomes that count."""
    cheap = Thresholds((ALWAYS, NEVER), *[(NEVER,) * 3] * 3)
    others = search.split.result(cheap)
    (judged,), measured = search.judge_path([(search.full.policy, others)]), search.measure(cheap)
    assert judged.policy == search.full.policy
    assert (judged.error, judged.gmacs, judged.gmacs_spread) == (measured.error, measured.gmacs, measured.gmacs_spread)
    assert search.score(judged) == pytest.approx(search.score(measured))
    assert judged.added == pytest.approx(search.score(search.full) - search.score(measured))
    assert judged.added > 0.005  # one video of 120
    assert judged.path_score == pytest.approx(search.score(measured))
    assert measured.path_score is None


# --- the loss along a path -------------------------------------------------------------------------------


def hundred_videos() -> Split:
    """A hundred videos of class 0, of which the full network takes the last ten for class 1."""
    features = torch.eye(3)[[0] * 90 + [1] * 10][:, None, None].expand(100, 4, 3, 3)
    return split(features, torch.tensor([True, False, False]).expand(100, 3), three_classes())


@pytest.fixture
def hundred() -> Search:
    return Search(hundred_videos())


def outcomes(cost: int, correct: int, first: int = 0) -> Results:
    """Every video at the same cost, and ``correct`` of a hundred correct, from the row ``first`` on."""
    wrong = torch.ones(100, dtype=torch.long)
    wrong[first : first + correct] = 0
    outcomes = Outcomes(logits=torch.eye(3)[wrong], exit_depths=torch.zeros(100, 4), macs=torch.full((100,), cost))
    return hundred_videos().judge(outcomes)


def judged(search: Search, *path: Results) -> list[Candidate]:
    policies = [Thresholds.one_confidence(0.9 - row / 10, 0, 3) for row in range(len(path))]
    return search.judge_path(list(zip(policies, path, strict=True)))


def losses(candidates: list[Candidate]) -> list[float]:
    return [round(100 * each.added, 6) for each in candidates]


def test_the_loss_along_a_path_by_hand(hundred):
    """The full network costs 245; the last two lose 2 points and 1, so 1.5 each."""
    path = judged(hundred, outcomes(200, 90), outcomes(150, 88), outcomes(100, 89))
    assert losses(path) == [0, 1.5, 1.5]
    assert [hundred.score(each) for each in path] == pytest.approx([0.9, 0.885, 0.885])
    assert [each.gmacs * 1e9 for each in path] == pytest.approx([200, 150, 100])
    assert hundred.full.gmacs * 1e9 == pytest.approx(4 * 60 + 5)


def test_the_loss_along_a_path_depends_on_no_order(hundred):
    shuffled = judged(hundred, outcomes(100, 89), outcomes(200, 90), outcomes(150, 88))
    assert losses(shuffled) == [1.5, 0, 1.5]


def test_losses_that_grow_as_the_cost_falls_are_kept(hundred):
    assert losses(judged(hundred, outcomes(200, 89), outcomes(150, 86), outcomes(100, 80))) == [1, 4, 10]


def test_a_lucky_policy_is_as_good_as_those_around_it(hundred):
    """One seems to lose nothing, where another of twice its cost loses 3 points."""
    assert losses(judged(hundred, outcomes(200, 87), outcomes(100, 90))) == [1.5, 1.5]
    assert losses(judged(hundred, outcomes(200, 87), outcomes(150, 90), outcomes(100, 84))) == [1.5, 1.5, 6]


def test_no_cheaper_policy_is_better_than_the_full_network(hundred):
    """Two of three seem better, by 2 points and 4: as they cost less, all that is known is that they lose nothing."""
    for path in ([outcomes(200, 89), outcomes(150, 92), outcomes(100, 94)], [outcomes(100, 92)]):
        found = judged(hundred, *path)
        assert losses(found) == [0] * len(path)
        assert [hundred.score(each) for each in found] == pytest.approx([0.9] * len(path))
    assert losses(judged(hundred, outcomes(150, 92), outcomes(100, 80))) == [0, pytest.approx(11)]


def test_the_standard_error_counts_one_change_more_than_was_observed(hundred):
    """The score of the second is that of the full network, but four of its answers differ."""
    path = judged(hundred, outcomes(200, 90), outcomes(150, 90, first=2), outcomes(100, 82))
    assert [100 * each.spread for each in path] == pytest.approx([1, math.sqrt(5), 3])
    assert losses(path) == [0, 0, 8]
    assert path[1].bound(0.95) == pytest.approx(1.6449 * math.sqrt(5) / 100, abs=1e-5)


def test_a_policy_that_always_costs_what_the_full_network_does_is_certain_to_lose_nothing(hundred):
    full, cheaper = judged(hundred, outcomes(245, 90), outcomes(244, 90))
    assert (full.spread, 100 * cheaper.spread) == (0, pytest.approx(1))
    assert choose([full, cheaper], hundred.full, 1.0, 0.95, hundred.score) == full  # of 100 videos, none may change


def test_the_loss_is_in_the_metric(readout):
    """Ranks of videos change, though no answer does."""
    features = torch.tensor([(4.0, 0.0, 0.0), (0.0, 1.0, 0.0), (3.0, 2.0, 0.0)])[:, None, None].expand(3, 4, 3, 3)
    truth = torch.tensor([[True, False, False], [True, False, False], [False, True, False]])
    search = Search(split(features, truth, readout, "map"))
    full = search.split.run(search.full.policy)
    nudge = torch.tensor([(0.0, 0.0, 0.0), (0.0, 0.0, 0.0), (5.0, 0.0, 0.0)])  # past video 0
    worse = replace(full, logits=full.logits + nudge, macs=torch.full((3,), 100))
    assert torch.equal(worse.predictions, full.predictions)
    results = search.split.judge(worse)
    (found,) = search.judge_path([(Thresholds.one_confidence(0.9, 0, 3), results)])
    assert found.added == pytest.approx(search.score(search.full) - search.split.score(results))
    assert found.added > 0.01
    assert found.spread == pytest.approx(1 / 3)


def test_at_about_the_same_cost_fewer_exits_are_chosen():
    def policy(first: float, gmacs: float) -> Candidate:
        return Candidate(Thresholds((NEVER,), (first, 0.9), (NEVER, NEVER), (NEVER, NEVER)), 0.1, 0.0, 0.0, gmacs)

    full, many = policy(NEVER, 10), policy(0.9, 2.0)
    near, far = policy(NEVER, 2.09), policy(NEVER, 2.11)
    assert many.policy.num_exits_used() == near.policy.num_exits_used() + 1
    assert choose([many, near], full, 1.0, CONFIDENCE, lambda candidate: 0.9) is near
    assert choose([many, far], full, 1.0, CONFIDENCE, lambda candidate: 0.9) is many


def test_thresholds_that_the_user_fixed_are_kept_even_if_they_lose(search):
    chosen = choose(search.explore(spaces()["layer"], {"layer": ALWAYS}), search.full, 0.0, CONFIDENCE, search.score)
    assert chosen.policy.layer == (ALWAYS, ALWAYS)
    assert chosen.added > 0


def test_the_bound_of_the_added_error_by_hand(search):
    assert search.full.added == search.full.spread == search.full.bound(CONFIDENCE, 1000) == 0
    policy = Thresholds((ALWAYS, NEVER), *[(NEVER,) * 3] * 3)
    found = search.measure(policy)
    assert found.added == pytest.approx(found.error - search.full.error)
    assert found.bound(CONFIDENCE, 2) > found.bound(CONFIDENCE) > found.bound(0.5) == found.added > 0
