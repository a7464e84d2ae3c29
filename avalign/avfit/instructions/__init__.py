"""AVFIT's second step: a language model writes further phrasings; the rules decide which are accepted."""
