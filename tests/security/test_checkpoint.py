"""A run folder from a stranger: its checkpoints run nothing, reach nowhere, claim nothing that is not there.

Every hostile checkpoint is a sound one, changed, with its checksums made right again.
"""

import hashlib
import json
import math
import os
import pickle
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from marginface import cli
from marginface.embedder import Embedder, ModelConfig
from marginface.errors import InputError
from marginface.training.checkpoint import LOSS_SCALE, Progress
from marginface.weights.opening import load
from marginface.weights.parts import Part
from marginface.weights.state import SavedState, list_states, write_state
from people import write_people

Index = dict[str, Any]
PART = "part-0.safetensors"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A sound checkpoint of step 3 in RUN/checkpoints."""
    return write(tmp_path / "run" / "checkpoints" / "state-3")


def write(folder: Path) -> Path:
    write_state(folder, {"w": torch.arange(12.0).reshape(4, 3), "n": torch.tensor(7.0)}, {"step": 3})
    return folder


def read(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    rows, count = torch.full((2, 3), -1.0), torch.tensor(-1.0)
    SavedState.open(folder).read({"w": Part(rows, 1, 4), "n": count})
    return rows, count


def seal(folder: Path, index: Index) -> None:
    """Write the index with the checksum it needs, and that of every file it names."""
    for name, entry in index["files"].items() if isinstance(index.get("files"), dict) else ():
        if isinstance(entry, dict) and (folder / name).is_file():
            content = (folder / name).read_bytes()
            entry |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    write_index(folder, index)


def write_index(folder: Path, index: Index) -> None:
    described = {key: value for key, value in index.items() if key != "checksum"}
    checksum = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
    (folder / "state.json").write_text(json.dumps({"checksum": checksum, **described}))


def index_of(folder: Path) -> Index:
    return json.loads((folder / "state.json").read_text())


# What is wrong, how an index becomes so, and what is said.
CLAIMS: dict[str, tuple[Callable[[Index], object], str]] = {
    "rows beyond all memory": (lambda i: i["tensors"]["w"].update(shape=[10**15, 3]), "it holds 4 rows of w instead"),
    "columns beyond all memory": (lambda i: i["tensors"]["w"].update(shape=[4, 10**15]), "is wrong about w"),
    "more dimensions": (lambda i: i["tensors"]["w"].update(shape=[4, 3, 10**15]), "is wrong about w"),
    "a scalar": (lambda i: i["tensors"]["w"].update(shape=[]), "is wrong about w"),
    "rows of a scalar": (lambda i: i["tensors"]["n"].update(shape=[10**15]), "is wrong about n"),
    "fewer than no rows": (lambda i: i["tensors"]["w"].update(shape=[-4, 3]), "does not describe a tensor by 'w'"),
    "half a row": (lambda i: i["tensors"]["w"].update(shape=[4.0, 3]), "does not describe a tensor by 'w'"),
    "true rows": (lambda i: i["tensors"]["w"].update(shape=[True, 3]), "does not describe a tensor by 'w'"),
    "a shape in words": (lambda i: i["tensors"]["w"].update(shape="43"), "does not describe a tensor by 'w'"),
    "no shape": (lambda i: i["tensors"]["w"].pop("shape"), "not a checkpoint's"),
    "no entry": (lambda i: i["tensors"].update(w=None), "not a checkpoint's"),
    "a list of tensors": (lambda i: i.update(tensors=[1]), "not a checkpoint's"),
    "missing rows": (lambda i: i["tensors"]["w"].update(pieces={}), "it holds 0 rows of w instead of 4"),
    "rows from elsewhere": (lambda i: i["tensors"]["w"].update(pieces={PART: 1}), "does not hold its rows from 0 on"),
    "rows from far away": (lambda i: i["tensors"]["w"].update(pieces={PART: 10**30}), "does not hold its rows"),
    "rows twice": (lambda i: i["tensors"]["w"]["pieces"].update({"part-1.safetensors": 0}), "does not hold its rows"),
    "rows in no file": (lambda i: i["tensors"]["w"].update(pieces={"part-1.safetensors": 0}), "does not hold its rows"),
    "rows in another file": (lambda i: i["tensors"]["w"].update(pieces={"/etc/passwd": 0}), "does not hold its rows"),
    "a tensor that is nowhere": (lambda i: i["tensors"].update(v=i["tensors"]["w"]), "is wrong about v"),
    "a name that moves the cursor": (lambda i: i["tensors"].update({"\x1b[2J": i["tensors"]["w"]}), r"'\\x1b\[2J'"),
    "a name without end": (lambda i: i["tensors"].update({"a" * 10**6: i["tensors"]["w"]}), "does not describe"),
    "a file outside": (lambda i: i["files"].update({"../x": i["files"][PART]}), r"it names a file '\.\./x'"),
    "a file elsewhere": (lambda i: i["files"].update({"/etc/passwd": i["files"][PART]}), "it names a file '/etc"),
    "a file below": (lambda i: i["files"].update({f"x/{PART}": i["files"][PART]}), "it names a file 'x/part"),
    "a file of another kind": (lambda i: i["files"].update({".metadata": i["files"][PART]}), "it names a file"),
    "no such file": (lambda i: i["files"].update({"part-7.safetensors": i["files"][PART]}), "part-7.*is missing"),
    "a file without checksum": (lambda i: i["files"][PART].pop("sha256"), "it names a file 'part-0"),
    "a file of half a byte": (lambda i: i["files"][PART].update(bytes=0.5), "it names a file 'part-0"),
    "no files": (lambda i: i.update(files=None), "not a checkpoint's"),
    "facts that are none": (lambda i: i.update(facts=[]), "it holds no facts"),
    "another format": (lambda i: i.update(format="x" * 10**6), "another version of marginface"),
    "no format": (lambda i: i.pop("format"), "not a checkpoint's"),
}


@pytest.mark.parametrize("what", CLAIMS)
def test_an_index_that_lies(what: str, state: Path) -> None:
    index, (change, words) = index_of(state), CLAIMS[what]
    change(index)
    write_index(state, index)
    with pytest.raises(InputError, match=words) as raised:
        read(state)
    assert str(state) in str(raised.value)
    assert len(str(raised.value)) < 600


# What is written instead of the index, whatever its checksum would be.
TEXTS: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "missing, damaged"),
    "a number": (b"1", "not a checkpoint's"),
    "null": (b"null", "not a checkpoint's"),
    "a list": (b"[]", "not a checkpoint's"),
    "no text": (b"\xff\xfe\x00", "not a checkpoint's"),
    "deep lists": (b"[" * 1_000_000, "nested too deeply"),
    "deep objects": (b'{"a":' * 1_000_000, "nested too deeply"),
    "digits without end": (b'{"facts": ' + b"9" * 100_000 + b"}", "not a checkpoint's"),
    "more than is read": (b"[" + b" " * (1 << 24) + b"]", "more than the 16,777,216 that are read"),
}


@pytest.mark.parametrize("what", TEXTS)
def test_an_index_that_is_none(what: str, state: Path) -> None:
    content, words = TEXTS[what]
    (state / "state.json").write_bytes(content)
    with pytest.raises(InputError, match=words) as raised:
        read(state)
    assert len(str(raised.value)) < 600


# What makes an index with the right checksum another text than the one that was written.
SPELLINGS: dict[str, Callable[[str], str]] = {
    "a name twice": lambda text: text.replace('"facts": {', '"facts": {}, "facts": {'),
    "a name twice within": lambda text: text.replace('"step": 3', '"step": 2, "step": 3'),
    "spaces": lambda text: text.replace('"step": 3', '"step":  3'),
    "a byte order mark": lambda text: "\ufeff" + text,
    "something behind it": lambda text: text + "\n",
}


@pytest.mark.parametrize("what", SPELLINGS)
def test_an_index_in_other_words(what: str, state: Path) -> None:
    text = (state / "state.json").read_text()
    (state / "state.json").write_text(SPELLINGS[what](text))
    assert (state / "state.json").read_text() != text
    with pytest.raises(InputError, match=r"not the JSON that marginface writes|not a checkpoint's"):
        read(state)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_json(number: float, state: Path) -> None:
    write_index(state, index_of(state) | {"facts": {"step": 3, "best": number}})
    with pytest.raises(InputError, match=r"not a checkpoint's .*JSON compliant"):
        read(state)


def safetensors(header: bytes, data: bytes = bytes(52), length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def entries(**changes: Any) -> bytes:
    """The header of a sound file, with changes to w."""
    w = {"dtype": "F32", "shape": [4, 3], "data_offsets": [0, 48]} | changes
    return json.dumps({"w": w, "n": {"dtype": "F32", "shape": [], "data_offsets": [48, 52]}}).encode()


FILES: dict[str, tuple[bytes, str]] = {
    "no bytes": (b"", "damaged or not"),
    "no header": (safetensors(b""), "damaged or not"),
    "a header without end": (safetensors(entries(), length=(1 << 64) - 1), "its header is larger"),
    "a large header": (safetensors(entries() + b" " * (1 << 24)), "its header is larger"),
    "a header beyond the file": (safetensors(entries(), length=1 << 20), "damaged or not"),
    "a deep header": (safetensors(b'{"w":' + b"[" * 1_000_000), "damaged or not"),
    "an absurd shape": (safetensors(entries(shape=[1 << 62, 3])), "damaged or not"),
    "a shape that overflows": (safetensors(entries(shape=[1 << 63, 1 << 63])), "damaged or not"),
    "a negative shape": (safetensors(entries(shape=[-4, -3])), "damaged or not"),
    "offsets beyond the file": (safetensors(entries(data_offsets=[0, 1 << 40])), "damaged or not"),
    "offsets backwards": (safetensors(entries(data_offsets=[48, 0])), "damaged or not"),
    "offsets that overlap": (safetensors(entries(data_offsets=[4, 52])), "damaged or not"),
    "an unknown dtype": (safetensors(entries(dtype="OBJECT")), "damaged or not"),
    "a wider dtype": (safetensors(entries(dtype="F64")), "damaged or not"),
    "another dtype": (safetensors(entries(dtype="I32")), "w is I32 there, F32 here"),
    "another shape": (safetensors(entries(shape=[3, 4])), "is wrong about w"),
    "a pickle": (pickle.dumps({"w": 1}), "not a checkpoint's"),
    "data after the end": (safetensors(entries(), bytes(60)), "damaged or not"),
    "data that is cut": (safetensors(entries(), bytes(51)), "damaged or not"),
}


@pytest.mark.parametrize("what", FILES)
def test_a_file_that_lies(what: str, state: Path) -> None:
    content, words = FILES[what]
    (state / PART).write_bytes(content)
    seal(state, index_of(state))
    with pytest.raises(InputError, match=words):
        read(state)


def test_the_generators_make_sound_files(state: Path) -> None:
    """Or the tests above would pass for another reason."""
    (state / PART).write_bytes(safetensors(entries(), struct.pack("<13f", *range(12), 7)))
    seal(state, index_of(state))
    rows, count = read(state)
    assert rows.tolist() == [[3, 4, 5], [6, 7, 8]]
    assert count == 7


@pytest.mark.parametrize("name", ["state.json", PART])
@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "endless"])
def test_what_is_no_regular_file(name: str, kind: str, state: Path, tmp_path: Path) -> None:
    (state / name).rename(tmp_path / name)
    if kind == "link":
        (state / name).symlink_to(tmp_path / name)
    elif kind == "endless":
        (state / name).symlink_to("/dev/zero")
    elif kind == "pipe":
        os.mkfifo(state / name)
    else:
        (state / name).mkdir()
    with pytest.raises(InputError, match=r"not a regular file|is a symbolic link|is missing|not a file"):
        read(state)


def test_links_out_of_the_run_are_not_followed(state: Path, tmp_path: Path) -> None:
    """Not read, and not tidied up when later checkpoints are written."""
    run = tmp_path / "stranger"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "state-9").symlink_to(state)
    assert list_states(run / "checkpoints") == []
    (run / "checkpoints" / "state-9").unlink()
    (run / "checkpoints").rmdir()
    (run / "checkpoints").symlink_to(state.parent)
    with pytest.raises(InputError, match="is a symbolic link"):
        load(run)


@pytest.mark.parametrize("name", ["metrics.csv", "progress.json", "checkpoints", "config.yaml"])
def test_links_in_a_run_are_not_written_through(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, outside = tmp_path / "run", tmp_path / "outside"
    run.mkdir()
    outside.write_text("step,loss\n")
    (run / "config.yaml").write_text("{}")
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(outside)
    for words in (["train", f"--resume={run}"], ["status", str(run)]):
        with pytest.raises(SystemExit, match="2"):
            cli.main(words)
        assert f"{run / name} is a symbolic link" in capsys.readouterr().err
    assert outside.read_text() == "step,loss\n"


PLACE = {"position": 3, "batch_size": 8, "steps_per_epoch": 5}
FACTS: dict[str, dict[str, Any]] = {
    "none": {},
    "a step before the first": {**PLACE, "step": -1},
    "half a step": {**PLACE, "step": 1.5},
    "a step beyond all": {**PLACE, "step": 10**30},
    "a step in words": {**PLACE, "step": "3"},
    "a true step": {**PLACE, "step": True},
    "a step in a list": {**PLACE, "step": [3]},
    "an accuracy beyond all": {**PLACE, "step": 3, "best": 10**400},
    "an accuracy in words": {**PLACE, "step": 3, "best": "x"},
    "no waiting": {**PLACE, "step": 3, "since_best": None},
    "averages in words": {**PLACE, "step": 3, "average_updates": "x"},
    "a list of scales": {**PLACE, "step": 3, "precision": [1]},
    "part of a scale": {**PLACE, "step": 3, "precision": {"scale": 1.0}},
    "a scale in words": {**PLACE, "step": 3, "precision": dict.fromkeys(LOSS_SCALE, "x")},
    "half an interval": {**PLACE, "step": 3, "precision": dict.fromkeys(LOSS_SCALE, 0.5)},
    "no position": {"step": 3},
    "epochs of no steps": {**PLACE, "step": 3, "steps_per_epoch": 0},
    "batches of no images": {**PLACE, "step": 3, "batch_size": 0},
    "a place before the first": {**PLACE, "step": 3, "position": -1},
    "half a place": {**PLACE, "step": 3, "position": 0.5},
    "something else": {**PLACE, "step": 3, "of": 1},
}


@pytest.mark.parametrize("what", FACTS)
def test_facts_that_cannot_be(what: str, state: Path) -> None:
    index = index_of(state)
    write_index(state, index | {"facts": FACTS[what]})
    with pytest.raises(InputError, match="does not say where its run stands"):
        Progress.of(SavedState.open(state))


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Of everything inside a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, item in inner for place in ((*path, key), *places(item, (*path, key)))]


@given(data=st.data())
def test_any_index_gives_the_tensors_or_a_sentence(data: st.DataObject) -> None:
    with TemporaryDirectory() as name:
        folder = write(Path(name) / "state-3")
        index = index_of(folder)
        *path, last = data.draw(st.sampled_from(places(index)))
        inner = index
        for key in path:
            inner = inner[key]
        inner[last] = data.draw(JUNK)
        write_index(folder, index)
        outcome(folder)


@given(data=st.data())
def test_any_file_gives_tensors_or_a_sentence(data: st.DataObject) -> None:
    with TemporaryDirectory() as name:
        folder = write(Path(name) / "state-3")
        content = bytearray((folder / PART).read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, len(content) - 53))] = data.draw(st.integers(0, 255))
        (folder / PART).write_bytes(content)
        seal(folder, index_of(folder))
        outcome(folder)


def outcome(folder: Path) -> None:
    try:
        rows, count = read(folder)
    except InputError:
        return
    assert rows.tolist() == [[3, 4, 5], [6, 7, 8]]
    assert count == 7


def pickled(target: Path) -> bytes:
    """A pickle that names nothing but `dataclass` and `StorageMeta` of torch.distributed.checkpoint.metadata.

    It gives the class a field whose name is Python, and `dataclass` compiles that: it touches `target`.
    """

    def named(name: str) -> bytes:
        return f"ctorch.distributed.checkpoint.metadata\n{name}\n".encode()

    def text(value: str) -> bytes:
        return b"X" + struct.pack("<I", len(value.encode())) + value.encode()

    def with_attribute(value: bytes, name: str, content: bytes) -> bytes:
        return value + b"N}" + text(name) + content + b"s\x86b0"  # (None, {name: content}) BUILD POP

    field = f'x"\n __import__("pathlib").Path({str(target)!r}).touch() #'
    switches = (
        "init",
        "repr",
        "eq",
        "order",
        "unsafe_hash",
        "frozen",
        "match_args",
        "kw_only",
        "slots",
        "weakref_slot",
    )
    defaults = b"}" + b"".join(text(name) + (b"\x88" if name == "repr" else b"\x89") + b"s" for name in switches)
    return b"".join(
        [
            b"\x80\x02",
            with_attribute(named("dataclass"), "__kwdefaults__", defaults),
            with_attribute(named("StorageMeta"), "__annotations__", b"}" + text(field) + named("StorageMeta") + b"s"),
            with_attribute(named("StorageMeta"), field, b"N"),
            named("dataclass") + named("StorageMeta") + b"\x85R.",
        ]
    )


def test_code_in_a_run_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Checkpoints once had a pickled index, which ran code under an allow-list of names."""
    target = tmp_path / "ran"
    pickle_file = tmp_path / "payload"
    pickle_file.write_bytes(pickled(target))
    line = f"import pickle; pickle.load(open({str(pickle_file)!r}, 'rb'))"
    subprocess.run([sys.executable, "-c", line], check=True)
    assert target.exists(), "the payload does nothing, so that this test proves nothing"
    target.unlink()

    run = tmp_path / "run"
    model = Embedder.create(ModelConfig("small", 16, {"width": 4}))
    state, content = run / "checkpoints" / "state-3", pickled(target)
    tensors = {f"backbone.{name}": value for name, value in model.backbone.state_dict().items()}
    write_state(state, tensors, {"step": 3, "model": model.description()})
    people = write_people(tmp_path / "people")
    config = {"data": {"train": str(people), "val": []}, "model": asdict(model.config)}
    config["data"]["batch_size"] = 12
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    for name in (".metadata", "__0_0.distcp"):
        (state / name).write_bytes(content)
    load(run)  # beside what is read, they are ignored

    files = {".metadata": {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}}
    write_index(state, {"format": "marginface state 1", "facts": {"step": 3}, "files": files})
    for words in (
        ["embed", str(run), str(people), f"-o={tmp_path / 'e.npz'}"],
        ["evaluate", str(run), f"--benchmark={people}"],
        ["export", str(run), "--to=onnx", f"-o={tmp_path / 'm.onnx'}"],
        ["train", f"--resume={run}", "--trainer.accelerator=cpu"],
    ):
        with pytest.raises(SystemExit, match="2"):
            cli.main(words)
        assert "in a format that can run code and is no longer read" in " ".join(capsys.readouterr().err.split()), words
    assert not target.exists()
