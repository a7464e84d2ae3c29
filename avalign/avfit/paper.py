"""How many samples the paper's AVFIT and MeerkatBench have, to stand beside one's own counts.

Source: Meerkat, arXiv:2407.01851, the table of AVFIT and MeerkatBench. Its numbers are rounded as printed
there; what it does not say is not here.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PaperRow:
    """sources: what records of this row may name as theirs; train, test: as printed, "" where it has none"""

    task: str
    data: str
    sources: tuple[str, ...]
    train: str = ""
    test: str = ""


PAPER = (
    PaperRow("arig", "OpenImages x AudioSet", ("openimages_audioset",), "1.07M"),
    PaperRow("arig", "OpenImages x VGGSound", ("openimages_vgg_sound",), "180K"),
    PaperRow(
        "arig",
        "AVSBench",
        ("avsbench", "avsbench_s4", "avsbench_ms3", "avsbench_avss"),
        "2.30K",
        "0.49K",
    ),
    PaperRow("arig", "VGG-SS", ("vgg_ss",), "", "4.38K"),
    PaperRow("arig", "PASCAL Sound", ("pascal_sound",), "", "0.56K"),
    PaperRow("arig", "Flickr-SoundNet", ("flickr_soundnet",), "", "2.78K"),
    PaperRow("igatl", "OpenImages x AudioSet Strong", ("openimages_audioset_strong",), "96.5K", "24.1K"),
    PaperRow("igatl", "LLP", ("llp",), "", "2.32K"),
    PaperRow("avfc", "OpenImages x AudioSet", ("openimages_audioset",), "1.18M", "321K"),
    PaperRow("avqa", "AVQA", ("avqa",), "40.4K", "16.9K"),
    PaperRow("avqa", "MUSIC-AVQA", ("music_avqa",), "25.7K", "7.36K"),
    PaperRow("avcap", "VALOR-32K", ("valor",), "25.0K", "3.50K"),
)


def of_paper(task: str, source: str, split: str) -> str:
    """The paper's count, as printed; "" where it gives none."""
    row = next((row for row in PAPER if row.task == task and source in row.sources), None)
    return {"train": row.train, "test": row.test}.get(split, "") if row is not None else ""
