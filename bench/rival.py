"""What people write today: FastAPI around eager torch, with the released weights and the released answer.

uvicorn bench.rival:app
"""

import io

import numpy as np
import torch
from fastapi import FastAPI, UploadFile
from PIL import Image

from stages.training.model import load_checkpoint

app = FastAPI()
model = load_checkpoint("models/cifake/checkpoint.safetensors")[0].eval()


@app.post("/predict")
async def predict(file: UploadFile) -> dict[str, str | float]:
    """Is this photo real or AI-generated?"""
    image = Image.open(io.BytesIO(await file.read())).convert("RGB").resize((32, 32), Image.Resampling.BICUBIC)
    photo = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():  # the photo and its mirror image: what the released file does, too
        probability = torch.sigmoid(model(torch.cat([photo, photo.flip(3)])).mean()).item()
    return {"prediction": "ai_generated" if probability >= 0.5 else "real", "probability": probability}
