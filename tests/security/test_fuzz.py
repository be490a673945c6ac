"""Damaged files of every format are read or refused in one sentence: no crash, no hang, no gigabyte.

By day some hundred files of each format; at night (`--slow`) 10,000; `--minutes M` instead reads new ones for M minutes
per format. Every second file has its checksums put right, so that the damage is behind them.
"""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from formats import FORMATS

WORKER = Path(__file__).with_name("fuzz_worker.py")
BY_DAY, AT_NIGHT = 100, 10_000
FAULTS = 5  # as many are shown
SHARES = 4  # processes that read some of the formats each: starting one costs more than reading a hundred files


@pytest.mark.parametrize("share", range(SHARES))
def test_damaged_files_are_read_or_refused(share: int, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    minutes = pytestconfig.getoption("--minutes")
    first = start = random.SystemRandom().randrange(AT_NIGHT, 2**40) if minutes else 0
    end = start + (10**9 if minutes else AT_NIGHT if pytestconfig.getoption("--slow") else BY_DAY)
    names, faults = list(FORMATS)[share::SHARES], []
    while names and len(faults) < FAULTS:
        folder = tmp_path / str(len(faults))
        folder.mkdir()
        words = [sys.executable, str(WORKER), str(folder), *map(str, (60 * minutes, start, end, first)), *names]
        environment = os.environ | {
            "OMP_NUM_THREADS": "1",
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        }
        run = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
        if run.returncode == 0:
            break
        assert run.stdout, run.stderr  # the first valid file cannot be read
        name, case = run.stdout.splitlines()[-1].split("\t")
        faults.append(f"{name}, case {case} (exit {run.returncode}): {run.stderr[-1500:]}")
        names, first = names[names.index(name) :], int(case) + 1
    assert not faults, "\n\n".join(faults)
