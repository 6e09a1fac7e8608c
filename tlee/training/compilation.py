"""Training steps compiled by ``torch.compile``: faster in long trainings, after some minutes of compilation."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch._dynamo.exc import TorchDynamoException

from tlee.errors import UserError

#: Dropout draws the numbers that it would draw otherwise, so that compiled steps differ by rounding alone.
_OPTIONS: dict[str, str | int | bool] = {"fallback_random": True}


def compile_steps(task: nn.Module) -> None:
    """Let ``task`` be compiled at its first step; since all batches of a training have one shape, it is so once."""
    task.compile(dynamic=False, options=_OPTIONS)


@contextmanager
def compiler_errors_in_one_line() -> Iterator[None]:
    """Raise ``UserError`` if steps cannot be compiled, for want of a compiler above all."""
    try:
        yield
    except TorchDynamoException as error:
        reason = str(error).splitlines()[0]
        remedy = "install a C++ compiler, such as g++, or set this stage's `compile` to false"
        raise UserError(f"the training steps cannot be compiled ({reason}): {remedy}") from None
