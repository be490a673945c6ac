"""How many procedural faces a second: `python benchmarks/synthetic.py [--images 2000] [--repeats 5] [--write]`."""

import argparse
import os
import resource
import time
from pathlib import Path

from marginface.loading.augment import AugmentConfig
from marginface.loading.loader import DataConfig, Loader
from marginface.readers.synthetic import SyntheticFaces

BATCH = 100


def measured(images: int) -> tuple[float, float]:
    """(images a second, milliseconds of one core an image), as a training step gets them: batches from the loader."""
    config = DataConfig(batch_size=BATCH, workers=os.cpu_count() or 1, augment=AugmentConfig(flip=0.0))
    batches = Loader(SyntheticFaces(images, 1), config, seed=0).start(0)
    next(batches)  # processes have begun
    wall, busy = time.perf_counter(), core_seconds()
    for _ in range(images // BATCH):
        next(batches)
    wall = time.perf_counter() - wall
    batches.close()
    made = images + (config.workers + 1) * BATCH  # some are ahead
    return images / wall, 1000 * (core_seconds() - busy) / made


def core_seconds() -> float:
    """Of this process and of those that have ended."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="put the table into synthetic.md beside this file")
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    rows = sorted(measured(arguments.images) for _ in range(arguments.repeats))
    rate, busy = rows[len(rows) // 2]
    table = (
        "| images | repeats | images/s, median | slowest to fastest | ms of one core an image | cores | load before |\n"
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        f"| {arguments.images} | {arguments.repeats} | {rate:.0f} | {rows[0][0]:.0f} to {rows[-1][0]:.0f} | {busy:.2f}"
        f" | {os.cpu_count()} | {load:.1f} |\n"
    )
    print(table)
    if arguments.write:
        page = Path(__file__).with_suffix(".md")
        kept = page.read_text().partition("<!-- table -->\n")[0] if page.exists() else "# Procedural faces\n\n"
        page.write_text(f"{kept}<!-- table -->\n{table}")


if __name__ == "__main__":
    main()
