"""Photographs as people have them: turned, huge, broken, of odd kinds. One sentence or the right picture."""

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from marginface.errors import InputError
from marginface.gallery.people import face_of
from marginface.gallery.photos import blur_of, photos_in, read_photo, small_picture
from recognition import COLOURS, EYE, photograph

IMAGE = photograph((COLOURS["Ann"], 30, 20))


def encoded(suffix: str, image: np.ndarray = IMAGE, *options: int) -> bytes:
    done, data = cv2.imencode(suffix, np.ascontiguousarray(image[..., ::-1]), list(options))
    assert done
    return np.asarray(data).tobytes()


def png_header(width: int, height: int) -> bytes:
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(b"\0" * 1000)
    idat = b"IDAT" + data
    parts = (struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body)) for body in (chunk, idat))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def with_rotation(jpeg: bytes, orientation: int) -> bytes:
    tiff = b"II*\0\x08\0\0\0" + struct.pack("<H", 1) + struct.pack("<HHII", 0x112, 3, 1, orientation) + b"\0\0\0\0"
    body = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp", ".ppm"])
def test_the_usual_kinds(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"a{suffix}").write_bytes(encoded(suffix))
    assert np.abs(read_photo(tmp_path / f"a{suffix}").astype(int) - IMAGE).mean() < 6
    assert face_of("Ann", read_photo(tmp_path / f"a{suffix}"), "a", EYE).vector @ [1, -1, -1] > 1.5


def test_a_photograph_on_its_side_is_turned(tmp_path: Path) -> None:
    turned = np.ascontiguousarray(np.rot90(IMAGE))  # orientation 6: the camera's top is at the right
    (tmp_path / "a.jpg").write_bytes(with_rotation(encoded(".jpg", turned), 6))
    read = read_photo(tmp_path / "a.jpg")
    assert read.shape == IMAGE.shape
    assert np.abs(read.astype(int) - IMAGE).mean() < 8


def test_sixteen_bits_grey_alpha(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "deep.png"), IMAGE[..., ::-1].astype(np.uint16) * 257)
    cv2.imwrite(str(tmp_path / "grey.png"), IMAGE[..., 0])
    cv2.imwrite(str(tmp_path / "alpha.png"), np.dstack([IMAGE[..., ::-1], np.full(IMAGE.shape[:2], 128, np.uint8)]))
    assert np.abs(read_photo(tmp_path / "deep.png").astype(int) - IMAGE).max() <= 1
    assert (read_photo(tmp_path / "grey.png") == IMAGE[..., :1]).all()
    assert (read_photo(tmp_path / "alpha.png") == IMAGE).all()


def test_cmyk_and_moving_pictures(tmp_path: Path) -> None:
    picture = Image.fromarray(IMAGE)
    picture.convert("CMYK").save(tmp_path / "cmyk.jpg")
    assert np.abs(read_photo(tmp_path / "cmyk.jpg").astype(int) - IMAGE).mean() < 25
    for suffix in ("webp", "png"):  # the first frame is taken
        frames = [Image.fromarray(np.full_like(IMAGE, 10 * i)) for i in range(3)]
        picture.save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames)
        assert np.abs(read_photo(tmp_path / f"a.{suffix}").astype(int) - IMAGE).mean() < 8
    picture.save(tmp_path / "a.gif", save_all=True, append_images=frames)
    with pytest.raises(InputError, match=r"a\.gif: the image cannot be read: it is not JPEG, PNG"):
        read_photo(tmp_path / "a.gif")


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("empty.jpg", b"", "it is empty"),
        ("drawing.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "it is not JPEG, PNG, BMP, WebP or PNM"),
        ("bomb.png", png_header(50_000, 50_000), "it claims 50000×50000 pixels"),
        ("wide.png", png_header(20_000, 20_000), "it claims 20000×20000 pixels"),
        ("short.jpg", encoded(".jpg")[:400], "cannot be read"),
        ("text.png", b"hello", "it is not JPEG"),
    ],
)
def test_one_sentence_for_the_rest(tmp_path: Path, name: str, data: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=words) as caught:
        read_photo(tmp_path / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_panorama_is_read(tmp_path: Path) -> None:
    wide = np.tile(IMAGE, (1, 84, 1))[:, :20_000]
    (tmp_path / "wide.jpg").write_bytes(encoded(".jpg", wide))
    assert read_photo(tmp_path / "wide.jpg").shape == (120, 20_000, 3)


def test_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no photographs"):
        list(photos_in(tmp_path))
    (tmp_path / "b").mkdir()
    for name in ("b/2.JPG", "b/1.png", "a.txt"):
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in photos_in(tmp_path)] == ["1.png", "2.JPG"]
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_photo(tmp_path / "nowhere.jpg")


def test_blur_and_the_small_picture() -> None:
    sharp = np.random.default_rng(0).integers(0, 256, (112, 112, 3), np.uint8)
    soft = cv2.GaussianBlur(sharp, (0, 0), 2)
    assert blur_of(soft) < blur_of(sharp) / 10
    assert cv2.imdecode(np.frombuffer(small_picture(sharp), np.uint8), 1).shape == (96, 96, 3)
