"""minisd batch: from a table to a folder of images, and what is said meanwhile and at the end."""
import os
import sys
import time

from tqdm import tqdm

from ..batch import by_ray, here
from ..errors import InputError, printable
from ..image.folder import Folder
from ..loading import load
from ..settings import suggestion
from ..table import REPORT, check, read, write_report
from .options import TASKS
from .paint import loading
from .terminal import show


def batch(a):
    """Its exit code is 1 where a row failed, or could not be drawn at all and --skip-bad does not say to leave it."""
    if a.task not in TASKS:
        raise InputError(f"--task {a.task}: there are {', '.join(TASKS)}{suggestion(a.task, TASKS)}")
    for option, value in (("--workers", a.workers), ("--together", a.together)):
        if value is not None and value < 1:
            raise InputError(f"{option} is {value}; it must be 1 or more")
    rows, refused = check(read(a.table), load(**loading(a)), a.task)
    for where, _, error in refused:
        print(printable(f"minisd: {a.table}: {where}: {error}"), file=sys.stderr)
    if refused and not a.skip_bad:
        raise InputError(f"{a.table}: {len(refused)} of {len(rows) + len(refused)} rows cannot be drawn, see above, and none was; "
                         "mend them, or leave them out with --skip-bad")
    if not rows:
        raise InputError(f"{a.table}: there is no row to draw")
    folder, draw = Folder(a.output), dict(task=a.task, folder=a.output, model=loading(a), count=a.threads, start=os.getcwd())
    if a.workers in (None, 1) and a.ray is None:
        made = here(rows, draw, a.together)
    else:
        made = by_ray(rows, draw, a.together, a.workers, a.ray, int(a.device != "cpu"))
    found = {result["id"]: result for result in watched(made, len(rows), a.quiet)}
    results = [found[row["id"]] for row in rows]
    failed, drawn = ([r for r in results if r[what] is not None] for what in ("error", "seconds"))
    for result in failed:
        print(printable(f"minisd: error: {result['file']}: {result['error']}"), file=sys.stderr)
    results += [dict.fromkeys(REPORT) | dict(id=name, error=f"{where}: {error}") for where, name, error in refused]
    name = write_report(folder, results)
    there = len(rows) - len(drawn) - len(failed)
    show(f"{a.output}: {len(drawn)} drawn, {there} there before, {len(failed) + len(refused)} not drawn; {name} has a row for each")
    return 1 if failed else 0


def watched(made, total, quiet):
    """The results as they come, with a bar of them."""
    begun, drawn, failed = time.monotonic(), 0, 0
    with tqdm(total=total, disable=quiet, unit="image", bar_format="{l_bar}{bar}| {n}/{total} [{elapsed}<{remaining}{postfix}]") as bar:
        for result in made:
            drawn += result["seconds"] is not None
            failed += result["error"] is not None
            bar.set_postfix_str(f"{drawn / (time.monotonic() - begun) * 60:.3g} a minute" + (f", {failed} failed" if failed else ""), False)
            bar.update()
            yield result
