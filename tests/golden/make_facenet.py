"""Write facenet/embeddings.json: what facenet-pytorch's own Inception-ResNet v1 makes of the weights and the chips.

python tests/golden/make_facenet.py FILE.h5    in an environment with facenet-pytorch, h5py, pillow and numpy

Both networks list their convolutions in the same order, so the weights go over by place, without a look at names. The
file has no gamma for its normalizations (1); the network here ends in 512 numbers, so its last two layers are replaced.
"""

import json
import sys
from pathlib import Path

import h5py
import numpy as np
import torch
from facenet_pytorch import InceptionResnetV1
from PIL import Image

FOLDER = Path(__file__).parent / "facenet"


def arrays(path: str) -> dict[str, dict[str, np.ndarray]]:
    """Layer → weight → array, of the layers that have any."""
    with h5py.File(path, "r") as file:
        groups = file["model_weights"]
        return {
            name: {
                key.split("/")[-1].split(":")[0]: np.asarray(groups[name][key])
                for key in groups[name].attrs["weight_names"]
            }
            for name in groups
            if len(groups[name].attrs["weight_names"])
        }


def fill(conv: torch.nn.Module, kernel: np.ndarray, bias: np.ndarray | None = None) -> None:
    conv.weight.data = torch.tensor(kernel.transpose(3, 2, 0, 1).copy())
    if bias is not None:
        conv.bias.data = torch.tensor(bias)


def normalize(norm: torch.nn.Module, given: dict[str, np.ndarray]) -> None:
    norm.weight.data = torch.ones(len(given["beta"]))
    norm.bias.data = torch.tensor(given["beta"])
    norm.running_mean.data = torch.tensor(given["moving_mean"])
    norm.running_var.data = torch.tensor(given["moving_variance"])


def block(theirs: torch.nn.Module, given: dict[str, dict[str, np.ndarray]], prefix: str) -> None:
    """A residual or reduction block: branches by number, their convolutions by depth, then the closing one."""
    for number in range(4):
        branch = getattr(theirs, f"branch{number}", None)
        names = [n for n in given if n.startswith(f"{prefix}_Branch_{number}_") and not n.endswith("BatchNorm")]
        # within a branch: Conv2d_1x1 or _0a_ first, then _0b_, _0c_, _1a_
        names.sort(key=lambda n: n.rpartition("Conv2d_")[2])
        names.sort(key=lambda n: 0 if n.endswith("Conv2d_1x1") else 1)
        convs = [m for m in (branch.modules() if branch is not None else []) if type(m).__name__ == "BasicConv2d"]
        assert len(convs) == len(names), (prefix, number, names)
        for conv, name in zip(convs, names, strict=True):
            fill(conv.conv, given[name]["kernel"])
            normalize(conv.bn, given[f"{name}_BatchNorm"])
    if f"{prefix}_Conv2d_1x1" in given:
        fill(theirs.conv2d, given[f"{prefix}_Conv2d_1x1"]["kernel"], given[f"{prefix}_Conv2d_1x1"]["bias"])


given = arrays(sys.argv[1])
network = InceptionResnetV1(pretrained=None, classify=False, device="cpu")
network.last_linear = torch.nn.Linear(1792, 128, bias=False)
network.last_bn = torch.nn.BatchNorm1d(128, eps=0.001)
for name in ("1a_3x3", "2a_3x3", "2b_3x3", "3b_1x1", "4a_3x3", "4b_3x3"):
    layer = getattr(network, f"conv2d_{name.split('_')[0]}")
    fill(layer.conv, given[f"Conv2d_{name}"]["kernel"])
    normalize(layer.bn, given[f"Conv2d_{name}_BatchNorm"])
for kind, count in (("Block35", 5), ("Block17", 10), ("Block8", 5)):
    blocks = {"Block35": network.repeat_1, "Block17": network.repeat_2, "Block8": network.repeat_3}[kind]
    for number in range(count):
        block(blocks[number], given, f"{kind}_{number + 1}")
block(network.block8, given, "Block8_6")
block(network.mixed_6a, given, "Mixed_6a")
block(network.mixed_7a, given, "Mixed_7a")
network.last_linear.weight.data = torch.tensor(given["Bottleneck"]["kernel"].T.copy())
normalize(network.last_bn, given["Bottleneck_BatchNorm"])
network.eval()

embeddings = {}
for path in sorted(FOLDER.glob("*.png")):
    pixels = np.asarray(Image.open(path)).astype(np.float64)
    white = (pixels - pixels.mean()) / max(pixels.std(), 1 / np.sqrt(pixels.size))
    with torch.no_grad():
        answer = network(torch.tensor(white.transpose(2, 0, 1)[None], dtype=torch.float32))
    embeddings[path.stem] = [float(v) for v in answer[0]]
(FOLDER / "embeddings.json").write_text(json.dumps(embeddings) + "\n")
