"""The options of OpenVINO's face recognition trainer, typed or in its @files, as ours. For `marginface train`."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from marginface.errors import InputError
from marginface.untrusted import parse_yaml, read_lines

# what its train.py does without options, where the recipe with its configuration file differs
BASE = (
    "--config=openvino-mobilefacenet-cos-sv", "--data.batch_size=170", "--name=FaceReidNet", "--output=snapshots",
)  # fmt: skip
SAME = {
    "train_batch_size": "data.batch_size",
    "embed_size": "model.num_features",
    "epoch_total_num": "train.epochs",
    "lr": "optim.lr",
    "momentum": "optim.momentum",
    "weight_decay": "optim.weight_decay",
    "snap_prefix": "name",
    "snap_folder": "output",
    "snap_to_resume": "init_from",
}
LOSS: dict[str, Any] = {"margin_type": "cos", "mining_type": "sv", "m": 0.35, "s": 30.0, "t": 1.1, "gamma": 2.0}
WORDS = {"margin_type": ("cos", "arc"), "mining_type": ("sv", "focal")}
PLACES = ("train_data_root", "train_list", "val_data_root", "val_list")
ALIGN = "takes aligned faces: make them once with marginface align {} FOLDER --template openvino --size 128 and give {}"
WITHOUT = {
    "train_dataset": "the list's own lines tell which data set it is",
    "train_landmarks": "training " + ALIGN.format("LIST", "--data.train FOLDER"),
    "val_landmarks": "evaluation " + ALIGN.format("LANDMARKS", "that folder as val_data_root"),
    "val_batch_size": "evaluation chooses its batches itself",
}
OTHERS = ("model", "devices", "device", "val_step", "weighted")
KEYS = (*SAME, *LOSS, *PLACES, *WITHOUT, *OTHERS)


def speaks_openvino(words: list[str]) -> bool:
    """Whether any word is an @file or one of that trainer's own options; -m alone is not."""
    return any(word.startswith("@") or _option(word) is not None for word in words)


def translated(words: list[str]) -> tuple[list[str], list[str]]:
    """(our words, a sentence for every key without a counterpart). What stands later wins, @files included.

    Raises InputError for a file that is missing or a line that is not `key: value` with a key of that trainer.
    """
    ours: list[str] = []
    trainer = _Trainer()
    position = 0
    while position < len(words):
        word = words[position]
        position += 1
        if word.startswith("@"):
            ours += trainer.words(dict(_lines(Path(word[1:]))))
        elif word == "-m" and not speaks_openvino(words):
            ours.append("--margin.options.m")
        elif (key := "m" if word == "-m" else _option(word)) is not None:
            start = position
            while position < len(words) and not words[position].startswith(("--", "@")) and words[position] != "-m":
                position += 1
            given = [word.partition("=")[2]] if "=" in word else words[start:position]
            values = [_value(value) for value in given]
            ours += trainer.words({key: values[0] if len(values) == 1 else values or True})
        else:
            ours.append(word)
    return ours, trainer.sentences


def _option(word: str) -> str | None:
    name = word[2:].partition("=")[0]
    return name if word.startswith("--") and name in KEYS else None


def _value(text: str) -> Any:
    try:
        return parse_yaml(text)
    except ValueError as error:
        raise InputError(f"{text:.100} is no value: {error}") from error


def _lines(path: Path) -> Iterator[tuple[str, Any]]:
    """Key and value of every line that has one. A value of None leaves the option out, as does false."""
    if not path.is_file():
        raise InputError(f"@{path}: no such file; after @ stands a file of key: value lines")
    for number, line in enumerate(read_lines(path), start=1):
        try:
            content = parse_yaml(line.strip().rstrip(","))
        except ValueError:
            content = line
        if content is None:
            continue
        if not isinstance(content, dict) or len(content) != 1:
            raise InputError(f"{path}: line {number}, {line.strip()!r:.100}, is not one key: value")
        ((key, value),) = content.items()
        if key not in KEYS:
            raise InputError(f"{path}: line {number}: {key!r} is no option of that trainer; it has {', '.join(KEYS)}")
        if value not in (False, None, "None"):
            yield key, value


class _Trainer:
    """What has been said so far: some of our options depend on several of theirs."""

    def __init__(self) -> None:
        self.loss, self.places = dict(LOSS), dict.fromkeys(PLACES, "")
        self.sentences: list[str] = []

    def words(self, given: dict[str, Any]) -> list[str]:
        """Ours for the keys of one file, or for one option."""
        given = {key: os.path.expandvars(value) if isinstance(value, str) else value for key, value in given.items()}
        words = [f"--{SAME[key]}={value}" for key, value in given.items() if key in SAME]
        for key, value in given.items():
            if key in OTHERS:
                words += self._other(key, value)
            if key in WITHOUT:
                self.sentences.append(f"{key} has no counterpart: {WITHOUT[key]}")
        places = {key: str(value) for key, value in given.items() if key in PLACES}
        self.places |= places
        words += self._data(places)
        loss = {key: value for key, value in given.items() if key in LOSS}
        self.loss |= loss
        return words + self._margin(loss)

    def _other(self, key: str, value: Any) -> list[str]:
        if key == "val_step":  # it saves a snapshot whenever it evaluates
            return [f"--train.eval_every={value}", f"--train.checkpoint_every={value}", "--train.keep_models=true"]
        if key in ("device", "devices"):
            return [f"--trainer.devices={len(value) if isinstance(value, list) else 1}"]
        if key == "weighted":
            return ["--data.sampling=balanced"]
        if value != "mobilenet":
            raise InputError(f"model {value}: of that trainer's networks there is mobilenet; see marginface backbones")
        return ["--model.backbone=mobilefacenet-se"]

    def _data(self, changed: dict[str, str]) -> list[str]:
        words, places = [], self.places
        if {"train_data_root", "train_list"} & changed.keys():
            words.append(f"--data.train={places['train_list'] or places['train_data_root']}")
        if {"val_data_root", "val_list"} & changed.keys() and places["val_data_root"] and places["val_list"]:
            words.append("--data.val=" + json.dumps([f"pairs:{places['val_data_root']},pairs={places['val_list']}"]))
        return words

    def _margin(self, changed: dict[str, Any]) -> list[str]:
        if changed.keys() <= {"m", "s"}:
            return [f"--margin.options.{key}={value}" for key, value in changed.items()]
        for key, valid in WORDS.items():
            if key in changed and changed[key] not in valid:
                raise InputError(f"{key} {changed[key]}: that trainer has {' and '.join(valid)}")
        loss, arc = self.loss, self.loss["margin_type"] == "arc"
        options = {"s": loss["s"], "m": loss["m"]}
        if loss["mining_type"] == "sv":
            options |= {"t": loss["t"], "target": "arc" if arc else "am"}
            name, gamma = "sv-softmax", 0.0
        else:
            name, gamma = "arcface" if arc else "cosface", loss["gamma"]
            options |= {"overflow": "linear", "margin_grad": "true"} if arc else {}
        return [f"--margin.name={name}", f"--margin.options={json.dumps(options)}", f"--softmax.focal_gamma={gamma}"]
