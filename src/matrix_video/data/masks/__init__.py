"""Masks as others store them → one boolean mask an object and frame: `read_masks`.

pictures.py  one picture: ids as numbers, palettes or colours, or white on black
arrays.py, runlengths.py  npz and npy; JSON
numbering.py file and array names → frame and object; mask numbers → frames of the video
reading.py   a clip's masks, fitted to its video, as mask tracks
"""

from matrix_video.data.masks.reading import MaskSet, read_masks

__all__ = ["MaskSet", "read_masks"]
