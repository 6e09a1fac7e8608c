"""Error messages: a single line that names the file or parameter and the remedy."""

from collections.abc import Callable

import pytest

from tlee.errors import UserError


def one_line(attempt: Callable[[], object], *expected: object, error: type[Exception] = UserError) -> str:
    """Return the message of the ``error`` that ``attempt`` raises, which must be a single line.

    ``expected`` are parts that the message must contain: the file or parameter at fault, the values, the remedy.
    """
    with pytest.raises(error) as caught:
        attempt()
    message = str(caught.value)
    assert "\n" not in message
    missing = [str(part) for part in expected if str(part) not in message]
    assert not missing, f"{message!r} lacks {missing}"
    return message
