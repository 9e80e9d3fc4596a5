"""Promises: feedback that is no random sample, exact tests, the log's counts, and the alert of its own kind."""

import importlib
import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import binomtest

from service import metrics
from service.drift.promise import (
    LEVEL,
    LOOK,
    MINIMUM,
    NEWEST,
    OTHERS,
    Promises,
    in_words,
    is_tested,
    judged,
    level,
    p_value,
    promised,
    stand_for,
    worst,
)  # fmt: skip
from service.drift.references import BadReferenceError
from service.drift.window import evaluate_window
from service.log.prediction_log import PredictionLog, ReviewCounts, ThresholdsInForce
from service.log.tables import now
from service.models.card import Card
from service.models.decision import shift_prior
from service.models.shop import ShopCalibration, calibration_file
from service.schemas import DriftPromise
from service.settings import ROOT
from tests.service.test_drift import rows, shop
from tests.service.test_drift_monitor import gauge, watch
from tests.support import tiny_model
from tests.support.log_rows import row
from tests.support.waiting import wait_for

__all__ = ["shop"]  # a fixture

SINCE = datetime(2026, 11, 1)  # noqa: DTZ001 - the log keeps UTC without a zone
CARD = Card.model_validate(tiny_model.CARD | {"name": "cifake"})
RELEASED = ThresholdsInForce("cifake", "0.0.1", "released", (), 0.8)


def calibration(**changed: Any) -> ShopCalibration:
    """Return a shop's calibration with two groups of their own, and one that has too few products at 1 %."""

    def promises(flag: float, upper: float, alpha: float = 0.01) -> dict[str, Any]:
        return {"photos": 600, "products": 300, "promises": {alpha: {"flag": flag, "upper": upper}}}

    fields = {
        "model": "cifake",
        "model_version": "0.0.1",
        "model_sha256": "0" * 64,
        "made_at": "2026-11-01T00:00:00Z",
        "shop": promises(0.7, 0.021),
        "groups": {"boots": promises(0.9, 0.03), "hats": promises(0.6, 0.02), "new": promises(0.5, 0.1, alpha=0.05)},
        "rest": promises(0.65, 0.04),
        "small_groups": ["belts", "scarves"],
        "out_of_domain": 0.0,
        "marked": 0.0,
    }
    return ShopCalibration.model_validate(fields | changed)


def counts(flagged: tuple[int, int, int], others: tuple[int, int, int]) -> ReviewCounts:
    """Return counts of all, of reviewed and of real photos."""
    return ReviewCounts(*flagged, *others, since=SINCE)


def judge(found: ReviewCounts, shop: ShopCalibration | None = None) -> DriftPromise:
    """Return what feedback says of the released promise, whose bound is 1 %, or of a shop's."""
    (first, *_) = promised(CARD, shop, 0.01, 0.5)
    return judged([first], [found])[0]


def test_the_test_is_the_exact_binomial_test() -> None:
    for flagged, of in ((0, 300), (3, 200), (19, 1000), (41, 1000)):
        found = counts((flagged, flagged, flagged), (of - flagged,) * 3)
        assert stand_for(found) == of
        assert p_value(found, 0.01) == pytest.approx(binomtest(flagged, of, 0.01, alternative="greater").pvalue)


def test_moderators_who_review_flagged_photos_first_bias_nothing() -> None:
    found = counts((150, 150, 100), (9_900, 198, 196))  # 1 % of 10,000 real photos were flagged
    assert stand_for(found) == 100 + 9_898
    verdict = judge(found)
    assert (verdict.holds, verdict.confirmed, verdict.flagged) == (True, 296, 100)
    assert verdict.share == pytest.approx(0.01, abs=1e-4)
    doubled = judge(counts((250, 250, 200), (9_800, 196, 194)))
    assert doubled.holds is False
    assert doubled.share == pytest.approx(0.02, abs=1e-3)
    drawn_by_lot = counts((300, 15, 10), (19_800, 990, 980))
    assert stand_for(drawn_by_lot) == 10 + round((19_800 - 10) / 20)
    assert judge(drawn_by_lot).holds is True


def test_complaints_about_photos_that_were_not_flagged_bias_nothing() -> None:
    """Of those that buyers complain about half are AI-generated; the others are real all the same."""
    verdict = judge(counts((150, 150, 100), (9_900, 400, 200)))
    assert verdict.share == pytest.approx(0.0102, abs=1e-4)
    assert verdict.holds is True


def test_too_little_is_said_and_no_alarm() -> None:
    few = judge(counts((50, 50, 50), (149, 149, 149)))
    assert (few.holds, few.p_value, few.note) == (None, None, "199 of 200 photos were called real")
    assert judge(counts((50, 50, 50), (150, 150, 150))).holds is False
    unseen = judge(counts((50, 0, 0), (1000, 400, 400)))
    assert (unseen.holds, unseen.stand_for, unseen.note) == (None, None, "no flagged photo was reviewed, of 50")
    nothing = judge(ReviewCounts())
    assert (nothing.holds, nothing.since) == (None, None)
    assert judge(counts((0, 0, 0), (1000, 400, 400))).holds is True
    assert not is_tested(counts((0, 0, 0), (0, 0, 0)))


def test_where_flagged_photos_alone_are_reviewed_nothing_is_said_to_hold() -> None:
    fine = judge(counts((300, 300, 250), (24_750, 0, 0)))
    assert fine.holds is None
    assert fine.note == f"of the photos that were not flagged 0 were reviewed: {OTHERS} are needed"
    assert judge(counts((300, 300, 250), (24_750, OTHERS, OTHERS))).holds is True
    # 250 of 12,500 at most: whatever the others are, that is too many.
    assert judge(counts((300, 300, 250), (12_250, 0, 0))).holds is False


def test_the_bound_of_a_shop_is_its_upper_limit() -> None:
    found = counts((20, 20, 20), (980, 980, 980))
    assert judge(found).bound == 0.01
    assert judge(counts((24, 24, 24), (976, 976, 976))).holds is False
    verdict = judge(counts((24, 24, 24), (976, 976, 976)), calibration())
    assert (verdict.calibration, verdict.bound, verdict.holds) == ("shop", 0.021, True)
    assert judge(counts((42, 42, 42), (958, 958, 958)), calibration()).holds is False
    assert (level("shop"), level("released")) == (LEVEL, pytest.approx(LEVEL * LOOK / NEWEST))


def test_each_group_has_the_promise_of_its_thresholds() -> None:
    promises = {each.group: each for each in promised(CARD, calibration(), 0.01, 0.5)}
    bounds = {group: (each.bound, each.thresholds.groups, each.thresholds.flag) for group, each in promises.items()}
    assert bounds == {
        None: (0.021, (None, "new"), 0.7),  # the group `new` promises nothing at 1 %, and has the shop's
        "boots": (0.03, ("boots",), 0.9),
        "hats": (0.02, ("hats",), 0.6),
        "rest": (0.04, ("belts", "scarves"), 0.65),
    }
    (whole, *_) = promised(CARD, calibration(rest=None), 0.01, 0.5)
    assert whole.thresholds.groups == (None, "new", "belts", "scarves")
    assert promised(CARD, calibration(), 0.02, 0.5) == promised(CARD, None, 0.02, 0.5) == []
    (moved,) = promised(CARD, None, 0.01, 0.1)
    assert moved.thresholds.flag == shift_prior(0.8, 0.1)


def test_groups_share_the_level() -> None:
    promises = promised(CARD, calibration(), 0.01, 0.5)
    odd, calm = counts((42, 42, 42), (958, 958, 958)), counts((5, 5, 5), (995, 995, 995))
    p = p_value(counts((33, 33, 33), (967, 967, 967)), 0.021)
    assert LEVEL / 4 < p < LEVEL
    between = counts((33, 33, 33), (967, 967, 967))
    none = ReviewCounts()
    assert judged(promises, [between, none, none, none])[0].holds is False
    assert judged(promises, [between, calm, calm, calm])[0].holds is True
    found = judged(promises, [calm, calm, odd, none])
    assert [each.holds for each in found] == [True, True, False, None]
    assert worst(found) is found[2]
    assert worst(judged(promises, [none] * 4)) is not None
    assert worst([]) is None
    words = in_words(found[2], "photos")
    assert words.startswith("promise: 4.20% of real photos of hats are flagged, and the shop's calibration promises ")
    assert "2.00% at most: 42 of 1,000 since 2026-11-01, by 1,000 that were called real (p = " in words
    assert words.endswith("Recalibrate: python -m tools.calibrate PHOTOS --model photos")


def test_a_broken_promise_is_an_alert_and_no_drift() -> None:
    broken = judge(counts((60, 60, 60), (940, 940, 940)))
    answer = evaluate_window("cifake", rows(50, 1), {}, "none", [broken]).answer
    assert answer["promise"] == broken
    assert answer["alerts"][0] == "no reference: none"
    assert answer["alerts"][1].startswith("promise: 6.00% of real photos are flagged, and ALPHA=0.01 promises 1.00% at")
    assert not answer["drift_detected"]
    calm = evaluate_window("cifake", rows(50, 1), {}, "none", [judge(ReviewCounts())]).answer
    assert calm["alerts"] == ["no reference: none"]
    assert evaluate_window("cifake", rows(50, 1), {}, "none").answer["promise"] is None


@pytest.fixture
def log(tmp_path: Path) -> Iterator[PredictionLog]:
    opened = PredictionLog(f"sqlite:///{tmp_path / 'counts.db'}")
    yield opened
    opened.close()


def write(log: PredictionLog, *predictions: dict[str, Any]) -> None:
    """Write predictions of this moment, in domain, by the card's thresholds where nothing else is said."""
    usual = {"in_domain": True, "probability": 0.1, "flag_threshold": 0.8, "calibration": "released"}
    usual |= {"shop_group": None, "time": now()}  # rows that are written together have the same columns
    before = sum(len(log.recent(model, "0.0.1", 10_000)) for model in ("cifake", "photos"))
    log.add([row(0, "0.0.1") | usual | each for each in predictions])
    wait_for(
        lambda: (
            sum(len(log.recent(model, "0.0.1", 10_000)) for model in ("cifake", "photos")) == before + len(predictions)
        )
    )


def tally(log: PredictionLog, thresholds: ThresholdsInForce = RELEASED, newest: int = NEWEST) -> tuple[int, ...]:
    """Return the six counts."""
    found = log.review_counts(thresholds, log.newest_feedback(), newest)
    return (
        *(found.flagged, found.flagged_reviewed, found.flagged_real),
        *(found.others, found.others_reviewed, found.others_real),
    )


def test_the_log_counts_what_the_pixels_flagged(log: PredictionLog) -> None:
    assert log.review_counts(RELEASED, log.newest_feedback(), NEWEST) == ReviewCounts()
    write(
        log,
        {"request_id": "flagged", "probability": 0.8, "decision": "flag"},
        {"request_id": "unreviewed", "probability": 0.9, "decision": "flag"},
        {"request_id": "unknown", "probability": 0.9, "in_domain": False},
        {"request_id": "credential", "probability": 0.1, "decision": "flag", "credential": "valid"},
        {"request_id": "cleared", "probability": 0.1},
        {"request_id": "old", "calibration": None},
        {"request_id": "last", "probability": 0.7},
    )
    for name in ("flagged", "unknown", "credential", "cleared"):
        log.add_feedback(name, "real", None)
    log.add_feedback("last", "ai_generated", None)
    assert tally(log) == (2, 1, 1, 5, 4, 3)
    log.add_feedback("flagged", "ai_generated", None)  # the newest label counts
    assert tally(log) == (2, 1, 0, 5, 4, 3)
    write(log, {"request_id": "later", "probability": 0.9})  # after the last that was reviewed
    assert tally(log) == (2, 1, 0, 5, 4, 3)
    found = log.review_counts(RELEASED, 4, NEWEST)  # before the fifth label
    assert (found.flagged_real, found.others, found.others_reviewed) == (1, 3, 3)


def test_half_is_the_least_that_flags(log: PredictionLog) -> None:
    low = ThresholdsInForce("cifake", "0.0.1", "released", (), 0.3)
    write(
        log,
        {"request_id": "low", "probability": 0.4, "flag_threshold": 0.3},
        {"request_id": "half", "probability": 0.5, "flag_threshold": 0.3},
    )
    log.add_feedback("half", "real", None)
    assert tally(log, low) == (1, 1, 1, 1, 0, 0)


def test_only_predictions_under_the_same_promise_count(log: PredictionLog) -> None:
    boots = ThresholdsInForce("cifake", "0.0.1", "shop", ("boots",), 0.9)
    whole = ThresholdsInForce("cifake", "0.0.1", "shop", (None, "new"), 0.7)
    mine = {"calibration": "shop", "flag_threshold": 0.7}
    write(
        log,
        {"request_id": "model", "model": "photos"},
        {"request_id": "before", "flag_threshold": 0.81},
        {"request_id": "none", "flag_threshold": None},
        {"request_id": "boots", **mine, "flag_threshold": 0.9, "shop_group": "boots", "probability": 0.8},
        {"request_id": "boots before", **mine, "shop_group": "boots"},
        {"request_id": "new", **mine, "shop_group": "new", "probability": 0.8},
        {"request_id": "alone", **mine},
        {"request_id": "released"},
    )
    for found in log.recent("cifake", "0.0.1", 10) + log.recent("photos", "0.0.1", 10):
        log.add_feedback(found["request_id"], "real", None)
    assert tally(log) == (0, 0, 0, 1, 1, 1)
    assert tally(log, boots) == (0, 0, 0, 1, 1, 1)
    assert tally(log, whole) == (1, 1, 1, 1, 1, 1)


def test_the_newest_confirmed_photos_are_counted_and_the_newest_of_one_id(log: PredictionLog) -> None:
    write(log, *({"request_id": f"photo {number}"} for number in range(6)))
    for number in (5, 0, 2, 4):
        log.add_feedback(f"photo {number}", "real", None)
    assert tally(log) == (0, 0, 0, 6, 4, 4)
    assert tally(log, newest=2) == (0, 0, 0, 2, 2, 2)
    assert tally(log, newest=3) == (0, 0, 0, 4, 3, 3)
    write(log, {"request_id": "photo 0", "probability": 0.9})
    assert tally(log) == (1, 1, 1, 6, 3, 3)


def test_a_look_needs_more_labels_or_another_promise(log: PredictionLog) -> None:
    names = [f"photo {number}" for number in range(3 * LOOK)]
    write(
        log, *({"request_id": name, "probability": 0.9 if place % 10 == 0 else 0.1} for place, name in enumerate(names))
    )
    promises = Promises(log)

    def look(alpha: float = 0.01, shop: ShopCalibration | None = None) -> DriftPromise:
        return promises.look(CARD, shop, alpha, 0.5)[0]

    for name in names[: MINIMUM - 1]:
        log.add_feedback(name, "real", None)
    assert (look().holds, look().confirmed) == (None, LOOK)
    log.add_feedback(names[MINIMUM - 1], "real", None)
    first = look()
    assert (first.holds, first.confirmed, first.flagged, first.stand_for) == (False, 200, 20, 200)
    log.add_feedback(names[MINIMUM], "real", None)
    assert look() is first
    assert look(shop=calibration()).confirmed == 0  # a new calibration begins anew
    assert look().confirmed == 200
    assert look(alpha=0.05).confirmed == 0
    assert promises.look(CARD, None, 0.02, 0.5) == []


def test_the_monitor_tells_of_a_broken_promise(
    shop: PredictionLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = [
        {"request_id": f"photo {number}", "probability": 0.9 if number % 8 == 0 else 0.1} for number in range(MINIMUM)
    ]
    write(shop, *written)
    for each in written:
        shop.add_feedback(each["request_id"], "real", None)
    monitor = watch().monitor()
    monitor.update()
    answer = monitor.answer()
    (alert,) = (line for line in answer["alerts"] if line.startswith("promise: "))
    assert alert.startswith(
        "promise: 12.50% of real photos are flagged, and ALPHA=0.01 promises 1.00% at most: 25 of 200"
    )
    assert alert.endswith("python -m tools.calibrate PHOTOS --model cifake")
    assert answer["promise"].holds is False
    assert gauge(metrics.PROMISE) == 1
    page = monitor.page("window")
    assert page is not None
    assert "tools.calibrate" in page

    metrics.PROMISE.labels("cifake").set(0)
    restarted = watch().monitor()
    monitor._check()
    monitor._keep()
    restarted._restore()
    assert gauge(metrics.PROMISE) == 1  # as the last kept report said

    file = tmp_path / "shop.json"
    file.write_text(calibration_file(calibration()), encoding="utf-8")
    calibrated = watch(calibration=file).monitor()
    calibrated.update()
    assert gauge(metrics.PROMISE) == 0
    assert [each.group for each in calibrated.answer()["promises"]] == [None, "boots", "hats", "rest"]
    assert calibrated.answer()["promise"].note == "0 of 200 photos were called real"
    file.write_text("{", encoding="utf-8")  # the workers keep the one before it, too
    assert calibrated.evaluate().answer["promise"].calibration == "shop"
    file.write_text(calibration_file(calibration(model_version="9.9.9")), encoding="utf-8")
    assert calibrated.evaluate().answer["promise"].calibration == "released"

    (tmp_path / "models" / "cifake" / "reference.npz").unlink()
    blind = watch().monitor()
    assert blind.evaluate().answer["alerts"][0].startswith("no reference: ")
    assert blind.evaluate().answer["promise"].holds is False
    with pytest.raises(BadReferenceError, match="reference"):
        blind._check()


def test_a_year_of_few_alarms_and_a_doubled_rate_that_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "bench")
    bench = importlib.import_module("promise_year")
    monkeypatch.setattr(bench, "RUNS", 20)
    first = next(iter(bench.promises()))
    for seed, who in enumerate(bench.MODERATORS):
        assert bench.false_alarms(first, who, first.alpha, 2, seed) == 0
        assert bench.found(first, who, seed, before=0) >= 0.7  # of 20, at a power of 0.94: less once in 10,000


def test_the_simulated_years_keep_what_they_promise() -> None:
    report = json.loads((ROOT / "reports/promise_year.json").read_text(encoding="utf-8"))
    known = {"newest": NEWEST, "look": LOOK, "levels": {"shop": level("shop"), "released": level("released")}}
    assert known.items() <= report.items(), "other constants: python bench/promise_year.py measures them"
    assert {(each["calibration"], each["moderator"]) for each in report["rows"]} >= {
        ("shop", "flagged_first"), ("shop", "by_lot"), ("shop", "everything"), ("released", "flagged_first"),
    }  # fmt: skip
    for each in report["rows"]:
        false = each["false_alarms"]
        assert false["at_alpha"]["at_most"] <= 0.1
        if each["calibration"] == "shop":
            assert false["over_calibrations"]["at_most"] <= 0.1
            assert each["found_from_the_start"] >= 0.9
            assert each["found_after_a_change"] >= 0.9
