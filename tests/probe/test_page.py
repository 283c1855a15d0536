"""The page of an explanation in a browser, opened as a file with no network: everything on it works, by mouse and by keyboard.

Needs Playwright and a Chromium: pip install '.[browser]' and the system's chromium."""
import shutil

import pytest
from PIL import Image, ImageChops, ImageStat

import minisd

sync_api = pytest.importorskip("playwright.sync_api", reason="pip install '.[browser]' brings Playwright, which CI has")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine (CI has Debian's)")
HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\"> & <b>bold</b>"


@pytest.fixture(scope="module")
def files(tmp_path_factory, sd1):
    """{name: a page's file}"""
    folder, pipe = tmp_path_factory.mktemp("pages"), minisd.load()
    minisd.explain(pipe, "a red apple on a blue background", seed=1).save(folder / "apple.html")
    minisd.explain(sd1, "[fox:a cat BREAK by a river:2] AND (snow:1.5)", "blurry", seed=1, num_inference_steps=4, width=64,
                   height=48).save(folder / "changing.html")
    minisd.explain(sd1, HOSTILE, HOSTILE, seed=1, num_inference_steps=2, width=64, height=64).save(folder / "hostile <b>.html")
    minisd.explain(pipe, "a fox", seed=1, guidance_scale=1, num_inference_steps=1).save(folder / "plain.html")
    return {p.stem: p for p in folder.iterdir()}


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(browser, files):
    """opened(name, **context) -> the page; afterwards: it said nothing, and asked for nothing."""
    contexts, said = [], []

    def open_page(name, width=1280, height=900, **how):
        context = browser.new_context(viewport=dict(width=width, height=height), offline=True, **how)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: said.append(request.url) if not request.url.startswith(("file:", "data:")) else None)
        page.goto(files[name].as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []


def picture(page, selector, tmp_path):
    """What is seen of an element."""
    page.wait_for_timeout(100)
    page.locator(selector).screenshot(path=tmp_path / "seen.png")
    with Image.open(tmp_path / "seen.png") as image:
        return image.convert("RGB")


def differs(a, b):
    return a.size != b.size or max(ImageStat.Stat(ImageChops.difference(a, b)).mean) > 1


@pytest.mark.parametrize("name", ["apple", "changing", "hostile <b>", "plain"])
def test_everything_is_there(opened, name):
    page = opened(name)
    for part in ("picture", "tokens", "steps", "network", "layers", "step"):
        assert page.locator(f"#{part}").count() == 1 and page.locator(f"#{part}").is_visible()
    assert page.locator("#token-list button").count() >= 32 and page.locator("#cost-table tbody tr").count() > 100
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_the_slider_and_the_views_change_the_picture(opened, tmp_path):
    page = opened("apple")
    first = picture(page, ".frame", tmp_path)
    page.locator("#step").fill("3")
    third = picture(page, ".frame", tmp_path)
    assert differs(first, third) and "4 of 20" in page.locator("#step-number").inner_text()
    page.locator("#step").press("ArrowRight")
    assert "5 of 20" in page.locator("#step-number").inner_text() and differs(third, picture(page, ".frame", tmp_path))
    seen = []
    for view in ("final", "x0", "latent", "noise"):
        page.locator(f'#views button[data-value="{view}"]').click()
        seen.append(picture(page, ".frame", tmp_path))
    assert all(differs(a, b) for k, a in enumerate(seen) for b in seen[:k])


def test_play_runs_through_the_steps(opened, tmp_path):
    page = opened("changing")
    page.locator("#play").click()
    assert page.locator("#step").input_value() == "0"
    before = picture(page, ".frame", tmp_path)
    sync_api.expect(page.locator("#play")).to_have_text("Play")
    assert page.locator("#step").input_value() == "4" and differs(before, picture(page, ".frame", tmp_path))


def test_a_token_in_focus_lies_over_the_picture(opened, tmp_path):
    page = opened("apple")
    bare = picture(page, ".frame", tmp_path)
    page.locator("#token-list button").nth(3).focus()
    apple = picture(page, ".frame", tmp_path)
    page.keyboard.press("Tab")
    on = picture(page, ".frame", tmp_path)
    assert differs(bare, apple) and differs(apple, on) and "“on”" in page.locator("#caption").inner_text()
    for group, value in (("When", "step"), ("Layers", "1"), ("Value", "true"), ("Branch", "0")):
        before = picture(page, ".frame", tmp_path)
        page.locator("#token-list button").nth(3).click()
        before = picture(page, ".frame", tmp_path)
        page.locator(f'[aria-label="{group}"] button[data-value="{value}"]').click()
        page.locator("#token-list button").nth(3).focus()
        assert differs(before, picture(page, ".frame", tmp_path)), group
        page.locator("#token-list button").nth(3).click()


def test_shares_in_the_browser_are_those_in_python(opened, files):
    """The map that the page's program lays over the picture, against the exported numbers."""
    page = opened("apple")
    sums = page.evaluate("""() => {
        const worst = (maps, count) => { let all = null;
            for (let k = 0; k < count; k++) { const m = shares(maps, k); all = all || new Float32Array(m.values.length);
                m.values.forEach((v, i) => { all[i] += v; }); }
            return Math.max(...all.map((v) => Math.abs(v - 1))); };
        return data.attention.mean.map((m) => worst(m.maps, data.texts[m.text].length)); }""")
    assert len(sums) == 2 and max(sums) < 0.01


def test_tokens_follow_a_changing_prompt(opened):
    page = opened("changing")
    page.locator('[aria-label="Branch"] button[data-value="1"]').click()
    assert page.locator("#token-list button").nth(2).inner_text().startswith("cat")
    page.locator("#step").fill("0")
    assert page.locator("#token-list button").nth(1).inner_text().startswith("fox")
    page.locator('[aria-label="Branch"] button[data-value="2"]').click()
    assert "×1.5" in page.locator("#token-list button").nth(1).inner_text()


def test_a_box_opens_its_layers(opened):
    page = opened("apple")
    box = page.locator(".box", has_text="down_blocks.1")
    box.focus()
    page.keyboard.press("Enter")
    panel = page.locator('[aria-label="layers of Unet"]')
    assert panel.is_visible() and "down_blocks.1.attentions.0.transformer_blocks.0.attn2" in panel.inner_text()
    assert panel.locator("img").count() > 15
    page.keyboard.press("Enter")
    assert not panel.is_visible()


def test_the_u_is_drawn_from_the_checkpoint(opened):
    """Each level's way down at the left of its way up, deeper ones below."""
    page = opened("changing")
    at = {name: page.locator(".u .box", has_text=name).bounding_box() for name in
          ("conv_in", "conv_out", "down_blocks.0", "down_blocks.3", "up_blocks.0", "up_blocks.3", "mid_block")}
    assert at["conv_in"]["x"] < at["conv_out"]["x"] and abs(at["conv_in"]["y"] - at["conv_out"]["y"]) < 30
    assert at["conv_in"]["y"] < at["down_blocks.0"]["y"]
    assert at["down_blocks.0"]["x"] < at["up_blocks.3"]["x"] and abs(at["down_blocks.0"]["y"] - at["up_blocks.3"]["y"]) < 30
    assert at["down_blocks.0"]["y"] < at["down_blocks.3"]["y"] < at["mid_block"]["y"]


@pytest.mark.parametrize("column, kind", [("ms", float), ("parameters", int), ("layer", str), ("GFLOP/s", float)])
def test_the_table_sorts(opened, column, kind):
    page = opened("apple")
    names = page.locator("#cost-table th").all_inner_texts()
    k = names.index(column) + 1

    def values():
        texts = page.locator(f"#cost-table tbody td:nth-child({k})").all_inner_texts()
        return [t if kind is str else float(t.replace(",", "") or 0) for t in texts]

    page.get_by_role("button", name=column, exact=True).click()
    once = values()
    page.get_by_role("button", name=column, exact=True).click()
    twice = values()
    assert sorted(once) in (once, once[::-1]) and once != twice and sorted(twice) in (twice, twice[::-1])
    assert page.locator(f"#cost-table th:nth-child({k})").get_attribute("aria-sort") in ("ascending", "descending")


def test_text_stays_text(opened):
    page = opened("hostile <b>")
    assert page.title().startswith("</script><script>document.title='owned'")
    assert page.locator("h1").inner_text() == HOSTILE and page.locator("b:has-text('bold')").count() == 0
    assert HOSTILE in page.locator("#facts").inner_text()


def test_the_code_unfolds(opened):
    page = opened("apple")
    page.locator("#tokens summary", has_text="attention").first.click()
    assert "softmax" in page.locator("#tokens details[open] pre").first.inner_text()


@pytest.mark.parametrize("how", [dict(), dict(color_scheme="dark"), dict(width=400, height=800)], ids=["light", "dark", "phone"])
def test_it_is_accessible(opened, how, tmp_path):
    """The axe rules, in light and dark and on a phone's width; and there is something to see."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install '.[browser]' brings axe, which CI has")
    page = opened("apple", **how)
    page.locator(".u .box", has_text="mid_block").click()
    found = axe.Axe().run(page).response["violations"]
    assert [(v["id"], v["impact"], v["nodes"][0]["html"]) for v in found if v["impact"] in ("serious", "critical")] == []
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.screenshot(path=tmp_path / "page.png", full_page=True)
    with Image.open(tmp_path / "page.png") as image:
        assert max(ImageStat.Stat(image.convert("L")).stddev) > 15


def test_it_works_in_a_notebooks_frame(browser, files, tmp_path):
    found = minisd.explain(minisd.load(), "a red apple", seed=1, num_inference_steps=2)
    (tmp_path / "notebook.html").write_text(found._repr_html_(), encoding="utf-8")
    page = browser.new_page()
    page.goto((tmp_path / "notebook.html").as_uri())
    page.frame_locator("iframe").locator("#token-list button").nth(1).wait_for()
    page.close()
