"""Any model as one object: our folders, published checkpoints, the Hugging Face Hub. `marginface.load`."""

import os
import re
from dataclasses import asdict
from pathlib import Path

import torch

from marginface.embedder import CONFIG, Embedder, ModelConfig, Preprocessing
from marginface.errors import InputError
from marginface.files import replace_folder
from marginface.tensor_file import check_finite, open_tensors, write_tensors
from marginface.untrusted import parse_json
from marginface.weights.base import ImportedModel, State
from marginface.weights.container import is_safetensors
from marginface.weights.heads import HEAD, saved_head
from marginface.weights.hub import download
from marginface.weights.importing import import_checkpoint
from marginface.weights.state import FACTS, SavedState, list_states


def load(source: str | os.PathLike[str], device: str | torch.device = "cpu") -> Embedder:
    """A model: its folder, a run's folder, a published checkpoint, or "org/name" on the Hugging Face Hub.

    Of a run that is not finished it is the network of the last checkpoint, however many processes saved that.
    Raises InputError, saying what `source` looks like and what to do, where it is none of these.
    """
    path = Path(source)
    if path.is_file():
        return (_exported(path) or to_embedder(import_checkpoint(path), path.name)).to(device)
    if path.is_dir():
        state = _unfinished(path)
        return (of_state(state) if state else Embedder.load(model_folder(path))).to(device)
    if re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w.-]+)?", str(source)):
        return Embedder.load(download(str(source)), device)
    raise InputError(
        f"{source} does not exist; give a model's folder, a checkpoint, or org/name on the Hugging Face Hub"
    )


def load_head(source: str | os.PathLike[str]) -> State:
    """The class weights that come with what `load` takes: "weight" (classes, num_features), "margin." statistics.

    {} where it brings none, as the Hub's models do.
    """
    path = Path(source)
    if path.is_file():
        return _head(import_checkpoint(path))
    return saved_head(model_folder(path)) if path.is_dir() else {}


def _exported(path: Path) -> Embedder | None:
    """What `marginface export --to safetensors` wrote, which describes itself; None for any other file."""
    if not is_safetensors(path):
        return None
    with open_tensors(path) as weights:
        if "description" not in weights.metadata:
            return None
        try:
            description = parse_json(weights.metadata["description"])
        except ValueError as error:
            raise InputError(f"{path}: its description is damaged ({error}); export the model again") from error
        return Embedder.from_file(description, path, weights)


def _unfinished(path: Path) -> Path | None:
    """The checkpoint to take: the folder itself, or the last one of a run that has no model yet."""
    if (path / FACTS).is_file():
        return path
    if (path / CONFIG).is_file() or (path / "model").is_dir():
        return None
    return next(iter(list_states(path / "checkpoints")), None)


def of_state(folder: Path) -> Embedder:
    """The network in a checkpoint of a run, its averaged weights where there are any; needs no process group."""
    saved = SavedState.open(folder)
    what = "average" if any(name.startswith("average.") for name in saved.shapes) else "backbone"
    shapes = {
        name.removeprefix(f"{what}."): tuple(s) for name, s in saved.shapes.items() if name.startswith(f"{what}.")
    }
    embedder = Embedder.unfilled(saved.facts.get("model"), folder / FACTS, shapes, folder)
    embedder.notes["checkpoint"] = folder.name
    state = embedder.backbone.state_dict()
    saved.read({f"{what}.{name}": value for name, value in state.items()})
    check_finite(state, folder)
    return embedder


def model_folder(path: Path) -> Path:
    """The folder itself, or the model in a run's."""
    inside = path / "model"
    if (path / CONFIG).is_file() or not inside.is_dir():
        checkpoints = sorted(p.name for p in path.iterdir() if p.suffix in (".pth", ".pt", ".ckpt"))
        if checkpoints and not (path / CONFIG).is_file():
            raise InputError(f"{path} is a folder of checkpoints; give one of its files: {', '.join(checkpoints[:5])}")
        return path
    if inside.is_symlink():
        raise InputError(f"{inside} is a symbolic link, which is not followed in a run; give what it leads to")
    return inside


def to_embedder(model: ImportedModel, name: str) -> Embedder:
    """With the preprocessing and the conventions of its authors. name: of the file, for the notes."""
    height, width = model.usage.image_size
    usage = model.usage
    preprocessing = Preprocessing(
        size=height,
        mean=usage.mean,
        std=usage.std,
        width=None if width == height else width,
        flip=usage.flip,
        quality=usage.quality,
        template=usage.template,
    )
    notes = {"source": model.source, "file": name, "import": model.notes}
    if model.partial:
        notes["partial"] = model.partial.splitlines()
    return Embedder(model.build(), ModelConfig(model.backbone, model.num_features, model.options), preprocessing, notes)


def describe_import(source: str | os.PathLike[str], model: Embedder) -> str:
    """How a published checkpoint was understood, in a line: which of its networks, what was changed. "" for our own."""
    notes = model.notes.get("import")
    if not (Path(source).is_file() and notes and isinstance(notes, list)):
        return ""
    line = f"{source}: {'; '.join(map(str, notes))}"
    return "".join(letter if letter.isprintable() else "?" for letter in line)


def save_imported(model: ImportedModel, folder: str | os.PathLike[str], name: str, overwrite: bool = False) -> Embedder:
    """Write a model's folder; class weights and the margin's statistics go into head.safetensors beside it.

    Raises InputError for a folder that exists, unless it is empty, or marginface wrote it and `overwrite` is set.
    """
    embedder = to_embedder(model, name)
    with replace_folder(folder, overwrite) as temporary:
        embedder.write(temporary)
        if head := _head(model):
            write_tensors(temporary / HEAD, head)
    return embedder


def _head(model: ImportedModel) -> State:
    weight = {} if model.head is None else {"weight": model.head.contiguous()}
    return weight | {f"margin.{key}": value for key, value in model.head_state.items()}


def conventions(embedder: Embedder) -> dict[str, str]:
    """What the model expects and how it is used, in words, for a table."""
    given = asdict(embedder.preprocessing)
    height, width = embedder.preprocessing.image_size
    return {
        "image": f"RGB uint8 {height}x{width}, (v - {given['mean']:g}) / {given['std']:g}",
        "mirror image": {"add": "its embedding is added", "concat": "its embedding is put behind", "none": "not used"}[
            given["flip"]
        ],
        "faces": f"aligned to the template {given['template']}",
        "quality": "the length of the embedding" if given["quality"] else "-",
    }
