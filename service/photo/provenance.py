"""What is said of a file's making: by its Content Credentials, and by its unsigned marks.

The classes here are parts of the service's answers, and their descriptions those of its OpenAPI page.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.dataclasses import dataclass

CredentialStatus = Literal["valid", "untrusted", "invalid", "unreadable", "elsewhere"]
State = Literal["valid", "untrusted", "invalid"]
Relationship = Literal["active", "parentOf", "componentOf", "inputTo"]
Saying = Literal["generated", "partly_generated"]

AI = ("generated", "edited", "possibly_generated", "suspected_generated")  # what a mark of AI says
_ANSWER = ConfigDict(json_schema_serialization_defaults_required=True)


@dataclass(frozen=True, config=_ANSWER)
class CredentialVersion:
    """One manifest of a picture's history."""

    relationship: Annotated[Relationship, Field(description="to the manifest that names it; active: the picture's own")]
    status: Annotated[State, Field(description="its own")]
    declares: tuple[str, ...] = ()
    generator: str | None = None
    signer: str | None = None
    decides: Annotated[
        Saying | None, Field(description="what is believed of the picture because of it; null: nothing")
    ] = None


@dataclass(frozen=True, config=_ANSWER)
class Credential:
    """What a file's C2PA Content Credentials come to; nothing is fetched to verify them."""

    status: Annotated[
        CredentialStatus,
        Field(
            description="valid: whole, of this very picture, signed by one of C2PA_TRUST_ANCHORS; untrusted: whole, "
            "but it cannot be vouched for; invalid: changed after it was signed, or against another rule of C2PA; "
            "unreadable: nothing that the library knows; elsewhere: the file only points to it"
        ),
    ]
    declares: Annotated[
        tuple[str, ...],
        Field(
            description="digital source types of all versions but inputs, believed or not",
            examples=[["trainedAlgorithmicMedia"]],
        ),
    ] = ()
    generator: Annotated[str | None, Field(description="the program that wrote the claim, by its own words")] = None
    signer: Annotated[str | None, Field(description="whose certificate signed it")] = None
    problems: Annotated[
        tuple[str, ...],
        Field(
            description="C2PA codes of failures, those of the versions before included",
            examples=[["assertion.dataHash.mismatch"]],
        ),
    ] = ()
    signature_holds: Annotated[
        bool | None, Field(description="the claim is the one that was signed; null: not known")
    ] = None
    unchanged: Annotated[
        bool | None, Field(description="picture and statements are those that were signed; null: not known")
    ] = None
    signer_trusted: Annotated[
        bool | None, Field(description="the signer is one of C2PA_TRUST_ANCHORS; null: not known")
    ] = None
    in_time: Annotated[
        bool | None,
        Field(
            description="it was signed within the certificate's time or, without a trusted time stamp, that is not "
            "over; null: not known"
        ),
    ] = None
    identity: Annotated[
        str | None,
        Field(
            description="label of an identity assertion, which is not checked; null: none", examples=["cawg.identity"]
        ),
    ] = None
    versions: Annotated[
        tuple[CredentialVersion, ...],
        Field(description="manifests of the picture's history, the active one first"),
    ] = ()

    @property
    def says_generated(self) -> bool:
        """Whether it can be believed that the whole picture was generated."""
        return self.status == "valid" and any(version.decides == "generated" for version in self.versions)

    @property
    def says_partly_generated(self) -> bool:
        """Whether it can be believed that parts of the picture were generated."""
        return self.status == "valid" and any(version.decides == "partly_generated" for version in self.versions)


@dataclass(frozen=True, config=_ANSWER)
class Mark:
    """One unsigned statement of a file about its making; anyone can write or remove it."""

    kind: Annotated[str, Field(description="docs/PROVENANCE.md lists them", examples=["iptc_digital_source_type"])]
    where: Annotated[str, Field(description="container and field", examples=["xmp:Iptc4xmpExt:DigitalSourceType"])]
    says: Annotated[
        str,
        Field(
            description="generated, edited, possibly_generated or suspected_generated; an IPTC source type that is not "
            "AI by its own name, such as digitalCapture; shown: nothing of AI by itself",
            examples=["generated"],
        ),
    ]
    generator: Annotated[
        str | None, Field(description="who or what made it, by its own words; null: it does not say")
    ] = None

    @property
    def is_ai(self) -> bool:
        """Whether it says that AI made or changed the picture."""
        return self.says in AI


class Provenance(BaseModel):
    """What the file says about its own making; never mixed into the probability."""

    c2pa: Credential | None = Field(
        default=None, description="C2PA Content Credentials; null: the file has none, which proves nothing"
    )
    marks: list[Mark] = Field(default=[], description="unsigned statements in the file; none proves nothing")
    ai_markers: list[str] = Field(default=[], description="for earlier clients: some of the marks, in other words")
    trust: Literal["verified", "claimed", "none"] = Field(
        default="none",
        description="how far this can be trusted; verified: c2pa is valid; claimed: anyone can have written it; "
        "none: the file says nothing",
    )

    @property
    def is_marked(self) -> bool:
        """Whether an unsigned mark says that AI made or changed the picture."""
        return any(mark.is_ai for mark in self.marks)


def provenance(credential: Credential | None, marks: list[Mark], ai_markers: list[str]) -> Provenance:
    """Put together what a file says about its making.

    Args:
        credential: as `credentials.CredentialReader.read` returns it.
        marks: as `marks.read` returns them.
        ai_markers: likewise.
    """
    trust: Literal["verified", "claimed", "none"] = "claimed" if marks or credential else "none"
    if credential is not None and credential.status == "valid":
        trust = "verified"
    return Provenance(c2pa=credential, marks=marks, ai_markers=ai_markers, trust=trust)
