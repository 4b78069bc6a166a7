"""TinyTL: on-device transfer learning with frozen weights (arXiv 2007.11622)."""
