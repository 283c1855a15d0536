"""What a checkpoint is, in words and a table: family, prediction type, and each network's tree of weights."""
import math
import textwrap

from . import samplers
from .errors import MinisdError

INDENT = 2


def nest(shapes):
    """{"a.b.weight": shape} -> {"a": {"b": {"weight": shape}}}"""
    tree = {}
    for name, shape in shapes.items():
        *parents, leaf = name.split(".")
        node = tree
        for part in parents:
            node = node.setdefault(part, {})
        node[leaf] = shape
    return tree


def parameters(node):
    """How many numbers a node and all below it hold."""
    return math.prod(node) if isinstance(node, tuple) else sum(parameters(child) for child in node.values())


def tree_lines(tree, depth=0):
    """One line a node: its name, the shapes of its own weights, and how many numbers are below it.

    Neighbours in a list that are alike stand on one line, as 0-11, with the count of one of them."""
    children = [(name, child) for name, child in tree.items() if isinstance(child, dict)]
    children.sort(key=lambda item: int(item[0]) if item[0].isdigit() else -1)
    i = 0
    while i < len(children):
        name, child = children[i]
        j = i
        while name.isdigit() and j + 1 < len(children) and children[j + 1][1] == child:
            j += 1
        label = name if i == j else f"{name}-{children[j][0]}"
        own = ", ".join(f"{leaf} {'x'.join(map(str, shape))}" for leaf, shape in child.items() if isinstance(shape, tuple))
        count = f"{parameters(child):,}" + (f" each of {j - i + 1}" if j > i else "")
        yield f"{' ' * INDENT * depth + label:<34}{own:<44}{count:>14}".rstrip()
        yield from tree_lines(child, depth + 1)
        i = j + 1


def describe(opened, odd=()):
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
             f"pictures    {width}x{height} as trained, any multiple of {vae.factor}; "
             f"latents of {vae.latent_channels} channels, scaled by {vae.scaling_factor}",
             *(f"text        {c.config.length} tokens of {c.config.width} numbers, {c.config.layers} layers, {c.config.act}"
               + (f"; {c.config.pooled} for the whole prompt" if c.config.pooled else "") for c in opened.text_encoders)]
    if opened.words:
        lines += textwrap.wrap(f"words       {' '.join(opened.words)}", 110, subsequent_indent=" " * 12)
    lines += [f"no layer    {len(odd)} keys: {', '.join(odd)}"] if odd else []
    whole = True
    for component in opened.components:
        shapes = component.shapes()
        tree = nest(shapes)
        types = sorted({component.tensors.dtype(stored) for stored in component.stored.values()})
        lines += ["", f"{component.name}: {len(shapes)} weights, {parameters(tree):,} numbers, {' and '.join(types)}, in "
                      f"{', '.join(f.name for f in component.files)}"]
        try:
            missing, unused = component.check()
            lines += [f"  missing: {', '.join(missing) or 'none'}", f"  unused: {', '.join(unused) or 'none'}"]
            whole = whole and not missing
        except MinisdError as e:
            lines, whole = [*lines, f"  NOT USABLE: {e}"], False
        lines += tree_lines(tree, 1)
    return lines, whole


def sampler_name(scheduler):
    try:
        return samplers.name_of(scheduler)
    except MinisdError:
        return "unknown to minisd: choose one"
