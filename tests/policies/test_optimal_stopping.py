"""Optimal stopping: its evidence, its decisions, its memory and its cost, by hand."""

import math

import pytest
import torch
from support.small import COSTS, T, identity_readout, random_features, video

from tlee.costs import Costs
from tlee.policies.evidence import NUM_EVIDENCE, evidence
from tlee.policies.inference import run
from tlee.policies.optimal_stopping import NO_CHOICE, OptimalStopping, decision_scores
from tlee.policies.reference import evidence_of
from tlee.policies.sources import StoredFeatures

TWO_EXITS = Costs(segments=(10, 20), heads=(1, 0), reuse=0, classifier=5, gate=7)
ARITHMETIC = 3 * NUM_EVIDENCE  #: multiply-accumulates of a decision


def constant(value: float) -> tuple[float, ...]:
    """Weights of a value that does not depend on the evidence; of answers, the value is in log-odds."""
    return (value,) + (0.0,) * (NUM_EVIDENCE - 1)


def proportional(number: int) -> tuple[float, ...]:
    """Weights of a value that is one number of the evidence."""
    return tuple(float(index == number) for index in range(NUM_EVIDENCE))


ANSWER, NEXT_FRAME, DEEPER = (
    tuple(constant(float(choice == best)) for choice in range(3)) for best in range(3)
)  # always the same choice


# --- evidence ------------------------------------------------------------------------------------------


def test_the_evidence_of_the_first_frame_by_hand():
    """With 3/4 and 1/4 the odds are 3; the entropy is 2 - 3/4 log2(3) bits of one bit."""
    odds = math.log(3)
    entropy = 2 - 0.75 * math.log2(3)
    expected = [1, odds, odds**2 / 10, odds, entropy, entropy * odds, 0, 0, 0]
    assert evidence(torch.tensor([[0.75, 0.25]]), None)[0].tolist() == pytest.approx(expected, abs=1e-6)


def test_the_evidence_of_a_later_frame_by_hand():
    """The class predicted now had 0.4 before; the total variation is (|0.75 - 0.4| + |0.25 - 0.6|) / 2."""
    shown = evidence(torch.tensor([[0.25, 0.75]]), torch.tensor([[0.6, 0.4]]))[0].tolist()
    assert shown[6:] == pytest.approx([0.4, 0.4 * math.log(3) / 5, 0.35], abs=1e-6)


def test_the_margin_is_to_the_second_largest_probability():
    shown = evidence(torch.tensor([[0.1, 0.6, 0.3]]), None)[0].tolist()
    assert shown[1] == pytest.approx(math.log(0.6 / 0.4), abs=1e-6)
    assert shown[3] == pytest.approx(math.log(0.6 / 0.3), abs=1e-6)


def test_the_evidence_of_several_labels_by_hand():
    """Probabilities of each class alone: they need not add up to one, and neither is below one half."""
    shown = evidence(torch.tensor([[0.9, 0.8]]), torch.tensor([[0.9, 0.2]]))[0].tolist()
    entropy = -(0.9 * math.log2(0.9) + 0.8 * math.log2(0.8))
    expected = [math.log(9), math.log(9) ** 2 / 10, math.log(0.9 / 0.8), entropy, entropy * math.log(9)]
    assert shown[1:6] == pytest.approx(expected, abs=1e-5)
    assert shown[6:] == pytest.approx([0.9, 0.9 * math.log(9) / 5, 0.3], abs=1e-6)


@pytest.mark.parametrize("classes", [1, 2, 50])
def test_the_evidence_of_certainty_is_finite(classes):
    certain = torch.zeros(2, classes)
    certain[:, 0] = 1
    for before in (None, certain.roll(1, 1)):
        shown = evidence(certain, before)
        assert shown.shape == (2, NUM_EVIDENCE)
        assert shown.isfinite().all()
        assert shown[0, 1] == pytest.approx(math.log(1e5), abs=0.01)  # the odds are bounded
        assert shown[0, 4].abs() < 1e-5


def test_the_evidence_of_many_videos_is_that_of_each():
    generator = torch.Generator().manual_seed(0)
    now, before = (3 * torch.randn(20, 5, generator=generator) for _ in range(2))
    for squash in (torch.sigmoid, lambda logits: logits.softmax(1)):
        p, q = squash(now), squash(before)
        for past in (None, q):
            written_out = [
                evidence_of(row.tolist(), None if past is None else past[i].tolist()) for i, row in enumerate(p)
            ]
            torch.testing.assert_close(evidence(p, past), torch.tensor(written_out), rtol=1e-3, atol=1e-4)


# --- decisions -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "leave", "stop"),
    [
        ((math.log(9), 0.7, 0.4), 0.5, 0.2),  # answer, which is correct with log-odds of 9 to 1, that is 0.9
        ((math.log(1.5), 0.7, 0.4), 0.3, -0.1),  # next frame; 1.5 to 1 is 0.6
        ((math.log(1.5), 0.5, 0.8), -0.2, -0.2),  # deeper
        ((40.0, 0.7, 0.9), 0.1, 0.1),  # no answer is worth more than one
        ((-40.0, -0.3, -0.2), 0.2, 0.2),  # or less than nothing, while computation may be
    ],
)
def test_decision_scores_by_hand(values, leave, stop):
    weights = torch.tensor([constant(value) for value in values])
    scores = decision_scores(evidence(torch.tensor([[0.75, 0.25]]), None), weights)
    assert scores[0].tolist() == pytest.approx([leave, stop], abs=1e-6)


def test_a_choice_that_an_exit_does_not_have_is_never_taken():
    shown = evidence(torch.tensor([[1.0, 0.0], [0.5, 0.5]]), torch.tensor([[0.0, 1.0], [0.5, 0.5]]))
    assert decision_scores(shown, torch.tensor([constant(0.0), NO_CHOICE, NO_CHOICE])).gt(0).all()


def test_a_path_by_hand():
    """The first frame uses depths 0 and 2, the second depth 1, the third depth 2."""
    more_odds = (proportional(1), constant(0.6), constant(0.8))  # deeper up to a confidence of 0.8, then answer
    policy = OptimalStopping(
        price=0.1,
        values=(
            (more_odds, None, (constant(-1.0), NEXT_FRAME[1], NO_CHOICE)),
            (None, (constant(-1.0), constant(0.5), NO_CHOICE), None),
            (None, None, (constant(-1.0), NO_CHOICE, NO_CHOICE)),
        ),
    )
    source = video([(1, 0), (9, 9), (0, 3)], [(0, 0), (2, 4), (0, 0)], [(0, 0), (0, 0), (7, 1)])
    outcomes = run(source, identity_readout(), policy, COSTS)
    # Frame 1: log-odds 1 at depth 0, so 0.73 against 0.8: deeper; at depth 2 the next frame. Frame 2: left at depth 1,
    # with z = (2, 4). Frame 3: the only exit ends the video, with the maximum of (2, 4) and (7, 1).
    assert outcomes.exit_depths.tolist() == [[2, 1, 2]]
    assert outcomes.logits.tolist() == [[7, 4]]
    first = (10 + 1 + 5 + ARITHMETIC) + (20 + 30 + 0 + 5 + ARITHMETIC)
    second, third = 10 + 20 + 2 + 5 + ARITHMETIC, 10 + 20 + 30 + 0 + 5 + ARITHMETIC
    assert outcomes.macs.tolist() == [first + second + third]

    confident = video([(2, 0), (9, 9), (0, 3)], [(9, 9)] * 3, [(9, 9)] * 3)  # log-odds 2, so 0.88 against 0.8
    outcomes = run(confident, identity_readout(), policy, COSTS)
    assert outcomes.exit_depths.tolist() == [[0, -1, -1]]
    assert outcomes.macs.tolist() == [10 + 1 + 5 + ARITHMETIC]


def test_the_evidence_compares_with_the_exit_by_which_the_previous_frame_was_left():
    """The second frame is answered if the class there had been likely: at depth 1 it was not, at depth 0 it was."""
    both = ((constant(0.0), constant(0.5), constant(1.0)), (constant(0.0), NEXT_FRAME[1], NO_CHOICE))
    agree = (proportional(6), constant(0.6), NO_CHOICE)  # 0.72 where 0.95 had been given to the class, 0.51 where 0.05
    last = (constant(0.0), NO_CHOICE, NO_CHOICE)
    policy = OptimalStopping(0.1, (both, (agree, None), (last, None)))
    costs = TWO_EXITS
    readout = identity_readout(reuse="none")  # so that each exit has the logits in the table

    def exits(first_exit: tuple, second_exit: tuple) -> list[int]:
        source = video([first_exit, second_exit], [(3, 0), (3, 0)], [(3, 0), (3, 0)])
        return run(source, readout, policy, costs).exit_depths[0].tolist()

    assert exits((3, 0), (0, 3)) == [1, 0, 0]  # the first exit agrees, but was not taken
    assert exits((0, 3), (3, 0)) == [1, 0, -1]


def test_later_exits_of_a_frame_compare_with_the_same_exit():
    """Both exits of the second frame compare with the first frame, not with each other."""
    first = (None, (constant(0.0), constant(1.0), NO_CHOICE))
    second = ((constant(0.0), constant(0.0), constant(1.0)), (proportional(6), constant(0.6), NO_CHOICE))
    policy = OptimalStopping(0.1, (first, second, second))
    costs, readout = TWO_EXITS, identity_readout(reuse="none")
    agreeing = video([(0, 0), (3, 0)], [(0, 3), (3, 0)], [(0, 0), (0, 0)])
    differing = video([(0, 0), (0, 3)], [(3, 0), (3, 0)], [(0, 0), (0, 0)])
    assert run(agreeing, readout, policy, costs).exit_depths.tolist() == [[1, 1, -1]]
    assert run(differing, readout, policy, costs).exit_depths.tolist() == [[1, 1, 1]]


def test_a_policy_observes_calibrated_probabilities():
    policy = OptimalStopping(0.1, (((proportional(1), constant(0.8), constant(0.8)),) * 2 + (ANSWER,),) * T)
    source = StoredFeatures(torch.tensor([1.0, 0.0]).expand(1, T, 3, 2))
    assert run(source, identity_readout(), policy, COSTS).exit_depths[0, 0] == 2
    cool = run(source, identity_readout(), policy, COSTS, temperatures=(0.5, 1.0, 1.0))
    assert cool.exit_depths[0].tolist() == [0, -1, -1, -1]  # log-odds 2: a confidence of 0.88


def test_exits_in_use():
    used = (ANSWER, None, ANSWER)
    policy = OptimalStopping(0.1, (used, (None, None, ANSWER), used, used))
    assert [policy.uses_exit(0, b, 4) for b in range(3)] == [True, False, True]
    assert policy.num_exits_used() == 3  # at the first frame two, at later frames one
    assert OptimalStopping(0.1, (used,)).num_exits_used() == 2  # of a single frame


@pytest.mark.parametrize(("choice", "path"), [(ANSWER, [0, -1, -1, -1]), (NEXT_FRAME, [0] * T), (DEEPER, [2] * T)])
def test_the_same_choice_everywhere(choice, path):
    policy = OptimalStopping(0.1, ((choice,) * 3,) * T)
    exits = run(StoredFeatures(random_features(5)), identity_readout(), policy, COSTS).exit_depths
    assert exits.tolist() == [path] * 5
