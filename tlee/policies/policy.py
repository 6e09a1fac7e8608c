"""What a policy sees, and what it is."""

from functools import cached_property

import torch

from tlee.costs import Costs
from tlee.model import Readout


class Look:
    """The exit ``(t, b)`` of some videos as a policy sees it; what it does not ask for is not run.

    ``current [n, D]`` is ``z_tb``, ``past [n, D]`` is ``z`` before this frame, none at the first. ``memory [n, M]`` is
    what the policy has noted of these videos, and may change. Logits are divided by ``temperature``.
    """

    def __init__(
        self,
        readout: Readout,
        current: torch.Tensor,
        past: torch.Tensor | None,
        t: int,
        b: int,
        frames: int,
        memory: torch.Tensor | None = None,
        temperature: float = 1.0,
    ):
        self.readout, self.current, self.past = readout, current, past
        self.t, self.b, self.frames = t, b, frames
        self.memory, self._temperature = memory, temperature

    @property
    def videos(self) -> int:
        """``n``"""
        return len(self.current)

    @cached_property
    def logits(self) -> torch.Tensor:
        """``[n, C]``"""
        return self.readout.classify(self.current, self.t) / self._temperature

    @cached_property
    def probabilities(self) -> torch.Tensor:
        """``[n, C]``"""
        return self.readout.probabilities(self.logits)

    @cached_property
    def confidence(self) -> torch.Tensor:
        """Largest probability of a class, ``[n]``."""
        return self.probabilities.amax(1)

    @cached_property
    def gate_score(self) -> torch.Tensor:
        """Probability that the gate gives to stopping, ``[n]``."""
        return self.readout.gate(self.current, self.past, self.t).sigmoid()

    @property
    def last_frame(self) -> bool:
        return self.t == self.frames - 1

    @property
    def classified(self) -> bool:
        """Whether the classifier has been asked for."""
        return not self.__dict__.keys().isdisjoint(("logits", "probabilities", "confidence"))

    def macs(self, costs: Costs) -> int:
        """Of the parts of the readout that have been asked for, for each video."""
        return costs.classifier * self.classified + costs.gate * ("gate_score" in self.__dict__)


class SharedLook(Look):
    """Some videos of a look that several policies take at once: what one of them asks for is computed once for all."""

    def __init__(self, whole: Look, rows: torch.Tensor, memory: torch.Tensor):
        self._whole, self._rows = whole, rows
        self.readout, self.t, self.b, self.frames = whole.readout, whole.t, whole.b, whole.frames
        self.memory = memory

    @property
    def videos(self) -> int:
        return len(self._rows)

    @cached_property
    def current(self) -> torch.Tensor:
        return self._whole.current[self._rows]

    @cached_property
    def past(self) -> torch.Tensor | None:
        return None if self._whole.past is None else self._whole.past[self._rows]

    @cached_property
    def logits(self) -> torch.Tensor:
        return self._whole.logits[self._rows]

    @cached_property
    def probabilities(self) -> torch.Tensor:
        return self._whole.probabilities[self._rows]

    @cached_property
    def confidence(self) -> torch.Tensor:
        return self._whole.confidence[self._rows]

    @cached_property
    def gate_score(self) -> torch.Tensor:
        return self._whole.gate_score[self._rows]


class Policy:
    """Decides at the exits of a network with ``B + 1`` depths and ``T`` frames."""

    def looks(self, t: int, b: int, frames: int) -> bool:
        """Whether anything can be decided at ``(t, b)``; if not, the head there is not run."""
        raise NotImplementedError

    def stop_video(self, look: Look) -> torch.Tensor:
        """For ``t < T - 1``: booleans ``[n]``."""
        raise NotImplementedError

    def leave_frame(self, look: Look) -> torch.Tensor:
        """For ``b < B``: booleans ``[n]``. At the last frame this stops the video."""
        raise NotImplementedError

    def memory(self, classes: int) -> int:
        """``M``, how many numbers it notes of a video; they begin as zeros."""
        return 0

    def observe(self, look: Look) -> None:
        """Called once at each exit it looks at, before it decides: the place to change ``look.memory``."""

    def answer(self, look: Look) -> torch.Tensor:
        """The logits ``[n, C]`` that it answers with if the video stops here."""
        return look.logits

    def exits_in_use(self) -> int:
        """How many kinds of exits it looks at; of two that cost the same the one with fewer is the simpler."""
        return 0
