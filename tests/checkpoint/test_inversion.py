"""Textual inversions: words of one's own."""
import drawn_models
import golden_checks
import numpy as np
import pytest
from golden_checks import Golden
from safetensors.numpy import save_file

import minisd
from minisd.cli import main as cli
from minisd.errors import CheckpointError, InputError

HOW = dict(num_inference_steps=1, seed=1, width=64, height=64, output="latent")


def test_against_diffusers(tmp_path):
    assert golden_checks.compare_inversion(Golden("tasks"), tmp_path) <= golden_checks.BOUND


@pytest.fixture
def taught(sd1_folder, tmp_path):
    return minisd.load(sd1_folder, textual_inversion=golden_checks.inversion_files(tmp_path))


def test_a_word_stands_for_its_vectors(taught):
    ids = taught.tokenizer.ids("<my-cat> a <three-hats>, cat")
    assert ids[:3] == [49408, 320, 49409] and ids[3:5] == [49410, 49411] and len(ids) == 7
    table = taught.text_encoder.embeddings.token_embedding.weight
    np.testing.assert_array_equal(table[49408], drawn_models.standard("<my-cat>", (40,)))
    np.testing.assert_array_equal(table[49409:49412], drawn_models.standard("<three-hats>", (3, 40)))
    np.testing.assert_array_equal(table[:49408], minisd.load(taught.model.checkpoint.folder).text_encoder.embeddings.token_embedding.weight)


def test_other_prompts_are_as_before(taught, sd1):
    np.testing.assert_array_equal(*(p.model.encode_prompts(["a cat, and hats"])["context"] for p in (taught, sd1)))


def test_long_prompts_are_cut_where_they_are_too_long(taught):
    with pytest.warns(UserWarning, match="left out: '<three-hats> cat'"):
        taught.model.encode_prompts(["dog " * 75 + "<three-hats> cat"], prompt_syntax="plain")
    assert taught.model.encode_prompts(["(<three-hats>:1.3) " * 30])["context"].shape == (1, 2 * 77, 40)


def test_names(tmp_path, sd1_folder):
    """The file's name for AUTOMATIC1111's kind, if nothing else is asked for."""
    golden_checks.inversion_files(tmp_path)
    file = (tmp_path / "hats.safetensors").rename(tmp_path / "threehats.safetensors")
    assert minisd.load(sd1_folder, textual_inversion=file).tokenizer.ids("a threehats") == [320, 49408, 49409, 49410]


@pytest.mark.parametrize("arrays, message", [
    ({"<x>": np.zeros(41, np.float32)}, "vectors of 41 numbers; this model's text encoder has 40"),
    ({"clip_l": np.zeros((1, 40), np.float32), "clip_g": np.zeros((1, 40), np.float32)}, "Stable Diffusion XL"),
    ({"a": np.zeros(40, np.float32), "b": np.zeros(40, np.float32)}, "no textual inversion: it holds 2 arrays"),
    ({"a": np.zeros((1, 2, 40), np.float32)}, "no textual inversion"), ({"cat</w>": np.zeros(40, np.float32)}, "is a token already"),
    ({" ": np.zeros(40, np.float32)}, "it is empty")])
def test_what_is_wrong_with_a_file(tmp_path, sd1_folder, arrays, message):
    save_file(arrays, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match=message):
        minisd.load(sd1_folder, textual_inversion=tmp_path / "x.safetensors")


def test_files_that_are_none(tmp_path, sd1_folder):
    (tmp_path / "a.pt").write_bytes(b"x")
    for name, kind, message in (("no.safetensors", InputError, "no such file"), ("a.pt", CheckpointError, "pickle")):
        with pytest.raises(kind, match=message):
            minisd.load(sd1_folder, textual_inversion=tmp_path / name)
    golden_checks.inversion_files(tmp_path)
    with pytest.raises(CheckpointError, match="is a token already"):
        minisd.load(sd1_folder, textual_inversion=[tmp_path / "learned_embeds.safetensors"] * 2)


def test_command_line(tmp_path, sd1_folder, taught):
    golden_checks.inversion_files(tmp_path)
    code = cli.main(["txt2img", "<my-cat> with <three-hats>", "-m", str(sd1_folder), "--steps", "1", "--seed", "1", "--quiet",
                     "--size", "64x64", "-o", str(tmp_path / "out.png"), "--embedding", str(tmp_path / "learned_embeds.safetensors"),
                     "--embedding", f"{tmp_path / 'hats.safetensors'}=<three-hats>"])
    from PIL import Image
    expected = taught.txt2img("<my-cat> with <three-hats>", **{**HOW, "output": "pil", "seed": [1]})
    with Image.open(tmp_path / "out.png") as picture:
        assert code == 0 and np.array_equal(np.asarray(picture), np.asarray(expected))
