"""Ask a Triton server that serves this bundle: `python client.py IMAGE... [--url localhost:8000]`.

Without images it sends the golden ones and compares the logits. It needs `pip install tritonclient[http]`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import tritonclient.http as triton

GOLDEN = Path(__file__).resolve().parents[1] / "golden.npz"


def ask(client: triton.InferenceServerClient, name: str, values: np.ndarray, kind: str, top: int = 0) -> np.ndarray:
    """Return the logits of images, or, with `top`, as many classes of each as "score:index:label"."""
    given = triton.InferInput(name, list(values.shape), kind)
    given.set_data_from_numpy(values)
    wanted = triton.InferRequestedOutput("LOGITS", class_count=top)
    found: np.ndarray = client.infer("classifier", [given], outputs=[wanted]).as_numpy("LOGITS")
    return found


def main() -> None:
    """Print the classes of images, or how far the golden logits are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", nargs="*")
    parser.add_argument("--url", default="localhost:8000")
    parser.add_argument("--top", type=int, default=1)
    given = parser.parse_args()
    client = triton.InferenceServerClient(given.url)
    for name in given.images:
        found = ask(client, "IMAGE", np.array([[Path(name).read_bytes()]], object), "BYTES", given.top)
        sys.stdout.write(f"{name}: {', '.join(one.decode() for one in found.ravel())}\n")
    if not given.images:
        golden = np.load(GOLDEN)
        logits = np.concatenate([ask(client, "PIXELS", one[None], "UINT8") for one in golden["images"]])
        far = float(np.abs(logits - golden["logits"]).max())
        sys.stdout.write(f"golden images: {len(logits)}, logits at most {far:g} apart\n")
        sys.exit(int(not np.allclose(logits, golden["logits"], rtol=1e-2, atol=1e-2)))


if __name__ == "__main__":
    main()
