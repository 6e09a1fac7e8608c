"""Film strips: the frames of a video that the network processed."""

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd
from PIL import Image

from tlee.errors import UserError
from tlee.frames import FrameStore, visiting_order
from tlee.params import Params
from tlee.paths import FRAMES


class Strip(NamedTuple):
    """Arguments of ``figures.evaluation.film_strip``."""

    pictures: Sequence[Image.Image]  #: all ``T`` frames in temporal order
    visits: dict[int, tuple[int, int]]  #: position in time -> place in the visiting order (from 1), depth of the exit
    title: str


def strip(
    pictures: Sequence[Image.Image],
    order: Sequence[int],
    exit_depths: Sequence[int],
    finding: str,
    confidence: float,
    share: float,
) -> Strip:
    """Return the strip of one video under any policy.

    ``pictures`` are its ``T`` frames in temporal order, ``order`` is their visiting order, and ``exit_depths`` are the
    depths at which the first of these exited. The title gives ``finding``, such as the predicted class, its
    ``confidence`` (0..1), and the ``share`` of the full network's cost (0..1).
    """
    visits = {order[t]: (t + 1, depth) for t, depth in enumerate(exit_depths)}
    title = (
        f"{finding} (confidence {confidence:.2f}) after {len(exit_depths)} of {len(order)} frames, "
        f"{share:.0%} of the full network's GMACs"
    )
    return Strip(pictures, visits, title)


def strips_of(examples: pd.DataFrame, params: Params) -> dict[str, Strip]:
    """Return the strips of test videos by name, from rows of a trace (see ``explain.pick_examples``).

    Raises ``UserError`` if the frame store does not contain these videos.
    """
    path = FRAMES / "test"
    store, strips = FrameStore(path), {}
    order = visiting_order(store.num_steps, params.model.order)
    for row in examples.itertuples():
        if row.row >= len(store) or store.videos[row.row] != row.video:
            raise UserError(f"{path} contains other videos than the evaluation: run `dvc repro evaluate`")
        pictures, depths = store.pictures(row.row, sorted(order)), [int(depth) for depth in row.exit_depths.split()]
        strips[row.name] = strip(pictures, order, depths, row.finding, row.confidence, row.share_of_full)
    return strips
