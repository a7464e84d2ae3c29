"""Where samples come from: decoding of media, and sources that make samples of the five tasks."""
