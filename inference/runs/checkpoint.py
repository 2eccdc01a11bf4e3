"""A checkpoint before it is loaded: is it one, is it whole, which one is it, what was it made for."""

import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emocaliber.records import RecordError

# Larger files are recognised by their size and evenly spread samples: hashing 16 GB whole takes a minute.
HASHED_WHOLE_BYTES = 64 * 2**20
SAMPLES = 64
SAMPLE_BYTES = 2**16

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_WEIGHTS = "*.safetensors"
_DECIDING = ("*.safetensors", "*.bin", "*.json", "*.jinja", "*.txt", "*.model")
_LAYOUT_FILES = ("training_args.bin", "trainer_state.json", "args.json")


@dataclass(frozen=True)
class Checkpoint:
    """A local checkpoint folder or a name on the hub (`path` is None, and little is known)."""

    name: str
    path: Path | None = None
    sha256: str | None = None
    files: dict[str, int] = field(default_factory=dict)
    weights_bytes: int | None = None
    model_type: str | None = None
    max_positions: int | None = None
    own_max_pixels: int | None = None
    image_factor: int = 28
    """The side in pixels of the square that becomes one image token; Qwen2.5-VL's, where it is not known."""
    vocabulary: int | None = None
    """The number of tokens that the model knows."""
    architectures: tuple[str, ...] = ()
    """The names of its model classes."""


NO_CHECKPOINT = Checkpoint("(of the server)")
"""Of a run whose model is behind a server and whose folder is not given."""


def open_checkpoint(name: str) -> Checkpoint:
    """Look at a checkpoint without loading it. Raises RecordError if it cannot be one or is not whole.

    A name with exactly one slash (`wudq/EmoCaliber`) that is nothing here, nor its first part, is one of the
    hub.
    """
    path = Path(name).expanduser()
    if not path.is_dir():
        if path.exists():
            raise RecordError(
                f"{name}: a file, not a checkpoint folder; give --checkpoint the folder it is in"
            )
        # `models/NoSuch` beside a folder `models` is a mistyped path.
        if _HUB_NAME.fullmatch(name) and not name.startswith(".") and not path.parent.is_dir():
            return Checkpoint(name)
        raise RecordError(f"{name}: no such checkpoint folder; check --checkpoint")
    if not (path / "config.json").is_file():
        raise RecordError(f"{name}: no config.json; give --checkpoint a checkpoint folder")
    config = _read_config(path / "config.json")
    weights = sorted(path.glob(_WEIGHTS))
    _check_weights(name, path, weights)
    if not any((path / file).is_file() for file in ("tokenizer.json", "vocab.json")):
        raise RecordError(f"{name}: no tokenizer.json; copy the tokenizer of its base model there")
    classes = config.get("architectures")
    files = sorted({file for pattern in _DECIDING for file in path.glob(pattern)})
    files = [file for file in files if file.name not in _LAYOUT_FILES]
    return Checkpoint(
        name=name,
        path=path,
        sha256=_fingerprint(files),
        files={file.name: file.stat().st_size for file in files},
        weights_bytes=sum(file.stat().st_size for file in weights),
        model_type=config.get("model_type"),
        max_positions=_of_text(config, "max_position_embeddings"),
        own_max_pixels=_own_max_pixels(path),
        image_factor=_image_factor(config),
        vocabulary=_of_text(config, "vocab_size"),
        architectures=tuple(map(str, classes)) if isinstance(classes, list) else (),
    )


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecordError(f"{path}: not readable JSON ({type(error).__name__}); copy it again") from None
    if not isinstance(config, dict):
        raise RecordError(f"{path}: not a JSON object; copy it again")
    return config


def _check_weights(name: str, path: Path, weights: list[Path]) -> None:
    if not weights and any(path.glob("*.bin")):
        raise RecordError(
            f"{name}: weights in *.bin only, which can run any code when they are loaded; convert them to "
            "safetensors (save_pretrained of transformers does)"
        )
    if not weights:
        raise RecordError(
            f"{name}: no weights (*.safetensors); training has not finished or they were not copied"
        )
    index = path / "model.safetensors.index.json"
    if index.is_file():
        named = set(_read_config(index).get("weight_map", {}).values())
        missing = sorted(named - {file.name for file in weights})
        if missing:
            raise RecordError(
                f"{name}: {len(missing)} weight files are missing, such as {missing[0]}; copy them"
            )
    for file in weights:
        if not _is_whole(file):
            raise RecordError(
                f"{file}: not a whole safetensors file ({file.stat().st_size:,} bytes); copy it again"
            )


def _is_whole(path: Path) -> bool:
    """Compare a safetensors file's size with what its header says (a git-lfs pointer fails as well)."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > path.stat().st_size:
            return False
        try:
            header = json.loads(file.read(length))
            ends = [entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"]
        except (ValueError, LookupError, TypeError, AttributeError):
            return False
    return 8 + length + max(ends, default=0) == path.stat().st_size


def _fingerprint(files: list[Path]) -> str:
    """Hash names, sizes and contents; of a file over 64 MiB, samples of its content."""
    digest = hashlib.sha256()
    for path in files:
        size = path.stat().st_size
        digest.update(f"{path.name}\0{size}\0".encode())
        with open(path, "rb") as file:
            if size <= HASHED_WHOLE_BYTES:
                digest.update(hashlib.sha256(file.read()).digest())
                continue
            for sample in range(SAMPLES):
                file.seek((size - SAMPLE_BYTES) * sample // (SAMPLES - 1))
                digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()


def _of_text(config: dict[str, Any], name: str) -> int | None:
    """Read a whole number of the language model, which stands apart in newer configurations."""
    text = config.get("text_config")
    for part in (text if isinstance(text, dict) else {}, config):
        if isinstance(part.get(name), int):
            return int(part[name])
    return None


def _image_factor(config: dict[str, Any]) -> int:
    vision = config.get("vision_config")
    vision = vision if isinstance(vision, dict) else {}
    return int(vision.get("patch_size", 14)) * int(vision.get("spatial_merge_size", 2))


def _own_max_pixels(path: Path) -> int | None:
    """Read the largest image in pixels that the checkpoint's own image processor would make."""
    for name in ("preprocessor_config.json", "processor_config.json"):
        if (path / name).is_file():
            config = _read_config(path / name)
            settings = config.get("image_processor") if name == "processor_config.json" else config
            settings = settings if isinstance(settings, dict) else {}
            size = settings.get("size")
            own = settings.get("max_pixels") or (isinstance(size, dict) and size.get("longest_edge"))
            if isinstance(own, int) and own:
                return own
    return None
