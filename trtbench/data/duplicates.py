"""Near-duplicates: the same photo in two image sets, re-encoded, re-coloured, shifted or cropped a little.

Two rules, either is enough. Both begin with the grey 8 x 8 thumbnail, mean-free and of unit norm, so that brightness
and contrast do not count, and one matrix product correlates every pair.

1. Re-encoded: thumbnails correlate and differ, after the best gain and offset, by a few grey levels. Coding and noise
   hurt fine detail first and leave the thumbnail alone; another photo, or another digit, does not come that close.
2. Shifted, cropped or re-coloured: thumbnails correlate less, but the detail finer than the thumbnail (4.5 to 12
   cycles an image) agrees at some shift of at most 2 pixels. Skies and seas share thumbnails, seldom their detail.
   Two grey images are exempt: different digits, letters and X-rays do share theirs.

Measured on CIFAR-10 (32 x 32). Found among 5,170 photos, each against an altered copy: JPEG quality 30, 40, 50 and
75, brightness +20, contrast x 0.8, noise of 5 and 10 levels, in grey: 100 %; moved by 1 pixel 97.9 %; cropped to
30 x 30 and enlarged 97.8 %. A published JPEG copy (quality 75): 5,170 of 5,170 found among 50,000. Other pairs
reported: 21 of 26 million between training and test, 20 of them the same photo to a person, one two ships on a flat
sea; 261 of 258 million within training, most of them the same photo. CIFAR-10 does repeat photos (Barz and Denzler
2020). Among the 1.6 million pairs of scikit-learn's digits: none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from trtbench.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Indices = NDArray[np.int64]

THUMBNAIL = 8  # cells a side: JPEG at quality 30 keeps these to a few levels
RESIDUAL_LEVELS = 5.0  # rule 1: JPEG at quality 30 reaches 2.7; the closest other photo of 26 million pairs has 5.1
RESIDUAL_CORRELATION = 0.95  # rule 1: keeps two almost flat pictures, whose residual is small by nature, apart
FLAT_LEVELS = 4.0  # contrast of a thumbnail below which it is rounding and coding noise; CIFAR-10 begins at 10
CANDIDATE_CORRELATION = 0.88  # rule 2 looks no further below this; a shift by one pixel stays above it in 98 %
DETAIL_CORRELATION = 0.71  # rule 2: where the reported CIFAR-10 pairs turn from the same photo into other ships at sea
DETAIL_GRID = 32  # pixels a side at which detail is compared; larger images are averaged down to it
DETAIL_BAND = (4.5, 12.0)  # cycles an image: above what the thumbnail holds, below what JPEG throws away
DETAIL_SHIFT = 2  # pixels of the detail grid
COLOUR_LEVELS = 3.0  # root mean square of the chroma; a grey photo saved as JPEG stays below it
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, the luma of JPEG
_BLOCK = 2048  # images a side of one block of the correlation matrix: 16 MiB
_FLOATS = 2**22  # pixels made float at a time: 16 MiB


class _Prints(NamedTuple):
    """What the matrix product needs of N images: unit thumbnails (N, 64), contrast (N,) in levels, colour (N,)."""

    thumbnails: Floats
    contrast: Floats
    is_colour: NDArray[np.bool_]


def near_duplicates(images: NDArray[np.uint8], others: NDArray[np.uint8]) -> list[tuple[int, int]]:
    """Return the pairs (index in `images`, index in `others`) that show the same photo, sorted.

    Identical images are found too, unless they are almost of one colour: only their hash tells two such images apart.
    Mirrored, rotated and strongly cropped copies are not found. Memory is bounded by blocks, not by N x M.

    Args:
        images: uint8 (N, C, H, W).
        others: uint8 (M, C, H, W), of the same C, H and W.

    Raises:
        DataError: the two sets differ in channels or size.
    """
    if images.dtype.names:
        return []  # tensors show nothing
    if images.shape[1:] != others.shape[1:]:
        raise DataError(
            "near-duplicate search",
            expected=f"two sets of one image shape, {images.shape[1:]}",
            got=str(others.shape[1:]),
            cure="load both with the same data.size",
        )
    left, right = _prints(images), _prints(others)
    pairs: list[tuple[int, int]] = []
    for rows in _spans(len(images), _BLOCK):
        for columns in _spans(len(others), _BLOCK):
            i, j = _block_pairs(images[rows], others[columns], _part(left, rows), _part(right, columns))
            pairs += zip((i + rows.start).tolist(), (j + columns.start).tolist(), strict=True)
    return sorted(pairs)


def _block_pairs(
    images: NDArray[np.uint8], others: NDArray[np.uint8], left: _Prints, right: _Prints
) -> tuple[Indices, Indices]:
    """Apply both rules to one block; the indices count within the block."""
    correlation = left.thumbnails @ right.thumbnails.T
    i, j = np.nonzero(correlation >= CANDIDATE_CORRELATION)
    found = correlation[i, j]
    residual = np.minimum(left.contrast[i], right.contrast[j]) * np.sqrt(np.maximum(0.0, 1.0 - found**2))
    is_same = (found >= RESIDUAL_CORRELATION) & (residual <= RESIDUAL_LEVELS)
    is_open = np.flatnonzero(~is_same & (left.is_colour[i] | right.is_colour[j]))
    is_same[is_open] = _detail_correlation(images, others, i[is_open], j[is_open]) >= DETAIL_CORRELATION
    return i[is_same], j[is_same]


def _prints(images: NDArray[np.uint8]) -> _Prints:
    thumbnails = np.empty((len(images), *_grid(images, THUMBNAIL)), np.float32)
    is_colour = np.empty(len(images), np.bool_)
    for span in _float_spans(images):
        luma = _luma(images[span])
        thumbnails[span] = _averaged(luma, THUMBNAIL)
        chroma = images[span] - luma[:, None]
        is_colour[span] = np.sqrt(np.square(chroma).mean(axis=(1, 2, 3))) >= COLOUR_LEVELS
    flat = thumbnails.reshape(len(images), np.prod(thumbnails.shape[1:], dtype=int))
    flat -= flat.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(flat, axis=1, keepdims=True)
    contrast = norm[:, 0] / np.sqrt(flat.shape[1])
    flat[contrast < FLAT_LEVELS] = 0  # correlates with nothing
    return _Prints(flat / np.maximum(norm, np.finfo(np.float32).tiny), contrast, is_colour)


def _detail_correlation(images: NDArray[np.uint8], others: NDArray[np.uint8], i: Indices, j: Indices) -> Floats:
    """Return, for each pair, the highest correlation of the fine detail over shifts of at most `DETAIL_SHIFT`."""
    rows, at_row = np.unique(i, return_inverse=True)
    columns, at_column = np.unique(j, return_inverse=True)
    left, right = _detail_spectra(images[rows]), _detail_spectra(others[columns])
    best = np.empty(len(i), np.float32)
    shifts = np.arange(-DETAIL_SHIFT, DETAIL_SHIFT + 1)
    grid = _grid(images, DETAIL_GRID)
    for span in _spans(len(i), _BLOCK):
        product = left[at_row[span]] * right[at_column[span]].conj()
        correlation = np.fft.irfft2(product, s=grid)  # correlation theorem: every circular shift at once
        best[span] = correlation[:, shifts[:, None] % grid[0], shifts % grid[1]].max(axis=(1, 2))
    return best


def _detail_spectra(images: NDArray[np.uint8]) -> NDArray[np.complex64]:
    """Return the spectra of the band-passed luma; two of the same photo have a product that sums to 1."""
    height, width = _grid(images, DETAIL_GRID)
    vertical, horizontal = np.fft.fftfreq(height, 1 / height), np.fft.rfftfreq(width, 1 / width)
    radius = np.hypot(vertical[:, None], horizontal)
    band = (radius >= DETAIL_BAND[0]) & (radius <= DETAIL_BAND[1])
    window = np.outer(_sine_window(height), _sine_window(width))
    spectra = np.empty((len(images), *band.shape), np.complex64)
    for span in _float_spans(images):
        luma = _averaged(_luma(images[span]), DETAIL_GRID)
        spectra[span] = np.fft.rfft2((luma - luma.mean(axis=(1, 2), keepdims=True)) * window) * band
    energy = np.square(np.fft.irfft2(spectra, s=(height, width))).sum(axis=(1, 2))
    spectra /= np.sqrt(np.maximum(energy, np.finfo(np.float32).tiny))[:, None, None].astype(np.float32)
    return spectra


def _sine_window(size: int) -> Floats:
    """Fade to the borders, so that a circular shift brings in nothing from the other side."""
    return np.sin(np.pi * (np.arange(size, dtype=np.float32) + 1) / (size + 1))


def _luma(images: NDArray[np.uint8]) -> Floats:
    weights = _LUMA if images.shape[1] == len(_LUMA) else (1 / images.shape[1],) * images.shape[1]
    luma: Floats = np.einsum("c,nchw->nhw", np.array(weights, np.float32), images.astype(np.float32))
    return luma


def _averaged(luma: Floats, cells: int) -> Floats:
    """Average (N, H, W) down to at most `cells` x `cells` by area."""
    rows, columns = (_area_weights(side, min(side, cells)) for side in luma.shape[1:])
    averaged: Floats = np.asarray(rows @ luma @ columns.T, np.float32)
    return averaged


def _area_weights(size: int, cells: int) -> Floats:
    """Return the matrix (cells, size) that averages `size` pixels into `cells` of equal width."""
    edges = np.arange(cells + 1) * (size / cells)
    pixels = np.arange(size)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    weights: Floats = (np.maximum(overlap, 0) * (cells / size)).astype(np.float32)
    return weights


def _grid(images: NDArray[np.uint8], cells: int) -> tuple[int, int]:
    return min(cells, images.shape[2]), min(cells, images.shape[3])


def _part(prints: _Prints, span: slice) -> _Prints:
    return _Prints(prints.thumbnails[span], prints.contrast[span], prints.is_colour[span])


def _float_spans(images: NDArray[np.uint8]) -> Iterator[slice]:
    return _spans(len(images), max(1, _FLOATS // int(np.prod(images.shape[1:]))))


def _spans(length: int, step: int) -> Iterator[slice]:
    return (slice(start, min(start + step, length)) for start in range(0, length, step))
