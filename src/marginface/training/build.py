"""What a run is made of, from its configuration: data, head, batch norms of several processes. For the loop."""

from collections.abc import Sequence
from dataclasses import asdict
from itertools import count

import numpy as np
import torch
from torch import nn

from marginface.backbones import Backbone, backbone_options
from marginface.embedder import Preprocessing
from marginface.errors import InputError
from marginface.evaluate import Benchmark
from marginface.loading.alignment import describe_mismatch, read_alignment
from marginface.loading.loader import Batch, DataConfig, Loader
from marginface.margins import Margin, create_margin, margin_parameters
from marginface.margins.binary import BinaryMargin
from marginface.readers import open_reader
from marginface.readers.base import Reader
from marginface.softmax import MarginSoftmax
from marginface.training.config import Config
from marginface.training.mixing import MixedLoader


def create_loader(config: Config, rank: int, world_size: int) -> Loader | MixedLoader:
    """The training set of a process."""
    reader = open_reader(config.data.train, config.data.allow_outside)
    if config.old.train:
        return MixedLoader(reader, config.data, config.old, config.seed, rank, world_size)
    return Loader(reader, config.data, config.seed, rank, world_size)


def preprocessing_of(data: DataConfig) -> Preprocessing:
    """What a network that learns from these faces expects of an image."""
    found = read_alignment(data.train, data.allow_outside)
    return Preprocessing(data.size, template="openvino" if found and found.template == "openvino" else "arcface")


def describe_alignment(config: Config, model: Preprocessing, benchmarks: Sequence[Benchmark]) -> list[str]:
    """A sentence for each set of the run whose faces are aligned otherwise than the model takes them."""
    sets = [(spec, read_alignment(spec, config.data.allow_outside)) for spec in (config.data.train, config.old.train)]
    sets += [(benchmark.name, benchmark.images.alignment) for benchmark in benchmarks]
    sentences = [describe_mismatch(name, found, model.template, model.size) for name, found in sets if name]
    return [sentence for sentence in sentences if sentence]


def create_head(config: Config, reader: Reader, world_size: int) -> MarginSoftmax:
    """The head over the people of `reader`, split over all processes."""
    group = torch.distributed.group.WORLD if world_size > 1 else None
    options = {**asdict(config.softmax), "seed": config.seed, "process_group": group}
    if (reader.labels >= 0).all():
        options["unlabelled"] = "none"  # and so nothing waits for the device to count them
    margin = _margin(config, reader.num_classes)
    return MarginSoftmax(config.model.num_features, reader.num_classes, margin, **options)


def check_image_size(backbone: Backbone, config: Config) -> None:
    """Raise InputError where the network does not take images of `data.size`. Tried, unless they are its own size."""
    size, own = config.data.size, backbone.image_size
    if own == (size, size):
        return
    backbone.eval()
    try:
        with torch.no_grad():
            backbone(torch.zeros(1, 3, size, size))
    except (RuntimeError, ValueError, AssertionError) as error:  # the last are timm's
        name = config.model.backbone
        another = "another --model.backbone (marginface backbones lists their sizes)"
        timm = name.startswith("timm:")
        if timm or "image_size" in backbone_options(name):
            another = f"--model.options.image_size {size}" if timm else f"--model.options.image_size [{size},{size}]"
        remedy = f"--data.size {own[0]}, or {another}" if own[0] == own[1] else another
        raise InputError(
            f"{name} takes images of {own[0]}x{own[1]} pixels, but data.size is {size}: give {remedy}"
        ) from error
    finally:
        backbone.train()


def _margin(config: Config, num_classes: int) -> Margin | BinaryMargin:
    """The configured margin; what some of them must know of the run is filled in."""
    name, options = config.margin.name, config.margin.options
    known = {"num_classes": num_classes, "seed": config.seed}
    given = {key: value for key, value in known.items() if key in margin_parameters(name)}
    return create_margin(name, **{**given, **options})


def filled(batch: Batch, loader: Loader | MixedLoader, epoch: int) -> Batch:
    """Instead of images that could not be read, those that come next in the set."""
    parts = [batch]
    for index in batch.unreadable:
        following = (np.array([(index + n) % len(loader.reader)]) for n in count(1))
        parts.append(next(found for i in following if len((found := loader.load(epoch, i)).labels)))
    images, labels, indices = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("images", "labels", "indices")
    )
    return Batch(images, labels, indices, batch.unreadable)


def with_shared_norms(backbone: nn.Module, device: torch.device) -> nn.Module:
    """Batch norms that use the statistics of all processes' images. InputError where the device has none."""
    if device.type != "cuda":
        raise InputError(
            f"trainer.sync_batch_norm is for GPUs, torch has none for {device.type}: leave it out, or keep the "
            f"statistics as they are with --train.freeze_norms true"
        )
    shared: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(backbone)  # type: ignore[no-untyped-call]  # torch's
    return shared
