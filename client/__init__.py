"""Ask the detector from Python: `Client(url).predict("photo.jpg")`; `python -m client --help` on the command line."""

from client.answers import Answer, Domain, Drift, Explanation, Failure, Feedback, Listing, Prediction, Provenance
from client.client import Client
from client.service import ServiceError

__all__ = [
    "Answer",
    "Client",
    "Domain",
    "Drift",
    "Explanation",
    "Failure",
    "Feedback",
    "Listing",
    "Prediction",
    "Provenance",
    "ServiceError",
]
