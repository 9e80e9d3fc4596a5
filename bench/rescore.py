"""A released file's accuracy with nothing of this project: python bench/rescore.py cifake.tar.xz [file.onnx]"""

import sys
import tarfile

import numpy as np
import onnxruntime as ort
from PIL import Image

session = ort.InferenceSession(sys.argv[2] if len(sys.argv) > 2 else "models/cifake/model.onnx")
images, generated = [], []
with tarfile.open(sys.argv[1]) as archive:  # test/REAL/*.jpg, test/FAKE/*.jpg
    for member in archive:
        if member.isfile() and "test/" in member.name:
            images.append(np.asarray(Image.open(archive.extractfile(member)).convert("RGB")))
            generated.append("/FAKE/" in member.name)
parts = [np.stack(images[start : start + 100]) for start in range(0, len(images), 100)]
probability = np.concatenate([session.run(["probability"], {"images": part})[0] for part in parts])
print(f"{len(images):,} test images, accuracy {np.mean((probability >= 0.5) == generated):.5f}")
