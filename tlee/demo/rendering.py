"""Rendering of a demo clip: place and performer, timing of the action, frames."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL import ImageDraw

from tlee.demo.actions import ACTIONS, Action, Pose, stand
from tlee.demo.clips import ClipSpec
from tlee.demo.difficulty import Difficulty
from tlee.demo.figure import Performer
from tlee.demo.scene import (
    BACKGROUNDS,
    CANVAS,
    MARGIN,
    OVERSAMPLING,
    SIZE,
    Place,
    distractor,
    mix,
    occluder,
    shade,
)

FPS = 12  #: frames per second
FRAMES = 24  #: frames per clip
MAX_DISTANCE = 36  #: longest distance that a figure walks or runs in a clip, in frame pixels
PLACE_VALUE = (0.12, 0.3)  #: range of the background's brightness, 0 to 1
CLOTHES_VALUE = (0.8, 1.0)  #: range of the performer's brightness at full contrast, 0 to 1


def render_clip(spec: ClipSpec) -> np.ndarray:
    """Render a clip; the same clip always has the same pixels, regardless of other clips.

    Returns:
        RGB frames, uint8 ``[FRAMES, SIZE, SIZE, 3]``.
    """
    level, rng = spec.difficulty, spec.rng(spec.clip)
    place, performer = _sample_group(spec)
    performer = _vary_performer(performer, place, rng.uniform(*level.contrast), height=rng.uniform(0.93, 1.07))
    background = place.paint(spec.rng(0, 1))
    facing = int(rng.choice([-1, 1]))
    poses, distances = _animate(ACTIONS[spec.action], level, rng)
    xs = _path(distances * performer.height * facing, rng)
    background_props = [distractor(place, rng) for _ in range(rng.integers(*level.clutter, endpoint=True))]
    foreground_props = [occluder(place, round(xs.mean()), rng)] if rng.random() < level.occluder else []
    camera = np.cumsum(rng.integers(-level.shake, level.shake, (FRAMES, 2), endpoint=True), axis=0)
    corners = MARGIN + np.clip(camera, -MARGIN, MARGIN)

    frames = []
    for frame, (pose, x, (left, top)) in enumerate(zip(poses, xs, corners.tolist(), strict=True)):
        image = background.copy()
        canvas = ImageDraw.Draw(image)
        for prop in background_props:
            prop.draw(canvas, frame)
        performer.draw(canvas, pose, x, place.ground, facing)
        for prop in foreground_props:
            prop.draw(canvas, frame)
        view = image.crop((left, top, left + SIZE * OVERSAMPLING, top + SIZE * OVERSAMPLING))
        frames.append(np.asarray(view.reduce(OVERSAMPLING), dtype=np.int16))
    noise = rng.integers(-level.noise, level.noise, (FRAMES, SIZE, SIZE, 1), dtype=np.int16, endpoint=True)
    return np.clip(np.stack(frames) + noise, 0, 255).astype(np.uint8)


def _sample_group(spec: ClipSpec) -> tuple[Place, Performer]:
    """Draw the place and the performer shared by the clips of a group: bright clothes at a dark place."""
    rng = spec.rng(0)
    hue, value = rng.random(), rng.uniform(*PLACE_VALUE)
    place = Place(
        background=str(rng.choice(BACKGROUNDS)),
        colours=(
            shade(hue, rng.uniform(0.1, 0.5), value),
            shade(hue + rng.uniform(-0.1, 0.1), rng.uniform(0.1, 0.5), value + rng.uniform(-0.1, 0.1)),
        ),
        clutter=shade(rng.random(), rng.uniform(0.2, 0.6), rng.uniform(0.3, 0.55)),
        ground=MARGIN + OVERSAMPLING * int(rng.integers(86, 92)),
        grain=OVERSAMPLING * int(rng.integers(7, 15)),
    )
    clothes = hue + rng.uniform(0.3, 0.7)
    performer = Performer(
        height=OVERSAMPLING * rng.uniform(66, 72),
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


def _animate(action: Action, level: Difficulty, rng: np.random.Generator) -> tuple[list[Pose], np.ndarray]:
    """Return the pose at each frame, and the distance travelled until then in body heights."""
    idle = round(FRAMES * rng.uniform(*level.idle))
    if rng.random() < level.both_ends:
        lead_in = round(idle * rng.uniform(0.4, 0.7))
    else:
        lead_in = idle if rng.random() < level.lead_in else 0
    activity = _activity(lead_in, tail=idle - lead_in)

    step = rng.uniform(*level.speed) / (action.seconds * FPS)
    start = 0.0 if lead_in else rng.random()
    phases = start + step * (np.cumsum(activity) - activity[0])
    sway, vigour = rng.random() + 0.5 * np.arange(FRAMES) / FPS, rng.uniform(*level.vigour)
    turn, fidget = rng.uniform(0.1, 1.0), rng.uniform(0.5, 1.0) * (rng.random() < level.fidget)
    poses = [
        stand(sway_phase, turn, fidget).blend(action.pose(phase), share)
        for sway_phase, phase, share in zip(sway, phases, vigour * activity, strict=True)
    ]
    return poses, action.travel * (phases - start)


def _activity(lead_in: int, tail: int) -> np.ndarray:
    """Return the activity at each frame: 0 while the figure is idle, 1 in action, one half at the transitions."""
    frame = np.arange(FRAMES)
    return np.clip(np.minimum(frame - lead_in + 2, FRAMES - tail + 1 - frame) / 2, 0, 1)


def _path(distances: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the horizontal position at each frame, in canvas pixels: near the middle, and always inside the frame."""
    longest = MAX_DISTANCE * OVERSAMPLING
    path = distances * min(1, longest / max(1, np.ptp(distances)))
    slack = (longest - np.ptp(path)) / 4
    middle = CANVAS / 2 + slack * rng.uniform(-1, 1)
    return middle + path - (path.min() + path.max()) / 2
