"""The ablation: every choice is varied, and variants are trained and evaluated on the results of the pipeline."""

import pandas as pd
import pytest
from support.small import small_params
from support.stores import write_small_stores
from support.titles import states, title

from tlee.features import store_features
from tlee.figures.ablation import ablation_rows
from tlee.modules import BRANCHES, GATES, REUSES
from tlee.paper import ablation
from tlee.paper.ablation import VARIANTS, Variant, ablate
from tlee.params import METHOD_SETTINGS, change
from tlee.training.backbone import pretrain
from tlee.training.branches import train_branches

pytestmark = pytest.mark.slow


def test_every_choice_is_varied():
    varied = {name: {v.name for v in VARIANTS if v.ablation == name} for name in ("reuse", "gate", "branch", "method")}
    assert varied == {"reuse": {*REUSES}, "gate": {*GATES}, "branch": {*BRANCHES}, "method": {*METHOD_SETTINGS}}
    for variant in VARIANTS:
        assert change(small_params(), variant.overrides)


def test_variants_with_the_same_parameters_are_trained_once(monkeypatch):
    setups = []

    def fake(setup: ablation.Setup, *_: object) -> ablation.Result:
        setups.append(setup)
        return ablation.Result({"score": float(len(setups)), "gmacs": 1.0}, None, None)

    monkeypatch.setattr(ablation, "_train_and_evaluate", fake)
    monkeypatch.setattr(ablation, "load_trained", lambda *_: (None, []))
    monkeypatch.setattr(
        ablation, "_beside", lambda reference, result, _: {"against": reference.numbers["score"]} | result.numbers
    )
    table = ablate(small_params()).set_index(["ablation", "variant"])
    assert len(set(setups)) == len(setups) < len(VARIANTS) == len(table)
    defaults = [("accumulate", "exit"), ("gate", "mlp"), ("readout", "shared"), ("method", "tlee")]
    assert {table.at[default, "score"] for default in defaults} == {table.at[("reuse", "max"), "score"]}
    assert table.at[("branch", "crm"), "score"] != table.at[("reuse", "max"), "score"]  # trains its own branches
    assert set(table.loc[["reuse", "gate", "rule", "method"], "against"]) == {table.at[("reuse", "max"), "score"]}
    assert set(table.loc["branch", "against"]) == {table.at[("branch", "crm"), "score"]}


def test_variants_are_trained_and_evaluated(five_layer_backbone, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_small_stores([row % 3 for row in range(12)])
    quick = {"pretrain.epochs": 2, "branches.epochs": 1, "gates.epochs": 1, "evaluate.bootstrap": 20}
    params = small_params(quick | {f"{stage}.batch_clips": 6 for stage in ("pretrain", "branches", "gates")})
    pretrain(params)
    train_branches(params)
    store_features(params)
    monkeypatch.setattr(ablation, "READOUT_EPOCHS", 1)
    monkeypatch.setattr(ablation, "BRANCH_EPOCHS", 1)
    few = [
        Variant("reuse", "mean", {"model.reuse": "mean"}),
        Variant("branch", "fc", {"model.branch": "fc"}),
        Variant("method", "frameexit", {"model.method": "frameexit"}),
        Variant("method", "random", {"model.method": "random"}),
    ]
    monkeypatch.setattr(ablation, "VARIANTS", few)
    capsys.readouterr()
    table = ablate(params)
    assert table["variant"].tolist() == ["mean", "fc", "frameexit", "random"]
    assert table[["low", "score", "high"]].to_numpy().min() >= 0
    assert (table["low"] <= table["score"]).all() and (table["score"] <= table["high"]).all()
    assert capsys.readouterr().out.count("GMACs") == len(few)  # one line per variant, none per epoch
    rows = table.set_index("variant")
    assert rows.loc[["mean", "fc", "frameexit"], "points"].isna().all()  # the only or first ones of their ablations
    difference = 100 * (rows.at["random", "score"] - rows.at["frameexit", "score"])
    assert rows.at["random", "points"] == pytest.approx(difference)
    assert rows.at["random", "cost_ratio"] == pytest.approx(rows.at["random", "gmacs"] / rows.at["frameexit", "gmacs"])
    assert title(ablation_rows(table)) == "Every part as in the default"


def test_the_title_is_about_the_part_that_changes_most():
    rows = [("reuse", "max", 0.9, None), ("reuse", "none", 0.8, -10.0), ("gate", "random", 0.85, -5.0)]
    table = pd.DataFrame(rows, columns=["ablation", "variant", "score", "points"])
    table = table.assign(low=0.7, high=0.95, share_of_full=0.5, points_low=-12.5, points_high=-7.5)
    text = title(ablation_rows(table.assign(cost_ratio=0.8, cost_ratio_low=0.7, cost_ratio_high=1.2)))
    assert states(text, "reuse", "none", "-10.0", "-12.5", "-7.5", "0.80", "0.70", "1.20")
