"""Write mtcnn/faces.json: the faces that facenet-pytorch's own MTCNN finds in the sample photos.

python tests/golden/make_mtcnn.py    in an environment with facenet-pytorch
"""

import json
from pathlib import Path

import torch
from facenet_pytorch import MTCNN
from PIL import Image

HERE = Path(__file__).parent
SAMPLES = HERE.parent.parent / "samples"
PHOTOS = ["enroll/Grace Hopper/official_portrait_1984.jpg", "probes/eileen_collins_not_enrolled.png"]
PHOTOS += ["enroll/Joe Biden/blue_room.jpg", "enroll/Barack Obama/address_to_congress_2009.jpg"]

torch.set_num_threads(1)
detector = MTCNN(keep_all=True, device="cpu")
found = {}
for name in PHOTOS:
    with Image.open(SAMPLES / name) as picture:
        boxes, scores, points = detector.detect(picture.convert("RGB"), landmarks=True)
    found[name] = [
        {"box": box.tolist(), "score": float(score), "landmarks": point.tolist()}
        for box, score, point in zip(boxes, scores, points, strict=True)
    ]
(HERE / "mtcnn").mkdir(exist_ok=True)
(HERE / "mtcnn" / "faces.json").write_text(json.dumps(found, indent=1) + "\n")
