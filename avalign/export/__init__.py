"""Models that go elsewhere: Hugging Face folders, their cards, their way back, and what a model weighs."""
