"""Where a model is: a path, the one that comes with minisd, or a repository of the Hugging Face hub, fetched into its cache."""
import re
from pathlib import Path

from ..errors import InputError, listed
from .files import STEMS, as_path, refuse_pickle

TIMEOUT = 5                                                  # seconds to wait for the hub's list of a repository's files
SHIPPED = Path(__file__).parent.parent / "models" / "icons"       # the model that comes with minisd


def find_folder(model, variant=None):
    """A path stays what it is, None is the shipped model; a hub id (owner/name) is fetched into the hub's cache, what minisd
    reads of it alone.  Raises InputError if there is no such thing, CheckpointError if the hub has pickles alone."""
    return SHIPPED if model is None else find(model, lambda names: wanted_files(names, variant))


def find_part(path):
    """The same for one network's folder or file: a ControlNet's or a vae's, which may be a repository of its own."""
    return find(path, lambda names: [n for n in names if n in ("config.json", "diffusion_pytorch_model.safetensors")])


def find(model, wanted):
    """A path, or a hub id's files of wanted(names of all), fetched."""
    path = as_path(model)
    if path.exists():
        return path
    if not re.fullmatch(r"[a-zA-Z0-9_][\w.-]{0,95}/[a-zA-Z0-9_][\w.-]{0,95}", str(model), re.ASCII) or path.suffix == ".safetensors":
        raise InputError(f"{model}: no such file or folder, and no hub id, which is owner/name")
    if path.parent.is_dir():
        there = listed(sorted(p.name for p in path.parent.iterdir()))
        raise InputError(f"{model}: no such file or folder; {path.parent} holds {there or 'nothing'}")
    import huggingface_hub  # here, since importing it costs as much as all the rest
    try:
        names = [file.rfilename for file in huggingface_hub.HfApi().repo_info(str(model), timeout=TIMEOUT).siblings]
    except Exception as e:                                   # whatever its network layer raises; the cache may have the model
        try:
            return Path(huggingface_hub.snapshot_download(str(model), local_files_only=True))
        except Exception:                                    # nothing in the cache: what the hub said counts
            reason = (str(e).strip() or type(e).__name__).split("\n")[0]
            raise InputError(f"{model}: no such folder here, and not to be had from the hub ({reason}); "
                             "check the name and the network") from e
    files = wanted(names)
    for part in sorted({"", *(n.rpartition("/")[0] for n in names)} & {"", *STEMS}):
        here = [n for n in names if n.rpartition("/")[0] == part]
        if part and not any(n in files and ".safetensors" in n for n in here) or not files:
            refuse_pickle(*map(Path, here))
    if not files:
        raise InputError(f"{model}: this repository holds nothing that minisd reads in this place, only {', '.join(names[:5])}")
    try:
        return Path(huggingface_hub.snapshot_download(str(model), allow_patterns=files))
    except Exception as e:
        raise InputError(f"{model}: fetching it from the hub failed ({str(e).strip() or type(e).__name__}); try again") from e


def wanted_files(names, variant=None):
    """Of a repository's files, those that minisd reads: each network's weights once, in one variant."""
    wanted = [n for n in names if re.fullmatch(
        r"model_index\.json|words\.txt|(tokenizer(_2)?|(low_res_)?scheduler)/[\w.]+\.(json|txt)|"
        r"(text_encoder(_2)?|unet|vae)/config\.json", n)]
    for part, stem in STEMS.items():
        weights = [n for n in names if n.startswith(f"{part}/{stem}") and re.search(r"\.safetensors(\.index.*\.json)?$", n)]
        for v in [variant] if variant else ["", "fp16"]:
            mark = rf"\.{re.escape(v)}" if v else ""
            found = [n for n in weights if re.fullmatch(
                rf"{part}/{stem}(({mark}(-\d+-of-\d+)?)|((-\d+-of-\d+)?{mark}))\.safetensors|"
                rf"{part}/{stem}\.safetensors\.index{mark}\.json", n)]
            if found:
                wanted += found
                break
    return wanted
