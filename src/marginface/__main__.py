"""`python -m marginface`: the same as the command `marginface`, for launchers such as torchrun."""

from marginface.cli import main

main()
