"""Film strips: which frames of a video the network looked at."""

from typing import NamedTuple

from PIL import Image

from tlee.evaluation import Evaluation
from tlee.frames import FrameStore, visiting_order
from tlee.params import Params
from tlee.paths import FRAMES


class Strip(NamedTuple):
    """What ``figures.evaluation.film_strip`` draws."""

    pictures: list[Image.Image]  #: all ``T`` frames in temporal order
    visits: dict[int, tuple[int, str]]  #: position in time -> when it was visited (from 1), exit taken
    title: str


def easy_and_hard(evaluation: Evaluation, params: Params) -> dict[str, Strip]:
    """The cheapest and the dearest test video that the method gets right; where there is none, of all."""
    trace = evaluation.trace(evaluation.method).sort_values(["gmacs", "confidence"], ascending=[True, False])
    right = trace[trace["right"]] if trace["right"].any() else trace
    store = FrameStore(FRAMES / "test.arrow")
    full = evaluation.table.set_index("method").at["full", "gmacs"]
    order = visiting_order(params.extract.frames, params.model.order)
    strips = {}
    for name, row in (("easy", right.iloc[0]), ("hard", right.iloc[-1])):
        depths = [int(depth) for depth in row["exits"].split()]
        visits = {order[t]: (t + 1, f"depth {depth}") for t, depth in enumerate(depths)}
        verdict = "right" if row["right"] else "wrong"
        title = (
            f"{row['truth']}: {verdict}, {row['confidence']:.2f} sure, after {row['frames']} of {len(order)} "
            f"frames, {row['gmacs'] / full:.0%} of the full network's GMACs"
        )
        strips[name] = Strip(store.pictures(row.name, sorted(order)), visits, title)
    return strips
