"""How many procedural faces a second: `python benchmarks/synthetic.py [--images 2000] [--repeats 5]`."""

import argparse
import os
import time

from marginface.readers.synthetic import SyntheticFaces


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    faces = SyntheticFaces(arguments.images, 1)
    faces.read(range(64))
    rates = []
    for _ in range(arguments.repeats):
        wall, busy = time.perf_counter(), time.process_time()
        faces.read(range(arguments.images))
        wall, busy = time.perf_counter() - wall, time.process_time() - busy
        rates.append(arguments.images / wall)
        print(f"{rates[-1]:7.0f} images/s, {1000 * busy / arguments.images:.2f} ms of one core an image")
    print(f"median {sorted(rates)[len(rates) // 2]:.0f} images/s at 112x112 on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
