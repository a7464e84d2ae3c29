"""Where the repository and its parts lie."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS, RECIPES = ROOT / "docs", ROOT / "recipes"
RECIPE = RECIPES / "meerkat.yaml"
