"""Checkpoints of a user's own class around a network, and files that hold several networks."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import marginface
from marginface import cli
from marginface.backbones import create_backbone
from marginface.errors import InputError
from marginface.weights import import_checkpoint, recognise

State = dict[str, Tensor]
NETWORKS = {
    "iresnet18": "insightface",
    "ir18": "adaface",
    "mobilefacenet": "insightface",
    "mobilefacenet-se": "openvino",
    "vit-tiny": "insightface",
    "sphere20": "sphereface",
}


def state_of(backbone: str, seed: int = 0) -> State:
    torch.manual_seed(seed)
    options = {"image_size": (112, 96)} if backbone == "sphere20" else {}
    return create_backbone(backbone, 8, **options).state_dict()


def inside(prefix: str, state: State) -> State:
    return {prefix + key: value for key, value in state.items()}


@pytest.fixture(scope="module")
def bare() -> dict[str, State]:
    return {name: state_of(name) for name in NETWORKS}


@pytest.mark.parametrize("prefix", ["backbone.", "model.", "net.", "encoder.", "student.", "a.b.c.", "module.net_1."])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_class_around_the_network_changes_nothing(name: str, prefix: str, bare: dict[str, State]) -> None:
    plain = recognise(dict(bare[name]))
    wrapped = recognise(inside(prefix, bare[name]) | {"criterion.weight": torch.ones(3), "scale": torch.ones(())})
    assert plain.source == NETWORKS[name]
    assert (wrapped.backbone, wrapped.num_features) == (plain.backbone, plain.num_features)
    if name == "ir18" and prefix == "net.":  # CVLface's own, which takes RGB
        assert wrapped.source == "cvlface"
        return
    assert wrapped.source in (plain.source, "cvlface")
    assert wrapped.options == plain.options
    assert wrapped.usage == plain.usage
    assert all(torch.equal(value, wrapped.state_dict[key]) for key, value in plain.state_dict.items())
    assert any("criterion.weight" in note for note in wrapped.notes)
    known = {("net.", name) for name in ("iresnet18", "vit-tiny")} | {("model.", "ir18")}
    shown = prefix.removeprefix("module.")
    assert ((prefix, name) in known) or any(f"removed the prefix {shown} before" in note for note in wrapped.notes)


def test_a_project_of_the_same_prefix_is_known_by_its_class_weights(bare: dict[str, State]) -> None:
    own = inside("backbone.", bare["iresnet18"])
    assert recognise(own | {"header.weight": torch.ones(3, 8)}).source == "femb"
    assert recognise(own).source == "insightface"
    told = recognise(own, source="femb")
    assert (told.source, told.options["bn_eps"]) == ("femb", 2e-5)
    magface = recognise(inside("student.", bare["iresnet18"]), source="magface")
    assert (magface.source, magface.usage.std) == ("magface", 255.0)


def test_what_only_looks_like_a_prefix_is_refused(bare: dict[str, State]) -> None:
    cut = {key: value for key, value in inside("net2.", bare["iresnet18"]).items() if "layer3" not in key}
    with pytest.raises(InputError, match="keys do not fit"):
        recognise(cut)
    with pytest.raises(InputError, match="is not recognised"):
        recognise({"net2.fc.weight": torch.ones(2, 2), "net2.prelu.weight": torch.ones(2)})


def write(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


@pytest.fixture(scope="module")
def two() -> tuple[State, State]:
    return state_of("mobilefacenet", 1), state_of("mobilefacenet", 2)


def holds(path: Path, state: State, **words: Any) -> bool:
    taken = import_checkpoint(path, **words).state_dict
    return all(torch.equal(value, taken[key]) for key, value in state.items())


@pytest.mark.parametrize(
    ("names", "first"),
    [
        (("model", "ema"), "model"),
        (("ema", "model"), "model"),
        (("model", "state_dict"), "state_dict"),
        (("model_ema", "state_dict"), "state_dict"),
        (("student", "teacher"), "student"),
        (("teacher", "student"), "teacher"),
    ],
)
def test_of_several_networks_one_is_taken_and_the_choice_told(
    names: tuple[str, str], first: str, two: tuple[State, State], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    states = dict(zip(names, two, strict=True))
    optimizer = {"state": {0: {"momentum_buffer": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}
    path = write(tmp_path / "both.pth", {"optimizer": optimizer, "epoch": 3, **states})
    (other,) = set(names) - {first}
    assert holds(path, states[first])
    assert holds(path, states[first], part=first)
    assert holds(path, states[other], part=other)
    sentence = f"took the network {first}; choose another with --part: {other}"
    assert import_checkpoint(path).notes[0] == sentence
    assert marginface.load(path).notes["import"][0] == sentence
    with pytest.raises(InputError, match=rf"holds no network 'nowhere'; it holds {first}, {other}"):
        import_checkpoint(path, part="nowhere")
    cli.main(["import", str(path), "--part", other])
    assert f"choose another with --part: {first}" in " ".join(capsys.readouterr().out.split())
    (tmp_path / "faces").mkdir()
    with pytest.raises(SystemExit):
        cli.main(["embed", str(path), str(tmp_path / "faces"), "-o", str(tmp_path / "emb.npz")])
    assert sentence in capsys.readouterr().err


def test_several_networks_in_one_state_dict(two: tuple[State, State], tmp_path: Path) -> None:
    both = inside("student.", two[0]) | inside("teacher.module.", two[1]) | {"centre": torch.ones(4)}
    path = write(tmp_path / "dino.ckpt", {"state_dict": both})
    assert holds(path, two[0])
    assert holds(path, two[1], part="state_dict.teacher.module")
    assert "choose another with --part: state_dict.teacher.module" in import_checkpoint(path).notes[0]
    ahead = write(tmp_path / "ahead.pth", two[0] | inside("ema.", two[1]))
    assert holds(ahead, two[0])
    assert holds(ahead, two[1], part="ema")


def test_a_network_further_in_is_found(two: tuple[State, State], tmp_path: Path) -> None:
    deep = {"trainer": {"last": {"network": inside("encoder.", two[0])}}, "optimizer": {"state": {0: torch.ones(2)}}}
    assert holds(write(tmp_path / "deep.pth", deep), two[0])
    assert import_checkpoint(tmp_path / "deep.pth", part="trainer.last.network").backbone == "mobilefacenet"
    only = write(tmp_path / "only.pth", {"model_ema": two[0], "epoch": 1})
    assert not any("took the network" in note for note in import_checkpoint(only).notes)


def test_dictionaries_that_hold_each_other_end(two: tuple[State, State], tmp_path: Path) -> None:
    """A hundred names for the same dictionary, on each of four levels, are one dictionary each."""
    inner: dict[str, Any] = {"weights": two[0]}
    for _ in range(4):
        inner = {f"{number}": inner for number in range(100)}
    with pytest.raises(InputError, match="holds no tensors where weights are kept"):
        import_checkpoint(write(tmp_path / "knot.pth", inner))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_refused_with_the_tensors_name(
    bad: float, two: tuple[State, State], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = {key: value.clone() for key, value in two[0].items()}
    state["features.layers.2.weight"][3, 5] = bad
    path = write(tmp_path / "diverged.pth", state)
    for words in (["import", str(path)], ["export", str(path), "--to=pt2", "-o", str(tmp_path / "a.pt2")]):
        with pytest.raises(SystemExit, match="2"):
            cli.main(words)
        told = capsys.readouterr().err
        assert f"{path}: features.layers.2.weight holds NaN or infinity" in told
        assert told.count("\n") == 1
    with pytest.raises(InputError, match=r"class weights holds NaN or infinity"):
        import_checkpoint(write(tmp_path / "good.pth", two[0] | {"softmax_fc.weight": torch.full((3, 8), bad)}))


@pytest.mark.parametrize(
    "shape", [(), (0,), (3,), (0, 0), (1, 1, 1, 1, 1), (20_000, 1)], ids=lambda shape: str(shape).replace(" ", "")
)
@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("iresnet18", "fc.weight"),
        ("ir18", "body.0.res_layer.4.weight"),
        ("ir18", "output_layer.3.weight"),
        ("mobilefacenet", "layers.0.layers.0.weight"),
        ("vit-tiny", "norm.weight"),
        ("vit-tiny", "blocks.0.mlp.fc1.weight"),
        ("vit-tiny", "patch_embed.proj.weight"),
        ("sphere20", "fc5.weight"),
    ],
)
def test_tensors_of_odd_shapes_are_differences(
    name: str, key: str, shape: tuple[int, ...], bare: dict[str, State]
) -> None:
    """The layout is read off shapes; whatever they are, the answer is a sentence that names the file."""
    with pytest.raises(InputError, match=r"^odd\.pth"):
        recognise(bare[name] | {key: torch.zeros(shape)}, name="odd.pth")
