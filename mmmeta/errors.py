"""Errors that the user can fix."""


class UsageError(ValueError):
    """A mistake in a command, a config, an argument or a file.

    The message is one sentence that names the value, what is allowed and the remedy. The command lines
    under ``tools/`` print it alone, without a traceback, and exit with status 1.
    """
