"""Task "restoration": frames without annotations; PSNR and error inside and outside of the marks."""
