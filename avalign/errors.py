"""The root of the errors that are the user's to mend."""


class AvalignError(Exception):
    """An error of the user's input, shown without a traceback."""
