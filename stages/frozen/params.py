"""The sections of params.yaml of a model of the recipe `frozen`, each checked when its stage starts."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from stages.common import Params
from stages.frozen.encoder import EncoderParams

Share = Annotated[float, Field(ge=0, le=1)]
Alpha = Annotated[float, Field(gt=0, lt=0.5)]


def _with_default(alphas: tuple[float, ...]) -> tuple[float, ...]:
    if 0.01 not in alphas:
        raise ValueError("0.01 must be among them: it is the service's default")
    return alphas


class PreprocessParams(Params):
    """Section `preprocess`.

    Attributes:
        encoder: which one, and what is read of it.
        precision: of the encoder's arithmetic while features are made; serving is fp32.
        views: how many rewritten versions of each photo are learned from.
        own_views: the same of your own photos; the head learns from these several times where `views` is larger.
        seed: of what is drawn at random in the views, and of the choice of test sources.
        near_copy_bits: photos of two sources whose perceptual hashes differ in at most so many of 64 bits are copies.
        test_real_share: share of the sources of real photos that may not be learned from which are read at release.
        test_ai_share: share of the sources of AI images that are read at release alone.
        drawings: how many pictures are drawn from a seed, which say what is no photo.
        own_photos_min: fewer own photos than this fail, instead of silently going on without them.
    """

    encoder: EncoderParams
    precision: Literal["bf16", "fp32"]
    views: Annotated[int, Field(ge=1, le=16)]
    own_views: Annotated[int, Field(ge=1, le=16)]
    seed: Annotated[int, Field(ge=0)]
    near_copy_bits: Annotated[int, Field(ge=0, le=16)]
    test_real_share: Annotated[float, Field(gt=0, lt=1)]
    test_ai_share: Annotated[float, Field(gt=0, lt=0.5)]
    drawings: Annotated[int, Field(ge=10)]
    own_photos_min: Annotated[int, Field(ge=0)]


class TrainParams(Params):
    """Section `train`.

    Attributes:
        components: principal components of the features that the layer is fitted on; as many as there are: all.
        inverse_penalty: C of scikit-learn's logistic regression, on features of variance 1 and weights of mean 1.
        ridge_penalty: alpha of its ridge regression, likewise.
        ridge_share: its share of the layer, from 0 to 1; the rest is the logistic regression's.
        penalties: values of it whose loss on held-out sources is put into the curve.
        source_exponent: a photo weighs (photos of its source) ** -this: 0 all photos alike, 1 all sources alike.
        folds: parts that the sources are cut into; each is held out once.
        draws: how often they are cut anew.
        seed: of these cuts.
    """

    components: Annotated[int, Field(ge=8)]
    inverse_penalty: Annotated[float, Field(gt=0)]
    ridge_penalty: Annotated[float, Field(gt=0)]
    ridge_share: Annotated[float, Field(ge=0, le=1)]
    penalties: tuple[Annotated[float, Field(gt=0)], ...]
    source_exponent: Annotated[float, Field(ge=0, le=1)]
    folds: Annotated[int, Field(ge=2, le=20)]
    draws: Annotated[int, Field(ge=1, le=20)]
    seed: Annotated[int, Field(ge=0)]


class ExportParams(Params):
    """Section `export`."""

    version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?$")]
    min_side: Annotated[int, Field(ge=1)]  # of a photo's shorter side, in pixels: below it another model answers
    max_side: Annotated[int, Field(ge=1)]
    flag_alphas: Annotated[tuple[Alpha, ...], AfterValidator(_with_default)]
    confidence: Annotated[float, Field(ge=0.5, lt=1)]  # share of draws of sources in which a threshold keeps its alpha
    clear_miss: Alpha
    domain_out_share: Alpha
    domain_components: Annotated[int, Field(ge=8, le=256)]  # directions in which the features of known photos spread


class EvaluateParams(Params):
    """Section `evaluate`."""

    reference_components: Annotated[int, Field(ge=1, le=64)]  # embedding components kept for drift detection
    rewritten_photos: Annotated[int, Field(ge=4)]  # photos that robustness and agreement rewrite, over all sources
    served_photos: Annotated[int, Field(ge=4)]  # photos scored by the exported file as well, to compare
    graphics: Annotated[int, Field(ge=1)]  # pictures of each kind that is no photo


class ReleaseParams(Params):
    """Section `release`: the gates on held-out sources."""

    enabled: bool
    dataset: Literal["photos", "synthetic"]  # of a candidate; figures on another set do not compare
    min_auc: Share  # every source the same weight
    min_recall: Share  # of flags, at the service's default ALPHA
    max_false_positive_rate_excess: Share  # at each alpha, beyond alpha
    max_worst_source: Share  # share of a source's real photos flagged at alpha 0.02, of 20 and more
    max_render_flagged: Share
    max_ece: Share
    max_out_of_domain: Share
    min_agreement: Share  # share of photos whose decision survives ordinary rewrites
    max_served_difference: Share  # between the probability of the exported file and of the features
    max_own_flagged: Share  # of your own real photos
    max_file_mb: Annotated[float, Field(gt=0, le=95)]  # the encoder's file, and everything beside it
    max_auc_loss: Share  # against the model now in models/
