"""A whole run as one more call of a recording: the noise it starts from, the guided prediction and the latent of each step, the pixels.

A step that is off by itself, from their own latent and prediction, is the sampler's mistake; a prediction, the unet's or the guidance's."""
import numpy as np

from .. import tasks
from ..denoising import Run, denoise
from ..errors import CheckpointError
from ..image import pixels
from ..networks import nn
from ..settings import Settings
from .calls import Call, Named

NAME = "run"
SCHEDULE = "timesteps", "alphas", "sigmas"                   # x = alpha x0 + sigma eps before each step
SCHEDULE_NOISE = 2.0**-20                                    # of a schedule added up in float32, as the reference does
SAYS = {"noise_pred": "the unet, what it is given with the latent, or the guidance", "latent": "the sampler's step",
        "start": "the scale of the first noise", "pixels": "the decoder, or the range of its pixels",
        **dict.fromkeys(SCHEDULE, "the sampler's schedule")}


def prepared(model, said, latents=None):
    """said: prompt, width, height and fields of Settings -> Run.  Raises InputError for what cannot be."""
    size = {k: said[k] for k in ("width", "height")}
    pixels.check_size(**size, multiple=model.vae_config.factor)
    settings = Settings(**{k: v for k, v in said.items() if k != "prompt"}, latents=latents)
    return Run(model, tasks.Txt2Img(), said["prompt"], None, settings, **size)


def run_call(model, said):
    """The Call of a run with these settings, see prepared()."""
    run = prepared(model, said)
    count, shape = len(run.sampler.timesteps), run.shape
    layers = {**dict.fromkeys(SCHEDULE, (count,)), "start": shape}
    for i in range(count):
        layers |= {f"steps.{i}.noise_pred": shape, f"steps.{i}.latent": shape}
    layers["pixels"] = (1, said["height"], said["width"], 3)

    def network(_, noise, step_noise):
        if step_noise.shape[1:] != shape:
            raise CheckpointError(f"run.step_noise has shape {step_noise.shape}; {shape} was expected for each step")
        walk(prepared(model, said, noise), iter(step_noise))

    return Call(NAME, NAME, {"noise": "BHWC", "step_noise": "KBHWC"}, None, network, model.latent_dtype, layers)


def draws(model, said):
    """{input: array} of such a run: the noise that its seed gives, to start from and for each step that adds some."""
    run = prepared(model, said)
    first, drawn = run.noise(), []

    def counted():
        drawn.append(run.noise())
        return drawn[-1]

    x = first * float(run.sampler.init_sigma)                # which steps draw does not depend on what the unet says
    for _ in denoise(lambda x, t, i: x, run.sampler, x, counted, run.first, None, run.last):
        pass
    return {"noise": first.astype(np.float32), "step_noise": np.array(drawn, np.float32).reshape(-1, *run.shape)}


def walk(run, step_noise):
    """The run, each part of it shown to who observes, who may put another in its place; the networks' own layers are not."""
    def shown(name, y):
        return nn.tap(Named(name), y)

    def alone(function, *args):
        with nn.observe(None):
            return function(*args)

    def noise():
        drawn = next(step_noise, None)
        if drawn is None:
            raise CheckpointError("run.step_noise has fewer steps than draw noise with this sampler")
        return drawn.astype(run.model.latent_dtype)

    start = alone(run.task.start, run)
    predict, sampler = alone(run.prediction, start), run.sampler
    for name, values in zip(SCHEDULE, (sampler.timesteps, sampler.alpha, sampler.sigma)):
        shown(name, np.asarray(values[:len(sampler.timesteps)], np.float64))
    for step in denoise(lambda x, t, i: shown(f"steps.{i}.noise_pred", alone(predict, x, t, i)), sampler, shown("start", start.x),
                        noise, run.first, lambda x, i: shown(f"steps.{i}.latent", x), run.last):
        latent = step.latent
    shown("pixels", alone(run.model.decode, latent))
