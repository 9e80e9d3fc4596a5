"""From a probability to a decision: pure functions, no state."""

from dataclasses import dataclass
from typing import Literal

from service.models.card import Card

Prediction = Literal["real", "ai_generated"]
Confidence = Literal["low", "medium", "high"]
Decision = Literal["flag", "clear", "review"]


@dataclass(frozen=True)
class Thresholds:
    """Where a decision begins, on the same scale as the probability it is compared with.

    Attributes:
        flag: in domain and at or above it (and at or above 0.5): flag.
        clear: in domain and below it (and below 0.5): clear.
    """

    flag: float
    clear: float


@dataclass(frozen=True)
class Domain:
    """Is the photo like those the model knows?

    Attributes:
        embedding: what the network and the texture say of it is near the training photos', and unlike drawn pictures.
        geometry: its width and height are within the training photos' widths and heights.
    """

    embedding: bool
    geometry: bool

    @property
    def inside(self) -> bool:
        """Both hold: the promises of the thresholds apply to this photo."""
        return self.embedding and self.geometry


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
