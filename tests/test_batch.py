"""Many pictures from a table, in this process: what is read, what is refused, and that nothing is drawn twice or lost."""
import csv
import errno
import json
import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

import minisd
from minisd import batch, table
from minisd.cli import main as cli
from minisd.errors import InputError
from minisd.image.folder import Folder

HOW = dict(num_inference_steps=2, width=64, height=64)


@pytest.fixture
def run(sd1_folder, tmp_path, capsys, monkeypatch):
    """run(table, *options) -> (exit code, standard output, standard error), with pictures into tmp_path/pictures"""
    monkeypatch.chdir(tmp_path)

    def run(name, *options):
        code = cli.main(["batch", str(name), "-o", "pictures", "-m", str(sd1_folder), "--quiet", *map(str, options)])
        return code, *capsys.readouterr()
    return run


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def pictures(tmp_path):
    return {p.name: p.read_bytes() for p in (tmp_path / "pictures").glob("*.png")}


def reported(tmp_path, name="report.csv"):
    with open(tmp_path / "pictures" / name, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def without_pyarrow(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)


def test_rows_are_txt2imgs_pictures(run, tmp_path, sd1, without_pyarrow):
    """With the columns by Python's names; what a cell leaves out is at its default."""
    (tmp_path / "rows.csv").write_bytes("\ufeffid,prompt,negative_prompt,seed,num_inference_steps,width,height,sampler,eta\r\n"
                                        "one,\"a cat, sitting\",blurry,3,2,64,64,euler,\r\ntwo,7,,,2.0,64,64,ddim,0.5\r\n".encode())
    begun = time.perf_counter()
    code, out, err = run("rows.csv")
    took = time.perf_counter() - begun
    assert code == 0 and "2 drawn, 0 there before, 0 not drawn" in out
    one, two = (Image.open(tmp_path / "pictures" / f"{name}.png") for name in ("one", "two"))
    expected = sd1.txt2img("a cat, sitting", "blurry", seed=3, sampler="euler", **HOW)
    assert np.array_equal(np.asarray(one), np.asarray(expected)) and one.info["parameters"] == expected.info["parameters"]
    rows = reported(tmp_path)
    row = rows[1]
    assert np.array_equal(np.asarray(two), np.asarray(sd1.txt2img("7", seed=int(row["seed"]), sampler="ddim", eta=0.5, **HOW)))
    assert row["id"] == "two" and row["file"].endswith("pictures/two.png") and not row["error"]
    assert 0 < sum(float(row["seconds"]) for row in rows) < took
    for picture in (one, two):
        picture.close()


def test_the_same_command_again_draws_what_is_missing(run, tmp_path, monkeypatch):
    rows = jsonl(tmp_path / "rows.jsonl", [dict(HOW, prompt="a cat"), dict(HOW, prompt="a cat"), dict(HOW, prompt="a dog", seed=5)])
    run(rows)
    before = pictures(tmp_path)
    assert len(before) == 3 and len(set(before.values())) == 3, "two rows that say the same are two pictures"
    (tmp_path / "pictures" / min(before)).unlink()
    drawn, draw = [], batch.Draw.draw
    monkeypatch.setattr(batch.Draw, "draw", lambda self, rows: drawn.extend(rows) or draw(self, rows))
    code, out, _ = run(rows)
    assert code == 0 and "1 drawn, 2 there before, 0 not drawn" in out
    assert [row["id"] + ".png" for row in drawn] == [min(before)] and pictures(tmp_path) == before


def test_a_picture_of_another_row_is_neither_taken_nor_overwritten(run, tmp_path):
    run(jsonl(tmp_path / "rows.jsonl", [dict(HOW, id="a", prompt="a cat"), dict(HOW, id="b", prompt="a cow")]))
    Image.new("RGB", (8, 8)).save(tmp_path / "pictures" / "c.png")
    (tmp_path / "pictures" / "d.png").write_bytes(b"no picture")
    before = pictures(tmp_path)
    code, out, err = run(jsonl(tmp_path / "rows.jsonl", [dict(HOW, id=name, prompt="a dog") for name in "abcde"]))
    assert code == 1 and "1 drawn, 0 there before, 4 not drawn" in out
    assert err.count("is there, and is of another row; remove it") == 2 and err.count("is no picture of minisd's (") == 2
    after = pictures(tmp_path)
    assert {name: after[name] for name in before} == before and len(after) == 5


def test_bad_rows_are_named_all_at_once(run, tmp_path):
    """Before anything is drawn, by line; with --skip-bad the others are drawn."""
    rows = tmp_path / "rows.csv"
    rows.write_text("id,prompt,num_inference_steps,seed,widht\na,a cat,0,,\n\nb,\"two\nlines\",2,x,\na,a cat,2,1,\na,a cat,2,1,\n"
                    "c,,2,1,\nd,a cat,2,1,64\n../e,a cat,2,1,\nf,a cat,2,1,,,\nreport,a cat,2,1,\n")
    code, out, err = run(rows)
    assert code == 1 and not (tmp_path / "pictures").exists()
    for line in ("line 2: num_inference_steps is 0", "line 4: seed is 'x'", "line 7: id 'a' is that of line 6 already",
                 "line 8: txt2img: missing a required argument: 'prompt'",
                 "line 9: txt2img takes no 'widht'; did you mean 'width'?", "line 10: id '../e' is no name for a file",
                 "line 11: 7 cells, where the first line has 5", "line 12: id 'report' is no name for a file",
                 "8 of 9 rows cannot be drawn, see above, and none was"):
        assert line in err, line
    code, out, err = run(rows, "--skip-bad")
    assert code == 0 and "1 drawn, 0 there before, 8 not drawn" in out and list(pictures(tmp_path)) == ["a.png"]


@pytest.mark.parametrize("text, message", [
    ("", "there is no row to draw"), ("prompt\n", "there is no row to draw"), ("prompt,prompt\na,b\n", "two columns are called 'prompt'"),
    ('prompt\n"a\n', "line 2: unexpected end of data"), ("prompt\n\"a\"b\n", "line 2: ',' expected after '\"'"),
    ("prompt,latents\na cat,1\n", "no column 'latents': a table holds no arrays"),
    ("prompt,num_images\na cat,2\n", "no column 'num_images': a row is one picture"), ("id\na\n", "missing a required argument: 'prompt'"),
    ("prompt,seed\na cat," + "[" * 100_000 + "\n", "seed is '[[["), ("prompt,seed\na cat,1e999\n", "seed is inf"),
    ("prompt,seed\na cat,0.5\n", "seed is 0.5"), ("prompt,guess_mode\na cat,yes\n", "guess_mode is 'yes'; it must be True or False"),
    ("prompt,image\na cat,none.png\n", "txt2img takes no 'image'")])
def test_tables_that_are_none(run, tmp_path, text, message):
    (tmp_path / "rows.csv").write_text(text)
    code, _, err = run("rows.csv")
    assert code == 1 and message in err and "Traceback" not in err


@pytest.mark.parametrize("line, message", [
    ("{", "line 2: no JSON: "), ("[1]", "line 2: [1] is no object of columns"), ('{"prompt": 5}', "line 2: prompt is 5"),
    ('{"prompt": "a", "seed": [1, 2]}', "line 2: seed is [1, 2]; it must be one"), ('{"prompt": ["a", "b"]}', "a row is one picture"),
    ('{"prompt": "a", "id": {"a": 1}}', "line 2: id"), ('{"prompt": "a\\ud800"}', "line 2: "), ('{"prompt": "a", "": 1}', "takes no ''")])
def test_lines_that_are_no_rows(run, tmp_path, line, message):
    (tmp_path / "rows.jsonl").write_text(json.dumps(dict(HOW, prompt="a cat")) + "\n" + line + "\n\n")
    code, _, err = run("rows.jsonl")
    assert code == 1 and message in err and "1 of 2 rows" in err and "Traceback" not in err


@pytest.mark.parametrize("name, message", [("rows.txt", "is a .csv, .jsonl or .parquet file"), ("none.csv", "No such file"),
                                           ("latin.csv", "can't decode"), ("nul.csv", "line 2: "), (".csv", ".csv, .jsonl or .parquet"),
                                           ("nowhere://a.csv", "Protocol not known")])
def test_files_that_are_no_tables(run, tmp_path, name, message):
    (tmp_path / "latin.csv").write_bytes("prompt\nein Bär\n".encode("latin-1"))
    (tmp_path / "nul.csv").write_bytes(b'prompt\n"a\0\n')
    code, _, err = run(name)
    assert code == 1 and message in err and "Traceback" not in err, err


def test_other_tasks(run, tmp_path, sd1):
    """image and mask_image are files' names, from the current folder on."""
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(tmp_path / "x.png")
    Image.fromarray(np.eye(64, dtype=np.uint8) * 255).save(tmp_path / "mask.png")
    (tmp_path / "rows.csv").write_text("id,prompt,image,mask_image,strength,num_inference_steps,seed\na,a cat,x.png,mask.png,1.0,2,4\n"
                                       "b,a cat,x.png,none.png,1.0,2,4\n")
    code, _, err = run("rows.csv", "--task", "inpaint", "--skip-bad")
    assert code == 0 and "line 3: " in err and "none.png" in err
    with Image.open(tmp_path / "pictures" / "a.png") as picture:
        expected = sd1.inpaint("a cat", str(tmp_path / "x.png"), str(tmp_path / "mask.png"), seed=4, num_inference_steps=2)
        assert np.array_equal(np.asarray(picture), np.asarray(expected))
    assert run("rows.csv", "--task", "inpain")[2].endswith("did you mean 'inpaint'?\n")


def test_rows_of_the_same_settings_together(run, tmp_path, monkeypatch):
    """In one call of the model, within rounding of each alone; others by themselves, and none of them twice."""
    rows = [dict(HOW, id=f"{k}", prompt=f"a {k}", seed=k) for k in range(3)]
    rows += [dict(HOW, id="3", prompt="b", seed=7, guidance_scale=3), dict(HOW, id="4", prompt="c", negative_prompt="d", guidance_scale=3),
             dict(HOW, id="5", prompt="c", negative_prompt="", guidance_scale=3)]
    called, txt2img = [], minisd.Pipeline.txt2img
    monkeypatch.setattr(minisd.Pipeline, "txt2img", lambda self, prompt, **how: called.append(prompt) or txt2img(self, prompt, **how))
    run(jsonl(tmp_path / "rows.jsonl", rows))
    alone = {p.name: np.asarray(Image.open(p)).astype(int) for p in (tmp_path / "pictures").glob("*.png")}
    shutil.rmtree(tmp_path / "pictures")
    called.clear()
    run(tmp_path / "rows.jsonl", "--together", 4)
    assert [c for c in called if isinstance(c, list)] == [["a 0", "a 1", "a 2"], ["b"], ["c", "c"]]
    for p in (tmp_path / "pictures").glob("*.png"):
        assert abs(np.asarray(Image.open(p)).astype(int) - alone[p.name]).max() <= 1


def test_an_error_is_its_own_rows(run, tmp_path, monkeypatch):
    """Also among rows of one call; the others are drawn, and the report has all."""
    txt2img = minisd.Pipeline.txt2img

    def failing(self, prompt, **how):
        if type(self) is minisd.Pipeline and "bad" in prompt:
            raise ZeroDivisionError("within")
        return txt2img(self, prompt, **how)

    monkeypatch.setattr(minisd.Pipeline, "txt2img", failing)
    rows = jsonl(tmp_path / "rows.jsonl", [dict(HOW, id=name, prompt=name) for name in ("one", "bad", "two")])
    code, out, err = run(rows, "--together", 3)
    assert code == 1 and "2 drawn, 0 there before, 1 not drawn" in out and "bad.png: ZeroDivisionError: within" in err
    assert sorted(pictures(tmp_path)) == ["one.png", "two.png"]


def test_a_full_disk_is_the_rows_error(run, tmp_path, monkeypatch, without_pyarrow):
    count, sync = [], os.fsync

    def full(number):
        count.append(number)
        if len(count) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(number)

    monkeypatch.setattr(os, "fsync", full)
    rows = jsonl(tmp_path / "rows.jsonl", [dict(HOW, id=name, prompt=name) for name in "abc"])
    code, out, err = run(rows)
    assert code == 1 and "b.png: the disk is full; nothing was written" in err and sorted(pictures(tmp_path)) == ["a.png", "c.png"]
    assert [bool(row["error"]) for row in reported(tmp_path)] == [False, True, False]
    assert run(rows)[0] == 0 and len(pictures(tmp_path)) == 3
    assert not [p for p in os.listdir(tmp_path / "pictures") if p.endswith(".part")]


def test_killed_in_the_middle(tmp_path, sd1_folder):
    """kill -9, and the same command again: the pictures that were there stay, and all are those of a run that nothing happened to."""
    rows = jsonl(tmp_path / "rows.jsonl", [dict(HOW, id=f"{k}", prompt="a cat", seed=k, num_inference_steps=8) for k in range(8)])
    words = [sys.executable, "-m", "minisd", "batch", str(rows), "-m", str(sd1_folder), "--quiet", "-o"]
    subprocess.run([*words, str(tmp_path / "whole")], check=True, capture_output=True)
    process = subprocess.Popen([*words, str(tmp_path / "pictures")], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while len(list((tmp_path / "pictures").glob("*.png"))) < 2 and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    times = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "pictures").glob("*.png")}
    assert 2 <= len(times) < 8
    done = subprocess.run([*words, str(tmp_path / "pictures")], check=True, capture_output=True, text=True)
    assert f"{8 - len(times)} drawn, {len(times)} there before" in done.stdout
    assert all((tmp_path / "pictures" / name).stat().st_mtime_ns == t for name, t in times.items())
    assert pictures(tmp_path) == {p.name: p.read_bytes() for p in (tmp_path / "whole").glob("*.png")}


def test_a_folder_elsewhere(sd1_folder, tmp_path, capsys):
    """Any that fsspec reaches: a part file, then its name."""
    import fsspec
    rows = jsonl(tmp_path / "rows.jsonl", [dict(HOW, id=name, prompt=name) for name in "ab"])
    words = ["batch", str(rows), "-m", str(sd1_folder), "--quiet", "-o", "memory://far/pictures"]
    try:
        assert cli.main(words) == 0 and cli.main(words) == 0
        found = sorted(os.path.basename(name) for name in fsspec.filesystem("memory").ls("/far/pictures", detail=False))
        assert found[:2] == ["a.png", "b.png"] and len(found) == 3 and found[2].startswith("report.")
        assert "0 drawn, 2 there before" in capsys.readouterr().out
    finally:
        fsspec.filesystem("memory").rm("/far", recursive=True)


@pytest.mark.parametrize("name, message", [("nowhere://x", "Protocol not known"), ("file.txt/x", "Not a directory")])
def test_a_folder_that_cannot_be(tmp_path, monkeypatch, name, message):
    (tmp_path / "file.txt").write_text("")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=f"no folder to write to: .*{message}"):
        Folder(name)


@pytest.mark.parametrize("options, message", [(("--workers", 0), "--workers is 0"), (("--together", -1), "--together is -1"),
                                              (("--threads", 0), "threads is 0")])
def test_options_that_cannot_be(run, tmp_path, options, message):
    code, _, err = run(jsonl(tmp_path / "rows.jsonl", [dict(HOW, prompt="a")]), *options)
    assert code == 1 and message in err


def test_without_ray(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    code, _, err = run(jsonl(tmp_path / "rows.jsonl", [dict(HOW, prompt="a")]), "--workers", 2)
    assert code == 1 and "more than one worker needs Ray: pip install 'minisd[ray]'" in err


def test_parquet_in_and_out(run, tmp_path):
    """As pandas writes it: a gap in a column of numbers is NaN, and whole ones are floats.  A row that was not drawn has no seed."""
    pq = pytest.importorskip("pyarrow.parquet", reason="pip install '.[ray]' brings pyarrow; CI has it and runs this")
    import pyarrow
    columns = dict(id=["a", None, "c"], prompt=["a cat", "a dog", "an owl"], seed=np.array([3, 2**64 - 1, 5], np.uint64),
                   clip_skip=[1.0, float("nan"), None], num_inference_steps=[2, 2, 2], width=[64, 64, 7], height=[64.0, None, None])
    pq.write_table(pyarrow.table(columns), tmp_path / "rows.parquet")
    code, out, err = run("rows.parquet", "--skip-bad")
    assert code == 0, err
    found = pq.read_table(tmp_path / "pictures" / "report.parquet").to_pylist()
    assert found[0]["id"] == "a" and [row["seed"] for row in found] == [3, 2**64 - 1, None] and list(found[0]) == list(table.REPORT)
    assert sorted(pictures(tmp_path)) == sorted(os.path.basename(row["file"]) for row in found[:2])
    (tmp_path / "rows.parquet").write_bytes(b"PAR1 is not enough")
    assert "rows.parquet: " in run("rows.parquet")[2]


def test_parquet_without_pyarrow(run, tmp_path, without_pyarrow):
    (tmp_path / "rows.parquet").write_bytes(b"PAR1")
    assert "reading parquet needs pyarrow: pip install 'minisd[ray]'" in run("rows.parquet")[2]
