"""A stranger's configuration, as `--config` or in the folder of a run: it imports nothing, opens nothing, blows up."""

import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from marginface import cli
from marginface.errors import InputError
from marginface.training.config_file import check_config_file
from marginface.untrusted import LARGEST_CONFIG

TRAP = "opened_by_a_configuration"


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that comes to be when the module TRAP is imported, or the class in it made."""
    sprung = tmp_path / "sprung"
    (tmp_path / f"{TRAP}.py").write_text(
        f"from pathlib import Path\nsprung = Path({str(sprung)!r})\nsprung.touch()\n"
        f"class Trap:\n    def __init__(self, *a, **b):\n        sprung.touch()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    return sprung


SPEC = f"{{class_path: {TRAP}.Trap, init_args: {{a: 1}}}}"
TRAPS = [
    f"model: {SPEC}",
    f"model.class_path: {TRAP}.Trap",
    f"model: {TRAP}.Trap",
    f"model: {{options: {{x: {SPEC}}}}}",
    f"model: {{options: {{x: [{SPEC}]}}}}",
    f"model: {{options: {SPEC}}}",
    f"margin: {{options: {{x: {SPEC}}}}}",
    f"margin.options: {{x: {SPEC}}}",
    f"data: {{augment: {SPEC}}}",
    f"data.augment: {TRAP}.Trap",
    f"data: {{val: [{SPEC}]}}",
    f"seed: {SPEC}",
    f"class_path: {TRAP}.Trap",
    f"logger: {SPEC}",
    f"!!python/object:{TRAP}.Trap {{}}",
    f"!!python/name:{TRAP}.Trap",
]


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as exit:
        cli.main(words)
    assert exit.value.code == 2
    told = capsys.readouterr().err.strip()
    assert told.startswith("marginface: ")
    assert "\n" not in told
    assert "Traceback" not in told
    return told


@pytest.mark.parametrize("text", TRAPS)
def test_nothing_that_a_configuration_names_is_imported(
    text: str, trap: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(text)
    for words in (["--config", "run/config.yaml"], ["--config=run/config.yaml"], ["--resume", "run"]):
        refused(["train", *words, "--train.epochs=0.01"], capsys)
        assert not trap.exists()
        assert TRAP not in sys.modules
    with pytest.raises(SystemExit):
        cli.main(["train", "--config", "run/config.yaml", "--help"])
    for words in (["--confi", "run/config.yaml"], [f"--optim={SPEC}"], [f"--margin.options={{x: {SPEC}}}"]):
        refused(["train", *words], capsys)
    assert not trap.exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: [1]", r"model is \[1\]; give settings with their names, such as model: \{backbone: \.\.\.\}"),
        ("data: {augment: 3}", r"data\.augment is 3; give settings"),
        ("- a", r"it holds \['a'\]; give settings"),
        ("", "it holds None; give settings"),
        ("config: /etc/passwd", "cannot open another; give --config several times"),
        ("model: {class_path: a.B}", r"model\.class_path is not taken, since it would import 'a\.B'"),
        ("a: &a [*a]", "an alias contains itself"),
        (
            "a: &a [x,x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\n"
            "c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: [*c,*c,*c,*c,*c,*c,*c]",
            "more than 10,000 values",
        ),
        ("[" * 20000, "nested too deeply"),
        ("seed: " + "9" * 5000, "is not a YAML configuration"),
        ("seed: 2001-13-45", "is not a YAML configuration"),
        ("#" * (LARGEST_CONFIG + 1), "more than the 131,072 that are read"),
        ("seed: \x1b", "is not a YAML configuration: unacceptable character"),
        ("a: b: c", "is not a YAML configuration: mapping values"),
    ],
)
def test_what_is_no_configuration(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(InputError, match=message) as told:
        check_config_file(tmp_path / "c.yaml")
    assert "\n" not in str(told.value)
    assert len(str(told.value)) < 600


def test_bytes_that_are_no_text_and_byte_order_marks(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_bytes(b"\x89PNG\xff\xfe\0\0")
    with pytest.raises(InputError, match="is not UTF-8 text"):
        check_config_file(tmp_path / "c.yaml")
    (tmp_path / "c.yaml").write_bytes(b"\xef\xbb\xbfseed: 3")
    assert check_config_file(tmp_path / "c.yaml") == {"seed": 3}


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(f"{TRAP}.Trap"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | st.just("class_path"), inner),
    max_leaves=6,
)
names = st.sampled_from(
    ["model", "data", "margin", "optim", "train", "trainer", "softmax", "seed", "data.augment", "x"]
)
below = st.sampled_from(["options", "name", "backbone", "augment", "val", "lr", "class_path", "init_args", "y"])


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.dictionaries(names, values | st.dictionaries(below, values), min_size=1))
def test_any_yaml_is_a_configuration_or_refused_in_a_sentence(
    content: dict[str, object], trap: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is let through goes to the parser, which knows the type of every setting; nothing is imported on the way."""
    (tmp_path / "any.yaml").write_text(yaml.safe_dump(content))
    told = refused(["train", "--config", "any.yaml", "--data.train", "nowhere", "--output", str(tmp_path)], capsys)
    assert not trap.exists(), told
    assert TRAP not in sys.modules
