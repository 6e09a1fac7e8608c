"""Several runs in one table: means by hand, and intervals over seeds and groups."""

import lzma
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import tlee.__main__ as command_line
from tlee.checksums import sealed_lines
from tlee.errors import UserError
from tlee.evaluation.per_video import LIMITS
from tlee.paper.replicates import Replicates, markdown, read_replicates


def run(split: int = 1, seed: int = 0, groups: str = "aabb", **own: list[float] | float) -> pd.DataFrame:
    """A run with one video per letter of ``groups``; TLEE has the columns ``own``, and the full network all."""
    names = [f"{split}{group}{row}" for row, group in enumerate(groups)]
    videos = pd.DataFrame({"video": names, "group": [f"{split}{group}" for group in groups], "full": True, "area": 1.0})
    for limit in LIMITS:
        videos[[f"correct_{limit:g}", f"share_{limit:g}"]] = True, 1.0
    return pd.concat([videos.assign(method="full"), videos.assign(method="tlee", **own)], ignore_index=True).assign(
        split=split, seed=seed
    )


def replicates(*runs: pd.DataFrame) -> Replicates:
    return Replicates(pd.concat(runs, ignore_index=True))


def write(path: Path, table: pd.DataFrame) -> Path:
    content = sealed_lines(table.to_csv(index=False, lineterminator="\n")).encode()
    path.write_bytes(lzma.compress(content) if path.suffix == ".xz" else content)
    return path


TWO_BY_TWO = [
    run(split, seed, area=area, correct_1=correct, share_1=share)
    for split, seed, area, correct, share in [
        (1, 0, [0.5, 0.7, 0.9, 0.9], [1, 1, 1, 1], 0.5),
        (1, 1, 0.5, [1, 1, 1, 0], 0.3),
        (2, 0, 0.6, [1, 1, 0, 0], 0.1),
        (2, 1, 0.4, [1, 1, 1, 1], [0.1, 0.1, 0.2, 0.4]),
    ]
]


def test_means_of_two_splits_and_two_seeds_by_hand():
    found = replicates(*TWO_BY_TWO)
    assert (found.num_runs, found.num_seeds, found.num_groups) == (4, 2, 4)
    areas = found.areas().set_index("method")
    assert list(areas.index) == ["full", "tlee"]
    assert areas.at["tlee", "area"] == pytest.approx((0.75 + 0.5 + 0.6 + 0.4) / 4)
    assert areas.at["full", "gain"] == pytest.approx(areas.at["tlee", "area"] - 1)
    assert areas.at["tlee", "low"] < areas.at["tlee", "area"] < areas.at["tlee", "high"]
    losses = found.losses(1).set_index("method")
    assert losses.at["tlee", "loss"] == pytest.approx(100 * 3 / 16)
    assert losses.at["tlee", "worst_run"] == pytest.approx(50)
    assert losses.at["tlee", "share"] == losses.at["full", "ratio"] == pytest.approx((0.5 + 0.3 + 0.1 + 0.2) / 4)
    assert losses.at["full", "ratio_low"] < losses.at["full", "ratio"] < losses.at["full", "ratio_high"]
    assert found.losses(2).set_index("method").at["tlee", "loss"] == 0


def test_comparisons_are_paired():
    """A constant gain and ratio have intervals without width, however much both vary."""
    rng = np.random.default_rng(0)
    runs = []
    for split, seed in ((1, 0), (1, 1), (2, 0)):
        table = run(split, seed, "aabbcd")
        area, share = rng.random(6), 1 + rng.random(6)
        for method, gain, ratio in (("full", 0.0, 1.0), ("tlee", 0.125, 0.25)):
            table.loc[table["method"] == method, "area"] = area + gain
            table.loc[table["method"] == method, "share_2"] = share * ratio
        runs.append(table)
    found = replicates(*runs)
    areas, losses = found.areas().set_index("method"), found.losses(2).set_index("method")
    assert areas.loc["full", ["gain", "gain_low", "gain_high"]].tolist() == pytest.approx([0.125] * 3)
    assert areas.at["full", "high"] - areas.at["full", "low"] > 0.1
    assert losses.loc["full", ["ratio", "ratio_low", "ratio_high"]].tolist() == pytest.approx([0.25] * 3)
    assert areas.loc["tlee", ["gain", "gain_low", "gain_high"]].tolist() == [0, 0, 0]
    assert losses.loc["tlee", ["ratio", "ratio_low", "ratio_high"]].tolist() == [1, 1, 1]


def test_a_group_is_drawn_with_all_its_videos_of_every_run():
    """Two groups, with areas 0 and 1: resamples have none, one or both of them, whatever the number of videos."""
    areas = {groups: [float(group == "b") for group in groups] for groups in ("ab", "aaaaabbbbb")}
    for groups, area in areas.items():
        row = (
            replicates(*(run(1, seed, groups, area=area) for seed in range(4))).areas().set_index("method").loc["tlee"]
        )
        assert row[["low", "area", "high"]].tolist() == pytest.approx([0, 0.5, 1])
    alone = [run(1, 0, "abcdefghij", area=areas["aaaaabbbbb"])]
    row = replicates(*alone).areas().set_index("method").loc["tlee"]
    assert 0 < row["low"] < row["area"] < row["high"] < 1  # ten groups say more than two


def test_seeds_are_drawn_too():
    runs = [run(1, seed, "abcdefgh", area=float(seed)) for seed in (0, 1)]
    assert replicates(*runs).areas().set_index("method").loc["tlee", ["low", "high"]].tolist() == [0, 1]
    one = replicates(runs[0].assign(area=0.5))
    assert one.areas()[["low", "high"]].to_numpy().tolist() == [[0.5, 0.5]] * 2


def test_the_tables_in_markdown():
    lines = markdown(replicates(*TWO_BY_TWO)).splitlines()
    assert lines[0].startswith("4 runs, 2 seeds, 4 groups")
    (area,) = [line for line in lines if line.startswith("| TLEE | 56.2 |")]
    assert area.endswith("| +0.0 | +0.0 to +0.0 |")
    limits = [line for line in lines if line.startswith("Expected")]
    assert [f"{limit:g} point" in line for limit, line in zip(LIMITS, limits, strict=True)] == [True] * len(LIMITS)
    (own,) = [line for line in lines if line.startswith("| TLEE | 18.8 |")]
    assert "| 50.0 | 28% | 100% | 100% to 100% |" in own
    (full,) = [line for line in lines if line.startswith("| full network | 0.0 |") and "28%" in line]
    assert "| 0.0 | 100% | 28% |" in full
    tables = [line for line in lines if line.startswith("|")]
    assert len({line.count("|") for line in tables}) == 2  # of two kinds


def test_runs_are_read_by_the_command(tmp_path, capsys):
    files = [write(tmp_path / f"{row}.csv", table) for row, table in enumerate(TWO_BY_TWO)]
    assert len(read_replicates(files)) == 4 * 2 * 4
    compressed = [
        write(path.with_name(f"{path.name}.xz"), table) for path, table in zip(files, TWO_BY_TWO, strict=True)
    ]
    pd.testing.assert_frame_equal(read_replicates(compressed), read_replicates(files))
    command_line.app(["replicates", *map(str, files)], standalone_mode=False)
    assert capsys.readouterr().out == markdown(replicates(*TWO_BY_TWO)) + "\n"


def damaged(path: Path) -> Path:
    path.write_text(write(path, run()).read_text().replace("tlee", "tlea"))
    return path


def truncated(path: Path) -> Path:
    path = path.with_name("bad.csv.xz")
    path.write_bytes(write(path, run()).read_bytes()[:-40])
    return path


@pytest.mark.parametrize(
    ("bad", "parts"),
    [
        (damaged, ("bad.csv", "damaged", "run it again")),
        (truncated, ("bad.csv.xz", "damaged", "run it again")),
        (lambda path: write(path, run()).rename(path.with_name("bad.csv.xz")), ("bad.csv.xz", "damaged")),
        (lambda path: path, ("bad.csv", "cannot be read", "name the file")),
        (lambda path: write(path, run().drop(columns="area")), ("bad.csv", "older kit", "run it again")),
        (lambda path: write(path, run().iloc[:0]), ("bad.csv", "damaged", "run it again")),
        (lambda path: write(path, run()), ("bad.csv", "good.csv", "same split and seed")),
        (lambda path: write(path, run(2).query("method == 'full'")), ("bad.csv", "good.csv", "different methods")),
    ],
)
def test_a_file_that_cannot_be_used_is_named_in_one_line(bad, parts, tmp_path):
    good = write(tmp_path / "good.csv", run())
    with pytest.raises(UserError) as caught:
        read_replicates([good, bad(tmp_path / "bad.csv")])
    assert all(part in str(caught.value) for part in parts)
    assert "\n" not in str(caught.value)


def test_runs_without_the_method_are_refused():
    with pytest.raises(UserError, match=r"`tlee`.*model\.method"):
        replicates(run().query("method == 'full'"))
