"""Videos to the frame store: which frames, how they are decoded, how they are kept."""

from tlee.extraction.decoding import decode, to_jpeg
from tlee.extraction.sampling import Sampling, sample_indices
from tlee.extraction.store import Extraction, extract

__all__ = ["Extraction", "Sampling", "decode", "extract", "sample_indices", "to_jpeg"]
