"""What several test files share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's root."""
    return ROOT


@pytest.fixture
def five_layer_backbone() -> Iterator[None]:
    """To the test `resnet18` is a backbone of five layers."""
    from small import in_place_of_resnet18

    with in_place_of_resnet18():
        yield
