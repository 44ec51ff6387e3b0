import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from trainables.image_classification.decoding import read_image, stored_size, to_rgb, to_square


def test_a_stored_image_has_room_for_a_random_crop():
    assert (stored_size(224), stored_size(48)) == (258, 55)


@pytest.mark.parametrize(
    ("content", "message"), [(b"text", "of no known image format"), (b"", "of no known")]
)
def test_what_is_no_image_is_refused(content: bytes, message: str):
    with pytest.raises(ValueError, match=message):
        read_image(content)


def test_a_damaged_image_is_refused_with_the_reason():
    file = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(file, "jpeg")

    with pytest.raises(ValueError, match="truncated"):
        read_image(file.getvalue()[:-200])


@pytest.mark.parametrize("size", [None, 8])
def test_a_damaged_image_is_refused_however_small_it_is_wanted(size: int | None):
    file = io.BytesIO()
    Image.effect_noise((256, 256), 50).save(file, "jpeg")

    with pytest.raises(ValueError, match="truncated"):
        read_image(file.getvalue()[:-2000], size)


def test_an_image_too_large_to_be_one_is_refused():
    """A PNG of 20,000 x 20,000 pixels, of which the file has none."""
    chunks = b""
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    for kind, body in ((b"IHDR", header), (b"IDAT", zlib.compress(b""))):
        checksum = struct.pack(">I", zlib.crc32(kind + body))
        chunks += struct.pack(">I", len(body)) + kind + body + checksum

    with pytest.raises(ValueError, match=r"exceeds limit of .* pixels"):
        read_image(b"\x89PNG\r\n\x1a\n" + chunks)


def test_of_an_animation_the_first_image_counts():
    file = io.BytesIO()
    first, second = (Image.new("RGB", (6, 6), colour) for colour in ("red", "blue"))
    first.save(file, "gif", save_all=True, append_images=[second])

    assert np.asarray(read_image(file.getvalue()))[0, 0].tolist() == [255, 0, 0]


def test_an_image_with_garbage_for_exif_is_read():
    file = io.BytesIO()
    Image.new("RGB", (6, 6), "red").save(file, "png", exif=b"Exif\0\0II*\0garbage\xff\xff\xff")

    assert read_image(file.getvalue()).size == (6, 6)


def test_a_large_photograph_is_decoded_smaller_and_hardly_differs():
    """Waves in all colours, fine enough to show what a coarse decode would lose."""
    y, x = np.mgrid[0:768, 0:1024] / 9
    waves = np.stack([np.sin(x), np.sin(y), np.sin(x + y)], axis=-1)
    file = io.BytesIO()
    Image.fromarray((127 + 120 * waves).astype(np.uint8)).save(file, "jpeg", quality=95)

    reduced, whole = read_image(file.getvalue(), 96), read_image(file.getvalue())

    assert (reduced.size, whole.size) == ((256, 192), (1024, 768))
    difference = to_square(reduced, 96).astype(int) - to_square(whole, 96)
    assert np.abs(difference).max() <= 12


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_a_reduced_decode_keeps_the_colours(mode: str):
    file = io.BytesIO()
    Image.new("RGB", (640, 640), (90, 90, 90)).convert(mode).save(file, "jpeg", quality=95)

    reduced = read_image(file.getvalue(), 32)

    assert reduced.size == (80, 80)
    assert np.abs(np.asarray(reduced).astype(int) - 90).max() <= 2


def test_a_wide_image_keeps_its_centre():
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 19:41] = 200

    assert (to_square(Image.fromarray(wide), 10) == 200).all()


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("L", (4, 4), 90), (90, 90, 90)),
        (Image.new("RGBA", (4, 4), (9, 9, 9, 0)), (255, 255, 255)),
        (Image.new("LA", (4, 4), (0, 255)), (0, 0, 0)),
        (Image.new("CMYK", (4, 4), (0, 0, 0, 0)), (255, 255, 255)),
        (Image.new("1", (4, 4), 1), (255, 255, 255)),
        (Image.fromarray(np.full((4, 4), 0x80FF, np.uint16)), (128, 128, 128)),
        (Image.new("RGB", (4, 4), (1, 2, 3)).quantize(2), (1, 2, 3)),
    ],
    ids=["grey", "transparent", "grey-alpha", "cmyk", "bilevel", "16-bit", "palette"],
)
def test_every_kind_of_image_becomes_rgb(image: Image.Image, expected: tuple[int, int, int]):
    assert to_square(to_rgb(image), 2).tolist() == [[list(expected)] * 2] * 2


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_32_bit_grey_is_stretched(kind: type[np.number[Any]]):
    grey = Image.fromarray(np.repeat([[-70_000, 70_000]], 2, axis=0).astype(kind))

    assert to_square(to_rgb(grey), 2)[0, :, 0].tolist() == [0, 255]


def test_the_cameras_orientation_is_respected():
    upright = np.zeros((8, 8), np.uint8)
    upright[:4] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # taken upside down
    file = io.BytesIO()
    Image.fromarray(upright[::-1]).save(file, "png", exif=exif)

    assert np.array_equal(to_square(read_image(file.getvalue()), 8)[:, :, 0], upright)
