"""Commands on photos alone: verify, detect, embed, analyze."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from facedex.cli.common import Output, command, main, print_lines, small_faces_option
from facedex.engine import Engine
from facedex.types import Face, FaceAttributes, Quality, Verification, to_plain
from facedex.vision.attributes import ACTIONS


@main.command()
@click.argument("first")
@click.argument("second")
@command()
def verify(output: Output, engine: Engine, first: str, second: str) -> None:
    """Are two photos of one person? Compares the largest face of each."""
    result = engine.verify(first, second)
    policy = engine.known_policy
    plain = {
        "similarity": result.similarity,
        "threshold": result.threshold,
        "verified": result.verified,
        "confidence": result.confidence,
        "verdict": result.verdict,
        "faces": [plain_face(face, embedding=False) for face in result.faces],
        "operating_point": to_plain(policy.match) if policy else None,
    }
    output.show(plain, lambda: print_lines(output, [_said_verification(result, engine)]))


def _said_verification(result: Verification, engine: Engine) -> str:
    if result.threshold is None:
        return (
            f"not calibrated: similarity {result.similarity:.3f}, but no thresholds were measured for {engine.space}. "
            "Run `facedex calibrate` on labelled photos."
        )
    return (
        f"{'verified' if result.verified else 'not verified'} ({result.verdict}): similarity "
        f"{result.similarity:.3f}, threshold {result.threshold:.3f}, confidence {result.confidence:.1f} %"
    )


def said_confidence(confidence: float | None) -> str:
    return "" if confidence is None else f"confidence {confidence:5.1f} %  "


@main.command()
@click.argument("photo")
@small_faces_option
@command()
def detect(output: Output, engine: Engine, photo: str, small_faces: bool) -> None:
    """Boxes, landmarks and detection scores of every face in a photo."""
    faces = engine.detect(photo, small_faces=small_faces)
    output.show([plain_face(face, embedding=False) for face in faces], lambda: _print_faces(output, faces))


@main.command()
@click.argument("photo")
@small_faces_option
@command()
def embed(output: Output, engine: Engine, photo: str, small_faces: bool) -> None:
    """The embedding of every face in a photo, with the id of its embedding space."""
    faces = engine.embed(photo, small_faces=small_faces)
    space = engine.pipeline.space
    plain = {
        "space": {**to_plain(space), "id": space.id},
        "faces": [plain_face(face, embedding=True) for face in faces],
    }

    def people() -> None:
        _print_faces(output, faces)
        for face in faces:
            assert face.embedding is not None
            output.console.print(" ".join(f"{v:.5f}" for v in face.embedding), soft_wrap=True)

    output.show(plain, people)


def _print_faces(output: Output, faces: Sequence[Face]) -> None:
    output.console.print(f"{len(faces)} faces")
    for face in faces:
        box = ", ".join(f"{v:.1f}" for v in face.box)
        output.console.print(f"  ({box})  detection score {face.detection_score:.3f}")


@main.command()
@click.argument("photo")
@click.option(
    "--action",
    "actions",
    multiple=True,
    type=click.Choice(ACTIONS),
    help="What to ask for; may be repeated. All by default.",
)
@command()
def analyze(output: Output, engine: Engine, photo: str, actions: Sequence[str]) -> None:
    """Age, gender and expression as networks guess them, with head pose and quality, of every face in a photo."""
    described = engine.analyze(photo, actions=actions or ACTIONS)
    plain = [{**to_plain(each), "face": plain_face(each.face, embedding=False)} for each in described]
    output.show(plain, lambda: _print_attributes(output, described))


def _print_attributes(output: Output, described: Sequence[FaceAttributes]) -> None:
    out = output.console
    for number, each in enumerate(described, 1):
        box, pose = ", ".join(f"{v:.0f}" for v in each.face.box), each.pose
        out.print(f"face {number} at ({box}){said_quality(each.quality)}", markup=False, soft_wrap=True)
        if each.age is not None:
            out.print(f"  looks about {each.age.years:.0f} years old (± {each.age.spread:.0f})")
        for title, guess in (("gender", each.gender), ("expression", each.emotion)):
            if guess is not None:
                likely = sorted(guess, key=lambda name: -guess[name])[:3]
                out.print(f"  {title:10} " + ", ".join(f"{name} {guess[name]:.0%}" for name in likely))
        out.print(f"  {'head':10} yaw {pose.yaw:.0f}°, pitch {pose.pitch:.0f}°, roll {pose.roll:.0f}°")


def plain_face(face: Face, *, embedding: bool) -> dict[str, Any]:
    plain: dict[str, Any] = to_plain(face)
    if not embedding:
        del plain["embedding"]
    return plain


def said_quality(quality: Quality | None) -> str:
    if quality is None:
        return ""
    return f", quality {quality.score:.2f}" + (f" ({', '.join(quality.faults)})" if quality.faults else "")
