"""Photographs a run's report for the README: `python docs/pictures/report.py runs/quickstart`; needs Chromium."""

import shutil
import subprocess
import sys
from pathlib import Path

PICTURE = Path(__file__).parent.parent / "images" / "report.png"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def main() -> None:
    report = Path(sys.argv[1], "report.html").resolve(strict=True)
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit(f"none of {', '.join(BROWSERS)} is installed")
    # the sandbox needs rights that a container does not give; the page is our own
    words = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1200,1500"]
    subprocess.run([*words, f"--screenshot={PICTURE}", report.as_uri()], check=True, timeout=120)


if __name__ == "__main__":
    main()
