"""From a model's scores to what is said about a photo: pure functions, no state."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.models.card import Card
from service.photo.provenance import Credential, Provenance

if TYPE_CHECKING:
    from service.models.detector import Detector, Scores

Prediction = Literal["real", "ai_generated"]
Confidence = Literal["low", "medium", "high"]
Decision = Literal["flag", "clear", "review"]
DecidedBy = Literal["pixels", "credential", "mark"]


@dataclass(frozen=True)
class Thresholds:
    """Where a decision begins, on the same scale as the probability it is compared with.

    Attributes:
        flag: in domain and at or above it (and at or above 0.5): flag.
        clear: in domain and below it (and below 0.5): clear.
    """

    flag: float
    clear: float


class Domain(BaseModel):
    """Is the photo like those the model knows? Both must hold."""

    embedding: bool = Field(description="to the network it is like the training photos")
    geometry: bool = Field(description="its width and height are among the training photos' sizes")

    @property
    def inside(self) -> bool:
        """Both hold: the promises of the thresholds apply to this photo."""
        return self.embedding and self.geometry


class Verdict(BaseModel):
    """What is said about one photo.

    A new field of the answer is added here, and set in `judge`: single answers, items of a batch and bulk scoring all
    take their fields from this class.
    """

    model_config = ConfigDict(protected_namespaces=())

    prediction: Prediction = Field(description="the likelier label: probability from 0.5 is ai_generated")
    probability: float = Field(ge=0, le=1, description="calibrated P(AI-generated)")
    confidence: Confidence = Field(
        description="from the probability's distance to 0.5: above 0.3 high, below 0.2 low; out of domain always low"
    )
    decision: Decision = Field(
        description="flag: few real photos get here; clear: few AI images get here; review: everything else"
    )
    decided_by: DecidedBy = Field(
        description="credential: a valid Content Credential declares AI, which turned the pixels' decision to flag "
        "(all of the photo) or from clear to review (parts of it); mark: an unsigned mark turned clear to review, as "
        "AI_MARKS=review asks"
    )
    in_domain: bool = Field(description="false: the model knows no such photos, and no promise holds")
    domain: Domain
    model: str = Field(description="name of the model that answered: the one that knows photos of this size")
    model_version: str
    provenance: Provenance
    notes: list[str] = Field(
        default=[], description="what was passed over in the file, such as a damaged colour profile"
    )


def judge(
    detector: "Detector",
    scores: "Scores",
    row: int,
    *,
    width: int,
    height: int,
    provenance: Provenance,
    notes: Sequence[str] = (),
    review_marked: bool = False,
) -> Verdict:
    """Turn a model's scores into what is said about one photo: the same for a request and for a whole catalogue.

    Args:
        detector: the model.
        scores: what it said about N photos.
        row: the photo's place among them.
        width: the upright photo's own width in pixels, before it was resized.
        height: likewise its height.
        provenance: what its file says about its making.
        notes: what was passed over in the file.
        review_marked: whether an unsigned mark of AI sends the photo to a person.
    """
    # Rounded first, so that everything else in the answer agrees with the number that the client reads.
    probability = round(detector.reported(float(scores.probability[row])), 6)
    known = domain(detector.card, float(scores.ood_score[row]), width, height)
    by_pixels = decide(probability, known.inside, detector.thresholds)
    decided, by = with_evidence(by_pixels, provenance.c2pa, review_marked and provenance.is_marked)
    return Verdict(
        prediction=predict(probability),
        probability=probability,
        confidence=confidence(probability, known.inside),
        decision=decided,
        decided_by=by,
        in_domain=known.inside,
        domain=known,
        model=detector.name,
        model_version=detector.version,
        provenance=provenance,
        notes=list(notes),
    )


def shift_prior(probability: float, prior: float, base: float = 0.5) -> float:
    """Move a calibrated probability from one share of AI images to another.

    Bayes' rule for a changed prior (Saerens, Latinne & Decaestecker 2002, eq. 2.4). Strictly increasing, so a
    threshold moved by it keeps the photos on its two sides.

    Args:
        probability: P(AI-generated) in 0..1 where the share of AI images is `base`.
        prior: the true share of AI images, above 0 and below 1.
        base: the share that `probability` was calibrated for, above 0 and below 1.

    Returns:
        P(AI-generated) in 0..1 where the share of AI images is `prior`.
    """
    if prior == base:
        return probability
    generated = probability * prior / base
    real = (1 - probability) * (1 - prior) / (1 - base)
    return generated / (generated + real)


def thresholds(card: Card, alpha: float, ai_prior: float) -> Thresholds:
    """Return the card's thresholds for `alpha`, moved to `ai_prior` by the same rule as the probabilities.

    So a threshold keeps its meaning: at most `alpha` of real photos like the calibration's reach `flag`,
    whatever the prior; the prior acts through the 0.5 that `decide` adds.

    Raises:
        ValueError: the card has no flag threshold for `alpha`.
    """
    flags, base = card.thresholds.flag, card.calibration.prior_ai
    if alpha not in flags:
        levels = ", ".join(f"{level:g}" for level in flags)
        raise ValueError(f"ALPHA={alpha:g} is not calibrated: choose one of {levels}")
    return Thresholds(
        flag=shift_prior(flags[alpha], ai_prior, base),
        clear=shift_prior(card.thresholds.clear, ai_prior, base),
    )


def domain(card: Card, ood_score: float, width: int, height: int) -> Domain:
    """Compare a photo with the card's domain.

    Args:
        card: the model's card.
        ood_score: the photo's, of the model.
        width: the upright photo's own width in pixels, before it is resized.
        height: likewise its height.
    """
    known = card.domain.geometry
    return Domain(
        embedding=ood_score <= card.domain.threshold,
        geometry=known.min_width <= width <= known.max_width and known.min_height <= height <= known.max_height,
    )


def predict(probability: float) -> Prediction:
    """Return the likelier label at this P(AI-generated)."""
    return "ai_generated" if probability >= 0.5 else "real"


def confidence(probability: float, in_domain: bool) -> Confidence:
    """Name the distance of P(AI-generated) from 0.5: high above 0.3, low below 0.2, else medium.

    Out of domain it is low: there the probability says nothing. The bounds are the earlier version's, so that a client
    sees the names it knows.
    """
    if not in_domain:
        return "low"
    distance = abs(probability - 0.5)
    if distance > 0.3:
        return "high"
    return "low" if distance < 0.2 else "medium"


def decide(probability: float, in_domain: bool, limits: Thresholds) -> Decision:
    """Turn a probability into what to do with the photo.

    Args:
        probability: P(AI-generated) at the prior in use.
        in_domain: the photo is like those the model was calibrated on; otherwise no promise holds.
        limits: thresholds at the same prior.

    Returns:
        `flag`: likely AI-generated, and few real photos get here; `clear`: likely real, and few AI images get
        here; `review`: everything else.
    """
    if in_domain and probability >= max(0.5, limits.flag):
        return "flag"
    if in_domain and probability < min(0.5, limits.clear):
        return "clear"
    return "review"


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
