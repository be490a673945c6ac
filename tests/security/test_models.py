"""A stranger's model, opened in every way: refused in a sentence, nothing fetched, no memory taken for its claims."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import marginface
from bounded import outcome
from hostile_models import HOSTILE, SMALL, answers, leaves, openings, replaced, without_network, write_model
from marginface.embedder import Embedder, ModelConfig
from marginface.errors import InputError
from marginface.export import export
from marginface.gallery.models import open_model

Opening = tuple[str, str, list[str]]
Answer = tuple[int, str, list[str]]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("hostile")
    return {name: make(base / str(number) / "model") for number, (name, make) in enumerate(HOSTILE.items())}


@pytest.fixture(scope="module")
def opened(folders: dict[str, Path]) -> dict[str, Opening]:
    """All of them in one process, which together may take no more than a gigabyte and a minute."""
    kind, found = outcome(openings, list(folders.values()), seconds=60)
    assert kind == "returned", found
    return dict(zip(folders, found, strict=True))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_model_is_refused_in_a_sentence(
    name: str, opened: dict[str, Opening], folders: dict[str, Path]
) -> None:
    end, message, asked = opened[name]
    assert end == "refused", message
    assert message.startswith(str(folders[name]))
    assert len(message) - len(str(folders[name])) < 600
    assert message.isprintable()
    assert not asked


VERBS = {
    "evaluate": "evaluate MODEL --benchmark synthetic:identities=20,images=2 --report=",
    "embed": "embed MODEL faces -o emb.npz",
    "export": "export MODEL --to pt2 -o model.pt2",
    "push": "push MODEL org/name",
    "inspect": "inspect faces --model MODEL",
    "compare": "compare MODEL good --benchmark synthetic:identities=20,images=2 --report=",
    "gallery": "gallery list --model MODEL",
    "init_from": "train --init_from MODEL --data.train=synthetic:identities=20,images=4 --data.batch_size=8",
}
SOME = [
    "config: num_features 0",
    "config: size 0",
    "config: options a list",
    "config: nested",
    "config: timm weights",
    "config: timm deep",
    "weights: NaN",
    "weights: one more",
    "weights: large header",
    "header: huge shape",
    "file: FIFO for weights",
]


@pytest.fixture(scope="module")
def verbs(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Answer]:
    """What every verb says of some of them, all in one process, which leaves nothing behind."""
    here = tmp_path_factory.mktemp("verbs")
    write_model(here / "good")
    for number in range(4):
        path = here / "faces" / f"{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (112, 112, 3), np.uint8)).save(path)
    before = {path.name for path in here.iterdir()}
    calls = {
        (verb, name): [word.replace("MODEL", str(folders[name])) for word in words.split()]
        for verb, words in VERBS.items()
        for name in SOME
    }
    kind, found = outcome(answers, list(calls.values()), str(here), seconds=90)
    assert kind == "returned", found
    assert {path.name for path in here.iterdir()} == before
    return dict(zip(calls, found, strict=True))


@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_refuses_it(
    verb: str, name: str, verbs: dict[tuple[str, str], Answer], folders: dict[str, Path]
) -> None:
    code, told, asked = verbs[verb, name]
    assert code == 2, told
    assert told.startswith(f"marginface: {folders[name]}"), told
    assert told.count("\n") == 1, told
    assert not asked


VALID: dict[str, Any] = Embedder.create(SMALL).description() | {"notes": {"source": "a test", "threshold": []}}
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(0, 2000)
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(["small", "timm:resnet18", "iresnet18", "add", "norm", "RGB", "marginface 1", 10**400]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_change_to_a_description_is_opened_or_refused(data: st.DataObject, tmp_path: Path) -> None:
    """What opens is the network of the file, and of no other size."""
    model = tmp_path / "model"
    if not model.exists():
        write_model(model)
    place = data.draw(st.sampled_from(list(leaves(VALID))))
    changed = replaced(VALID, place, data.draw(json_values))
    (model / "config.json").write_text(json.dumps(changed))
    ((end, message, asked),) = openings([model])
    assert not asked
    if end == "opened":
        found = marginface.load(model)
        assert found.config == SMALL
        embeddings = next(found.raw([np.zeros((2, *found.preprocessing.image_size, 3), np.uint8)]))
        assert embeddings.shape == (2, found.length())
        return
    assert end == "refused", message
    assert message.startswith(str(model))
    assert message.isprintable()
    assert len(message) < 1000


def test_what_a_model_was_trained_from_is_not_fetched_again(tmp_path: Path) -> None:
    """`pretrained` in a description would make timm fetch weights only to replace them."""
    pytest.importorskip("timm")
    model = Embedder.create(ModelConfig("timm:resnet18", 8, {"drop_path_rate": 0.1}))
    model.save(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    config["model"]["options"]["pretrained"] = True
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    asked: list[str] = []
    with without_network(asked):
        again = marginface.load(tmp_path / "model")
    assert not asked
    assert again.config == model.config
    faces = np.random.default_rng(0).integers(0, 256, (2, 112, 112, 3), np.uint8)
    assert np.array_equal(next(again.raw([faces])), next(model.raw([faces])))


@pytest.mark.parametrize(
    ("backbone", "options"),
    [
        ("small", {"width": 4}),
        ("gradient", {"width": 8}),
        ("vit-tiny", {"mask_ratio": None, "heads": 4}),
        ("sphere20", {"image_size": [112, 112]}),
        ("iresnet18", {"se": True, "bn_eps": 2e-5, "init": "kaiming", "freeze_scale": False}),
        ("timm:resnet18", {"image_size": 64}),
        ("timm:resnetblur50", {}),
        ("timm:levit_128s", {"image_size": 224}),
    ],
)
def test_a_model_opens_as_it_was_saved_to_the_last_bit(backbone: str, options: Any, tmp_path: Path) -> None:
    """Buffers that are computed and not stored among it, and what learns."""
    if backbone.startswith("timm:"):
        pytest.importorskip("timm")
    torch.manual_seed(0)
    model = Embedder.create(ModelConfig(backbone, 16, options))
    size = model.backbone.image_size[0]
    model.preprocessing.size = size
    model.save(tmp_path / "model")
    again = marginface.load(tmp_path / "model")
    ours, theirs = (dict([*m.backbone.named_parameters(), *m.backbone.named_buffers()]) for m in (model, again))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert all(value.requires_grad == theirs[name].requires_grad for name, value in ours.items())
    assert again.config == ModelConfig(backbone, 16, options)
    faces = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), np.uint8)
    assert np.array_equal(next(again.raw([faces])), next(model.raw([faces])))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_in_other_precisions_open(dtype: torch.dtype, tmp_path: Path) -> None:
    model = Embedder.create(SMALL)
    model.backbone.to(dtype)
    model.save(tmp_path / "model")
    again = marginface.load(tmp_path / "model")
    for value, stored in zip(again.backbone.state_dict().values(), model.backbone.state_dict().values(), strict=True):
        assert value.dtype in (torch.float32, torch.int64)
        assert torch.equal(value, stored.to(value.dtype))


def test_embeddings_that_overflow_are_refused(tmp_path: Path) -> None:
    model = Embedder.create(SMALL)
    for parameter in model.backbone.parameters():
        parameter.data.fill_(1e30)
    model.save(tmp_path / "model")
    faces = np.full((3, 112, 112, 3), 200, np.uint8)
    with pytest.raises(InputError, match=r"gives NaN or infinity for image 0 \(3 of 3\)"):
        marginface.load(tmp_path / "model").embed(faces)
    with pytest.raises(InputError, match="gives NaN or infinity"):
        open_model(str(tmp_path / "model")).embed(list(faces))


def test_a_diverged_network_is_not_exported(tmp_path: Path) -> None:
    model = Embedder.create(SMALL)
    next(model.backbone.parameters()).data[0] = float("nan")
    for to in ("pt2", "safetensors", "insightface-pth"):
        with pytest.raises(InputError, match=r"small: trunk\.1\.weight holds NaN or infinity"):
            export(model, tmp_path / "out", to)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "advice",
    [
        3, "0.1", [3], [{}], [{"far": 0.1}], [{"far": "0.1", "threshold": 0.5}], [{"far": 0.1, "threshold": None}],
        [{"far": float("nan"), "threshold": 0.5}], [{"far": 0.1, "threshold": 1e999}], [{"far": 0, "threshold": 0.5}],
    ],
)  # fmt: skip
def test_thresholds_of_a_stranger_are_checked(advice: Any, tmp_path: Path) -> None:
    model = Embedder.create(SMALL)
    model.notes["threshold"] = advice
    model.save(tmp_path / "model")
    with pytest.raises(InputError, match=r"config\.json: notes\.threshold is no list of thresholds"):
        open_model(str(tmp_path / "model"))
