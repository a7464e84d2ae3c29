"""Images and recordings paired by class."""
