"""API keys: who may use the service, each with a name.

python -m service.api_keys [name] makes a new key, and the line for API_KEYS that knows only its hash.
"""

import argparse
import hashlib
import hmac
import re
import secrets
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# `name:secret`, or the secret alone; the secret is the key itself or `sha256:` and the key's hash in hex.
_ENTRY = re.compile(r"(?:(?!sha256:)(?P<name>[A-Za-z0-9_.-]{1,40}):)?(?P<secret>sha256:[0-9A-Fa-f]{64}|[^:\s]+)")


@dataclass(frozen=True)
class ApiKey:
    """A key that the service accepts.

    Attributes:
        name: who holds it, for logs and metrics; two keys may share one while they are being exchanged.
        digest: SHA-256 of the key, 32 bytes. A plain hash is enough for keys that were made at random.
    """

    name: str
    digest: bytes


def parse_keys(entries: Iterable[str]) -> tuple[ApiKey, ...]:
    """Read keys as API_KEYS has them: `name:key`, `name:sha256:<64 hex digits>`, or either without its name.

    Raises:
        ValueError: an entry is not of that form; the message holds no part of it.
    """
    keys = []
    for place, entry in enumerate(entries, 1):
        found = _ENTRY.fullmatch(entry)
        if found is None:
            raise ValueError(f"key {place} is not 'key', 'name:key' or 'name:sha256:<64 hex digits>'")
        secret = found["secret"]
        hashed = secret.startswith("sha256:")
        digest = bytes.fromhex(secret[7:]) if hashed else hashlib.sha256(secret.encode()).digest()
        keys.append(ApiKey(found["name"] or f"key-{place}", digest))
    return tuple(keys)


def find_key(keys: Sequence[ApiKey], presented: bytes) -> ApiKey | None:
    """Return the key that was sent, or None. It takes the same time for a wrong key as for a right one."""
    digest = hashlib.sha256(presented).digest()
    found = None
    for key in keys:  # all of them, also after a hit
        if hmac.compare_digest(key.digest, digest):
            found = key
    return found


def main() -> None:
    """Print a new key and the entry that accepts it."""
    parser = argparse.ArgumentParser(prog="python -m service.api_keys", description="Make an API key.")
    parser.add_argument("name", nargs="?", default="client", help="who holds it, for logs and metrics")
    name = parser.parse_args().name
    key = secrets.token_urlsafe(32)
    digest = hashlib.sha256(key.encode()).hexdigest()
    try:
        parse_keys([f"{name}:sha256:{digest}"])
    except ValueError:
        sys.exit("error: a name has 1 to 40 letters, digits, '.', '_' and '-'")
    print(f"for the client, as X-API-Key (it is not kept anywhere):  {key}")
    print(f"for API_KEYS, or a line of API_KEYS_FILE:  {name}:sha256:{digest}")


if __name__ == "__main__":
    main()
