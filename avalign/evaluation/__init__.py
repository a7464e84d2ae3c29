"""MeerkatBench: tasks, metrics, the scoring of a model and of answers from files."""
