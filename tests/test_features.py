"""docs/features.md: what minisd does and which test proves it.  `python tests/test_features.py` writes the page."""
import ast
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "features.md"
REFERENCE, FORMULA = "diffusers, within 1e-5", "a stated formula"
# group -> [(what, tests of tests/test_<file>.py as file:function, held against)]; no tests: not there yet
FEATURES = {
    "Tasks": [
        ("text to image, 12 samplers", ["goldens:test_pipeline", "goldens:test_sampler"], REFERENCE),
        ("image to image: strength, any picture", ["tasks:test_task", "tasks:test_every_mode_is_read"], REFERENCE),
        ("inpainting by a unet of 9 channels", ["tasks:test_task"], REFERENCE),
        ("inpainting with any other model, by mask blend", ["tasks:test_task", "tasks:test_what_is_not_painted_stays"], REFERENCE),
        ("outpainting: a margin around a picture", ["tasks:test_a_margin_is_painted"], FORMULA),
        ("instruct-pix2pix", ["tasks:test_task", "tasks:test_pix2pix"], REFERENCE),
        ("upscaling (x4 upscaler), ControlNet, depth", [], None)],
    "Models": [
        ("Stable Diffusion 1.x, 2.x, and small models of their kind", ["goldens:test_every_layer"], REFERENCE),
        ("distilled unets with fewer layers", ["goldens:test_every_layer"], REFERENCE),
        ("v-prediction", ["goldens:test_sampler", "goldens:test_pipeline"], REFERENCE),
        ("SDXL, refiner, Turbo, LCM; guidance rescale", [], None)],
    "Files": [
        ("diffusers folders, one variant, shards, hub ids", ["goldens:test_pipeline", "checkpoint:test_a_hub_id_is_fetched"], REFERENCE),
        ("a single .safetensors of SD 1 and 2, inpainting too, every key of the real sizes",
         ["single:test_against_diffusers_converter", "single:test_every_key_of_the_real_checkpoints"], REFERENCE),
        ("both spellings of CLIP's names, old names of the vae's attention", ["single:test_both_spellings_of_clips_names",
                                                                               "checkpoint:test_old_attention_names_of_the_vae"], FORMULA),
        ("v-prediction of a single SD 2 file, found or asked for",
         ["single:test_what_a_unet_predicts_is_asked_for_or_found"], FORMULA),
        ("another vae", ["single:test_another_vae"], FORMULA),
        ("LoRA of kohya, diffusers, peft; several, weighted; unmatched layers named",
         ["lora:test_lora", "lora:test_several_add_up_and_weight_0_is_none", "lora:test_layers_that_are_not_there_are_named"], REFERENCE),
        ("textual inversion", ["inversion:test_against_diffusers"], REFERENCE),
        ("TAESD, single files of SDXL, pix2pix and the upscaler", [], None)],
    "Prompts": [
        ("weights, escapes, BREAK, any length, as AUTOMATIC1111 reads them",
         ["prompt:test_parse", "prompt:test_a_full_chunk_ends_at_a_comma_near_by", "prompt:test_the_mean_is_brought_back"], FORMULA),
        ("CLIP skip, in AUTOMATIC1111's numbers", ["prompt:test_clip_skip"], FORMULA),
        ("negative prompts everywhere", ["tasks:test_task", "goldens:test_pipeline"], REFERENCE)],
    "Output": [
        ("several pictures, picture k with seed s + k; lists of prompts", ["repeat:test_picture_k_has_the_seed_s_plus_k",
                                                                            "repeat:test_a_file_of_prompts"], FORMULA),
        ("a picture made again from what it says", ["repeat:test_a_picture_made_again", "repeat:test_the_web_uis_own_text"], FORMULA),
        ("previews of intermediate pictures", [], None)],
    "Where it computes": [
        ("a CPU, fast, or in little memory", ["cpu:test_equals_its_definition",
                                               "pipeline:test_low_memory_draws_the_same_and_keeps_nothing"], FORMULA),
        ("a GPU: tested by emulation, not yet run on one",
         ["kernels:test_equals_its_definition", "kernels:test_goldens", "kernels:test_same_seed_same_picture"],
         "definitions and diffusers, within float16's error")],
}


def page():
    lines = ["# What minisd does", "", "Each row with the tests that prove it, and what they hold it against. Written by "
             "`python tests/test_features.py`; a test holds that every test named here is there.", ""]
    for group, rows in FEATURES.items():
        lines += [f"## {group}", "", "| | | proved by | against |", "|---|---|---|---|"]
        for what, tests, against in rows:
            names = ", ".join(f"`{name.partition(':')[2]}`" for name in tests)
            lines.append(f"| {what} | {'yes' if tests else 'not yet'} | {names} | {against or ''} |")
        lines.append("")
    return "\n".join(lines)


def functions(file):
    return {node.name for node in ast.parse((HERE / f"test_{file}.py").read_text()).body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("name", sorted({name for rows in FEATURES.values() for _, tests, _ in rows for name in tests}))
def test_what_proves_a_feature_is_there(name):
    file, _, function = name.partition(":")
    assert function in functions(file)


def test_the_page_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == page(), "python tests/test_features.py writes it anew"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
