"""Recordings, and engines held against them: minisd itself stands for another engine, with mistakes or without."""
import json
import shutil
import zipfile

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import minisd
from minisd.cli.main import main
from minisd.errors import CheckpointError, InputError, MinisdError
from minisd.probe import calls, mistakes, walk
from minisd.probe.activations import Activations, matched
from minisd.probe.record import INPUTS, MANIFEST, OUTPUTS, Recording

SIZE = dict(width=72, height=56)


@pytest.fixture(scope="session")
def recording(sd1, tmp_path_factory):
    return minisd.record(sd1, tmp_path_factory.mktemp("recording"), **SIZE)


def engine(model, recording, wrong=None, precision="float32", only=("text_encoder", "unet", "vae.encoder", "vae.decoder")):
    """{layer: array} of an engine with minisd's definitions.

    wrong(call, operation, number of its kind, run, args, kwargs): another result of one operation, or None"""
    found = {}
    for name, given in recording.inputs(calls.calls(model)).items():
        call, count = calls.calls(model)[name], {}
        if name not in only:
            continue

        def observer(path, y, before=call.component):
            y = calls.rounded(y, precision)
            found[f"{before}.{path}"] = y
            return y

        def watcher(op, run, *args, name=name, count=count, **kwargs):
            count[op] = count.get(op, 0) + 1
            y = wrong(name, op, count[op], run, args, kwargs) if wrong else None
            return calls.stored_as(precision)(op, run, *args, **kwargs) if y is None else y

        calls.run(model, call, given, observer, watcher)
    return found


@pytest.fixture(scope="session")
def theirs(sd1, recording):
    return engine(sd1.model, recording)


def compared(sd1, recording, arrays, folder, **how):
    save_file({k: np.ascontiguousarray(a) for k, a in arrays.items()}, folder / "theirs.safetensors")
    return minisd.compare(recording.folder, folder / "theirs.safetensors", sd1, **how)


# ---- recordings ------------------------------------------------------------------------------------------------


def test_a_recording_says_what_every_layer_gives(sd1, recording, theirs):
    about, outputs = recording.manifest, load_file(recording.folder / OUTPUTS)
    assert [row["name"] for row in about["layers"]] == list(theirs) and set(outputs) == set(theirs)
    assert {row["call"] for row in about["layers"]} == {"text_encoder", "unet", "vae.encoder", "vae.decoder"}
    for row in about["layers"]:
        a = outputs[row["name"]].astype(float)
        assert list(a.shape) == row["shape"] and len(row["axes"]) == a.ndim
        assert np.allclose([a.mean(), a.std(), a.min(), a.max()], [row[k] for k in ("mean", "std", "min", "max")], atol=1e-5)
        noise = row["noise"]
        assert set(noise) == set(calls.PRECISIONS) and 0 <= noise["float32"] <= max(noise["float16"], 1e-7)
    worst = [max(row["noise"][p] for row in about["layers"]) for p in ("float32", "float16", "bfloat16")]
    assert worst == sorted(worst) and worst[0] < 1e-4 < worst[1]
    axes = {row["name"]: row["axes"] for row in about["layers"]}
    assert (axes["unet.conv_in"], axes["unet.time_embedding"], axes["text_encoder.embeddings"]) == ("BHWC", "BC", "BMC")
    inputs = load_file(recording.folder / INPUTS)
    assert {k: a.shape for k, a in inputs.items()} == {
        "text_encoder.input_ids": (1, 77), "unet.sample": (1, 7, 9, 4), "unet.timestep": (1,), "unet.encoder_hidden_states": (1, 77, 40),
        "vae.encoder.pixels": (1, 56, 72, 3), "vae.decoder.latents": (1, 7, 9, 4)}


def test_outputs_are_exact(sd1, recording, theirs):
    """They are those of float64, rounded once: float32 runs are off by their noise, and not by nothing."""
    outputs = load_file(recording.folder / OUTPUTS)
    errors = [calls.distance(theirs[k], outputs[k]) for k in theirs]
    assert 1e-7 < max(errors) < 1e-5


def test_the_same_seed_gives_the_same_recording(sd1, recording, tmp_path):
    again = minisd.record(sd1, tmp_path / "new" / "folder", only=["vae.decoder"], **SIZE)
    first = load_file(recording.folder / OUTPUTS)
    assert all(np.array_equal(a, first[k]) for k, a in load_file(again.folder / OUTPUTS).items())
    other = minisd.record(sd1, tmp_path / "other", seed=1, only=["vae.decoder"], channels="first", scale=0.01, **SIZE)
    sample = load_file(other.folder / INPUTS)["vae.decoder.latents"]
    assert sample.shape == (1, 4, 7, 9) and 0.005 < sample.std() < 0.02
    assert minisd.compare(other.folder, other.folder / OUTPUTS, sd1).exit_code == 0


@pytest.mark.parametrize("how, message", [
    (dict(width=70), "multiple of 8"), (dict(width=8, height=8), "two latent positions"), (dict(seed=-1), "seed is -1"),
    (dict(only=["unett"]), "unett is to be recorded"), (dict(only=[]), "nothing is to be recorded"), (dict(channels="left"), "channels"),
    (dict(scale=0), "scale"), (dict(prompt=5), "prompt"), (dict(num_inference_steps=0), "num_inference_steps"), (dict(seed=True), "seed")])
def test_what_cannot_be_recorded_is_refused(sd1, tmp_path, how, message):
    with pytest.raises(InputError, match=message):
        minisd.record(sd1, tmp_path, **{**SIZE, **how})
    assert not list(tmp_path.iterdir())


def test_memory_is_looked_at_first(sd1, tmp_path, monkeypatch):
    monkeypatch.setattr(calls.memory, "available", lambda: 100 << 20)
    with pytest.raises(InputError, match="GiB of memory"):
        minisd.record(sd1, tmp_path, width=2048, height=2048, only=["unet"])


# ---- engines without a mistake ---------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", list(calls.PRECISIONS))
def test_rounding_is_no_fault(sd1, recording, tmp_path, precision):
    found = compared(sd1, recording, engine(sd1.model, recording, precision=precision), tmp_path)
    assert found.exit_code == 0 and not found.absent and len(found.rows) == found.total > 500
    assert set(found.precision.values()) == {precision}
    assert "no fault" in found.verdict and all(row.inherited < 0.2 for row in found.rows)


def test_minisd_as_it_runs_here(sd1, recording):
    found = minisd.compare(recording.folder, None, sd1)
    assert found.exit_code == 0 and max(row.local for row in found.rows) > 0


def test_another_checkpoint_is_not_taken_for_the_recorded_one(recording, tmp_path):
    with pytest.raises(CheckpointError, match="no rows for"):
        minisd.compare(recording.folder, None, minisd.load())


# ---- mistakes --------------------------------------------------------------------------------------------------


def test_mistakes_are_found_all_at_once(sd1, recording, tmp_path):
    """Each in one operation, all in one engine: each layer is judged on its own inputs."""
    def known(says):
        return next(m for m in mistakes.KNOWN if m.says.startswith(says))

    planted = {("text_encoder", "quick_gelu", 2): "GELU by tanh for", ("text_encoder", "attention", 1): "causal mask left out",
               ("unet", "linear", 2): "bias left out", ("unet", "geglu", 3): "halves of GEGLU",
               ("unet", "group_norm", 6): "variance divided",
               ("unet", "attention", 4): "heads split the other way", ("unet", "conv2d", 12): "filter flipped",
               ("unet", "layer_norm", 8): "norm left out", ("unet", "timestep_features", 1): "sines before cosines",
               ("unet", "group_norm", 20): "groups of every", ("unet", "upsample_conv2d", 2): "bilinear for nearest upsampling",
               ("vae.encoder", "silu", 4): "{operation} left out", ("vae.encoder", "conv2d", 6): "pads (1, 1)",
               ("vae.decoder", "linear", 2): "weights transposed"}
    made = set()

    def wrong(name, op, number, run, args, kwargs):
        says = planted.get((name, op, number))
        if says is not None:
            y = known(says).wrong(run, *args, **kwargs)
            made.update([says] if y is not None else [])
            return y

    found = compared(sd1, recording, engine(sd1.model, recording, wrong), tmp_path)
    assert made == set(planted.values())
    said = [row.says for row in found.faults]
    assert len(said) == len(made) and found.exit_code == 1
    for says in made:
        words = says.format(operation="silu")
        assert any(text.startswith(f"looks like: {words}") for text in said), (words, said)


def test_a_sum_left_out_is_one_fault(sd1, recording, theirs, tmp_path):
    """Later layers see it too, but only through a number that no layer gives."""
    block = "down_blocks.0.attentions.0.transformer_blocks.0"
    kept = {}

    class Lost(np.ndarray):
        """attn1's output, to which nothing can be added."""
        def __add__(self, other):
            return np.asarray(self)

    call, given = calls.calls(sd1.model)["unet"], recording.inputs(calls.calls(sd1.model))["unet"]

    def observer(path, y):
        kept[f"unet.{path}"] = np.asarray(y)
        return y.view(Lost) if path == f"{block}.attn1.to_out.0" else y

    def watcher(op, run, *args, **kwargs):
        return run(*(np.asarray(a) if isinstance(a, Lost) else a for a in args), **kwargs)

    calls.run(sd1.model, call, given, observer, watcher)
    found = compared(sd1, recording, kept, tmp_path)
    assert [row.layer for row in found.faults] == [f"unet.{block}.norm2"]
    assert found.faults[0].says.startswith("looks like: an addition left out: of what down_blocks.0.attentions.0.proj_in gave")
    assert sum(row.inherited > 1e-3 for row in found.rows) > 50 and found.not_compared == ["text_encoder", "vae.encoder", "vae.decoder"]


def test_what_nothing_explains_is_said(sd1, recording, theirs, tmp_path):
    arrays = {k: a for k, a in theirs.items() if k.startswith("unet")}
    arrays["unet.mid_block.resnets.0.conv1"] = arrays["unet.mid_block.resnets.0.conv1"] * np.float32(1.01)
    arrays["unet.conv_norm_out"] = np.full_like(arrays["unet.conv_norm_out"], np.nan)
    found = compared(sd1, recording, arrays, tmp_path)
    said = {row.layer: row.says for row in found.faults}
    assert said["unet.mid_block.resnets.0.conv1"] == "no known mistake explains it"
    assert said["unet.conv_norm_out"] == "holds NaN or infinity"
    assert set(said) <= {"unet.mid_block.resnets.0.conv1", "unet.mid_block.resnets.0.norm2", "unet.conv_norm_out"}


def test_another_layers_output_is_recognised(sd1, recording, theirs, tmp_path):
    arrays = {k: a for k, a in theirs.items() if k.startswith("text")}
    arrays["text_encoder.encoder.layers.1.self_attn.v_proj"] = arrays["text_encoder.encoder.layers.1.self_attn.q_proj"]
    found = compared(sd1, recording, arrays, tmp_path)
    assert found.faults[0].says == "looks like: the output of encoder.layers.1.self_attn.q_proj"


def test_a_tolerance_is_a_factor_of_the_noise(sd1, recording, theirs, tmp_path):
    arrays = {k: a for k, a in theirs.items() if k.startswith("text")}
    a = arrays["text_encoder.embeddings"]
    arrays["text_encoder.embeddings"] = a + np.float32(2e-6) * np.abs(a).max()
    assert compared(sd1, recording, arrays, tmp_path).exit_code == 1
    assert compared(sd1, recording, arrays, tmp_path, factor=100).exit_code == 0
    assert compared(sd1, recording, arrays, tmp_path, precision="float16").exit_code == 0


# ---- formats, names, axes --------------------------------------------------------------------------------------


def first(a):
    """Channels first, where it is a picture."""
    return np.ascontiguousarray(a.transpose(0, 3, 1, 2)) if a.ndim == 4 else a


def write_npz(folder, arrays):
    np.savez(folder / "a.npz", **arrays)
    return folder / "a.npz"


def write_npy(folder, arrays):
    for name, a in arrays.items():
        place = folder / "npy" / f"{name}.npy"
        place.parent.mkdir(exist_ok=True)
        np.save(place, a[0] if a.ndim > 2 else a)                      # without the batch
    return folder / "npy"


def write_folders(folder, arrays):
    (folder / "parts").mkdir()
    for network in {name.partition(".")[0] for name in arrays}:
        np.savez(folder / "parts" / f"{network}.npz", **{k.partition(".")[2]: first(b) for k, b in arrays.items() if k.startswith(network)})
    return folder / "parts"


def write_transformers(folder, arrays):
    renamed = {k.replace("text_encoder.", "text_encoder.text_model."): first(a).astype(np.float64) for k, a in arrays.items()}
    save_file({k: np.ascontiguousarray(a) for k, a in renamed.items()}, folder / "b.safetensors")
    return folder / "b.safetensors"


def write_flat(folder, arrays):
    """Positions in one axis, as a group norm of an attention over pixels sees them; a vector with sides of 1."""
    flat = {k: first(a).reshape(*first(a).shape[:2], -1) if a.ndim == 4 else a.reshape(*a.shape, 1, 1) if a.ndim == 2 else a
            for k, a in arrays.items()}
    return write_npz(folder, flat)


@pytest.mark.parametrize("write", [write_npz, write_npy, write_folders, write_transformers, write_flat])
def test_every_format_gives_the_same(sd1, theirs, tmp_path, write):
    arrays = {k: a for k, a in theirs.items() if k.startswith(("text", "vae.decoder.mid"))}
    found = Activations(write(tmp_path, arrays), {k: a.shape for k, a in theirs.items()})
    assert list(found.at) == list(arrays) and not found.unknown and not found.differ
    assert all(np.array_equal(found[k], a) for k, a in arrays.items())


def test_bfloat16_of_numpy_arrays(theirs, tmp_path):
    """As ml_dtypes saves them: two bytes of no type."""
    a = calls.rounded(theirs["unet.conv_in"], "bfloat16")
    np.savez(tmp_path / "a.npz", **{"unet.conv_in": (a.view(np.uint32) >> 16).astype("<u2").view("V2")})
    found = Activations(tmp_path / "a.npz", {k: a.shape for k, a in theirs.items()})
    assert np.array_equal(found["unet.conv_in"], a) and found.precision(["unet.conv_in"]) == "bfloat16"


def test_names_of_another_engine(theirs, tmp_path):
    shapes = {k: a.shape for k, a in theirs.items()}
    np.savez(tmp_path / "a.npz", **{"h.1.act": theirs["text_encoder.encoder.layers.1"], "norm": theirs["text_encoder.final_layer_norm"],
                                    "h.0.act": theirs["text_encoder.encoder.layers.0"], "other": np.zeros(3)})
    with pytest.raises(InputError, match="none of its 4 names is a layer's"):
        Activations(tmp_path / "a.npz", shapes)
    (tmp_path / "n.yaml").write_text("h.*.act: text_encoder.encoder.layers.*\nnorm: text_encoder.final_layer_norm\n")
    (tmp_path / "n.json").write_text('{"h.*.act": "text_encoder.encoder.layers.*", "norm": "text_encoder.final_layer_norm"}')
    for names in ("n.yaml", "n.json"):
        found = Activations(tmp_path / "a.npz", shapes, tmp_path / names)
        assert found.at == {"text_encoder.encoder.layers.0": "h.0.act", "text_encoder.encoder.layers.1": "h.1.act",
                            "text_encoder.final_layer_norm": "norm"} and found.unknown == ["other"]
    for text, message in (("- a", "pairs of names"), ("{a: [", "not readable"), ("a.*: b", "more \\* than"), ("a: 5", "pairs of names"),
                          ("\x00", "not readable"), ("[" * 5000, "not readable")):
        (tmp_path / "bad.yaml").write_text(text)
        with pytest.raises(InputError, match=message):
            Activations(tmp_path / "a.npz", shapes, tmp_path / "bad.yaml")


def test_short_names_where_they_are_clear():
    layers = ["unet.conv_in", "vae.encoder.conv_in", "unet.mid", "text_encoder.mid"]
    assert matched({"conv_in": 1, "mid": 1}, layers, {}) == ({"unet.conv_in": "conv_in"}, ["mid"])


def test_square_shapes_are_told_by_the_others(tmp_path):
    shapes = {"unet.a": (1, 8, 8, 8), "unet.b": (1, 4, 4, 16)}
    a, b = np.arange(512.0).reshape(shapes["unet.a"]), np.arange(256.0).reshape(shapes["unet.b"])
    np.savez(tmp_path / "both.npz", **{"unet.a": first(a), "unet.b": first(b)})
    assert np.array_equal(Activations(tmp_path / "both.npz", shapes)["unet.a"], a)
    np.savez(tmp_path / "alone.npz", **{"unet.a": first(a)})
    with pytest.raises(InputError, match="layout='first'"):
        Activations(tmp_path / "alone.npz", shapes)
    assert np.array_equal(Activations(tmp_path / "alone.npz", shapes, layout="first")["unet.a"], a)
    assert np.array_equal(Activations(tmp_path / "alone.npz", shapes, layout="last")["unet.a"], first(a))
    with pytest.raises(InputError, match="layout is 'left'"):
        Activations(tmp_path / "alone.npz", shapes, layout="left")


def test_shapes_that_differ_are_named(sd1, recording, theirs, tmp_path):
    arrays = {k: a for k, a in theirs.items() if k.startswith("text")}
    arrays["text_encoder.embeddings"] = arrays["text_encoder.embeddings"][:, :, :-1]
    found = compared(sd1, recording, arrays, tmp_path)
    assert found.exit_code == 2 and found.differ == {"text_encoder.embeddings": ((1, 77, 39), (1, 77, 40))}
    assert "text_encoder.embeddings: shape 1x77x39, 1x77x40 was expected" in found.verdict
    assert json.loads(found.json())["differ"]["text_encoder.embeddings"]["ours"] == [1, 77, 40]


def pickled(path):
    np.savez(path, **{"unet.conv_in": np.array([print], object)})


def truncated(path):
    np.savez(path, **{"unet.conv_in": np.zeros((1, 7, 9, 32))})
    path.write_bytes(path.read_bytes()[:-300])


def bomb(path):
    """A header of 2 TB over a few bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        head = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 7, 9, 32), }".ljust(117) + b"\n"
        archive.writestr("unet.conv_in.npy", b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + bytes(10**7))


def no_header(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("unet.conv_in.npy", b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 70000)


@pytest.mark.parametrize("damage, message", [(pickled, "numbers were expected"), (truncated, "damaged"), (bomb, "longer than its array"),
                                             (no_header, "damaged")])
def test_damaged_files_are_named(theirs, tmp_path, damage, message):
    damage(tmp_path / "a.npz")
    with pytest.raises(CheckpointError, match=message):
        Activations(tmp_path / "a.npz", {k: a.shape for k, a in theirs.items()})["unet.conv_in"]


def test_two_arrays_for_one_layer_are_refused(theirs, tmp_path):
    (tmp_path / "x").mkdir()
    for place in ("unet.conv_in.npy", "x/unet.conv_in.npy"):
        np.save(tmp_path / place, theirs["unet.conv_in"])
    (tmp_path / "n.yaml").write_text("x.unet.conv_in: unet.conv_in")
    with pytest.raises(InputError, match="a second array for unet.conv_in"):
        Activations(tmp_path, {k: a.shape for k, a in theirs.items()}, tmp_path / "n.yaml")


# ---- other recordings ------------------------------------------------------------------------------------------


def test_fingerprints(sd1, theirs, tmp_path):
    small = minisd.record(sd1, tmp_path / "small", fingerprints=True, only=["vae.encoder"], **SIZE)
    assert (small.folder / OUTPUTS).stat().st_size < 200_000 and small.fingerprints
    arrays = {k: a for k, a in theirs.items() if k.startswith(("vae.encoder", "vae.quant"))}
    found = compared(sd1, small, arrays, tmp_path)
    assert found.exit_code == 0 and all(row.inherited < 1e-5 for row in found.rows)
    arrays["vae.quant_conv"] = arrays["vae.quant_conv"] + 1
    found = compared(sd1, small, arrays, tmp_path)
    assert found.faults[0].layer == "vae.quant_conv" and found.faults[0].inherited > 0.1
    with pytest.raises(InputError, match="fingerprints"):
        minisd.compare(small.folder, None, sd1)


def test_a_recorder_of_another_engine(sd1, recording, tmp_path):
    """No manifest, channels first: what diffusers recorded proves a checkpoint."""
    save_file({k: first(a) for k, a in load_file(recording.folder / INPUTS).items()}, tmp_path / INPUTS)
    save_file({k: first(a) for k, a in load_file(recording.folder / OUTPUTS).items()}, tmp_path / OUTPUTS)
    found = minisd.compare(tmp_path, None, sd1)
    assert found.exit_code == 0 and len(found.rows) == found.total


def test_damaged_recordings_are_named(sd1, recording, tmp_path):
    with pytest.raises(CheckpointError, match="no recording: it has no inputs"):
        Recording(tmp_path)
    for file, text, message in ((MANIFEST, "{", "damaged"), (MANIFEST, '{"format": "x"}', "format 'x'"),
                                (MANIFEST, '{"run": {"a": 1}}', "its run must have"), (INPUTS, "", "damaged")):
        copy = shutil.copytree(recording.folder, tmp_path / "copy", dirs_exist_ok=True)
        (copy / file).write_text(text)
        with pytest.raises(CheckpointError, match=message):
            minisd.compare(copy, recording.folder / OUTPUTS, sd1)
    inputs = load_file(recording.folder / INPUTS)
    for change, message in ((dict(inputs, **{"unet.sample": inputs["unet.sample"][0]}), "unet.sample has shape"),
                            ({"unet.sample": inputs["unet.sample"]}, "no unet.timestep"), ({"x": inputs["unet.sample"]}, "holds no input"),
                            (dict(inputs, **{"unet.sample": inputs["unet.sample"] * np.nan}), "and NaN")):
        copy = shutil.copytree(recording.folder, tmp_path / "copy", dirs_exist_ok=True)
        save_file(change, copy / INPUTS)
        with pytest.raises(CheckpointError, match=message):
            minisd.compare(copy, recording.folder / OUTPUTS, sd1)


def test_a_whole_run(sd1, tmp_path):
    """A wrong step is seen at that step alone, although all after it are off."""
    run = minisd.record(sd1, tmp_path / "run", only=[], num_inference_steps=3, sampler="euler_a", seed=3, prompt="a fox", **SIZE)
    assert load_file(run.folder / INPUTS)["run.step_noise"].shape == (3, 1, 7, 9, 4)
    outputs = load_file(run.folder / OUTPUTS)
    ours = sd1.txt2img("a fox", num_inference_steps=3, sampler="euler_a", seed=3, output="array", **SIZE)
    assert np.abs(outputs["run.pixels"] - ours).max() < 1e-4
    assert minisd.compare(run.folder, None, sd1).exit_code == 0

    call, wrong = walk.run_call(sd1.model, run.run), {}

    def observer(name, y):
        wrong[f"run.{name}"] = y = y * np.float32(1.01) if name in ("sigmas", "steps.1.latent") else y
        return y

    calls.run(sd1.model, call, run.inputs({"run": call})["run"], observer)
    found = compared(sd1, run, wrong, tmp_path)
    assert {row.layer: row.says for row in found.faults} == {"run.sigmas": "look at the sampler's schedule",
                                                             "run.steps.1.latent": "look at the sampler's step"}
    assert [row.layer for row in found.rows if row.inherited > 1e-3][-1] == "run.steps.2.latent"


def test_a_damaged_run_is_named(sd1, tmp_path):
    run = minisd.record(sd1, tmp_path / "run", only=[], num_inference_steps=2, sampler="euler_a", **SIZE)
    said, noise = run.manifest, load_file(run.folder / INPUTS)
    for change, message in ((dict(width="72"), "width is '72'"), (dict(width=10**9), "a million pixels"), (dict(prompt=5), "prompt"),
                            (dict(num_inference_steps=10**9), "num_inference_steps"), (dict(sampler=5), "sampler"),
                            (dict(seed=[]), "seed")):
        (run.folder / MANIFEST).write_text(json.dumps({**said, "run": {**said["run"], **change}}))
        with pytest.raises(MinisdError, match=message):
            minisd.compare(run.folder, None, sd1)
    (run.folder / MANIFEST).write_text(json.dumps(said))
    for name, a, message in (("step_noise", noise["run.step_noise"][:0], "fewer steps"), ("step_noise", noise["run.step_noise"][..., :1],
                                                                                      "run.step_noise has shape"),
                             ("noise", noise["run.noise"][:, :3], "latents are")):
        save_file({**noise, f"run.{name}": np.ascontiguousarray(a)}, run.folder / INPUTS)
        with pytest.raises(MinisdError, match=message):
            minisd.compare(run.folder, None, sd1)


# ---- the command line ------------------------------------------------------------------------------------------


def test_commands(sd1_folder, theirs, tmp_path, capsys):
    place = tmp_path / "rec"
    assert main(["record", str(sd1_folder), "-o", str(place), "--size", "72x56", "--only", "text_encoder", "--quiet"]) == 0
    assert f"{place}: " in capsys.readouterr().out
    arrays = {k: a for k, a in theirs.items() if k.startswith("text")}
    save_file(arrays, tmp_path / "a.safetensors")
    assert main(["compare", str(place), str(tmp_path / "a.safetensors")]) == 0
    out = capsys.readouterr().out
    assert f"no fault: {len(arrays)} of {len(arrays)} layers compared" in out and out.count("text_encoder.") >= len(arrays)
    arrays["text_encoder.final_layer_norm"] = arrays["text_encoder.encoder.layers.2"]
    save_file(arrays, tmp_path / "a.safetensors")
    assert main(["compare", str(place), str(tmp_path / "a.safetensors"), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["exit_code"] == 1 and [row["says"] for row in found["layers"] if row["fault"]][0].startswith("looks like: norm left out")
    assert main(["compare", str(place), "--model", str(sd1_folder), "--faults"]) == 0
    assert capsys.readouterr().out.count("\n") == 2
    for arguments, message in (([str(tmp_path)], "no recording"), ([str(place), str(tmp_path / "none.npz")], "no such file"),
                               ([str(place), str(tmp_path / "a.safetensors"), "-m", str(sd1_folder), "--factor", "0.5"], "factor"),
                               ([str(place), str(tmp_path / "a.safetensors"), "-m", str(sd1_folder), "--precision", "int8"], "precision"),
                               ([str(place), str(tmp_path / "a.safetensors"), "--device", "cuda"], "--device is for"),
                               ([str(place), "--model", str(tmp_path / "none")], "no such")):
        assert main(["compare", *arguments]) == 2
        assert message in capsys.readouterr().err
    assert main(["record", str(sd1_folder), "-o", str(tmp_path / "a.safetensors")]) == 1
    assert len(arrays) == len(json.loads((place / MANIFEST).read_text())["layers"])
    for change, message in ((dict(model="/gone"), "no longer there; name the model with --model"), (dict(model=5), "5 is no path")):
        (place / MANIFEST).write_text(json.dumps({**json.loads((place / MANIFEST).read_text()), **change}))
        assert main(["compare", str(place), str(tmp_path / "a.safetensors")]) == 2
        assert message in capsys.readouterr().err
