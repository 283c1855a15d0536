"""One plain test for each way in which a file, a prompt or an argument once made it fall over; docs/trust.md has the promises."""

import dataclasses
import io
import json
import os
import shutil
import threading
import time

import drawn_models
import numpy as np
import pytest
from PIL import EpsImagePlugin, ExifTags, Image
from PIL.PngImagePlugin import PngInfo
from safetensors.numpy import load_file, save_file

import minisd
from minisd.backend import memory, threads
from minisd.checkpoint.files import TensorFiles
from minisd.checkpoint.weights import Weights
from minisd.cli import main as cli
from minisd.cli import repeat
from minisd.errors import CheckpointError, InputError, MinisdError, printable
from minisd.image import metadata, pixels
from minisd.prompt.syntax import parse
from minisd.settings import Settings

SMALL = dict(num_inference_steps=1, seed=1, width=64, height=64)
UNET = "unet/diffusion_pytorch_model.safetensors"


# ---- memory --------------------------------------------------------------------------------------------------------


def proc(root, **files):
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    "version, files",
    [
        (
            2,
            {
                "proc__self__cgroup": "0::/a/b\n",
                "sys__fs__cgroup__a__b__memory.max": "max\n",
                "sys__fs__cgroup__a__b__memory.current": "5\n",
                "sys__fs__cgroup__a__memory.max": "3000\n",
                "sys__fs__cgroup__a__memory.current": "1500\n",
                "sys__fs__cgroup__a__memory.stat": "anon 1000\nfile 500\n",
            },
        ),
        (
            1,
            {
                "proc__self__cgroup": "9:memory:/a\n8:cpu:/\n",
                "sys__fs__cgroup__memory__a__memory.limit_in_bytes": "3000\n",
                "sys__fs__cgroup__memory__a__memory.usage_in_bytes": "1500\n",
                "sys__fs__cgroup__memory__a__memory.stat": "total_cache 500\n",
            },
        ),
    ],
)
def test_what_there_is_of_memory(tmp_path, version, files):
    """The least of the machine's and its control groups', files that are only cached left out."""
    assert memory.machine(proc(tmp_path, proc__meminfo="MemTotal: 9 kB\nMemAvailable: 4 kB\nSwapFree: 1 kB\n")) == 5 * 1024
    assert memory.available(proc(tmp_path, **files)) == 2000
    assert memory.available() > 1 << 20


@pytest.mark.parametrize(
    "task, how", [("txt2img", dict(width=20000, height=20000)), ("img2img", dict(image=np.zeros((3000, 4000, 3), np.uint8)))]
)
def test_a_picture_that_does_not_fit(sd1, task, how, monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 1 << 30)
    monkeypatch.setattr(sd1.model, "encode_prompts", lambda *_: pytest.fail("the text encoder ran"))
    with pytest.raises(InputError, match=r"needs about [\d.e+]+ GiB of memory, there are 1 GiB; (\d+)x\1 would fit; low_memory=True"):
        getattr(sd1, task)("a fox", **how)


def test_what_would_fit_fits(sd1, monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 1 << 30)
    for most in (1, 5):
        fits = [count for count in range(1, 9) if sd1.model.bytes_needed(1024, 1024, count) <= 1 << 30]
        assert sd1.model.most_pictures(1024, 1024, most) == min(most, max(fits))
    assert sd1.model.bytes_needed(512, 512, 2) > sd1.model.bytes_needed(512, 512, 1) > sd1.model.bytes_needed(256, 256, 1)


def test_many_pictures_are_made_in_batches_that_fit(sd1, monkeypatch):
    batches, how = [], dict(SMALL, num_images=5, seed=[3, 1, 4, 1, 5], negative_prompt="red", output="array", sampler="euler_a")
    together = sd1.txt2img("a fox", **how)
    monkeypatch.setattr(sd1.model, "most_pictures", lambda width, height, pictures, branches=2, tile=None: min(2, pictures))
    apart = sd1.txt2img("a fox", **how, progress=lambda step: batches.append(len(step.latent)))
    assert batches == [2, 2, 1]
    np.testing.assert_allclose(apart, together, atol=2e-4)
    with pytest.raises(InputError, match="that share a generator do not fit"):
        sd1.txt2img("a fox", **dict(how, seed=1, shared_generator=True))
    with pytest.raises(InputError, match="100,000 pictures in all"):
        sd1.txt2img("a fox", num_images=2**64)


def test_each_picture_is_saved_when_it_is_done(sd1_folder, tmp_path, monkeypatch, capsys):
    """Ctrl-C at the third leaves two."""
    from minisd.denoising import Run

    made, steps = [], Run.steps

    def interrupted(self):
        made.append(self)
        if len(made) == 3:
            raise KeyboardInterrupt
        return steps(self)

    monkeypatch.setattr(Run, "steps", interrupted)
    code = cli.main(
        ["txt2img", "a", "-n", "9", "-m", str(sd1_folder), "-o", str(tmp_path / "x.png"), "--steps", "1", "--size", "64x64", "--quiet"]
    )
    assert code == 130 and sorted(p.name for p in tmp_path.iterdir()) == ["x-1.png", "x-2.png"]
    capsys.readouterr()


# ---- threads -------------------------------------------------------------------------------------------------------


def test_an_interrupt_while_threads_start_leaves_none_to_wait_for(monkeypatch):
    """They are daemons: the interpreter does not wait for them at its end."""
    before = threads.count()
    threads.use(3)
    try:
        monkeypatch.setattr(threads.Pool, "submit", lambda self, job: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            threads.parallel(lambda i: None, range(9))
        ours = [t for t in threading.enumerate() if t.name.startswith("minisd-")]
        assert ours and all(t.daemon for t in ours)
    finally:
        threads.use(before)


def test_little_memory_in_several_threads_leaves_the_budget_as_it_was():
    inside, leave = threading.Barrier(2), threading.Event()

    def work(first):
        with threads.frugal():
            inside.wait(5)
            if first:
                leave.wait(5)
        leave.set()

    both = [threading.Thread(target=work, args=(k,)) for k in (True, False)]
    for t in both:
        t.start()
    for t in both:
        t.join()
    assert threads.budget() == 64 << 20


# ---- prompts, settings, the terminal -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "prompt", ["(" * 10_000, "(a" * 6_600, "[a|" * 6_000, "a" + " " * 19_000, "BREAK " * 3_000, "<a:" * 6_000, ":" * 20_000]
)
def test_a_prompt_takes_no_time_to_read(prompt):
    from minisd.prompt.schedule import Scripts, without_extra_networks

    begun = time.process_time()
    parse(prompt)
    Scripts([without_extra_networks(prompt)[0]], None).at(1, 20)
    assert time.process_time() - begun < 2  # it was 14 s


@pytest.mark.parametrize(
    "line",
    [
        'Steps: 2, Model: "abc',
        "Steps: 2, ControlNet weight: " + "[" * 5000,
        "Steps: 2, Seed: " + "9" * 5000,
        "x" * 40_000,
        "Steps: " + "1" * 400,
        'Steps: 2, Model: "\\u0"',
        "Steps: 2, Size: ²x²",
        ": " * 20_000,
    ],
)
def test_settings_of_any_text(tmp_path, line):
    info = PngInfo()
    info.add_text("parameters", f"a fox\n{line}")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", pnginfo=info)
    begun = time.process_time()
    try:
        repeat.options(tmp_path / "a.png")
    except InputError as e:
        assert len(str(e)) < 2100
    assert time.process_time() - begun < 2


@pytest.mark.parametrize(
    "own",
    [
        '{"minisd": 1',
        '{"minisd": 1, "prompt": 5, "negative_prompt": "", "settings": {"Steps": 1}}',
        '{"minisd":' + "[" * 99_999,
        '{"minisd": 1, "prompt": "", "negative_prompt": "", "settings": []}',
    ],
)
def test_damaged_settings_are_not_taken_for_others(tmp_path, own):
    info = PngInfo()
    info.add_text("parameters", "a fox\nSteps: 2")
    info.add_text("minisd", own)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", pnginfo=info)
    with pytest.raises(InputError, match="the settings stored in it are damaged"):
        metadata.read_parameters(tmp_path / "a.png")


def test_control_characters_are_shown():
    assert printable("a\x1b[2J\u202eb\x9b\nc 👩‍🚀 日本\xa0é") == "a\\x1b[2J\\u202eb\\x9b\nc 👩‍🚀 日本\xa0é"
    assert str(InputError("\x1b[31m" + "x" * 9000)).startswith("\\x1b[31m") and len(str(InputError("x" * 9000))) < 2100
    with pytest.warns(UserWarning, match=r"<lora:\\x1b\[2J:1>"):
        list(minisd.load().txt2img_steps("a fox <lora:\x1b[2J:1>", num_inference_steps=1, width=16, height=16))


def test_names_of_weights_and_words_are_shown(sd1_copy, capsys):
    save_file({**load_file(sd1_copy / UNET), "\x1b[2J.weight": np.zeros(1, np.float32)}, sd1_copy / UNET)
    (sd1_copy / "words.txt").write_text("fox \x1b[31m")
    cli.main(["inspect", str(sd1_copy)])
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize("option, says", [("--from", "an option of txt2img"), ("--stregth", "did you mean --strength?")])
def test_options_of_other_commands(option, says, capsys):
    with pytest.raises(SystemExit):
        cli.main(["img2img", "a.png", "a fox", option, "x"])
    assert says in capsys.readouterr().err


# ---- pictures ------------------------------------------------------------------------------------------------------


def test_no_other_program_draws_a_picture(tmp_path, monkeypatch):
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("Ghostscript ran"))
    (tmp_path / "photo.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n%%EndComments\nshowpage\n")
    with pytest.raises(InputError, match="no picture that Pillow can read"):
        pixels.read(tmp_path / "photo.png")


@pytest.mark.parametrize("top", [1.0, 255.0, 65535.0])
def test_tiffs_of_floats_are_not_black(tmp_path, top):
    Image.fromarray(np.linspace(0, top, 64, dtype=np.float32).reshape(8, 8)).save(tmp_path / "a.tiff")
    found = np.asarray(pixels.read(tmp_path / "a.tiff"))
    assert found[0, 0].tolist() == [0, 0, 0] and found[-1, -1].tolist() == [255, 255, 255] and abs(int(found[4, 0, 0]) - 130) < 3


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P"])
def test_a_tiff_is_turned_as_it_says(tmp_path, mode):
    source = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)).convert(mode)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    source.save(tmp_path / "a.tiff", exif=exif)
    np.testing.assert_array_equal(np.asarray(pixels.read(tmp_path / "a.tiff")), np.rot90(np.asarray(source.convert("RGB")), -1))


def test_pictures_that_are_none(tmp_path, monkeypatch):
    Image.new("RGB", (400, 400)).save(tmp_path / "large.png")
    with monkeypatch.context() as m, pytest.raises(InputError, match="more than 100,000 pixels"):
        m.setattr(Image, "MAX_IMAGE_PIXELS", 100_000)
        pixels.read(tmp_path / "large.png")
    memory_ = io.BytesIO()
    Image.new("RGB", (8, 8)).save(memory_, "PNG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x87\x69\0\x04\xff\xff\xff\xff\0\0\0\0" * 3)
    (tmp_path / "exif.png").write_bytes(memory_.getvalue())
    try:
        pixels.read(tmp_path / "exif.png")
    except InputError as e:
        assert "EXIF" in str(e)
    with pytest.raises(InputError, match="it must be in .0,1.: divide bytes by 255"):
        pixels.read(np.full((4, 4, 3), 200.0))


def test_a_transparent_mask_paints_nothing(sd1):
    mask = Image.new("RGBA", (64, 64), (255, 255, 255, 0))
    with pytest.raises(InputError, match="nothing is to be painted"):
        sd1.inpaint("a fox", Image.new("RGB", (64, 64)), mask, **SMALL)


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(Settings) if f.default is not None])
def test_none_is_named_where_it_is_no_value(sd1, name):
    with pytest.raises(InputError, match=f"{name} is None"):
        sd1.txt2img("a fox", **{**SMALL, name: None})


def test_places_to_write(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link.png").symlink_to("there/real.png")
    minisd.save(tmp_path / "link.png", Image.new("RGB", (4, 4)))
    assert (tmp_path / "link.png").is_symlink() and (tmp_path / "there" / "real.png").exists()
    old = tmp_path / ".minisd-000000000000.part"
    old.write_bytes(b"x")
    os.utime(old, (time.time() - 7200,) * 2)
    minisd.save(tmp_path / "a.png", Image.new("RGB", (4, 4)))
    assert not old.exists()
    for place in ("a" * 5000 + ".png", tmp_path / "\0.png", 5, ["a.png"]):
        with pytest.raises(InputError):
            minisd.save(place, Image.new("RGB", (4, 4)))
    with pytest.warns(UserWarning, match="longer than its format takes"):
        minisd.save(tmp_path / "a.jpg", Image.new("RGB", (4, 4)), "x" * 50_000)


@pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
def test_a_model_in_a_folder_whose_name_is_no_utf8_still_saves(sd1, tmp_path, monkeypatch, ending):
    """Python reads such bytes as lone surrogates, which no picture's text can hold."""
    monkeypatch.setattr(sd1.model.checkpoint, "name", "m\udcff")
    minisd.save(tmp_path / f"a.{ending}", sd1.txt2img("a fox", **SMALL))
    assert metadata.read_parameters(tmp_path / f"a.{ending}")[0] == "a fox"
    picture = Image.new("RGB", (4, 4))
    minisd.save(tmp_path / f"b.{ending}", picture, "a \ud800 b")
    assert metadata.read_texts(tmp_path / f"b.{ending}")[1] == "a ? b"
    picture.info["minisd"] = 5
    with pytest.raises(InputError, match="minisd are a int"):
        minisd.save(tmp_path / f"b.{ending}", picture)


def test_two_things_in_one_file(tmp_path, capsys):
    assert cli.main(["txt2img", "a fox", "-o", str(tmp_path / "a.png"), "--grid", str(tmp_path / "a.png")]) == 1
    assert "name the same file" in capsys.readouterr().err


# ---- files of a model ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shard", ["../vae/diffusion_pytorch_model.safetensors", "/etc/passwd", "", "..", 5, None, "a" * 5000, "\0"])
def test_a_shard_index_does_not_lead_out_of_its_folder(sd1_copy, shard):
    (sd1_copy / UNET).unlink()
    (sd1_copy / f"{UNET}.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(CheckpointError):
        minisd.load(sd1_copy)


@pytest.mark.parametrize(
    "file, text",
    [
        ("unet/config.json", "[" * 100_000 + "]" * 100_000),
        ("vae/config.json", '{"layers_per_block": ' + "9" * 5000 + "}"),
        ("scheduler/scheduler_config.json", '{"a":' * 50_000),
    ],
)
def test_json_without_end(sd1_copy, file, text):
    (sd1_copy / file).write_text(text)
    with pytest.raises(CheckpointError, match="not readable as JSON"):
        minisd.load(sd1_copy)


@pytest.mark.parametrize(
    "file, change",
    [
        ("tokenizer/tokenizer_config.json", dict(model_max_length=-5)),
        ("tokenizer/tokenizer_config.json", dict(model_max_length="x")),
        ("tokenizer/special_tokens_map.json", dict(pad_token={"contents": "!"})),
        ("tokenizer/tokenizer_config.json", dict(added_tokens_decoder={"x": 5})),
        ("unet/config.json", dict(transformer_layers_per_block=[])),
        ("unet/config.json", dict(block_out_channels=[10**400] * 4)),
        ("text_encoder/config.json", dict(num_attention_heads=10**12)),
        ("vae/config.json", dict(norm_num_groups=10**9)),
        ("scheduler/scheduler_config.json", dict(beta_start=[])),
        ("scheduler/scheduler_config.json", dict(set_alpha_to_one="x")),
        ("scheduler/scheduler_config.json", dict(beta_end=5)),
        ("scheduler/scheduler_config.json", dict(trained_betas=[0.1])),
        ("scheduler/scheduler_config.json", dict(prediction_type=[])),
    ],
)
def test_configurations_of_odd_values(sd1_copy, file, change):
    path = sd1_copy / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(MinisdError):
        minisd.load(sd1_copy).txt2img("a fox", **dict(SMALL, num_inference_steps=3))


def header(path, names):
    text = json.dumps({n: {"dtype": "F32", "shape": [1], "data_offsets": [4 * k, 4 * k + 4]} for k, n in enumerate(names)}).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"\0" * 4 * len(names))
    return TensorFiles([path])


def test_names_of_weights(tmp_path):
    tensors = header(tmp_path / "a.safetensors", ["a.²", "a.٣", "a." + "9" * 5000, "a.10", "a.9"])
    names = list(Weights.over(tensors, tensors.__getitem__).names())
    assert sorted(names) == sorted(tensors) and names.index("a.9") < names.index("a.10")
    with pytest.raises(CheckpointError, match="of the same name"):
        Weights.over(header(tmp_path / "b.safetensors", ["a", "a.b"]), None)
    with pytest.raises(CheckpointError, match="no network is so deep"):
        header(tmp_path / "c.safetensors", ["a." * 5000 + "b"])


@pytest.mark.parametrize("pattern, plain", [("(.*)*x", False), ("(a+)+$", False), ("attn1\\.to_q", True), ("^down_blocks.0$", True)])
def test_patterns_of_a_lora_are_not_run(sd1_folder, tmp_path, pattern, plain):
    layer = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    arrays = {f"{layer}.lora_A.weight": drawn_models.uniform("d", (4, 32)), f"{layer}.lora_B.weight": drawn_models.uniform("u", (32, 4))}
    save_file(
        arrays,
        tmp_path / "a.safetensors",
        {"lora_adapter_metadata": json.dumps({"unet.lora_alpha": 4, "unet.alpha_pattern": {pattern: 8}})},
    )
    if plain:
        minisd.load(sd1_folder, lora=tmp_path / "a.safetensors")
        return
    with pytest.raises(CheckpointError, match="more than a layer's name"):
        minisd.load(sd1_folder, lora=tmp_path / "a.safetensors")


@pytest.mark.parametrize("shape, alpha", [((32, 4, 3, 3), None), ((32, 4), np.array(np.inf, np.float32))])
def test_loras_of_other_shapes(sd1_folder, tmp_path, shape, alpha):
    layer = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    arrays = {f"{layer}.lora_down.weight": np.ones((4, 32), np.float32), f"{layer}.lora_up.weight": np.ones(shape, np.float32)}
    save_file({**arrays, **({} if alpha is None else {f"{layer}.alpha": alpha})}, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError):
        minisd.load(sd1_folder, lora=tmp_path / "a.safetensors")


def test_an_index_beyond_the_text_encoder(sd1_copy):
    """One token whose id is large is enough, however few there are."""
    path = sd1_copy / "tokenizer" / "added_tokens.json"
    shutil.copy(sd1_copy / "tokenizer" / "vocab.json", sd1_copy / "vocab.backup")
    vocab = json.loads((sd1_copy / "tokenizer" / "vocab.json").read_text())
    vocab["cat</w>"] = 10**6
    (sd1_copy / "tokenizer" / "vocab.json").write_text(json.dumps(vocab))
    with pytest.raises(CheckpointError, match="the tokenizer has 1000001 tokens"):
        minisd.load(sd1_copy)
    assert not path.exists()


# ---- arguments -----------------------------------------------------------------------------------------------------


def test_whole_numbers_of_numpy(sd1):
    found = sd1.txt2img("a fox", **{k: np.int64(v) for k, v in SMALL.items()}, num_images=np.int32(2), clip_skip=np.uint8(1))
    assert len(found) == 2
    minisd.grid([Image.new("RGB", (4, 4))] * 3, columns=np.int64(2))
    sd1.inpaint("a fox", Image.new("RGB", (64, 64)), pad=[np.int64(8)] * 4, num_inference_steps=1, seed=1)


@pytest.mark.parametrize(
    "how",
    [
        dict(sampler=np.array(["euler", "ddim"])),
        dict(guidance_scale=[[7.5]]),
        dict(output=np.array(["pil", "x"])),
        dict(sigmas=np.array([1, 2])),
        dict(seed=10**400),
        dict(guidance_scale=10**400),
        dict(eta=[0]),
        dict(rng=["cpu"]),
        dict(latents=[1, [2]]),
    ],
)
def test_arrays_and_lists_in_place_of_one_value(sd1, how):
    with pytest.raises(InputError):
        sd1.txt2img("a fox", **{**SMALL, **how})


def test_an_array_as_control_image_and_its_settings(sd1_folder, tmp_path):
    import golden_checks

    pipe = minisd.load(sd1_folder, controlnet=golden_checks.write_controlnet(tmp_path, "controlnet_sd1"))
    assert "ControlNet" in pipe.txt2img("a fox", **SMALL, control_image=np.zeros((64, 64, 3), np.uint8)).info["parameters"]


def test_seeds_run_over_the_end_to_the_beginning(sd1_folder, tmp_path, capsys):
    assert (
        cli.main(
            [
                "txt2img",
                "a",
                "-m",
                str(sd1_folder),
                "-n",
                "2",
                "--seed",
                str(2**64 - 1),
                "--steps",
                "1",
                "--size",
                "64x64",
                "--quiet",
                "-o",
                str(tmp_path / "x.png"),
            ]
        )
        == 0
    )
    assert [line.rpartition(" ")[2] for line in capsys.readouterr().out.splitlines()] == [str(2**64 - 1), "0"]


@pytest.mark.parametrize(
    "how",
    [
        dict(low_memory=np.zeros(2)),
        dict(extract_ema="yes"),
        dict(variant=5),
        dict(variant="a" * 5000),
        dict(variant="é" * 120),
        dict(variant="../x"),
        dict(dtype=np.zeros(2)),
        dict(prediction_type=[1]),
    ],
)
def test_odd_arguments_of_load(sd1_folder, how):
    with pytest.raises(InputError):
        minisd.load(sd1_folder, **how)


@pytest.mark.parametrize("side", [2**64, 10**400, -(10**400), 10**6 + 8])
def test_endless_sides(sd1, side):
    with pytest.raises(InputError, match="width is"):
        sd1.txt2img("a fox", width=side, height=64, num_inference_steps=1)


@pytest.mark.parametrize("token", [{"content": "\ud800"}, {"content": "x", "lstrip": "y"}, {"content": 5}])
def test_special_tokens_that_are_no_text(sd1_copy, token):
    path = sd1_copy / "tokenizer" / "special_tokens_map.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "pad_token": token}))
    with pytest.raises(CheckpointError):
        minisd.load(sd1_copy)


@pytest.mark.parametrize("images", [5, "a.png", Image.new("RGB", (4, 4)), np.array(5), None])
def test_a_sheet_of_what_is_not_several(images):
    with pytest.raises(InputError, match="it must be several images"):
        minisd.grid(images)


@pytest.mark.parametrize(
    "crop, message", [((np.zeros(2), np.zeros(2)), "two whole numbers"), (np.int64(3), "two whole numbers"), ([1], "two whole numbers")]
)
def test_what_is_no_pair(sd1, crop, message):
    """Also where the model has no use for it."""
    with pytest.raises(InputError, match=f"crops_coords_top_left .*{message}"):
        sd1.txt2img("a cat", crops_coords_top_left=crop, num_inference_steps=1, width=64, height=64)
