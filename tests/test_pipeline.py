"""The pipeline's behaviour: what it accepts, refuses, warns of, and gives back."""
import itertools

import golden_cases
import numpy as np
import pytest
from edited_files import change_json
from PIL import Image

import minisd
from minisd import denoising, first, model
from minisd.backend import threads
from minisd.cli import main as cli
from minisd.diffusion import samplers
from minisd.errors import InputError, NumericalError

SMALL = dict(prompt="a cat", num_inference_steps=2, seed=1, width=64, height=64)


def test_outputs(sd1):
    picture = sd1.txt2img(**SMALL)
    array = sd1.txt2img(**SMALL, output="array")
    latent = sd1.txt2img(**SMALL, output="latent")
    assert isinstance(picture, Image.Image) and picture.size == (64, 64)
    assert array.shape == (1, 64, 64, 3) and array.dtype == np.float32 and 0 <= array.min() and array.max() <= 1
    assert latent.shape == (1, 8, 8, 4) and latent.dtype == np.float32
    assert np.array_equal(np.asarray(picture), (array[0] * 255).round().astype(np.uint8))
    assert np.array_equal(sd1.model.decode(latent), array)


def test_low_memory_draws_the_same_and_keeps_nothing(sd1, sd1_folder):
    frugal = minisd.load(sd1_folder, low_memory=True)
    budgets, budget = set(), threads.budget
    found = frugal.txt2img(**SMALL, output="array", progress=lambda step: budgets.add(threads.budget()))
    assert np.abs(found - sd1.txt2img(**SMALL, output="array")).max() < 1e-4
    assert not frugal.unet._leaves and not frugal.vae._leaves and not frugal.text_encoder._leaves
    assert frugal.unet.unread() == [] and not threads._buffers
    assert budgets == {budget()}, "only while a network runs"


def test_low_memory_works_in_smaller_pieces(sd1_folder, monkeypatch):
    seen, pipes = [], [minisd.load(sd1_folder, low_memory=low_memory) for low_memory in (False, True)]
    monkeypatch.setattr(model.unet, "unet", lambda p, x, *_, **__: seen.append(threads.budget()) or x)
    for pipe in pipes:
        pipe.model.predict_noise(np.zeros((1, 8, 8, 4), np.float32), 1, {"context": None})
    assert seen[1] < seen[0] / 4


def test_steps_are_the_same_loop(sd1):
    steps = list(sd1.txt2img_steps(**SMALL))
    assert [s.i for s in steps] == [0, 1, 2] and all(s.total == 3 for s in steps), "pndm visits its second timestep twice"
    assert np.array_equal(steps[-1].latent, sd1.txt2img(**SMALL, output="latent"))
    for s in steps:
        assert s.x0.shape == s.eps.shape == s.latent.shape == (1, 8, 8, 4)
    assert [s.t for s in steps] == [501, 1, 1] and steps[0].sigma > steps[1].sigma > 0


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("name", samplers.SAMPLERS)
def test_predicted_x0_and_eps_are_consistent(name, prediction):
    """x = alpha x0 + sigma eps, whatever the network was trained to predict."""
    s = samplers.sampler(name, dict(golden_cases.SCHEDULE, prediction_type=prediction), 7)
    x, out = np.random.default_rng(0).standard_normal((2, 1, 3, 3, 4))
    for i in range(len(s.timesteps)):
        x0, eps = s.predict(x, out, i)
        assert np.allclose(s.alpha[i] * x0 + s.sigma[i] * eps, x, rtol=1e-6, atol=1e-6)
        assert np.allclose(s.add_noise(x0, eps, i), x, atol=1e-6)
        assert np.isclose(np.hypot(s.alpha[i], s.sigma[i]) * np.abs(s.scale_input(x, i)).max(), np.abs(x).max())


def test_picture_k_has_the_seed_s_plus_k(sd1):
    two = sd1.txt2img(**SMALL, num_images=2, output="latent")
    for k in range(2):
        assert np.allclose(two[k:k + 1], sd1.txt2img(**{**SMALL, "seed": 1 + k}, output="latent"), atol=1e-4)
    assert not np.allclose(two[1], two[0], atol=0.1)
    last = sd1.txt2img(**{**SMALL, "seed": 2**64 - 1}, num_images=2)
    assert "Seed: 18446744073709551615," in last[0].info["parameters"] and "Seed: 0," in last[1].info["parameters"]


def test_a_shared_generator_draws_one_picture_after_the_other(sd1):
    """As diffusers does; the goldens hold it to that."""
    two = sd1.txt2img(**SMALL, num_images=2, shared_generator=True, output="latent")
    own = sd1.txt2img(**SMALL, num_images=2, output="latent")
    assert np.allclose(two[0], own[0], atol=1e-4) and not np.allclose(two[1], own[1], atol=0.1)


def test_a_seed_for_each_picture(sd1):
    how = {**SMALL, "seed": (1, 5)}
    two = sd1.txt2img(**how, num_images=2, output="latent")
    assert "Seed: 5," in sd1.txt2img(**how, num_images=2)[1].info["parameters"]
    assert np.allclose(two[1:], sd1.txt2img(**{**SMALL, "seed": 5}, output="latent"), atol=1e-4)


def test_prompts_in_a_list(sd1):
    two = sd1.txt2img(**{**SMALL, "prompt": ["a cat", "a dog"], "seed": [1, 1]}, output="latent")
    assert np.allclose(two[:1], sd1.txt2img(**SMALL, output="latent"), atol=1e-4)
    assert len(sd1.txt2img(**{**SMALL, "prompt": ["a cat", "a dog"]}, num_images=2)) == 4


def test_the_negative_prompt_and_guidance_matter(sd1):
    plain = sd1.txt2img(**SMALL, output="latent")
    assert not np.array_equal(plain, sd1.txt2img(**SMALL, negative_prompt="a dog", output="latent"))
    assert np.array_equal(plain, sd1.txt2img(**SMALL, negative_prompt=None, output="latent"))
    assert not np.array_equal(plain, sd1.txt2img(**SMALL, guidance_scale=3, output="latent"))


def test_numbers_of_numpys_types_change_nothing(sd1):
    how = dict(sampler="ddim", output="latent")
    found = sd1.txt2img(**SMALL, **how, guidance_scale=np.float64(7.5), eta=np.float64(0.5))
    assert found.dtype == np.float32
    assert np.array_equal(found, sd1.txt2img(**SMALL, **how, guidance_scale=7.5, eta=0.5))


@pytest.mark.parametrize("pixels, message", [(np.zeros((1, 16, 16, 3), np.uint8), "floats in"), (np.zeros((16, 16, 3)), "of shape"),
                                             (np.zeros((1, 10, 16, 3)), "multiple of 8")])
def test_what_cannot_be_encoded(sd1, pixels, message):
    with pytest.raises(InputError, match=message):
        sd1.model.encode(pixels)


def test_the_pipelines_corrections_of_a_scheduler():
    """What the file does not say is corrected for the model's own class alone."""
    bare = {"_class_name": "DDIMScheduler"}
    assert samplers.corrected(bare, own=True) == {**bare, "steps_offset": 1, "clip_sample": False}
    assert samplers.corrected(bare, own=False) == bare
    assert samplers.corrected({"clip_sample": True, "steps_offset": 0}, own=False) == {"clip_sample": False, "steps_offset": 1}


@pytest.mark.parametrize("name", ["euler", "ddim", "dpmpp_2m"])
def test_trailing_spacing_never_goes_below_0(name):
    """np.arange(1000, 0, -1000 / 61) has 62 entries."""
    s = samplers.sampler(name, golden_cases.SCHEDULE, 61, timestep_spacing="trailing")
    assert len(s.timesteps) == 61 and min(s.timesteps) >= 0


def test_a_model_can_say_how_strongly_its_prompts_are_to_be_followed(sd1, sd1_copy, tmp_path, capsys):
    """Where the caller does not: by Python, the command line and first.py, and the picture says so."""
    change_json(sd1_copy / "model_index.json", _guidance_scale=2.5)
    told = minisd.load(sd1_copy).txt2img(**SMALL)
    assert "CFG scale: 2.5," in told.info["parameters"] and "CFG scale: 7.5," in sd1.txt2img(**SMALL).info["parameters"]
    assert np.array_equal(np.asarray(told), np.asarray(sd1.txt2img(**SMALL, guidance_scale=2.5)))
    out = tmp_path / "a.png"
    assert cli.main(["txt2img", "a cat", "-m", str(sd1_copy), "--steps", "2", "--seed", "1", "--size", "64x64", "-o", f"{out}"]) == 0
    assert np.array_equal(np.asarray(told), np.asarray(Image.open(out)))
    change_json(sd1_copy / "unet" / "config.json", sample_size=8)
    drawn = first.draw(sd1_copy, "a cat", seed=1, steps=2)
    assert np.array_equal(np.asarray(drawn), np.asarray(minisd.load(sd1_copy).txt2img(**SMALL, sampler="ddim", guidance_scale=2.5)))
    assert cli.main(["inspect", str(sd1_copy)]) == 0 and "guidance    2.5 unless" in capsys.readouterr().out


def test_guidance_of_1_is_off(sd1, monkeypatch):
    sizes = []
    monkeypatch.setattr(sd1.model, "predict_noise", lambda x, t, *_: sizes.append(len(x)) or np.zeros_like(x))
    sd1.txt2img(**SMALL, guidance_scale=1, output="latent")
    assert set(sizes) == {1}


def test_seeds_0_and_beyond_32_bits(sd1):
    def of(seed):
        return sd1.txt2img(**{**SMALL, "seed": seed}, output="latent")
    assert np.array_equal(of(0), of(2**32)) and not np.array_equal(of(0), of(1))


def test_no_seed_is_another_picture_each_time(sd1):
    how = {**SMALL, "seed": None}
    a, b = sd1.txt2img(**how), sd1.txt2img(**how)
    assert a.info["parameters"] != b.info["parameters"], "the chosen seed is written"


def test_the_cuda_stream(sd1):
    assert not np.allclose(sd1.txt2img(**SMALL, rng="cuda", output="latent"), sd1.txt2img(**SMALL, output="latent"))


@pytest.mark.parametrize("width, height", [(520, 712), (8, 8), (8, 64), (72, 8), (104, 88)])
def test_any_multiple_of_8(sd1, width, height):
    how = {**SMALL, "width": width, "height": height, "num_inference_steps": 1}
    assert sd1.txt2img(**how, guidance_scale=1).size == (width, height)


def test_the_models_own_size_and_sampler(sd1):
    picture = sd1.txt2img("a cat", num_inference_steps=1, seed=0)
    assert picture.size == (128, 128) and "Sampler: PLMS" in picture.info["parameters"]


def test_batches_are_counted_where_they_are_read(sd1):
    pictures = sd1.txt2img(**SMALL, num_images=2, shared_generator=True, sampler="euler", sigmas="karras", negative_prompt="b, c")
    assert pictures[1].info["parameters"] == (
        "a cat\nNegative prompt: b, c\nSteps: 2, Sampler: Euler, Schedule type: Karras, CFG scale: 7.5, Seed: 1, Size: 64x64, "
        "Model: sd1, RNG: CPU, Batch size: 2, Batch pos: 1, Version: minisd")


def test_a_long_prompt_warns_with_the_words(sd1):
    with pytest.warns(UserWarning, match="reads 75 tokens; left out: 'and a hat'"):
        sd1.txt2img(**{**SMALL, "prompt": "cat " * 75 + "and a hat", "num_inference_steps": 1}, output="latent", prompt_syntax="plain")


@pytest.mark.parametrize("scale, negative, message", [(0.5, "", "below 1"), (1, "a dog", "no effect"), (-2, "", "below 1")])
def test_guidance_off_unawares_warns(sd1, scale, negative, message):
    with pytest.warns(UserWarning, match=message):
        sd1.txt2img(**SMALL, guidance_scale=scale, negative_prompt=negative, output="latent")


REFUSED = [
    (dict(num_inference_steps=0), "from 1 to 1000"), (dict(num_inference_steps=1001), "from 1 to 1000"),
    (dict(num_inference_steps=2.5), "whole number"), (dict(num_inference_steps=1000), "beyond the 1000 trained"),
    (dict(width=100), "multiple of 8, such as 96"), (dict(height=0), "multiple of 8"), (dict(height=-64), "multiple of 8"),
    (dict(width="64"), "multiple of 8"), (dict(seed=1.5), "whole number"), (dict(seed=2**64), "whole number"),
    (dict(seed=[1, 2]), "2 seeds for 1 pictures"), (dict(guidance_scale=float("nan")), "guidance_scale is nan"),
    (dict(guidance_scale="high"), "must be a number"), (dict(sampler="eular"), "choose one of ddim, euler"),
    (dict(sampler="ddim", sigmas="karras"), "with one of euler, heun"),
    (dict(sampler="euler", sigmas="cosine"), "'karras' or 'exponential'"),
    (dict(sampler="euler", eta=0.5), "eta is ddim's alone"), (dict(sampler="ddim", eta=2.0), "0 .deterministic. to 1"),
    (dict(timestep_spacing="even"), "leading, linspace or trailing"), (dict(rng="mps"), "cpu or cuda"),
    (dict(output="jpeg"), "pil, array or latent"), (dict(num_images=0), "1 or more"), (dict(prompt=3), "string or a list"),
    (dict(prompt=[]), "string or a list"), (dict(negative_prompt=["a", "b"]), "1 prompts, but 2 negative"),
]


REFUSED += [
    (dict(negative_prompt=5), "negative_prompt is 5"), (dict(negative_prompt=[None]), "negative_prompt is"),
    (dict(width=float("nan")), "width is nan"), (dict(height=float("inf")), "height is inf"), (dict(sampler=["euler"]), "choose one of"),
    (dict(rng=["cpu"]), "cpu or cuda"), (dict(sampler="ddim", eta="0.5"), "eta is ddim's alone"),
    (dict(guidance_scale=np.complex64(2)), "must be a number"), (dict(sampler="unipc", num_inference_steps=1000), "use fewer"),
]


@pytest.mark.parametrize("how, message", REFUSED, ids=[str(r[0]) for r in REFUSED])
def test_refused_before_anything_is_computed(sd1, how, message, monkeypatch):
    monkeypatch.setattr(sd1.model, "encode_prompts", lambda *_: pytest.fail("the text encoder ran"))
    with pytest.raises(InputError, match=message):
        sd1.txt2img(**{**SMALL, **how})


def test_few_steps_of_pndm_with_runge_kutta(sd1):
    config = dict(golden_cases.SCHEDULE, skip_prk_steps=False)
    with pytest.raises(InputError, match="needs 4 steps or more"):
        samplers.sampler("pndm", config, 3)


def test_nan_names_the_step(sd1, monkeypatch):
    calls = itertools.count()
    monkeypatch.setattr(sd1.model, "predict_noise", lambda x, t, *_: np.full_like(x, np.nan if next(calls) == 1 else 0))
    with pytest.raises(NumericalError, match=r"after step 2 of 3 \(timestep 1\).*minisd inspect"):
        sd1.txt2img(**SMALL)


def test_nan_in_the_weights_of_the_vae(sd1_folder):
    pipe = minisd.load(sd1_folder)
    pipe.vae.decoder.conv_in.bias[0] = np.nan
    with pytest.raises(NumericalError, match="vae's weights may be damaged"):
        pipe.model.decode(np.zeros((1, 2, 2, 4), np.float32))


def test_float64(sd1_folder, sd1):
    exact = minisd.load(sd1_folder, dtype="float64").txt2img(**SMALL, output="latent")
    assert exact.dtype == np.float64
    assert np.abs(exact - sd1.txt2img(**SMALL, output="latent")).max() < 1e-4


def test_the_loop_stands_alone():
    """denoise() knows nothing of prompts: any predictor will do.  A perfect one brings pure noise to the data."""
    target = np.full((1, 4, 4, 4), 0.7, np.float32)
    for name in samplers.SAMPLERS:
        s = samplers.sampler(name, golden_cases.SCHEDULE, 20, timestep_spacing="trailing")
        x = np.random.default_rng(0).standard_normal(target.shape).astype(np.float32)
        level = {float(t): (s.alpha[i], s.sigma[i]) for i, t in enumerate(s.timesteps)}

        def predict(u, t, i, level=level):
            a, sd = level[t]
            return ((u * np.hypot(a, sd) - a * target) / sd).astype(np.float32)

        if name != "pndm":                                   # whose second visit sees another level at the same timestep
            *_, last = denoising.denoise(predict, s, x * s.init_sigma, lambda: np.zeros_like(x))
            assert np.abs(last.latent - target).max() < 0.2, name
            assert np.abs(last.x0 - target).max() < 0.02, name
