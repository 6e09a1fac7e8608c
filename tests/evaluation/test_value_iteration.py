"""Fitted value iteration: which policies it finds on videos that are known, and that it finds any for all networks."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from support.labels import sparse
from support.small import T, identity_readout, random_features, small_params

from tlee.costs import GIGA, Costs
from tlee.evaluation import value_iteration
from tlee.evaluation.candidates import candidates, optimal_stopping
from tlee.evaluation.cross_validation import out_of_fold
from tlee.evaluation.evaluate import pick
from tlee.evaluation.replay import Split
from tlee.evaluation.search import Search
from tlee.evaluation.value_iteration import PRICES, Regressions, ValueIteration, collect, estimate, logistic
from tlee.features import FeatureTable
from tlee.policies.evidence import NUM_EVIDENCE
from tlee.policies.given import FixedExits
from tlee.policies.inference import Outcomes
from tlee.policies.optimal_stopping import OptimalStopping
from tlee.policies.stops import StopAbove
from tlee.policies.thresholds import Thresholds
from tlee.readout import Readout

COSTS = Costs(segments=(10_000, 20_000, 30_000), heads=(1000, 2000, 0), reuse=0, classifier=500, gate=700)
COST = {frames: COSTS.full_network(frames) / GIGA for frames in (1, 2, T)}  #: of the full network


def split(
    features: torch.Tensor, labels: torch.Tensor, readout: Readout, costs: Costs = COSTS, group: int = 1
) -> Split:
    names = [str(row) for row in range(len(features))]
    groups = [str(row // group) for row in range(len(features))]
    truth = torch.eye(readout.classes, dtype=torch.bool)[labels]
    table = FeatureTable(features, sparse(truth), names, groups, list("abcdef")[: readout.classes])
    return Split(table, readout, costs, "top1")


def noisy(skill: tuple[float, ...], videos: int = 300, frames: int = T, seed: int = 0, **model: Any) -> Split:
    """Videos of two classes, which stand out by ``skill`` of the depth in half of the frames, and not in the others."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (videos,), generator=generator)
    shown = torch.rand(videos, frames, 1, 1, generator=generator) < 0.5
    signal = torch.eye(2)[labels][:, None, None] * torch.tensor(skill)[:, None]
    noise = torch.randn(videos, frames, len(skill), 2, generator=generator)
    depths = len(skill)
    costs = replace(COSTS, segments=COSTS.segments[:depths], heads=(*COSTS.heads[: depths - 1], 0))
    return split(shown * signal + noise, labels, identity_readout(**model), costs)


def fitted(data: Split, price: float, seed: int = 0) -> OptimalStopping:
    (policy,) = ValueIteration(data, seed).policies([price])
    return policy


def depths_used(policy: OptimalStopping, t: int) -> list[int]:
    return [b for b, weights in enumerate(policy.values[t]) if weights is not None]


# --- regression ----------------------------------------------------------------------------------------


def test_a_linear_function_is_recovered():
    """But for the ridge: slopes of independent standardised columns shrink by 1 / (1 + 0.01)."""
    generator = torch.Generator().manual_seed(0)
    columns = torch.randn(20_000, NUM_EVIDENCE - 1, generator=generator, dtype=torch.double)
    shown = torch.cat([torch.ones(20_000, 1), 3 + 2 * columns], dim=1)
    weights = torch.linspace(-1, 1, NUM_EVIDENCE, dtype=torch.double)
    found = Regressions(shown).ridge((shown @ weights)[:, None])[:, 0]
    torch.testing.assert_close(found[1:], weights[1:] / 1.01, rtol=0, atol=0.002)
    assert estimate(shown, tuple(found.tolist())).mean() == pytest.approx((shown @ weights).mean().item())


def test_a_constant_column_has_no_weight():
    generator = torch.Generator().manual_seed(0)
    shown = torch.rand(50, NUM_EVIDENCE, generator=generator, dtype=torch.double)
    shown[:, 0], shown[:, 4] = 1, 0.3
    targets = torch.stack([shown[:, 1] + 2, torch.full((50,), 0.7, dtype=torch.double)], dim=1)
    found, constant = Regressions(shown).ridge(targets).unbind(1)
    assert found[4] == 0
    assert found[1] > 0.9
    assert constant.tolist() == pytest.approx((0.7, *[0] * 8))


@pytest.mark.parametrize("paths", [1, 2])
def test_one_or_two_paths_give_finite_values(paths):
    shown, target = torch.rand(paths, NUM_EVIDENCE, dtype=torch.double), torch.ones(paths, 1, dtype=torch.double)
    shown[:, 0] = 1
    assert (shown @ Regressions(shown).ridge(target))[:, 0].tolist() == pytest.approx([1.0] * paths)


def of_log_odds(count: int, scale: float = 1.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Evidence of ``count`` answers, which are correct with log-odds of known weights, ``[P, F]``, ``[P]``, ``[F]``."""
    generator = torch.Generator().manual_seed(0)
    columns = torch.randn(count, NUM_EVIDENCE - 1, generator=generator, dtype=torch.double)
    shown = torch.cat([torch.ones(count, 1, dtype=torch.double), 3 + 2 * columns], dim=1)
    weights = scale * torch.tensor([1.0, *torch.linspace(-0.5, 0.3, NUM_EVIDENCE - 1)], dtype=torch.double)
    chance = torch.rand(count, generator=generator, dtype=torch.double)
    return shown, (chance < (shown @ weights).sigmoid()).double(), weights


def test_log_odds_of_a_correct_answer_are_recovered():
    shown, correct, weights = of_log_odds(20_000)
    (found,) = logistic([shown], [correct])
    torch.testing.assert_close(torch.tensor(found, dtype=torch.double)[1:], weights[1:], rtol=0, atol=0.04)
    fitted, planted = estimate(shown, found).sigmoid(), (shown @ weights).sigmoid()
    assert (fitted - planted).abs().mean() < 0.01
    assert fitted.mean().item() == pytest.approx(correct.mean().item(), abs=1e-4)


def test_few_answers_have_small_weights():
    """A penalty, since with as many columns as this some always separate them."""
    shown, correct, _ = of_log_odds(12)
    assert 0 < correct.mean() < 1
    odds = estimate(shown, *logistic([shown], [correct]))
    assert odds.abs().max() < 5
    assert odds[correct > 0].mean() > odds[correct == 0].mean() + 0.5


def test_answers_that_are_all_correct_or_all_wrong_have_constant_log_odds():
    shown, _, _ = of_log_odds(5)
    for count in (1, 5):
        for correct, chance in ((1.0, 0.999), (0.0, 0.001)):
            answers = torch.full((count,), correct, dtype=torch.double)
            weights, same = logistic([shown[:count]] * 2, [answers] * 2)
            assert weights == same
            assert weights[1:] == (0.0,) * (NUM_EVIDENCE - 1)
            assert estimate(shown[:count], weights).sigmoid().tolist() == pytest.approx([chance] * count, abs=1e-4)


def test_the_log_odds_give_a_constant_column_no_weight():
    shown, correct, _ = of_log_odds(200)
    shown[:, 4] = 0.3
    (weights,) = logistic([shown], [correct])
    assert len(weights) == NUM_EVIDENCE
    assert weights[4] == 0
    assert torch.tensor(weights).isfinite().all()


def test_frames_share_the_weights_of_evidence_and_differ_by_a_constant():
    """Answers at the second of two frames are correct more often, whatever their evidence."""
    shown, _, weights = of_log_odds(20_000)
    chance = torch.rand(2, 20_000, generator=torch.Generator().manual_seed(1), dtype=torch.double)
    correct = [(each < (shown @ weights + more).sigmoid()).double() for each, more in zip(chance, (0, 2), strict=True)]
    first, second = logistic([shown, shown], correct)
    assert first[1:] == second[1:]
    torch.testing.assert_close(torch.tensor(first, dtype=torch.double)[1:], weights[1:], rtol=0, atol=0.04)
    assert second[0] - first[0] == pytest.approx(2, abs=0.1)


# --- paths -----------------------------------------------------------------------------------------------


def test_paths_are_random_and_half_of_them_keep_to_one_depth():
    data = noisy((1.0, 2.0, 3.0), videos=301)
    paths = collect(data, seed=0)
    assert paths.exit_depths.shape == (8 * 301, T)
    assert (paths.exit_depths[::2] == paths.exit_depths[::2, :1]).all()
    assert paths.exit_depths.unique().tolist() == [0, 1, 2]
    assert torch.equal(paths.exit_depths, collect(data, seed=0).exit_depths)
    assert not torch.equal(paths.exit_depths, collect(data, seed=1).exit_depths)


def test_many_videos_are_sampled_evenly(monkeypatch):
    """The classes of a list may come one after the other."""
    monkeypatch.setattr(value_iteration, "MAX_PATHS", 40)
    data = split(random_features(100), torch.arange(100) // 50, identity_readout())
    data.table.features[50:] = torch.tensor([0.0, 99.0])  # the second class is always correct
    data.table.features[:50] = torch.tensor([0.0, 99.0])  # the first never
    assert collect(data, seed=0).correct.mean(0).tolist() == [[0.5] * 3] * T
    assert len(collect(data, seed=0).exit_depths) == 40


# --- prices ------------------------------------------------------------------------------------------------


def test_where_computation_costs_nothing_little_of_the_accuracy_is_lost():
    """Nothing would be, if the values were exact."""
    for seed in range(3):
        data = noisy((1.0, 2.0, 3.0), 600, seed=seed)
        free = data.result(fitted(data, 1e-9))
        assert data.score(free) >= data.score(data.result(Thresholds.never(3))) - 0.02


def test_where_computation_is_too_expensive_every_video_stops_at_the_first_exit():
    data = noisy((1.0, 2.0, 3.0))
    policy = fitted(data, 1000.0)
    outcomes = data.result(policy)
    assert outcomes.exit_depths.tolist() == [[0, -1, -1, -1]] * 300
    assert outcomes.macs.unique().tolist() == [10_000 + 1000 + 500 + 3 * NUM_EVIDENCE]
    assert depths_used(policy, 0) == [0]


def test_a_higher_price_costs_less():
    data = noisy((1.0, 2.0, 3.0), videos=600)
    costs = torch.tensor([each.gmacs.mean() for each in data.sweep(ValueIteration(data, 0).policies(PRICES))])
    assert (costs[1:] <= 1.03 * costs[:-1]).all()
    assert costs[-1] < 0.2 * costs[0]


def test_an_uninformative_exit_is_not_used():
    """Its answer at the first frame is noise, so that the head there only costs.

    A few videos leave the frame there by chance; at later frames it is the cheapest way to leave one.
    """
    for skill, uninformative, informative in (((0.0, 5.0, 6.0), 0, 1), ((5.0, 0.0, 6.0), 1, 0)):
        data = noisy(skill, videos=1500)
        policy = fitted(data, 0.1)
        left = data.result(policy).exit_depths[:, 0]
        assert left.eq(uninformative).double().mean() < 0.002
        assert left.eq(informative).double().mean() > 0.85
        assert informative in depths_used(policy, 0)


def test_the_same_seed_fits_the_same_policies():
    data = noisy((1.0, 2.0, 3.0), videos=50)
    first, second, other = (fitted(data, 0.1, seed) for seed in (0, 0, 1))
    assert first == second != other


def test_the_policy_of_a_price_does_not_depend_on_other_prices():
    """But for rounding: those that use the same exits are fitted together."""
    iteration = ValueIteration(noisy((1.0, 2.0, 3.0), videos=100), 0)
    together = iteration.policies(PRICES)
    assert [policy.price for policy in together] == list(PRICES)
    assert len({tuple(depths_used(policy, t)) for policy in together for t in (0, 1)}) > 1
    for policy in together:
        (alone,) = iteration.policies([policy.price])
        for t in range(T):
            assert depths_used(alone, t) == depths_used(policy, t)
            for b in depths_used(alone, t):
                torch.testing.assert_close(torch.tensor(alone.values[t][b]), torch.tensor(policy.values[t][b]))


# --- all kinds of networks ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model",
    [
        {},
        pytest.param({"readout": "per_step"}, marks=pytest.mark.slow),
        {"accumulate": "visited", "reuse": "mean"},
        {"accumulate": "published"},
        pytest.param({"gate": "confidence"}, marks=pytest.mark.slow),
    ],
    ids=lambda model: "-".join(model.values()),
)
@pytest.mark.parametrize("frames", [1, pytest.param(2, marks=pytest.mark.slow), T])
def test_for_every_network_the_cost_saved_is_worth_more_than_the_accuracy_lost(model, frames):
    """At the price of the policy, on fresh videos; against the full network and against the first exit.

    On average over three draws. Of a single frame there is nothing to gain here, and little may be lost.
    """
    gains = []
    for seed in (0, 2, 4):
        train, fresh = (noisy((2.0, 4.0, 5.0), (400, 2000)[row], frames, seed + row, **model) for row in (0, 1))
        policy = fitted(train, price := 0.1)
        outcomes = [fresh.result(each) for each in (policy, Thresholds.never(3), FixedExits(1, 0))]
        found, full, first_exit = (fresh.score(each) - price * each.gmacs.mean() / COST[frames] for each in outcomes)
        gains.append(found - max(full, first_exit))
    assert sum(gains) / 3 > {1: -0.005, 2: 0.02, T: 0.025}[frames]


def test_without_branches_only_frames_are_skipped():
    data = noisy((3.0,))
    policy = fitted(data, 0.1)
    outcomes = data.result(policy)
    assert set(outcomes.exit_depths.flatten().tolist()) == {-1, 0}
    assert 1 < outcomes.frames.double().mean() < T
    assert data.score(outcomes) > data.score(data.result(FixedExits(1, 0))) + 0.1


def test_one_frame_of_one_exit():
    data = noisy((3.0,), frames=1)
    assert data.result(fitted(data, 0.1)).exit_depths.tolist() == [[0]] * 300


@pytest.mark.parametrize("videos", [1, 2, 3])
def test_very_few_videos_give_finite_values(videos):
    policy = fitted(noisy((1.0, 2.0, 3.0), videos), 0.1)
    weights = torch.tensor([row for frame in policy.values for each in frame if each for row in each])
    assert weights.isfinite().all()


def test_several_labels():
    """An answer is correct if it is any of the video's classes."""
    data = noisy((2.0, 4.0, 5.0))
    data.readout.multi_label = True
    anything = replace(data, table=replace(data.table, all_labels=sparse(torch.ones(300, 2, dtype=torch.bool))))
    assert collect(anything, 0).correct.eq(1).all()
    assert anything.result(fitted(anything, 0.01)).exit_depths[:, 0].eq(0).all()
    outcomes, full = data.result(fitted(data, 0.1)), data.result(Thresholds.never(3))
    assert data.score(outcomes) >= data.score(full) - 0.05
    assert outcomes.gmacs.mean() < 0.5 * full.gmacs.mean()


def test_temperatures_change_the_evidence_but_no_answer():
    """With all temperatures halved, the evidence is that of features twice as large."""
    data = noisy((1.0, 2.0, 3.0), videos=50)
    cool = replace(data, temperatures=(0.5,) * 3)
    large = replace(data, table=replace(data.table, stored=2 * data.table.stored))
    plain, scaled, doubled = (collect(each, 0) for each in (data, cool, large))
    assert torch.equal(scaled.correct, plain.correct)
    torch.testing.assert_close(scaled.evidence[1][2], doubled.evidence[1][2])
    assert not torch.allclose(scaled.evidence[1][2], plain.evidence[1][2])
    policies = [fitted(each, 0.1) for each in (cool, large)]
    outcomes = [each.result(policy) for each, policy in zip((cool, large), policies, strict=True)]
    assert outcomes[0].exit_depths.eq(outcomes[1].exit_depths).double().mean() > 0.99


# --- videos that were not fitted ------------------------------------------------------------------------------


def test_every_video_is_run_by_a_policy_that_has_not_seen_its_group():
    """The policy of a fold stops at its first exit if the fold's others have video 7, so only its group goes deep."""
    data = split(random_features(24), torch.zeros(24, dtype=torch.long), identity_readout(), group=4)

    def by_video_7(part: Split) -> list[FixedExits]:
        return [FixedExits(1, 0), FixedExits(T, 0 if "7" in part.table.videos else 2)]

    first, second = out_of_fold(data, by_video_7, count=6, seed=0)
    assert first.exit_depths.tolist() == [[0, -1, -1, -1]] * 24
    unseen = [(0, 2)[4 <= row < 8] for row in range(24)]
    assert second.exit_depths[:, 0].tolist() == unseen
    alone = data.result(FixedExits(T, 0)), data.result(FixedExits(T, 2))
    for row, depth in enumerate(unseen):  # and rows are those of their videos
        assert second.confidence[row] == alone[depth // 2].confidence[row]
        assert second.macs[row] == alone[depth // 2].macs[row]


def test_a_single_group_has_no_folds():
    data = split(random_features(8), torch.zeros(8, dtype=torch.long), identity_readout(), group=8)
    with pytest.raises(ValueError, match="n_splits=1"):
        out_of_fold(data, lambda part: [FixedExits(1, 0)], count=4, seed=0)


# --- the point of it ----------------------------------------------------------------------------------------


def misleading(videos: int, seed: int) -> Split:
    """Videos of six classes whose confidence misleads, with one exit and the features of the current frame alone.

    A third shows its class, with log-odds 2.5 or so, from the first frame on. Another looks like class 2 at first, with
    log-odds of about 6, and shows its class, 3, from the second frame on. The last is of class 4 or 5 with log-odds of
    0.5 at all frames: no frame settles which. So the most confident videos are those that another frame corrects.
    """
    generator = torch.Generator().manual_seed(seed)
    kind = torch.randint(3, (videos,), generator=generator)
    coin = torch.randint(2, (videos,), generator=generator)
    labels = torch.where(kind == 0, coin, torch.where(kind == 1, 3, 4 + coin))
    logits = torch.zeros(videos, T, 1, 6)
    strength = torch.tensor([4.0, 6.0, 0.0])[kind][:, None].expand(videos, T)
    logits[:, :, 0].scatter_(2, labels[:, None, None].expand(videos, T, 1), strength[..., None])
    early = kind == 1
    logits[early, 0, 0] = torch.tensor([0, 0, 7.5, 0, 0, 0])
    unsure = kind == 2
    logits[unsure] = torch.tensor([-3.0, -3.0, -3.0, -3.0, 0.5, 0.5])
    logits += 0.5 * torch.randn(videos, T, 1, 6, generator=generator)
    readout = Readout(6, 6, small_params(reuse="none"))
    readout.classifiers[0].weight.data, readout.classifiers[0].bias.data = torch.eye(6), torch.zeros(6)
    return split(logits, labels, readout, Costs((60_000,), (0,), 0, 500, 0))


def test_where_confidence_misleads_it_is_more_accurate_at_equal_cost_than_any_threshold():
    """Thresholds answer the confident errors and spend frames on videos that no frame settles."""
    train, fresh = misleading(600, seed=0), misleading(2000, seed=1)
    outcomes = fresh.result(fitted(train, 0.2))
    accuracy, cost = fresh.score(outcomes), outcomes.gmacs.mean()
    levels = [StopAbove.between("confidence", level, T, 0, 0) for level in torch.linspace(0, 1, 201).tolist()]
    by_threshold = list(fresh.sweep(levels))
    affordable = [fresh.score(each) for each in by_threshold if each.gmacs.mean() <= 1.01 * cost]
    assert len(affordable) > 10
    assert accuracy > max(affordable) + 0.1
    saved: list[Outcomes] = [each for each in by_threshold if fresh.score(each) >= accuracy - 0.01]
    assert all(cost < 0.8 * each.gmacs.mean() for each in saved)


def test_tlee_decides_by_values_where_confidence_misleads_and_by_confidence_where_values_are_not_learned():
    """Of 600 videos values are learned; of 12, in folds of eight or nine, they are not."""
    params = small_params({"evaluate.max_loss": 3.0, "evaluate.confidence": 0.5})
    for data, by_value in ((misleading(600, seed=0), True), (noisy((2.0, 4.0, 5.0), 12), False)):
        search = Search(data)
        tried = optimal_stopping(search, params)
        chosen = pick(tried, search, params.evaluate)
        assert isinstance(chosen.policy, OptimalStopping) == by_value
        levels = candidates("confidence", search, params)
        if by_value:
            assert chosen.gmacs < 0.8 * pick(levels, search, params.evaluate).gmacs
