"""A shop's own calibration: thresholds from its own real photos, in the place of those of the model's card.

`python -m tools.calibrate` writes it, the setting CALIBRATION and the option --calibration of bulk scoring name it.
"""

import copy
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.models.card import Card, ModelError
from service.models.decision import Thresholds, Verdict, judge, shift_prior
from service.models.detector import Detector, Scores

Calibration = Literal["released", "shop"]

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Promise(_Part):
    """At most a share alpha of real photos like the shop's are flagged.

    Attributes:
        flag: the probability from which on a photo is flagged, at the prior of the model's card.
        upper: with a probability of 95 % no more than this share of such photos is flagged.
    """

    flag: Annotated[float, Field(ge=0, le=1.000001)]
    upper: Share


class Promises(_Part):
    """What is promised of one kind of photos.

    Attributes:
        photos: real ones that it comes from.
        products: that they show; it is these that count.
        promises: alpha -> what is promised.
        needed: alpha -> how many products it would take, where there are too few.
    """

    photos: Count
    products: Count
    promises: dict[float, Promise]
    needed: dict[float, Count] = {}


class Recall(_Part):
    """The share of AI images that is found at a threshold, on sources that the model never saw.

    Attributes:
        of_all: every source with the same weight.
        by_generator: of those with enough images.
    """

    of_all: Share
    by_generator: dict[str, Share] = {}


class ShopCalibration(_Part):
    """What one shop's real photos say about the thresholds of one model.

    Attributes:
        format: of this file.
        model: the name of the model that it belongs to.
        model_version: likewise.
        model_sha256: of the model's file.
        made_at: ISO 8601, UTC.
        shop: of all photos.
        groups: of each group that has enough photos.
        rest: of the photos of all other groups.
        small_groups: those groups.
        recall: alpha -> what is found at the threshold of the whole shop.
        out_of_domain: share of the photos that the model does not know; they are never flagged.
        marked: share of the photos whose files say of AI.
        dropped: photos left out because they looked AI-generated.
    """

    format: Literal[1] = 1
    model: str
    model_version: str
    model_sha256: Digest
    made_at: str
    shop: Promises
    groups: dict[str, Promises] = {}
    rest: Promises | None = None
    small_groups: list[str] = []
    recall: dict[float, Recall] = {}
    out_of_domain: Share
    marked: Share
    dropped: Count = 0

    @property
    def group_names(self) -> list[str]:
        """Of the groups that were calibrated, alone or with others, in alphabetical order."""
        return sorted({*self.groups, *self.small_groups})

    def knows(self, group: str) -> bool:
        """Tell whether a group was calibrated, alone or with others."""
        return group in self.groups or group in self.small_groups

    def groups_in_words(self) -> str:
        """Say which groups may be named."""
        known = self.group_names
        if not known:
            return "there are no groups: name none"
        return f"name one of {', '.join(known[:20])}{', …' if len(known) > 20 else ''}, or none"

    def promises(self, group: str | None) -> Promises | None:
        """Return what is promised of photos of a group; None: nobody calibrated it."""
        if not group:
            return self.shop
        if group in self.small_groups:
            return self.rest or self.shop
        return self.groups.get(group)

    def promises_at(self, group: str | None, alpha: float) -> Promises:
        """Return what is promised of photos of a group, where that holds a promise at `alpha`.

        Of a group that nobody calibrated, or that has too few products for this alpha, it is what is promised of the
        whole shop; `check` has made sure that there is such a promise.
        """
        found = self.promises(group)
        return found if found is not None and alpha in found.promises else self.shop

    def check(self, card: Card, sha256: str, alpha: float) -> None:
        """Make sure that it can serve with a model.

        Args:
            card: the model's.
            sha256: of the model's file.
            alpha: the share of real photos that may be flagged.

        Raises:
            ModelError: it belongs to another model or version, or promises nothing at this alpha.
        """
        if self.model_sha256 != sha256:
            raise ModelError(
                f"it was made with {self.model} {self.model_version} (sha256 {self.model_sha256[:12]}…), and "
                f"{card.name} {card.version} ({sha256[:12]}…) serves: "
                "run 'python -m tools.calibrate' again with this version"
            )
        if alpha not in self.shop.promises:
            found = ", ".join(f"{each:g}" for each in self.shop.promises)
            needed = self.shop.needed.get(alpha)
            more = f" ({needed} products are needed, it has {self.shop.products})" if needed else ""
            raise ModelError(f"it promises nothing at ALPHA={alpha:g}{more}: choose one of {found}")


class _File(ShopCalibration):
    """What its file holds.

    Attributes:
        sha256: of the calibration.
    """

    sha256: Digest


class Decided(Verdict):
    """What is said about one photo, and whose thresholds decided."""

    calibration: Calibration = Field(
        description="whose thresholds decided. shop: those of CALIBRATION, which promise something of this shop's own "
        "photos; released: the model's, which come from other catalogues"
    )


@dataclass(frozen=True)
class InForce:
    """A model, and the thresholds that decide by it.

    Attributes:
        detector: the model, with these thresholds.
        calibration: whose they are.
        group: the shop's group whose they are; None: the whole shop's, or the model's.
        upper: with a probability of 95 % no more than this share of the shop's real photos is flagged; None: the
            thresholds are the model's.
    """

    detector: Detector
    calibration: Calibration = "released"
    group: str | None = None
    upper: float | None = None

    def judge(self, scores: Scores, row: int, **more: Any) -> Decided:
        """Return what is said about one photo; arguments as of `service.models.decision.judge`."""
        return Decided(**dict(judge(self.detector, scores, row, **more)), calibration=self.calibration)


def in_force(detector: Detector, shop: ShopCalibration | None, group: str | None = None) -> InForce:
    """Return the thresholds that decide by a model.

    Args:
        detector: the model.
        shop: a calibration that was checked with a model; where it is another one, that model's own thresholds decide.
        group: of the photos; one that nobody calibrated gets the whole shop's thresholds.
    """
    if shop is None or shop.model_sha256 != detector.sha256:
        return InForce(detector)
    promise = shop.promises_at(group, detector.alpha).promises[detector.alpha]
    calibrated = copy.copy(detector)
    calibrated.thresholds = Thresholds(
        flag=shift_prior(promise.flag, detector.ai_prior, detector.card.calibration.prior_ai),
        clear=detector.thresholds.clear,
    )
    known = group if group and shop.knows(group) else None
    return InForce(calibrated, "shop", known, promise.upper)


def calibration_file(calibration: ShopCalibration) -> str:
    """Return the text of a calibration's file: the calibration, and as `sha256` the digest of it."""
    said = calibration.model_dump(mode="json") | {"sha256": _digest(calibration)}
    return json.dumps(said, indent=2, ensure_ascii=False) + "\n"


def _digest(calibration: ShopCalibration) -> str:
    said = json.dumps(calibration.model_dump(mode="json"), sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()


def read_calibration(path: Path) -> ShopCalibration:
    """Read a shop's calibration.

    Raises:
        ModelError: the file is missing, damaged or something else.
    """
    try:
        found = _File.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror}): run 'python -m tools.calibrate'") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ModelError(
            f"{path} is damaged or no calibration ({where}: {first['msg']}): run 'python -m tools.calibrate' again"
        ) from error
    calibration = ShopCalibration(**{name: getattr(found, name) for name in ShopCalibration.model_fields})
    if found.sha256 != _digest(calibration):
        raise ModelError(f"{path} is damaged or was edited (sha256): run 'python -m tools.calibrate' again")
    return calibration
