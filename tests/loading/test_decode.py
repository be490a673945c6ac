"""Every kind of image a data set may hold, checked against Pillow and against the pixels that went in."""

import io
import struct

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

import golden_files
from marginface.errors import InputError
from marginface.loading.decode import MAX_PIXELS, decode, decode_batch
from marginface.readers.base import Record

LOSSLESS = (".png", ".bmp", ".ppm")


def picture(height: int = 112, width: int = 112, seed: int = 0) -> np.ndarray:
    """A smooth coloured picture, so that lossy codecs stay close."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def encoded(rgb: np.ndarray, suffix: str, *options: int) -> bytes:
    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR) if rgb.ndim == 3 else rgb
    return cv2.imencode(suffix, bgr, list(options))[1].tobytes()


def record(image: bytes | np.ndarray, key: str = "a/1") -> Record:
    return Record(image, 0, key)


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_lossless_formats_come_back_exactly(suffix):
    rgb = picture(40, 60)
    np.testing.assert_array_equal(decode(record(encoded(rgb, suffix))), rgb)


@pytest.mark.parametrize("shape", [(112, 112), (30, 50)])
def test_jpeg_agrees_with_opencv_to_the_bit(shape):
    data = encoded(picture(*shape), ".jpg", cv2.IMWRITE_JPEG_QUALITY, 95)
    expected = cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), 1), cv2.COLOR_BGR2RGB)
    np.testing.assert_array_equal(decode(record(data)), expected)


@pytest.mark.parametrize("lossless", [True, False])
def test_webp(lossless):
    rgb = picture(50, 70)
    data = encoded(rgb, ".webp", cv2.IMWRITE_WEBP_QUALITY, 101 if lossless else 95)
    assert np.abs(decode(record(data)).astype(int) - rgb).max() <= (0 if lossless else 24)


def test_grey_images_get_three_equal_channels():
    grey = picture()[..., 0]
    for data in (encoded(grey, ".png"), encoded(grey, ".pgm")):
        np.testing.assert_array_equal(decode(record(data)), np.repeat(grey[..., None], 3, axis=2))
    decoded = decode(record(encoded(grey, ".jpg")))
    assert decoded.shape == (112, 112, 3)
    assert (decoded[..., :1] == decoded).all()


def test_alpha_is_dropped_and_sixteen_bits_become_eight():
    rgb = picture()
    with_alpha = np.concatenate([rgb[..., ::-1], np.full((112, 112, 1), 7, np.uint8)], axis=2)
    np.testing.assert_array_equal(decode(record(cv2.imencode(".png", with_alpha)[1].tobytes())), rgb)
    deep = encoded(rgb.astype(np.uint16) * 257, ".png")
    np.testing.assert_array_equal(decode(record(deep)), rgb)


def test_cmyk_and_exif_rotation_as_pillow_does():
    image = Image.fromarray(picture(40, 80))
    stream = io.BytesIO()
    image.convert("CMYK").save(stream, "JPEG", quality=95)
    expected = np.asarray(Image.open(stream).convert("RGB")).astype(int)
    assert np.abs(decode(record(stream.getvalue())) - expected).max() <= 3

    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=95, exif=exif)
        expected = np.asarray(ImageOps.exif_transpose(Image.open(stream)))
        np.testing.assert_array_equal(decode(record(stream.getvalue())), expected)


def test_arrays_pass_through_and_others_are_refused():
    rgb = picture()
    assert decode(record(rgb)) is rgb
    for wrong in (rgb.astype(np.float32), rgb[..., 0], rgb[..., :2]):
        with pytest.raises(InputError, match=r"a/1: .*expected RGB uint8 \(H, W, 3\)"):
            decode(record(wrong))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_truncated_and_empty_images_are_errors_not_half_pictures(suffix):
    data = encoded(picture(), suffix)
    for length in (0, 1, 3, 10, 20, 26, len(data) // 2, len(data) - 20):
        with pytest.raises(InputError, match=r"a/1: the image cannot be read"):
            decode(record(data[:length]))


def bombs() -> dict[str, bytes]:
    """Small files that claim 40,000 × 40,000 pixels."""
    side = 40_000
    jpeg = bytearray(encoded(picture(), ".jpg"))
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = struct.pack(">HH", side, side)
    png = bytearray(encoded(picture(), ".png"))
    png[16:24] = struct.pack(">II", side, side)
    bmp = bytearray(encoded(picture(), ".bmp"))
    bmp[18:26] = struct.pack("<ii", side, -side)
    webp = b"RIFF\x00\x00\x01\x00WEBPVP8X\x0a\0\0\0\0\0\0\0" + (side - 1).to_bytes(3, "little") * 2
    return {
        "jpeg": bytes(jpeg),
        "png": bytes(png),
        "bmp": bytes(bmp),
        "webp": webp,
        "pnm": b"P6\n#c\n40000 40000\n255\n",
    }


@pytest.mark.parametrize("name", bombs())
def test_bombs_are_refused_before_memory_is_taken(name):
    with pytest.raises(InputError, match=rf"a/1: .*claims 40000×40000 pixels, more than the {MAX_PIXELS:,}"):
        decode(record(bombs()[name]))


@pytest.mark.parametrize("threads", [1, 3])
def test_batch_has_every_picture_in_its_place(threads):
    pictures = [picture(seed=i) for i in range(37)]
    formats = [(".jpg", ".png", ".bmp")[i % 3] for i in range(37)]
    records = [record(encoded(p, f), f"k{i}") for i, (p, f) in enumerate(zip(pictures, formats, strict=True))]
    images, failures = decode_batch(records, threads=threads)
    assert images.shape == (37, 112, 112, 3)
    assert images.dtype == np.uint8
    assert failures == {}
    for image, one in zip(images, records, strict=True):
        np.testing.assert_array_equal(image, decode(one))


def test_batch_reports_unreadable_images_and_keeps_the_others():
    good = encoded(picture(), ".jpg")
    records = [record(good, "a"), record(good[:700], "b"), record(b"hello", "c"), record(good, "d")]
    images, failures = decode_batch(records, threads=2)
    assert list(failures) == [1, 2]
    assert failures[1].startswith("b: the image cannot be read")
    assert "not JPEG, PNG, BMP, WebP or PNM" in failures[2]
    np.testing.assert_array_equal(images[0], images[3])
    assert not images[2].any()


def test_images_of_another_size_are_refused_with_the_cure():
    batch = [record(encoded(picture(96, 112), ".jpg"), "tom/1.jpg")]
    with pytest.raises(
        InputError, match=r"tom/1.jpg: .*112×96.*align.*`--resize true` .in training `--data.resize true`"
    ):
        decode_batch(batch)
    with pytest.raises(InputError, match=r"x: .*10×10"):
        decode_batch([record(np.zeros((10, 10, 3), np.uint8), "x")])


@pytest.mark.parametrize("shape", [(112, 112), (56, 56), (224, 224), (112, 150), (301, 97)])
def test_resize_scales_the_short_side_and_cuts_out_the_middle(shape):
    height, width = shape
    rows, columns = np.mgrid[:height, :width]
    scale = 100 / min(shape)
    # a ramp around the centre: whatever the scale, the pixel (i, j) of the result is known
    ramp = np.stack([128 + (rows - (height - 1) / 2) * scale, 128 + (columns - (width - 1) / 2) * scale], axis=2)
    rgb = np.concatenate([ramp, ramp[..., :1]], axis=2).clip(0, 255).astype(np.uint8)
    images, _ = decode_batch([record(rgb)], resize=True)
    i = np.arange(112)
    expected = 128 + (i - 55.5) / 112 * 100
    assert np.abs(images[0, :, 56, 0] - expected).max() <= 2
    assert np.abs(images[0, 56, :, 1] - expected).max() <= 2


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    suffix=st.sampled_from([".jpg", ".png", ".bmp", ".webp", ".ppm"]),
    cut=st.integers(0, 3000),
    flips=st.lists(st.tuples(st.integers(0, 200), st.integers(1, 255)), max_size=4),
)
def test_damaged_images_decode_or_are_named(suffix, cut, flips):
    data = bytearray(encoded(picture(20, 20), suffix)[: cut or None])
    for at, bits in flips:
        if at < len(data):
            data[at] ^= bits
    try:
        decoded = decode(record(bytes(data), "the-key"))
    except InputError as refused:
        named = str(refused).startswith("the-key: ")
    else:
        named = decoded.dtype == np.uint8 and decoded.ndim == 3
    assert named


@pytest.mark.parametrize("name", golden_files.entries("recordio/decoded"))
def test_golden_pictures_decode_as_mxnet_did(name):
    from marginface.readers import open_reader

    arrays = golden_files.arrays(name)
    tolerance = 4  # of the entry: "max abs difference <= 4 grey levels"
    reader = open_reader(golden_files.FOLDER / "recordio" / "refbuilder")
    for record in reader.read(range(len(reader))):
        number = int(record.key) - 1
        np.testing.assert_allclose(decode(record).mean((0, 1)), arrays["channel_means_rgb"][number], atol=0.1)
        if f"img_{number:03d}" in arrays:
            difference = decode(record).astype(int) - arrays[f"img_{number:03d}"]
            assert np.abs(difference).max() <= tolerance
