"""What image analysis measures of a lesion: segmentation and the ABC rule."""
