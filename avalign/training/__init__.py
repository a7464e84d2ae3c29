"""Training: stages on transformers' Trainer, checkpoints, and the folder of a run."""
