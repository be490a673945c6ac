"""What ends a command early. Floor 0: every room may raise these; only `cli.py` catches them."""


class InputError(ValueError):
    """What the user gave cannot be used. The message is one sentence naming the file, the record and the fix.

    table: lines to print below the sentence. Line breaks in the sentence itself, as names in a stranger's file may
    hold them, become blanks.
    """

    def __init__(self, sentence: str, table: str = "") -> None:
        line = " ".join(sentence.splitlines())
        super().__init__(f"{line}\n{table}" if table else line)

    elsewhere: bool | None = None
    """None while this process alone raises it; else all processes do, and another one prints it (True) or this one."""


class Stopped(Exception):
    """Long work was asked to stop and has saved itself; `exit_code` is the shell's 128 + signal."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(number, message)
        self.number, self.exit_code = number, 128 + number

    def __str__(self) -> str:
        return str(self.args[1])


class PeerLost(Stopped):
    """Of several processes another one is gone; the last checkpoint stands. `exit_code` is EX_TEMPFAIL: try again."""

    def __init__(self, message: str) -> None:
        super().__init__(0, message)
        self.exit_code = 75

    def __reduce__(self) -> tuple[type["PeerLost"], tuple[str]]:
        return type(self), (str(self),)
