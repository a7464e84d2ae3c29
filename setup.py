"""Puts recipes/ into the package as avalign/recipes/. All else stands in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

RECIPES = Path(__file__).parent / "recipes"


class BuildWithRecipes(build_py):
    """An editable install reads recipes/ where it lies (avalign/config/shipped.py)."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            shutil.copytree(RECIPES, Path(self.build_lib) / "avalign" / "recipes", dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithRecipes})
