"""Models as people have them: variants, shards, old names, and everything that can be wrong with a file."""
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from edited_files import change, change_json
from safetensors.numpy import load_file, save_file

import minisd
from minisd.checkpoint import folder as checkpoint
from minisd.checkpoint import hub
from minisd.checkpoint.files import TensorFiles
from minisd.checkpoint.weights import Weights, engine_layout
from minisd.errors import CheckpointError, InputError, MissingWeight

UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"


def latent(folder, **how):
    return minisd.load(folder, **how).txt2img("a cat", num_inference_steps=1, seed=1, width=64, height=64, output="latent")


# ---- what must work ----


def test_every_key_is_used_and_none_is_missing(sd1_folder):
    for component in checkpoint.open_folder(sd1_folder).components:
        assert component.check() == ([], [])


def test_shards(sd1_copy, sd1_folder):
    path = sd1_copy / UNET
    arrays = load_file(path)
    names = sorted(arrays)
    parts = {"a.safetensors": names[:100], "b.safetensors": names[100:]}
    for file, part in parts.items():
        save_file({n: arrays[n] for n in part}, path.parent / file)
    path.unlink()
    index = path.parent / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {n: f for f, part in parts.items() for n in part}}))
    assert np.array_equal(latent(sd1_copy), latent(sd1_folder))
    (path.parent / "b.safetensors").unlink()
    with pytest.raises(CheckpointError, match="b.safetensors cannot be found"):
        minisd.load(sd1_copy)


def test_fp16_variant(sd1_copy, sd1_folder):
    for part in ("unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model"):
        arrays = load_file(sd1_copy / f"{part}.safetensors")
        save_file({n: a.astype(np.float16) for n, a in arrays.items()}, sd1_copy / f"{part}.fp16.safetensors")
        (sd1_copy / f"{part}.safetensors").unlink()
    found, full = latent(sd1_copy, variant="fp16"), latent(sd1_folder)
    assert found.dtype == np.float32 and 0 < np.abs(found - full).max() < 0.05 * np.abs(full).max()
    assert np.array_equal(latent(sd1_copy), found), "without a plain file, the fp16 one is the only candidate"


def test_bfloat16(tmp_path):
    """NumPy has no such type; the numbers are read all the same."""
    values = np.float32([1.0, -2.5, 3.1415927e5, 1e-20])
    words = (values.view(np.uint32) >> 16).astype("<u2")
    header = json.dumps({"w": {"dtype": "BF16", "shape": [2, 2], "data_offsets": [0, 8]}}).encode()
    (tmp_path / "m.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + words.tobytes())
    w = TensorFiles([tmp_path / "m.safetensors"])["w"]
    assert w.shape == (2, 2) and np.allclose(w.reshape(-1), values, rtol=2**-7)


def test_old_attention_names_of_the_vae(sd1_copy, sd1_folder):
    """As the weights of SD 1.5 were first published."""
    def rename(arrays):
        for name in [n for n in arrays if ".attentions.0.to_" in n]:
            old = name
            for a, b in ((".to_q.", ".query."), (".to_k.", ".key."), (".to_v.", ".value."), (".to_out.0.", ".proj_attn.")):
                old = old.replace(a, b)
            arrays[old] = arrays.pop(name)

    change(sd1_copy / VAE, rename)
    z = np.ones((1, 4, 4, 4), np.float32)
    assert np.array_equal(minisd.load(sd1_copy).model.decode(z), minisd.load(sd1_folder).model.decode(z))


def test_a_file_that_changes_after_it_was_opened(sd1_copy):
    pipe = minisd.load(sd1_copy)
    whole = (sd1_copy / UNET).read_bytes()
    (sd1_copy / UNET).write_bytes(whole[:len(whole) // 2])
    with pytest.raises(CheckpointError, match="ends within .*: it was changed since it was opened"):
        pipe.txt2img("a cat", num_inference_steps=1, width=64, height=64)
    (sd1_copy / UNET).unlink()
    with pytest.raises(CheckpointError, match="No such file or directory while reading"):
        pipe.txt2img("a cat", num_inference_steps=1, width=64, height=64)


def test_files_are_a_mapping(sd1_folder):
    """What is read stays what it is when more is read."""
    component = checkpoint.open_folder(sd1_folder).unet
    arrays = dict(component.tensors)
    expected = load_file(sd1_folder / UNET)
    assert set(arrays) == set(expected) and all(np.array_equal(arrays[n], expected[n]) for n in expected)


def test_position_ids_are_not_a_weight(sd1_copy):
    change(sd1_copy / "text_encoder/model.safetensors", lambda a: a.update({"embeddings.position_ids": np.arange(77)[None]}))
    minisd.load(sd1_copy)                                    # and no warning, which would be an error here


def test_weights_are_read_when_they_are_needed(sd1_folder):
    pipe = minisd.load(sd1_folder)
    assert not pipe.unet._leaves and not pipe.vae._leaves
    pipe.model.decode(np.zeros((1, 1, 1, 4), np.float32))
    assert pipe.vae._leaves and not pipe.unet._leaves
    assert all(name.startswith("encoder") or name.startswith("quant_conv") for name in pipe.vae.unread())


# ---- what must be refused, in words ----


def test_not_found():
    with pytest.raises(InputError, match="no such file or folder, and no hub id"):
        minisd.load("stable-diffusion-v1-5")


def test_no_diffusers_folder(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(CheckpointError, match="no model_index.json.*notes.txt"):
        minisd.load(tmp_path)


@pytest.mark.parametrize("keep", [0.5, 0.99, 0])
def test_truncated(sd1_copy, keep):
    path = sd1_copy / UNET
    data = path.read_bytes()
    path.write_bytes(data[:int(len(data) * keep)])
    with pytest.raises(CheckpointError, match="damaged or not a safetensors file.*copy or download it again"):
        minisd.load(sd1_copy)


def test_missing_weights_are_named(sd1_copy):
    names = ["down_blocks.1.resnets.0.conv1.bias", "mid_block.attentions.0.proj_in.weight"]
    change(sd1_copy / UNET, lambda a: [a.pop(n) for n in names])
    with pytest.raises(CheckpointError, match="2 missing: down_blocks.1.resnets.0.conv1.bias, mid_block.attentions.0.proj_in.weight"):
        minisd.load(sd1_copy)


@pytest.mark.parametrize("name", ["conv_in.weight", "time_embedding.linear_2.weight", "up_blocks.1.attentions.1.norm.bias",
                                  "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight", "conv_out.bias"])
def test_any_missing_weight_is_named(sd1_copy, name):
    change(sd1_copy / UNET, lambda a: a.pop(name))
    with pytest.raises(CheckpointError, match=f"missing: {name}"):
        minisd.load(sd1_copy)


def test_a_missing_shortcut_is_found(sd1_copy):
    change(sd1_copy / UNET, lambda a: [a.pop(f"down_blocks.1.resnets.0.conv_shortcut.{k}") for k in ("weight", "bias")])
    with pytest.raises(CheckpointError, match="down_blocks.1.resnets.0.conv2.weight gives .* a weight next to them is missing"):
        minisd.load(sd1_copy)


def test_a_missing_layer_is_not_a_smaller_model(sd1_copy):
    change(sd1_copy / UNET, lambda a: [a.pop(n) for n in list(a) if n.startswith("down_blocks.0.resnets.1.")])
    with pytest.raises(CheckpointError, match=r"down_blocks.0.resnets \(config.json asks for 2, the file has 1\)"):
        minisd.load(sd1_copy)


def test_wrong_shape(sd1_copy):
    change(sd1_copy / UNET, lambda a: a.update({"mid_block.resnets.0.conv1.weight": np.zeros((64, 60, 3, 3), np.float32)}))
    with pytest.raises(CheckpointError, match=r"mid_block.resnets.0.conv1.weight has shape \(3, 3, 60, 64\).*64 channels"):
        minisd.load(sd1_copy)


def test_unused_weights_are_told(sd1_copy):
    change(sd1_copy / UNET, lambda a: a.update({"lora.up.weight": np.zeros(3, np.float32)}))
    with pytest.warns(UserWarning, match="1 weights in the file belong to no layer: lora.up.weight"):
        minisd.load(sd1_copy)


@pytest.mark.parametrize("name", ["diffusion_pytorch_model.bin", "diffusion_pytorch_model.ckpt"])
def test_a_pickle_is_never_opened(sd1_copy, name):
    (sd1_copy / UNET).rename(sd1_copy / "unet" / name)
    with pytest.raises(CheckpointError, match="pickle, which minisd never opens.*safe_serialization"):
        minisd.load(sd1_copy)


def test_a_single_pickle(tmp_path):
    path = tmp_path / "v1-5.ckpt"
    path.write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")        # would run a shell, were it opened as one
    with pytest.raises(CheckpointError, match="pickle"):
        minisd.load(path)


def test_a_single_safetensors_file(sd1_copy):
    """One network's file is no model."""
    with pytest.raises(CheckpointError, match="holds no text_encoder.*its first key is conv_in"):
        minisd.load(sd1_copy / UNET)


def test_damaged_json(sd1_copy):
    (sd1_copy / "unet/config.json").write_text('{"sample_size": 64,')
    with pytest.raises(CheckpointError, match="config.json: damaged"):
        minisd.load(sd1_copy)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "scheduler", "tokenizer"])
def test_an_absent_part(sd1_copy, part):
    shutil.rmtree(sd1_copy / part)
    with pytest.raises(CheckpointError, match=part):
        minisd.load(sd1_copy)


def test_no_weights_at_all(sd1_copy):
    (sd1_copy / UNET).unlink()
    with pytest.raises(CheckpointError, match="no diffusion_pytorch_model.safetensors, only no weights"):
        minisd.load(sd1_copy)


def test_parts_of_different_models(sd1_copy):
    change_json(sd1_copy / "text_encoder/config.json", num_attention_heads=4, hidden_size=24)
    change(sd1_copy / "text_encoder/model.safetensors", lambda a: a.update(
        {n: np.zeros([{40: 24}.get(k, k) for k in w.shape], np.float32) for n, w in a.items()}))
    with pytest.raises(CheckpointError, match="gives 24 numbers a token, the unet reads 40: they are parts of different models"):
        minisd.load(sd1_copy)


@pytest.mark.parametrize("key, value", [("class_embed_type", "timestep"), ("addition_embed_type", "image"), ("act_fn", "gelu"),
                                        ("down_block_types", ["AttnDownBlock2D"] * 4)])
def test_a_network_of_another_kind(sd1_copy, key, value):
    change_json(sd1_copy / "unet/config.json", **{key: value})
    with pytest.raises(CheckpointError, match="unet/config.json.*minisd knows"):
        minisd.load(sd1_copy)


def test_another_family(sd1_copy):
    change_json(sd1_copy / "model_index.json", _class_name="FluxPipeline")
    with pytest.raises(CheckpointError, match="Flux, which minisd does not run"):
        minisd.load(sd1_copy)


def test_a_controlnet_within_the_folder_is_told_of(sd1_copy):
    change_json(sd1_copy / "model_index.json", controlnet=["diffusers", "ControlNetModel"])
    with pytest.warns(UserWarning, match="its ControlNet is left out; give it with controlnet="):
        minisd.load(sd1_copy)


def test_a_model_for_another_task(sd1_copy):
    change_json(sd1_copy / "unet/config.json", in_channels=5)
    change(sd1_copy / UNET, lambda a: a.update({"conv_in.weight": np.zeros((32, 5, 3, 3), np.float32)}))
    with pytest.raises(CheckpointError, match="conv_in takes 5 channels.*a model for depth2img"):
        latent(sd1_copy)


def test_an_unknown_scheduler_is_only_needed_if_asked_for(sd1_copy):
    change_json(sd1_copy / "scheduler/scheduler_config.json", _class_name="TCDScheduler")
    pipe = minisd.load(sd1_copy)
    with pytest.raises(CheckpointError, match="TCDScheduler, which minisd does not have; choose one with sampler"):
        pipe.txt2img("a cat", num_inference_steps=1)
    pipe.txt2img("a cat", num_inference_steps=1, sampler="euler", output="latent", width=64, height=64)


@pytest.mark.parametrize("key, value", [("thresholding", True), ("beta_schedule", "laplace"), ("prediction_type", "flow_prediction")])
def test_a_scheduler_setting_is_refused_not_ignored(sd1_copy, key, value):
    change_json(sd1_copy / "scheduler/scheduler_config.json", **{key: value})
    with pytest.raises(CheckpointError, match=key):
        minisd.load(sd1_copy).txt2img("a cat", num_inference_steps=1, sampler="ddim")


@pytest.mark.parametrize("part, changes", [
    ("unet", dict(norm_num_groups=0)), ("unet", dict(attention_head_dim=None)), ("unet", dict(block_out_channels=64)),
    ("unet", dict(layers_per_block="1")), ("unet", dict(norm_eps=None)), ("unet", dict(freq_shift="a")),
    ("unet", dict(sample_size="16")), ("unet", dict(attention_head_dim=[4, 4])), ("unet", dict(up_block_types=["UpBlock2D"])),
    ("vae", dict(scaling_factor=0)), ("vae", dict(norm_num_groups=True)), ("text_encoder", dict(num_attention_heads=-1)),
    ("text_encoder", dict(hidden_size="40"))])
def test_odd_values_in_a_config_are_named(sd1_copy, part, changes):
    change_json(sd1_copy / part / "config.json", **changes)
    with pytest.raises(CheckpointError, match="config.json: "):
        minisd.load(sd1_copy)


@pytest.mark.parametrize("changes", [dict(num_train_timesteps="1000"), dict(beta_start=None), dict(solver_type="nonsense"),
                                     dict(algorithm_type=None)])
def test_odd_values_of_a_scheduler_are_named(sd1_copy, changes):
    change_json(sd1_copy / "scheduler/scheduler_config.json", _class_name="DPMSolverMultistepScheduler", **changes)
    with pytest.raises(CheckpointError, match=next(iter(changes))):
        minisd.load(sd1_copy).txt2img("a cat", num_inference_steps=1)


def test_sizes_of_old_files_are_corrected(sd1_copy):
    change_json(sd1_copy / "unet/config.json", _diffusers_version="0.8.1", sample_size=32)
    assert minisd.load(sd1_copy).size(None, None) == (512, 512)
    change_json(sd1_copy / "unet/config.json", _diffusers_version="0.42.1")
    assert minisd.load(sd1_copy).size(None, None) == (256, 256)


@pytest.mark.parametrize("path", ["model_index.json", "unet/config.json", "scheduler/scheduler_config.json",
                                  "tokenizer/tokenizer_config.json", "tokenizer/vocab.json"])
def test_json_of_another_kind(sd1_copy, path):
    (sd1_copy / path).write_text("[1, 2]")
    with pytest.raises(CheckpointError, match="holds a list"):
        minisd.load(sd1_copy)


def test_merges_of_another_tokenizer(sd1_copy):
    (sd1_copy / "tokenizer/merges.txt").write_text("#version: 0.2\nqqq zzz\n")
    with pytest.raises(CheckpointError, match="vocabulary, merges and special tokens do not go together"):
        minisd.load(sd1_copy)


def test_a_tokenizer_of_another_model(sd1_copy):
    (sd1_copy / "tokenizer/added_tokens.json").write_text('{"<mine>": 49408}')
    with pytest.raises(CheckpointError, match="has 49409 tokens, the text encoder knows 49408"):
        minisd.load(sd1_copy)


def test_the_largest_id_of_a_vocabulary_counts_rather_than_how_many_there_are(sd1_copy):
    change_json(sd1_copy / "tokenizer/vocab.json", **{"!": 60000})
    with pytest.raises(CheckpointError, match="has 60001 tokens, the text encoder knows 49408"):
        minisd.load(sd1_copy)


def test_missing_transformer_blocks_are_not_a_smaller_model(sd1_copy):
    change(sd1_copy / UNET, lambda a: [a.pop(n) for n in list(a) if n.startswith("mid_block.attentions.0.transformer_blocks")])
    with pytest.raises(CheckpointError, match="mid_block.attentions.0.transformer_blocks .config.json asks for 1, the file has 0"):
        minisd.load(sd1_copy)


def test_the_output_must_have_the_right_shape(sd1_copy):
    change(sd1_copy / UNET, lambda a: a.update({"conv_out.weight": np.zeros((8, 32, 3, 3), np.float32),
                                                "conv_out.bias": np.zeros(8, np.float32)}))
    with pytest.raises(CheckpointError, match=r"conv_out.weight has shape \(1, 8, 8, 8\)"):
        minisd.load(sd1_copy)


@pytest.mark.parametrize("shape", [(32, 4, 3), (32,)])
def test_a_convolution_of_fewer_dimensions(sd1_copy, shape):
    change(sd1_copy / UNET, lambda a: a.update({"conv_in.weight": np.zeros(shape, np.float32)}))
    with pytest.raises(CheckpointError, match="conv_in.weight has shape"):
        minisd.load(sd1_copy)


def test_quantised_weights_are_refused(sd1_copy):
    change(sd1_copy / UNET, lambda a: a.update({"conv_out.bias": np.zeros(4, np.int8)}))
    with pytest.raises(CheckpointError, match="conv_out.bias is stored as I8"):
        minisd.load(sd1_copy)


def test_a_weight_and_a_layer_of_one_name(sd1_copy):
    change(sd1_copy / UNET, lambda a: a.update({"conv_in": np.zeros(4, np.float32)}))
    with pytest.raises(CheckpointError, match="a weight and a layer of the same name"):
        minisd.load(sd1_copy)


# ---- the hub, without one ----


REPOSITORY = ["README.md", "model_index.json", "v1-5-pruned.ckpt", "v1-5-pruned.safetensors", "safety_checker/model.safetensors",
              "scheduler/scheduler_config.json", "tokenizer/vocab.json", "tokenizer/merges.txt", "unet/config.json",
              "unet/diffusion_pytorch_model.safetensors", "unet/diffusion_pytorch_model.fp16.safetensors",
              "unet/diffusion_pytorch_model.bin", "unet/diffusion_pytorch_model.non_ema.safetensors", "vae/config.json",
              "vae/diffusion_pytorch_model.safetensors.index.json", "vae/diffusion_pytorch_model-00001-of-00002.safetensors",
              "vae/diffusion_pytorch_model-00002-of-00002.safetensors", "text_encoder/config.json",
              "text_encoder/model.fp16.safetensors"]


def test_only_what_is_read_is_fetched():
    wanted = set(hub.wanted_files(REPOSITORY))
    assert {"unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model-00002-of-00002.safetensors",
            "vae/diffusion_pytorch_model.safetensors.index.json", "text_encoder/model.fp16.safetensors", "tokenizer/merges.txt"} <= wanted
    assert not [n for n in wanted if "ckpt" in n or "pruned" in n or "safety" in n or "non_ema" in n or "unet" in n and "fp16" in n]
    assert "unet/diffusion_pytorch_model.fp16.safetensors" in hub.wanted_files(REPOSITORY, "fp16")


def hub_lists(monkeypatch, names):
    """The hub's answer: the names of a repository's files, or a function that fails."""
    import huggingface_hub

    def info(self, repo, timeout):
        assert 0 < timeout <= 10
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=n) for n in (names(repo) if callable(names) else names)])

    monkeypatch.setattr(huggingface_hub.HfApi, "repo_info", info)


def test_a_hub_id_is_fetched(sd1_folder, monkeypatch):
    import huggingface_hub
    asked = {}
    hub_lists(monkeypatch, REPOSITORY)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda repo, **k: asked.update(k, repo=repo) or str(sd1_folder))
    minisd.load("someone/some-model")
    assert asked["repo"] == "someone/some-model" and "model_index.json" in asked["allow_patterns"]


class ConnectionProblem(Exception):
    pass


def test_without_a_network_the_cache_serves(sd1_folder, monkeypatch):
    import huggingface_hub

    def offline(repo):
        raise ConnectionProblem("no connection")

    hub_lists(monkeypatch, offline)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda repo, local_files_only=False: str(sd1_folder))
    minisd.load("someone/some-model")


def test_a_hub_model_of_pickles(monkeypatch):
    hub_lists(monkeypatch, ["model_index.json", "unet/diffusion_pytorch_model.bin"])
    with pytest.raises(CheckpointError, match="pickle, which minisd never opens"):
        minisd.load("someone/some-model")


def test_a_controlnet_or_a_vae_of_the_hub(sd1_folder, tmp_path, monkeypatch):
    import golden_checks
    import huggingface_hub
    place, asked = golden_checks.write_controlnet(tmp_path, "controlnet_sd1"), {}
    names = ["config.json", "diffusion_pytorch_model.bin", "diffusion_pytorch_model.safetensors", "README.md"]
    hub_lists(monkeypatch, names)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda repo, **k: asked.update(k, repo=repo) or str(place))
    assert minisd.load(sd1_folder, controlnet="someone/some-controlnet").model.controlnets
    assert asked == {"repo": "someone/some-controlnet", "allow_patterns": ["config.json", "diffusion_pytorch_model.safetensors"]}
    names[:] = ["diffusion_pytorch_model.bin"]
    with pytest.raises(CheckpointError, match="pickle"):
        minisd.load(sd1_folder, controlnet="someone/some-controlnet")
    names[:] = ["notes.txt"]
    with pytest.raises(InputError, match="holds nothing that minisd reads in this place, only notes.txt"):
        minisd.load(sd1_folder, vae="someone/notes")


def test_a_mistyped_path_is_not_asked_of_the_hub(sd1_folder, monkeypatch):
    monkeypatch.chdir(sd1_folder)
    hub_lists(monkeypatch, lambda repo: pytest.fail("asked"))
    with pytest.raises(InputError, match="unet/typo: no such file or folder; unet holds config.json"):
        minisd.load("unet/typo")


@pytest.mark.parametrize("path", ["./typo", "../typo", "typo", "a/b/c", "x" * 300])
def test_a_mistyped_path(path):
    with pytest.raises(InputError, match="no such file or folder|too long"):
        minisd.load(path)


def test_a_hub_out_of_reach(monkeypatch, tmp_path):
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def offline(*args, **kwargs):                            # what its network layer raises is no OSError
        raise LocalEntryNotFoundError("no connection") if "local_files_only" in kwargs else ConnectionProblem("no connection")

    hub_lists(monkeypatch, offline)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(InputError, match="not to be had from the hub.*check the name and the network"):
        minisd.load("someone/some-model")


# ---- the tree ----


def test_the_tree_is_in_numeric_order():
    p = Weights.from_flat({f"blocks.{i}.weight": np.float32([i]) for i in (10, 2, 1, 0)})
    assert [b.weight[0] for b in p.blocks] == [0, 1, 2, 10] and len(p.blocks) == 4 and "weight" in p.blocks[2]


def test_a_layer_that_is_not_there_says_what_is():
    p = Weights.from_flat({"a.conv1.weight": np.ones(1), "a.conv2.weight": np.ones(1)})
    with pytest.raises(MissingWeight, match="a: no 'conv_shortcut', only conv1, conv2"):
        p.a.conv_shortcut
    assert not hasattr(p.a, "conv_shortcut")


def test_a_tree_can_be_copied():
    import copy
    p = Weights.from_flat({"a.weight": np.ones(2)})
    assert np.array_equal(copy.deepcopy(p).a.weight, p.a.weight)


def test_convolutions_are_laid_out_once():
    loads = []
    w = np.arange(2 * 3 * 3 * 3, dtype=np.float16).reshape(2, 3, 3, 3)
    p = Weights.over(["conv.weight"], lambda name: loads.append(name) or engine_layout(w, "float32"))
    first, second = p.conv.weight, p.conv.weight
    assert first is second and loads == ["conv.weight"] and first.shape == (3, 3, 3, 2) and first.dtype == np.float32
    assert first[0, 1, 2, 1] == w[1, 2, 0, 1] and first.flags.c_contiguous


def test_every_float16_is_converted_exactly():
    """Subnormal numbers, zeros of both signs, infinities and NaN too; and a convolution's are turned as they are."""
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    finite = every[np.isfinite(every)]
    for given in (every, finite, every[::-3], finite[:0]):
        found = engine_layout(given, np.float32)
        assert found.dtype == np.float32 and found.tobytes() == given.astype(np.float32).tobytes()
    for shape in ((70, 130, 3, 3), (1, 1, 1, 1), (64, 64, 3, 3), (5, 200, 1, 1)):
        for dtype in (np.float16, np.float32):
            w = np.resize(finite, shape).astype(dtype)
            np.testing.assert_array_equal(engine_layout(w, np.float32), w.astype(np.float32).transpose(2, 3, 1, 0))
    assert engine_layout(finite).dtype == np.float16
