"""The committed results belong to the committed code, and the README quotes them.

All of it is read from git's last commit, so that one's own experiments in the work tree do not matter.
"""

import csv
import hashlib
import io
import json
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from scipy.stats import binomtest
from support.torture import FULL_DISKS, KILLS, STAGES, summary

from tlee.paper.ablation import VARIANTS
from tlee.paper.replicates import areas_table
from tlee.paper.seeds import (
    costs,
    draw,
    finding,
    limits_table,
    load_trainings,
    read_trainings,
    scores_table,
)
from tlee.paper.summary import guarantee_line, latency_line, methods_table, savings_line
from tlee.paths import SEEDS

ROOT = Path(__file__).parents[2]


def git(*arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=True).stdout


@pytest.fixture(scope="module")
def committed() -> dict[str, bytes]:
    """The files of the last commit that this is about, by path."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    about = re.compile(
        r"(results|tlee|notebooks)/|(params|dvc)\.yaml$|dvc\.lock$|data\.dvc$|README\.md$|docs/(results|failures)\.md$"
    )
    with tarfile.open(fileobj=io.BytesIO(git("archive", "HEAD"))) as archive:
        files = [member for member in archive if member.isfile() and about.match(member.name)]
        return {member.name: archive.extractfile(member).read() for member in files}


@pytest.fixture(scope="module")
def lock(committed) -> dict:
    return yaml.safe_load(committed["dvc.lock"])["stages"]


def digest(path: str, files: dict[str, bytes]) -> str | None:
    """DVC's hash of a file or folder among ``files``; none if it is not there."""
    if path in files:
        return hashlib.md5(files[path]).hexdigest()
    inside = sorted(name for name in files if name.startswith(f"{path}/"))
    listing = [
        {"md5": hashlib.md5(files[name]).hexdigest(), "relpath": name.removeprefix(f"{path}/")} for name in inside
    ]
    return hashlib.md5(json.dumps(listing).encode()).hexdigest() + ".dir" if listing else None


def test_every_stage_has_been_run(committed, lock):
    stages = yaml.safe_load(committed["dvc.yaml"])["stages"]
    assert set(lock) == set(stages)


def test_stages_have_seen_the_committed_clips_and_notebooks(committed, lock):
    clips = yaml.safe_load(committed["data.dvc"])["outs"][0]["md5"]
    for name, stage in lock.items():
        for dependency in stage["deps"]:
            if dependency["path"] in ("tlee", "results/stripped"):
                continue  # of `code`, whose files are compared below: better words run nothing again
            expected = clips if dependency["path"] == "data" else digest(dependency["path"], committed)
            if expected:
                assert dependency["md5"] == expected, f"{name} ran on another {dependency['path']}: run `dvc repro`"


@pytest.mark.slow
def test_stages_have_seen_the_committed_code(committed, tmp_path):
    for path, content in committed.items():
        folder, _, name = path.rpartition("/")
        if path.startswith("tlee/") or folder == "notebooks":
            target = tmp_path / ("results/stripped" if folder == "notebooks" and name[0].isdigit() else folder) / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
    (tmp_path / "params.yaml").write_bytes(committed["params.yaml"])
    subprocess.run([sys.executable, "-m", "tlee", "code"], cwd=tmp_path, capture_output=True, check=True)
    written = {path.relative_to(tmp_path).as_posix(): path.read_bytes() for path in tmp_path.glob("results/code/*")}
    assert written
    for path, content in written.items():
        assert committed[path] == content, f"the stage of {path} ran on other code: run `dvc repro`"


def test_each_stage_has_seen_what_the_one_before_made(lock):
    made = {out["path"]: out["md5"] for stage in lock.values() for out in stage["outs"]}
    used = [dependency for stage in lock.values() for dependency in stage["deps"] if dependency["path"] in made]
    assert len(used) > 10
    for dependency in used:
        assert dependency["md5"] == made[dependency["path"]], dependency["path"]


def test_stages_have_seen_the_committed_parameters(committed, lock):
    params = yaml.safe_load(committed["params.yaml"])
    for name, stage in lock.items():
        for dotted, seen in stage.get("params", {}).get("params.yaml", {}).items():
            value = params
            for part in dotted.split("."):
                value = value[part]
            assert seen == value, f"{name} ran with another {dotted}: run `dvc repro`"


def test_committed_results_are_what_the_stages_made(committed, lock):
    outs = [out for stage in lock.values() for out in stage["outs"] if digest(out["path"], committed)]
    assert {"results/metrics/evaluate.json", "results/figures/evaluate"} <= {out["path"] for out in outs}
    for out in outs:
        assert out["md5"] == digest(out["path"], committed), out["path"]


@pytest.fixture
def seeds(committed, tmp_path, monkeypatch) -> list[Path]:
    """The folders of the other trainings, in a folder with the files of the last commit that are compared."""
    for name, content in committed.items():
        if name == "dvc.lock" or name.startswith(("results/seeds/", "results/plots/evaluate/")):
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    monkeypatch.chdir(tmp_path)
    return sorted(SEEDS.glob("seed*"))


def test_the_documents_quote_five_trainings(committed, seeds):
    found = read_trainings(seeds)
    readme, results = committed["README.md"].decode(), committed["docs/results.md"].decode()
    assert found.all.num_seeds == 5
    assert scores_table(found) in readme
    assert f"{finding(found.all)} {costs(found.all)}" in readme.replace("\n", " ")
    assert "results/figures/seeds/trade_off.png" in readme
    assert areas_table(found.all) in results
    assert limits_table(found.all) in results


def test_the_five_trainings_have_seen_the_committed_code_clips_and_parameters(seeds):
    assert load_trainings().all.num_runs == len(seeds) + 1


def test_the_figure_of_five_trainings_is_of_the_committed_ones(committed, seeds):
    content = io.BytesIO(committed["results/figures/seeds/trade_off.png"])
    drawn, shown = (Image.open(file).convert("L") for file in (draw(read_trainings(seeds)), content))
    assert drawn.size == shown.size
    assert np.abs(np.asarray(drawn, float) - np.asarray(shown, float)).mean() < 0.5  # of 255


def test_the_documents_quote_the_committed_run(committed):
    readme, results = committed["README.md"].decode(), committed["docs/results.md"].decode()
    stages = ("evaluate", "latency", "guarantee", "explain")
    metrics = {stage: json.loads(committed[f"results/metrics/{stage}.json"]) for stage in stages}
    assert methods_table(metrics["evaluate"]) in results
    for line, stage in ((latency_line, "latency"), (guarantee_line, "guarantee"), (savings_line, "explain")):
        assert line(metrics[stage]) in results
    aurocs = pd.read_csv(io.BytesIO(committed["results/plots/evaluate/answers.csv"])).set_index("exits").loc["all"]
    assert f"{aurocs['value']:.3f} against {aurocs['confidence']:.3f}" in results.replace("\n", " ")
    for page, folder in ((readme, ""), (results, "../")):
        figures = re.findall(r"!\[.*?\]\((.*?)\)", page)
        assert figures
        assert {figure.removeprefix(folder) for figure in figures} <= set(committed)


def test_the_committed_run_shows_what_the_kit_is_for(committed):
    """On test: the demo is learned but for what nobody can tell, TLEE keeps the accuracy, and saves by both axes."""
    methods = json.loads(committed["results/metrics/evaluate.json"])
    latency = json.loads(committed["results/metrics/latency.json"])
    tlee, full = methods["tlee"], methods["full"]
    assert 0.90 <= full["score"] <= 0.95
    assert tlee["score"] >= full["score"] - 0.01
    assert tlee["share_of_full"] <= 0.5
    trace = pd.read_csv(io.BytesIO(committed["results/plots/evaluate/trace.csv"]))
    correct = trace.pivot(index="video", columns="method", values="correct").astype(bool)
    for single in ("temporal", "layer"):
        assert tlee["area"] > methods[single]["area"]
        won, lost = (correct["tlee"] & ~correct[single]).sum(), (correct[single] & ~correct["tlee"]).sum()
        assert not won + lost or binomtest(won, won + lost, alternative="less").pvalue > 0.05  # no worse but by chance
    assert methods["step_by_step_agreement"] == 1.0
    guarantee = json.loads(committed["results/metrics/guarantee.json"])
    assert guarantee["simulated_violation_rate"] <= guarantee["allowed_violation_rate"]
    assert guarantee["test"]["harm"] <= guarantee["max_harm"] / 100
    assert latency["real_to_ideal"] <= 1.5
    assert latency["real_to_full"] < 1


def test_the_five_trainings_show_what_the_kit_is_for(seeds):
    """On test, beyond chance: TLEE is better at equal cost, and cheaper with a limit of five points."""
    runs = read_trainings(seeds).all
    rivals = ["temporal", "layer", "confidence"]
    assert (runs.areas().set_index("method").loc[rivals, "gain_low"] > 0).all()
    losses = runs.losses(5.0).set_index("method")
    assert (losses.loc[rivals, "ratio_high"] < 1).all()
    assert losses.loc["tlee", "loss_low"] <= 5


def test_the_committed_trials_of_kills_and_full_disks_all_ended_well(committed):
    trials = pd.read_csv(io.BytesIO(committed["results/plots/torture.csv"]))
    assert summary(trials) in committed["docs/failures.md"].decode()
    counts = trials.groupby(["stage", "fault"]).size()
    assert all(counts[stage, "kill"] == KILLS and counts[stage, "full disk"] == FULL_DISKS for stage in STAGES)
    assert trials["failure"].isna().all()
    assert trials["lost"].max() <= 1


def test_the_committed_ablation_has_every_variant(committed):
    rows = list(csv.DictReader(io.StringIO(committed["results/plots/ablation/table.csv"].decode())))
    scores, costs = (
        {(row["ablation"], row["variant"]): float(row[column]) for row in rows} for column in ("score", "gmacs")
    )
    assert list(scores) == [(variant.ablation, variant.name) for variant in VARIANTS]
    assert scores["reuse", "max"] > scores["reuse", "none"]
    assert costs["method", "tlee"] < costs["method", "random"] / 2  # which loses too much, wherever it exits
