"""Step caching: which layers run at which call, what they are given, and that by default nothing is different."""
import golden_checks
import numpy as np
import pytest

import minisd
from minisd.backend import ops
from minisd.cli import main as cli
from minisd.errors import InputError
from minisd.networks import controlnet, unet

HOW = dict(num_inference_steps=5, width=64, height=64, seed=1, output="latent")


def resnets(run):
    """How many residual blocks run in each unet call, by the calls' first convolution."""
    found = []

    def count(name, run, *args, **kwargs):
        if name == "timestep_features":
            found.append(0)
        elif name == "residual_block" and found:
            found[-1] += 1
        return run(*args, **kwargs)

    with ops.watch(count):
        latent = run()
    return latent, found


@pytest.mark.parametrize("sampler, calls", [("ddim", 5), ("heun", 9)])
def test_which_calls_are_whole(sd1, sampler, calls):
    """One in so many, counted from the first, of samplers that call twice a step too; of the others, the last layer alone."""
    whole = resnets(lambda: sd1.txt2img("a cat", sampler=sampler, **HOW))[1]
    assert len(whole) == calls and len(set(whole)) == 1 and whole[0] > 10
    _, found = resnets(lambda: sd1.txt2img("a cat", sampler=sampler, cache_interval=3, **HOW))
    assert found == [whole[0] if k % 3 == 0 else 1 for k in range(calls)]


def test_a_kept_call_is_the_last_layer_over_what_was_kept(sd1):
    """The first convolution and the time embedding are this call's; what the last layer is given beside them, the earlier one's."""
    p, cfg, r = sd1.unet, sd1.model.unet_config, np.random.default_rng(0)
    x, y, context = (r.standard_normal(s, np.float32) for s in ((1, 8, 8, 4), (1, 8, 8, 4), (1, 77, cfg.cross_attention_dim)))
    t, later = np.float32([800]), np.float32([700])
    kept = {}
    np.testing.assert_array_equal(unet.unet(p, x, t, context, cfg, kept=kept), unet.unet(p, x, t, context, cfg))
    before = kept["deep"].copy()
    found = unet.unet(p, y, later, context, cfg, kept=kept)
    temb, first = unet.time_embedding(p, later, cfg, np.float32), unet.conv2d(p.conv_in, y, pad=(1, 1))
    last = p.up_blocks[len(p.up_blocks) - 1]
    h = unet.layer(last, len(last.resnets) - 1, np.concatenate([before, first], -1), temb, context, 0, cfg)
    np.testing.assert_array_equal(found, unet.norm_conv2d(p.conv_norm_out, p.conv_out, h, cfg.groups, cfg.eps))
    assert np.abs(found - unet.unet(p, y, later, context, cfg)).max() > 1e-3, "it is not the whole unet's"
    np.testing.assert_array_equal(kept["deep"], before)


def test_interval_1_is_the_picture_without(sd1):
    np.testing.assert_array_equal(sd1.txt2img("a cat", cache_interval=1, **HOW), sd1.txt2img("a cat", **HOW))
    assert np.abs(sd1.txt2img("a cat", cache_interval=2, **HOW) - sd1.txt2img("a cat", **HOW)).max() > 1e-3


def test_two_runs_share_nothing(sd1):
    """A run that stops in the middle leaves nothing for the next."""
    expected = sd1.txt2img("a cat", cache_interval=3, **HOW)
    steps = sd1.txt2img_steps("a dog", cache_interval=3, **{k: v for k, v in HOW.items() if k != "output"})
    next(steps), next(steps)
    np.testing.assert_array_equal(sd1.txt2img("a cat", cache_interval=3, **HOW), expected)


def test_controlnets_are_asked_at_whole_calls(sd1_folder, tmp_path, monkeypatch):
    pipe = minisd.load(sd1_folder, controlnet=golden_checks.write_controlnet(tmp_path, "controlnet_sd1"))
    image = np.random.default_rng(0).random((64, 64, 3))
    asked, whole = [], controlnet.controlnet
    monkeypatch.setattr(controlnet, "controlnet", lambda *a, **k: asked.append(1) or whole(*a, **k))
    pipe.txt2img("a cat", control_image=image, cache_interval=2, **HOW)
    assert len(asked) == 3, "pndm calls the unet six times in five steps"
    pipe.txt2img("a cat", control_image=image, **HOW)
    assert len(asked) == 3 + 6


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "2", True, None, 1001, np.ones(2)])
def test_intervals_that_cannot_be(sd1, wrong):
    with pytest.raises(InputError, match="cache_interval is"):
        sd1.txt2img("a cat", cache_interval=wrong, **HOW)


def test_where_it_is_refused(sd1, tmp_path):
    with pytest.raises(InputError, match="cache_interval leaves out what explain is to show"):
        minisd.explain(sd1, "a cat", cache_interval=2)
    upscaler = minisd.load(golden_checks.write_family(tmp_path / "upscaler", "upscaler", channels=7))
    image = np.zeros((24, 24, 3))
    with pytest.raises(InputError, match="cache_interval is for pictures that are made whole"):
        upscaler.upscale("a cat", image, num_inference_steps=2, tile=16, cache_interval=2)
    assert upscaler.upscale("a cat", image, num_inference_steps=2, cache_interval=2, seed=1).size == (96, 96)


def test_it_is_said_in_the_picture_and_made_again(sd1_folder, tmp_path, capsys):
    words, how = ["txt2img", "-m", str(sd1_folder), "--quiet", "-o"], ["--steps", "4", "--size", "64x64", "--seed", "1"]
    assert cli.main([*words, str(tmp_path / "a.png"), "a cat", *how, "--cache-interval", "2"]) == 0
    assert cli.main([*words, str(tmp_path / "b.png"), "--from", str(tmp_path / "a.png")]) == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert b"Cache interval: 2" in (tmp_path / "a.png").read_bytes()
