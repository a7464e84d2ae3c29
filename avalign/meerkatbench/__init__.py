"""MeerkatBench: five tasks of audio-visual grounding in space and time, scored with their uncertainty."""
