"""Textual inversion: a word of one's own, as vectors that stand in a prompt where tokens' vectors do.   Gal et al. 2022, section 4."""
from pathlib import Path

import numpy as np

from .checkpoint import TensorFiles, refuse_pickle
from .errors import CheckpointError, InputError


def read(path, token=None):
    """-> (token, vectors (n,D) float32), the token being the one asked for, or the file's, or the file's name.

    diffusers' files hold one array under the token's name, AUTOMATIC1111's one called emb_params.
    Raises InputError if there is no such file, CheckpointError for a file of another kind."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    refuse_pickle(path)
    tensors = TensorFiles([path])
    if {"clip_l", "clip_g"} & set(tensors):
        raise CheckpointError(f"{path}: a textual inversion for Stable Diffusion XL, which minisd does not run")
    names = [n for n in tensors if len(tensors.shape(n)) in (1, 2)]
    if len(tensors) != 1 or not names:
        raise CheckpointError(f"{path}: no textual inversion: it holds {len(tensors)} arrays, such as {next(iter(tensors), 'none')}; "
                              "one of them, of one or two dimensions, was expected")
    vectors = tensors[names[0]].astype(np.float32)
    return token or (path.stem if names[0] == "emb_params" else names[0]), vectors.reshape(-1, vectors.shape[-1])


def add(component, tokenizer, path, token=None):
    """Teach a text encoder's component and its tokenizer the word of a file -> the word.

    Raises what read() does, and CheckpointError if the vectors are of another model's width or the word is known already."""
    token, vectors = read(path, token)
    if vectors.shape[1] != component.config.width:
        raise CheckpointError(f"{path}: vectors of {vectors.shape[1]} numbers; this model's text encoder has {component.config.width}: "
                              "it was made for another model")
    component.rows.update(zip(tokenizer.learn(token, len(vectors)), vectors))
    return token
