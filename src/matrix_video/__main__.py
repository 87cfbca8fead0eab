"""``python -m matrix_video``: the same as the command ``matrix``."""

from matrix_video.cli import main

if __name__ == "__main__":
    main()
