"""A model: one ONNX file from PCM to keyword scores, loaded, checked, and run step by step."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from earmark_spotter.errors import ModelError
from earmark_spotter.metadata import ModelMetadata, parse_metadata

if TYPE_CHECKING:
    from types import ModuleType

Float32Array: TypeAlias = NDArray[np.float32]
"""Any array of 32-bit floats; the shape is in the docstring of whoever uses it."""

METADATA_KEY = "earmark"
"""The ONNX metadata entry with the JSON document."""

INITIAL_STATE_KEY = "earmark_initial_state"
"""The ONNX metadata entry with the initial state: base64 of little-endian float32."""

_RANKS = {"pcm": 2, "state": 2, "scores": 3, "next_state": 2}
_MAX_STATE_SIZE = 1 << 22


def check_sha256(content: bytes, expected: str | None) -> None:
    """Raise ModelError if a model file is not the one that was expected; None expects nothing."""
    found = hashlib.sha256(content).hexdigest()
    if expected is not None and found != expected.lower():
        raise ModelError(f"The model file's SHA-256 is {found}, and not {expected.lower()}, as was required.")


class SpotterModel:
    """A keyword model, ready to run.

    It keeps nothing of the audio: all of a stream's past is in the state, which the caller
    owns. One model serves any number of streams, from any number of threads at once.
    """

    def __init__(self, content: bytes, *, threads: int = 1) -> None:
        """Take a model from the bytes of its ONNX file; `load` takes it from a path."""
        self.sha256 = hashlib.sha256(content).hexdigest()
        """The SHA-256 of the model file, in lower-case hexadecimal."""
        # From the content, and not from its digest, which anybody may know.
        self.resume_key = hmac.digest(b"earmark resume token", content, "sha256")
        """What signs resume tokens where there is no other key: only who has the model file has it."""
        self._session = _open_session(content, threads)
        entries: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        for key in (METADATA_KEY, INITIAL_STATE_KEY):
            if key not in entries:
                raise ModelError(f"The model has no ONNX metadata entry `{key}`: it is not an Earmark model.")
        self.metadata: ModelMetadata = parse_metadata(entries[METADATA_KEY])
        """What the file says about itself."""
        self.initial_state: Float32Array = _parse_initial_state(entries[INITIAL_STATE_KEY])
        """The state after digital silence, [state_size], read-only: what a stream begins with."""
        self._check_signature()
        self._check_run()
        self._check_memory()
        self.silence_index: int = self._find_silence()
        """The class that digital silence is put into: nobody speaks."""

    @classmethod
    def load(
        cls, path: str | os.PathLike[str] | None = None, *, threads: int = 1, sha256: str | None = None
    ) -> SpotterModel:
        """Load a model file and check all of it.

        `path`: the ONNX file; None for the model that comes with the package.
        `threads`: how many threads one step may use. One is best for speech models of this
        size; batches of many streams, not threads, are what makes a busy server fast.
        `sha256`: what the file's SHA-256 must be, in hexadecimal; another file is not even parsed.

        Raises ModelError, naming what is at fault, for a file that cannot be read, is not
        an ONNX model, or does not keep what its metadata promises.
        """
        source = (
            resources.files("earmark_spotter") / "models" / "default.onnx" if path is None else Path(path)
        )
        try:
            content = source.read_bytes()
        except OSError as error:
            raise ModelError(f"The model file {source} cannot be read: {error.strerror}.") from error
        try:
            check_sha256(content, sha256)
            return cls(content, threads=threads)
        except ModelError as error:
            raise ModelError(f"{source}: {error}") from error

    @property
    def state_size(self) -> int:
        """Numbers in one stream's state."""
        return self.initial_state.size

    def initial_states(self, batch: int) -> Float32Array:
        """Make a fresh, writable [batch, state_size] array of streams that are about to begin."""
        return np.tile(self.initial_state, (batch, 1))

    def step(self, pcm: Float32Array, state: Float32Array) -> tuple[Float32Array, Float32Array]:
        """Listen to the next step or steps of every stream in a batch.

        pcm: [batch, n * step_samples], n >= 1, mono at the model's rate, full scale -1 to 1.
        state: [batch, state_size], what the call before gave, or the initial state.

        Returns scores [batch, n * frames_per_step, classes], the smoothed probability of
        every class, and the next state [batch, state_size]. Neither input is changed.
        Frame i speaks of the audio up to sample (i + 1) * frame_samples of this call.
        """
        scores, next_state = self._session.run(("scores", "next_state"), {"pcm": pcm, "state": state})
        return scores, next_state

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
                    f"The graph's `{name}` must take any batch and length, but is fixed: {shape}."
                )
            wanted = sizes[name]
            if isinstance(last, int) and wanted is not None and last != wanted:
                what = "labels" if name == "scores" else INITIAL_STATE_KEY
                raise ModelError(f"The graph's `{name}` has {last} numbers, but `{what}` has {wanted}.")

    def _check_run(self) -> None:
        """Run two streams for two steps of silence: what the metadata promises must hold."""
        meta = self.metadata
        pcm = np.zeros((2, 2 * meta.step_samples), np.float32)
        scores, next_state = self._try_step(pcm, self.initial_states(2))
        if not np.isfinite(next_state).all():
            raise ModelError("The graph's `next_state` is not finite after silence.")
        if not (np.abs(scores.sum(axis=2) - 1) < 1e-3).all() or scores.min() < 0:
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
                f"streams, but `frame_samples` and `labels` promise {expected}."
            )
        if next_state.shape != state.shape:
            raise ModelError(
                f"The graph's `next_state` has the shape {next_state.shape}, but `{INITIAL_STATE_KEY}` "
                f"promises {state.shape}."
            )
        return scores, next_state

    def _find_silence(self) -> int:
        pcm = np.zeros((1, self.metadata.step_samples), np.float32)
        scores, _ = self._try_step(pcm, self.initial_states(1))
        index = int(scores[0, -1].argmax())
        if index in self.metadata.keyword_indices:
            raise ModelError(f"The model takes silence for the keyword {self.metadata.labels[index]!r}.")
        return index

    def _check_memory(self) -> None:
        """Check what streams begin with and what they forget: resuming and warming up rest on it."""
        meta = self.metadata
        remembered = -(-meta.receptive_field_samples // meta.step_samples) * meta.step_samples
        silence = np.zeros((1, remembered + meta.step_samples), np.float32)
        scores, _ = self._try_step(silence, self.initial_states(1))
        if not _alike(scores[0, 0], scores[0, -1]):
            raise ModelError(f"The model's `{INITIAL_STATE_KEY}` is not its state after digital silence.")

        noise = np.random.default_rng(0).normal(0, 0.1, silence.shape).astype(np.float32)
        _, noisy = self._try_step(noise, self.initial_states(1))
        scores, _ = self._try_step(np.tile(silence, (2, 1)), np.concatenate([noisy, self.initial_states(1)]))
        last = scores[:, -meta.frames_per_step :]
        if not _alike(last[0], last[1]):
            raise ModelError(
                f"The graph remembers audio for longer than `receptive_field_samples` says "
                f"({meta.receptive_field_samples})."
            )


def _alike(some: Float32Array, others: Float32Array) -> bool:
    """Whether scores are the same but for rounding; those that are no numbers are like nothing."""
    return bool((np.abs(some - others) <= 1e-3).all())


def _parse_initial_state(text: str) -> Float32Array:
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ModelError(f"The model's `{INITIAL_STATE_KEY}` is not base64: {error}.") from error
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


def _open_session(content: bytes, threads: int) -> Any:
    """Open an ONNX Runtime session for small steps: no spinning threads, no telemetry."""
    ort = _import_onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    # A thread that spins while it waits for the next step burns a core per worker.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    # Errors come as exceptions; the runtime's own log lines on stderr would double them.
    options.log_severity_level = 4
    # From bytes, so that what was hashed is what runs. Weights in other files are looked for where there
    # can be none; else it would be in the working folder.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
    try:
        # Without its fallback, which prints to standard output and tries the same again.
        providers = ["CPUExecutionProvider"]
        session = ort.InferenceSession(content, options, providers=providers, enable_fallback=0)
        # Text that is not UTF-8 shows only when it is read.
        values = (*session.get_inputs(), *session.get_outputs())
        _ = session.get_modelmeta().custom_metadata_map, [(value.name, value.shape) for value in values]
        return session
    except Exception as error:
        raise ModelError(f"Not an ONNX model that this runtime can run: {error}") from error


def _import_onnxruntime() -> ModuleType:
    """Import ONNX Runtime with its telemetry off: a listener must not call anyone.

    The variable is what counts, and only before the first import: without it the import alone
    writes a device id and a queue of events into the home folder. A program that imports ONNX
    Runtime by itself, before it loads a model here, has to set it itself.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    module: ModuleType = onnxruntime
    return module
