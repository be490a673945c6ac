"""Everything the readers of the documentation have, in miniature: sets, checkpoints, models, runs, photographs."""

import os
import shlex
import shutil
from pathlib import Path

import cv2
import numpy as np
import torch
from scipy.io import savemat

from ijb_set import write_ijb
from marginface import cli
from marginface.backbones import create_backbone
from marginface.embedder import Embedder, ModelConfig
from marginface.evaluate import publish
from marginface.metrics.result import Trials, VerificationResult, verify_distances
from people import write_people
from published_sets import write_published_sets
from recognition import COLOURS, photograph

TINY = ModelConfig("small", 16, {"width": 4})
INSIGHTFACE = ("295672backbone.pth", "backbone_ms1mv3_arcface_r50_fp16.pth", "backbone.pth")
OPENVINO = """\
lr: 0.4
train_batch_size: 256
margin_type: cos
mining_type: sv
train_data_root: vggface2/aligned
val_data_root: lfw/aligned
val_list: lfw/pairs.txt
snap_prefix: MobileFaceNet
"""


def write_everything(folder: Path) -> Path:
    """Below `folder`, under the names that the pages use."""
    write_published_sets(folder)
    for name in ("IJBB", "IJBC"):
        write_ijb(folder / "IJB", name)
    (folder / "my_config.yml").write_text(OPENVINO)
    for name in ("vggface2/meta/train_list.txt", "lfw/lfw_landmark.txt"):  # as the guide of OpenVINO makes them
        words = f"align {folder}/{name} {folder}/{name.split('/')[0]}/aligned --template openvino --size 128"
        cli.main(shlex.split(words))
    write_people(folder / "FOLDER")
    for name in ("val_people", "val_new", "val_old"):
        (folder / name).symlink_to(folder / "FOLDER")
    for name in ("new", "PATH", "people"):
        (folder / name).symlink_to(folder / "photographs")
    for name in ("lfw.bin", "cfp_fp.bin", "agedb_30.bin"):
        (folder / name).symlink_to(folder / "faces_emore" / name)
    (folder / "pairs.txt").symlink_to(folder / "lfw" / "pairs.txt")
    write_root(folder)
    write_checkpoints(folder)
    write_models(folder)
    write_photographs(folder)
    return folder


def write_root(folder: Path) -> None:
    """ROOT: LFW, both IJB and TinyFace in one place."""
    root = folder / "ROOT"
    write_tinyface(root, folder / "FOLDER")
    for name in ("lfw/lfw", "IJB/IJBB", "IJB/IJBC"):
        shutil.copytree(folder / name, root / Path(name).name)
    for name in ("lfw_landmark.txt", "pairs.txt"):
        shutil.copy(folder / "lfw" / name, root)
    (folder / "landmarks.txt").symlink_to(folder / "lfw" / "lfw_landmark.txt")


def write_tinyface(root: Path, people: Path) -> None:
    """Of everybody one image searched, one in the gallery, aligned copies of both, and a stranger."""
    testing, aligned = root / "tinyface" / "Testing_Set", root / "aligned_pad_0.1_pad_high"
    (testing / "Gallery_Distractor").mkdir(parents=True)
    aligned.mkdir()
    for image, (file, key) in enumerate((("probe", "probe_set"), ("gallery_match", "gallery_set")), start=1):
        names = []
        for number, person in enumerate(sorted(people.iterdir()), start=1):
            names.append(f"{number}_{image}.jpg")
            shutil.copy(sorted(person.iterdir())[image], aligned / names[-1])
        cells = np.empty((len(names), 2), object)
        cells[:, 0], cells[:, 1] = names, [float(name.split("_")[0]) for name in names]
        savemat(testing / f"{file}_img_ID_pairs.mat", {key: cells})
    (testing / "Gallery_Distractor" / "1_1.jpg").touch()


def write_checkpoints(folder: Path) -> None:
    """Files in the layouts of InsightFace, ElasticFace, MagFace and AdaFace, with new weights."""
    torch.manual_seed(0)
    torch.save(create_backbone("mobilefacenet", 64).state_dict(), folder / INSIGHTFACE[0])
    for name in INSIGHTFACE[1:]:
        os.link(folder / INSIGHTFACE[0], folder / name)
    torch.save({"kernel": torch.randn(64, 12)}, folder / "295672header.pth")
    magface = create_backbone("iresnet18", 64).state_dict()
    features = {f"features.module.{key}": value for key, value in magface.items()}
    content = {"epoch": 25, "arch": "iresnet18", "state_dict": features | {"module.fc.weight": torch.randn(64, 12)}}
    torch.save(content, folder / "checkpoint.pth")
    adaface = {f"model.{key}": value for key, value in create_backbone("ir18", 512).state_dict().items()}
    torch.save({"state_dict": adaface}, folder / "adaface_ir18_casia.ckpt")


def write_models(folder: Path) -> None:
    """models/base and MODEL; runs/quickstart, mine, a, b and RUN, as if they had been measured on LFW."""
    for number, name in enumerate(("models/base", "MODEL", *(f"runs/{run}/model" for run in "ab"))):
        torch.manual_seed(number)
        Embedder.create(TINY).save(folder / name)
    for number, name in enumerate("ab"):
        run = folder / "runs" / name
        result = measured(number)
        publish([result], [], title=name, command="", json_file=run / "metrics.json", report_file=None)
        for suffix in (".json", ".scores.npz"):
            shutil.copy(run / f"metrics{suffix}", folder / f"{name}{suffix}")
    for name in ("runs/mine", "runs/quickstart", "RUN"):
        shutil.copytree(folder / "runs" / "a", folder / name)
    Embedder.create(ModelConfig("iresnet18", 64)).save(folder / "runs" / "mine" / "model", overwrite=True)


def measured(seed: int) -> VerificationResult:
    """A model on as many pairs as LFW has."""
    random, same = np.random.default_rng(seed), np.tile(np.repeat([True, False], 300), 10)
    distances = np.clip(random.normal(np.where(same, 1.0, 1.8), 0.15), 0, 4)
    left, folds = np.arange(12_000).reshape(2, -1), np.arange(6_000).reshape(10, -1)
    trials = Trials("lfw", left[0], left[1], same, list(folds), subjects=None)
    return verify_distances(distances, trials, model="trained network", replicates=0)


def write_photographs(folder: Path) -> None:
    """PEOPLE/<name>/*.jpg, photographs of one of them, and a film: squares of a colour, as `recognition` has them."""
    for name, colour in COLOURS.items():
        (folder / "PEOPLE" / name).mkdir(parents=True)
        for number in range(2):
            face = cv2.cvtColor(photograph((colour, 30 + 20 * number, 20)), cv2.COLOR_RGB2BGR)
            cv2.imwrite(str(folder / "PEOPLE" / name / f"{number}.jpg"), face)
    for number, name in enumerate(("A.jpg", "B.jpg", "PHOTO_OR_FOLDER/party.jpg")):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(folder / "PEOPLE" / "Ann" / f"{min(number, 1)}.jpg", folder / name)
    film = cv2.VideoWriter(str(folder / "film.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10, (240, 120))
    for left in range(10, 70, 10):
        film.write(cv2.cvtColor(photograph((COLOURS["Ann"], left, 20)), cv2.COLOR_RGB2BGR))
    film.release()
