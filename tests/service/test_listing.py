"""One answer for a listing: of real ones at most alpha is flagged, however many photos they have."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm
from starlette.testclient import TestClient

from service.http.state import start_worker
from service.models.card import read_card
from service.models.decision import Decision, Thresholds, decide, shift_prior
from service.models.listing import (
    MOST,
    Dependence,
    Judge,
    Member,
    Rule,
    evidence,
    judge_listing,
    learn,
    learn_dependence,
    load_rule,
)
from service.predict import predict_listing, predict_many
from service.settings import Settings
from tests.support import tiny_model
from tests.support.http import is_error
from tests.support.photos import BAD, GOOD, encode, photo, with_chunk
from tests.support.shops import calibration_of, write_calibration

ALPHA = 0.02
SHOP, PHOTO, MEAN = 1.8, 2.2, 4.0  # spread of shops, and of photos of one shop; distance of both labels from 0
LISTING = "/predict/listing"


def drawn(rng: np.random.Generator, sources: int, photos: int, mean: float) -> np.ndarray:
    """Return log-likelihood ratios of photos of shops, float64 [sources, photos]."""
    return mean + rng.normal(0, SHOP, (sources, 1)) + rng.normal(0, PHOTO, (sources, photos))


def logistic(ratios: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-ratios))


@cache
def learned(grouped: bool = True) -> Judge:
    """Return what 300 shops of 25 real photos teach."""
    ratios = drawn(np.random.default_rng(0), 300, 25, -MEAN)
    sources = np.repeat(np.arange(300), 25)
    flag = float(norm.isf(ALPHA, -MEAN, np.hypot(SHOP, PHOTO)))
    rule = learn(ratios.ravel(), sources if grouped else None, np.ones(ratios.size), flag, ALPHA)
    return Judge(rule, Thresholds(float(logistic(np.array(flag))), 0.2), 0.5)


@pytest.fixture(scope="module")
def judge() -> Judge:
    return learned()


def members(probabilities: Any, judge: Judge, in_domain: bool = True) -> list[Member]:
    return [
        Member(place, float(each), in_domain, decide(float(each), in_domain, judge.thresholds), "pixels", judge)
        for place, each in enumerate(probabilities)
    ]


def decision(ratios: np.ndarray, judge: Judge) -> Decision:
    return judge_listing(members(logistic(ratios), judge), ALPHA).decision


def share_flagged(listings: np.ndarray, judge: Judge) -> float:
    return float(np.mean([decision(each, judge) == "flag" for each in listings]))


@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize("inside", [True, False])
def test_a_listing_of_one_photo_is_that_photo(grouped: bool, inside: bool) -> None:
    judge = learned(grouped)
    limits = (judge.thresholds.flag, judge.thresholds.clear, 0.5)
    near = [limit + step for limit in limits for step in (-1e-6, 0, 1e-6)]
    for probability in (0.0, 1e-6, 0.3, 0.999999, 1.0, *near):
        (alone,) = members([probability], judge, inside)
        found = judge_listing([alone], ALPHA)
        assert (found.decision, found.decided_by) == (alone.decision, "pixels")
        assert found.probability == (probability if inside else None)
        assert found.carried_by == ([] if alone.decision == "clear" else [0])


@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize("count", [1, 2, 5, 10, 20])
def test_at_most_alpha_of_real_listings_of_new_shops_is_flagged(grouped: bool, count: int) -> None:
    shops = 1000
    listings = drawn(np.random.default_rng(count), shops, count, -MEAN)
    chance = 3 * np.sqrt(ALPHA * (1 - ALPHA) / shops) + ALPHA / 4  # of these shops, and of those that taught
    assert share_flagged(listings, learned(grouped)) <= ALPHA + chance


def test_real_photos_that_are_one_photo_are_flagged_hardly_more_often(judge: Judge) -> None:
    same = np.repeat(drawn(np.random.default_rng(2), 500, 1, -MEAN), 20, axis=1)
    assert share_flagged(same, judge) < 3 * ALPHA


def test_more_photos_find_more(judge: Judge) -> None:
    made = drawn(np.random.default_rng(3), 600, 20, 2.0)
    one, five, twenty = (share_flagged(made[:, :count], judge) for count in (1, 5, 20))
    assert five > 1.1 * one
    assert twenty > 1.1 * one


def test_one_generated_photo_among_real_ones_is_found_and_named(judge: Judge) -> None:
    rng = np.random.default_rng(4)
    listings = drawn(rng, 400, 8, -MEAN)
    listings[:, 5] = drawn(rng, 400, 1, 5.0)[:, 0]
    verdicts = [judge_listing(members(logistic(each), judge), ALPHA) for each in listings]
    flagged = [each for each in verdicts if each.decision == "flag"]
    assert len(flagged) > 250
    assert np.mean([each.carried_by == [5] for each in flagged]) > 0.9
    largest = learned(grouped=False)
    assert len(flagged) > 400 * share_flagged(listings, largest), "more than where the largest one decides"
    assert sum(each.decision == "clear" for each in verdicts) < 20


def test_without_those_photos_it_would_not_be_flagged(judge: Judge) -> None:
    ratios = np.array([-3.0, 6.0, -5.0, 5.5, 4.0])
    every = members(logistic(ratios), judge)
    found = judge_listing(every, ALPHA)
    assert found.decision == "flag"
    assert found.carried_by[:2] == [1, 3]
    assert judge_listing([each for each in every if each.place not in found.carried_by], ALPHA).decision != "flag"
    kept = {*found.carried_by[:-1]}
    assert judge_listing([each for each in every if each.place not in kept], ALPHA).decision == "flag"


def test_it_takes_more_for_more_photos_and_for_parts(judge: Judge) -> None:
    for each in (judge.rule, learned(grouped=False).rule):
        assert each.extra[0, 0] == 0
        assert each.extra.shape == (MOST, MOST)
        assert (np.diff(each.extra, axis=0) >= 0).all()
        assert (np.diff(each.extra, axis=1) >= 0).all()


def test_the_same_photos_teach_the_same(judge: Judge) -> None:
    assert np.array_equal(judge.rule.extra, learned.__wrapped__().rule.extra)


def test_dependence_is_estimated() -> None:
    ratios = drawn(np.random.default_rng(5), 2000, 6, -MEAN)
    found = learn_dependence(ratios.ravel(), np.repeat(np.arange(2000), 6))
    assert found is not None
    assert found.mean == pytest.approx(-MEAN, abs=0.15)
    assert found.between == pytest.approx(SHOP**2, rel=0.1)
    assert found.within == pytest.approx(PHOTO**2, rel=0.1)


def test_too_few_sources_teach_no_dependence() -> None:
    ratios = drawn(np.random.default_rng(6), 19, 6, -MEAN).ravel()
    sources = np.repeat(np.arange(19), 6)
    assert learn_dependence(ratios, sources) is None
    assert learn(ratios, sources, np.ones(len(ratios)), 2.0, ALPHA).note


def test_what_the_others_say_of_a_photo_is_that_of_the_normal_model() -> None:
    dependence, ratios = Dependence(-4.0, 3.0, 5.0), np.array([-3.0, -4.5, -3.5])
    covariance = np.full((3, 3), 3.0) + 5.0 * np.eye(3)
    whole = multivariate_normal(np.full(3, -4.0), covariance).logpdf(ratios)
    single = []
    for place in range(3):
        others = np.delete(ratios, place)
        conditional = whole - multivariate_normal(np.full(2, -4.0), covariance[:2, :2]).logpdf(others)
        single.append(ratios[place] + norm(-4.0, np.sqrt(8)).logpdf(ratios[place]) - conditional)
    every = ratios.mean() * 3 / (1 + 2 * dependence.correlation)
    expected = np.log((np.exp(every) + np.exp(single).mean()) / 2)
    assert float(evidence(ratios, dependence)) == pytest.approx(expected)
    assert float(evidence(ratios[:1], dependence)) == pytest.approx(ratios[0])


def test_the_prior_moves_no_decision_by_threshold(judge: Judge) -> None:
    limits = Thresholds(*(shift_prior(each, 0.7) for each in (judge.thresholds.flag, judge.thresholds.clear)))
    other = replace(judge, thresholds=limits, ai_prior=0.7)
    for ratios in drawn(np.random.default_rng(7), 300, 4, 1.0):
        moved = [shift_prior(float(each), 0.7) for each in logistic(ratios)]
        assert judge_listing(members(moved, other), ALPHA).decision == decision(ratios, judge)


def test_a_shops_own_threshold_carries_over(judge: Judge) -> None:
    """Photos of a shop lie higher by 1, and so does its threshold: nothing else changes."""
    logit = np.log(judge.thresholds.flag / (1 - judge.thresholds.flag))
    shop = replace(judge, thresholds=Thresholds(float(logistic(logit + 1)), judge.thresholds.clear))
    for ratios in drawn(np.random.default_rng(8), 300, 4, 1.0):
        assert (decision(ratios + 1, shop) == "flag") == (decision(ratios, judge) == "flag")
    never = replace(judge, thresholds=Thresholds(1.000001, 0.2))
    assert judge_listing(members([1.0] * 20, never), ALPHA).decision == "review"


def test_photos_of_two_models_share_alpha(judge: Judge) -> None:
    other = replace(judge, rule=replace(judge.rule))
    limit = np.log(judge.thresholds.flag / (1 - judge.thresholds.flag))
    for step, expected in ((judge.rule.extra[1, 0] + 0.01, "flag"), (judge.rule.extra[1, 0] - 0.01, "review")):
        (first,), (second,) = members(logistic(np.array([limit + step])), judge), members([0.001], other)
        assert judge_listing([first, replace(second, place=1)], ALPHA).decision == expected


def test_a_listing_of_any_size_is_judged(judge: Judge) -> None:
    assert judge_listing([], ALPHA).model_dump() == {
        "decision": "review", "decided_by": "pixels", "probability": None, "carried_by": [], "photos": 0,
        "in_domain": 0, "alpha": ALPHA, "notes": [],
    }  # fmt: skip
    assert judge_listing(members([0.99999] * 21, judge), ALPHA).decision == "flag"
    assert judge_listing(members([0.01] * 1000, judge), ALPHA).decision == "clear"
    assert judge_listing(members([0.99999] * 1000, judge), ALPHA).decision == "review", "alpha cannot be cut so fine"


def test_what_is_out_of_domain_flags_nothing_and_clears_nothing(judge: Judge) -> None:
    outside = [replace(each, place=place + 1) for place, each in enumerate(members([0.99999] * 3, judge, False))]
    for probability, expected in ((0.01, "review"), (0.99, "flag")):
        (inside,) = members([probability], judge)
        found = judge_listing([inside, *outside], ALPHA)
        assert (found.decision, found.probability, found.in_domain, found.photos) == (expected, probability, 1, 4)
    assert judge_listing(outside, ALPHA).probability is None


def test_evidence_of_a_file_counts_as_for_one_photo(judge: Judge) -> None:
    real = members([0.01] * 3, judge)
    declared = replace(real[1], decision="flag", decided_by="credential")
    found = judge_listing([real[0], declared, real[2]], ALPHA)
    assert (found.decision, found.decided_by, found.carried_by) == ("flag", "credential", [1])
    marked = replace(real[2], decision="review", decided_by="mark")
    found = judge_listing([real[0], real[1], marked], ALPHA)
    assert (found.decision, found.decided_by, found.carried_by) == ("review", "mark", [2])


class TestReferences:
    """What a model's folder teaches."""

    def folder(self, path: Path, **arrays: Any) -> Path:
        folder = tiny_model.release(path, "1.0.0")
        probability = logistic(drawn(np.random.default_rng(9), 60, 25, -MEAN).ravel())
        facts = {"label": np.zeros(1500, np.uint8), "probability": probability, "distance": np.zeros(1500)}
        np.savez(folder / "reference.npz", **facts | arrays)
        return folder

    def rule(self, folder: Path) -> Rule:
        return load_rule(folder, read_card(folder), 0.01)

    def test_sources_teach_dependence(self, tmp_path: Path) -> None:
        rule = self.rule(self.folder(tmp_path / "a", source=np.repeat(np.arange(60), 25).astype(np.uint16)))
        assert rule.dependence is not None
        assert rule.note is None
        assert rule.flag == pytest.approx(np.log(0.8 / 0.2))

    def test_without_sources_the_largest_decides(self, tmp_path: Path) -> None:
        rule = self.rule(self.folder(tmp_path / "a"))
        assert rule.dependence is None
        assert "the largest one decides" in str(rule.note)
        assert np.isfinite(rule.extra).all()
        weighted = self.rule(self.folder(tmp_path / "b", source_photos=np.arange(1, 1501)))
        assert not np.array_equal(weighted.extra, rule.extra)

    @pytest.mark.parametrize("fault", ["missing", "damaged", "none_inside", "no_labels"])
    def test_without_a_reference_only_single_photos_are_flagged(self, tmp_path: Path, fault: str) -> None:
        folder = self.folder(tmp_path / "a", **({"distance": np.full(1500, 9.0)} if fault == "none_inside" else {}))
        file = folder / "reference.npz"
        if fault == "missing":
            file.unlink()
        elif fault == "damaged":
            file.write_bytes(file.read_bytes()[:1000])
        elif fault == "no_labels":
            np.savez(file, probability=np.zeros(3))
        rule = self.rule(folder)
        assert "not flagged by their pixels" in str(rule.note)
        judge = Judge(rule, Thresholds(0.8, 0.2), 0.5)
        assert judge_listing(members([0.99], judge), 0.01).decision == "flag"
        found = judge_listing(members([0.99999, 0.99999], judge), 0.01)
        assert (found.decision, found.notes) == ("review", [rule.note])


class TestService:
    """What a listing's request is answered."""

    def test_items_are_those_of_a_batch(self, client: TestClient) -> None:
        contents = [GOOD["large"], BAD["truncated_png"][0], encode(photo(300, 400, seed=1), "JPEG")]
        files = [("files", (f"{place}.jpg", data)) for place, data in enumerate(contents)]
        batch = client.post("/predict/batch", files=files, headers={"X-Request-ID": "one"}).json()
        answer = client.post(LISTING, files=files, headers={"X-Request-ID": "one"})
        assert answer.status_code == 200, answer.text
        body = answer.json()
        listing = body.pop("listing")
        for name in ("total_inference_time_ms",):
            assert body.pop(name) >= 0
            batch.pop(name)
        assert body == batch
        assert (listing["id"], listing["photos"], listing["repeated"], listing["alpha"]) == ("one", 2, [], 0.01)

    def test_one_photo_is_answered_as_alone(self, client: TestClient) -> None:
        for data in (GOOD["png"], GOOD["large"]):
            alone = client.post("/predict", files={"file": data}).json()
            listing = client.post(LISTING, files=[("files", data)]).json()["listing"]
            assert listing["decision"] == alone["decision"]
            assert listing["decided_by"] == alone["decided_by"]
            if alone["in_domain"]:
                assert listing["probability"] == pytest.approx(alone["probability"], abs=1e-5)

    def test_the_same_photo_counts_once(self, client: TestClient) -> None:
        png = GOOD["png"]
        again = with_chunk(png, b"tEXt", b"Comment\0another file, the same pixels")
        files = [("files", data) for data in (png, GOOD["webp"], png, again)]
        listing = client.post(LISTING, files=files).json()["listing"]
        assert (listing["photos"], listing["repeated"]) == (2, [2, 3])
        alone = client.post(LISTING, files=[("files", png)] * 3).json()["listing"]
        single = client.post("/predict", files={"file": png}).json()
        assert (alone["photos"], alone["repeated"], alone["decision"]) == (1, [1, 2], single["decision"])

    def test_photos_that_cannot_be_read_do_not_count(self, client: TestClient) -> None:
        body = client.post(LISTING, files=[("files", b"no photo")] * 2).json()
        assert (body["failed"], body["total"]) == (2, 2)
        listing = body["listing"]
        assert (listing["decision"], listing["photos"], listing["probability"]) == ("review", 0, None)
        assert listing["carried_by"] == []

    @pytest.mark.parametrize("count", [0, 21])
    @pytest.mark.usefixtures("then_good")
    def test_none_and_too_many_are_refused(self, client: TestClient, count: int) -> None:
        files = [("files", GOOD["png"])] * count or [("other", GOOD["png"])]
        answer = client.post(LISTING, files=files)
        assert is_error(answer, 422, "validation_error")
        assert count == 0 or answer.json()["detail"] == "files: 21 files; a listing has at most 20"

    @pytest.mark.parametrize("named", ["a b", "x" * 201, "bär", "\n"])
    def test_an_odd_id_is_refused(self, client: TestClient, named: str) -> None:
        answer = client.post(LISTING, files=[("files", GOOD["png"])], data={"listing_id": named})
        assert is_error(answer, 422, "validation_error")

    def test_the_log_keeps_the_id(self, client: TestClient) -> None:
        files = [("files", GOOD["png"]), ("files", GOOD["large"])]
        body = client.post(LISTING, files=files, data={"listing_id": "lamp/17"}).json()
        assert body["listing"]["id"] == "lamp/17"
        for item in body["results"]:
            assert client.get(f"/predictions/{item['request_id']}").json()["listing"] == "lamp/17"
        alone = client.post("/predict", files={"file": GOOD["png"]}).json()
        assert client.get(f"/predictions/{alone['request_id']}").json()["listing"] is None

    def test_a_photo_without_a_credential_hides_no_copy_with_one(self, tmp_path: Path) -> None:
        """Its mark sends the listing to a person, also where the same pixels came before without it."""
        card = tiny_model.CARD | {"domain": tiny_model.CARD["domain"] | {"threshold": 1000.0}}
        model = tiny_model.build(tmp_path / "model.onnx", card)
        log = f"sqlite:///{tmp_path / 'log'}.db"
        state = start_worker(Settings(model_path=model, log_url=log, monitor=False, ai_marks="review"))
        models = state.in_force()
        files = [("a.png", encode(photo(seed=seed))) for seed in range(20)]
        answers = predict_many(files, "x", models, state).results
        name, clear = files[next(place for place, each in enumerate(answers) if each.decision == "clear")]
        marked = with_chunk(clear, b"tEXt", b"parameters\0a shoe, Steps: 2, Sampler: Euler")
        found = predict_listing([(name, clear), (name, marked)], "", "y", models, state).listing
        assert (found.photos, found.repeated) == (1, [1])
        assert (found.decision, found.decided_by, found.carried_by) == ("review", "mark", [1])
        state.log.close()

    def test_a_shops_own_thresholds_decide_its_listings(self, tmp_path: Path) -> None:
        geometry = {"min_width": 40, "max_width": 400, "min_height": 20, "max_height": 200}
        wide = {"name": "wide", "domain": tiny_model.CARD["domain"] | {"threshold": 1e9, "geometry": geometry}}
        wide |= {"format": 2, "input": tiny_model.CARD["input"] | {"resize": "squash"}}
        folder = tiny_model.release(tmp_path / "models" / "wide", "1.0.0", **wide)
        ratios = drawn(np.random.default_rng(9), 60, 25, -MEAN).ravel()
        np.savez(
            folder / "reference.npz", label=np.zeros(1500), probability=logistic(ratios), distance=np.zeros(1500),
            source=np.repeat(np.arange(60), 25).astype(np.uint16),
        )  # fmt: skip
        shop = calibration_of(read_card(folder), 1.000001, {"shoes": 0.0})
        file = write_calibration(tmp_path / "shop.json", shop)
        log = f"sqlite:///{tmp_path / 'log'}.db"
        state = start_worker(Settings(models=folder.parent, calibration=file, log_url=log, monitor=False, alpha=0.05))
        files = [("a.png", encode(photo(100, 50, seed=seed))) for seed in range(20)]
        answer = predict_listing(files, "", "x", state.in_force(), state)
        assert answer.listing.notes == []
        assert {item.calibration for item in answer.results} == {"shop"}
        assert answer.listing.decision != "flag", "the shop's threshold is never reached"
        for each in files:
            for group in (None, "shoes"):
                one = predict_listing([each], "", "y", state.in_force(group), state)
                assert one.listing.decision == one.results[0].decision
                assert one.listing.probability == one.results[0].probability
        state.log.close()
