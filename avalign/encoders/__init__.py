"""Image and audio encoders: one backbone family a file, each with its own preprocessing."""
