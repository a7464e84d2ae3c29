"""The API pages have every shipped part of their kind."""

from __future__ import annotations

import pytest

import avalign.ot
from avalign import registry
from tests.helpers.paths import DOCS

PAGES = {
    "loss": "losses",
    "image_encoder": "encoders",
    "audio_encoder": "encoders",
    "projector": "projectors",
    "fusion": "fusion",
}


def entries(page: str) -> list[str]:
    lines = (DOCS / "api" / f"{page}.md").read_text().splitlines()
    return [line.removeprefix("::: ") for line in lines if line.startswith("::: ")]


@pytest.mark.parametrize(("kind", "page"), PAGES.items())
def test_every_shipped_component_has_its_entry(kind: str, page: str) -> None:
    shown = {entry.rpartition(".")[2] for entry in entries(page)}
    assert {place.partition(":")[2] for place in registry.SHIPPED[kind].values()} <= shown


def test_all_of_transport_has_its_entry() -> None:
    assert set(entries("ot")) == {f"avalign.ot.{name}" for name in avalign.ot.__all__}
