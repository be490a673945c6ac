"""What ends a command early. Floor 0: every room may raise these; only `cli.py` catches them."""


class InputError(ValueError):
    """What the user gave cannot be used. The message is one sentence naming the file, the record and the fix."""


class Stopped(Exception):
    """Long work was asked to stop and has saved itself; `exit_code` is the shell's 128 + signal."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number, self.exit_code = number, 128 + number
