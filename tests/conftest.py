"""Shared fixtures: where the reference numbers and the real photographs lie."""

import os
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # one process a core already: threads would only wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis  # after the number of threads is settled
import pytest

ROOT = Path(__file__).parent.parent


hypothesis.settings.register_profile("same", derandomize=True, deadline=None)
hypothesis.settings.register_profile("search", deadline=None)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the nightly tests")


def pytest_configure(config: pytest.Config) -> None:
    # by day the same examples on every machine, by night new ones
    hypothesis.settings.load_profile("search" if config.getoption("--slow") else "same")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    lfw = Path(os.environ.get("MARGINFACE_LFW", ROOT.parent / "shared" / "lfw"))
    for item in items:
        if "slow" in item.keywords and not config.getoption("--slow"):
            item.add_marker(pytest.mark.skip(reason="nightly: pass --slow"))
        if "lfw" in item.keywords and not (lfw / "pairs_val.txt").is_file():
            item.add_marker(pytest.mark.skip(reason="no LFW photographs; set MARGINFACE_LFW"))


@pytest.fixture(scope="session")
def lfw_root() -> Path:
    return Path(os.environ.get("MARGINFACE_LFW", ROOT.parent / "shared" / "lfw"))
