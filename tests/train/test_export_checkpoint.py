"""The finished model of a run: the newest checkpoint, whole, without optimizer state."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "train" / "export_checkpoint.py"


def export(run: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--from", str(run), "--to", str(run / "final")]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def add_checkpoint(run: Path, number: int, weights: bool = True, state: bool = True) -> None:
    folder = run / f"checkpoint-{number}"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(f'{{"step": {number}}}')
    (folder / "optimizer.pt").write_text("large")
    (folder / "args.json").write_text("paths of the machine")
    if state:
        (folder / "trainer_state.json").write_text("{}")
    if weights:
        (folder / "model.safetensors").write_text(str(number))


def test_the_newest_by_number_is_taken_without_optimizer_or_paths(tmp_path: Path) -> None:
    for number in (90, 100, 9):
        add_checkpoint(tmp_path, number)
    add_checkpoint(tmp_path, 200, weights=False)
    add_checkpoint(tmp_path, 300, state=False)
    assert export(tmp_path).returncode == 0
    assert {path.name for path in (tmp_path / "final").iterdir()} == {"config.json", "model.safetensors"}
    assert (tmp_path / "final" / "model.safetensors").read_text() == "100"


def test_a_run_without_weights_is_refused(tmp_path: Path) -> None:
    add_checkpoint(tmp_path, 1, weights=False)
    result = export(tmp_path)
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: {tmp_path}: no whole checkpoint-N folder")
    assert not (tmp_path / "final").exists()
