"""Many pictures over several of Ray's nodes, here processes of one machine: nothing lost, nothing else drawn, whatever is killed.

Skipped without Ray; `pip install '.[ray]'` brings it, and CI does."""
import json
import os
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager

import pytest

try:
    from ray.cluster_utils import Cluster
except ImportError:
    Cluster = None

pytestmark = [pytest.mark.skipif(Cluster is None, reason="pip install '.[ray]' brings Ray; CI has it and runs this"),
              pytest.mark.filterwarnings("ignore"), pytest.mark.xdist_group("ray")]
HOW = dict(num_inference_steps=1)
# Into every process of a run: each picture that is written is told of in a file; and a machine's disk may be full.
SPY = """
import os
if os.environ.get("DRAWN"):
    from minisd.image import saving
    save, sync = saving.save, os.fsync
    def told(path, image):
        save(path, image)
        with open(os.environ["DRAWN"], "a") as file:
            file.write(f"{os.path.basename(path)} {os.getpid()}\\n")
    def full(number):
        raise OSError(28, "No space left on device")
    saving.save = told
    if os.environ.get("FULL"):
        os.fsync = full
"""


def lines(tmp_path):
    return (tmp_path / "drawn.txt").read_text().splitlines()


@pytest.fixture
def spied(tmp_path, monkeypatch):
    """drawn() -> how often each picture was written so far"""
    (tmp_path / "sitecustomize.py").write_text(SPY)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]]))
    monkeypatch.setenv("DRAWN", str(tmp_path / "drawn.txt"))
    (tmp_path / "drawn.txt").write_text("")
    return lambda: Counter(line.split()[0] for line in lines(tmp_path))


def table(path, count, **how):
    path.write_text("".join(json.dumps(dict(HOW, id=f"{k:03}", prompt=f"a red apple {k % 7}", seed=k, **how)) + "\n" for k in range(count)))
    return path


def start(rows, folder, *options):
    return subprocess.Popen([sys.executable, "-m", "minisd", "batch", str(rows), "-o", str(folder), "--quiet", *map(str, options)],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process):
    out, err = process.communicate(timeout=400)
    return process.returncode, out, err


def pictures(folder):
    return {p.name: p.read_bytes() for p in folder.glob("*.png")}


def wait_for(folder, count, process):
    begun = time.monotonic()
    while len(list(folder.glob("*.png"))) < count:
        assert process.poll() is None and time.monotonic() - begun < 300, ended(process)
        time.sleep(0.05)


@contextmanager
def cluster():
    """A head without processors, to which nodes are added."""
    found = Cluster(initialize_head=True, head_node_args=dict(num_cpus=0))
    try:
        yield found
    finally:
        found.shutdown()


def test_a_node_is_lost_and_another_comes(tmp_path, spied):
    rows, folder = table(tmp_path / "rows.jsonl", 200), tmp_path / "pictures"
    assert ended(start(rows, tmp_path / "alone", "--threads", 1))[0] == 0
    before = spied()
    with cluster() as found:
        lost = [found.add_node(num_cpus=1) for _ in range(2)][1]
        process = start(rows, folder, "--ray", found.address)
        wait_for(folder, 60, process)
        found.remove_node(lost, allow_graceful=False)
        before_it_came = len(lines(tmp_path))
        found.add_node(num_cpus=1)
        code, out, err = ended(process)
    assert code == 0 and "minisd: " not in err, err
    assert len(pictures(folder)) == 200 and pictures(folder) == pictures(tmp_path / "alone")
    assert max((spied() - before).values()) <= 2
    written = [line.split()[1] for line in lines(tmp_path)]
    earlier, later = set(written[200:before_it_came]), set(written[before_it_came:])
    assert later - earlier, "the node that came drew nothing: there was room for no other worker than on it"
    import pyarrow.parquet
    report = pyarrow.parquet.read_table(folder / "report.parquet").to_pylist()
    assert [row["id"] for row in report] == [f"{k:03}" for k in range(200)] and not any(row["error"] for row in report)


def test_the_driver_is_killed(tmp_path, spied):
    rows, folder = table(tmp_path / "rows.jsonl", 40, sampler="ddim"), tmp_path / "pictures"
    process = start(rows, folder, "--workers", 2)
    wait_for(folder, 8, process)
    process.kill()
    process.communicate()
    time.sleep(3)                                            # what it had begun ends with it, or a little later
    there, before = pictures(folder), spied()
    assert 8 <= len(there) < 40
    code, out, err = ended(start(rows, folder, "--workers", 2))
    assert code == 0 and f"{40 - len(there)} drawn, {len(there)} there before" in out, err
    assert len(pictures(folder)) == 40 and set(spied() - before) == set(pictures(folder)) - set(there)
    assert all(pictures(folder)[name] == data for name, data in there.items())


def test_a_node_with_a_full_disk(tmp_path, spied):
    """Its rows have the error; the others are drawn, and its own by the next run."""
    rows, folder = table(tmp_path / "rows.jsonl", 30), tmp_path / "pictures"
    with cluster() as found:
        found.add_node(num_cpus=1)
        found.add_node(num_cpus=1, env_vars=dict(FULL="1"))
        code, out, err = ended(start(rows, folder, "--ray", found.address))
    full = err.count("the disk is full; nothing was written")
    assert code == 1 and 0 < full < 30 and len(pictures(folder)) == 30 - full, (code, out, err)
    assert f"{30 - full} drawn, 0 there before, {full} not drawn" in out
    code, out, _ = ended(start(rows, folder))
    assert code == 0 and f"{full} drawn, {30 - full} there before" in out


def test_a_model_that_a_node_does_not_have(tmp_path, sd1_copy, spied):
    """The error of the worker is what is said."""
    rows = table(tmp_path / "rows.jsonl", 3)
    (tmp_path / "sitecustomize.py").write_text("import os, shutil, sys\n"
                                               f"if 'default_worker' in sys.argv[0]: shutil.rmtree({str(sd1_copy)!r}, ignore_errors=True)")
    code, _, err = ended(start(rows, tmp_path / "pictures", "--workers", 2, "-m", sd1_copy))
    assert code == 1 and "minisd: error: Ray: " in err and "copy" in err.splitlines()[-1], err


@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://127.0.0.1:9", "auto", "nowhere.invalid:6379"])
def test_a_cluster_that_is_not_there(tmp_path, address, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    code, _, err = ended(start(table(tmp_path / "rows.jsonl", 3), tmp_path / "pictures", "--ray", address))
    assert code == 1 and f"minisd: error: Ray at {address}: " in err and "Traceback" not in err, err
