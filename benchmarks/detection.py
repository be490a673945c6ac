"""Detectors on real photographs, and what the packaged embedder is worth: found, points, accuracy, thresholds.

Claims: the main face is found in >= 99.5 % of the photographs; the points lie within 8 % of the eye distance of the
given ones, median under 4 %. Run `python benchmarks/detection.py LFW_FOLDER` (about 4 minutes), or with
`--share 0.002 --embed 0.05` for a look; the folder holds images/, lfw_landmark.txt and pairs_val.txt. The embedder is
measured behind the first detector, so its figures are those of the whole way from photograph to decision. Writes
benchmarks/detection.md with --write.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from marginface.detection import Detector, list_detectors, most_central, open_detector
from marginface.detection.base import Faces
from marginface.faces.template import ARCFACE_112
from marginface.gallery.models import FaceModel, open_model
from marginface.gallery.photos import read_photo
from marginface.protocols.pairs import read_pairs

FARS = (1e-2, 1e-3, 1e-4)


def given_points(folder: Path) -> dict[str, np.ndarray]:
    rows = (line.split("\t") for line in (folder / "lfw_landmark.txt").read_text().splitlines())
    return {row[0]: np.array(row[1:11], float).reshape(5, 2) for row in rows}


def detection_row(name: str, detector: Detector, folder: Path, share: float) -> str:
    """One line of the table: errors are means over the five points, as shares of the eye distance."""
    points = given_points(folder)
    keys = sorted(points)
    keys = sorted(np.random.default_rng(0).choice(keys, max(1, round(share * len(keys))), replace=False).tolist())
    errors, seconds = [], 0.0
    for key in keys:
        image = read_photo(folder / "images" / key)
        start = time.perf_counter()
        faces = detector(image)
        seconds += time.perf_counter() - start
        errors.append(error_of(faces, image, points[key]))
    found = np.array(errors)
    near = found[np.isfinite(found)]
    return (
        f"| {name} | {len(keys):,} | {np.mean(np.isfinite(found)):.2%} | {np.mean(near <= 0.08):.1%} | "
        f"{np.median(near):.2%} | {near.mean():.2%} | {np.quantile(near, 0.99):.1%} | "
        f"{1000 * seconds / len(keys):.0f} ms |"
    )


def error_of(faces: Faces, image: np.ndarray, points: np.ndarray) -> float:
    """Of the main face; infinite when none was found, or it is another person's: half an eye distance off or more."""
    if not len(faces):
        return np.inf
    main = faces.points[most_central(faces, *image.shape[:2])]
    error = float(np.linalg.norm(main - points, axis=1).mean() / np.linalg.norm(points[1] - points[0]))
    return error if error < 0.5 else np.inf


def embedded(detector: Detector, model: FaceModel, paths: Sequence[Path]) -> np.ndarray:
    """float32 (N, D), not normalised, of the main faces; where none is found, of the middle of the photograph."""
    parts = []
    for path in paths:
        image = read_photo(path)
        faces = detector(image)
        middle = ARCFACE_112 + (np.array(image.shape[1::-1]) - 112) / 2
        points = faces.points[most_central(faces, *image.shape[:2])] if len(faces) else middle
        parts += model.network.raw([[model.crop(image, points)]])
    return np.concatenate(parts)


def embedder_rows(detector: Detector, model: FaceModel, folder: Path, share: float) -> list[str]:
    """Pairs by our own evaluation, and the thresholds over all pairs of the same photographs."""
    pairs = read_pairs(folder / "pairs_val.txt", folder / "images")
    paths = [Path(str(path)) for path in pairs.images][: max(40, round(share * len(pairs.images)))]
    raw = embedded(detector, model, paths)
    rows = []
    if len(paths) == len(pairs.images):
        result = pairs.score(raw, model.name)
        rows += [
            f"{model.name}: **{result.accuracy.mean:.2%} ± {result.accuracy.std:.2%}** on the "
            f"{len(result.scores):,} pairs of `pairs_val.txt` (ten folds), AUC {result.auc:.4f}, EER {result.eer:.2%}.",
            "",
        ]
    vectors = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    labels = np.unique([path.parent.name for path in paths], return_inverse=True)[1]
    first, second = np.triu_indices(len(paths), 1)
    scores = (vectors @ vectors.T)[first, second]
    same = labels[first] == labels[second]
    strangers = np.sort(scores[~same])[::-1]
    rows += [
        f"Over all {same.size:,} pairs of these {len(paths):,} photographs, {np.sum(same):,} of one person:",
        "",
        "| FAR | threshold | TAR |",
        "|---|---|---|",
    ]
    for far in FARS:
        if far * len(strangers) < 10:
            rows.append(f"| {far:g} | too few pairs | |")
            continue
        threshold = np.nextafter(strangers[int(far * len(strangers))], np.float32(2))
        rows.append(f"| {far:g} | {threshold:.4f} | {np.mean(scores[same] >= threshold):.2%} |")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--share", type=float, default=0.05, help="of the photographs, drawn with seed 0; 0 for none")
    parser.add_argument("--embed", type=float, default=1.0, help="share of the photographs of pairs_val.txt to embed")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    lines = [
        "# Detection and the packaged embedder",
        "",
        "`python benchmarks/detection.py LFW_FOLDER`, photographs of LFW (deep-funneled, uncropped), seed 0. Error: "
        "mean distance of the five points from the given ones, as a share of the eye distance.",
        "",
        "| detector | photographs | found | error <= 8 % | median | mean | 99th percentile | time, 1 thread |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in list_detectors() if options.share else []:
        lines.append(detection_row(name, open_detector(name), options.folder, options.share))
    lines += ["", *embedder_rows(open_detector(), open_model("dlib"), options.folder, options.embed)]
    text = "\n".join(lines) + "\n"
    print(text)
    if options.write:
        Path(__file__).with_suffix(".md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
