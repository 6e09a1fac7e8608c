"""The pipeline in miniature, which prints checksums of what it computes, to be run under different processors.

``python tests/support/bits.py FOLDER`` renders a few clips into the empty ``FOLDER`` and works there.
"""

import contextlib
import hashlib
import json
import os
import sys
import warnings
from pathlib import Path

ROOT = Path(__file__).parents[2]
ACTIONS, GROUPS = ("Bend", "Wave"), (1, 9, 10, 11)  # the first group is for testing
CHANGES = {
    "extract.frames": 3,
    "compute.jobs": 1,
    "pretrain.epochs": 1,
    "pretrain.batch_clips": 4,
    "pretrain.frames": 2,
    "branches.epochs": 1,
    "branches.batch_clips": 4,
    "branches.frames": 2,
    "branches.train_views": 1,
    "gates.epochs": 1,
    "gates.batch_clips": 4,
}


def checksums(folder: Path) -> dict[str, str]:
    """Run the stages up to a policy in ``folder``; return the checksum of each file and number that they made."""
    from tlee.datasets import read_dataset
    from tlee.demo import ClipSpec, write_demo
    from tlee.evaluation.evaluate import load_splits
    from tlee.evaluation.value_iteration import ValueIteration
    from tlee.extraction import extract
    from tlee.features import store_features
    from tlee.params import load_params
    from tlee.paths import FRAMES
    from tlee.training.backbone import pretrain
    from tlee.training.branches import train_branches
    from tlee.training.gates import train_gates

    params = load_params(ROOT / "params.yaml", CHANGES)
    os.chdir(folder)
    write_demo("data", [ClipSpec(action, group, 1) for action in ACTIONS for group in GROUPS], jobs=1)
    for name in ("results/models", "runs"):
        Path(name).mkdir(parents=True)
    extract(read_dataset(params.dataset, params.seed), params.extract, FRAMES)
    histories = [pretrain(params).history]
    branches = train_branches(params)
    store_features(params)
    histories += [branches.history, branches.comparison, train_gates(params).history]
    val, test = load_splits(params)
    policies = ValueIteration(test, params.seed).policies([0.1, 1.0])
    found = {
        "histories": "".join(each.to_csv() for each in histories),
        "policies": repr(policies),
        "costs": repr(val.costs),
    }
    sums = {name: hashlib.md5(text.encode()).hexdigest() for name, text in found.items()}
    for folder in ("data", "results"):  # those in runs/ have random names
        for path in sorted(Path(folder).rglob("*.*")):
            if path.suffix in (".mp4", ".arrow", ".npy", ".safetensors"):
                sums[str(path)] = hashlib.md5(path.read_bytes()).hexdigest()
    return sums


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    warnings.simplefilter("ignore")
    with contextlib.redirect_stdout(sys.stderr):
        found = checksums(Path(sys.argv[1]))
    print(json.dumps(found))
