"""Rendering of a demo clip: place and performer, poses along the timeline, frames."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from PIL import ImageDraw

from tlee.demo.actions import ACTIONS, Pose, common_pose, pair_of, stand
from tlee.demo.clips import FRAMES, ClipSpec
from tlee.demo.difficulty import CLUTTER, CONTRAST, FIDGET, MISLEADING, NOISE, SHAKE, SIGN_RADIUS, SPEED, VIGOUR, Moment
from tlee.demo.figure import Performer, Pixel
from tlee.demo.scene import (
    BACKGROUNDS,
    CANVAS,
    MARGIN,
    OVERSAMPLING,
    SIZE,
    Place,
    board,
    distractor,
    mix,
    shade,
)
from tlee.demo.sign import Sign, Symbol

FPS = 12  #: frames per second
MAX_DISTANCE = 8  #: longest distance that a figure moves in a clip, in frame pixels
SIGN_EDGE = 24  #: least distance of the sign's centre from the edge of the frame, in frame pixels
PLACE_VALUE = (0.12, 0.3)  #: range of the background's brightness, 0 to 1
CLOTHES_VALUE = (0.8, 1.0)  #: range of the performer's brightness at full contrast, 0 to 1


@dataclass(frozen=True)
class Shot:
    """Content of one frame: a pose, the symbol on the sign (None: no sign), and whether a board covers the figure."""

    pose: Pose
    symbol: Symbol | None = None
    hidden: bool = False


def render_clip(spec: ClipSpec, action: str | None = None) -> np.ndarray:
    """Render a clip; the same clip always has the same pixels, regardless of other clips.

    Args:
        spec: the clip.
        action: another action of the same pair that is shown instead, with everything else unchanged.

    Returns:
        RGB frames, uint8 ``[FRAMES, SIZE, SIZE, 3]``.
    """
    rng = spec.rng(spec.clip)
    place, performer = scene_of(spec)
    performer = _vary_performer(performer, place, rng.uniform(*CONTRAST), height=rng.uniform(0.93, 1.07))
    background = place.paint(spec.shared_rng(spec.clip, 1))
    facing = int(rng.choice([-1, 1]))
    sign = Sign(round(OVERSAMPLING * rng.uniform(*SIGN_RADIUS)))
    shots = _shots(action or spec.action, spec, rng)
    xs = _path(rng)
    props = [distractor(place, rng) for _ in range(rng.integers(*CLUTTER, endpoint=True))]
    cover = board(place, round(xs.mean()), rng)
    camera = np.cumsum(rng.integers(-SHAKE, SHAKE, (FRAMES, 2), endpoint=True), axis=0)
    corners = MARGIN + np.clip(camera, -MARGIN, MARGIN)

    frames = []
    for frame, (shot, x, (left, top)) in enumerate(zip(shots, xs, corners.tolist(), strict=True)):
        image = background.copy()
        canvas = ImageDraw.Draw(image)
        for prop in props:
            prop.draw(canvas, frame)
        hand = performer.draw(canvas, shot.pose, x, place.ground, facing)
        if shot.symbol:
            sign.draw(canvas, _inside(hand), shot.symbol)
        if shot.hidden:
            cover.draw(canvas, frame)
        view = image.crop((left, top, left + SIZE * OVERSAMPLING, top + SIZE * OVERSAMPLING))
        frames.append(np.asarray(view.reduce(OVERSAMPLING), dtype=np.int16))
    noise = rng.integers(-NOISE, NOISE, (FRAMES, SIZE, SIZE, 1), dtype=np.int16, endpoint=True)
    return np.clip(np.stack(frames) + noise, 0, 255).astype(np.uint8)


def scene_of(spec: ClipSpec) -> tuple[Place, Performer]:
    """Draw the place of a clip and the performer of its group: bright clothes at a dark place.

    Both are the same for all actions, so that neither tells the class.
    """
    rng = spec.shared_rng(spec.clip)
    hue, value = rng.random(), rng.uniform(*PLACE_VALUE)
    place = Place(
        background=str(rng.choice(BACKGROUNDS)),
        colours=(
            shade(hue, rng.uniform(0.1, 0.5), value),
            shade(hue + rng.uniform(-0.1, 0.1), rng.uniform(0.1, 0.5), value + rng.uniform(-0.1, 0.1)),
        ),
        clutter=shade(rng.random(), rng.uniform(0.2, 0.6), rng.uniform(0.3, 0.55)),
        ground=MARGIN + OVERSAMPLING * int(rng.integers(82, 86)),
        grain=OVERSAMPLING * int(rng.integers(7, 15)),
    )
    rng = spec.shared_rng(0)
    clothes = rng.random()
    performer = Performer(
        height=OVERSAMPLING * rng.uniform(62, 67),
        trunk=rng.uniform(0.29, 0.32),
        arm=rng.uniform(0.38, 0.43),
        leg=rng.uniform(0.47, 0.51),
        breadth=rng.uniform(0.09, 0.115),
        thickness=rng.uniform(0.085, 0.105),
        head=rng.uniform(0.07, 0.085),
        shirt=shade(clothes, rng.uniform(0.2, 0.8), rng.uniform(*CLOTHES_VALUE)),
        trousers=shade(clothes + rng.uniform(-0.2, 0.2), rng.uniform(0.2, 0.8), rng.uniform(*CLOTHES_VALUE)),
        skin=shade(rng.uniform(0.03, 0.1), rng.uniform(0.3, 0.6), rng.uniform(*CLOTHES_VALUE)),
    )
    return place, performer


def _vary_performer(performer: Performer, place: Place, contrast: float, height: float) -> Performer:
    """Scale the performer's height and reduce its contrast with the background."""
    return replace(
        performer,
        height=performer.height * height,
        shirt=mix(place.tone, performer.shirt, contrast),
        trousers=mix(place.tone, performer.trousers, contrast),
        skin=mix(place.tone, performer.skin, contrast),
    )


def _shots(action: str, spec: ClipSpec, rng: np.random.Generator) -> list[Shot]:
    """Return the content of each frame; the draws, and all but the frames with the cue, are the same for a pair."""
    speed, vigour, hint = (rng.uniform(*limits) for limits in (SPEED, VIGOUR, MISLEADING))
    turn, fidget = rng.uniform(0.1, 1.0), rng.uniform(0.5, 1.0) * (rng.random() < FIDGET)
    start, pair = rng.random(), pair_of(action)
    symbol: Symbol = ("ring", "cross")[pair.index(action)]
    others = [name for name in ACTIONS if spec.difficulty.cue == "none" or name not in pair]
    misleading = others[int(rng.integers(len(others)))]

    def shot(frame: int, moment: Moment) -> Shot:
        idle = stand(start + 0.5 * frame / FPS, turn, fidget)

        def progress(*names: str) -> float:
            return start + speed * frame / FPS * len(names) / sum(ACTIONS[name].seconds for name in names)

        if moment == "common" or (moment == "cue" and spec.difficulty.cue == "fine"):
            pose = idle.blend(common_pose(pair, progress(*pair)), vigour)
            return Shot(pose, symbol if moment == "cue" else "disc")
        if moment == "cue":
            return Shot(idle.blend(ACTIONS[action].telling_pose(progress(action)), vigour))
        if moment == "misleading":
            return Shot(idle.blend(ACTIONS[misleading].telling_pose(progress(misleading)), hint))
        return Shot(idle, hidden=moment == "hidden")

    return [shot(frame, moment) for frame, moment in enumerate(spec.timeline)]


def _path(rng: np.random.Generator) -> np.ndarray:
    """Return the horizontal position at each frame, in canvas pixels: near the middle, drifting whatever the action."""
    distance = OVERSAMPLING * MAX_DISTANCE * rng.uniform(-1, 1)
    middle = CANVAS / 2 + OVERSAMPLING * rng.uniform(-3, 3)
    return middle + distance * np.linspace(-0.5, 0.5, FRAMES)


def _inside(hand: Pixel) -> Pixel:
    """Return the centre of the sign in a hand: the nearest pixel that is not too close to the edge of the frame."""
    near, far = MARGIN + OVERSAMPLING * SIGN_EDGE, MARGIN + OVERSAMPLING * (SIZE - SIGN_EDGE)
    x, y = (min(max(value, near), far) for value in hand)
    return x, y
