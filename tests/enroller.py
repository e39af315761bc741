"""A process of its own that enrolls drawn photos, for the tests that kill or interrupt it.

python enroller.py GALLERY PHOTOS: prints one line after each batch that is safe, "done enrolled".
"""

import sys

import facedex
from drawn import POLICY
from facedex import engine
from facedex.models.synthetic import SyntheticDetector, SyntheticEmbedder
from facedex.vision.pipeline import FacePipeline

if __name__ == "__main__":
    engine._PHOTOS_AT_ONCE = 3
    ours = facedex.Engine(FacePipeline(SyntheticDetector(), SyntheticEmbedder()), policy=POLICY)
    print("ready", flush=True)
    with ours.open(sys.argv[1]) as gallery:
        gallery.enroll(sys.argv[2], label="folder", progress=lambda told: print(told.done, told.enrolled, flush=True))
