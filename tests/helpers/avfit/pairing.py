"""What the tests beside each other share."""

from __future__ import annotations

from tests.helpers.avfit.pairs import World, picture, recording

LEFT, RIGHT, BELOW = (0.0, 0.0, 0.4, 0.5), (0.6, 0.0, 1.0, 0.5), (0.3, 0.6, 0.7, 1.0)


def dogs(images: int, recordings: int, **more: object) -> World:
    """Every pair of these is sure."""
    return World(
        {f"p{n}": picture(f"p{n}", ("dog", LEFT)) for n in range(images)},
        {f"r{n}": recording(f"r{n}", ("dog", (1.0, 2.0))) for n in range(recordings)},
    )
