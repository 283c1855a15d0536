"""One network of a checkpoint on disk: its config.json, and its weights under the names that the network files know.

The one place that knows other spellings of a weight's name in a diffusers folder.  Nothing is ever unpickled."""
import re
from functools import partial

import numpy as np

from ..backend.threads import scratch
from ..errors import CheckpointError
from ..networks import clip, controlnet, taesd, unet, vae
from ..networks.clip_config import TextConfig
from ..networks.unet_config import ControlNetConfig, UNetConfig
from ..networks.vae_config import TinyConfig, VAEConfig
from .files import DTYPES, STEMS, TensorFiles, read_json, weight_files
from .shapes import Shape, dry_run
from .weights import Weights, engine_layout, engine_shape

CONFIGS = {"text_encoder": TextConfig, "text_encoder_2": TextConfig, "unet": UNetConfig, "vae": VAEConfig, "controlnet": ControlNetConfig}
CLASSES = {"unet": ("UNet2DConditionModel",), "vae": ("AutoencoderKL", "AutoencoderTiny"), "controlnet": ("ControlNetModel",)}
OLD_VAE_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}      # before 2023


class Component:
    """One network of a checkpoint.

    name: one of CONFIGS; config: what config.json says, as the network's own class; files: where its weights are; place: what to name
    in an error."""

    def __init__(self, name, folder, variant=None):
        if not folder.is_dir():
            raise CheckpointError(f"{folder}: no such folder; a diffusers model has one for its {name}")
        if (folder / "model_index.json").is_file():
            raise CheckpointError(f"{folder}: a whole model, where a {name} was expected")
        if not (folder / "config.json").is_file():
            raise CheckpointError(f"{folder}: no config.json; copy or download it again")
        raw = read_json(folder / "config.json")
        if raw.get("_class_name") not in (None, *CLASSES.get(name, [raw.get("_class_name")])):
            raise CheckpointError(f"{folder}: a {raw['_class_name']}, where a {name} was expected, {' or '.join(CLASSES[name])}")
        kind = TinyConfig if raw.get("_class_name") == "AutoencoderTiny" else CONFIGS[name]
        self.name, self.config = name, kind.read(raw)
        self.place, self.files = folder, weight_files(folder, STEMS[name], variant)
        self.tensors = TensorFiles(self.files)
        self.added = {}                                      # weight name -> what LoRAs add to it, functions of its shape
        self.rows = {}                                       # token id -> its vector, of textual inversions
        self.stored = {self.spelling(s): s for s in self.tensors if not s.endswith("embeddings.position_ids")}

    def spelling(self, stored):
        """The one name for a weight, whatever the file calls it."""
        if self.name.startswith("text_encoder"):             # transformers wrote the prefix until 5.6
            return stored.removeprefix("text_model.")
        if self.name == "vae" and (old := re.fullmatch(r"(.*\.attentions\.0)\.(query|key|value|proj_attn)\.(.*)", stored)):
            return f"{old[1]}.{OLD_VAE_ATTENTION[old[2]]}.{old[3]}"
        return stored

    def shapes(self):
        """{weight name: shape as the file has it}"""
        return {name: self.tensors.shape(stored) for name, stored in self.stored.items()}

    def weights(self, dtype="float32", keep=True, upload=lambda w: w):
        """The root node.  A weight is read, converted, laid out and uploaded when a layer asks for it; `keep` it for the next time?"""
        def load(name):
            w = self.tensors.read(self.stored[name], partial(scratch, "file"))
            for delta in self.added.get(name, ()):
                w = w.astype(np.float32) + delta(w.shape)
            if self.rows and name == "embeddings.token_embedding.weight":
                w = np.concatenate([w.astype(np.float32), np.zeros((max(0, max(self.rows) + 1 - len(w)), w.shape[1]), np.float32)])
                w[list(self.rows)] = list(self.rows.values())
            return upload(engine_layout(w, dtype))

        return Weights.over(self.stored, load, keep, {name: engine_shape(shape) for name, shape in self.shapes().items()})

    def check(self):
        """A dry run -> (missing names, unused names); raises CheckpointError for a weight of a wrong shape."""
        unsupported = [name for name, stored in self.stored.items() if self.tensors.dtype(stored) not in DTYPES]
        if unsupported:
            dtype = self.tensors.dtype(self.stored[unsupported[0]])
            raise CheckpointError(f"{self.place}: {unsupported[0]} is stored as {dtype}; minisd reads {', '.join(DTYPES)}, not quantised "
                                  "weights")
        shapes = {name: engine_shape(shape) for name, shape in self.shapes().items()}
        try:
            return dry_run(shapes, self.config.counts(), lambda p: trial(p, self.config))
        except CheckpointError as e:
            raise CheckpointError(f"{self.place}: {e}") from None


def trial(p, c):
    """Run the network of config c on shapes alone -> [(what comes out, the shape it must have)]"""
    if isinstance(c, TextConfig):
        ids = Shape((1, c.length), "the prompt")
        pooled = [(clip.encode_xl(p, ids, c)[1], (1, c.pooled))] if c.pooled else []
        return [(clip.encode(p, ids, c), (1, c.length, c.width)), *pooled]
    if isinstance(c, UNetConfig):
        x, t, context = Shape((1, 8, 8, c.in_channels), "the latent"), Shape((1,)), Shape((1, 77, c.cross_attention_dim), "the text")
        conditioning = {}
        if c.is_xl:
            pooled = c.projection_class_embeddings_input_dim - c.addition_time_embed_dim
            conditioning |= dict(text_embeds=Shape((1, pooled), "the pooled text"), time_ids=Shape((1, 1)))
        if c.is_upscaler:
            conditioning["class_labels"] = Shape((1,))
        if c.is_lcm:
            conditioning["timestep_cond"] = Shape((1, c.time_cond_proj_dim))
        if not isinstance(c, ControlNetConfig):
            return [(unet.unet(p, x, t, context, c, **conditioning), (1, 8, 8, c.out_channels))]
        side, skips = 8 * 2**c.hints, c.counts()["controlnet_down_blocks"]
        hint = controlnet.hint(p, Shape((1, side, side, 3), "the control image"))
        middle, found = controlnet.controlnet(p, x, t, context, hint, Shape((skips + 1, 1, 1, 1, 1)), c, **conditioning)
        return [(hint, (1, 8, 8, c.channels)), (found[0], (1, 8, 8, c.channels)), (middle, middle.shape)]
    z, side, codec = Shape((1, 8, 8, c.latent_channels), "the latent"), 8 * c.factor, taesd if isinstance(c, TinyConfig) else vae
    return [(codec.decode(p, z, c), (1, side, side, 3)),
            (codec.encode(p, Shape((1, side, side, 3), "the picture"), c), (1, 8, 8, c.moments))]
