"""Weights, BREAK and long prompts, as AUTOMATIC1111's web UI reads them."""
import dataclasses

import drawn_models
import golden_cases
import golden_checks
import numpy as np
import pytest

from minisd.checkpoint.vocabulary import read_vocabulary
from minisd.checkpoint.weights import Weights
from minisd.conditioning import weigh
from minisd.errors import InputError
from minisd.networks import clip
from minisd.prompt.chunks import chunks
from minisd.prompt.syntax import BREAK, parse
from minisd.prompt.tokenizer import Tokenizer

COMMA = 267


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    drawn_models.write_tokenizer(folder)
    return Tokenizer(**read_vocabulary(folder))


@pytest.mark.parametrize("prompt, expected", [
    ("a cat", [("a cat", 1)]),
    ("", [("", 1)]),
    ("()", [("", 1)]),
    ("a (red) cat", [("a ", 1), ("red", 1.1), (" cat", 1)]),
    ("a [red] cat", [("a ", 1), ("red", 1 / 1.1), (" cat", 1)]),
    ("a (red:1.3) cat", [("a ", 1), ("red", 1.3), (" cat", 1)]),
    ("(red: .5 )", [("red", 0.5)]),
    ("(a:-1)", [("a", -1)]),
    ("((a))", [("a", 1.1 * 1.1)]),
    ("(a (b:2) c)", [("a ", 1.1), ("b", 2.2), (" c", 1.1)]),
    ("[a (b:2)]", [("a ", 1 / 1.1), ("b", 2 / 1.1)]),
    ("a (b", [("a ", 1), ("b", 1.1)]),
    ("a ((b", [("a ", 1), ("b", 1.1 * 1.1)]),
    ("a [b", [("a ", 1), ("b", 1 / 1.1)]),
    ("a) b] c", [("a) b] c", 1)]),
    (r"a \(b\) \[c\] \\", [("a (b) [c] \\", 1)]),
    ("time: 1:30", [("time: 1:30", 1)]),
    ("a:1.2)", [("a:1.2)", 1)]),
    ("a BREAK b", [("a", 1), (BREAK, 1), ("b", 1)]),
    ("aBREAKb breaking", [("aBREAKb breaking", 1)]),
    ("(a:1.5) BREAK (b)", [("a", 1.5), (BREAK, 1), ("b", 1.1)]),
])
def test_parse(prompt, expected):
    found = parse(prompt)
    assert [t for t, _ in found] == [t for t, _ in expected]
    np.testing.assert_allclose([w for _, w in found], [w for _, w in expected], rtol=1e-12)


def test_a_plain_prompt_is_one_chunk_of_the_usual_tokens(tokenizer):
    for prompt in ("", "a cat, a dog", "an astronaut riding a horse on mars"):
        ids, weights = chunks(tokenizer, prompt)
        np.testing.assert_array_equal(ids, tokenizer([prompt])[0])
        assert (weights == 1).all() and weights.shape == (1, 77)


def test_weights_stand_with_their_tokens(tokenizer):
    ids, weights = chunks(tokenizer, "a (red:1.5) cat")
    np.testing.assert_array_equal(ids, tokenizer(["a red cat"])[0])
    assert weights[0, :6].tolist() == [1, 1, 1.5, 1, 1, 1] and (weights[0, 6:] == 1).all()


def test_a_long_prompt_takes_several_chunks(tokenizer):
    ids, weights = chunks(tokenizer, " ".join(["cat"] * 100))
    cat = tokenizer.ids("cat")[0]
    assert ids.shape == weights.shape == (2, 77) and ids[0].tolist() == [49406, *[cat] * 75, 49407]
    assert ids[1].tolist() == [49406, *[cat] * 25, *[49407] * 51]


@pytest.mark.parametrize("words, first", [(60, 61), (55, 56), (54, 75), (75, 75), (74, 75)])
def test_a_full_chunk_ends_at_a_comma_near_by(tokenizer, words, first):
    """Twenty tokens back at most: the comma is token number words + 1, and the chunk holds 75."""
    ids, _ = chunks(tokenizer, " ".join(["cat"] * words) + ", " + " ".join(["dog"] * 40))
    assert (ids[0] != 49407).sum() - 1 == first
    together = [i for row in ids for i in row if i not in (49406, 49407)]
    assert together == tokenizer.ids(" ".join(["cat"] * words) + ", " + " ".join(["dog"] * 40))


def test_break_begins_a_chunk(tokenizer):
    ids, _ = chunks(tokenizer, "a cat BREAK a dog")
    np.testing.assert_array_equal(ids, tokenizer(["a cat", "a dog"])[0])
    assert len(chunks(tokenizer, "a cat BREAK")[0]) == 1 and len(chunks(tokenizer, "BREAK a cat")[0]) == 2


def test_the_mean_is_brought_back():
    z, w = drawn_models.standard("z", (2, 5, 3)) + 1, np.ones((2, 5), np.float32)
    w[0, 2] = 1.7
    found = weigh(z, w)
    scaled = z[0] * w[0][:, None]
    np.testing.assert_allclose(found[0], scaled * z[0].mean() / scaled.mean(), rtol=1e-5)
    np.testing.assert_allclose(found[1], z[1], rtol=1e-6)


def test_contexts(sd1):
    """Encoded chunk by chunk; a shorter prompt's last vector is repeated."""
    def read(prompts, **how):
        return sd1.model.encode_prompts(prompts, **how)["context"]

    one = read(["a cat", "a dog", "a (red:1.5) cat"])
    assert one.shape == (3, 77, 40)
    plain = read(["a red cat"])
    assert np.abs(one[2] - plain[0]).max() > 0.01 and abs(one[2].mean() - plain.mean()) < 1e-5
    two = read(["a cat BREAK a dog", "a cat"])
    assert two.shape == (2, 154, 40)
    np.testing.assert_allclose(two[0], np.concatenate([one[0], one[1]]), atol=1e-5)
    np.testing.assert_allclose(two[1, :77], one[0], atol=1e-5)
    assert (two[1, 77:] == two[1, 76]).all()
    np.testing.assert_array_equal(read(["a (red) cat"], prompt_syntax="plain"),
                                  clip.encode(sd1.text_encoder, sd1.tokenizer(["a (red) cat"])[0], sd1.model.text_encoders[0].config))


def test_a_picture_of_a_weighted_long_prompt(sd1):
    how = dict(num_inference_steps=2, seed=1, width=64, height=64, output="latent")
    long = ", ".join(["a (red:1.2) cat"] * 30)
    assert not np.allclose(sd1.txt2img(long, **how), sd1.txt2img("a red cat", **how), atol=1e-3)
    with pytest.warns(UserWarning, match="too long"):
        sd1.txt2img(long, prompt_syntax="plain", **how)


def test_clip_skip(sd1):
    """1 is the last layer, 2 the one before it; the last norm is applied either way."""
    config = sd1.model.text_encoders[0].config
    ids = sd1.tokenizer(["a cat"])[0]
    assert config.layers == 3
    found = [sd1.model.encode_prompts(["a cat"], clip_skip=k)["context"] for k in (1, 2, 3)]
    np.testing.assert_array_equal(found[0], clip.encode(sd1.text_encoder, ids, config))
    shapes = golden_checks.Golden("text_sd1").about["shapes"]
    fewer = {n: drawn_models.weight(n, s) for n, s in shapes.items() if not n.startswith("encoder.layers.2.")}
    shorter = Weights.from_flat(fewer)
    np.testing.assert_allclose(found[1], clip.encode(shorter, ids, dataclasses.replace(config, layers=2)), atol=1e-5)
    assert np.abs(found[1] - found[2]).max() > 0.01


@pytest.mark.parametrize("how, message", [(dict(clip_skip=0), "clip_skip is 0"), (dict(clip_skip=4), "3 layers"),
                                          (dict(clip_skip=True), "clip_skip is True"), (dict(clip_skip="1"), "clip_skip"),
                                          (dict(prompt_syntax="compel"), "choose a1111 or plain")])
def test_what_cannot_be_asked(sd1, how, message):
    with pytest.raises(InputError, match=message):
        sd1.txt2img_steps("a cat", **how)


def test_settings_are_written(sd1):
    picture = sd1.txt2img("a cat", num_inference_steps=1, seed=1, width=64, height=64, clip_skip=2)
    assert "Clip skip: 2" in picture.info["parameters"]
    assert "Clip skip" not in sd1.txt2img("a cat", num_inference_steps=1, seed=1, width=64, height=64).info["parameters"]


def test_prompts_of_the_goldens_need_no_syntax():
    assert all(c not in how["prompt"] + how["negative_prompt"] for *_, how in golden_cases.PIPELINES.values() for c in "()[]\\:")
