"""A model on disk: a diffusers folder -> its networks, scheduler and tokenizers, and what family they are."""
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import CheckpointError, warn
from ..networks.config import number
from .component import Component
from .files import read_json, read_text, refuse_pickle
from .vocabulary import read_vocabulary

OTHER_PIPELINES = {"FluxPipeline": "Flux", "StableDiffusion3Pipeline": "Stable Diffusion 3", "PixArtAlphaPipeline": "PixArt",
                   "StableCascadeDecoderPipeline": "Stable Cascade", "KandinskyPipeline": "Kandinsky"}


@dataclass
class Checkpoint:
    """A model, opened: nothing of its weights is read yet.

    parts: {one of CONFIGS: Component};  scheduler: the contents of scheduler_config.json;  words: those that the model was trained
    on, in order, where the folder has a words.txt, else None;  index: what model_index.json says besides."""
    name: str
    folder: Path
    parts: dict
    scheduler: dict
    words: list | None = None
    index: dict = field(default_factory=dict)

    @property
    def unet(self): return self.parts["unet"]
    @property
    def vae(self): return self.parts["vae"]

    @property
    def components(self):
        return tuple(self.parts.values())

    @property
    def text_encoders(self):
        """SD 1 and 2 have one, SDXL two, its refiner the second alone."""
        return [c for name, c in self.parts.items() if name.startswith("text_encoder")]

    def vocabularies(self):
        """What each text encoder's tokenizer is made of: see vocabulary.py."""
        return [read_vocabulary(self.folder / c.name.replace("text_encoder", "tokenizer"), c.config.length) for c in self.text_encoders]

    def check_together(self, controlnets=()):
        """Raises CheckpointError where the networks of one model, and ControlNets that go with it, do not fit one another."""
        context, width = self.unet.config.cross_attention_dim, sum(c.config.width for c in self.text_encoders)
        if context != width:
            raise CheckpointError(f"{self.folder}: the text encoder gives {width} numbers a token, the unet reads {context}: "
                                  "they are parts of different models")
        unet, channels = self.unet.config, self.vae.config.latent_channels
        if unet.out_channels != channels:
            raise CheckpointError(f"{self.folder}: the unet makes latents of {unet.out_channels} channels, the vae has {channels}: "
                                  "they are parts of different models")
        pooled = self.text_encoders[-1].config.pooled
        width, each = unet.projection_class_embeddings_input_dim, unet.addition_time_embed_dim
        if bool(pooled) != unet.is_xl:
            raise CheckpointError(f"{self.folder}: the text encoder gives a pooled vector of {pooled} numbers, the unet reads {width} "
                                  "with it: a weight is missing, or they are parts of different models")
        if unet.is_xl and width - pooled not in (5 * each, 6 * each):
            raise CheckpointError(f"{self.folder}: the unet reads {width} numbers besides the prompt, {each} for each of 5 or 6 "
                                  f"sizes and the pooled text; the text encoder gives {pooled}: they are parts of different models")
        for c in controlnets:
            theirs, ours = ((k.cross_attention_dim, k.channels, [max(d) for d in k.down]) for k in (c.config, unet))
            if theirs != ours or c.config.projection_class_embeddings_input_dim != width:
                raise CheckpointError(f"{c.place}: a ControlNet for another family: its text, first level and transformers are {theirs}, "
                                      f"this model's {ours}")
            if 2**c.config.hints != self.vae.config.factor:
                raise CheckpointError(f"{c.place}: its control picture is {2**c.config.hints} times as large as the latent, this model's "
                                      f"pictures {self.vae.config.factor} times")

    @property
    def low_res_scheduler(self):
        """How an upscaler's small image is noised, in the words of scheduler_config.json."""
        return read_json(self.folder / "low_res_scheduler" / "scheduler_config.json")

    @property
    def guidance_scale(self):
        """How strongly this model is to follow the prompt where the caller does not say, by model_index.json's `_guidance_scale`: a name
        of minisd's own, which diffusers passes over."""
        return number("model_index.json", self.index, "_guidance_scale", 7.5)

    @property
    def family(self):
        """In words: from the width of the text the unet reads, which differs between the families."""
        c = self.unet.config
        known = {(768, 320): "Stable Diffusion 1.x", (1024, 320): "Stable Diffusion 2.x", (2048, 320): "Stable Diffusion XL",
                 (1280, 384): "Stable Diffusion XL's refiner", (1024, 256): "Stable Diffusion's x4 upscaler"}
        found = known.get((c.cross_attention_dim, c.channels), "a latent diffusion model of its own size")
        return found + (", as a latent consistency model" if c.is_lcm else "")


def open_folder(path, variant=None):
    """A diffusers folder -> Checkpoint.  Raises CheckpointError for anything else, saying what it is."""
    folder = Path(path)
    if not folder.is_dir():
        refuse_pickle(folder)
        raise CheckpointError(f"{folder}: a single file; minisd reads diffusers folders (convert it with diffusers: "
                              "StableDiffusionPipeline.from_single_file(file).save_pretrained(folder))")
    index = read_json(folder / "model_index.json")
    if not index:
        raise CheckpointError(f"{folder}: no model_index.json, so not a diffusers folder; it holds "
                              f"{', '.join(sorted(f.name for f in folder.iterdir())) or 'nothing'}")
    kind = str(index.get("_class_name"))
    if kind in OTHER_PIPELINES:
        raise CheckpointError(f"{folder}: {OTHER_PIPELINES[kind]}, which minisd does not run; it runs Stable Diffusion 1.x, 2.x and XL")
    if not (folder / "scheduler" / "scheduler_config.json").is_file():
        raise CheckpointError(f"{folder}: no scheduler/scheduler_config.json; copy or download it again")
    if "controlnet" in index:
        warn(f"{folder}: its ControlNet is left out; give it with controlnet={folder / 'controlnet'}")
    listed = [n for n, v in index.items() if isinstance(v, list) and v and v[-1] is not None]
    names = [n for n in ("text_encoder", "text_encoder_2", "unet", "vae") if n in listed or n in ("unet", "vae")]
    if not any(n.startswith("text_encoder") for n in names):
        raise CheckpointError(f"{folder}: model_index.json names no text encoder; copy or download it again")
    parts = {n: Component(n, folder / n, variant) for n in names}
    for name in parts:                                       # transformers' older files do not say
        if name == "text_encoder_2" and not parts[name].config.pooled:
            raise CheckpointError(f"{folder / name}: no text encoder with a projection, which Stable Diffusion XL needs")
    return Checkpoint(folder.resolve().name, folder, parts, read_json(folder / "scheduler" / "scheduler_config.json"),
                      read_text(folder / "words.txt").split() if (folder / "words.txt").is_file() else None,
                      {k: v for k, v in index.items() if not isinstance(v, list)})
