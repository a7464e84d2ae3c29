"""Where real photographs, sounds and annotations lie; they are never part of the repository."""

from __future__ import annotations

import os
from pathlib import Path

from tests.helpers.paths import ROOT

REAL_DATA = Path(os.environ.get("AVALIGN_DATA") or ROOT.parent / "shared" / "data")
