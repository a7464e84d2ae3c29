"""What is shown of scores: one HTML page, figures, Markdown tables."""
