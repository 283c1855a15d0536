"""The ControlNets of one run: which pictures they are shown, and how much each counts at which step.   Zhang et al. 2023."""
import numpy as np

from .errors import InputError
from .image import pixels as pictures
from .networks import controlnet
from .settings import Settings, is_number


class Controls:
    """networks: [(weights, ControlNetConfig)];  settings: arguments.Settings.  Raises InputError for what they cannot be given."""

    def __init__(self, networks, settings, width, height):
        given = settings.control_image
        images = given if isinstance(given, (list, tuple)) else [] if given is None else [given]
        if len(images) != len(networks):
            raise InputError(f"{len(images)} control images for {len(networks)} ControlNets; give one for each, and load what is to read "
                             "them with controlnet=")
        usual = Settings()
        for name in () if networks else ("controlnet_conditioning_scale", "guess_mode", "control_guidance_start", "control_guidance_end"):
            if getattr(settings, name) != getattr(usual, name):
                raise InputError(f"{name} is {getattr(settings, name)!r}, but there is no ControlNet: load one with controlnet=")
        if not isinstance(settings.guess_mode, bool):
            raise InputError(f"guess_mode is {settings.guess_mode!r}; it must be True or False")
        self.networks, self.guess_mode = networks, settings.guess_mode
        self.pictures = [pictures.pixels(pictures.read(image), width, height) for image in images]
        self.scale = self.each("controlnet_conditioning_scale", settings.controlnet_conditioning_scale, -np.inf, np.inf)
        self.start = self.each("control_guidance_start", settings.control_guidance_start, 0, 1)
        self.end = self.each("control_guidance_end", settings.control_guidance_end, 0, 1)
        if any(a >= b for a, b in zip(self.start, self.end)):
            raise InputError(f"control_guidance_start is {settings.control_guidance_start!r}, control_guidance_end "
                             f"{settings.control_guidance_end!r}; it must start before it ends")

    def each(self, name, value, low, high):
        """One number for each network."""
        values = list(value) if isinstance(value, (list, tuple)) else [value] * len(self.networks)
        if len(values) != len(self.networks) or not all(is_number(v) and low <= v <= high for v in values):
            raise InputError(f"{name} is {value!r}; it must be a number, or a list of one for each of {len(self.networks)} ControlNets"
                             + (f", from {low} to {high}" if np.isfinite(high) else ""))
        return values

    def prepare(self, upload, dtype, rows, blind):
        """Compute what does not change from step to step.  rows: of the unet's batch; blind: how many of them, the first, are without
        the prompt, which guess mode leaves alone."""
        self.hints, self.scales = [], []
        for (weights, config), picture, scale in zip(self.networks, self.pictures, self.scale):
            picture = picture[..., ::-1] if config.bgr else picture
            n = config.counts()["controlnet_down_blocks"] + 1
            each = np.logspace(-1, 0, n) if self.guess_mode else np.ones(n)                   # the finest a tenth, the middle whole
            shares = np.repeat(each[:, None], rows, axis=1) * scale
            shares[:, :blind if self.guess_mode else 0] = 0
            hint = controlnet.hint(weights, upload(np.ascontiguousarray(picture).astype(dtype)))
            self.hints.append(hint.repeat(rows, axis=0))
            self.scales.append(upload(shares[..., None, None, None].astype(dtype)))

    def at(self, i, total):
        """What the unet's call is given at step i of `total`: the ControlNets that count there."""
        return {name: value for k, (hint, scales) in enumerate(zip(self.hints, self.scales))
                if not (i / total < self.start[k] or (i + 1) / total > self.end[k])
                for name, value in ((f"hint{k}", hint), (f"scales{k}", scales))}


def added(networks, x, t, context, given, told):
    """The sum of what all ControlNets in `given`, as at() gave it, add to a unet; None if there is none."""
    total = None
    for k, (weights, config) in enumerate(networks):
        if f"hint{k}" in given:
            middle, skips = controlnet.controlnet(weights, x[..., :config.in_channels], t, context, given[f"hint{k}"], given[f"scales{k}"],
                                                  config, **told)
            total = (middle, skips) if total is None else (total[0] + middle, [a + b for a, b in zip(total[1], skips)])
    return total
