"""What a checkpoint is, in words and a table: family, prediction type, and each network's tree of weights; or what another file is that
goes with one."""
import math
import textwrap
from pathlib import Path

from ..checkpoint import inversion, kinds, lora, single
from ..checkpoint.component import Component
from ..checkpoint.files import TensorFiles, read_json, refuse_pickle
from ..checkpoint.weights import in_order
from ..diffusion import samplers
from ..errors import CheckpointError, MinisdError

INDENT = 2


def nest(shapes):
    """{"a.b.weight": shape} -> {"a": {"b": {"weight": shape}}}"""
    tree = {}
    for name, shape in shapes.items():
        *parents, leaf = name.split(".")
        node = tree
        for part in parents:
            node = node.setdefault(part, {})
            if not isinstance(node, dict):
                raise CheckpointError(f"{name}: the file holds a weight and a layer of the same name")
        node[leaf] = shape
    return tree


def parameters(node):
    """How many numbers a node and all below it hold."""
    return math.prod(node) if isinstance(node, tuple) else sum(parameters(child) for child in node.values())


def tree_lines(tree, depth=0):
    """One line a node: its name, the shapes of its own weights, and how many numbers are below it.

    Neighbours in a list that are alike stand on one line, as 0-11, with the count of one of them."""
    children = [(name, child) for name, child in tree.items() if isinstance(child, dict)]
    children.sort(key=lambda item: in_order(item[0]))
    i = 0
    while i < len(children):
        name, child = children[i]
        j = i
        while name.isdecimal() and j + 1 < len(children) and children[j + 1][1] == child:
            j += 1
        label = name if i == j else f"{name}-{children[j][0]}"
        own = ", ".join(f"{leaf} {'x'.join(map(str, shape))}" for leaf, shape in child.items() if isinstance(shape, tuple))
        count = f"{parameters(child):,}" + (f" each of {j - i + 1}" if j > i else "")
        yield f"{' ' * INDENT * depth + label:<34}{own:<44}{count:>14}".rstrip()
        yield from tree_lines(child, depth + 1)
        i = j + 1


WIDTHS = {768: "Stable Diffusion 1.x", 1024: "Stable Diffusion 2.x", 2048: "Stable Diffusion XL", 1280: "Stable Diffusion XL's refiner"}


def inspect(path, variant=None):
    """Any file or folder that minisd reads -> (lines of text, whether it is whole).  Raises CheckpointError for another."""
    path = Path(path)
    if path.is_dir():
        raw = read_json(path / "config.json")
        part = {"ControlNetModel": "controlnet", "AutoencoderKL": "vae", "AutoencoderTiny": "vae"}.get(str(raw.get("_class_name")))
        if (path / "adapter_config.json").is_file():
            return describe_lora(path)
        if part and not (path / "model_index.json").is_file():
            return describe_part(Component(part, path), f"--{part}")
        return describe(*single.open_model(path, variant))
    refuse_pickle(path)
    tensors = TensorFiles([path])
    what, option = kinds.kind(tensors)
    if (what, option) == kinds.LORA:
        return describe_lora(path)
    if (what, option) == kinds.WORD:
        token, vectors = inversion.read(path)
        sizes = " and ".join(f"{len(v)} vectors of {v.shape[1]} numbers" for _, v in sorted(vectors.items()))
        family = WIDTHS[2048] if len(vectors) > 1 else WIDTHS.get(vectors[0].shape[1], "a model of its own size")
        return [f"{path}: a textual inversion for {family}", f"word        {token}", f"holds       {sizes}", f"goes with   {option}"], True
    if (what, option) == kinds.CONTROLNET:
        return describe_part(single.open_controlnet(path), option)
    if (what, option) == kinds.VAE or what.startswith("TAESD"):
        return describe_part(single.open_vae(path, 0.18215), option)
    if (what, option) != kinds.WHOLE:
        raise CheckpointError(f"{path}: {kinds.explained(tensors)}")
    return describe(*single.open_model(path))


def describe_part(component, option):
    """A network that goes with a model by `option`."""
    c = component.config
    words = {"controlnet": lambda: f"a ControlNet for {WIDTHS.get(c.cross_attention_dim, 'a model of its own size')}, by its text of "
                                   f"{c.cross_attention_dim} numbers a token",
             "vae": lambda: f"{'TAESD, ' if c.moments == c.latent_channels else ''}a vae: latents of {c.latent_channels} channels, "
                            f"{c.factor} pixels wide each"}
    lines, whole = network(component)
    return [f"{component.place}: {words[component.name]()}", f"goes with   {option}", *lines], whole


def describe_lora(path):
    """A LoRA's file or folder: whose layers it changes, by how many dimensions."""
    layers = lora.layers_of(path)
    text = [down for layer, _, down in layers if "attn2" in layer and layer.endswith(("to_k", "to_v"))]          # they read the prompt
    family = WIDTHS.get(text[0], "a model of its own size") if text else "a model that its layers do not name"
    ranks = sorted({rank for _, rank, _ in layers})
    groups = {}
    for layer, _, _ in layers:
        part = next((part for prefix, part in lora.PREFIXES.items() if layer.replace(".", "_").startswith(prefix)), "unet")
        groups[part] = groups.get(part, 0) + 1
    order = sorted(groups, key=lambda part: part != "unet")
    return [f"{path}: a LoRA for {family}", f"layers      {', '.join(f'{groups[part]} of the {part}' for part in order)}",
            f"rank        {', '.join(map(str, ranks))}", f"goes with   {kinds.LORA[1]}"], True


def describe(opened, unknown=()):
    """A Checkpoint, and keys of its file that belong to no layer -> (lines of text, whether it is whole)."""
    unet, vae = opened.unet.config, opened.vae.config
    scheduler = opened.scheduler
    height, width = (side * vae.factor for side in unet.sample_size)
    lines = [f"model       {opened.name} ({opened.folder})",
             f"family      {opened.family}",
             f"predicts    {scheduler.get('prediction_type', 'epsilon')}",
             f"scheduler   {scheduler.get('_class_name')} (sampler {sampler_name(scheduler)}), betas "
             f"{scheduler.get('beta_schedule')} {scheduler.get('beta_start')} to {scheduler.get('beta_end')}, "
             f"spacing {scheduler.get('timestep_spacing', 'as the sampler has it')}",
             f"guidance    {opened.guidance_scale:g} unless asked for another",
             f"pictures    {width}x{height} as trained, any multiple of {vae.factor}; "
             f"latents of {vae.latent_channels} channels, scaled by {vae.scaling_factor}",
             *(f"text        {c.config.length} tokens of {c.config.width} numbers, {c.config.layers} layers, {c.config.act}"
               + (f"; {c.config.pooled} for the whole prompt" if c.config.pooled else "") for c in opened.text_encoders)]
    if opened.words:
        lines += textwrap.wrap(f"words       {' '.join(opened.words)}", 110, subsequent_indent=" " * 12)
    lines += [f"no layer    {len(unknown)} keys: {', '.join(unknown)}"] if unknown else []
    whole = True
    for component in opened.components:
        found, good = network(component)
        lines, whole = [*lines, *found], whole and good
    try:
        opened.check_together()
    except MinisdError as e:
        lines, whole = [*lines, "", f"NOT USABLE: {e}"], False
    return lines, whole


def network(component):
    """One network: its weights, what is missing or unused, its tree -> (lines, whether it is whole)."""
    shapes = component.shapes()
    tree, whole = nest(shapes), True
    types = sorted({component.tensors.dtype(stored) for stored in component.stored.values()})
    lines = ["", f"{component.name}: {len(shapes)} weights, {parameters(tree):,} numbers, {' and '.join(types)}, in "
                 f"{', '.join(f.name for f in component.files)}"]
    try:
        missing, unused = component.check()
        lines += [f"  missing: {', '.join(missing) or 'none'}", f"  unused: {', '.join(unused) or 'none'}"]
        whole = not missing
    except MinisdError as e:
        lines, whole = [*lines, f"  NOT USABLE: {e}"], False
    return [*lines, *tree_lines(tree, 1)], whole


def sampler_name(scheduler):
    try:
        return samplers.name_of(scheduler)
    except MinisdError:
        return "unknown to minisd: choose one"
