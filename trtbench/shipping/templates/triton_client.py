"""Ask a Triton server that serves this bundle: `python client.py IMAGE... [--url localhost:8000]`.

Without images it sends the golden ones and compares what comes back. It needs `pip install tritonclient[http]`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import tritonclient.http as triton

GOLDEN = Path(__file__).resolve().parents[1] / "golden.npz"


def known() -> dict[str, np.ndarray]:
    """Return the golden outputs by the names that the server has for them."""
    golden = np.load(GOLDEN)
    own = {name.removeprefix("output "): golden[name] for name in golden.files if name.startswith("output ")}
    return own or {"LOGITS": golden["logits"]}


def ask(
    client: triton.InferenceServerClient, name: str, values: np.ndarray, kind: str, top: int = 0
) -> dict[str, np.ndarray]:
    """Return the outputs of images, or, with `top`, as many classes of each as "score:index:label"."""
    names = list(known())
    given = triton.InferInput(name, list(values.shape), kind)
    given.set_data_from_numpy(values)
    wanted = [triton.InferRequestedOutput(one, class_count=top) for one in names]
    found = client.infer("classifier" if names == ["LOGITS"] else "network", [given], outputs=wanted)
    return {one: found.as_numpy(one) for one in names}


def main() -> None:
    """Print the classes of images, or what their outputs are like, or how far the golden ones are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", nargs="*")
    parser.add_argument("--url", default="localhost:8000")
    parser.add_argument("--top", type=int, default=1)
    given = parser.parse_args()
    client, wanted = triton.InferenceServerClient(given.url), known()
    top = given.top if "LOGITS" in wanted else 0
    for name in given.images:
        found = ask(client, "IMAGE", np.array([[Path(name).read_bytes()]], object), "BYTES", top)
        if top:
            words = [one.decode() for one in found["LOGITS"].ravel()]
        else:
            words = [f"{key} {one.shape[1:]} {one.min():.4g} to {one.max():.4g}" for key, one in found.items()]
        sys.stdout.write(f"{name}: {', '.join(words)}\n")
    if not given.images:
        answers = [ask(client, "PIXELS", one[None], "UINT8") for one in np.load(GOLDEN)["images"]]
        is_same = True
        for key, values in wanted.items():
            got = np.concatenate([one[key] for one in answers])
            sys.stdout.write(f"golden images: {len(got)}, {key} at most {np.abs(got - values).max():g} apart\n")
            is_same = is_same and np.allclose(got, values, rtol=1e-2, atol=1e-2 * max(1.0, np.abs(values).max()))
        sys.exit(int(not is_same))


if __name__ == "__main__":
    main()
