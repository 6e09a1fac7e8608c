"""Performer of the demo clips: a stick figure with a head, a trunk and two-part arms and legs."""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, radians, sin

from PIL.ImageDraw import ImageDraw

from tlee.demo.actions import Pose

Colour = tuple[int, int, int]
Point = tuple[float, float]
Pixel = tuple[int, int]

FAR_SHADE = 0.7  # far limbs are darker, so that crossing limbs are distinguishable


@dataclass(frozen=True)
class Performer:
    """Size, proportions and clothes of a figure; all lengths except the height are in body heights."""

    height: float  #: body height in canvas pixels
    trunk: float
    arm: float
    leg: float
    breadth: float  #: distance from the middle to a shoulder, seen from the front
    thickness: float  #: width of a limb
    head: float  #: radius of the head
    shirt: Colour
    trousers: Colour
    skin: Colour

    def draw(self, canvas: ImageDraw, pose: Pose, x: float, ground: float, facing: int) -> Pixel:
        """Draw the figure and return the pixel of its near hand.

        Args:
            canvas: image to draw on.
            pose: joint angles; the lower foot stands on the ground, or ``pose.lift`` above it.
            x: horizontal position of the hips in canvas pixels.
            ground: vertical position of the ground in canvas pixels.
            facing: 1 if the figure faces right, -1 if left.
        """
        near_leg = _limb(pose.near_leg, pose.near_leg - pose.near_knee, self.leg)
        far_leg = _limb(pose.far_leg, pose.far_leg - pose.far_knee, self.leg)
        near_arm = _limb(pose.near_arm, pose.near_arm + pose.near_elbow, self.arm)
        far_arm = _limb(pose.far_arm, pose.far_arm + pose.far_elbow, self.arm)
        hips = (0.0, -pose.lift - max(near_leg[-1][1], far_leg[-1][1]))
        shoulders = _step(hips, 180 - pose.trunk, self.trunk)
        head = _step(hips, 180 - pose.trunk, self.trunk + 1.6 * self.head)
        shoulder, hip = pose.turn * self.breadth, 0.6 * pose.turn * self.breadth

        def stroke(points: list[Point], start: Point, thickness: float, colour: Colour) -> Pixel:
            pixels = [
                (
                    round(x + facing * (start[0] + dx) * self.height),
                    round(ground + (start[1] + dy) * self.height),
                )
                for dx, dy in points
            ]
            _thick_line(canvas, pixels, max(1, round(thickness * self.height)), colour)
            return pixels[-1]

        limb = self.thickness
        stroke(far_arm, (shoulders[0] - shoulder, shoulders[1]), 0.9 * limb, _darker(self.skin))
        stroke(far_leg, (hips[0] - hip, hips[1]), limb, _darker(self.trousers))
        stroke([hips, shoulders], (0, 0), 1.5 * limb + 1.2 * shoulder, self.shirt)
        stroke([head], (0, 0), 2 * self.head, self.skin)
        stroke(near_leg, (hips[0] + hip, hips[1]), limb, self.trousers)
        return stroke(near_arm, (shoulders[0] + shoulder, shoulders[1]), 0.9 * limb, self.skin)


def _step(start: Point, angle: float, length: float) -> Point:
    """Return the point at a distance from ``start``; angle in degrees, 0 is down and positive to the front."""
    return start[0] + length * sin(radians(angle)), start[1] + length * cos(radians(angle))


def _limb(upper: float, lower: float, length: float) -> list[Point]:
    """Return the ends and the joint of a limb of two equal parts that starts at the origin."""
    joint = _step((0.0, 0.0), upper, length / 2)
    return [(0.0, 0.0), joint, _step(joint, lower, length / 2)]


def _darker(colour: Colour) -> Colour:
    red, green, blue = (round(FAR_SHADE * channel) for channel in colour)
    return red, green, blue


def _thick_line(canvas: ImageDraw, points: list[Pixel], width: int, colour: Colour) -> None:
    """Draw a line with round joints and ends; a single point gives a disc."""
    if len(points) > 1:
        canvas.line(points, fill=colour, width=width)
    for x, y in points:
        canvas.ellipse((x - width // 2, y - width // 2, x + width // 2, y + width // 2), fill=colour)
