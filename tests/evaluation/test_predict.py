"""A question about files: the places of media, the answer, the picture, and files that are none."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from avalign.errors import AvalignError
from avalign.evaluation.predict import predict
from avalign.media.file import MediaError
from avalign.media.read import read_image


@pytest.fixture
def media(tmp_path):
    import soundfile

    Image.fromarray(np.full((12, 16, 3), 200, np.uint8)).save(tmp_path / "a.png")
    soundfile.write(tmp_path / "b.wav", np.ones((8000, 2)) * 0.1, 8000)
    return tmp_path / "a.png", tmp_path / "b.wav"


@pytest.fixture
def asked(monkeypatch):
    """The samples that a stand-in for a trained model was asked about."""
    samples = []

    def explain(sample):
        samples.append(sample)
        return SimpleNamespace(
            answer="[dog, 0.1, 0.2, 0.5, 0.8]", image_map=None, audio_map=None, audio_times=None
        )

    monkeypatch.setattr("avalign.export.load.load", lambda run: SimpleNamespace(explain=explain))
    return samples


def test_files_become_a_sample_and_its_answer_an_image(media, asked, tmp_path):
    out = tmp_path / "pictures" / "mine.png"
    assert predict(tmp_path, *media, "Where is it?", out) == "[dog, 0.1, 0.2, 0.5, 0.8]"
    assert asked[0].instruction == "<image><audio>Where is it?"
    assert asked[0].image.shape == (12, 16, 3)
    assert asked[0].audio.shape == (8000,)
    assert asked[0].sample_rate == 8000
    assert read_image(out).shape[1] > 500


def test_places_in_the_question_are_kept(media, asked, tmp_path):
    predict(tmp_path, *media, "In <image>, what sounds?", tmp_path / "x.png")
    assert asked[0].instruction == "<audio>In <image>, what sounds?"


def test_the_image_has_a_default_name(media, asked, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    predict(tmp_path, media[0], None, "What is it?")
    assert (tmp_path / "answer.png").is_file()
    assert asked[0].instruction == "<image>What is it?"
    assert asked[0].audio is None


@pytest.mark.parametrize(
    ("image", "audio", "text", "why"),
    [
        (False, False, "Where?", "needs --image or --audio"),
        (True, True, "  ", "question is empty"),
        (True, False, "Is <audio> loud?", "holds <audio>, but no --audio"),
    ],
)
def test_a_question_that_cannot_be_asked_is_refused(media, asked, tmp_path, image, audio, text, why):
    with pytest.raises(AvalignError, match=why):
        predict(tmp_path, media[0] if image else None, media[1] if audio else None, text)
    assert asked == []


def test_a_bad_file_is_named_before_the_model_is_loaded(media, tmp_path, monkeypatch):
    monkeypatch.setattr("avalign.export.load.load", lambda run: pytest.fail("loaded"))
    with pytest.raises(MediaError, match=r"b\.wav"):
        predict(tmp_path, media[1], media[1], "Where?")


@pytest.mark.parametrize(
    ("question", "out", "why"),
    [
        ("what\udcff?", "a.png", "the question is not UTF-8 text"),
        ("what?", "a.xyz", "no image format ends so. Known: "),
        ("what?", ".", "is a folder; name a file"),
        ("what?", "b.wav/a.png", "cannot be written"),
    ],
)
def test_what_would_lose_the_answer_is_told_before_it_is_asked(media, asked, question, out, why):
    image, audio = media
    with pytest.raises(AvalignError, match=why):
        predict(image.parent, image, audio, question, image.parent / out)
    assert not asked
