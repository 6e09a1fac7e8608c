"""The certified policy: the definition of harm, the videos of the tests, and the reported results."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from support.labels import sparse
from support.refusals import one_line
from support.small import COSTS, T, identity_readout, small_params
from support.titles import states

from tlee.evaluation.replay import Split
from tlee.evaluation.search import NEAR, Candidate, Search
from tlee.evaluation.value_iteration import ValueIteration
from tlee.features import FeatureTable
from tlee.guarantee import certify as certification
from tlee.guarantee.certify import Guarantee, PathResults, certify, conservative_to_aggressive
from tlee.levels import ALWAYS, NEVER
from tlee.params import Params
from tlee.paths import GUARANTEED_POLICY, POLICY
from tlee.policies.files import read_policy, save_policies
from tlee.policies.given import FixedExits
from tlee.policies.thresholds import Thresholds
from tlee.records import load_json

FIRST, SECOND = (1.0, 0.0), (0.0, 1.0)
NEVER_EXIT = Thresholds.never(3)


def split(features: torch.Tensor, labels: list, groups: list[str] | None = None, **model: Any) -> Split:
    """Return videos of two classes whose exit features are their logits; a label may be a list."""
    names = [f"video {row}" for row in range(len(features))]
    shown = [label if isinstance(label, list) else [label] for label in labels]
    truth = torch.stack([torch.eye(2, dtype=torch.bool)[each].any(0) for each in shown])
    table = FeatureTable(features, sparse(truth), names, groups or names, ["first", "second"])
    depths = features.shape[2]
    costs = replace(COSTS, segments=COSTS.segments[-depths:], heads=COSTS.heads[-depths:])
    return Split(table, identity_readout(**model).eval(), costs, "top1")


def noisy(seed: int, videos: int = 240, group: int = 4, exits: int = 3, **model: Any) -> Split:
    """Return videos whose class is clearer at deeper exits, in groups of ``group``."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (videos,), generator=generator)
    truth = torch.eye(2)[labels][:, None, None] * torch.tensor([1.5, 3.0, 6.0])[-exits:, None]
    features = truth + torch.randn(videos, T, exits, 2, generator=generator)
    return split(features, labels.tolist(), [f"s{seed} g{row // group}" for row in range(videos)], **model)


def layer_params(**overrides: Any) -> Params:
    """Return the settings of a small family: two layer thresholds."""
    settings = {"evaluate.bootstrap": 50, "model.method": "layer"}
    return small_params(settings | {key.replace("__", "."): value for key, value in overrides.items()})


# --- harm ---------------------------------------------------------------------------------------------


def test_a_video_is_harmed_if_the_full_network_is_correct_and_the_exit_is_not():
    """Depth 0 and the full network are both correct, only the full network, only depth 0, neither."""
    pairs = [(FIRST, FIRST), (SECOND, FIRST), (FIRST, SECOND), (SECOND, SECOND)]
    features = torch.tensor([[[shallow, FIRST, deep]] * T for shallow, deep in pairs])
    results = PathResults.of([NEVER_EXIT, FixedExits(1, 0)], split(features, [0, 0, 0, 0], reuse="none"))
    assert results.harm.tolist() == [
        [False] * 4,
        [False, True, False, False],
    ]  # not offset by the third
    assert results.top1.tolist() == [0.5, 0.5]
    assert results.share.tolist() == pytest.approx([1, (10 + 1 + 5) / (T * 60 + 5)])


def test_any_of_several_labels_is_correct():
    features = torch.tensor([[[SECOND, SECOND, FIRST]] * T] * 2)
    results = PathResults.of([NEVER_EXIT, FixedExits(1, 0)], split(features, [[0, 1], [0]], reuse="none"))
    assert results.harm[1].tolist() == [False, True]


# --- the path -----------------------------------------------------------------------------------------


def test_the_path_starts_with_never_exit_and_gets_cheaper_in_steps():
    data, params = noisy(0), layer_params()
    path = conservative_to_aggressive(data, params)
    costs = [data.result(policy).gmacs.mean().item() for policy in path]
    assert path[0] == NEVER_EXIT
    assert 3 < len(path) < 30
    assert all(cheaper * NEAR <= previous for previous, cheaper in pairwise(costs))


CONFIDENT, UNCERTAIN = (5.0, 0.0), (0.2, 0.0)


@pytest.mark.parametrize(
    ("shallow", "deep", "harmless"),
    [
        ([FIRST] * 9 + [SECOND], [FIRST] * 4 + [SECOND] * 5 + [FIRST], False),  # corrects five, harms one
        ([CONFIDENT] * 9 + [UNCERTAIN], [FIRST] * 10, False),  # more confident on nine, less on one, all correct
        ([FIRST] * 9 + [(0.0, 5.0)], [FIRST] * 9 + [SECOND], True),  # more confident on the one that both misclassify
    ],
)
def test_the_benefit_of_exits_does_not_offset_their_harm(shallow, deep, harmless, monkeypatch):
    """Depth 1 equals the full network and costs more than depth 0: it is on the path only if depth 0 does harm."""
    features = torch.tensor([[[before, after, after]] * T for before, after in zip(shallow, deep, strict=True)])
    data = split(features, [0] * 10, reuse="none")
    aggressive, conservative = FixedExits(T, 0), FixedExits(T, 1)
    monkeypatch.setattr(
        certification,
        "candidates",
        lambda family, search, params: [search.measure(aggressive), search.measure(conservative)],
    )
    assert conservative_to_aggressive(data, layer_params()) == [
        NEVER_EXIT,
        *([] if harmless else [conservative]),
        aggressive,
    ]


def test_a_family_of_one_path_is_ordered_by_cost_alone(monkeypatch):
    """Even a policy that harms more than a cheaper one, on the videos that both were fitted to, is tested before it."""
    data = noisy(0)
    policies = ValueIteration(data, 0).policies((3.0, 0.002, 0.1))

    def one_path(family: str, search: Search, params: Params) -> list[Candidate]:
        return [search.full, *search.judge_path([(each, data.result(each)) for each in policies])]

    monkeypatch.setattr(certification, "candidates", one_path)
    cheap, costly, between = (data.result(policy).gmacs.mean().item() for policy in policies)
    assert cheap * NEAR < between < between * NEAR < costly
    assert conservative_to_aggressive(data, layer_params()) == [NEVER_EXIT, policies[1], policies[2], policies[0]]


@pytest.mark.parametrize("paths", [1, 2])
def test_policies_of_several_paths_are_on_the_path_only_if_none_is_cheaper_and_does_less_harm(paths, monkeypatch):
    """Depth 1 is always wrong, depth 0 is cheaper and always right, as the full network is."""
    features = torch.tensor([[[FIRST, SECOND, FIRST]] * T] * 10)
    data = split(features, [0] * 10, reuse="none")
    harmful, harmless = FixedExits(T, 1), FixedExits(T, 0)

    def of_paths(family: str, search: Search, params: Params) -> list[Candidate]:
        numbers = range(paths) if paths > 1 else (0, 0)
        pairs = zip((harmful, harmless), numbers, strict=True)
        return [each for policy, number in pairs for each in search.judge_path([(policy, data.result(policy))], number)]

    monkeypatch.setattr(certification, "candidates", of_paths)
    among = [harmful, harmless] if paths == 1 else [harmless]
    assert conservative_to_aggressive(data, layer_params()) == [NEVER_EXIT, *among]


def test_harm_is_smooth():
    """No video is harmed by any exit, but shallower exits are less confident in the true class."""
    features = torch.tensor([[[(0.5, 0.0), (1.0, 0.0), (2.0, 0.0)]] * T] * 5)
    data = split(features, [0] * 5, reuse="none")
    path = conservative_to_aggressive(data, layer_params())
    confidence = [data.run(policy).logits.softmax(1).amax().item() for policy in path]
    assert len(path) >= 3
    assert confidence == sorted(confidence, reverse=True)


# --- the test -----------------------------------------------------------------------------------------


def results_of(harmful: list[int], videos: int, group: int = 2) -> PathResults:
    """Return the results of policies that harm ``harmful`` videos; each costs half of the one before."""
    harm = np.arange(videos) < np.array([0, *harmful])[:, None]
    share, groups = 0.5 ** np.arange(len(harm)), [f"g{row // group}" for row in range(videos)]
    return PathResults(harm, share, 1 - harm.mean(1), groups)


def guarantee_of(harmful: list[int], videos: int, **overrides: Any) -> Guarantee:
    path = [NEVER_EXIT, *(FixedExits(frames, 0) for frames in range(len(harmful), 0, -1))]
    test = results_of([3 * count for count in harmful], 400)
    return Guarantee(path, results_of(harmful, videos), test, layer_params(**overrides))


def test_the_last_policy_before_the_first_failure_is_chosen():
    found = guarantee_of([0, 0, 1, 0], videos=80, guarantee__max_harm=5.0)
    assert found.num_passed == 2
    assert found.policy == FixedExits(3, 0)
    table = found.path_table()
    assert table["passed"].tolist() == [True, True, False, False]
    assert table["harmful"].tolist() == [0, 0, 1, 0]
    assert table["p_value"].tolist() == pytest.approx([0.95**80] * 2 + [0.95**80 + 80 * 0.05 * 0.95**79, 0.95**80])
    assert table["bound"][1] == pytest.approx(1 - 0.05 ** (1 / 80))
    assert table["share_of_full"].tolist() == [0.5, 0.25, 0.125, 0.0625]
    assert table["test_harm"].tolist() == [0, 0, 3 / 400, 0]
    assert (table["groups_bound"] >= table["harmful"] / 80).all()
    assert states(found.verdict(), "Policy 2 of 4", "5%", "95%", "0 of 80 videos", "3.7%", "25%")


def test_the_results_of_the_chosen_policy_on_test():
    found = guarantee_of([1, 40], videos=500, guarantee__max_harm=1.0).on_test().loc["test"]
    assert found[["videos", "harmful", "harm", "share_of_full"]].tolist() == [400, 3, 3 / 400, 0.5]
    assert found[["top1", "full_top1"]].tolist() == [1 - 3 / 400, 1]
    assert found["harm_low"] < 3 / 400 < found["harm_high"]
    assert found["harm_high"] == pytest.approx(0.02176, abs=1e-4)  # Clopper and Pearson, 3 of 400


@pytest.mark.parametrize(
    ("harmful", "videos", "reason"),
    [
        ([0, 0], 80, ("1%", "95%", "299 videos", "80", "never exit")),
        ([1, 0], 299, ("most conservative", "1 of 299 videos", "too many", "1%")),
        ([], 299, ("no exits", "never exit")),
    ],
)
def test_never_exit_is_chosen_if_no_policy_passes(harmful, videos, reason):
    found = guarantee_of(harmful, videos, guarantee__max_harm=1.0)
    assert found.num_passed == 0
    assert found.policy == NEVER_EXIT
    assert states(found.verdict(), *reason)
    on_test = found.on_test().loc["test"]
    assert on_test[["harmful", "share_of_full", "top1"]].tolist() == [0, 1, 1]


def test_the_plan_begins_with_the_available_videos():
    table = guarantee_of([0], videos=80).plan()
    assert table.loc[["available videos", "available groups"], "videos"].tolist() == [80, 40]
    assert table.loc["299", "smallest_certifiable_harm"] == pytest.approx(0.997, abs=1e-3)


def test_a_simulation_on_the_test_split():
    found = guarantee_of([0, 1, 30], videos=80, guarantee__max_harm=3.0)
    table = found.simulate()
    assert set(table.index) == {(drawn, limit) for drawn in ("videos", "groups") for limit in (2, 3, 10, 20)}
    assert (table.loc["videos", "violation_rate"] <= 0.06).all()
    assert table.loc[("videos", 3.0), "never_exit_rate"] == 1  # 80 videos are too few
    assert table.loc[("videos", 10.0), "share_of_full"] < 0.5


# --- val and test --------------------------------------------------------------------------------------


def test_one_half_of_val_orders_the_path_and_the_other_tests_it():
    """Corrupted videos of the testing half change no policy of the path, and split test has no influence."""
    val, test, params = noisy(0), noisy(1), layer_params(guarantee__max_harm=20.0)
    found = certify(val, test, params)
    assert found.num_passed > 0
    is_held_out = torch.tensor([group in found.held_out.groups for group in val.table.groups])
    assert len(set(found.held_out.groups)) == 30
    assert is_held_out.sum() == found.held_out.num_videos == 120  # all videos of these groups

    corrupted = replace(val.table, stored=torch.where(is_held_out[:, None, None, None], 0, val.table.stored))
    again = certify(replace(val, table=corrupted), test, params)
    assert again.path == found.path
    assert certify(val, noisy(2), params).num_passed == found.num_passed


def test_one_video_of_each_group():
    found = certify(noisy(0), noisy(1), layer_params(guarantee__one_per_group=True))
    assert found.held_out.num_videos == len(set(found.held_out.groups)) == 30
    assert found.num_passed == 0  # 59 are needed
    assert found.plan().loc["available videos", "videos"] == 30
    assert set(found.simulate().index.get_level_values("drawn")) == {"videos"}


@pytest.mark.parametrize("one_per_group", [True, False])
def test_a_single_group_leaves_nothing_to_test_on(one_per_group):
    found = certify(noisy(0, group=240), noisy(1), layer_params(guarantee__one_per_group=one_per_group))
    assert found.policy == NEVER_EXIT
    assert states(found.verdict(), "0 are available")
    assert found.path_table().empty
    assert found.plan().loc["available videos", "allowed_harmed"] == -1


@pytest.mark.parametrize("method", ["full", "random", "frameexit"])
def test_every_method_has_a_path(method):
    settings = small_params({"evaluate.bootstrap": 50}, method=method)
    val, test = (noisy(seed, 80, exits=settings.model.num_branches + 1, method=method) for seed in (0, 1))
    found = certify(val, test, settings)
    assert (len(found.path) == 1) == (method == "full")
    assert len(found.path_table()) == len(found.path) - 1


# --- files --------------------------------------------------------------------------------------------


def test_the_files_that_are_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = certify(noisy(0), noisy(1), layer_params(guarantee__max_harm=20.0))
    simulated = found.simulate()
    found.write(simulated, {"error_uncalibrated": 0.1})
    assert read_policy("layer", GUARANTEED_POLICY) == found.policy
    metrics = load_json(tmp_path / "results" / "metrics" / "guarantee.json", "guarantee")
    assert metrics["passed"] == found.num_passed
    assert metrics["test"]["harmful"] == found.on_test()["harmful"].item()
    assert metrics["calibration"] == {"error_uncalibrated": 0.1}
    assert metrics["simulated_violation_rate"] <= metrics["allowed_violation_rate"] + 0.01
    tables = {path.stem: pd.read_csv(path) for path in (tmp_path / "results" / "plots" / "guarantee").iterdir()}
    assert {name: len(table) for name, table in tables.items()} == {
        "path": len(found.path) - 1,
        "plan": len(found.plan()),
        "simulation": len(simulated),
    }


def test_certified_policies_have_a_file_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    aggressive = Thresholds((ALWAYS, NEVER), *[(NEVER,) * 3] * 3)
    save_policies({"tlee": aggressive})
    assert "`dvc repro guarantee`" in one_line(lambda: read_policy("tlee", GUARANTEED_POLICY))
    save_policies({"layer": NEVER_EXIT}, GUARANTEED_POLICY)
    assert read_policy("tlee") == read_policy("tlee", POLICY) == aggressive
    assert read_policy("layer", GUARANTEED_POLICY) == NEVER_EXIT
    message = one_line(lambda: read_policy("tlee", GUARANTEED_POLICY))
    assert states(message, str(GUARANTEED_POLICY), "tlee", "layer") and message.endswith("run `dvc repro guarantee`")
