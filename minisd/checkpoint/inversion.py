"""Textual inversion: a word of one's own, as vectors that stand in a prompt where tokens' vectors do.   Gal et al. 2022, section 4."""
import numpy as np

from ..errors import CheckpointError, InputError
from .files import TensorFiles, as_path, refuse_pickle
from .kinds import WORD, explained, kind

SETS = {"clip_l": 0, "clip_g": 1}                            # in files for Stable Diffusion XL: the text encoder


def read(path, token=None):
    """-> (token, {text encoder: vectors (n,D) float32}), the token being the one asked for, or the file's, or the file's name.

    diffusers' files hold one array under the token's name, AUTOMATIC1111's one called emb_params, those for Stable Diffusion XL
    clip_l and clip_g.  Raises InputError if there is no such file, CheckpointError for a file of another kind."""
    path = as_path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if not isinstance(token, (str, type(None))):
        raise InputError(f"the word of {path} is {token!r}; it must be a string")
    refuse_pickle(path)
    tensors = TensorFiles([path])
    names = [n for n in tensors if len(tensors.shape(n)) in (1, 2) and 0 not in tensors.shape(n)]
    both = set(tensors) == set(SETS)
    if not names or len(tensors) != 1 and not both or len(names) != len(tensors) or \
            kind(tensors) != WORD:
        raise CheckpointError(f"{path}: no textual inversion: it holds {len(tensors)} arrays, such as {next(iter(tensors), 'none')}; "
                              f"one of them, of one or two dimensions, was expected; {explained(tensors)}")
    arrays = {SETS[n] if both else 0: tensors[n].astype(np.float32) for n in names}
    vectors = {i: a.reshape(-1, a.shape[-1]) for i, a in arrays.items()}
    if len({len(v) for v in vectors.values()}) != 1:
        raise CheckpointError(f"{path}: damaged: clip_l and clip_g are of {' and '.join(str(len(v)) for v in vectors.values())} vectors")
    return token or (path.stem if both or names[0] in ("emb_params", *SETS) else names[0]), vectors


def add(components, tokenizers, path, token=None):
    """Teach a model's text encoders and their tokenizers the word of a file -> the word.

    Raises what read() does, and CheckpointError if the vectors are of another model's width or the word is known already."""
    token, vectors = read(path, token)
    if set(vectors) == {0, 1} and len(components) == 1 and components[0].name == "text_encoder_2":
        vectors = {0: vectors[1]}                            # the refiner has the second alone
    if len(vectors) != len(components):
        raise CheckpointError(f"{path}: made for {'Stable Diffusion XL' if len(vectors) == 2 else 'Stable Diffusion 1 or 2'}, "
                              f"with {len(vectors)} text encoders; this model has {len(components)}")
    for i, component in enumerate(components):
        if vectors[i].shape[1] != component.config.width:
            raise CheckpointError(f"{path}: vectors of {vectors[i].shape[1]} numbers; this model's text encoder has "
                                  f"{component.config.width}: it was made for another model")
    for i, (component, tokenizer) in enumerate(zip(components, tokenizers)):
        component.rows.update(zip(tokenizer.learn(token, len(vectors[i])), vectors[i]))
    return token
