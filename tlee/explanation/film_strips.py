"""Film strips: which frames of a video the network looked at."""

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd
from PIL import Image

from tlee.errors import UserError
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


def strips_of(examples: pd.DataFrame, params: Params) -> dict[str, Strip]:
    """The strips of test videos by name, from rows of a trace (see ``explanation.pick_examples``).

    Raises ``UserError`` if the frame store does not hold these videos.
    """
    path = FRAMES / "test.arrow"
    store, strips = FrameStore(path), {}
    order = visiting_order(store.steps, params.model.order)
    for row in examples.itertuples():
        if row.row >= len(store) or store.videos[row.row] != row.video:
            raise UserError(f"{path} holds other videos than were evaluated: run `dvc repro evaluate`")
        pictures, exits = store.pictures(row.row, sorted(order)), [int(depth) for depth in row.exits.split()]
        strips[row.name] = strip(pictures, order, exits, row.finding, row.confidence, row.share_of_full)
    return strips
