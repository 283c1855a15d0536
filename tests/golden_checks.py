"""Golden files: reading them, and holding minisd against them.

A file has the reference's outputs in full and, of every layer, a fingerprint (see docs/goldens.md)."""
import gzip
import json
from pathlib import Path

import drawn_models
import golden_cases
import ldm_files
import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

import minisd
from minisd.checkpoint.weights import Weights
from minisd.diffusion import samplers
from minisd.diffusion.rng import TorchCPU, latent_noise
from minisd.networks import clip, controlnet, nn, taesd, unet, vae
from minisd.networks.clip_config import TextConfig
from minisd.networks.unet_config import ControlNetConfig, UNetConfig
from minisd.networks.vae_config import TinyConfig, VAEConfig

FOLDER = Path(__file__).parent / "goldens"
BOUND = 1e-5                                                 # of the largest value of an output
LAYER_BOUND = 3e-5                                           # of a layer's fingerprint: in the faint case norms magnify rounding
SAMPLES = 16
CORNER = slice(None), slice(40), slice(40)                   # what is kept of pixels


class Golden(dict):
    """{name: array} of one golden file, with its metadata."""

    def __init__(self, name, folder=FOLDER):
        with safe_open(Path(folder) / f"{name}.safetensors", framework="numpy") as file:
            super().__init__({k: file.get_tensor(k) for k in file.keys()})
            self.about = {k: json.loads(v) for k, v in (file.metadata() or {}).items()}


def keys(folder=FOLDER):
    """{checkpoint: {component: {weight name: shape}}} of real sizes, as the reference has them."""
    return json.loads(gzip.decompress((Path(folder) / "keys.json.gz").read_bytes()))


def fingerprint(x):
    """Any array -> mean, standard deviation, and 16 numbers evenly spread over it in channels-last order."""
    flat = np.asarray(x, np.float64).reshape(-1)
    where = np.linspace(0, flat.size - 1, SAMPLES).astype(int)
    return np.array([flat.mean(), flat.std(), *flat[where]], np.float32)


def channels_last(x):
    return x.transpose(0, 2, 3, 1) if x.ndim == 4 else x


def relative(found, expected):
    """The largest difference, relative to the largest value expected; infinite where shapes differ or numbers are not."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    if found.shape != expected.shape or not np.isfinite(found).all():
        return np.inf
    return float(np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-30))


def weights_of(model, dtype=None):
    golden = Golden(model)
    return Weights.from_flat({n: drawn_models.weight(n, s) for n, s in golden.about["shapes"].items()}, dtype)


def model_inputs(model):
    """case -> the inputs of the network, in the reference's layout (B,C,H,W); drawn by name, so goldens hold none."""
    component, config = golden_cases.MODELS[model]
    if component.startswith("text_encoder"):
        length = config["max_position_embeddings"]
        return {"prompts": np.array([(row + [49407] * length)[:length] for row in golden_cases.TOKENS])}
    found = {}
    for case, (h, w, scale) in golden_cases.SIZES.items():
        scale = np.float32(scale)
        if component in ("unet", "controlnet"):
            shape = golden_cases.BATCH, config["in_channels"], h, w
            found[case] = (scale * drawn_models.standard(f"{case}.sample", shape), np.float32(golden_cases.TIMESTEPS),
                           scale * drawn_models.standard(f"{case}.context", (golden_cases.BATCH, 77, config["cross_attention_dim"])),
                           conditioning_of(config))
            if component == "controlnet":
                found[case][-1]["hint"] = drawn_models.uniform(f"{case}.hint", (golden_cases.BATCH, 3, 8 * h, 8 * w)) / 2 + np.float32(0.5)
        else:
            found[f"decode {case}"] = scale * drawn_models.standard(f"{case}.latent", (golden_cases.BATCH, 4, h, w))
            found[f"encode {case}"] = scale * drawn_models.uniform(f"{case}.pixels", (golden_cases.BATCH, 3, 8 * h, 8 * w))
    return found


def conditioning_of(config):
    """The further conditioning of a unet of this config, as unet.time_embedding() takes it."""
    found = {}
    if "addition_embed_type" in config:
        sizes = config["projection_class_embeddings_input_dim"] // config["addition_time_embed_dim"] - 2       # the pooled text has two
        found["text_embeds"] = drawn_models.standard("pooled", (golden_cases.BATCH, golden_cases.TEXT_2["projection_dim"]))
        found["time_ids"] = np.float32([[1024, 768, 0, 12, 512, 640], [56, 72, 3, 5, 640, 512]])[:, :sizes]
    if "num_class_embeds" in config:
        found["class_labels"] = np.array([20, 349])
    if "time_cond_proj_dim" in config:
        found["timestep_cond"] = drawn_models.uniform("guidance", (golden_cases.BATCH, config["time_cond_proj_dim"]))
    return found


def run_model(model, case, p, trace=True):
    """minisd on one golden case -> (output channels-last, {layer: output}); the trace is empty with trace=False."""
    component, raw = golden_cases.MODELS[model]
    given = model_inputs(model)[case]

    def run():
        if component == "text_encoder":
            return clip.encode(p, given, TextConfig.read(raw))
        if component == "text_encoder_2":
            return clip.encode_xl(p, given, TextConfig.read(raw))[1]
        if component == "unet":
            x, t, context, conditioning = given
            return unet.unet(p, channels_last(x), t, context, UNetConfig.read(raw), **conditioning)
        if component == "controlnet":
            x, t, context, conditioning = given
            hint = controlnet.hint(p, channels_last(conditioning["hint"]))
            conditioning = {k: a for k, a in conditioning.items() if k != "hint"}
            return controlnet.controlnet(p, channels_last(x), t, context, hint, np.ones((13, 1, 1, 1, 1), np.float32),
                                         ControlNetConfig.read(raw), **conditioning)[0]
        if "AutoencoderTiny" in raw.values():
            return getattr(taesd, case.split()[0])(p, channels_last(given), TinyConfig.read(raw))
        c = VAEConfig.read(raw)
        if case.startswith("encode"):
            return vae.encode(p, channels_last(given), c)
        return vae.decode(p, channels_last(given) * np.float32(c.scaling_factor), c)   # the golden's input is already divided

    if not trace:
        return run(), {}
    with nn.trace() as seen:
        y = run()
    return y, seen


def compare_model(model, folder=FOLDER, p=None):
    """minisd against one golden model -> {case: [(layer, error), ...] in order of execution, the output last}.

    Raises AssertionError if a layer of either side has no counterpart on the other."""
    golden, p = Golden(model, folder), weights_of(model) if p is None else p
    found = {}
    for case in model_inputs(model):
        expected = dict(zip(golden.about["taps"][case], golden[f"{case}.taps"]))
        y, seen = run_model(model, case, p)
        assert not set(seen) - set(expected), f"{model}, {case}: layers unknown to the reference: {sorted(set(seen) - set(expected))}"
        unseen = set(golden.about["leaves"][case]) - set(seen)
        assert not unseen, f"{model}, {case}: layers of the reference that minisd did not run: {sorted(unseen)}"
        errors = [(name, relative(fingerprint(seen[name]), expected[name])) for name in expected if name in seen]
        found[case] = [*errors, ("output", relative(y, channels_last(golden[f"{case}.output"])))]
    return found


def first_off(errors):
    """The first layer, in order of execution, that is off, and by how much; None if none is."""
    return next(((name, e) for name, e in errors if not e <= (BOUND if name == "output" else LAYER_BOUND)), None)


def noise_predictor(lib, x, t):
    """Stands in for a network in the samplers' goldens: smooth, bounded, of its input and the time."""
    return 0.8 * x * np.cos(t / 1000).item() + 0.3 * lib.sin(3 * x)


def run_sampler(name, config, steps, how):
    """minisd's sampler on one golden case -> (timesteps, latents after each step (n+1,...)) in (B,C,H,W)."""
    s, random = samplers.sampler(name, config, steps, **how), TorchCPU(7)
    x = random.randn(golden_cases.SAMPLE_SHAPE) * np.float32(s.init_sigma)
    path = [x]
    for i, t in enumerate(s.timesteps):
        out = noise_predictor(np, s.scale_input(x, i), np.float64(t))
        x = s.step(x, out, i, lambda: random.randn(golden_cases.SAMPLE_SHAPE))
        path.append(x)
    return np.array(s.timesteps), np.array(path)


def compare_sampler(case, golden):
    """-> the largest error of any step, relative to that step's largest value."""
    timesteps, path = run_sampler(*golden_cases.sampler_cases()[case])
    if relative(timesteps, golden[f"{case}.timesteps"]) > 2e-5:      # 0.02 of 999: the reference's float32 sigma, as a t
        return np.inf
    samples = golden[f"{case}.samples"]                      # each step: its largest value, then 4 of its numbers
    final = relative(path[-1], golden[f"{case}.final"])
    if len(samples) != len(path):
        return np.inf
    flat = path.reshape(len(path), -1)[:, [0, 17, 30, 47]]
    return max(final, float((np.abs(flat - samples[:, 1:]) / samples[:, :1]).max()))


def compare_noise(golden):
    """-> the largest error of torch's random numbers, absolute."""
    worst = 0.0
    for k, (seed, shapes) in enumerate(golden_cases.NOISE):
        random = TorchCPU(seed)
        for j, shape in enumerate(shapes):
            worst = max(worst, float(np.abs(random.randn(shape) - golden[f"{k}.{j}"]).max()))
    return worst


def compare_shipped(golden):
    """-> how many levels of 255 the shipped model's pictures are off at most."""
    pipe = minisd.load()
    pictures = [pipe.txt2img(prompt, seed=seed) for prompt, seed in golden_cases.SHIPPED]
    return float(np.abs(np.array([np.asarray(p) for p in pictures]).astype(int) - golden["pixels"]).max())


def write_pipeline(folder, name, prefix="", channels=4):
    """The diffusers folder of one end-to-end golden, from drawn weights; channels: that the unet takes."""
    models, scheduler, pad, _ = golden_cases.PIPELINES[name]
    parts = [golden_cases.MODELS[m][0] for m in models]
    configs = {part: golden_cases.MODELS[m][1] for part, m in zip(parts, models)}
    shapes = {part: Golden(m).about["shapes"] for part, m in zip(parts, models)}
    first, _, *window = shapes["unet"]["conv_in.weight"]
    configs["unet"] = dict(configs["unet"], in_channels=channels)
    shapes["unet"] = dict(shapes["unet"], **{"conv_in.weight": [first, channels, *window]})
    return drawn_models.write_model(Path(folder), configs, shapes, scheduler, pad, prefix)


def write_family(folder, name, channels=4):
    """The diffusers folder of one of golden_cases.FAMILIES."""
    _, models, scheduler, index = golden_cases.FAMILIES[name]
    parts = {component: (config, like) for component, config, like in map(golden_cases.network, models)}
    configs, shapes = {c: config for c, (config, _) in parts.items()}, {c: Golden(like).about["shapes"] for c, (_, like) in parts.items()}
    first, _, *window = shapes["unet"]["conv_in.weight"]
    configs["unet"] = dict(configs["unet"], in_channels=channels)
    shapes["unet"] = dict(shapes["unet"], **{"conv_in.weight": [first, channels, *window]})
    drawn_models.write_model(Path(folder), configs, shapes, scheduler, "!" if "text_sd2" in models else None, index=index)
    if name == "upscaler":
        (Path(folder) / "low_res_scheduler").mkdir()
        (Path(folder) / "low_res_scheduler" / "scheduler_config.json").write_text(json.dumps(dict(scheduler, _class_name="DDPMScheduler")))
    return Path(folder)


def write_controlnet(folder, model):
    return drawn_models.write_network(Path(folder) / model, "controlnet", golden_cases.MODELS[model][1], Golden(model).about["shapes"])


CANNY = [(100, 200), (30, 60), (0, 0)]                       # low, high


def edgy_pictures():
    """[(H,W,3) bytes]: noise, and large shapes with soft edges, drawn by name."""
    noise = ((drawn_models.uniform("noise", (21, 34, 3)) + 1) * 127).astype(np.uint8)
    blocks = np.kron(drawn_models.uniform("blocks", (5, 7, 3)), np.ones((12, 11, 1)))
    rows = np.add.outer(np.arange(60), np.arange(77))[..., None] / 137
    return [noise, ((blocks * (0.4 + 0.6 * rows) + 1) * 127).astype(np.uint8), (np.sin(rows * [40, 9, 3]) * 90 + 128).astype(np.uint8)]


def depth_map():
    """Larger one way and smaller the other than the latents of a_picture(), which are (7,9)."""
    return drawn_models.standard("depth", (23, 5))


def given_to(task, controls):
    """Pictures that a task is given, and the ControlNets."""
    picture, mask = a_picture()
    found = {"txt2img": {}, "inpaint": dict(image=picture, mask_image=mask), "depth2img": dict(image=picture, depth_map=depth_map())}.get(
        task, dict(image=picture))
    return {**found, **(dict(control_image=[picture, mask.convert("RGB")][:controls]) if controls else {})}


def compare_run(name, golden, folder):
    """The errors of one of golden_cases.RUNS' latent after all steps, and of the pixels that the reference's latent is decoded to; its
    model
    is written below `folder`."""
    family, task, controls, channels, how = golden_cases.RUNS[name]
    place = Path(folder) / f"family {family} {channels}"
    place = place if place.exists() else write_family(place, family, channels)
    pipe = minisd.load(place, controlnet=[write_controlnet(folder, model) for model in controls])
    expected = channels_last(golden[f"{name}.latent"])
    found = getattr(pipe, task)(output="latent", **given_to(task, len(controls)), **in_our_words(task, how))
    return relative(found, expected), float(np.abs(pipe.model.decode(expected)[CORNER] - golden[f"{name}.pixels"]).max())


def in_our_words(task, how):
    """The arguments of a run, as minisd takes them; a picture says its size itself."""
    how = {k: v for k, v in one_generator(how).items() if k not in ("width", "height") or task == "txt2img"}
    return dict(how, latents=given_noise(how)) if "latents" in how else how


def given_noise(how):
    """What a run starts from where it is given noise: of the latents of a_picture()."""
    return drawn_models.standard("noise", (how.get("num_images", 1), 7, 9, 4))


def lora_file(name, path):
    """One of golden_cases.LORAS, drawn by name, as the tools write them."""
    spelling, unet_layers, text_layers, rank, alpha, _ = golden_cases.LORAS[name]
    arrays = {}
    for part, model, layers in (("unet", "unet_sd1", unet_layers), ("text_encoder", "text_sd1", text_layers)):
        shapes = Golden(model).about["shapes"]
        for layer in layers:
            O, C, *window = shapes[f"{layer}.weight"]
            down = drawn_models.uniform(f"{name}.{layer}.down", (rank, C, *window)) * np.float32(0.5)
            up = drawn_models.uniform(f"{name}.{layer}.up", (O, rank, *[1] * len(window))) * np.float32(0.5)
            inside = layer if part == "unet" else f"text_model.{layer}"
            if spelling == "kohya":
                stem = f"lora_{'unet' if part == 'unet' else 'te'}_{inside.replace('.', '_')}"
                arrays |= {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up, f"{stem}.alpha": np.float32(alpha)}
            elif spelling == "peft":
                arrays |= {f"{part}.{inside}.lora_A.weight": down, f"{part}.{inside}.lora_B.weight": up}
            else:
                head, _, tail = inside.removesuffix(".0").rpartition(".")
                arrays |= {f"{part}.{head}.processor.{tail}_lora.down.weight": down, f"{part}.{head}.processor.{tail}_lora.up.weight": up}
    save_file({k: np.asarray(v) for k, v in arrays.items()}, path)
    return path


def xl_lora_file(path):
    """A LoRA for golden_cases.FAMILIES' "xl", as kohya's tools write them: the unet's places in LDM's names, both text encoders."""
    arrays = {}

    def add(stem, model, layer):
        O, C = Golden(model).about["shapes"][f"{layer}.weight"]
        arrays[f"{stem}.lora_down.weight"] = drawn_models.uniform(f"{stem}.down", (4, C)) * np.float32(0.5)
        arrays[f"{stem}.lora_up.weight"] = drawn_models.uniform(f"{stem}.up", (O, 4)) * np.float32(0.5)
        arrays[f"{stem}.alpha"] = np.float32(2)

    for place, where in golden_cases.XL_LORA.items():
        for inside in ("proj_in", *(f"transformer_blocks.0.{k}" for k in ("attn1.to_q", "attn2.to_out.0", "ff.net.2"))):
            add(f"lora_unet_{place}_{inside.replace('.', '_')}", "unet_xl", f"{where}.{inside}")
    for mark, model in (("te1", "text_sd1"), ("te2", "text_xl")):
        for layer in golden_cases.LORA_TEXT:
            add(f"lora_{mark}_text_model_{layer.replace('.', '_')}", model, layer)
    save_file({k: np.asarray(v) for k, v in arrays.items()}, path)
    return path


def xl_inversion_file(path):
    """Two vectors for each text encoder of golden_cases.FAMILIES' "xl"."""
    save_file({"clip_l": drawn_models.standard("clip_l", (2, 40)), "clip_g": drawn_models.standard("clip_g", (2, 48))}, path)
    return path


def compare_xl(what, golden, folder):
    """The error of an SDXL latent: with a "lora", with a word of its own ("inversion"), or begun by the base and ended by the
    refiner ("handoff")."""
    how, place = dict(golden_cases.XL_HOW, output="latent"), Path(folder) / "family xl 4"
    place = place if place.exists() else write_family(place, "xl")
    if what == "lora":
        found = minisd.load(place, lora=(xl_lora_file(Path(folder) / "xl.safetensors"), 0.9)).txt2img(**how)
    elif what == "inversion":
        taught = minisd.load(place, textual_inversion=[(xl_inversion_file(Path(folder) / "word.safetensors"), "<tower>")])
        found = taught.txt2img(**dict(how, prompt="a <tower> on a hill", negative_prompt="<tower>"))
    else:
        base = minisd.load(place).txt2img(**how, denoising_end=0.6)
        refiner = minisd.load(write_family(Path(folder) / "the refiner", "refiner"))
        how = {k: v for k, v in how.items() if k not in ("width", "height")}
        found = refiner.img2img(image=base, denoising_start=0.6, **how)
    return relative(found, channels_last(golden[f"xl {what}.latent"]))


def one_generator(how):
    """With the setting that draws as diffusers does, where one seed is given."""
    return how if isinstance(how.get("seed"), (list, tuple)) else dict(how, shared_generator=True)


def encoded(pipe, pixels, seed):
    """Latents drawn from the encoder's distribution with torch's numbers of this seed."""
    c = pipe.model.vae_config
    shape = len(pixels), pixels.shape[1] // c.factor, pixels.shape[2] // c.factor, c.latent_channels
    return pipe.model.encode(pixels, latent_noise(TorchCPU(seed), shape))


def a_picture():
    """(a PIL picture of 72x56, a mask with soft edges), drawn by name.  Not to be resized: Pillow's versions differ in rounding."""
    from PIL import Image
    pixels = np.kron(drawn_models.uniform("picture", (7, 9, 3)), np.ones((8, 8, 1)))
    mask = (np.add.outer(np.arange(56), np.arange(72)) * 3).clip(0, 255)
    return Image.fromarray(((pixels + 1) * 127).astype(np.uint8)), Image.fromarray(mask.astype(np.uint8))


def compare_task(name, golden, folder):
    """The error of one task's latent after all steps, its model written below `folder`."""
    pipeline, task, channels, how = golden_cases.TASKS[name]
    place = Path(folder) / f"{pipeline} {channels}"
    pipe = minisd.load(place if place.exists() else write_pipeline(place, pipeline, channels=channels))
    picture, mask = a_picture()
    given = dict(mask_image=mask) if task == "inpaint" else {}
    found = getattr(pipe, task)(image=picture, output="latent", **given, **one_generator(how))
    return relative(found, channels_last(golden[f"{name}.latent"]))


def compare_lora(name, golden, folder):
    """The error of a picture's latent with one of golden_cases.LORAS, the model and the file written below `folder`."""
    place = Path(folder) / "sd1 with lora"
    place = place if place.exists() else write_pipeline(place, "sd1")
    pipe = minisd.load(place, lora=[(lora_file(name, Path(folder) / f"{name}.safetensors"), golden_cases.LORAS[name][-1])])
    return relative(pipe.txt2img(**LORA_HOW, output="latent"), channels_last(golden[f"lora {name}.latent"]))


LORA_HOW = dict(prompt="a fox", num_inference_steps=3, guidance_scale=5.0, seed=3, width=64, height=64, sampler="ddim")


# file with LDM names -> (family, channels the unet takes, task)
SINGLES = {"SD 1": ("SD 1", 4, "txt2img"), "SD 2": ("SD 2", 4, "txt2img"), "XL": ("XL", 4, "txt2img"), "refiner": ("refiner", 4, "img2img"),
           "pix2pix": ("SD 1", 8, "instruct_pix2pix"), "inpainting": ("SD 2", 9, "inpaint"), "upscaler": ("upscaler", 7, "upscale")}


def compare_single(name, golden, folder):
    """The error of a picture made from a single file with LDM names: of its latent, and of what the reference's is decoded to."""
    family, channels, task = SINGLES[name]
    path = ldm_files.write(Path(folder) / f"{name}.safetensors", family, in_channels=channels)
    pipe = minisd.load(path, prediction_type=None if family == "upscaler" else "epsilon")
    how = {k: v for k, v in LORA_HOW.items() if task == "txt2img" or k not in ("width", "height")}
    latent = channels_last(golden[f"single {name}.latent"])
    found = getattr(pipe, task)(**how, **given_to(task, 0), output="latent")
    return max(relative(found, latent), float(np.abs(pipe.model.decode(latent)[CORNER] - golden[f"single {name}.pixels"]).max()))


INVERTED = "a photo of <my-cat>, wearing <three-hats> and a scarf"


def inversion_files(folder):
    """[(file, the word to give it, or None if the file says)]: diffusers' kind with one vector, AUTOMATIC1111's with three."""
    save_file({"<my-cat>": drawn_models.standard("<my-cat>", (40,))}, folder / "learned_embeds.safetensors")
    save_file({"emb_params": drawn_models.standard("<three-hats>", (3, 40))}, folder / "hats.safetensors")
    return [(folder / "learned_embeds.safetensors", None), (folder / "hats.safetensors", "<three-hats>")]


def compare_inversion(golden, folder):
    """The error of a latent whose prompt has two words of their own."""
    place = Path(folder) / "sd1 with words"
    place = place if place.exists() else write_pipeline(place, "sd1")
    pipe = minisd.load(place, textual_inversion=inversion_files(Path(folder)))
    return relative(pipe.txt2img(**dict(LORA_HOW, prompt=INVERTED), output="latent"), channels_last(golden["inversion.latent"]))
