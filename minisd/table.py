"""Tables: of the pictures to draw, a row for each, read and checked before anything is drawn; and of what became of them.

The columns of the first are the arguments of a task of Pipeline's, by name, with `id`, what the picture is to be called."""
import csv
import hashlib
import io
import json
import re
from collections import Counter
from pathlib import Path

import fsspec

from .errors import InputError, MinisdError
from .image import saving
from .pipeline import Pipeline

REPORT = ("id", "file", "seed", "seconds", "node", "error")  # the columns of the second
TEXTS = {"id", "prompt", "negative_prompt", "prompt_2", "negative_prompt_2", "sampler", "sigmas", "timestep_spacing", "prompt_syntax",
         "rng", "image", "mask_image", "depth_map", "control_image"}   # whose cells are texts as they stand
REFUSED = {"output": "rows are written as files", "progress": "the run has one bar", "num_images": "a row is one picture",
           "latents": "a table holds no arrays", "shared_generator": "a row is one picture"}


class Dry(Pipeline):
    """One whose tasks check what they are given, and compute nothing."""

    def make(self, task, prompt, negative_prompt, settings, output, progress, size=None, notes=None):
        self.prepare(task, prompt, negative_prompt, settings, size)


def read(table):
    """A .csv, .jsonl or .parquet file -> yields (where a row stands, {column: value}), or in place of these an InputError."""
    kind = Path(table).suffix.lower()
    if kind not in (".csv", ".jsonl", ".parquet"):
        raise InputError(f"{table}: a table is a .csv, .jsonl or .parquet file")
    try:
        with fsspec.open(table, "rb") as file:
            if kind == ".parquet":
                yield from of_parquet(file)
            else:
                with io.TextIOWrapper(file, "utf-8-sig", newline="") as text:
                    yield from (of_csv if kind == ".csv" else of_jsonl)(text)
    except (OSError, ImportError, ValueError) as e:
        raise InputError(f"{table}: {getattr(e, 'strerror', None) or e}") from e


def of_csv(file):
    csv.field_size_limit(1 << 24)
    lines = csv.reader(file, strict=True)
    try:
        names = next(lines, [])
        if len(set(names)) < len(names):
            raise InputError(f"two columns are called {Counter(names).most_common(1)[0][0]!r}")
        while True:
            where = f"line {lines.line_num + 1}"
            cells = next(lines, None)
            if cells is None:
                return
            if len(cells) > len(names):
                yield where, InputError(f"{len(cells)} cells, where the first line has {len(names)}; a text with commas stands in quotes")
            elif cells:
                yield where, {name: cell if name in TEXTS else plain(cell) for name, cell in zip(names, cells) if cell}
    except csv.Error as e:
        raise InputError(f"line {lines.line_num}: {e}") from e


def plain(cell):
    """What a cell says, as JSON has it: a number, true, [512, 512]; else the text."""
    try:
        return json.loads(cell.lower() if cell.lower() in ("true", "false") else cell)
    except (ValueError, RecursionError):
        return cell


def of_jsonl(file):
    for k, line in enumerate(file, 1):
        try:
            found = json.loads(line) if line.strip() else None
        except (ValueError, RecursionError) as e:
            yield f"line {k}", InputError(f"no JSON: {e}")
            continue
        if isinstance(found, dict):
            yield f"line {k}", {name: value for name, value in found.items() if value is not None}
        elif line.strip():
            yield f"line {k}", InputError(f"{line.strip():.40} is no object of columns, such as {{\"prompt\": \"a cat\"}}")


def of_parquet(file):
    try:
        import pyarrow.parquet
    except ImportError:
        raise InputError("reading parquet needs pyarrow: pip install 'minisd[ray]'") from None
    try:
        rows = pyarrow.parquet.read_table(file).to_pylist()
    except (pyarrow.ArrowException, ValueError) as e:
        raise InputError(str(e)) from e
    for k, row in enumerate(rows, 1):
        yield f"row {k}", {name: v for name, v in row.items() if v is not None and v == v}       # NaN is how pandas says None


def check(rows, pipe, task):
    """-> (what Draw is given, one for each row that can be drawn; [(where, id, error)] of the others).

    A row without a seed has one that is made of all it says, and so has its id; the second of two that say the same counts as another."""
    jobs, refused, said, taken = [], [], Counter(), {}
    for where, found in rows:
        name = None
        try:
            if isinstance(found, InputError):
                raise found
            given = {k: int(v) if isinstance(v, float) and v.is_integer() else v for k, v in found.items()}     # as pandas writes gaps
            name = given.pop("id", None)
            for column in REFUSED.keys() & given.keys():
                raise InputError(f"there can be no column {column!r}: {REFUSED[column]}")
            for column in ("prompt", "negative_prompt", "seed"):
                if isinstance(given.get(column), list):
                    raise InputError(f"{column} is {given[column]!r:.60}; it must be one, for a row is one picture")
            try:
                row = json.dumps([task, given], sort_keys=True)
            except (TypeError, ValueError) as e:
                raise InputError(f"it holds what is neither text nor number: {e}") from e
            said[row] += 1
            digest = hashlib.sha256(f"{said[row]} {row}".encode()).hexdigest()
            name = digest[:16] if name is None else str(name)
            if not re.fullmatch(r"\w[\w .-]*", name) or len(name.encode()) > 200 or name.casefold() == "report":
                raise InputError(f"id {name!r:.60} is no name for a file: use letters, digits, '_', '-', '.' and spaces")
            if name.casefold() in taken:
                raise InputError(f"id {name!r} is that of {taken[name.casefold()]} already")
            given.setdefault("seed", int(digest[:8], 16))
            getattr(Dry(pipe.model), task)(**given)
            taken[name.casefold()] = where
            jobs.append(dict(id=name, row=digest[:32], settings=json.dumps(given)))
        except MinisdError as e:
            refused.append((where, None if name is None else str(name), str(e)))
    return jobs, refused


def write_report(folder, results):
    """What became of each row, dicts of REPORT, as a file of a Folder: report.parquet, or report.csv where pyarrow is not installed
    -> its whole name"""
    try:
        import pyarrow.parquet
    except ImportError:
        text = io.StringIO(newline="")
        lines = csv.DictWriter(text, REPORT)
        lines.writeheader()
        lines.writerows(results)
        return folder.put("report.csv", lambda path: saving.write(path, lambda file: file.write(text.getvalue().encode())))
    kinds = dict.fromkeys(REPORT, pyarrow.string()) | dict(seed=pyarrow.int64(), seconds=pyarrow.float64())
    if any(abs(result["seed"] or 0) >= 2**63 for result in results):         # seeds are from -2^63 to 2^64 - 1
        kinds["seed"] = pyarrow.decimal128(20)
    found = pyarrow.Table.from_pylist(results, pyarrow.schema(kinds))
    return folder.put("report.parquet", lambda path: saving.write(path, lambda file: pyarrow.parquet.write_table(found, file)))
