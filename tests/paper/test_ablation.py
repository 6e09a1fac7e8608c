"""The ablation: every choice is varied, and a variant is trained and evaluated on what the pipeline has made."""

import pytest
from support.small import small_params
from support.stores import write_small_stores

from tlee.features import store_features
from tlee.figures.ablation import ablation_rows
from tlee.modules import BRANCHES, GATES, REUSES
from tlee.paper import ablation
from tlee.paper.ablation import VARIANTS, Variant, ablate
from tlee.params import METHOD_SETTINGS, change
from tlee.training.backbone import pretrain
from tlee.training.branches import train_branches


def test_every_choice_is_varied():
    varied = {name: {v.name for v in VARIANTS if v.ablation == name} for name in ("reuse", "gate", "branch", "method")}
    assert varied == {"reuse": {*REUSES}, "gate": {*GATES}, "branch": {*BRANCHES}, "method": {*METHOD_SETTINGS}}
    for variant in VARIANTS:
        assert change(small_params(), variant.overrides)


def test_variants_are_trained_and_evaluated(five_layer_backbone, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_small_stores([row % 3 for row in range(12)])
    quick = {"pretrain.epochs": 2, "branches.epochs": 1, "gates.epochs": 1, "evaluate.bootstrap": 20}
    params = small_params(quick | {f"{stage}.batch_clips": 6 for stage in ("pretrain", "branches", "gates")})
    pretrain(params)
    model, _, _ = train_branches(params)
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
    assert capsys.readouterr().out.count("GMACs") == len(few)  # a line a variant, none an epoch
    title = ablation_rows(table).get_suptitle().replace("\n", " ")
    assert title.startswith("The reuse makes the largest difference: mean ")


@pytest.fixture(autouse=True)
def forget_rows():
    """Rows are remembered by parameters, which here stand for other files."""
    ablation._run.cache_clear()
    yield
    ablation._run.cache_clear()
