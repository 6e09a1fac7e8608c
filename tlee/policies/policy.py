"""The interface of policies, and the observations by which they decide."""

from functools import cached_property

import torch

from tlee.costs import Costs
from tlee.readout import Accumulated, Readout


class ExitScores:
    """Scores of the exit ``(t, b)`` for ``n`` videos, each computed for all of them when first requested.

    ``current`` is ``z_tb``, ``past`` the state that the gate compares it with. Logits are divided by ``temperature``.
    """

    def __init__(
        self,
        readout: Readout,
        current: Accumulated,
        past: Accumulated,
        t: int,
        b: int,
        temperature: float = 1.0,
    ):
        self.readout, self.current, self.past = readout, current, past
        self.t, self.b, self._temperature = t, b, temperature

    @cached_property
    def logits(self) -> torch.Tensor:
        """``[n, C]``"""
        return self.readout.classify(self.current.z, self.t) / self._temperature

    @cached_property
    def probabilities(self) -> torch.Tensor:
        """``[n, C]``"""
        return self.readout.probabilities(self.logits)

    @cached_property
    def confidence(self) -> torch.Tensor:
        """Largest class probability, ``[n]``."""
        return self.probabilities.amax(1)

    @cached_property
    def gate(self) -> torch.Tensor:
        """Probability that the gate assigns to stopping, ``[n]``."""
        return self.readout.gate(self.current.z, self.past.z, self.t).sigmoid()


class Observation:
    """The exit ``(t, b)`` of some videos as a policy sees it: a view of the ``rows [n]`` of ``scores``.

    Several policies may observe the same exit at once; a score that one of them requests is computed once for all.
    Each observation records what was requested through it, and that is what its policy is charged for.
    ``memory [n, M]`` is what the policy has noted of these videos, and may change. ``decisions`` is what it has
    computed here for both of its decisions, None if nothing.
    """

    def __init__(self, scores: ExitScores, rows: torch.Tensor, num_frames: int, memory: torch.Tensor):
        self._scores, self._rows = scores, rows
        self.readout, self.t, self.b, self.num_frames = scores.readout, scores.t, scores.b, num_frames
        self.memory = memory
        self.decisions: torch.Tensor | None = None
        self.classified = False  #: the classifier has been requested
        self.gated = False  #: the gate has been requested

    @property
    def num_videos(self) -> int:
        """``n``"""
        return len(self._rows)

    @cached_property
    def logits(self) -> torch.Tensor:
        """``[n, C]``"""
        self.classified = True
        return self._scores.logits[self._rows]

    @cached_property
    def probabilities(self) -> torch.Tensor:
        """``[n, C]``"""
        self.classified = True
        return self._scores.probabilities[self._rows]

    @cached_property
    def confidence(self) -> torch.Tensor:
        """Largest class probability, ``[n]``."""
        self.classified = True
        return self._scores.confidence[self._rows]

    @cached_property
    def gate_score(self) -> torch.Tensor:
        """Probability that the gate assigns to stopping, ``[n]``; there is none at the first frame."""
        self.gated = True
        return self._scores.gate[self._rows]

    @property
    def last_frame(self) -> bool:
        """True at step ``T - 1``."""
        return self.t == self.num_frames - 1

    def macs(self, costs: Costs) -> float:
        """Cost per video of the scores that have been requested."""
        return costs.classifier * self.classified + costs.gate * self.gated

    def take(self, mask: torch.Tensor) -> "Observation":
        """Select videos by mask, with their memory; an observation of its own, of which nothing is requested yet."""
        return Observation(self._scores, self._rows[mask], self.num_frames, self.memory[mask])


class Policy:
    """Decides at the exits of a network with ``B + 1`` depths and ``T`` frames."""

    def uses_exit(self, t: int, b: int, frames: int) -> bool:
        """True if anything can be decided at ``(t, b)``; if not, the head there is not run."""
        raise NotImplementedError

    def stop_video(self, seen: Observation) -> torch.Tensor:
        """Decide for ``t < T - 1`` which videos stop: booleans ``[n]``."""
        raise NotImplementedError

    def leave_frame(self, seen: Observation) -> torch.Tensor:
        """Decide for ``b < B`` which videos leave the frame: booleans ``[n]``. The last frame left stops the video."""
        raise NotImplementedError

    def memory(self, classes: int) -> int:
        """``M``, the number of values noted per video; they start as zeros."""
        return 0

    def observe(self, seen: Observation) -> None:
        """Update ``seen.memory``; called once at each exit in use, before the decisions."""

    def macs(self, seen: Observation) -> float:
        """Return the multiply-accumulates per video of the policy's own arithmetic at an exit."""
        return 0

    def answer(self, seen: Observation) -> torch.Tensor:
        """Return the logits ``[n, C]`` of videos that stop here."""
        return seen.logits

    def num_exits_used(self) -> int:
        """Number of kinds of exits in use; of two policies of the same cost the one with fewer is the simpler."""
        return 0


def evaluates(policy: Policy, readout: Readout, t: int, b: int, frames: int) -> bool:
    """True if the exit ``(t, b)`` is evaluated: where the policy uses it.

    Where the first exit of the last frame ends the video, it uses the exits of that frame as those of the frame before.
    """
    return policy.uses_exit(t - 1 if readout.first_exit_ends(t, frames) else t, b, frames)
