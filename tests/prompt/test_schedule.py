"""[from:to:when], [one|other] and AND: the examples that AUTOMATIC1111's web UI documents, and what a run makes of them."""
import numpy as np
import pytest

from minisd.errors import InputError
from minisd.prompt.schedule import Script, without_extra_networks

LANDSCAPE = ("fantasy landscape with a [mountain:lake:0.25] and [an oak:a christmas tree:0.75][ in foreground::0.6][ in background:0.25] "
             "[shoddy:masterful:0.5]")


def schedule(prompt, steps=10):
    """-> [(last step, text)]"""
    script, found = Script(prompt), []
    for step in range(1, steps + 1):
        text, = script.at(step, steps)
        found = [*(found[:-1] if found and found[-1][1] == text else found), (step, text)]
    return found


@pytest.mark.parametrize("prompt, expected", [
    ("test", [(10, "test")]), ("a [b:3]", [(3, "a "), (10, "a b")]), ("a [b: 3]", [(3, "a "), (10, "a b")]),
    ("a [[[b]]:2]", [(2, "a "), (10, "a [[b]]")]), ("[(a:2):3]", [(3, ""), (10, "(a:2)")]),
    ("a [b : c : 1] d", [(1, "a b  d"), (10, "a  c  d")]), ("a[b:[c:d:2]:1]e", [(1, "abe"), (2, "ace"), (10, "ade")]),
    ("a [unbalanced", [(10, "a [unbalanced")]), ("a [b:.5] c", [(5, "a  c"), (10, "a b c")]),
    ("((a][:b:c [d:3]", [(3, "((a][:b:c "), (10, "((a][:b:c d")]), ("[b::4]a", [(4, "ba"), (10, "a")]),
    ("[fe|]male", [(k, "male" if k % 2 == 0 else "female") for k in range(1, 11)]),
    ("[fe|||]male", [(1, "female"), (4, "male"), (5, "female"), (8, "male"), (9, "female"), (10, "male")]),
    ("[a|(b:1.1)]", [(k, "(b:1.1)" if k % 2 == 0 else "a") for k in range(1, 11)]),
    (r"\[a:b:3\]", [(10, r"\[a:b:3\]")]), ("[a:b]", [(10, "[a:b]")]), ("(a|b) [a|b:3]", [(10, "(a|b) [a|b:3]")]),
    ("[a:b:-1]", [(10, "b")]), ("[a:b:1e400]", [(10, "a")]), ("[a:b:" + "9" * 400 + "]", [(10, "a")])])
def test_what_a_prompt_says_at_each_step(prompt, expected):
    assert schedule(prompt) == expected


def test_the_landscape():
    texts = [text for _, text in schedule(LANDSCAPE, 100)]
    assert [step for step, _ in schedule(LANDSCAPE, 100)] == [25, 50, 60, 75, 100]
    assert texts[0] == "fantasy landscape with a mountain and an oak in foreground shoddy"
    assert texts[1] == "fantasy landscape with a lake and an oak in foreground in background shoddy"
    assert texts[-1] == "fantasy landscape with a lake and a christmas tree in background masterful"


def test_several_prompts():
    script = Script("a cat :1.2 AND a [dog:fox:1] AND a penguin :2.2")
    assert script.weights == [1.2, 1.0, 2.2]
    assert script.at(1, 10) == ["a cat", " a dog ", " a penguin"] and script.at(2, 10)[1] == " a fox "
    assert Script("a :.5\x1d AND b").weights == [0.5, 1.0]    # what strip() takes for a space, float() does not
    assert Script("a cat :1.2").weights == [1.0] and Script("a cat and a dog, BRANDY").weights == [1.0]
    assert Script("a AND b", reads=False).at(1, 10) == ["a AND b"] and Script("a AND b", several=False).at(1, 10) == ["a AND b"]


def test_extra_networks():
    assert without_extra_networks("a <lora:style:0.8> fox <my-cat> <hypernet:x:1>") == ("a  fox <my-cat> ", ["<lora:style:0.8>",
                                                                                                           "<hypernet:x:1>"])


# ---- in a run ------------------------------------------------------------------------------------------------------

HOW = dict(num_inference_steps=4, seed=1, width=64, height=64)


def latents(pipe, prompt, **how):
    return [step.latent for step in pipe.txt2img_steps(prompt, **{**HOW, "sampler": "euler", **how})]


def test_the_prompt_changes_where_it_says(sd1):
    fox, cat, both = (latents(sd1, p) for p in ("a fox", "a cat", "a [fox:cat:2]"))
    for k in (0, 1):
        np.testing.assert_array_equal(both[k], fox[k])
    assert np.abs(both[2] - fox[2]).max() > 1e-4
    np.testing.assert_array_equal(latents(sd1, "a [fox:cat:0]")[-1], cat[-1])
    turns = latents(sd1, "a [fox|cat]")
    np.testing.assert_array_equal(turns[0], fox[0])
    assert np.abs(turns[1] - fox[1]).max() > 1e-4
    plain = latents(sd1, "a [fox:cat:2]", prompt_syntax="plain")
    assert np.abs(plain[0] - fox[0]).max() > 1e-4


def test_steps_are_counted_where_a_sampler_calls_twice(sd1):
    fox, both = (latents(sd1, p, sampler="heun") for p in ("a fox", "a [fox:cat:2]"))
    np.testing.assert_array_equal(both[3], fox[3])
    assert len(both) == 7 and np.abs(both[4] - fox[4]).max() > 1e-4


def test_the_negative_prompt_changes_too(sd1):
    plain, changed = (latents(sd1, "a fox", negative_prompt=n) for n in ("red", "[red:blue:2]"))
    np.testing.assert_array_equal(changed[1], plain[1])
    assert np.abs(changed[2] - plain[2]).max() > 1e-5


def test_effects_add_up(sd1):
    """Against guidance by hand: without + scale (w1 (one - without) + w2 (other - without))."""
    fox, cat, none = (sd1.model.encode_prompts([p]) for p in ("a fox", " a cat", ""))
    step = next(sd1.txt2img_steps("a fox :0.5 AND a cat", **HOW, sampler="ddim", guidance_scale=3.0))
    x = next(sd1.txt2img_steps("a fox", **HOW, sampler="ddim", guidance_scale=1.0))
    noise = x.x0 * np.sqrt(1 / (1 + x.sigma**2)) + x.eps * x.sigma * np.sqrt(1 / (1 + x.sigma**2))
    e = [sd1.model.predict_noise(noise.astype(np.float32), step.t, c) for c in (none, fox, cat)]
    np.testing.assert_allclose(step.eps, e[0] + 3.0 * (0.5 * (e[1] - e[0]) + (e[2] - e[0])), atol=2e-4)


def test_pictures_of_as_many_prompts_as_each_has(sd1):
    both = latents(sd1, ["a fox AND a cat", "a dog"], seed=[1, 2])[-1]
    np.testing.assert_allclose(both[1], latents(sd1, "a dog", seed=2)[-1][0], atol=1e-3)
    np.testing.assert_allclose(both[0], latents(sd1, "a fox AND a cat", seed=1)[-1][0], atol=1e-3)


def test_what_is_not_read_is_named(sd1):
    with pytest.warns(UserWarning, match=r"<lora:style:1>: left out of the prompt.*lora="):
        found = latents(sd1, "a fox<lora:style:1>")
    np.testing.assert_array_equal(found[-1], latents(sd1, "a fox")[-1])
    with pytest.raises(InputError, match="needs a guidance_scale above 1"):
        sd1.txt2img("a fox AND a cat", **HOW, guidance_scale=1)
    with pytest.raises(InputError, match="at most 20,000"):
        sd1.txt2img("a" * 20_001, **HOW)
    with pytest.raises(InputError, match="AND joins 17 prompts"):
        sd1.txt2img(" AND ".join(["a fox"] * 17), **HOW)
    with pytest.raises(InputError, match="more than 64 chunks"):
        sd1.txt2img("a BREAK " * 100, **HOW)
    with pytest.raises(InputError, match="prompt_2 is for the second text encoder"):
        sd1.txt2img("a fox", prompt_2="a cat", **HOW)
