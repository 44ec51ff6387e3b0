import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

_STORED_MARGIN = 1.15
_REDUCING_GAP = 2  # what is left to scale down after a reduced decode: less of it would show


def stored_size(image_size: int) -> int:
    """Side of the stored square of images that the network sees at ``image_size``, in pixels.

    The difference is the room that a random crop has.
    """
    return round(_STORED_MARGIN * image_size)


def read_image(content: bytes, size: int | None = None) -> Image.Image:
    """Decode an image file to RGB; of an animation, the first image.

    For a square of side ``size``, see :func:`to_square`, a large JPEG is decoded at 1/2, 1/4 or 1/8
    of its size: for a photograph of 12 megapixels that takes a quarter of the time.

    Raises:
        ValueError: it is none, a damaged one, or so large that Pillow takes it for an attack.

    """
    try:
        image = Image.open(io.BytesIO(content))
        if size is not None:
            image.draft(None, (_REDUCING_GAP * size, _REDUCING_GAP * size))
        return to_rgb(image)
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
