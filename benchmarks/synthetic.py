"""How many procedural faces a second: `python benchmarks/synthetic.py [--images 2000] [--repeats 5] [--write]`."""

import argparse
import os
import time
from pathlib import Path

from marginface.readers.synthetic import SyntheticFaces


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="put the table into synthetic.md beside this file")
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    faces = SyntheticFaces(arguments.images, 1)
    faces.read(range(64))
    rows = []
    for _ in range(arguments.repeats):
        wall, busy = time.perf_counter(), time.process_time()
        faces.read(range(arguments.images))
        wall, busy = time.perf_counter() - wall, time.process_time() - busy
        rows.append((arguments.images / wall, 1000 * busy / arguments.images))
    rows.sort()
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
