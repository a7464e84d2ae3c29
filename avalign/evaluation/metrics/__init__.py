"""Metrics, one family a file, each with its published definition."""
