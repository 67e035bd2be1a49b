"""Task "segmentation": masks against expert masks, and the quality of noisy annotations."""
