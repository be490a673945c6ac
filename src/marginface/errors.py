"""The one exception for bad input. Floor 0: every room may raise it; only `cli.py` catches it (exit code 2)."""


class InputError(ValueError):
    """What the user gave cannot be used. The message is one sentence naming the file, the record and the fix."""
