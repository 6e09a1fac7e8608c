"""What several test files share."""

import gc
import os
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

os.environ["DVC_NO_ANALYTICS"] = "true"  # projects of tests have settings of their own
sys.modules.setdefault("rfc3987_syntax", None)  # nbformat would spend a second to import it, as in tlee._papermill

ROOT = Path(__file__).parents[1]
SLOWEST = ("test_pipeline.py", "test_recipes.py")  #: begin first, so that no core waits for them in the end


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in SLOWEST)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Spare the garbage collector what is imported, which lives until the end.

    That is a quarter of the time of collecting, and a tenth of that of small tests.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's root."""
    return ROOT


@pytest.fixture
def five_layer_backbone() -> Iterator[None]:
    """To the test `resnet18` is a backbone of five layers."""
    from support.small import in_place_of_resnet18

    with in_place_of_resnet18():
        yield
