"""The five tasks, one a file: how its answers are read and scored."""
