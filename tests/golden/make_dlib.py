"""Write dlib-resnet/embeddings.json: what dlib itself makes of the chips beside it.

python tests/golden/make_dlib.py FILE.dat    in an environment with dlib, pillow and numpy
"""

import json
import sys
from pathlib import Path

import dlib
import numpy as np
from PIL import Image

FOLDER = Path(__file__).parent / "dlib-resnet"

network = dlib.face_recognition_model_v1(sys.argv[1])
embeddings = {
    path.stem: [float(np.float32(v)) for v in network.compute_face_descriptor(np.asarray(Image.open(path)))]
    for path in sorted(FOLDER.glob("*.png"))
}
(FOLDER / "embeddings.json").write_text(json.dumps(embeddings) + "\n")
