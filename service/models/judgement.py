"""From the model's raw outputs to what is said about a photo: the same for one request and for a whole catalogue."""

from dataclasses import dataclass
from typing import Literal

from service.models import decision
from service.models.decision import Confidence, Decision, Domain, Prediction
from service.models.detector import Detector, Scores
from service.photo.credentials import Credential

DecidedBy = Literal["pixels", "credential", "mark"]


@dataclass(frozen=True)
class Judgement:
    """What is said about one photo.

    Attributes:
        prediction: the likelier label.
        probability: calibrated P(AI-generated) at the detector's `ai_prior`, 6 decimals.
        confidence: from the probability's distance to 0.5; out of domain low, whatever that distance.
        decision: what to do with the photo.
        decided_by: what made the decision: the pixels, a valid Content Credential, or an unsigned mark.
        domain: is the photo like those the model knows?
    """

    prediction: Prediction
    probability: float
    confidence: Confidence
    decision: Decision
    decided_by: DecidedBy
    domain: Domain


def judge(
    detector: Detector,
    scores: Scores,
    row: int,
    *,
    width: int,
    height: int,
    credential: Credential | None,
    marked: bool = False,
) -> Judgement:
    """Judge one photo.

    Args:
        detector: the model.
        scores: what it said about N photos.
        row: the photo's place among them.
        width: the upright photo's own width in pixels, before it was resized.
        height: likewise its height.
        credential: of the photo's file.
        marked: whether the file carries an unsigned mark of AI that is to send it to a person.
    """
    # Rounded first, so that everything else in the answer agrees with the number that the client reads.
    probability = round(detector.reported(float(scores.probability[row])), 6)
    domain = decision.domain(detector.card, float(scores.ood_score[row]), width, height)
    by_pixels = decision.decide(probability, domain.inside, detector.thresholds)
    decided, by = with_evidence(by_pixels, credential, marked)
    return Judgement(
        prediction=decision.predict(probability),
        probability=probability,
        confidence=decision.confidence(probability, domain.inside),
        decision=decided,
        decided_by=by,
        domain=domain,
    )


def with_evidence(by_pixels: Decision, credential: Credential | None, marked: bool) -> tuple[Decision, DecidedBy]:
    """Decide by the pixels' decision and what the file says of its making; return the decision and what made it.

    A valid credential that declares the photo AI-generated makes it `flag`, in domain or not; one that declares parts
    of it AI-generated turns `clear` into `review`, and so does a mark. Nothing ever clears a photo: a camera may have
    photographed a screen.
    """
    if credential is not None and credential.says_generated:
        return "flag", "pixels" if by_pixels == "flag" else "credential"
    if by_pixels == "clear":
        if credential is not None and credential.says_partly_generated:
            return "review", "credential"
        if marked:
            return "review", "mark"
    return by_pixels, "pixels"
