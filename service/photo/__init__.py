"""A photo's file: untrusted bytes become pixels, and what the file says of itself."""

from service.photo.decode import MAX_PIXELS, MIN_SIDE, Photo, decode
from service.photo.errors import ImageError

__all__ = ["MAX_PIXELS", "MIN_SIDE", "ImageError", "Photo", "decode"]
