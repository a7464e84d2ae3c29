"""Settings of the runs that are exported."""

from __future__ import annotations

LEARN = ["audio_connector", "audio_projector", "fusion", "image_connector", "image_projector", "llm"]


STEPS = f"train.stages=[{{name: only, steps: 2, train: [{', '.join(LEARN)}]}}]"
