"""Sessions of ONNX Runtime: one per graph, for short inferences on one thread."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from earmark_spotter.errors import ModelError

if TYPE_CHECKING:
    from types import ModuleType


def open_session(content: bytes, threads: int) -> Any:
    """Create an ONNX Runtime session for short inferences: no spinning threads, no telemetry."""
    ort = _import_onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    # A thread that spins while it waits for the next step occupies a core per worker.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    # Errors are raised as exceptions; the runtime's log lines on stderr would repeat them.
    options.log_severity_level = 4
    # The model is loaded from bytes, so that the hashed content is what runs. External weights would be
    # searched for in the working directory; this path makes sure that none are found.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
    try:
        # The fallback would print to standard output and try the same again.
        providers = ["CPUExecutionProvider"]
        session = ort.InferenceSession(content, options, providers=providers, enable_fallback=0)
        # Text that is not UTF-8 raises an error only when it is read.
        values = (*session.get_inputs(), *session.get_outputs())
        _ = session.get_modelmeta().custom_metadata_map, [(value.name, value.shape) for value in values]
        return session
    except MemoryError:
        raise  # the file may be right
    except Exception as error:
        raise ModelError(f"The file is not an ONNX model that this runtime can run: {error}") from error


def _import_onnxruntime() -> ModuleType:
    """Import ONNX Runtime with telemetry disabled: a keyword spotter must not contact anyone.

    The environment variable is effective only before the first import. Without it, the import
    alone writes a device id and a queue of events into the home directory. A program that
    imports ONNX Runtime before it loads a model here has to set the variable itself.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    module: ModuleType = onnxruntime
    return module
