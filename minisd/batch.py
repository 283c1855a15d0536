"""Many pictures, from the rows of a table, in this process or on many machines: what `minisd batch` does.

A picture's file is its checkpoint: it is there complete or not at all, and whoever finds it does not draw it again.  So anything may be
killed at any time, and what is drawn twice is the same twice.  What runs where, and what runs again after a loss, is for Ray Data to know
(https://docs.ray.io/en/latest/data/data.html); without Ray, the same Draw works in this process."""
import json
import logging
import math
import os
import re
import socket
import time
from contextlib import suppress
from itertools import groupby

from PIL import Image

from .backend import threads
from .errors import InputError, MinisdError
from .image.folder import Folder
from .image.saving import save
from .loading import load
from .table import REPORT

OWN = ("prompt", "negative_prompt", "seed")                  # what pictures of one call may differ in
MOST_BLOCKS = 10_000                                         # pieces that Ray is given a table in


class Draw:
    """A loaded model that draws rows.  There is one in this process, or one in each of Ray's actors.

    model: arguments of load();  count: threads, None for all;  start: the folder that relative names of files begin in"""

    def __init__(self, task, folder, model, count, start):
        with suppress(FileNotFoundError):                    # a machine that has it not is given whole names
            os.chdir(start)
        if count is not None:
            threads.use(count)
        self.folder, self.pipe, self.task = Folder(folder), load(**model), task

    def __call__(self, rows):
        """Rows of table.check(), {column: [values]} -> likewise, of REPORT"""
        rows = [dict(zip(rows, map(str, values)), seconds=None, error=None) for values in zip(*rows.values())]
        for row in rows:
            row["given"] = json.loads(row["settings"])
            row.update(file=f"{self.folder.path}/{row['id']}.png", seed=row["given"]["seed"], node=socket.gethostname())
        for _, alike in groupby([row for row in rows if self.is_missing(row)], key=shared):
            self.draw(list(alike))
        return {name: [row[name] for row in rows] for name in REPORT}

    def is_missing(self, row):
        """Whether it is to be drawn.  What is there of another row stays, and is an error of this one."""
        try:
            with self.folder.open(f"{row['id']}.png") as file, Image.open(file) as picture:
                there = json.loads(picture.info["minisd"])["settings"].get("Row")
                what = "of another row"
        except FileNotFoundError:
            return True
        except Exception as e:                               # whatever else is there
            there, what = None, f"no picture of minisd's ({said(e)})"
        if there != row["row"]:
            row["error"] = f"{row['file']} is there, and is {what}; remove it, or name another folder"
        return False

    def draw(self, rows):
        """Rows that share their settings, in one call of the model; where that fails, each alone, so that an error is its own row's."""
        begun, own = time.perf_counter(), {name: [row["given"].get(name) for row in rows] for name in OWN}
        if own["negative_prompt"] == [None] * len(rows):
            own["negative_prompt"] = None
        try:
            pictures = getattr(self.pipe, self.task)(**{**rows[0]["given"], **own})
        except Exception as e:                               # whatever it is, the others go on, and the report has it
            if len(rows) > 1:
                return [self.draw([row]) for row in rows]
            rows[0]["error"] = said(e)
            return
        for row, picture in zip(rows, pictures):
            note = json.loads(picture.info["minisd"])
            note["settings"]["Row"] = row["row"]
            picture.info["minisd"] = json.dumps(note)
            try:
                self.folder.put(f"{row['id']}.png", lambda path: save(path, picture))
                row["seconds"] = (time.perf_counter() - begun) / len(rows)
            except Exception as e:
                row["error"] = said(e)


def said(e):
    """An error in words."""
    return str(e) if isinstance(e, MinisdError) else f"{type(e).__name__}: {e}"


def shared(row):
    """The settings that it must share with another to be drawn in one call with it, as text."""
    given = row["given"]
    return json.dumps([given.get("negative_prompt") is None, {k: v for k, v in given.items() if k not in OWN}], sort_keys=True)


def here(rows, draw, together):
    """Draw rows in this process, so many in a call -> yields dicts of REPORT.  draw: Draw's arguments"""
    draw = Draw(**draw)
    for k in range(0, len(rows), together):
        some = rows[k:k + together]
        made = draw({name: [row[name] for row in some] for name in some[0]})
        yield from (dict(zip(made, values)) for values in zip(*made.values()))


def by_ray(rows, draw, together, workers, address, gpus):
    """The same by actors of Ray -> yields dicts of REPORT.

    draw: as for here(); a count of None is an actor's share of this machine, of a cluster all processors of its smallest one
    workers: how many actors at most, None for as many as there is room for;  address: of a cluster, None for this machine
    gpus: of each actor"""
    try:
        import ray
        import ray.data
    except ImportError:
        raise InputError("more than one worker needs Ray: pip install 'minisd[ray]'") from None
    place = re.fullmatch(r"(?:ray://)?(.+):(\d+)", address or "")
    try:
        if place:                                            # Ray would wait for a quarter of an hour
            socket.create_connection(place.groups(), timeout=10).close()
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        ray.init(address or "local", log_to_driver=False, logging_level="error")
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
        least = int(min(node["CPU"] for node in nodes))
        count = draw["count"] or max(1, least if address else least // workers)
        room = sum(int(min(node["CPU"] // count, node.get("GPU", 0) // gpus if gpus else math.inf)) for node in nodes)
        if not room:
            raise InputError(f"no machine has {count} processors{' and a GPU' if gpus else ''} for a worker")
        pool = ray.data.ActorPoolStrategy(min_size=1, max_size=workers, initial_size=min(room, workers or room))
        ray.data.DataContext.get_current().enable_progress_bars = False
        data = ray.data.from_items(rows, override_num_blocks=min(-(-len(rows) // together), MOST_BLOCKS))
        yield from data.map_batches(Draw, fn_constructor_kwargs=draw | dict(count=count), batch_size=together, compute=pool, num_cpus=count,
                                    num_gpus=gpus or None).iter_rows()
    except (ray.exceptions.RayError, OSError) as e:
        raise InputError(f"Ray{f' at {address}' if address else ''}: {str(e).strip().splitlines()[-1]}") from e
    finally:
        ray.shutdown()
