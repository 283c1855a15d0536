"""What the goldens cover: small networks of the real classes and wiring, sampler runs, prompts, seeds."""

XA, D, U = "CrossAttnDownBlock2D", "DownBlock2D", "UpBlock2D"
UNET = dict(block_out_channels=[32, 48, 64, 64], norm_num_groups=8, cross_attention_dim=40, sample_size=16, in_channels=4,
            out_channels=4, layers_per_block=2, down_block_types=[XA, XA, XA, D],
            up_block_types=[U, "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"])
TEXT = dict(hidden_size=40, intermediate_size=96, num_hidden_layers=3, num_attention_heads=5, vocab_size=49408,
            eos_token_id=2)
VAE = dict(block_out_channels=[16, 32, 32, 48], norm_num_groups=8, latent_channels=4, layers_per_block=2,
           down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4)

# model -> (component, config)
MODELS = {
    "text_sd1": ("text_encoder", dict(TEXT, hidden_act="quick_gelu", max_position_embeddings=77)),
    "text_sd2": ("text_encoder", dict(TEXT, hidden_act="gelu", max_position_embeddings=32)),
    "unet_sd1": ("unet", dict(UNET, attention_head_dim=4, use_linear_projection=False)),
    "unet_sd2": ("unet", dict(UNET, attention_head_dim=[2, 3, 4, 4], use_linear_projection=True)),
    "unet_distilled": ("unet", dict(UNET, attention_head_dim=4, block_out_channels=[32, 48, 64], layers_per_block=1,
                                    down_block_types=[XA] * 3, up_block_types=["CrossAttnUpBlock2D"] * 3, mid_block_type=None)),
    "vae": ("vae", VAE),
}
TEXT_2 = dict(hidden_size=48, intermediate_size=96, num_hidden_layers=3, num_attention_heads=3, vocab_size=49408, eos_token_id=2,
              hidden_act="gelu", projection_dim=32, max_position_embeddings=77, architectures=["CLIPTextModelWithProjection"])
XL = dict(UNET, block_out_channels=[32, 48, 64], down_block_types=[D, XA, XA], up_block_types=["CrossAttnUpBlock2D"] * 2 + [U],
          transformer_layers_per_block=[1, 2, 3], attention_head_dim=[2, 3, 4], cross_attention_dim=88, use_linear_projection=True,
          addition_embed_type="text_time", addition_time_embed_dim=16, projection_class_embeddings_input_dim=6 * 16 + 32)
REFINER = dict(XL, block_out_channels=[32, 48, 64, 64], down_block_types=[D, XA, XA, D], up_block_types=[U] + XL["up_block_types"],
               transformer_layers_per_block=2, attention_head_dim=[2, 3, 4, 4], cross_attention_dim=48,
               projection_class_embeddings_input_dim=5 * 16 + 32)
CONTROLNET = {k: v for k, v in UNET.items() if k not in ("up_block_types", "sample_size", "out_channels")}
MODELS |= {
    "text_xl": ("text_encoder_2", TEXT_2),
    "unet_xl": ("unet", XL),
    "unet_refiner": ("unet", REFINER),
    "unet_ssd": ("unet", dict(XL, transformer_layers_per_block=[1, [1, 2], [2, 1]], mid_block_type=None,
                              reverse_transformer_layers_per_block=[[2, 1, 3], [1, 2, 1], 1])),
    "unet_upscaler": ("unet", dict(UNET, in_channels=7, down_block_types=[D, XA, XA, XA], up_block_types=["CrossAttnUpBlock2D"] * 3 + [U],
                                   only_cross_attention=[True, True, True, False], num_class_embeds=1000, attention_head_dim=4,
                                   use_linear_projection=True)),
    "unet_lcm": ("unet", dict(UNET, attention_head_dim=4, time_cond_proj_dim=24)),
    "controlnet_sd1": ("controlnet", dict(CONTROLNET, attention_head_dim=4, conditioning_embedding_out_channels=[4, 6, 8, 10])),
    "controlnet_xl": ("controlnet", dict({k: v for k, v in XL.items() if k in CONTROLNET or "addition" in k or "projection" in k or
                                          "transformer" in k}, conditioning_embedding_out_channels=[4, 6, 8, 10])),
    "vae_upscaler": ("vae", dict(VAE, block_out_channels=[16, 32, 48], down_block_types=["DownEncoderBlock2D"] * 3,
                                 up_block_types=["UpDecoderBlock2D"] * 3, scaling_factor=0.08333)),
    "taesd": ("vae", dict(_class_name="AutoencoderTiny", encoder_block_out_channels=[12] * 4, decoder_block_out_channels=[12] * 4)),
}
VARIANTS = {"vae_xl": ("vae", dict(scaling_factor=0.13025, force_upcast=True))}              # -> (one of MODELS, what its config says more)


def network(name):
    """One of MODELS or VARIANTS -> (component, config, the one of MODELS whose weights' shapes it has)"""
    like, more = VARIANTS.get(name, (name, {}))
    component, config = MODELS[like]
    return component, dict(config, **more), like


BATCH = 2
# case -> (height, width of the latent, scale of the input); odd sizes make the unet's levels odd too
SIZES = {"wide": (8, 12, 1.0), "tall": (13, 7, 1.0), "faint": (8, 12, 0.01)}
TIMESTEPS = [981.0, 333.25]
TOKENS = [[49406, 320, 1125, 539, 320, 2368, 49407], [49406, 550, 18376, 6765, 1125, 267, 16917, 49407]]

SCHEDULE = dict(num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1,
                clip_sample=False, set_alpha_to_one=False, skip_prk_steps=True)
# end to end -> (models of the three components, scheduler_config.json, pad token, arguments of txt2img)
PIPELINES = {
    "sd1": (("text_sd1", "unet_sd1", "vae"), dict(SCHEDULE, _class_name="PNDMScheduler"), None,
            dict(prompt="a photo of an astronaut riding a horse", negative_prompt="blurry", num_inference_steps=5,
                 guidance_scale=7.5, seed=42, width=136, height=88, num_images=2)),
    "sd2": (("text_sd2", "unet_sd2", "vae"), dict(SCHEDULE, _class_name="DDIMScheduler", prediction_type="v_prediction"), "!",
            dict(prompt="an oil painting of a fox", negative_prompt="", num_inference_steps=4, guidance_scale=5.0,
                 seed=2**32 + 7, width=64, height=120, num_images=1, sampler="euler_a")),
}

# the model that comes with minisd: (prompt, seed), 20 steps, guidance 7.5
SHIPPED = [("a red apple on a blue background", 1), ("a fox", 2), ("two cats on a yellow background", 3)]

# as few keys as a scheduler_config.json can have: diffusers' pipeline corrects the defaults of its class
PIPELINES["bare"] = (("text_sd1", "unet_sd1", "vae"), dict(_class_name="DDIMScheduler", beta_start=0.00085, beta_end=0.012,
                                                          beta_schedule="scaled_linear"), None,
                     dict(prompt="a cat", negative_prompt="", num_inference_steps=3, guidance_scale=3.0, seed=5, width=64,
                          height=64, num_images=1))

STOCHASTIC = "ddpm", "euler_a", "dpm2_a", "dpmpp_2m_sde", "lcm"
# other tasks -> (pipeline above, task, channels that the unet takes, arguments)
A_FOX = dict(prompt="a photo of a fox", negative_prompt="blurry", num_inference_steps=5, guidance_scale=6.0, seed=7, width=72, height=56,
             num_images=1)
TASKS = {
    "img2img pndm": ("sd1", "img2img", 4, dict(A_FOX, strength=0.6, num_images=2)),
    "pix2pix pndm": ("sd1", "instruct_pix2pix", 8, dict(A_FOX, image_guidance_scale=1.7, num_images=2)),
    "pix2pix euler": ("sd2", "instruct_pix2pix", 8, dict(A_FOX, image_guidance_scale=1.2, sampler="euler")),
    "inpaint pndm": ("sd1", "inpaint", 4, dict(A_FOX, strength=1.0, num_images=2)),
    "inpaint 9": ("sd1", "inpaint", 9, dict(A_FOX, strength=1.0, num_images=2)),
    "inpaint 9 half": ("sd2", "inpaint", 9, dict(A_FOX, strength=0.5, sampler="dpmpp_2m")),
    **{f"img2img {s}": ("sd2", "img2img", 4, dict(A_FOX, strength=0.6, sampler=s))
       for s in ("ddpm", "ddim", "euler", "euler_a", "heun", "dpm2", "dpm2_a", "dpmpp_2m", "dpmpp_2m_sde", "unipc")},
    **{f"inpaint {s}": ("sd2", "inpaint", 4, dict(A_FOX, strength=0.8, sampler=s))
       for s in ("ddim", "euler", "heun", "dpm2", "unipc", *STOCHASTIC)},
}

# Other families: name -> (the reference's kind of pipeline, models, scheduler_config.json, what model_index.json says besides)
EULER = dict(SCHEDULE, _class_name="EulerDiscreteScheduler", timestep_spacing="leading")
LCM = dict(SCHEDULE, _class_name="LCMScheduler", original_inference_steps=50, set_alpha_to_one=True)
ZERO_SNR = dict(SCHEDULE, _class_name="DDIMScheduler", prediction_type="v_prediction", rescale_betas_zero_snr=True,
                timestep_spacing="trailing")
UPSCALER = dict(SCHEDULE, _class_name="DDIMScheduler", prediction_type="v_prediction", beta_start=0.0001, beta_end=0.02)
SD1, SD2 = ["text_sd1", "unet_sd1", "vae"], ["text_sd2", "unet_sd2", "vae"]
FAMILIES = {
    "xl": ("StableDiffusionXL", ["text_sd1", "text_xl", "unet_xl", "vae_xl"], EULER, dict(force_zeros_for_empty_prompt=True)),
    "refiner": ("StableDiffusionXL", ["text_xl", "unet_refiner", "vae_xl"], EULER, dict(force_zeros_for_empty_prompt=False,
                                                                                      requires_aesthetics_score=True)),
    "turbo": ("StableDiffusion", SD2, dict(EULER, timestep_spacing="trailing"), {}),
    "xl turbo": ("StableDiffusionXL", ["text_sd1", "text_xl", "unet_xl", "vae_xl"], dict(
        EULER, _class_name="EulerAncestralDiscreteScheduler", timestep_spacing="trailing"), dict(force_zeros_for_empty_prompt=True)),
    "lcm": ("LatentConsistencyModel", ["text_sd1", "unet_lcm", "vae"], LCM, {}),
    "zero snr": ("StableDiffusion", SD2, ZERO_SNR, {}),
    "sd1": ("StableDiffusion", SD1, dict(SCHEDULE, _class_name="DDIMScheduler"), {}),
    "taesd": ("StableDiffusion", ["text_sd1", "unet_sd1", "taesd"], dict(SCHEDULE, _class_name="DDIMScheduler"), {}),
    "upscaler": ("StableDiffusionUpscale", ["text_sd2", "unet_upscaler", "vae_upscaler"], UPSCALER, dict(max_noise_level=350)),
    "depth": ("StableDiffusionDepth2Img", SD2, dict(SCHEDULE, _class_name="DDIMScheduler"), {}),
}
A_CASTLE = dict(prompt="a castle on a hill", num_inference_steps=3, guidance_scale=6.0, seed=11, width=72, height=56)
# run -> (family, task, ControlNets, channels the unet takes, arguments)
RUNS = {
    "xl": ("xl", "txt2img", [], 4, dict(A_CASTLE, num_images=2)),
    "xl negative": ("xl", "txt2img", [], 4, dict(A_CASTLE, negative_prompt="blurry", original_size=(40, 30), target_size=(64, 96),
                                                 crops_coords_top_left=(3, 5), guidance_rescale=0.6)),
    "xl skip": ("xl", "txt2img", [], 4, dict(A_CASTLE, clip_skip=3, sampler="dpmpp_2m")),
    "xl other prompts": ("xl", "txt2img", [], 4, dict(A_CASTLE, prompt_2="in fog", negative_prompt="blurry",
                                                      negative_prompt_2="red")),
    "xl negative sizes": ("xl", "txt2img", [], 4, dict(A_CASTLE, negative_prompt="", negative_original_size=(40, 30),
                                                       negative_target_size=(64, 96), negative_crops_coords_top_left=(3, 5))),
    "xl given noise": ("xl", "txt2img", [], 4, dict(A_CASTLE, latents="drawn", sampler="euler_a")),
    "xl img2img": ("xl", "img2img", [], 4, dict(A_CASTLE, strength=0.7)),
    "xl inpaint": ("xl", "inpaint", [], 4, dict(A_CASTLE, strength=0.9)),
    **{f"xl inpaint {s}": ("xl", "inpaint", [], 4, dict(A_CASTLE, strength=0.9, sampler=s)) for s in STOCHASTIC},
    "xl inpaint all": ("xl", "inpaint", [], 4, dict(A_CASTLE, strength=1.0, num_images=2, sampler="euler_a")),
    "xl inpaint on": ("xl", "inpaint", [], 4, dict(A_CASTLE, denoising_start=0.5, sampler="ddim")),
    "xl inpaint 9": ("xl", "inpaint", [], 9, dict(A_CASTLE, strength=1.0)),
    "xl pix2pix": ("xl", "instruct_pix2pix", [], 8, dict(A_CASTLE, negative_prompt="blurry", image_guidance_scale=1.3)),
    "refiner": ("refiner", "img2img", [], 4, dict(A_CASTLE, strength=0.7, negative_prompt="blurry", aesthetic_score=7.0,
                                                  negative_aesthetic_score=2.0)),
    "refiner crop": ("refiner", "img2img", [], 4, dict(A_CASTLE, strength=0.7, crops_coords_top_left=(30, 50))),
    "refiner negative sizes": ("refiner", "img2img", [], 4, dict(A_CASTLE, strength=0.7, crops_coords_top_left=(30, 50),
                                                                 negative_original_size=(40, 30),
                                                                 negative_crops_coords_top_left=(3, 5))),
    "turbo": ("turbo", "txt2img", [], 4, dict(A_CASTLE, num_inference_steps=1, guidance_scale=0.0)),
    "xl turbo": ("xl turbo", "txt2img", [], 4, dict(A_CASTLE, num_inference_steps=2, guidance_scale=0.0)),
    "lcm": ("lcm", "txt2img", [], 4, dict(A_CASTLE, num_inference_steps=4, guidance_scale=8.5)),
    "lcm of more": ("lcm", "txt2img", [], 4, dict(A_CASTLE, num_inference_steps=4, original_inference_steps=20)),
    "given noise": ("sd1", "txt2img", [], 4, dict(A_CASTLE, latents="drawn", num_images=2)),
    "lcm from a picture": ("lcm", "img2img", [], 4, dict(A_CASTLE, num_inference_steps=4, guidance_scale=8.5, strength=0.5)),
    "lcm's sampler": ("sd1", "txt2img", [], 4, dict(A_CASTLE, num_inference_steps=4, guidance_scale=1.5, sampler="lcm")),
    "lcm img2img": ("sd1", "img2img", [], 4, dict(A_CASTLE, num_inference_steps=4, sampler="lcm", strength=0.5)),
    "zero snr": ("zero snr", "txt2img", [], 4, dict(A_CASTLE, guidance_rescale=0.7, num_images=2)),
    "taesd": ("taesd", "txt2img", [], 4, A_CASTLE),
    "taesd img2img": ("taesd", "img2img", [], 4, dict(A_CASTLE, strength=0.7)),
    "upscale": ("upscaler", "upscale", [], 7, dict(A_CASTLE, noise_level=30, num_images=2)),
    "depth": ("depth", "depth2img", [], 5, dict(A_CASTLE, strength=0.7)),
    "controlnet": ("sd1", "txt2img", ["controlnet_sd1"], 4, dict(A_CASTLE, controlnet_conditioning_scale=0.8, num_images=2)),
    "two controlnets": ("sd1", "txt2img", ["controlnet_sd1"] * 2, 4, dict(A_CASTLE, controlnet_conditioning_scale=[0.8, 0.5],
                                                                         control_guidance_start=[0.0, 0.4],
                                                                         control_guidance_end=[0.7, 1.0])),
    "guess": ("sd1", "txt2img", ["controlnet_sd1"], 4, dict(A_CASTLE, guess_mode=True)),
    "controlnet img2img": ("sd1", "img2img", ["controlnet_sd1"], 4, dict(
        A_CASTLE, strength=0.7, controlnet_conditioning_scale=0.8, control_guidance_start=0.3)),
    "controlnet inpaint": ("sd1", "inpaint", ["controlnet_sd1"], 9, dict(A_CASTLE, strength=1.0, controlnet_conditioning_scale=0.5)),
    "xl controlnet": ("xl", "txt2img", ["controlnet_xl"], 4, dict(A_CASTLE, controlnet_conditioning_scale=0.5)),
}

# LoRA files -> (spelling, layers of the unet, of the text encoder, rank, alpha or None, weight)
ATTENTION = "down_blocks.0.attentions.0.transformer_blocks.0"
LORA_UNET = [f"{ATTENTION}.attn1.to_q", f"{ATTENTION}.attn2.to_v", f"{ATTENTION}.attn1.to_out.0", f"{ATTENTION}.ff.net.0.proj",
             "mid_block.attentions.0.proj_in", "up_blocks.1.resnets.0.conv1"]
LORA_TEXT = [f"encoder.layers.{i}.{k}" for i in (0, 1) for k in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                                                                 "self_attn.out_proj", "mlp.fc1", "mlp.fc2")]
LORAS = {"kohya": ("kohya", LORA_UNET, LORA_TEXT, 4, 2.0, 0.8), "peft": ("peft", LORA_UNET, LORA_TEXT, 3, None, 1.0),
         "diffusers": ("diffusers", LORA_UNET[:3], [], 4, None, 1.0)}

# layers of an SDXL LoRA's unet: LDM's name for the place, as kohya's tools write it -> where it is
XL_LORA = {"input_blocks_4_1": "down_blocks.1.attentions.0", "middle_block_1": "mid_block.attentions.0",
           "output_blocks_1_1": "up_blocks.0.attentions.1", "output_blocks_5_1": "up_blocks.1.attentions.2"}
XL_HOW = dict(A_CASTLE, sampler="ddim")

SAMPLER_NAMES = ["ddpm", "ddim", "pndm", "lms", "euler", "euler_a", "heun", "dpm2", "dpm2_a", "dpmpp_2m", "dpmpp_2m_sde", "unipc", "lcm"]
RESPACING = ["lms", "euler", "heun", "dpm2", "dpm2_a", "dpmpp_2m", "dpmpp_2m_sde", "unipc"]
NO_SAMPLE = ["pndm", "euler_a", "dpm2", "dpm2_a"]            # the reference does not take prediction_type "sample" here
SAMPLE_SHAPE = (1, 4, 4, 3)                                  # (B,C,H,W)


def sampler_cases():
    """name of the case -> (sampler, scheduler_config.json, steps, {sigmas, eta, timestep_spacing})"""
    cosine = dict(SCHEDULE, beta_schedule="squaredcos_cap_v2")
    linear = dict(SCHEDULE, beta_schedule="linear", beta_start=1e-4, beta_end=0.02)
    found = {}

    def add(label, name, config, steps, **how):
        found[f"{name} {steps} {label}"] = (name, config, steps, how)

    for name in SAMPLER_NAMES:
        for steps in (1, 2, 7, 20, 50):
            add("plain", name, SCHEDULE, steps)
        for spacing in ("leading", "linspace", "trailing"):
            for steps in (7, 20):
                add(spacing, name, SCHEDULE, steps, timestep_spacing=spacing)
        add("v", name, dict(SCHEDULE, prediction_type="v_prediction"), 20)
        if name not in NO_SAMPLE:
            add("sample", name, dict(SCHEDULE, prediction_type="sample"), 20)
        add("defaults", name, {}, 20)                        # of the reference's class, where scheduler_config.json says nothing
        add("linear", name, linear, 20)
        add("cosine", name, cosine, 20, timestep_spacing="leading")
        add("one", name, dict(SCHEDULE, set_alpha_to_one=True, steps_offset=0), 7, timestep_spacing="leading")
        if name in RESPACING:
            for sigmas in ("karras", "exponential"):
                for steps in (1, 7, 20):
                    add(sigmas, name, SCHEDULE, steps, sigmas=sigmas)
            add("karras v", name, dict(SCHEDULE, prediction_type="v_prediction"), 20, sigmas="karras")
    for name in ("ddpm", "ddim", "heun"):
        add("clip", name, dict(SCHEDULE, clip_sample=True, clip_sample_range=0.8), 20)
    for eta in (0.3, 1.0):
        add(f"eta {eta}", "ddim", SCHEDULE, 20, eta=eta)
    add("large", "ddpm", dict(SCHEDULE, variance_type="fixed_large"), 20)
    for steps in (7, 20):
        add("prk", "pndm", dict(SCHEDULE, skip_prk_steps=False), steps)
    for name in ("dpmpp_2m", "dpmpp_2m_sde"):
        add("heun", name, dict(SCHEDULE, solver_type="heun"), 20)
        add("first order", name, dict(SCHEDULE, solver_order=1), 7)
        add("lambda", name, dict(SCHEDULE, lambda_min_clipped=-2.0), 20)
    for name in ("dpmpp_2m", "unipc", "euler"):
        add("sigma_min", name, dict(SCHEDULE, final_sigmas_type="sigma_min"), 20)
    add("bh1", "unipc", dict(SCHEDULE, solver_type="bh1", final_sigmas_type="sigma_min"), 20)     # to zero, the reference gives NaN
    add("third order", "unipc", dict(SCHEDULE, solver_order=3), 20)
    add("no corrector", "unipc", dict(SCHEDULE, disable_corrector=[0, 1, 2]), 20)
    for name in ("ddim", "ddpm", "dpmpp_2m"):
        add("zero snr", name, dict(SCHEDULE, rescale_betas_zero_snr=True, prediction_type="v_prediction"), 20, timestep_spacing="trailing")
    return found


PROMPTS = [
    "", " ", "a photo of a cat", "  Leading and   many\tspaces\nand lines ", "don't you'll it's I'd we're they've I'm",
    "O'Brien's rock 'n' roll", "1234567890 3.14 x2 4K 8k", "UPPER lower MiXeD", "naïve café Zürich Ångström",
    "nai\u0308ve cafe\u0301", "東京タワー の 写真", "Привет, мир!", "مرحبا بالعالم", "שלום", "हिन्दी",
    "👩‍🚀🐴 emoji 🏳️‍🌈 ❤️", "a_b-c+d=e/f\\g", "!!! ??? ... ,,, ;;;", "((masterpiece:1.2)), [ugly]", "<|endoftext|>",
    "a <|startoftext|> b <|ENDOFTEXT|> c", "tab\u00a0nbsp\u2003em\u200bzero", "pneumonoultramicroscopicsilicovolcanoconiosis",
    "x" * 300, "ß ﬁ Ⅷ ½ ² ₂", "\u0000\u0001\ufffd", "https://example.org/?q=a&b=c#d", "İstanbul ǅ ſ", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝟙𝟚𝟛",
    " ".join(f"word{k}" for k in range(300)), "the quick brown fox " * 25,
]

# (seed, shapes drawn one after the other): blocks of 16, tails, the short path and what it keeps
NOISE = [(0, [(16,), (17,), (31,), (1000,)]), (42, [(1, 4, 8, 8), (2, 4, 13, 9), (1, 4, 1, 3), (1, 4, 8, 8)]),
         (7, [(1,), (1,), (5,), (20,), (1,), (3,), (15,), (2, 2)]), (2**32 + 7, [(1, 4, 64, 64)]), (2**64 - 1, [(33,)]),
         (-5, [(33,), (2,)])]
