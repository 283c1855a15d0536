"""Files of a model, edited: what tests of odd and damaged files are made with."""
import json

from safetensors.numpy import load_file, save_file


def change(path, edit):
    """Rewrite a safetensors file after edit(arrays)."""
    arrays = load_file(path)
    edit(arrays)
    save_file(arrays, path)


def change_json(path, **values):
    """Set these keys of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
