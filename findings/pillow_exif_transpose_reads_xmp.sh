#!/usr/bin/env bash
# Guess:     ImageOps.exif_transpose turns a photo by its EXIF block, and leaves one alone whose EXIF names no orientation.
# Versions:  Pillow 12.3.0, Python 3.11.
# Behaviour: where EXIF names none, Image.getexif() takes tiff:Orientation out of the XMP packet, so exif_transpose turns
#            the photo. Browsers go by EXIF alone: the same file stands upright there, and lies on its side here.
#            To go by EXIF alone, load the block itself: Image.Exif().load(image.info["exif"]).
# Seen:      size (60, 20), after exif_transpose (20, 60), by EXIF alone: no orientation
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pillow==12.3.0
found=$("$folder/venv/bin/python" - <<'PYTHON'
import io

from PIL import Image, ImageOps

packet = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
)
buffer = io.BytesIO()
Image.new("RGB", (60, 20)).save(buffer, "JPEG", xmp=packet)
photo = Image.open(buffer)
exif = Image.Exif()
exif.load(photo.info.get("exif", b""))
alone = f"orientation {exif[0x0112]}" if 0x0112 in exif else "no orientation"
print(f"size {photo.size}, after exif_transpose {ImageOps.exif_transpose(photo).size}, by EXIF alone: {alone}")
PYTHON
)
echo "$found"
[ "$found" = "size (60, 20), after exif_transpose (20, 60), by EXIF alone: no orientation" ]
