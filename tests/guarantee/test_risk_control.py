"""Guarantees from counts: against the exact test, by hand, and on sets drawn from known populations."""

import numpy as np
import pytest
from scipy.stats import binomtest

from tlee.guarantee.risk_control import DRAWS, count_passing, needed_videos, p_values, plan, simulate, upper_bound
from tlee.subsets import one_per_group

DELTA = 0.05  #: one minus the confidence of the tests


def highest_rate(draws: int) -> float:
    """Return the rate that ``draws`` draws exceed once in a thousand times if the true rate is ``DELTA``."""
    return DELTA + 3.1 * (DELTA * (1 - DELTA) / draws) ** 0.5


# --- one test ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("max_harm", "videos", "allowed_harmed"),
    [(1, 298, -1), (1, 299, 0), (1, 500, 1), (1, 1000, 4), (1, 2000, 12), (1, 3783, 27), (2, 500, 4), (2, 1000, 12)],
)
def test_number_of_videos_that_may_be_harmed(max_harm, videos, allowed_harmed):
    assert plan([videos], max_harm, 0.95)["allowed_harmed"].item() == allowed_harmed


@pytest.mark.parametrize(("max_harm", "needed"), [(1, 299), (2, 149), (5, 59), (10, 29), (0.5, 598)])
def test_number_of_videos_that_a_guarantee_needs(max_harm, needed):
    assert needed_videos(max_harm, 0.95) == needed
    assert p_values(0, needed, max_harm) <= DELTA < p_values(0, needed - 1, max_harm)
    smallest = plan([needed - 1, needed], max_harm, 0.95)["smallest_certifiable_harm"]
    assert smallest[0] > max_harm >= smallest[1]


def test_the_smallest_certifiable_harm_by_hand():
    """If a share x of all videos is harmed, none of 80 is with probability (1 - x)^80, here 5%."""
    table = plan([0, 1, 80], 5.0, 0.95)
    assert table["smallest_certifiable_harm"].tolist() == pytest.approx([100, 95, 100 * (1 - 0.05 ** (1 / 80))])
    assert table["allowed_harmed"].tolist() == [-1, -1, 0]


@pytest.mark.parametrize("confidence", [0.9, 0.95])
@pytest.mark.parametrize("max_harm", [0.5, 3, 20])
def test_the_test_and_the_bound_are_the_exact_ones_and_agree(max_harm, confidence):
    for videos in (1, 7, 120):
        harmful = np.arange(videos + 1)
        exact = [binomtest(int(k), videos, max_harm / 100, alternative="less") for k in harmful]
        bounds = upper_bound(harmful, videos, confidence)
        np.testing.assert_allclose(p_values(harmful, videos, max_harm), [each.pvalue for each in exact])
        np.testing.assert_allclose(bounds, [each.proportion_ci(confidence).high for each in exact])
        passes = p_values(harmful, videos, max_harm) <= 1 - confidence
        assert (passes == (bounds <= max_harm / 100)).all()


# --- the sequence ------------------------------------------------------------------------------------


def test_nothing_is_tested_after_the_first_failure():
    assert count_passing(np.array([0.01, 0.05, 0.2, 0.01]), 0.95) == 2
    assert count_passing(np.array([0.06, 0.01]), 0.95) == 0
    assert count_passing(np.array([]), 0.95) == 0
    assert count_passing(np.array([[0.01, 0.01], [0.01, 0.5]]), 0.95).tolist() == [2, 1]


# --- populations with known harm -------------------------------------------------------------------


def population(rates: list[float], videos: int = 1000, nested: bool = False) -> np.ndarray:
    """Return the harm of policies with given rates, ``nested`` if each harms those of the previous one too."""
    rng = np.random.default_rng(0)
    order = np.arange(videos)
    return np.stack([(order if nested else rng.permutation(videos)) < round(rate * videos) for rate in rates])


def violation_rate(harm: np.ndarray, videos: int, max_harm: float, groups: np.ndarray | None = None) -> float:
    groups = np.arange(harm.shape[1]) if groups is None else groups
    table = simulate(harm, np.zeros(len(harm)), groups, videos, [max_harm], 0.95, seed=1)
    return table["violation_rate"].item()


@pytest.mark.parametrize(("videos", "max_harm"), [(80, 5), (300, 5), (500, 1), (1000, 2)])
def test_the_guarantee_holds_if_harm_grows_along_the_path(videos, max_harm):
    rates = np.linspace(0, 4 * max_harm / 100, 40)
    assert violation_rate(population(rates.tolist(), nested=True), videos, max_harm) <= highest_rate(DRAWS)


def test_the_guarantee_holds_in_the_worst_case():
    """Every policy harms slightly more than allowed, on different videos: any that passes violates the guarantee."""
    harm, videos = population([0.051] * 30), 300
    rate = violation_rate(harm, videos, max_harm=5)
    assert 0.02 <= rate <= highest_rate(DRAWS)  # the test is nearly exact
    rng = np.random.default_rng(0)
    drawn = [harm[:, rng.integers(harm.shape[1], size=videos)].sum(1) for _ in range(500)]
    any_passes = (p_values(np.array(drawn), videos, 5) <= DELTA).any(1).mean()
    assert any_passes > 0.5  # testing all of them and taking any that passes mostly violates it


def test_the_guarantee_fails_if_clips_of_a_group_are_copies():
    """A limitation of the method: ten copies of a clip count ten times. With one video of each group it holds."""
    by_group, copies = population([0.052] * 5), 10
    harm, groups = by_group.repeat(copies, axis=1), np.arange(1000).repeat(copies)
    assert violation_rate(harm, 2000, 5, groups) > 0.2
    assert violation_rate(harm, 2000, 5) <= highest_rate(DRAWS)  # independent draws

    rng, draws, violations = np.random.default_rng(0), 500, 0
    for _ in range(draws):
        drawn = rng.integers(1000, size=200)  # groups; a group drawn twice counts as two
        rows, names = drawn.repeat(copies) * copies + np.tile(range(copies), 200), np.arange(200).repeat(copies)
        kept = rows[one_per_group(names, seed=0)]
        violations += count_passing(p_values(harm[:, kept].sum(1), len(kept), 5), 0.95) > 0
    assert violations / draws <= highest_rate(draws)


def test_one_video_of_each_group():
    groups = ["a", "b", "a", "c", "b", "a"]
    seen = set()
    for seed in range(20):
        rows = one_per_group(groups, seed).tolist()
        assert [*sorted(rows)] == rows
        assert sorted(groups[row] for row in rows) == ["a", "b", "c"]
        seen |= set(rows)
    assert seen == set(range(6))  # every video is drawn at some seed
    assert len(one_per_group([], 0)) == 0


def test_a_simulation_by_hand():
    harm, share = np.zeros((2, 50), bool), np.array([0.5, 0.2])
    harm[1, :25] = True
    enough, too_few = (simulate(harm, share, range(50), count, [5.0], 0.95, 0).iloc[0].to_dict() for count in (59, 58))
    assert enough == {"max_harm": 5, "violation_rate": 0, "never_exit_rate": 0, "harm": 0, "share_of_full": 0.5}
    assert too_few == {"max_harm": 5, "violation_rate": 0, "never_exit_rate": 1, "harm": 0, "share_of_full": 1}
    loose = simulate(harm, share, range(50), 59, [99.0], 0.95, 0).iloc[0]
    assert loose[["harm", "share_of_full"]].tolist() == pytest.approx([0.5, 0.2])
    nothing = simulate(harm[:0], share[:0], range(50), 59, [5.0], 0.95, 0).iloc[0]
    assert nothing[["violation_rate", "never_exit_rate"]].tolist() == [0, 1]


def test_groups_are_drawn_whole():
    """With a single group every draw has all videos: the policy harms 2 of 40, too many for 10%."""
    harm = np.zeros((1, 40), bool)
    harm[0, :2] = True
    share = np.array([0.3])
    assert p_values(0, 40, 10) < DELTA < p_values(2, 40, 10)
    together = simulate(harm, share, ["g"] * 40, 40, [10.0], 0.95, 0)["never_exit_rate"].item()
    apart = simulate(harm, share, range(40), 40, [10.0], 0.95, 0)["never_exit_rate"].item()
    assert together == 1
    assert 0.5 < apart < 1
