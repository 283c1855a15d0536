"""docs/features.md: what minisd does and which test proves it.  `python tests/test_features.py` writes the page."""
import ast
from pathlib import Path

import golden_cases
import golden_checks
import pytest

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "features.md"
REFERENCE, FORMULA = "diffusers, within 1e-5", "a stated formula"
# tests over goldens: function -> (golden file, its cases)
GOLDENS = {"test_run": ("families", golden_cases.RUNS), "test_xl": ("families", ("lora", "inversion", "handoff")),
           "test_canny_is_opencvs": ("families", ()), "test_task": ("tasks", golden_cases.TASKS),
           "test_lora": ("tasks", golden_cases.LORAS),
           "test_against_diffusers_converter": ("tasks", golden_checks.SINGLES), "test_against_diffusers": ("tasks", ()),
           "test_every_layer": ("one for each", golden_cases.MODELS), "test_pipeline": ("pipelines", golden_cases.PIPELINES),
           "test_sampler": ("samplers", golden_cases.SAMPLER_NAMES)}
# group -> [(what, tests of test_<file>.py as file:function, or file:function:golden's case, another, ..., held against)]
FEATURES = {
    "Tasks": [
        ("text to image, 13 samplers", ["goldens:test_pipeline", "goldens:test_sampler"], REFERENCE),
        ("image to image: strength, any picture",
         ["tasks:test_task:img2img pndm, img2img euler_a", "tasks:test_every_mode_is_read"], REFERENCE),
        ("inpainting by a unet of 9 channels", ["tasks:test_task:inpaint 9, inpaint 9 half"], REFERENCE),
        ("inpainting with any other model, by mask blend",
         ["tasks:test_task:inpaint pndm, inpaint ddim, inpaint euler, inpaint heun, inpaint unipc, inpaint dpm2",
          "tasks:test_what_is_not_painted_stays"], REFERENCE),
        ("the same with stochastic samplers, noise drawn in the reference's order",
         ["tasks:test_task:inpaint ddpm, inpaint euler_a, inpaint dpm2_a, inpaint dpmpp_2m_sde, inpaint lcm",
          "families:test_run:xl inpaint ddpm, xl inpaint euler_a, xl inpaint all, xl inpaint on"], REFERENCE),
        ("outpainting: a margin around a picture", ["tasks:test_a_margin_is_painted"], FORMULA),
        ("instruct-pix2pix",
         ["tasks:test_task:pix2pix pndm, pix2pix euler", "families:test_run:xl pix2pix", "tasks:test_pix2pix"], REFERENCE),
        ("upscaling, by the x4 upscaler", ["families:test_run:upscale"], REFERENCE),
        ("upscaling large pictures in pieces", ["upscale:test_what_is_done_pixel_by_pixel_is_the_same_in_pieces",
                                                "upscale:test_a_large_picture_in_pieces"], FORMULA),
        ("ControlNet: one, several, weights, start and end", ["families:test_run:controlnet, two controlnets, xl controlnet",
                                                              "controls:test_it_counts_from_start_to_end"], REFERENCE),
        ("ControlNet's guess mode", ["families:test_run:guess"], REFERENCE),
        ("ControlNet in image to image and inpainting", ["families:test_run:controlnet img2img, controlnet inpaint"], REFERENCE),
        ("Canny's edges for it", ["controls:test_canny_is_opencvs"], "OpenCV, equal"),
        ("depth to image, from a map of depths that is given", ["families:test_run:depth", "families:test_depth_maps"], REFERENCE)],
    "Models": [
        ("Stable Diffusion 1.x, 2.x, and small models of their kind",
         ["goldens:test_every_layer:text_sd1, text_sd2, unet_sd1, unet_sd2, vae"],
         REFERENCE),
        ("Stable Diffusion XL: two text encoders, sizes, zeros for no negative prompt",
         ["goldens:test_every_layer:text_xl, unet_xl", "families:test_run:xl, xl negative, xl skip",
          "families:test_no_negative_prompt_is_not_an_empty_one"], REFERENCE),
        ("its image to image and inpainting", ["families:test_run:xl img2img, xl inpaint, xl inpaint 9"], REFERENCE),
        ("its refiner, alone and after the base", ["goldens:test_every_layer:unet_refiner", "families:test_run:refiner",
                                                   "families:test_xl:handoff", "commands:test_the_refiner_ends_what_the_base_began"],
                                                   REFERENCE),
        ("SD-Turbo and SDXL-Turbo: trailing timesteps, few steps, no guidance", ["families:test_run:turbo, xl turbo"], REFERENCE),
        ("latent consistency models", ["goldens:test_every_layer:unet_lcm", "families:test_run:lcm, lcm from a picture",
                                       "families:test_lcm_is_conditioned_on_the_guidance_and_called_once"], REFERENCE),
        ("their sampler with any model, as LCM-LoRA wants it", ["families:test_run:lcm's sampler, lcm img2img", "goldens:test_sampler:lcm"],
         REFERENCE),
        ("distilled unets with fewer layers (tiny-sd), of SDXL too (SSD-1B)",
         ["goldens:test_every_layer:unet_distilled, unet_ssd"], REFERENCE),
        ("v-prediction", ["goldens:test_sampler", "goldens:test_pipeline:sd2"], REFERENCE),
        ("zero terminal SNR and guidance rescale", ["families:test_run:zero snr"], REFERENCE),
        ("names and shapes of every weight of the real checkpoints",
         ["single:test_every_key_of_the_real_checkpoints", "single:test_every_key_of_the_real_files",
          "single:test_every_key_of_the_real_controlnets"], "diffusers' meta device (keys.json.gz)")],
    "Files": [
        ("diffusers folders, one variant, shards, hub ids", ["goldens:test_pipeline", "checkpoint:test_a_hub_id_is_fetched"], REFERENCE),
        ("a single .safetensors of SD 1, 2, XL, its refiner, inpainting, instruct-pix2pix, upscaler",
         ["single:test_against_diffusers_converter:SD 1, SD 2, XL, refiner, inpainting, pix2pix, upscaler"], REFERENCE),
        ("a ControlNet's file with LDM names", ["controls:test_a_file_with_ldm_names_is_the_same"], FORMULA),
        ("EMA weights in a single file", ["families:test_ema_weights"], FORMULA),
        ("both spellings of CLIP's names, old names of the vae's attention", ["single:test_both_spellings_of_clips_names",
                                                                               "checkpoint:test_old_attention_names_of_the_vae"], FORMULA),
        ("v-prediction of a single SD 2 file, found or asked for; of an SDXL file, by its marks",
         ["single:test_what_a_unet_predicts_is_asked_for_or_found", "families:test_marks_of_v_prediction"], FORMULA),
        ("CLIP's vocabulary for files that have none", ["single:test_the_vocabulary_that_comes_with_minisd_is_clips"], REFERENCE),
        ("another vae", ["single:test_another_vae", "families:test_a_vaes_file_takes_the_models_scale"], FORMULA),
        ("TAESD in the place of a vae", ["goldens:test_every_layer:taesd", "families:test_run:taesd, taesd img2img"], REFERENCE),
        ("LoRA of kohya, diffusers, peft; several, weighted; unmatched layers named",
         ["lora:test_lora:kohya, peft, diffusers", "lora:test_several_add_up_and_weight_0_is_none",
          "lora:test_layers_that_are_not_there_are_named"], REFERENCE),
        ("LoRA of Stable Diffusion XL, with LDM's names for places", ["families:test_xl:lora"], REFERENCE),
        ("textual inversion, of Stable Diffusion 1, 2 and XL",
         ["inversion:test_against_diffusers", "families:test_xl:inversion"], REFERENCE),
        ("any of these explained, and a wrong one told where it belongs", ["inspect:test_every_kind_is_explained",
                                                                         "inspect:test_a_wrong_file_is_told_where_it_belongs"], FORMULA)],
    "Prompts": [
        ("weights, escapes, BREAK, any length, as AUTOMATIC1111 reads them",
         ["syntax:test_parse", "syntax:test_a_full_chunk_ends_at_a_comma_near_by", "syntax:test_the_mean_is_brought_back"], FORMULA),
        ("[from:to:when], [one\\|other] and AND, as AUTOMATIC1111 has them",
         ["schedule:test_what_a_prompt_says_at_each_step", "schedule:test_the_landscape", "schedule:test_effects_add_up"], FORMULA),
        ("prompts for Stable Diffusion XL's second text encoder, sizes for its negative prompt",
         ["families:test_run:xl other prompts, xl negative sizes, refiner negative sizes"], REFERENCE),
        ("CLIP skip, in AUTOMATIC1111's numbers", ["syntax:test_clip_skip", "families:test_run:xl skip"], FORMULA),
        ("negative prompts everywhere", ["tasks:test_task", "goldens:test_pipeline", "families:test_run:xl negative, refiner"], REFERENCE)],
    "Output": [
        ("several pictures, picture k with seed s + k; lists of prompts", ["repeat:test_picture_k_has_the_seed_s_plus_k",
                                                                            "repeat:test_a_file_of_prompts"], FORMULA),
        ("a picture made again from what it says", ["repeat:test_a_picture_made_again", "repeat:test_the_web_uis_own_text",
                                                      "repeat:test_prompts_like_the_settings_text_are_made_again"], FORMULA),
        ("pictures in batches that fit into memory, what does not fit refused before the work",
         ["trust:test_many_pictures_are_made_in_batches_that_fit", "trust:test_a_picture_that_does_not_fit"], FORMULA),
        ("a picture of each row of a table; wrong rows named before the work, what is there not drawn again",
         ["batch:test_rows_are_txt2imgs_pictures", "batch:test_bad_rows_are_named_all_at_once",
          "batch:test_killed_in_the_middle"], FORMULA),
        ("the same over a Ray cluster, whatever is lost", ["batch_ray:test_a_node_is_lost_and_another_comes",
                                                           "batch_ray:test_the_driver_is_killed"], "a run in one process"),
        ("step caching: the unet's inner layers at one call in so many", ["cache:test_which_calls_are_whole",
                                                                          "cache:test_a_kept_call_is_the_last_layer_over_what_was_kept"],
         FORMULA),
        ("previews of intermediate pictures, by TAESD or by the latents' colours",
         ["preview:test_by_taesd", "preview:test_the_matrix_is_that_of_a_linear_decoder",
          "preview:test_colours_of_the_latents_are_those_of_the_picture"], FORMULA)],
    "Other engines": [
        ("what every layer must give, with how much rounding moves it", ["compare:test_a_recording_says_what_every_layer_gives",
                                                                         "compare:test_outputs_are_exact"], FORMULA),
        ("which layers of another engine are wrong, and by what mistake; 26 planted in diffusers (tests/planted.py)",
         ["compare:test_mistakes_are_found_all_at_once", "compare:test_a_sum_left_out_is_one_fault", "compare:test_rounding_is_no_fault"],
         FORMULA),
        ("any format, names and axes, damaged files named", ["compare:test_every_format_gives_the_same",
                                                             "compare:test_names_of_another_engine",
                                                             "compare:test_damaged_files_are_named"], FORMULA),
        ("a whole run, step by step", ["compare:test_a_whole_run"], FORMULA),
        ("minisd on this machine, against a recording made elsewhere", ["compare:test_a_recorder_of_another_engine"], FORMULA)],
    "Seeing inside": [
        ("the picture of an explanation is txt2img's to the bit", ["explain:test_the_picture_is_that_of_txt2img",
                                                                   "explain:test_other_families",
                                                                   "explain:test_controlnets_and_little_memory"], "txt2img itself"),
        ("where each token is looked for: the softmax of the scores, which sums to 1",
         ["explain:test_shares_are_the_softmax_of_the_scores", "explain:test_maps_are_those_of_the_layers",
          "explain:test_exported_weights_sum_to_1_at_each_position", "page:test_shares_in_the_browser_are_those_in_python"], FORMULA),
        ("cost of each layer", ["explain:test_flops_are_those_of_the_products_executed",
                                "explain:test_every_weight_of_the_unet_is_counted_once",
                                "explain:test_outputs_are_described_as_a_trace_has_them"], FORMULA),
        ("guidance as arithmetic", ["explain:test_guidance_is_the_arithmetic_it_is_said_to_be"], FORMULA),
        ("a page that needs no network, by mouse or keyboard", ["page:test_the_slider_and_the_views_change_the_picture",
                                                                "page:test_a_token_in_focus_lies_over_the_picture",
                                                                "page:test_it_is_accessible"], "Chromium, axe"),
        ("in which no text becomes markup", ["explain:test_text_never_becomes_markup", "page:test_text_stays_text"], "Chromium")],
    "Where it computes": [
        ("a CPU, fast, or in little memory", ["cpu:test_equals_its_definition",
                                               "pipeline:test_low_memory_draws_the_same_and_keeps_nothing"], FORMULA),
        ("a GPU: tested by emulation, not yet run on one",
         ["kernels:test_equals_its_definition", "kernels:test_goldens", "kernels:test_same_seed_same_picture"],
         "definitions and diffusers, within float16's error")],
}


def parts(name):
    """-> (file, function, [golden cases])"""
    file, function, *rest = name.split(":")
    return file, function, rest[0].split(", ") if rest else []


def page():
    lines = ["# What minisd does", "",
             "Each row with the tests that prove it, the goldens that these read, in `tests/goldens`, and what they hold it against. "
             "Written by `python tests/test_features.py`; a test holds that every test and golden named here is there.", ""]
    for group, rows in FEATURES.items():
        lines += [f"## {group}", "", "| | proved by | golden | against |", "|---|---|---|---|"]
        for what, tests, against in rows:
            found, goldens = [parts(name) for name in tests], []
            for _, function, own in found:
                if function in GOLDENS:
                    goldens.append(f"{GOLDENS[function][0]}: {', '.join(own)}" if own else GOLDENS[function][0])
            lines.append(f"| {what} | {', '.join(f'`{function}`' for _, function, _ in found)} | {'; '.join(goldens)} | {against} |")
        lines.append("")
    return "\n".join(lines)


def functions(file):
    return {node.name for node in ast.parse(next(HERE.rglob(f"test_{file}.py")).read_text()).body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("name", sorted({name for rows in FEATURES.values() for _, tests, _ in rows for name in tests}))
def test_what_proves_a_feature_is_there(name):
    file, function, own = parts(name)
    assert function in functions(file)
    assert not own or set(own) <= set(GOLDENS[function][1])


def test_the_page_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == page(), "python tests/test_features.py writes it anew"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
