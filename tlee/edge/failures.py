"""Errors of the runner in the kit's own process, which become those of the kit."""

from collections.abc import Iterator
from contextlib import contextmanager

from tlee.edge.runner import BundleError, RunnerError
from tlee.errors import UserError


@contextmanager
def as_user_errors() -> Iterator[None]:
    """Turn ``RunnerError`` into ``UserError``; a damaged bundle is not copied again here, but exported again."""
    try:
        yield
    except BundleError as error:
        raise UserError(f"{error.problem}: run the same command again, which exports it again") from None
    except RunnerError as error:
        raise UserError(str(error)) from None
