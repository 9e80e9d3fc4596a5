#!/usr/bin/env bash
# Guess:     where a C2PA signer's certificate has expired and nobody stamped the time, the validation results have a
#            failure for that, and none of the successes that say the opposite.
# Versions:  c2pa-python 0.38.1, cryptography 50.0.2, Pillow 12.3.0, Python 3.11.
# Behaviour: the state is Invalid and the failures have signingCredential.expired, but the successes still have
#            claimSignature.insideValidity; and the signer is called untrusted although his root is trusted. So "was it
#            signed in time" and "is the signer known" cannot be read off those two codes alone.
# Seen:      state Invalid; failures signingCredential.expired, signingCredential.untrusted; inside validity: True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check c2pa-python==0.38.1 cryptography==50.0.2 pillow==12.3.0
found=$("$folder/venv/bin/python" - <<'PYTHON'
import io
import json
import time
from datetime import UTC, datetime, timedelta

from c2pa import Builder, C2paSignerInfo, Context, Reader, Signer
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from PIL import Image

PEM, SECONDS = serialization.Encoding.PEM, 5
CREATED = {"action": "c2pa.created", "digitalSourceType": "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture"}
MANIFEST = json.dumps({"assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [CREATED]}}]})


def name(text):
    return x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Nobody"), x509.NameAttribute(NameOID.COMMON_NAME, text)])


def certificate(subject, key, lasts, authority):
    now = datetime.now(UTC)
    usage = dict.fromkeys(
        ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
         "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"), False,
    )
    usage["key_cert_sign" if authority else "digital_signature"] = True
    return (
        x509.CertificateBuilder()
        .subject_name(subject).issuer_name(name("root")).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5)).not_valid_after(now + lasts)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
    )


root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
root = certificate(name("root"), root_key, timedelta(days=1), True).sign(root_key, hashes.SHA256())
leaf = (
    certificate(name("signer"), key, timedelta(seconds=SECONDS), False)
    .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
    .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), critical=False)
    .sign(root_key, hashes.SHA256())
)
anchors = root.public_bytes(PEM).decode()
private = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
photo, signed = io.BytesIO(), io.BytesIO()
Image.new("RGB", (64, 48), "teal").save(photo, "JPEG")
photo.seek(0)
info = C2paSignerInfo(b"es256", leaf.public_bytes(PEM) + anchors.encode(), private, None)
settings = {"verify": {"verify_after_sign": False}}
with Signer.from_info(info) as signer, Builder(MANIFEST, context=Context.from_dict(settings)) as builder:
    builder.sign(signer, "image/jpeg", photo, signed)
time.sleep(SECONDS + 1)
signed.seek(0)
context = Context.from_dict({"verify": {"verify_trust": True}, "trust": {"trust_anchors": anchors}})
with Reader("image/jpeg", signed, context=context) as reader:
    store = json.loads(reader.json())
results = store["validation_results"]["activeManifest"]
failures = ", ".join(sorted(each["code"] for each in results["failure"]))
inside = "claimSignature.insideValidity" in {each["code"] for each in results["success"]}
print(f"state {store['validation_state']}; failures {failures}; inside validity: {inside}")
PYTHON
)
echo "$found"
[ "$found" = "state Invalid; failures signingCredential.expired, signingCredential.untrusted; inside validity: True" ]
