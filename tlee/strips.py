"""Film strips: which frames of a video the network looked at."""

from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image

from tlee.evaluation import Evaluation
from tlee.frames import FrameStore, visiting_order
from tlee.params import Params
from tlee.paths import FRAMES


class Strip(NamedTuple):
    """What ``figures.evaluation.film_strip`` draws."""

    pictures: Sequence[Image.Image]  #: all ``T`` frames in temporal order
    visits: dict[int, tuple[int, str]]  #: position in time -> when it was visited (from 1), exit taken
    title: str


def strip(
    pictures: Sequence[Image.Image],
    order: Sequence[int],
    exits: Sequence[int],
    finding: str,
    confidence: float,
    share: float,
) -> Strip:
    """The strip of one video, whatever policy looked at it.

    ``pictures`` are its ``T`` frames in temporal order, ``order`` that in which they are visited; ``exits`` are the
    depths at which the first of these were left. The title says ``finding``, such as the class that was found, with
    which ``confidence`` it was, and which ``share`` of the full network's cost it took.
    """
    visits = {order[t]: (t + 1, f"depth {depth}") for t, depth in enumerate(exits)}
    title = (
        f"{finding}, {confidence:.2f} sure, after {len(exits)} of {len(order)} frames, "
        f"{share:.0%} of the full network's GMACs"
    )
    return Strip(pictures, visits, title)


def easy_and_hard(evaluation: Evaluation, params: Params) -> dict[str, Strip]:
    """The cheapest and the dearest test video that the method gets right; where there is none, of all."""
    trace = evaluation.trace(evaluation.method).sort_values(["gmacs", "confidence"], ascending=[True, False])
    right = trace[trace["right"]] if trace["right"].any() else trace
    store = FrameStore(FRAMES / "test.arrow")
    full = evaluation.table.set_index("method").at["full", "gmacs"]
    order = visiting_order(params.extract.frames, params.model.order)
    return {
        name: strip(
            store.pictures(row.name, sorted(order)),
            order,
            [int(depth) for depth in row["exits"].split()],
            f"{row['truth']}: {'right' if row['right'] else 'wrong'}",
            row["confidence"],
            row["gmacs"] / full,
        )
        for name, row in (("easy", right.iloc[0]), ("hard", right.iloc[-1]))
    }
