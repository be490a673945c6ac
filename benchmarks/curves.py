"""Does the engine change what is learned? The quickstart by each of them, from one seed: their curves side by side.

    python benchmarks/curves.py [--epochs 14] [--write]     # about 4 minutes a run on 2 quiet cores: curves.md

dense is the plain formula under autograd; streaming never holds a batch x classes matrix, here with products in
float32, and in bfloat16.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from pathlib import Path

ENGINES = {
    "dense": ["--softmax.engine", "dense"],
    "streaming, float32": ["--softmax.precision", "float32"],
    "streaming, bfloat16": ["--softmax.precision", "bfloat16"],
}
ROWS = 12  # of the table


def run(name: str, epochs: float, output: str) -> tuple[dict[int, float], float]:
    """(loss by step, accuracy on unseen people in percent) of one training."""
    folder = Path(output) / name.replace(", ", "-")
    words = [sys.executable, "-m", "marginface", "train", "--output", output, "--name", folder.name]
    subprocess.run([*words, "--train.epochs", str(epochs), "--train.eval_every", "0", *ENGINES[name]], check=True)
    with (folder / "metrics.csv").open(encoding="utf-8") as lines:
        losses = {int(row["step"]): float(row["loss"]) for row in csv.DictReader(lines) if row["loss"]}
    trained = json.loads((folder / "metrics.json").read_text("utf-8"))["results"][-1]
    return losses, 100 * trained["accuracy"]["mean"]


def table(curves: dict[str, dict[int, float]], accuracies: dict[str, float]) -> str:
    steps = sorted(curves["dense"])
    shown = steps[:: max(1, len(steps) // ROWS)]
    head = ["step", *(f"{name}: loss" for name in curves), *(f"{name}: off by" for name in list(curves)[1:])]
    rows = [head, ["---:"] * len(head)]
    for step in shown:
        losses = [curve[step] for curve in curves.values()]
        rows.append([str(step), *(f"{loss:.4f}" for loss in losses), *(f"{x - losses[0]:+.4f}" for x in losses[1:])])
    rows.append(["accuracy %", *(f"{value:.2f}" for value in accuracies.values()), *[""] * (len(curves) - 1)])
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    for name, curve in list(curves.items())[1:]:
        last = steps[len(steps) // 2 :]
        gap = sum(curve[step] - curves["dense"][step] for step in last) / len(last)
        mean = sum(curves["dense"][step] for step in last) / len(last)
        lines.append(f"\n{name}: over the second half the mean loss is {gap:+.4f} from dense ({gap / mean:+.2%}).")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=float, default=14)
    parser.add_argument("--write", action="store_true", help="to curves.md beside this file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as output:
        found = {name: run(name, arguments.epochs, output) for name in ENGINES}
    text = table({name: curve for name, (curve, _) in found.items()}, {name: acc for name, (_, acc) in found.items()})
    print(text)
    if arguments.write:
        page = "# The quickstart's training curves by engine\n\n"
        page += f"`python benchmarks/curves.py --epochs {arguments.epochs:g} --write`: the recipe `quickstart`, "
        page += f"{arguments.epochs:g} epochs, seed 42, one run each.\n\n{text}\n"
        Path(__file__).with_suffix(".md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
