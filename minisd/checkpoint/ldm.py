"""The names that CompVis' and Stability's own code gives to the weights of Stable Diffusion, as the model files name them.

Each function takes a network's keys and gives ({name: (key, cut)}, keys of no layer that we know).  cut: None for the whole array,
"square" for a 1x1 convolution that is a linear layer, "turned" for a transposed matrix, or 0, 1, 2 for a third of the rows."""
import re

UNET, VAE, CLIP, OPEN_CLIP = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer.", "cond_stage_model.model."
XL_CLIP, XL_OPEN_CLIP = "conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."
REFINER_CLIP = "conditioner.embedders.0.model."
CONTROLNET = "control_model."
RESNET = {"in_layers.0": "norm1", "in_layers.2": "conv1", "emb_layers.1": "time_emb_proj", "out_layers.0": "norm2", "out_layers.3": "conv2",
          "skip_connection": "conv_shortcut"}
PLAIN_UNET = {"time_embed.0": "time_embedding.linear_1", "time_embed.2": "time_embedding.linear_2", "input_blocks.0.0": "conv_in",
              "out.0": "conv_norm_out", "out.2": "conv_out", "time_embed.cond_proj": "time_embedding.cond_proj",
              "label_emb": "class_embedding", "label_emb.0.0": "add_embedding.linear_1",
              "label_emb.0.2": "add_embedding.linear_2", "middle_block_out.0": "controlnet_mid_block",
              **{f"input_hint_block.{2 * i}": f"controlnet_cond_embedding.{name}" for i, name in
                 enumerate(["conv_in", *(f"blocks.{k}" for k in range(6)), "conv_out"])}}
ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
OPEN_CLIP_LAYER = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2",
                   "attn.out_proj": "self_attn.out_proj"}
NO_LAYER = ("position_ids", "logit_scale", "text_projection", "text_projection.weight")        # of CLIP, of no use here


def unet_names(keys):
    """{name: (stored, None)} of the unet or a ControlNet, and which of its keys are of no layer that we know."""
    found, unknown = {}, []
    places = {**unet_places(keys), **{f"zero_convs.{i}": "controlnet_down_blocks" for i in range(count(keys, "zero_convs"))}}
    for key in keys:
        path, _, kind = key.rpartition(".")
        place = next((p for p in (path, ".".join(path.split(".")[:3]), ".".join(path.split(".")[:2])) if p in places), None)
        if path in PLAIN_UNET:
            found[f"{PLAIN_UNET[path]}.{kind}"] = key, None
        elif place is None:
            unknown.append(key)
        elif place.startswith("zero_convs"):
            found[f"controlnet_down_blocks.{place.split('.')[1]}.{kind}"] = key, None
        else:
            inside = path[len(place) + 1:]
            inside = RESNET.get(inside, inside) if ".resnets." in places[place] else inside
            found[".".join(filter(None, [places[place], inside, kind]))] = key, None
    return found, unknown


def unet_places(keys):
    """{where a layer stands with LDM names: where it stands in the model files}"""
    known = set(keys)
    places, block, layer = {"middle_block.0": "mid_block.resnets.0", "middle_block.1": "mid_block.attentions.0",
                            "middle_block.2": "mid_block.resnets.1"}, 0, 0
    for i in range(1, count(keys, "input_blocks")):
        if f"input_blocks.{i}.0.op.weight" in known:
            places[f"input_blocks.{i}.0.op"] = f"down_blocks.{block}.downsamplers.0.conv"
            block, layer = block + 1, 0
        else:
            places[f"input_blocks.{i}.0"] = f"down_blocks.{block}.resnets.{layer}"
            places[f"input_blocks.{i}.1"] = f"down_blocks.{block}.attentions.{layer}"
            layer += 1
    block, layer = 0, 0
    for i in range(count(keys, "output_blocks")):
        places[f"output_blocks.{i}.0"] = f"up_blocks.{block}.resnets.{layer}"
        places[f"output_blocks.{i}.1"] = f"up_blocks.{block}.attentions.{layer}"
        layer += 1
        for k in (1, 2):
            if f"output_blocks.{i}.{k}.conv.weight" in known:
                places[f"output_blocks.{i}.{k}.conv"] = f"up_blocks.{block}.upsamplers.0.conv"
                block, layer = block + 1, 0
    return places


def ldm_places(names):
    """{a block of the unet with LDM names: with those of the model files, both with _ for every dot}, from the unet's weight names."""
    found = {"middle_block_0": "mid_block_resnets_0", "middle_block_1": "mid_block_attentions_0", "middle_block_2": "mid_block_resnets_1"}
    i = 1
    for block in range(count(names, "down_blocks")):
        for layer in range(count(names, f"down_blocks.{block}.resnets")):
            found[f"input_blocks_{i}_0"] = f"down_blocks_{block}_resnets_{layer}"
            found[f"input_blocks_{i}_1"] = f"down_blocks_{block}_attentions_{layer}"
            i += 1
        found[f"input_blocks_{i}_0_op"] = f"down_blocks_{block}_downsamplers_0_conv"
        i += 1
    i = 0
    for block in range(count(names, "up_blocks")):
        attends = count(names, f"up_blocks.{block}.attentions")
        for layer in range(count(names, f"up_blocks.{block}.resnets")):
            found[f"output_blocks_{i}_0"] = f"up_blocks_{block}_resnets_{layer}"
            found[f"output_blocks_{i}_1"] = f"up_blocks_{block}_attentions_{layer}"
            i += 1
        found[f"output_blocks_{i - 1}_{2 if attends else 1}_conv"] = f"up_blocks_{block}_upsamplers_0_conv"
    return found


def vae_names(keys):
    found, unknown, levels = {}, [], count(keys, "decoder.up")
    for key in keys:
        path, _, kind = key.rpartition(".")
        m = re.fullmatch(r"(encoder|decoder)\.(?:(down|up)\.(\d+)\.(?:block\.(\d+)\.(.+)|(?:down|up)sample\.conv)|mid\.block_([12])\.(.+)|"
                         r"mid\.attn_1\.(.+)|(conv_in|conv_out|norm_out))", path)
        if path in ("quant_conv", "post_quant_conv"):
            name = path
        elif m is None or m[8] is not None and m[8] not in ATTENTION:
            unknown.append(key)
            continue
        elif m[2]:
            level = int(m[3]) if m[2] == "down" else levels - 1 - int(m[3])
            name = f"{m[1]}.{m[2]}_blocks.{level}." + (f"resnets.{m[4]}.{m[5]}" if m[4] else f"{m[2]}samplers.0.conv")
        elif m[6]:
            name = f"{m[1]}.mid_block.resnets.{int(m[6]) - 1}.{m[7]}"
        else:
            name = f"{m[1]}.mid_block.attentions.0.{ATTENTION[m[8]]}" if m[8] else f"{m[1]}.{m[9].replace('norm_out', 'conv_norm_out')}"
        square = m is not None and m[8] in ("q", "k", "v", "proj_out") and kind == "weight"
        found[f"{name.replace('nin_shortcut', 'conv_shortcut')}.{kind}"] = key, "square" if square else None
    return found, unknown


def clip_names(keys):
    """OpenAI's CLIP, in transformers' names."""
    return {key.removeprefix("text_model."): (key, None) for key in keys if not key.endswith(NO_LAYER)}, []


def open_clip_names(keys, whole=False):
    """OpenCLIP's, but for its last layer, whose input SD 2 reads, or the `whole` of it, which SDXL reads."""
    found, unknown, last = {}, [], count(keys, "transformer.resblocks") - (0 if whole else 1)
    for key in keys:
        m = re.fullmatch(r"transformer\.resblocks\.(\d+)\.(.+?)[._](weight|bias)", key)
        if whole and key.startswith("text_projection"):
            found["text_projection.weight"] = key, "turned"
            continue
        if m and int(m[1]) == last or key.endswith(NO_LAYER):
            continue
        if m and m[2] == "attn.in_proj":                     # three layers in one
            found |= {f"encoder.layers.{m[1]}.self_attn.{n}_proj.{m[3]}": (key, i) for i, n in enumerate("qkv")}
        elif m and m[2] in OPEN_CLIP_LAYER:
            found[f"encoder.layers.{m[1]}.{OPEN_CLIP_LAYER[m[2]]}.{m[3]}"] = key, None
        elif key == "positional_embedding":
            found["embeddings.position_embedding.weight"] = key, None
        elif key in ("token_embedding.weight", "ln_final.weight", "ln_final.bias"):
            found[{"t": "embeddings.token_embedding.", "l": "final_layer_norm."}[key[0]] + key.rpartition(".")[2]] = key, None
        else:
            unknown.append(key)
    return found, unknown


def count(keys, path):
    """How many numbered layers there are below `path`."""
    return len({key[len(path) + 1:].split(".")[0] for key in list(keys) if key.startswith(path + ".")})
