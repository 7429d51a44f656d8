"""Canvas by its REST API. Facts cite files of ``instructure/canvas-lms``."""
