"""The report in a real browser: sums, keys, touch, foreign text, no request and no error."""

import re
import shutil

import numpy as np
import pytest

from skgcm import Explanation, GCMClassifier, Report
from skgcm.report.maps import LEVELS

sync_api = pytest.importorskip("playwright.sync_api", reason="needs the extra dev: Playwright drives the browser")
HOSTILE = ["</script><script>throw 1</script>", "\"'<b>&amp;", "\u202etxt\u2066\u200f", "long " * 2000]


@pytest.fixture(scope="module")
def browser():
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(browser, tmp_path):
    """A function that opens a report; what the browser complains of or asks for fails the test."""
    complaints = []

    def open_page(report, **options):
        path = tmp_path / "a report with spaces.html"
        report.save(path)
        page = browser.new_page(offline=True, **options)
        page.set_default_timeout(60_000)
        page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: complaints.append(request.url))
        page.goto(path.as_uri())
        page.wait_for_selector("#detail-name:not(:empty)")
        complaints.remove(path.as_uri())
        return page

    yield open_page
    complaints = [complaint for complaint in complaints if not complaint.startswith("data:image/")]
    assert not complaints


def wait_for_image(page, number):
    sync_api.expect(page.locator("#detail-name")).to_have_text(re.compile(rf"^Image {number}(:|$)"), timeout=60_000)


def wait_for_list(page, count):
    sync_api.expect(page.locator("#list li")).to_have_count(count, timeout=60_000)


def table(page, part="tbody"):
    """What the page says of each class: in the box, outside, their sum, the score."""
    cells = "Array.from(row.querySelectorAll('[data-value]'), cell => Number(cell.dataset.value))"
    return np.array(page.eval_on_selector_all(f"#scores {part} tr", f"rows => rows.map(row => {cells})"))


def stored(page, name):
    return page.evaluate(f"JSON.parse(document.getElementById('data').textContent).{name}")


@pytest.fixture(scope="module")
def evidence():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 12, 20, 3)).astype(np.float32) / 255
    cwm = rng.standard_t(3, (5, 3, 12, 20)).astype(np.float32)
    scores = (cwm * images.mean(axis=-1)[:, None]).mean(axis=(2, 3), dtype=np.float64)
    return Explanation(images, cwm, scores, [["ant", "bee", "cat"]] * 5)


@pytest.fixture(scope="module")
def measured():
    rng = np.random.default_rng(0)
    X, y = rng.integers(0, 256, (40, 16, 16), dtype=np.uint8), np.array(HOSTILE * 10)
    clf = GCMClassifier(encoder_width=4, max_epochs=1, device="cpu", random_state=0).fit(X, y)
    return Report.from_estimator(clf, X, y, names=[HOSTILE[i % 4] + str(i) for i in range(40)])


def test_boxes_have_the_exact_sums(opened, evidence):
    page = opened(Report(evidence))
    for i, box in enumerate([(0, 0, 20, 12), (3, 2, 9, 11), (19, 11, 20, 12)]):
        if i:
            page.keyboard.press("ArrowRight")
            wait_for_image(page, i)
        for side, value in zip(("left", "top", "right", "bottom"), (0, 0, 20, 12), strict=True):
            page.fill(f"#{side}", str(value))
        for side, value in zip(("right", "bottom", "left", "top"), (box[2], box[3], box[0], box[1]), strict=True):
            page.fill(f"#{side}", str(value))
        page.evaluate("document.activeElement.blur()")
        found, error = (
            table(page),
            stored(page, "error"),
        )
        np.testing.assert_allclose(found[:, 0], evidence[i].region_scores(box)[0], atol=error, rtol=0)
        np.testing.assert_allclose(found[:, 0] + found[:, 1], found[:, 2], atol=1e-12)
        np.testing.assert_allclose(found[:, 2], found[:, 3], atol=error, rtol=0)
        assert error < 0.01 * np.abs(evidence.scores).max()


def test_a_box_is_dragged(opened, evidence):
    page = opened(Report(evidence), viewport={"width": 1280, "height": 1600})
    area = page.locator("#positive").bounding_box()
    size = area["width"] / 20, area["height"] / 12
    page.mouse.move(area["x"] + 4.5 * size[0], area["y"] + 3.5 * size[1])
    page.mouse.down()
    page.mouse.move(area["x"] + 10.5 * size[0], area["y"] + 7.5 * size[1])
    page.mouse.up()
    assert [page.input_value(f"#{side}") for side in ("left", "top", "right", "bottom")] == ["4", "3", "11", "8"]
    np.testing.assert_allclose(table(page)[:, 0], evidence[0].region_scores((4, 3, 11, 8))[0], atol=1e-4)
    best, second = np.argsort(-evidence.scores[0])[:2]  # why the first rather than the second
    [difference] = table(page, "tfoot")
    np.testing.assert_allclose(difference, table(page)[best] - table(page)[second])
    page.keyboard.press("Escape")
    np.testing.assert_allclose(table(page)[:, 1], 0, atol=1e-12)


def test_pointing_at_a_pixel_reads_its_values(opened, evidence):
    page = opened(Report(evidence), viewport={"width": 1280, "height": 1600})
    area = page.locator("#picture").bounding_box()
    page.mouse.move(area["x"] + 4.5 * area["width"] / 20, area["y"] + 3.5 * area["height"] / 12)
    text = page.inner_text("#readout")
    best, second = np.argsort(-evidence.scores[0])[:2]
    values = evidence.pixel_contributions[0, :, 3, 4]
    assert text.startswith("row 3, column 4 · image ")
    assert " ".join(f"{value:.2f}" for value in evidence.images[0, 3, 4]) in text
    assert evidence.classes[0, best] in text
    shown = [float(part.split()[0].replace("−", "-")) for part in text.split("contribution ")[1:]]
    step = np.abs(evidence.pixel_contributions[0]).max() / LEVELS
    np.testing.assert_allclose(shown, values[[best, second]], atol=2 * step + 0.006)


def test_keys_choose_images_and_classes(opened, evidence):
    page = opened(Report(evidence))
    order = np.argsort(-evidence.scores[0])
    assert page.input_value("#a") == str(order[0])
    assert page.input_value("#b") == str(order[1])
    page.keyboard.press("2")
    page.keyboard.press("Shift+Digit3")
    assert (page.input_value("#a"), page.input_value("#b")) == ("1", "2")
    page.keyboard.press("x")
    assert (page.input_value("#a"), page.input_value("#b")) == ("2", "1")
    page.keyboard.press("0")
    assert page.input_value("#b") == "-1"
    page.keyboard.press("ArrowRight")
    wait_for_image(page, 1)
    page.keyboard.press("ArrowLeft")
    wait_for_image(page, 0)
    page.keyboard.press("?")
    assert page.is_visible("#help-text")
    page.keyboard.press("Escape")
    assert not page.is_visible("#help-text")


def test_colours_are_on_one_scale(opened, evidence):
    page = opened(Report(evidence))
    page.keyboard.press("1")
    page.keyboard.press("0")
    scale = stored(page, "scale")
    pixels = page.evaluate(
        "Array.from(document.getElementById('positive').getContext('2d').getImageData(0, 0, 20, 12).data)"
    )
    wanted = evidence.to_images("map", scale=scale)[0, 0].astype(int)
    wanted[evidence.pixel_contributions[0, 0] < 0] = 255
    assert np.abs(np.reshape(pixels, (12, 20, 4)) - wanted).max() <= 6  # stored steps, and a palette of 513 colours
    largest = np.abs(evidence.pixel_contributions[0, 0]).max()
    text = page.inner_text("#pale")
    assert text.startswith("Pale: the largest" if largest < scale / 2 else "The largest")
    assert float(text.split(" is ")[1].split()[0]) == pytest.approx(largest, abs=0.01)


def test_filters_and_orders(opened, measured):
    page = opened(measured)
    assert page.locator("#list li").count() == 40
    cell = page.locator(".cell.wrong").first
    count = int(cell.inner_text())
    cell.click()
    wait_for_list(page, count)
    assert f"{count} of 40" in page.inner_text("#count")
    assert "WRONG" in page.inner_text("#verdict")
    page.click("text=Show all")
    wait_for_list(page, 40)
    page.select_option("#sort", "margin")
    margins = stored(page, "images.map(image => image.margin)")
    wait_for_image(page, int(np.argmin(margins)))
    page.click("text=Show all")
    sync_api.expect(page.locator("#list li").first).to_contain_text("WRONG", timeout=60_000)
    errors = page.eval_on_selector_all("#list li", "items => items.map(item => item.innerText.includes('WRONG'))")
    assert errors == sorted(errors, reverse=True)  # at first, wrong answers come first
    page.fill("#search", "no such name")
    assert not page.is_visible("#detail")


def test_foreign_text_stays_text(opened, measured):
    page = opened(measured)
    assert page.evaluate("document.querySelectorAll('b').length") == 0
    assert "</script><script>" in page.inner_text("#verdict") + page.inner_text("#scores")
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= page.viewport_size["width"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_telephone_shows_it_and_a_finger_draws_a_box(opened, measured, scheme):
    page = opened(measured, viewport={"width": 390, "height": 844}, has_touch=True, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    sync_api.expect(page.locator(".scroll:has(#scores)")).to_have_class(re.compile("wide"))  # it shows "scroll →"
    names = page.locator("#scores tbody tr:first-child td:nth-child(2)")
    left = names.bounding_box()["x"]
    page.locator(".scroll:has(#scores)").evaluate("part => { part.scrollLeft = 100; }")
    assert abs(names.bounding_box()["x"] - left) < 1  # the classes stay
    page.check("#drag")
    page.locator("#overlay").scroll_into_view_if_needed()
    area = page.locator("#overlay").bounding_box()
    fingers = page.context.new_cdp_session(page)
    for kind, share in (("touchStart", 0.3), ("touchMove", 0.5), ("touchMove", 0.7)):
        at = {"x": area["x"] + share * area["width"], "y": area["y"] + share * area["height"]}
        fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [at]})
    fingers.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    sync_api.expect(page.locator("#right")).to_have_value("12", timeout=60_000)
    assert page.input_value("#left") == "4"
    assert page.inner_text("#readout").startswith("row 11, column 11 ")


def test_pictures_have_text_alternatives_and_controls_have_names(opened, measured):
    page = opened(measured)
    assert page.evaluate("Array.from(document.querySelectorAll('canvas[role=img]'), c => c.ariaLabel).every(Boolean)")
    assert page.evaluate("Array.from(document.querySelectorAll('img')).every(i => i.hasAttribute('alt'))")
    assert page.evaluate(
        "Array.from(document.querySelectorAll('input, select')).every(control => control.labels.length === 1)"
    )
    named = "button => button.ariaLabel || button.textContent.trim()"
    assert page.evaluate(f"Array.from(document.querySelectorAll('button')).every({named})")
    levels = page.evaluate("Array.from(document.querySelectorAll('h1, h2, h3, h4'), h => +h.tagName[1])")
    assert levels[0] == 1
    assert max(np.diff(levels)) <= 1
