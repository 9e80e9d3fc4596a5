"""From the model's raw outputs to what is said about a photo: the same for one request and for a whole catalogue."""

from dataclasses import dataclass

from service import decision
from service.decision import Confidence, Decision, Domain, Prediction
from service.detector import Detector, Scores


@dataclass(frozen=True)
class Judgement:
    """What is said about one photo.

    Attributes:
        prediction: the likelier label.
        probability: calibrated P(AI-generated) at the detector's `ai_prior`, 6 decimals.
        confidence: from the probability's distance to 0.5.
        decision: what to do with the photo.
        domain: is the photo like those the model knows?
    """

    prediction: Prediction
    probability: float
    confidence: Confidence
    decision: Decision
    domain: Domain


def judge(detector: Detector, scores: Scores, row: int, width: int, height: int) -> Judgement:
    """Judge one photo.

    Args:
        detector: the model.
        scores: what it said about N photos.
        row: the photo's place among them.
        width: the upright photo's own width in pixels, before it was resized.
        height: likewise its height.
    """
    # Rounded first, so that everything else in the answer agrees with the number that the client reads.
    probability = round(detector.reported(float(scores.probability[row])), 6)
    domain = decision.domain(detector.card, float(scores.distance[row]), width, height)
    return Judgement(
        prediction=decision.predict(probability),
        probability=probability,
        confidence=decision.confidence(probability),
        decision=decision.decide(probability, domain.inside, detector.thresholds),
        domain=domain,
    )
