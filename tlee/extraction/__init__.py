"""Extraction of frames from videos to the frame store: sampling, decoding, storage."""

from tlee.extraction.decoding import decode, to_jpeg
from tlee.extraction.sampling import Sampling, sample_indices
from tlee.extraction.store import Extraction, extract

__all__ = ["Extraction", "Sampling", "decode", "extract", "sample_indices", "to_jpeg"]
