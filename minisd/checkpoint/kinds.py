"""What a safetensors file is, by its keys, and which option it belongs to."""
import re

WHOLE, LORA, WORD, CONTROLNET, VAE = ("a whole model", "-m or load()"), ("a LoRA", "--lora or lora="), (
    "a textual inversion", "--embedding or textual_inversion="), ("a ControlNet", "--controlnet or controlnet="), ("a vae", "--vae or vae=")
KINDS = [  # (pattern of a key, what a file with one is, the option it belongs to or None); the first that is found
    (r"model\.diffusion_model\.joint_blocks\..*", "Stable Diffusion 3, which minisd does not run", None),
    (r"(model\.diffusion_model\.)?double_blocks\..*", "Flux, which minisd does not run", None),
    (r"edm_mean|edm_std", "Playground 2.5, which minisd does not run", None),
    (r"cond_stage_model\.roberta.*", "AltDiffusion, which minisd does not run", None),
    (r"model\.diffusion_model\..*", *WHOLE),
    (r"lora_(unet|te\d?)_.*|.*\.lora[._](A|B|up|down)\..*|.*_lora\.(up|down)\.weight|.*\.lora_(A|B|up|down)(\.\w+)?\.weight|"
     r".*\.lora_linear_layer\..*", *LORA),
    (r"emb_params|string_to_param.*|clip_[lg]", *WORD),
    (r"control_model\..*|controlnet_cond_embedding\..*|input_hint_block\..*", *CONTROLNET),
    (r"(de|en)coder\.layers\..*", "TAESD, a small vae", "--vae, --taesd or vae="),
    (r"(first_stage_model\.)?decoder\.(up|mid|conv_in)\b.*", *VAE),
    (r"decoder\.(up_blocks|mid_block)\..*", "a vae with diffusers' names, which is given as its folder", "--vae or vae="),
    (r"(down|up)_blocks\..*", "a unet with diffusers' names, which is given within the folder of its model", "-m or load()"),
    (r"(text_model\.)?(encoder\.layers|embeddings)\..*", "a text encoder, which is given within the folder of its model", "-m or load()")]


def kind(tensors):
    """{key: array} or the like -> (what it is, the option it belongs to or None); ("nothing that minisd knows", None) if it is none."""
    for pattern, what, option in KINDS:
        if any(re.fullmatch(pattern, key) for key in tensors):
            return what, option
    if len(tensors) == 1 and len(tensors.shape(next(iter(tensors)))) in (1, 2):
        return WORD                                          # under the word's own name
    return "nothing that minisd knows", None


def explained(tensors):
    """The same in words, for an error."""
    what, option = kind(tensors)
    return f"it is {what}" + (f"; that goes with {option}" if option else "")
