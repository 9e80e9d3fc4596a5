"""Training augmentation on whole batches: what photos go through between a camera and a shop's page."""

import io
from typing import Annotated, Self

import torch
from PIL import Image
from pydantic import AfterValidator, Field, model_validator
from torch import Tensor
from torch.nn import functional

from stages.common import Params


def _ordered(span: tuple[float, float]) -> tuple[float, float]:
    if span[0] > span[1]:
        raise ValueError("the first number must not be above the second")
    return span


Share = Annotated[float, Field(ge=0, le=1)]
Quality = Annotated[int, Field(ge=1, le=100)]
Blur = Annotated[float, Field(gt=0, le=1.5)]  # the kernel reaches 3 pixels: two sigma at most
Noise = Annotated[float, Field(gt=0, le=1)]


class Augment(Params):
    """Shares are the part of a batch that gets each change; ranges are drawn uniformly.

    A photo gets at most one of JPEG, blur and noise: two of them together leave too little to learn from.
    """

    flip: bool
    shift: Annotated[int, Field(ge=1, le=32)]  # pixels, at most, in each direction; edges are mirrored
    shift_share: Share
    light_share: Share
    light_range: Share  # brightness and contrast factors within 1 +- this
    jpeg_share: Share
    jpeg_quality: Annotated[tuple[Quality, Quality], AfterValidator(_ordered)]
    blur_share: Share
    blur_sigma: Annotated[tuple[Blur, Blur], AfterValidator(_ordered)]  # pixels
    noise_share: Share
    noise_sigma: Annotated[tuple[Noise, Noise], AfterValidator(_ordered)]  # of the 0..1 range

    @model_validator(mode="after")
    def _share_a_batch(self) -> Self:
        if self.jpeg_share + self.blur_share + self.noise_share > 1:
            raise ValueError("jpeg_share + blur_share + noise_share are more than the whole batch")
        return self


def augment(images: Tensor, settings: Augment, generator: torch.Generator) -> Tensor:
    """Return changed copies of RGB photos: uint8 [N, 3, H, W] -> float32 [N, 3, H, W] in 0..1.

    Everything random comes from `generator` (CPU), so that a resumed run goes on as it would have.
    """
    count = len(images)
    images = images.clone()
    if settings.flip:
        rows = _choose(count, 0.5, generator)
        images[rows] = images[rows].flip(3)
    rows = _choose(count, settings.shift_share, generator)
    if len(rows):
        images[rows] = _shift(images[rows], settings.shift, generator)
    floats = images.float() / 255
    rows = _choose(count, settings.light_share, generator)
    if len(rows):
        span = (1 - settings.light_range, 1 + settings.light_range)
        gain, contrast = (_uniform(len(rows), span, generator).view(-1, 1, 1, 1) for _ in range(2))
        centre = floats[rows].mean((1, 2, 3), keepdim=True)
        floats[rows] = (((floats[rows] - centre) * contrast + centre) * gain).clamp(0, 1)

    place = torch.rand(count, generator=generator)  # in 0..1, shared out among the three
    for row in (place < settings.jpeg_share).nonzero().flatten().tolist():
        low, high = settings.jpeg_quality
        floats[row] = _jpeg(floats[row], int(torch.randint(low, high + 1, (), generator=generator)))
    place -= settings.jpeg_share
    rows = ((place >= 0) & (place < settings.blur_share)).nonzero().flatten()
    if len(rows):
        floats[rows] = _blur(floats[rows], _uniform(len(rows), settings.blur_sigma, generator))
    place -= settings.blur_share
    rows = ((place >= 0) & (place < settings.noise_share)).nonzero().flatten()
    if len(rows):
        sigma = _uniform(len(rows), settings.noise_sigma, generator).view(-1, 1, 1, 1)
        floats[rows] += sigma * torch.randn(floats[rows].shape, generator=generator)
    return floats.clamp_(0, 1)


def _choose(count: int, share: float, generator: torch.Generator) -> Tensor:
    return (torch.rand(count, generator=generator) < share).nonzero().squeeze(1)


def _uniform(count: int, span: tuple[float, float], generator: torch.Generator) -> Tensor:
    return span[0] + (span[1] - span[0]) * torch.rand(count, generator=generator)


def _shift(images: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Move each photo by up to `most` pixels, mirroring what comes in at the edge."""
    count, _, height, width = images.shape
    padded = functional.pad(images.float(), (most,) * 4, mode="reflect").to(images.dtype)
    down, right = torch.randint(0, 2 * most + 1, (2, count), generator=generator)
    rows = (down[:, None] + torch.arange(height)).view(count, 1, height, 1)
    columns = (right[:, None] + torch.arange(width)).view(count, 1, 1, width)
    return padded[torch.arange(count).view(-1, 1, 1, 1), torch.arange(3).view(1, 3, 1, 1), rows, columns]


def _jpeg(image: Tensor, quality: int) -> Tensor:
    pixels = (image * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous()
    buffer = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(buffer, "JPEG", quality=quality)
    decoded = torch.frombuffer(bytearray(Image.open(buffer).convert("RGB").tobytes()), dtype=torch.uint8)
    return decoded.view(pixels.shape).permute(2, 0, 1).float() / 255


def _blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur, another sigma (pixels) for each photo, as two grouped 1-D convolutions."""
    count, channels, height, width = images.shape
    radius = 3
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float32)
    kernel = torch.exp(-(offsets**2) / (2 * sigma[:, None] ** 2))
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0)
    flat = functional.pad(images, (radius,) * 4, mode="reflect").reshape(1, count * channels, height + 6, width + 6)
    flat = functional.conv2d(flat, kernel[:, None, None, :], groups=count * channels)
    flat = functional.conv2d(flat, kernel[:, None, :, None], groups=count * channels)
    return flat.view(count, channels, height, width)
