"""What each layer of a diffusers pipeline gives, for `minisd compare`: python diffusers_recorder.py MODEL FOLDER [float16|bfloat16]

FOLDER/inputs.safetensors says what to feed (of `minisd record`, or of any engine); FOLDER/theirs/outputs.safetensors is written.
Needs torch, diffusers and safetensors, nothing of minisd: copy it and change it for an engine of your own."""
import sys
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file, save_file


@torch.no_grad()
def record(pipe, inputs, dtype=torch.float32):
    """A pipeline and {name: array, channels last} -> {<network>.<layer>: its output}"""
    seen = {}

    def watch(network, prefix):
        for name, module in network.named_modules():
            name = f"{prefix}.{name}".replace(".text_model.", ".")

            def keep(module, given, output, name=name):
                output = output[0] if isinstance(output, tuple) else output
                if isinstance(output, torch.Tensor):
                    seen[name] = output.clone().contiguous()
            module.register_forward_hook(keep)

    def given(name):
        a = inputs[name]
        a = a.permute(0, 3, 1, 2) if a.ndim == 4 and a.shape[3] < a.shape[1] else a                # to (B,C,H,W)
        return a.to(dtype) if a.is_floating_point() else a

    for part in ("text_encoder", "text_encoder_2", "unet", "vae"):
        network = getattr(pipe, part, None)
        if network is not None:
            watch(network, part)
            if f"{part}.input_ids" in inputs:
                states = network(inputs[f"{part}.input_ids"].long(), output_hidden_states=True).hidden_states
                seen[f"{part}.context"] = states[-2].clone()                                       # what Stable Diffusion XL reads
    if "unet.sample" in inputs:
        more = {name: given(f"unet.{name}") for name in ("text_embeds", "time_ids") if f"unet.{name}" in inputs}
        pipe.unet(given("unet.sample"), inputs["unet.timestep"], given("unet.encoder_hidden_states"), added_cond_kwargs=more)
    if "vae.encoder.pixels" in inputs:
        pipe.vae.encode(given("vae.encoder.pixels"))
    if "vae.decoder.latents" in inputs:
        pipe.vae.decode(given("vae.decoder.latents") / pipe.vae.config.scaling_factor)
    return seen


if __name__ == "__main__":
    folder, dtype = Path(sys.argv[2]), getattr(torch, sys.argv[3] if len(sys.argv) > 3 else "float32")
    found = record(DiffusionPipeline.from_pretrained(sys.argv[1], torch_dtype=dtype), load_file(folder / "inputs.safetensors"), dtype)
    (folder / "theirs").mkdir(exist_ok=True)
    save_file(found, folder / "theirs" / "outputs.safetensors")
