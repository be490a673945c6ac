"""A miniature IJB set in the real layout: `<set>/meta` lists and `<set>/loose_crop` pictures of pattern people."""

from pathlib import Path

import cv2
import numpy as np

from marginface.faces.template import ARCFACE_112

GALLERIES = {"IJBB": ("S1", "S2"), "IJBC": ("G1", "G2")}


def write_ijb(root: Path, name: str = "IJBC", people: int = 8, seed: int = 0) -> Path:
    """Each person: an enrolled template of one picture, two searched ones of two frames and one picture. -> root."""
    random = np.random.default_rng(seed)
    meta, crops = root / name / "meta", root / name / "loose_crop"
    meta.mkdir(parents=True)
    crops.mkdir()
    bases = random.integers(0, 256, (people, 7, 7, 3))
    images, enrolled, searched = [], [], []
    for person in range(people):
        for number in range(3):
            template = 10 * (3 * person + number) + 7
            (searched if number else enrolled).append((template, person + 100))
            media = [5000 + template, *([5000 + template, 5001 + template] if number else [])]
            images += [(template, medium, person) for medium in media]
    tid_mid, points_score = [], []
    for index, (template, medium, person) in enumerate(images, start=1):
        face = np.clip(bases[person] + random.normal(0, 25, (7, 7, 3)), 0, 255).astype(np.uint8)
        picture = cv2.resize(face, (150, 140), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(crops / f"{index}.jpg"), picture)
        points = ARCFACE_112 + np.array([19, 14]) + random.normal(0, 1, (5, 2))
        tid_mid.append(f"{index}.jpg {template} {medium}")
        numbers = " ".join(f"{value:.3f}" for value in points.ravel())
        points_score.append(f"{index}.jpg {numbers} {random.uniform(0.6, 1):.4f}")
    pairs = [f"{a} {b} {int(one == other)}" for a, one in enrolled for b, other in searched]
    low = name.lower()
    write(meta / f"{low}_face_tid_mid.txt", tid_mid)
    write(meta / f"{low}_name_5pts_score.txt", points_score)
    write(meta / f"{low}_template_pair_label.txt", pairs)
    for side, rows in zip(GALLERIES[name], (enrolled[: people // 2], enrolled[people // 2 :]), strict=True):
        write(meta / f"{low}_1N_gallery_{side}.csv", ["TEMPLATE_ID,SUBJECT_ID", *(f"{a},{b}" for a, b in rows)])
    write(meta / f"{low}_1N_probe_mixed.csv", ["TEMPLATE_ID,SUBJECT_ID", *(f"{a},{b}" for a, b in searched)])
    return root


def write(path: Path, lines: list[str]) -> None:
    path.write_text("\n".join(lines) + "\n")
