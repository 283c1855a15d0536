"""Token ids equal transformers' CLIPTokenizer on prompts made to go wrong."""
import json

import drawn_models
import golden_cases
import pytest
from golden_checks import Golden

from minisd.checkpoint.vocabulary import read_vocabulary
from minisd.errors import CheckpointError
from minisd.prompt.tokenizer import Tokenizer, packaged_vocabulary


def wrong_prompts(folder, pad, stored):
    drawn_models.write_tokenizer(folder, pad=pad)
    ids, _ = Tokenizer(**read_vocabulary(folder))(golden_cases.PROMPTS)
    return [p for p, a, b in zip(golden_cases.PROMPTS, ids, Golden("tokens")[stored]) if list(a) != list(b)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("tokenizer")
    drawn_models.write_tokenizer(place)
    return place


@pytest.mark.parametrize("stored, pad", [("plain", None), ("sd2", "!")])
def test_ids_equal_the_references(tmp_path, stored, pad):
    assert wrong_prompts(tmp_path, pad, stored) == []


def test_a_long_prompt_says_what_is_cut(folder):
    prompt = " ".join(f"cat{k}" for k in range(60))
    ids, (cut,) = Tokenizer(**read_vocabulary(folder))([prompt])
    assert ids.shape == (1, 77) and ids[0, 0] == 49406 and ids[0, 76] == 49407
    assert cut and prompt.endswith(cut)
    kept = Tokenizer(**read_vocabulary(folder))([prompt[:-len(cut)]])[1]
    assert kept == [""], "what is left over when the cut words go must fit"


def test_75_tokens_fit(folder):
    assert Tokenizer(**read_vocabulary(folder))(["cat " * 75])[1] == [""]
    assert Tokenizer(**read_vocabulary(folder))(["cat " * 76])[1] == ["cat"]


def test_the_text_encoders_length_limits(folder):
    ids, (cut,) = Tokenizer(**read_vocabulary(folder, length=8))(["one two three four five six seven"])
    assert ids.shape == (1, 8) and cut == "seven"


def test_a_length_without_bound_is_not_taken(folder, tmp_path):
    drawn_models.write_tokenizer(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**config, "model_max_length": 1000000000000000019884624838656}))
    assert Tokenizer(**read_vocabulary(tmp_path, length=77)).length == 77


def test_tokenizer_json_alone(folder, tmp_path):
    """What transformers 5 writes."""
    vocab, merges = packaged_vocabulary()
    (tmp_path / "tokenizer.json").write_text(json.dumps(
        {"model": {"type": "BPE", "vocab": vocab, "merges": merges}, "added_tokens": [
            {"id": 49406, "content": "<|startoftext|>"}, {"id": 49407, "content": "<|endoftext|>"}, {"id": 49408, "content": "<mine>"}]}))
    tokenizer = Tokenizer(**read_vocabulary(tmp_path))
    ids, _ = tokenizer(golden_cases.PROMPTS)
    assert ids.tolist() == Golden("tokens")["plain"].tolist()
    assert tokenizer(["a <mine> cat"])[0][0, :5].tolist() == [49406, 320, 49408, 2368, 49407]


@pytest.mark.parametrize("file, text", [
    ("vocab.json", '{"a": 1.5}'), ("vocab.json", '{"a": "1"}'), ("vocab.json", '{"a": null}'), ("merges.txt", "#version: 0.2\na b c\n"),
    ("special_tokens_map.json", '{"eos_token": 5}'), ("special_tokens_map.json", '{"eos_token": {"lstrip": true}}'),
    ("tokenizer_config.json", '{"added_tokens_decoder": {"49408": {"content": ["x"]}}}'),
    ("tokenizer_config.json", '{"added_tokens_decoder": {"49408": null}}')])
def test_a_token_a_merge_or_an_id_of_another_kind(tmp_path, file, text):
    """Said of the folder in our words, rather than later in those of the library that takes them."""
    drawn_models.write_tokenizer(tmp_path)
    (tmp_path / file).write_text(text)
    with pytest.raises(CheckpointError, match=f"{tmp_path.name}: no CLIP tokenizer, or a damaged one.*copy or download it again"):
        read_vocabulary(tmp_path)


def test_an_empty_folder_is_said_so(tmp_path):
    with pytest.raises(CheckpointError, match="expected vocab.json and merges.txt"):
        Tokenizer(**read_vocabulary(tmp_path))
