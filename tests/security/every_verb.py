"""Run every verb of the command in this process, in an empty folder, and print each line before it runs.

Faces are procedural; the real detector finds them and the real network knows them.
"""

import contextlib
import functools
import http.server
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from hub_stub import serve
from marginface import cli
from marginface.backbones import create_backbone
from marginface.readers.synthetic import SyntheticFaces, write_folder

TINY = (
    "--model.backbone=small --model.num_features=16 --model.options.width=4 --data.train=people"
    " --data.val=[pairs:people] --data.batch_size=16 --data.workers=1 --train.epochs=1 --trainer.accelerator=cpu"
)
LINES = f"""\
train {TINY} --name=mine
train {TINY} --name=b --train.logger=wandb
train {TINY} --name=c --train.logger=mlflow
status runs/mine
evaluate runs/mine --benchmark pairs:people --json a.json
evaluate runs/b --benchmark pairs:people --json b.json
compare a.json b.json
threshold runs/mine --far 1e-1
embed runs/mine people -o emb.npz
align landmarks.txt aligned
align photographs found --detector mtcnn
import backbone.pth -o models/imported
export runs/mine --to onnx -o mine.onnx
export runs/mine --to openvino -o mine_openvino
export runs/mine --to onnx -o int8.onnx --int8 people --benchmark pairs:people --max_drop 100
export runs/mine --to openvino -o int8_openvino --int8 people --benchmark pairs:people --max_drop 100
export runs/mine --to pt2 -o mine.pt2
push runs/mine me/mine --licence apache-2.0
embed me/mine people -o hub.npz
zoo
zoo backbone.pth
convert people faces --to recordio
convert people shards --to webdataset
convert people table --to parquet
inspect table
inspect {{server}}/{{shard}}
plan --classes 1e6 --backbone timm:resnet18
gallery add photographs
gallery list
gallery info
identify photographs --save drawn
verify {{photo}} {{photo}}
gallery export held
gallery erase id00000
recipes
backbones small timm:resnet18
margins
"""


def write_data() -> Path:
    """people/, photographs/, landmarks.txt and backbone.pth; returns a photograph."""
    faces = SyntheticFaces(12, 4)
    write_folder(faces, Path("people"))
    rows = []
    for record in faces.read(range(16)):
        image = cv2.imread(f"people/{record.key}.png")
        photo = Path("photographs", record.key).with_suffix(".jpg")
        photo.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(photo), cv2.copyMakeBorder(image, 50, 50, 50, 50, cv2.BORDER_REPLICATE))
        points = np.ravel(record.points) + 50
        rows.append(" ".join([str(photo), *(f"{value:.1f}" for value in points)]))
    Path("landmarks.txt").write_text("\n".join(rows))
    torch.save(create_backbone("mobilefacenet", 64).state_dict(), "backbone.pth")
    return photo


@contextlib.contextmanager
def file_server() -> Iterator[str]:
    """This folder on a port of loopback."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=os.fspath(Path.cwd()))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def run(line: str) -> None:
    print(f"$ marginface {line}", flush=True)
    cli.main(line.split(" "))


def visit_demo() -> None:
    """Start the page, fetch it once, and stop it as Ctrl-C does."""
    print("$ marginface demo", flush=True)
    words = [sys.executable, "-u", "-m", "marginface", "demo"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout
        try:
            address = next(word for line in demo.stdout for word in line.split() if word.startswith("http"))
            browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
            browser.open(address).close()  # exchanges the token for a cookie
            assert b"<html" in browser.open(address.partition("?")[0]).read()
        finally:
            demo.send_signal(signal.SIGINT)


def main() -> None:
    photo = write_data()
    with serve() as hub, file_server() as server:
        os.environ |= {"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_of_a_test", "HF_HUB_DISABLE_XET": "1"}
        for line in LINES.splitlines():
            shard = min(Path("shards").glob("*.tar"), default=Path()) if "{shard}" in line else None
            run(line.format(server=server, shard=shard, photo=photo))
    visit_demo()
    with pytest.raises(SystemExit):  # the download is refused
        run("fetch olivetti olivetti")


if __name__ == "__main__":
    main()
