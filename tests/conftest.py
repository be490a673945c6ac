"""Shared fixtures, which tests a plain run leaves out, and the rule that no other test may be skipped."""

import os
from collections.abc import Generator
from pathlib import Path
from typing import TypeVar

if "PYTEST_XDIST_WORKER" in os.environ:  # one process per core already: more threads would only compete for them
    os.environ.setdefault("OMP_NUM_THREADS", "1")

os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # read once, by the first test that opens or writes a video

import hypothesis  # after the number of threads is settled
import pytest

from marginface.optional_imports import disable_telemetry

ROOT = Path(__file__).parent.parent
LFW = Path(os.environ.get("MARGINFACE_LFW", ROOT.parent / "shared" / "lfw"))
disable_telemetry()  # also for the libraries that tests import by themselves
ALLOWED_SKIPS = ("GPU: ", "operating system: ", "processor: ")
"""What the reason of a skip must begin with. A missing library is no reason: the extra `dev` installs all of them."""

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)

hypothesis.settings.register_profile("same", derandomize=True, deadline=None)
hypothesis.settings.register_profile("search", deadline=None)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the nightly tests")
    parser.addoption("--minutes", type=float, default=0, help="fuzz each file format for this long, with new files")


def pytest_configure(config: pytest.Config) -> None:
    # by day the same examples on every machine, by night new ones
    hypothesis.settings.load_profile("search" if config.getoption("--slow") else "same")


def unavailable_markers(config: pytest.Config) -> dict[str, str]:
    """Markers whose tests this run leaves out -> what to do to run them."""
    markers = {} if config.getoption("--slow") else {"slow": "pass --slow"}
    if not (LFW / "pairs_val.txt").is_file():
        markers["lfw"] = "set MARGINFACE_LFW to a folder with the photographs"
    return markers


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    markers = set(unavailable_markers(config))
    dropped = [item for item in items if markers & set(item.keywords)]
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = [item for item in items if not markers & set(item.keywords)]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for marker, advice in unavailable_markers(config).items():
        terminalreporter.write_line(f"Tests marked {marker} were not selected; to run them, {advice}.")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return fail_if_skipped((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return fail_if_skipped((yield))


def fail_if_skipped(report: Report) -> Report:
    """Turn a skip, or an expected failure, into a failure unless its reason is one of ALLOWED_SKIPS."""
    if report.skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else "expected to fail"
        reason = reason.removeprefix("Skipped: ")
        if not reason.startswith(ALLOWED_SKIPS):
            report.outcome = "failed"
            report.__dict__.pop("wasxfail", None)  # pytest does not count a failure that carries it
            report.longrepr = f"{report.nodeid} was skipped ({reason}); reasons may begin with {ALLOWED_SKIPS} only"
    return report


@pytest.fixture(scope="session")
def lfw_root() -> Path:
    return LFW
