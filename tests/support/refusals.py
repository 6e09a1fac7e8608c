"""What the kit says to a user whose input it refuses."""

from collections.abc import Callable

import pytest

from tlee.errors import UserError


def one_line(attempt: Callable[[], object]) -> str:
    """The message of the ``UserError`` that ``attempt`` raises, which must be a single line."""
    with pytest.raises(UserError) as caught:
        attempt()
    message = str(caught.value)
    assert "\n" not in message
    return message
