"""The whole way, as a newcomer types it: enrol people, identify other photographs of them and photographs of strangers.

Claims: people of whom a few photographs were enrolled are named in others, strangers are `unknown`, on the machine in
front of you. Run `python benchmarks/recognise.py LFW_FOLDER [MODEL ...]` (about 2 minutes a model), or with
`--people 4` for a look; the folder holds images/ and val_names.txt, MODEL is dlib or the folder of a model or run.
Writes benchmarks/recognise.md with --write.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from marginface.gallery.models import open_model

ENROLLED, PROBES = 3, 4  # photographs of a person


def draw(folder: Path, people: int) -> tuple[dict[str, list[Path]], dict[str, list[Path]]]:
    """Name -> photographs, of `people` people with enough of them and of five times as many strangers; seed 0."""
    names = [line.split("\t")[0] for line in (folder / "val_names.txt").read_text().splitlines()]
    everyone = {name: sorted((folder / "images" / name).glob("*.jpg")) for name in names}
    random = np.random.default_rng(0)
    rich = [name for name in names if len(everyone[name]) >= ENROLLED + 2]
    known = set(random.choice(rich, people, replace=False).tolist())
    others = [name for name in names if name not in known and everyone[name]]
    strangers = random.choice(others, min(5 * people, len(others)), replace=False).tolist()
    return {name: everyone[name] for name in sorted(known)}, {name: everyone[name][:1] for name in sorted(strangers)}


def copy(photos: Sequence[Path], folder: Path) -> int:
    folder.mkdir(parents=True)
    for path in photos:
        shutil.copy(path, folder)
    return len(photos)


def command(*words: object) -> tuple[str, float]:
    """What `marginface` prints, and its seconds."""
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "marginface", *map(str, words)], stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout, time.perf_counter() - begin


def main_face(faces: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """LFW's photographs are of the person in the middle, (125, 125)."""
    return min(
        faces,
        key=lambda face: float(np.abs(np.array(face["box"]).reshape(2, 2).mean(0) - 125).sum()),
        default={"name": "nobody", "similarity": -1.0},
    )


def measured(folder: Path, model: str, people: int) -> list[str]:
    """The lines about one model."""
    known, strangers = draw(folder, people)
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        enrolled = sum(copy(photos[:ENROLLED], place / "known" / name) for name, photos in known.items())
        for name, photos in known.items():
            copy(photos[ENROLLED : ENROLLED + PROBES], place / "probes" / name)
        for name, photos in strangers.items():
            copy(photos, place / "probes" / name)
        words = [f"--model={model}", f"--gallery={place / 'people.db'}"]
        told, adding = command("gallery", "add", place / "known", *words)
        answer, identifying = command("identify", place / "probes", "--json", "--threshold=-1", *words)
    lines = [json.loads(line) for line in answer.splitlines()]
    names = [Path(line["source"]).parent.name for line in lines]
    mains = [main_face(line["faces"]) for line in lines]
    score = np.array([face["similarity"] for face in mains])
    mine = np.array([name in known for name in names])
    right = np.array([face["name"] == name for face, name in zip(mains, names, strict=True)])
    description = open_model(model)
    rows = [
        f"## {description.name}",
        "",
        f"{told.strip().split(';')[0]} in {adding:.0f} s; {len(lines)} others looked at in {identifying:.0f} s, "
        f"{1000 * identifying / len(lines):.0f} ms a photograph, start included ({enrolled / adding:.1f} photographs "
        f"a second enrolled).",
        "",
        f"| FAR of a comparison | threshold | {mine.sum()} of known people: right | unknown | another's name "
        f"| {np.sum(~mine)} strangers: unknown | somebody's name |",
        "|---|---|---|---|---|---|---|",
        row("any", -1.0, score, mine, right),
    ]
    thresholds = sorted(description.thresholds.items(), reverse=True)
    rows += [row(f"{far:g}", threshold, score, mine, right) for far, threshold in thresholds]
    if not thresholds:
        rows += [
            "",
            "No threshold is stored with this model (`marginface threshold` stores one), so everybody gets a name.",
        ]
    return rows


def row(far: str, threshold: float, score: np.ndarray, mine: np.ndarray, right: np.ndarray) -> str:
    passed = score >= threshold
    parts = [mine & right & passed, mine & ~passed, mine & ~right & passed, ~mine & ~passed, ~mine & passed]
    shares = [
        f"{part.sum() / max(1, group.sum()):.1%}" for part, group in zip(parts, [mine] * 3 + [~mine] * 2, strict=True)
    ]
    return f"| {far} | {threshold:.4f} | " + " | ".join(shares) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("models", nargs="*", default=["dlib"], help="dlib, or folders of models or runs")
    parser.add_argument("--people", type=int, default=20)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    lines = [
        "# Recognising people",
        "",
        f"`python benchmarks/recognise.py LFW_FOLDER`: {options.people} of LFW's validation people with {ENROLLED} "
        f"photographs each, enrolled by `marginface gallery add`; up to {PROBES} others of each, and one of each of "
        f"{5 * options.people} strangers, named by `marginface identify`. Photographs as they are, found by the "
        f"default detector. {os.cpu_count()} processors.",
    ]
    for model in options.models:
        lines += ["", *measured(options.folder, model, options.people)]
    text = "\n".join(lines) + "\n"
    print(text)
    if options.write:
        Path(__file__).with_suffix(".md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
