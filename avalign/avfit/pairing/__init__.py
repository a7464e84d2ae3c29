"""Pictures and recordings paired by class."""
