"""avalign: audio-visual alignment from interchangeable parts."""

__version__ = "0.1.0"
