"""What the tests of the data sets share: reading one by its parameters, and small annotation files."""

from pathlib import Path

import pytest

from tlee.datasets import Dataset, read_dataset
from tlee.errors import UserError
from tlee.params import DatasetParams

OFFICIAL = next(
    (folder for folder in (place / "shared/annotations" for place in Path(__file__).parents) if folder.is_dir()),
    Path("not here"),
)


def read(name: str, root: Path, *, seed: int = 0, **knobs) -> Dataset:
    """Read the data set ``name`` below ``root``; ``knobs`` differ from half of the training groups in ``val``."""
    defaults = {"split": 1, "folds": 2, "group": None, "val_share": 0.5, "labels": "single"}
    return read_dataset(DatasetParams(name=name, root=str(root), **(defaults | knobs)), seed)


def refusal(name: str, root: Path, **knobs) -> str:
    """The one line with which the data set is refused."""
    with pytest.raises(UserError) as caught:
        read(name, root, **knobs)
    message = str(caught.value)
    assert "\n" not in message
    return message


def lay_out(root: Path, files: dict[str, str]) -> Path:
    """Write ``files``, text by path, below ``root``."""
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def rows(dataset: Dataset, *columns: str) -> list[tuple]:
    """Some columns of the manifest, with ``val`` given back to ``train``."""
    manifest = dataset.manifest.assign(split=dataset.manifest["split"].replace("val", "train"))
    return list(manifest[list(columns)].itertuples(index=False, name=None))
