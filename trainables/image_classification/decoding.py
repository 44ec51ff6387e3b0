import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

_STORED_MARGIN = 1.15


def stored_size(image_size: int) -> int:
    """Side of the stored square of images that the network sees at ``image_size``, in pixels.

    The difference is the room that a random crop has.
    """
    return round(_STORED_MARGIN * image_size)


def read_image(content: bytes) -> Image.Image:
    """Decode an image file to RGB.

    Raises:
        ValueError: it is none, or a damaged one.

    """
    try:
        return to_rgb(Image.open(io.BytesIO(content)))
    except UnidentifiedImageError as error:  # its text is a memory address
        raise ValueError("of no known image format") from error
    except Exception as error:  # Pillow raises almost anything on damaged files
        raise ValueError(str(error)) from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Turn ``image`` upright, as the camera says it was held, and make it RGB.

    Transparent parts become white. 16-bit grey keeps its upper 8 bits; 32-bit grey, which has no
    agreed white, is stretched from its darkest to its brightest.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in {"I", "F"}:
        grey = np.nan_to_num(np.asarray(image, dtype=np.float64))
        stretched = 255 * (grey - grey.min()) / (np.ptp(grey) or 1)
        image = Image.fromarray(stretched.astype(np.uint8))
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def to_square(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """Scale the shorter side of an RGB ``image`` to ``size``, cut the centre: (size, size, 3)."""
    return np.asarray(ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR))
