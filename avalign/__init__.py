"""avalign: audio-visual alignment from interchangeable parts."""

__version__ = "0.1.0"

from typing import Any

__all__ = ["__version__", "load"]


def __getattr__(
    name: str,
) -> Any:  # imported when asked for, so that `avalign --help` does not wait for torch
    if name == "load":
        from avalign.export.load import load

        return load
    raise AttributeError(f"module 'avalign' has no attribute {name!r}")
