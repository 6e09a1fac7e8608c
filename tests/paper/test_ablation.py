"""The ablation: every choice is varied, and variants are trained and evaluated on the results of the pipeline."""

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

    def fake(setup: ablation.Setup, *_: object) -> dict[str, float]:
        setups.append(setup)
        return {"score": float(len(setups)), "gmacs": 1.0}

    monkeypatch.setattr(ablation, "_train_and_evaluate", fake)
    monkeypatch.setattr(ablation, "load_trained", lambda *_: (None, []))
    table = ablate(small_params()).set_index(["ablation", "variant"])
    assert len(set(setups)) == len(setups) < len(VARIANTS) == len(table)
    defaults = [("accumulate", "exit"), ("gate", "mlp"), ("readout", "shared"), ("method", "tlee")]
    assert {table.at[default, "score"] for default in defaults} == {table.at[("reuse", "max"), "score"]}
    assert table.at[("branch", "crm"), "score"] != table.at[("reuse", "max"), "score"]  # trains its own branches


def test_variants_are_trained_and_evaluated(five_layer_backbone, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_small_stores([row % 3 for row in range(12)])
    quick = {"pretrain.epochs": 2, "branches.epochs": 1, "gates.epochs": 1, "evaluate.bootstrap": 20}
    params = small_params(quick | {f"{stage}.batch_clips": 6 for stage in ("pretrain", "branches", "gates")})
    pretrain(params)
    model = train_branches(params).model
    store_features(model, params)
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
    assert states(title(ablation_rows(table)), "reuse", "mean")
