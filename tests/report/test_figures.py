"""The picture of an answer: every part at its place, and nothing drawn that was not given."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from avalign.media.read import read_image
from avalign.report.figures import STYLES, draw_answer, draw_prediction, draw_samples, spectrogram
from avalign.types import Sample

GREY = np.full((20, 30, 3), 128, np.uint8)
RATE = 16_000
TONE = np.concatenate([np.zeros(RATE), np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE)]).astype(np.float32)


def near(path, colour, tolerance=12):
    """(n, 2) places, x and y in 0..1 of the picture, of the pixels of a colour."""
    pixels = read_image(path).astype(int)
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    y, x = np.nonzero((np.abs(pixels - wanted) <= tolerance).all(-1))
    return np.stack([x / pixels.shape[1], y / pixels.shape[0]], 1)


def explanation(answer):
    return SimpleNamespace(
        answer=answer,
        image_map=np.eye(4) / 4,
        audio_map=np.array([0.9, 0.1]),
        audio_times=np.array([[0.0, 1.0], [1.0, 2.0]]),
    )


def test_all_parts_at_once(tmp_path):
    path = draw_prediction(
        GREY,
        TONE,
        RATE,
        predicted_box=(0.1, 0.2, 0.5, 0.8),
        true_boxes=[(0.2, 0.2, 0.6, 0.8)],
        predicted_interval=(1.0, 2.0),
        true_intervals=[(0.9, 1.9)],
        asked_boxes=[(0.0, 0.0, 0.3, 0.3)],
        asked_intervals=[(0.0, 0.5)],
        image_map=np.eye(4) / 4,
        audio_map=np.array([0.1, 0.9]),
        audio_times=np.array([[0.0, 1.0], [1.0, 2.0]]),
        title="Q: where? costs $5 & more",
        path=tmp_path / "deep" / "all.png",
    )
    assert path == tmp_path / "deep" / "all.png"
    for name, (colour, _) in STYLES.items():
        assert len(near(path, colour)) > 50, name


@pytest.mark.parametrize("name", STYLES)
def test_what_is_not_given_is_not_drawn(tmp_path, name):
    boxes = {"answer": "predicted_box", "truth": "true_boxes", "question": "asked_boxes"}
    given = {
        key: (0.1, 0.1, 0.9, 0.9) if key == "predicted_box" else [(0.1, 0.1, 0.9, 0.9)]
        for key in boxes.values()
    }
    del given[boxes[name]]
    path = draw_prediction(GREY, None, RATE, **given, path=tmp_path / "a.png")
    assert len(near(path, STYLES[name][0])) == 0


def test_the_box_stands_where_it_should(tmp_path):
    """A box over 1/4..3/4 of the image is half as wide as the whole image's, about the same middle."""

    def edges(box):
        blue = near(
            draw_prediction(GREY, None, RATE, predicted_box=box, path=tmp_path / "a.png"), STYLES["answer"][0]
        )
        image = blue[blue[:, 1] > 0.2]  # not the legend
        return image[:, 0].min(), image[:, 0].max(), image[:, 1].max()

    whole, half = edges((0, 0, 1, 1)), edges((0.25, 0.25, 0.75, 0.75))
    assert half[1] - half[0] == pytest.approx((whole[1] - whole[0]) / 2, abs=0.01)
    assert half[0] + half[1] == pytest.approx(whole[0] + whole[1], abs=0.01)
    rows, columns, _ = read_image(tmp_path / "a.png").shape
    height = (whole[1] - whole[0]) * columns / rows * 20 / 30  # of the image, as a share of the picture's
    assert whole[2] - half[2] == pytest.approx(height / 4, abs=0.01)


def test_the_interval_stands_where_it_should(tmp_path):
    """Its bar under the spectrogram covers the second half of a 2 s clip."""
    given = {"image": None, "audio": TONE, "sample_rate": RATE}
    whole = near(
        draw_prediction(**given, predicted_interval=(0, 2), path=tmp_path / "a.png"), STYLES["answer"][0]
    )
    half = near(
        draw_prediction(**given, predicted_interval=(1, 2), path=tmp_path / "b.png"), STYLES["answer"][0]
    )
    assert np.ptp(half[:, 0]) == pytest.approx(np.ptp(whole[:, 0]) / 2, abs=0.01)
    assert half[:, 0].max() == pytest.approx(whole[:, 0].max(), abs=0.01)


def test_the_spectrogram_of_a_tone():
    """Loudest at its pitch, in the second that it sounds."""
    levels, hertz = spectrogram(TONE, RATE)
    row = int(levels.max(1).argmax())
    assert hertz[row] == pytest.approx(1000, rel=0.05)
    assert levels.max() == 0
    assert levels[:, : levels.shape[1] * 2 // 5].max() < -60
    assert levels[row, levels.shape[1] * 3 // 4] > -1


@pytest.mark.parametrize("audio", [np.zeros(RATE, np.float32), TONE[:5], np.zeros(RATE * 60, np.float32)])
def test_silence_and_very_short_and_long_sounds(audio):
    levels, _ = spectrogram(audio, RATE)
    assert np.isfinite(levels).all()
    assert levels.shape[1] <= 1600


def test_a_fact_checking_question_shows_its_claim(tmp_path):
    sample = Sample(
        "1", "avfc", "<image><audio>Is [0.10, 0.20, 0.50, 0.80] heard in [0.50, 1.00]?", "True", GREY, TONE
    )
    path = draw_answer(sample, explanation("True"), tmp_path / "a.png", truth="True")
    assert len(near(path, STYLES["question"][0])) > 50
    assert len(near(path, STYLES["answer"][0])) == 0


def test_samples_are_numbered_for_the_report(tmp_path):
    class Model:
        def explain(self, sample):
            return explanation("[dog, 0.1, 0.2, 0.5, 0.8]")

    samples = [Sample(str(i), "arig", "<image>Where?", "[dog, 0, 0, 1, 1]", GREY, None) for i in range(2)]
    paths = draw_samples(Model(), samples, tmp_path)
    assert [p.name for p in paths] == ["arig-000.png", "arig-001.png"]
    assert all(read_image(p).shape[1] > 500 for p in paths)


def test_an_answer_in_signs_that_the_font_lacks_is_drawn(tmp_path):
    """Whatever a model says: pytest turns a warning of a missing glyph into an error."""
    sample = Sample("s", "avqa", "<image>What is it?", "a bell", image=GREY)
    assert draw_answer(sample, explanation("\x11 \u72d7 $x$ [\n"), tmp_path / "a.png").is_file()


def test_nothing_at_all_is_still_an_image(tmp_path):
    sample = Sample("1", "avqa", "", "", None, None)
    silent = SimpleNamespace(answer="", image_map=None, audio_map=None, audio_times=None)
    assert draw_answer(sample, silent, tmp_path / "a.png").is_file()
