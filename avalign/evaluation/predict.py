"""Ask a trained model about files: `avalign predict runs/x --image a.jpg --audio b.wav "Where is it?"`."""

from __future__ import annotations

from pathlib import Path

from avalign.errors import AvalignError
from avalign.system.escape import is_text
from avalign.types import Sample


def predict(run: Path, image: Path | None, audio: Path | None, text: str, out: Path | None = None) -> str:
    """The answer of the run's model; a figure of it is written to `out` (answer.png when not given).

    text: the question; "<image>" and "<audio>" are put in front of it where it does not place them itself
    """
    from avalign.media.read import read_audio, read_image
    from avalign.report.figures import draw_answer, must_be_drawable

    if image is None and audio is None:
        raise AvalignError("predict: needs --image or --audio, or both")
    if not text.strip():
        raise AvalignError("predict: the question is empty")
    for modality, file in (("image", image), ("audio", audio)):
        if f"<{modality}>" in text and file is None:
            raise AvalignError(f"predict: the question holds <{modality}>, but no --{modality} is given")
    if not is_text(text):
        raise AvalignError(f"predict: the question is not UTF-8 text: {text!a:.80}")
    out = out or Path("answer.png")
    must_be_drawable(out)
    # Media first: a bad file is named before the model takes its time to load.
    pixels = None if image is None else read_image(image)
    wave, rate = (None, 16_000) if audio is None else read_audio(audio)
    from avalign.export.load import load

    missing = [
        f"<{p}>"
        for p, file in (("image", image), ("audio", audio))
        if file is not None and f"<{p}>" not in text
    ]
    sample = Sample(
        id=", ".join(str(file) for file in (image, audio) if file is not None),
        task="avqa",
        instruction="".join([*missing, text.strip()]),
        response="",
        image=pixels,
        audio=wave,
        sample_rate=rate,
    )
    explained = load(run).explain(sample)
    draw_answer(sample, explained, out)
    return str(explained.answer)
