"""The audio-visual language model: its parts put together, and how a recipe becomes one."""
