"""The note on how faces were aligned: written by align, carried by convert and training, compared with a model."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marginface import cli
from marginface.align import align_faces
from marginface.convert import convert
from marginface.embedder import Embedder, ModelConfig, Preprocessing
from marginface.errors import InputError
from marginface.faces.template import ARCFACE_112
from marginface.loading.alignment import NOTE, Alignment, describe_mismatch, read_alignment, write_alignment
from marginface.loading.loader import DataConfig
from marginface.readers import open_reader
from marginface.training.build import describe_alignment, preprocessing_of
from marginface.training.config import Config
from marginface.training.mixing import OldConfig
from people import write_people


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """A list of two people's photographs with five points each."""
    write_people(tmp_path / "images", people=2, images=2, size=250)
    numbers = "\t".join(f"{value:.1f}" for value in (ARCFACE_112 + 69).ravel())
    names = [f"p{person:02d}/p{person:02d}_{number:04d}.jpg" for person in range(2) for number in (1, 2)]
    (tmp_path / "images" / "landmarks.txt").write_text("".join(f"{name}\t{numbers}\n" for name in names))
    return tmp_path / "images" / "landmarks.txt"


@given(st.sampled_from(["arcface", "openvino"]), st.sampled_from([96, 112, 160, 224, 336]))
def test_scaled_faces_suit_and_others_do_not(name: str, size: int) -> None:
    assert Alignment(name, size).suits(Alignment(name, 112))
    assert not Alignment(name, size).suits(Alignment("openvino" if name == "arcface" else "arcface", size))


def test_insightface_moves_the_points_of_multiples_of_128() -> None:
    assert not Alignment("arcface", 128).suits(Alignment("arcface", 112))
    assert Alignment("arcface", 256).suits(Alignment("arcface", 128))
    assert Alignment("openvino", 128).suits(Alignment("openvino", 112))
    assert not Alignment("arcface96", 112).suits(Alignment("arcface", 112))  # scaled to a square it is larger


def test_from_align_through_convert_and_training_to_the_model(photographs: Path, tmp_path: Path) -> None:
    faces, openvino = tmp_path / "faces", Alignment("openvino", 128)
    align_faces(open_reader(photographs), faces, 128, template="openvino")
    assert read_alignment(faces) == openvino
    assert open_reader(faces).left_out == {}
    for to in ("folder", "recordio", "parquet", "webdataset"):
        convert(str(faces), tmp_path / to, to)
        assert len(open_reader(tmp_path / to)) == 4
        assert read_alignment(tmp_path / to) == openvino
    assert read_alignment(tmp_path / "recordio" / "train.rec") == openvino
    learned = preprocessing_of(DataConfig(train=str(tmp_path / "recordio"), size=128))
    assert learned == Preprocessing(128, template="openvino")
    assert preprocessing_of(DataConfig(train=str(tmp_path / "images"))) == Preprocessing()
    assert preprocessing_of(DataConfig(train="synthetic:identities=2,images=2")) == Preprocessing()
    Embedder.create(ModelConfig("mobilefacenet-se", 8), learned).save(tmp_path / "model")
    assert Embedder.load(tmp_path / "model").preprocessing == learned


def test_a_set_of_another_template_is_noticed_in_training(photographs: Path, tmp_path: Path) -> None:
    align_faces(open_reader(photographs), tmp_path / "wide", 112, template="openvino")
    align_faces(open_reader(photographs), tmp_path / "faces", 112)
    config = Config(data=DataConfig(train=str(tmp_path / "faces")), old=OldConfig(train=str(tmp_path / "wide")))
    assert describe_alignment(config, Preprocessing(), []) == [
        f"{tmp_path / 'wide'}: its faces are aligned to the template openvino at 112 pixels, the model takes the "
        f"template arcface at 112 pixels, which costs accuracy; align the photographs with --template arcface "
        f"--size 112"
    ]
    assert describe_mismatch("set", None, "arcface", 4) == ""


@pytest.mark.parametrize("verb", ["evaluate", "embed", "inspect"])
def test_verbs_notice_it_in_one_sentence(
    verb: str,
    photographs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    faces, model = str(tmp_path / "faces"), str(tmp_path / "model")
    align_faces(open_reader(photographs), faces, 112, template="openvino")
    Embedder.create(ModelConfig("small", 8, {"width": 4})).save(model)
    command = {
        "evaluate": ["evaluate", model, "--report=", "--benchmark", f"closedset:{faces}"],
        "embed": ["embed", model, faces, "-o=e.npz"],
        "inspect": ["inspect", faces, f"--model={model}"],
    }[verb]
    cli.main(command)
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("aligned to the template openvino at 112 pixels") == 1


def test_one_folder_holds_one_alignment(photographs: Path, tmp_path: Path) -> None:
    align_faces(open_reader(photographs), tmp_path / "faces")
    with pytest.raises(InputError, match=r"faces aligned to the template arcface at 112 pixels, not to the .*openvino"):
        align_faces(open_reader(photographs), tmp_path / "faces", template="openvino")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b'{"template": "nowhere", "size": 112}',
        b'{"template": "arcface", "size": "112"}',
        b'{"template": "arcface", "size": true}',
        b'{"template": "arcface", "size": -5}',
        b'{"template": ["arcface"], "size": 112}',
        b'{"template": "arcface", "size": 112, "run": "me"}',
        b'{"template": "arcface", "size": 112}' + b" " * 5000,
        b"[" * 4000,
        b"\xff\xfe\x00",
    ],
)
def test_a_strangers_note_is_refused_in_a_sentence(content: bytes, tmp_path: Path) -> None:
    (tmp_path / NOTE).write_bytes(content)
    with pytest.raises(InputError, match=r"\.alignment\.json"):
        read_alignment(tmp_path)


def test_a_note_that_leads_out_is_refused(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    write_alignment(tmp_path, Alignment())
    (tmp_path / "set" / NOTE).symlink_to(tmp_path / NOTE)
    with pytest.raises(InputError, match="allow-outside"):
        read_alignment(tmp_path / "set")
    assert read_alignment(tmp_path / "set", allow_outside=True) == Alignment()
