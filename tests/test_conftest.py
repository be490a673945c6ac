"""The rule that no test is skipped, tried on small suites of its own under this suite's conftest.py."""

from pathlib import Path

import pytest

pytest_plugins = ("pytester",)
CONFTEST = Path(__file__).parent / "conftest.py"
MARKERS = "-o", "markers=slow\nlfw"


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.delenv("MARGINFACE_LFW", raising=False)
    pytester.makeconftest(CONFTEST.read_text(encoding="utf-8"))
    return pytester


@pytest.mark.parametrize(
    "body",
    [
        "import pytest\ndef test(): pytest.skip('no such library')",
        "import pytest\ndef test(): pytest.importorskip('no_such_library')",
        "import pytest\npytest.importorskip('no_such_library')\ndef test(): pass",
        "import pytest\npytest.skip('not today', allow_module_level=True)",
        "import pytest\n@pytest.mark.skip\ndef test(): pass",
        "import pytest\n@pytest.mark.skipif(True, reason='not today; GPU: no')\ndef test(): pass",
        "import pytest\n@pytest.mark.xfail\ndef test(): assert False",
        "import pytest\n@pytest.mark.xfail(run=False)\ndef test(): pass",
        "import pytest\n@pytest.mark.parametrize('x', [])\ndef test(x): pass",
        "import pytest\n@pytest.fixture\ndef x(): pytest.skip('not today')\ndef test(x): pass",
        "import unittest\nclass Test(unittest.TestCase):\n    @unittest.skip('not today')\n    def test(self): pass",
    ],
)
def test_a_skip_fails(body: str, suite: pytest.Pytester) -> None:
    suite.makepyfile(body)
    result = suite.runpytest_inprocess()
    outcomes = result.parseoutcomes()
    assert result.ret != 0
    assert "skipped" not in outcomes
    assert "xfailed" not in outcomes
    assert outcomes.get("failed", 0) + outcomes.get("errors", 0) == 1
    result.stdout.fnmatch_lines(["*was skipped (*); reasons may begin with *"])


@pytest.mark.parametrize("indent", ["", "def test(): "], ids=["module", "test"])
def test_a_skip_fails_in_a_worker_process_too(indent: str, suite: pytest.Pytester) -> None:
    suite.makepyfile(f"import pytest\n{indent}pytest.importorskip('no_such_library')\ndef test_other(): pass")
    result = suite.runpytest_inprocess("-n1")
    assert result.ret != 0
    result.stdout.fnmatch_lines(["*was skipped (*); reasons may begin with *"])


@pytest.mark.parametrize("reason", ["GPU: none", "operating system: no fork", "processor: no bfloat16"])
def test_what_a_machine_lacks_may_be_skipped(reason: str, suite: pytest.Pytester) -> None:
    suite.makepyfile(f"import pytest\ndef test(): pytest.skip('{reason}')\ndef test_other(): pass")
    result = suite.runpytest_inprocess()
    assert result.ret == 0
    result.assert_outcomes(passed=1, skipped=1)


def test_marked_tests_are_not_selected_and_the_summary_says_so(suite: pytest.Pytester) -> None:
    marked = "".join(f"@pytest.mark.{marker}\ndef test_{marker}(): pass\n" for marker in ("slow", "lfw"))
    suite.makepyfile(f"import pytest\ndef test(): pass\n{marked}")
    result = suite.runpytest_inprocess(*MARKERS)
    result.assert_outcomes(passed=1, deselected=2)
    result.stdout.fnmatch_lines(["*marked slow were not selected*--slow*", "*marked lfw were not selected*"])
    result = suite.runpytest_inprocess(*MARKERS, "--slow")
    result.assert_outcomes(passed=2, deselected=1)
    result.stdout.no_fnmatch_line("*marked slow*")


def test_photographs_that_are_there_are_used(suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    (suite.path / "pairs_val.txt").touch()
    monkeypatch.setenv("MARGINFACE_LFW", str(suite.path))
    suite.makepyfile(
        "import pytest\n@pytest.mark.lfw\ndef test(lfw_root): assert (lfw_root / 'pairs_val.txt').is_file()"
    )
    suite.runpytest_inprocess(*MARKERS).assert_outcomes(passed=1)
