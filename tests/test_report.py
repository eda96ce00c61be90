"""The report: what it measures, what it shows, and that foreign text stays text."""

import base64
import hashlib
import io
import json
import re

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from skgcm import Explanation, GCMClassifier, Report
from skgcm.report import maps, page, selection, text
from skgcm.report.measures import measure
from skgcm.typicality import STRANGE

HOSTILE = [
    "</script><script>alert(1)</script>",
    "\"quotes' & <b>&amp;",
    "evil\u202egpj.exe\u2066 \u200f\u05d0",
    "long " * 2000,
    "line\nbreak\x00\ud800\u2028",
    "{{ 7 * 7 }}{% raw %}",
]


def make(n=3, k=2, shape=(5, 7, 1), labels=("cat", "dog"), seed=0, dark=False):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (n, *shape)).astype(np.float32) / 255
    cwm, cwm_dark = rng.normal(size=(2, n, k, *shape[:2])).astype(np.float32)

    def explanation(scores):
        return Explanation(images, cwm, scores, [labels[:k]] * n, cwm_dark=cwm_dark if dark else None)

    return explanation(explanation(np.zeros((n, k))).pixel_contributions.mean(axis=(2, 3), dtype=np.float64))


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    X, y = rng.integers(0, 256, (60, 9, 10), dtype=np.uint8), np.array(["bad", "good", "odd"] * 20)
    X[y == "bad", :4] //= 3
    X[y == "odd", :, 5:] //= 3
    return X, y


@pytest.fixture(scope="module")
def clf(data):
    return GCMClassifier(encoder_width=4, decoder_width=4, max_epochs=2, device="cpu", random_state=0).fit(*data)


@pytest.fixture(scope="module")
def report(clf, data):
    return Report.from_estimator(clf, *data)


def content(html):
    """The JSON and the unpacked maps of a page."""
    found = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)[1])
    packed = re.findall(r'<script type="text/plain" id="maps-\d+">(.*?)</script>', html)
    shape = found["rows"], found["columns"]
    return found, [
        maps.unpack(one, (len(image["classes"]), *shape)) * np.array(image["steps"])[:, None, None]
        for one, image in zip(packed, found["images"], strict=True)
    ]


# ---- maps ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (20, 3), (40, 50)], ids=str)
def test_sums_over_boxes_of_stored_maps_are_within_two_steps(size):
    rng = np.random.default_rng(0)
    contributions = rng.standard_t(2, (3, *size)).astype(np.float32)
    integers, steps = maps.quantise(contributions)
    stored = integers * steps[:, None, None]
    for _ in range(50):
        top, bottom = np.sort(rng.integers(0, size[0] + 1, 2))
        left, right = np.sort(rng.integers(0, size[1] + 1, 2))
        box = (..., slice(top, bottom), slice(left, right))
        difference = stored[box].sum(axis=(1, 2)) - contributions[box].sum(axis=(1, 2), dtype=np.float64)
        assert (np.abs(difference) <= 2.001 * steps).all()


def test_maps_survive_packing():
    integers = np.random.default_rng(0).integers(-1200, 1200, (2, 6, 5)).astype(np.int16)
    np.testing.assert_array_equal(maps.unpack(maps.pack(integers), integers.shape), integers)


def test_a_map_of_zeros_has_a_step():
    integers, steps = maps.quantise(np.zeros((1, 4, 4), np.float32))
    assert not integers.any()
    assert steps > 0


def test_maps_that_are_not_finite_are_refused():
    evidence = make()
    evidence.cwm[0, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        evidence.to_html()


@pytest.mark.parametrize("shape", [(4, 6, 1), (4, 6, 3), (4, 6, 4), (4, 6, 2)], ids=str)
def test_pictures_are_exact_png_where_they_are_small(shape):
    from PIL import Image

    images = make(shape=shape).images
    uris, exact = maps.pictures(images)
    assert exact
    decoded = np.asarray(Image.open(io.BytesIO(base64.b64decode(uris[0].removeprefix("data:image/png;base64,")))))
    wanted = images[0, ..., :3] if shape[2] > 2 else images[0].mean(axis=-1)
    np.testing.assert_allclose(
        decoded / 255, wanted[..., 0] if wanted.shape[-1] == 1 else wanted, atol=0.5 / 255 + 1e-6
    )


def test_pictures_become_jpeg_where_png_is_too_large(monkeypatch):
    monkeypatch.setattr(maps, "EXACT_PICTURES", 100)
    uris, exact = maps.pictures(make().images)
    assert not exact
    assert all(uri.startswith("data:image/jpeg") for uri in uris)
    assert "pictures of the images are JPEG" in make().to_html()


# ---- foreign text ----------------------------------------------------------------------------------------------------


def test_foreign_text_stays_text():
    evidence = make(k=3, labels=HOSTILE[:3])
    html = Report(evidence, names=HOSTILE[3:]).to_html()
    assert "<script>alert" not in html
    assert html.count("</script") == html.count("<script")
    assert "49" not in re.findall(r"<title>(.*?)</title>", html)
    assert content(html)[0]["images"][2]["name"] == HOSTILE[5]
    html.encode()  # no lone surrogate is left


def test_what_hides_or_turns_text_becomes_visible():
    assert text.plain("a\u202eb\x00c\ud800") == "a\ufffdb\ufffdc\ufffd"
    kept = "\u05d0\u200f \u0645\u06cc\u200c\u062e \U0001f468\u200d\U0001f469"  # right to left, and joiners
    assert text.plain(kept) == kept


@pytest.mark.parametrize("value", HOSTILE, ids=range(len(HOSTILE)))
def test_json_survives_within_a_script(value):
    written = text.to_json({"a": [value]})
    assert not set("<>&\u2028\u2029") & set(written)
    assert json.loads(written) == {"a": [value]}


def test_long_text_is_shortened_in_the_middle():
    assert text.shorten("scratch_left", 60) == "scratch_left"
    assert text.shorten("abcdefghij", 5) == "ab…ij"


# ---- the file --------------------------------------------------------------------------------------------------------


def test_the_policy_allows_the_inlined_script_and_style_alone(report):
    html = report.to_html()
    [policy] = re.findall(r'http-equiv="Content-Security-Policy" content="(.*?)"', html)
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    for tag in ("script", "style"):
        [inlined] = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inlined.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert not re.search(r"\s(style|on\w+)=", html)  # which the policy would block
    assert not re.search(r"(src|href)=\"(?!data:|#)", html)
    assert "http" not in re.sub(r"http-equiv", "", html)


def test_the_script_is_short():
    assert len((page.HERE / "script.js").read_text(encoding="utf-8").splitlines()) < 400


def test_the_stored_evidence_is_that_of_the_classifier(clf, data, report):
    found, stored = content(report.to_html())
    evidence = clf.explain(data[0], "all")
    assert found["error"] < 0.01 * np.abs(evidence.scores).max()
    for i in (0, 7, 59):
        np.testing.assert_allclose(stored[i].mean(axis=(1, 2)), evidence.scores[i], atol=found["error"])
        np.testing.assert_allclose(found["images"][i]["scores"], evidence.scores[i], rtol=1e-6)
        np.testing.assert_allclose(found["images"][i]["probabilities"], clf.predict_proba(data[0])[i], atol=1e-5)


@pytest.mark.parametrize("dark", [False, True], ids=["bright", "both"])
def test_an_explanation_alone_becomes_a_page(tmp_path, dark):
    evidence = make(dark=dark)
    assert evidence.to_html(tmp_path / "page with spaces.html") is None
    found, stored = content((tmp_path / "page with spaces.html").read_text(encoding="utf-8"))
    assert found["weights"] is not dark
    assert [image["predicted"] for image in found["images"]] == [-1] * 3
    np.testing.assert_allclose(stored[0].mean(axis=(1, 2)), evidence.scores[0], atol=found["error"])
    assert "Accuracy" not in evidence.to_html()


def test_a_difference_says_what_was_subtracted():
    assert "those of a class minus those of" in make().versus("cat").to_html()
    assert "the mean of all classes" in make().versus().to_html()


def test_save_writes_to_paths_and_file_objects(tmp_path, report):
    file = io.BytesIO()
    report.save(file)
    report.save(tmp_path / "report.html")
    assert len(file.getvalue()) == len((tmp_path / "report.html").read_bytes())
    with pytest.raises(TypeError, match="text file"):
        report.save(io.StringIO())


@pytest.mark.parametrize("evidence", [make(), make(shape=(1, 4, 3), k=1), make(n=6), make().versus("cat"), make()[:0]])
def test_a_notebook_shows_a_few_images_without_a_script(evidence):
    html = evidence._repr_html_()
    assert "<script" not in html
    assert html.count("Evidence for") == min(len(evidence), 4) * evidence.classes.shape[1]
    assert ("2 more images." in html) == (len(evidence) == 6)


def test_a_notebook_shows_foreign_text_as_text():
    html = make(k=2, labels=HOSTILE[:2])._repr_html_()
    assert "<script" not in html
    assert "<b>" not in html


# ---- the overview ----------------------------------------------------------------------------------------------------


def test_figures_are_those_of_the_classifier(clf, data, report):
    X, y = data
    assert report.quality.accuracy == pytest.approx(clf.score(X, y))
    assert report.quality.confusion.sum() == 60
    assert f"{100 * clf.score(X, y):.1f}\N{NO-BREAK SPACE}%" in report.to_html()


def test_the_share_left_to_the_machine_has_its_upper_limit_beside_it(clf, data):
    report = Report.from_estimator(clf, data[0], clf.predict(data[0]))  # all right: 0 of 60 wrong
    tile = report.to_html().partition("Could be left to the machine")[2].partition("</div>")[0]
    assert "on these images; on new images it could be up to 6.0\N{NO-BREAK SPACE}%" in tile


def test_without_labels_a_report_does_not_say_how_good_answers_are(clf, data):
    report = Report.from_estimator(clf, data[0][:10])
    assert report.quality is None
    html = report.to_html()
    assert "No true labels were given" in html
    assert "Accuracy" not in html
    assert "Mean evidence map" in html


def test_measures_of_a_small_example():
    true, predicted = np.array([0, 0, 1, 1, 2]), np.array([0, 1, 1, 1, 0])
    quality = measure(true, predicted, np.array([0.9, 0.4, 0.8, 0.8, 0.35]), 4)
    assert quality.confusion[0].tolist() == [1, 1, 0, 0]
    assert quality.accuracy == 0.6
    assert quality.balanced_accuracy == 0.5  # recalls 1/2, 1, 0; there is no image of class 3
    np.testing.assert_array_equal(quality.recall, [0.5, 1, 0, np.nan])
    np.testing.assert_allclose(quality.precision, [0.5, 2 / 3, np.nan, np.nan])
    np.testing.assert_allclose(quality.risk_coverage, [[0.2, 0, 0.9], [0.6, 0, 0.8], [0.8, 0.25, 0.4], [1, 0.4, 0.35]])
    assert quality.decided(0.01)[:3] == (0.6, 3, 0)
    assert quality.decided(0.3)[:3] == (0.8, 4, 1)
    expected = (1 * 0.1 + 2 * 0.2 + 1 * 0.4 + 1 * 0.35) / 5
    assert quality.calibration_error == pytest.approx(expected)


def test_a_calibration_error_is_compared_with_chance():
    rng = np.random.default_rng(0)
    probability = rng.uniform(0.5, 1, 1000)
    right = rng.random(1000) < probability
    fair = measure(np.zeros(1000, int), np.where(right, 0, 1), probability, 2)
    assert 0 < fair.calibration_error < fair.calibration_chance < 0.1
    sure = measure(np.zeros(1000, int), np.where(right, 0, 1), probability**0.2, 2)
    assert sure.calibration_error > sure.calibration_chance
    few = measure(np.zeros(20, int), np.where(right[:20], 0, 1), probability[:20], 2)
    assert few.calibration_chance > 2 * fair.calibration_chance


def test_a_report_says_whether_to_calibrate(clf, data):
    X, _ = data
    unsure = Report.from_estimator(clf, X, clf.predict(X)).to_html()  # all right, with low probabilities
    assert "the classifier is too unsure</strong>" in unsure
    assert "clf.calibrate(X, y)" in unsure
    sure = Report.from_estimator(clf, X, np.roll(clf.classes_, 1)[np.searchsorted(clf.classes_, clf.predict(X))])
    assert "the classifier is too sure</strong>" in sure.to_html()


def test_no_threshold_helps_if_the_most_confident_prediction_is_wrong():
    quality = measure(np.array([0, 0]), np.array([1, 0]), np.array([0.9, 0.6]), 2)
    assert quality.decided(0.01) is None


def test_many_classes_have_no_matrix_but_their_most_frequent_errors(clf, data, monkeypatch):
    monkeypatch.setattr(page, "LARGEST_TABLE", 2)
    html = Report.from_estimator(clf, data[0], np.roll(data[1], 1)).to_html()
    assert "most frequent wrong answers" in html
    assert html.count("Mean evidence map") == 2


def test_mean_maps_say_where_evidence_lies():
    mean_map = np.zeros((9, 9))
    mean_map[7:, :2] = 1
    assert page.whereabouts(mean_map) == "100% of what speaks for it is at the lower left"
    stripe = np.zeros((9, 9))
    stripe[:, 7:] = 1
    assert page.whereabouts(stripe) == "100% of what speaks for it is in the right third"
    faint = np.ones((30, 30))
    faint[:, -2:] = 2
    assert page.whereabouts(faint) == "spread over the image, strongest at the right edge"
    assert page.whereabouts(np.ones((9, 9))) == "spread over the image"
    assert page.whereabouts(-np.ones((1, 2))) == "nothing speaks for it"


def test_a_report_has_no_path_of_the_user(data, tmp_path):
    clf = GCMClassifier(encoder_width=4, max_epochs=1, device="cpu", checkpoint=tmp_path / "secret.ckpt").fit(*data)
    assert "secret" not in Report.from_estimator(clf, *data).to_html()


def test_fingerprints_differ_for_other_data(clf, data):
    def prints(X, y):
        return Report.from_estimator(clf, X, y)._survey["fingerprints"]

    X, y = data[0][:6], data[1][:6]
    assert prints(X, y) == prints(X.copy(), y.tolist())
    assert prints(X[::-1], y)["Images"] != prints(X, y)["Images"]
    assert prints(X, y[::-1])["Labels"] != prints(X, y)["Labels"]


def test_images_unlike_the_training_images_are_marked_without_a_warning(clf, data):
    X, y = data[0].copy(), data[1]
    X[[2, 7]] = 255
    strange = clf.typicality(X) < STRANGE
    assert strange[[2, 7]].all()
    html = Report.from_estimator(clf, X, y).to_html()  # warnings are errors
    assert [image["strange"] for image in content(html)[0]["images"]] == strange.tolist()
    assert f"{strange.sum()} of 60 images are unlike the training images" in html


def test_no_image_is_marked_where_typicality_is_unknown():
    X, y = np.random.default_rng(0).random((20, 8, 8)), np.arange(20) % 2
    clf = GCMClassifier(encoder_width=4, max_epochs=1, device="cpu", random_state=0).fit(X, y)
    assert np.isnan(clf.typicality(X)).all()
    html = Report.from_estimator(clf, X, y).to_html()
    assert not any(image["strange"] for image in content(html)[0]["images"])
    assert "of 20 images are unlike" not in html


# ---- which images and classes ----------------------------------------------------------------------------------------


def test_a_report_of_many_images_shows_the_uncertain_the_wrong_and_a_sample(clf, data):
    X, y = data
    wrong = y.copy()
    wrong[[3, 30]] = ["good", "bad"] if (y[[3, 30]] == ["bad", "good"]).all() else np.roll(y, 1)[[3, 30]]
    report = Report.from_estimator(clf, list(X), wrong, names=[f"{i}.png" for i in range(60)], max_images=12)
    assert len(report.shown) == len(report.explanation) == 12
    assert report.names == [f"{i}.png" for i in report.shown]
    np.testing.assert_array_equal(report.explanation.images[..., 0], X[report.shown].astype(np.float32) / 255)
    assert set(report.reasons) == {"wrong", "doubtful", "sample"}
    assert "12 of 60 images are shown" in report.to_html()
    assert report.quality.confusion.sum() == 60


@pytest.mark.parametrize("labelled", [False, True])
def test_a_choice_of_images_has_each_once(labelled):
    rng = np.random.default_rng(0)
    predicted, true = rng.integers(0, 3, (2, 100))
    margin = rng.random(100)
    shown, reasons = selection.choose_images(margin, predicted, true if labelled else None, 30)
    assert len(set(shown.tolist())) == len(reasons) == 30
    assert reasons.count("wrong") == 10 * labelled
    assert margin.argmin() in shown
    sample = (true if labelled else predicted)[shown[np.array(reasons) == "sample"]]
    counts = np.bincount(sample)
    assert counts.max() - counts.min() <= 1


def test_an_image_has_the_predicted_the_true_and_the_next_best_class(monkeypatch):
    order = np.array([[3, 2, 1, 0], [0, 1, 2, 3]])
    monkeypatch.setattr(selection, "MAP_PIXELS", 2 * 10 * 3)
    assert selection.choose_classes(order, np.array([0, 0]), 10).tolist() == [[0, 2, 3], [0, 1, 2]]
    assert selection.choose_classes(order, None, 10).tolist() == [[1, 2, 3], [0, 1, 2]]
    assert selection.choose_classes(order, np.array([1, 3]), 1000).tolist() == [[1, 3], [0, 3]]
    assert selection.choose_classes(order, None, 1).shape == (2, 4)


def test_a_report_says_that_classes_are_left_out(clf, data, monkeypatch):
    monkeypatch.setattr(selection, "MAP_PIXELS", 0)
    report = Report.from_estimator(clf, *data)
    assert report.explanation.classes.shape == (60, 2)
    assert "the evidence of 2 of 3 classes" in report.to_html()


# ---- arguments -------------------------------------------------------------------------------------------------------


def test_the_last_step_of_a_pipeline_is_explained(data):
    pipeline = make_pipeline(FunctionTransformer(np.copy), GCMClassifier(encoder_width=4, max_epochs=1, device="cpu"))
    report = Report.from_estimator(pipeline.fit(*data), *data)
    assert report.quality.accuracy == pytest.approx(pipeline.score(*data))


def test_two_classes_and_integer_labels(data):
    X, y = data[0], (data[1] == "bad").astype(int)
    clf = GCMClassifier(encoder_width=4, max_epochs=1, device="cpu").fit(X, y)
    found, _ = content(Report.from_estimator(clf, X, y).to_html())
    assert found["classes"] == ["0", "1"]


def test_estimators_that_have_no_evidence(data):
    with pytest.raises(NotFittedError):
        Report.from_estimator(GCMClassifier(), *data)
    with pytest.raises(TypeError, match=r"FunctionTransformer\. A report needs a fitted GCMClassifier"):
        Report.from_estimator(FunctionTransformer(), *data)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"y": ["bad"]}, "X has 60 images and y has 1 labels"),
        ({"y": ["unknown"] * 60}, "y has the label 'unknown', but the classes are .* fitted on"),
        ({"names": ["a"]}, "names has 1 names for 60 images"),
        ({"names": "abc"}, "names is a str. Expected a sequence of 60 names"),
        ({"max_images": 0}, "max_images=0 must be an integer of at least 1"),
        ({"max_images": True}, "max_images=True must be"),
    ],
    ids=["number of labels", "unknown label", "number of names", "one name", "no images", "bool"],
)
def test_wrong_arguments(clf, data, options, message):
    with pytest.raises(ValueError, match=message):
        Report.from_estimator(clf, data[0], **options)


def test_an_empty_explanation_is_refused():
    with pytest.raises(ValueError, match="holds 0 images with 2 classes"):
        make()[:0].to_html()
