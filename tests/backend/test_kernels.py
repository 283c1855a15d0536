"""Our CUDA kernels against their definitions, through the launch code: on a CPU by way of tests/cudaemu, and with `pytest -m gpu`
on a GPU.  What only an emulated run can tell (planted bugs, races) and what needs no run (registers, instructions) is here too."""
import gc
import re
import shutil
import subprocess
import sys
import weakref

import drawn_models
import golden_cases
import golden_checks
import kernel_sources
import kernel_study
import layer_sizes
import numpy as np
import pytest
from cudaemu import fake, nvrtc
from cudaemu.machine import KernelError
from edited_files import change_json
from kernel_checks import RANDOM, check, draw, relative, single, upload

from minisd.backend import device, ops
from minisd.checkpoint.weights import Weights, engine_layout
from minisd.errors import InputError
from minisd.networks import clip, controlnet, unet, vae
from minisd.networks.clip_config import TextConfig
from minisd.networks.unet_config import ControlNetConfig, UNetConfig
from minisd.networks.vae_config import VAEConfig
from minisd.probe import selftest

MOST_SPILLED = 0                                             # bytes a thread
REGISTERS = {"attention": 252, "conv2d": 248, "linear": 248, "linear_few": 72, "group_norm": 72, "group_sums": 72, "layer_norm": 72,
             "activation": 40, "geglu": 40, "concat": 40, "timestep_features": 40}


# ---- every kernel, at sizes that divide nothing ------------------------------------------------------------------

SERVED = ["silu", "gelu", "quick_gelu", "geglu", "linear", "linears", "linear_geglu", "layer_norm", "group_norm", "conv2d", "norm_conv2d",
          "residual_block", "upsample_conv2d", "attention", "timestep_features"]


def half(value):
    """As float16; but the timesteps, which are four, stay as they are."""
    if isinstance(value, (list, tuple)):
        return type(value)(map(half, value))
    single = isinstance(value, np.ndarray) and value.dtype == np.float32
    return value.astype(np.float16) if single and value.shape != (4,) else value


@pytest.mark.parametrize("name", SERVED)
@pytest.mark.parametrize("capability", [75, 80])
def test_equals_its_definition(cupy, arch, capability, name, monkeypatch):
    """The selftest's cases, several interleavings of threads each."""
    arch(capability)
    for seed in range(3):
        monkeypatch.setattr(fake, "seed", seed)
        for case, args, kwargs in selftest.cases(single):
            if case == name:
                check(cupy, name, *map(half, args), **{k: half(v) for k, v in kwargs.items()})


@pytest.mark.parametrize("d", [8, 16, 40, 64, 80, 128, 160, 512])
@pytest.mark.parametrize("N, M, causal", [(70, 77, False), (77, 77, True), (130, 45, False), (1, 1, False)])
def test_attention(cupy, d, N, M, causal):
    heads = 1 if d == 512 else 2
    check(cupy, "attention", draw(2, N, heads * d), draw(2, M, heads * d), draw(2, M, heads * d), heads=heads, causal=causal)


@pytest.mark.parametrize("d", range(8, 161, 8))
def test_attention_of_every_width(cupy, d):
    """Slices, rows of shared memory and registers follow from the width: each that is a multiple of 8 has its own."""
    check(cupy, "attention", draw(1, 70, 2 * d), draw(1, 77, 2 * d), draw(1, 77, 2 * d), heads=2)


def test_attention_with_large_scores(cupy):
    """Scores of hundreds, rising from tile to tile, so that what was summed must be scaled down again and again."""
    q, k, v = (draw(1, 40, 64) for _ in "qkv")
    k[0, :, 0] += np.arange(40) * 2
    q[0, :, 0] += 20
    check(cupy, "attention", q, k, v, heads=1)
    k[0] = k[0, ::-1]
    check(cupy, "attention", q, k, v, heads=1)


@pytest.mark.parametrize("C, O", [(4, 16), (9, 24), (7, 8), (3, 8), (24, 4), (24, 3), (40, 24), (72, 136)])
@pytest.mark.parametrize("stride, pad", [(1, (1, 1)), (2, (1, 1)), (2, (0, 1))])
def test_conv2d(cupy, C, O, stride, pad):
    check(cupy, "conv2d", draw(2, 9, 7, C), draw(3, 3, C, O), draw(O), stride=stride, pad=pad)


@pytest.mark.parametrize("multiprocessors", [1, 4, 40, 1000])
@pytest.mark.parametrize("add", [(2, 9, 7, 72), (2, 1, 1, 72), None])
def test_large_tiles_small_tiles_and_shared_depth(cupy, arch, multiprocessors, add):
    """Few multiprocessors take large tiles, many share a product's depth among them."""
    from minisd.backend import cuda
    arch(80, multiprocessors)
    more = {} if add is None else dict(add=draw(*add))
    check(cupy, "conv2d", draw(2, 9, 7, 72), draw(3, 3, 72, 72), draw(72), pad=(1, 1), **more)
    if add is None or add[1] > 1:
        more = {} if add is None else dict(add=draw(140, 72))
        check(cupy, "linear", draw(140, 520), draw(72, 520), draw(72), **more)
    if cupy.ndarray is fake.ndarray:
        for K in (520, 648):
            *tile, sharing = cuda.tiling(140, 72, K, multiprocessors)
            assert (tile[0] == 128) == (multiprocessors == 1) and (sharing > 1) == (multiprocessors >= 40)


def test_large_tiles_of_a_shared_depth(cupy, arch):
    from minisd.backend import cuda
    arch(80, 2)
    how, asked = cuda.tiling, []
    assert how(128, 128, 2880, 2)[0] == 128 and how(128, 128, 2880, 2)[4] > 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuda, "tiling", lambda *sizes: asked.append(sizes) or how(*sizes))
        check(cupy, "conv2d", draw(2, 8, 8, 320), draw(3, 3, 320, 128), draw(128), pad=(1, 1), add=draw(2, 8, 8, 128))
    assert [sizes[:3] for sizes in asked] == [(128, 128, 9 * 320)]


@pytest.mark.parametrize("M", [1, 2, 3, 8, 9])
@pytest.mark.parametrize("K, O", [(8, 5), (264, 33), (40, 24)])
def test_linear_layers_of_few_rows(cupy, M, K, O):
    from minisd.backend import cuda
    launched = []
    kernel = cuda.launch
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuda, "launch", lambda name, *args, **more: (launched.append(name), kernel(name, *args, **more)))
        check(cupy, "linear", draw(M, K), draw(O, K), draw(O), add=draw(M, O))
        check(cupy, "linear", draw(M, K), draw(O, K))
    assert launched[0] == launched[-1] == ("linear_few" if M <= 8 else "linear")


@pytest.mark.parametrize("size", [(26, 18), (25, 18), (26, 17), (25, 17)])
def test_upsampling_reads_the_small_picture(cupy, size):
    check(cupy, "upsample_conv2d", draw(2, 13, 9, 24), draw(3, 3, 24, 16), draw(16), size=size)


@pytest.mark.parametrize("K, O", [(40, 24), (20, 24), (40, 20), (13, 5), (320, 8)])
def test_weights_as_they_lie(cupy, K, O):
    """A linear layer's (O,K), and a 1x1 convolution's (K,O) seen as its transpose."""
    from minisd.backend import cuda
    x, w = draw(37, K), draw(K, O)
    check(cupy, "linear", x, np.ascontiguousarray(w.T), draw(O))
    found = cuda.linear(cupy.asarray(x), cupy.asarray(w).T, cupy.asarray(np.zeros(O, np.float16)))
    assert relative(cupy.asnumpy(found), x.astype(float) @ w.astype(float)) < 1e-3
    check(cupy, "conv2d", draw(2, 5, 7, K), draw(1, 1, K, O), draw(O), add=draw(2, 5, 7, O))


@pytest.mark.parametrize("B, P, C, G", [(1, 1, 32, 32), (2, 7, 48, 8), (1, 33, 320, 32), (2, 5, 2560, 32), (1, 300, 16, 8),
                                        (1, 300, 64, 32)])
@pytest.mark.parametrize("act", [None, "silu"])
def test_group_norm(cupy, B, P, C, G, act):
    check(cupy, "group_norm", draw(B, P, 1, C), draw(C), draw(C), groups=G, eps=1e-5, act=act)


def test_group_norm_of_a_large_mean(cupy):
    """Squares of 500 would swallow a deviation of 1 in float32; the definition's own input has it rounded to half."""
    x = (draw(2, 9, 9, 32).astype(np.float32) + 500).astype(np.float16)
    check(cupy, "group_norm", x, draw(32), draw(32), groups=8, eps=1e-5)


@pytest.mark.parametrize("C", [8, 40, 320, 768, 1280, 2048])
def test_layer_norm(cupy, C):
    check(cupy, "layer_norm", draw(3, 5, C) + np.float16(3), draw(C), draw(C))


def test_views_that_begin_anywhere(cupy):
    """Four numbers into an array is no multiple of 16 bytes: such a view is copied, and nothing else is."""
    from minisd.backend import cuda
    whole = cupy.empty((2, 24), np.float16)
    assert cuda.plain(whole) is whole
    x, w, b = draw(1, 28), draw(24), draw(24)
    found = cuda.layer_norm(cupy.asarray(x)[:, 4:], cupy.asarray(w), cupy.asarray(b))
    expected = ops.layer_norm.definition(x[:, 4:].astype(float), w.astype(float), b.astype(float))
    assert relative(cupy.asnumpy(found), expected) < 1e-3


def test_concat(cupy):
    x, y = draw(2, 3, 5, 40), draw(2, 3, 5, 24)
    from minisd.backend import cuda
    np.testing.assert_array_equal(cupy.asnumpy(cuda.concat([cupy.asarray(x), cupy.asarray(y)])), np.concatenate([x, y], -1))


@pytest.mark.parametrize("flip, shift", [(True, 0), (False, 1)])
def test_timestep_features(cupy, flip, shift):
    from minisd.backend import cuda
    t = np.float32([0, 1, 333.25, 999])
    found = cupy.asnumpy(cuda.timestep_features(cupy.asarray(t), 320, flip, shift))
    assert found.dtype == np.float32 and np.abs(found - ops.timestep_features.definition(t.astype(float), 320, flip, shift)).max() < 2e-4


def test_not_a_number_is_passed_on(cupy):
    """A NaN must reach the picture, where it is reported, and not be lost in a maximum."""
    from minisd.backend import cuda
    x = draw(1, 20, 40)
    x[0, 3, 5] = np.nan
    q = cupy.asarray(draw(1, 20, 40))
    assert np.isnan(cupy.asnumpy(cuda.attention(q, cupy.asarray(x), q, 1))).all()
    assert np.isnan(cupy.asnumpy(cuda.attention(cupy.asarray(x), q, q, 1))[0, 3]).all()
    assert np.isnan(cupy.asnumpy(cuda.group_norm(cupy.asarray(x.reshape(1, 5, 4, 40)), q[0, 0], q[0, 0], 8, 1e-5))).any()


def test_what_is_declined(cupy):
    """Odd shapes and other types are left to the definitions, which then compute them."""
    from minisd.backend import cuda
    odd, single = cupy.asarray(draw(1, 5, 20)), cupy.asarray(np.ones((1, 5, 16), np.float32))
    assert cuda.attention(odd, odd, odd, 2) is NotImplemented and cuda.layer_norm(odd, odd[0, 0], odd[0, 0]) is NotImplemented
    assert cuda.group_norm(odd.reshape(1, 5, 1, 20), odd[0, 0], odd[0, 0], 2, 1e-5) is NotImplemented
    assert cuda.linear(single, single[0]) is NotImplemented and cuda.concat([odd, odd]) is NotImplemented
    assert cuda.conv2d(cupy.asarray(draw(1, 9, 9, 8)), cupy.asarray(draw(5, 5, 8, 8)), odd[0, 0, :8]) is NotImplemented
    assert ops.attention(odd, odd, odd, 2).shape == (1, 5, 20) and ops.linear(single, single[0]).dtype == np.float32


def test_launches_are_checked(cupy):
    from minisd.backend.launch import KernelError, argument, launch
    for wrong in (cupy.asarray(draw(4, 4)).T, cupy.asarray(draw(1, 24))[:, 4:20]):
        with pytest.raises(KernelError, match="not contiguous, or does not begin at a multiple of 16"):
            argument("k", wrong)
    for wrong in (2**31, -2**31 - 1):
        with pytest.raises(KernelError, match="32 bits"):
            argument("k", wrong)
    assert argument("k", 2**31 - 1) == 2**31 - 1 and argument("k", -2**31) == -2**31
    with pytest.raises(KernelError, match="a list"):
        argument("k", [1])
    with pytest.raises(KernelError, match="does not compile") as e:
        launch("layer_norm", ("layer_norm.cu",), (1,), 256, [], NO_SUCH_DEFINE=1)
    line = int(re.search(r"layer_norm\.cu\((\d+)\): error: identifier \"WORDS\"", str(e.value))[1])
    assert "WORDS" in (kernel_sources.KERNELS / "layer_norm.cu").read_text().splitlines()[line - 1], "its lines are those of the file"


# ---- whole networks ----------------------------------------------------------------------------------------------


def networks(model, case, dtype, put):
    """One golden case in float16 -> its output."""
    (component, raw), given = golden_cases.MODELS[model], golden_checks.model_inputs(model)[case]
    arrays = {n: drawn_models.weight(n, s) for n, s in golden_checks.Golden(model).about["shapes"].items()}
    p = Weights.over(arrays, lambda n: put(engine_layout(arrays[n], dtype)))

    def lowered(a):
        return put(np.ascontiguousarray(golden_checks.channels_last(a)).astype(dtype))

    if component == "text_encoder":
        return clip.encode(p, put(given), TextConfig.read(raw))
    if component == "text_encoder_2":
        return clip.encode_xl(p, put(given), TextConfig.read(raw))[1]
    if component == "unet":
        x, t, context, conditioning = given
        conditioning = {k: put(a) if a.dtype.kind == "i" or k == "time_ids" else lowered(a) for k, a in conditioning.items()}
        return unet.unet(p, lowered(x), put(t), lowered(context), UNetConfig.read(raw), **conditioning)
    if component == "controlnet":
        x, t, context, conditioning = given
        hint = controlnet.hint(p, lowered(conditioning["hint"]))
        scales = put(np.ones((13, 1, 1, 1, 1), dtype))
        return controlnet.controlnet(p, lowered(x), put(t), lowered(context), hint, scales, ControlNetConfig.read(raw))[0]
    config = VAEConfig.read(raw)
    if case.startswith("encode"):
        return vae.encode(p, lowered(given), config)
    return vae.decode(p, lowered(given * np.float32(config.scaling_factor)), config)


@pytest.mark.parametrize("model, case", [("text_sd1", "prompts"), ("text_sd2", "prompts"), ("text_xl", "prompts"),
                                         ("unet_sd1", "tall"), ("unet_sd2", "wide"), ("unet_sd2", "faint"),
                                         ("unet_distilled", "tall"), ("unet_xl", "wide"), ("unet_upscaler", "tall"),
                                         ("controlnet_sd1", "wide"), ("vae", "decode tall"), ("vae", "encode wide")])
def test_goldens(cupy, model, case, monkeypatch):
    """A network of kernels is at most twice as far from the reference as one of definitions in float16."""
    monkeypatch.setattr(fake, "races", False)                # bounds and waits are checked all the same
    expected = golden_checks.channels_last(golden_checks.Golden(model)[f"{case}.output"])
    found = networks(model, case, np.float16, cupy.asarray)
    with ops.definitions_only():
        plain = golden_checks.relative(networks(model, case, np.float16, lambda a: a), expected)
    error = golden_checks.relative(cupy.asnumpy(found), expected)
    assert found.dtype == np.float16 and error <= 2 * plain < 0.03, f"{error:.1e}, definitions {plain:.1e}"


@pytest.fixture(scope="module")
def sd2_folder(tmp_path_factory):
    return golden_checks.write_pipeline(tmp_path_factory.mktemp("models") / "sd2", "sd2")


HOW = dict(num_inference_steps=3, seed=5, width=64, height=64, guidance_scale=5.0, output="array", sampler="euler")


def test_same_seed_same_picture(cupy, sd2_folder, monkeypatch):
    """On the device, with its launches recorded, a picture is that of the CPU to float16's rounding; and replaying gives the same
    numbers as launching one by one."""
    import minisd
    from minisd.networks import nn
    monkeypatch.setattr(fake, "races", False)
    pipe = minisd.load(sd2_folder, device="cuda")
    assert pipe.model.dtype == np.float16 and pipe.model.latent_dtype == np.float32
    found = pipe.txt2img("a fox", **HOW)
    assert pipe.model.call_unet.graph is not None
    assert np.abs(found - minisd.load(sd2_folder).txt2img("a fox", **HOW)).max() < 0.02
    np.testing.assert_array_equal(pipe.txt2img("a fox", **HOW), found)
    conditioning = pipe.model.encode_prompts(["a fox"])
    x = drawn_models.standard("x", (1, 8, 8, 4))
    replayed = [pipe.model.predict_noise(k * x, 500.0 + k, conditioning) for k in (1, 2)]
    with ops.watch(lambda name, run, *args, **kwargs: run(*args, **kwargs)):             # as written, kernel by kernel
        launched = pipe.model.predict_noise(2 * x, 502.0, conditioning)
    np.testing.assert_array_equal(launched, replayed[1])
    with nn.trace() as seen:
        traced = pipe.model.predict_noise(2 * x, 502.0, conditioning)
    assert "mid_block.attentions.0" in seen and not np.array_equal(*replayed)
    assert golden_checks.relative(traced, launched) < 2e-3          # a trace takes fused operations apart


def test_step_caching(cupy, sd2_folder, monkeypatch):
    """What is kept stays on the device; its calls are launched one by one, beside those that are recorded."""
    import minisd
    monkeypatch.setattr(fake, "races", False)
    pipe, how = minisd.load(sd2_folder, device="cuda"), dict(HOW, cache_interval=2)
    found = pipe.txt2img("a fox", **how)
    assert np.abs(found - minisd.load(sd2_folder).txt2img("a fox", **how)).max() < 0.02
    assert np.abs(found - pipe.txt2img("a fox", **HOW)).max() > 1e-4
    np.testing.assert_array_equal(pipe.txt2img("a fox", **how), found)


@pytest.mark.parametrize("family, task, channels, controls",
                         [("xl", "txt2img", 4, 1), ("upscaler", "upscale", 7, 0), ("lcm", "txt2img", 4, 0)])
def test_what_a_unet_is_told_reaches_the_device(cupy, family, task, channels, controls, tmp_path, monkeypatch):
    """Sizes, labels, guidance, control pictures: the picture is that of the CPU to float16's rounding, and its calls were recorded."""
    import minisd
    monkeypatch.setattr(fake, "races", False)
    folder = golden_checks.write_family(tmp_path / family, family, channels)
    nets = [golden_checks.write_controlnet(tmp_path, "controlnet_xl")] * controls
    for net in (folder / "unet", *nets):                     # heads 16 wide, which the kernel serves
        change_json(net / "config.json", attention_head_dim=[2, 3, 4] if family == "xl" else [2, 3, 4, 4])
    how = dict(num_inference_steps=2, seed=3, guidance_scale=4.0, output="latent", **golden_checks.given_to(task, controls))
    how.update(dict(image=how["image"].crop((0, 0, 16, 16))) if task == "upscale" else dict(width=32, height=32))
    pipes = [minisd.load(folder, device=place, controlnet=nets) for place in ("cuda", "cpu")]
    found, expected = [getattr(pipe, task)("a fox", **how) for pipe in pipes]
    assert pipes[0].model.call_unet.graph is not None and golden_checks.relative(found, expected) < 0.02


def test_what_cannot_be_recorded_runs_as_written(cupy, sd1_folder, monkeypatch):
    """Heads 12 wide are left to the definition, whose products go to cuBLAS, which CuPy does not record."""
    import minisd
    monkeypatch.setattr(fake, "races", False)
    pipe = minisd.load(sd1_folder, device="cuda")
    with pytest.warns(UserWarning, match="cannot be recorded"):
        found = pipe.txt2img("a fox", **HOW)
    assert pipe.model.call_unet.graph is None
    assert np.abs(found - minisd.load(sd1_folder).txt2img("a fox", **HOW)).max() < 0.02


def test_only_kernels_are_recorded(cupy):
    """Single precision is left to the definitions, and their products to cuBLAS."""
    place = device.open_device("cuda")
    assert isinstance(place.repeatable(len, np.float16), device.Recorded) and place.repeatable(len, np.float32) is len


def recorded(cupy, network):
    """`network`, of one array, as it is recorded, to be called with one of so many rows; and what the emulated device's memory holds."""
    call = device.Recorded(network, cupy)

    def run(rows):
        x = RANDOM.standard_normal((rows, 64)).astype(np.float16)
        y = cupy.asnumpy(call(x=cupy.asarray(x))).astype(np.float64)
        assert np.abs(y - x.astype(np.float64) / (1 + np.exp(-x.astype(np.float64)))).max() < 4e-3
        return fake.Memory.taken
    return call, run


def test_memory_of_a_recording_goes_back(emulated):
    """Each change of shape makes another recording; the one before gives back all that it had, and so does what other calls left."""
    call, run = recorded(emulated, lambda x: ops.silu(x))
    gc.collect()
    fake.default_pool.free_all_blocks()
    before = fake.Memory.taken                               # of what earlier tests still hold
    for _ in range(2):
        emulated.empty((1 << 20,), np.float16)               # at once nobody's
    held = [run(rows) - before for rows in (100, 200, 100, 200, 100, 200)]
    assert call.graph is not None and held[0] == held[2] == held[4] and held[1] == held[3] == held[5] and held[0] < held[1]
    call.forget()
    fake.default_pool.free_all_blocks()
    assert fake.Memory.taken - before < held[0] < 1 << 20


def test_a_recording_counts_blocks_by_itself(emulated, arch):
    """Blocks that share a product's depth are counted, in memory of the stream's own: two streams may run at the same time.  It stays with
    the graph that uses it, and goes with it."""
    from minisd.backend import cuda
    arch(80, 40)
    w = draw(24, 520)
    calls = [device.Recorded(lambda x: ops.linear(x, upload(emulated, w)), emulated) for _ in range(2)]
    assert cuda.tiling(40, 24, 520, 40)[4] > 1
    for _ in range(3):
        x = draw(40, 520)
        for call in (*calls, lambda x: ops.linear(x, upload(emulated, w))):
            found = emulated.asnumpy(call(x=emulated.asarray(x)))
            assert relative(found, x.astype(float) @ w.T.astype(float)) < 1e-3
    counters = [cuda._arrived[stream] for stream in (calls[0].stream, calls[1].stream, emulated.cuda.get_current_stream())]
    assert all(not np.asarray(c).any() for c in counters) and len({c.ctypes.data for c in counters}) == 3
    del counters
    before = len(cuda._arrived)
    calls[0].forget()
    gc.collect()
    assert len(cuda._arrived) == before - 1


@pytest.mark.parametrize("room", [0, 1, 2])
def test_memory_that_runs_out_while_recording(emulated, monkeypatch, room):
    """At the run before it or within it: the calls go on, one by one, and memory is given back."""
    call, run = recorded(emulated, lambda x: ops.silu(ops.silu(x) * 0 + x))
    fake.default_pool.free_all_blocks()
    monkeypatch.setattr(fake.Memory, "limit", fake.Memory.taken + 12800 * (room + 1))
    if room < 2:
        with pytest.warns(UserWarning, match="memory ran out meanwhile"):
            run(100)
    else:
        run(100)
    assert (call.graph is None) == (room < 2)
    run(100)
    assert room == 2 or call.pool is None


@pytest.mark.parametrize("network, why", [(ops.silu, "cudaErrorStreamCaptureInvalidated"),
                                          (lambda x: ops.silu(x) + 0 * (x @ x.T)[:, :1], "left to its definition")])
def test_a_recording_that_cuda_ends(emulated, monkeypatch, network, why):
    """Its own words are passed on, unless it is known better."""
    def end(self):
        fake._recording = None
        raise RuntimeError("cudaErrorStreamCaptureInvalidated: operation failed due to a previous error during capture")
    monkeypatch.setattr(fake.Stream, "end_capture", end)
    call, run = recorded(emulated, lambda x: network(x))
    with pytest.warns(UserWarning, match=why):
        run(100)
    assert call.graph is None
    run(100)


def test_memory_given_back_within_a_recording_voids_it(emulated):
    """Even where more is taken afterwards, so that the pool is as large as before."""
    pools, calls = [], []

    def network(x):
        calls.append(1)
        if len(calls) == 2:                                  # within the recording, as CuPy does where memory runs out
            pools[0].free_all_blocks()
        pools.append(fake.MemoryPool.current)
        y = ops.silu(x)
        z = [emulated.empty((100, 64 * k), np.float16) for k in range(1, 3 + 4 * (len(calls) == 2))]
        assert len(z)
        return y
    call, run = recorded(emulated, network)
    with pytest.warns(UserWarning, match="memory ran out meanwhile"):
        run(100)
    assert call.graph is None


def test_encoding_and_single_precision(cupy, sd2_folder, monkeypatch):
    import minisd
    monkeypatch.setattr(fake, "races", False)
    pixels = np.abs(drawn_models.uniform("pixels", (1, 64, 64, 3)))
    exact = golden_checks.encoded(minisd.load(sd2_folder), pixels, 1)
    for dtype, bound in ((None, 2e-2), ("float32", 1e-4)):
        latents = golden_checks.encoded(minisd.load(sd2_folder, device="cuda", dtype=dtype), pixels, 1)
        assert isinstance(latents, np.ndarray) and latents.dtype == np.float32 and golden_checks.relative(latents, exact) < bound


def test_selftest_names_what_serves(cupy, capsys, monkeypatch):
    from minisd.cli import main as cli
    assert cli.main(["selftest", "--device", "cuda"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("OK") and sum("kernel" in line for line in lines) > 30
    assert any(re.match(r"attention +kernel +\d\.\de-0\d +ok +\(2,37,48\)", line) for line in lines)
    assert any(re.match(r"erf +definition", line) for line in lines)


def test_what_stands_in_for_cupy_is_a_module_to_others(cupy):
    """hypothesis asks every module for its file: its tests failed where kernels had run before in the process."""
    assert isinstance(getattr(cupy, "__file__", ""), str)


# ---- no GPU, or no CuPy ------------------------------------------------------------------------------------------


def test_no_cupy(monkeypatch, sd1_folder):
    import minisd
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    monkeypatch.setattr(device.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs CuPy.*minisd\[cuda13\]"):
        minisd.load(sd1_folder, device="cuda")


@pytest.mark.parametrize("how, message", [(dict(device="cuda:0"), "choose cpu or cuda"), (dict(device="tpu"), "choose cpu or cuda"),
                                          (dict(device=None), "choose cpu or cuda"),
                                          (dict(dtype="float16"), "on cpu choose float32 or float64")])
def test_devices_and_types_that_are_refused(sd1_folder, how, message):
    import minisd
    with pytest.raises(InputError, match=message):
        minisd.load(sd1_folder, **how)


def test_a_device_without_gpu_or_with_an_old_one(emulated, monkeypatch, sd1_folder):
    import minisd
    with pytest.raises(InputError, match="on cuda choose float16 or float32"):
        minisd.load(sd1_folder, device="cuda", dtype="float64")
    with pytest.raises(InputError, match="low_memory is for the CPU"):
        minisd.load(sd1_folder, device="cuda", low_memory=True)
    monkeypatch.setattr(fake.Device, "compute_capability", "70")
    with pytest.warns(UserWarning, match="compute capability 70"):
        old = device.open_device("cuda")
    assert old.repeatable(len, np.float16) is len, "definitions are not recorded"
    monkeypatch.setattr(fake.Device, "compute_capability", "75")
    assert device.open_device("cuda").served, "without a word"
    monkeypatch.setattr(emulated, "is_available", lambda: False)
    with pytest.raises(InputError, match="finds no GPU"):
        minisd.load(sd1_folder, device="cuda")


# ---- what the compiler makes of them -----------------------------------------------------------------------------


def built(cupy, capability):
    """[(kernel files, defines, {kernel: (registers, bytes spilled)}, cubin)] of everything that SD launches on such a GPU."""
    from minisd.backend.launch import source
    stages = 2 if capability == 75 else 4
    asked = set.union(*(kernel_sources.variants(cupy, n, stages) for n in (20, 132)))
    found = []
    for files, defines in sorted(asked, key=str):
        cubin, log = nvrtc.compile(source(files, defines), capability)
        found.append((files, dict(defines), nvrtc.resources(log), cubin))
    return found


@pytest.mark.parametrize("capability", kernel_sources.ARCHITECTURES)
def test_registers_and_instructions(emulated, capability, tmp_path):
    """Within the budget, nothing spilled, tensor cores and asynchronous copies in the machine code."""
    seen = set()
    for files, defines, kernels, cubin in built(emulated, capability):
        for name, (registers, spilled) in kernels.items():
            seen.add(name)
            assert spilled <= MOST_SPILLED, (name, defines, spilled)
            assert registers <= REGISTERS[name], (name, defines, registers)
        code = nvrtc.sass(cubin, tmp_path)
        if code is None:
            pytest.skip("no cuobjdump to see the machine code with; pip install '.[kernels]'")
        assert not re.search(r"\bSTL|\bLDL", code) or files[-1] == "elementwise.cu", (files, defines)    # sinf of huge angles
        if files[-1] in ("attention.cu", "linear.cu", "conv2d.cu"):
            wanted = {"HMMA.1688.F32" if capability == 75 else "HMMA.16816.F32", "LDSM"} | ({"LDGSTS"} if capability >= 80 else set())
            aligned = defines.get("ALIGNED_C", 1) or defines.get("ALIGNED_O", 1)
            assert all(op in code for op in wanted if op != "LDGSTS" or aligned), (files, defines)
    assert seen == set(REGISTERS)


# ---- the checker, checked ----------------------------------------------------------------------------------------

BUGS = [                                                     # (file, what stands there, what stands there instead, operation)
    ("tile.cuh", "__syncthreads();                                               // this", "// this", "conv2d"),
    ("tile.cuh", "copies_wait<STAGES - 2>();", "", "conv2d"),
    ("tile.cuh", "copies_wait<STAGES - 2>();", "copies_wait<STAGES - 1>();", "linear"),
    ("tile.cuh", "if (m >= M || n >= O) return;", "if (m > M || n >= O) return;", "linear"),
    ("tile.cuh", "< K && n < O;\n    if (ALIGNED_O)", "< K && n <= O;\n    if (ALIGNED_O)", "conv2d"),
    ("tile.cuh", "load_a(a_tiles + before * A_TILE", "load_a(a_tiles + stage * A_TILE", "linear"),
    ("tile.cuh", "stage < STAGES - 1 ? stage + 1 : 0", "stage < STAGES - 2 ? stage + 1 : 0", "linear"),
    ("tile.cuh", "(a_at ^ k)", "(a_at + k)", "linear"), ("tile.cuh", "(b_at ^ j * 16)", "(b_at + j * 16)", "conv2d"),
    ("tile.cuh", "bf[j / 2][j % 2 * 2], bf[j / 2][j % 2 * 2 + 1]", "bf[j / 2][j % 2 * 2 + 1], bf[j / 2][j % 2 * 2]", "linear"),
    ("tile.cuh", "add += (size_t)(m / every)", "add += (size_t)m", "norm_conv2d"),
    ("linear.cu", "m + i * EVERY < M", "m + i * EVERY <= M", "linear"), ("linear.cu", "ok = ok && k < K;", "ok = ok;", "linear"),
    ("linear.cu", "row / 8 % 2 ? O + n", "row / 8 % 2 ? n", "linear_geglu"),
    ("linear.cu", "EVERY / 2 : EVERY", "EVERY : EVERY", "linear_geglu"),
    ("linear.cu", "which == 1 ? weight1 : weight2", "weight1", "linears"), ("linear.cu", "y += (size_t)which", "y += 0", "linears"),
    ("tile.cuh", "__threadfence();                                                 // who", "// who", "linear"),
    ("tile.cuh", "__syncthreads();\n  int* is_last", "int* is_last", "linear"),
    ("tile.cuh", "__syncthreads();\n  if (!*is_last)", "if (!*is_last)", "linear"),
    ("tile.cuh", "if (!*is_last) return false;", "", "linear"),
    ("tile.cuh", "return false;\n  __threadfence();", "return false;", "linear"),
    ("tile.cuh", "gridDim.z - 1)", "gridDim.z)", "linears"), ("tile.cuh", "(size_t)tile * each", "0", "linears"),
    ("tile.cuh", "i < i0 + 2", "i < i0 + 1", "linear"), ("tile.cuh", "s[0] = s[1] = s[2] = s[3] = 0.f;", "", "linear"),
    ("tile.cuh", "(i * (WN / 8) + j) * THREADS] = ", "i * THREADS] = ", "linear"),
    ("conv2d.cu", "tap / 3) < (unsigned)H", "tap / 3) <= (unsigned)H", "conv2d"), ("conv2d.cu", "if (m < M && ", "if (", "conv2d"),
    ("conv2d.cu", "(top[i] + tap / 3 >> 1)", "(top[i] + tap / 3)", "upsample_conv2d"), ("conv2d.cu", "* h - line;", "* h;", "conv2d"),
    ("conv2d.cu", "c >= C; c -= C", "c > C; c -= C", "conv2d"),
    ("attention.cu", "__syncthreads();", "", "attention"), ("attention.cu", "copies_wait<0>();", "", "attention"),
    ("attention.cu", "key >= M", "key > M", "attention"), ("attention.cu", "key > mine", "key >= mine", "attention"),
    ("attention.cu", "if (row >= N) continue;", "", "attention"), ("attention.cu", "from_row + row < all &&", "", "attention"),
    ("attention.cu", "[0], kf[0], kf[1]", "[0], kf[1], kf[0]", "attention"), ("attention.cu", "total[r][h] *= shrink;", "", "attention"),
    ("attention.cu", "d * 16 + lane / 8 % 2 * 8);", "d * 16);", "attention"),
    ("attention.cu", "(v_tiles + tile % 2 * V_TILE", "(v_tiles", "attention"), ("attention.cu", "if (d == 0)", "if (d <= 1)", "attention"),
    ("attention.cu", "(most[r][h] - now[h]) * scale", "most[r][h] - now[h]", "attention"),
    ("group_norm.cu", "__syncthreads();                                                 // every", "// every", "group_norm"),
    ("group_norm.cu", "__syncthreads();                                                 // all", "// all", "group_norm"),
    ("group_norm.cu", "__syncthreads();                                                 // the sums", "// the sums", "group_norm"),
    ("group_norm.cu", "- sum * sum", "", "group_norm"),
    ("group_norm.cu", "P * (z + 1) / Z)", "P * (z + 1) / Z) + 1", "group_norm"),
    ("group_norm.cu", "z += stretches", "z += stretches + 1", "group_norm"), ("linear_few.cu", "if (n >= O) return;", "", "linear"),
    ("linear_few.cu", "lane == 0 && m < M", "lane == 0", "linear"),
    ("layer_norm.cu", "if (row >= R) return;", "", "layer_norm"), ("layer_norm.cu", "c < C ?", "true ?", "layer_norm"),
    ("devkit.cuh", "lanes > 0", "lanes > 1", "layer_norm"),
    ("elementwise.cu", "if (i < n) y[i] = __float2half(act", "y[i] = __float2half(act", "silu"),
]
# more tiles than are under way at a time, and 16-byte copies of weights
MORE = {"attention": [((draw(1, 40, 64), draw(1, 150, 64), draw(1, 150, 64)), dict(heads=1))],
        "group_norm": [((draw(1, 13, 12, 64), draw(64), draw(64)), dict(groups=32, eps=1e-5))],
        "linear": [((draw(40, 200), draw(24, 200), draw(24)), {}), ((draw(3, 72), draw(21, 72), draw(21)), {}),
                   ((draw(40, 520), draw(24, 520), draw(24)), {})],
        "linears": [((draw(12, 520), [draw(24, 520), draw(24, 520)]), {})],
        "conv2d": [((draw(1, 5, 7, 24), draw(3, 3, 24, 24), draw(24)), dict(pad=(1, 1)))]}


@pytest.mark.parametrize("bug", BUGS, ids=lambda b: f"{b[0]}: {b[1][:30]} -> {b[2][:30]}")
def test_planted_bugs_are_reported(emulated, arch, bug, monkeypatch):
    """By the machine, or by the comparison with the definition."""
    from minisd.backend import cuda, launch
    file, there, instead, name = bug
    arch(80, 40)
    monkeypatch.setattr(cuda, "_arrived", weakref.WeakKeyDictionary())             # which a kernel that is stopped leaves half counted
    text = (kernel_sources.KERNELS / file).read_text()
    assert text.count(there) == 1, "this bug can no longer be planted; find its place"
    shipped = launch.source
    monkeypatch.setattr(launch, "source", lambda files, defines: shipped(files, defines).replace(text, text.replace(there, instead)))
    for seed in range(3):
        monkeypatch.setattr(fake, "seed", seed)
        rows = [(args, kwargs) for case, args, kwargs in selftest.cases(single) if case == name] + MORE.get(name, [])
        for args, kwargs in rows:
            try:
                check(emulated, name, *map(half, args), **{k: half(v) for k, v in kwargs.items()})
            except (KernelError, AssertionError):
                return
    pytest.fail("nobody noticed")


def test_ldmatrix_meets_no_bank_twice(emulated, arch):
    arch(80)
    del fake.launches[:]
    for d in (40, 64, 80, 128, 160, 512):
        check(emulated, "attention", draw(1, 70, d), draw(1, 77, d), draw(1, 77, d), heads=1)
    check(emulated, "conv2d", draw(1, 9, 9, 40), draw(3, 3, 40, 72), draw(72), pad=(1, 1))
    check(emulated, "linear", draw(140, 72), draw(72, 72), draw(72))
    assert {name for name, _ in fake.launches} >= {"attention", "conv2d", "linear"}
    assert all(launched.conflicts == 0 and launched.products > 0 for name, launched in fake.launches)


# ---- the study's steps -------------------------------------------------------------------------------------------


def silu_norm(x, weight, bias, groups, eps):
    return ops.DEFINITIONS["group_norm"](x, weight, bias, groups, eps, act="silu")


@pytest.mark.parametrize("step", kernel_study.STEPS)
def test_study(cupy, step):
    what = step.split("/")[1]
    if what == "attention":
        q, k, v = draw(2, 70, 96), draw(2, 45, 96), draw(2, 45, 96)
        check(cupy, what, q, k, v, heads=2, version=lambda *a, heads: kernel_study.run(step, cupy, *a, heads))
        return
    if what == "conv2d":
        check(cupy, what, draw(2, 9, 7, 40), draw(3, 3, 40, 72), draw(72), pad=(1, 1), version=lambda *a,
              pad: kernel_study.run(step, cupy, *a))
        return
    for C in (48, 320):
        check(cupy, what, draw(2, 7, 9, C), draw(C), draw(C), groups=8, eps=1e-5, act="silu",
              version=lambda *a, groups, eps, act: kernel_study.run(step, cupy, *a, groups, eps))


@pytest.mark.parametrize("capability", kernel_sources.ARCHITECTURES)
def test_study_compiles(emulated, capability):
    from minisd.backend.launch import source
    for step in kernel_study.STEPS:
        _, log = nvrtc.compile(source((kernel_study.path(step),), (("HEAD", 64),)), capability)
        for name, (registers, spilled) in nvrtc.resources(log).items():
            assert registers <= 255 and spilled == 0, (step, name, registers, spilled)


# ---- sizes -------------------------------------------------------------------------------------------------------


def test_shapes_of_the_real_networks():
    """tests/layer_sizes.py names what the goldens' checkpoints hold, and what SD 1.5's has: 860 million numbers."""
    import math
    for model, linear in (("unet_sd1", False), ("unet_sd2", True)):
        config = golden_cases.MODELS[model][1]
        found = layer_sizes.unet_shapes(config["block_out_channels"], 2, (True, True, True, False), config["cross_attention_dim"], linear)
        assert found == {n: tuple(s) for n, s in golden_checks.Golden(model).about["shapes"].items()}
    found = layer_sizes.decoder_shapes(golden_cases.VAE["block_out_channels"], 2)
    assert found == {n: tuple(s) for n, s in golden_checks.Golden("vae").about["shapes"].items() if n.startswith(("decoder.",
                                                                                                                  "post_quant"))}
    assert sum(map(math.prod, layer_sizes.unet_shapes(**layer_sizes.SD15).values())) == 859_520_964


# ---- on a GPU alone ----------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "initcheck"])
def test_compute_sanitizer(tool):
    """NVIDIA's own checker over the kernels' cases."""
    program = shutil.which("compute-sanitizer")
    if program is None:
        pytest.skip("no compute-sanitizer on the path; it comes with the CUDA toolkit")
    kernels = "device and (equals_its_definition or test_attention or test_conv2d or test_group_norm)"
    done = subprocess.run([program, "--tool", tool, "--error-exitcode", "9", sys.executable, "-m", "pytest", "-m", "gpu", "--no-pool",
                           __file__, "-k", kernels], capture_output=True, text=True)
    assert done.returncode == 0 and " passed" in done.stdout and " skipped" not in done.stdout, done.stdout[-3000:]


@pytest.mark.parametrize("cupy", [pytest.param("device", marks=pytest.mark.gpu)], indirect=True)
def test_full_size_unet(cupy):
    """SD 1.5, batch 2, 64x64: kernels at most twice as far from float32 as the definitions in float16."""
    config = UNetConfig()
    x, t, context = drawn_models.standard("x", (2, 64, 64, 4)), np.float32([981, 333.25]), drawn_models.standard("context", (2, 77, 768))
    shapes, found = layer_sizes.unet_shapes(**layer_sizes.SD15), {}
    for kind, dtype in (("exact", np.float32), ("plain", np.float16), ("kernels", np.float16)):
        def load(n, dtype=dtype):
            return cupy.asarray(engine_layout(drawn_models.weight(n, shapes[n]).astype(np.float16), dtype))

        p = Weights.over(shapes, load, keep=False)
        given = cupy.asarray(x.astype(dtype)), cupy.asarray(t), cupy.asarray(context.astype(dtype))
        if kind == "kernels":
            found[kind] = cupy.asnumpy(unet.unet(p, *given, config))
        else:
            with ops.definitions_only(cupy.ndarray):
                found[kind] = cupy.asnumpy(unet.unet(p, *given, config))
    exact = found["exact"].astype(np.float64)
    assert relative(found["kernels"], exact) <= 2 * relative(found["plain"], exact)
