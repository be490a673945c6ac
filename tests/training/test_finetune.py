"""Fine-tuning: what is frozen stays bit for bit, class means beat random weights, resuming is exact with all of it."""

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file
from torch import Tensor, nn

from marginface.backbones import create_backbone, list_backbones
from marginface.embedder import Embedder, ModelConfig, Preprocessing
from marginface.errors import InputError, Stopped
from marginface.loading.loader import DataConfig, Loader
from marginface.margins import create_margin
from marginface.readers import open_reader
from marginface.softmax import MarginSoftmax
from marginface.training.config import Config, LoopConfig, MarginConfig, TrainerConfig
from marginface.training.finetune import ClassMeans, Frozen, first_of_each, load_start, start_head, take_published_head
from marginface.training.loop import Trainer
from marginface.training.mixing import OldConfig
from marginface.training.monitor import read_metrics
from marginface.training.optim import OptimConfig
from marginface.training.start import launch, start_training
from marginface.weights.heads import HEAD
from people import write_people

SMALL = ModelConfig("small", 16, {"width": 4})
QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained model, the people it knows (old), new ones, and others to be judged by."""
    folder = tmp_path_factory.mktemp("finetune")
    for seed, name in enumerate(("old", "new", "others")):
        write_people(folder / name, people=16, seed=seed)
    config = Config(
        name="base",
        output=str(folder / "runs"),
        data=DataConfig(train=str(folder / "old"), batch_size=16),
        model=SMALL,
        margin=MarginConfig("cosface", {"s": 16.0, "m": 0.1}),
        optim=OptimConfig(lr=0.1),
        train=LoopConfig(epochs=4),
        trainer=TrainerConfig(accelerator="cpu"),
    )
    start_training(config, resume="", numbered=False, command="test", console=QUIET)
    return folder


def tuned(folder: Path, name: str, **changes: Any) -> Config:
    """A fine-tuning of the base model, with everything on that has a state of its own."""
    return replace(
        Config(
            name=name,
            output=str(folder / "runs"),
            init_from=str(folder / "runs" / "base"),
            data=DataConfig(
                train=str(folder / "new"), val=[f"pairs:{folder / 'others'}", f"pairs:{folder / 'old'}"], batch_size=16
            ),
            old=OldConfig(str(folder / "old"), 0.25),
            margin=MarginConfig("adaface"),
            optim=OptimConfig(lr=0.02, first_layer=0.1, ema=0.9),
            train=LoopConfig(epochs=2.5, freeze="trunk.1,trunk.2", freeze_norms=True, eval_every=4, log_every=1),
            trainer=TrainerConfig(accelerator="cpu"),
        ),
        **changes,
    )


def unjudged(config: Config) -> Config:
    return replace(config, data=replace(config.data, val=[]))


def run(config: Config, resume: str = "") -> Path:
    start_training(config, resume=resume, numbered=False, command="test", console=QUIET)
    return Path(config.output) / config.name


def weights(model: Path) -> dict[str, Tensor]:
    return Embedder.load(model).backbone.state_dict()


def test_a_run_killed_and_resumed_is_the_same_bit_for_bit(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(tuned(base, "whole"))
    step = Trainer.train_step

    def interrupted(self: Trainer, *arguments: Any) -> Tensor:
        if self.step == 6:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, *arguments)

    monkeypatch.setattr(Trainer, "train_step", interrupted)
    with pytest.raises(Stopped):
        run(tuned(base, "stopped"))
    monkeypatch.setattr(Trainer, "train_step", step)
    (base / "runs" / "base").rename(base / "runs" / "gone")  # a run keeps what it began with
    try:
        stopped = run(tuned(base, "stopped"), resume=str(base / "runs" / "stopped"))
    finally:
        (base / "runs" / "gone").rename(base / "runs" / "base")
    assert (stopped / "model" / "model.safetensors").read_bytes() == (
        whole / "model" / "model.safetensors"
    ).read_bytes()
    timeless = [
        [
            {k: v for k, v in row.items() if k not in ("images_per_second", "data_wait", "memory")}
            for row in read_metrics(f)
        ]
        for f in (stopped / "metrics.csv", whole / "metrics.csv")
    ]
    assert timeless[0] == timeless[1]
    assert timeless[0][0]["step"] == "0"  # judged before it began


def test_what_is_frozen_stays_bit_for_bit(base: Path) -> None:
    train = LoopConfig(epochs=1, freeze="trunk")
    after = weights(run(unjudged(tuned(base, "frozen", train=train))) / "model")
    before = weights(base / "runs" / "base" / "model")
    for name, value in before.items():
        assert torch.equal(value, after[name]) == (name.startswith("trunk.") or name.endswith("affine")), name


def test_frozen_norms_keep_statistics_and_learn_weights(base: Path) -> None:
    train = LoopConfig(epochs=1, freeze_norms=True)
    after = weights(run(unjudged(tuned(base, "norms", train=train))) / "model")
    before = weights(base / "runs" / "base" / "model")
    for name, value in before.items():
        assert torch.equal(value, after[name]) == ("running" in name or "batches" in name), name


def test_the_report_shows_before_and_after_on_both_domains(base: Path) -> None:
    folder = run(tuned(base, "report", train=LoopConfig(epochs=1)))
    page = (folder / "report.html").read_text()
    assert "before fine-tuning" in page
    assert "after fine-tuning" in page
    assert all(name in page for name in ("others", "old"))


def test_it_stops_early_and_keeps_the_best(base: Path) -> None:
    """With a learning rate that ruins the network, the model it began with remains."""
    config = tuned(
        base, "early", optim=OptimConfig(lr=30.0), train=LoopConfig(epochs=100, eval_every=2, patience=3, log_every=1)
    )
    folder = run(config)
    rows = [row for row in read_metrics(folder / "metrics.csv") if row["others_accuracy"]]
    accuracies = [np.mean([float(row["others_accuracy"]), float(row["old_accuracy"])]) for row in rows]
    assert len(rows) - 1 - int(np.argmax(accuracies)) == 3
    kept = weights(folder / "model")
    best = weights(folder / "checkpoints" / "best")
    assert all(torch.equal(kept[name], best[name]) for name in best)


def test_class_means_beat_random_weights(base: Path) -> None:
    """The loss on new people after a few steps."""
    losses = {}
    for head in ("class_means", "random"):
        config = tuned(base, head, init_head=head, old=OldConfig(), train=LoopConfig(epochs=2, log_every=1))
        config.margin = MarginConfig("cosface", {"s": 16.0, "m": 0.1})
        rows = read_metrics(run(unjudged(config)) / "metrics.csv")
        losses[head] = [float(row["loss"]) for row in rows if row["loss"]]
    assert len(losses["random"]) == 8
    assert np.mean(losses["class_means"]) < np.mean(losses["random"]) - 0.5


def test_class_weights_point_to_the_means(base: Path) -> None:
    model = load_start(base / "runs" / "base")
    data = DataConfig(train=str(base / "new"), batch_size=16)
    reader = open_reader(data.train)
    loader = Loader(reader, data, seed=0)
    parts = [ClassMeans(model, loader, rank, 3) for rank in range(3)]
    whole = ClassMeans(model, loader)
    whole.sums, whole.moments = sum(p.sums for p in parts), sum(p.moments for p in parts)  # type: ignore[assignment]
    head = MarginSoftmax(16, reader.num_classes, create_margin("adaface"))
    start_head(head, whole)
    images, labels = loader.plain(np.arange(len(reader)))
    x = nn.functional.normalize(torch.from_numpy(next(model.raw([images], flip=False))))
    means = torch.stack([x[labels == label].mean(0) for label in range(reader.num_classes)])
    torch.testing.assert_close(nn.functional.cosine_similarity(head.weight, means), torch.ones(len(means)))
    torch.testing.assert_close(head.weight.norm(dim=1), torch.ones(len(means)))
    norms = np.linalg.norm(next(model.raw([images], flip=False)), axis=1)
    torch.testing.assert_close(
        dict(head.margin.named_buffers())["batch_mean"].item(), norms.mean().item(), rtol=1e-4, atol=0
    )
    torch.testing.assert_close(
        dict(head.margin.named_buffers())["batch_std"].item(), norms.std().item(), rtol=1e-3, atol=0
    )


def test_sub_centers_spread_about_the_mean(base: Path) -> None:
    model = load_start(base / "runs" / "base")
    data = DataConfig(train=str(base / "new"), batch_size=16)
    means = ClassMeans(model, Loader(open_reader(data.train), data, seed=0))
    head = MarginSoftmax(16, 16, create_margin("arcface"), sub_centers=3)
    start_head(head, means)
    unit = nn.functional.normalize(head.weight).reshape(16, 3, 16)
    cosines = (unit * nn.functional.normalize(means.sums)[:, None]).sum(2)
    assert (cosines > 0.6).all()
    assert ((unit[:, 0] * unit[:, 1]).sum(1) < 0.9999).all()


def test_published_class_weights_come_along_with_their_people(base: Path, tmp_path: Path) -> None:
    model = load_start(base / "runs" / "base")
    data = DataConfig(train=str(base / "new"), batch_size=16)
    means = ClassMeans(model, Loader(open_reader(data.train), data, seed=0))
    published = 3 * nn.functional.normalize(means.sums) + 0.1 * torch.randn(means.sums.shape)
    model.save(tmp_path / "model")
    save_file({"weight": published, "margin.batch_mean": torch.tensor([7.0])}, tmp_path / "model" / HEAD)
    given: dict[str, Any] = {"init_from": str(tmp_path / "model"), "model": SMALL}
    config = tuned(base, "published", **given, old=OldConfig(), train=LoopConfig(epochs=1))
    trainer = Trainer(unjudged(config), launch(config.trainer), QUIET, load_start(tmp_path / "model"))
    trainer.start_from_faces()
    assert torch.equal(trainer.head.weight, published)
    assert dict(trainer.head.margin.named_buffers())["batch_mean"].item() == 7
    before = trainer.head.weight.clone()
    other = {"weight": published.roll(5, 0)}  # as many people, but others
    save_file(other, tmp_path / "model" / HEAD)
    assert not take_published_head(trainer.head, tmp_path / "model", means)
    assert torch.equal(trainer.head.weight, before)
    assert not take_published_head(trainer.head, base / "runs" / "base", means)  # it has no class weights


def test_class_weights_inside_a_checkpoint_come_along(base: Path, tmp_path: Path) -> None:
    """AdaFace's file holds network, class weights and statistics."""
    torch.manual_seed(0)
    network = create_backbone("ir18", 512).eval()
    data = DataConfig(train=str(base / "new"), batch_size=16)
    torch.save({"state_dict": {f"model.{k}": v for k, v in network.state_dict().items()}}, tmp_path / "bare.ckpt")
    means = ClassMeans(load_start(tmp_path / "bare.ckpt"), Loader(open_reader(data.train), data, seed=0))
    means.sums -= means.sums.mean(0)  # a fresh network thinks all people alike
    state = {f"model.{key}": value for key, value in network.state_dict().items()}
    state |= {"head.kernel": means.sums.T.contiguous(), "head.batch_mean": torch.tensor([[9.0]])}
    torch.save({"state_dict": state}, tmp_path / "adaface.ckpt")
    head = MarginSoftmax(512, 16, create_margin("adaface"))
    assert take_published_head(head, tmp_path / "adaface.ckpt", means)
    assert torch.equal(head.weight, means.sums)
    assert dict(head.margin.named_buffers())["batch_mean"].item() == 9


def test_first_of_each_class() -> None:
    assert first_of_each(np.array([1, 0, 1, 1, 0, 2]), 2).tolist() == [0, 1, 2, 4, 5]


def test_a_published_checkpoint_is_a_start(tmp_path: Path) -> None:
    torch.manual_seed(0)
    backbone = create_backbone("iresnet18", 512)
    torch.save(backbone.state_dict(), tmp_path / "backbone.pth")
    start = load_start(tmp_path / "backbone.pth")
    assert (start.config.backbone, start.config.num_features) == ("iresnet18", 512)
    assert start.preprocessing == Preprocessing(112, 127.5, 127.5)
    assert all(torch.equal(value, backbone.state_dict()[name]) for name, value in start.backbone.state_dict().items())


@pytest.mark.parametrize("name", [*list_backbones(), "timm:resnet18", "timm:efficientnet_b0", "timm:convnext_atto"])
def test_parts_mean_the_same_for_every_network(name: str) -> None:
    """The stem runs before everything else, the embedding layer behind it; together with the trunk they are all."""
    with torch.device("meta"):
        net = create_backbone(name, 16).eval()
    leaves = {one: path for path, one in net.named_modules() if not list(one.children()) and list(one.parameters())}
    order: list[str] = []
    for leaf, path in leaves.items():
        leaf.register_forward_hook(lambda *_, path=path: order.append(path))
    with torch.no_grad():
        net(torch.zeros(2, 3, *net.image_size, device="meta"))
    still = {}
    for part in ("stem", "trunk", "embedding"):
        for parameter in net.parameters():
            parameter.requires_grad_(True)
        Frozen(net, part)
        still[part] = {path for leaf, path in leaves.items() if not next(leaf.parameters()).requires_grad}
    assert set(order) == set(leaves.values())
    assert set(order[: len(still["stem"])]) == still["stem"]
    assert set(order[len(still["trunk"]) :]) == still["embedding"]
    assert still["stem"] < still["trunk"] == set(order) - still["embedding"]


def test_stem_is_what_comes_before_the_blocks() -> None:
    with torch.device("meta"):
        net = create_backbone("iresnet18", 512)
    Frozen(net, "stem,layer1")
    still = {name.partition(".")[0] for name, parameter in net.named_parameters() if not parameter.requires_grad}
    assert still == {"conv1", "bn1", "prelu", "layer1", "features"}  # the last one's scale is always 1


@pytest.mark.parametrize(
    ("freeze", "message"),
    [("layer9", "no part 'layer9'.*stem, trunk, embedding"), ("trunk,embed", "nothing")],
)
def test_impossible_freezing_is_refused(freeze: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Frozen(create_backbone("small", 8, width=4), freeze)


def test_patience_needs_evaluations() -> None:
    with pytest.raises(InputError, match="eval_every"):
        LoopConfig(patience=2)
    with pytest.raises(InputError, match=r"data\.val"):
        Config(train=LoopConfig(patience=2, eval_every=10))
