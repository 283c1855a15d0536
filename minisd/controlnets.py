"""The ControlNets of one run: which images they are shown, and how strongly each acts at which step.   Zhang et al. 2023."""
import numpy as np

from .errors import InputError
from .image import pixels as images
from .networks import controlnet
from .settings import Settings, is_number

OPTIONS = "controlnet_conditioning_scale", "guess_mode", "control_guidance_start", "control_guidance_end"


class Controls:
    """networks: [(weights, ControlNetConfig)];  settings: Settings.  Raises InputError for what they cannot be given."""

    def __init__(self, networks, settings, width, height):
        given = settings.control_image
        controls = given if isinstance(given, (list, tuple)) else [] if given is None else [given]
        if len(controls) != len(networks):
            raise InputError(f"{len(controls)} control images for {len(networks)} ControlNets; give one for each, and load what is to read "
                             "them with controlnet=")
        defaults = Settings()
        for name in () if networks else OPTIONS:
            if getattr(settings, name) != getattr(defaults, name):
                raise InputError(f"{name} is {getattr(settings, name)!r}, but there is no ControlNet: load one with controlnet=")
        self.networks, self.guess_mode = networks, settings.guess_mode
        self.images = [images.pixels(images.read(image), width, height) for image in controls]
        self.scale = self.one_each("controlnet_conditioning_scale", settings.controlnet_conditioning_scale, -np.inf, np.inf)
        self.start = self.one_each("control_guidance_start", settings.control_guidance_start, 0, 1)
        self.end = self.one_each("control_guidance_end", settings.control_guidance_end, 0, 1)
        if any(a >= b for a, b in zip(self.start, self.end)):
            raise InputError(f"control_guidance_start is {settings.control_guidance_start!r}, control_guidance_end "
                             f"{settings.control_guidance_end!r}; it must start before it ends")

    def one_each(self, name, value, low, high):
        """One number for each network."""
        values = list(value) if isinstance(value, (list, tuple)) else [value] * len(self.networks)
        if len(values) != len(self.networks) or not all(is_number(v) and low <= v <= high for v in values):
            raise InputError(f"{name} is {value!r}; it must be a number, or a list of one for each of {len(self.networks)} ControlNets"
                             + (f", from {low} to {high}" if np.isfinite(high) else ""))
        return values

    def prepare(self, upload, dtype, rows, without_prompt):
        """Compute what does not change from step to step.  rows: of the unet's batch;  without_prompt: how many of them, the first, are
        branches without the prompt, which guess mode leaves alone."""
        self.hints, self.scales = [], []
        for (weights, config), image, scale in zip(self.networks, self.images, self.scale):
            image = image[..., ::-1] if config.bgr else image
            n = config.counts()["controlnet_down_blocks"] + 1
            levels = np.logspace(-1, 0, n) if self.guess_mode else np.ones(n)                 # a tenth of the finest, all of the middle
            scales = np.repeat(levels[:, None], rows, axis=1) * scale
            scales[:, :without_prompt if self.guess_mode else 0] = 0
            hint = controlnet.hint(weights, upload(np.ascontiguousarray(image).astype(dtype)))
            self.hints.append(hint.repeat(rows, axis=0))
            self.scales.append(upload(scales[..., None, None, None].astype(dtype)))

    def at(self, i, total):
        """The hint and the scales of each ControlNet that acts at step i of `total`, by name, as Model.run_unet() reads them."""
        return {name: value for k, (hint, scales) in enumerate(zip(self.hints, self.scales))
                if not (i / total < self.start[k] or (i + 1) / total > self.end[k])
                for name, value in ((f"hint{k}", hint), (f"scales{k}", scales))}
