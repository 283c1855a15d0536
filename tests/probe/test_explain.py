"""Explanations: the picture is txt2img's to the bit, and each number beside it is what was computed."""
import base64
import json
import re

import golden_checks
import numpy as np
import pytest
from PIL import Image

import minisd
from minisd.backend import ops
from minisd.cli.main import main as cli
from minisd.errors import InputError
from minisd.probe import explain, features, page, profile
from minisd.probe.attention import shares

ROOT = page.HERE.parent.parent
SMALL = dict(seed=1, num_inference_steps=3, width=64, height=48)
HOSTILE = "</script><script>alert(1)</script> <img src=x onerror=alert(2)> \" ' & \u2028 [a|b] \\"


@pytest.fixture(scope="module")
def shipped():
    return minisd.load()


@pytest.fixture(scope="module")
def apple(shipped):
    return minisd.explain(shipped, "a red (apple:1.2) on a blue background", "green", seed=1)


@pytest.fixture(scope="module")
def families(tmp_path_factory):
    folder = tmp_path_factory.mktemp("families")
    return lambda name: minisd.load(golden_checks.write_family(folder / name, name) if not (folder / name).exists() else folder / name)


# ---- the run is the same ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [
    {}, {"sampler": "heun"}, {"sampler": "euler_a", "guidance_scale": 1.0}, {"negative_prompt": "(dog:1.3)", "guidance_rescale": 0.7},
    {"prompt": "a fox AND a cat :0.5"}, {"prompt": "[fox:a large cat, seen from above:0.5]"}, {"prompt": "a fox BREAK a cat"},
    {"prompt_syntax": "plain", "clip_skip": 2}, {"sampler": "pndm", "num_inference_steps": 5}, {"num_inference_steps": 1}])
def test_the_picture_is_that_of_txt2img(sd1, how):
    arguments = {**SMALL, "prompt": "a fox", **how}
    expected = sd1.txt2img(**arguments)
    found = minisd.explain(sd1, **arguments)
    assert np.array_equal(np.asarray(found.picture), np.asarray(expected)) and found.picture.info == expected.info
    steps = list(sd1.txt2img_steps(**arguments))
    assert [s.step.i for s in found.steps] == [s.i for s in steps]
    assert all(np.array_equal(a.step.x0, b.x0) for a, b in zip(found.steps, steps))
    assert 'id="picture"' in found.html()


@pytest.mark.parametrize("family", ["xl", "lcm", "taesd"])
def test_other_families(families, family):
    pipe = families(family)
    expected, found = pipe.txt2img("a fox", **SMALL), minisd.explain(pipe, "a fox", **SMALL)
    assert np.array_equal(np.asarray(found.picture), np.asarray(expected))
    assert found.attention.branches == (["prompt"] if family == "lcm" else ["no prompt", "prompt"])
    if family == "xl":                                       # without a negative prompt it reads zeros, which are no tokens
        assert {t.kind for t in found.attention.texts[found.attention.steps[0].texts[0]]} == {"none"}
        assert {"text_encoder", "text_encoder_2", "unet", "vae"} == {layer.network for layer in found.layers}
    assert len(found.html()) > 100_000


def test_controlnets_and_little_memory(sd1_folder, tmp_path):
    place = golden_checks.write_controlnet(tmp_path, "controlnet_sd1")
    edges = Image.radial_gradient("L").resize((64, 48))
    pipe, how = minisd.load(sd1_folder, controlnet=place, low_memory=True), {**SMALL, "num_inference_steps": 1}
    expected = pipe.txt2img("a fox", control_image=edges, **how)
    found = minisd.explain(pipe, "a fox", control_image=edges, **how)
    assert np.array_equal(np.asarray(found.picture), np.asarray(expected))
    assert any(layer.network == "controlnet" and layer.name.startswith("down_blocks") for layer in found.layers)
    assert found.attention.layers == minisd.explain(minisd.load(sd1_folder), "a fox", **how).attention.layers


def test_the_users_pipeline_is_left_as_it_was(sd1):
    before = dict(vars(sd1.model))
    minisd.explain(sd1, "a fox", **SMALL)
    assert vars(sd1.model) == before and not ops.is_observed()


# ---- attention --------------------------------------------------------------------------------------------------


def test_shares_are_the_softmax_of_the_scores():
    random = np.random.default_rng(0)
    q, k = random.standard_normal((2, 12, 24)).astype(np.float32), random.standard_normal((2, 19, 24)).astype(np.float32)
    for heads in (1, 3, 4):
        a, b = (x.reshape(2, -1, heads, 24 // heads).swapaxes(1, 2).astype(np.float64) for x in (q, k))
        scores = np.exp(a @ b.swapaxes(-1, -2) / np.sqrt(24 // heads))
        expected = (scores / scores.sum(-1, keepdims=True)).mean(1)
        assert np.abs(shares(q, k, heads) - expected).max() < 1e-6


def test_maps_are_those_of_the_layers(sd1):
    """Of one step: the mean over layers of each size of what q and k of every attn2 give."""
    found = minisd.explain(sd1, "a fox", **{**SMALL, "num_inference_steps": 1})
    with minisd.trace() as seen:
        sd1.txt2img("a fox", **{**SMALL, "num_inference_steps": 1})
    sizes = {}
    for name, q in seen.items():
        if name.endswith("attn2.to_q"):
            size = seen[name.split(".transformer_blocks")[0]].shape[1:3]
            sizes.setdefault(size, []).append(shares(q, seen[name[:-1] + "k"], 4)[-1])
    assert {s: len(a) for s, a in sizes.items()} == found.attention.layers
    for (h, w), maps in sizes.items():
        expected = np.mean(maps, axis=0).T.reshape(-1, h, w)
        assert np.abs(found.attention.at(size=(h, w)) - expected).max() < 1e-3


def exported(packed):
    """What the page's own program makes of a packed map: shares (M,h,w)."""
    raw = np.frombuffer(base64.b64decode(packed["bytes"]), np.uint8).reshape(-1, packed["h"], packed["w"])
    return raw * (np.array(packed["most"]) / 255)[:, None, None]


def test_exported_weights_sum_to_1_at_each_position(apple):
    data = page.contents(apple)["attention"]
    every = [m for entry in data["mean"] for m in entry["maps"]] + [m for s in data["steps"] for branch in s["maps"] for m in branch]
    assert len(every) == 3 * (2 + 2 * 20)
    assert max(np.abs(exported(m).sum(0) - 1).max() for m in every) < 0.01
    assert np.abs(apple.attention.at().sum(0) - 1).max() < 1e-3


def test_a_token_is_asked_for_by_its_word_or_place(apple):
    maps, words = apple.attention.at(), [t.text for t in apple.attention.texts[-1]]
    assert words[1:8] == ["a", "red", "apple", "on", "a", "blue", "background"]
    assert np.array_equal(apple.attention["apple"], maps[3]) and np.array_equal(apple.attention[3], maps[3])
    assert np.allclose(apple.attention["a"], maps[1] + maps[5])
    assert apple.attention.texts[-1][3].weight == np.float32(1.2) and apple.attention.texts[-1][8].kind == "end"
    for wrong in ("pear", 32, -1, None):
        with pytest.raises(InputError, match="no token"):
            apple.attention[wrong]
    with pytest.raises(InputError, match=r"no maps of size \(5, 5\)"):
        apple.attention.at(size=(5, 5))


def test_the_apple_is_looked_for_where_it_is(apple):
    """The shipped model's own picture: red against blue."""
    rgb = np.asarray(apple.picture.resize((16, 16)), float)
    red = rgb[..., 0] > rgb[..., 2]
    where = apple.attention["apple"]
    assert where[red].mean() > 1.2 * where[~red].mean()


def test_each_text_of_a_changing_prompt_has_its_own_maps(sd1):
    found = minisd.explain(sd1, "[fox:a very large cat:2]", **{**SMALL, "num_inference_steps": 4})
    read = [s.texts[-1] for s in found.attention.steps]
    assert read[0] == read[1] != read[2] == read[3]
    assert [t.text for t in found.attention.texts[read[0]] if t.kind == "word"] == ["fox"]
    assert np.array_equal(found.attention["cat"], found.attention.at(text=read[3])[4])
    each = [found.attention.at(step=step) for step in found.attention.steps]
    for text, steps in ((read[0], each[:2]), (read[3], each[2:])):             # the mean of those that read it, and of no others
        assert np.abs(found.attention.at(text=text) - np.mean(steps, axis=0)).max() < 1e-6
    assert np.abs(each[0] - each[3]).max() > 1e-4


# ---- costs ------------------------------------------------------------------------------------------------------


class Counted(np.ndarray):
    """An array whose matrix products are counted, and which no fast version serves."""
    count = 0

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **kwargs):
        plain = [np.asarray(a) if isinstance(a, Counted) else a for a in inputs]
        y = getattr(ufunc, method)(*plain, **kwargs)
        if ufunc is np.matmul:
            Counted.count += 2 * y.size * plain[0].shape[-1]
        return y.view(Counted) if isinstance(y, np.ndarray) else y


def draw(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32).view(Counted)


@pytest.mark.parametrize("name, args, kwargs", [
    ("linear", (draw(2, 5, 12), draw(7, 12), draw(7)), {}),
    ("linear_geglu", (draw(2, 5, 12), draw(14, 12), draw(14)), {}),
    ("conv2d", (draw(2, 9, 8, 6), draw(3, 3, 6, 5), draw(5)), dict(pad=(1, 1))),
    ("conv2d", (draw(2, 9, 8, 6), draw(3, 3, 6, 5), draw(5)), dict(pad=(1, 1), stride=2)),
    ("norm_conv2d", (draw(2, 9, 8, 6), (draw(6), draw(6)), (draw(3, 3, 6, 5), draw(5))), dict(groups=3, eps=1e-5)),
    ("residual_block", (draw(2, 9, 8, 6), (draw(6), draw(6)), (draw(3, 3, 6, 4), draw(4)), (draw(4), draw(4)), (draw(3, 3, 4, 4), draw(4))),
     dict(groups=2, eps=1e-5, shortcut=(draw(1, 1, 6, 4), draw(4)))),
    ("upsample_conv2d", (draw(2, 4, 5, 6), draw(3, 3, 6, 5), draw(5), (8, 10)), {}),
    ("attention", (draw(2, 9, 12), draw(2, 7, 12), draw(2, 7, 12), 3), {}),
    ("group_norm", (draw(2, 9, 8, 6), draw(6), draw(6)), dict(groups=3, eps=1e-5)),
])
def test_flops_are_those_of_the_products_executed(name, args, kwargs):
    Counted.count = 0
    y = ops.DEFINITIONS[name](*args, **kwargs)
    assert profile.products(name, args, kwargs, y) == Counted.count


def test_every_weight_of_the_unet_is_counted_once(apple, shipped):
    for network, part in (("unet", shipped.model.checkpoint.unet), ("text_encoder", shipped.model.checkpoint.text_encoders[0])):
        held = sum(int(np.prod(shape)) for shape in part.shapes().values())
        assert sum(layer.parameters for layer in apple.layers if layer.network == network) == held
    assert all(layer.calls == 20 for layer in apple.layers if layer.network == "unet")


def test_layers_are_named_after_the_checkpoint(apple, shipped):
    names = {f"{w.name}.{n}" for w in shipped.model.checkpoint.components for n in w.shapes()}
    for layer in apple.layers:
        node = f"{layer.network}.{layer.name.split(' + ')[0]}"
        assert layer.name and any(name.startswith(node + ".") for name in names), layer.name
        assert layer.block and layer.name.startswith(layer.block.replace("conv_out", "conv_")), layer.name


def test_outputs_are_described_as_a_trace_has_them(sd1):
    found = minisd.explain(sd1, "a fox", **{**SMALL, "num_inference_steps": 1})
    with minisd.trace() as seen:
        sd1.txt2img("a fox", **{**SMALL, "num_inference_steps": 1})
    checked = 0
    for layer in found.layers:
        if layer.network == "unet" and layer.operation in ("residual_block", "conv2d", "layer_norm") and layer.name in seen:
            y = seen[layer.name][-1].astype(np.float64)
            assert (layer.mean, layer.std) == pytest.approx((y.mean(), y.std()), rel=1e-3, abs=1e-4), layer.name
            assert layer.largest == pytest.approx(np.abs(y).max(), rel=1e-3)
            checked += 1
    assert checked > 40


def test_versions_are_said_as_they_served(sd1):
    with ops.definitions_only():
        assert {layer.served for layer in minisd.explain(sd1, "a fox", **SMALL).layers} == {"definition"}


@pytest.mark.usefixtures("fast_versions")
def test_fast_versions_are_said_to_be(sd1):
    served = {layer.operation: layer.served for layer in minisd.explain(sd1, "a fox", **SMALL).layers}
    assert served["residual_block"] == served["attention"] == "fast" and served["timestep_features"] == "definition"


# ---- steps ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["sd1", "v"])
def test_guidance_is_the_arithmetic_it_is_said_to_be(sd1, shipped, family, monkeypatch):
    pipe, how = (sd1, SMALL) if family == "sd1" else (shipped, dict(seed=1, num_inference_steps=3))
    kept, keep = [], explain.Seen.keep
    monkeypatch.setattr(explain.Seen, "keep", lambda self, step, seconds: (keep(self, step, seconds), kept.append(self.kept[-1])))
    minisd.explain(pipe, "a fox", guidance_scale=5.0, **how)
    assert len(kept) >= 3
    for k in kept:
        expected = k.predicted["without"] + 5 * k.predicted["difference"]
        assert np.abs(k.predicted["result"] - expected).max() < 1e-3 * np.abs(expected).max()
        assert k.rms["result"] == pytest.approx(float(np.sqrt((expected.astype(float) ** 2).mean())), rel=1e-3)


def test_of_many_steps_some_are_kept(sd1, monkeypatch):
    monkeypatch.setattr(explain, "MOST_STEPS", 5)
    found = minisd.explain(sd1, "a fox", seed=1, num_inference_steps=10, sampler="ddim", width=16, height=16)
    assert [s.step.i for s in found.steps] == [0, 2, 4, 6, 8, 9] and len(found.attention.steps) == 6
    assert len(page.contents(found)["steps"]) == 6


def test_strip_and_animation(apple, tmp_path):
    side = apple.picture.width
    assert apple.strip().size == (10 * side, 2 * side)
    apple.save_animation(tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.n_frames >= 20 and gif.size == apple.picture.size


def test_decoded_steps(shipped):
    found = minisd.explain(shipped, "a red apple", seed=1, num_inference_steps=2, decode=True)
    expected = (shipped.model.decode(found.steps[0].step.x0)[0] * 255).round()
    assert np.array_equal(np.asarray(found.steps[0].pictures["x0"]), expected) and page.contents(found)["decoded"]


# ---- pictures of features ---------------------------------------------------------------------------------------


def test_directions_are_those_of_greatest_variance():
    random = np.random.default_rng(0)
    axes, _ = np.linalg.qr(random.standard_normal((40, 3)))
    x = (random.standard_normal((16, 16, 3)) * [9, 5, 2]) @ axes.T + 0.01 * random.standard_normal((16, 16, 40)) + 3
    for found in (features.directions(x), features.directions(np.tile(x, (2, 2, 1)))):
        assert np.allclose(found.T @ found, np.eye(3), atol=1e-6)
        assert np.allclose(np.abs(found.T @ axes), np.eye(3), atol=0.2)
    turned = features.directions(x + 0.01, like=-found)
    assert np.allclose(turned, -found, atol=0.01)
    picture = features.coloured(x.astype(np.float32), found)
    assert picture.dtype == np.uint8 and abs(picture.mean() - 127.5) < 3 and picture.std() > 20


@pytest.mark.parametrize("shape", [(1, 1, 5), (1, 32, 128), (3, 4, 2), (64, 48, 1)])
def test_any_shape_has_colours(shape):
    for x in (np.zeros(shape, np.float32), np.random.default_rng(0).standard_normal(shape).astype(np.float32)):
        small = features.shrunk(x, 32)
        assert max(small.shape[:2]) <= 32 and features.coloured(small, features.directions(small)).shape == (*small.shape[:2], 3)


def test_another_size_keeps_sums():
    a = np.random.default_rng(0).random((7, 4, 6)).astype(np.float32)
    a /= a.sum(0)
    assert np.abs(features.resized(a, (16, 24)).sum(0) - 1).max() < 1e-5
    assert np.allclose(features.shrunk(a.transpose(1, 2, 0), 3).sum(-1), 1, atol=1e-5)


# ---- the page ---------------------------------------------------------------------------------------------------


def test_the_page_stands_by_itself(apple):
    text = apple.html()
    assert len(text) < 2_000_000
    for name in ("step", "picture", "tokens", "steps", "network", "layers"):
        assert text.count(f'id="{name}"') == 1
    assert not re.search(r'(src|href)="(?!data:|@@)[^"]', text) and "http" not in re.sub(r"http://www.w3.org/2000/svg|http-equiv", "", text)
    assert "@@" not in text and f"minisd {minisd.__version__}" in text


def test_text_never_becomes_markup(sd1):
    found = minisd.explain(sd1, HOSTILE, HOSTILE, **SMALL)
    found.again = HOSTILE
    text = found.html()
    assert text.count("<script") == 2 and text.count("</script>") == 2 and "<img src=x" not in text
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1])
    assert data["again"].startswith("</script><script>alert(1)") and "\u2028" not in text


def test_sources_are_those_of_the_package(apple):
    found = page.contents(apple)["sources"]
    assert {"picture", "tokens", "steps", "network", "operations"} == set(found)
    assert set(found["operations"]) == {layer.operation for layer in apple.layers}
    every = [s for name, section in found.items() if name != "operations" for s in section]
    every += [s for versions in found["operations"].values() for s in versions]
    for s in every:
        lines = (ROOT / s["file"]).read_text(encoding="utf-8").split("\n")[s["line"] - 1:]
        assert [line.strip() for line in s["text"].split("\n")] == [line.strip() for line in lines[:s["text"].count("\n") + 1]]
    assert len(found["operations"]["attention"]) == 2 and "softmax" in found["operations"]["attention"][0]["text"]


def test_the_page_in_the_docs_is_of_this_version(apple):
    """Its style and program are today's: `python docs/pictures/explain.py` makes it anew."""
    text = (ROOT / "docs" / "explain" / "apple.html").read_text(encoding="utf-8")
    assert len(text) < 2_000_000 and all((page.HERE / f"page.{kind}").read_text(encoding="utf-8") in text for kind in ("css", "js"))


def test_a_notebook_shows_it(apple):
    assert apple._repr_html_().startswith("<iframe srcdoc=") and "<script" not in apple._repr_html_()
    assert "20 steps" in repr(apple)


def test_again_is_a_program_that_makes_it_again(shipped):
    found = minisd.explain(shipped, "a 'red' apple", "blue\n", seed=3, num_inference_steps=2, sampler="euler")
    assert found.again.endswith(".save('explained.html')")
    again = eval(found.again.removesuffix(".save('explained.html')"), {"minisd": minisd})
    assert np.array_equal(np.asarray(again.picture), np.asarray(found.picture))


@pytest.mark.parametrize("how, said", [
    (dict(prompt=["a fox"]), "one text"), (dict(num_images=2), "one picture"), (dict(output="array"), "one picture"),
    (dict(decode="yes"), "True or False"), (dict(step=3), "takes no 'step'"), (dict(progress="yes"), "progress"), (dict(seed="x"), "seed")])
def test_what_is_refused(sd1, how, said):
    with pytest.raises(InputError, match=said):
        minisd.explain(sd1, **{"prompt": "a fox", **SMALL, **how})
    assert not ops.is_observed()


@pytest.mark.parametrize("name", ["prompt", "decode", "progress", "num_images", "output"])
def test_any_value_is_served_or_refused(sd1, name):
    for value in ("\ud800", 5, float("nan"), 10**30, [], ["a", "b"], {}, b"x", np.zeros(3), np.int64(1), object()):
        try:
            minisd.explain(sd1, **{"prompt": "a fox", "num_inference_steps": 1, "width": 16, "height": 16, name: value})
        except InputError as e:
            assert len(str(e)) > 10


# ---- the command line -------------------------------------------------------------------------------------------


def test_the_command(tmp_path, capsys):
    """A page, its picture that of txt2img, a strip and an animation; and the command on the page is the one given, with its seed."""
    place = tmp_path / "apple.html"
    assert cli(["explain", "a red apple", "--steps", "2", "-o", str(place), "--strip", str(tmp_path / "s.png"), "--gif",
                str(tmp_path / "g.gif"), "--quiet"]) == 0
    assert cli(["txt2img", "a red apple", "--steps", "2", "--seed", capsys.readouterr().out.split()[-1], "-o", str(tmp_path / "a.png"),
                "--quiet"]) == 0
    text = place.read_text(encoding="utf-8")
    stored = base64.b64decode(re.search(r'id="shown" src="data:image/png;base64,([^"]+)"', text)[1])
    (tmp_path / "stored.png").write_bytes(stored)
    with Image.open(tmp_path / "stored.png") as found, Image.open(tmp_path / "a.png") as expected:
        assert np.array_equal(np.asarray(found), np.asarray(expected)) and found.info["parameters"] == expected.info["parameters"]
    assert re.search(r"minisd explain 'a red apple' --steps 2 .* --quiet --seed \d+", text)
    assert (tmp_path / "s.png").exists() and (tmp_path / "g.gif").exists()


def test_several_pages_are_numbered(tmp_path):
    assert cli(["explain", "a fox", "-n", "2", "--steps", "1", "--seed", "4", "-o", str(tmp_path / "a.html"), "--strip",
                str(tmp_path / "s.png"), "--quiet"]) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a-1.html", "a-2.html", "s-1.png", "s-2.png"]


def test_a_page_of_a_pictures_settings(tmp_path):
    assert cli(["txt2img", "a red apple", "--steps", "2", "--seed", "5", "-o", str(tmp_path / "a.png"), "--quiet"]) == 0
    assert cli(["explain", "--from", str(tmp_path / "a.png"), "-o", str(tmp_path / "a.html"), "--quiet"]) == 0
    assert "--from" in (tmp_path / "a.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("given, said", [
    (["-o", "a.png"], "end the name in .html"), (["-o", "no/a.html"], "no folder"), (["--strip", "a.gif"], "end the name in .png"),
    (["--gif", "a.png"], "end the name in .gif"), (["--strip", "a.png", "--grid", "a.png"], "name the same file"),
    (["--profile"], "table of costs"), (["--refiner", "x"], "--refiner is for txt2img")])
def test_what_the_command_refuses(given, said, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli(["explain", "a fox", "--quiet", *given]) == 1
    assert said in capsys.readouterr().err and not list(tmp_path.iterdir())
