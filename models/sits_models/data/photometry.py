"""Other values on the same ground: gain, contrast, colour, blur, noise, and bands that are hidden."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from sits_models.data.draws import Draws
from sits_models.data.transforms import LARGEST, REFLECTANCE
from sits_models.recipe.views import VISIBLE, Blur, Jitter, Photometry
from sits_models.sample import Sample

__all__ = ["vary"]


def vary(sample: Sample, options: Photometry, draws: Draws) -> Sample:
    """A sample of other values, float32, in the order of the options.

    What is not observed stays 0 and an observed value stays in [1, 65535]. A hidden band becomes 0 in all pixels, so
    not observed: a model takes it for the mean of its values, and it keeps its place among the bands. Where all bands
    that stay for the batch are dropped for a chip, one of these stays. Noise differs between kinds of device, all else
    by rounding. Raises ValueError where a jitter names no band of the sample.
    """
    draws.check(len(sample.image))
    before = sample.image.to(torch.float32)
    values = _scaled(before, options, draws)
    if options.jitter is not None:
        values = _jittered(values, before > 0, sample.bands, options.jitter, draws)
    if options.grey > 0:
        values = _grey(values, before > 0, sample.bands, options, draws)
    if options.blur is not None:
        values = _blurred(values, before > 0, options.blur, draws)
    if options.noise > 0:
        values = values + options.noise * REFLECTANCE * draws.noise(values.shape[1:], values.device)
    seen = before > 0
    if options.drop_bands > 0 or options.bands is not None:
        shown = _draw_bands(values.shape[2], options, draws).to(seen.device)
        seen &= shown[:, None, :, None, None]
    return sample.replace(image=torch.where(seen, values.clamp(1.0, LARGEST), 0.0))


def _around(spread: float, drawn: Tensor) -> Tensor:
    """Uniform in [1 - spread, 1 + spread]."""
    return 1 + spread * (2 * drawn - 1)


def _means(values: Tensor, observed: Tensor) -> Tensor:
    """(B, 1, C, 1, 1): of the observed values of a band over dates and pixels; 0 where there is none."""
    axes = (1, 3, 4)
    total = torch.where(observed, values, 0.0).sum(axes, keepdim=True)
    return total / observed.sum(axes, keepdim=True).clamp(min=1)


def _scaled(values: Tensor, options: Photometry, draws: Draws) -> Tensor:
    """A factor and an addend a band, for which gain, offset and contrast are one."""
    shape = (1, values.shape[2], 1, 1)
    factor = torch.ones(draws.count, *shape)
    addend = torch.zeros(draws.count, *shape)
    if options.gain > 0:
        factor = 1 + options.gain * draws.normal(*shape)
    if options.offset > 0:
        addend = options.offset * REFLECTANCE * draws.normal(*shape)
    factor, addend = factor.to(values.device), addend.to(values.device)
    if options.contrast > 0:
        # Of v' = f v + a, whose mean is f m + a: k v' + (1 - k) (f m + a).
        contrast = _around(options.contrast, draws.uniform(*shape)).to(values.device)
        mean = factor * _means(values, values > 0)
        factor, addend = contrast * factor, addend + (1 - contrast) * mean
    return values * factor + addend


def _visible(bands: tuple[str, ...], names: tuple[str, ...], what: str) -> list[int]:
    found = [bands.index(name) for name in names if name in bands]
    if not found:
        raise ValueError(
            f"{what} is of the bands {', '.join(names)}; the sample has {', '.join(bands)}: name other bands, or do "
            "without it"
        )
    return found


def _jittered(values: Tensor, observed: Tensor, bands: tuple[str, ...], options: Jitter, draws: Draws) -> Tensor:
    numbers = _visible(bands, options.visible, "a jitter")
    factors, whether = draws.uniform(4), draws.uniform() < options.probability
    brightness, contrast, saturation = (
        _around(spread, factors[:, i, None, None])
        for i, spread in enumerate((options.brightness, options.contrast, options.saturation))
    )
    k = len(numbers)
    grey = torch.full((k, k), 1 / k)  # from a pixel to its grey in each band
    mixes = saturation * torch.eye(k) + (1 - saturation) * grey
    if options.hue > 0:
        if k != 3:
            raise ValueError(f"hue is of three visible bands; got {', '.join(bands[number] for number in numbers)}")
        mixes = _hue_turns(2 * torch.pi * options.hue * (2 * factors[:, 3] - 1)) @ mixes
    mixes = torch.where(whether[:, None, None], brightness * contrast * mixes, torch.eye(k)).to(values.device)
    towards = torch.where(whether[:, None, None], brightness * (1 - contrast), 0.0)[:, None, :, :, None]
    picked = values[:, :, numbers]  # (B, T, k, H, W)
    mean = _means(picked, observed[:, :, numbers]).mean(dim=2, keepdim=True)  # the chip's grey
    mixed = (towards.to(values.device) * mean).expand(-1, 1, k, 1, 1)
    for j in range(k):
        mixed = mixed + mixes[:, None, :, j, None, None] * picked[:, :, j : j + 1]
    changed = values.clone()
    changed[:, :, numbers] = mixed
    return changed


def _hue_turns(angles: Tensor) -> Tensor:
    """(B, 3, 3): turns around (1, 1, 1), by Rodrigues' formula; greys and the mean of the bands stay."""
    cross = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / math.sqrt(3)
    cosine, sine = angles.cos()[:, None, None], angles.sin()[:, None, None]
    return cosine * torch.eye(3) + sine * cross + (1 - cosine) / 3


def _grey(values: Tensor, observed: Tensor, bands: tuple[str, ...], options: Photometry, draws: Draws) -> Tensor:
    whether, number = draws.uniform() < options.grey, draws.integers(len(bands))
    chips = whether.nonzero()[:, 0].to(values.device)
    if options.grey_of == "band":
        one = values[chips, :, number[whether].to(values.device)].unsqueeze(2)  # (chips, T, 1, H, W)
    else:
        numbers = _visible(bands, VISIBLE, "grey")
        one = values[chips][:, :, numbers].mean(dim=2, keepdim=True)
    changed = values.clone()
    changed[chips] = one.expand(-1, -1, len(bands), -1, -1)
    return torch.where(observed, changed, 0.0)


def _blurred(values: Tensor, observed: Tensor, options: Blur, draws: Draws) -> Tensor:
    """Means over what is observed inside of the chip, weighted by the kernel."""
    whether, drawn = draws.uniform() < options.probability, draws.uniform()
    chips = whether.nonzero()[:, 0].to(values.device)
    kernels = _kernels(options, drawn[whether]).to(values.device)
    seen = observed[chips].to(torch.float32)
    # Autocast would have the convolutions in half precision, in which 10000 and 10001 are one.
    with torch.autocast(values.device.type, enabled=False):
        total, weights = _convolved(values[chips] * seen, kernels), _convolved(seen, kernels)
    changed = values.clone()
    changed[chips] = torch.where(seen > 0, total / weights, 0.0)
    return changed


def _kernels(options: Blur, drawn: Tensor) -> Tensor:
    """(chips, n), of one length; what is beyond a chip's own kernel is 0."""
    if options.kernels is not None:
        sizes = torch.tensor(options.kernels)[(drawn * len(options.kernels)).long()]
        radius, sigma = (sizes - 1) // 2, 0.3 * ((sizes - 1) / 2 - 1) + 0.8
        reach = (max(options.kernels) - 1) // 2
    else:
        assert options.sigma is not None  # a blur has one of the two
        least, largest = options.sigma
        sigma = least + (largest - least) * drawn
        reach = math.ceil(3 * largest)
        radius = torch.full_like(sigma, reach)
    distance = torch.arange(-reach, reach + 1)
    weights = (-(distance**2) / (2 * sigma[:, None] ** 2)).exp() * (distance.abs() <= radius[:, None])
    return weights / weights.sum(dim=1, keepdim=True)


def _convolved(images: Tensor, kernels: Tensor) -> Tensor:
    """(chips, T, C, H, W) along rows and columns, zeros around."""
    b, t, c, h, w = images.shape
    reach = kernels.shape[1] // 2
    stacked = images.view(b, t * c, h, w).transpose(0, 1).contiguous()  # (T*C, chips, H, W): a kernel a channel
    if b == 0:
        return images
    stacked = functional.conv2d(stacked, kernels[:, None, :, None], groups=b, padding=(reach, 0))
    stacked = functional.conv2d(stacked, kernels[:, None, None, :], groups=b, padding=(0, reach))
    return stacked.transpose(0, 1).reshape(b, t, c, h, w)


def _draw_bands(bands: int, options: Photometry, draws: Draws) -> Tensor:
    """(B, C) bool: the bands that stay."""
    stay = torch.ones(bands, dtype=torch.bool)
    if options.bands is not None:
        least, most = options.bands
        if most > bands:
            raise ValueError(f"of {bands} bands {least} to {most} were to stay; ask for {bands} at most")
        number, keys = least + draws.shared_integer(most - least + 1), draws.shared(bands)
        stay = torch.zeros_like(stay).index_fill_(0, keys.argsort()[:number], value=True)
    chances = draws.uniform(bands).masked_fill(~stay, -1.0)
    largest = torch.zeros_like(chances, dtype=torch.bool).scatter_(1, chances.argmax(dim=1, keepdim=True), value=True)
    return (stay & (chances >= options.drop_bands)) | largest
