"""The published configurations of real checkpoints, and what their files with LDM names are made of."""
from golden_cases import UNET, VAE, XA, D, U

XU = "CrossAttnUpBlock2D"
SD1 = dict(UNET, block_out_channels=[320, 640, 1280, 1280], norm_num_groups=32, cross_attention_dim=768, sample_size=64,
           attention_head_dim=8, use_linear_projection=False)
SD2 = dict(SD1, cross_attention_dim=1024, attention_head_dim=[5, 10, 20, 20], use_linear_projection=True)
XL = dict(SD2, block_out_channels=[320, 640, 1280], down_block_types=[D, XA, XA], up_block_types=[XU, XU, U],
          attention_head_dim=[5, 10, 20], transformer_layers_per_block=[1, 2, 10], cross_attention_dim=2048, sample_size=128,
          addition_embed_type="text_time", addition_time_embed_dim=256, projection_class_embeddings_input_dim=2816)
REFINER = dict(XL, block_out_channels=[384, 768, 1536, 1536], down_block_types=[D, XA, XA, D], up_block_types=[U, XU, XU, U],
               attention_head_dim=[6, 12, 24, 24], transformer_layers_per_block=4, cross_attention_dim=1280,
               projection_class_embeddings_input_dim=2560)
UPSCALER = dict(SD2, block_out_channels=[256, 512, 512, 1024], down_block_types=[D, XA, XA, XA], up_block_types=[XU, XU, XU, U],
                attention_head_dim=8, in_channels=7, only_cross_attention=[True, True, True, False], num_class_embeds=1000, sample_size=128)
REAL_VAE = dict(VAE, block_out_channels=[128, 256, 512, 512], norm_num_groups=32)
SMALL_VAE = dict(REAL_VAE, block_out_channels=[128, 256, 512], down_block_types=["DownEncoderBlock2D"] * 3,
                 up_block_types=["UpDecoderBlock2D"] * 3, scaling_factor=0.08333)


def text(width, layers, heads, act="gelu", **more):
    return dict(hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers, num_attention_heads=heads, vocab_size=49408,
                hidden_act=act, max_position_embeddings=77, eos_token_id=2, **more)


CLIP_L, CLIP_H = text(768, 12, 12, "quick_gelu"), text(1024, 23, 16)
CLIP_G = text(1280, 32, 20, projection_dim=1280, architectures=["CLIPTextModelWithProjection"])


def control(c):
    """A ControlNet's configuration, of its unet's."""
    return {k: v for k, v in c.items() if k not in ("up_block_types", "out_channels", "sample_size", "only_cross_attention")}


# checkpoint -> {component: config}
MODELS = {
    "SD 1.5": dict(text_encoder=CLIP_L, unet=SD1, vae=REAL_VAE), "SD 1.5 inpainting": dict(unet=dict(SD1, in_channels=9)),
    "instruct-pix2pix": dict(unet=dict(SD1, in_channels=8)), "SD 2.1": dict(text_encoder=CLIP_H, unet=SD2, vae=REAL_VAE),
    "SD 2 inpainting": dict(unet=dict(SD2, in_channels=9)), "SD 2 depth": dict(unet=dict(SD2, in_channels=5)),
    "SDXL base": dict(text_encoder=CLIP_L, text_encoder_2=CLIP_G, unet=XL, vae=dict(REAL_VAE, scaling_factor=0.13025)),
    "SDXL refiner": dict(text_encoder_2=CLIP_G, unet=REFINER), "SDXL inpainting": dict(unet=dict(XL, in_channels=9)),
    "x4 upscaler": dict(text_encoder=CLIP_H, unet=UPSCALER, vae=SMALL_VAE),
    "ControlNet of SD 1.5": dict(controlnet=control(SD1)), "ControlNet of SD 2.1": dict(controlnet=control(SD2)),
    "ControlNet of SDXL": dict(controlnet=control(XL)),
    "LCM of SD 1.5": dict(unet=dict(SD1, time_cond_proj_dim=256)),
    "TAESD": dict(vae=dict(_class_name="AutoencoderTiny", latent_channels=4)),
}
# sizes of files with LDM names, as tests/ldm_files.py wants them: checkpoint -> (family, (unet, vae, texts), channels that the unet takes)
WIDE = dict(channels=(128, 256, 512, 512))
UNETS = {"SD 1": dict(channels=(320, 640, 1280, 1280), context=768), "SD 2": dict(channels=(320, 640, 1280, 1280), context=1024),
         "XL": dict(channels=(320, 640, 1280), attention=(0, 2, 10), context=2048, added=2816),
         "refiner": dict(channels=(384, 768, 1536, 1536), attention=(0, 4, 4, 0), middle=4, context=1280, added=2560),
         "upscaler": dict(channels=(256, 512, 512, 1024), attention=(0, 1, 1, 1), context=1024, classes=1000,
                          only_cross=(True, True, True, False))}
L, H, G = (dict(width=w, layers=n, length=77) for w, n in ((768, 12), (1024, 24), (1280, 32)))
FILES = {"SD 1.5": ("SD 1", [L], 4), "SD 1.5 inpainting": ("SD 1", [L], 9), "instruct-pix2pix": ("SD 1", [L], 8),
         "SD 2.1": ("SD 2", [H], 4), "SD 2 inpainting": ("SD 2", [H], 9), "SD 2 depth": ("SD 2", [H], 5), "SDXL base": ("XL", [L, G], 4),
         "SDXL refiner": ("refiner", [G], 4), "SDXL inpainting": ("XL", [L, G], 9), "x4 upscaler": ("upscaler", [H], 7)}


def file_keys(name):
    """{LDM key: shape} of a checkpoint in one file."""
    import ldm_files
    family, texts, channels = FILES[name]
    vae = dict(channels=(128, 256, 512)) if family == "upscaler" else WIDE
    return ldm_files.keys(family, channels, (UNETS[family], vae, texts))


def control_keys(name):
    """{LDM key: shape} of a ControlNet's file, below control_model."""
    import ldm_files
    family = {"ControlNet of SD 1.5": "SD 1", "ControlNet of SD 2.1": "SD 2", "ControlNet of SDXL": "XL"}[name]
    how = dict(ldm_files.UNET, **UNETS[family], linear=family != "SD 1", control=True)
    return ldm_files.unet(**how)
