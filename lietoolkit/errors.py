"""The one error that a user's input can cause."""


class InputError(ValueError):
    """Something given by the user cannot be used.

    The message names the file and line, or the argument; what was expected; what was found; and
    what to do. The command line prints it and exits with code 2.
    """
