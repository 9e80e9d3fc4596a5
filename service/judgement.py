"""From the model's raw outputs to what is said about a photo: the same for one request and for a whole catalogue."""

from dataclasses import dataclass
from typing import Literal

from service import decision
from service.credentials import Credential
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
        decided_by: what made the decision: the pixels, or a valid Content Credential.
        domain: is the photo like those the model knows?
    """

    prediction: Prediction
    probability: float
    confidence: Confidence
    decision: Decision
    decided_by: Literal["pixels", "credential"]
    domain: Domain


def judge(
    detector: Detector, scores: Scores, row: int, *, width: int, height: int, credential: Credential | None
) -> Judgement:
    """Judge one photo.

    Args:
        detector: the model.
        scores: what it said about N photos.
        row: the photo's place among them.
        width: the upright photo's own width in pixels, before it was resized.
        height: likewise its height.
        credential: of the photo's file.
    """
    # Rounded first, so that everything else in the answer agrees with the number that the client reads.
    probability = round(detector.reported(float(scores.probability[row])), 6)
    domain = decision.domain(detector.card, float(scores.distance[row]), width, height)
    by_pixels = decision.decide(probability, domain.inside, detector.thresholds)
    decided = with_credential(by_pixels, credential)
    return Judgement(
        prediction=decision.predict(probability),
        probability=probability,
        confidence=decision.confidence(probability),
        decision=decided,
        decided_by="pixels" if decided == by_pixels else "credential",
        domain=domain,
    )


def with_credential(by_pixels: Decision, credential: Credential | None) -> Decision:
    """Decide by the pixels' decision and what the file's Content Credentials come to.

    A valid one that declares the photo AI-generated makes it `flag`, in domain or not; one that declares parts of it
    AI-generated turns `clear` into `review`. None ever clears a photo: a camera may have photographed a screen.
    """
    if credential is not None and credential.says_generated:
        return "flag"
    if credential is not None and credential.says_partly_generated and by_pixels == "clear":
        return "review"
    return by_pixels
