"""Models: loads and validates an ONNX file that maps PCM to keyword scores, and runs it step by step."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from earmark_spotter.errors import ModelError
from earmark_spotter.metadata import ModelMetadata, parse_metadata
from earmark_spotter.onnx_session import open_session
from earmark_spotter.speech_encoder import load_speech_encoder
from earmark_spotter.verifier import ENCODED_VERIFIER_KEY, VERIFIER_KEY, Verifier

if TYPE_CHECKING:
    import os
    from importlib.resources.abc import Traversable

Float32Array: TypeAlias = NDArray[np.float32]
"""An array of 32-bit floats; its shape is stated where it is used."""

METADATA_KEY = "earmark"
"""The ONNX metadata entry with the JSON document."""

INITIAL_STATE_KEY = "earmark_initial_state"
"""The ONNX metadata entry with the initial state: base64 of little-endian float32."""

_RANKS = {"pcm": 2, "state": 2, "scores": 3, "next_state": 2}
_MAX_STATE_SIZE = 1 << 22
_MAX_FILE_BYTES = 256 << 20


def check_sha256(content: bytes, expected: str | None) -> None:
    """Raise ModelError if the SHA-256 of a model file is not the expected one; None accepts any file."""
    found = hashlib.sha256(content).hexdigest()
    if expected is not None and found != expected.lower():
        raise ModelError(f"The SHA-256 of the model file is {found}, but {expected.lower()} is required.")


def _source(path: str | os.PathLike[str] | None) -> Traversable:
    if path is None:
        return resources.files("earmark_spotter") / "models" / "default.onnx"
    return Path(path)


class SpotterModel:
    """A loaded keyword model.

    It keeps no audio: everything it remembers of a stream is in the state, which the caller
    owns. One model can serve any number of streams, from any number of threads at once.
    """

    def __init__(self, content: bytes, *, threads: int = 1) -> None:
        """Load a model from the bytes of its ONNX file; `load` reads it from a path."""
        self.sha256 = hashlib.sha256(content).hexdigest()
        """The SHA-256 of the model file, in lower-case hexadecimal."""
        # Derived from the content rather than from its digest, which is public.
        self.resume_key = hmac.digest(b"earmark resume token", content, "sha256")
        """The default key for resume tokens: it can be computed only from the model file."""
        self._session = open_session(content, threads)
        entries: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        for key in (METADATA_KEY, INITIAL_STATE_KEY):
            if key not in entries:
                raise ModelError(f"The model has no ONNX metadata entry `{key}`: it is not an Earmark model.")
        self.metadata: ModelMetadata = parse_metadata(entries[METADATA_KEY])
        """The metadata of the model file."""
        self.initial_state: Float32Array = _parse_initial_state(entries[INITIAL_STATE_KEY])
        """The state at the start of a stream and after digital silence, [state_size], read-only."""
        self.silence_scores: Float32Array
        """The scores of a step of digital silence in that state, [frames_per_step, classes], read-only."""
        self._check_signature()
        self._check_run()
        self._check_memory()
        self.initial_state, self.silence_scores = self._settle()
        self.verifier: Verifier | None = self._load_verifier(entries, threads)
        """The second network, which computes final scores; None for a model without one."""
        self.silence_index: int = self._find_silence()
        """The class that digital silence is assigned to."""

    @classmethod
    def load(
        cls, path: str | os.PathLike[str] | None = None, *, threads: int = 1, sha256: str | None = None
    ) -> SpotterModel:
        """Load and validate a model file.

        `path`: the ONNX file; None for the model that is bundled with the package.
        `threads`: threads per inference. One is best for speech models of this size: a busy
        server gains speed from batches of many streams rather than from threads.
        `sha256`: the required SHA-256 of the file, in hexadecimal; any other file is not parsed.

        Raises ModelError, naming the cause, for a file that cannot be read, is not an ONNX
        model, or contradicts its metadata.
        """
        content = cls.read(path)
        try:
            check_sha256(content, sha256)
            return cls(content, threads=threads)
        except ModelError as error:
            raise ModelError(f"{_source(path)}: {error}") from error

    @staticmethod
    def read(path: str | os.PathLike[str] | None = None) -> bytes:
        """Return the content of a model file, None for the bundled one; ModelError if it cannot be read."""
        source = _source(path)
        try:
            with source.open("rb") as file:
                content: bytes = file.read(_MAX_FILE_BYTES + 1)
        except OSError as error:
            raise ModelError(f"The model file {source} cannot be read: {error.strerror}.") from error
        if len(content) > _MAX_FILE_BYTES:
            raise ModelError(
                f"The file {source} has more than {_MAX_FILE_BYTES >> 20} MiB: it is not a model."
            )
        return content

    @property
    def state_size(self) -> int:
        """The length of one stream's state."""
        return self.initial_state.size

    def initial_states(self, batch: int) -> Float32Array:
        """Return a new, writable array of initial states, [batch, state_size]."""
        return np.tile(self.initial_state, (batch, 1))

    def step(self, pcm: Float32Array, state: Float32Array) -> tuple[Float32Array, Float32Array]:
        """Run inference on the next step or steps of every stream in a batch.

        pcm: [batch, n * step_samples], n >= 1, mono at the model's rate, full scale -1 to 1.
        state: [batch, state_size], the next state of the previous call, or the initial state.

        Returns scores [batch, n * frames_per_step, classes], the smoothed probability of
        every class, and the next state [batch, state_size]. The inputs are not modified.
        Frame i covers the audio up to sample (i + 1) * frame_samples of this call.
        """
        scores, next_state = self._session.run(("scores", "next_state"), {"pcm": pcm, "state": state})
        return scores, next_state

    def _load_verifier(self, entries: dict[str, str], threads: int) -> Verifier | None:
        graphs = {
            key: open_session(_parse_base64(key, entries[key]), threads)
            for key in (VERIFIER_KEY, ENCODED_VERIFIER_KEY)
            if key in entries
        }
        info = self.metadata.verifier
        if (info is None) != (not graphs):
            raise ModelError(
                f"The model must have both `verifier` and `{VERIFIER_KEY}` or `{ENCODED_VERIFIER_KEY}`, "
                "or none of them."
            )
        if info is None:
            return None
        encoded = graphs.get(ENCODED_VERIFIER_KEY)
        if (info.encoder_sha256 is None) != (encoded is None):
            raise ModelError(
                f"The model must have both `verifier.encoder_sha256` and `{ENCODED_VERIFIER_KEY}`, "
                "or neither of them."
            )
        encoder = load_speech_encoder(info.encoder_sha256, threads) if info.encoder_sha256 else None
        return Verifier(self.metadata, graphs.get(VERIFIER_KEY), encoded, encoder)

    def _check_signature(self) -> None:
        found = {value.name: value for value in (*self._session.get_inputs(), *self._session.get_outputs())}
        if set(found) != set(_RANKS):
            raise ModelError(
                f"The graph must have the inputs pcm, state and the outputs scores, next_state, "
                f"but has {', '.join(sorted(found))}."
            )
        sizes = {"pcm": None, "state": self.state_size, "scores": len(self.metadata.labels)}
        sizes["next_state"] = self.state_size
        for name, rank in _RANKS.items():
            value = found[name]
            shape: list[int | str | None] = value.shape
            if value.type != "tensor(float)" or len(shape) != rank:
                raise ModelError(
                    f"The graph's `{name}` must be float32 with {rank} dimensions, "
                    f"but is {value.type} with shape {shape}."
                )
            *dynamic, last = shape
            if name == "pcm":
                dynamic.append(last)
            if any(isinstance(size, int) for size in dynamic):
                raise ModelError(
                    f"The graph's `{name}` must accept any batch and length, but its shape is fixed: {shape}."
                )
            wanted = sizes[name]
            if isinstance(last, int) and wanted is not None and last != wanted:
                field = "labels" if name == "scores" else INITIAL_STATE_KEY
                raise ModelError(f"The graph's `{name}` has {last} numbers, but `{field}` has {wanted}.")

    def _check_run(self) -> None:
        """Run two streams for two steps of silence, and compare the results with the metadata."""
        meta = self.metadata
        pcm = np.zeros((2, 2 * meta.step_samples), np.float32)
        scores, next_state = self._try_step(pcm, self.initial_states(2))
        if not np.isfinite(next_state).all():
            raise ModelError("The graph's `next_state` is not finite after silence.")
        # The last classes may have been added to a trained network: then the classes before sum to 1.
        sums_to_1 = np.abs(scores.cumsum(axis=2) - 1) < 1e-3
        within = 0 <= scores.min() <= scores.max() < 1 + 1e-3 and scores.sum(axis=2).max() < 1.5 + 1e-3
        if not (within and sums_to_1.all(axis=(0, 1)).any()):
            raise ModelError("The graph's `scores` are not probabilities that sum to 1.")

    def _try_step(self, pcm: Float32Array, state: Float32Array) -> tuple[Float32Array, Float32Array]:
        meta = self.metadata
        try:
            scores, next_state = self.step(pcm, state)
        except Exception as error:
            raise ModelError(
                f"The graph does not run on steps of {meta.step_samples} samples (`step_samples`) "
                f"with a state of {self.state_size} numbers (`{INITIAL_STATE_KEY}`): {error}"
            ) from error
        steps = pcm.shape[1] // meta.step_samples
        expected = (len(pcm), steps * meta.frames_per_step, len(meta.labels))
        if scores.shape != expected:
            raise ModelError(
                f"The graph's `scores` have the shape {scores.shape} for {steps} steps of {len(pcm)} "
                f"streams, but `frame_samples` and `labels` require {expected}."
            )
        if next_state.shape != state.shape:
            raise ModelError(
                f"The graph's `next_state` has the shape {next_state.shape}, but `{INITIAL_STATE_KEY}` "
                f"requires {state.shape}."
            )
        return scores, next_state

    def _find_silence(self) -> int:
        index = int(self.silence_scores[-1].argmax())
        if index in self.metadata.keyword_indices:
            raise ModelError(f"The model assigns silence to the keyword {self.metadata.labels[index]!r}.")
        return index

    def _settle(self) -> tuple[Float32Array, Float32Array]:
        """Return the state and the scores that digital silence leads to and does not change any more.

        The initial state of the file differs from it by rounding. With the settled state, a stream that
        skips silence gets the same scores, bit for bit, as one that runs the model on all of it.
        """
        meta = self.metadata
        pcm = np.zeros((1, meta.step_samples), np.float32)
        state = self.initial_states(1)
        for _ in range(-(-meta.receptive_field_samples // meta.step_samples) + 1):
            scores, next_state = self._try_step(pcm, state)
            if np.array_equal(state, next_state):
                break
            state = next_state
        for array in (state, scores):
            array.flags.writeable = False
        return state[0], scores[0]

    def _check_memory(self) -> None:
        """Check the initial state and the receptive field, on which resuming streams depends."""
        meta = self.metadata
        remembered = -(-meta.receptive_field_samples // meta.step_samples) * meta.step_samples
        silence = np.zeros((1, remembered + meta.step_samples), np.float32)
        scores, _ = self._try_step(silence, self.initial_states(1))
        if not _are_equal(scores[0, 0], scores[0, -1]):
            raise ModelError(f"The model's `{INITIAL_STATE_KEY}` is not its state after digital silence.")

        noise = np.random.default_rng(0).normal(0, 0.1, silence.shape).astype(np.float32)
        _, noisy = self._try_step(noise, self.initial_states(1))
        scores, _ = self._try_step(np.tile(silence, (2, 1)), np.concatenate([noisy, self.initial_states(1)]))
        last = scores[:, -meta.frames_per_step :]
        if not _are_equal(last[0], last[1]):
            raise ModelError(
                f"The graph's scores depend on more audio than `receptive_field_samples` "
                f"({meta.receptive_field_samples}) declares."
            )


def _are_equal(first: Float32Array, second: Float32Array) -> bool:
    """Return whether scores are equal up to rounding; NaN is equal to nothing."""
    return bool((np.abs(first - second) <= 1e-3).all())


def _parse_base64(key: str, text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ModelError(f"The model's `{key}` is not base64: {error}.") from error


def _parse_initial_state(text: str) -> Float32Array:
    content = _parse_base64(INITIAL_STATE_KEY, text)
    if not content or len(content) % 4 or len(content) // 4 > _MAX_STATE_SIZE:
        raise ModelError(
            f"The model's `{INITIAL_STATE_KEY}` must be 1 to {_MAX_STATE_SIZE} numbers of 4 bytes, "
            f"but has {len(content)} bytes."
        )
    state = np.frombuffer(content, "<f4").astype(np.float32)
    if not np.isfinite(state).all():
        raise ModelError(f"The model's `{INITIAL_STATE_KEY}` is not finite.")
    state.flags.writeable = False
    return state
