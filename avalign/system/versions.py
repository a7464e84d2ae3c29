"""What a run was made with."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from avalign import __version__

PACKAGES = ("torch", "transformers", "accelerate", "peft", "timm", "pot", "numpy", "safetensors")


def versions() -> dict[str, str]:
    """Package versions, Python, the machine, and the commit of avalign where it lies in a git checkout."""
    found = {"avalign": __version__, "commit": _commit(), "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found | {"machine": f"{platform.system()} {platform.machine()}"}


def _commit() -> str:
    """The commit that avalign's code is at, with "+ changes" when files differ from it."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        if not git("ls-files", "--", __file__):
            return "unknown"  # installed into someone else's checkout
        return git("rev-parse", "HEAD") + (" + changes" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"
